"""Machines and processes that do not find each other: in time, one message that says what to check.

Oracles: what this machine itself says of ports that are open or closed; exit codes; a limit.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from threading import Timer

import pytest
from helpers import assert_user_error, free_port, together

from distil_lib.common.rendezvous import addresses, connect_seconds, machines_apart, watch_machines
from distil_lib.errors import UserError

ROOT = Path(__file__).parents[2]
NODES = ROOT / "distil_lib" / "training" / "accelerate_configs" / "nodes.yaml"


def machine(rank: int, port: int) -> Namespace:
    return Namespace(
        num_machines=2,
        main_process_ip="127.0.0.1",
        main_process_port=port,
        machine_rank=rank,
        rdzv_backend="static",
    )


def test_several_machines_without_an_address_are_refused():
    options = machine(0, 1)
    options.main_process_ip = None
    with pytest.raises(UserError, match="address of the first"):
        watch_machines(options)


@pytest.mark.parametrize(
    "rank, is_open, problem, remedy",
    [
        (0, False, "does not reach itself at", "--main_process_ip"),
        (0, True, "Not all of 2 machines came to", "--machine_rank 1"),
        (1, False, "(Connection refused)", "--machine_rank 0"),
        (1, True, "what answers there is no launcher", "--machine_rank 0"),
    ],
)
def test_what_to_check_depends_on_the_machine_and_on_who_answers(rank, is_open, problem, remedy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not is_open:
            server.close()
        said = machines_apart(machine(rank, port))
    assert problem in said[0] and f"127.0.0.1:{port}" in said[0]
    assert remedy in said[1] and "DISTIL_CONNECT_SECONDS" in said[1]


def test_the_addresses_are_those_that_others_may_reach():
    said = addresses()
    assert "127.0.0.1 (" not in said
    for one in said.split(", ") if "(" in said else ():
        with socket.socket() as mine:  # only an address of this machine can be bound
            mine.bind((one.split(" (")[0], 0))


@pytest.mark.parametrize("said", ["soon", "-1", "0", "1.5", "10000000", ""])
def test_a_limit_that_is_none_is_refused(said, monkeypatch):
    monkeypatch.setenv("DISTIL_CONNECT_SECONDS", said)
    with pytest.raises(UserError, match="DISTIL_CONNECT_SECONDS"):
        connect_seconds()


def test_machines_that_do_not_meet_end_in_time(tmp_path):
    """Each of two alone, at ports of their own: they start and wait side by side."""
    command = [sys.executable, "-m", "distil_lib.launch", "--config_file", str(NODES)]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTIL_CONNECT_SECONDS": "3"}
    script = tmp_path / "never.py"
    script.write_text("print('started')", encoding="utf-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []
    for rank in (0, 1):
        where = ["--main_process_port", str(free_port()), "--machine_rank", str(rank), str(script)]
        started.append(subprocess.Popen([*command, *where], env=environment, **pipes))
    for process, problem in zip(started, ("Not all of 2 machines", "Machine 1"), strict=True):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (2, ""), err
        first, second = err.splitlines()
        assert first.startswith(f"error: {problem}") and second.startswith("  what to do: ")


def alone(program, small_run, folder, rank: int, prepare=None, **environment):
    """Start one of two processes."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment |= where | {"RANK": str(rank), "LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"}
    return program.start(small_run(folder), prepare, **environment)


def test_processes_that_do_not_come_are_named(small_run, program, tmp_path):
    wait = [
        alone(program, small_run, tmp_path / "run", rank, DISTIL_CONNECT_SECONDS="2")
        for rank in (0, 1)
    ]
    assert_user_error(wait[0](60), "process 0 has waited", "1 of 2 processes: 1.")
    assert_user_error(wait[1](60), "process 1 does not reach process 0", "refused")


class terminated:
    """SIGTERM, a second after the program has started."""

    def __call__(self):
        Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_waits_for_others_can_be_stopped(rank, small_run, program, tmp_path):
    """PyTorch itself heeds signals after its limit, here 10 minutes."""
    start = time.monotonic()
    settings = {"DISTIL_CONNECT_SECONDS": "600"}
    wait = alone(program, small_run, tmp_path / "run", rank, terminated(), **settings)
    assert wait(60).code == 143 and time.monotonic() - start < 60


class interface:
    """Let gloo use the named network interface."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self):
        os.environ["GLOO_SOCKET_IFNAME"] = self.name


def test_processes_without_a_way_to_each_other_name_the_interface(small_run, program, tmp_path):
    first, second = together(program, small_run(tmp_path / "run"), interface("no-such0"))
    assert_user_error(first, "but not each of the others", "GLOO_SOCKET_IFNAME")
    assert second.code == 2 and "error: " not in second.err
