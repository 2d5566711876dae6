"""Sphinx extension: pages that work when they are opened from a disk, and soon.

The theme preloads its icon fonts as cross-origin requests, which browsers refuse for file://
addresses and report as errors. The style sheets load the same fonts without trouble, so the
preloading is taken out. The theme then draws the icons a second time, by a script of 1.5 MB that
every page would wait for; the fonts suffice.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

PRELOADED_FONT = r'<link rel="preload" as="font"[^>]*>\s*'
ICON_SCRIPT = r'<(script|link rel="preload" as="script")[^>]*/fontawesome/[^>]*>(</script>)?\s*'
NEEDLESS = re.compile(f"{PRELOADED_FONT}|{ICON_SCRIPT}")


def remove_needless(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if (cleaned := NEEDLESS.sub("", text)) != text:
                page.write_text(cleaned, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", remove_needless)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
