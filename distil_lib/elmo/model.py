"""ELMo, the third system of Tables 1 and 3, as GLUE's baseline used it: read by characters, by two language models, by a biLSTM.

    model = ElmoForSequenceClassification(ElmoConfig(problem_type="regression", num_labels=1))      # Table 3's: 178 M parameters
    first, second = (character_ids([words]) for words in (["A", "cat", "sat", "."], ["It", "sits"]))   # (1, 4, 50), (1, 2, 50)
    model.eval().classify(first, second)                                                            # (1, 1)

How a pair goes through. A word is 50 character ids (`character_ids`); a convolution over each word's characters, two highway layers
and a projection give it a vector of 512 that knows nothing of its neighbours. One LSTM of two layers reads the sentence forwards,
another backwards; a layer has 4,096 cells, projected to 512, and the second adds its input to its output. Three layers (vectors twice,
first LSTMs, second LSTMs) of 2 x 512 come out (`Elmo`; Peters et al. 2018, sections 3.1 and 4). GLUE's baseline (Wang et al. 2018,
section 4) keeps all that fixed. It learns the weights of a mix of the three, a two-layer LSTM of 1,500 cells in each direction that reads
the mix, and what follows: the maximum over the words, u of the first sentence and v of the second, each read by itself; and the
answer from [u; v; |u - v|; u * v], by one hidden layer of 512, or for a number, as in STS-B, without one.

Where it departs from the original: cells and projections are not clipped at 3 (PyTorch's fused LSTM cannot; the limit was for
training), texts start from zero states instead of those of the batch before, and each LSTM has PyTorch's two biases instead of one:
93,666,400 parameters below the mix, 93,600,864 with one.
"""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from distil_lib.errors import UserError

# Character ids: 0 where there is no word, 1 to 256 the bytes of UTF-8, and five that no byte has.
BEGIN_TEXT, END_TEXT, BEGIN_WORD, END_WORD, NO_CHARACTER = range(257, 262)


class ElmoConfig(PreTrainedConfig):
    """Sizes; `ElmoConfig()` has the original's, with GLUE's baseline on top.

    filters: for widths 1, 2, ... of the convolution how many. encoder_...: of the baseline's LSTM, cells for each direction.
    classifier_size: of the hidden layer. texts: how many a task has, 1 or 2. dropout: within the baseline. freeze_encoder: leave the
    language models as they are. classes: of the softmax that they are pretrained with (`elmo_pretrain`).
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


# --------------------------------------------------------------------------------------------------------- words to character ids
def character_ids(texts: Sequence[Sequence[str]], max_characters: int = 50) -> Tensor:
    """(B, T, max_characters) ids of texts given as words, T the most words of a text and at least 1; rows of 0 where a text has ended.

    A word: BEGIN_WORD, the bytes of its UTF-8 (+ 1; what does not fit is cut off), END_WORD, then NO_CHARACTER up to the end.
    """
    ids = torch.zeros(
        len(texts), max(map(len, texts), default=0) or 1, max_characters, dtype=torch.int64
    )
    for row, words in zip(ids, texts, strict=True):
        for place, word in zip(row, words, strict=False):
            characters = [
                BEGIN_WORD,
                *(byte + 1 for byte in word.encode()[: max_characters - 2]),
                END_WORD,
            ]
            place.fill_(NO_CHARACTER)[: len(characters)] = torch.tensor(characters)
    return ids


def ends(max_characters: int = 50) -> Tensor:
    """(2, max_characters) ids of what stands for a text's begin and end: words of one character that no text has."""
    ids = torch.full((2, max_characters), NO_CHARACTER)
    ids[:, :3] = torch.tensor(
        [[BEGIN_WORD, BEGIN_TEXT, END_WORD], [BEGIN_WORD, END_TEXT, END_WORD]]
    )
    return ids


