"""Local corpora stay on the disk: what a run holds in memory hardly grows with them. `benchmarks/memory.py` measures more."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_corpus(monkeypatch):
    """Oracle: a library that held text (1 byte a letter) and ids (4 bytes a token) in memory would grow by more than 1 MB a MB."""
    import memory

    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    (small, few), (large, many) = memory.measure(4), memory.measure(28)
    assert many > 6 * few
    assert large - small < 0.5 * 24e6
