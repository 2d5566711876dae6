"""A pretrained BERT, RoBERTa or DistilBERT behind the student's interface, loaded safely.

    teacher = load_teacher("data/teacher")                     # or "google-bert/bert-base-uncased"
    output = teacher(input_ids, positions=labels != -100)      # .last_hidden_state, .logits (N, V)

A teacher only answers: it is in evaluation mode, so no dropout blurs its soft targets, and needs no
gradients.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from distil_lib.errors import UserError
from distil_lib.model_folder import check_model_folder as check_model_folder
from distil_lib.model_folder import load_masked_lm, loading
from distil_lib.student import Project, StudentOutput, layer_norm_eps

FAMILIES = ("bert", "roberta", "distilbert")
PADDED_TO = 128  # the largest multiple to which published models pad their vocabulary


class MaskedLM(nn.Module):
    """A masked language model of `transformers` that projects only where it is asked to.

    Args:
        model: A `BertForMaskedLM`, `RobertaForMaskedLM` or `DistilBertForMaskedLM`.

    Raises:
        UserError: If it is another model.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        if model.config.model_type not in FAMILIES or model.get_output_embeddings() is None:
            raise UserError(
                f"A {type(model).__name__} is no teacher that is known here.",
                "Use a BERT, RoBERTa or DistilBERT masked language model.",
            )
        self.model: Any = model
        if model.config.model_type == "distilbert":  # `transformers` ignores this setting there
            for module in model.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = layer_norm_eps(model.config)

    @property
    def config(self) -> Any:
        """The configuration of `transformers`."""
        return self.model.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        output_hidden_states: bool = False,
        project: Project | None = None,
    ) -> StudentOutput:
        """As `Student.forward`."""
        options = {"attention_mask": attention_mask, "output_hidden_states": output_hidden_states}
        output = self.model.base_model(input_ids=input_ids, **options)
        last = output.last_hidden_state
        logits = self.head(last if positions is None else last[positions], project)
        return StudentOutput(last, logits, output.hidden_states)

    def head(self, hidden: Tensor, project: Project | None = None) -> Any:
        """As `Student.head`. All three families: a linear map, GELU, LayerNorm, the projection."""
        model, projector = self.model, self.model.get_output_embeddings()
        if self.config.model_type == "bert":
            states = model.cls.predictions.transform(hidden)
        elif self.config.model_type == "roberta":
            states = model.lm_head.layer_norm(F.gelu(model.lm_head.dense(hidden)))
        else:
            states = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
        if project is None:
            return projector(states)
        return project(states, projector.weight, projector.bias)

    def to_training(self, dropout: float = 0.0, attention: str = "sdpa") -> "MaskedLM":
        """The same model, to be pretrained further.

        Args:
            dropout: Between 0 and 1, for all of its dropouts.
            attention: As for `new_teacher`.

        Returns:
            This object, in training mode, with weights that learn.
        """
        self.model.set_attn_implementation(attention)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"):
            if hasattr(self.config, name):
                setattr(self.config, name, dropout)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        return self.train().requires_grad_(True)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        self.model.save_pretrained(folder)


def new_teacher(
    tokenizer: PreTrainedTokenizerBase,
    hidden_size: int,
    layers: int,
    heads: int,
    max_length: int = 512,
    dropout: float = 0.0,
    attention: str = "sdpa",
) -> MaskedLM:
    """A BERT with random weights, to be pretrained.

    Args:
        tokenizer: Its number of words is the vocabulary's size.
        hidden_size: H; the feed-forward blocks are 4 H wide.
        layers: How many.
        heads: Attention heads; a divisor of H.
        max_length: The most tokens that it can read.
        dropout: Between 0 and 1.
        attention: "sdpa" (fused) or "eager" (plain matrix products); the numbers are the same.

    Raises:
        UserError: If H cannot be shared among the heads.
    """
    if hidden_size % heads:
        raise UserError(
            f"A width of {hidden_size} cannot be shared among {heads} heads.",
            "Choose a divisor of the width.",
            setting="heads",
        )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=attention,
    )
    return MaskedLM(BertForMaskedLM(config))


