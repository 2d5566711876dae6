"""Whether a tokenizer and a model from outside were made for each other.

    fit_vocabulary(model, tokenizer, "runs/teacher")       # or a `UserError` with the first word

A teacher that reads other ids than it was trained with answers all the same, only wrongly.
"""

import json
import warnings
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from distil_lib.errors import UserError
from distil_lib.model_folder import loading

STRANGERS, OWN_TOKENIZER = "they were not made for each other.", "Pass the teacher's own tokenizer."
PADDED_TO = 128  # the largest multiple to which published models pad their vocabulary


def fit_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | Path
) -> None:
    """Check that a tokenizer is the model's own, and cut off the rows that pad its vocabulary.

    Raises:
        UserError: As `check_tokenizer`, or if the numbers of rows and words do not fit.
    """
    rows, words, own = model.config.vocab_size, len(tokenizer), _own_vocabulary(name)
    check_tokenizer(tokenizer, own, name)
    padding = rows - words
    if padding > 0 and (own is not None or (rows % 8 == 0 and padding < PADDED_TO)):
        model.resize_token_embeddings(words, mean_resizing=False)  # so that nobody predicts them
        message = f"{name} has {rows} rows for {words} words: the last {padding} are left out."
        warnings.warn(message, stacklevel=3)
    check_vocabulary(model.config.vocab_size, tokenizer, str(name))


def check_vocabulary(vocab_size: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `UserError` unless a model has as many rows as the tokenizer has words."""
    if vocab_size != len(tokenizer):
        problem = f"{name} knows {vocab_size} words and the tokenizer {len(tokenizer)}"
        raise UserError(f"{problem}: {STRANGERS}", OWN_TOKENIZER, setting="tokenizer")


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, own: dict[str, int] | None, name: str | Path
) -> None:
    """Check that a tokenizer gives the ids that a model was trained with.

    Args:
        tokenizer: The one to be used.
        own: The model's own vocabulary, word to id, if it is known.
        name: The model, for the message.

    Raises:
        UserError: If two words share an id, [MASK] is no word of its own, or an id stands for
            another word than in the model's vocabulary; the first such id is named.
    """
    words = dict(sorted((id, word) for word, id in tokenizer.get_vocab().items()))
    if list(words) != list(range(len(tokenizer))):
        problem = "Two words of the tokenizer share an id, or an id below its size has no word."
        remedy = "Its vocabulary is damaged: take another copy."
        raise UserError(problem, remedy, setting="tokenizer")
    # `transformers` gives a [MASK] that is missing an id of its own, for which no row was trained.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    inside = backend.get_vocab(with_added_tokens=False) if backend else tokenizer.get_vocab()
    if tokenizer.mask_token not in (own or inside) or (
        tokenizer.mask_token_id == tokenizer.unk_token_id
    ):
        remedy = "Masked language modelling needs one: pass another tokenizer."
        raise UserError("The tokenizer has no word [MASK].", remedy, setting="tokenizer")
    if own is None:
        return
    check_vocabulary(len(own), tokenizer, str(name))
    theirs = {id: word for word, id in own.items()}
    for id, word in words.items():
        if word != (other := theirs.get(id)):
            problem = f"Id {id} is {word!r} in the tokenizer and {other!r} in that of {name}"
            raise UserError(f"{problem}: {STRANGERS}", OWN_TOKENIZER, setting="tokenizer")


def _own_vocabulary(name: str | Path) -> dict[str, int] | None:
    """Word to id, of the tokenizer that lies beside a model; None if there is none."""
    with loading(f"The tokenizer of {name}"):
        for file in ("tokenizer.json", "vocab.txt", "vocab.json"):
            path = cached_file(str(name), file, _raise_exceptions_for_missing_entries=False)
            if path and file == "tokenizer.json":
                return PreTrainedTokenizerFast(tokenizer_file=path).get_vocab()
            if path:
                text = Path(path).read_text(encoding="utf-8")
                lines = {word: id for id, word in enumerate(text.splitlines())}
                return json.loads(text) if file == "vocab.json" else lines
    return None
