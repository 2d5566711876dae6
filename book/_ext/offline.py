"""Sphinx extension: pages that work when they are opened from a disk.

The theme preloads its icon fonts as cross-origin requests, which browsers refuse for file://
addresses and report as errors. The style sheets load the same fonts without trouble, so the
preloading is taken out.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

PRELOADED_FONT = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


def remove_preloading(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if (cleaned := PRELOADED_FONT.sub("", text)) != text:
                page.write_text(cleaned, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", remove_preloading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
