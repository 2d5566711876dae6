"""Extractive question answering: windows of a long context, the best span, exact match and F1.

    features = squad.encode(batch, tokenizer, max_length=384, stride=128)      # one row a window
    answers = squad.best_answers(features, start_logits, end_logits, contexts) # one text a question
    exact_match_and_f1(answers, [["the reference", "another reference"], ...])

A context that does not fit is read in windows that overlap. The gold answer of a window that does
not hold all of it is the position of [CLS] (Devlin et al. 2019, section 4.2 and its released code).
Windows and questions belong together by the question's row: ids are names, and may occur twice.
"""

import json
import re
import reprlib
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_lib.errors import UserError

COLUMNS = ("id", "question", "context", "answers")
MAX_QUESTION = 64  # tokens of a question that are read, as in BERT's released code
MAX_ANSWER = 30  # tokens of the longest answer, likewise
NOT_CONTEXT = (-1, -1)  # the offsets of tokens that are not of the context


# ----------------------------------------------------------------------------------------- metric
def normalize(answer: str) -> str:
    """An answer as the official scorer compares it.

    Lower case, no punctuation, no articles a, an and the, white space collapsed.
    """
    without_punctuation = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def answer_f1(answer: str, reference: str) -> float:
    """The F1 of the words that two answers share, each counted as often as it occurs.

    Two answers without words agree, as in the scorer of version 2; that of version 1.1 gives them
    no point.
    """
    words, expected = normalize(answer).split(), normalize(reference).split()
    if not words or not expected:
        return float(words == expected)
    shared = sum((Counter(words) & Counter(expected)).values())
    return 2 * shared / (len(words) + len(expected))


def exact_match_and_f1(
    predictions: Sequence[str], labels: Sequence[Sequence[str]]
) -> dict[str, float]:
    """SQuAD's two figures in points (Rajpurkar et al. 2016, section 6.1).

    Of several references the one counts that fits a prediction best.

    Args:
        predictions: (N,) texts.
        labels: (N, at least 1) the texts of the reference answers.
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


# ----------------------------------------------------------------------------------- questions
def read_questions(file: Path) -> Iterator[dict]:
    """The questions of a file in SQuAD's JSON, in the columns of the Hub; titles are not needed.

    Raises:
        UserError: if the file is of another form.
        ValueError: if it is no JSON.
    """
    number = 0
    for a, article in enumerate(
        _list(json.loads(file.read_text(encoding="utf-8-sig")), "data", f"{file}")
    ):
        for p, paragraph in enumerate(_list(article, "paragraphs", f"{file}, article {a + 1}")):
            where = f"{file}, article {a + 1}, paragraph {p + 1}"
            for question in _list(paragraph, "qas", where):
                number += 1
                where = f"Question {number} of {file}"
                answers = _list(question, "answers", where)
                row = {
                    "id": question.get("id"),
                    "context": paragraph.get("context"),
                    "question": question.get("question"),
                    "answers": {
                        key: [answer.get(key) for answer in answers if isinstance(answer, dict)]
                        for key in ("text", "answer_start")
                    },
                }
                check_question(row, where)
                yield row | {"id": str(row["id"])}


def _list(parent: Any, key: str, where: str) -> list:
    values = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(values, list):
        raise UserError(
            f"{where} has no list {key!r}.", "Pass a file in the format of SQuAD 1.1: version 1.1."
        )
    return values


def check_question(row: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` unless a question is complete and each answer stands at its offset.

    Args:
        row: the columns of `COLUMNS`; `answers` may be absent.
        where: the row, for the message.
    """
    for name in ("question", "context"):
        if not isinstance(row[name], str):
            raise UserError(
                f"{where} has the {name} {reprlib.repr(row[name])}.",
                "Expected is text: correct the row, or leave it out.",
            )
    if isinstance(row["id"], bool) or not isinstance(row["id"], str | int):
        raise UserError(
            f"{where} has the id {reprlib.repr(row['id'])}.", "Expected is text or a whole number."
        )
    if "answers" not in row:
        return
    answers, context = row["answers"], row["context"]
    texts, starts = (
        (answers.get(key) if isinstance(answers, Mapping) else None)
        for key in ("text", "answer_start")
    )
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise UserError(
            f"{where} has the answers {reprlib.repr(answers)}.",
            'Expected is {"text": [...], "answer_start": [...]}, one start for each text.',
        )
    if not texts:
        raise UserError(
            f"{where}: question {row['id']} has no answer.",
            "SQuAD 1.1 has at least one for each question; version 2 is another task.",
        )
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or isinstance(start, bool) or not isinstance(start, int):
            raise UserError(
                f"{where} has an answer {reprlib.repr(text)} at {reprlib.repr(start)}.",
                "Expected is text and the number of its first character.",
            )
        if not text.strip() or start < 0 or context[start : start + len(text)] != text:
            raise UserError(
                f"{where}: the answer {text[:200]!r} of question {row['id']} is not in its "
                f"context at character {start}.",
                "Offsets count characters (not bytes) from the beginning of the context: correct "
                "them, or leave the question out.",
            )


