"""Draw the pictures of the book that are not made by a page, with the system's Chromium.

    make book && make pictures

`book/_static/social.png` is what other sites show of a link to the book;
`book/_static/fill_mask.png` is the README's: the models' answers on the built landing page.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
sys.path.insert(0, str(ROOT / "scripts"))
from system_chromium import launch_options  # noqa: E402

SOCIAL = """<!doctype html><style>
@font-face {{ font-family: "Source Sans 3"; font-weight: 400;
  src: url("{static}/fonts/source-sans-3-latin-400-normal.woff2") }}
@font-face {{ font-family: "Source Sans 3"; font-weight: 600;
  src: url("{static}/fonts/source-sans-3-latin-600-normal.woff2") }}
body {{ margin: 0; width: 1200px; height: 630px; display: flex; align-items: center;
  box-sizing: border-box; padding: 0 56px; gap: 48px; background: #0b3c5d; color: white;
  font: 34px/1.3 "Source Sans 3" }}
h1 {{ font-size: 84px; font-weight: 600; line-height: 1; margin: 0 0 28px }}
p {{ margin: 0 }}
img {{ width: 600px; flex: none }}
</style><div><h1>Distilling BERT</h1>
<p>Executed notebooks that rebuild DistilBERT on two CPU cores</p></div>
<img src="{static}/distillation.svg">"""


def main() -> None:
    page_file = ROOT / "_build" / "html" / "index.html"
    if not page_file.is_file():
        print("The landing page is not built: run `make book` first.", file=sys.stderr)
        sys.exit(2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        page.goto(page_file.as_uri())  # a page of a disk may load pictures of the disk
        page.set_content(SOCIAL.format(static=STATIC.as_uri()), wait_until="networkidle")
        page.evaluate("document.fonts.ready")
        page.screenshot(path=STATIC / "social.png")

        page = browser.new_page(viewport={"width": 1265, "height": 900})
        page.goto(page_file.as_uri())
        page.get_by_role("button", name="Fill the blank").click()
        page.get_by_text("median of").wait_for()
        page.locator("#drag-fill_in").screenshot(path=STATIC / "fill_mask.png")
        browser.close()


if __name__ == "__main__":
    main()
