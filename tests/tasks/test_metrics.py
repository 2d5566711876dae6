"""GLUE's metrics by their definitions, and the macro score of the paper's own table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.tasks.metrics import METRICS, macro_score


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_figures_of_binary_tasks_follow_from_the_four_counts(pairs):
    """Oracle: the definitions, in the numbers of true and false positives and negatives."""
    predictions, labels = ([int(pair[side]) for pair in pairs] for side in (0, 1))
    tp, fp, fn, tn = (
        sum(pair == kind for pair in pairs) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    right, f1 = 100 * (tp + tn) / len(pairs), 100 * 2 * tp / max(2 * tp + fp + fn, 1)
    assert METRICS["matthews"](predictions, labels)["matthews"] == pytest.approx(
        100 * (tp * tn - fp * fn) / root if root else 0.0
    )
    assert METRICS["accuracy"](predictions, labels)["accuracy"] == pytest.approx(right)
    both = METRICS["accuracy and F1"](predictions, labels)
    assert both == pytest.approx({"accuracy and F1": (right + f1) / 2, "accuracy": right, "f1": f1})


def test_correlations_by_hand():
    """Ranks (1, 2, 3, 4) against (1, 3, 2, 4): Spearman is 1 - 6 * 2 / (4 * 15) = .8, and numpy
    knows Pearson.
    """
    predictions, labels = [0.0, 1.0, 2.0, 10.0], [0.0, 3.0, 1.0, 5.0]
    pearson = 100 * np.corrcoef(predictions, labels)[0, 1]
    figures = METRICS["Pearson and Spearman"](predictions, labels)
    assert figures == pytest.approx(
        {"Pearson and Spearman": (pearson + 80) / 2, "pearson": pearson, "spearman": 80}
    )
    assert METRICS["spearman"](predictions, labels) == pytest.approx({"spearman": 80})
    assert METRICS["spearman"](np.ones(4), labels) == {
        "spearman": 0
    }  # who says the same of everything knows nothing


def test_the_reported_figure_bears_the_metrics_name_and_comes_first():
    for name, metric in METRICS.items():
        examples = (["a"], [["a"]]) if name == "f1" else ([0, 1, 1, 0], [0, 1, 0, 0])
        assert next(iter(metric(*examples))) == name


def test_macro_score_is_the_papers():
    """Oracle: DistilBERT's row of the paper's Table 1, whose own mean of nine is printed as 77.0;
    WNLI's part is the difference.
    """
    names = ["CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"]
    row = dict(zip(names, [51.3, 82.2, 87.5, 89.2, 88.5, 59.9, 91.3, 86.9, 56.3], strict=True))
    macro = macro_score(row | {"imdb": 92.8})
    assert round(macro["nine"], 1) == 77.0
    assert 9 * macro["nine"] - 8 * macro["eight"] == pytest.approx(56.3)
    del row["WNLI"]
    assert macro_score(row)["eight"] == macro["eight"] and math.isnan(macro_score(row)["nine"])
    del row["SST-2"]
    with pytest.raises(UserError, match="sst2"):
        macro_score(row)
