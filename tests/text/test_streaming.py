"""A corpus that is read while training: every document once an epoch, the same steps on any number
of processes, and a state to come back to. The streams are Parquet files of small row groups, read
as the Hub's are."""

import gc
import itertools
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from helpers import random_documents
from torch.utils.data import DataLoader

from distil_lib.errors import UserError
from distil_lib.masking import DynamicMasking
from distil_lib.text import blocks as blocks_library
from distil_lib.text import streaming
from distil_lib.text.blocks import load_blocks
from distil_lib.text.documents import StreamedDocuments, split_of
from distil_lib.text.packing import pack
from distil_lib.text.streaming import BlockStream, StreamBatches

FILES, GROUPS, ROWS = 2, 16, 2  # 32 row groups: 4 shards


@pytest.fixture(scope="module")
def texts():
    return random_documents(FILES * GROUPS * ROWS, paragraphs=1)


@pytest.fixture(scope="module")
def source(texts, tmp_path_factory):
    """A fresh `IterableDataset` of them at every call."""
    folder = tmp_path_factory.mktemp("parquet")
    for file in range(FILES):
        part = texts[file * GROUPS * ROWS : (file + 1) * GROUPS * ROWS]
        table = pyarrow.table({key: [d[key] for d in part] for key in ("name", "text")})
        pyarrow.parquet.write_table(table, folder / f"{file}.parquet", row_group_size=ROWS)
    # With pyarrow up to 24 `datasets` collects garbage at every stream that is left early: seconds,
    # if all objects of the tests before are searched.
    gc.freeze()
    return lambda: datasets.load_dataset(
        "parquet", data_dir=str(folder), split="train", streaming=True
    ).reshard()


@pytest.fixture
def stream(source, tokenizer, monkeypatch):
    monkeypatch.setattr(streaming, "DOCUMENTS_AT_ONCE", 3)
    made = BlockStream([source()], tokenizer, 16)
    assert made.num_shards == 4
    return made


def take(shard, number):
    return [
        (block.tolist(), epoch, n)
        for block, epoch, n in itertools.islice(iter(shard.__next__, None), number)
    ]


def test_a_shard_is_its_part_of_the_documents_again_and_again(stream, texts, tokenizer):
    """Oracle: the documents packed by hand."""
    quarter = len(texts) // 4
    for index in range(4):
        part = texts[index * quarter : (index + 1) * quarter]
        expected = [
            b.tolist()
            for b in pack(
                (tokenizer(d["text"], add_special_tokens=False)["input_ids"] for d in part),
                tokenizer,
                16,
            )
        ]
        got = take(stream.shard(index), 2 * len(expected) + 1)
        assert (
            got
            == [(b, epoch, n) for epoch in (0, 1, 2) for n, b in enumerate(expected)][: len(got)]
        )


@pytest.mark.parametrize("parts, shards", [(1, 1), (15, 1), (16, 2), (41, 4), (5000, 64)])
def test_no_shard_is_made_of_less_than_eight_parts(parts, shards, tokenizer):
    class Source:
        num_shards = parts

    assert BlockStream([Source()], tokenizer, 16).num_shards == shards


def steps_of(stream, tokenizer, steps=12, **options):
    settings = {"batch_size": 6, "micro_batch_size": 2} | options
    return list(
        itertools.islice(StreamBatches(stream, DynamicMasking(tokenizer), **settings), steps)
    )


def sequences(micro_batches):
    """{number: (ids, labels)} of a step."""
    rows = [(m, i) for m in micro_batches for i in range(len(m.examples)) if m.loss_mask[i].all()]
    found = [(m.examples[i].item(), m.input_ids[i].tolist(), m.labels[i].tolist()) for m, i in rows]
    assert len({number for number, *_ in found}) == len(found)
    return {number: (ids, labels) for number, ids, labels in found}


SHARES = [(8, 2, 2), (6, 2, 2), (5, 2, 2), (6, 4, 3), (5, 1, 4), (9, 1, 8), (3, 1, 5)]


@pytest.mark.parametrize("batch_size, micro_batch_size, world", SHARES)
def test_processes_share_a_stream_without_overlap_or_loss(
    stream, tokenizer, batch_size, micro_batch_size, world
):
    alone = [
        sequences(step)
        for step in steps_of(stream, tokenizer, batch_size=batch_size, micro_batch_size=batch_size)
    ]
    options = {"batch_size": batch_size, "micro_batch_size": micro_batch_size, "world": world}
    ranks = [steps_of(stream, tokenizer, rank=rank, **options) for rank in range(world)]
    for expected, shares in zip(alone, zip(*ranks, strict=True), strict=True):
        assert (
            len(expected) == batch_size and len({len(share) for share in shares}) == 1
        )  # as many micro-batches everywhere
        parts = [sequences(share) for share in shares]
        assert sum(map(len, parts)) == batch_size
        assert {k: v for part in parts for k, v in part.items()} == expected


