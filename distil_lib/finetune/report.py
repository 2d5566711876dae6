"""What a fine-tuning prints: each seed's scores, and how much of a teacher is kept."""

from collections.abc import Mapping

from distil_lib.finetune.records import recipe_differences
from distil_lib.finetune.retention import retention


def seed_line(record: Mapping, seed: int) -> str:
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


def retained_lines(record: Mapping, teacher: Mapping, name: str) -> str:
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
