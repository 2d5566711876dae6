"""The import graph of the library, read from its source: the core knows no room, arrows point down.

A wrong graph, put in on purpose, must be found by the same functions.
"""

import ast
import graphlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distil_lib

LIBRARY = Path(distil_lib.__file__).parent
# A room imports the core and the rooms to its left.
ROOMS = "common text training tasks elmo finetune export timing ablation pages".split()
OUTSIDE = ("torch", "transformers", "numpy", "safetensors")  # what the core may import besides
PAPER = "student teacher initialization losses fused_losses masking distillation evaluation".split()
PAPER_LINES = 1_400  # what somebody who reads the paper can read beside it in an afternoon
FILE_LINES = 350  # one subject; what is longer is two, and has to be looked for
PROGRAMS = ("launch", "pretrain")  # on top of everything
CORE = sorted({path.stem for path in LIBRARY.glob("*.py")} - {"__init__", *PROGRAMS})


def name_of(path: Path) -> str:
    parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path.read_text(encoding="utf-8") for path in LIBRARY.rglob("*.py")}


def imported(source: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it, except for type checkers alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inside)


def room(module: str) -> str:
    """The "face" (`distil_lib` itself), "core", a program, or the room's name."""
    if module == "distil_lib.pages.paper_numbers":
        return "common"  # data, which programs print beside their own
    first = module.split(".")[1] if "." in module else "face"
    return "core" if first in CORE else first


def upward(modules: dict[str, str]) -> list[str]:
    """Arrows that the rule forbids."""
    height = {"core": 0} | {name: i + 1 for i, name in enumerate(ROOMS)}
    found = []
    for module, source in modules.items():
        here = room(module)
        if here in ("face", *PROGRAMS):  # the face is lazy
            continue
        for target in imported(source):
            if target.split(".")[0] != "distil_lib":
                if here == "core" and target.split(".")[0] not in {
                    *OUTSIDE,
                    *sys.stdlib_module_names,
                }:
                    found.append(f"{module} -> {target}")
            elif (there := room(target)) != "face" and height.get(there, 99) > height[here]:
                found.append(f"{module} -> {target}")
    return found


def check_no_circle(modules: dict[str, str]) -> None:
    graph = {m: {t for t in imported(s) if t in modules and t != m} for m, s in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_folder_is_a_room_with_a_place_in_the_order():
    folders = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert folders == set(ROOMS)
    assert len(MODULES) > 50 and "masking" in CORE


def test_arrows_point_down_and_the_core_imports_no_room():
    assert upward(MODULES) == []


def test_there_is_no_circle():
    check_no_circle(MODULES)


def test_a_wrong_arrow_and_a_circle_are_found():
    losses = MODULES["distil_lib.losses"]
    for line in ("from distil_lib.common.paths import locate", "import datasets"):
        assert len(upward(MODULES | {"distil_lib.losses": f"{losses}\n{line}"})) == 1
    text = MODULES["distil_lib.text.packing"] + "\nfrom distil_lib.training import loop"
    assert len(upward(MODULES | {"distil_lib.text.packing": text})) == 1
    with pytest.raises(graphlib.CycleError):
        circle = f"{losses}\nfrom distil_lib import evaluation"
        check_no_circle(MODULES | {"distil_lib.losses": circle})


def too_long(modules: dict[str, str]) -> dict[str, int]:
    """Lines of what is longer than it may be: a file, or the files of the paper together."""
    lines = {name: source.count("\n") for name, source in modules.items()}
    paper = sum(lines[f"distil_lib.{name}"] for name in PAPER)
    found = {name: n for name, n in lines.items() if n > FILE_LINES}
    return found | ({"the paper": paper} if paper > PAPER_LINES else {})


def test_the_library_stays_readable():
    assert too_long(MODULES) == {}


def test_a_file_and_a_core_that_are_too_long_are_found():
    short = dict.fromkeys(MODULES, "\n" * (PAPER_LINES // len(PAPER)))
    assert too_long(short) == {}
    assert too_long(short | {"distil_lib.losses": "\n" * 176}) == {"the paper": PAPER_LINES + 1}
    assert too_long(short | {"distil_lib.launch": "\n" * 351}) == {"distil_lib.launch": 351}


def test_no_name_hides_another_package():
    """`accelerate launch distil_lib/pretrain.py` puts the folder itself on `sys.path`."""
    # Python 3.14 counts the __pycache__ of a distribution among its packages.
    ours = {path.stem for path in LIBRARY.iterdir() if path.suffix in ("", ".py")}
    names = ours - {"__init__", "__pycache__"}
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    assert {"statistics", "torch"} <= taken
    assert names and not names & taken


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_face_costs_no_time():
    heavy = "{'torch', 'transformers', 'datasets', 'numpy'}"
    assert fresh(f"import sys, distil_lib; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", distil_lib.__all__)
def test_every_name_of_the_face_resolves_to_where_it_is_defined(name):
    found = getattr(distil_lib, name)
    assert found.__name__ == name and found.__module__ == f"distil_lib.{distil_lib._HOMES[name]}"
    assert name in dir(distil_lib)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Teacher"):
        distil_lib.Teacher  # noqa: B018


def test_losses_and_masks_need_no_transformers():
    modules = "distil_lib.masking, distil_lib.fused_losses"
    assert fresh(f"import sys, {modules}; print('transformers' in sys.modules)") == "False"


def test_elmo_is_imported_by_nobody_who_does_not_ask_for_it():
    users = [m for m, s in MODULES.items() if any(room(t) == "elmo" for t in imported(s))]
    assert {room(module) for module in users} <= {"elmo", "timing"}
