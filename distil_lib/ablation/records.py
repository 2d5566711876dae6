"""What an ablation has measured: one JSON file an arm and seed, and what can be said of them together.

records = read_records("data/results/ablation")
values = values_by_seed(records, "documentation")         # {"triple": {0: 61.2, ...}, "without-ce": ...}
paired_effects(values, reference="triple")
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distil_lib.ablation.grid import Grid, Job
from distil_lib.ablation.paired_effects import Effect
from distil_lib.common.cli import near
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.tasks.registry import find_task

# What a record can be asked for, besides its tasks: by how much it is multiplied, and its unit then.
MEASURES = {
    "documentation": (1, "points"),
    "glue": (1, "points"),
    "mlm_loss": (1, "nats"),
    "accuracy": (100, "points"),
    "kl": (1, "nats"),
    "agreement": (100, "points"),
    "cosine": (1, ""),
}


def record_file(output: Path, job: Job) -> Path:
    return output / f"{job.key}.json"


def read_records(output: str | Path, grid: Grid | None = None) -> list[dict]:
    """The records of a folder, or of one grid in it, by arm and seed. Raises `UserError` for a damaged one.

    Where there are none of the grid with the documentation that is installed here (another Python has another one), those that were
    made elsewhere are read: if of several versions, those of which there are most.
    """
    records = []
    for path in sorted(Path(locate(str(output))).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{path} is no record of an ablation ({error}).",
                "Delete it; the next call makes it again.",
            ) from error
        if (
            isinstance(record, dict)
            and {"arm", "seed", "figures", "scores", "macro", "common", "family"} <= record.keys()
        ):
            records.append(record)
    if grid is not None:
        of_grid = Counter(r["common"] for r in records if r["family"] == grid.family)
        texts = (
            [grid.common]
            if grid.common in of_grid
            else [common for common, _ in of_grid.most_common(1)]
        )
        records = [r for r in records if r["common"] in texts]
    return sorted(records, key=lambda record: (record["arm"], record["seed"]))


def macro_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean score of the documentation's tasks and that of GLUE's, as far as they are there. IMDb and SQuAD are in neither."""
    suites: dict[str, list[float]] = {}
    for name, score in scores.items():
        source = find_task(name).source
        suite = (
            "glue" if "GLUE" in source else "documentation" if "documentation" in source else None
        )
        if suite:
            suites.setdefault(suite, []).append(score)
    return {suite: sum(values) / len(values) for suite, values in suites.items()}


def values_by_seed(records: Iterable[Mapping], measure: str) -> dict[str, dict[int, float]]:
    """{arm: {seed: value}} of a key of `MEASURES`, or of a task: scores and shares in points, losses in nats.

    Arms without it are left out. Raises `UserError` if no record has it, or if an arm has two records of one seed.
    """
    found: dict[str, dict[int, float]] = {}
    known: dict[str, None] = {}
    for record in records:
        measured = {**record["figures"], **record["macro"], **record["scores"]}
        known |= dict.fromkeys(measured)
        if measure in measured:
            of_arm = found.setdefault(record["arm"], {})
            if record["seed"] in of_arm:
                problem = f"There are two records of {record['arm']}, seed {record['seed']}: of two grids, texts or teachers."
                raise UserError(problem, "Read those of one grid: read_records(folder, grid).")
            of_arm[record["seed"]] = measured[measure] * MEASURES.get(measure, (1, ""))[0]
    if not found:
        raise UserError(
            f"No record has the measure {measure!r}.",
            f"{near(measure, known)}There are {', '.join(known) or 'no records'}.",
        )
    return found


def seconds_by_arm(records: Iterable[Mapping]) -> dict[str, float]:
    """The mean seconds of each arm's records; under "" those of all."""
    taken: dict[str, list[float]] = {}
    for record in records:
        for name in (record["arm"], ""):
            taken.setdefault(name, []).append(record["seconds"]["total"])
    return {name: sum(seconds) / len(seconds) for name, seconds in taken.items()}


def estimate(jobs: Iterable[Job], records: Sequence[Mapping]) -> float:
    """Seconds that one process needs for these jobs, by what the same arm took, or if it has no record all arms; nan without any."""
    taken = seconds_by_arm(records)
    return sum(taken.get(job.arm.name, taken.get("", math.nan)) for job in jobs)


def effects_table(
    measure: str, effects: Sequence[Effect], reference: Mapping[int, float], name: str
) -> str:
    """Effects as lines of text, with what the reference itself has."""
    unit = MEASURES.get(measure, (1, "points"))[1]
    mean = sum(reference.values()) / len(reference)
    head = f"{measure}{f' ({unit})' if unit else ''}: difference from {name} ({mean:.3f}, {len(reference)} seeds), by seed"
    columns = f"{'arm':<22} seeds  effect   95% interval (t)   bootstrap           p    Holm   flips    Holm  detectable"
    lines = [
        f"{e.arm:<22} {e.seeds:>5} {e.mean:>+7.3f}  {e.low:>+7.3f} {e.high:>+7.3f}   {e.bootstrap_low:>+7.3f} {e.bootstrap_high:>+7.3f}"
        f"  {e.p:>6.4f}  {e.p_holm:>6.4f}  {e.p_flip:>6.4f}  {e.p_flip_holm:>6.4f}  {e.detectable:>10.3f}"
        for e in effects
    ]
    return "\n".join([head, columns, *lines])
