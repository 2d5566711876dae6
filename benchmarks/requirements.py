"""Print what the library needs, one requirement a line, from `pyproject.toml`.

    python benchmarks/requirements.py > requirements.txt

Read by hand, because Python 3.10 knows no TOML.
"""

import re
from pathlib import Path

text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
needed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
assert needed is not None
print("\n".join(re.findall(r'^\s*"([^"]+)"', needed[1], re.MULTILINE)))
