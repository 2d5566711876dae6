"""An ablation's records: read, averaged, paired by seed, and what they say of the time that is
left.
"""

import copy
import json
import math
import re

import numpy as np
import pytest

from distil_lib.ablation import runner
from distil_lib.ablation.__main__ import forecast, main, report
from distil_lib.ablation.grid import read_grid
from distil_lib.ablation.records import estimate, macro_scores, read_records, values_by_seed
from distil_lib.common.files import write_result
from distil_lib.errors import UserError


def made_up(
    arm: str, seed: int, macro: float, total: float, experiment: str = "c", without: str = "f"
) -> dict:
    figures = {"mlm_loss": 3.0, "accuracy": 0.01 * macro}
    return {
        "arm": arm,
        "seed": seed,
        "figures": figures,
        "scores": {"doc-qa": macro},
        "macro": {"documentation": macro},
        "experiment_hash": experiment,
        "experiment_hash_without_versions": without,
        "seconds": {"total": total},
    }


def test_how_long_it_will_take():
    """By hand: of `triple` (10 + 30) / 2 = 20 s each; of `new-head`, never run, the mean of all, 30
    s.
    """
    jobs = read_grid("demo").jobs(["triple", "new-head"], seeds=2)
    records = [
        made_up("triple", 0, 60.0, 10.0),
        made_up("triple", 1, 61.0, 30.0),
        made_up("other", 0, 1.0, 50.0),
    ]
    assert (
        estimate(jobs[2:], records) == pytest.approx(20 + 30)
        and estimate([jobs[0]], records[:2]) == 20
    )
    said = forecast(jobs, jobs[1:], records)
    assert (
        "1 of 4 recorded, 3 missing" in said
        and "new-head: seeds 0, 1" in said
        and "triple: seeds 1" in said
        and "0.0 hours" in said
    )
    assert "nothing says how long" in forecast(jobs, jobs, []) and "hours" not in forecast(
        jobs, [], records
    )


