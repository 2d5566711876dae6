"""Any masked language model of `transformers` behind the student's interface, loaded safely.

    teacher = load_teacher("data/teacher")                     # or "google-bert/bert-base-uncased"
    output = teacher(input_ids, positions=labels != -100)      # .last_hidden_state (B, L, H), .logits (N, V)

A teacher only answers: it is in evaluation mode, so no dropout blurs its soft targets, and needs no gradients.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distil_lib.errors import UserError
from distil_lib.student import StudentOutput


class MaskedLM(nn.Module):
    """A `BertForMaskedLM` or `RobertaForMaskedLM` that computes its vocabulary projection only where it is asked to."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        if not hasattr(model, "cls") and not hasattr(model, "lm_head"):
            raise UserError(
                f"A {type(model).__name__} is no teacher that is known here.",
                "Use a BERT or RoBERTa masked language model.",
            )

    @property
    def config(self):
        return self.model.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        output_hidden_states: bool = False,
        project: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> StudentOutput:
        """As `Student.forward`."""
        encoder = self.model.base_model
        output = encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )
        last = output.last_hidden_state
        return StudentOutput(
            last,
            self.head(last if positions is None else last[positions], project),
            output.hidden_states,
        )

    def head(
        self, hidden: Tensor, project: Callable[[Tensor, Tensor, Tensor], Any] | None = None
    ) -> Any:
        """As `Student.head`."""
        if hasattr(self.model, "cls"):  # BERT's
            head = self.model.cls.predictions
            states = head.transform(hidden)
        else:
            head = self.model.lm_head
            states = head.layer_norm(F.gelu(head.dense(hidden)))
        return (
            head.decoder(states)
            if project is None
            else project(states, head.decoder.weight, head.decoder.bias)
        )

    def to_training(self, dropout: float = 0.0, attention: str = "sdpa") -> "MaskedLM":
        """The same model, to be pretrained further: weights that learn, dropout `dropout`, attention as in `new_teacher`."""
        self.model.set_attn_implementation(attention)
        self.config.hidden_dropout_prob = self.config.attention_probs_dropout_prob = dropout
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        return self.train().requires_grad_(True)

    def save_pretrained(self, folder: str | Path) -> None:
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
    """A BERT with random weights, to be pretrained: `layers` blocks of width `hidden_size`, feed-forward four times as wide.

    attention: "sdpa" (fused) or "eager" (plain matrix products), for `transformers`. The numbers are the same.
    """
    if hidden_size % heads:
        raise UserError(
            f"A width of {hidden_size} cannot be shared among {heads} heads.",
            "Choose a divisor of the width.",
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
) -> MaskedLM:
    """A pretrained masked language model, in evaluation mode, from a folder or the Hub; safetensors only, no foreign code.

    With `tokenizer`, its vocabulary is compared to the model's. Raises `UserError` for whatever keeps the model from loading.
    """
    check_model_folder(name)
    try:
        config = AutoConfig.from_pretrained(str(name), trust_remote_code=False)
        model, info = AutoModelForMaskedLM.from_pretrained(
            str(name),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise UserError(
            f"The weights of {name} are damaged ({error}).", "Copy or download the model again."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"No masked language model could be loaded from {name} ({reason}).",
            "Pass a folder with config.json and model.safetensors, or a name on the Hub together with a network connection.",
        ) from error
    missing = sorted(
        k for k in info["missing_keys"] if "decoder" not in k and "position_ids" not in k
    )
    if missing:
        raise UserError(
            f"The checkpoint {name} lacks {len(missing)} weights, {missing[0]} among them.",
            "Use one with its MLM head.",
        )
    if tokenizer is not None:
        check_vocabulary(model.config.vocab_size, tokenizer, str(name))
    return MaskedLM(model).eval().requires_grad_(False)


def check_vocabulary(vocab_size: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `UserError` unless the tokenizer's ids are rows of the model's embedding matrix, one for one."""
    if vocab_size != len(tokenizer):
        raise UserError(
            f"{name} knows {vocab_size} words and the tokenizer {len(tokenizer)}: they were not made for each other.",
            "Pass the teacher's own tokenizer with --tokenizer.",
        )


def check_model_folder(name: str | Path) -> None:
    """Raise `UserError` for a folder that holds no model, or only a pickled one; anything else is a name on the Hub."""
    folder = Path(name)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{name} is no model: it has no config.json.",
            "Pass a folder that `save_pretrained` has written.",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        found = (
            f"only {pickles}, a pickle, which can run foreign code when it is opened"
            if pickles
            else "no weights"
        )
        raise UserError(
            f"{name} holds {found}.",
            "Save the model again with safetensors (`model.save_pretrained(folder)`).",
        )
