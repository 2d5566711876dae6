"""A classifier that computes what its answer needs: of its last layer, [CLS] alone.

    quicker = ClsOnlyClassifier(model)                  # the same logits (B, classes)
    quicker(input_ids=ids, attention_mask=mask).logits

A BERT or DistilBERT that classifies takes its answer from the first token, [CLS]. In the layers
below, every token's vector is needed, because the layer above attends to it. In the last one every
token still gives a key and a value, but only [CLS] has a query: one row of attention, one vector
through the feed-forward network. Of 12 parts of a last layer's products about 2 remain.
"""

import copy
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from distil_lib.errors import UserError

# Where a layer keeps its parts: query, key, value, output and its LayerNorm; the modules of the
# feed-forward network in order, and its LayerNorm.
PARTS: dict[str, Any] = {
    "bert": (
        *(
            f"attention.{part}"
            for part in ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
        ),
        ("intermediate", "output.dense"),
        "output.LayerNorm",
    ),
    "distilbert": (
        *(f"attention.{part}_lin" for part in ("q", "k", "v", "out")),
        "sa_layer_norm",
        ("ffn",),
        "output_layer_norm",
    ),
}


class ClsOnlyClassifier(nn.Module):
    """Shares its weights with a model, which is not changed. For inference: it has no dropout.

    Args:
        model: with a head for classification. Raises `UserError` for another.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        if not isinstance(
            model, BertForSequenceClassification | DistilBertForSequenceClassification
        ):
            raise UserError(
                f"A {type(model).__name__} takes its answer from more than the first token.",
                "Compute its last layer for all tokens.",
                setting="cls_only",
            )
        self.config, kind = model.config, model.config.model_type
        self.heads = model.config.num_attention_heads
        self.below = copy.copy(model.base_model)
        self.below._modules = model.base_model._modules.copy()
        stack = "encoder" if kind == "bert" else "transformer"
        layers = copy.copy(getattr(model.base_model, stack))
        layers._modules = layers._modules | {"layer": layers.layer[:-1]}
        self.below._modules[stack] = layers
        last = getattr(model.base_model, stack).layer[-1]
        *parts, feed_forward, norm = PARTS[kind]
        self.query, self.key, self.value, self.output, self.norm = (
            attrgetter(part)(last) for part in parts
        )
        self.feed_forward = nn.ModuleList(attrgetter(part)(last) for part in feed_forward)
        self.last_norm = attrgetter(norm)(last)
        # The head. A BERT's pooler takes (B, tokens, H) and looks at the first.
        base: Any = model.base_model
        whole: Any = model
        read = [base.pooler] if kind == "bert" else [nn.Flatten(), whole.pre_classifier, nn.ReLU()]
        self.head = nn.Sequential(*read, model.classifier)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **given: Tensor
    ) -> SequenceClassifierOutput:
        """`logits` for input_ids, attention_mask and, for BERT, token_type_ids: (B, L)."""
        hidden = self.below(
            input_ids=input_ids, attention_mask=attention_mask, **given
        ).last_hidden_state
        first = hidden[:, :1]
        query, key, value = (
            self.split(part) for part in (self.query(first), self.key(hidden), self.value(hidden))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # (B, heads, 1, L)
        scores = scores.masked_fill(
            attention_mask[:, None, None] == 0, torch.finfo(scores.dtype).min
        )
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        first = between = self.norm(self.output(mixed) + first)
        for part in self.feed_forward:
            between = part(between)
        return SequenceClassifierOutput(logits=self.head(self.last_norm(between + first)))

    def split(self, vectors: Tensor) -> Tensor:
        """(B, tokens, H) -> (B, heads, tokens, H / heads)."""
        return vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)
