"""Real files over the Hub's own protocol, served by a stand-in on this machine.

Skipped where it is not at hand.

The settings of the Hub are read at import, so each test is a small program of its own, started
beside a server.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers import IMPATIENT, Launcher, free_port, shared_hub, signal_at, together

from distil_lib.text import streaming
from distil_lib.training.checkpoint import latest_valid_checkpoint

PRELOAD = Path(__file__).parents[1] / "preload"  # see `helpers.Launcher`

pytestmark = pytest.mark.skipif(
    shared_hub() is None, reason="no stand-in for the Hub at ../shared/hub/serve.py"
)


@contextmanager
def server(log: Path, *options: str) -> Iterator[str]:
    """A server on a free port: its address. `options`: of the server's command line."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", shared_hub(), "--port", "0", *options],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(200):
            if address := re.search(r"http://[\d.]+:\d+", log.read_text()):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(log.read_text())
        yield address[0]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Start a server that lasts until the end of this file."""
    with ExitStack() as started:
        yield lambda *options: started.enter_context(
            server(tmp_path_factory.mktemp("hub") / "log", *options)
        )


@pytest.fixture(scope="module")
def endpoint(serve):
    return serve()


@pytest.fixture
def online(tmp_path):
    """Run a program that reads from the Hub at an address: what it has finished as."""

    def run(endpoint: str, *command, **changes: str) -> subprocess.CompletedProcess:
        environment = (
            os.environ
            | {
                "HF_ENDPOINT": endpoint,
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "home"),
                "DISTIL_CACHE": str(tmp_path / "cache"),
                "PYTHONPATH": os.pathsep.join(map(str, [*Path(__file__).parents[:3], PRELOAD])),
                "OMP_NUM_THREADS": "1",
            }
            | changes
        )
        if command[0] == "-c":
            program = IMPATIENT + SMALL_SAMPLE + textwrap.dedent(command[1])
            command = ("-c", program, *command[2:])
        return subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=280,
        )

    return run


def answer(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# In front of a program's text: twenty blocks are read ahead of a stream to count its words, and as
# many are held out, instead of thousands.
SMALL_SAMPLE = """
from distil_lib.text import blocks
blocks.STREAM_SAMPLE = blocks.STREAM_HELD_OUT = 20
"""


LOAD = """
    import itertools, json, sys
    from distil_lib.text.blocks import load_blocks, split_documents
    from distil_lib.text.tokenizer import load_tokenizer
    from distil_lib.text.documents import load_documents
    tokenizer = load_tokenizer("google-bert/bert-base-uncased")
    result = {"vocabulary": len(tokenizer), "hello": tokenizer("hello world")["input_ids"]}
    for name in ("hub:local/classic-books", "hub:wikimedia/wikipedia:20231101.en"):
        stored = load_documents(name, streaming=False)
        (streamed,) = load_documents(name, streaming=True).parts
        result[name] = {
            "documents": len(stored), "columns": sorted(stored.column_names),
            "first": [stored[i]["text"] for i in range(3)],
            "first streamed": [d["text"] for d in itertools.islice(streamed, 3)],
            "names": [d["name"] for d in itertools.islice(streamed, 3)],
        }
    print(json.dumps(result))
"""


def test_corpora_load_stored_and_streamed_and_so_does_berts_tokenizer(endpoint, online):
    """Oracle: the Parquet files that are served, read by pandas; and the ids of BERT's published
    vocabulary.
    """
    import pandas

    found = answer(online(endpoint, "-c", LOAD))
    assert found["vocabulary"] == 30522 and found["hello"] == [101, 7592, 2088, 102]
    for name, folder in (
        ("local/classic-books", "plain_text"),
        ("wikimedia/wikipedia:20231101.en", "20231101.en"),
    ):
        files = sorted(
            (shared_hub().parent / "datasets" / name.split(":")[0] / folder).glob("train-*.parquet")
        )
        rows = pandas.concat(pandas.read_parquet(f, columns=["text"]) for f in files)["text"]
        got = found[f"hub:{name}"]
        assert got["columns"] == ["name", "text"] and 0 < got["documents"] <= len(rows)
        assert got["first streamed"] == rows.head(3).tolist()
        # Stored documents have been deduplicated: each of their paragraphs occurs in the text that
        # was served.
        for mine, theirs in zip(got["first"], rows, strict=False):
            assert all(paragraph in theirs for paragraph in mine.split("\n\n")) and len(
                mine
            ) > 0.5 * len(theirs.strip())
        assert len(set(got["names"])) == 3


STREAM = """
    import itertools, json
    from distil_lib.text import blocks
    from distil_lib.text.tokenizer import load_tokenizer
    tokenizer = load_tokenizer("google-bert/bert-base-uncased")
    made = blocks.load_blocks("hub:wikimedia/wikipedia:20231101.en", tokenizer, 128, streaming=True)
    first = [list(map(int, row["input_ids"])) for row in itertools.islice(made.train, 60)]
    print(json.dumps({"streaming": made.streaming, "first": first,
                      "held_out": len(made.held_out), "counted": int(made.counts.sum())}))
