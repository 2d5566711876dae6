"""Files that people bring: each is read as what it is, or refused in one sentence that names it."""

import json
import random

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from helpers import random_documents, sentence
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.text import local_files
from distil_lib.text.deduplication import write_documents
from distil_lib.text.documents import load_documents, split_documents
from distil_lib.text.local_files import cut_text, local_rows


def as_they_are(path):
    """The documents of a file or folder, before paragraphs are deduplicated."""
    return write_documents(local_rows(path))


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return path


# --------------------------------------------------------------------------------- a path is a path
@pytest.mark.parametrize(
    "name", ["notes[2].jsonl", "a*.jsonl", "what?.jsonl", "[!a].jsonl", "{a,b}.jsonl", "**.jsonl"]
)
def test_no_character_of_a_path_is_a_pattern(name, tmp_path):
    """Oracle: what was written, beside files that such a pattern would match."""
    wanted = write(tmp_path / name, ["this one"])
    for other in ("notes2.jsonl", "ab.jsonl", "whats.jsonl", "b.jsonl", "a.jsonl"):
        write(tmp_path / other, [f"not {other}"])
    assert as_they_are(wanted)["text"] == ["this one"]
    folder = write(tmp_path / "texts [old]*" / name, ["in a folder"]).parent
    assert as_they_are(folder)["text"] == ["in a folder"]


def test_endings_in_capitals_are_read_and_files_of_macos_are_not(tmp_path, capsys):
    (tmp_path / "A.TXT").write_text("one")
    write(tmp_path / "B.JSONL", ["two"])
    (tmp_path / "._A.TXT").write_bytes(b"\x00\x05\x16\x07\x80")
    assert as_they_are(tmp_path)["text"] == ["one", "two"]
    assert "._A.TXT" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ kinds of text
def tables():
    texts = ["one", None, "two"]
    yield "string", pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())})
    yield "large", pyarrow.table({"text": pyarrow.array(texts, pyarrow.large_string())})
    yield "view", pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())})
    yield "dictionary", pyarrow.table({"text": pyarrow.array(texts).dictionary_encode()})


def test_strings_of_every_kind_are_read_together_and_nulls_are_skipped(tmp_path):
    for name, table in tables():
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    write(tmp_path / "lines.jsonl", ["one", None, "two"])
    pandas.DataFrame({"text": ["one", None, "two"]}).to_parquet(tmp_path / "pandas.parquet")
    found = as_they_are(tmp_path)
    assert list(found["text"]) == ["one", "two"] * 6
    assert [name.split("#")[1] for name in found["name"]] == ["0", "2"] * 6


NO_TEXT = {
    "list": ["a"], "struct": {"en": "a"}, "number": 1, "float": 1.5, "bool": True, "nested": [[1]],
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("row", [0, 40])
def test_a_text_that_is_no_string_is_refused_with_its_row(kind, row, tmp_path):
    path = write(tmp_path / "rows.jsonl", [f"text {i}" for i in range(row)] + [NO_TEXT[kind]])
    with pytest.raises(UserError) as error:
        load_documents(str(path))
    assert "rows.jsonl" in error.value.problem and f"line {row + 1}" in error.value.problem


@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_parquet_column_that_holds_no_strings_is_refused(kind, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [NO_TEXT[kind]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet"):
        load_documents(str(tmp_path))


BROKEN = {
    "latin.txt": "caf\xe9 ".encode("latin-1") * 9,
    "utf16.txt": "text".encode("utf-16"),
    "latin.jsonl": '{"text": "caf\xe9"}'.encode("latin-1"),
    "surrogate.jsonl": b'{"text": "\\ud800"}',
    "half.jsonl": b'{"text": "a"',
    "list.jsonl": b'["text"]',
    "deep.jsonl": b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep_elsewhere.jsonl": b'{"text": "a", "other": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
    "digits.jsonl": b'{"text": ' + b"9" * 5_000 + b"}",
    "empty.parquet": b"PAR1PAR1",
    "damaged.parquet": b"PAR1" + b"\xff" * 400 + b"PAR1",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(UserError) as error:
        load_documents(str(tmp_path / name))
    assert name in error.value.problem and error.value.remedy
    assert len(error.value.problem) < 500


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_line_that_is_no_line_is_refused_before_it_fills_the_memory(name, tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "LONGEST_LINE", 1000)
    write(tmp_path / name, ["short", "x" * 1001])
    with pytest.raises(UserError, match="Line 2"):
        load_documents(str(tmp_path / name))


@given(st.binary(max_size=200), st.sampled_from(["txt", "jsonl", "parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("any") / f"file.{ending}"
    path.write_bytes(content)
    try:
        load_documents(str(path))
    except UserError as error:
        assert "file." in error.problem


# --------------------------------------------------------------------------------------- long texts
CHINESE = "".join(map(chr, range(0x4E00, 0x4E80)))


def one_sentence_a_line():
    chance = random.Random(0)
    return "\n".join(f"{i} {sentence(chance)}" for i in range(600))


def without_spaces():
    chance = random.Random(0)
    return "".join("".join(chance.choices(CHINESE, k=20)) + "。" for _ in range(900))


@pytest.mark.parametrize("make", [one_sentence_a_line, without_spaces])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_text_without_blank_lines_or_spaces_becomes_documents_with_a_held_out_part(
    make, ends, tmp_path
):
    """Oracle: the letters of the text, all of them and in their order."""
    text = make()
    path = tmp_path / "lines.txt"
    path.write_bytes(text.replace("\n", ends).encode())
    documents = as_they_are(path)
    assert len(documents) > 4
    assert "".join("".join(documents["text"]).split()) == "".join(text.split())
    train, held_out = split_documents(load_documents(str(path)))
    assert len(train) > len(held_out) > 0


@given(st.lists(st.text("ab。. \n", max_size=300), max_size=5).map("\n\n".join), st.integers(1, 40))
def test_cutting_loses_no_letter(text, words_each):
    pieces = list(cut_text(text.split("\n"), words_each))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece.strip() for piece in pieces)


def test_paragraphs_that_are_short_stay_whole():
    text = "\n\n".join(d["text"] for d in random_documents(40))
    assert "\n\n".join(cut_text(text.split("\n"))) == text


def test_a_single_short_document_says_what_is_wrong(tmp_path):
    (tmp_path / "short.txt").write_text("A few words only.")
    with pytest.raises(UserError, match="4 words"):
        split_documents(load_documents(str(tmp_path / "short.txt")))


@pytest.mark.parametrize("content", ["One text.\n".encode("utf-16-le"), b"\0" * 900, b"a\0\0\0\n"])
def test_text_that_is_full_of_nul_is_no_text(content, tmp_path):
    """UTF-16 without its mark is valid UTF-8 of another text."""
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match="NUL"):
        list(local_files.local_rows(tmp_path))


def test_two_columns_of_one_name_are_refused(tmp_path):
    columns = [pyarrow.array(["one"]), pyarrow.array(["two"])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="columns text, text"):
        list(local_files.local_rows(tmp_path))
