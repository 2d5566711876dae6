"""The book as one PDF: links that hold in the joined file, and Chromium's print of it.

Oracles: the anchors and pictures that are there, and pages and links counted by hand.
"""

import collections
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from browser import missing_browser
from bs4 import BeautifulSoup
from pages import COLOURED

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
sys.path.insert(0, str(ROOT / "scripts"))
import pdf  # noqa: E402

ARTICLE = """<html><article class="bd-article"><h1 id="top">Title<a class="headerlink">#</a></h1>
<a href="#top">up</a><a href="b.html#there">on</a><a href="../index.html">home</a>
<a href="api/core.html#Student">code</a><a href="https://example.org/">paper</a>
<img src="../_images/dot.png"><svg><marker id="m"></marker><use href="#m"></use></svg>
<details class="hide"><summary>Show the solution</summary></details>
<details class="hide"><summary>Show the checks</summary></details>
<script>later()</script></article></html>"""


@pytest.mark.parametrize("site", ["https://owner.github.io/name/", ""])
def test_links_of_a_page_hold_in_the_joined_file(site):
    pages = {"index", "book/a", "book/b"}
    article = pdf.article_of("book/a", ARTICLE, pages, site)
    assert article["id"] == "book-a" and article.h1["id"] == "book-a--top"
    outside = [f"{site}book/api/core.html#Student"] if site else [None]
    links = [tag.get("href") for tag in article.find_all("a")]
    assert links == [
        "#book-a--top",
        "#book-b--there",
        "#index",
        *outside,
        "https://example.org/",
    ]
    assert article.img["src"] == "_images/dot.png"
    assert article.marker["id"] == "m" and article.use["href"] == "#m"
    assert article.script is None
    answer, check = article.find_all("details")  # the print style leaves out what is `hide`
    assert "hide" not in answer["class"] and "hide" in check["class"]


def test_every_link_and_picture_of_the_book_is_in_the_joined_file():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    book = BeautifulSoup(COLOURED.sub("", pdf.joined(SITE, contents)), "html.parser")
    for svg in book.select("svg"):
        svg.decompose()  # a drawing names its own parts
    names = [tag["id"] for tag in book.find_all(id=True)]
    repeated = [name for name, number in collections.Counter(names).items() if number > 1]
    links = [tag["href"] for tag in book.select("article a[href]")]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert len(inner) > 100 and set(inner) <= set(names)
    assert not set(inner) & set(repeated)  # what is linked to is there once
    assert all(urlsplit(link).scheme for link in links if not link.startswith("#"))
    for picture in book.select("article img"):
        assert urlsplit(picture["src"]).scheme or (SITE / picture["src"]).is_file(), picture
    assert len(book.select("article.bd-article")) == len(pdf.printed_pages(contents)) > 20
    assert book.find("script", src=lambda source: source and "mathjax" in source)


@pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser()))
def test_a_page_is_printed_with_its_links(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<script>window.MathJax = {startup: {promise: Promise.resolve()}};</script>"
        '<h1>One</h1><a href="#two">on</a><h1 id="two" style="break-before: page">Two</h1>'
    )
    pdf.print_page(page, tmp_path / "page.pdf")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert pdf.page_count(printed) == 2 and printed.count(b"/Subtype /Link") == 1
    assert b"/Outlines" in printed


HEADINGS = """<style>%s h1 { line-height: 0.9; margin: 0; }</style>
<script>window.MathJax = {startup: {promise: Promise.resolve()}};</script><div class="printed-book">
<article class="bd-article"><h1>One</h1></article>
<article class="bd-article"><h1>Two %s</h1></article></div>"""


@pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser()))
def test_the_outline_names_each_heading_once(tmp_path):
    """Also one that begins a page, with letters higher than its line, and one of two lines."""
    long = " ".join(["word"] * 30)
    style = (ROOT / "book" / "_static" / "custom.css").read_text(encoding="utf-8")

    def titles(style: str) -> list[bytes]:
        page = tmp_path / "page.html"
        page.write_text(HEADINGS % (style, long))
        pdf.print_page(page, tmp_path / "page.pdf")
        return re.findall(rb"/Title \((.*?)\)", (tmp_path / "page.pdf").read_bytes())

    assert titles(style)[-2:] == [b"One", f"Two {long}".encode()]
    assert titles("article { break-before: page; }")[-1] != f"Two {long}".encode()  # it can fail
