"""Does memory grow with the corpus?

Blocks are made from two corpora of different size and read through once.

    python benchmarks/memory.py                    # 16 and 128 MB of text; a table

Counted is the process's own memory; pages of files that are mapped into memory, which the system
drops when it needs room, are not. The fixed part (imports, tokenizer, buffers) is the same for
both.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import threading
from pathlib import Path

from arguments import parse

from distil_lib.common.paths import data_folder
from distil_lib.common.processes import run_program

WORDS = Path(__file__).read_text().split()


def write_corpus(path: Path, megabytes: int) -> Path:
    """Documents of 10 paragraphs of 50 random words, no paragraph twice."""
    chance, written = random.Random(0), 0
    with path.open("w") as file:
        while written < megabytes * 1_000_000:
            paragraphs = (
                f"{chance.random()} {' '.join(chance.choices(WORDS, k=50))}" for _ in range(10)
            )
            written += file.write(json.dumps({"text": "\n\n".join(paragraphs)}) + "\n")
    return path


def private_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")
    )


def peak_of_reading(corpus: Path, cache: Path, answer) -> None:
    """Make the blocks of a corpus and go through them once; put the peak of `private_bytes` into
    the queue `answer`.
    """
    import datasets

    from distil_lib.masking import DynamicMasking
    from distil_lib.text.batches import StepBatches
    from distil_lib.text.blocks import load_blocks
    from distil_lib.text.tokenizer import load_tokenizer

    datasets.disable_progress_bars()
    from distil_lib.text import blocks as library

    # Tokenize here: forked workers share pages with their parent, which nobody counts.
    library.available_cpus = lambda: 1
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    blocks = load_blocks(str(corpus), tokenizer, 64, cache=cache)
    steps = StepBatches(
        blocks.train,
        DynamicMasking(tokenizer, counts=blocks.counts),
        batch_size=256,
        micro_batch_size=256,
    )
    for step in range(0, len(blocks.train) // 256, 8):
        steps[step]
    done.set()
    watcher.join()
    answer.put((peak, len(blocks.train)))


def measure(megabytes: int) -> tuple[int, int]:
    """(peak in bytes, number of blocks) of reading a corpus of this size in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder, "corpus.jsonl"), megabytes)
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(
            target=peak_of_reading, args=(corpus, Path(folder, "cache"), answer)
        )
        process.start()
        found = answer.get(timeout=1200)
        process.join()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs=2, default=(16, 128))
    small, large = parse(parser).megabytes
    found = {size: measure(size) for size in (small, large)}
    for size, (peak, blocks) in found.items():
        print(f"{size:5} MB of text, {blocks:9,} blocks: {peak / 1e6:6.0f} MB of memory at most")
    more = (found[large][0] - found[small][0]) / 1e6 / (large - small)
    print(f"a further MB of text takes {more:.2f} MB of memory")


if __name__ == "__main__":
    run_program(main)
