"""The numbers that the DistilBERT paper and its secondary sources print, each with its place.

    paper_numbers("table1")      # 30 rows: system, task, metric, value, unit, source, ...
    table(1)                     # the same in the paper's layout: a row for each system
    Interval.around(77.0, 0.05) / Interval.around(79.5, 0.05)    # 0.967 to 0.970

The files lie in `data/paper`; its README says how each was checked. `source` is a key of the
book's references, or the description of a page that was not at hand. The paper is Sanh, Debut,
Chaumond and Wolf 2019, arXiv 1910.01108 (version 4).
"""

from dataclasses import dataclass
from math import ceil, floor

import pandas as pd

from distil_lib.common.paths import data_folder
from distil_lib.errors import UserError

SOURCE = "Sanh, Debut, Chaumond and Wolf 2019, arXiv 1910.01108"
TABLES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Interval:
    """All values from `low` to `high`, both included: what a rounded number may have been.

    Division is for positive numbers.
    """

    low: float
    high: float

    @classmethod
    def around(cls, value: float, rounding: float) -> "Interval":
        """All from value - rounding to value + rounding."""
        return cls(value - rounding, value + rounding)

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: "Interval") -> "Interval":
        return Interval(self.low - other.high, self.high - other.low)

    def __truediv__(self, other: "Interval") -> "Interval":
        return Interval(self.low / other.high, self.high / other.low)

    def meets(self, other: "Interval") -> bool:
        """Whether the two have a value in common, but for rounding of floats."""
        return self.low <= other.high + 1e-9 and other.low <= self.high + 1e-9


def right_answers(percent: float, examples: int, rounding: float = 0.05) -> list[int]:
    """Which numbers of right answers are printed as a percentage: [] exposes an impossible one.

    Args:
        percent: as it is printed, such as 44.4.
        examples: how many answers there were.
        rounding: half a unit of the last digit that was printed.
    """
    low, high = ((percent + r) / 100 * examples for r in (-rounding, rounding))
    return list(range(ceil(low - 1e-9), floor(high + 1e-9) + 1))


def paper_numbers(name: str) -> pd.DataFrame:
    """All numbers of `data/paper/<name>.csv`, in the file's order.

    `value` is a float in the row's `unit`. `rounding` is half a unit of the last digit that was
    printed, so that what was measured lies within value ± rounding: .05 for 89.0, .5 for 668. Zeros
    at the end of a whole number may be rounding too and are read so: 5 for 110.

    Args:
        name: "table1" to "table4", "abstract_and_text", "releases" (tables that the authors
            published beside the paper) or "secondary".

    Raises:
        UserError: There is no file of that name.
    """
    folder = data_folder("paper")
    names = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in names:
        raise UserError(
            f"There are no numbers called {name!r} in {folder}.",
            f"Choose one of {', '.join(names)}.",
        )
    # As text, because the digits that are printed say how a number was rounded.
    numbers = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
    numbers["rounding"] = numbers["value"].map(_half_unit)
    return numbers.astype({"value": float})


def table(number: int) -> pd.DataFrame:
    """Table 1, 2, 3 or 4 in the paper's layout: floats, NaN where the paper prints none.

    `attrs["source"]` says whose table it is.

    Raises:
        UserError: The paper has no table of that number.
    """
    if number not in TABLES:
        raise UserError(
            f"The paper has no Table {number!r}.", f"Choose one of {str(TABLES)[1:-1]}."
        )
    numbers = paper_numbers(f"table{number}")
    if number == 1:
        columns = numbers["task"].replace("GLUE", "Score")
    elif number == 2:
        metrics = numbers["metric"].replace({"exact match": "EM", "accuracy": "acc."})
        columns = numbers["task"] + " " + metrics
    else:
        columns = numbers["metric"] + " (" + numbers["unit"] + ")"
    layout = numbers.assign(column=columns).pivot(index="system", columns="column", values="value")
    layout = layout.loc[numbers["system"].unique(), columns.unique()]  # in the file's order
    layout = layout.rename_axis(index=None, columns=None)
    layout.attrs["source"] = f"{SOURCE}, Table {number}"
    return layout


def _half_unit(printed: str) -> float:
    """Half a unit of the last digit of a number that is printed in plain digits."""
    whole, _, decimals = printed.removeprefix("-").partition(".")
    zeros = len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
    return 0.5 * 10.0 ** (-len(decimals) if decimals else zeros)
