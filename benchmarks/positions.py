"""Which soft targets teach most in a given time: all tokens, the masked ones, or a random sample?

    # 3 seeds x 3 arms of 150 s each
    python benchmarks/positions.py --json benchmarks/results/positions.json

Preset mini, shortened. A short trial measures how fast each arm is; then each trains for as many
steps as fit into the same time, with a schedule that ends there. The arms take turns; held-out
text, and its masked words, are the same for all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from arguments import parse

from distil_lib.common.hardware import describe_machine
from distil_lib.common.processes import run_program
from distil_lib.training.metrics_file import read_metrics

PROGRAM = Path(__file__).parents[1] / "distil_lib" / "pretrain.py"
ARMS = ("all", "masked", "sample")
FIGURES = ("mlm_loss", "kl", "accuracy")


def train(output: Path, arm: str, steps: int, **settings) -> list[dict]:
    """The rows of metrics.jsonl of a run on one thread."""
    settings = {
        "preset": "mini",
        "soft_targets": arm,
        "max_steps": steps,
        "threads": 1,
        "output": output,
        "save_every": 10**6,
    } | settings
    command = [
        sys.executable,
        str(PROGRAM),
        *(word for name, value in settings.items() for word in (f"--{name}", str(value))),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return read_metrics(output)


def seconds_of_a_step(
    folder: Path, corpus: str, trials: int = 3, steps: int = 8
) -> dict[str, float]:
    """Of each arm: the median of some short trials, in turn, without the first steps, which pay for
    set-up.
    """
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for trial in range(trials):
        for arm in ARMS:
            every = {
                "corpus": corpus,
                "log_every": steps // 2,
                "eval_every": 10**6,
                "eval_blocks": 1,
            }
            rows = train(folder / f"trial-{trial}-{arm}", arm, steps, **every)
            first, second = (row["seconds"] for row in rows if "loss" in row)
            found[arm].append((second - first) / (steps - steps // 2))
    return {arm: statistics.median(values) for arm, values in found.items()}


def one_run(folder: Path, arm: str, seed: int, steps: int, options: argparse.Namespace) -> dict:
    """What was held out halfway and at the end, and the seconds of training before it.

    Evaluations are not counted as training.
    """
    half = {
        "log_every": max(steps // 10, 1),
        "eval_every": -(-steps // 2),
        "eval_blocks": options.eval_blocks,
    }
    rows = train(folder / f"{arm}-{seed}", arm, steps, seed=seed, corpus=options.corpus, **half)
    seconds = {row["step"]: row["seconds"] for row in rows if "loss" in row}
    curve = [row | {"seconds": seconds[row["step"]]} for row in rows if "accuracy" in row]
    speeds = [row["tokens_per_second"] for row in rows if "loss" in row]
    return {
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "tokens_per_second": statistics.median(speeds),
        "curve": curve,
    }


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def report(runs: list[dict]) -> str:
    """Markdown: mean and standard deviation over seeds at the end, then the paired differences from
    "masked".
    """
    final = {(run["arm"], run["seed"]): run["curve"][-1] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        f"| soft targets | steps | seconds | {' | '.join(FIGURES)} |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        rows = [final[arm, seed] for seed in seeds]
        each = " | ".join(spread([row[name] for row in rows]) for name in FIGURES)
        seconds = statistics.mean(row["seconds"] for row in rows)
        lines.append(f"| {arm} | {rows[0]['step']} | {seconds:.0f} | {each} |")
    lines += ["", f"| difference by seed | {' | '.join(FIGURES)} |", "|---|---|---|---|"]
    for arm in ("all", "sample"):
        each = " | ".join(
            spread([final[arm, seed][name] - final["masked", seed][name] for seed in seeds])
            for name in FIGURES
        )
        lines.append(f"| {arm} - masked | {each} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=150, help="of training, each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corpus", default="docs")
    parser.add_argument("--eval_blocks", type=int, default=3000)
    parser.add_argument("--json", type=Path, default=None, help="write all figures into this file")
    options = parse(parser)
    result = {
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "machine": describe_machine(),
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        pace = seconds_of_a_step(Path(folder), options.corpus)
        steps = {arm: max(round(options.seconds / taken), 2) for arm, taken in pace.items()}
        for seed in range(options.seeds):
            for arm in ARMS[seed % len(ARMS) :] + ARMS[: seed % len(ARMS)]:
                result["runs"].append(one_run(Path(folder, "runs"), arm, seed, steps[arm], options))
                print(
                    f"seed {seed}, {arm}: {result['runs'][-1]['curve'][-1]}",
                    file=sys.stderr,
                    flush=True,
                )
                if (
                    options.json
                ):  # after every run: an hour's work should not depend on its last minute
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result["runs"]))


if __name__ == "__main__":
    run_program(main)
