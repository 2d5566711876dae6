"""Every backend computes what eager PyTorch does, is timed as the protocol says, and is scored as
`transformers` itself would score it.
"""

import functools
import importlib.metadata
import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers import ADJECTIVES, randomize
from test_table3 import Clock
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from distil_lib.errors import UserError
from distil_lib.export.load import INPUTS, dummy_inputs
from distil_lib.timing import backend_comparison, backend_latency
from distil_lib.timing.backend_comparison import ROLES, main
from distil_lib.timing.backend_config import BackendComparisonConfig
from distil_lib.timing.backend_differences import difference
from distil_lib.timing.backend_latency import latencies, open_backends, second_call
from distil_lib.timing.backends import (
    BACKENDS,
    EAGER,
    ONNX,
    Unavailable,
    build,
    bytes_on_disk,
    prepare,
)

CLOSE = {
    "fp32": 1e-5,
    "bf16": 0.06,
    "int8": 0.15,
}  # of the outputs' spread; bfloat16 rounds each step to 1 in 256


@pytest.fixture(scope="module")
def checkpoints(tokenizer, tmp_path_factory):
    """A tiny teacher and student that tell negative from positive, at random but decidedly."""
    few = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 40,
        "id2label": {0: "negative", 1: "positive"},
    }
    bert = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, **few
    )
    small = DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=2, **few)
    folders = {}
    for role, model in (
        ("teacher", BertForSequenceClassification(bert)),
        ("student", DistilBertForSequenceClassification(small)),
    ):
        folders[role] = tmp_path_factory.mktemp("checkpoints") / role
        randomize(model, std=0.2).save_pretrained(folders[role])
        tokenizer.save_pretrained(folders[role])
    return folders


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    where = tmp_path_factory.mktemp("prepared")
    return {role: prepare(str(folder), where / role) for role, folder in checkpoints.items()}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_answers_as_the_checkpoint_does(
    backend, role, checkpoints, folders, monkeypatch
):
    """Oracle: the checkpoint opened by `transformers`, in float32. What PyTorch captures is run as
    it is: compiling it takes long.
    """
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    try:
        run = build(backend, folders[role])
    except Unavailable as reason:
        assert not (backend.startswith("onnx") and find_spec("onnxruntime")), (
            f"the lock has all that it needs: {reason}"
        )
        pytest.skip(str(reason))
    model = AutoModelForSequenceClassification.from_pretrained(checkpoints[role]).eval()
    given = dummy_inputs(INPUTS, model.config.vocab_size, 16, 11)
    taken = given if role == "teacher" else {name: given[name] for name in INPUTS[:2]}
    with torch.no_grad():
        expected = model(**taken).logits.numpy()
    found, allowed = (
        run(given)["logits"],
        next(share for precision, share in CLOSE.items() if precision in backend),
    )
    assert found.dtype == np.float32 and np.abs(found - expected).max() <= allowed * expected.std()


def test_what_a_machine_lacks_leaves_its_backend_out(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"C\+\+ compiler"):
        build("compiled fp32", folders["student"])
    bare = tmp_path / "bare"
    shutil.copytree(folders["student"] / "checkpoint", bare / "checkpoint")
    with pytest.raises(Unavailable, match="has not been made"):
        build("onnx int8", bare)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(Unavailable, match=r"onnxruntime is not installed.*pip install"):
            build("onnx int8", bare)
    opened, reasons = open_backends(
        {"student": bare}, [EAGER, "compiled fp32", "onnx fp32"], 1, dummy_inputs(INPUTS, 100, 1, 8)
    )
    assert list(opened) == [("student", EAGER)] and set(reasons) == {"compiled fp32", "onnx fp32"}


def test_without_eager_fp32_nothing_can_be_compared(folders, monkeypatch):
    def fails(backend, *others):
        raise Unavailable("its outputs are NaN or infinite")

    monkeypatch.setattr(backend_latency, "build", fails)
    with pytest.raises(UserError, match=r"eager fp32.*NaN"):
        open_backends({"student": folders["student"]}, [EAGER, "bf16 weights"], 1, {})


