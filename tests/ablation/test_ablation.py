"""The ablation runner: what is run, that it is run once, by whom, and what an arm is."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ADJECTIVES, VERBS, assert_user_error, replace, signal_at, weights

from distil_lib.ablation import runner as ablation
from distil_lib.ablation.__main__ import LAUNCHER, main
from distil_lib.ablation.fingerprints import InputFingerprints, settings_hash
from distil_lib.ablation.grid import GRIDS, read_grid
from distil_lib.ablation.records import read_records, record_file
from distil_lib.ablation.runner import GridRunner
from distil_lib.common.cli import yaml_names
from distil_lib.common.paths import PROJECT
from distil_lib.errors import UserError
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.finetune.finetuning import Finetuning
from distil_lib.finetune.runner import finetune
from distil_lib.initialization import initialize_student
from distil_lib.tasks.registry import TASKS
from distil_lib.teacher import load_teacher
from distil_lib.training.config import PretrainConfig, load_preset, preset_names
from distil_lib.training.loop import PretrainingRun

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(scope="module")
def base(small_run) -> dict:
    """Settings of a pretraining of 4 steps, as a grid's `base`."""
    words = iter(small_run("nowhere", max_steps=4, save_every=2, eval_every=4))
    settings = {
        name.removeprefix("--"): yaml.safe_load(value)
        for name, value in zip(words, words, strict=True)
    }
    return {name: value for name, value in settings.items() if name not in ("output", "threads")}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> Path:
    """SST-2's files: positive where the noun is `array`."""
    folder = tmp_path_factory.mktemp("sentences")
    for split in ("train", "dev"):
        rows = [
            f"The {a} {('word', 'array')[i % 2]} {v}.\t{i % 2}"
            for i, (a, v) in enumerate(zip(ADJECTIVES, VERBS, strict=False))
        ]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return folder


@pytest.fixture
def write_grid(base, sentences, tmp_path):
    """Write a grid of 2 arms x 2 seeds and one task, with some entries changed; return it."""

    def write(name="grid", **changes) -> Path:
        tuning = {
            "epochs": 3,
            "batch_size": 8,
            "max_length": 16,
            "learning_rate": 5e-3,
            "data_dir": str(sentences),
        }
        grid = {
            "preset": "demo",
            "base": base,
            "reference": "triple",
            "seeds": 2,
            "tasks": ["sst2"],
            "finetuning": tuning,
            "arms": {
                "triple": {"says": "All."},
                "hot": {"says": "Hotter.", "settings": {"temperature": 4.0}},
            },
        } | changes
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
        return tmp_path / f"{name}.yaml"

    return write


def words(grid: Path, folder: Path, *more) -> list[str]:
    return [
        "--grid",
        str(grid),
        "--output",
        str(folder / "results"),
        "--work",
        str(folder / "work"),
        "--threads",
        "1",
        *map(str, more),
    ]


def outcomes(folder: Path) -> dict[tuple[str, int], dict]:
    """Each record without its times."""
    return {
        (r["arm"], r["seed"]): {
            k: v for k, v in r.items() if k not in ("seconds", "begun", "machine")
        }
        for r in read_records(folder / "results")
    }


class as_ablation:
    """Prepare the launcher's program to be this one, and to get a signal at a call of some
    function.
    """

    def __init__(self, where: str = "", call: int = 0, number: int = signal.SIGKILL):
        self.where, self.call, self.number = where, call, number

    def __call__(self) -> None:
        replace("distil_lib.pretrain.main", main)
        if self.where:
            signal_at(self.where, self.call, self.number)()


@pytest.fixture
def watched(monkeypatch) -> list[str]:
    """What is pretrained ("seed 0, T 2") and fine-tuned ("sst2, seed 0") here, in order."""
    seen = []
    train, seed = PretrainingRun.train, Finetuning.seed
    monkeypatch.setattr(
        PretrainingRun,
        "train",
        lambda r: seen.append(f"seed {r.config.seed}, T {r.config.temperature:g}") or train(r),
    )
    monkeypatch.setattr(
        Finetuning,
        "seed",
        lambda f, n, precision: seen.append(f"{f.config.task}, seed {n}") or seed(f, n, precision),
    )
    return seen