"""


def test_a_dropped_connection_changes_nothing(endpoint, serve, online):
    """Every third file is refused: the blocks are those of a connection that holds."""
    steady = answer(online(endpoint, "-c", STREAM))
    assert steady["streaming"] and steady["held_out"] == 20 and steady["counted"] == 20 * 128
    broken = online(serve("--fail-every", "3"), "-c", STREAM)
    assert answer(broken) == steady
    assert "503" in broken.stderr, broken.stderr  # it was dropped indeed


MIXTURE = """
    import itertools, json, os, sys
    from distil_lib.text.blocks import load_blocks
    from distil_lib.text.tokenizer import load_tokenizer
    tokenizer = load_tokenizer(sys.argv[1])
    books = "hub:local/classic-books"
    made = load_blocks(f"{books} + docs:packaging", tokenizer, 128, streaming=False)
    found = {"key": made.cache_key, "hash": made.content_hash, "blocks": len(made.train)}
    if os.environ["HF_HUB_OFFLINE"] == "0":
        from datasets import concatenate_datasets, load_dataset
        from distil_lib.text.blocks import documents_to_blocks, hash_blocks, split_documents
        from distil_lib.text.deduplication import deduplicate
        from distil_lib.text.documentation import installed_documentation
        from distil_lib.text.hub_datasets import name_by_text
        rows = load_dataset("local/classic-books", split="train").select_columns("text")
        rows = rows.map(name_by_text, input_columns="text")
        docs = installed_documentation(("packaging",)).select_columns(["text", "name"])
        both = split_documents(deduplicate(concatenate_datasets([rows, docs])))
        parts = [documents_to_blocks(part, tokenizer, 128) for part in both]
        found["oracle"] = hash_blocks(dict(zip(("train", "held_out"), parts)))
        streamed = load_blocks(f"3 {books} + 1 docs:packaging", tokenizer, 128, streaming=True)
        found["streamed"] = len(list(itertools.islice(streamed.train, 40)))
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_mixture_is_packed_once_and_usable_offline(endpoint, online, tokenizer_folder, tmp_path):
    """Oracle: `datasets.load_dataset`, joined with the other part, deduplicated, split, packed."""
    made = answer(online(endpoint, "-c", MIXTURE, tokenizer_folder))
    assert made["hash"] == made["oracle"] and made["streamed"] == 40
    shutil.rmtree(tmp_path / "home")  # nothing but the packed blocks is left
    again = online(endpoint, "-c", MIXTURE, tokenizer_folder, HF_HUB_OFFLINE="1")
    assert answer(again) == {key: made[key] for key in ("key", "hash", "blocks")}
    assert again.stderr.count("The Hub cannot be reached") == 1


EACH = """
    import json, sys
    from distil_lib import pretrain
    for arguments in json.loads(sys.argv[1]):
        try:
            pretrain.main(arguments)
        except SystemExit as end:
            print(end.code)
"""


def test_names_that_do_not_exist(endpoint, online, small_run, tmp_path):
    """One message, exit code 2, nothing half-written."""
    names = {
        "corpus": "hub:no/such-corpus",
        "teacher": "no/such-teacher",
        "tokenizer": "no/such-tokenizer",
    }
    runs = [small_run(tmp_path / "output", **{kind: name}) for kind, name in names.items()]
    done = online(endpoint, "-c", EACH, json.dumps(runs))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.split() == ["2", "2", "2"] and done.stderr.count("what to do: ") == 3
    assert all(name.removeprefix("hub:") in done.stderr for name in names.values())
    assert not (tmp_path / "output").exists()