def test_bytes_on_disk(folders):
    folder = folders["teacher"]
    weights = sum(
        p.numel()
        for p in AutoModelForSequenceClassification.from_pretrained(
            folder / "checkpoint"
        ).parameters()
    )
    assert 4 * weights < bytes_on_disk(EAGER, folder) < 4 * weights + 20_000  # and the names
    assert bytes_on_disk("bf16 weights", folder) == bytes_on_disk(EAGER, folder) // 2
    if (folder / ONNX).exists():
        assert bytes_on_disk("onnx int8", folder) < bytes_on_disk("onnx fp32", folder)


# --------------------------------------------------------------------------------------------------
# ------------------- the clock
def test_the_second_call_is_timed_and_a_slower_backend_found_slower(monkeypatch):
    clock, calls, pauses = Clock(), {"fast": 0, "slow": 0}, []
    monkeypatch.setattr(
        backend_latency.time, "sleep", lambda seconds: pauses.append((seconds, sum(calls.values())))
    )

    def backend(name, seconds):
        def run(given):
            calls[name] += 1
            clock.work(
                100 if calls[name] == 1 else given["size"] * seconds
            )  # the first call pays for set-up

        return run

    opened = {("student", "fast"): backend("fast", 1), ("student", "slow"): backend("slow", 3)}
    found = latencies(opened, {(1, 8): {"size": 8}, (1, 32): {"size": 32}}, rounds=4, clock=clock)
    assert found[1, 8]["student", "fast"] == [8] * 4 and found[1, 32]["student", "slow"] == [96] * 4
    # Other runtimes' threads fall asleep before each visit, and not between its two calls; each
    # shape begins with a call of each backend.
    assert [seconds for seconds, _ in pauses] == [
        backend_latency.PAUSE
    ] * 16 and backend_latency.PAUSE > 0
    assert [made for _, made in pauses] == [*range(2, 18, 2), *range(20, 36, 2)]
    clock.now, seconds = 0.0, [5, 7]
    assert second_call(lambda given: clock.work(seconds.pop(0)), {}, clock) == 7


def test_difference_by_hand():
    a = {
        "start": [np.array([1.0, 0.0]), np.array([0.0, 2.0])],
        "end": [np.array([3.0, 0.0]), np.array([0.0, 1.0])],
    }
    b = {
        "start": [np.array([1.0, 0.5]), np.array([0.0, 2.0])],
        "end": [np.array([3.0, 0.0]), np.array([1.5, 1.0])],
    }
    assert difference(a, a) == {"largest": 0, "equal": 1} and difference(a, b) == {
        "largest": 1.5,
        "equal": 0.5,
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_no_small_difference(bad):
    """`max(0.0, nan)` is 0.0, and argmax of NaN everywhere is 0: both would look like a success."""
    right = {"logits": [np.array([1.0, 0.0]), np.array([0.0, 2.0])]}
    for wrong in ([1.0, bad], [bad, bad]):
        outputs = {"logits": [right["logits"][0], np.array(wrong)]}
        for pair in ((right, outputs), (outputs, right)):
            with pytest.raises(UserError, match="NaN"):
                difference(*pair)
    with pytest.raises(UserError, match="NaN"):
        difference({"logits": []}, {"logits": []})


def test_a_backend_that_answers_nan_is_left_out(folders, monkeypatch):
    def broken(name, folder, threads, loaded):
        return lambda given: {"logits": np.array([[0.0, np.nan if name == "onnx int8" else 1.0]])}

    monkeypatch.setattr(backend_latency, "build", broken)
    opened, reasons = open_backends({"student": folders["student"]}, [EAGER, "onnx int8"], 1, {})
    assert list(opened) == [("student", EAGER)] and "NaN" in reasons["onnx int8"]


def test_memory_is_what_the_process_has_had():
    before = backend_latency.psutil.Process().memory_info().rss
    block = np.ones(60_000_000, np.uint8)
    del block
    assert backend_latency._peak() - before >= 55_000_000


# --------------------------------------------------------------------------------------------------
# ----------------- the program
@pytest.fixture
def here(monkeypatch):
    """Run what has a process of its own in this one, which has imported everything already."""
    monkeypatch.setattr(
        backend_comparison,
        "in_pinned_process",
        lambda threads, function, *arguments: function(*arguments),
    )


@pytest.fixture
def data(tmp_path):
    chance = np.random.default_rng(0)
    for split in ("train", "dev"):
        texts = [
            f"The {' '.join(chance.choice(ADJECTIVES, 1 + i % 4))} file opens.\t{i % 2}"
            for i in range(30)
        ]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *texts]) + "\n")
    return tmp_path


