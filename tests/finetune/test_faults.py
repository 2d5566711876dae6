"""Faults that could give a wrong result in silence: each is refused, or gives the right one."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import ADJECTIVES, NOUNS
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    EsmConfig,
    LongformerConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from distil_lib.common.files import locked
from distil_lib.errors import UserError
from distil_lib.finetune.__main__ import main
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.finetune.features import Split, encode
from distil_lib.finetune.models import UNLIMITED, load_task_model, positions
from distil_lib.finetune.records import read_record
from distil_lib.finetune.runner import finetune
from distil_lib.tasks.registry import TASKS, find_task, load_task
from distil_lib.tasks.task import Task


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """A DistilBERT of one layer with random weights and its tokenizer."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=1, n_heads=2, dropout=0
    )
    folder = tmp_path_factory.mktemp("model")
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def news(tmp_path_factory):
    """AG News in small: four classes, which a word of the text tells."""
    folder, random = tmp_path_factory.mktemp("news"), np.random.default_rng(0)
    for split, rows in (("train", 160), ("test", 40)):
        labels = random.integers(0, 4, rows)
        texts = [f"The {random.choice(ADJECTIVES)} {NOUNS[label]} holds." for label in labels]
        frame = Dataset.from_dict({"text": texts, "label": labels}).to_pandas()
        frame.to_csv(folder / f"{split}.csv", index=False)
    declaration = "source: .\ntext: text\nlabel: label\nmetric: accuracy\nsplits: [train, test]\n"
    (folder / "ag_news.yaml").write_text(declaration)
    return folder


