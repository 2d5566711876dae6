"""Train, load and identify WordPiece tokenizers."""

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from distil_lib.common.cli import Program, Settings, option
from distil_lib.common.files import atomic_write_text, check_writable
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
class TokenizerConfig(Settings):
    """Settings of the command line."""

    corpus: str = option("docs", 'documents: "docs", a path, or "hub:OWNER/NAME[:CONFIG]"')
    vocab_size: Annotated[int, Field(ge=100, le=10**6)] = option(
        8192, "number of word pieces, the five special tokens among them"
    )
    output: str = option("runs/tokenizer", "folder to write")


PROGRAM = Program(
    TokenizerConfig,
    "python -m distil_lib.text.tokenizer",
    "Train a WordPiece tokenizer on a corpus.",
)

TOKENIZER_CARD = """# Tokenizer

{size:,} uncased WordPieces, made by

    python -m distil_lib.text.tokenizer --corpus {corpus} --vocab_size {vocab_size} --output {output}

from {words:,} words of {documents:,} training documents (SHA-256 of their text begins with `{text}`) in {seconds:.0f} seconds, with
`tokenizers` {tokenizers}. Held-out documents were not read. The trainer breaks ties between equally frequent pairs in no fixed
order: another run gives a tokenizer that differs in a few pieces.
"""


def _run(config: TokenizerConfig, arguments: Sequence[str]) -> str:
    check_writable(Path(config.output, "README.md"))
    documents = load_documents(config.corpus)
    train = documents.filter(
        lambda name: split_of(name) == "train", input_columns="name", keep_in_memory=True
    )
    start = time.perf_counter()
    tokenizer = train_tokenizer(train["text"], config.vocab_size)
    card = TOKENIZER_CARD.format(
        size=len(tokenizer),
        words=words(train),
        documents=len(train),
        seconds=time.perf_counter() - start,
        text=hashlib.sha256(json.dumps(train["text"][:]).encode()).hexdigest()[:16],
        tokenizers=version("tokenizers"),
        **asdict(config),
    )
    tokenizer.save_pretrained(config.output)
    atomic_write_text(Path(config.output, "README.md"), card)
    return f"{len(tokenizer)} word pieces in {config.output}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error."""
    PROGRAM.run(_run, arguments)


if __name__ == "__main__":
    main()
