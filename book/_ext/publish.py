"""Sphinx extension: what a page says of itself, and what a published site needs.

Each page says the book's version and the day on which it was stored, which is that of the last
commit that changed its file: two builds of a commit are equal. Pages of a shallow clone, or of no
clone, say the version only.

Where the repository's address is known (`launch`), so is the site's, https://OWNER.github.io/NAME/
or `html.baseurl` of `_config.yml`. Then there are a 404 page, `sitemap.xml`, and what other sites
show of a link to a page (Open Graph).
"""

import re
import subprocess
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from sphinx.application import Sphinx
from sphinx.config import Config

from distil_lib import __version__

NOT_FOUND = """<h1>Page not found</h1>
<p>There is no page at this address. It may have moved: the table of contents and the search know
where everything is. <a href="{start}">To the first page</a></p>"""
SOCIAL = "_static/social.png"  # 1200 x 630 pixels; `make pictures` draws it
SOCIAL_ALT = (
    "A teacher of six layers and a student of three read the same sentence; three losses "
    "train the student."
)


def site_address(repository: str) -> str:
    """Where GitHub or GitLab publishes the pages of a repository; "" for any other."""
    if not re.fullmatch(r"https://git(?:hub|lab)\.com/[^/]+/[^/]+", repository):
        return ""
    host, owner, name = repository.removeprefix("https://").split("/")
    site = f"{owner.lower()}.{host.removesuffix('.com')}.io"
    return f"https://{site}/" if name.lower() == site else f"https://{site}/{name}/"


def stored_on(folder: Path) -> dict[str, date]:
    """{path in the repository: day of the last commit that changed it}; {} where git cannot say."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    days: dict[str, date] = {}
    try:
        if git("rev-parse", "--is-shallow-repository").strip() != "false":
            return {}  # its oldest commit seems to have made every file
        log = git("log", "--format=%x00%cs", "--name-only", "--relative", "--", "book", "index.md")
    except (OSError, subprocess.CalledProcessError):
        return {}
    for commit in log.split("\0")[1:]:
        day, *paths = commit.split("\n")
        for path in filter(None, paths):
            days.setdefault(path, date.fromisoformat(day))  # the newest comes first
    return days


def read_days(app: Sphinx) -> None:
    app.stored_on = stored_on(Path(app.srcdir))


def day_of(app: Sphinx, page: str) -> date | None:
    return app.stored_on.get(str(app.env.doc2path(page, base=False)))


def add_version(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    sentence = f"Version {__version__}."
    if day := day_of(app, pagename):
        notebook = app.env.doc2path(pagename).endswith(".ipynb")
        subject = "This page and its outputs were" if notebook else "This page was"
        sentence += f" {subject} stored on {day.day} {day:%B %Y}."
    context["theme_extra_footer"] = f"<p>{sentence}</p>{context.get('theme_extra_footer', '')}"


def find_site(app: Sphinx, config: Config) -> None:
    """Set the site's address, and load the extensions that need it."""
    url = config.html_baseurl or site_address(config.html_theme_options.get("repository_url", ""))
    if not url:
        return
    config.html_baseurl = url
    for extension in ("notfound.extension", "sphinxext.opengraph"):
        app.setup_extension(extension)
    config.notfound_urls_prefix = start = urlsplit(url).path
    body = NOT_FOUND.format(start=start)
    config.notfound_context = {"title": "Page not found", "body": body}
    config.ogp_site_name = config.html_title
    config.ogp_site_url, config.ogp_image = url, url + SOCIAL
    config.ogp_image_alt, config.ogp_social_cards = SOCIAL_ALT, {"enable": False}


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html" or not app.config.html_baseurl:
        return
    entries = []
    for page in sorted(app.env.found_docs):
        address = escape(app.config.html_baseurl + app.builder.get_target_uri(page))
        day = day_of(app, page)
        changed = f"<lastmod>{day.isoformat()}</lastmod>" if day else ""
        entries.append(f"<url><loc>{address}</loc>{changed}</url>\n")
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{''.join(entries)}</urlset>\n",
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", find_site, priority=200)  # after `launch`, before the theme
    app.connect("builder-inited", read_days)
    app.connect("html-page-context", add_version)
    app.connect("build-finished", write_sitemap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
