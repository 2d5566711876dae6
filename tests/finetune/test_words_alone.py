"""The bag of words' record: the rows of the model's, and an interval that can be drawn from it.

Oracle: a task whose word decides the label, of which a bag of words answers everything rightly, and
`baselines` on the same rows.
"""

import json

import pytest
from datasets import Dataset, DatasetDict

from distil_lib.errors import UserError
from distil_lib.finetune import words_alone
from distil_lib.finetune.records import join_numbers, read_record
from distil_lib.finetune.retention import retention
from distil_lib.tasks.baselines import baselines
from distil_lib.tasks.registry import TASKS, fingerprints


def rows(number: int) -> Dataset:
    texts = [f"{'good' if i % 3 else 'bad'} film {i}" for i in range(number)]
    return Dataset.from_dict({"text_a": texts, "label": [int(i % 3 > 0) for i in range(number)]})


@pytest.fixture
def model(monkeypatch):
    """The record of a model that answers every other example rightly, and 30 of 60 rows."""
    data = DatasetDict(train=rows(60), validation=rows(40))
    monkeypatch.setattr(
        words_alone, "load_task", lambda *_, **__: (TASKS["sst2"], DatasetDict(data))
    )
    truth = data["validation"]["label"][:]
    answers = [y if i % 2 else 1 - y for i, y in enumerate(truth)]
    drawn = words_alone.drawn_rows(data["train"], 30)
    data_hashes = fingerprints({"train": drawn, "validation": data["validation"]})
    return {
        "task": "sst2",
        "metric": "accuracy",
        "split": "validation",
        "configuration": {"train_rows": 30, "data": data_hashes},
        "labels": {"validation": join_numbers(truth)},
        "seeds": {
            "0": {
                "scores": {"validation": {"accuracy": 50.0}},
                "predictions": {"validation": join_numbers(answers)},
            }
        },
    }


def test_the_record_is_of_the_same_rows_and_can_be_compared(model, tmp_path):
    file = tmp_path / "teacher" / "sst2.json"
    file.parent.mkdir()
    file.write_text(json.dumps(model), encoding="utf-8")
    words_alone.main([str(file)])
    record = read_record(tmp_path / "bag-of-words" / "sst2.json")
    data = DatasetDict(train=words_alone.drawn_rows(rows(60), 30), validation=rows(40))
    expected = baselines(TASKS["sst2"], data)
    assert record["rows"] == {"train": 30, "validation": 40}
    assert record["summary"]["validation"]["accuracy"]["median"] == 100
    assert record["majority"]["validation"] == expected["majority"]
    assert retention(model, record)["retention"] == 50


def test_other_rows_are_refused(model):
    model["configuration"]["data"]["validation"] = "0"
    with pytest.raises(UserError, match="rows of sst2"):
        words_alone.words_alone(model)


def test_without_a_file_it_says_what_it_wants(capsys):
    with pytest.raises(SystemExit) as end:
        words_alone.main([])
    assert end.value.code == 2 and "No result of fine-tuning is named" in capsys.readouterr().err
