"""What an ablation has measured: one JSON file for each arm and seed.

    records = read_records("data/results/ablation")
    values = values_by_seed(records, "documentation")     # {"triple": {0: 61.2, ...}, ...}
    paired_effects(values, reference="triple")

Differences are taken between arms of the same seed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no other one before Python 3.12

from distil_lib.ablation.grid import Grid, Job
from distil_lib.ablation.paired_effects import Effect
from distil_lib.common.cli import near
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.tasks.registry import TASKS, find_task

# What a record can be asked for, besides its tasks: the factor of its value, and the unit then.
MEASURES = {
    "documentation": (1, "points"),
    "glue": (1, "points"),
    "mlm_loss": (1, "nats"),
    "accuracy": (100, "points"),
    "kl": (1, "nats"),
    "agreement": (100, "points"),
    "cosine": (1, ""),
}
Number = Annotated[float, Field(allow_inf_nan=False)]
Numbers = dict[str, Number]


class Seconds(TypedDict):
    """What a record's work took, in all."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    total: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Record(TypedDict):
    """What is read from a record; it holds more (see `GridRunner.run_job`)."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    arm: str
    seed: int
    figures: Numbers
    macro: Numbers
    scores: Numbers
    seconds: Seconds
    experiment_hash: str
    experiment_hash_without_versions: str


RECORD = TypeAdapter(Record)


def record_file(output: Path, job: Job) -> Path:
    """Where the record of a job is, or will be."""
    return output / f"{job.name}.json"


def read_record(path: Path) -> dict[str, Any]:
    """A record. Raises `UserError` if the file is damaged, altered, or of another kind."""
    try:
        record: dict[str, Any] = dict(RECORD.validate_json(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", "Check the file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join([*map(str, first["loc"]), first["msg"]])[:200]
        raise UserError(
            f"{path} is no record of an ablation ({reason}).",
            "Move it away; if it was one, the next call makes it again.",
        ) from error
    means = macro_scores({k: v for k, v in record["scores"].items() if k in TASKS})
    macro = record["macro"]
    if macro.keys() != means.keys() or any(abs(macro[k] - means[k]) > 1e-6 for k in means):
        raise UserError(
            f"{path} was altered: its macro scores are not the means of its scores.",
            "Take the one that was written, or move it away: the next call makes it again.",
        )
    return record


def read_records(output: str | Path, grid: Grid | None = None) -> list[dict[str, Any]]:
    """The records of a folder, or of one grid in it, by arm and seed.

    Another Python has documentation of other versions. If the folder has no record of the grid on
    this one's documentation, those made elsewhere are read: of several versions, those of which
    there are most.

    Raises:
        UserError: A file is damaged or is no record.
    """
    # Hidden files are being written, or are locks.
    folder = Path(locate(str(output)))
    records = [read_record(path) for path in sorted(folder.glob("[!.]*.json"))]
    if grid is not None:
        found = Counter(
            r["experiment_hash"]
            for r in records
            if r["experiment_hash_without_versions"] == grid.experiment_hash_without_versions
        )
        chosen = {text for text, _ in found.most_common(1)}
        if grid.experiment_hash in found:
            chosen = {grid.experiment_hash}
        records = [r for r in records if r["experiment_hash"] in chosen]
    return sorted(records, key=lambda record: (record["arm"], record["seed"]))


def macro_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean scores of the documentation's tasks and of GLUE's, if any are there.

    IMDb and SQuAD are in neither.
    """
    suites: dict[str, list[float]] = {}
    for name, score in scores.items():
        source = find_task(name).source
        for word, suite in (("GLUE", "glue"), ("documentation", "documentation")):
            if word in source:
                suites.setdefault(suite, []).append(score)
    return {suite: sum(values) / len(values) for suite, values in suites.items()}


def values_by_seed(records: Iterable[Mapping], measure: str) -> dict[str, dict[int, float]]:
    """{arm: {seed: value}} of a key of `MEASURES`, or of a task.

    Scores and shares are in points, losses in nats. Arms without a value are left out.

    Raises:
        UserError: No record has the measure, or an arm has two records of one seed.
    """
    found: dict[str, dict[int, float]] = {}
    known: dict[str, None] = {}
    for record in records:
        measured = {**record["figures"], **record["macro"], **record["scores"]}
        known |= dict.fromkeys(measured)
        if measure in measured:
            of_arm = found.setdefault(record["arm"], {})
            if record["seed"] in of_arm:
                raise UserError(
                    f"There are two records of {record['arm']}, seed {record['seed']}: of two "
                    "grids, texts or teachers.",
                    "Read those of one grid: read_records(folder, grid).",
                )
            of_arm[record["seed"]] = measured[measure] * MEASURES.get(measure, (1, ""))[0]
    if not found:
        raise UserError(
            f"No record has the measure {measure!r}.",
            f"{near(measure, known)}There are {', '.join(known) or 'no records'}.",
        )
    return found


def estimate(jobs: Iterable[Job], records: Sequence[Mapping]) -> float:
    """Seconds that one process needs for these jobs; nan without any record.

    A job takes as long as its arm took before, or, for a new arm, as all arms took.
    """
    taken: dict[str, list[float]] = {}
    for record in records:
        for name in (record["arm"], ""):  # "": of all arms
            taken.setdefault(name, []).append(record["seconds"]["total"])
    means = {name: sum(seconds) / len(seconds) for name, seconds in taken.items()}
    return sum(means.get(job.arm.name, means.get("", math.nan)) for job in jobs)


def effects_table(
    measure: str, effects: Sequence[Effect], reference: Mapping[int, float], name: str
) -> str:
    """Effects as lines of text, with what the reference itself has."""
    unit = MEASURES.get(measure, (1, "points"))[1]
    mean = sum(reference.values()) / len(reference)
    title = f"{measure} ({unit})" if unit else measure
    head = f"{title}: difference from {name} ({mean:.3f}, {len(reference)} seeds), by seed"
    table = pd.DataFrame(map(asdict, effects)).drop(columns="deviation").set_index("arm")
    p_values = dict.fromkeys(("p", "p_holm", "p_flip", "p_flip_holm"), "{:.4f}".format)
    lines = table.rename_axis(None).to_string(
        float_format="{:+.3f}".format, formatters=p_values | {"detectable": "{:.3f}".format}
    )
    return f"{head}\n{lines}"
