"""Chapter 9: half of the layers, and the time that is spent outside of them."""

from typing import TYPE_CHECKING

from distil_lib.pages.figures import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


def speedup(outside: float, layers: int, of: int = 12) -> float:
    """How many times as fast a model is whose layers are cut, by Amdahl's law.

    Args:
        outside: the share of the whole model's time that is spent outside of its layers.
        layers: how many layers are left.
        of: how many layers the whole model has.
    """
    return 1 / (outside + (1 - outside) * layers / of)


def _picture() -> "Picture":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3))
    shares = [i / 100 for i in range(61)]
    axes.plot(shares, [speedup(share, 6) for share in shares])
    axes.set(xlabel="share of the time outside the layers", ylabel="times as fast, 6 of 12 layers")
    return figure


FIGURE = Figure(
    title="Amdahl's law for a model with half of its layers",
    alt="A falling curve: 2 times as fast with nothing outside the layers, 1.25 times with 0.6.",
    picture=_picture,
    height=420,
)