def cut_words(input_ids: Tensor, kept: Tensor, max_characters: int = 50) -> Tensor:
    """The same (B, T, max_characters) from what `ElmoTokenizer` gives: (B, L) ids, a BEGIN_WORD before each word.

    kept: (B, L) bool, the positions that belong to the text; others are passed over.
    """
    begins = kept & (input_ids == BEGIN_WORD)
    word = begins.cumsum(1) - 1  # (B, L): the number of the word that a character belongs to
    place = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    place = place - torch.where(begins, place, 0).cummax(1).values  # and its place in that word
    row, column = torch.nonzero(kept & (word >= 0) & (place < max_characters - 1), as_tuple=True)
    word, place = word[row, column], place[row, column]
    ids = input_ids.new_zeros(len(input_ids), max(int(begins.sum(1).max()), 1), max_characters)
    ids[row, word, place] = input_ids[row, column]
    length = (ids > 0).sum(-1, keepdim=True)  # of each word, BEGIN_WORD counted
    after = torch.arange(max_characters, device=ids.device) - length
    ending = torch.where(after == 0, END_WORD, NO_CHARACTER)
    return torch.where((after >= 0) & (length > 0), ending, ids)


# ------------------------------------------------------------------------------------------------------------------- the encoder
class Highway(nn.Module):
    """Each number is carried over or replaced, by a gate: g * x + (1 - g) * ReLU(W x + b)."""

    def __init__(self, size: int):
        super().__init__()
        self.replacement, self.gate = nn.Linear(size, size), nn.Linear(size, size)

    def reset_parameters(self) -> None:
        """At first most is carried (Srivastava et al. 2015, section 2.2)."""
        nn.init.ones_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
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
        characters = self.embeddings(character_ids.flatten(0, -2)).transpose(1, 2)  # (words, 16, C)
        features = [
            F.relu(convolution(characters).amax(-1)) for convolution in self.convolutions
        ]  # a maximum over the windows
        vectors = self.projection(self.highways(torch.cat(features, -1)))
        return vectors.view(*character_ids.shape[:-1], -1)


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each text of (B, T, H) backwards, its padding left where it is: what comes last is at the beginning, whatever is behind it."""
    place = torch.arange(x.shape[1], device=x.device)
    source = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)  # (B, T)
    return x.gather(1, source[..., None].expand_as(x))


class BiLM(nn.Module):
    """The two language models' LSTMs: vectors (B, T, P) to layers + 1 outputs (B, T, 2 P), the first of them the vectors twice.

    Neither sees what the other has read: position t knows t and all before it on the left half, and all after it on the right.
    """

    def __init__(self, config: ElmoConfig):
        super().__init__()
        if not config.projection_size < config.cell_size:
            raise UserError(
                f"{config.cell_size} cells cannot be projected to {config.projection_size}.",
                "Choose more cells than that.",
            )
        new = lambda: nn.LSTM(
            config.projection_size,
            config.cell_size,
            proj_size=config.projection_size,
            batch_first=True,
        )
        self.forwards, self.backwards = (
            nn.ModuleList(new() for _ in range(config.layers)) for _ in range(2)
        )

    def forward(self, vectors: Tensor, lengths: Tensor) -> list[Tensor]:
        left, right = vectors, reverse(vectors, lengths)
        outputs = [torch.cat([vectors, vectors], -1)]
        for number, (forwards, backwards) in enumerate(
            zip(self.forwards, self.backwards, strict=True)
        ):
            with (
                warnings.catch_warnings()
            ):  # that only PyTorch's own kernel knows projections: so it is
                warnings.filterwarnings("ignore", "LSTM with projections")
                read_left, read_right = forwards(left)[0], backwards(right)[0]
            left, right = (
                (read_left, read_right) if number == 0 else (left + read_left, right + read_right)
            )
            outputs.append(torch.cat([left, reverse(right, lengths)], -1))
        return outputs


class ElmoPreTrainedModel(PreTrainedModel):
    """What all have in common."""

    config_class = ElmoConfig
    base_model_prefix = "elmo"

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own, but for LSTMs with a projection, whose states would start out a hundred times smaller than what they read."""
        if isinstance(module, nn.LSTM) and module.proj_size:
            for name, p in module.named_parameters():
                if name.startswith("weight"):
                    init.normal_(p, std=p.shape[1] ** -0.5)
                else:  # forget gates, the second quarter, start open: 1 in one of the two biases
                    init.copy_(
                        p,
                        torch.tensor([0.0, float("ih" in name), 0.0, 0.0]).repeat_interleave(
                            module.hidden_size
                        ),
                    )
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()


