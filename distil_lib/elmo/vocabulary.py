"""A corpus as texts of numbered words, for ELMo's pretraining.

Of each word: its characters, and its class of the softmax. The most frequent words have a class
each; all others are one class, and so are the two ends of a text.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from distil_lib.elmo.characters import character_ids, ends
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.errors import UserError
from distil_lib.losses import IGNORED
from distil_lib.text.blocks import split_documents
from distil_lib.text.documents import load_documents

# Numbers of words: none, a text's begin and end, and the first of the words proper.
PADDING, BEGIN, END, FIRST = range(4)
# Classes: all that is rare, and a text's begin or end; then the frequent words.
UNKNOWN, EDGE = 0, 1


@dataclass
class Words:
    """Documents as numbers of words.

    Args:
        characters: (N, C) the character ids of each number's word, PADDING's all 0.
        classes: (N,) its class, IGNORED for PADDING.
        frequency: (classes,) how often each class occurs in the training documents.
        train: training texts, (T,) each, without their ends.
        held_out: the same of the documents that are held out.
    """

    characters: Tensor
    classes: Tensor
    frequency: np.ndarray
    train: list[np.ndarray]
    held_out: list[np.ndarray]

    def fingerprint(self) -> str:
        """16 hex digits of all that is read: which words, in which classes and order."""
        digest = hashlib.sha256(self.characters.numpy().tobytes() + self.classes.numpy().tobytes())
        for text in (*self.train, *self.held_out):
            digest.update(text.tobytes() + b"|")
        return digest.hexdigest()[:16]

    def batch(self, texts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """What `ElmoForPreTraining.forward` takes of some texts.

        Each distinct word of a batch goes through the character encoder once.
        """
        numbers = np.full((len(texts), max(map(len, texts)) + 2), PADDING)
        for row, text in zip(numbers, texts, strict=True):
            row[: len(text) + 2] = [BEGIN, *text, END]
        distinct, places = np.unique(numbers, return_inverse=True)
        return {
            "characters": self.characters[torch.from_numpy(distinct)].long(),
            "places": torch.from_numpy(places.reshape(numbers.shape)),
            "labels": self.classes[torch.from_numpy(numbers)],
        }


def load_words(corpus: str, vocabulary: int, block_size: int, max_characters: int) -> Words:
    """A corpus (`load_documents`) as texts of numbered words.

    Args:
        corpus: as for `load_documents`.
        vocabulary: the most classes, those for rare words and for ends among them.
        block_size: the most words of a text; longer documents become several.
        max_characters: of a word, as in `ElmoConfig`.

    Raises:
        UserError: the corpus streams, or is too small.
    """
    documents = load_documents(corpus)
    if not isinstance(documents, datasets.Dataset):
        raise UserError(
            f"{corpus} does not fit on the disk.",
            "Take a corpus that does: its words are counted beforehand.",
            setting="corpus",
        )
    numbers: dict[str, int] = {}
    split = new_tokenizer().words
    train, held_out = (
        [
            text[start : start + block_size]
            for text in (_numbered(split(text), numbers) for text in part["text"])
            for start in range(0, len(text), block_size)
        ]
        for part in split_documents(documents)
    )
    if not train or not held_out:
        raise UserError(
            f"{corpus} has no words to learn from or to hold out.",
            "Give more text.",
            setting="corpus",
        )
    count = np.bincount(np.concatenate(train), minlength=FIRST + len(numbers))
    frequent = np.argsort(-count[FIRST:], kind="stable")[: vocabulary - EDGE - 1] + FIRST
    frequent = frequent[count[frequent] > 0]
    classes = np.full(len(count), UNKNOWN)
    classes[PADDING], classes[[BEGIN, END]] = IGNORED, EDGE
    classes[frequent] = np.arange(len(frequent)) + EDGE + 1
    # Of a text's two ends one is predicted in each direction.
    count[[BEGIN, END]] = len(train), 0
    frequency = np.bincount(classes[1:], weights=count[1:], minlength=EDGE + 1 + len(frequent))
    proper = character_ids([list(numbers)], max_characters)
    none = torch.zeros(1, max_characters, dtype=torch.int64)
    characters = torch.cat([none, ends(max_characters), *proper]).to(torch.int16)
    return Words(characters, torch.from_numpy(classes), frequency, train, held_out)


def _numbered(words: Sequence[str], numbers: dict[str, int]) -> np.ndarray:
    """The words' numbers; those that are not known yet get the next ones."""
    return np.array(
        [numbers.setdefault(word, FIRST + len(numbers)) for word in words], dtype=np.int32
    )


def unigram_perplexity(words: Words, texts: Sequence[np.ndarray]) -> float:
    """Of a model that knows nothing but how often each class occurs.

    One is added to each count, so that no class is impossible.
    """
    log_p = np.log((words.frequency + 1) / (words.frequency + 1).sum())
    losses = [log_p[words.classes.numpy()[text]].sum() + log_p[EDGE] for text in texts]
    return math.exp(-sum(losses) / sum(len(text) + 1 for text in texts))
