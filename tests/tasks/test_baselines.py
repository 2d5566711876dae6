"""Baselines: what words can tell they find, and what words cannot tell they do not."""

import random

import pytest
from datasets import Dataset, DatasetDict
from helpers import NOUNS

from distil_lib.tasks.baselines import baselines, nearest_sentence
from distil_lib.tasks.registry import TASKS


def pairs(number, label):
    """Two texts of five nouns, `shared` of them in common; `label` makes a label of that number."""
    chance, rows = random.Random(number), []
    for i in range(number):
        shared = i % 6
        words = chance.sample(NOUNS, 10 - shared)
        rows.append(
            {
                "text_a": " ".join(words[:5]),
                "text_b": " ".join(words[5 - shared : 10 - shared]),
                "label": label(shared, chance),
            }
        )
    return Dataset.from_list(rows)


def test_bags_of_words_find_overlap_and_do_not_find_chance():
    """Oracle: labels that are the overlap, and labels that are a coin's."""
    overlap, coin = (lambda shared, _: float(shared)), (lambda _, chance: chance.randint(0, 1))
    near = baselines(
        TASKS["stsb"], DatasetDict(train=pairs(600, overlap), validation=pairs(200, overlap))
    )
    assert near["bag of words"]["spearman"] > 90 and near["majority"]["spearman"] == 0
    chance = baselines(
        TASKS["rte"], DatasetDict(train=pairs(600, coin), validation=pairs(400, coin))
    )
    assert abs(chance["bag of words"]["accuracy"] - 50) < 4 * 50 / 400**0.5  # four standard errors


def test_the_majority_is_the_training_splits():
    rows = {"train": ["good", "fine", "bad"], "validation": ["bad", "bad", "good", "bad"]}
    label = {"good": 1, "fine": 1, "bad": 0}
    data = DatasetDict(
        {
            split: Dataset.from_dict({"text_a": w * 5, "label": [label[x] for x in w * 5]})
            for split, w in rows.items()
        }
    )
    figures = baselines(TASKS["sst2"], data)
    assert figures["majority"] == {"accuracy": 25} and figures["bag of words"] == {"accuracy": 100}


def test_the_majority_is_the_best_that_a_constant_can_do():
    """Of balanced pairs, always "yes" has an F1 of 2/3 and always "no" of 0."""
    coin = Dataset.from_dict({"text_a": ["a", "b"] * 4, "text_b": ["c"] * 8, "label": [0, 1] * 4})
    figures = baselines(TASKS["mrpc"], DatasetDict(train=coin, validation=coin))["majority"]
    assert figures == pytest.approx(
        {"accuracy and F1": (50 + 200 / 3) / 2, "accuracy": 50, "f1": 200 / 3}
    )


def test_the_nearest_sentence_by_hand():
    context = "The cat sat. A dog ran to the red house. No."
    assert nearest_sentence("Where did the dog run?", context) == "A dog ran to the red house."
    assert nearest_sentence("Who?", "") == ""
    answers = {
        "question": ["Who sat?"],
        "context": [context],
        "answers": [{"text": ["The cat"], "answer_start": [0]}],
    }
    data = DatasetDict(train=Dataset.from_dict(answers), validation=Dataset.from_dict(answers))
    figures = baselines(TASKS["squad"], data)
    assert figures["majority"]["exact match"] == 100 and figures["bag of words"][
        "f1"
    ] == pytest.approx(100 * 2 / 3)
