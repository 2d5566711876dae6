"""Sphinx extension: launch and repository buttons where `repository.url` of `_config.yml` is known,
none while it is empty.

The theme stops at an empty address. Colab opens notebooks from GitHub only, so only such an address
makes a Colab button.
"""

from sphinx.application import Sphinx
from sphinx.config import Config


def choose_buttons(app: Sphinx, config: Config) -> None:
    options = config.html_theme_options
    url = options.get("repository_url") or ""
    options["use_repository_button"] = bool(url)
    if not url.startswith("https://github.com/"):
        options.pop("launch_buttons", None)
    if not url:
        options.pop("repository_url", None)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", choose_buttons, priority=100)  # before the theme reads its options
    return {"parallel_read_safe": True, "parallel_write_safe": True}