def test_the_command_scores_each_backend_as_transformers_would(
    checkpoints, data, tokenizer, here, tmp_path, capsys
):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    output = tmp_path / "comparison.json"
    main(
        [
            "--teacher",
            str(checkpoints["teacher"]),
            "--student",
            str(checkpoints["student"]),
            "--task",
            "sst2",
            "--data_dir",
            str(data),
            "--backends",
            "onnx int8",
            "onnx int8, first token",
            "--rounds",
            "3",
            "--batches",
            "1",
            "--lengths",
            "8",
            "--output",
            str(output),
        ]
    )
    record, printed = json.loads(output.read_text()), capsys.readouterr().out
    lines = [line.split("\t") for line in (data / "dev.tsv").read_text().splitlines()[1:]]
    for role, folder in checkpoints.items():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            answers = [
                model(tokenizer(text, return_tensors="pt")["input_ids"]).logits.argmax().item()
                for text, _ in lines
            ]
        right = [answer == int(label) for answer, (_, label) in zip(answers, lines, strict=True)]
        found = record["backends"][role]
        assert found[EAGER]["difference"]["score"] == pytest.approx(100 * np.mean(right))
        assert found[EAGER]["difference"] | {"score": 0} == {
            "metric": "accuracy",
            "score": 0,
            "largest": 0,
            "equal": 1,
            "examples": 30,
        }
        for backend in ("onnx int8", "onnx int8, first token"):
            assert (
                0 < found[backend]["difference"]["largest"] < 1
                and found[backend]["difference"]["equal"] > 0.8
            )
    rows, asked = record["threads"]["1"]["rows"], (EAGER, "onnx int8", "onnx int8, first token")
    assert {(row["role"], row["backend"]) for row in rows} == {
        (role, backend) for role in ROLES for backend in asked
    }
    assert record["machine"]["runtimes"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
    student = next(row for row in rows if (row["role"], row["backend"]) == ("student", "onnx int8"))
    teacher = next(row for row in rows if (row["role"], row["backend"]) == ("teacher", EAGER))
    assert student["speedup"]["median"] == pytest.approx(
        np.median(np.divide(teacher["seconds"], student["seconds"]))
    )
    assert "x teacher at 1 x 8" in printed and printed.count("| onnx int8 |") == 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--backends", "fp8"], "'fp8'"),
        (["--task", "sst2"], "Random weights have learned no task"),
        (["--lengths", "0"], "lengths is ['0']"),
        (["--size", "big"], "size is 'big'"),
        (["--output", __file__], "exists"),
        (["--teacher", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_message(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert (
        end.value.code == 2
        and said in error
        and error.count("error: ") == 1
        and "what to do" in error
    )


@pytest.mark.parametrize(
    "student, words, said",
    [
        ("sound", ["--lengths", "41"], "40 tokens at most"),
        ("mute", ["--lengths", "8"], "has no tokenizer"),
        ("sound", ["--lengths", "8", "--task", "mnli"], "mnli has"),
        ("nowhere", ["--lengths", "8"], "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_model_is_exported(
    student, words, said, checkpoints, tmp_path, monkeypatch, capsys
):
    """An export takes minutes: `prepare` is taken away."""
    monkeypatch.setattr("distil_lib.timing.backend_comparison.prepare", None)
    folder = checkpoints["student"] if student == "sound" else tmp_path / student
    if student == "mute":
        shutil.copytree(checkpoints["student"], folder)
        for path in folder.glob("tokenizer*"):
            path.unlink()
    given = ["--teacher", str(checkpoints["teacher"]), "--student", str(folder), *words]
    with pytest.raises(SystemExit) as end:
        main(given)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_eager_is_always_there_to_be_compared_to():
    assert BackendComparisonConfig(backends=["onnx int8", "bf16 weights"]).backends == [
        EAGER,
        "bf16 weights",
        "onnx int8",
    ]
