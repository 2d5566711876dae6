"""A corpus as texts of numbered words, for ELMo's pretraining: what a word looks like, and which class of the softmax it is.

The most frequent words have a class each; all others are one class, and so are the two ends of a text.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from distil_lib.elmo.model import character_ids, ends
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.errors import UserError
from distil_lib.losses import IGNORED
from distil_lib.text.blocks import split_documents
from distil_lib.text.documents import load_documents

PADDING, BEGIN, END, FIRST = range(
    4
)  # numbers of words: none, a text's begin and end, and the first of the words proper
UNKNOWN, EDGE = (
    0,
    1,
)  # classes: all that is rare, and a text's begin or end; then the frequent words


@dataclass
class Words:
    """Documents as numbers of words.

    characters: (N, C) the character ids of each number's word, PADDING's all 0. classes: (N,) its class, IGNORED for PADDING.
    frequency: (classes,) how often each class occurs in the training documents. train, held_out: texts, (T,) each, without their ends.
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


def load_words(corpus: str, vocabulary: int, block_size: int, max_characters: int) -> Words:
    """A corpus (`load_documents`) in texts of at most `block_size` words. Raises `UserError` if it streams, or has too little to give.

    vocabulary: at most so many classes, the one for all that is rare and the one for ends among them.
    """
    documents = load_documents(corpus)
    if not isinstance(documents, datasets.Dataset):
        raise UserError(
            f"{corpus} does not fit on the disk.",
            "Take a corpus that does: its words are counted beforehand.",
        )
    numbers: dict[str, int] = {}
    split, texts = new_tokenizer().words, []
    for part in split_documents(documents):
        rows = (
            np.array(
                [numbers.setdefault(word, FIRST + len(numbers)) for word in split(text)], np.int32
            )
            for text in part["text"]
        )
        texts.append(
            [
                row[start : start + block_size]
                for row in rows
                for start in range(0, len(row), block_size)
            ]
        )
    train, held_out = texts
    if not train or not held_out:
        raise UserError(f"{corpus} has no words to learn from or to hold out.", "Give more text.")
    count = np.bincount(np.concatenate(train), minlength=FIRST + len(numbers))
    frequent = np.argsort(-count[FIRST:], kind="stable")[: vocabulary - EDGE - 1] + FIRST
    frequent = frequent[count[frequent] > 0]
    classes = np.full(len(count), UNKNOWN)
    classes[PADDING], classes[[BEGIN, END]], classes[frequent] = (
        IGNORED,
        EDGE,
        np.arange(len(frequent)) + EDGE + 1,
    )
    count[[BEGIN, END]] = (
        len(train),
        0,
    )  # of its two ends a text's one is predicted in each direction
    frequency = np.bincount(classes[1:], weights=count[1:], minlength=EDGE + 1 + len(frequent))
    proper = character_ids([list(numbers)], max_characters)
    characters = torch.cat(
        [torch.zeros(1, max_characters, dtype=torch.int64), ends(max_characters), *proper]
    ).to(torch.int16)
    return Words(characters, torch.from_numpy(classes), frequency, train, held_out)


class Batches:
    """Texts to what `ElmoForPreTraining` reads: each distinct word of a batch goes through the character encoder once."""

    def __init__(self, words: Words):
        self.words = words

    def __call__(self, texts: Sequence[np.ndarray]) -> dict[str, Tensor]:
        numbers = np.full((len(texts), max(map(len, texts)) + 2), PADDING)
        for row, text in zip(numbers, texts, strict=True):
            row[: len(text) + 2] = [BEGIN, *text, END]
        distinct, places = np.unique(numbers, return_inverse=True)
        places = torch.from_numpy(places.reshape(numbers.shape))
        characters = self.words.characters[torch.from_numpy(distinct)].long()
        return {
            "characters": characters,
            "places": places,
            "labels": self.words.classes[torch.from_numpy(numbers)],
        }


def unigram_perplexity(words: Words, texts: Sequence[np.ndarray]) -> float:
    """Of a model that knows nothing but how often each class occurs (one more than it does, so that none is impossible)."""
    log_p = np.log((words.frequency + 1) / (words.frequency + 1).sum())
    losses = [log_p[words.classes.numpy()[text]].sum() + log_p[EDGE] for text in texts]
    return math.exp(-sum(losses) / sum(len(text) + 1 for text in texts))
