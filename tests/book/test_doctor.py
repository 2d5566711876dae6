"""`make doctor`: ten lines that are true of the machine.

Oracles: a socket that listens and one that does not, an empty search path, the operating system's
own figures, and a training's number of tokens.
"""

import importlib.util
import itertools
import os
import platform
import socket
import sys
from pathlib import Path

import pytest
import torch

from distil_lib.common.hardware import available_cpus
from distil_lib.training.config import load_preset

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
spec = importlib.util.spec_from_file_location("doctor", ROOT / "scripts" / "doctor.py")
doctor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(doctor)


@pytest.fixture
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_ten_lines_that_are_true(listener):
    said = dict(doctor.lines(speed=1000.0, endpoint=listener))
    assert len(said) == 10
    assert said["Python"].startswith(platform.python_version() + ";")
    assert said["Cores"].startswith(f"{available_cpus()} of ")
    assert said["GPU"].startswith("none") != torch.cuda.is_available()
    assert "127.0.0.1 answers" in said["Network"]
    config = load_preset("mini")
    tokens = config.max_steps * config.batch_size * config.block_size
    minutes = round(tokens / 1000 / min(available_cpus(), 2) / 60)
    assert f"at least {minutes} minutes" in said["make student"]


def test_the_readme_says_the_same_minutes(listener):
    said = dict(doctor.lines(speed=1000.0, endpoint=listener))["make test"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`make test` {said.removesuffix(' there')}." in readme


def test_what_is_missing_is_said(monkeypatch, tmp_path, listener):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "FONT_FOLDERS", (tmp_path,))
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0, 0))
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    with socket.socket() as closed:  # bound, and nothing listens
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = dict(doctor.lines(speed=1.0, endpoint=nowhere))
    assert "no Chromium" in said["Browser"] and "missing: DejaVu, Liberation" in said["Browser"]
    assert "does not answer" in said["Network"]
    assert "busy (load 1000)" in said["Cores"] and "needs 3.10 to 3.14" in said["Python"]


def test_speed_counts_the_tokens_of_a_step(monkeypatch):
    """Oracle: a clock that goes on by 2 seconds whenever it is read."""
    ticks = itertools.count(0, 2)
    monkeypatch.setattr(doctor.time, "process_time", lambda: next(ticks))
    config = load_preset("mini", batch_size=4, micro_batch_size=4)
    speed = doctor.tokens_per_second(config, bf16=False, steps=2)
    assert speed == 4 * config.block_size / 2
