"""Tokenizer, packing, and the cache of blocks."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from helpers import random_documents, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.common.errors import StorageError
from distil_lib.errors import UserError
from distil_lib.text import blocks as library
from distil_lib.text.blocks import documents_to_blocks, load_blocks, pack
from distil_lib.text.documents import load_documents
from distil_lib.text.tokenizer import load_tokenizer, tokenizer_fingerprint, train_tokenizer

C, S = 101, 102  # the ids of [CLS] and [SEP]
IDS = SimpleNamespace(cls_token_id=C, sep_token_id=S)


def rows(dataset) -> list[list[int]]:
    return [list(row["input_ids"]) for row in dataset]


# ---------------------------------------------------------------------------------------- tokenizer
def test_a_tokenizer_has_the_size_asked_for_and_five_special_tokens_first(documents):
    tokenizer = train_tokenizer((d["text"] for d in documents), vocab_size=120)
    assert len(tokenizer) == 120
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


def test_a_saved_tokenizer_gives_the_same_ids(tokenizer, tokenizer_folder, documents):
    again = load_tokenizer(tokenizer_folder)
    texts = [d["text"] for d in documents[:5]]
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_words_of_the_tokenizer_spell_the_text(tokenizer, documents):
    """Oracle: the text itself, in lower case and without spaces."""
    text = documents[0]["text"]
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "".join(p.removeprefix("##") for p in pieces) == "".join(text.lower().split())


def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path, tokenizer):
    with pytest.raises(UserError, match="no-tokenizer"):
        load_tokenizer(tmp_path / "no-tokenizer")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="broken"):
        load_tokenizer(tmp_path / "broken")


# ------------------------------------------------------------------------------------------ packing
def test_pack_by_hand():
    """Bodies of 3: 1 2 3 S 4 5 S 6 7 S, of which the last S fills no block."""
    packed = pack([[1, 2, 3], [4, 5], [6, 7]], IDS, block_size=5)
    assert [list(block) for block in packed] == [[C, 1, 2, 3, S], [C, S, 4, 5, S], [C, S, 6, 7, S]]


@given(st.lists(st.lists(st.integers(1, 99), max_size=30), max_size=12), st.integers(3, 12))
def test_every_token_is_kept_in_order_but_for_the_last_rest(documents, block_size):
    """Oracle: all documents joined, each with [SEP] behind it, cut by `range`."""
    joined = [token for document in documents for token in [*document, S]]
    packed = [list(block) for block in pack(documents, IDS, block_size)]
    assert all(len(b) == block_size and b[0] == C and b[-1] == S for b in packed)
    body = [token for block in packed for token in block[1:-1]]
    assert body == joined[: len(body)]
    assert len(joined) - len(body) < block_size - 2


def test_blocks_are_the_same_whatever_the_number_of_processes(tokenizer):
    """Oracle: tokenizing and packing in one plain loop."""
    documents = random_documents(330, paragraphs=1)
    tokens = [tokenizer(d["text"], add_special_tokens=False)["input_ids"] for d in documents]
    expected = [list(block) for block in pack(tokens, tokenizer, 16)]
    for processes in (1, 2, 3):
        assert (
            rows(documents_to_blocks(Dataset.from_list(documents), tokenizer, 16, processes))
            == expected
        )


def test_packing_starts_again_after_a_fixed_number_of_documents(tokenizer, monkeypatch):
    monkeypatch.setattr(library, "DOCUMENTS_A_PACK", 10)
    documents = random_documents(25, paragraphs=1)
    tokens = [tokenizer(d["text"], add_special_tokens=False)["input_ids"] for d in documents]
    expected = [
        list(b) for start in (0, 10, 20) for b in pack(tokens[start : start + 10], tokenizer, 16)
    ]
    assert rows(documents_to_blocks(Dataset.from_list(documents), tokenizer, 16)) == expected


@pytest.mark.parametrize("special", ["[MASK]", "[SEP]", "[PAD]", "[CLS]"])
def test_the_name_of_a_special_token_is_a_word_like_any_other(special, documents, tmp_path):
    """Oracle: the same documents with spaces in the name, which no special token has."""

    def made(name):
        said = [{"text": d["text"].replace("array", name)} for d in documents]
        path = write_jsonl(tmp_path / "said.jsonl", said)
        return load_blocks(str(path), tokenizer, 16, cache=tmp_path / name)

    tokenizer = train_tokenizer(
        [d["text"] for d in documents] + ["[ mask sep pad cls ]"] * 9, vocab_size=160
    )
    literal, spaced = made(special), made(f"[ {special[1:-1]} ]")
    assert (literal.counts[tokenizer.convert_tokens_to_ids(["[", "]"])] > 100).all()
    assert rows(literal.train) == rows(spaced.train) and rows(literal.held_out) == rows(
        spaced.held_out
    )


# -------------------------------------------------------------------------------------------- cache
@pytest.fixture
def source(tmp_path, documents):
    return write_jsonl(tmp_path / "source.jsonl", documents)


def test_blocks_of_a_corpus_hold_its_documents_and_count_its_words(source, tokenizer, tmp_path):
    """Oracle: the corpus tokenized and packed by hand; its words counted by numpy."""
    made = load_blocks(str(source), tokenizer, 16, cache=tmp_path)
    train, held_out = library.split_documents(load_documents(str(source)))
    for part, documents in ((made.train, train), (made.held_out, held_out)):
        tokens = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents["text"]
        ]
        assert rows(part) == [list(b) for b in pack(tokens, tokenizer, 16)]
        assert len(part) > 0
    ids, counts = np.unique(np.asarray(rows(made.train)), return_counts=True)
    assert len(made.counts) == len(tokenizer)
    assert made.counts[ids].tolist() == counts.tolist() and made.counts.sum() == counts.sum()


def test_what_comes_from_the_cache_is_identical_and_nothing_is_read_again(
    source, tokenizer, tmp_path, monkeypatch
):
    made = load_blocks(str(source), tokenizer, 16, cache=tmp_path)

    def refuse(*_, **__):
        raise AssertionError("the corpus was read again")

    monkeypatch.setattr(library, "load_documents", refuse)
    again = load_blocks(str(source), tokenizer, 16, cache=tmp_path)
    assert rows(again.train) == rows(made.train) and rows(again.held_out) == rows(made.held_out)
    assert again.counts.tolist() == made.counts.tolist() and again.cache_key == made.cache_key
    with pytest.raises(
        AssertionError, match="read again"
    ):  # the check can fail: another key is another corpus
        load_blocks(str(source), tokenizer, 24, cache=tmp_path)


def test_the_key_changes_with_tokenizer_block_size_and_text(source, tokenizer, documents, tmp_path):
    def key(block_size=16, tokenizer=tokenizer, path=source):
        return load_blocks(str(path), tokenizer, block_size, cache=tmp_path).cache_key

    first = key()
    other_tokenizer = train_tokenizer((d["text"] for d in documents), vocab_size=140)
    found = {first, key(block_size=24), key(tokenizer=other_tokenizer)}
    assert key() == first
    text = source.read_text()
    source.write_text(text.replace("array", "arrow"))  # as many bytes as before
    os.utime(source, (1, 1))
    found.add(key())
    write_jsonl(source, documents[:50])
    found.add(key())
    assert len(found) == 5


def test_the_content_hash_is_that_of_the_text_wherever_it_lies(
    source, tokenizer, documents, tmp_path
):
    first = load_blocks(str(source), tokenizer, 16, cache=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = load_blocks(
        str(source.rename(tmp_path / "elsewhere" / source.name)), tokenizer, 16, cache=tmp_path
    )
    assert moved.cache_key != first.cache_key and moved.content_hash == first.content_hash
    others = [[{"text": f"array {documents[0]['text']}"}, *documents[1:]], documents[:30]]
    made = [
        load_blocks(str(write_jsonl(source, other)), tokenizer, 16, cache=tmp_path)
        for other in others
    ]
    assert len({first.content_hash, *(m.content_hash for m in made)}) == 3


def test_what_a_killed_run_left_of_its_blocks_is_swept_away_after_a_day(
    source, tokenizer, tmp_path
):
    """And not sooner: another run may be writing there."""
    old, fresh, foreign = (
        tmp_path / "blocks" / name for name in (".making-old", ".making-fresh", "no-such-key")
    )
    for folder in (old, fresh, foreign):
        (folder / "made").mkdir(parents=True)
    for folder, hours in ((old, 25), (fresh, 23), (foreign, 25)):
        os.utime(folder, (time.time() - 3600 * hours,) * 2)
    load_blocks(str(source), tokenizer, 16, cache=tmp_path)
    assert not old.exists() and fresh.exists() and foreign.exists()


def test_a_new_file_in_a_folder_changes_the_key(tokenizer, documents, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", documents[:30])
    before = load_blocks(str(folder), tokenizer, 16, cache=tmp_path)
    write_jsonl(folder / "b.jsonl", documents[30:])
    after = load_blocks(str(folder), tokenizer, 16, cache=tmp_path)
    assert after.cache_key != before.cache_key and len(after.train) > len(before.train)


@pytest.mark.parametrize(
    "where, error",
    [("count_tokens", KeyboardInterrupt), ("pack", OSError(28, "No space left on device"))],
)
def test_an_interrupted_write_leaves_nothing_and_the_next_call_makes_it_whole(
    where, error, source, tokenizer, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(library, where, interrupt)
        with pytest.raises((KeyboardInterrupt, StorageError)):
            load_blocks(str(source), tokenizer, 16, cache=tmp_path)
    assert list((tmp_path / "blocks").iterdir()) == []
    assert len(load_blocks(str(source), tokenizer, 16, cache=tmp_path).train) > 0


@pytest.mark.parametrize("block_size", [7, 513])
def test_block_sizes_that_no_model_can_read_are_refused(block_size, source, tokenizer, tmp_path):
    with pytest.raises(UserError, match=str(block_size)):
        load_blocks(str(source), tokenizer, block_size, cache=tmp_path)


def test_a_corpus_shorter_than_a_block_is_refused(tokenizer, tmp_path):
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": "one word"}, {"text": "two words"}])
    with pytest.raises(UserError, match="shorter than a block"):
        load_blocks(str(short), tokenizer, 64, cache=tmp_path)
