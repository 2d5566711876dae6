"""How everything in this book is timed: interleaved rounds, medians and intervals, pinned threads.

    found = in_pinned_process(1, function, ...)           # where libraries have one thread
    rounds = interleaved_rounds({"a": pass_of_a, "b": pass_of_b}, rounds=5)
    speedup(rounds["a"], rounds["b"])     # {"median": 1.9, "low": 1.8, "high": 2.0, ...}

A machine is slow for seconds or minutes at a time. Every round runs each of what is compared once,
so that all meet the same machine, and ratios are taken within rounds.
"""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import patch_environment
from transformers import logging as transformers_logging

from distil_lib.common.hardware import check_threads, describe_machine
from distil_lib.errors import UserError

FLAGS = "avx2 avx512f avx512_vnni avx512_bf16 avx_vnni amx_bf16 amx_int8 asimd i8mm bf16".split()
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# ------------------------------------------------------------------------------------- the protocol
def rotated(names: Sequence, number: int) -> list:
    """The order of round `number`: each name comes first, second, ... in turn."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def interleaved_rounds(
    passes: Mapping[Any, Callable[[], Any]],
    rounds: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[Any, list]:
    """What each of the passes returns, by round: a round calls each once, in rotating order."""
    found: dict[Any, list] = {name: [] for name in passes}
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


def fastest_visits(
    visits: Mapping[Any, Callable[[Any], float]], texts: Sequence, number: int
) -> dict[Any, np.ndarray]:
    """Of each text the fastest of some visits: for short calls on a machine that others use.

    What disturbs a call can only make it longer, so the fastest visit is the least disturbed.

    Args:
        visits: by name, from a text to the seconds of a visit.
        texts: to be visited, each by all, in interleaved rounds.
        number: of visits to each text.

    Returns:
        By name (N,) seconds.
    """
    found: dict[Any, list[float]] = {name: [] for name in visits}
    for text in texts:
        passes = {name: partial(visit, text) for name, visit in visits.items()}
        for name, seconds in interleaved_rounds(passes, number).items():
            found[name].append(min(seconds))
    return {name: np.array(seconds) for name, seconds in found.items()}


# --------------------------------------------------------------------------------------- statistics
def quartiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    return dict(
        zip(("q1", "median", "q3"), np.percentile(values, (25, 50, 75)).tolist(), strict=True)
    )


def speedup(reference: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """How many times as fast as the reference: the median over the rounds, with an interval.

    Each round is compared with itself. The interval is the lowest to the highest round. It holds
    the true median with probability 1 - 2^(1 - rounds), whatever the distribution is: to miss it,
    all rounds must lie on one side of it.

    Args:
        reference: seconds by round.
        other: the same of what is compared to it.
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
    """The relative standard error of a total that was scaled up from a systematic sample.

    Neighbours in size might have been drawn for one another, so their differences are what the draw
    leaves to chance. (A bootstrap that ignores the sizes would be several times too large.)

    Args:
        seconds: (N,) of the items that were drawn.
        sizes: (N,) theirs.
        whole: how many items there are.
    """
    n = len(seconds)
    if n < 2 or n >= whole:
        return 0.0
    ordered = seconds[np.argsort(sizes, kind="stable")]
    variance = np.square(np.diff(ordered)).sum() / (2 * (n - 1)) / n * (1 - n / whole)
    return float(np.sqrt(variance) / seconds.mean())


# ------------------------------------------------------------------------------- processes, machine
def in_pinned_process(threads: int, function: Callable, *arguments: Any) -> Any:
    """What a function returns in a process of its own, whose libraries have so many threads.

    Raises:
        UserError: the system does not start so many, or has ended the process.
    """
    check_threads(threads)
    context = multiprocessing.get_context("spawn")
    try:
        with (
            patch_environment(**dict.fromkeys(POOLS, threads)),  # processes inherit it
            ProcessPoolExecutor(1, context, initializer=_pin, initargs=(threads,)) as process,
        ):
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise UserError(
            f"The system has ended the process that measures with {threads} thread(s).",
            "Mostly it had too little memory: close other programs, or measure less at once.",
            setting="threads",
        ) from error


def _pin(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def describe_cpu() -> dict[str, Any]:
    """`describe_machine`, and which instructions for short numbers the processor has."""
    known: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                known |= set(line.split(":", 1)[1].split())
    return describe_machine() | {"flags": [flag for flag in FLAGS if flag in known]}
