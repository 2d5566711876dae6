"""`benchmarks/gpu.sh`: parts that hang or fail cost their own time, and every result is kept.

The parts themselves are tried with tiny sizes; on a GPU the same programs run with real ones.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import correctness
import gpu
from arms import all_arms
from step import Lines

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")
HANGS = "sleep 600 & echo $!; sleep 600"


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@needs_bash
def test_a_part_that_hangs_ends_with_its_workers_and_the_next_one_runs(tmp_path, monkeypatch):
    said = tmp_path / "said"
    after = gpu.Part("after", [sys.executable, "-c", f"open({str(said)!r}, 'w')"], 60)
    parts = [gpu.Part("hangs", ["bash", "-c", HANGS], 2), after]
    monkeypatch.setattr(gpu, "all_parts", lambda *options: parts)
    monkeypatch.setattr(gpu, "LEAST", 0.0)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "out")])
    start = time.monotonic()
    with pytest.raises(SystemExit, match="1"):
        gpu.main()
    assert time.monotonic() - start < 300 and said.exists()
    hung, ran = lines(tmp_path / "out")
    assert hung["ended"] == "over its 2 seconds" and ran["ended"] == 0
    worker = int((tmp_path / "out" / "hangs.log").read_text())
    gone = not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie"
    assert gone
    assert "| hangs | over its 2 seconds |" in (tmp_path / "out" / "table.md").read_text()


def test_a_part_that_fails_leaves_its_last_words(tmp_path):
    part = gpu.Part("fails", [sys.executable, "-c", "raise ValueError('no such card')"], 60)
    assert not gpu.carry_out(part, tmp_path, 60)
    (row,) = lines(tmp_path)
    assert row["ended"] == 1 and "no such card" in row["last_words"]


def test_when_time_is_over_no_part_begins(tmp_path, monkeypatch):
    parts = [gpu.Part("late", [sys.executable, "-c", "raise SystemExit(9)"], 60)]
    monkeypatch.setattr(gpu, "all_parts", lambda *options: parts)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path), "--seconds", "1"])
    with pytest.raises(SystemExit, match="1"):
        gpu.main()
    assert lines(tmp_path) == [{"part": "late", "ended": "no time was left", "took": 0.0}]


def test_the_eight_minutes_hold_all_parts(tmp_path):
    """Each part's limit is what it may cost; a part inside itself stops before."""
    parts = gpu.all_parts(tmp_path, False, None)
    assert 420 < sum(part.limit for part in parts) <= 480
    for part in parts:
        if "--budget" in part.command:
            budget = float(part.command[part.command.index("--budget") + 1])
            assert budget <= 0.7 * part.limit


def test_the_table_shows_medians_and_failures():
    """Oracle: by hand. 100 tokens in 0.5, 0.4 and 8 seconds: 200 a second in the middle."""
    facts = {"tokens": 100, "flops_per_token": 5e9, "precision": "bf16", "peak_bytes": 2e6}
    rows = [
        {"part": "step base", "sequences": 4, "block": 25},
        {"part": "step base", "ceiling": {"bf16": 4e12, "fp32": 1e12}},
        {"part": "step base", "arm": "ours", **facts, "first_seconds": 9.0},
        *({"part": "step base", "arm": "ours", "seconds": s} for s in (0.5, 0.4, 8.0)),
        {"part": "step base", "arm": "new", "error": "OutOfMemoryError: none left\nmore"},
        {"part": "correctness", "check": "losses", "ok": False, "error": 0.25, "errors": [0.25]},
        {"part": "step-base", "ended": 0, "took": 3.0},
    ]
    told = gpu.table(rows)
    assert "| step base, 4 x 25 tokens | tokens/s |" in told
    assert "| ours | 200 | 25% | 2 | 9.0 |" in told
    assert "| new | OutOfMemoryError: none left |" in told
    assert "| losses | **wrong** | 2.5e-01 |" in told


