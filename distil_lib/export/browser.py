"""A masked language model as one script file, which a page opens and runs without any library.

    student = load_as_student("data/student")              # or "data/teacher", with all its layers
    source = pack(student, load_tokenizer("data/student"), "student")    # what that file holds
    fill_blank(as_packed(student), tokenizer, "A [MASK] is raised.")     # what the page answers

Section 3 of Sanh et al. (2019), "On device computation", runs DistilBERT on a phone; here it runs
in the reader's own browser. `book/_static/fill_mask.js` opens what is packed here. Matrices become
bytes, each row with a scale of its own; a row is a word's vector or the weights of one output, so a
scale is applied once an output. The page knows one kind of model, the student: a BERT becomes one
by keeping all of its layers (`initialization`), which changes nothing that it computes.
"""

import base64
import copy
import functools
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from distil_lib.common.paths import data_folder, locate
from distil_lib.errors import UserError
from distil_lib.initialization import initialize_student
from distil_lib.model_folder import check_model_folder
from distil_lib.student import Student, layer_norm_eps
from distil_lib.teacher import load_teacher
from distil_lib.text.tokenizer import load_tokenizer

KINDS = ("int8", "float32")
POSITIONS = "embeddings.position_embeddings.weight"
TIED = "vocab_projector.weight"  # the word embeddings once more
UNCASED = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "lowercase": True,
}


def load_as_student(name: str | Path) -> Student:
    """A DistilBERT, or a BERT with all of its layers: in evaluation mode, float32.

    Args:
        name: a folder or a name on the Hub.

    Raises:
        UserError: for any other model, and for what keeps it from loading.
    """
    name = locate(str(name))
    if check_model_folder(name)["model_type"] == "distilbert":
        return Student.from_pretrained(name)
    teacher = load_teacher(name)
    return initialize_student(teacher, layers=range(teacher.config.num_hidden_layers)).eval()


def pack(
    student: Student,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    kind: str = "int8",
    positions: int | None = None,
) -> str:
    """The script that puts a model into `FILL_MASK_MODELS[name]` of a page.

    It holds sizes, vocabulary, and all weights in base64.

    Args:
        student: the model.
        tokenizer: an uncased one of BERT's.
        name: of the model in the page.
        kind: "int8", a quarter of the size, or "float32".
        positions: the most tokens that the page may read; by default all that the model has
            positions for. Give the length that it was trained on, because the positions beyond are
            still random.

    Raises:
        UserError: for what the page cannot run.
    """
    config = student.config
    if kind not in KINDS:
        raise UserError(
            f"Weights cannot be packed as {kind!r}.", f"Choose from {', '.join(KINDS)}."
        )
    if not config.tie_word_embeddings:
        raise UserError(
            "The model reads words in and out by two matrices.",
            "Pass one with tied embeddings: the page has one for both.",
        )
    if positions is not None and not 8 <= positions <= config.max_position_embeddings:
        raise UserError(
            f"A text of {positions} tokens is not possible.",
            f"Choose from 8 to {config.max_position_embeddings}.",
        )
    _check_tokenizer(tokenizer, config.vocab_size)
    tensors, blob = {}, bytearray()
    for key, tensor in student.state_dict().items():
        if key == TIED:
            continue
        key, values = key.removeprefix("distilbert."), tensor.detach().float().cpu().numpy()
        values = values[:positions] if key == POSITIONS else values
        # Vectors are few, and every output depends on each: they stay as they are.
        bytewise = kind == "int8" and values.ndim == 2
        rows, columns = np.atleast_2d(values).shape
        tensors[key] = {
            "kind": "int8" if bytewise else "float32",
            "start": len(blob),
            "rows": rows,
            "columns": columns,
        }
        # Scales first; little-endian, the byte order of every machine with a browser.
        for part in quantize(values) if bytewise else [values]:
            blob += part.astype(part.dtype.newbyteorder("<")).tobytes()
        blob += b"\0" * (-len(blob) % 4)  # a Float32Array begins at a multiple of 4
    packed = {
        "config": {
            "layers": config.n_layers,
            "heads": config.n_heads,
            "width": config.dim,
            "positions": tensors[POSITIONS]["rows"],
            "epsilon": layer_norm_eps(config),
        },
        "vocabulary": tokenizer.convert_ids_to_tokens([*range(config.vocab_size)]),
        "tensors": tensors,
        "data": base64.b64encode(blob).decode(),
    }
    head = "globalThis.FILL_MASK_MODELS ??= {};\n"
    return f"{head}FILL_MASK_MODELS[{json.dumps(name)}] = {json.dumps(packed)};\n"


@functools.cache
def stored_model(name: str) -> tuple[Student, PreTrainedTokenizerFast, str]:
    """The model in `data/<name>`, its tokenizer, and the script that it is packed into."""
    folder = data_folder(name)
    logging.disable_progress_bar()  # the build is quiet
    model, tokenizer = load_as_student(folder), load_tokenizer(folder)
    # It has been trained on blocks of that length; its positions beyond are still random.
    trained = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["block_size"]
    return model, tokenizer, pack(model, tokenizer, name, positions=trained)


def quantize(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to bytes: (n, m) weights to scales (n,) and bytes (n, m), float32 and int8.

    `scale * byte` is within half a scale of the weight.
    A row's largest weight becomes 127 or -127; no zero point, because weights lie about evenly
    around zero.
    """
    scales = (np.abs(matrix).max(axis=1) / 127).astype(np.float32)
    scales[scales == 0] = 1  # a row of zeros stays one
    return scales, np.rint(matrix / scales[:, None]).astype(np.int8)


def as_packed(student: Student) -> Student:
    """A copy whose matrices are what the page makes of the packed bytes."""
    student = copy.deepcopy(student)
    with torch.no_grad():
        for matrix in student.parameters():  # a tied matrix comes once
            if matrix.ndim == 2:
                scales, rounded = quantize(matrix.numpy())
                matrix.copy_(torch.from_numpy(scales[:, None] * rounded))
    return student


@torch.no_grad()
def fill_blank(
    model: Student, tokenizer: PreTrainedTokenizerFast, text: str, count: int = 5
) -> list[tuple[str, float]]:
    """The likeliest words for the one [MASK] of a text, each with its probability, best first.

    Args:
        model: a `Student` or a `teacher.MaskedLM`.
        tokenizer: its tokenizer.
        text: with one [MASK].
        count: how many words.
    """
    input_ids = tokenizer(text, return_tensors="pt")["input_ids"]
    blank = input_ids == tokenizer.mask_token_id
    if (blanks := int(blank.sum())) != 1:
        raise UserError(
            f"The text has {blanks} blanks: {text!r}.",
            f"Write {tokenizer.mask_token} exactly once.",
        )
    probabilities, ids = model(input_ids, None, blank).logits[0].softmax(-1).topk(count)
    return list(
        zip(tokenizer.convert_ids_to_tokens(ids.tolist()), probabilities.tolist(), strict=True)
    )


def _check_tokenizer(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
    steps = json.loads(tokenizer.backend_tokenizer.to_str())
    normalizer = steps["normalizer"] or {}
    uncased = (
        all(normalizer.get(k) == v for k, v in UNCASED.items())
        and normalizer.get("strip_accents") is not False
    )
    if steps["model"]["type"] != "WordPiece" or not uncased:
        raise UserError(
            "The page knows only BERT's uncased WordPiece tokenizer.",
            "Pass an uncased BERT or DistilBERT.",
        )
    if len(tokenizer) != vocab_size:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} pieces and the model {vocab_size}.",
            "Pass the tokenizer of this model.",
        )
