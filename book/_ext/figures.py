"""Sphinx extension: figures to drag (`distil_lib.pages.figures`) on the built pages.

A page with such a figure gets the style and the script that all figures share; that one fetches the
figure's own script, its data and the models, all from `_static`, when the figure comes near.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from distil_lib.pages.figures import data_script, find, names


def add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    if 'class="drag"' in context.get("body", ""):
        app.add_css_file("figures.css")
        app.add_js_file("figures.js", loading_method="defer")


def write_data(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for name in names():
            if find(name).data:
                path = Path(app.outdir, "_static", f"figure_{name}_data.js")
                path.write_text(data_script(name), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_files)
    app.connect("build-finished", write_data)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
