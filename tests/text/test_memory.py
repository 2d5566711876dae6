"""Local corpora stay on the disk: what a run holds in memory hardly grows with them.

`benchmarks/memory.py` measures more.
"""

import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pytest

from distil_lib.text.deduplication import deduplicated, write_documents

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def test_documents_go_to_the_disk_as_they_come(tmp_path):
    """Oracle: the 33 MB of text, held in memory, would take 33 MB."""

    def rows():
        for number in range(400):
            yield (
                str(number),
                f"{number} " + "\n\n".join(f"{number} {i} word" * 50 for i in range(150)),
            )

    pool = pyarrow.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    documents = write_documents(deduplicated(rows()), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert len(documents) == 400 and size > 30e6
    assert peak < 20e6 and pool.bytes_allocated() - before < 20e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_corpus(monkeypatch):
    """Oracle: text and ids held in memory would take more than 2 MB a MB of text.

    A letter has one byte, a token four.
    """
    import memory

    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Below 20 MB the buffers are still filling.
    (small, few), (large, many) = memory.measure(24), memory.measure(56)
    assert many > 2 * few
    assert large - small < 32e6
