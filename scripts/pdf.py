"""Print the book: the built pages in the order of the contents, as one PDF with links and outline.

    make pdf        # _build/distilling-bert.pdf

The articles of the built pages are joined into one HTML file, in which links lead to each other,
and the system's Chromium prints it by the print style of `custom.css`. No script of a page runs but
MathJax: figures to drag show their static picture. The library's reference is left out; links to it
lead to the published site, where that is known.
"""

import posixpath
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, SoupStrainer, Tag
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
JOINED = SITE / "_print.html"  # beside the pages, whose pictures and styles it uses
OUTPUT = ROOT / "_build" / "distilling-bert.pdf"
LEFT_OUT = "book/api"
PLACEHOLDER = BeautifulSoup("", "html.parser")
PAGE = """<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>
<meta charset="utf-8"><title>Distilling BERT</title>{styles}{scripts}</head>
<body class="printed-book"><div class="bd-main"><div class="bd-content">
<div class="bd-article-container">{articles}</div></div></div></body></html>"""
FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8pt sans-serif">'
    '<span class="pageNumber"></span></div>'
)


def printed_pages(contents: dict) -> list[tuple[str, str | None]]:
    """[(page, the caption of the part that it begins)] in the order of the contents."""
    pages: list[tuple[str, str | None]] = [(contents["root"], None)]
    for part in contents["parts"]:
        caption = part.get("caption")
        for chapter in part["chapters"]:
            if not chapter["file"].startswith(LEFT_OUT):
                pages.append((chapter["file"], caption))
                caption = None
    return pages


def anchor(page: str, fragment: str = "") -> str:
    return f"{page.replace('/', '-')}--{fragment}" if fragment else page.replace("/", "-")


def resolve(page: str, reference: str) -> tuple[str, str]:
    """(path in the site, fragment) of a link on a page."""
    parts = urlsplit(reference)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    return path if parts.path else f"{page}.html", parts.fragment


def article_of(page: str, html: str, pages: set[str], site: str) -> Tag:
    """The article of a page, with links and names that hold in the joined file.

    Args:
        page: its name, such as `book/01_soft_targets`.
        html: the built page.
        pages: the names of all pages that are printed.
        site: the address of the published site; "" if it is not known.
    """
    only = SoupStrainer("article", class_="bd-article")
    article = BeautifulSoup(html, "html.parser", parse_only=only).article
    for tag in article.select("script, .headerlink, .copybtn, form"):
        tag.decompose()
    for folded in article.select("details.hide"):
        if "solution" in folded.summary.text:  # an answer is printed, a check is not
            folded["class"].remove("hide")
    drawings = []  # which name their own parts
    for svg in article.select("svg:not(svg svg)"):
        place = PLACEHOLDER.new_tag("svg")
        svg.replace_with(place)
        drawings.append((place, svg))
    for tag in article.find_all(id=True):
        tag["id"] = anchor(page, tag["id"])
    for tag in article.find_all(href=True):
        if urlsplit(tag["href"]).scheme:
            continue
        path, fragment = resolve(page, tag["href"])
        name = path.removesuffix(".html")
        if name in pages:
            tag["href"] = "#" + anchor(name, fragment)
        elif site:
            tag["href"] = site + path + (f"#{fragment}" if fragment else "")
        else:
            del tag["href"]
    for tag in article.find_all(src=True):
        if not urlsplit(tag["src"]).scheme:
            tag["src"] = resolve(page, tag["src"])[0]
    for place, svg in drawings:
        place.replace_with(svg)
    article["id"] = anchor(page)
    return article


def joined(site: Path, contents: dict) -> str:
    """The whole book as one HTML page."""
    listed = printed_pages(contents)
    names = {page for page, _ in listed}
    front = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    canonical = front.find("link", rel="canonical")
    address = canonical["href"].removesuffix("index.html") if canonical else ""
    articles = []
    for page, caption in listed:
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        article = article_of(page, html, names, address)
        if caption:
            articles.append(f'<h1 class="part">{caption}</h1>')
        articles.append(str(article))
    styles = "".join(str(tag) for tag in front.select('link[rel="stylesheet"]'))
    # MathJax and its settings; its file is named by the pages that have formulas.
    page = (site / "book" / "01_soft_targets.html").read_text(encoding="utf-8")
    scripts = [
        str(tag).replace("../_static", "_static")
        for tag in BeautifulSoup(page, "html.parser").find_all("script")
        if "mathjax" in str(tag).lower()
    ]
    return PAGE.format(styles=styles, scripts="".join(scripts), articles="\n".join(articles))


def print_page(page_file: Path, output: Path) -> None:
    from system_chromium import launch_options

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(page_file.as_uri())
        page.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready; }")
        page.pdf(
            path=output,
            format="A4",
            margin={"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()


def page_count(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def main() -> None:
    if not (SITE / "index.html").is_file():
        print("The pages are not built: run `make book` first.", file=sys.stderr)
        sys.exit(2)
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    JOINED.write_text(joined(SITE, contents), encoding="utf-8")
    try:
        print_page(JOINED, OUTPUT)
    finally:
        JOINED.unlink()
    pdf = OUTPUT.read_bytes()
    print(f"{OUTPUT}: {page_count(pdf)} pages, {len(pdf) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
