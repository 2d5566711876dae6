"""Train, load and identify WordPiece tokenizers."""

import hashlib
import json
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, cast

from datasets import Dataset
from pydantic import Field
from tokenizers import BertWordPieceTokenizer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from distil_lib.common.cli import Program, Settings, option
from distil_lib.common.files import atomic_write_text, check_writable, read_json
from distil_lib.errors import UserError
from distil_lib.model_folder import check_config
from distil_lib.text.documents import load_documents, split_of, words

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# One of these is in every tokenizer's folder.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 8192) -> PreTrainedTokenizerFast:
    """An uncased WordPiece tokenizer with BERT's five special tokens, learned from `texts`."""
    if not len(SPECIAL) < vocab_size <= 1_000_000:
        raise UserError(
            f"A vocabulary of {vocab_size} is not possible.",
            f"Choose from {len(SPECIAL) + 1} to 1,000,000 word pieces.",
            setting="vocab_size",
        )
    corpus = texts if isinstance(texts, Sequence) else list(texts)
    special = [*SPECIAL]
    # Pieces that are equally frequent are joined in the order of their ids, and letters get theirs
    # in the order of a hash table: another one in each process. So the first pass only finds the
    # letters (a vocabulary that is full has no room for more), the second gets them in order.
    for size in (len(SPECIAL), vocab_size):
        trainer = BertWordPieceTokenizer(lowercase=True)
        trainer.train_from_iterator(
            corpus, size, min_frequency=2, special_tokens=special, show_progress=False
        )
        vocabulary = trainer.get_vocab(with_added_tokens=True)
        letters = sorted(vocabulary.keys() - special, key=lambda piece: (len(piece), piece))
        special += letters if size < vocab_size else []
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=512)


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder or a Hub repository.

    Raises:
        UserError: if there is none, or it lacks [CLS], [SEP], [MASK] or padding.
    """
    folder = Path(name)
    # `transformers` would make up a tokenizer of five words.
    if folder.is_dir() and not any(any(folder.glob(name)) for name in VOCABULARIES):
        raise UserError(
            f"{name} has no tokenizer.",
            "Save the model's own beside it: `tokenizer.save_pretrained(folder)`.",
        )
    _check_ids(name, _ids_of_file(folder / "tokenizer.json"))
    settings = Path(name, "config.json")  # of the model beside it, which `transformers` reads, too
    if settings.is_file() and "model_type" in read_json(settings):
        check_config(name, settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), use_fast=True, trust_remote_code=False)
    except ImportError as error:  # fugashi, sentencepiece, ...: the first line names it
        raise UserError(
            f"The tokenizer of {name} needs a package that is missing ({_first_line(error)}).",
            "Install it: pip install PACKAGE.",
        ) from error
    # `tokenizers` raises bare ones, and `transformers` what a bad file happens to cause.
    except Exception as error:
        raise _not_loaded(name, error) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"The tokenizer of {name} ({type(tokenizer).__name__}) has no fast form.",
            "Choose a model that comes with a tokenizer.json.",
        )
    wanted = ("cls_token", "sep_token", "mask_token", "pad_token")
    missing = [kind for kind in wanted if getattr(tokenizer, kind) is None]
    if missing:
        raise UserError(
            f"The tokenizer of {name} has no {', '.join(missing)}.",
            "Masked language modelling needs all of them.",
        )
    vocabulary = tokenizer.get_vocab()
    foreign = [t for kind in wanted if (t := str(getattr(tokenizer, kind))) not in vocabulary]
    if foreign or len({getattr(tokenizer, f"{kind}_id") for kind in wanted}) < len(wanted):
        problem = f"lacks {', '.join(foreign)}" if foreign else "has one id for two special tokens"
        raise UserError(f"The vocabulary of {name} {problem}.", "Give each an id of its own.")
    _check_ids(name, list(vocabulary.values()))  # of one on the Hub, too
    if not isinstance(tokenizer.model_max_length, (int, float)) or tokenizer.model_max_length < 8:
        raise UserError(
            f"The tokenizer of {name} reads {tokenizer.model_max_length} tokens at most.",
            "Set model_max_length in its tokenizer_config.json to 8 or more.",
        )
    return cast(PreTrainedTokenizerFast, tokenizer)  # it is fast, as was checked


def _ids_of_file(file: Path) -> list[int]:
    """The ids that a tokenizer's file gives to words; none, if it has no such list of words.

    They are looked at before the file is loaded: of two words with one id the library drops one,
    and it takes 8 GB of memory for an id of 2,000,000,000.
    """
    try:
        vocabulary = read_json(file)["model"]["vocab"]
        return [number for number in vocabulary.values() if isinstance(number, int)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # not there, without ids, or damaged: the library says how


def _check_ids(name: str | Path, ids: list[int]) -> None:
    """Raise `UserError` where two words have one id, or an id is far from the others."""
    problem = "repeats ids" if len(set(ids)) < len(ids) else ""
    if ids and (min(ids) < 0 or max(ids) >= 10 * len(ids) + 1000):
        problem = problem or f"has ids from {min(ids)} to {max(ids)}"
    if problem:
        remedy = "Each of its words must have an id of its own, counted from 0."
        raise UserError(f"The vocabulary of {name} {problem}.", remedy)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _not_loaded(name: str | Path, error: Exception) -> UserError:
    folder = Path(name)
    words = _first_line(error)
    exists = folder.exists()
    if not folder.is_dir() and (exists or folder.is_absolute() or str(name).count("/") != 1):
        return UserError(
            f"No tokenizer could be loaded from {name}: it "
            f"{'is a file, and not a folder' if exists else 'does not exist'}.",
            "Pass a folder with tokenizer.json, or a name on the Hub.",
        )
    if "sentencepiece" in str(error) or "tiktoken" in str(error) or list(folder.glob("*.model")):
        package = "tiktoken" if list(folder.glob("*.tiktoken")) else "sentencepiece"
        return UserError(
            f"The tokenizer of {name} has to be converted, which needs {package} ({words}).",
            f"Install it: pip install {package} protobuf.",
        )
    return UserError(
        f"No tokenizer could be loaded from {name} ({words}).",
        "Pass a folder with tokenizer.json, or a name on the Hub and a network connection.",
    )


# Upper case, accents, punctuation, digits, Chinese: what kinds of tokenizers treat differently.
PROBE = "The Café's naïve 2nd_value, don't; (e-mail) 3.14 costs … 文字 of an array"


def check_same_reading(tokenizer: PreTrainedTokenizerFast, name: str | Path) -> None:
    """Raise `UserError` unless the tokenizer in a model's folder gives a text the same ids.

    Two tokenizers may have the same words and cut a text otherwise: an uncased and a cased one.
    """
    if not Path(name, "tokenizer.json").is_file():
        return
    own = load_tokenizer(name)
    kinds = ("cls_token", "sep_token", "mask_token")
    problem = next((k for k in kinds if getattr(tokenizer, k) != getattr(own, k)), "")
    if not problem and tokenizer(PROBE)["input_ids"] != own(PROBE)["input_ids"]:
        problem = "upper case, accents or punctuation"
    if problem:
        raise UserError(
            f"The tokenizer reads {problem} otherwise than that of {name}.",
            "Pass the teacher's own tokenizer.",
            setting="tokenizer",
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of everything that decides which ids a text gets."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


@dataclass
class TokenizerConfig(Settings):
    """Settings of the command line."""

    corpus: str = option(
        "docs", 'documents: "docs", a path, "hub:OWNER/NAME[:CONFIG]", or several with " + "'
    )
    vocab_size: Annotated[int, Field(ge=100, le=10**6)] = option(
        8192, "number of word pieces, the five special tokens among them"
    )
    output: str = option("runs/tokenizer", "folder to write")


# What the program writes, and what it may replace.
WRITTEN = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "README.md"}
PROGRAM = Program(
    TokenizerConfig,
    "python -m distil_lib.text.tokenizer",
    "Train a WordPiece tokenizer on a corpus.",
)

TOKENIZER_CARD = """# Tokenizer

