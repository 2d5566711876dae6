"""What a benchmark cannot measure with is refused before it begins, in one message with code 2.

Oracle: each program is started with arguments that were typed wrongly; a call of what it measures
would be an error, because nothing is left of it.
"""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WRONG = {
    "correctness": ["--tokens -1", "--device nosuch", "--lines /proc/x/y.jsonl", "--width x"],
    "gpu": ["--seconds nan", "--parts nosuch", "--output /dev/null/x", "--table /nowhere.jsonl"],
    "loader": ["--rounds 0", "--seconds nan", "--workers -1", "--block 0", "--preset nosuch"],
    "memory": ["--megabytes 0 1", "--megabytes 1", "--megabytes -5 5"],
    "optimizers": ["--layers 0", "--device cuda:99", "--json /proc/x/y.json"],
    "positions": ["--seconds 0", "--seeds -1", "--json /dev/null/x.json"],
    "scaling": ["--steps 0", "--rounds -2", "--preset nosuch"],
    "step": ["--rounds 0", "--threads -1", "--dropout -1", "--budget nan", "--json /proc/x/y.json"],
}


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_no_benchmark_is_left_out():
    takes = {p.stem for p in BENCHMARKS.glob("*.py") if "ArgumentParser(\n" in p.read_text()}
    assert takes == WRONG.keys()


@pytest.mark.parametrize(
    "program, words", [(program, words) for program, each in WRONG.items() for words in each]
)
def test_what_is_typed_wrongly_is_one_message(program, words, tmp_path, monkeypatch, capsys):
    from distil_lib.common.processes import run_program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{program}.py", *words.split()])
    with pytest.raises(SystemExit) as end:
        run_program(importlib.import_module(program).main)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("error: ") == 1
    assert words.split()[0] in said or "nosuch" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_typed_rightly_is_left_alone(tmp_path):
    import argparse

    parse = importlib.import_module("arguments").parse
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+")
    parser.add_argument("--budget", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    file = tmp_path / "new" / "samples.json"
    options = parse(parser, ["--workers", "0", "2", "--json", str(file)])
    assert (options.workers, options.json, options.seed) == ([0, 2], file, 0)
    assert file.parent.is_dir() and not file.exists()
