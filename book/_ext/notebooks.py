"""What all chapters have in common: the set-up cell, how they are executed, and how they are
stored.

    python book/_ext/notebooks.py cells book/*.ipynb      # write the set-up cell into each
    python book/_ext/notebooks.py execute book/*.ipynb    # run each anew, store the outputs
    python book/_ext/notebooks.py address book/*.ipynb    # origin's into _config.yml, then cells
    python book/_ext/notebooks.py show                    # print the set-up cell

`make cells`, `make execute` and `make address` call the first three.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from nbformat.validator import normalize

sys.path.insert(0, str(Path(__file__).parent))  # `launch` is a neighbour, and no package
import launch

CONFIG = Path(__file__).resolve().parents[2] / "_config.yml"
CELL_ID = "set-up"
# Silent where the library is installed. Elsewhere (Colab, somebody's own kernel) it fetches the
# repository into the working folder and installs the library alone, so that the kernel keeps its
# own torch and numpy.
CELL = """\
# Set-up: nothing to do where distil_lib is installed; elsewhere, fetch this book's
# repository and install its library alone.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = "{url}"
if importlib.util.find_spec("distil_lib") is None:
    clone = Path("distilling-bert").resolve()
    if not REPOSITORY and not clone.exists():
        raise ModuleNotFoundError(
            f"Set REPOSITORY to this book's address, or unpack its zip as {clone}; "
            "then run this cell again."
        )
    if not clone.exists():
        fetch = ["git", "clone", "--quiet", "--depth", "1", REPOSITORY, clone]
        subprocess.run(fetch, check=True)
    pip = [sys.executable, "-m", "pip"]
    install = ["install", "--quiet", "--no-deps", "-e", clone]
    subprocess.run([*pip, *install], check=True)
    sys.path.insert(0, str(clone))  # a running kernel does not see a new install
    importlib.invalidate_caches()
    report = subprocess.run([*pip, "check"], capture_output=True, text=True).stdout
    faults = [line for line in report.splitlines() if line.startswith("distil-lib ")]
    if faults:
        print(*faults, "To install what is missing or too old, type this and restart:", sep="\\n")
        print(f'%pip install -e "{clone}"')
import distil_lib"""


def repository_url() -> str:
    """`repository.url` of `_config.yml`; "" while it is not known."""
    return (yaml.safe_load(CONFIG.read_text(encoding="utf-8")).get("repository") or {}).get(
        "url"
    ) or ""


def write_address() -> None:
    """Write the address of the remote `origin` into `_config.yml`.

    A remote that is not public ends the program with one message.
    """
    if not (url := launch.origin(CONFIG.parent)):
        print(
            "The remote `origin` is no address on GitHub or GitLab, so nothing was written. "
            "Set it (git remote add origin ADDRESS), or write repository.url into _config.yml.",
            file=sys.stderr,
        )
        sys.exit(2)
    text = CONFIG.read_text(encoding="utf-8")
    changed = re.sub(r'(?m)^(repository:\n  url: )"[^"\n]*"', rf'\g<1>"{url}"', text)
    CONFIG.write_text(changed, encoding="utf-8")


def setup_cell(url: str | None = None) -> NotebookNode:
    """The set-up cell, folded on the page."""
    source = CELL.replace("{url}", repository_url() if url is None else url)
    return nbformat.v4.new_code_cell(source, id=CELL_ID, metadata={"tags": ["hide-input"]})


def first_code_cell(notebook: NotebookNode) -> NotebookNode | None:
    return next((cell for cell in notebook.cells if cell.cell_type == "code"), None)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Store a notebook without what differs from run to run or from machine to machine, so that a
    diff shows what changed.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {
                "file_extension": ".py",
                "mimetype": "text/x-python",
                "name": "python",
            },
        }
    )
    for cell in notebook.cells:
        for noise in ("execution", "collapsed", "scrolled", "ExecuteTime"):
            cell.metadata.pop(noise, None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    _, notebook = normalize(notebook)  # gives an id to each cell without one
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def put_setup_cell(notebook: NotebookNode) -> None:
    """Write the set-up cell as the first code cell: over the one that is there, or a bare `import
    distil_lib`; else after the title.
    """
    first, new = first_code_cell(notebook), setup_cell()
    if first is not None and (first.id == CELL_ID or first.source.strip() == "import distil_lib"):
        first.update(id=CELL_ID, source=new.source, metadata=new.metadata, outputs=[])
    else:
        notebook.cells.insert(1, new)


def execute(path: Path) -> str:
    """Run a chapter top to bottom in a fresh kernel, in its own folder, and store it.

    Returns a line that says so.

    A chapter that fails keeps what was stored: `CellExecutionError` holds the cell and the
    traceback.
    """
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    begin = time.perf_counter()
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources=place,
        extra_arguments=["--log-level=40"],
    ).execute()
    write(notebook, path)
    return f"{path}: executed in {time.perf_counter() - begin:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["cells", "execute", "address", "show"])
    parser.add_argument("chapters", nargs="*", type=Path)
    arguments = parser.parse_args()
    for path in arguments.chapters:  # all of them, before the first is executed or written
        try:
            read(path).cells  # noqa: B018  (what is used of it)
        # A file that is no notebook makes nbformat raise almost anything.
        except Exception as error:
            parser.error(
                f"{path} is no notebook ({(str(error) or repr(error)).splitlines()[0]:.150})"
            )
    if arguments.command == "show":
        print(setup_cell().source)
    elif arguments.command in ("cells", "address"):
        if arguments.command == "address":
            write_address()
        for path in arguments.chapters:
            notebook = read(path)
            put_setup_cell(notebook)
            write(notebook, path)
    else:
        failed = False
        os.environ["DISTIL_FIGURES"] = "static"  # figures to drag are alive on the page, not before
        with ThreadPoolExecutor(2) as pool:  # each kernel computes on one thread (Makefile)
            runs = {path: pool.submit(execute, path) for path in arguments.chapters}
            for path, run in runs.items():
                try:
                    print(run.result(), flush=True)
                except (CellExecutionError, CellTimeoutError) as error:
                    failed = True
                    print(f"{path}: not stored. {error}", file=sys.stderr, flush=True)
        sys.exit(failed)


if __name__ == "__main__":
    main()
