"""Reads built pages without a browser: do their links lead somewhere, and do they load anything
from another host?

    problems = check_site(Path("_build/html"))    # sentences, one for each fault; [] if none

Nothing is fetched from the network.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

LINKS = ("href", "src", "poster", "data", "xlink:href", "action")
CSS_REFERENCE = re.compile(
    r"""url\(\s*(?P<q>["']?)(?P<url>.*?)(?P=q)\s*\)|@import\s+["'](?P<imported>[^"']+)["']"""
)
REMOTE_IN_SCRIPT = re.compile(r"""["'`]\s*((?:https?:|wss?:)?//[\w.-]+\.[a-z]{2,}[^"'`\s]*)""")
# The colours of code, four fifths of all tags. Spans with more than a class are read, left open.
COLOURED = re.compile(r"""<span(?: class="[\w -]*")?>|</span>""")
NAMESPACES = ("http://www.w3.org/",)


def page_files(site: Path) -> list[Path]:
    """All pages that are opened from a disk.

    `_static` holds templates of the theme, which nobody opens; 404.html needs a server.
    """
    files = (p for p in site.rglob("*.html") if "_static" not in p.relative_to(site).parts)
    return sorted(path for path in files if path != site / "404.html")


def check_site(site: Path) -> list[str]:
    """Every fault of every page and style sheet, as `page: what is wrong`."""
    pages = {
        path.resolve(): BeautifulSoup(
            COLOURED.sub("", path.read_text(encoding="utf-8")), "html.parser"
        )
        for path in page_files(site)
    }
    anchors = {path: _anchors(page) for path, page in pages.items()}
    problems = []
    for path, page in pages.items():
        found = [
            *_broken_links(path, page, anchors),
            *_remote_loads(path, page),
            *_images_without_text(page),
        ]
        problems += [f"{path.relative_to(site.resolve())}: {problem}" for problem in found]
    for path in sorted(site.rglob("*.css")):
        problems += [
            f"{path.relative_to(site)}: {problem}"
            for problem in _css_problems(path.read_text(encoding="utf-8"), path)
        ]
    return problems


def _anchors(page: BeautifulSoup) -> set[str]:
    return {tag["id"] for tag in page.find_all(id=True)} | {
        tag["name"] for tag in page.find_all("a", attrs={"name": True})
    }


def _references(tag: Tag) -> list[str]:
    found = [tag[name] for name in LINKS if tag.has_attr(name)]
    found += [part.split()[0] for part in tag.get("srcset", "").split(",") if part.strip()]
    if tag.name == "meta" and tag.get("http-equiv", "").lower() == "refresh":
        found.append(tag["content"].partition("url=")[2])
    return found


def _is_remote(reference: str) -> bool:
    return reference.strip().startswith("//") or urlsplit(reference.strip()).scheme in (
        "http",
        "https",
        "ftp",
        "ws",
        "wss",
    )


def _broken_links(path: Path, page: BeautifulSoup, anchors: dict[Path, set[str]]) -> list[str]:
    problems = []
    for tag in page.find_all(True):
        for reference in _references(tag):
            parts = urlsplit(reference.strip())
            if parts.scheme or _is_remote(reference):  # another host, data:, mailto:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if fragment.startswith("drag-"):  # a figure to drag, and the state to show it in
                fragment = fragment.partition("?")[0]
            if not target.is_file():
                problems.append(f"{reference} leads nowhere")
            elif fragment and target in anchors and fragment not in anchors[target]:
                problems.append(f"{reference} names an anchor that is not there")
    return problems


def _remote_loads(path: Path, page: BeautifulSoup) -> list[str]:
    """Whatever a browser would fetch by itself. A link to follow (`<a href>`) may lead anywhere."""
    problems = []
    for tag in page.find_all(True):
        if tag.name != "a" and "canonical" not in tag.get("rel", []):
            problems += [f"<{tag.name}> loads {r}" for r in _references(tag) if _is_remote(r)]
        problems += [
            f"a style of <{tag.name}>: {p}" for p in _css_problems(tag.get("style", ""), path)
        ]
        if tag.name == "style":
            problems += _css_problems(tag.get_text(), path)
        if tag.name == "script" and "json" not in tag.get("type", ""):
            remote = [
                url
                for url in REMOTE_IN_SCRIPT.findall(tag.get_text())
                if not url.startswith(NAMESPACES)
            ]
            problems += [f"a script names {url}" for url in remote]
    return problems


def _css_problems(css: str, path: Path) -> list[str]:
    problems = []
    for match in CSS_REFERENCE.finditer(re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)):
        reference = match["url"] or match["imported"] or ""
        if _is_remote(reference):
            problems.append(f"style loads {reference}")
        elif reference.startswith(("data:", "#")) or not reference:
            continue
        elif not (path.parent / unquote(urlsplit(reference).path)).is_file():
            problems.append(f"style needs {reference}, which is not there")
    return problems


def _images_without_text(page: BeautifulSoup) -> list[str]:
    """Figures need words for those who do not see them; a file name, which is what tools put there,
    is none.
    """
    images = page.select("article.bd-article figure img, article.bd-article .cell_output img")
    return [
        f"{tag.get('src')} has no alt text"
        for tag in images
        if not re.search(r"\w\s+\w", tag.get("alt", ""))
    ]