# -------------------------------------------------------------------------------------- what is run
def test_a_grid_runs_once_seeds_outermost_and_an_arm_is_its_settings(
    write_grid, base, sentences, tmp_path, watched, capsys
):
    """Oracle: `pretrain` and `finetune` called by hand with the arm's settings, equal to the last
    bit.
    """
    grid = write_grid()
    main(words(grid, tmp_path, "--keep_models"))
    assert watched == [
        f"{what}seed {seed}{T}"
        for seed in (0, 1)
        for t in (2, 4)
        for what, T in (("", f", T {t}"), ("sst2, ", ""))
    ]
    assert not list((tmp_path / "results").glob(".*"))  # no lock is left
    records = outcomes(tmp_path)
    assert list(records) == [("hot", 0), ("hot", 1), ("triple", 0), ("triple", 1)]
    assert "4 of 4 are recorded" in capsys.readouterr().out

    watched.clear()
    main(words(grid, tmp_path))
    assert watched == []
    main(words(write_grid("more", seeds=3), tmp_path, "--arms", "triple"))
    assert watched == ["seed 2, T 2", "sst2, seed 2"]
    again = read_grid(grid).jobs(["hot"])[1]
    record_file(tmp_path / "results", again).unlink()
    shutil.rmtree(
        tmp_path / "work" / again.name
    )  # kept; the record would be made from what is there
    watched.clear()
    main(words(grid, tmp_path))
    assert (
        watched == ["seed 1, T 4", "sst2, seed 1"]
        and outcomes(tmp_path)["hot", 1] == records["hot", 1]
    )  # deterministic

    by_hand = PretrainingRun(
        load_preset(
            "demo",
            **base
            | {"seed": 1, "temperature": 4.0, "output": str(tmp_path / "by-hand"), "threads": 1},
        )
    )
    record = records["hot", 1]
    assert (
        record["figures"] == by_hand.train()
        and record["says"] == "Hotter."
        and record["training"]["steps"] == 4
    )
    (kept,) = [
        f
        for f in (tmp_path / "work").iterdir()
        if f.name in {j.name for j in read_grid(grid).jobs(["triple"])[1:]}
    ]
    assert (kept / "pretraining" / "model").is_dir() and not (
        tmp_path / "work" / again.name
    ).exists()
    tuned = FinetuneConfig(
        model=str(tmp_path / "by-hand" / "model"),
        task="sst2",
        seeds=2,
        data_dir=str(sentences),
        output=str(tmp_path / "tuned.json"),
        epochs=3,
        batch_size=8,
        max_length=16,
        learning_rate=5e-3,
        precision="fp32",
        threads=1,
    )
    assert record["scores"] == {
        "sst2": finetune(tuned)["seeds"]["1"]["scores"]["validation"]["accuracy"]
    }
    assert record["macro"] == {"glue": record["scores"]["sst2"]}
    assert all(
        r["seconds"]["total"] > r["seconds"]["finetuning"] > 0
        for r in read_records(tmp_path / "results")
    )


@pytest.mark.parametrize(
    ("where", "call", "left"),
    [
        (
            "distil_lib.training.resume.save_checkpoint",
            2,
            ["seed 0, T 2", "sst2, seed 0"],
        ),  # in the student's last step
        ("distil_lib.ablation.runner.Finetuning", 1, ["sst2, seed 0"]),
        ("distil_lib.ablation.runner.write_result", 3, []),  # all is done but for the record
    ],
)
def test_a_killed_call_goes_on_where_it_was(
    program, write_grid, tmp_path, watched, where, call, left
):
    """Oracle: the record of a call that was never killed. The kernel has freed its lock."""
    one = ("--arms", "triple", "--seeds", 1)
    done = program(words(write_grid(), tmp_path, *one), as_ablation(where, call))
    assert done.code == -signal.SIGKILL and not list((tmp_path / "results").glob("*.json")), (
        done.err
    )
    assert len(list((tmp_path / "results").glob(".*.lock"))) == 1
    started = []
    replaced = ablation.latest_valid_checkpoint
    ablation.latest_valid_checkpoint = lambda folder: (
        started.append(replaced(folder)) or started[-1]
    )
    try:
        main(words(write_grid(), tmp_path, *one))
    finally:
        ablation.latest_valid_checkpoint = replaced
    assert watched == left and not list((tmp_path / "results").glob(".*"))
    assert [checkpoint.name for checkpoint in started] == (
        ["step-00000002"] if len(left) == 2 else []
    )
    (tmp_path / "whole").mkdir()
    main(words(write_grid(), tmp_path / "whole", *one))
    assert outcomes(tmp_path) == outcomes(tmp_path / "whole")


