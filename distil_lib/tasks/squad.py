"""Extractive question answering: windows of a long context, the best span over all of them, exact match and F1.

    features = squad.encode(batch, tokenizer, max_length=384, stride=128)          # one row a window
    answers = squad.best_answers(features, start_logits, end_logits, contexts)     # one text a question
    exact_match_and_f1(answers, [["the reference", "another reference"], ...])

A context that does not fit is read in windows that overlap. The gold answer of a window that does not hold all of it is the position
of [CLS] (Devlin et al. 2019, section 4.2 and its released code).
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_lib.errors import UserError

MAX_QUESTION = 64  # tokens of a question that are read, as in BERT's released code
MAX_ANSWER = 30  # tokens of the longest answer, likewise
NOT_CONTEXT = (-1, -1)  # the offsets of tokens that are not of the context


# ------------------------------------------------------------------------------------------------------------------- metric
def normalize(answer: str) -> str:
    """Lower case, without punctuation, without the articles a, an and the, white space collapsed: as the official scorer compares."""
    without_punctuation = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def answer_f1(answer: str, reference: str) -> float:
    """The F1 of the words that two answers share, each counted as often as it occurs.

    Two answers without words agree, as in the scorer of version 2 (that of version 1.1 gives them no point).
    """
    words, expected = normalize(answer).split(), normalize(reference).split()
    if not words or not expected:
        return float(words == expected)
    shared = sum((Counter(words) & Counter(expected)).values())
    return 2 * shared / (len(words) + len(expected))


def exact_match_and_f1(
    predictions: Sequence[str], labels: Sequence[Sequence[str]]
) -> dict[str, float]:
    """SQuAD's two figures in points (Rajpurkar et al. 2016, section 6.1): each question counts the reference that fits it best.

    predictions: (N,) texts. labels: (N, at least 1) the texts of the reference answers.
    """
    pairs = list(zip(predictions, labels, strict=True))
    exact = [
        max(normalize(answer) == normalize(reference) for reference in references)
        for answer, references in pairs
    ]
    f1 = [
        max(answer_f1(answer, reference) for reference in references)
        for answer, references in pairs
    ]
    return {"f1": 100 * float(np.mean(f1)), "exact match": 100 * float(np.mean(exact))}


# ----------------------------------------------------------------------------------------------------------------- features
def check_answers(batch: Mapping[str, list]) -> None:
    """Raise `UserError` unless each answer stands in its context where its offset says."""
    for name, context, answers in zip(batch["id"], batch["context"], batch["answers"], strict=True):
        if not answers["text"]:
            raise UserError(
                f"Question {name} has no answer.",
                "SQuAD 1.1 has at least one a question; version 2 is another task.",
            )
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            if not text.strip() or context[max(start, 0) : start + len(text)] != text:
                raise UserError(
                    f"The answer {text!r} of question {name} is not in its context at character {start}.",
                    "Offsets count characters (not bytes) from the context's beginning; correct them, or leave the question out.",
                )


def encode(
    batch: Mapping[str, list],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 384,
    stride: int | None = None,
) -> dict[str, list]:
    """Windows of `[CLS] question [SEP] part of the context [SEP]`: a batched function for `Dataset.map(..., remove_columns=...)`.

    batch: columns `question`, `context`, `id`, and `answers` where there are any ({"text": [...], "answer_start": [...]}).
    max_length: tokens of a window. stride: tokens that two neighbouring windows have in common, 128 or a third of a short window.

    Returns what the tokenizer returns, and for each window: `id` of its question; `offsets` (L, 2), for each token of the context its
    first character and the one after its last, (-1, -1) for all others; `start_positions` and `end_positions`, the first and
    the last token of the first reference answer, or both that of [CLS] where the window does not hold all of it.
    """
    stride = min(128, max_length // 3) if stride is None else stride
    room = (
        max_length - min(MAX_QUESTION, max_length // 2) - 3
    )  # tokens of context beside the longest question
    if not 0 <= stride < room:
        remedy = f"Beside a question they have room for {room} tokens of context: choose a smaller stride, or longer windows."
        raise UserError(f"Windows of {max_length} tokens cannot overlap by {stride}.", remedy)
    questions = [
        _shorten(question, tokenizer, min(MAX_QUESTION, max_length // 2))
        for question in batch["question"]
    ]
    windows = tokenizer(
        questions,
        batch["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    rows = windows.pop("overflow_to_sample_mapping")
    offsets = windows.pop("offset_mapping")
    features = dict(windows) | {
        "id": [batch["id"][row] for row in rows],
        "offsets": [],
        "start_positions": [],
        "end_positions": [],
    }
    for window, row in enumerate(rows):
        in_context = [part == 1 for part in windows.sequence_ids(window)]
        spans = [
            span if inside else NOT_CONTEXT
            for span, inside in zip(offsets[window], in_context, strict=True)
        ]
        features["offsets"].append(spans)
        if "answers" in batch:
            cls = windows["input_ids"][window].index(tokenizer.cls_token_id)
            start, end = _stream_state(batch["answers"][row], spans, batch["context"][row], cls)
            features["start_positions"].append(start)
            features["end_positions"].append(end)
    return {name: column for name, column in features.items() if column}


def _shorten(question: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    """The question without leading white space (some have hundreds of blanks), cut after so many tokens."""
    question = question.lstrip()
    spans = tokenizer(
        question, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return question if len(spans) <= tokens else question[: spans[tokens - 1][1]]


def _stream_state(
    answers: Mapping[str, list], spans: Sequence[tuple[int, int]], context: str, cls: int
) -> tuple[int, int]:
    """First and last token of the first reference answer in a window, or (cls, cls) if a part of it lies outside."""
    text = answers["text"][0]
    start = answers["answer_start"][0] + len(text) - len(text.lstrip())
    end = start + len(text.strip())
    inside = [
        token
        for token, (first, last) in enumerate(spans)
        if last > start and first < end and last > first >= 0
    ]
    if not inside:
        return cls, cls
    first, last = inside[0], inside[-1]
    # An answer that goes on outside has the window's border in its middle, not white space or a token that covers its end.
    whole = (
        not context[start : spans[first][0]].strip() and not context[spans[last][1] : end].strip()
    )
    return (first, last) if whole else (cls, cls)


def best_answers(
    features: Mapping[str, Sequence],
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    contexts: Mapping[str, str],
    max_answer: int = MAX_ANSWER,
) -> dict[str, str]:
    """The text of the best span of each question, over all its windows: the largest start + end logit of at most `max_answer` tokens.

    features: `id` and `offsets` of W windows, as from `encode`. start_logits, end_logits: (W, L), L at least the longest window.
    contexts: from `id` to the context. A question whose context has no token has the answer "".
    """
    best: dict[str, tuple[float, str]] = {}
    for window, name in enumerate(features["id"]):
        spans = np.asarray(features["offsets"][window])
        tokens = np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 1] > spans[:, 0]))
        best.setdefault(name, (-np.inf, ""))
        if not len(tokens):
            continue
        scores = (
            np.asarray(start_logits[window], np.float64)[tokens][:, None]
            + np.asarray(end_logits[window], np.float64)[tokens]
        )
        length = tokens - tokens[:, None] + 1
        scores[(length < 1) | (length > max_answer)] = -np.inf
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[first, last] > best[name][0]:
            best[name] = (
                scores[first, last],
                contexts[name][spans[tokens[first], 0] : spans[tokens[last], 1]],
            )
    return {name: answer for name, (_, answer) in best.items()}
