"""`python -m distil_lib.ablation`."""

import math
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from distil_lib.ablation.grid import GRIDS, Grid, Job, read_grid
from distil_lib.ablation.paired_effects import paired_effects
from distil_lib.ablation.records import (
    MEASURES,
    effects_table,
    estimate,
    read_records,
    values_by_seed,
)
from distil_lib.ablation.runner import GridRunner
from distil_lib.common.cli import Program, Settings, Threads, option, yaml_names
from distil_lib.common.paths import locate
from distil_lib.common.processes import TOGETHER
from distil_lib.errors import UserError

RECORDS = "data/results/ablation"  # the project's own
LAUNCHER = (*TOGETHER, "LOCAL_WORLD_SIZE")


@dataclass
class AblationConfig(Settings):
    """Every setting of the program."""

    preset: str | None = option(None, "preset that the arms differ from; by default the grid's")
    grid: str | None = option(
        None, f"a YAML file, or one of {', '.join(yaml_names(GRIDS))}; by default the preset's name"
    )
    arms: list[str] = option([], "these arms only")
    seeds: Annotated[int, Field(ge=0, le=10_000)] = option(
        0, "seeds of each arm; 0 for the grid's numbers"
    )
    output: str | None = option(
        None, f"folder of the records; without one {RECORDS} is read, and nothing runs"
    )
    work: str = option("runs/ablation", "folder of the runs while they run")
    keep_models: bool = option(False, "do not delete a run when it is recorded")
    threads: Threads = option(0, "CPU threads; 0 for this process's share of the cores")
    dry_run: bool = option(False, "only say what is missing and how long it will take")
    report: list[str] | None = option(
        None, f"only print the effects on {', '.join(MEASURES)}, or a task's name"
    )


PROGRAM = Program(
    AblationConfig,
    "python -m distil_lib.ablation",
    "Run a grid of arms and seeds, and compare them (Sanh et al. 2019, Table 4).",
    codes="130 or 143 stopped by Ctrl-C or SIGTERM; the same command resumes",
    exclusive=("dry_run", "report"),
)


def forecast(jobs: Sequence[Job], missing: Sequence[Job], records: Sequence[dict[str, Any]]) -> str:
    """What is missing, and how long it will take by what has been recorded."""
    lines = [f"{len(jobs) - len(missing)} of {len(jobs)} recorded, {len(missing)} missing"]
    seeds: dict[str, list[int]] = {}
    for job in missing:
        seeds.setdefault(job.arm.name, []).append(job.seed)
    lines += [f"  {arm}: seeds {', '.join(map(str, numbers))}" for arm, numbers in seeds.items()]
    seconds = estimate(missing, records)
    if math.isnan(seconds):
        lines.append(
            "Nothing of this grid is recorded yet, so nothing says how long it will take: "
            "run one, with --arms and --seeds 1."
        )
    elif missing:
        hours = seconds / 3600
        lines.append(
            f"By what {len(records)} recorded took: {hours:.1f} hours for one process, "
            f"{hours / 2:.1f} for two on cores of their own."
        )
    return "\n".join(lines)


def report(
    grid: Grid,
    records: Sequence[dict[str, Any]],
    arms: Sequence[str] = (),
    measures: Sequence[str] = (),
) -> Iterator[str]:
    """A table of effects for each measure: those that are asked for, or all that are recorded.

    Raises:
        UserError: There are no records.
    """
    if not records:
        raise UserError(
            f"Nothing of the grid {grid.name} is recorded here.",
            "Run it first; --dry_run says how long it takes.",
        )
    known = {name for record in records for name in record["figures"] | record["macro"]}
    for measure in measures or [name for name in MEASURES if name in known]:
        values = values_by_seed(records, measure)
        order = [name for name in grid.arms if name in values and (not arms or name in arms)]
        effects = paired_effects(values, grid.reference, arms=order)
        yield effects_table(measure, effects, values[grid.reference], grid.reference)


def _detach_from_launcher() -> None:
    """Let this process work alone, on a GPU of its own, though a launcher started several."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [gpu for gpu in gpus.split(",") if gpu]
    visible = visible or list(map(str, range(torch.cuda.device_count())))
    if visible and "LOCAL_RANK" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(os.environ["LOCAL_RANK"]) % len(visible)]
    for name in LAUNCHER:
        os.environ.pop(name, None)


def run(config: AblationConfig) -> str:
    """Do what the settings ask for; returns what is to be printed."""
    grid = read_grid(config.grid or config.preset or "mini", config.preset)
    jobs = grid.jobs(config.arms, config.seeds)
    runner = GridRunner(
        Path(locate(config.output or RECORDS)),
        Path(config.work),
        config.threads,
        config.keep_models,
    )
    if config.report is not None:
        records = read_records(runner.output, grid)
        return "\n\n".join(report(grid, records, config.arms, config.report))
    if config.dry_run:
        return forecast(jobs, runner.missing(jobs), read_records(runner.output, grid))
    read_records(runner.output, grid)  # a damaged one would pass for a job that is done
    if config.output is None and (missing := runner.missing(jobs)):
        raise UserError(
            f"{len(missing)} of {len(jobs)} are missing, and {RECORDS} has the project's records.",
            "Say where yours go; --dry_run says how long they take.",
            setting="output",
        )
    _detach_from_launcher()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runner.stop)
    left = runner.run_pending(jobs)
    titles = ", ".join(job.title for job in left)
    others = f"; other processes are running {titles}" if left else ""
    return f"{len(jobs) - len(left)} of {len(jobs)} are recorded in {runner.output}{others}"


main = partial(PROGRAM.run, lambda config, arguments: run(config))

if __name__ == "__main__":
    main()
