"""ELMo as it is pretrained: two language models with one softmax (Peters et al. 2018, section 3.1).

    model = ElmoForPreTraining(ElmoConfig(classes=8192))
    model(**words.batch(texts))["loss"]               # `words` are `vocabulary.Words`
    perplexities(model, words, texts, batch_size=32)  # (left, right)

From the left the next word is predicted, from the right the one before. Here it is a full softmax
over the most frequent words; all others are one class, and so are the two ends of a text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from distil_lib.elmo.model import Elmo, ElmoConfig, ElmoPreTrainedModel
from distil_lib.elmo.vocabulary import Words
from distil_lib.fused_losses import fused_vocabulary_losses
from distil_lib.losses import IGNORED


class ElmoForPreTraining(ElmoPreTrainedModel):
    """ELMo with its softmax, one for both directions."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.elmo, self.softmax = Elmo(config), nn.Linear(config.projection_size, config.classes)
        self.post_init()

    def forward(self, characters: Tensor, places: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses of both directions.

        Args:
            characters: (U, C) distinct words.
            places: (B, T + 2) which of them stands where, the ends too.
            labels: (B, T + 2) the classes of the words themselves, -100 at padding: each direction
                predicts that of the next word it will read.

        Returns:
            `loss`, the mean of the two directions' mean loss of a word; `sums` (2,) the sums from
            the left and from the right; `words`, how many there are.
        """
        vectors, lengths = self.elmo.characters(characters)[places], (labels != IGNORED).sum(1)
        left, right = self.elmo.bilm(vectors, lengths)[-1].chunk(2, -1)
        words = (lengths - 1).sum()
        # From the right every position has a word before it; those of padding are left out.
        before = labels[:, :-1].where(labels[:, 1:] != IGNORED, IGNORED)
        directions = ((left[:, :-1], labels[:, 1:]), (right[:, 1:], before))
        results = [
            fused_vocabulary_losses(
                states[targets != IGNORED],
                self.softmax.weight,
                self.softmax.bias,
                None,
                targets[targets != IGNORED],
                mlm_weight=0.5 / words.item(),
            )
            for states, targets in directions
        ]
        return {
            "loss": results[0][0] + results[1][0],
            "sums": torch.stack([result[2] for result in results]),
            "words": words,
        }


@torch.no_grad()
def perplexities(
    model: ElmoForPreTraining, words: Words, texts: Sequence[np.ndarray], batch_size: int
) -> tuple[float, float]:
    """From the left and from the right: e to the mean loss over all words, not over batches."""
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for start in range(0, len(texts), batch_size):
        batch = words.batch(texts[start : start + batch_size])
        outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        sums, count = sums + outputs["sums"].cpu(), count + int(outputs["words"])
    left, right = (sums / count).exp().tolist()
    return left, right