def test_two_processes_share_the_work_and_a_signal_stops_one(program, write_grid, tmp_path):
    """Every (arm, seed) is done by one of them, and both do some."""
    grid = write_grid(tasks=[], seeds=3)
    waits = [program.start(words(grid, tmp_path), as_ablation()) for _ in range(2)]
    done = [wait() for wait in waits]
    assert [d.code for d in done] == [0, 0], done
    each = [re.findall(r"^(\w+, seed \d): mlm_loss", d.out, re.M) for d in done]
    assert all(each) and sorted([*each[0], *each[1]]) == sorted(
        f"{arm}, seed {seed}" for arm in ("hot", "triple") for seed in range(3)
    )
    assert (
        len(outcomes(tmp_path)) == 6
        and not list((tmp_path / "results").glob(".*"))
        and not list((tmp_path / "work").iterdir())
    )

    (tmp_path / "other").mkdir()
    one = words(grid, tmp_path / "other", "--arms", "hot", "--seeds", 1)
    done = program(
        one,
        as_ablation("distil_lib.training.loop.PretrainingRun._optimizer_step", 2, signal.SIGTERM),
    )
    assert done.code == 128 + signal.SIGTERM, done.err
    assert not list((tmp_path / "other" / "results").glob("*.json"))
    assert "the same command resumes" in done.err and "--resume" not in done.err
    assert list((tmp_path / "other" / "work").glob("*/pretraining/checkpoints/step-00000003"))
    main(one)
    assert outcomes(tmp_path / "other")["hot", 0] == outcomes(tmp_path)["hot", 0]


def test_processes_of_a_launcher_work_alone(monkeypatch, write_grid, tmp_path):
    """With the variables of the second of two processes, one alone would wait for the other for
    ever.
    """
    launched = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    main(words(write_grid(tasks=[]), tmp_path, "--arms", "triple", "--seeds", 1))
    assert (
        len(outcomes(tmp_path)) == 1
        and os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        and not set(LAUNCHER) & set(os.environ)
    )


def test_the_arm_that_is_not_trained_is_the_teacher_cut(
    write_grid, teacher_folder, tokenizer, tmp_path
):
    """Oracle: `initialize_student`. The library's own arm, so that its settings are tested too."""
    arm = read_grid("mini").arms["not-trained"]
    grid = write_grid(
        tasks=[], seeds=1, arms={"triple": {}, "cut": {"settings": dict(arm.settings)}}
    )
    main(words(grid, tmp_path, "--keep_models", "--arms", "cut"))
    (job,) = read_grid(grid).jobs(["cut"])
    saved = weights(tmp_path / "work" / job.name / "pretraining")
    cut = initialize_student(load_teacher(teacher_folder, tokenizer), "spread").state_dict()
    assert saved.keys() <= cut.keys() and all(
        torch.equal(saved[name], cut[name]) or saved[name].abs().max() < 1e-20 for name in saved
    )


# --------------------------------------------------------------------------------- grids and hashes
def keys(path: Path, *arms) -> list[str]:
    return [job.key for job in read_grid(path).jobs(arms)]


def test_the_hash_is_of_what_decides_the_numbers(
    write_grid, base, sentences, teacher_folder, corpus, tmp_path
):
    usual = keys(write_grid())
    assert (
        len(set(usual)) == 4
        and [j.arm.name for j in read_grid(write_grid()).jobs()] == ["triple", "hot"] * 2
    )
    same = [
        {
            "base": base
            | {"save_total_limit": 7, "log_every": 2, "save_every": 1, "dataloader_num_workers": 1}
        },  # nothing of what is computed
        {"arms": {"triple": {"says": "Other words."}, "warm": {"settings": {"temperature": 4.0}}}},
    ]
    for folder, file, name in (
        (teacher_folder, "teacher", "teacher"),
        (corpus, "copy.jsonl", "corpus"),
    ):
        copy = tmp_path / file
        if Path(folder).is_dir():
            copy.mkdir()
            for path in Path(folder).iterdir():
                (copy / path.name).write_bytes(path.read_bytes())
            (copy / "README.md").write_text("Another card.")
        else:
            copy.write_bytes(Path(folder).read_bytes())
        same.append({"base": base | {name: str(copy)}})
    for changes in same:
        assert keys(write_grid(**changes)) == usual, changes
    (tmp_path / "copy.jsonl").write_text(
        (tmp_path / "copy.jsonl").read_text() + json.dumps({"text": "One more."}) + "\n"
    )
    (tmp_path / "teacher" / "config.json").write_text("{}")
    others = [
        {"base": base | {"learning_rate": 0.004}},
        {"base": base | {"corpus": str(tmp_path / "copy.jsonl")}},
        {"base": base | {"teacher": str(tmp_path / "teacher")}},
        {"finetuning": {"epochs": 2, "data_dir": str(sentences)}},
        {"tasks": []},
        {"finetuning_seeds": 2},
        {"base": base | {"precision": "bf16"}},
    ]
    every = [keys(write_grid(**changes)) for changes in others]
    assert len({key for each in [usual, *every] for key in each}) == 4 * (1 + len(others))
    experiment = read_grid(write_grid()).experiment_hash
    assert experiment == read_grid(write_grid(arms={"triple": {}}, seeds=5)).experiment_hash
    assert experiment not in {read_grid(write_grid(**c)).experiment_hash for c in others}


