"""CONTRIBUTING's table of rooms. Oracle: the folders and files of the library themselves."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.compile(r"^\| `([\w./]+)` \| (.+) \|$", re.M)


def test_each_room_has_a_row_with_one_sentence_and_each_row_a_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(
        ROWS.findall(text.partition("## Where does my line belong?")[2].partition("\n## ")[0])
    )
    rooms = {f"{path.parent.name}/" for path in (ROOT / "distil_lib").glob("*/__init__.py")}
    core = {path.name for path in (ROOT / "distil_lib").glob("*.py")} - {"__init__.py"}
    assert rows.keys() == rooms | core
    for place, sentence in rows.items():
        assert sentence.endswith(".") and sentence.count(". ") == 0, f"one sentence: {place}"