WHOLE_THEN_KILLED = """
    import json, signal, sys
    from distil_lib import pretrain
    from helpers import signal_at
    whole, killed = json.loads(sys.argv[1])
    pretrain.main(whole)
    signal_at("distil_lib.training.loop.PretrainingRun._optimizer_step", 6, signal.SIGKILL)()
    pretrain.main(killed)
"""


def test_a_student_is_distilled_from_a_streamed_corpus_and_goes_on_after_a_stop(
    endpoint, online, small_run, tmp_path
):
    """The position in the stream is that of the step: resumed to the same bits."""
    settings = {
        "corpus": "hub:wikimedia/wikipedia:20231101.en",
        "streaming": True,
        "max_steps": 8,
        "save_every": 4,
    }
    whole, run = (small_run(tmp_path / name, **settings) for name in ("whole", "run"))
    killed = online(endpoint, "-c", WHOLE_THEN_KILLED, json.dumps([whole, run]))
    assert killed.returncode == -9, killed.stderr
    assert latest_valid_checkpoint(tmp_path / "run" / "checkpoints").name == "step-00000004"
    done = online(endpoint, "-c", EACH, json.dumps([[*run, "--resume"]]))
    assert done.returncode == 0 and "error: " not in done.stderr, done.stderr
    models = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert models[0] == models[1]


class one_file_each:
    """Two files, two shards: one for each of two processes, of which the second may be killed."""

    def __init__(self, kill: bool = False):
        self.kill = kill

    def __call__(self):
        exec(IMPATIENT + SMALL_SAMPLE)
        streaming.FILES_PER_SHARD = 1
        if self.kill and os.environ["RANK"] == "1":
            signal_at(
                "distil_lib.training.loop.PretrainingRun._optimizer_step", 6, signal.SIGKILL
            )()


def three_runs_of_two(folder: Path, port: str, whole: list[str], run: list[str]) -> dict:
    """One on a connection that holds; one on a bad one that is killed, and goes on."""
    program = Launcher(folder)
    with server(folder / "steady", "--port", port):
        finished = {"whole": together(program, whole, one_file_each())}
    with server(folder / "bad", "--port", port, "--fail-every", "3"):
        finished["killed"] = together(program, run, one_file_each(kill=True))
        left = latest_valid_checkpoint(Path(run[run.index("--output") + 1], "checkpoints"))
        state = json.loads((left / "state.json").read_text())
        finished["resumed"] = together(program, [*run, "--resume"], one_file_each())
    return {k: [vars(each) for each in both] for k, both in finished.items()} | {"state": state}


RUNS = """
    import json, sys
    from pathlib import Path
    from test_hub import three_runs_of_two
    print(json.dumps(three_runs_of_two(Path(sys.argv[1]), sys.argv[2], *json.loads(sys.argv[3]))))
"""


def test_two_processes_stream_over_a_bad_connection_are_killed_and_resume_to_the_same_bits(
    online, small_run, tmp_path
):
    """Oracle: two processes that are never stopped, on a connection that holds."""
    settings = {
        "corpus": "hub:wikimedia/wikipedia:20231101.en",
        "streaming": True,
        "max_steps": 8,
        "save_every": 4,
        "batch_size": 5,
    }
    runs = json.dumps([small_run(tmp_path / name, **settings) for name in ("whole", "run")])
    (tmp_path / "programs").mkdir()
    port = str(free_port())
    done = answer(online(f"http://127.0.0.1:{port}", "-c", RUNS, tmp_path / "programs", port, runs))

    def codes(name):
        return [process["code"] for process in done[name]]

    assert codes("whole") == [0, 0] and "2 process(es)" in done["whole"][0]["out"], done["whole"]
    assert codes("killed")[0] > 0 and codes("killed")[1] == -signal.SIGKILL, done["killed"]
    assert codes("resumed") == [0, 0], done["resumed"]
    assert "steps 4 to 8" in done["resumed"][0]["out"], done["resumed"]
    assert "503" in "".join(process["err"] for process in done["resumed"]), done["resumed"]
    positions = done["state"]["extra"]["positions"]
    assert len(positions) == 2 and all(p["number"] + p["read"] > 0 for p in positions.values())
    models = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert models[0] == models[1]
