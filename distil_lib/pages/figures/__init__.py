"""Figures to drag: the same figure in the built book, in JupyterLab and in Colab.

    drag("temperature")     # in a notebook's cell

A figure NAME consists of `book/_static/figure_NAME.js`, which draws it, and of the module
`distil_lib.pages.figures.NAME`, whose `FIGURE` says what it needs and has its static picture. In a
notebook `drag` writes all scripts into a frame of the output, so that neither a server nor a
network is needed. The models' weights are 16 MB, which a notebook would save with each output:
without `models=True` a figure has their recorded answers, and asks the other outputs for weights
(a `BroadcastChannel`: outputs share an origin, in Colab too, where each has a window of its own).
While the book is executed (`DISTIL_FIGURES=static`) `drag` leaves an element with the picture
instead, which `book/_ext/figures.py` brings to life on the built page.
"""

import base64
import html
import importlib
import io
import json
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distil_lib.common.paths import PROJECT
from distil_lib.errors import UserError

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure as Picture

STATIC = PROJECT / "book" / "_static"
FRAME = """\
<div><iframe title="{title}" style="border:0;width:100%;height:{height}px" srcdoc="{page}"></iframe>
</div>"""
PAGE = """\
<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
body {{ font-family: sans-serif; margin: 0.5rem; }}
html[data-theme="dark"] {{
  --pst-color-text-base: #eeeeee; --pst-color-background: #121212; background: #121212;
}}
{style}</style></head><body>{element}
{scripts}</body></html>"""


@dataclass(frozen=True)
class Figure:
    """One figure to drag.

    Attributes:
        title: a name for screen readers.
        alt: what the static picture shows, with its numbers.
        picture: draws the static picture, in matplotlib.
        data: recorded data that the script gets as `figure.data`, or None.
        models: whether teacher and student answer in it.
        height: of the frame in a notebook, in pixels.
    """

    title: str
    alt: str
    picture: "Callable[[], Picture]"
    data: Callable[[], dict[str, Any]] | None = None
    models: bool = False
    height: int = 640


def names() -> list[str]:
    """The names of all figures."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def find(name: str) -> Figure:
    """The figure of a name. Raises `UserError` if there is none."""
    if name not in names():
        raise UserError(f"There is no figure {name!r}.", f"There are: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}").FIGURE


def drag(name: str, models: bool = False) -> "HTML":
    """A figure for a notebook's output: live, or a picture while the book is executed.

    Args:
        name: of the figure.
        models: put teacher and student into the output, 16 MB, for sentences of the reader's own.
    """
    from IPython.display import HTML

    if os.environ.get("DISTIL_FIGURES") == "static":
        return HTML(element(name))
    figure = find(name)
    page = html.escape(standalone(name, models))
    return HTML(FRAME.format(title=figure.title, height=figure.height, page=page))


def element(name: str) -> str:
    """What stands in a page: the static picture, in whose place the live figure comes."""
    import matplotlib.pyplot as plt

    figure, picture = find(name), io.BytesIO()
    drawn = figure.picture()
    drawn.savefig(picture, format="png", dpi=110)
    plt.close(drawn)
    source = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    recorded = ' data-recorded="yes"' if figure.data else ""
    return (
        f'<div class="drag" id="drag-{name}" data-name="{name}"{recorded} role="group" '
        f'aria-label="{html.escape(figure.title)}"><div class="drag-static">'
        f'<img alt="{html.escape(figure.alt)}" src="{source}"></div></div>'
    )


def data_script(name: str) -> str:
    """The recorded data of a figure, as a script."""
    data = find(name).data
    assert data is not None, name
    return f"Figures.data.{name} = {json.dumps(data(), separators=(',', ':'))};"


def standalone(name: str, models: bool = False) -> str:
    """A page that holds one figure and whatever it needs; the models' weights only if asked."""
    figure = find(name)
    files = ["figures.js"] + ["fill_mask.js"] * figure.models
    sources = [(STATIC / file).read_text(encoding="utf-8") for file in files]
    if figure.models and models:
        from distil_lib.export.browser import stored_model

        sources += [stored_model(model)[2] for model in ("teacher", "student")]
    if figure.data:
        sources.append(data_script(name))
    sources.append((STATIC / f"figure_{name}.js").read_text(encoding="utf-8"))
    return PAGE.format(
        title=figure.title,
        style=(STATIC / "figures.css").read_text(encoding="utf-8"),
        element=element(name),
        scripts="".join(f"<script>{source}</script>" for source in sources),
    )
