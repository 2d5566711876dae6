"""Helpers of the tests: random text, random models, and the training program in processes that can
be killed.
"""

import json
import multiprocessing
import os
import pkgutil
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

NOUNS = (
    "array axis block column error file function index key list "
    "method model name number option path row shape value word"
).split()
VERBS = (
    "accepts adds changes copies counts drops finds holds keeps "
    "makes names needs opens reads returns sorts takes wants"
).split()
ADJECTIVES = (
    "big cold common empty fresh given hidden large late new old open rare short small sorted whole"
).split()


def sentence(chance: random.Random) -> str:
    """The words' frequencies fall like 1 / rank, as in real text."""
    noun, verb, adjective = ([*words] for words in (NOUNS, VERBS, ADJECTIVES))
    pick = lambda words: chance.choices(words, [1 / (rank + 1) for rank in range(len(words))])[0]
    return (
        f"The {pick(adjective)} {pick(noun)} {pick(verb)} "
        f"the {pick(noun)} of a {pick(adjective)} {pick(noun)}."
    )


def random_documents(number: int, seed: int = 0, paragraphs: int = 4) -> list[dict[str, str]]:
    chance = random.Random(seed)
    text = lambda: "\n\n".join(
        " ".join(sentence(chance) for _ in range(4)) for _ in range(paragraphs)
    )
    return [{"name": f"document-{i}", "text": text()} for i in range(number)]


def write_jsonl(path: Path, documents: list[dict]) -> Path:
    path.write_text("".join(json.dumps({"text": d["text"]}) + "\n" for d in documents))
    return path


def randomize(model: nn.Module, seed: int = 0, std: float = 0.3) -> nn.Module:
    """Weights at random, LayerNorms around 1, no bias 0: two models that differ anywhere give
    different numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            p.copy_(centre + std * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


# ---------------------------------------------------------------------------------- what a run left
def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the finished model."""
    return load_file(run / "model" / "model.safetensors")


def newest_weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the newest checkpoint, in the precision that was trained in."""
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def apart(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], but_for: str = "nothing"
) -> float:
    """The largest difference of two sets of weights, relative to its tensor's largest weight."""
    assert a.keys() == b.keys()
    return max(((a[k] - b[k]).abs().max() / b[k].abs().max()).item() for k in a if but_for not in k)


def without_times(rows: list[dict]) -> list[dict]:
    """Rows of `metrics.jsonl` without what no two runs have in common."""
    return [
        {
            k: v
            for k, v in row.items()
            if k not in ("seconds", "tokens_per_second", "mfu", "non_padding_fraction")
        }
        for row in rows
    ]


# ---------------------------------------------------------------------------- the program, launched
@dataclass
class Finished:
    """A program that has ended: `code` is its exit code, or minus the number of the signal that
    killed it.
    """

    code: int
    out: str
    err: str


def _child(
    arguments: list[str],
    environment: dict[str, str],
    prepare: Callable[[], None] | None,
    output: Path,
) -> None:
    for descriptor, stream in ((1, "out"), (2, "err")):
        file = os.open(output / stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.environ.update(environment)
    from distil_lib import pretrain

    if prepare is not None:
        prepare()
    pretrain.main(arguments)


# At import: a process has one server, and a data loader of another test may start it first.
multiprocessing.set_forkserver_preload(["preloaded"])


class Launcher:
    """`program(arguments)` runs `distil_lib.pretrain.main(arguments)` in a new process and returns
    what came of it.

    The processes are forked from a server that has imported everything already, which saves each of
    them seconds. `prepare`: a function to call in the process before the program starts (see
    `signal_at` and `replace`).
    """

    def __init__(self, folder: Path):
        self.folder, self.started = folder, 0
        self.context = multiprocessing.get_context("forkserver")

    def start(
        self, arguments: list[str], prepare=None, **environment: str
    ) -> Callable[[float], Finished]:
        """Start, and return a function that waits for the end."""
        output = self.folder / str(self.started)
        output.mkdir()
        self.started += 1
        process = self.context.Process(
            target=_child, args=(list(map(str, arguments)), environment, prepare, output)
        )
        process.start()

        def wait(timeout: float = 300) -> Finished:
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
                raise TimeoutError(
                    f"still running after {timeout} s: {(output / 'err').read_text()}"
                )
            out, err = (
                (output / s).read_text(errors="replace") if (output / s).exists() else ""
                for s in ("out", "err")
            )
            return Finished(process.exitcode, out, err)

        return wait

    def __call__(self, arguments: list[str], prepare=None, **environment: str) -> Finished:
        return self.start(arguments, prepare, **environment)()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(
    program: Launcher, arguments: list[str], *prepare, world: int = 2, timeout: float = 300
) -> list[Finished]:
    """What `torchrun` does, from processes that have imported everything already.

    `prepare`: one for all, or one for each.
    """
    shared = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
    }
    each = prepare if len(prepare) == world else [*prepare, None][:1] * world
    waits = [
        program.start(arguments, p, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, p in enumerate(each)
    ]
    return [wait(timeout) for wait in waits]


class signal_at:
    """Prepare a program so that it gets a signal in the middle of things: at the `call`-th call of
    the function `where`.
    """

    def __init__(self, where: str, call: int, number: int):
        self.where, self.call, self.number = where, call, number

    def __call__(self) -> None:
        calls = 0
        function = pkgutil.resolve_name(self.where)

        def watched(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == self.call:
                os.kill(os.getpid(), self.number)
            return function(*args, **kwargs)

        replace(self.where, watched)


class double_precision:
    """Prepare a program to train in float64, where differences of rounding do not hide those of
    arithmetic.
    """

    def __call__(self) -> None:
        for name in ("new_model", "load_run_teacher"):
            where = f"distil_lib.training.setup.{name}"
            function = pkgutil.resolve_name(where)
            replace(where, lambda *a, function=function: _double(function(*a)))


def _double(model: nn.Module | None) -> nn.Module | None:
    return None if model is None else model.double()


def replace(where: str, value) -> None:
    owner, _, name = where.rpartition(".")
    setattr(pkgutil.resolve_name(owner), name, value)


def assert_user_error(finished: Finished, *words: str) -> None:
    """One clear message on standard error, exit code 2, no traceback; `words` must occur in it."""
    assert finished.code == 2, (finished.code, finished.err)
    assert "Traceback" not in finished.err
    lines = finished.err.strip().splitlines()
    assert [line.startswith("error: ") for line in lines].count(True) == 1, finished.err
    assert lines[-1].startswith("  what to do: "), finished.err
    for word in words:
        assert word.lower() in finished.err.lower(), (word, finished.err)


# In front of a program's text: it tries again as often as ever, and hardly waits in between.
IMPATIENT = """
import time
time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.02))
"""


def shared_hub() -> Path | None:
    """The stand-in for the Hub, a program that some machines have beside the checkout."""
    server = Path(__file__).resolve().parents[2] / "shared" / "hub" / "serve.py"
    return server if server.is_file() and sys.platform != "win32" else None
