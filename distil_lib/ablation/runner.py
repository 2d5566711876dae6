"""Table 4 with its uncertainty: pretrain students with parts of the recipe left out or changed, over seeds, and compare them.

    accelerate launch -m distil_lib.ablation --preset mini                  # whatever of the grid is not recorded yet
    python -m distil_lib.ablation --preset mini --arms triple without-ce --seeds 2
    python -m distil_lib.ablation --preset mini --dry-run                   # what is missing, and how long it will take
    python -m distil_lib.ablation --preset mini --report                    # the effects, with their intervals

Sanh et al. (2019, section 4, Table 4). Each (arm, seed) is a run of `pretrain` and then one of `finetune` for each task, with the same
settings the same to the last bit; its record, in `data/results/ablation/`, is named by a hash of all that decides its numbers. So a second
call runs what is missing, and one that was killed goes on: at the checkpoint of its student, or at its next task.

Any number of processes may work on one grid, started together (`accelerate launch --multi_gpu --num_processes 8 -m distil_lib.ablation`) or
one by one, on one machine or on several that share the folders. They do not train together: a grid is dozens of trainings
that need nothing of one another, so each process takes the next (arm, seed) that nobody has claimed (see `claims`) and runs it alone, with
a GPU of its own where there are some.
"""

import argparse
import contextlib
import datetime
import gc
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import datasets
import torch
from transformers.utils import logging as transformers_logging

import distil_lib
from distil_lib.ablation.claims import Claim, take
from distil_lib.ablation.grid import Grid, Job, grid_names, read_grid
from distil_lib.ablation.paired_effects import paired_effects
from distil_lib.ablation.records import (
    MEASURES,
    effects_table,
    estimate,
    macro_scores,
    read_records,
    record_file,
    values_by_seed,
)
from distil_lib.common.errors import UserError, exit_on_user_error
from distil_lib.common.hardware import default_threads, describe_machine
from distil_lib.common.paths import locate
from distil_lib.finetune.models import weights_fingerprint
from distil_lib.finetune.results import write_result
from distil_lib.finetune.runner import Finetuning
from distil_lib.pretrain import Run
from distil_lib.training.checkpoint import newest_checkpoint
from distil_lib.training.run_folder import read_metrics

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what makes processes train together


