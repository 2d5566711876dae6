"""Train, load and identify WordPiece tokenizers."""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertTokenizerFast, HfArgumentParser, PreTrainedTokenizerFast

from distil_lib.common.errors import exit_on_user_error
from distil_lib.errors import UserError
from distil_lib.text.documents import load_documents, split_of, words


def train_tokenizer(texts: Iterable[str], vocab_size: int = 8192) -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer with BERT's five special tokens, learned from `texts`."""
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, show_progress=False)
    return BertTokenizerFast(
        tokenizer_object=trainer._tokenizer, do_lower_case=True, model_max_length=512
    )


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder or a Hub repository; it must have [CLS], [SEP], [MASK] and padding tokens."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"No tokenizer could be loaded from {name} ({str(error).splitlines()[0] if str(error) else type(error).__name__}).",
            "Pass a folder with tokenizer.json, or a name on the Hub together with a network connection.",
        ) from error
    missing = [
        k
        for k in ("cls_token", "sep_token", "mask_token", "pad_token")
        if getattr(tokenizer, k) is None
    ]
    if missing:
        raise UserError(
            f"The tokenizer of {name} has no {', '.join(missing)}.",
            "Masked language modelling needs all of them.",
        )
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of everything that decides which ids a text gets."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


@dataclass
class TokenizerArguments:
    """Train a WordPiece tokenizer on a corpus."""

    corpus: str = field(
        default="docs", metadata={"help": 'documents: "docs", a path, or "hub:OWNER/NAME[:CONFIG]"'}
    )
    vocab_size: int = field(
        default=8192, metadata={"help": "number of word pieces, the five special tokens among them"}
    )
    output: str = field(default="data/tokenizer", metadata={"help": "folder to write"})


TOKENIZER_CARD = """# Tokenizer

{size:,} uncased WordPieces, made by

    python -m distil_lib.text.tokenizer --corpus {corpus} --vocab_size {vocab_size} --output {output}

from {words:,} words of {documents:,} training documents (SHA-256 of their text begins with `{text}`) in {seconds:.0f} seconds, with
`tokenizers` {tokenizers}. Held-out documents were not read. The trainer breaks ties between equally frequent pairs in no fixed
order: another run gives a tokenizer that differs in a few pieces.
"""


def main() -> None:
    (arguments,) = HfArgumentParser(
        TokenizerArguments, description=TokenizerArguments.__doc__
    ).parse_args_into_dataclasses()
    with exit_on_user_error():
        documents = load_documents(arguments.corpus)
        train = documents.filter(
            lambda name: split_of(name) == "train", input_columns="name", keep_in_memory=True
        )
        start = time.perf_counter()
        tokenizer = train_tokenizer(train["text"], arguments.vocab_size)
        tokenizer.save_pretrained(arguments.output)
        card = TOKENIZER_CARD.format(
            size=len(tokenizer),
            words=words(train),
            documents=len(train),
            seconds=time.perf_counter() - start,
            text=hashlib.sha256(json.dumps(train["text"][:]).encode()).hexdigest()[:16],
            tokenizers=version("tokenizers"),
            **vars(arguments),
        )
        Path(arguments.output, "README.md").write_text(card)
        print(f"{len(tokenizer)} word pieces in {arguments.output}")


if __name__ == "__main__":
    main()
