"""The tools of the workshop: what runs on GitHub, before a commit and in a container.

Oracles: the Makefile's own list of targets, the packaging standards' parsers, `requirements.lock`,
and, for each check, a fault that was put in and that it must see. The schemas of these files belong
to other tools (CONTRIBUTING.md, "On GitHub").
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
WORKFLOWS = {
    path.stem: path.read_text() for path in sorted((ROOT / ".github" / "workflows").iterdir())
}
FILES = """.pre-commit-config.yaml Makefile pyproject.toml requirements.lock environment.yml
_config.yml _toc.yml .ci/* .devcontainer/* .github/**/*""".split()
WORKSHOP = [path for name in FILES for path in sorted(ROOT.glob(name)) if path.is_file()]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"the fault cannot be put in: {old!r} is not there"
    return text.replace(old, new)


# ---------------------------------------------------------------------------------------- all files
@pytest.mark.parametrize("path", WORKSHOP, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_can_be_read(path):
    readers = {
        ".yml": yaml.safe_load,
        ".yaml": yaml.safe_load,
        ".json": json.loads,
        ".toml": tomllib.loads,
    }
    text = path.read_text()
    assert readers.get(path.suffix, str)(text)
    assert text.endswith("\n") and "\t" not in (text if path.suffix in readers else ""), path


def indexes(text: str) -> list[str]:
    """Words that name an index of packages, a registry or a folder of one machine.

    Where to install from is the machine's affair.
    """
    hosts = r"\S*(?:pythonhosted|pypi\.|pytorch\.org|npmjs|ghcr\.|quay\.|docker\.io|mcr\.)\S*"
    options = r"--(?:extra-)?index(?:-url)?|--find[-]links|/(?:home|root|opt|tmp)/\S*"
    return re.findall(rf"(?:{hosts}|{options})", text)


def test_no_index_of_packages_and_no_folder_of_a_machine():
    assert {path.name: found for path in WORKSHOP if (found := indexes(path.read_text()))} == {}


@pytest.mark.parametrize(
    "fault",
    [
        "pip install --index" + "-url there",
        "https://download.pytorch.org/whl/cpu",
        "image: ghcr.io/a/b",
        "/opt/wheels",
        "/" + "root/x",
    ],
)
def test_an_index_is_seen(fault):
    assert indexes(f"- run: {fault}")


# ---------------------------------------------------------------------------------------- workflows
def faults(text: str) -> list[str]:
    """What is wrong with a workflow. It calls the Makefile, may do little, and ends."""
    workflow, found = yaml.safe_load(text), []
    triggers = workflow[True]  # to YAML, `on` is a truth value
    risky = {"pull_request_target", "workflow_run"} & set(triggers)
    found += [f"started by {name}, with rights for code of strangers" for name in risky]
    found += ["rights for all jobs"] * (workflow.get("permissions") != {}) + ["no concurrency"] * (
        "concurrency" not in workflow
    )
    for name, job in workflow["jobs"].items():
        rights = job.get("permissions")
        deploys = any(
            step.get("uses", "").startswith("actions/deploy-pages@") for step in job["steps"]
        )
        if rights != ({"pages": "write", "id-token": "write"} if deploys else {"contents": "read"}):
            found.append(f"rights of {name}: {rights}")
        if deploys and not job.get("if", "").startswith(
            "github.ref == 'refs/heads/main' && github.event_name != 'pull_request' && "
        ):
            found.append(f"{name} publishes what is not on main")
        if not 1 <= job.get("timeout-minutes", 360) <= 60:
            found.append(f"{name} may run for hours")
    for step in steps(workflow):
        action, command = step.get("uses", ""), step.get("run", "")
        if action and not re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", action):
            found.append(f"{action}: not GitHub's own, or not pinned to a version")
        if (
            action.startswith("actions/checkout@")
            and step["with"]["persist-credentials"] is not False
        ):
            found.append("the token stays in the checkout")
        known = command in ("", ".ci/run", "python -m pip install uv") or re.fullmatch(
            r"make ([a-z]+)", command
        )
        if not known or (command.startswith("make ") and command.split()[1] not in TARGETS):
            found.append(f"{command!r} is no target of the Makefile")
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_calls_the_makefile_and_may_do_little(name):
    assert faults(WORKFLOWS[name]) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("quality", "run: make check", "run: make chekc"),
        ("quality", "run: make check", "run: ruff check ."),
        ("quality", "run: make check", "run: make check && echo ${{ github.head_ref }}"),
        ("quality", "permissions: {}", "permissions: write-all"),
        ("quality", "      contents: read", "      contents: write"),
        ("quality", "pull_request:", "pull_request_target:"),
        ("quality", "timeout-minutes: 30", "timeout-minutes: 300"),
        ("quality", "    timeout-minutes: 30\n", ""),
        ("quality", "persist-credentials: false", "persist-credentials: true"),
        ("quality", "actions/checkout@v7", "actions/checkout@main"),
        ("quality", "actions/checkout@v7", "somebody/checkout@v7"),
        ("book", "github.event_name != 'pull_request' && ", ""),
        ("book", "      contents: read", "      contents: read\n      pages: write"),
    ],
)
def test_a_fault_of_a_workflow_is_seen(name, old, new):
    assert len(faults(replaced(WORKFLOWS[name], old, new))) == 1


def test_machines_run_what_people_run():
    """Each push is held to `make test`, by .ci/run; what is deployed is what `make site` builds."""
    commands = {
        step["run"]
        for text in WORKFLOWS.values()
        for step in steps(yaml.safe_load(text))
        if "run" in step
    }
    assert {".ci/run", "make check", "make oldest", "make site"} <= commands
    assert (
        os.access(ROOT / ".ci" / "run", os.X_OK)
        and (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    )
    (upload,) = (
        s
        for s in steps(yaml.safe_load(WORKFLOWS["book"]))
        if s.get("uses", "").startswith("actions/upload-pages")
    )
    assert (
        f"{upload['with']['path']}/index.html"
        in re.search(r"^book:.*\n(?:\t.*\n)+", MAKEFILE, re.MULTILINE)[0]
    )
    assert re.search(r"^site: book ", MAKEFILE, re.MULTILINE)
    # Without the history no page would say when it was stored.
    checkout = steps(yaml.safe_load(WORKFLOWS["book"]))[0]
    assert checkout["uses"].startswith("actions/checkout@")
    assert checkout["with"]["fetch-depth"] == 0


@pytest.mark.parametrize(
    "path", [p for p in WORKSHOP if ".ci" not in p.parts] + [ROOT / "CONTRIBUTING.md"]
)
def test_targets_that_are_named_exist(path):
    assert set(re.findall(r"""[`"(]make ([a-z]+)""", path.read_text())) <= TARGETS


# ----------------------------------------------------------------------------------------- versions
def test_pythons_agree():
    """The Makefile, pyproject.toml, the matrix, mypy and ruff have the same oldest and newest."""
    suitable = re.search(
        r"^SUITABLE := .*not \(3, (\d+)\) <= .* < \(3, (\d+)\)\)", MAKEFILE, re.MULTILINE
    )
    oldest, newest = f"3.{suitable[1]}", f"3.{int(suitable[2]) - 1}"
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert (
        f"Python {oldest} to {newest}" in (ROOT / "requirements.lock").read_text().splitlines()[0]
    )
    jobs = yaml.safe_load(WORKFLOWS["tests"])["jobs"]
    assert jobs["all"]["strategy"]["matrix"]["python"] == [oldest, newest]
    assert jobs["oldest"]["steps"][1]["with"]["python-version"] == oldest


def test_one_python_for_the_book_conda_and_the_container():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0].removeprefix(
        "python="
    )
    assert conda in SpecifierSet(PROJECT["project"]["requires-python"])
    for name in ("quality", "book"):
        pythons = [
            s["with"]["python-version"]
            for s in steps(yaml.safe_load(WORKFLOWS[name]))
            if "setup-python" in s.get("uses", "")
        ]
        assert pythons == [conda], name
    assert f"\nFROM python:{conda}-" in (ROOT / ".devcontainer" / "Dockerfile").read_text()


def test_every_way_in_takes_the_versions_of_the_lock():
    """conda, Binder (which reads environment.yml), the container and make name no versions of their
    own. Colab keeps its own torch and numpy: the set-up cell installs the library alone.
    """
    *_, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "-r requirements.lock" in pip["pip"]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup"
    assert re.search(r"^LOCK := requirements\.lock$", MAKEFILE, re.MULTILINE)
    assert re.search(r"^setup: \$\(READY\)", MAKEFILE, re.MULTILINE)
    assert re.search(r"^\t\$\(BIN\)/python -m pip install .*-r \$\(LOCK\)$", MAKEFILE, re.MULTILINE)
    files = [ROOT / "environment.yml", *(ROOT / ".devcontainer").iterdir(), ROOT / "Makefile"]
    cells = ROOT / "book" / "_ext" / "notebooks.py"
    assert '"--no-deps", "-e"' in cells.read_text(encoding="utf-8")
    for path in [*files, cells]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(torch|numpy|transformers|jupyter-book)\s*[=<>~]=", text), path


def test_the_values_of_the_makefile_hold_no_blank():
    """Make keeps what stands before a comment: `X = 1  # why` exports "1  "."""
    assert re.findall(r"^[^\t#\n]*=.*?[ \t]+(?:#.*)?$", MAKEFILE, re.MULTILINE) == []


def test_oldest_versions_are_named():
    """`make oldest` promises something only for what has a lower bound."""
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [
        *PROJECT["project"]["dependencies"],
        *(text for names in extras.values() for text in names),
    ]:
        assert {s.operator for s in Requirement(text).specifier} & {">=", "=="}, text


# -------------------------------------------------------------------------------------------- hooks
def test_hooks_are_programs_of_the_lock():
    """So that a commit is judged by the ruff that `make lint` runs, and nothing is downloaded."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    locked = {
        Requirement(line).name for line in (ROOT / "requirements.lock").read_text().splitlines()[1:]
    }
    assert {"ruff", "pre-commit", "pre-commit-hooks"} <= locked
    programs = {"ruff", *distribution("pre-commit-hooks").entry_points.names}
    for repo in config["repos"]:
        assert repo["repo"] == "local"  # no other place, and so no other version
        for hook in repo["hooks"]:
            place, _, program = hook["entry"].split()[0].rpartition("/")
            assert place == ".venv/bin" and program in programs, hook["id"]
            assert hook["language"] == "unsupported", hook[
                "id"
            ]  # pre-commit's word for: make no environment


def test_pre_commit_understands_its_file():
    subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", ROOT / ".pre-commit-config.yaml"],
        check=True,
    )


@pytest.mark.parametrize(
    ("name", "content", "hook"),
    [
        ("a.yaml", "a: [1\n", "check-yaml"),
        ("a.json", "{", "check-json"),
        ("a.py", "<<<<<<< ours\n", "check-merge-conflict"),
        ("a.txt", "blank \n", "trailing-whitespace"),
        ("a.txt", "no line break", "end-of-file-fixer"),
        ("a.bin", "x" * 1_100_000, "check-added-large-files"),
    ],
)
def test_a_faulty_file_is_not_committed(tmp_path, name, content, hook):
    """The repository has nothing but the hooks' file, an environment, and a fault."""
    run = lambda *command: subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PRE_COMMIT_HOME": str(tmp_path / "cache")},
    )
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / name).write_text(content)
    assert run("git", "init", "--quiet").returncode == 0 and run("git", "add", name).returncode == 0
    result = run(sys.executable, "-m", "pre_commit", "run", hook)
    assert result.returncode == 1 and f"hook id: {hook}" in result.stdout, (
        result.stdout + result.stderr
    )


# ------------------------------------------------------------------------------------------ package
def test_wheel_carries_every_file(tmp_path):
    """New rooms, presets and templates need no list; `py.typed` says that there are types."""
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "distil_lib", source / "distil_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    for folder in ("a_new_room", "training/new_files"):
        (source / "distil_lib" / folder).mkdir()
        (source / "distil_lib" / folder / "new.yaml").touch()
    (source / "distil_lib" / "a_new_room" / "new.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('wheel'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "wheel").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "unpacked", "zip")

    def files(folder: Path) -> set[str]:
        found = (folder / "distil_lib").rglob("*")
        return {path.relative_to(folder).as_posix() for path in found if path.is_file()}

    assert files(tmp_path / "unpacked") == files(source) and "distil_lib/py.typed" in files(source)
