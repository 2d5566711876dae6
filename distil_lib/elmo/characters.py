"""Words as character ids, which is what ELMo reads.

Two ways lead there, and give the same:
    character_ids([["A", "cat"], ["It"]])      # (2, 2, 50): texts, words, characters
    cut_words(input_ids, attention_mask > 0)   # the same from the stream of `ElmoTokenizer`
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# 0 where there is no word, 1 to 256 the bytes of UTF-8, and five that no byte has.
BEGIN_TEXT, END_TEXT, BEGIN_WORD, END_WORD, NO_CHARACTER = range(257, 262)


def character_ids(texts: Sequence[Sequence[str]], max_characters: int = 50) -> Tensor:
    """Character ids of texts that are given as words.

    A word becomes BEGIN_WORD, the bytes of its UTF-8 (+ 1; what does not fit is cut off), END_WORD,
    then NO_CHARACTER up to the end.

    Returns:
        (B, T, max_characters), T the most words of a text and at least 1; rows of 0 where a text
        has ended.
    """
    longest = max(map(len, texts), default=0) or 1
    ids = torch.zeros(len(texts), longest, max_characters, dtype=torch.int64)
    for row, words in zip(ids, texts, strict=True):
        for place, word in zip(row, words, strict=False):
            content = [byte + 1 for byte in word.encode()[: max_characters - 2]]
            characters = torch.tensor([BEGIN_WORD, *content, END_WORD])
            place.fill_(NO_CHARACTER)[: len(characters)] = characters
    return ids


def ends(max_characters: int = 50) -> Tensor:
    """(2, max_characters) ids of a text's begin and end: words of one character of their own."""
    ids = torch.full((2, max_characters), NO_CHARACTER)
    ids[0, :3] = torch.tensor([BEGIN_WORD, BEGIN_TEXT, END_WORD])
    ids[1, :3] = torch.tensor([BEGIN_WORD, END_TEXT, END_WORD])
    return ids


def cut_words(input_ids: Tensor, kept: Tensor, max_characters: int = 50) -> Tensor:
    """What `character_ids` returns, from what `ElmoTokenizer` gives.

    Args:
        input_ids: (B, L), a BEGIN_WORD before each word.
        kept: (B, L) bool, the positions that belong to the text; others are skipped.
        max_characters: of a word.
    """
    begins = kept & (input_ids == BEGIN_WORD)
    # The number of the word that a character belongs to, and its place in that word.
    word = begins.cumsum(1) - 1
    place = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    place = place - torch.where(begins, place, 0).cummax(1).values
    row, column = torch.nonzero(kept & (word >= 0) & (place < max_characters - 1), as_tuple=True)
    word, place = word[row, column], place[row, column]
    ids = input_ids.new_zeros(len(input_ids), max(int(begins.sum(1).max()), 1), max_characters)
    ids[row, word, place] = input_ids[row, column]
    # Then the end of each word and what fills it up; its length counts BEGIN_WORD.
    length = (ids > 0).sum(-1, keepdim=True)
    after = torch.arange(max_characters, device=ids.device) - length
    ending = torch.where(after == 0, END_WORD, NO_CHARACTER)
    return torch.where((after >= 0) & (length > 0), ending, ids)