def load_teacher(
    name: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype = torch.float32,
    new_head: bool = False,
) -> MaskedLM:
    """A pretrained masked language model, in evaluation mode; safetensors only, no foreign code.

    Args:
        name: A folder, or a name on the Hub.
        tokenizer: Compared with the teacher's own. Rows of the vocabulary beyond its words, with
            which some models are padded, are cut off, so that nobody can predict them.
        dtype: The precision of the weights.
        new_head: For pretraining on from an encoder: one without a head for masked language
            modelling gets a random one, tied to its word embeddings. A head that is there is kept.

    Raises:
        UserError: For whatever keeps the model from loading, or from being this teacher.
    """
    model: Any = load_masked_lm(name, dtype, FAMILIES, new_head)
    if tokenizer is not None:
        rows, words = model.config.vocab_size, len(tokenizer)
        own = _own_vocabulary(name)
        check_tokenizer(tokenizer, own, name)
        padding = rows - words
        padded = padding > 0 and (own is not None or (rows % 8 == 0 and padding < PADDED_TO))
        if padded:
            model.resize_token_embeddings(words, mean_resizing=False)
            warnings.warn(
                f"{name} has {rows} rows for {words} words: the last {padding} are left out.",
                stacklevel=2,
            )
        check_vocabulary(model.config.vocab_size, tokenizer, str(name))
    return MaskedLM(model).eval().requires_grad_(False)


def check_vocabulary(vocab_size: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `UserError` unless a model has as many rows as the tokenizer has words."""
    if vocab_size != len(tokenizer):
        raise UserError(
            f"{name} knows {vocab_size} words and the tokenizer {len(tokenizer)}: "
            "they were not made for each other.",
            "Pass the teacher's own tokenizer.",
            setting="tokenizer",
        )


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, own: dict[str, int] | None, name: str | Path
) -> None:
    """Check that a tokenizer gives the ids that a model was trained with.

    Args:
        tokenizer: The one to be used.
        own: The model's own vocabulary, word to id, if it is known.
        name: The model, for the message.

    Raises:
        UserError: If two words share an id, [MASK] is no word of its own, or an id stands for
            another word than in the model's vocabulary; the first such id is named.
    """
    words = dict(sorted((id, word) for word, id in tokenizer.get_vocab().items()))
    if list(words) != list(range(len(tokenizer))):
        raise UserError(
            "Two words of the tokenizer share an id, or an id below its size has no word.",
            "Its vocabulary is damaged: take another copy.",
            setting="tokenizer",
        )
    # `transformers` gives a [MASK] that is missing an id of its own, for which no row was trained.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = own or (
        backend.get_vocab(with_added_tokens=False) if backend else tokenizer.get_vocab()
    )
    if tokenizer.mask_token not in known or tokenizer.mask_token_id == tokenizer.unk_token_id:
        raise UserError(
            "The tokenizer has no word [MASK].",
            "Masked language modelling needs one: pass another tokenizer.",
            setting="tokenizer",
        )
    if own is None:
        return
    check_vocabulary(len(own), tokenizer, str(name))
    theirs = {id: word for word, id in own.items()}
    for id, word in words.items():
        if word != theirs.get(id):
            raise UserError(
                f"Id {id} is {word!r} in the tokenizer and {theirs.get(id)!r} in that of "
                f"{name}: they were not made for each other.",
                "Pass the teacher's own tokenizer.",
                setting="tokenizer",
            )


def _own_vocabulary(name: str | Path) -> dict[str, int] | None:
    """Word to id, of the tokenizer that lies beside a model; None if there is none."""
    with loading(f"The tokenizer of {name}"):
        for file in ("tokenizer.json", "vocab.txt", "vocab.json"):
            path = cached_file(str(name), file, _raise_exceptions_for_missing_entries=False)
            if path is None:
                continue
            if file == "tokenizer.json":
                return PreTrainedTokenizerFast(tokenizer_file=path).get_vocab()
            text = Path(path).read_text(encoding="utf-8")
            if file == "vocab.json":
                return json.loads(text)
            return {word: id for id, word in enumerate(text.splitlines())}
    return None