def test_a_setting_with_its_default_is_not_hashed(write_grid, monkeypatch):
    """A setting that is added later, with a default, leaves all records where they are."""
    before = keys(write_grid())
    later = dataclasses.make_dataclass(
        "Later", [("brand_new", bool, False)], bases=(PretrainConfig,)
    )
    monkeypatch.setattr("distil_lib.ablation.fingerprints.PretrainConfig", later)
    job = read_grid(write_grid()).jobs()[0]
    same = {**job.configuration["pretraining"], "brand_new": False}
    other = same | {"brand_new": True}
    assert settings_hash({**job.configuration, "pretraining": same}) == before[0]
    assert settings_hash({**job.configuration, "pretraining": other}) != before[0]


@pytest.mark.parametrize("name", ["mini", "mini-longer"])
def test_committed_records_are_found_by_their_grids(name, monkeypatch):
    """Whatever versions the documentation here has: that of the records is put in its place.

    Oracle: the configuration that each record holds. If the default of a setting changes, it is
    another one, and `FORMAT` must be raised.
    """
    records = PROJECT / "data" / "results" / "ablation"
    (text,) = {
        r["configuration"]["pretraining"]["corpus"] for r in read_records(records, read_grid(name))
    }
    monkeypatch.setattr(
        InputFingerprints, "text", lambda self, source: text if self.versions else source
    )
    grid = read_grid(name)
    found = read_records(records, grid)
    jobs = {(job.arm.name, job.seed): job for job in grid.jobs()}
    assert len(found) == len(jobs) == {"mini": 70, "mini-longer": 15}[name]
    for record in found:
        job = jobs[record["arm"], record["seed"]]
        assert record_file(records, job).exists(), job.name
        assert record["experiment_hash"] == grid.experiment_hash
        ours = json.loads(json.dumps(job.configuration))
        for part in ("pretraining", *(["finetuning"] if grid.tasks else [])):
            recorded = record["configuration"][part]
            parts = [(recorded, ours[part])]
            if part == "finetuning":
                assert recorded.keys() == ours[part].keys()
                parts = [(recorded[task], ours[part][task]) for task in recorded]
            for theirs, mine in parts:
                assert theirs.items() <= mine.items(), job.name


def test_the_real_teachers_records_have_the_settings_of_their_grid():
    """Its teacher is not here to be hashed, so the settings themselves are compared."""
    jobs = {(job.arm.name, job.seed): job for job in read_grid("real-student").jobs()}
    found = read_records(PROJECT / "data" / "results" / "ablation-real-student")
    assert {(r["arm"], r["seed"]) for r in found} == set(jobs) and len(found) == len(jobs) == 10
    assert len({r["configuration"]["pretraining"]["teacher"] for r in found}) == 1
    for record in found:
        ours = json.loads(json.dumps(jobs[record["arm"], record["seed"]].configuration))
        theirs = record["configuration"]
        for name in ("teacher", "tokenizer", "corpus"):
            del theirs["pretraining"][name]
        assert theirs["pretraining"].items() <= ours["pretraining"].items()
        assert theirs["finetuning"] == ours["finetuning"]


