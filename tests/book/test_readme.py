"""Every command of README.md exists and is understood, and its Python runs.

Oracles: make's own list of targets, the programs' own parsers, and the interpreter.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from distil_lib.ablation import __main__ as ablation
from distil_lib.errors import UserError
from distil_lib.export import __main__ as export
from distil_lib.finetune import config as finetune
from distil_lib.tasks.registry import find_task
from distil_lib.timing import backend_comparison, table3
from distil_lib.training.config import parse_arguments

ROOT = Path(__file__).parents[2]


MODULES = {
    "finetune": finetune,
    "ablation": ablation,
    "timing": table3,
    "timing.backend_comparison": backend_comparison,
    "export": export,
}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """What follows a prompt in the `console` blocks, and the inline code that calls a program."""
    prompted = [
        line
        for block in blocks("console", text)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    return [line[2:] for line in prompted] + re.findall(r"`((?:make|conda) [^`]+)`", text)


def fault(command: str) -> str | None:
    """Why a command would not be understood; None if it would."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        # Not as a part of the `make` that has started the tests.
        alone = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
        result = subprocess.run(
            ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, env=alone
        )
        return result.stderr or None
    if program == "source":  # made by the set-up, which every target of make calls
        return None if arguments == [".venv/bin/activate"] else f"what is {arguments}?"
    if program == "conda":
        known = arguments[:3] == ["env", "create", "-f"] and (ROOT / arguments[3]).is_file()
        return None if known else f"what is {arguments}?"
    if arguments[:2] == ["-m", "distil_lib.launch"]:  # takes what `accelerate launch` takes
        program, arguments = "accelerate", ["launch", *arguments[2:]]
    if program == "accelerate" and "distil_lib/pretrain.py" in arguments:
        script = arguments.index("distil_lib/pretrain.py")
        launch, settings = arguments[:script], arguments[script + 1 :]
        if launch != ["launch"] and not (
            launch[:2] == ["launch", "--config_file"] and (ROOT / launch[2]).is_file()
        ):
            return f"what is {launch}?"
        try:
            parse_arguments(settings)
        except UserError as error:
            return str(error)
        except SystemExit as stop:  # --help
            return f"exit code {stop.code}" if stop.code else None
        return None
    if program == "accelerate" and arguments[:1] == ["launch"]:
        program, arguments = "python", arguments[1:]
    if (
        program == "python"
        and arguments[:1] == ["-m"]
        and (module := arguments[1].removeprefix("distil_lib.")) in MODULES
    ):
        try:
            config = MODULES[module].PROGRAM.parse(arguments[2:])
            if module == "finetune":
                find_task(config.task)
            if module == "ablation":
                ablation.read_grid(config.grid or config.preset)
        except UserError as error:
            return str(error)
        given = [getattr(config, name, None) for name in ("model", "compare_with")]
        missing = [
            name
            for name in given
            if name and name.startswith("data/") and not (ROOT / name).exists()
        ]
        return f"there is no {missing[0]}" if missing else None
    return f"nothing here knows how to check {program}"


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", commands(README))
def test_command_is_understood(command):
    assert fault(command) is None


def test_all_commands_are_checked():
    """Shell commands stand in `console` blocks with a prompt: nothing hides in a block of another
    kind.
    """
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) <= {"console", "python", "text"}
    assert {"make book", "make test"} <= {
        command.split("#")[0].strip() for command in commands(README)
    }
    assert any("--preset mini" in command for command in commands(README))


@pytest.mark.parametrize(
    "command",
    [
        "make bok",
        "accelerate launch distil_lib/pretrain.py --preset mni",
        "accelerate launch distil_lib/pretrain.py --no_such_setting 3",
        "conda env create -f conda.yml",
        "python distil.py",
        "python -m distil_lib.finetune --task doc-acceptabilty",
        "python -m distil_lib.finetune --compare_with data/results/nobody/doc-qa.json",
        "accelerate launch -m distil_lib.ablation --preset mni",
        "python -m distil_lib.timing --systems gpt",
        "python -m distil_lib.export --model data/studnt",
        "source venv/bin/activate",
    ],
)
def test_a_wrong_command_is_seen(command):
    assert fault(command)


@pytest.mark.parametrize("number", range(len(blocks("python", README))))
def test_python_runs(number):
    source = blocks("python", README)[number]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, env=offline
    )
    assert result.returncode == 0, result.stderr


# What makes a command of the README short; where it writes stays as it is.
SHORT = {"distil_lib.finetune": "--seeds 1 --epochs 1 --train_rows 32 --precision fp32 --threads 1"}


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in commands(README)
        if command.startswith("python -m distil_lib.finetune")
    ],
)
def test_fine_tuning_runs_as_it_stands_in_a_clean_clone(command, tmp_path):
    """In a folder where nothing was prepared: the result is in runs/, the records are untouched."""
    arguments = shlex.split(command, comments=True)[1:]
    arguments += SHORT[arguments[1]].split()
    data = (ROOT / "data" / "results").rglob("*.json")
    before = {file: file.stat().st_mtime_ns for file in data}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("*.json")
    assert result.parent.parent == tmp_path / "runs" / "results"
    assert f"result in {result.relative_to(tmp_path)}" in done.stdout
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_places_exist():
    """Every file and folder that the text names, but for those that a run makes or the reader
    brings.
    """
    named = set(re.findall(r"`([\w./-]+/|[\w.-]+\.(?:cff|md|yml|lock)|LICENSE[\w-]*)`", README)) - {
        "model/",
        "runs/results/",
    }
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_headline_says_what_the_chapter_on_evaluation_asserts():
    """Oracle: the chapter, whose cells compare the same numbers with the records."""
    (headline,) = [part for part in README.split("\n\n") if part.startswith("A student with half")]
    notebook = json.loads((ROOT / "book" / "07_evaluation.ipynb").read_text(encoding="utf-8"))
    text = " ".join(" ".join(line for c in notebook["cells"] for line in c["source"]).split())
    headline = " ".join(headline.split())
    claims = re.findall(r"([\d.]+)% [a-z ]*on ([\w-]+) \(([\d.]+) to ([\d.]+)\)", headline)
    assert len(claims) == 5
    for share, task, low, high in claims:
        key = task.lower().replace("-", "")
        assert f'"{key}", keeps), [{share}, {low}, {high}]' in text, task
    shares, intervals = re.findall(r"[\d.]+%", headline), re.findall(r"\([\d.]+ to .*?\)", headline)
    assert len(shares) == 5
    # The landing page says the same of the students.
    landing = " ".join((ROOT / "index.md").read_text(encoding="utf-8").split())
    for claim in [*shares, *intervals]:
        assert claim in landing, claim
