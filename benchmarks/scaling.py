"""What a second process, or a second thread, brings on this machine: tokens per second of `--preset
mini`, in one run.

    python benchmarks/scaling.py    # three rounds of the three arms in turn, some ten minutes

The arms alternate, so that a machine that is slow for a while is slow for all of them. Quoted are
medians, and the speed relative to one process with one thread.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from arguments import parse

from distil_lib.common.hardware import describe_machine
from distil_lib.common.processes import run_program
from distil_lib.training.config import load_preset
from distil_lib.training.metrics_file import read_metrics

PROGRAM = Path(__file__).parents[1] / "distil_lib" / "pretrain.py"
ARMS = ((1, 1), (2, 1), (1, 2))  # (processes, threads of each)


def tokens_per_second(
    processes: int, threads: int, preset: str, steps: int, output: Path
) -> list[float]:
    """Of every ten steps but the first ten, which warm up."""
    settings = {
        "preset": preset,
        "max_steps": steps,
        "log_every": 10,
        "eval_every": 10**6,
        "save_every": 10**6,
        "eval_blocks": 64,
    }
    settings |= {"threads": threads, "output": output}
    launcher = "-m torch.distributed.run --standalone --nproc_per_node".split()
    command = [sys.executable, *launcher, str(processes), str(PROGRAM)]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        command, env=os.environ | {"TQDM_DISABLE": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return [row["tokens_per_second"] for row in read_metrics(output) if "loss" in row][1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parse(parser)
    load_preset(options.preset)  # or one message, and not the launcher's
    speeds: dict[tuple[int, int], list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for arm in ARMS:
                output = Path(folder, f"{number}-{arm[0]}-{arm[1]}")
                speeds[arm] += tokens_per_second(*arm, options.preset, options.steps, output)
    machine = describe_machine()
    print(
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}; "
        f"preset {options.preset}"
    )
    print("processes  threads  tokens/s  (quartiles)    relative  efficiency")
    alone = statistics.median(speeds[ARMS[0]])
    for (processes, threads), values in speeds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        gain = middle / alone
        print(
            f"{processes:9}  {threads:7}  {middle:8,.0f}  ({low:,.0f}-{high:,.0f})  "
            f"{gain:8.2f}  {gain / (processes * threads):9.0%}"
        )


if __name__ == "__main__":
    run_program(main)
