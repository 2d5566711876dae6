"""Table 4 with its uncertainty: students with parts of the recipe changed, over seeds.

    accelerate launch -m distil_lib.ablation --preset mini --output runs/records
    python -m distil_lib.ablation --preset mini --arms triple --seeds 2 --output runs/records
    python -m distil_lib.ablation --preset mini --dry_run           # what is missing, and the time
    python -m distil_lib.ablation --preset mini --report            # the effects, with intervals

Sanh et al. (2019, section 4, Table 4). Each (arm, seed) is a run of `pretrain` and then one of
`finetune` for each task; with the same settings it is the same to the last bit. Its record is named
by the arm, the seed and a hash of all that decides its numbers; the project's own records, in
`data/results/ablation/`, are only read.
So a second call runs what is missing, and a call that was killed resumes at the checkpoint of its
student, or at its next task.

Any number of processes may work on one grid, started together (`accelerate launch --multi_gpu
--num_processes 8 -m distil_lib.ablation`) or one by one, on one machine or on several that share
the folders. They do not train together: a grid is dozens of trainings that need nothing of one
another, so each process takes the next (arm, seed) that no other process has locked and runs it
alone, with a GPU of its own if there are some.

The lock is a file lock of the operating system (`filelock`), which the kernel frees when its
process ends, however it ends. On a file system that has none (some network and FUSE systems),
`filelock` uses a file's existence instead: after a process was killed there, delete its
`.NAME.lock` by hand.
"""

import contextlib
import datetime
import gc
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no other one before Python 3.12

import distil_lib
from distil_lib.ablation.grid import Job
from distil_lib.ablation.records import Number, Numbers, macro_scores, record_file
from distil_lib.common.files import check_writable, write_result
from distil_lib.common.hardware import default_threads, describe_machine, set_threads
from distil_lib.errors import UserError
from distil_lib.finetune.finetuning import Finetuning
from distil_lib.finetune.models import weights_fingerprint
from distil_lib.training.checkpoint import latest_valid_checkpoint
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.metrics_file import read_metrics

Count = Annotated[int, Field(ge=0, le=2**63)]


class Trained(TypedDict):
    """`pretrained.json`: what is kept of a student's training until its record is written."""

    figures: Numbers
    weights: str
    seconds: Number
    steps: Count
    tokens: Count
    loss: Number


class Tuned(TypedDict):
    """A task in `finetuned.json`."""

    scores: Annotated[list[Number], Field(min_length=1)]
    seconds: Number


TRAINED, TUNED = TypeAdapter(Trained), TypeAdapter(dict[str, Tuned])


