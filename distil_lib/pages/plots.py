"""How the book's pages look: one style for all figures, and listings of the library.

    use_style()
    show_source(losses.soft_target_loss)      # in a notebook: the function's source, highlighted

matplotlib and IPython are imported when these are called, not before.
"""

import inspect
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

    White paper, a light grid, and one cycle of colour, line style and marker together.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.4),
            "figure.dpi": 130,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=CYCLE)
            + cycler(linestyle=LINES)
            + cycler(marker=MARKERS),
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
    """The source of a function or class, as a highlighted listing."""
    from IPython.display import Markdown

    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```")
