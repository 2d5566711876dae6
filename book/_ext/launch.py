"""Sphinx extension: what follows from the repository's address.

The address is `repository.url` of `_config.yml`; where that is empty, the remote `origin`, if it is
a public one on GitHub or GitLab. With an address, pages get buttons (Colab, Binder, the repository,
edit, issue), and the set-up cell that a reader copies or downloads from a page knows where to fetch
the library. Without one there is no button. The stored notebooks do not change: `make address`
writes the address into `_config.yml` and into them.

Colab opens notebooks from GitHub only, so only such an address makes a Colab button.
"""

import re
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

# https://github.com/OWNER/NAME.git, git@github.com:OWNER/NAME.git, ssh://git@github.com/OWNER/NAME;
# a name and a password before the host are left out of the address.
PUBLIC = re.compile(
    r"(?:https://(?:[^/@]+@)?|ssh://git@|git@)(git(?:hub|lab)\.com)[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)
UNKNOWN = r"REPOSITORY = \"\""  # a line of the set-up cell, as a notebook's file holds it


def public_address(remote: str) -> str:
    """https://HOST/OWNER/NAME for a remote on GitHub or GitLab; "" for any other."""
    found = PUBLIC.fullmatch(remote.strip())
    return f"https://{found[1]}/{found[2]}/{found[3]}" if found else ""


def origin(folder: Path) -> str:
    """The address of the remote `origin`; "" if there is none, or no git."""
    command = ["git", "-C", str(folder), "config", "--get", "remote.origin.url"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return public_address(done.stdout) if done.returncode == 0 else ""


def choose_buttons(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    configured = options.get("repository_url") or ""
    url = public_address(configured) or configured or origin(Path(app.srcdir))
    options["use_repository_button"] = bool(url)
    for name in ("edit_page", "issues"):  # elsewhere the theme does not know where they lead
        options[f"use_{name}_button"] = bool(public_address(url))
    if url:
        options["repository_url"] = url
    else:  # the theme stops at an empty address
        options.pop("repository_url", None)
        options.pop("launch_buttons", None)
    if not url.startswith("https://github.com/"):
        options.get("launch_buttons", {}).pop("colab_url", None)


def with_address(notebook: str, url: str) -> str:
    """The text of a notebook's file, with the address in its set-up cell."""
    return notebook.replace(UNKNOWN, rf"REPOSITORY = \"{url}\"")


def show_address(app: Sphinx, docname: str, source: list[str]) -> None:
    if url := app.config.html_theme_options.get("repository_url"):
        source[0] = with_address(source[0], url)


def write_downloads(app: Sphinx, error: Exception | None) -> None:
    """The same for the notebooks that the pages' download button gives."""
    url = app.config.html_theme_options.get("repository_url")
    if error is None and url:
        for path in Path(app.outdir, "_sources").rglob("*.ipynb"):
            path.write_text(with_address(path.read_text(encoding="utf-8"), url), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose_buttons, priority=100)  # before the theme reads its options
    app.connect("source-read", show_address)
    app.connect("build-finished", write_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
