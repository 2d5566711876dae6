"""`python -m distil_lib.ablation`."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import datasets
import torch
from transformers.utils import logging as transformers_logging

from distil_lib.ablation.grid import Grid, Job, grid_names, read_grid
from distil_lib.ablation.paired_effects import paired_effects
from distil_lib.ablation.records import (
    MEASURES,
    effects_table,
    estimate,
    read_records,
    values_by_seed,
)
from distil_lib.ablation.runner import Worker
from distil_lib.common.errors import exit_on_user_error
from distil_lib.common.paths import locate
from distil_lib.errors import UserError

LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)  # what makes processes train together


def forecast(jobs: Sequence[Job], missing: Sequence[Job], records: Sequence[dict]) -> str:
    """What is missing, and how long it will take by what has been recorded."""
    lines = [f"{len(jobs) - len(missing)} of {len(jobs)} recorded, {len(missing)} missing"]
    seeds: dict[str, list[int]] = {}
    for job in missing:
        seeds.setdefault(job.arm.name, []).append(job.seed)
    lines += [f"  {arm}: seeds {', '.join(map(str, numbers))}" for arm, numbers in seeds.items()]
    seconds = estimate(missing, records)
    if math.isnan(seconds):
        lines.append(
            "Nothing of this grid is recorded yet, so nothing says how long it will take: run one, with --arms and --seeds 1."
        )
    elif missing:
        hours = seconds / 3600
        took = f"By what {len(records)} recorded took"
        lines.append(
            f"{took}: {hours:.1f} hours for one process, {hours / 2:.1f} for two on cores of their own."
        )
    return "\n".join(lines)


def report(
    grid: Grid, records: Sequence[dict], arms: Sequence[str] = (), measures: Sequence[str] = ()
) -> Iterator[str]:
    """A table of effects for each measure that is asked for, or for all that the records have. Raises `UserError` if there are none."""
    if not records:
        raise UserError(
            f"Nothing of the grid {grid.name} is recorded here.",
            "Run it first; --dry_run says how long it takes.",
        )
    known = {
        name
        for record in records
        for part in ("figures", "macro", "scores")
        for name in record[part]
    }
    for measure in measures or [name for name in MEASURES if name in known]:
        values = values_by_seed(records, measure)
        order = [name for name in grid.arms if name in values and (not arms or name in arms)]
        yield effects_table(
            measure,
            paired_effects(values, grid.reference, arms=order),
            values[grid.reference],
            grid.reference,
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"The command line is not understood: {message}.", "See --help.")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises `UserError`."""
    parser = _Parser(
        prog="python -m distil_lib.ablation",
        description="Run a grid of arms and seeds, and compare them (Sanh et al. 2019, Table 4).",
        epilog="Exit codes: 0 done, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM; the same command goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("--preset", help="preset that the arms differ from; by default the grid's")
    parser.add_argument(
        "--grid",
        help=f"a YAML file, or one of {', '.join(grid_names())}; by default the one named like the preset",
    )
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="these arms only")
    parser.add_argument(
        "--seeds", type=int, default=0, help="seeds of each arm, instead of the grid's numbers"
    )
    parser.add_argument(
        "--output",
        default="data/results/ablation",
        help="folder of the records (default: %(default)s)",
    )
    parser.add_argument(
        "--work",
        default="runs/ablation",
        help="folder of the runs, while they run (default: %(default)s)",
    )
    parser.add_argument(
        "--keep_models", action="store_true", help="do not delete a run's model when it is recorded"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="CPU threads of this process; by default its share of the machine's cores",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--dry_run", action="store_true", help="only say what is missing and how long it will take"
    )
    only.add_argument(
        "--report",
        nargs="*",
        metavar="MEASURE",
        help=f"only print the effects on {', '.join(MEASURES)}, or a task's name",
    )
    chosen = parser.parse_args(arguments)
    for name in ("seeds", "threads"):
        if getattr(chosen, name) < 0:
            raise UserError(f"{name} is {getattr(chosen, name)}.", "It must not be negative.")
    return chosen


def _alone() -> None:
    """Let this process be alone, though a launcher has started several, on the GPU that is meant for it."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [gpu for gpu in gpus.split(",") if gpu] or list(
        map(str, range(torch.cuda.device_count()))
    )
    if visible and "LOCAL_RANK" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(os.environ["LOCAL_RANK"]) % len(visible)]
    for name in LAUNCHER:
        os.environ.pop(name, None)


def main(arguments: Sequence[str] | None = None) -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with exit_on_user_error():
        chosen = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        grid = read_grid(chosen.grid or chosen.preset or "mini", chosen.preset)
        jobs = grid.jobs(chosen.arms, chosen.seeds)
        worker = Worker(
            Path(locate(chosen.output)), Path(chosen.work), chosen.threads, chosen.keep_models
        )
        if chosen.report is not None:
            print(
                "\n\n".join(
                    report(grid, read_records(worker.output, grid), chosen.arms, chosen.report)
                )
            )
        elif chosen.dry_run:
            print(forecast(jobs, worker.missing(jobs), read_records(worker.output, grid)))
        else:
            _alone()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, worker.stop)
            left = worker.all(jobs)
            others = (
                f"; other processes are at work on {', '.join(job.title for job in left)}"
                if left
                else ""
            )
            print(
                f"{len(jobs) - len(left)} of {len(jobs)} are recorded in {chosen.output}{others}",
                flush=True,
            )


if __name__ == "__main__":
    main()
