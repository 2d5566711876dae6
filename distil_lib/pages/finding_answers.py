"""What the ablations and the short runs of the book answer, computed from their records.

    temperature()[0].results["T = 4 minus T = 2"]      # Result(mean=-0.0189, low=..., verdict=-1)

Each function returns the answers to one question of `findings`, the one that decides first. Unless
said otherwise, results are changes of the KL divergence to the teacher on held-out masked tokens,
against the triple loss at T = 2 that starts from layers 0, 2 and 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from distil_lib.ablation.paired_effects import t_interval
from distil_lib.common.files import read_json
from distil_lib.common.paths import PROJECT
from distil_lib.pages import grid_results
from distil_lib.pages.grid_results import ARM_NAMES, RESULTS
from distil_lib.training.metrics_file import read_metrics

SCALE = "default teacher, student of 3 layers"
REAL_SCALE = "real teacher, student of 3 layers"
GRID_STEPS = {"mini": 300, "mini-longer": 600, "real-student": 300}


@dataclass(frozen=True)
class Result:
    """One comparison: its mean, 95% interval, and sign (0: not distinguishable from 0)."""

    mean: float
    low: float
    high: float
    verdict: int
    digits: int = 3
    unit: str = "nats"

    @classmethod
    def of(cls, mean: float, low: float, high: float, *shown: Any) -> "Result":
        """With the sign that its own interval gives, uncorrected; `shown`: digits and unit."""
        return cls(mean, low, high, 0 if low <= 0 <= high else int(np.sign(mean)), *shown)

    def __str__(self) -> str:
        half, star = (self.high - self.low) / 2, "" if self.verdict else " (open)"
        digits = self.digits + (half < 0.5 * 10.0**-self.digits)
        return f"{self.mean:+.{digits}f} ± {half:.{digits}f}{star}"


@dataclass(frozen=True)
class Answer:
    """What one experiment answers.

    Attributes:
        page: the file of the page that shows it, without its ending; "" if no page does.
        text: the answer, as a table prints it.
        scale: of models and text.
        steps: of pretraining; 0 where steps mean nothing.
        seeds: how many.
        results: the comparisons by name; the same name is the same comparison everywhere.
    """

    page: str
    text: str
    scale: str
    steps: int
    seeds: int
    results: Mapping[str, Result] = field(default_factory=dict)


# ------------------------------------------------------------------- ablations and short runs
def _grid_answer(*arms: str, grid: str = "mini", against: str = "") -> Answer:
    """The grid's answer; a comparison has the arm's name, with `against` behind it."""
    effects = {arm: grid_results.judged("kl", grid)[arm] for arm in arms}
    results = {
        ARM_NAMES[arm] + against: Result(e.mean, e.low, e.high, grid_results.verdict(e))
        for arm, e in effects.items()
    }
    seeds = min(e.seeds for e in effects.values())
    scale = REAL_SCALE if grid == "real-student" else SCALE
    return Answer("08_ablations", _listed(results), scale, GRID_STEPS[grid], seeds, results)


def _listed(results: Mapping[str, Result]) -> str:
    texts = [f"{name}: {result}" for name, result in results.items()]
    return "; ".join(texts) + f" {next(iter(results.values())).unit}"


@cache
def short_runs(record: str) -> dict[str, dict[int, Any]]:
    """{arm: {seed: figures}} of a record of short runs."""
    found: dict[str, dict[int, Any]] = {}
    for job, figures in read_json(RESULTS / "short_runs" / f"{record}.json")["runs"]:
        arm, seed = ("", *job) if len(job) == 1 else job[:2]
        found.setdefault(str(arm), {})[seed] = figures
    return found


def paired(arm: Mapping[int, Any], reference: Mapping[int, Any], figure: Any = "kl") -> Result:
    """An arm minus a reference, paired by seed, uncorrected."""
    d = np.array([arm[seed][figure] - reference[seed][figure] for seed in sorted(reference)])
    return Result.of(d.mean(), *t_interval(d))


def _short_answer(
    page: str, record: str, reference: str, names: Mapping[str, str], steps: int
) -> Answer:
    runs = short_runs(record)
    results = {name: paired(runs[arm], runs[reference]) for arm, name in names.items()}
    return Answer(page, _listed(results), SCALE, steps, 3, results)


def _all_grids(arm: str) -> list[Answer]:
    return [_grid_answer(arm, grid=grid) for grid in GRID_STEPS]


def left_out(arm: str) -> list[Answer]:
    """The triple loss without one of its three."""
    short = f"without $L_{{{arm.removeprefix('without-')}}}$"
    answer = _short_answer("05_triple_loss", "losses", "all three", {short: ARM_NAMES[arm]}, 40)
    return [*_all_grids(arm), answer]


def temperature() -> list[Answer]:
    """Other temperatures than 2."""
    against, others = " minus T = 2", (1, 4, 8)
    names = {f"{t}": f"T = {t}{against}" for t in others}
    return [
        _grid_answer(*(f"temperature-{t}" for t in others), against=against),
        _short_answer("02_temperature", "temperature", "2", names, 20),
    ]


def t_squared() -> list[Answer]:
    """L_ce alone at T = 4, with the factor and without."""
    with_it = short_runs("temperature")["4"][0]["kl"]
    without = short_runs("temperature-divided")["4"][0]["kl"]
    text = f"KL {with_it:.3f} nats with it, {without:.3f} without"
    return [Answer("02_temperature", text, SCALE, 20, 1)]


def labels_and_soft_targets() -> list[Answer]:
    """Three targets for the same masked tokens, after six passes."""
    runs = short_runs("targets")
    end = {name: float(np.mean([r[-1] for r in by.values()])) for name, by in runs.items()}
    text = "; ".join(f"{name} {loss:.2f}" for name, loss in sorted(end.items(), key=lambda x: x[1]))
    results = {
        f"{name} minus the soft target": paired(runs[name], runs["the soft target"], -1)
        for name in ("the label", "the first choice")
    }
    text = f"Held-out loss after six passes: {text} nats"
    return [Answer("01_soft_targets", text, "64 blocks, read six times", 0, 3, results)]


def one_loss_alone() -> list[Answer]:
    """One of three losses."""
    return [_grid_answer("ce-alone", "cos-alone", "mlm-alone")]


def weights_of_the_losses() -> list[Answer]:
    """1, 1 and 1 instead of 5, 2 and 1."""
    return [_grid_answer("equal-weights")]


def all_or_masked_tokens() -> list[Answer]:
    """Soft targets on all tokens, in equal steps and in equal time."""
    by: dict[str, dict[int, Any]] = {}
    for run in read_json(PROJECT / "benchmarks" / "results" / "positions.json")["runs"]:
        by.setdefault(run["arm"], {})[run["seed"]] = run["curve"][-1]
    found = {ARM_NAMES["soft-targets-all"]: paired(by["all"], by["masked"])}
    scale = "100 seconds for each, one thread"
    steps = by["masked"][0]["step"]
    return [
        _grid_answer("soft-targets-all"),
        Answer("f_where_the_time_goes", _listed(found), scale, steps, len(by["all"]), found),
    ]


def copied_layers() -> list[Answer]:
    """Random weights instead of the teacher's layers."""
    name = {"none": ARM_NAMES["random-start"]}
    short = _short_answer("04_initialization", "initialization", "spread", name, 32)
    return [*_all_grids("random-start"), short]


