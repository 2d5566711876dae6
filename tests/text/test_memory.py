"""Local corpora stay on the disk: what a run holds in memory hardly grows with them.

`benchmarks/memory.py` measures more.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_corpus(monkeypatch):
    """Oracle: text (1 byte a letter) and ids (4 bytes a token) held in memory would take more than 2 MB a MB of text."""
    import memory

    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    (small, few), (large, many) = (
        memory.measure(24),
        memory.measure(56),
    )  # below 20 MB the buffers are still filling
    assert many > 2 * few
    assert large - small < 32e6
