"""The ONNX file computes what PyTorch does, at sizes that were not traced, for every head."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import randomize
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
)

from distil_lib.export import onnx_model as program
from distil_lib.export.__main__ import main
from distil_lib.export.cls_only import ClsOnlyClassifier
from distil_lib.export.load import HEADS, dummy_inputs
from distil_lib.export.onnx_model import TOLERANCE, export, max_difference, open_onnx

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="the extra `export` is not installed")

MODELS = {
    "bert, words": AutoModelForMaskedLM,
    "bert, classes": AutoModelForSequenceClassification,
    "distilbert, answers": AutoModelForQuestionAnswering,
    "bert, features": AutoModel,
}


@pytest.fixture(scope="module")
def checkpoints(tokenizer, tmp_path_factory):
    """Three tiny models with large random weights, whose outputs are far from 0."""
    few = {"vocab_size": len(tokenizer), "max_position_embeddings": 40}
    bert = BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=3,
        **few,
    )
    small = DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=2, **few)
    models = (
        BertForMaskedLM(bert),
        BertForSequenceClassification(bert),
        DistilBertForQuestionAnswering(small),
    )
    folders = {}
    for name, model in zip(MODELS, models, strict=False):
        folders[name] = tmp_path_factory.mktemp("checkpoints") / "model"
        randomize(model).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    folders["bert, features"] = folders["bert, words"]  # of the same checkpoint
    return folders


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    """Of each its folder, and the int8 folder of the first."""
    where = tmp_path_factory.mktemp("exported")
    for number, (name, folder) in enumerate(checkpoints.items()):
        export(str(folder), where / name, head="features" if "features" in name else None)
        if number == 1:
            export(str(folder), where / "int8", int8=True)
    return where


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_pytorchs_at_any_batch_and_length(name, checkpoints, exported):
    """Oracle: the checkpoint, opened by `transformers` itself."""
    model = MODELS[name].from_pretrained(checkpoints[name]).eval()
    run = open_onnx(exported / name / "model.onnx")
    record = json.loads((exported / name / "export.json").read_text())
    assert ("token_type_ids" in record["inputs"]) == name.startswith("bert") and record[
        "head"
    ] in HEADS
    for batch, length in ((1, 1), (1, 7), (5, 19), (2, 40)):
        given = dummy_inputs(
            tuple(record["inputs"]), model.config.vocab_size, batch, length, seed=batch
        )
        with torch.no_grad():
            expected = model(**given)
        found = run(given)
        assert sorted(found) == sorted(record["outputs"])
        for output, array in found.items():
            scale = max(1.0, expected[output].abs().max().item())
            torch.testing.assert_close(
                torch.from_numpy(array), expected[output], atol=TOLERANCE * scale, rtol=0
            )


def test_padding_changes_nothing_and_token_types_do(exported):
    run = open_onnx(exported / "bert, classes" / "model.onnx")
    given = dummy_inputs(("input_ids", "attention_mask", "token_type_ids"), 100, 1, 10)
    longer = {name: torch.nn.functional.pad(tensor, (0, 6)) for name, tensor in given.items()}
    np.testing.assert_allclose(run(longer)["logits"], run(given)["logits"], atol=1e-4)
    assert (
        np.abs(
            run(given | {"token_type_ids": 0 * given["token_type_ids"]})["logits"]
            - run(given)["logits"]
        ).max()
        > 0.1
    )


def test_int8_is_a_quarter_of_the_size_and_close(exported):
    """Every matrix is stored in bytes; the outputs are those of float32 but for some per cent."""
    import onnx

    model = onnx.load(exported / "int8" / "model_int8.onnx")
    matrices = [t for t in model.graph.initializer if len(t.dims) == 2 and min(t.dims) > 8]
    assert matrices and {t.data_type for t in matrices} <= {
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    }
    weights, quarter = (
        sum(t.ByteSize() for t in onnx.load(f).graph.initializer)
        for f in (exported / "bert, classes" / "model.onnx", exported / "int8" / "model_int8.onnx")
    )
    assert quarter < 0.4 * weights  # with scales and biases, which so small a model has many of
    runs = [
        open_onnx(exported / "bert, classes" / "model.onnx"),
        open_onnx(exported / "int8" / "model_int8.onnx"),
    ]
    given = dummy_inputs(("input_ids", "attention_mask", "token_type_ids"), 100, 64, 20)
    exact, rounded = (run(given)["logits"] for run in runs)
    assert 0 < np.abs(exact - rounded).mean() < 0.1 * exact.std()


def test_its_tokenizer_lies_beside_it(exported, tokenizer):
    again = AutoTokenizer.from_pretrained(exported / "bert, words")
    text = "The file of a big array opens."
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_file_that_computes_something_else_is_not_written(
    checkpoints, tmp_path, monkeypatch, capsys
):
    """The bug that is put in: the queries' weights are a thousandth too large."""
    right = program.to_onnx

    def wrong(model, *rest):
        other = type(model)(model.config).eval()
        other.load_state_dict(
            {
                k: v * (1 + 0.001 * ("layer.0.attention.q_lin" in k))
                for k, v in model.state_dict().items()
            }
        )
        right(other, *rest)

    monkeypatch.setattr(program, "to_onnx", wrong)
    with pytest.raises(SystemExit) as end:
        main(
            ["--model", str(checkpoints["distilbert, answers"]), "--output", str(tmp_path / "out")]
        )
    assert (
        end.value.code == 2
        and "away from PyTorch" in capsys.readouterr().err
        and list(tmp_path.iterdir()) == []
    )


