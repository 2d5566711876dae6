"""The paper's numbers: copied right, each with its source, in files without a fault."""

import csv
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.errors import UserError
from distil_lib.pages import paper_numbers as paper
from distil_lib.pages.paper_numbers import Interval, paper_numbers, right_answers, table
from distil_lib.tasks.metrics import macro_score

NAMES = ("table1", "table2", "table3", "table4", "abstract_and_text", "releases", "secondary")
NOT_AT_HAND = {"results page", "summary", "reproduction check"}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The files where they may be damaged."""
    shutil.copytree(data_folder("paper"), tmp_path / "paper")
    monkeypatch.setattr(paper, "data_folder", tmp_path.joinpath)
    return tmp_path / "paper"


def test_every_number_has_a_source_that_the_book_cites_or_says_it_could_not_see(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)  # the files are found from anywhere
    keys = set(
        re.findall(
            r"^@\w+\{(\S+),",
            (PROJECT / "book" / "references.bib").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    for name in NAMES:
        numbers = paper_numbers(name)
        described = (
            set(numbers.get("source")[numbers["access"] == "described"])
            if "access" in numbers
            else set()
        )
        assert described == (NOT_AT_HAND if name == "secondary" else set())
        assert set(numbers["source"]) - described <= keys
        assert not numbers.duplicated(["system", "task", "metric", "source", "place"]).any()
        assert f"`{name}.csv`" in (data_folder("paper") / "README.md").read_text(encoding="utf-8")


def test_macro_scores_are_the_means_of_their_rows_but_for_the_known_slip():
    """Oracle: the mean, to within the rounding of nine entries and of itself.

    BERT's row fails as printed, and holds with MNLI 84.7.
    """
    scores, may_differ = table(1), 0.05 + 0.05 + 1e-9
    apart = {
        system: abs(macro_score(row.drop("Score"))["nine"] - row["Score"])
        for system, row in scores.iterrows()
    }
    assert apart["ELMo"] < may_differ and apart["DistilBERT"] < may_differ < apart["BERT-base"]
    scores.loc["BERT-base", "MNLI"] = 84.7
    assert macro_score(scores.loc["BERT-base"].drop("Score"))["nine"] == pytest.approx(79.5)


def test_table_1_against_the_authors_other_copy_of_it():
    """Oracle: the table of the released code, typed by its authors a second time, differs in MNLI
    alone.
    """
    released = paper_numbers("releases").query("source == 'sanh2019code'").replace("GLUE", "Score")
    printed = table(1)
    differ = {
        (row.system, row.task): row.value
        for row in released.itertuples()
        if row.task in printed and row.value != printed.loc[row.system, row.task]
    }
    assert differ == {("BERT-base", "MNLI"): 84.7, ("DistilBERT", "MNLI"): 82.1}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_table_holds_each_number_of_its_file_once(number):
    with (data_folder("paper") / f"table{number}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    layout = table(number)
    assert sorted(layout.stack().dropna()) == sorted(float(row["value"]) for row in rows)
    assert list(layout.index) == list(dict.fromkeys(row["system"] for row in rows))
    assert layout.attrs["source"].endswith(f"1910.01108, Table {number}")
    for row in rows:
        assert float(row["value"]) in layout.loc[row["system"]].to_list()


def test_rounding_is_half_of_the_last_digit_that_is_printed(copy):
    by_hand = {
        "89.0": 0.05,
        "-0.31": 0.005,
        ".907": 0.0005,
        "668": 0.5,
        "110": 5.0,
        "4000": 500.0,
        "0": 0.5,
        "207": 0.5,
    }
    header, first, *_ = (copy / "table4.csv").read_text(encoding="utf-8").splitlines()
    (copy / "table4.csv").write_text(
        "\n".join([header, *(first.replace("-2.96", text) for text in by_hand)]), encoding="utf-8"
    )
    found = paper_numbers("table4")
    assert found["rounding"].to_list() == pytest.approx(list(by_hand.values()))
    assert found["value"].to_list() == [float(text) for text in by_hand]


@pytest.mark.parametrize("operation", ["__add__", "__sub__", "__truediv__"])
def test_an_interval_holds_all_results_and_no_more(operation):
    """Oracle: the operation on many pairs of numbers of the two intervals, with their ends."""
    a, b = Interval.around(77.0, 0.05), Interval(79.45, 79.55)
    grid = getattr(np.linspace(76.95, 77.05, 21)[:, None], operation)(np.linspace(79.45, 79.55, 21))
    result = getattr(a, operation)(b)
    assert (result.low, result.high) == pytest.approx((grid.min(), grid.max()), rel=1e-12)


def test_intervals_that_touch_meet():
    assert (
        Interval(1, 2).meets(Interval(2, 3))
        and Interval(2, 3).meets(Interval(1, 2))
        and Interval(0, 9).meets(Interval(4, 5))
    )
    assert not Interval(1, 2).meets(Interval(2.001, 3)) and not Interval(2.001, 3).meets(
        Interval(1, 2)
    )
    assert Interval.around(0.1 + 0.2, 0.0).meets(Interval.around(0.3, 0.0))


@pytest.mark.parametrize(
    ("ask", "name"),
    [(paper_numbers, "table5"), (paper_numbers, "../README"), (table, 0), (table, "one")],
)
def test_a_name_that_is_none_is_answered_with_those_that_are(ask, name):
    with pytest.raises(
        UserError, match=r"Choose one of (abstract_and_text, .*table4|1, 2, 3, 4)\."
    ):
        ask(name)


COLUMNS = ["system", "task", "metric", "value", "unit", "source", "place"]


def faults(path) -> list[str]:
    """What is wrong in a file of numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    found = [f"no column {name}" for name in COLUMNS if name not in header]
    if found or not rows:
        return found or ["no numbers"]
    found = [f"{len(row)} cells" for row in rows if len(row) != len(header)]
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    found += [f"no {name}" for name in COLUMNS if name != "unit" and (cells[name] == "").any()]
    wrong = ~cells["value"].str.fullmatch(r"-?\d*\.?\d+", flags=re.ASCII)
    return found + [f"{value!r} is no number" for value in cells["value"][wrong]]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_whole(name):
    assert not faults(data_folder("paper") / f"{name}.csv")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("value,", "", "no column value"),
        (",unit,source", ",unit", "no column source"),
        ("668", "668 s", "'668 s' is no number"),
        ("668", "nan", "'nan' is no number"),
        ("668", "1e3", "'1e3' is no number"),
        (",seconds,sanh2019distilbert", ",seconds,", "no source"),
        (",66,millions", ",66", "6 cells"),
    ],
)
def test_a_planted_fault_is_found(copy, old, new, fault):
    path = copy / "table3.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert fault in faults(path)


def test_right_answers_are_those_that_round_to_the_percentage():
    """Oracle: every number of right answers, printed by Python, which no tie disturbs here."""
    for examples in (7, 71, 277):
        printed = [f"{100 * k / examples:.1f}" for k in range(examples + 1)]
        for value in range(1001):
            expected = [k for k, text in enumerate(printed) if text == f"{value / 10:.1f}"]
            assert right_answers(value / 10, examples) == expected
    assert right_answers(91.25, 800, 0.005) == [730]
    # A tie may be rounded either way: 1 of 800 is 0.125%.
    assert right_answers(0.12, 800, 0.005) == right_answers(0.13, 800, 0.005) == [1]