@pytest.mark.parametrize("name", yaml_names(GRIDS))
def test_the_librarys_grids(name):
    grid = read_grid(name)
    jobs = grid.jobs()
    assert (
        grid.preset in preset_names()
        and name.startswith(grid.preset)
        and set(grid.tasks) <= set(TASKS)
    )
    assert all(arm.says.endswith((".", ")")) for arm in grid.arms.values())
    five = {
        "triple": (5, 2, 1),
        "without-ce": (0, 2, 1),
        "without-cos": (5, 2, 0),
        "without-mlm": (5, 0, 1),
        "random-start": (5, 2, 1),
    }
    first = {job.arm.name: job.pretraining for job in jobs if job.seed == 0}
    assert {
        n: (c.alpha_ce, c.alpha_mlm, c.alpha_cos) for n, c in first.items() if n in five
    } == five and grid.reference == "triple"
    assert [n for n, c in first.items() if c.init_layers == "none"] == [
        "random-start",
        "no-teacher",
    ][: len(first) - 4]
    if (
        name == "mini-longer"
    ):  # the arms of the shorter grid, but for the steps (and how often they are written down)
        short = {job.arm.name: job.pretraining for job in read_grid("mini").jobs() if job.seed == 0}
        change = {"max_steps": 600, "log_every": 100, "save_every": 200}
        assert first == {n: dataclasses.replace(short[n], **change) for n in five}
    if name == "mini":  # issue: the paper's arms at least 5 times, the others 3 times
        assert (
            all(arm.seeds >= (5 if arm.name in five else 3) for arm in grid.arms.values())
            and len(grid.tasks) == 6
        )


