"""Checkpoints that can be exported, and inputs to try them with.

model, head = load_model("data/student")                 # a DistilBertForMaskedLM, "masked-lm"
inputs = model_inputs(model, tokenizer)                  # ("input_ids", "attention_mask")
model(**dummy_inputs(inputs, vocab_size=100, batch=2, length=8))
"""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.model_folder import SAFELY, check_model_folder, check_weights, loading

# Of each head: the end of the architecture's name, the class that loads it, and its outputs.
HEADS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "masked-lm": ("ForMaskedLM", AutoModelForMaskedLM, ("logits",)),
    "classification": (
        "ForSequenceClassification",
        AutoModelForSequenceClassification,
        ("logits",),
    ),
    "question-answering": (
        "ForQuestionAnswering",
        AutoModelForQuestionAnswering,
        ("start_logits", "end_logits"),
    ),
    "features": ("Model", AutoModel, ("last_hidden_state",)),  # a vector of each token
}
FAMILIES = ("bert", "distilbert")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def head_of(config: PreTrainedConfig, name: str) -> str:
    """Which of `HEADS` a checkpoint was saved with. Raises `UserError` if it is none of them."""
    for architecture in config.architectures or ():
        for head, (ending, _, _) in HEADS.items():
            if architecture.endswith(ending):
                return head
    raise UserError(
        f"{name} was saved as {', '.join(config.architectures or ['nothing'])}.",
        f"Choose one of {', '.join(HEADS)}.",
        setting="head",
    )


def load_model(name: str, head: str | None = None) -> tuple[PreTrainedModel, str]:
    """A BERT or DistilBERT in evaluation mode, float32, and the name of its head.

    Args:
        name: a folder or a name on the Hub.
        head: one of `HEADS`; by default that of the checkpoint.

    Raises:
        UserError: for whatever keeps it from loading, for a head that the checkpoint does not have,
            and for weights that are NaN or infinite.
    """
    if head is not None and head not in HEADS:
        raise UserError(f"There is no head {head!r}.", f"Choose one of {', '.join(HEADS)}.", "head")
    where = locate(name)
    family = check_model_folder(where)["model_type"]
    if family not in FAMILIES:
        raise UserError(
            f"{name} is a {family}.", f"What can be exported are {' and '.join(FAMILIES)} models."
        )
    with loading(name):
        config = AutoConfig.from_pretrained(where, **SAFELY)
        head = head or head_of(config, name)
        model, info = HEADS[head][1].from_pretrained(
            where,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # Features are read before the pooler, which a language model does not have.
    missing = sorted(
        key for key in info["missing_keys"] if head != "features" or "pooler." not in key
    )
    if missing:
        raise UserError(
            f"{name} has no head for {head}: {missing[0]} is missing.",
            "Fine-tune it first, or choose the head that it has.",
            setting="head",
        )
    check_weights(name, model, info)
    return model.eval(), head


def outputs_of(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of a model's outputs."""
    name = type(model).__name__
    return next(outputs for ending, _, outputs in HEADS.values() if name.endswith(ending))


def model_inputs(model: PreTrainedModel, tokenizer: Any) -> tuple[str, ...]:
    """What the tokenizer gives and the model takes: BERT has token types, DistilBERT has none."""
    known = INPUTS if model.config.model_type == "bert" else INPUTS[:2]
    return tuple(name for name in known if name in (*tokenizer.model_input_names, *INPUTS[:2]))


def dummy_inputs(
    inputs: tuple[str, ...], vocab_size: int, batch: int, length: int, seed: int = 0
) -> dict[str, Tensor]:
    """Random ids (batch, length).

    The second half of the last text is padding, if there are several; of two types, the second half
    of each text is of the second.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocab_size, (batch, length), generator=generator)
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    types[:, length // 2 :] = 1
    if batch > 1:
        mask[-1, (length + 1) // 2 :] = 0
    every = dict(zip(INPUTS, (ids, mask, types), strict=True))
    return {name: every[name] for name in inputs}
