"""What the tests share: a small language, a tokenizer and a teacher of it, and a way to run the
program quickly.

Nothing is read from or written to the user's own caches, and nothing is looked for on the network.
"""

import gc
import os
import tempfile
from pathlib import Path

CACHES = tempfile.TemporaryDirectory(prefix="distil-tests-", ignore_cleanup_errors=True)
# Before any library is imported, because they read their settings at import.
os.environ |= {
    "HF_HOME": f"{CACHES.name}/hf",
    "DISTIL_CACHE": f"{CACHES.name}/distil",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where the server that programs are forked from finds what to import, see `helpers.Launcher`: newer
# Pythons give it this process's path (pyproject.toml), older ones do not.
PRELOAD = str(Path(__file__).parent / "preload")
os.environ["PYTHONPATH"] = os.pathsep.join([PRELOAD, *filter(None, [os.getenv("PYTHONPATH")])])
os.environ.pop("DISTIL_FIGURES", None)  # figures as in a notebook, whatever `make` asked

gc.disable()  # the libraries make a million objects and no garbage; looking for some takes seconds

import hypothesis
import pytest

# A busy machine is no fault of an example: three tests failed beside other work.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: only what the tests make is searched for garbage."""
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val):
    """A long text is no name: before 9.2 pytest takes it whole, 100 MB of it, and no program that
    a test starts gets so long a variable as PYTEST_CURRENT_TEST.
    """
    return f"{val[:20]!a}..." if isinstance(val, str | bytes) and len(val) > 100 else None


@pytest.fixture(scope="session")
def documents() -> list[dict[str, str]]:
    """60 documents of random sentences: no paragraph occurs twice, some words are frequent and some
    are rare.
    """
    from helpers import random_documents

    return random_documents(60)


@pytest.fixture(scope="session")
def corpus(documents, tmp_path_factory):
    """A file with those documents."""
    from helpers import write_jsonl

    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", documents)


@pytest.fixture(scope="session")
def tokenizer(documents):
    """A WordPiece tokenizer of at most 160 pieces, learned from those documents."""
    from distil_lib.text.tokenizer import train_tokenizer

    return train_tokenizer((d["text"] for d in documents), vocab_size=160)


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher_folder(tokenizer, tmp_path_factory):
    """A BERT of 4 layers x 16 with large random weights: its soft targets are far from uniform, so
    errors show.
    """
    import torch
    from helpers import randomize

    from distil_lib.teacher import new_teacher

    torch.manual_seed(1)
    teacher = new_teacher(tokenizer, hidden_size=16, layers=4, heads=2, max_length=32)
    randomize(teacher)
    folder = tmp_path_factory.mktemp("teacher")
    teacher.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_run(corpus, tokenizer_folder, teacher_folder):
    """Arguments of a distillation of about a second: 12 steps of 8 sequences of 16 tokens."""
    settings = {
        "corpus": corpus,
        "tokenizer": tokenizer_folder,
        "teacher": teacher_folder,
        "block_size": 16,
        "batch_size": 8,
        "micro_batch_size": 8,
        "max_steps": 12,
        "log_every": 3,
        "eval_every": 6,
        "eval_blocks": 12,
        "save_every": 4,
        "dropout": 0.0,
        "learning_rate": 0.003,
        "precision": "fp32",
        "threads": 1,
    }

    def arguments(output, **changes) -> list[str]:
        chosen = settings | {"output": output} | changes
        return [
            word
            for name, value in chosen.items()
            if value is not None
            for word in (f"--{name}", str(value))
        ]

    return arguments


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Run `pretrain.main` in a process of its own (see `helpers.Launcher`)."""
    from helpers import Launcher

    return Launcher(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def fresh_accelerator():
    """Accelerate keeps one state for a whole process: forget it before and after a test that makes
    a `PretrainingRun` in this one.
    """
    import signal

    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    def forget():
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    threads, handlers = (
        torch.get_num_threads(),
        {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)},
    )
    forget()
    yield
    forget()
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)
