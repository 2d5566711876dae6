"""How the book's pages look: one style for all figures, and listings of the library.

    use_style()
    show_source(losses.soft_target_loss)      # in a notebook: the function's source, highlighted

matplotlib and IPython are imported when these are called, not before.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

# Okabe and Ito's colours: told apart by colour-blind readers. Each goes with a line style, a marker
# and a hatch, so that the figures are readable in grey as well.
COLORS = {"teacher": "#0072B2", "student": "#D55E00", "truth": "#000000", "baseline": "#999999"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def use_style() -> None:
    """Set matplotlib's defaults for a page.

    White paper, a light grid, and one cycle of colour, line style and marker together. Figures are
    5.5 inches wide, so that a telephone shows their letters at a readable size; panels are stacked.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.figsize": (5.5, 3.2),
            "figure.dpi": 130,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=CYCLE, linestyle=LINES, marker=MARKERS),
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.3,
            "lines.markersize": 4,
            "font.size": 10,
            "legend.frameon": False,
            "svg.hashsalt": "distil",
        }
    )


def show_source(thing: Callable[..., Any] | type) -> Any:
    """The lines of a function or class that do its work, as a highlighted listing.

    Docstrings, and the checks of arguments that only raise, are left out: they are in the file.
    """
    from IPython.display import Markdown

    return Markdown(f"```python\n{working_lines(textwrap.dedent(inspect.getsource(thing)))}```")


def working_lines(source: str) -> str:
    """Source code without docstrings and without statements that only raise."""
    lines = source.splitlines()
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for statement in node.body:
            match statement:
                case ast.Expr(ast.Constant()) | ast.If(body=[ast.Raise()], orelse=[]):
                    dropped.update(range(statement.lineno - 1, statement.end_lineno or 0))
    kept = "\n".join(line for number, line in enumerate(lines) if number not in dropped)
    return re.sub(r"(:\n)\n+", r"\1", re.sub(r"\n{3,}", "\n\n", kept)).rstrip("\n") + "\n"
