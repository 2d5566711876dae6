"""What a task gives to systems that read no language: the commonest answer, and a bag of words.

    task, data = load_task("doc-same")
    baselines(task, data)        # {"majority": {"accuracy and F1": ...}, "bag of words": {...}}
    baseline_answers(task, data) # the same systems' answers, one for each example

These stand beside every score: a task on which words alone do as well as a model needs no language
model.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from distil_lib.tasks.task import Task


def baselines(task: Task, data: Mapping[str, Dataset]) -> dict[str, dict[str, float]]:
    """The figures of two systems that learn from `data["train"]`, on the split that is reported."""
    truth = task.references(data[task.evaluation[0]])
    answers = baseline_answers(task, data)
    return {system: task.compute(given, truth) for system, given in answers.items()}


def baseline_answers(task: Task, data: Mapping[str, Dataset]) -> dict[str, Sequence]:
    """What two systems that learn from `data["train"]` answer to each example that is reported.

    "majority" is the one class that scores best on the training split, the mean label, or the
    commonest answer of the training questions. "bag of words" is logistic or ridge regression on
    TF-IDF of words and pairs of neighbouring words, for two texts also of their products,
    differences and overlap; of a context, the sentence that shares most words with the question.
    """
    train, test = data["train"], data[task.evaluation[0]]
    if task.kind == "question answering":
        commonest = Counter(
            text for answers in train["answers"] for text in answers["text"]
        ).most_common(1)[0][0]
        nearest = [
            nearest_sentence(question, context)
            for question, context in zip(test["question"], test["context"], strict=True)
        ]
        return {"majority": [commonest] * len(test), "bag of words": nearest}
    labels = np.asarray(train["label"])
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"
    )
    vectorizer.fit([text for column in _texts(train) for text in column])
    features = [_features(part, vectorizer) for part in (train, test)]
    if task.kind == "regression":
        constant, model = labels.mean(), Ridge(alpha=1.0)
        bag = np.clip(model.fit(features[0], labels).predict(features[1]), task.low, task.high)
    else:
        # The best constant answer: of balanced pairs, for F1, the positive class.
        def quality(label: int) -> tuple[float, int]:
            score = task.compute(np.full(len(labels), label), labels)[task.metric]
            return score, int((labels == label).sum())

        constant, model = (
            max(np.unique(labels), key=quality),
            LogisticRegression(C=3.0, max_iter=300),
        )
        bag = model.fit(features[0], labels).predict(features[1])
    return {"majority": np.full(len(test), constant), "bag of words": bag}


def _texts(rows: Dataset) -> list[list[str]]:
    return [rows[name][:] for name in ("text_a", "text_b") if name in rows.column_names]


def _features(rows: Dataset, vectorizer: TfidfVectorizer) -> scipy.sparse.csr_matrix:
    """(N, V) of single texts; (N, 4 V + 3) of pairs.

    For pairs: each text, product, distance; cosine, and each text's share in the other.
    """
    bags = [vectorizer.transform(column) for column in _texts(rows)]
    if len(bags) == 1:
        return bags[0]
    a, b = bags
    both = a.multiply(b)
    words = [[set(re.findall(r"\w+", text.lower())) for text in column] for column in _texts(rows)]
    shares = [
        [len(x & y) / max(len(x), 1), len(x & y) / max(len(y), 1)]
        for x, y in zip(*words, strict=True)
    ]
    overlap = np.hstack([both.sum(1), np.asarray(shares)])
    return scipy.sparse.hstack([a, b, both, abs(a - b), scipy.sparse.csr_matrix(overlap)]).tocsr()


def nearest_sentence(question: str, context: str) -> str:
    """The sentence with the most of the question's words; of several such the shortest."""
    wanted = set(re.findall(r"\w+", question.lower()))
    parts = [part for part in re.split(r"(?<=[.!?])\s+", context) if part]
    overlap = {part: len(wanted & set(re.findall(r"\w+", part.lower()))) for part in parts}
    return max(parts, key=lambda part: (overlap[part], -len(part)), default="")
