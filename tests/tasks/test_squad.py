"""Question answering: the metric by hand, windows by round trip, the best span by trying all of
them.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.tasks import squad
from distil_lib.tasks.squad import answer_f1, exact_match_and_f1, normalize


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The  Cat!", "cat"),
        ("an apple, a day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("a\n b\tthe", "b"),
        ("the-end", "theend"),  # punctuation goes before articles are looked for
    ],
)
def test_answers_are_compared_without_case_punctuation_and_articles(answer, plain):
    assert normalize(answer) == plain


def test_metric_by_hand():
    """Of "in the big red house" and "the red house": 2 words shared of 4 and 2, F1 = 2 * 2 / (4 +
    2).
    """
    assert answer_f1("in the big red house", "the red house") == pytest.approx(2 / 3)
    assert answer_f1("red red", "red") == pytest.approx(2 / 3)  # each occurrence counts once
    assert answer_f1("blue", "red") == 0
    figures = exact_match_and_f1(
        ["The Red House.", "big house", ""],
        [["no", "red house"], ["big red house", "old house"], ["x"]],
    )
    assert figures == pytest.approx({"f1": 100 * (1 + 4 / 5 + 0) / 3, "exact match": 100 / 3})


@given(
    st.lists(st.text(alphabet="ab the.", max_size=12), min_size=1, max_size=5),
    st.text(alphabet="ab the.", max_size=12),
)
def test_metric_is_bounded_and_grows_with_references(references, answer):
    one, all_of_them = (
        exact_match_and_f1([answer], [chosen]) for chosen in (references[:1], references)
    )
    assert 0 <= all_of_them["exact match"] <= all_of_them["f1"] <= 100
    assert all(one[name] <= all_of_them[name] for name in one)
    assert exact_match_and_f1([answer], [[*references, answer]]) == {"f1": 100, "exact match": 100}


VOCABULARY = "array axis returns unbelievable naïve x1 (value) the Größe e.g. 漢字 [0,".split()
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    words=WORDS,
    gaps=st.sampled_from([" ", "  ", "\n\n"]),
    max_length=st.integers(16, 40),
)
def test_gold_positions_give_back_the_answer_in_every_window_that_holds_it(
    tokenizer, data, words, gaps, max_length
):
    """Round trip: text -> positions -> offsets -> text; and a window whose text lacks the answer
    points to [CLS].
    """
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 5, len(words) - 1)))
    context = gaps.join(words)
    start = len(gaps.join(words[:first])) + (len(gaps) if first else 0)
    answer = gaps.join(words[first : last + 1])
    batch = {
        "id": ["q"],
        "question": ["Which value?"],
        "context": [context],
        "answers": [{"text": [answer], "answer_start": [start]}],
    }
    squad.check_question({name: values[0] for name, values in batch.items()}, "Row 1")
    features = squad.encode(
        batch, tokenizer, max_length, stride=data.draw(st.integers(0, max_length // 2 - 4))
    )
    windows = list(
        zip(
            features["offsets"],
            features["start_positions"],
            features["end_positions"],
            features["input_ids"],
            strict=True,
        )
    )
    seen = set()
    for offsets, begin, end, ids in windows:
        assert len(ids) == len(offsets) <= max_length
        inside = [span for span in map(tuple, offsets) if span != squad.NOT_CONTEXT]
        seen |= set(inside)
        if inside[0][0] <= start and inside[-1][1] >= start + len(answer):
            assert context[offsets[begin][0] : offsets[end][1]] == answer
        else:
            assert begin == end == 0 and ids[0] == tokenizer.cls_token_id
    assert seen == set(
        tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    )  # nothing is lost


def test_an_answer_that_no_window_holds_whole_is_nowhere(tokenizer):
    """Its two halves are each in a window, and no pair of positions would be right."""
    context = " ".join(["array"] * 40)
    batch = {
        "id": ["q"],
        "question": ["Which?"],
        "context": [context],
        "answers": [{"text": [context], "answer_start": [0]}],
    }
    features = squad.encode(batch, tokenizer, 24, stride=2)
    assert len(features["row"]) > 2
    assert set(features["start_positions"]) == set(features["end_positions"]) == {0}


def test_a_long_question_is_shortened_and_the_context_still_read(tokenizer):
    batch = {
        "id": ["q"],
        "question": [" " * 50 + "value " * 300],
        "context": ["The old array holds the value."],
    }
    features = squad.encode(batch, tokenizer, 32)
    assert (
        all(len(ids) <= 32 for ids in features["input_ids"]) and "start_positions" not in features
    )
    assert max(end for offsets in features["offsets"] for _, end in offsets) == len(
        batch["context"][0]
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), max_answer=st.integers(1, 6))
def test_the_best_span_is_the_best_of_all(tokenizer, seed, max_answer):
    """Oracle: every pair of context tokens of every window, tried one by one."""
    contexts = {
        "a": "The old array holds the value of a small row. " * 3,
        "b": "A list sorts the new key.",
    }
    batch = {
        "id": list(contexts),
        "question": ["Which value?", "What?"],
        "context": list(contexts.values()),
    }
    features = squad.encode(batch, tokenizer, 20, stride=4)
    assert features["row"].count(0) > 2
    longest = max(map(len, features["input_ids"]))
    start, end = (
        np.random.default_rng(seed)
        .normal(size=(2, len(features["row"]), longest))
        .astype(np.float32)
    )
    best = {}
    for window, name in enumerate(list(contexts)[row] for row in features["row"]):
        spans = features["offsets"][window]
        for i in range(len(spans)):
            for j in range(i, min(i + max_answer, len(spans))):
                score = np.float64(start[window, i]) + np.float64(end[window, j])
                if (
                    spans[i] != squad.NOT_CONTEXT
                    and spans[j] != squad.NOT_CONTEXT
                    and score > best.get(name, (-np.inf,))[0]
                ):
                    best[name] = score, contexts[name][spans[i][0] : spans[j][1]]
    found = squad.best_answers(features, start, end, list(contexts.values()), max_answer)
    assert found == [best[name][1] for name in contexts]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"text": ["cat"], "answer_start": [5]}, "'cat'"),
        ({"text": ["dog"], "answer_start": [-3]}, "'dog'"),
        ({"text": ["The", "cat"], "answer_start": [0, 0]}, "'cat'"),
        ({"text": [" "], "answer_start": [3]}, "' '"),
        ({"text": [], "answer_start": []}, "no answer"),
    ],
)
def test_an_answer_that_is_not_in_its_context_is_refused(answers, words):
    with pytest.raises(UserError, match=words):
        row = {"id": "q7", "question": "Who?", "context": "The cat. A dog", "answers": answers}
        squad.check_question(row, "Row 7")


@pytest.mark.parametrize(("max_length", "stride"), [(20, 12), (20, -1), (4, None)])
def test_windows_that_cannot_overlap_so_far_are_refused(tokenizer, max_length, stride):
    with pytest.raises(UserError, match="cannot overlap"):
        squad.encode(
            {"id": ["q"], "question": ["Which?"], "context": ["The value."]},
            tokenizer,
            max_length,
            stride,
        )
