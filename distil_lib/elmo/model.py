"""ELMo's encoder: a reader of characters below two language models (Peters et al. 2018).

    model = Elmo(ElmoConfig()).eval()                         # 93.7 M parameters
    model(character_ids([["A", "cat", "sat", "."]]))          # three layers of (1, 4, 1024)

A word is 50 character ids (`character_ids`); a convolution over each word's characters, two highway
layers and a projection give it a vector of 512 that knows nothing of its neighbours. One LSTM of
two layers reads the sentence forwards, another backwards; a layer has 4,096 cells, projected to
512, and the second adds its input to its output. Three layers (vectors twice, first LSTMs, second
LSTMs) of 2 x 512 come out (sections 3.1 and 4).

Differences from the original: cells and projections are not clipped at 3 (PyTorch's fused LSTM
cannot; the limit was for training), texts start from zero states instead of those of the batch
before, and each LSTM has PyTorch's two biases instead of one: 93,666,400 parameters below the mix,
93,600,864 with one.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from distil_lib.elmo.characters import ends
from distil_lib.errors import UserError


class ElmoConfig(PreTrainedConfig):
    """Sizes; the defaults are the original's, with GLUE's baseline on top.

    `filters` are the convolution's, for widths 1, 2, ...; `encoder_size` and `encoder_layers` the
    baseline's LSTM, cells for each direction; `classifier_size` its hidden layer; `texts` how many
    a task has, 1 or 2; `dropout` that within the baseline; `classes` those of the softmax that the
    language models are pretrained with (`elmo.pretrain`).
    """

    model_type = "elmo"

    vocab_size: int = 262  # characters
    max_characters: int = 50
    character_size: int = 16
    filters: list[int] | tuple[int, ...] = (32, 32, 64, 128, 256, 512, 1024)
    highways: int = 2
    cell_size: int = 4096
    projection_size: int = 512
    layers: int = 2
    encoder_size: int = 1500
    encoder_layers: int = 2
    classifier_size: int = 512
    texts: int = 2
    dropout: float = 0.2
    freeze_encoder: bool = True
    classes: int = 0
    pad_token_id: int | None = 0

    def for_task(self, kind: str, texts: int) -> None:
        """Fit the head that a new model gets to a task of `texts` texts.

        Raises:
            UserError: for question answering, which has no head here.
        """
        if kind == "question answering":
            raise UserError(
                "ELMo has no head for question answering here.", "Take a task of GLUE's, or IMDb."
            )
        self.texts = texts  # it reads them one by one

    @property
    def hidden_size(self) -> int:
        """Of a layer's vectors: both directions side by side."""
        return 2 * self.projection_size


# ------------------------------------------------------------------------------------ the encoder
class Highway(nn.Module):
    """Each number is carried over or replaced, by a gate: g * x + (1 - g) * ReLU(W x + b)."""

    def __init__(self, size: int):
        super().__init__()
        self.replacement, self.gate = nn.Linear(size, size), nn.Linear(size, size)

    def reset_parameters(self) -> None:
        """At first most is carried over (Srivastava et al. 2015, section 2.2)."""
        nn.init.ones_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) to (..., size)."""
        gate = torch.sigmoid(self.gate(x))
        return gate * x + (1 - gate) * F.relu(self.replacement(x))


class CharacterEncoder(nn.Module):
    """Words of C characters (..., C) to vectors (..., P), each from its own characters alone."""

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.character_size, padding_idx=0)
        widths = enumerate(config.filters, start=1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.character_size, filters, width) for width, filters in widths
        )
        self.highways = nn.Sequential(
            *(Highway(sum(config.filters)) for _ in range(config.highways))
        )
        self.projection = nn.Linear(sum(config.filters), config.projection_size)

    def forward(self, character_ids: Tensor) -> Tensor:
        """See the class."""
        characters = self.embeddings(character_ids.flatten(0, -2)).transpose(1, 2)  # (words, 16, C)
        # Of each filter the maximum over all windows of a word.
        features = [F.relu(filters(characters).amax(-1)) for filters in self.convolutions]
        vectors = self.projection(self.highways(torch.cat(features, -1)))
        return vectors.view(*character_ids.shape[:-1], -1)


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each text of (B, T, H) backwards; its padding stays behind it."""
    place = torch.arange(x.shape[1], device=x.device)
    source = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)  # (B, T)
    return x.gather(1, source[..., None].expand_as(x))


