"""The time of one training step: the textbook's against ours, and ours with each improvement
switched off in turn.

    python benchmarks/step.py --size default --json benchmarks/results/step-default.json
    python benchmarks/step.py --size base --sequences 8 --rounds 5 \\
        --json benchmarks/results/step-base.json

The arms take turns within one run, so that a machine that is slow for a while is slow for all of
them. A step is what lies between a corrupted batch and changed weights: both forward passes,
losses, backward pass, clipping, optimizer. The loader is timed apart. Tokens are real ones: padding
is computed by those arms that pad, and counted by none.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from arguments import parse
from arms import PARTS, PRESETS, Arm, BenchmarkContext, Step, all_arms

from distil_lib.common.hardware import (
    describe_machine,
    matmul_ceiling,
    probe_precision,
    set_threads,
)
from distil_lib.common.processes import run_program

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Lines:
    """Results as JSON lines in a file, each as soon as it is there; None: nothing is written."""

    def __init__(self, path: Path | None, **every: object):
        self.path, self.every = path, every

    def write(self, **row: object) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.every | row) + "\n")


def ready(
    shop: BenchmarkContext, arms: dict[str, Arm], lines: Lines, end: float
) -> tuple[dict[str, Step], dict[str, int]]:
    """Steps that have run once, and the bytes they take; one that fails is told and left out."""
    steps, peaks = {}, {}
    for name, arm in arms.items():
        if time.perf_counter() > end:
            lines.write(arm=name, error="no time was left")
            continue
        try:
            # The first step makes the optimizer's state, compiles, and fills caches.
            start = shop.now()
            steps[name] = Step(shop, arm)
            steps[name]()
            first = shop.now() - start
            peaks[name] = steps[name].peak_bytes()
        except Exception as error:  # whatever a compiler or a device raises: the others go on
            steps.pop(name, None)
            lines.write(arm=name, error=f"{type(error).__name__}: {error}"[:500])
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        made = {"flops_per_token": math.fsum(shop.flops(arm.soft_targets).values())}
        made |= {"tokens": steps[name].tokens, "peak_bytes": peaks[name], "first_seconds": first}
        lines.write(arm=name, **asdict(arm) | made)
    return steps, peaks


def measure(
    shop: BenchmarkContext, arms: dict[str, Arm], rounds: int, lines: Lines, budget: float
) -> dict:
    """budget: seconds after which nothing is begun; a part of them makes the arms ready."""
    began = time.perf_counter()
    lines.write(ceiling={p: matmul_ceiling(shop.device, DTYPES[p], budget=1.0) for p in DTYPES})
    steps, peaks = ready(shop, arms, lines, began + 0.7 * budget)
    arms = {name: arm for name, arm in arms.items() if name in steps}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    parts = {soft: {part: [] for part in PARTS} for soft in ("all", "masked")}
    ceiling: dict[str, list[float]] = {
        name: [] for name in sorted({"fp32", *(arm.precision for arm in arms.values())})
    }
    loader = []
    for number in range(rounds):
        if number and time.perf_counter() > began + budget:
            break
        names = list(arms)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(steps[name].seconds())
            lines.write(arm=name, seconds=seconds[name][-1])
        for soft in parts:
            if f"ours, {soft}" not in steps:
                continue
            for part, taken in steps[f"ours, {soft}"].parts().items():
                parts[soft][part].append(taken)
        for precision in ceiling:
            ceiling[precision].append(matmul_ceiling(shop.device, DTYPES[precision], budget=1.0))
        start = time.perf_counter()
        shop.loader[number + 1]
        loader.append(time.perf_counter() - start)
        lines.write(parts={s: {p: v[-1:] for p, v in of.items()} for s, of in parts.items()})
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    made = {
        name: asdict(arm) | {"tokens": steps[name].tokens, "peak_bytes": peaks[name]}
        for name, arm in arms.items()
    }
    for name, arm in arms.items():
        made[name] |= {
            "flops_per_token": math.fsum(shop.flops(arm.soft_targets).values()),
            "seconds": seconds[name],
        }
    tokens = steps["ours, all"].tokens
    flops = {
        soft: {part: value * tokens for part, value in shop.flops(soft).items()} for soft in parts
    }
    made_parts = {soft: {"seconds": parts[soft], "flops": flops[soft]} for soft in parts}
    return {"ceiling": ceiling, "arms": made, "parts": made_parts, "loader": {"seconds": loader}}


def speeds(result: dict, name: str) -> np.ndarray:
    """Tokens a second, by round."""
    arm = result["arms"][name]
    return arm["tokens"] / np.array(arm["seconds"])


def table(result: dict) -> str:
    """Markdown: medians over the rounds, quartiles in brackets; how much faster than the textbook's
    step of the same round, with its padding and without.
    """
    lines = [
        "| arm | tokens/s | x textbook | x the same, packed | memory (MB) | MFU |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        low, middle, high = np.quantile(speeds(result, name), [0.25, 0.5, 0.75])
        ratios = (
            f"{np.median(speeds(result, name) / speeds(result, other)):.2f}"
            for other in ("textbook", "textbook, packed")
        )
        mfu = (
            middle * arm["flops_per_token"] / statistics.median(result["ceiling"][arm["precision"]])
        )
        memory = f"{arm['peak_bytes'] / 1e6:,.0f}"
        lines.append(
            f"| {name} | {middle:,.0f} ({low:,.0f}-{high:,.0f}) | {' | '.join(ratios)} "
            f"| {memory} | {mfu:.0%} |"
        )
    return "\n".join(lines)


def summary(result: dict) -> str:
    """What the table leaves out."""
    reached = ", ".join(
        f"{name} {statistics.median(values) / 1e9:,.0f}"
        for name, values in result["ceiling"].items()
    )
    loader, step = (
        statistics.median(x["seconds"]) for x in (result["loader"], result["arms"]["ours, masked"])
    )
    lines = [
        f"\nproducts of matrices reach, in GFLOP/s: {reached}; "
        f"padded batches are filled to {result['fill']:.0%}",
        f"the loader makes {1 / loader:.1f} batches a second and takes {loader / step:.1%} "
        "of the time of a step (ours, masked)\n",
    ]
    for soft, parts in result["parts"].items():
        medians = {part: statistics.median(values) for part, values in parts["seconds"].items()}
        whole, flops = math.fsum(medians.values()), math.fsum(parts["flops"].values())
        each = (
            f"{part} {medians[part] / whole:.0%} ({parts['flops'][part] / flops:.0%})"
            for part in PARTS
        )
        lines.append(f"time of ours, {soft} (share of the FLOPs): " + ", ".join(each))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(PRESETS), default="default")
    parser.add_argument(
        "--sequences",
        type=int,
        default=None,
        help="a step: 64 by default, 8 at BERT-base size on a CPU",
    )
    parser.add_argument(
        "--block",
        type=int,
        default=None,
        help="tokens of a sequence: 64 by default; small: 128; base: 128, on a GPU 512",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision",
        choices=("auto", *DTYPES),
        default="auto",
        help="of our arms; auto: what is quicker here",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="let a GPU round the operands of fp32 products"
    )
    parser.add_argument(
        "--teacher",
        choices=DTYPES,
        default=None,
        help="what our arms keep the teacher in; by default, the preset's",
    )
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="arms with torch.compile besides; compiling takes a minute or more",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=None,
        help="keep arms whose names begin so, and textbook and ours",
    )
    parser.add_argument("--corpus", default="docs:pandas,scikit-learn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="write all samples into this file")
    parser.add_argument(
        "--lines", type=Path, default=None, help="append each result to this file, as it comes"
    )
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="seconds after which no round begins"
    )
    options = parse(parser)
    set_threads(options.threads)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    os.environ["KINETO_LOG_LEVEL"] = (
        "99"  # the profiler that counts memory need not say that it does
    )
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    device = torch.device(options.device)
    base, gpu = options.size == "base", device.type == "cuda"
    usual = {"base": 512 if gpu else 128, "small": 128, "tiny": 16}
    options.block = options.block or usual.get(options.size, 64)
    options.sequences = options.sequences or (8 if base and not gpu else 64)
    shop = BenchmarkContext(
        options.size,
        options.corpus,
        options.sequences,
        options.block,
        device,
        options.dropout,
        options.seed,
    )
    precision = probe_precision(device) if options.precision == "auto" else options.precision
    kept = options.teacher or {"float32": "fp32", "bfloat16": "bf16"}[shop.config.teacher_dtype]
    arms = all_arms(precision, kept, options.compile)
    if options.only:
        arms = {
            name: arm
            for name, arm in arms.items()
            if name.startswith(("textbook", "ours", *options.only))
        }
    result = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "machine": describe_machine(),
    }
    result |= {
        k: getattr(options, k) for k in ("size", "sequences", "block", "rounds", "dropout", "tf32")
    } | {"device": device.type}
    result["fill"] = shop.batches[True].loss_mask.float().mean().item()
    lines = Lines(options.lines, part=f"step {options.size}")
    lines.write(**{k: v for k, v in result.items() if k != "fill"})
    result |= measure(shop, arms, options.rounds, lines, options.budget)
    print(
        f"{options.size}: {options.sequences} x {options.block} tokens, {precision}; "
        f"{result['machine']}\n"
    )
    print(table(result) + "\n" + summary(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run_program(main)
