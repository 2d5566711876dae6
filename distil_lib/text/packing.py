"""Documents to blocks of token ids, packed without padding.

    blocks = list(pack(token_lists, tokenizer, block_size=64))     # (64,) ids: [CLS] 62 words [SEP]

Tokens at the end that fill no block are dropped.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from transformers import PreTrainedTokenizerFast


def tokenize(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The ids of each text.

    A document that speaks of "[MASK]" means the word, not the token: it is split like any other.
    """
    return tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]


class Packer:
    """Joins documents, with [SEP] between two of them, and cuts them into blocks.

    A block has `block_size` ids, [CLS] and [SEP] among them.

    Args:
        tokenizer: has the ids of [CLS] and [SEP].
        block_size: ids in a block.
        rest: ids that fill no block yet.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, block_size: int, rest: Iterable[int] = ()
    ):
        self.first, self.last = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.body = block_size - 2
        self.rest = np.asarray(rest, np.int32)

    def __call__(self, tokens: list[int]) -> list[np.ndarray]:
        """The blocks, (block_size,) int32, that one more document fills."""
        ids = np.concatenate([self.rest, tokens, [self.last]], dtype=np.int32, casting="unsafe")
        full = len(ids) // self.body * self.body
        self.rest = ids[full:]
        return [
            np.concatenate([[self.first], body, [self.last]]).astype(np.int32)
            for body in ids[:full].reshape(-1, self.body)
        ]


def pack(
    token_lists: Iterable[list[int]], tokenizer: PreTrainedTokenizerFast, block_size: int
) -> Iterator[np.ndarray]:
    """Yield blocks of `block_size` ids, dtype int32; the rest that fills no block is dropped."""
    packer = Packer(tokenizer, block_size)
    for tokens in token_lists:
        yield from packer(tokens)