def test_a_grid_takes_over_anothers_arms(write_grid):
    grid = read_grid(
        write_grid(
            include="mini", arms={"without-ce": None, "cold": {"settings": {"temperature": 0.5}}}
        )
    )
    assert {*read_grid("mini").arms} - {*grid.arms} == {"without-ce"} and {*grid.arms} - {
        *read_grid("mini").arms
    } == {"cold"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": {"triple": {"settings": {"temprature": 3.0}}}},
            "unknown setting 'temprature'.*Did you mean 'temperature'",
        ),
        (
            {"arms": {"triple": {"settings": {"temperature": "hot"}}}},
            "temperature of the arm triple.*number",
        ),
        (
            {"arms": {"triple": {"settings": {"temperature": -1.0}}}},
            "temperature of the arm triple.*equal to 0.01",
        ),
        (
            {"arms": {"triple": {"settings": {"student_layers": 0}}}},
            "student_layers of the arm triple",
        ),
        (
            {
                "arms": {
                    "triple": {"settings": {"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_cos": 0.0}}
                }
            },
            "The arm triple: ",
        ),
        ({"arms": {"triple": {"settings": {"seed": 3}}}}, "unknown setting 'seed'"),
        ({"arms": {"triple": {"settings": {"time_limit": "8m"}}}}, "unknown setting 'time_limit'"),
        ({"arms": {"triple": {"settings": {"precision": "bf16"}}}}, "precision of its own"),
        (
            {"arms": {"triple": {}, "twin": {"settings": {"temperature": 2.0}}}},
            "triple and twin are the same",
        ),
        ({"arms": {"triple": {"settings": [1]}}}, "settings of the arm triple.*dictionary"),
        ({"arms": {"triple": {"seeds": "five"}}}, "seeds of the arm triple"),
        ({"arms": {"triple": {"seeds": 0}}}, "seeds of the arm triple"),
        ({"arms": {"triple": 5}}, "arms in"),
        ({"arms": {"../triple": {}}}, "has an arm '../triple'"),
        ({"arms": {}}, "none of its arms"),
        ({"arm": {}}, "unknown setting 'arm'.*Did you mean 'arms'"),
        ({"base": {"block_size": True}}, "block_size of base"),
        ({"base": {}}, "leaves the precision open"),
        ({"preset": "dmeo"}, "no preset.*Did you mean 'demo'"),
        ({"preset": 5}, "preset in .* is 5"),
        ({"reference": "tripel"}, "none of its arms.*Did you mean 'triple'"),
        ({"reference": ["triple"]}, "reference in .*text"),
        ({"seeds": 10**12}, "seeds in .*1000000000000"),
        ({"finetuning_seeds": 0}, "finetuning_seeds in .* is 0"),
        ({"tasks": ["sst-3"]}, "no task 'sst-3'.*'sst2'"),
        ({"tasks": [5]}, "tasks in"),
        ({"tasks": {"sst2": {"epochs": 0}}}, "epochs of the task sst2"),
        ({"finetuning": {"precision": "fp32"}}, "unknown setting 'precision'"),
        ({"finetuning": {"epoch": 3}}, "unknown setting 'epoch'.*Did you mean 'epochs'"),
        ({"include": "mimi"}, "no grid and no file 'mimi'.*Did you mean 'mini'"),
        ({"include": ["mini"]}, "include in"),
    ],
)
def test_what_is_wrong_in_a_grid_is_named(write_grid, changes, message):
    with pytest.raises(UserError, match=message):
        read_grid(write_grid(**{"tasks": [], **changes})).jobs()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "none of its arms"),
        ("5", "holds no settings"),
        ("arms: [", "is no YAML"),
        ("include: {file}", "includes itself"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors"),
        ("[" * 100_000, "nested too deeply"),
        ("arms: \xff", "no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_grid_is_one_message(content, message, tmp_path, capsys):
    file = tmp_path / "grid.yaml"
    file.write_bytes(content.replace("{file}", str(file)).encode("latin-1"))
    with pytest.raises(SystemExit) as stopped:
        main(["--grid", str(file), "--dry_run"])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and message in err and err.count("\n") == 2, err


def test_bad_input_is_one_message_and_code_2(program, write_grid, tmp_path, capsys):
    for arguments, *said in (
        (
            words(write_grid(), tmp_path, "--arms", "hot", "tripple"),
            "no arm 'tripple'",
            "Did you mean 'triple'",
        ),
        (["--gird", "mini"], "gird", "Did you mean 'grid'"),
        (["--seeds", "-1"], "seeds is"),
        (["--seeds", str(10**12)], "seeds is"),
        (["--dry_run", "--report"], "Both dry_run and report"),
        (words(write_grid(), tmp_path, "--report"), "Nothing of the grid"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        err = capsys.readouterr().err
        assert stopped.value.code == 2 and err.startswith("error: "), err
        assert all(word in err for word in said), err
    done = program(
        words(write_grid(base={"precision": "fp32", "corpus": "nowhere"}), tmp_path), as_ablation()
    )
    assert_user_error(done, "triple, seed 0: ", "nowhere")
    assert not list((tmp_path / "results").glob("*.json"))


HOLDER = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print(1, flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_freed_with_its_process(write_grid, tmp_path, program):
    """Another process has the job: it is left alone. What a dead one has left does not matter."""
    job, other = read_grid(write_grid(tasks=[])).jobs()[:2]
    (tmp_path / f".{job.name}.lock").write_text("left by a process that was killed")
    with ablation.locked(tmp_path, job) as mine, ablation.locked(tmp_path, other) as too:
        assert mine and too
        # Of another process, since a lock is the process's own.
        script = f"{HOLDER.partition('lock.')[0]}lock.acquire(blocking=False)"
        path = tmp_path / f".{job.name}.lock"
        asked = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True)
        assert asked.returncode == 1 and b"Timeout" in asked.stderr
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"1\n"
        with ablation.locked(tmp_path, job) as mine:
            assert not mine
        process.kill()
    with ablation.locked(tmp_path, job) as mine:
        assert mine
    record_file(tmp_path, job).write_text("{}")
    with ablation.locked(tmp_path, job) as mine:
        assert not mine  # it is recorded
    assert not path.exists()


def test_the_projects_records_are_read_and_none_is_added(watched, capsys, tmp_path, monkeypatch):
    """Without a folder of its own a grid is reported and forecast, and nothing of it runs."""
    monkeypatch.chdir(tmp_path)
    # A grid that did begin would train for minutes, and write where the next test reads.
    monkeypatch.setattr(GridRunner, "run_pending", lambda *_: pytest.fail("the grid runs"))
    records = PROJECT / "data" / "results" / "ablation"
    before = sorted(records.iterdir())
    with pytest.raises(SystemExit) as end:
        main(["--grid", "demo", "--seeds", "1"])
    assert end.value.code == 2 and "(--output)" in capsys.readouterr().err
    main(["--grid", "demo", "--dry_run"])
    assert "0 of" in capsys.readouterr().out
    assert watched == [] and sorted(records.iterdir()) == before and not list(tmp_path.iterdir())


def test_a_dry_run_runs_nothing(write_grid, tmp_path, capsys, watched):
    main(words(write_grid(), tmp_path, "--dry_run"))
    assert (
        watched == []
        and "0 of 4 recorded, 4 missing" in capsys.readouterr().out
        and not (tmp_path / "results").exists()
    )


def test_a_grid_names_the_librarys_tasks_only(tmp_path):
    """Its means are over suites, in which a task of one's own is not."""
    (tmp_path / "mine.yaml").write_text("source: .\ntext: a\nlabel: b\nmetric: accuracy\n")
    file = tmp_path / "grid.yaml"
    file.write_text(f"tasks: ['{tmp_path}/mine.yaml']\narms: {{a: {{}}}}\n")
    with pytest.raises(UserError, match=r"mine\.yaml.*A grid takes these"):
        read_grid(file)