class Worker:
    """One process's work on a grid.

    output: folder of the records. work: folder of what is being run, deleted when it is recorded unless `keep_models`.
    """

    def __init__(self, output: Path, work: Path, threads: int = 0, keep_models: bool = False):
        self.output, self.work, self.keep_models = output, work, keep_models
        self.threads = threads or default_threads()
        self.run: Run | None = None

    def stop(self, number: int, frame: object = None) -> None:
        """A signal's handler: a pretraining saves what it has at the end of its step, anything else ends here."""
        if self.run is None:
            sys.exit(128 + number)
        self.run.stop_signal = number

    # ----------------------------------------------------------------------------------------------------------- the grid
    def all(self, jobs: Sequence[Job]) -> list[Job]:
        """Run what is missing and not in other processes' hands, in the order of `jobs`; returns what then still is in their hands."""
        for folder in (self.output, self.work):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder} cannot be made ({error.strerror}).", "Choose another --output or --work.") from error
        went_on = True
        while went_on:  # again, because another process may have died of what it had claimed
            went_on = False
            for job in self.missing(jobs):
                with take(self.output, job.key) as claim:
                    if claim and not record_file(self.output, job).exists():  # another one may have finished it just before
                        self.one(job, claim)
                        went_on = True
                gc.collect()  # a run's objects know one another, and its weights would stay until Python happened to look
        return self.missing(jobs)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not record_file(self.output, job).exists()]

    # ------------------------------------------------------------------------------------------------------- one arm and seed
    def one(self, job: Job, claim: Claim | None = None) -> dict:
        """Pretrain, fine-tune, record. Raises `UserError` with the arm's name before what went wrong."""
        folder = self.work / job.key
        begun = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        try:
            trained = self.pretrain(job, folder)
            tuned = self.finetune(job, folder)
        except UserError as error:
            raise UserError(f"{job.title}: {error.problem}", error.remedy) from error
        scores = {task: sum(each["scores"]) / len(each["scores"]) for task, each in tuned.items()}
        seconds = {"pretraining": trained["seconds"], "finetuning": round(sum(each["seconds"] for each in tuned.values()), 2)}
        record = {
            "arm": job.arm.name, "says": job.arm.says, "seed": job.seed, "figures": trained["figures"], "macro": macro_scores(scores),
            "scores": scores, "seconds": seconds | {"total": round(sum(seconds.values()), 2)},
            "training": {k: trained[k] for k in ("steps", "tokens", "loss")},
            "configuration": job.configuration, "common": job.common, "family": job.family, "weights": trained["weights"], "begun": begun,
            "distil_lib": distil_lib.__version__, "machine": describe_machine(),
        }  # fmt: skip
        if claim is None or claim.held:
            write_result(record_file(self.output, job), record)
            if self.keep_models:
                shutil.rmtree(folder / "pretraining" / "checkpoints", ignore_errors=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        figures = [f"{name} {value:.4f}" for name, value in record["figures"].items()]
        figures += [f"{name} {value:.2f}" for name, value in (record["macro"] | scores).items()]
        print(f"{job.title}: {', '.join(figures)}; {record['seconds']['total']:.0f} s", flush=True)
        return record

    def pretrain(self, job: Job, folder: Path) -> dict:
        """The student: its held-out figures and what it took. What is there already is gone on with."""
        run, done = folder / "pretraining", _read(folder / "pretrained.json")
        if done:
            return done
        begin = time.perf_counter()
        resume = newest_checkpoint(run / "checkpoints") is not None
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        config = replace(job.pretraining, output=str(run), resume=resume, threads=self.threads)
        with contextlib.redirect_stdout(sys.stderr):  # on standard output a line for each (arm, seed)
            print(f"{job.title}: {job.arm.says}", flush=True)
            prepared = self.run = Run(config)
            prepared.remedy = "the same command goes on"
            try:
                figures = prepared.train()
            finally:
                self.run = None
                if prepared.bar is not None:
                    prepared.bar.close()
        if prepared.stop_signal:  # it came in the last step
            sys.exit(128 + prepared.stop_signal)
        last = [row for row in read_metrics(run) if "loss" in row][-1]
        trained = {"figures": figures, "weights": weights_fingerprint(str(run / "model"), prepared.model.config)}
        # A call that was stopped before has left no more of its time than what its steps took.
        trained |= {"seconds": round(max(time.perf_counter() - begin, last["seconds"]), 2)}
        trained |= {"steps": last["step"], "tokens": last["tokens"], "loss": last["loss"]}
        write_result(folder / "pretrained.json", trained)
        return trained

    def finetune(self, job: Job, folder: Path) -> dict[str, dict]:
        """Of each task the main score for each of the job's fine-tuning seeds, and the seconds. Each task is written down when done."""
        path = folder / "finetuned.json"
        done = _read(path)
        torch.set_num_threads(self.threads)
        for name, config in job.finetuning.items():
            if name in done:
                continue
            begin = time.perf_counter()
            work = Finetuning(replace(config, model=str(folder / "pretraining" / "model"), threads=self.threads))
            runs = [work.seed(seed, config.precision) for seed in job.finetuning_seeds]
            scores = [run["scores"][work.task.evaluation[0]][work.task.main_metric] for run in runs]
            done[name] = {"scores": scores, "seconds": time.perf_counter() - begin}
            write_result(path, done)
        return done


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# ----------------------------------------------------------------------------------------------------------------- what is said
def forecast(jobs: Sequence[Job], missing: Sequence[Job], records: Sequence[dict]) -> str:
    """What is missing, and how long it will take by what has been recorded."""
    lines = [f"{len(jobs) - len(missing)} of {len(jobs)} recorded, {len(missing)} missing"]
    seeds: dict[str, list[int]] = {}
    for job in missing:
        seeds.setdefault(job.arm.name, []).append(job.seed)
    lines += [f"  {arm}: seeds {', '.join(map(str, numbers))}" for arm, numbers in seeds.items()]
    seconds = estimate(missing, records)
    if math.isnan(seconds):
        lines.append("Nothing of this grid is recorded yet, so nothing says how long it will take: run one, with --arms and --seeds 1.")
    elif missing:
        hours = seconds / 3600
        took = f"By what {len(records)} recorded took"
        lines.append(f"{took}: {hours:.1f} hours for one process, {hours / 2:.1f} for two on cores of their own.")
    return "\n".join(lines)


def report(grid: Grid, records: Sequence[dict], arms: Sequence[str] = (), measures: Sequence[str] = ()) -> Iterator[str]:
    """A table of effects for each measure that is asked for, or for all that the records have. Raises `UserError` if there are none."""
    if not records:
        raise UserError(f"Nothing of the grid {grid.name} is recorded here.", "Run it first; --dry-run says how long it takes.")
    known = {name for record in records for part in ("figures", "macro", "scores") for name in record[part]}
    for measure in measures or [name for name in MEASURES if name in known]:
        values = values_by_seed(records, measure)
        order = [name for name in grid.arms if name in values and (not arms or name in arms)]
        yield effects_table(measure, paired_effects(values, grid.reference, arms=order), values[grid.reference], grid.reference)


# ----------------------------------------------------------------------------------------------------------------- command line
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"The command line is not understood: {message}.", "See --help.")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Raises `UserError`."""
    parser = _Parser(
        prog="python -m distil_lib.ablation", description="Run a grid of arms and seeds, and compare them (Sanh et al. 2019, Table 4).",
        epilog="Exit codes: 0 done, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM; the same command goes on.", allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--preset", help="preset that the arms differ from; by default the grid's")
    parser.add_argument("--grid", help=f"a YAML file, or one of {', '.join(grid_names())}; by default the one named like the preset")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="these arms only")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of each arm, instead of the grid's numbers")
    parser.add_argument("--output", default="data/results/ablation", help="folder of the records (default: %(default)s)")
    parser.add_argument("--work", default="runs/ablation", help="folder of the runs, while they run (default: %(default)s)")
    parser.add_argument("--keep-models", action="store_true", help="do not delete a run's model when it is recorded")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of this process; by default its share of the machine's cores")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="only say what is missing and how long it will take")
    only.add_argument("--report", nargs="*", metavar="MEASURE", help=f"only print the effects on {', '.join(MEASURES)}, or a task's name")
    chosen = parser.parse_args(arguments)
    for name in ("seeds", "threads"):
        if getattr(chosen, name) < 0:
            raise UserError(f"{name} is {getattr(chosen, name)}.", "It must not be negative.")
    return chosen


def _alone() -> None:
    """Let this process be alone, though a launcher has started several, on the GPU that is meant for it."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [gpu for gpu in gpus.split(",") if gpu] or list(map(str, range(torch.cuda.device_count())))
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
        worker = Worker(Path(locate(chosen.output)), Path(chosen.work), chosen.threads, chosen.keep_models)
        if chosen.report is not None:
            print("\n\n".join(report(grid, read_records(worker.output, grid), chosen.arms, chosen.report)))
        elif chosen.dry_run:
            print(forecast(jobs, worker.missing(jobs), read_records(worker.output, grid)))
        else:
            _alone()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, worker.stop)
            left = worker.all(jobs)
            others = f"; other processes are at work on {', '.join(job.title for job in left)}" if left else ""
            print(f"{len(jobs) - len(left)} of {len(jobs)} are recorded in {chosen.output}{others}", flush=True)


if __name__ == "__main__":
    main()
