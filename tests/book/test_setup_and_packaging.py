"""The way in: set-up, versions, packaging, and what all chapters have in common.

Oracles: the packaging standards' own parser for requirements and markers, pip for the wheel, make
for the set-up, and Jupyter's own validator for notebooks.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def load_extension(name: str):
    """A module of `book/_ext`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks, docstrings = (load_extension(name) for name in ("notebooks", "docstrings"))


# ----------------------------------------------------------------------------------------- versions
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted() -> list[Requirement]:
    project = pyproject()["project"]
    extras = project["optional-dependencies"].values()
    return [
        Requirement(text)
        for text in [*project["dependencies"], *(text for extra in extras for text in extra)]
    ]


def pins(lock: str, python: str) -> dict[str, str]:
    """Name -> version, for one Python on Linux."""
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    found: dict[str, str] = {}
    for line in lock.splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({**default_environment(), **machine}):
                (specifier,) = pin.specifier
                assert specifier.operator == "==" and pin.name not in found, line
                found[canonicalize_name(pin.name)] = specifier.version
    return found


def disagreements(requirements: list[Requirement], lock: str) -> list[str]:
    faults = []
    for python in PYTHONS:
        pinned = pins(lock, python)
        for requirement in requirements:
            version = pinned.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version):
                faults.append(f"Python {python}: {requirement} against {version}")
    return faults


def test_lock_satisfies_pyproject():
    lock = (ROOT / "requirements.lock").read_text()
    assert disagreements(wanted(), lock) == []
    assert (
        pins(lock, "3.11")["torch"] == "2.13.0"
        and pins(lock, "3.11")["jupyter-book"] == "1.0.4.post1"
    )


@pytest.mark.parametrize(
    ("requirement", "lock"),
    [
        ("torch>=3", "torch==2.13.0"),
        ("torch", "numpy==2.0"),
        ("numpy>=2", "numpy==2.1 ; python_version < '3.12'"),
    ],
    ids=["too old", "missing", "missing for some Pythons"],
)
def test_a_lock_that_disagrees_is_seen(requirement, lock):
    assert disagreements([Requirement(requirement)], lock)


def test_lock_is_installed():
    """The other tests speak for these versions: those of requirements.lock, or, in `make oldest`,
    the oldest.

    A local part (`+cpu`) names the build, not the version.
    """
    lock = (ROOT / os.environ.get("LOCK", "requirements.lock")).read_text()
    for name, version in pins(lock, f"{sys.version_info[0]}.{sys.version_info[1]}").items():
        assert importlib.metadata.version(name).split("+")[0] == version, name


def test_conda_environment_takes_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert [re.split("[=<>]", name)[0] for name in conda] == [
        "python",
        "pip",
    ]  # nothing that pip would then replace
    python = conda[0].partition("=")[2]
    assert python in PYTHONS and python in SpecifierSet(pyproject()["project"]["requires-python"])


def test_no_index_or_path_of_a_machine_in_the_set_up():
    for name in ("requirements.lock", "environment.yml", "Makefile", "pyproject.toml", ".ci/run"):
        words = (ROOT / name).read_text().split()
        assert not [w for w in words if ":/" in w or {"home", "root"} & {*w.split("/")}], (
            f"an address or a machine's folder in {name}"
        )
        assert not [w for w in words if w.startswith("--") and re.search("index|links", w)], (
            f"where to install from, in {name}"
        )


def test_versions_are_the_same_everywhere():
    version = importlib.metadata.version("distil-lib")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


# -------------------------------------------------------------------------------------------- wheel
def test_wheel_installs_and_imports_in_an_empty_environment(tmp_path):
    """With nothing but the wheel: importing the package must need, and load, no other one.

    The presets travel with it.
    """
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "distil_lib", source / "distil_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        **run,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], **run)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], **run)
    program = (
        "import distil_lib, sys; from importlib.resources import files;"
        "presets = files('distil_lib') / 'training' / 'presets';"
        "print(distil_lib.__file__, *sorted(p.name for p in presets.iterdir()), sep='\\n');"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    lines = subprocess.run([python, "-c", program], cwd=tmp_path, **run).stdout.split()
    assert lines[0].startswith(str(tmp_path / "empty"))
    presets = ROOT / "distil_lib" / "training" / "presets"
    assert lines[1:] == sorted(p.name for p in presets.iterdir())


# --------------------------------------------------------------------------------------------- make
def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    # What the calling make was given (make test PYTHON=...) is no business of this one.
    given = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "CHAPTER"}
    clean = {k: v for k, v in os.environ.items() if k not in given}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def fake_python(path: Path, version: str) -> Path:
    """A Python that says it is of that version, and that cannot make an environment."""
    pretend = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0)"
    return program(
        path,
        f"""case "$1" in
-c) exec {sys.executable} -c "{pretend}; $2";;
--version) echo {version};;
*) exit 1;;
esac""",
    )


@pytest.mark.parametrize("version", ["3.9", "3.15"])
def test_an_unsuitable_python_gets_one_sentence(tmp_path, version):
    result = make(
        "setup", f"PYTHON={fake_python(tmp_path / 'python3', version)}", f"VENV={tmp_path / 'venv'}"
    )
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("make:")]
    assert (
        result.returncode == 2
        and len(complaints) == 1
        and "No Python 3.10 to 3.14 was found" in complaints[0]
    )


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_without_venv_gets_one_sentence(tmp_path, version):
    venv = tmp_path / "venv"
    result = make("setup", f"PYTHON={fake_python(tmp_path / 'python3', version)}", f"VENV={venv}")
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("make:")]
    assert (
        result.returncode == 2
        and len(complaints) == 1
        and "Install its venv module" in complaints[0]
    )
    assert not venv.exists()