class Elmo(ElmoPreTrainedModel):
    """The encoder: `character_ids` (B, T, C) to layers + 1 outputs (B, T, 2 P), 0 where there is no word."""

    main_input_name = "character_ids"

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        self.characters, self.bilm = CharacterEncoder(config), BiLM(config)
        self.post_init()

    def forward(self, character_ids: Tensor) -> tuple[Tensor, ...]:
        words = (character_ids > 0).any(-1)  # (B, T)
        outputs = self.bilm(self.characters(self.with_ends(character_ids)), words.sum(1) + 2)
        return tuple(layer[:, 1:-1] * words[..., None] for layer in outputs)

    def with_ends(self, character_ids: Tensor) -> Tensor:
        """(B, T + 2, C): between the two `ends`."""
        texts = F.pad(character_ids, (0, 0, 1, 1))
        texts[:, 0], end = ends(texts.shape[-1]).to(texts.device)
        texts[
            torch.arange(len(texts), device=texts.device), (character_ids > 0).any(-1).sum(1) + 1
        ] = end
        return texts


# ---------------------------------------------------------------------------------------------------------- and GLUE's baseline
class ScalarMix(nn.Module):
    """gamma * the layers' mean, weighted by the softmax of learned numbers (Peters et al. 2018, equation 1)."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights, self.gamma = nn.Parameter(torch.zeros(layers)), nn.Parameter(torch.ones(()))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weights)
        nn.init.ones_(self.gamma)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        return self.gamma * sum(
            weight * layer for weight, layer in zip(self.weights.softmax(0), layers, strict=True)
        )


class ElmoForSequenceClassification(ElmoPreTrainedModel):
    """ELMo below GLUE's baseline: a class or a number for a text or a pair."""

    def __init__(self, config: ElmoConfig):
        super().__init__(config)
        if config.texts not in (1, 2):
            raise UserError(f"texts is {config.texts}.", "A task has 1 text or 2.")
        self.elmo, self.mix, self.dropout = (
            Elmo(config),
            ScalarMix(config.layers + 1),
            nn.Dropout(config.dropout),
        )
        self.encoder = nn.LSTM(
            config.hidden_size,
            config.encoder_size,
            config.encoder_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.encoder_layers > 1 else 0.0,
        )
        size = 2 * config.encoder_size * (4 if config.texts == 2 else 1)
        hidden = [nn.Linear(size, config.classifier_size), nn.Tanh(), nn.Dropout(config.dropout)]
        if config.problem_type == "regression":
            self.classifier = nn.Linear(size, config.num_labels)
        else:
            self.classifier = nn.Sequential(
                nn.Dropout(config.dropout),
                *hidden,
                nn.Linear(config.classifier_size, config.num_labels),
            )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """`logits` (B, num_labels) for what `ElmoTokenizer` gives: ids, 0 at padding, and of which text each is, (B, L) all three.

        Raises `ValueError` if a pair comes without `token_type_ids`.
        """
        kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.config.texts == 1:
            return SequenceClassifierOutput(
                logits=self.classify(cut_words(input_ids, kept > 0, self.config.max_characters))
            )
        if token_type_ids is None:
            raise ValueError(
                "Of a pair, token_type_ids must tell which characters belong to which text."
            )
        texts = (
            cut_words(input_ids, (kept > 0) & (token_type_ids == text), self.config.max_characters)
            for text in (0, 1)
        )
        return SequenceClassifierOutput(logits=self.classify(*texts))

    def classify(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """(B, num_labels) for character ids (B, T, C) of a text, or of two that need not be equally long."""
        vectors = u = self.sentence(first)
        if second is not None:
            v = self.sentence(second)
            vectors = torch.cat([u, v, (u - v).abs(), u * v], -1)
        return self.classifier(vectors)

    def sentence(self, character_ids: Tensor) -> Tensor:
        """(B, 2 encoder_size): of each number of the LSTM's output its maximum over the words of a text."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_encoder):
            layers = self.elmo(character_ids)
        words = (character_ids > 0).any(-1)
        words[:, 0] = True  # a text without words is read as one vector of 0
        states = self.dropout(read(self.encoder, self.dropout(self.mix(layers)), words.sum(1)))
        return states.masked_fill(~words[..., None], -torch.inf).amax(1)


def read(lstm: nn.LSTM, vectors: Tensor, lengths: Tensor) -> Tensor:
    """The outputs (B, T, ...) of an LSTM in both directions, whose way back begins at each text's last word."""
    if (lengths == vectors.shape[1]).all():
        return lstm(vectors)[0]
    packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=vectors.shape[1])[0]
