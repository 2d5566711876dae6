"""What a machine is measured to be good at."""

import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from distil_lib.common import hardware
from distil_lib.common.hardware import matmul_ceiling
from distil_lib.errors import UserError

CPU = torch.device("cpu")


def test_the_ceiling_is_the_best_products_rate(monkeypatch):
    """Oracle: a clock. Products of 512 run at 3 GFLOP/s in their best trial, all others at 1."""
    now, trial = 0.0, {}

    def tick():
        return now

    def product(x, y):
        nonlocal now
        size = len(x)
        trial[size] = trial.get(size, 0) + 1
        now += 2 * size**3 / (3e9 if (size, trial[size]) == (512, 3) else 1e9)
        return x

    monkeypatch.setattr(time, "perf_counter", tick)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    assert matmul_ceiling(CPU, torch.float32, budget=3.0) == pytest.approx(3e9)
    assert set(trial) == {256, 512} and now < 3.0  # 1024 would not have ended in time


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_product_is_quicker_than_the_ceiling_and_it_is_soon_known(dtype):
    """Oracle: a product of another shape, timed here. Twice as quick is beyond any noise."""
    start = time.perf_counter()
    ceiling = matmul_ceiling(CPU, dtype)
    assert time.perf_counter() - start < 5 and ceiling > 0
    x, y = torch.ones(600, 500, dtype=dtype), torch.ones(500, 400, dtype=dtype)
    x @ y
    start = time.perf_counter()
    x @ y
    assert 2 * 600 * 500 * 400 / (time.perf_counter() - start) < 2 * ceiling


def test_a_probe_leaves_nothing_behind():
    """It draws no random number: a run is the same whether it was measured or not."""
    before = torch.get_rng_state()
    matmul_ceiling(CPU, torch.float32)
    assert torch.equal(before, torch.get_rng_state()) and hardware.probe_precision(CPU) in (
        "fp32",
        "bf16",
    )


# -------------------------------------------------------------------------------- what may be used
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_only_cpus_that_this_process_may_use_are_counted():
    """Oracle: a process that is bound to one CPU."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from distil_lib.common.hardware import available_cpus; print(available_cpus())"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"cpu.max": "max 100000"}, []),
        ({"cpu.max": "150000 100000"}, [2]),
        ({"cpu.max": "50000 100000"}, [1]),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, [3]),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ({"cpu.max": "nonsense"}, []),
        ({}, []),
    ],
)
def test_a_containers_quota_counts(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert hardware._cgroup_quotas(tmp_path) == expected


# -------------------------------------------------------------------------------------- precision
@pytest.mark.parametrize(
    "flags, ratios, precision, word",
    [
        ({"avx2"}, [], "fp32", "neither"),
        ({"avx512_bf16"}, [4.0], "bf16", "avx512_bf16"),
        ({"amx_bf16", "avx512_bf16"}, [9.0], "bf16", "amx_bf16"),
        ({"avx512_bf16"}, [0.9, 3.0], "bf16", "3.0"),  # a moment's load does not decide
        ({"avx512_bf16"}, [0.9, 0.8], "fp32", "0.8"),  # told to compute without it, for instance
        (set(), [5.0], "bf16", "5.0"),  # another kind of processor: measured
        (set(), [0.2], "fp32", "0.2"),
        (set(), [1.4, 1.0], "fp32", "1.0"),  # close: measured longer
        (set(), [1.0, 1.4], "bf16", "1.4"),
    ],
)
def test_the_processors_word_counts_and_a_measurement_confirms_it(
    flags, ratios, precision, word, monkeypatch
):
    left = list(ratios)
    monkeypatch.setattr(hardware, "_processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(hardware, "measure_bf16_speedup", lambda *_, **__: left.pop(0))
    chosen, reason = hardware.choose_precision(CPU)
    assert chosen == precision and word in reason and left == []


def test_other_processes_do_not_change_what_is_measured(monkeypatch):
    """Oracle: two clocks. The wall's says that bf16 is slower, as on a machine that was just busy;
    this process's own says that it is 4 times as fast."""
    wall, own, product = [0.0], [0.0], torch.Tensor.__matmul__

    def timed(x, y):
        wall[0] += 1.0 if x.dtype == torch.bfloat16 else 0.1
        own[0] += 0.1 if x.dtype == torch.bfloat16 else 0.4
        return x

    monkeypatch.setattr(time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(time, "process_time", lambda: own[0])
    monkeypatch.setattr(torch.Tensor, "__matmul__", timed)
    assert hardware.measure_bf16_speedup(CPU) == pytest.approx(4.0)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)


def test_operands_are_random(monkeypatch):
    """A processor multiplies ones faster than any real matrix."""
    seen = []
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda x, y: seen.append(x) or x)
    matmul_ceiling(CPU, torch.float32, budget=0.01)
    hardware.measure_bf16_speedup(CPU, size=64, rounds=1)
    assert all(x.float().std() > 0.9 for x in seen)


# ------------------------------------------------------------------------------------ environment
@pytest.mark.parametrize(
    "name, value, precision, words",
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "auto", "divided twice"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "auto", "compiler"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "auto", "fp16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "bf16", "fp8"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "fp32", "bf16"),
        ("NVIDIA_TF32_OVERRIDE", "1", "fp32", "10 bits"),
    ],
)
def test_what_would_change_the_arithmetic_unseen_is_refused(
    name, value, precision, words, monkeypatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        hardware.launch_precision(precision)


def test_what_the_launcher_asks_for_is_used_where_the_settings_leave_it_open(monkeypatch):
    assert hardware.launch_precision("auto") == "auto"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what it says when it was told nothing
    assert hardware.launch_precision("fp32") == "fp32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert hardware.launch_precision("auto") == hardware.launch_precision("bf16") == "bf16"
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert hardware.launch_precision("auto") == "bf16"


# ----------------------------------------------------------------------------------------- threads
@pytest.fixture
def few_threads(monkeypatch):
    """A system that starts three threads and then refuses, as Linux says it."""
    start, started = threading.Thread.start, []

    def limited(thread):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return started


def test_more_threads_than_the_system_starts_are_refused_before_torch_asks(few_threads):
    before = torch.get_num_threads()
    with pytest.raises(UserError, match="4,096 threads: after 3 ") as error:
        hardware.set_threads(4096)
    assert error.value.settings == ("threads",) and torch.get_num_threads() == before
    assert not any(thread.is_alive() for thread in few_threads)


def test_as_many_threads_as_the_system_starts_are_used(few_threads):
    before = torch.get_num_threads()
    try:
        hardware.set_threads(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "program, arguments",
    [
        ("distil_lib.elmo.pretrain", ["--output", "run"]),
        ("distil_lib.finetune.__main__", ["--task", "doc-qa"]),
        ("distil_lib.pretrain", ["--plan"]),
        ("distil_lib.timing.__main__", ["--size", "small"]),
        ("distil_lib.timing.backend_comparison", ["--size", "small"]),
    ],
)
def test_every_program_says_so_before_it_works(
    program, arguments, few_threads, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        importlib.import_module(program).main([*arguments, "--threads", "500"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "500 threads" in said and "(--threads)" in said
    assert list(tmp_path.iterdir()) == []
