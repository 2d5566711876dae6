"""GLUE's baseline on ELMo, the third system of Tables 1 and 3: a class or a number for a pair.

    config = ElmoConfig(problem_type="regression", num_labels=1)
    model = ElmoForSequenceClassification(config).eval()      # Table 3's: 178 M parameters
    first = character_ids([["A", "cat", "sat", "."]])         # (1, 4, 50)
    second = character_ids([["It", "sits"]])                  # (1, 2, 50)
    model.classify(first, second)                             # (1, 1)

The baseline (Wang et al. 2018, section 4) keeps the encoder fixed. It learns the weights of a mix
of the encoder's three layers, a two-layer LSTM of 1,500 cells in each direction that reads the mix,
and what follows: the maximum over the words, u of the first sentence and v of the second, each read
by itself; and the answer from [u; v; |u - v|; u * v], by one hidden layer of 512, or for a number,
as in STS-B, without one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.modeling_outputs import SequenceClassifierOutput

from distil_lib.elmo.characters import cut_words
from distil_lib.elmo.model import Elmo, ElmoConfig, ElmoPreTrainedModel
from distil_lib.errors import UserError


class ScalarMix(nn.Module):
    """gamma * a mean of the layers, weighted by a softmax (Peters et al. 2018, equation 1)."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights, self.gamma = nn.Parameter(torch.zeros(layers)), nn.Parameter(torch.ones(()))

    def reset_parameters(self) -> None:
        """Start with the plain mean."""
        nn.init.zeros_(self.weights)
        nn.init.ones_(self.gamma)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Layers of (B, T, H) to one."""
        weighted = zip(self.weights.softmax(0), layers, strict=True)
        return self.gamma * sum(weight * layer for weight, layer in weighted)


class ElmoForSequenceClassification(ElmoPreTrainedModel):
    """ELMo below GLUE's baseline: a class or a number for a text or a pair."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        if config.texts not in (1, 2):
            raise UserError(f"texts is {config.texts}.", "A task has 1 text or 2.")
        self.elmo, self.mix = Elmo(config), ScalarMix(config.layers + 1)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.LSTM(
            config.hidden_size,
            config.encoder_size,
            config.encoder_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.encoder_layers > 1 else 0.0,
        )
        size = 2 * config.encoder_size * (4 if config.texts == 2 else 1)
        self.classifier: nn.Module
        outputs = config.num_labels or 1
        if config.problem_type == "regression":
            self.classifier = nn.Linear(size, outputs)
        else:
            self.classifier = nn.Sequential(
                nn.Dropout(config.dropout),
                nn.Linear(size, config.classifier_size),
                nn.Tanh(),
                nn.Dropout(config.dropout),
                nn.Linear(config.classifier_size, outputs),
            )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """`logits` (B, num_labels) for what `ElmoTokenizer` gives.

        Args:
            input_ids: (B, L) characters.
            attention_mask: (B, L), 0 at padding.
            token_type_ids: (B, L), which text a character belongs to; needed for a pair.
        """
        kept = (torch.ones_like(input_ids) if attention_mask is None else attention_mask) > 0
        if self.config.texts == 1:
            texts = [kept]
        elif token_type_ids is None:
            raise ValueError(
                "Of a pair, token_type_ids must tell which characters belong to which text."
            )
        else:
            texts = [kept & (token_type_ids == number) for number in (0, 1)]
        words = [cut_words(input_ids, mask, self.config.max_characters) for mask in texts]
        logits: Any = self.classify(*words)
        return SequenceClassifierOutput(logits=logits)

    def classify(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """(B, num_labels) for character ids (B, T, C) of a text, or of two of any lengths."""
        vectors = u = self.sentence(first)
        if second is not None:
            v = self.sentence(second)
            vectors = torch.cat([u, v, (u - v).abs(), u * v], -1)
        return self.classifier(vectors)

    def sentence(self, character_ids: Tensor) -> Tensor:
        """(B, 2 encoder_size): of the LSTM's outputs the maximum over a text's words."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_encoder):
            layers = self.elmo(character_ids)
        words = (character_ids > 0).any(-1)
        words[:, 0] = True  # a text without words is read as one vector of 0
        states = self.dropout(read(self.encoder, self.dropout(self.mix(layers)), words.sum(1)))
        return states.masked_fill(~words[..., None], -torch.inf).amax(1)


def read(lstm: nn.LSTM, vectors: Tensor, lengths: Tensor) -> Tensor:
    """The outputs (B, T, ...) of an LSTM in both directions, backwards from each last word."""
    if (lengths == vectors.shape[1]).all():
        return lstm(vectors)[0]
    packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=vectors.shape[1])[0]
