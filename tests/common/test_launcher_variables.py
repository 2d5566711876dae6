"""What a half of a launcher leaves in the environment: refused in one message by every program.

Oracle: the variables that `torchrun` sets, all of them together.
"""

import os

import pytest

from distil_lib.common.processes import TOGETHER, check_launcher_variables, run_program
from distil_lib.common.trainer import environment_kept
from distil_lib.errors import UserError

SOUND = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [n for n in os.environ if n in TOGETHER or n.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)


def test_all_of_a_launcher_or_none_is_sound(monkeypatch):
    check_launcher_variables()
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    check_launcher_variables()


@pytest.mark.parametrize("lacking", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"])
def test_a_part_of_a_launcher_is_refused(lacking, monkeypatch):
    for name in SOUND.keys() - {lacking}:
        monkeypatch.setenv(name, SOUND[name])
    with pytest.raises(UserError, match=lacking):
        check_launcher_variables()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "two"),
        ("RANK", "-1"),
        ("LOCAL_RANK", "\u0663"),
        ("LOCAL_WORLD_SIZE", ""),
        ("ACCELERATE_USE_CPU", "maybe"),
        ("ACCELERATE_USE_FSDP", ""),
        ("RANK", "2"),
    ],
)
def test_values_that_are_none_are_refused_by_a_program(name, value, monkeypatch, capsys):
    for other, good in (SOUND | {name: value}).items():
        monkeypatch.setenv(other, good)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: "done")
    said = capsys.readouterr()
    assert end.value.code == 2 and name in said.err and "what to do" in said.err and not said.out


def test_the_trainer_does_not_see_the_launchers_settings(monkeypatch):
    """A precision in the environment would win over the one that a record names."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    before = dict(os.environ)
    with environment_kept():
        assert [n for n in os.environ if n.startswith("ACCELERATE_")] == ["ACCELERATE_USE_CPU"]
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
        os.environ["ACCELERATE_NEW"] = "1"
    assert dict(os.environ) == before
