"""Records of fine-tuning: whole files, medians, scores of resamples, and intervals that cover what
they should.
"""

import json

import numpy as np
import pytest
from scipy import stats

from distil_lib.common import files
from distil_lib.common.files import write_result
from distil_lib.errors import UserError
from distil_lib.finetune.records import (
    join_numbers,
    median_and_quartiles,
    open_record,
    read_record,
    recipe_differences,
    split_numbers,
)
from distil_lib.finetune.retention import retention, weighted_scores
from distil_lib.tasks.metrics import METRICS

random = np.random.default_rng(0)


def record(predictions, labels, metric="accuracy", task="toy", data="abc"):
    """Of one split, "test", with a seed for each row of predictions."""
    score = lambda row: {"f1": np.mean(row)} if metric == "f1" else METRICS[metric](row, labels)
    seeds = {
        str(i): {"scores": {"test": score(row)}, "predictions": {"test": join_numbers(row)}}
        for i, row in enumerate(predictions)
    }
    made = {
        "task": task,
        "configuration": {"data": {"test": data}},
        "labels": {"test": join_numbers(labels)},
    }
    return made | {"metric": metric, "split": "test", "seeds": seeds}


def test_a_file_is_complete_or_that_of_before(tmp_path, monkeypatch):
    first = record([[1, 0]], [1, 0])
    write_result(tmp_path / "new" / "result.json", first)
    with monkeypatch.context() as broken, pytest.raises((OSError, UserError)):
        broken.setattr(
            files.os,
            "fsync",
            lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        write_result(tmp_path / "new" / "result.json", record([[0, 0]], [1, 0]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.json"]
    assert open_record(tmp_path / "new" / "result.json", first["configuration"]) == first
    assert open_record(tmp_path / "none.json", {}) == {}


def test_another_configuration_is_refused_with_the_differences(tmp_path):
    file, made = tmp_path / "result.json", record([[1, 0]], [1, 0])
    configuration = made["configuration"]
    write_result(file, made | {"configuration": configuration | {"epochs": 3, "lr": 0.1}})
    words = "another configuration: epochs was 3 and is 4, more was None and is 1"
    with pytest.raises(UserError, match=words):
        open_record(file, configuration | {"epochs": 4, "lr": 0.1, "more": 1})


@pytest.mark.parametrize(
    "damage",
    [
        {name: value}
        for name in ("task", "metric", "split", "configuration", "seeds", "labels")
        for value in (None, 5, [], {})
        if (name, value) != ("labels", {})
    ]
    + [
        {"configuration": {"data": None}},
        {"seeds": {"a": {}}},
        {"seeds": {"0": None}},
        {"seeds": {"0": {"scores": {"test": {"accuracy": float("nan")}}}}},
        {"seeds": {"0": {"scores": {"test": {"accuracy": 5}}, "predictions": {"test": "1 x"}}}},
        {"seeds": {"0": {"scores": {"test": {"accuracy": 5}}, "predictions": {"test": "1 nan"}}}},
        {"seeds": {"0": {"scores": {"test": {"accuracy": 5}}, "predictions": {"test": "1 0 1"}}}},
        {"labels": {"test": 5}},
        {"labels": {"test": "1"}},
    ],
    ids=str,
)
def test_a_damaged_or_foreign_record_is_refused(tmp_path, damage):
    """Whatever a part holds: one message that names the file, and never another exception."""
    file = tmp_path / "result.json"
    file.write_text(json.dumps(record([[1, 0]], [1, 0]) | damage))
    with pytest.raises(UserError, match=r"result\.json is no result of fine-tuning"):
        read_record(file)


def test_what_is_no_record_at_all_is_refused(tmp_path):
    file = tmp_path / "result.json"
    for text in ("{", "[]", "{}", "null", "5", "[" * 100_000, "\x00"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"result\.json is no result"):
            read_record(file)


ALTERED = {
    "a score": lambda r: r["seeds"]["1"]["scores"]["test"].update(accuracy=90.0),
    "a score that is missing": lambda r: r["seeds"]["1"]["scores"].update(test={}),
    "a score of another split": lambda r: r["seeds"]["0"]["scores"]["more"].update(accuracy=51.0),
    "an answer": lambda r: r["seeds"]["0"]["predictions"].update(test="1 1 1 1"),
    "a label": lambda r: r["labels"].update(test="1 1 0 0"),
    "the median": lambda r: r["summary"]["test"]["accuracy"].update(median=90.0),
    "a quartile": lambda r: r["summary"]["more"]["accuracy"].update(q1=0),
    "no summary of a split": lambda r: r["summary"].pop("more"),
    "a text": lambda r: r["summary"]["test"]["accuracy"].update(median="75"),
    "a seed that was taken out": lambda r: r["seeds"].pop("1"),
    "another metric": lambda r: r.update(metric="matthews"),
}


@pytest.mark.parametrize("what", [None, *ALTERED])
def test_a_record_in_which_a_figure_was_altered_is_refused(what, tmp_path):
    """Oracle: scikit-learn's accuracy of the answers, and NumPy's percentiles of the scores."""
    made = record([[1, 0, 1, 1], [1, 1, 1, 0]], [1, 0, 1, 0])
    made["labels"]["more"] = "1 0"
    for run, answers in zip(made["seeds"].values(), ("1 1", "1 0"), strict=True):
        run["predictions"]["more"] = answers
        run["scores"]["more"] = {"accuracy": 50.0 if answers == "1 1" else 100.0}
    made["summary"] = median_and_quartiles(made)
    file = tmp_path / "result.json"
    if what is None:
        write_result(file, made)
        assert read_record(file) == made
        return
    ALTERED[what](made)
    write_result(file, made)
    with pytest.raises(UserError, match=r"result\.json (contradicts itself|is no result)") as error:
        read_record(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", METRICS)
def test_rounded_answers_are_no_contradiction(metric, tmp_path):
    """Of each metric: numbers with as many digits as a model gives them."""
    labels = random.integers(0, 2, 300)
    answers = random.integers(0, 2, 300)
    if "earson" in metric or "pearman" in metric:
        labels, answers = random.normal(3, 1, (2, 300))
    if metric == "f1":
        labels, answers = [], 100 * random.random(300)
    made = record([answers], labels, metric)
    if metric == "f1":
        made["labels"] = {}
    write_result(tmp_path / "r.json", json.loads(json.dumps(made, default=float)))
    read_record(tmp_path / "r.json")


def test_differences_of_recipes_are_named_and_those_of_models_are_not():
    one, other = record([[1, 0]] * 2, [1, 0]), record([[1, 0]] * 3, [1, 0])
    one["configuration"] |= {"model": "a", "epochs": 1, "alpha": 0.5}
    other["configuration"] |= {"model": "b", "epochs": 3, "alpha": 0.9}
    one["rows"], other["rows"] = {"train": 500}, {"train": 3000}
    expected = ["epochs 1 and 3", "training rows 500 and 3000", "seeds 2 and 3"]
    assert recipe_differences(one, other) == expected
    other["configuration"]["distil_from"] = "t"
    assert "alpha 0.5 and 0.9" in recipe_differences(one, other)
    assert recipe_differences(one, one) == []


def test_numbers_survive_the_file():
    for numbers in ([0, 1, 11], [2.5, 0.0, 66.667]):
        assert split_numbers(join_numbers(numbers)).tolist() == numbers


def test_median_and_quartiles_by_hand():
    made = record([[0]] * 5, [0])
    for i, run in enumerate(made["seeds"].values()):
        run["scores"] = {"test": {"accuracy": float(i)}}
    assert median_and_quartiles(made) == {
        "test": {"accuracy": {"q1": 1.0, "median": 2.0, "q3": 3.0}}
    }


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_weighted_examples_are_those_of_repeated_ones(metric):
    """Oracle: scikit-learn's and SciPy's figures on the examples written out."""
    if "earson" in metric or "pearman" in metric:
        labels, predictions = (
            random.integers(0, 6, 40) / 1.0,
            random.integers(0, 9, (3, 40)) / 2,
        )  # many ties
    else:
        labels, predictions = random.integers(0, 2, 40), random.integers(0, 2, (3, 40))
    for weights in (np.ones(40), random.integers(0, 4, 40)):
        scores = weighted_scores(metric, predictions, labels, weights)
        if metric == "f1":  # of questions, whose own F1 is given
            expected = [row.repeat(weights.astype(int)).mean() for row in predictions]
        else:
            expected = [
                METRICS[metric](
                    row.repeat(weights.astype(int)), labels.repeat(weights.astype(int))
                )[metric]
                for row in predictions
            ]
        assert scores == pytest.approx(expected)


def test_an_unknown_metric_has_no_score():
    with pytest.raises(ValueError, match="BLEU"):
        weighted_scores("BLEU", np.zeros((2, 5)), np.zeros(5), np.ones(5))


@pytest.mark.parametrize("metric", ["matthews", "accuracy and F1", "spearman"])
def test_a_metric_that_is_not_defined_is_0_and_no_warning(metric, recwarn):
    assert weighted_scores(metric, np.zeros((2, 5)), np.zeros(5), np.ones(5)) == pytest.approx(
        [50, 50] if "F1" in metric else [0, 0]
    )
    assert not recwarn


def test_who_gives_the_same_answers_retains_everything_exactly():
    labels = random.integers(0, 2, 50)
    row = np.where(random.random(50) < 0.8, labels, 1 - labels)
    kept = retention(record([row] * 3, labels), record([row] * 5, labels), resamples=200)
    assert kept == {
        "retention": 100,
        "low": 100,
        "high": 100,
        "difference": 0,
        "difference_low": 0,
        "difference_high": 0,
    }


def simulated(chance, examples, seeds, shares, spread):
    """Right or wrong of two models: four answers of five are a model's whatever its seed, and seeds
    are better or worse.
    """
    rows = []
    for share in shares:
        luck = np.where(
            chance.random((seeds, examples)) < 0.8,
            chance.random(examples),
            chance.random((seeds, examples)),
        )
        rows.append((luck < share + spread * chance.standard_normal((seeds, 1))).astype(int))
    return rows


def test_intervals_cover_the_truth_about_95_times_in_100():
    """Oracle: the ratio that the data are drawn with.

    The binomial spread of 100 intervals is 2.2%; half the width covers two thirds.
    """
    chance, covered, halved, truth = np.random.default_rng(1), 0, 0, 100 * 0.66 / 0.70
    for _ in range(100):
        mine, theirs = simulated(chance, 300, 5, (0.66, 0.70), 0.02)
        kept = retention(record(mine, np.ones(300)), record(theirs, np.ones(300)), resamples=120)
        covered += kept["low"] <= truth <= kept["high"]
        halved += abs(kept["retention"] - truth) <= (kept["high"] - kept["low"]) / 4
    assert 0.89 <= covered / 100 <= 0.995 and halved / 100 < 0.85, (covered, halved)


def test_pairs_are_worth_more_than_two_separate_samples():
    """What is hard for both moves both scores alike; answers in another order of the examples lose
    that.
    """
    labels = np.ones(400)
    hard = random.random(400) < 0.3
    mine, theirs = (
        (~hard & (random.random((3, 400)) < share)).astype(int) for share in (0.95, 0.99)
    )
    width = lambda kept: kept["difference_high"] - kept["difference_low"]
    paired = retention(record(mine, labels), record(theirs, labels), resamples=500)
    unpaired = retention(
        record(mine[:, random.permutation(400)], labels), record(theirs, labels), resamples=500
    )
    assert width(paired) < 0.6 * width(unpaired)
    assert paired["retention"] == pytest.approx(unpaired["retention"])


def test_what_cannot_be_compared_is_refused():
    good = record([[1, 0]], [1, 0])
    with pytest.raises(UserError, match="not measured on the same data"):
        retention(good, record([[1, 0]], [1, 0], data="other"))
    with pytest.raises(UserError, match="not measured on the same data"):
        retention(good, record([[1, 0]], [1, 0], task="another"))
    with pytest.raises(UserError, match="nothing to retain"):
        retention(good, record([[0, 1]], [1, 0]))


def test_a_teacher_near_nothing_gives_an_interval_without_an_upper_end():
    """Matthews correlations around 0: some resamples leave the teacher nothing, and the ratio has
    no bound.
    """
    labels = np.arange(60) % 2
    weak = np.where(np.arange(60) < 34, labels, 1 - labels)  # right 34 times of 60
    kept = retention(
        record([labels], labels, "matthews"), record([weak], labels, "matthews"), resamples=300
    )
    assert kept["high"] == np.inf and kept["low"] > 100


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_that_scatter_cover_the_truth_too(seeds):
    """Oracle: the share that scores are drawn around, and the seeds decide.

    A bootstrap over three seeds would cover it 77 times in 100. The binomial spread is 1.5%.
    """
    chance, covered, ones = np.random.default_rng(seeds), 0, np.ones(200)
    alike = record(np.tile(np.arange(200) < 140, (seeds, 1)).astype(float), ones)
    for trial in range(200):
        shares = 0.6 + 0.09 * chance.standard_normal((seeds, 1))
        mine = record((np.arange(200) < 200 * shares).astype(float), ones)
        kept = retention(mine, alike, resamples=150, seed=trial)
        covered += kept["low"] <= 100 * 0.6 / 0.7 <= kept["high"]
    assert 0.9 <= covered / 200 <= 0.995, covered


def test_seeds_widen_an_interval_as_they_scatter():
    """Oracle: Student's interval of a mean of five. A median is a little less exact than a mean,
    and on so many examples their own luck is small beside it.
    """
    labels = np.ones(4000)
    accuracies = np.array([0.60, 0.65, 0.70, 0.75, 0.80])
    spread = record((np.arange(4000) < 4000 * accuracies[:, None]).astype(float), labels)
    alike = record(np.tile(np.arange(4000) < 2800, (5, 1)).astype(float), labels)
    half = stats.t.ppf(0.975, 4) * 100 * accuracies.std(ddof=1) / np.sqrt(5)
    for student, teacher, models in ((spread, alike, 1), (spread, spread, 2)):
        found = retention(student, teacher)
        width = found["difference_high"] - found["difference_low"]
        assert 1.0 < width / 2 / half / np.sqrt(models) < 1.4
    same = retention(alike, alike)
    assert same["difference_low"] == same["difference_high"] == 0
