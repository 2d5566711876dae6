"""Latency and memory of backends, in the process that calls these functions.

opened, unavailable = open_backends({"student": folder}, ["eager fp32"], 1, given)
latencies(opened, {(1, 32): given}, rounds=9)     # seconds by shape, role and backend
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil_lib.errors import UserError
from distil_lib.export.load import INPUTS, dummy_inputs
from distil_lib.export.onnx_model import InferenceFn
from distil_lib.timing.backend_config import BackendComparisonConfig
from distil_lib.timing.backends import EAGER, Unavailable, build
from distil_lib.timing.protocol import describe_cpu, interleaved_rounds, quartiles, speedup

# Seconds before each visit: threads of the runtime before it wait for work without sleeping, and
# would take its cores.
PAUSE = 0.05


def open_backends(
    folders: Mapping[str, Path], backends: Sequence[str], threads: int, given: Mapping
) -> tuple[dict[tuple, InferenceFn], dict[str, str]]:
    """Build backends and try each once.

    Args:
        folders: by role, as `backends.prepare` has written them.
        backends: names.
        threads: of the runtimes.
        given: inputs to try them on.

    Returns:
        Those that run, by role and name, and of the others the reason by name.

    Raises:
        UserError: eager fp32, with which the others are compared, is asked for and fails.
    """
    opened: dict[tuple, InferenceFn] = {}
    reasons: dict[str, str] = {}
    loaded: dict[Path, PreTrainedModel] = {}
    for role, folder in folders.items():
        for backend in backends:
            try:
                run = build(backend, folder, threads, loaded)
                if not all(np.isfinite(array).all() for array in run(given).values()):
                    raise Unavailable("its outputs are NaN or infinite")
                opened[role, backend] = run
            except Unavailable as reason:
                reasons[backend] = str(reason)
            # A compiler or a runtime that is there and fails.
            except (RuntimeError, OSError) as error:
                first = next(iter(str(error).splitlines()), "")
                reasons[backend] = f"{type(error).__name__}: {first[:200]}"
    if EAGER in reasons:
        raise UserError(
            f"{EAGER}, with which the others are compared, fails ({reasons[EAGER]}).",
            "Repair the checkpoint.",
        )
    return opened, reasons


def second_call(
    run: InferenceFn, given: Mapping[str, Tensor], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the second of two calls."""
    run(given)
    start = clock()
    run(given)
    return clock() - start


def latencies(
    opened: Mapping[tuple, InferenceFn],
    shapes: Mapping[tuple, Mapping],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict:
    """Of each shape: of each role and backend the seconds of each round.

    Args:
        opened: backends by role and name.
        shapes: inputs by (batch, length).
        rounds: visits to each backend at each shape.
        clock: tells the time.
    """

    def visit(run: InferenceFn, given: Mapping[str, Tensor]) -> float:
        time.sleep(PAUSE)
        return second_call(run, given, clock)

    found = {}
    for shape, given in shapes.items():
        passes = {key: partial(visit, run, given) for key, run in opened.items()}
        for run in opened.values():
            run(given)  # a compiler, or a cache of shapes, begins its work here
        found[shape] = interleaved_rounds(passes, rounds)
        print(f"batch {shape[0]}, length {shape[1]}", file=sys.stderr, flush=True)
    return found


def measure(folders: Mapping[str, Path], config: BackendComparisonConfig, vocab_size: int) -> dict:
    """Latencies of all backends, in this process, whose threads are set."""
    threads = torch.get_num_threads()
    shapes = {
        (b, n): dummy_inputs(INPUTS, vocab_size, b, n)
        for b in config.batches
        for n in config.lengths
    }
    for given in shapes.values():
        given["attention_mask"].fill_(1)
    opened, reasons = open_backends(folders, config.backends, threads, next(iter(shapes.values())))
    found = latencies(opened, shapes, config.rounds)
    reference = {shape: seconds["teacher", EAGER] for shape, seconds in found.items()}
    rows = [
        {
            "role": role,
            "backend": backend,
            "batch": shape[0],
            "length": shape[1],
            "seconds": seconds,
            "ms": quartiles(1000 * np.array(seconds)),
            "texts_per_second": shape[0] / float(np.median(seconds)),
            "speedup": speedup(reference[shape], seconds),
        }
        for shape, each in found.items()
        for (role, backend), seconds in each.items()
    ]
    return {"threads": threads, "machine": describe_cpu(), "unavailable": reasons, "rows": rows}


def memory(backend: str, folder: Path, given: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Bytes by which this process, a fresh one, grows until the backend has answered.

    Returns:
        `resident` at the end and `peak` on the way; None if the backend is unavailable.
    """
    before = psutil.Process().memory_info().rss
    try:
        run = build(backend, folder, torch.get_num_threads())
        for _ in range(3):
            run(given)
    except (Unavailable, RuntimeError, OSError):
        return None
    return {"resident": psutil.Process().memory_info().rss - before, "peak": _peak() - before}


def _peak() -> int:
    """The most memory this process has had."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(
            int(line.split()[1]) * 1024
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        )
    if (peak := getattr(psutil.Process().memory_info(), "peak_wset", None)) is not None:  # Windows
        return peak
    import resource  # which Windows does not have

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes
