"""The protocol of every comparison of speed in this book: interleaved rounds, medians and intervals, pinned threads, a known machine.

    with pinned_process(threads=1) as process:                    # whose libraries have one thread
        found = process.submit(function, ...).result()
    rounds = interleaved_rounds({"a": pass_of_a, "b": pass_of_b}, rounds=5)              # {"a": [what pass_of_a() returned, ...], ...}
    quotient(rounds["a"], rounds["b"])                           # {"median": 1.9, "low": 1.8, "high": 2.0, "coverage": 0.94}

A machine is slow for seconds or minutes at a time. Every round runs each of what is compared once, so that all meet the same machine,
and quotients are taken within rounds.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import logging as transformers_logging

from distil_lib.common.hardware import describe_machine

FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "i8mm",
    "bf16",
)
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# ----------------------------------------------------------------------------------------------------------------- the protocol
def rotated(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number`: each name comes first, second, ... in turn."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def interleaved_rounds(
    passes: Mapping[str, Callable[[], Any]],
    rounds: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list]:
    """What each of the passes returns, round by round: every round calls each once, in rotating order."""
    found: dict[str, list] = {name: [] for name in passes}
    for number in range(rounds):
        for name in rotated(list(passes), number):
            found[name].append(passes[name]())
        say(f"round {number + 1} of {rounds}")
    return found


def timed(
    function: Callable, arguments: Sequence, clock: Callable[[], float] = time.perf_counter
) -> tuple[np.ndarray, list]:
    """The seconds of `function(argument)` for each argument, (N,), and what it returned."""
    seconds, results = [], []
    for argument in arguments:
        start = clock()
        results.append(function(argument))
        seconds.append(clock() - start)
    return np.array(seconds), results


# -------------------------------------------------------------------------------------------------------------------- statistics
def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    return dict(
        zip(("q1", "median", "q3"), np.percentile(values, (25, 50, 75)).tolist(), strict=True)
    )


def quotient(reference: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How many times as fast as the reference: the median over the rounds, each round compared with itself, and an interval of it.

    The interval is the lowest to the highest round, which holds the true median with probability 1 - 2^(1 - rounds), whatever the
    distribution is: all n rounds must lie on one side of it to miss it.
    """
    ratios = np.array(reference) / np.array(other)
    coverage = 1 - 2.0 ** (1 - len(ratios))
    return {
        "median": float(np.median(ratios)),
        "low": float(ratios.min()),
        "high": float(ratios.max()),
        "coverage": coverage,
    }


def sampling_error(seconds: np.ndarray, sizes: np.ndarray, whole: int) -> float:
    """The relative standard error of a total that was scaled up from a systematic sample: seconds (N,) of items of these sizes.

    Neighbours in size would have been drawn for one another, so their differences are what the draw leaves to chance.
    """
    n = len(seconds)
    if n < 2 or n >= whole:
        return 0.0
    ordered = seconds[np.argsort(sizes, kind="stable")]
    variance = np.square(np.diff(ordered)).sum() / (2 * (n - 1)) / n * (1 - n / whole)
    return float(np.sqrt(variance) / seconds.mean())


# ------------------------------------------------------------------------------------------------------------- processes, machine
@contextlib.contextmanager
def pinned_process(threads: int) -> Iterator[ProcessPoolExecutor]:
    """A process that has computed nothing before, whose libraries have so many threads."""
    before = {name: os.environ.get(name) for name in POOLS}
    os.environ |= dict.fromkeys(POOLS, str(threads))
    try:
        with ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_pin, initargs=(threads,)
        ) as process:
            yield process
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _pin(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def machine() -> dict[str, Any]:
    """`describe_machine`, and which of the processor's instructions for short numbers there are."""
    known: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                known |= set(line.split(":", 1)[1].split())
    return describe_machine() | {"flags": [flag for flag in FLAGS if flag in known]}
