"""What the models of a page answer, computed in Python: figures show it until a model is loaded.

logits("teacher", SENTENCE)        # (V,) at the blank, with the weights that the page unpacks
attentions("student", SENTENCE)    # (layers, heads, L, L)
"""

import base64
import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import DistilBertForMaskedLM

from distil_lib.export.browser import as_packed, stored_model
from distil_lib.student import Student

MODELS = ("teacher", "student")
SENTENCE = "If the file does not exist, a [MASK] is raised."


@functools.cache
def page_model(name: str) -> Student:
    """Teacher or student as a page runs it: with weights that were rounded to bytes."""
    return as_packed(stored_model(name)[0])


def input_ids(text: str) -> torch.Tensor:
    """(1, L): the tokens of a text."""
    return stored_model("teacher")[1](text, return_tensors="pt")["input_ids"]


@torch.no_grad()
def logits(name: str, text: str, layers: Sequence[int] | None = None) -> np.ndarray:
    """The score of each word at the blank of a text, (V,).

    Args:
        name: "teacher" or "student".
        text: with one [MASK].
        layers: which of the model's layers run; all by default.
    """
    model = page_model(name)
    if layers is not None:
        model = copy.deepcopy(model)
        stack = model.distilbert.transformer
        stack["layer"] = nn.ModuleList(stack["layer"][i] for i in layers)
    ids = input_ids(text)
    return model(ids, None, ids == stored_model(name)[1].mask_token_id).logits[0].numpy()


@torch.no_grad()
def attentions(name: str, text: str) -> np.ndarray:
    """How much each token takes from each other, (layers, heads, L, L), by `transformers`."""
    model = page_model(name)
    reference = DistilBertForMaskedLM._from_config(model.config, attn_implementation="eager").eval()
    reference.load_state_dict(model.state_dict())
    return torch.cat(reference(input_ids(text), output_attentions=True).attentions).numpy()


def packed(numbers: np.ndarray, kind: str) -> str:
    """Numbers as text, for `Figures.bytes`; `kind` is "u1", rounded to whole ones, or "f4"."""
    numbers = np.rint(numbers) if kind == "u1" else numbers
    return base64.b64encode(numbers.astype(f"<{kind}").tobytes()).decode()


def leading(lists: Sequence[np.ndarray], count: int) -> list[int]:
    """The first places of several lists of scores, from each in turn, until there are so many.

    In the order of the first list.
    """
    orders, found = [np.argsort(-scores, kind="stable") for scores in lists], list[int]()
    for place in range(count):
        for order in orders:
            if len(found) < count and (word := int(order[place])) not in found:
                found.append(word)
    return sorted(found, key=lambda word: -lists[0][word])