@contextlib.contextmanager
def locked(output: Path, job: Job) -> Iterator[bool]:
    """Lock a job while the block runs; False if another process has it, or has finished it."""
    lock = FileLock(output / f".{job.name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise UserError(
            f"{lock.lock_file} cannot be locked ({error.strerror}).",
            "Choose another folder.",
            setting="output",
        ) from error
    try:
        yield not record_file(output, job).exists()
    finally:
        # Only when the job is recorded: a process that locks the deleted file finds the record.
        if record_file(output, job).exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class GridRunner:
    """One process's work on a grid.

    Args:
        output: Folder of the records.
        work: Folder of the runs while they run.
        threads: CPU threads; 0 for this process's share of the machine's cores.
        keep_models: Whether a run is kept when it is recorded.
    """

    def __init__(self, output: Path, work: Path, threads: int = 0, keep_models: bool = False):
        self.output, self.work, self.keep_models = output, work, keep_models
        self.threads = threads or default_threads()
        self.run: PretrainingRun | None = None

    def stop(self, number: int, frame: object = None) -> None:
        """A signal's handler: a pretraining saves at the end of its step, all else ends here."""
        if self.run is None:
            sys.exit(128 + number)
        self.run.stop_signal = number

    # -------------------------------------------------------------------------- the grid
    def run_pending(self, jobs: Sequence[Job]) -> list[Job]:
        """Run the jobs that are not recorded and that no other process has locked, in their order.

        Returns:
            The jobs that other processes are still running.
        """
        for folder, setting in ((self.output, "output"), (self.work, "work")):
            check_writable(folder / ".probe", setting)
        progress = True
        while progress:  # again, because another process may have died in the meantime
            progress = False
            for job in self.missing(jobs):
                with locked(self.output, job) as mine:
                    if mine:
                        self.run_job(job)
                        progress = True
                gc.collect()  # a run is a circle of objects, which would keep its weights
        return self.missing(jobs)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs without a record."""
        return [job for job in jobs if not record_file(self.output, job).exists()]

    # -------------------------------------------------------------------- one arm and seed
    def run_job(self, job: Job) -> dict[str, Any]:
        """Pretrain, fine-tune, record. Errors begin with the arm's name."""
        folder = self.work / job.name
        begun = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        try:
            trained = self.pretrain(job, folder)
            tuned = self.finetune(job, folder)
        except UserError as error:
            problem = f"{job.title}: {error.problem}"
            raise UserError(problem, error.remedy, error.settings) from error
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
            "experiment_hash": job.experiment_hash,
            "experiment_hash_without_versions": job.experiment_hash_without_versions,
            "weights": trained["weights"],
            "begun": begun,
            "distil_lib": distil_lib.__version__,
            "machine": describe_machine(),
        }
        write_result(record_file(self.output, job), record)
        if self.keep_models:
            shutil.rmtree(folder / "pretraining" / "checkpoints", ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        figures = [f"{name} {value:.4f}" for name, value in trained["figures"].items()]
        figures += [f"{k} {v:.2f}" for k, v in (record["macro"] | scores).items()]
        total = sum(seconds.values())
        print(f"{job.title}: {', '.join(figures)}; {total:.0f} s", flush=True)
        return record

    def pretrain(self, job: Job, folder: Path) -> dict[str, Any]:
        """The student: its held-out figures and what it took. Resumes what is there already."""
        run, done = folder / "pretraining", _read(folder / "pretrained.json", TRAINED)
        if done:
            return done
        begin = time.perf_counter()
        resume = latest_valid_checkpoint(run / "checkpoints") is not None
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        config = replace(job.pretraining, output=str(run), resume=resume, threads=self.threads)
        # On standard output there is one line for each (arm, seed).
        with contextlib.redirect_stdout(sys.stderr):
            print(f"{job.title}: {job.arm.says}", flush=True)
            training = self.run = PretrainingRun(config, resume_hint="the same command resumes")
            try:
                figures = training.train()
            finally:
                self.run = None
        if training.stop_signal:  # it came in the last step
            sys.exit(128 + training.stop_signal)
        last = [row for row in read_metrics(run) if "loss" in row][-1]
        model_config: Any = training.model.config
        # A call that was stopped before left no more of its time than what its steps took.
        seconds = max(time.perf_counter() - begin, last["seconds"])
        trained = {
            "figures": figures,
            "weights": weights_fingerprint(str(run / "model"), model_config),
            "seconds": round(seconds, 2),
            "steps": last["step"],
            "tokens": last["tokens"],
            "loss": last["loss"],
        }
        write_result(folder / "pretrained.json", trained)
        return trained

    def finetune(self, job: Job, folder: Path) -> dict[str, dict[str, Any]]:
        """For each task the seconds, and the main score of each of the job's fine-tuning seeds.

        Each task is written down when it is done.
        """
        path = folder / "finetuned.json"
        done = _read(path, TUNED)
        set_threads(self.threads)
        model = str(folder / "pretraining" / "model")
        for name, config in job.finetuning.items():
            if name in done:
                continue
            begin = time.perf_counter()
            work = Finetuning(replace(config, model=model, threads=self.threads))
            runs = [work.seed(seed, config.precision) for seed in job.finetuning_seeds]
            scores = [run["scores"][work.task.evaluation[0]][work.task.metric] for run in runs]
            done[name] = {"scores": scores, "seconds": time.perf_counter() - begin}
            write_result(path, done)
        return done


def _read(path: Path, kind: TypeAdapter) -> dict[str, Any]:
    """What a stopped call left, or nothing; what a damaged file held is computed again."""
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", "Move it away.") from error
    except ValidationError:
        print(f"{path} is damaged: it is made again.", file=sys.stderr, flush=True)
        return {}
