"""Local text: .txt, .jsonl and .parquet files become documents. Whatever is no text is refused.

Each reader goes through its file once and holds little of it. A path is a path: no character of it
is a pattern.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO

import pyarrow
import pyarrow.parquet

from distil_lib.errors import UserError

WORDS_PER_DOCUMENT = 1000
LONGEST_LINE = 50_000_000  # letters; a longer one is no line of text
LONGEST_WORD = 40  # letters; what has no spaces for longer is counted and cut by its letters
LETTERS_PER_WORD = 2  # there: about what a word of Chinese or Japanese has
# Thai, Lao, Burmese, Khmer, kana, Chinese characters: scripts without spaces between words
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
SENTENCE_END = re.compile(r"(?<=[.!?…。！？])(?![\d.])\s*")


def local_rows(path: str | Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each document of a file, or of the files of a folder.

    A .txt file becomes several documents, so that a part of it can be held out: it is cut between
    paragraphs, a long paragraph between lines, a long line between sentences. The other files hold
    one document a row, in a column `text`; a row without text is skipped.

    Raises:
        UserError: that names the file, and the row or line, that cannot be read.
    """
    path = Path(path)
    for file in text_files(path):
        name = file.relative_to(path).as_posix() if file != path else file.name
        reader = READERS[file.suffix.lower()]
        try:
            for row, text in reader(file):
                if text is not None:
                    yield f"{name}#{row}", text
        except (OSError, ValueError, pyarrow.ArrowException, OverflowError, MemoryError) as error:
            if isinstance(error, UserError):
                raise
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{file} cannot be read: {words[0][:200]}.", "Check that it is what its name says."
            ) from error


def text_files(path: Path) -> list[Path]:
    """The files with text below a path, sorted. Raises `UserError` if there is none."""
    try:
        exists = path.exists()
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [f for f in found if f.suffix.lower() in READERS and f.is_file()]
        files = [f for f in files if f.stat().st_size]
    except (OSError, ValueError) as error:
        raise UserError(
            f"The corpus {path} cannot be read ({error}).", "Check its rights."
        ) from error
    if not exists:
        raise UserError(
            f"The corpus {path} does not exist.",
            'Pass a file, a folder, "docs" or "hub:OWNER/NAME[:CONFIG]".',
        )
    # What macOS leaves beside each file on a foreign disk; it is no text, whatever its ending.
    foreign = [f for f in files if f.name.startswith("._")]
    if foreign:
        tell(f"{path}: {len(foreign)} file(s) of macOS skipped, such as {foreign[0].name}.")
    files = [f for f in files if not f.name.startswith("._")]
    if not files:
        raise UserError(
            f"{path} holds no text.", f"Supported are files ending in {', '.join(READERS)}."
        )
    return files


def tell(message: str) -> None:
    """Say something on standard error, once however many processes there are."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------- plain text
def read_text_file(file: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the documents of a .txt file."""
    with file.open(encoding="utf-8-sig") as lines:
        yield from enumerate(cut_text(read_lines(lines, file)))


def read_lines(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of a file without their ends. Raises `UserError` at one that is no line of text."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"Line {number} of {path} has more than {LONGEST_LINE:,} letters.",
                "Cut it into lines or documents.",
            )
        if 4 * line.count("\0") > len(line):
            raise UserError(
                f"Line {number} of {path} is no text in UTF-8: it is full of NUL characters.",
                "Save it as UTF-8; it may be UTF-16, or no text at all.",
            )
        yield line.rstrip("\n")


def cut_text(lines: Iterable[str], words_each: int = WORDS_PER_DOCUMENT) -> Iterator[str]:
    """Documents of about `words_each` words, made of whole paragraphs where these are shorter.

    One sentence a line (the format of DistilBERT's own scripts) and text without spaces (Chinese,
    Japanese) are cut as well: of a paragraph that is too long, each line becomes a paragraph.
    """
    document: list[str] = []
    size = 0
    for filled, paragraph in groupby(lines, key=lambda line: bool(line.strip())):
        for piece in _pieces([*paragraph], words_each) if filled else ():
            if size >= words_each:
                yield "\n\n".join(document)
                document, size = [], 0
            document.append(piece)
            size += count_words(piece)
    if document:
        yield "\n\n".join(document)


def count_words(text: str) -> int:
    """Number of words; letters of a script without spaces are counted instead of words."""
    unspaced = 0 if text.isascii() else len(UNSPACED.findall(text))
    runs = sum(
        1 if len(word) <= LONGEST_WORD else len(word) // LETTERS_PER_WORD for word in text.split()
    )
    return max(runs, unspaced // LETTERS_PER_WORD)


def _pieces(paragraph: list[str], words_each: int) -> Iterator[str]:
    """A paragraph whole, or by lines, sentences, or letters where it is too long."""
    if sum(map(count_words, paragraph)) <= words_each:
        yield "\n".join(paragraph)
        return
    for line in paragraph:
        if count_words(line) <= words_each:
            yield line
            continue
        for sentence in filter(None, SENTENCE_END.split(line)):
            if count_words(sentence) <= words_each:
                yield sentence
                continue
            letters = words_each * LETTERS_PER_WORD
            for start in range(0, len(sentence), letters):
                yield sentence[start : start + letters]


# ---------------------------------------------------------------------------------------- columns
def read_json_lines(file: Path) -> Iterator[tuple[int, str | None]]:
    """(row, text) of a .jsonl file. Raises `UserError` with the line that is none."""
    columns: set[str] = set()
    row = 0
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(read_lines(lines, file), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                fault = "" if isinstance(record, dict) else f"holds {_kind(record)}, no object"
            except RecursionError:
                fault = "is no JSON (it is nested too deeply)"
            except ValueError as error:
                fault = f"is no JSON ({error})"
            if fault:
                raise UserError(
                    f"{file} cannot be read: line {number} {fault}.",
                    "Each line must hold one object with a `text`.",
                )
            columns |= record.keys()
            text = record.get("text")
            if text is not None:
                yield row, _checked(text, f"line {number} of {file}")
            row += 1
    if "text" not in columns:
        raise _no_column(file, sorted(columns))


def read_parquet(file: Path) -> Iterator[tuple[int, str | None]]:
    """(row, text) of a .parquet file."""
    with pyarrow.parquet.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        if schema.names.count("text") != 1:
            raise _no_column(file, schema.names)
        kind = schema.field("text").type
        values = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if values not in STRINGS:
            raise UserError(
                f"The column `text` of {file} holds {kind}, from its first row on.",
                "It must hold strings.",
            )
        row = 0
        for batch in parquet.iter_batches(100, columns=["text"]):
            for value in batch.column(0):
                try:
                    yield row, value.as_py()
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{file} cannot be read: row {row} is no UTF-8.", "Write it as UTF-8."
                    ) from error
                row += 1


STRINGS = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.null()]


def _checked(text: object, where: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"`text` is {_kind(text)} in {where}.", "It must hold strings.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a character, written as \\ud800
        raise UserError(f"`text` is no Unicode in {where} ({error.reason}).", "Mend it.") from error
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "a string")


def _no_column(file: Path, columns: list[str]) -> UserError:
    return UserError(
        f"{file} has the columns {', '.join(columns) or 'none'}.",
        "Name the column with the documents `text`, and no other.",
    )


READERS: dict[str, Callable[[Path], Iterator[tuple[int, str | None]]]] = {
    ".txt": read_text_file,
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
