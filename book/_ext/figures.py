"""Sphinx extension: figures to drag (`distil_lib.pages.figures`) on the built pages.

    ```{drag} fill_in
    ```

puts a figure into a page that is not executed; a notebook has it in a cell's output. A page with a
figure gets the style and the script that all figures share; that one fetches the figure's own
script, its data and the models, all from `_static`, when they are needed. Our own scripts are
loaded without comments and indents: beside each X.js the build writes X.min.js. The models are
packed by the build, so the repository holds their weights once.
"""

from pathlib import Path

from docutils import nodes
from rjsmin import jsmin
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from distil_lib.export.browser import stored_model
from distil_lib.pages.figures import STATIC, data_script, element, find, names

SCRIPTS = ("figures.js", "figure_*.js", "fill_mask.js")


class Drag(SphinxDirective):
    """A figure to drag, by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", element(self.arguments[0]), format="html")]


def add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    if 'class="drag"' in context.get("body", ""):
        app.add_css_file("figures.css")
        app.add_js_file("figures.min.js", loading_method="defer")


def short_scripts() -> dict[str, str]:
    """What a reader loads of our own JavaScript: {file: source}."""
    files = [path for pattern in SCRIPTS for path in sorted(STATIC.glob(pattern))]
    return {file.stem + ".min.js": jsmin(file.read_text(encoding="utf-8")) for file in files}


def write_files(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    scripts = short_scripts()
    scripts |= {f"figure_{name}_data.js": data_script(name) for name in names() if find(name).data}
    scripts |= {f"fill_mask_{name}.js": stored_model(name)[2] for name in ("teacher", "student")}
    for file, source in scripts.items():
        Path(app.outdir, "_static", file).write_text(source, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("drag", Drag)
    app.connect("html-page-context", add_files)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