@pytest.fixture
def settings(model, news, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {
        "model": str(model),
        "task": str(news / "ag_news.yaml"),
        "seeds": 1,
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "precision": "fp32",
        "threads": 1,
    }


def words(settings):
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def refused(settings, capsys):
    """What the command says on standard error, with exit code 2 and nothing printed before."""
    with pytest.raises(SystemExit) as stop:
        main(words(settings))
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.count("\n") == 2 and "%" not in said.out, said
    return said.err


# ------------------------------------------------------------------------------------- own tasks
def test_an_own_task_is_learned_and_its_record_is_in_runs(settings, model, news, tmp_path, capsys):
    """By the command and by a `Task`: the same answers; the default output is in runs/."""
    main(words(settings))
    file = tmp_path / "runs" / "results" / model.name / "ag_news.json"
    record = read_record(file)
    assert record["summary"]["test"]["accuracy"]["median"] > 70  # chance: 25
    assert record["configuration"]["declaration"]["labels"] == ["0", "1", "2", "3"]
    main(words(settings | {"compare_with": file}))
    assert "100.0% of" in capsys.readouterr().out
    task = Task(
        "mine",
        "classification",
        ("text",),
        "accuracy",
        folder=str(news),
        splits=("train", "test"),
        evaluation=("test",),
    )
    other = finetune(FinetuneConfig(**settings | {"task": task}))
    assert other["seeds"]["0"]["predictions"] == record["seeds"]["0"]["predictions"]
    assert (file.parent / "mine.json").is_file()


def test_a_comparison_says_in_which_settings_the_recipes_differ(settings, tmp_path, capsys):
    main(words(settings | {"output": "teacher.json", "seeds": 2}))
    capsys.readouterr()
    main(words(settings | {"epochs": 3, "train_rows": 100, "compare_with": "teacher.json"}))
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    for difference in ("epochs 3 and 8", "training rows 100 and 160", "seeds 1 and 2"):
        assert difference in note


def test_two_at_once_do_not_write_one_record(settings, tmp_path, capsys):
    with locked(tmp_path / "mine.json"):
        said = refused(settings | {"output": "mine.json"}, capsys)
    assert "Another run is at work" in said and not (tmp_path / "mine.json").exists()


# -------------------------------------------------------------------------------- not-a-number
def test_a_diverged_training_stops_with_the_step(settings, tmp_path, capsys):
    said = refused(settings | {"learning_rate": 1e30}, capsys)
    assert "The loss of step 2 is" in said or "The loss of step 3 is" in said
    assert "--learning_rate" in said
    assert not list((tmp_path / "runs").rglob("*.json"))


def test_a_training_of_one_step_that_ends_in_nan_is_no_result(settings, capsys):
    """No loss shows it; the scores do."""
    short = {"learning_rate": 1e30, "epochs": 1, "train_rows": 8, "warmup_ratio": 0}
    said = refused(settings | short, capsys)
    assert "diverged" in said or "not finite" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(settings, model, tmp_path, capsys, value):
    damaged = shutil.copytree(model, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    name = sorted(weights)[3]
    weights[name].view(-1)[0] = value
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    assert name in refused(settings | {"model": damaged}, capsys)


@pytest.mark.parametrize("name", ["sst2", "stsb"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_are_no_score(name, value):
    """An argmax would call them class 0, a correlation 0 points."""
    shape = (3, 2) if name == "sst2" else (3,)
    predictions = np.zeros(shape)
    predictions[1] = value
    with pytest.raises(UserError, match="not finite"):
        TASKS[name].compute(predictions, [0, 1, 1])


def test_a_head_that_was_never_trained_is_not_scored(settings, model, tmp_path, tokenizer, capsys):
    """Neither one that is missing, nor one of which a part is missing."""
    assert "has the labels LABEL_0, LABEL_1" in refused(settings | {"evaluate_only": True}, capsys)
    folder = tmp_path / "partly"
    task = load_task(settings["task"])[0]
    load_task_model(str(model), task, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused(settings | {"model": folder, "evaluate_only": True}, capsys)
    assert "has not learned ag_news: it has no classifier.bias" in said


@pytest.mark.parametrize("name", ["save", "predict", "output"])
def test_what_cannot_be_written_is_known_before_the_training(
    settings, tmp_path, capsys, name, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("distil_lib.finetune.finetuning.TaskTrainer", None)  # training would fail
    said = refused(settings | {name: tmp_path / "file" / "x" / "y.tsv"}, capsys)
    assert f"--{name}" in said and "cannot be written" in said


@pytest.mark.parametrize("name", ["predict", "output"])
@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_folder_in_the_place_of_a_file_is_refused(settings, capsys, name, place):
    """Such paths have no name of their own, or none that a file may have."""
    said = refused(settings | {name: place}, capsys)
    assert "Is a directory" in said or "no regular file" in said


# ------------------------------------------------------------------------------------- questions
@pytest.mark.parametrize("ids", ["distinct", "shared"])
def test_gold_positions_give_100_whatever_the_ids(tokenizer, ids):
    """Questions that share an id share nothing else."""
    rows = [
        {
            "id": str(i) if ids == "distinct" else "one",
            "question": "Which name?",
            "context": f"The {ADJECTIVES[i]} {NOUNS[i]} holds the {NOUNS[-1 - i]}. " * 3,
            "answers": {"text": [NOUNS[i]], "answer_start": [len(f"The {ADJECTIVES[i]} ")]},
        }
        for i in range(10)
    ]
    task, data = find_task("squad"), Dataset.from_list(rows)
    split = Split(task, data, encode(task, data, tokenizer, 24))
    assert len(split.features) > len(data)
    outputs = {}
    for end in ("start", "end"):
        outputs[f"{end}_logits"] = [
            # A window without the answer points to [CLS], which is no span: it says nothing.
            np.eye(len(row["input_ids"]))[row[f"{end}_positions"]]
            for row in split.features
        ]
    assert task.compute(split.decode(outputs), split.references) == {"f1": 100, "exact match": 100}


def squad_file(folder, **changes):
    question = {"id": "q", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]}
    paragraph = {"context": "The cat sat.", "qas": [question | changes]}
    if "context" in changes:
        paragraph["context"] = changes["context"]
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (folder / name).write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))


def test_titles_are_not_needed_and_numbers_may_be_ids(tmp_path):
    squad_file(tmp_path, id=5)
    assert load_task("squad", tmp_path)[1]["train"]["id"][:] == ["5"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": None}, "question None"),
        ({"question": 5}, "question 5"),
        ({"context": None}, "context None"),
        ({"id": None}, "id None"),
        ({"id": True}, "id True"),
        ({"answers": None}, "no list 'answers'"),
        ({"answers": []}, "no answer"),
        ({"answers": [{"text": "cat", "answer_start": "4"}]}, "'cat' at '4'"),
        ({"answers": [{"text": "cat", "answer_start": True}]}, "'cat' at True"),
        ({"answers": [{"text": None, "answer_start": 4}]}, "None at 4"),
        ({"answers": [{"text": "cat"}]}, "'cat' at None"),
        ({"answers": [{"text": "dog", "answer_start": 4}]}, "'dog' of question q"),
    ],
)
def test_bad_questions_are_named(tmp_path, changes, said):
    squad_file(tmp_path, **changes)
    with pytest.raises(UserError, match=r"Question 1 of .*train-v1\.1\.json") as raised:
        load_task("squad", tmp_path)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["5", "[]", '{"data": 5}', '{"data": [5]}', '{"data": [{}]}', "{"])
def test_what_is_no_squad_file_is_said(tmp_path, text):
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"train-v1\.1\.json"):
        load_task("squad", tmp_path)


# ------------------------------------------------------------------------------------- positions
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, intermediate_size=8, max_position_embeddings=20, vocab_size=9),
        *(
            family(
                **SMALL,
                intermediate_size=8,
                max_position_embeddings=20,
                vocab_size=9,
                pad_token_id=padding,
                **({"attention_window": 4} if family is LongformerConfig else {}),
            )
            for family in (RobertaConfig, XLMRobertaConfig, CamembertConfig, EsmConfig, MPNetConfig)
            for padding in (1, 3)
        ),
    ],
    ids=lambda config: f"{config.model_type}-{config.pad_token_id}",
)
def test_the_longest_text_is_read_and_one_token_more_is_not(config):
    """Oracle: the model itself."""
    model, longest = (
        AutoModelForSequenceClassification.from_config(config).eval(),
        positions(config),
    )
    ids = torch.full((1, longest + 1), 5)
    assert model(ids[:, :-1]).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(ids)


def test_relative_positions_have_no_limit():
    config = XLNetConfig(d_model=8, n_layer=1, n_head=1, d_inner=8, vocab_size=9)
    assert positions(config) == UNLIMITED
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert model(torch.full((1, 700), 5)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
    ],
)
def test_nothing_in_the_environment_changes_the_arithmetic_unseen(
    name, value, settings, monkeypatch, tmp_path
):
    """A record of fp32 was computed in bf16."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError):
        finetune(FinetuneConfig(**settings))
    assert not list(tmp_path.rglob("*.json"))