def test_the_next_python_is_taken_where_the_first_is_too_old(tmp_path):
    fake_python(tmp_path / "python3", "3.9")
    fake_python(tmp_path / "python3.13", "3.13")
    result = make("setup", f"VENV={tmp_path / 'venv'}", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert "with 3.13" in result.stdout and "python3.13 cannot make" in result.stderr


def test_an_interrupted_set_up_is_taken_up_again(tmp_path):
    """The environment is complete only when its stamp is there: without it pip is called again, in
    the same environment.
    """
    (tmp_path / "bin").mkdir()
    log = tmp_path / "log"
    program(
        tmp_path / "bin" / "python",
        f'echo "$@" >> {log}; case "$*" in *requirements.lock*) [ -e {tmp_path}/whole ];; esac',
    )
    assert make("setup", f"VENV={tmp_path}").returncode == 2 and not (tmp_path / ".ready").exists()
    (tmp_path / "whole").touch()
    assert make("setup", f"VENV={tmp_path}").returncode == 0 and (tmp_path / ".ready").exists()
    assert "venv" not in log.read_text().split()  # never made anew
    calls = log.read_text()
    assert make("setup", f"VENV={tmp_path}").returncode == 0 and log.read_text() == calls


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    listed = re.findall(r"^  make (\S+) +\S", make("help").stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())


# ----------------------------------------------------------------------------------------- chapters
def test_contents_and_chapters_agree():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [
        page
        for part in contents["parts"]
        for chapter in part["chapters"]
        for page in (chapter, *chapter.get("sections", []))
    ]
    assert contents["root"] == "index"  # the landing page, which lies beside `book`
    named = [page["file"] for page in pages]
    files = [
        p.relative_to(ROOT).with_suffix("").as_posix()
        for folder in (".", "api", "teachers")
        for p in (ROOT / "book" / folder).iterdir()
        if p.suffix in (".ipynb", ".md")
    ]
    assert sorted(named) == sorted(files)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_stored_as_it_was_executed(path, tmp_path):
    """The set-up cell is the common one; the stored outputs come from one run, top to bottom,
    without an error.
    """
    notebook = notebooks.read(path)
    first = notebooks.first_code_cell(notebook)
    assert (first.id, first.source) == (notebooks.CELL_ID, notebooks.setup_cell().source), (
        "run `make cells`"
    )
    assert first.outputs == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
        "run `make execute`"
    )
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    notebooks.write(notebook, tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_text() == path.read_text(), (
        "not written by `make execute` or `make cells`"
    )


def test_setup_cell_is_put_after_the_title_and_renewed():
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("1 + 1")])
    notebooks.put_setup_cell(notebook)
    notebooks.put_setup_cell(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code"]
    assert notebook.cells[1].id == notebooks.CELL_ID and notebook.cells[2].source == "1 + 1"
    notebook.cells[1].source = "edited by hand"
    notebooks.put_setup_cell(notebook)
    assert notebook.cells[1].source == notebooks.setup_cell().source


def test_execution_stores_the_same_file_each_time(tmp_path):
    path = tmp_path / "page.ipynb"
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("x = 20 + 1\nx", metadata={"collapsed": True}),
        ]
    )
    notebook.metadata["language_info"] = {"name": "python", "version": "3.10.1"}
    nbformat.write(notebook, path)
    notebooks.execute(path)
    first = path.read_text()
    notebooks.execute(path)
    assert path.read_text() == first
    stored = notebooks.read(path)
    assert (
        stored.cells[1].outputs[0].data["text/plain"] == "21"
        and stored.cells[1].execution_count == 1
    )
    assert "version" not in stored.metadata.language_info and stored.cells[1].metadata == {}


def test_a_chapter_that_fails_is_not_stored(tmp_path):
    path = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("assert 1 + 1 == 3")]), path)
    before = path.read_text()
    with pytest.raises(CellExecutionError, match="1 == 3"):
        notebooks.execute(path)
    assert path.read_text() == before


# ------------------------------------------------------------------------------------ Sphinx's side
def test_the_librarys_pages_show_every_module_once():
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "book" / "api").glob("*.md"))
    files = (path.relative_to(ROOT) for path in (ROOT / "distil_lib").rglob("*.py"))
    # Two packages have a section and their modules none: exercises, which hold the answers, and
    # figures to drag, whose one name is FIGURE.
    packages = [Path("distil_lib", "pages", name) for name in ("exercises", "figures")]
    named = (
        path.with_suffix("")
        for path in files
        if "__" not in path.stem and path.parent not in packages
    )
    modules = [".".join(path.parts) for path in (*named, *packages)]
    assert sorted(re.findall(r"automodule:: (distil_lib[.\w]+)", pages)) == sorted(modules)


def test_docstrings_are_shown_as_they_are_meant():
    from docutils.core import publish_doctree
    from docutils.nodes import literal_block

    plain = [
        "Mean of a * b and c_.",
        "",
        "    y = f(x)    # **kwargs",
        "",
        "    z = g(y)",
        "",
        "It is *not* |x|.",
    ]
    tree = publish_doctree(
        "\n".join(docstrings.to_rst(plain)), settings_overrides={"report_level": 5}
    )
    assert [block.astext() for block in tree.findall(literal_block)] == [
        "y = f(x)    # **kwargs\n\nz = g(y)"
    ]
    assert tree[0].astext() == "Mean of a * b and c_." and tree[-1].astext() == "It is not |x|."