def test_every_lever_is_an_arm_that_differs_in_it_alone():
    arms = all_arms("bf16", "fp32", compiled=True)
    for soft in ("all", "masked"):
        ours = vars(arms[f"ours, {soft}"])
        for name, arm in arms.items():
            if name.startswith(f"{soft}: "):
                changed = {k for k, v in vars(arm).items() if v != ours[k]}
                pairs = ({"precision", "teacher"}, {"compiled", "chunk"})
                assert len(changed) == 1 or changed in pairs, name
        for lever in ("definition", "compiled layers", "compiled losses", "Muon", "Muon, stacks"):
            assert f"{soft}: {lever}" in arms


def run_checks(folder: Path, monkeypatch, *words: str) -> int:
    """The exit code of `correctness.py` with tiny sizes."""
    sizes = ["--tokens", "41", "--words", "70", "--width", "8", "--backend", "eager"]
    path = ["--lines", str(folder / "results.jsonl"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["correctness.py", *sizes, *path, *words])
    with pytest.raises(SystemExit) as end:
        correctness.main()
    return end.value.code


def test_the_checks_find_a_wrong_loss_and_a_form_that_fails(tmp_path, monkeypatch, capsys):
    fused = correctness.fused_vocabulary_losses

    def wrong(*arguments):
        loss, ce, mlm = fused(*arguments)
        return 1.001 * loss, ce, mlm

    def fails(*arguments):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(correctness, "fused_vocabulary_losses", wrong)
    monkeypatch.setattr(correctness, "compiled_vocabulary_losses", lambda *a: fails)
    monkeypatch.setattr(correctness, "check_steps", lambda *a: None)
    assert run_checks(tmp_path, monkeypatch) == 1
    checks = {row["check"]: row for row in lines(tmp_path)}
    good = {name for name, row in checks.items() if row["ok"]}
    assert {"losses, defined, fp32", "losses, defined, bf16", "Muon, stacks"} <= good
    assert "losses, fused, fp32" not in good and checks["losses, fused, fp32"]["error"] > 1e-4
    assert "no kernel image" in checks["losses, compiled losses, fp32"]["error"]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
    out = Lines(tmp_path / "results.jsonl", part="x")
    out.write(a=1)
    assert lines(tmp_path) == [{"part": "x", "a": 1}]
    Lines(None).write(a=1)


def script(*words: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(BENCHMARKS / "gpu.sh"), *map(str, words)]
    environment = os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@needs_bash
def test_the_script_names_what_is_missing(tmp_path):
    """Oracle: a Python that has none of the packages."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    done = script(tmp_path / "out", tmp_path / "nowhere", PYTHON=str(bare))
    assert done.returncode == 2
    assert "no wheels in" in done.stderr and "nowhere" in done.stderr
    assert script().returncode != 0


@needs_bash
def test_the_script_measures_and_makes_its_table(tmp_path):
    done = script(tmp_path / "out", "--small", "--parts", "machine")
    assert done.returncode == 0, done.stderr
    assert "products of random matrices reach" in done.stdout and "| machine | 0 |" in done.stdout
    assert [row["part"] for row in lines(tmp_path / "out")] == ["machine"] * 4
    again = script(tmp_path / "out", "--small")
    assert again.returncode == 2 and "holds results already" in again.stderr


@pytest.mark.slow
@needs_bash
def test_the_whole_rehearsal(tmp_path, corpus):
    done = script(tmp_path / "out", "--small", "--corpus", corpus)
    assert done.returncode == 0, done.stdout + done.stderr
    found = lines(tmp_path / "out")
    assert {row["part"] for row in found if row.get("ended") == 0} == {
        "machine", "correctness", "step-tiny", "loader", "run"
    }  # fmt: skip
    assert all(row["ok"] for row in found if "check" in row)
    (run,) = [row for row in found if "checkpoints" in row]
    assert run["model"] and run["checkpoints"]
