"""Table 4 with its uncertainty: pretrain students with parts of the recipe left out or changed, over seeds, and compare them.

    accelerate launch -m distil_lib.ablation --preset mini                  # whatever of the grid is not recorded yet
    python -m distil_lib.ablation --preset mini --arms triple without-ce --seeds 2
    python -m distil_lib.ablation --preset mini --dry_run                   # what is missing, and how long it will take
    python -m distil_lib.ablation --preset mini --report                    # the effects, with their intervals

Sanh et al. (2019, section 4, Table 4). Each (arm, seed) is a run of `pretrain` and then one of `finetune` for each task, with the same
settings the same to the last bit; its record, in `data/results/ablation/`, is named by a hash of all that decides its numbers. So a second
call runs what is missing, and one that was killed goes on: at the checkpoint of its student, or at its next task.

Any number of processes may work on one grid, started together (`accelerate launch --multi_gpu --num_processes 8 -m distil_lib.ablation`) or
one by one, on one machine or on several that share the folders. They do not train together: a grid is dozens of trainings
that need nothing of one another, so each process takes the next (arm, seed) that nobody has claimed (see `claims`) and runs it alone, with
a GPU of its own where there are some.
"""

import contextlib
import datetime
import gc
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import distil_lib
from distil_lib.ablation.claims import Claim, take
from distil_lib.ablation.grid import Job
from distil_lib.ablation.records import macro_scores, record_file
from distil_lib.common.files import write_result
from distil_lib.common.hardware import default_threads, describe_machine
from distil_lib.errors import UserError
from distil_lib.finetune.models import weights_fingerprint
from distil_lib.finetune.runner import Finetuning
from distil_lib.training.checkpoint import latest_valid_checkpoint
from distil_lib.training.loop import Run
from distil_lib.training.metrics_file import read_metrics


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
                raise UserError(
                    f"{folder} cannot be made ({error.strerror}).",
                    "Choose another --output or --work.",
                ) from error
        went_on = True
        while went_on:  # again, because another process may have died of what it had claimed
            went_on = False
            for job in self.missing(jobs):
                with take(self.output, job.key) as claim:
                    if (
                        claim and not record_file(self.output, job).exists()
                    ):  # another one may have finished it just before
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
        seconds = {
            "pretraining": trained["seconds"],
            "finetuning": round(sum(each["seconds"] for each in tuned.values()), 2),
        }
        record = {
            "arm": job.arm.name,
            "says": job.arm.says,
            "seed": job.seed,
            "figures": trained["figures"],
            "macro": macro_scores(scores),
            "scores": scores,
            "seconds": seconds | {"total": round(sum(seconds.values()), 2)},
            "training": {k: trained[k] for k in ("steps", "tokens", "loss")},
            "configuration": job.configuration,
            "common": job.common,
            "family": job.family,
            "weights": trained["weights"],
            "begun": begun,
            "distil_lib": distil_lib.__version__,
            "machine": describe_machine(),
        }
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
        resume = latest_valid_checkpoint(run / "checkpoints") is not None
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        config = replace(job.pretraining, output=str(run), resume=resume, threads=self.threads)
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # on standard output a line for each (arm, seed)
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
        trained = {
            "figures": figures,
            "weights": weights_fingerprint(str(run / "model"), prepared.model.config),
        }
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
            work = Finetuning(
                replace(config, model=str(folder / "pretraining" / "model"), threads=self.threads)
            )
            runs = [work.seed(seed, config.precision) for seed in job.finetuning_seeds]
            scores = [run["scores"][work.task.evaluation[0]][work.task.metric] for run in runs]
            done[name] = {"scores": scores, "seconds": time.perf_counter() - begin}
            write_result(path, done)
        return done


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# ----------------------------------------------------------------------------------------------------------------- what is said


# ----------------------------------------------------------------------------------------------------------------- command line
