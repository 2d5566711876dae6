"""Texts to time a model with: as long as those of STS-B's development set, or that set itself.

    lengths = stsb_lengths()                # 1,500 pairs: word pieces and words of both sentences
    rows = sample(lengths.sum(axis=1), 100)
    texts = documentation_pairs(load_tokenizer("data/tokenizer"), lengths.iloc[rows])
    measured_lengths(texts, tokenizer)      # as asked for, with few exceptions

Table 3 of Sanh et al. (2019) times a pass over that set. How long a model takes depends on how long
its texts are, and hardly on what they say: a BERT's time on the word pieces, ELMo's on the words,
so both are matched. `data/timing` holds the lengths.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from distil_lib.common.paths import data_folder
from distil_lib.errors import UserError
from distil_lib.masking import random_stream
from distil_lib.tasks.registry import load_task
from distil_lib.text.documentation import installed_documentation

COLUMNS = ("pieces_a", "pieces_b", "words_a", "words_b")
# The library needs them anyway: 19,000 sentences of nearly every length, read in two seconds.
PACKAGES = ("numpy", "pandas")
Pair = tuple[str, str]


def stsb_lengths() -> pd.DataFrame:
    """Of each pair of STS-B's development set, in its order, the lengths of both sentences.

    In word pieces (BERT's, without special tokens) and in words.
    """
    return pd.read_csv(data_folder("timing", "stsb_dev_lengths.csv"))


def words(text: str) -> int:
    """Words and punctuation marks."""
    return len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text))


def pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Word pieces of each text, without special tokens."""
    options = {"add_special_tokens": False, "return_attention_mask": False}
    return [len(ids) for ids in tokenizer(list(texts), **options)["input_ids"]]


def measured_lengths(texts: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """The columns of `stsb_lengths`, of other texts."""
    sides = list(zip(*texts, strict=True))
    columns = [pieces(side, tokenizer) for side in sides] + [
        [words(text) for text in side] for side in sides
    ]
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def sample(sizes: Sequence[float] | pd.Series, number: int) -> np.ndarray:
    """Rows of a sample with the sizes' distribution.

    It takes every k-th of the rows in order of size, beginning in the middle of the first k.

    Args:
        sizes: of all rows.
        number: how many rows are drawn.

    Returns:
        (number,) indices, ascending: the rows stay in their own order.
    """
    if not 1 <= number <= len(sizes):
        raise UserError(
            f"{number} pairs are asked for; there are {len(sizes)}.",
            f"Ask for 1 to {len(sizes)}.",
            setting="pairs",
        )
    by_size = np.argsort(np.asarray(sizes), kind="stable")
    return np.sort(by_size[((np.arange(number) + 0.5) * len(sizes) / number).astype(int)])


def documentation_sentences() -> list[str]:
    """The sentences of installed documentation, each once, sorted."""
    found = {
        sentence
        for text in installed_documentation(PACKAGES, processes=1)["text"]
        for paragraph in text.split("\n\n")
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)
    }
    return sorted(found)


def matched(
    wanted: Sequence[tuple[int, int]], available: Sequence[tuple[int, int]], seed: int = 0
) -> list[int]:
    """For each wanted (pieces, words) a random one of the available texts of these lengths.

    Where there is none, one of the nearest lengths: in pieces first, then in words.
    """
    places: dict[tuple[int, int], list[int]] = {}
    for place, length in enumerate(available):
        places.setdefault(length, []).append(place)
    known, random = np.array(list(places)), random_stream(seed, 0, 0)
    chosen = []
    for length in wanted:
        if length not in places:
            distance = np.abs(known - length)
            length = tuple(known[np.lexsort((distance[:, 1], distance[:, 0]))[0]].tolist())
        chosen.append(places[length][int(random.integers(len(places[length])))])
    return chosen


def documentation_pairs(
    tokenizer: PreTrainedTokenizerBase,
    lengths: pd.DataFrame,
    sentences: Sequence[str] | None = None,
) -> list[Pair]:
    """For each row of `lengths` (see `stsb_lengths`) a pair of sentences that are as long."""
    sentences = documentation_sentences() if sentences is None else sentences
    available = list(zip(pieces(sentences, tokenizer), map(words, sentences), strict=True))
    wanted = [
        (int(row[f"pieces_{side}"]), int(row[f"words_{side}"]))
        for side in "ab"
        for row in lengths.to_dict("records")
    ]
    texts = [sentences[place] for place in matched(wanted, available)]
    return list(zip(texts[: len(lengths)], texts[len(lengths) :], strict=True))


def stsb_pairs(data_dir: str | None = None) -> list[Pair]:
    """STS-B's own development set, from the Hub or a folder (see `tasks.load_task`)."""
    rows = load_task("stsb", data_dir, ["validation"])[1]["validation"]
    return list(zip(rows["text_a"], rows["text_b"], strict=True))
