"""Opens built pages in headless Chromium, from file:// and without a network, over the DevTools protocol.

    with Browser(chromium) as browser:
        visit = browser.visit(Path("_build/html/index.html").as_uri(), width=375, dark=True)
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from websocket import create_connection

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-extensions --hide-scrollbars --remote-debugging-port=0"
).split()
# What the page looks like once everything has run: formulas found, typeset, and in error; how far it is wider than its window.
MEASURE = """(async () => {
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
  await document.fonts.ready;
  const root = document.documentElement;
  return {formulas: document.querySelectorAll('.math.notranslate').length,
          typeset: document.querySelectorAll('.math.notranslate mjx-container').length,
          errors: document.querySelectorAll('mjx-merror, mjx-mtext[style*="red"]').length,  // red: an unknown command
          overflow: root.scrollWidth - root.clientWidth,
          characters: document.body.innerText.length,
          dark: root.dataset.theme === "dark"};
})()"""


@dataclass
class Visit:
    """What happened while a page was opened."""

    problems: list[str] = field(default_factory=list)  # requests to other hosts, failed requests, errors in the console
    formulas: int = 0
    typeset: int = 0
    errors: int = 0  # formulas that MathJax refused
    overflow: int = 0  # pixels by which the page is wider than its window
    characters: int = 0  # of visible text
    dark: bool = False  # the theme that the page chose


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab of a headless Chromium with a profile of its own."""

    def __init__(self, program: str):
        self.profile = tempfile.mkdtemp()
        # No name resolves: whatever is not on this disk fails, and is noticed.
        command = [program, *FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self.profile}", "about:blank"]
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self.sent = 0
        self.events: list[dict] = []
        self.session = None
        port, path = self._address()
        self.socket = create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60, suppress_origin=True)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _address(self) -> list[str]:
        file = Path(self.profile, "DevToolsActivePort")
        for _ in range(300):
            if file.exists() and len(lines := file.read_text().split()) == 2:
                return lines
            time.sleep(0.1)
        raise TimeoutError("Chromium did not open its debugging port within 30 s.")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, **params: object) -> dict:
        """Send a command and return its answer; events that come in between are kept."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _wait_for(self, event: str) -> None:
        while not any(e.get("method") == event for e in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def visit(self, url: str, width: int = 1280, dark: bool = False, picture: Path | None = None) -> Visit:
        """Open a page, let it finish, and say what happened. `picture`: where to write a PNG of the whole page."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired")
        result = self.call("Runtime.evaluate", expression=MEASURE, awaitPromise=True, returnByValue=True)["result"]["value"]
        visit = Visit(problems=self._problems(), **result)
        if picture:
            shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        return visit

    def _problems(self) -> list[str]:
        problems, urls = [], {}
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent":
                url = urls[params["requestId"]] = params["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:", "about:")):
                    problems.append(f"asks another host: {url}")
            elif method == "Network.loadingFailed" and not params.get("canceled"):
                problems.append(f"request failed: {urls.get(params['requestId'])} ({params['errorText']})")
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                problems.append(f"script error: {details.get('exception', {}).get('description') or details['text']}")
            elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
                problems.append("console: " + " ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                problems.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        return problems
