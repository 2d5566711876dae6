"""The system's Chromium, for the scripts that draw and print with it."""

import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch_options() -> dict:
    """Arguments for Playwright's `chromium.launch`; ends the program where there is no Chromium.

    No name resolves in that browser: what is drawn is on this disk.
    """
    if (program := find_chromium()) is None:
        print("Chromium was not found. Install it (apt install chromium).", file=sys.stderr)
        sys.exit(2)
    return {"executable_path": program, "args": ["--host-resolver-rules=MAP * ~NOTFOUND"]}