@pytest.mark.parametrize("world, read", [(1, 4), (2, 2), (4, 1), (8, 1), (3, 4)])
def test_a_process_reads_its_own_shards_only_where_they_divide(stream, tokenizer, world, read):
    for rank in range(world):
        (step,) = steps_of(stream, tokenizer, 1, batch_size=8, rank=rank, world=world)
        assert len(step.state) == read


def test_a_stream_is_masked_by_epoch_and_number(stream, tokenizer):
    """Oracle: the masking called by hand on what the shards give."""
    masking, shards = DynamicMasking(tokenizer), [stream.shard(i) for i in range(4)]
    place = 0
    for step in steps_of(stream, tokenizer, 60):
        for number, (ids, labels) in sequences(step).items():
            block, epoch, n = next(shards[place % 4])
            assert number == 4 * n + place % 4
            expected = masking(torch.tensor(block[None]).long(), [number], epoch)
            assert ids == expected.input_ids[0].tolist() and labels == expected.labels[0].tolist()
            place += 1
    assert epoch > 0


@pytest.fixture
def tokenized(monkeypatch):
    """The texts that are read, in their order."""
    read, function = [], streaming.tokenize
    monkeypatch.setattr(
        streaming,
        "tokenize",
        lambda texts, tokenizer: read.extend(texts) or function(texts, tokenizer),
    )
    return read


@pytest.mark.parametrize("done", [1, 7, 40])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_stream_goes_on_where_a_run_stopped_and_reads_nothing_before_again(
    done, world, stream, tokenizer, tokenized
):
    for rank in range(world):
        options = {"rank": rank, "world": world}
        whole = steps_of(stream, tokenizer, done + 5, **options)
        state = json.loads(json.dumps(whole[done - 1].state))
        tokenized.clear()
        rest = steps_of(stream, tokenizer, 1, start=done, state=state, **options)
        assert len(tokenized) <= 2 * streaming.DOCUMENTS_AT_ONCE * len(state)
        rest = steps_of(stream, tokenizer, 5, start=done, state=state, **options)
        assert [sequences(step) for step in rest] == [sequences(step) for step in whole[done:]]


@pytest.mark.parametrize(
    "forgotten", [{"rest": []}, {"read": 0}, {"documents": None}, {"number": 0}]
)
def test_a_position_with_a_part_forgotten_is_told_apart(forgotten, stream):
    shard = stream.shard(1)
    take(shard, 20)
    expected = take(shard.stream.shard(1, shard.state_dict()), 5)
    assert take(stream.shard(1, shard.state_dict() | forgotten), 5) != expected
    assert take(shard, 5) == expected


# ---------------------------------------------------------------------------------- from the corpus
@pytest.fixture
def streamed(monkeypatch):
    """Make `load_documents` give these streams, as it does for large Hub datasets."""
    return lambda *parts, weights=(1.0,): monkeypatch.setattr(
        blocks_library,
        "load_documents",
        lambda *_, **__: StreamedDocuments([*parts], [*weights]),
    )


def test_a_stream_is_split_counted_and_not_stored(streamed, source, texts, tokenizer, tmp_path):
    streamed(source())
    made = load_blocks("hub:any/name", tokenizer, 16, streaming=True, cache=tmp_path)
    assert made.streaming and not (tmp_path / "blocks").exists()
    held_out = (
        tokenizer(d["text"], add_special_tokens=False)["input_ids"]
        for d in texts
        if split_of(d["name"]) == "held_out"
    )
    expected = [b.tolist() for b in pack(held_out, tokenizer, 16)]
    assert [list(row["input_ids"]) for row in made.held_out] == expected and expected
    sample = [
        row["input_ids"] for row in itertools.islice(made.train, blocks_library.STREAM_SAMPLE)
    ]
    assert (
        made.counts.tolist()
        == np.bincount(np.concatenate(sample), minlength=len(tokenizer)).tolist()
    )


def test_a_stream_without_enough_text_is_refused(streamed, tokenizer, tmp_path):
    """Otherwise a run would look for its first block for ever."""
    streamed(
        datasets.Dataset.from_list(
            [{"name": f"d{i}", "text": "a word"} for i in range(3)]
        ).to_iterable_dataset()
    )
    with pytest.raises(UserError):
        load_blocks("hub:any/name", tokenizer, 64, streaming=True, cache=tmp_path)


