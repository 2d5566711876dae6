"""The protocol by a clock that is set by hand, its statistics by simulation, its texts by another
count, its systems at full size.
"""

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from distil_lib.common.paths import data_folder
from distil_lib.errors import UserError
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.timing import table3 as timing
from distil_lib.timing.__main__ import main
from distil_lib.timing.protocol import (
    fastest_visits,
    in_pinned_process,
    interleaved_rounds,
    rotated,
    sampling_error,
    speedup,
    timed,
)
from distil_lib.timing.sentence_pairs import (
    documentation_pairs,
    documentation_sentences,
    matched,
    measured_lengths,
    pieces,
    sample,
    stsb_lengths,
    words,
)
from distil_lib.timing.systems import (
    SYSTEMS,
    System,
    encoder_parameters,
    in_batches,
    new_model,
    new_system,
)
from distil_lib.timing.table3 import summarize


class Clock:
    """Shows what has been put on it. `drift`: everything takes that much longer with each second
    that has passed.
    """

    def __init__(self, drift: float = 0.0):
        self.now, self.drift = 0.0, drift

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * (1 + self.drift * self.now)


# --------------------------------------------------------------------------------------------------
# --------------- the protocol
def test_every_round_visits_each_once_and_each_begins_equally_often():
    visits = []
    found = interleaved_rounds(
        {name: lambda name=name: visits.append(name) or len(visits) for name in "abc"}, rounds=6
    )
    rounds = [visits[i : i + 3] for i in range(0, 18, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    for place in range(3):
        assert sorted(one[place] for one in rounds) == sorted("abc" * 2)
    assert (
        sorted(n for visited in found.values() for n in visited) == list(range(1, 19))
        and [visits[n - 1] for n in found["b"]] == ["b"] * 6
    )
    assert rotated("abc", 1) == ["b", "c", "a"]


def test_the_fastest_visit_is_the_one_that_was_not_disturbed():
    """Oracle: times that are known, of a machine that is slow for a stretch of the visits."""
    truth, calls = {"a": 2.0, "b": 1.0}, []

    def visit(name, text):
        calls.append((name, text))
        return truth[name] * text * (3 if 2 <= len(calls) < 6 else 1)

    visits = {name: lambda text, name=name: visit(name, text) for name in truth}
    found = fastest_visits(visits, [1, 10], number=4)
    assert {name: each.tolist() for name, each in found.items()} == {"a": [2, 20], "b": [1, 10]}
    assert sorted(calls[:8]) == [("a", 1)] * 4 + [("b", 1)] * 4  # a text after the other
    assert len(calls) == 16


def test_a_system_that_is_twice_as_slow_is_found_so_on_a_machine_that_slows_down():
    """Interleaved rounds show 2.0; the same passes one system after the other, as a naive stop-
    watch has them, do not.
    """

    def seconds(drift: float, interleaved: bool) -> dict:
        clock = Clock(drift)
        passes = {
            name: lambda load=load: timed(lambda _: clock.work(load), range(4), clock)[0].sum()
            for name, load in (("a", 1), ("b", 2))
        }
        if interleaved:
            return interleaved_rounds(passes, 8)
        return {name: [one() for _ in range(8)] for name, one in passes.items()}

    fair, naive = (
        speedup(found["b"], found["a"]) for found in (seconds(0.002, True), seconds(0.002, False))
    )
    assert fair["low"] < 2 < fair["high"] and abs(fair["median"] - 2) < 0.1
    assert naive["low"] > 2.1


def test_tokenization_and_model_are_timed_apart():
    clock = Clock()
    system = System(
        prepare=lambda batch: clock.work(1) or len(batch), run=lambda size: clock.work(10 * size)
    )
    found = system.measure(in_batches([("a", "b")] * 5, 2), clock)
    assert found["tokenizer"].tolist() == [1, 1, 1] and found["model"].tolist() == [20, 20, 10]


def test_warming_up_is_not_measured_and_goes_through_all_sizes():
    ran = []
    System(prepare=lambda batch: batch[0], run=ran.append).warm_up([[n] for n in range(10)], 5)
    assert ran == [0, 2, 4, 6, 8]


def test_the_summary_is_medians_over_rounds_scaled_to_the_whole_set():
    """By hand: 2 of 1,500 pairs; three rounds of 2, 4 and 3 s for BERT, each a half of that for
    DistilBERT.
    """
    rounds = {
        name: [{"model": [total / 2, total / 2], "tokenizer": [0.5, 0.5]} for total in totals]
        for name, totals in {"bert-base": (2, 4, 3), "distilbert": (1, 2, 1.5)}.items()
    }
    found = summarize(rounds, pairs=2, sizes=[10, 20])
    assert found["bert-base"]["seconds"] == {"q1": 2.5 * 750, "median": 3 * 750, "q3": 3.5 * 750}
    assert found["distilbert"]["speedup"] == {"median": 2, "low": 2, "high": 2, "coverage": 0.75}
    assert (
        found["bert-base"]["pair_ms"] == 1500 and found["bert-base"]["tokenizer"]["median"] == 750
    )
    assert found["bert-base"]["sampling_error"] == 0  # both took the same


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_time_that_is_no_time_is_no_result(bad):
    rounds = {"bert-base": [{"model": [1.0, bad * 1.0], "tokenizer": [0.5, 0.5]}]}
    if bad == 0.0:
        rounds["bert-base"][0]["model"] = [0.0, 0.0]
    with pytest.raises(UserError, match="no positive numbers"):
        summarize(rounds, pairs=2, sizes=[10, 20])


def test_the_interval_of_a_quotient_holds_the_true_median_as_often_as_it_says():
    chance = np.random.default_rng(0)
    draws = np.exp(chance.normal(size=(4000, 5)))  # skewed, with median 1
    held = [(q := speedup(one, np.ones(5)))["low"] <= 1 <= q["high"] for one in draws]
    assert abs(np.mean(held) - q["coverage"]) < 3 * np.sqrt(
        q["coverage"] * (1 - q["coverage"]) / 4000
    )


def test_the_sampling_error_is_that_of_simulated_samples():
    """A set of 1,500 whose seconds grow with the size, plus chance: how far scaled samples really
    are from the whole.
    """
    chance = np.random.default_rng(1)
    misses, predicted = [], []
    for _ in range(300):
        sizes = chance.integers(10, 80, 1500)
        seconds = sizes * 0.01 + chance.normal(0, 0.1, 1500)
        rows = sample(sizes, 100)
        misses.append(seconds[rows].mean() / seconds.mean() - 1)
        predicted.append(sampling_error(seconds[rows], sizes[rows], 1500))
    assert 0.8 < np.std(misses) / np.mean(predicted) < 1.2
    assert sampling_error(seconds, sizes, 1500) == 0


# --------------------------------------------------------------------------------------------------
# ------------------ the texts
def test_a_sample_has_the_distribution_of_the_whole():
    lengths = stsb_lengths()
    sizes = (lengths["pieces_a"] + lengths["pieces_b"]).to_numpy()
    assert len(sizes) == timing.WHOLE
    rows = sample(sizes, 100)
    assert (np.diff(rows) > 0).all() and np.array_equal(sample(sizes, 1500), np.arange(1500))
    shares = np.linspace(5, 95, 19)
    assert np.abs(np.percentile(sizes[rows], shares) - np.percentile(sizes, shares)).max() <= 1
    assert abs(sizes[rows].mean() / sizes.mean() - 1) < 0.01


def test_drawn_sentences_have_stsbs_lengths():
    """Oracle: `tokenize` on each text by itself. The documentation is that of the default."""
    tokenizer, lengths = load_tokenizer(data_folder("tokenizer")), stsb_lengths()
    wanted = lengths.iloc[sample(lengths.sum(axis=1), 150)]
    sentences = documentation_sentences()
    texts = documentation_pairs(tokenizer, wanted, sentences)
    found = np.array(
        [
            [len(tokenizer.tokenize(text)) for text in pair] + [words(text) for text in pair]
            for pair in texts
        ]
    )
    assert (found == wanted.to_numpy()).mean() > 0.99 and np.abs(
        found - wanted.to_numpy()
    ).max() <= 2
    assert (
        documentation_pairs(tokenizer, wanted, sentences) == texts
    )  # drawn anew, they are the same
    assert measured_lengths(texts, tokenizer).to_numpy().tolist() == found.tolist()


def test_the_nearest_length_takes_the_place_of_one_that_is_missing():
    available = [(3, 3), (5, 4), (5, 5), (9, 8), (9, 8)]
    assert matched([(3, 3), (5, 5), (6, 9), (100, 1)], available)[:3] == [0, 2, 2]
    assert {matched([(9, 8)], available, seed)[0] for seed in range(20)} == {
        3,
        4,
    }  # any of those that fit


def test_words_and_pieces_are_counted_without_special_tokens(tokenizer):
    assert words("It's a file.") == 6 and pieces(["[MASK]"], tokenizer) == [1]


# --------------------------------------------------------------------------------------------------
# ----------------- the systems
@pytest.mark.parametrize(
    "name, parameters", [("bert-base", 109_482_240), ("distilbert", 66_362_880)]
)
def test_full_size_is_the_papers(name, parameters):
    with torch.device("meta"):
        assert encoder_parameters(new_model(name)) == parameters


def test_elmo_has_the_papers_180_million():
    """93.7 M language models and the baseline's two bidirectional layers of 1,500 cells, PyTorch's
    two biases counted.
    """
    layers = sum(2 * (4 * 1500 * (inputs + 1500) + 2 * 4 * 1500) for inputs in (1024, 3000))
    with torch.device("meta"):
        assert (
            encoder_parameters(new_model("elmo")) == 93_666_400 + layers + 4
        )  # the mix: three weights and a factor
    assert round((93_666_400 + layers) / 1e7) * 10 == 180


TEXTS = [
    ("The file opens.", "A row is sorted."),
    ("The value of the big array holds.", "The path."),
    ("A list.", "The old key counts the names."),
]


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_padding_in_a_batch_of_one_and_to_the_longest_in_larger_ones(name, tokenizer_folder):
    """And padding changes no answer. A policy that pads further is caught by the count of what is
    computed.
    """
    system = new_system(name, str(tokenizer_folder), "small")
    single = [system.prepare([text]) for text in TEXTS]
    assert all(bool(one["attention_mask"].all()) for one in single)
    together = system.prepare(TEXTS)
    longest = max(one["input_ids"].shape[1] for one in single)
    assert together["input_ids"].shape == (3, longest)
    assert together["attention_mask"].sum(1).tolist() == [
        one["input_ids"].shape[1] for one in single
    ]
    torch.testing.assert_close(
        system.run(together), torch.cat([system.run(one) for one in single]), atol=1e-5, rtol=1e-4
    )


def threads_here():
    return torch.get_num_threads(), torch.get_num_interop_threads()


def test_a_fresh_process_has_the_threads_that_were_asked_for(monkeypatch):
    """And the environment is as before: libraries read their number of threads there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = threads_here(), dict(os.environ)
    assert in_pinned_process(2, threads_here) == (2, 1)
    assert (threads_here(), dict(os.environ)) == before


# --------------------------------------------------------------------------------------------------
# ----------------- the program
def test_the_command_prints_the_table_beside_the_papers_and_keeps_every_sample(
    tmp_path, capsys, monkeypatch
):
    # The process of its own has a test of its own: here nothing is imported again.
    monkeypatch.setattr(timing, "in_pinned_process", lambda threads, function, *a: function(*a))
    output = tmp_path / "timing.json"
    main(
        [
            "--size",
            "small",
            "--pairs",
            "4",
            "--rounds",
            "2",
            "--batch",
            "2",
            "--systems",
            "bert-base",
            "distilbert",
            "--output",
            str(output),
        ]
    )
    printed, record = capsys.readouterr().out, json.loads(output.read_text())
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    table = pd.DataFrame(cells[2:], columns=cells[0]).set_index("system")
    assert table["seconds"].iloc[:, 1].tolist() == ["668", "410"] and table.iloc[
        :, -1
    ].tolist() == ["1.00", "1.63"]
    assert "threads: 1" in printed and record["machine"]["processor"] in printed
    found = record["threads"]["1"]
    assert (
        found["threads"] == 1
        and len(found["rounds"]["distilbert"]) == 2
        and record["texts"]["pairs"] == 4
    )
    total = np.median(
        [750 / 2 * np.sum(one["model"]) for one in found["rounds"]["distilbert"]]
    )  # 4 pairs of 1,500
    assert found["summary"]["distilbert"]["seconds"]["median"] == pytest.approx(total, rel=1e-2)
    assert (
        0 < found["fill"]["bert-base"] <= 1 and record["padding"] == "to the longest of the batch"
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--systems", "gpt"], "'gpt'"),
        (["--pairs", "1501"], "pairs is 1501"),
        (["--rounds", "0"], "rounds is 0"),
        (["--threads", "0"], "threads is ['0']"),
        (["--data", "imdb"], "data is 'imdb'"),
        (["--thread", "2"], "did you mean 'threads'"),
        (["--output", __file__], "exists"),
        (
            ["--data", "stsb", "--data_dir", "nowhere", "--tokenizer", "data/tokenizer"],
            "nowhere is not a folder",
        ),
        (["--tokenizer", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_message(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(timing, "measure", SimpleNamespace)  # nothing may be measured
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert (
        end.value.code == 2
        and said.lower() in error.lower()
        and error.count("error: ") == 1
        and "what to do" in error
    )


def test_the_real_set_is_read_from_a_folder(tmp_path):
    """Oracle: the file itself. Of 40 pairs 10 are timed, each a pair of the file; the whole set's
    figures are counted on all 40.
    """
    chance = np.random.default_rng(0)
    sentences = [
        " ".join(chance.choice(["a", "file", "opens", "slowly", "."], 3 + i % 9)) for i in range(80)
    ]
    rows = [
        f"{i}\tg\tf\t2017\t{i}\tnone\tnone\t{sentences[i]}\t{sentences[40 + i]}\t{i % 6}.0"
        for i in range(40)
    ]
    head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("\n".join([head, *rows]) + "\n")
    config = timing.TimingConfig(
        data="stsb", data_dir=str(tmp_path), pairs=10, tokenizer=str(data_folder("tokenizer"))
    )
    texts, described = timing.load_texts(config)
    assert len(texts) == 10 and set(texts) <= set(zip(sentences[:40], sentences[40:], strict=True))
    assert (described["data"], described["pairs"], described["of"]) == ("stsb", 10, 40)
    words_a = np.mean([len(sentence.split()) for sentence in sentences[:40]])
    assert described["mean_lengths"]["words_a"]["whole set"] == pytest.approx(words_a)
