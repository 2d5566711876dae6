"""A pretrained BERT, RoBERTa or DistilBERT behind the student's interface, loaded safely.

    teacher = load_teacher("data/teacher")                     # or "google-bert/bert-base-uncased"
    output = teacher(input_ids, positions=labels != -100)      # .last_hidden_state, .logits (N, V)

A teacher only answers: no dropout blurs its soft targets, and its weights need no gradients.
"""

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from distil_lib.errors import UserError
from distil_lib.model_folder import FAMILIES, load_masked_lm
from distil_lib.student import Project, StudentOutput, layer_norm_eps, states_at
from distil_lib.vocabulary import fit_vocabulary


class MaskedLM(nn.Module):
    """A `BertForMaskedLM`, or RoBERTa's or DistilBERT's, that projects only where it is asked to.

    Raises:
        UserError: If it is another model.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        if model.config.model_type not in FAMILIES or model.get_output_embeddings() is None:
            remedy = "Use a BERT, RoBERTa or DistilBERT masked language model."
            raise UserError(f"No teacher that is known here is a {type(model).__name__}.", remedy)
        self.model, self.config = cast(Any, model), model.config
        if model.config.model_type == "distilbert":  # `transformers` ignores this setting there
            for module in model.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = layer_norm_eps(self.config)

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
        logits = self.head(states_at(last, positions), project)
        return StudentOutput(last, logits, output.hidden_states)

    def head(self, hidden: Tensor, project: Project | None = None) -> Any:
        """As `Student.head`. All three families: a linear map, GELU, LayerNorm, the projection."""
        model, out = self.model, self.model.get_output_embeddings()
        if self.config.model_type == "bert":
            states = model.cls.predictions.transform(hidden)
        elif self.config.model_type == "roberta":
            states = model.lm_head.layer_norm(F.gelu(model.lm_head.dense(hidden)))
        else:
            states = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
        return out(states) if project is None else project(states, out.weight, out.bias)

    def to_training(self, dropout: float = 0.0, attention: str = "sdpa") -> "MaskedLM":
        """This object in training mode, with weights that learn; arguments as of `new_teacher`."""
        self.model.set_attn_implementation(attention)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"):
            if hasattr(self.config, name):
                setattr(self.config, name, dropout)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        return self.train().requires_grad_(True)

    def save_pretrained(self, folder: str | Path) -> None:
        """As `Student.save_pretrained`."""
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
        dropout: Between 0 and 1, for all of its dropouts.
        attention: "sdpa" (fused) or "eager" (plain matrix products); the numbers are the same.

    Raises:
        UserError: If H cannot be shared among the heads.
    """
    if hidden_size % heads:
        problem = f"A width of {hidden_size} cannot be shared among {heads} heads."
        raise UserError(problem, "Choose a divisor of the width.", setting="heads")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MaskedLM(BertForMaskedLM(config)).to_training(dropout, attention)


def load_teacher(
    name: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype = torch.float32,
    new_head: bool = False,
) -> MaskedLM:
    """A pretrained masked language model, in evaluation mode; safetensors only, no foreign code.

    Args:
        name: A folder, or a name on the Hub.
        tokenizer: If given, it must be the teacher's own (see `fit_vocabulary`).
        dtype: The precision of the weights.
        new_head: As of `load_masked_lm`, for an encoder that is to be pretrained further.

    Raises:
        UserError: For whatever keeps the model from loading, or from being this teacher.
    """
    model = load_masked_lm(name, dtype, FAMILIES, new_head)
    if tokenizer is not None:
        fit_vocabulary(model, tokenizer, name)
    return MaskedLM(model).eval().requires_grad_(False)