# ------------------------------------------------------------------------------------- features
def encode(
    batch: Mapping[str, list],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 384,
    stride: int | None = None,
) -> dict[str, list]:
    """Windows of `[CLS] question [SEP] part of the context [SEP]`, for `Dataset.map`.

    Args:
        batch: columns `question` and `context`; `answers` where there are any ({"text": [...],
            "answer_start": [...]}); `row`, the numbers of the questions, if they are not 0, 1, ...
        tokenizer: a fast one, which knows its offsets.
        max_length: tokens of a window.
        stride: tokens that two neighbouring windows share; 128, or a third of a short window.

    Returns:
        What the tokenizer returns, and for each window: `row` of its question; `offsets` (L, 2),
        for each token of the context its first character and the one after its last, (-1, -1) for
        all others; `start_positions` and `end_positions`, the first and the last token of the
        first reference answer, or both that of [CLS] where the window does not hold all of it.
    """
    stride = min(128, max_length // 3) if stride is None else stride
    longest = min(MAX_QUESTION, max_length // 2)  # question
    room = max_length - longest - 3
    if not 0 <= stride < room:
        raise UserError(
            f"Windows of {max_length} tokens cannot overlap by {stride}.",
            f"Beside a question they have room for {room} tokens of context: choose longer ones.",
            setting="max_length",
        )
    questions = [_shorten(question, tokenizer, longest) for question in batch["question"]]
    windows = tokenizer(
        questions,
        batch["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sources = windows.pop("overflow_to_sample_mapping")
    offsets = windows.pop("offset_mapping")
    numbers = batch.get("row", range(len(questions)))
    features: dict[str, list] = dict(windows) | {
        "row": [numbers[source] for source in sources],
        "offsets": [],
        "start_positions": [],
        "end_positions": [],
    }
    for window, row in enumerate(sources):
        spans = [
            span if part == 1 else NOT_CONTEXT
            for span, part in zip(offsets[window], windows.sequence_ids(window), strict=True)
        ]
        features["offsets"].append(spans)
        if "answers" in batch:
            cls = windows["input_ids"][window].index(tokenizer.cls_token_id)
            start, end = _positions(batch["answers"][row], spans, batch["context"][row], cls)
            features["start_positions"].append(start)
            features["end_positions"].append(end)
    return {name: column for name, column in features.items() if column}


def _shorten(question: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    """The question without leading white space (some have hundreds), cut after so many tokens."""
    question = question.lstrip()
    spans = tokenizer(
        question, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return question if len(spans) <= tokens else question[: spans[tokens - 1][1]]


def _positions(
    answers: Mapping[str, list], spans: Sequence[tuple[int, int]], context: str, cls: int
) -> tuple[int, int]:
    """First and last token of the first reference answer in a window.

    Both are `cls` if a part of the answer is not in the window.
    """
    text = answers["text"][0]
    start = answers["answer_start"][0] + len(text) - len(text.lstrip())
    end = start + len(text.strip())
    inside = [i for i, (a, b) in enumerate(spans) if b > start and a < end and b > a >= 0]
    if not inside:
        return cls, cls
    first, last = inside[0], inside[-1]
    # Of an answer that continues outside, what is left over is more than white space.
    outside = context[start : spans[first][0]] + context[spans[last][1] : end]
    return (cls, cls) if outside.strip() else (first, last)


def best_answers(
    features: Mapping[str, Sequence],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    contexts: Sequence[str],
    max_answer: int = MAX_ANSWER,
) -> list[str]:
    """The text of the best span of each question, over all its windows.

    The best span has the largest sum of a start and an end logit.

    Args:
        features: `row` and `offsets` of W windows, as from `encode`.
        start_logits: (W, L), L at least the longest window.
        end_logits: likewise.
        contexts: of all questions, in the order of their rows.
        max_answer: tokens of the longest span.

    Returns:
        One text a question; "" where a context has no token.
    """
    best = [(-np.inf, "")] * len(contexts)
    for window, row in enumerate(features["row"]):
        spans = np.asarray(features["offsets"][window])
        tokens = np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 1] > spans[:, 0]))
        if not len(tokens):
            continue
        starts = np.asarray(start_logits[window], np.float64)[tokens]
        ends = np.asarray(end_logits[window], np.float64)[tokens]
        scores = starts[:, None] + ends
        length = tokens - tokens[:, None] + 1
        scores[(length < 1) | (length > max_answer)] = -np.inf
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[first, last] > best[row][0]:
            text = contexts[row][spans[tokens[first], 0] : spans[tokens[last], 1]]
            best[row] = scores[first, last], text
    return [text for _, text in best]
