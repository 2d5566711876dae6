"""The systems of Table 3 with random weights, and what is timed of them.

system = new_system("distilbert", "data/tokenizer")
system.warm_up(batches, 5)
system.measure(batches)                # {"tokenizer": (N,) seconds, "model": (N,) seconds}
encoder_parameters(new_model("elmo"))  # 177,982,036
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from distil_lib.common.paths import locate
from distil_lib.elmo.classifier import ElmoForSequenceClassification
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.errors import UserError
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.timing.protocol import timed
from distil_lib.timing.sentence_pairs import Pair

# With their names in the paper's table.
SYSTEMS = {"elmo": "ELMo", "bert-base": "BERT-base", "distilbert": "DistilBERT"}
# Of each its model, and the sizes of a try-out.
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "elmo": (
        ElmoForSequenceClassification,
        {
            "filters": (8, 8, 16),
            "character_size": 8,
            "cell_size": 96,
            "projection_size": 32,
            "encoder_size": 48,
        },
    ),
    "bert-base": (
        BertForSequenceClassification,
        {
            "hidden_size": 96,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
        },
    ),
    "distilbert": (
        DistilBertForSequenceClassification,
        {"dim": 96, "n_heads": 4, "hidden_dim": 384, "n_layers": 2},
    ),
}


@dataclass
class System:
    """What is timed: a list of texts to a model's inputs, and those to its answer."""

    prepare: Callable[[Sequence[Pair]], Any]
    run: Callable[[Any], Any]
    parameters: int = 0

    def warm_up(self, batches: Sequence[Sequence[Pair]], number: int) -> None:
        """Run some batches from all over, unmeasured."""
        for batch in batches[:: max(len(batches) // max(number, 1), 1)][:number]:
            self.run(self.prepare(batch))

    def measure(
        self, batches: Sequence[Sequence[Pair]], clock: Callable[[], float] = time.perf_counter
    ) -> dict[str, np.ndarray]:
        """Seconds for each batch, (N,): "tokenizer" and "model"."""
        tokenizer, inputs = timed(self.prepare, batches, clock)
        return {"tokenizer": tokenizer, "model": timed(self.run, inputs, clock)[0]}


def in_batches(texts: Sequence[Pair], size: int) -> list[list[Pair]]:
    """The texts in their order, `size` at a time."""
    return [list(texts[start : start + size]) for start in range(0, len(texts), size)]


def new_model(
    name: str, size: str = "full", seed: int = 0, labels: int | None = None
) -> PreTrainedModel:
    """One of `SYSTEMS` with random weights, in evaluation mode.

    Args:
        name: "elmo", "bert-base" or "distilbert".
        size: "full", or "small": a try-out in seconds.
        seed: of the weights.
        labels: classes of the head; by default it gives STS-B's one number.
    """
    if name not in SYSTEMS:
        raise UserError(f"There is no system {name!r}.", f"Choose from {', '.join(SYSTEMS)}.")
    model_class, sizes = MODELS[name]
    head: dict[str, Any] = {"num_labels": labels}
    if labels is None:
        head = {"num_labels": 1, "problem_type": "regression"}
    torch.manual_seed(seed)
    config = model_class.config_class(**head, **(sizes if size == "small" else {}))
    return model_class(config).eval()


def encoder_parameters(model: nn.Module) -> int:
    """All but the head's, as the paper counts."""
    return sum(p.numel() for name, p in model.named_parameters() if "classifier" not in name)


def new_system(name: str, tokenizer: str, size: str = "full") -> System:
    """A system with random weights.

    Args:
        name: as for `new_model`.
        tokenizer: folder or Hub name, of the two BERTs; ELMo reads characters.
        size: as for `new_model`.
    """
    model = new_model(name, size)
    reader = new_tokenizer() if name == "elmo" else load_tokenizer(locate(tokenizer))
    if name == "distilbert":
        reader.model_input_names = ["input_ids", "attention_mask"]

    def prepare(batch: Sequence[Pair]) -> dict[str, Tensor]:
        return dict(
            reader(
                *map(list, zip(*batch, strict=True)),
                padding="longest" if len(batch) > 1 else False,
                return_tensors="pt",
            )
        )

    @torch.inference_mode()
    def run(inputs: dict[str, Tensor]) -> Tensor:
        return model(**inputs).logits

    return System(prepare, run, encoder_parameters(model))
