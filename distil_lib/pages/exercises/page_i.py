"""Exercises of page I: a random start, faults that a log shows, and a file that is left behind."""

import math
from collections.abc import Mapping

from distil_lib.common.files import read_json
from distil_lib.pages.exercises import Exercise
from distil_lib.pages.short_runs import FOLDER

Log = Mapping[str, list[float]]
SMALL, LARGE = 8_192, 30_522  # words of the default teacher and of BERT


def recorded_logs() -> dict[str, Log]:
    """The page's healthy run and its six faults."""
    return {name: log for (name,), log in read_json(FOLDER / "symptoms.json")["runs"]}


def fault(log: Log, healthy: Log, line: int = -2, start: bool = True, gap: bool = True) -> str:
    """Which row of the page's table a log belongs to.

    Args:
        log: of the run in question.
        healthy: of a healthy run with the same settings.
        line: which line's learning rate is compared with the others.
        start: whether the first `mlm` is looked at.
        gap: whether `mlm` in training and held out are compared.
    """
    fell, usual = (x["kl"][0] - x["kl"][-1] for x in (log, healthy))
    if not any(log["ce"]):
        return "no answers"
    if log["lr"][line] == (max(log["lr"]) if line == -2 else 0):
        return "no decay"
    if log["kl"][-1] > 2 * healthy["kl"][-1]:
        random = start and abs(log["mlm"][0] - math.log(SMALL)) < 0.5
        return "random start" if random else "rate too high"
    if abs(fell) < 0.1 * usual:
        return "rate too low"
    if gap and log["mlm_loss"][-1] - log["mlm"][-1] > 1:
        return "too little text"
    return "healthy"


EXERCISES = {
    "ex-i-1": Exercise(
        answer=math.log(LARGE),
        tolerance=5e-3,
        mistakes={
            "That is for the default teacher's 8,192 words.": math.log(SMALL),
            "That is in bits. The log is in nats.": math.log2(LARGE),
            "That is the logarithm to base 10. Take the natural one.": math.log10(LARGE),
        },
    ),
    "ex-i-2": Exercise(
        answer=fault,
        inputs=lambda: [(log, recorded_logs()["healthy"]) for log in recorded_logs().values()],
        mistakes={
            "Two faults end with a high `kl`: the first `mlm` tells them apart.": (
                lambda log, healthy: fault(log, healthy, start=False)
            ),
            "A healthy run ends with `lr` 0 too: look at the line before the last.": (
                lambda log, healthy: fault(log, healthy, line=-1)
            ),
            "One run falls like a healthy one: compare `mlm` with the held-out `mlm_loss`.": (
                lambda log, healthy: fault(log, healthy, gap=False)
            ),
        },
        hint="Not yet. Print what your function says of each log, beside the log's own name.",
    ),
    # Held by the page's solution, which leaves out one file after the other.
    "ex-i-3": Exercise(
        answer="tokenizer.json",
        mistakes={
            "Without this file `pipeline` stops: that is seen at once.": "config.json",
            "Without the weights `pipeline` stops: that is seen at once.": "model.safetensors",
            "Without this file the answers stay as they were.": "tokenizer_config.json",
            "The card is for people: the answers stay as they were.": "README.md",
        },
    ),
}
