"""How many tokens a second the loader prepares: by one process, and by the workers of a preset.

    python benchmarks/loader.py --preset paper --block 512 --workers 0 4
    python benchmarks/loader.py --text a.txt --lines results.jsonl

A training step must never wait for it. Measured is what a training process does: batches are drawn,
masked and handed over, by the same `DataLoader`. Seconds begin with the second batch, when all
workers are at work.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from arguments import parse
from step import Lines
from torch.utils.data import DataLoader

from distil_lib.common.hardware import available_cpus
from distil_lib.common.paths import data_folder
from distil_lib.common.processes import run_program
from distil_lib.masking import DynamicMasking
from distil_lib.text.batches import StepBatches
from distil_lib.text.blocks import load_blocks
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.training.config import load_preset
from distil_lib.training.processes import start_workers


def tokens_per_second(loader: DataLoader, seconds: float) -> float:
    """Over the batches of so many seconds, and at least one."""
    batches = iter(start_workers(loader))
    next(batches)
    start, tokens = time.perf_counter(), 0
    for micro_batches in batches:
        tokens += sum(batch.input_ids.numel() for batch in micro_batches)
        if time.perf_counter() > start + seconds:
            break
    return tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--corpus", default="docs:pandas,scikit-learn")
    parser.add_argument("--block", type=int, default=None, help="the preset's by default")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=None, help="0 and the preset's by default"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=Path, default=None, help="append each result to this file")
    options = parse(parser)
    torch.set_num_threads(1)
    config = load_preset(options.preset)
    block = options.block or config.block_size
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    blocks = load_blocks(options.corpus, tokenizer, block)
    sample = config.soft_target_fraction if config.soft_targets == "sample" else 0.0
    masking = DynamicMasking(
        tokenizer, config.mlm_probability, config.mask_smoothing, 0, blocks.counts, sample
    )
    steps = StepBatches(blocks.train, masking, options.sequences, options.sequences)
    lines = Lines(options.lines, part="loader", block=block, sequences=options.sequences)
    numbers = options.workers or sorted({0, max(config.dataloader_num_workers, 1)})
    speeds: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(options.rounds):
        for workers in numbers:
            loader = DataLoader(steps, batch_size=None, sampler=range(10**6), num_workers=workers)
            speeds[workers].append(tokens_per_second(loader, options.seconds))
            lines.write(workers=workers, tokens_per_second=speeds[workers][-1])
    print(f"{options.sequences} x {block} tokens a batch, {available_cpus()} cores")
    for workers, found in speeds.items():
        each = f"({min(found):,.0f}-{max(found):,.0f})"
        print(f"{workers} workers: {statistics.median(found):,.0f} tokens/s {each}")


if __name__ == "__main__":
    run_program(main)
