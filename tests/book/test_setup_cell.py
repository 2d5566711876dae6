"""The set-up cell in somebody else's kernel: one that has the dependencies and not the library.

Such a kernel is a fresh environment that sees this one's packages through a path file: Python
follows path files of its own environment only, so the library, which this environment knows by such
a file, is out of sight there. pip installs into the fresh one.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from test_setup_and_packaging import ROOT, notebooks

PACKAGES = sysconfig.get_path("purelib")
PLACES = """
import json, numpy, torch
json.dumps({"library": distil_lib.__file__, "numpy": numpy.__file__, "torch": torch.__file__,
            "python": sys.executable})
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with the library as it stands here, committed or not."""
    folder = tmp_path_factory.mktemp("origin") / "book"
    shutil.copytree(
        ROOT / "distil_lib", folder / "distil_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "--no-gpg-sign", "-m", "all"],
    ):
        subprocess.run([*git, *command], check=True, capture_output=True)
    return folder


def foreign_python(folder: Path, visible: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "theirs.pth").write_text(visible + "\n")
    return folder / "bin" / "python"


def run_alone(python: Path, folder: Path, repository: Path) -> list[str]:
    """What the cell prints without a kernel, where setuptools is visible and no index."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    command = [str(python), "-c", notebooks.setup_cell(repository.as_uri()).source]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def run_cells(python: Path, folder: Path, *sources: str) -> list[dict]:
    """Run cells in one fresh kernel of that Python, in that folder.

    The outputs of the last, or the error that stopped them.
    """
    program = (
        "import json, sys, nbclient; from nbformat.v4 import new_code_cell, new_notebook;"
        "book = new_notebook(cells=[new_code_cell(source) for source in json.loads(sys.argv[1])]);"
        "options = dict(kernel_name='python3', allow_errors=True, timeout=300);"
        "nbclient.NotebookClient(book, **options).execute();"
        "errors = [o for c in book.cells for o in c.outputs if o.output_type == 'error'];"
        "outputs = errors or [c.outputs for c in book.cells];"
        "print(json.dumps(outputs))"
    )
    # setuptools, which builds the library, is visible as well: pip has nothing to fetch.
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_PATH")
    }
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    command = [str(python), "-c", program, json.dumps(sources)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_cell_clones_once_installs_the_library_alone_and_goes_on(tmp_path, repository):
    python = foreign_python(tmp_path / "kernel", PACKAGES)
    cell = notebooks.setup_cell(repository.as_uri()).source
    work = tmp_path / "work"
    work.mkdir()
    setup, places = run_cells(python, work, cell, PLACES)
    places = json.loads(eval(places[0]["data"]["text/plain"]))
    assert setup == [] and places["python"] == str(python)
    assert places["library"] == str(work / "distilling-bert" / "distil_lib" / "__init__.py")
    assert all(places[name].startswith(PACKAGES) for name in ("numpy", "torch"))
    installed = {
        path.name.split("-")[0]
        for path in (tmp_path / "kernel").glob("lib/python*/site-packages/*.dist-info")
    }
    assert installed == {"distil_lib"}

    # Another kernel finds it installed: the cell neither clones nor calls pip, whatever the
    # address.
    gone = notebooks.setup_cell((tmp_path / "gone").as_uri()).source
    setup, again = run_cells(python, tmp_path, gone, "distil_lib.__file__")
    assert setup == [] and eval(again[0]["data"]["text/plain"]) == places["library"]
    assert not (tmp_path / "distilling-bert").exists()

    # A kernel that lost the installation and has the clone (or an unpacked zip) installs it without
    # an address.
    other = foreign_python(tmp_path / "other", PACKAGES)
    setup, again = run_cells(other, work, notebooks.setup_cell("").source, "distil_lib.__file__")
    assert setup == [] and eval(again[0]["data"]["text/plain"]) == places["library"]


def test_cell_without_an_address_says_what_to_do(tmp_path):
    python = foreign_python(tmp_path / "kernel", PACKAGES)
    (error,) = run_cells(python, tmp_path, notebooks.setup_cell("").source, "1 + 1")
    assert error["ename"] == "ModuleNotFoundError"
    assert (
        "Set REPOSITORY" in error["evalue"] and str(tmp_path / "distilling-bert") in error["evalue"]
    )


def test_cell_names_missing_dependencies(tmp_path, repository):
    """Here the foreign environment has pip and what builds the library, nothing else; the cell runs
    without a kernel.
    """
    visible = tmp_path / "visible"
    visible.mkdir()
    for name in (
        "pip",
        "pip-*.dist-info",
        "setuptools",
        "setuptools-*.dist-info",
        "_distutils_hack",
    ):
        (found,) = Path(PACKAGES).glob(name)
        (visible / found.name).symlink_to(found)
    python = foreign_python(tmp_path / "bare", str(visible))
    *faults, heading, remedy = run_alone(python, tmp_path, repository)
    missing = {line.split(" requires ")[1].split(",")[0] for line in faults}
    assert {"torch", "numpy", "transformers"} <= missing
    assert all(line.endswith("is not installed.") for line in faults)
    assert "To install" in heading
    assert remedy == f'%pip install -e "{tmp_path / "distilling-bert"}"'


def test_cell_leaves_what_is_there_and_names_what_is_too_old(tmp_path, repository):
    """The foreign environment has a numpy of its own, too old for the library by its metadata."""
    python = foreign_python(tmp_path / "kernel", PACKAGES)
    (site,) = (tmp_path / "kernel").glob("lib/python*/site-packages")
    theirs = site / "numpy-1.26.4.dist-info"
    theirs.mkdir()
    (theirs / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
    work = tmp_path / "work"
    work.mkdir()
    fault, _, remedy = run_alone(python, work, repository)
    assert "numpy>=2.0" in fault and "you have numpy 1.26.4" in fault and "%pip" in remedy
    assert {path.name for path in site.glob("numpy*")} == {"numpy-1.26.4.dist-info"}