def test_nulls_in_a_stream_are_skipped(streamed, texts, tokenizer, tmp_path):
    """Oracle: the stream without them."""
    rows = [{"name": d["name"], "text": d["text"]} for d in texts]
    holes = [r for row in rows for r in (row, {"name": row["name"] + "!", "text": None})]

    def first(rows):
        streamed(datasets.Dataset.from_list(rows).to_iterable_dataset())
        made = load_blocks("hub:any/name", tokenizer, 16, streaming=True, cache=tmp_path)
        return [r["input_ids"].tolist() for r in itertools.islice(made.train, 300)]

    assert first(holes) == first(rows)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_any_start_method_read_a_stream(streamed, source, tokenizer, tmp_path, method):
    """Oracle: the same steps without workers. Elsewhere than on Linux workers are not forked."""
    streamed(source().filter(has_words, input_columns="text"))
    made = load_blocks("hub:any/name", tokenizer, 16, streaming=True, cache=tmp_path)
    batches = StreamBatches(made.train, DynamicMasking(tokenizer), 6, 2)
    loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context=method)
    for mine, theirs in itertools.islice(zip(batches, loader, strict=False), 4):
        assert sequences(mine) == sequences(theirs) and mine.state == theirs.state


def has_words(text):
    return bool(text)


# -------------------------------------------------------------------------------------- mixtures
@pytest.fixture
def mixture(source, tokenizer, monkeypatch):
    """One block of three from other texts, which are read as a local corpus is."""
    other = [{"name": f"o{d['name']}", "text": d["text"]} for d in random_documents(64, seed=9)]
    local = datasets.Dataset.from_list(other).to_iterable_dataset(num_shards=64)
    monkeypatch.setattr(streaming, "DOCUMENTS_AT_ONCE", 3)
    return BlockStream([source(), local], tokenizer, 16, [2.0, 1.0])


def test_the_blocks_of_a_mixture_are_those_of_its_parts_in_their_shares(mixture, tokenizer):
    """Oracle: each part streamed alone."""
    for index in range(mixture.num_shards):
        got = take(mixture.shard(index), 60)
        for part, share in ((0, 40), (1, 20)):
            alone = BlockStream([mixture.parts[part]], tokenizer, 16)
            alone.num_shards = mixture.num_shards
            expected = take(alone.shard(index), share)
            mine = [(b, epoch, n // 2) for b, epoch, n in got if n % 2 == part]
            assert mine == expected
        for count in range(1, 60):  # nowhere more than a block from its share
            assert abs(sum(n % 2 == 0 for _, _, n in got[:count]) - 2 * count / 3) <= 1


@pytest.mark.parametrize("batch_size, micro_batch_size, world", SHARES[:4])
def test_processes_share_a_mixture(mixture, tokenizer, batch_size, micro_batch_size, world):
    options = {"batch_size": batch_size, "micro_batch_size": batch_size}
    alone = [sequences(step) for step in steps_of(mixture, tokenizer, **options)]
    options["micro_batch_size"] = micro_batch_size
    ranks = [steps_of(mixture, tokenizer, rank=r, world=world, **options) for r in range(world)]
    for expected, shares in zip(alone, zip(*ranks, strict=True), strict=True):
        parts = [sequences(share) for share in shares]
        assert {k: v for part in parts for k, v in part.items()} == expected


@pytest.mark.parametrize("done", [1, 7, 41])
def test_a_mixture_goes_on_where_a_run_stopped(mixture, tokenizer, done):
    whole = steps_of(mixture, tokenizer, done + 5)
    state = json.loads(json.dumps(whole[done - 1].state))
    rest = steps_of(mixture, tokenizer, 5, start=done, state=state)
    assert [sequences(step) for step in rest] == [sequences(step) for step in whole[done:]]
    forgotten = {k: v | {"taken": [0, 0]} for k, v in state.items()}
    wrong = steps_of(mixture, tokenizer, 5, start=done, state=forgotten)
    assert done < 7 or [sequences(s) for s in wrong] != [sequences(s) for s in whole[done:]]


def test_a_mixture_that_streams_holds_out_from_each_part(streamed, source, tokenizer, tmp_path):
    other = [{"name": f"o{i}", "text": d["text"]} for i, d in enumerate(random_documents(99, 9))]
    local = datasets.Dataset.from_list(other).to_iterable_dataset(num_shards=64)
    streamed(source(), local, weights=(2.0, 1.0))
    made = load_blocks("hub:any/name + docs", tokenizer, 16, streaming=True, cache=tmp_path)
    assert made.streaming and made.train.weights == [2.0, 1.0]
    held_out = {tuple(row["input_ids"]) for row in made.held_out}
    for part in (source(), local):
        tokens = (
            tokenizer(d["text"], add_special_tokens=False)["input_ids"]
            for d in part
            if split_of(d["name"]) == "held_out"
        )
        first = next(pack(tokens, tokenizer, 16), None)
        assert first is not None and tuple(first.tolist()) in held_out