def test_the_report_pairs_by_seed(tmp_path):
    grid, output = read_grid("demo"), tmp_path
    records = [
        made_up(
            arm, s, luck + effect, 1.0, grid.experiment_hash, grid.experiment_hash_without_versions
        )
        for arm, effect in (("triple", 0.0), ("new-head", -2.0))
        for s, luck in enumerate((50.0, 70.0, 90.0))
    ]
    for number, record in enumerate(
        [*records, made_up("new-head", 0, 5.0, 1.0, "another grid", "of another kind")]
    ):
        (output / f"{number}.json").write_text(json.dumps(record))
    own = read_records(output, grid)
    tables = list(report(grid, own))
    assert [table.split()[0] for table in tables] == ["documentation", "mlm_loss", "accuracy"]
    assert "triple (70.000, 3 seeds)" in tables[0] and re.search(
        r"^new-head +3 +-2\.000 ", tables[0], re.M
    )
    assert values_by_seed(own, "accuracy")["new-head"] == pytest.approx(
        {0: 48.0, 1: 68.0, 2: 88.0}
    )  # a share, in points
    with pytest.raises(UserError, match="two records of new-head, seed 0"):
        values_by_seed(read_records(output), "documentation")
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        next(report(grid, own, measures=["acuracy"]))
    (output / "9.json").write_text("{")
    with pytest.raises(UserError, match=r"9\.json is no record"):
        read_records(output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": {}}, "seconds: total"),
        ({"seconds": None}, "seconds"),
        ({"seed": "one"}, "seed"),
        ({"figures": {"kl": math.nan}}, "figures: kl: .*finite"),
        ({"figures": [1]}, "figures"),
        ({"arm": None}, "arm"),
    ],
)
def test_a_record_that_lacks_something_is_named(tmp_path, change, message):
    (tmp_path / "x.json").write_text(json.dumps(made_up("triple", 0, 60.0, 1.0)))
    assert len(read_records(tmp_path)) == 1
    (tmp_path / "x.json").write_text(json.dumps(made_up("triple", 0, 60.0, 1.0) | change))
    with pytest.raises(UserError, match=rf"x\.json is no record of an ablation .{message}"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "change", [{"macro": {"documentation": 61.0}}, {"macro": {}}, {"scores": {"doc-qa": 62.0}}]
)
def test_a_record_in_which_a_figure_was_altered_is_refused(tmp_path, change):
    """Oracle: the mean of its only score."""
    (tmp_path / "x.json").write_text(json.dumps(made_up("triple", 0, 60.0, 1.0) | change))
    with pytest.raises(UserError, match=r"x\.json was altered"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is no record of an ablation"):
        read_records(tmp_path)


def test_records_of_another_documentation_are_read_where_there_are_none_of_this_one(
    monkeypatch, tmp_path
):
    def grid_with(versions: dict, name: str = "mini"):
        module = "distil_lib.ablation.fingerprints"
        monkeypatch.setattr(f"{module}.corpus_fingerprint", lambda source: versions)
        grid = read_grid(name)
        return grid.experiment_hash, grid

    def record(name: str, experiment: str, grid) -> None:
        content = made_up(name, 0, 1.0, 1.0, experiment, grid.experiment_hash_without_versions)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    (here, grid), (there, _), (elsewhere, _) = (
        grid_with({"python": version}) for version in ("3.11", "3.12", "3.13")
    )
    longer, other = grid_with({"python": "3.12"}, "mini-longer")
    assert len({here, there, elsewhere, longer}) == 4
    assert grid.experiment_hash_without_versions != other.experiment_hash_without_versions
    for name, experiment in {"a": there, "b": there, "c": elsewhere}.items():
        record(name, experiment, grid)
    record("d", longer, other)
    found = lambda which=None: [r["arm"] for r in read_records(tmp_path, which)]
    assert found(grid) == ["a", "b"] and found(other) == ["d"] and found() == ["a", "b", "c", "d"]
    record("e", here, grid)
    assert found(grid) == ["e"]


def test_macro_scores_are_of_each_suite():
    scores = {
        "doc-qa": 10.0,
        "doc-near": 20.0,
        "sst2": 90.0,
        "rte": 60.0,
        "imdb": 1.0,
        "squad": 2.0,
    }
    assert macro_scores(scores) == {"documentation": 15.0, "glue": 75.0}


# ------------------------------------------------------------------- what a stopped call has left
LEFT = {
    "pretrained.json": {
        "figures": {"kl": 0.5, "accuracy": 0.25},
        "weights": "c0ffee",
        "seconds": 2.5,
        "steps": 4,
        "tokens": 512,
        "loss": 3.5,
    },
    "finetuned.json": {"sst2": {"scores": [50.0, 62.5], "seconds": 1.5}},
}
KINDS = {"pretrained.json": runner.TRAINED, "finetuned.json": runner.TUNED}
FOREIGN = [None, [], {}, "x", 10**400, float("nan"), float("inf"), True, [None]]


@pytest.mark.parametrize("name", LEFT)
def test_what_a_stopped_call_has_left_is_read_as_it_was_written(name, tmp_path, capsys):
    assert runner._read(tmp_path / name, KINDS[name]) == {}
    write_result(tmp_path / name, LEFT[name])
    assert runner._read(tmp_path / name, KINDS[name]) == LEFT[name]
    assert capsys.readouterr().err == ""


def places(content, path=()):
    """The path of each value, and of each value in it."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@pytest.mark.parametrize("name", LEFT)
def test_what_is_damaged_anywhere_is_made_again_with_a_word(name, tmp_path, capsys):
    """Every value of the file in turn is replaced by each of `FOREIGN`, or left out.

    Oracle: a value that is taken has the type of the one that was there.
    """
    for path in places(LEFT[name]):
        for value in ["left out", *FOREIGN]:
            content = copy.deepcopy(LEFT[name])
            owner = content
            for key in path[:-1]:
                owner = owner[key]
            if value == "left out":
                del owner[path[-1]]
            else:
                owner[path[-1]] = value
            (tmp_path / name).write_text(json.dumps(content))
            found = runner._read(tmp_path / name, KINDS[name])
            said = capsys.readouterr().err
            if found or content == {}:  # no task is done yet
                assert said == "" and np.isfinite([*numbers(found)]).all(), (path, value)
            else:
                assert "is damaged: it is made again" in said
    for text in ("", "[]", "null", "5", "\0" * 9, "[" * 100_000):
        (tmp_path / name).write_text(text)
        assert runner._read(tmp_path / name, KINDS[name]) == {}


def numbers(content):
    """All values; a text that stands for a number is none."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "weights":
                yield from numbers(value)
    elif isinstance(content, list):
        for value in content:
            yield from numbers(value)
    else:
        assert type(content) in (int, float), content
        yield content


@pytest.mark.parametrize("content", ["", "-1", "\0" * 300, '{"arm": "a"}'])
def test_a_damaged_record_does_not_pass_for_a_job_that_is_done(
    content, tmp_path, monkeypatch, capsys
):
    """Nothing is run before it is named; it is left alone, for it may be somebody's."""
    monkeypatch.setattr(runner.GridRunner, "run_pending", None)
    (tmp_path / "triple-seed0-00000000.json").write_text(content)
    with pytest.raises(SystemExit) as end:
        main(["--preset", "mini", "--output", str(tmp_path), "--work", str(tmp_path / "work")])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "triple-seed0-00000000.json is no record" in said
    assert [path.read_text() for path in tmp_path.iterdir()] == [content]