{size:,} uncased WordPieces, made by

    python -m distil_lib.text.tokenizer {arguments}

from {words:,} words of {documents:,} training documents (SHA-256 of their text begins with
`{text}`) in {seconds:.0f} seconds, with `tokenizers` {tokenizers}. Held-out documents were not
read.
"""


def _run(config: TokenizerConfig, arguments: Sequence[str]) -> str:
    output = Path(config.output)
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if foreign := sorted(names - WRITTEN or (names if "tokenizer.json" not in names else [])):
        raise UserError(
            f"{output} holds something that is no tokenizer: {foreign[0]}.",
            "Choose another folder.",
            setting="output",
        )
    check_writable(output / "README.md")  # before minutes of reading, not after
    documents = load_documents(config.corpus)
    if not isinstance(documents, Dataset):
        raise UserError(
            f"{config.corpus} does not fit on the disk.", "Take a smaller one.", setting="corpus"
        )
    train = documents.filter(
        lambda name: split_of(name) == "train", input_columns="name", keep_in_memory=True
    )
    start = time.perf_counter()
    tokenizer = train_tokenizer(train["text"], config.vocab_size)
    settings = (w for name, value in asdict(config).items() for w in (f"--{name}", str(value)))
    card = TOKENIZER_CARD.format(
        size=len(tokenizer),
        arguments=shlex.join(settings),
        words=words(train),
        documents=len(train),
        seconds=time.perf_counter() - start,
        text=hashlib.sha256(json.dumps(train["text"][:]).encode()).hexdigest()[:16],
        tokenizers=version("tokenizers"),
    )
    tokenizer.save_pretrained(output)
    atomic_write_text(output / "README.md", card)
    return f"{len(tokenizer)} word pieces in {output}"


main = partial(PROGRAM.run, _run)

if __name__ == "__main__":
    main()