def which_layers() -> list[Answer]:
    """Other layers than 0, 2 and 5."""
    names = {arm: ARM_NAMES[f"layers-{arm}"] for arm in ("alternate", "first", "last", "random")}
    long = _grid_answer(*(f"layers-{arm}" for arm in names))
    short = _short_answer("04_initialization", "initialization", "spread", names, 32)
    runs = short_runs("initialization")
    pair = "layers 0, 1, 2 minus layers 0, 2, 4"
    # One comparison beyond those that were settled: by its own three seeds, uncorrected.
    settled = Result.of(*grid_results.between("kl", "layers-first", "layers-alternate"))
    return [
        replace(long, results={**long.results, pair: settled}),
        replace(short, results={**short.results, pair: paired(runs["first"], runs["alternate"])}),
        _layers_of_a_real_teacher(),
    ]


def _layers_of_a_real_teacher() -> Answer:
    """Layers 0, 2, 4 minus 0, 2, 5 of the real teacher: one seed, so no verdict."""
    names = ("student-alternate-metrics.jsonl", "student-metrics.jsonl")
    alternate, spread = (read_metrics(RESULTS / "real_teacher" / name)[-1] for name in names)
    text = (
        f"layers 0, 2, 4 instead of 0, 2, 5: {alternate['kl'] - spread['kl']:+.3f} nats, "
        f"{100 * (alternate['accuracy'] - spread['accuracy']):+.1f} points of masked tokens; "
        "one seed does not tell"
    )
    return Answer("04_initialization", text, REAL_SCALE, spread["step"], 1)


def copied_head() -> list[Answer]:
    """A new MLM head instead of the teacher's."""
    new, copied = short_runs("new-head")[""], short_runs("initialization")["spread"]
    found = {ARM_NAMES["new-head"]: paired(new, copied)}
    short = Answer("04_initialization", _listed(found), SCALE, 32, 3, found)
    return [_grid_answer("new-head"), short]
