"""Models packed for a page, seen from Python.

What the page makes of them is tested in a browser (tests/html/test_fill_mask.py).
"""

import base64
import copy
import json

import numpy as np
import pytest
import torch
from helpers import randomize
from transformers import (
    BertTokenizerFast,
    DistilBertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

from distil_lib.errors import UserError
from distil_lib.export import browser
from distil_lib.export.browser import KINDS, as_packed, fill_blank, load_as_student, pack, quantize
from distil_lib.student import Student
from distil_lib.teacher import load_teacher


@pytest.fixture
def student(tokenizer):
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=18,
        hidden_dim=30,
        n_layers=2,
        n_heads=3,
        max_position_embeddings=20,
    )
    return randomize(Student(config)).eval()


def unpack(source: str, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Another reader of the format: what a page is told, and each tensor as float32."""
    head, _, body = source.partition(f"FILL_MASK_MODELS[{json.dumps(name)}] = ")
    assert (
        head == "globalThis.FILL_MASK_MODELS ??= {};\n"
        and body.endswith(";\n")
        and source.isascii()
    )
    packed = json.loads(body[:-2])
    data, tensors = base64.b64decode(packed.pop("data"), validate=True), {}
    for key, entry in packed["tensors"].items():
        start, shape = entry["start"], (entry["rows"], entry["columns"])
        assert start % 4 == 0  # a Float32Array begins nowhere else
        scales = np.ones((1, 1), np.float32)
        if entry["kind"] == "int8":
            scales = np.frombuffer(data, "<f4", shape[0], start)[:, None]
            start += 4 * shape[0]
        values = np.frombuffer(
            data, "<i1" if entry["kind"] == "int8" else "<f4", shape[0] * shape[1], start
        )
        tensors[key] = scales * values.reshape(shape).astype(np.float32)
    return packed, tensors


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_are_packed(student, tokenizer, kind):
    packed, tensors = unpack(
        pack(student, tokenizer, 'it\'s "me"', kind, positions=12), 'it\'s "me"'
    )
    expected = (as_packed(student) if kind == "int8" else student).state_dict()
    assert expected.keys() == {
        f"distilbert.{k}" if k.startswith(("embeddings", "transformer")) else k for k in tensors
    } | {browser.TIED}
    for key, values in tensors.items():
        theirs = expected.get(key, expected.get(f"distilbert.{key}")).numpy()
        np.testing.assert_array_equal(
            values, np.atleast_2d(theirs[:12] if key == browser.POSITIONS else theirs), err_msg=key
        )
    assert packed["config"] == {
        "layers": 2,
        "heads": 3,
        "width": 18,
        "positions": 12,
        "epsilon": 1e-12,
    }
    assert [tokenizer.vocab[piece] for piece in packed["vocabulary"]] == list(range(len(tokenizer)))


def test_bytes_are_as_near_as_bytes_can_be():
    matrix = np.random.default_rng(0).standard_normal((50, 70)).astype(np.float32) * np.geomspace(
        1e-6, 1e3, 50
    )[:, None].astype(np.float32)
    matrix[7] = 0
    scales, rounded = quantize(matrix)
    assert rounded.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == (50,)
    assert (
        np.abs(rounded).max(axis=1) == np.where(np.arange(50) == 7, 0, 127)
    ).all()  # every row uses all of its range
    steps = np.arange(-127, 128) * scales[:, None]  # (rows, 255): all that a row can hold
    nearest = np.abs(matrix[:, :, None] - steps[:, None, :]).min(axis=2)
    np.testing.assert_allclose(
        np.abs(matrix - scales[:, None] * rounded),
        nearest,
        rtol=0,
        atol=1e-6 * np.abs(matrix).max(),
    )


def test_a_model_as_packed_is_another_model(student):
    before = copy.deepcopy(student.state_dict())
    rounded = as_packed(student)
    assert rounded.vocab_projector.weight is rounded.distilbert.embeddings.word_embeddings.weight
    assert not torch.equal(rounded.vocab_projector.weight, before["vocab_projector.weight"])
    assert all(torch.equal(before[key], tensor) for key, tensor in student.state_dict().items())


def test_a_bert_is_a_student_with_all_of_its_layers(teacher_folder, tokenizer):
    """The same logits as BERT itself; a pipeline of `transformers` finds the same words."""
    teacher, student = load_teacher(teacher_folder), load_as_student(teacher_folder)
    assert isinstance(student, Student) and student.config.n_layers == 4 and not student.training
    ids = torch.tensor([[2, 30, 4, 50, 60, 3]])
    torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-5, atol=1e-5)
    text = "The file [MASK] a name."
    theirs = pipeline("fill-mask", model=teacher.model, tokenizer=tokenizer)(text, top_k=5)
    for model in (teacher, student):
        mine = fill_blank(model, tokenizer, text)
        assert [word for word, _ in mine] == [
            tokenizer.convert_ids_to_tokens(row["token"]) for row in theirs
        ]
        assert [share for _, share in mine] == pytest.approx(
            [row["score"] for row in theirs], rel=1e-4
        )


def test_a_distilbert_is_itself(student, tmp_path):
    student.save_pretrained(tmp_path)
    loaded = load_as_student(tmp_path).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in student.state_dict().items())


# ------------------------------------------------------------------------------ what is refused
def test_what_the_page_cannot_run_is_refused(student, tokenizer):
    untied = Student(DistilBertConfig(**{**student.config.to_dict(), "tie_word_embeddings": False}))
    cased = BertTokenizerFast(vocab=dict(tokenizer.vocab), do_lower_case=False)
    accented = BertTokenizerFast(
        vocab=dict(tokenizer.vocab), do_lower_case=True, strip_accents=False
    )
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["anotherword"])
    for arguments, words in [
        ((student, tokenizer, "x", "int4"), "int4.*int8, float32"),
        ((untied, tokenizer, "x"), "two matrices"),
        ((student, tokenizer, "x", "int8", 21), "8 to 20"),
        ((student, tokenizer, "x", "int8", 7), "8 to 20"),
        ((student, cased, "x"), "uncased"),
        ((student, accented, "x"), "uncased"),
        ((student, larger, "x"), "pieces"),
    ]:
        with pytest.raises(UserError, match=words):
            pack(*arguments)
    for text in ("No blank.", "[MASK] [MASK]"):
        with pytest.raises(UserError, match="exactly once"):
            fill_blank(student, tokenizer, text)


def test_what_cannot_be_loaded_is_named(student, tmp_path):
    student.save_pretrained(tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="torn"):
        load_as_student(tmp_path / "torn")
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        if folder.name == "empty":
            folder.mkdir()
        with pytest.raises(UserError, match=folder.name):
            load_as_student(folder)


def test_a_roberta_reads_by_another_tokenizer(tmp_path, tokenizer):
    """Its layers fit, its vocabulary does not: said when it is packed."""
    sizes = {
        "hidden_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 22,
    }
    RobertaForMaskedLM(RobertaConfig(vocab_size=90, pad_token_id=1, **sizes)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="pieces"):
        pack(load_as_student(tmp_path), tokenizer, "roberta")
