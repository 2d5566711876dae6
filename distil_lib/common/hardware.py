"""What this machine is and what it is good at.

probe_precision(torch.device("cpu"))        # "bf16" where 16-bit products are really quicker, else "fp32"
matmul_ceiling(torch.device("cpu"), torch.float32)          # FLOP/s that no training step exceeds
describe_machine()                          # {"processor": ..., "cores": 2, ...}
"""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def probe_precision(device: torch.device, size: int = 512, repeats: int = 9) -> str:
    """ "bf16" or "fp32", whichever multiplies matrices quicker here: the best of `repeats` alternating trials, some 20 ms in all.

    Support is not speed: without AVX-512 bf16 or AMX a CPU computes bf16 products correctly and slowly.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    operands = {dtype: torch.ones(size, size, device=device, dtype=dtype) for dtype in best}
    for trial in range(repeats + 2):
        for dtype, x in operands.items():
            _wait(device)
            start = time.perf_counter()
            for _ in range(4):
                x @ x
            _wait(device)
            if trial >= 2:  # the first trials pay for set-up
                best[dtype] = min(best[dtype], time.perf_counter() - start)
    return "bf16" if best[torch.bfloat16] < 0.8 * best[torch.float32] else "fp32"


def choose_precision(device: torch.device) -> tuple[str, str]:
    """("bf16" or "fp32", why)."""
    return probe_precision(device), "the faster one, measured"


def matmul_ceiling(device: torch.device, dtype: torch.dtype, budget: float = 0.15) -> float:
    """FLOP/s of square matrix products: the best of all trials, on ever larger matrices while `budget` seconds last.

    What a step reaches of it is its model FLOPs utilization. The data sheet's peak is out of reach for products, too; and on a machine
    that is busy otherwise both suffer alike.
    """
    best, size, end = 0.0, 256, time.perf_counter() + budget
    while True:
        x, taken = torch.ones(size, size, device=device, dtype=dtype), []
        for _ in range(4):  # the first pays for set-up
            _wait(device)
            start = time.perf_counter()
            x @ x
            _wait(device)
            taken.append(time.perf_counter() - start)
        best = max(best, 2 * size**3 / min(taken))
        size *= 2
        if (
            size > 16_384 or time.perf_counter() + 4 * 8 * min(taken) > end
        ):  # the next size has 8 times the work
            return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_cpu() -> bool:
    """Whether Accelerate is to be told that it computes on the CPU: it was asked to, or a launcher has started processes that have
    nothing else. They find each other only so; else each of them would train alone."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or ("LOCAL_RANK" in os.environ and not torch.accelerator.is_available())


def default_threads() -> int:
    """CPU threads of this process: its share of the machine's cores, or what OMP_NUM_THREADS says.

    Launchers set that variable to 1 unless told otherwise, and on a laptop all cores but one would be idle: it only counts where
    no launcher has been at work.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_WORLD_SIZE" in os.environ
    if "OMP_NUM_THREADS" in os.environ and not launched:
        return torch.get_num_threads()
    return max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, threads, GPU and the versions of what computes: what a measurement has to be read with."""
    names = {}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            names = dict(line.split(":", 1) for line in file if line.startswith("model name"))
    processor = next(
        (v.strip() for v in names.values()), platform.processor() or platform.machine()
    )
    machine: dict[str, str | int] = {
        "processor": processor,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()}
    machine["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            continue
    return machine
