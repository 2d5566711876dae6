"""Fine-tune any checkpoint on a task, several times, and keep what came of it.

    python -m distil_lib.finetune --model data/student --task doc-qa --seeds 5
    python -m distil_lib.finetune --task doc-qa --distil_from runs/teacher-doc-qa/seed-0
    python -m distil_lib.finetune --model MODEL --task sst2 --evaluate_only

Sanh et al. (2019), section 4 and Tables 1 and 2: the score after the last epoch, never the best one
on the development set; the median of the seeds. A seed decides the new head, the order of the
examples and dropout. The record (see `records`) is written after each seed: a call that was killed
continues at the next one.
"""

import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distil_lib.common.files import check_writable, locked, write_result
from distil_lib.common.hardware import (
    current_device,
    describe_machine,
    launch_precision,
    probe_precision,
    set_threads,
)
from distil_lib.common.paths import locate
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.finetune.finetuning import Finetuning
from distil_lib.finetune.records import (
    median_and_quartiles,
    open_record,
    read_record,
    recipe_differences,
)
from distil_lib.finetune.retention import check_same_data, retention
from distil_lib.training.sharding import check_alone


def finetune(config: FinetuneConfig, arguments: Sequence[str] = (), progress: bool = False) -> dict:
    """Run the seeds that the record does not have yet.

    Args:
        config: the settings.
        arguments: the command line, for the record.
        progress: whether to print and to show a bar.

    Returns:
        The whole record.

    Raises:
        UserError: for bad input, before anything is written; or if a training diverges.
    """
    check_alone("Fine-tuning runs", "distil_lib.finetune")
    config = replace(config, precision=launch_precision(config.precision))
    set_threads(config.threads)
    teacher = read_record(locate(config.compare_with)) if config.compare_with else None
    path = config.result_file()
    saved = read_record(path) if path.exists() else None
    work = Finetuning(config, progress)
    if teacher is not None:
        mine = {"task": work.task.name, "configuration": {"data": work.data}}
        check_same_data(mine, teacher, work.task.evaluation[0], "compare_with")
    precision: str = config.precision
    if precision == "auto":  # what was measured once holds for all seeds
        precision = (saved or {"configuration": {}})["configuration"].get("precision") or ""
        precision = precision or probe_precision(current_device())
    if not path.exists():
        check_writable(path)
    with locked(path):
        record = _run_seeds(work, path, precision, arguments)
    if teacher is not None:
        print(_retained_lines(record, teacher, str(config.compare_with)), flush=True)
    return record


def _run_seeds(work: Finetuning, path: Path, precision: str, arguments: Sequence[str]) -> dict:
    """Run what the record at `path` does not have yet; returns the whole record."""
    config, machine = work.config, describe_machine()
    configuration = work.described(precision)
    record = open_record(path, configuration) or {
        "task": work.task.name,
        "metric": work.task.metric,
        "split": work.task.evaluation[0],
        "command": shlex.join(["python", "-m", "distil_lib.finetune", *arguments]),
        "configuration": configuration,
        "rows": {name: len(work.splits[name].rows) for name in work.reported},
        "machine": machine,
        "labels": work.labels(),
        "summary": {},
        "seeds": {},
    }
    for seed in range(1 if config.evaluate_only else config.seeds):
        if str(seed) in record["seeds"] and not work.lacks(seed):
            continue
        begun = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        run = work.seed(seed, precision) | {"begun": begun}
        if machine != record["machine"]:
            run["machine"] = machine
        seeds = {**record["seeds"], str(seed): run}
        record["seeds"] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
        record["summary"] = median_and_quartiles(record)
        write_result(path, record)
        if work.progress:
            print(_seed_line(record, seed), flush=True)
    return record


# --------------------------------------------------------------------------- what is printed
def _seed_line(record: Mapping, seed: int) -> str:
    """The scores of one seed, its speed, and the median of all seeds so far."""
    run, split = record["seeds"][str(seed)], record["split"]
    scores = ", ".join(
        f"{metric} {score:.1f}"
        for figures in run["scores"].values()
        for metric, score in figures.items()
    )
    speed = ""
    if "seconds" in run:
        speed = f"; {run['tokens_per_second']:,} tokens/s, {run['seconds']:.0f} s"
    middle = record["summary"][split][record["metric"]]
    quartiles = f"{middle['median']:.1f} ({middle['q1']:.1f} to {middle['q3']:.1f})"
    median = f"; median of {len(record['seeds'])} {quartiles}"
    return f"{record['task']}, seed {seed}: {scores}{speed}{median}"


def _retained_lines(record: Mapping, teacher: Mapping, name: str) -> str:
    """How much of a teacher's score is kept, and a line if the two recipes differ."""
    kept = retention(record, teacher)
    difference = f"{kept['difference_low']:+.1f} to {kept['difference_high']:+.1f}"
    lines = (
        f"{record['metric']} on {record['split']}: {kept['retention']:.1f}% of {name} "
        f"({kept['low']:.1f} to {kept['high']:.1f}); "
        f"difference {kept['difference']:+.1f} points ({difference})"
    )
    if differences := recipe_differences(record, teacher):
        lines += f"\nnote: the recipes differ (this one and {name}): {', '.join(differences)}"
    return lines
