"""What this machine is and what it is good at.

    choose_precision(torch.device("cpu"))      # ("bf16", "the processor has avx512_bf16")
    available_cpus()                           # those that this process may use
    set_threads(2)                             # of PyTorch, or a `UserError`
    matmul_ceiling(torch.device("cpu"), torch.float32)      # FLOP/s that no training step exceeds
    describe_machine()                         # {"processor": ..., "cores": 2, ...}

Speeds are measured on this machine, not looked up.
"""

import os
import platform
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distil_lib.errors import UserError

if TYPE_CHECKING:  # `cli` starts programs, which ask this file about the machine
    from distil_lib.common.cli import Precision

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")
BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # instructions that multiply bf16 at full speed
CLEAR = 1.5  # times as fast: beyond what noise does to the CPU time of the best of nine trials


# ------------------------------------------------------------------------------------ processors
def available_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        number = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    return max(min(number, *_cgroup_quotas(), number), 1)


def _cgroup_quotas(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """CPUs that control groups (version 2, then 1) give to this process, rounded up."""
    quotas = []
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
        folder = root / own.strip("/")
        for each in [folder, *folder.parents]:
            if each.is_relative_to(root) and (each / "cpu.max").is_file():
                quotas.append((each / "cpu.max").read_text(encoding="utf-8").split())
        if (root / "cpu" / "cpu.cfs_quota_us").is_file():
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quotas.append([(root / "cpu" / n).read_text(encoding="utf-8").strip() for n in names])
        return [-(-int(q) // int(p)) for q, p in quotas if q not in ("max", "-1") and int(p) > 0]
    except (OSError, ValueError):  # no Linux, or none of our business
        return []


def default_threads() -> int:
    """CPU threads of this process: its share of the CPUs, or what OMP_NUM_THREADS says.

    Launchers set that variable to 1 unless told otherwise, and on a laptop all cores but one would
    be idle: it only counts where no launcher has been at work.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_WORLD_SIZE" in os.environ
    if "OMP_NUM_THREADS" in os.environ and not launched:
        return torch.get_num_threads()
    return max(available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def current_device() -> torch.device:
    """Where a single process computes: a GPU if there is one."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def check_threads(number: int) -> None:
    """Raise `UserError` unless the system starts so many threads in this process.

    OpenMP would end the process at the first product, without saying which setting to change.
    """
    release = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=release.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # a limit of the user, of the container, or of memory
        raise UserError(
            f"This machine does not start {number:,} threads: after {len(started):,} it refuses.",
            f"Choose fewer: more than its {available_cpus()} CPUs are of no use.",
            setting="threads",
        ) from error
    finally:
        release.set()
        for thread in started:
            thread.join()


def set_threads(number: int = 0) -> None:
    """Let PyTorch compute with so many threads, or with `default_threads` for 0.

    Raises:
        UserError: the system does not start so many.
    """
    number = number or default_threads()
    check_threads(number)
    torch.set_num_threads(number)


def on_cpu() -> bool:
    """Whether Accelerate is to be told that it computes on the CPU.

    It was asked to, or a launcher has started processes that have nothing else. They find each
    other only so; else each of them would train alone.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or ("LOCAL_RANK" in os.environ and not torch.accelerator.is_available())


# ------------------------------------------------------------------------------------- precision
def choose_precision(device: torch.device) -> "tuple[Precision, str]":
    """("bf16" or "fp32", why), whichever multiplies matrices faster here.

    Support is not speed: without AVX-512 bf16 or AMX a CPU computes bf16 products correctly and
    slowly. So the processor's own word counts first. A measurement confirms it, in the time that
    this process itself has computed, which other processes hardly change; it is longer where it is
    close, 0.3 seconds at most.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        fast = major >= 8
        return "bf16" if fast else "fp32", f"the GPU has compute capability {major}.{minor}"
    flags = _processor_flags() if device.type == "cpu" else frozenset()
    found = next((flag for flag in BF16_FLAGS if flag in flags), None)
    if flags and found is None:
        return "fp32", "the processor has neither avx512_bf16 nor amx_bf16"
    ratio = measure_bf16_speedup(device)
    if ratio < CLEAR and (found or ratio > 1 / CLEAR):  # close, or against the processor's word
        ratio = measure_bf16_speedup(device, rounds=40)
    why = f"bf16 products are measured {ratio:.1f} times as fast"
    if found:
        why = f"the processor has {found}, and {why}"
    return "bf16" if ratio > (1.0 if found else 1.25) else "fp32", why


def probe_precision(device: torch.device) -> str:
    """The precision of `choose_precision` without its reason."""
    return choose_precision(device)[0]


def _processor_flags() -> frozenset[str]:
    """The instruction sets of an x86 processor under Linux that torch may use; empty elsewhere."""
    if os.environ.get("ATEN_CPU_CAPABILITY", "avx512") not in ("avx512", "amx"):
        return frozenset()  # told to leave some away: only a measurement says what is left
    return frozenset(_processor().get("flags", "").split())


def _processor() -> dict[str, str]:
    """What Linux says of its first processor; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    entries = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in entries}


def measure_bf16_speedup(device: torch.device, size: int = 512, rounds: int = 9) -> float:
    """How many times as fast products in bf16 are: the best of interleaved trials of each.

    On a CPU the clock is that of this process (all its threads), so that a busy machine, which
    takes the processor away from it, does not decide.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(size, size, generator=generator).to(device)
    operands = {dtype: numbers.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    best = dict.fromkeys(operands, float("inf"))
    for trial in range(rounds + 2):
        for dtype, x in operands.items():
            _wait(device)
            start = clock()
            for _ in range(4):
                x @ x
            _wait(device)
            if trial >= 2:  # the first trials pay for set-up
                best[dtype] = min(best[dtype], clock() - start)
    return best[torch.float32] / max(best[torch.bfloat16], 1e-9)


def matmul_ceiling(device: torch.device, dtype: torch.dtype, budget: float = 0.15) -> float:
    """FLOP/s of square matrix products: the best of all trials, on ever larger matrices.

    What a step reaches of it is its model FLOPs utilization. The data sheet's peak is out of reach
    for products, too; and on a machine that is busy otherwise both suffer alike. The operands are
    random: a processor multiplies ones faster than any real matrix.

    Args:
        device: where to multiply.
        dtype: of the matrices.
        budget: seconds; no larger size is begun that would end after them.
    """
    best, size, end = 0.0, 256, time.perf_counter() + budget
    generator = torch.Generator(device).manual_seed(0)
    while True:
        # Drawn where they are multiplied: a CPU takes seconds for what a GPU multiplies in
        # milliseconds, and the budget would end before the sizes that reach the ceiling.
        x = torch.randn(size, size, generator=generator, device=device).to(dtype)
        taken = []
        for _ in range(4):  # the first pays for set-up
            _wait(device)
            start = time.perf_counter()
            x @ x
            _wait(device)
            taken.append(time.perf_counter() - start)
        best = max(best, 2 * size**3 / min(taken))
        size *= 2
        # The next size has 8 times the work.
        if size > 16_384 or time.perf_counter() + 4 * 8 * min(taken) > end:
            return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ----------------------------------------------------------------------------------- environment
def launch_precision(precision: "Precision") -> "Precision":
    """The precision to train in, where the launcher's environment has a word in it.

    Accelerate reads settings from the environment that change what is computed. Here they are used
    as asked, or refused; none of them acts unseen.

    Args:
        precision: "auto", "fp32" or "bf16", as the settings say.

    Raises:
        UserError: the environment asks for something else, or for what this program does itself.
    """
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise UserError(
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS is set: gradients would be divided twice.",
            "Unset it; micro_batch_size says how a batch is accumulated.",
            setting="micro_batch_size",
        )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("no", ""):
        raise UserError(
            "The launcher asks for a compiler (ACCELERATE_DYNAMO_BACKEND).",
            "Leave dynamo_backend out: the program compiles its layers and losses itself.",
            setting="compile",
        )
    if os.environ.get("ACCELERATE_TORCH_DEVICE"):
        raise UserError(
            "ACCELERATE_TORCH_DEVICE is set.", "Unset it; CUDA_VISIBLE_DEVICES chooses a GPU."
        )
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        raise UserError(
            "NVIDIA_TF32_OVERRIDE is set: products of fp32 would be rounded to 10 bits.",
            "Unset it, or ask for bf16.",
            setting="precision",
        )
    if os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE") == "1":  # as NVIDIA's containers do
        torch.set_float32_matmul_precision("highest")
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked in ("no", ""):  # what the launcher says when it was told nothing
        return precision
    if asked == "bf16" and precision in ("auto", "bf16"):
        return "bf16"
    raise UserError(
        f"The launcher asks for {asked}, the settings for {precision}.",
        "Leave mixed_precision out of the launcher's settings: the program's own counts.",
        setting="precision",
    )


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, threads, GPU, and the versions of what computes."""
    machine: dict[str, str | int] = {
        "processor": _processor().get("model name", platform.processor() or platform.machine()),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine |= {"gpu": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count()}
    machine["python"] = platform.python_version()
    return machine | {package: version(package) for package in PACKAGES}