class BiLM(nn.Module):
    """The two language models' LSTMs: vectors (B, T, P) to layers + 1 outputs (B, T, 2 P).

    The first output is the vectors twice. Neither model sees what the other has read: position t
    knows t and all before it on the left half, and t and all after it on the right.
    """

    def __init__(self, config: ElmoConfig):
        super().__init__()
        if not config.projection_size < config.cell_size:
            raise UserError(
                f"{config.cell_size} cells cannot be projected to {config.projection_size}.",
                "Choose more cells than that.",
                setting="cell_size",
            )

        def layers() -> nn.ModuleList:
            size, cells = config.projection_size, config.cell_size
            return nn.ModuleList(
                nn.LSTM(size, cells, proj_size=size, batch_first=True) for _ in range(config.layers)
            )

        self.forwards, self.backwards = layers(), layers()

    def forward(self, vectors: Tensor, lengths: Tensor) -> list[Tensor]:
        """See the class; lengths (B,) count each text's words."""
        left, right = vectors, reverse(vectors, lengths)
        outputs = [torch.cat([vectors, vectors], -1)]
        for number, lstms in enumerate(zip(self.forwards, self.backwards, strict=True)):
            with warnings.catch_warnings():
                # Only PyTorch's own kernel knows projections, and it is the one that runs.
                warnings.filterwarnings("ignore", "LSTM with projections")
                read_left, read_right = lstms[0](left)[0], lstms[1](right)[0]
            if number > 0:  # from the second layer on, a layer adds its input to its output
                read_left, read_right = left + read_left, right + read_right
            left, right = read_left, read_right
            outputs.append(torch.cat([left, reverse(right, lengths)], -1))
        return outputs


class ElmoPreTrainedModel(PreTrainedModel):
    """Base of all models here: how their weights start."""

    config_class = ElmoConfig
    base_model_prefix = "elmo"

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialization, but for LSTMs with a projection.

        Their states would start a hundred times smaller than what they read.
        """
        if isinstance(module, nn.LSTM) and module.proj_size:
            for name, p in module.named_parameters():
                if name.startswith("weight"):
                    init.normal_(p, std=p.shape[1] ** -0.5)
                else:  # forget gates, the second quarter, start open: 1 in one of the two biases
                    gates = torch.tensor([0.0, float("ih" in name), 0.0, 0.0])
                    init.copy_(p, gates.repeat_interleave(module.hidden_size))
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]


class Elmo(ElmoPreTrainedModel):
    """The encoder: character ids (B, T, C) to layers + 1 outputs (B, T, 2 P), 0 at padding."""

    main_input_name = "character_ids"

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.characters, self.bilm = CharacterEncoder(config), BiLM(config)
        self.post_init()

    def forward(self, character_ids: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        words = (character_ids > 0).any(-1)  # (B, T)
        outputs = self.bilm(self.characters(self.with_ends(character_ids)), words.sum(1) + 2)
        return tuple(layer[:, 1:-1] * words[..., None] for layer in outputs)

    def with_ends(self, character_ids: Tensor) -> Tensor:
        """(B, T + 2, C): each text between the two `ends`."""
        texts = F.pad(character_ids, (0, 0, 1, 1))
        lengths = (character_ids > 0).any(-1).sum(1)
        texts[:, 0], end = ends(texts.shape[-1]).to(texts.device)
        texts[torch.arange(len(texts), device=texts.device), lengths + 1] = end
        return texts