def test_cls_only_is_what_is_exported_when_asked_for(checkpoints, tmp_path, monkeypatch, capsys):
    """The planted bug: what attention found in the last layer is forgotten.

    It does harm only where that layer is the short one.
    """

    def forgetful(model):
        quicker = ClsOnlyClassifier(model)
        quicker.output = torch.nn.Sequential(quicker.output, torch.nn.Threshold(1e9, 0.0))
        return quicker

    monkeypatch.setattr(program, "ClsOnlyClassifier", forgetful)
    command = ["--model", str(checkpoints["bert, classes"]), "--output"]
    with pytest.raises(SystemExit) as end:
        main([*command, str(tmp_path / "out"), "--cls_only"])
    assert (
        end.value.code == 2
        and "away from PyTorch" in capsys.readouterr().err
        and list(tmp_path.iterdir()) == []
    )
    main([*command, str(tmp_path / "whole")])
    assert not json.loads((tmp_path / "whole" / "export.json").read_text())["cls_only"]


@pytest.mark.parametrize("place", ["first output", "last output"])
def test_nan_in_a_file_is_found(place, checkpoints):
    """`max(0.0, nan)` is 0.0, and `max(nan, 0.0)` is NaN: neither order may hide it."""
    model, head = program.load_model(str(checkpoints["bert, words"]))
    calls = []

    def run(given):
        calls.append(1)
        with torch.no_grad():
            logits = model(**given).logits.numpy().copy()
        if len(calls) == (1 if place == "first output" else 2):
            logits[0, 0, 0] = np.nan
        return {"logits": logits}

    inputs = ("input_ids", "attention_mask")
    assert np.isnan(max_difference(run, model, inputs, ("logits",))[0]) and head == "masked-lm"


@pytest.mark.parametrize("int8", [False, True])
def test_a_file_that_answers_nan_is_not_written(int8, checkpoints, tmp_path, monkeypatch):
    """In float32, and where only the quantized file does."""
    opened = program.open_onnx

    def broken(file):
        run = opened(file)
        if int8 and "int8" not in file.name:
            return run
        return lambda given: {name: array * np.nan for name, array in run(given).items()}

    monkeypatch.setattr(program, "open_onnx", broken)
    with pytest.raises(program.UserError, match=r"nan away|answers NaN"):
        export(str(checkpoints["distilbert, answers"]), tmp_path / "out", int8=int8)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_no_numbers_are_refused(checkpoints, tokenizer, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(checkpoints["bert, words"])
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[3, 4] = torch.nan
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(program.UserError, match=r"layer\.1\.output\.dense\.weight .* holds NaN"):
        export(str(tmp_path / "model"), tmp_path / "out")


BLOCKED = """
import pathlib, socket, sys
tried = []
def refuse(*arguments, **options):
    tried.append(arguments)
    raise OSError("no network in this test")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from distil_lib.export.onnx_model import export, open_onnx
export(sys.argv[1], sys.argv[2])
open_onnx(sys.argv[2] + "/model.onnx")
print(tried, sorted(path.name for path in pathlib.Path.home().rglob("deviceid")))
"""


def test_nothing_is_asked_of_the_network(checkpoints, tmp_path):
    """ONNX Runtime reports to its maker, and leaves an identifier in the home folder, if let.

    Its own calls bypass Python, so the identifier, which is written before the first report, is
    the witness; Python's sockets are replaced.
    """
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | home
    command = [sys.executable, "-c", BLOCKED]
    arguments = [str(checkpoints["distilbert, answers"]), str(tmp_path / "out")]
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[] []"  # onnxscript 0.6 prints a line of its own


def test_bad_input_is_one_message_and_leaves_nothing(checkpoints, tmp_path, monkeypatch, capsys):
    model, output = str(checkpoints["bert, words"]), tmp_path / "out"
    (tmp_path / "taken").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text(
        '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'
    )
    (tmp_path / "strange" / "model.safetensors").write_bytes(b"")

    def refused(*said, **changes):
        settings = {"model": model, "output": output} | changes
        with pytest.raises(SystemExit) as end:
            main([word for name, value in settings.items() for word in (f"--{name}", str(value))])
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count("error: ") == 1 and "what to do" in error
        assert all(word in error for word in said), error
        assert not output.exists() and not list(tmp_path.glob(".*"))

    refused("nowhere", model="nowhere")
    refused("'verse'", "masked-lm", head="verse")
    refused("no head for classification", "is missing", head="classification")
    refused("unknown setting 'to'", to="onnx")
    refused("taken exists", output=tmp_path / "taken")
    refused("is a gpt2", model=tmp_path / "strange")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused("onnxruntime is not installed", ".[export]")
