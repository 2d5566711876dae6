"""What a machine is measured to be good at."""

import time

import pytest
import torch

from distil_lib.common import hardware
from distil_lib.common.hardware import matmul_ceiling

CPU = torch.device("cpu")


def test_the_ceiling_is_the_best_products_rate(monkeypatch):
    """Oracle: a clock on which products of 512 run at 3 GFLOP/s in their best trial, and all others at 1."""
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
    """Oracle: a product of another shape, timed here. The machine may be busy: twice as quick is beyond any noise."""
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
