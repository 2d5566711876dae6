"""Fine-tuning: a toy task is learned, seeds repeat, killed calls go on, a second teacher teaches,
and bad input is one message.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from helpers import (
    ADJECTIVES,
    IMPATIENT,
    NOUNS,
    VERBS,
    Finished,
    assert_user_error,
    free_port,
    replace,
    signal_at,
)
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from distil_lib.finetune import finetuning as program_file
from distil_lib.finetune.__main__ import main
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.finetune.features import Split, write_predictions
from distil_lib.finetune.finetuning import Finetuning
from distil_lib.finetune.models import label_order, load_task_model
from distil_lib.finetune.records import (
    join_numbers,
    median_and_quartiles,
    read_record,
    split_numbers,
)
from distil_lib.finetune.runner import finetune
from distil_lib.finetune.trainer import task_loss
from distil_lib.losses import soft_target_loss
from distil_lib.tasks.registry import find_task


# ---------------------------------------------------------------------------- tiny models and tasks
@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory):
    """A DistilBERT and a BERT of 2 layers x 32 with random weights, masked-language models like
    those in data/.
    """
    torch.manual_seed(0)
    few = {"vocab_size": len(tokenizer), "max_position_embeddings": 48}
    small = DistilBertConfig(
        dim=32,
        hidden_dim=64,
        n_layers=2,
        n_heads=2,
        dropout=0,
        attention_dropout=0,
        seq_classif_dropout=0,
        **few,
    )
    large = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, **few
    )
    folder = tmp_path_factory.mktemp("models")
    for name, model in (
        ("student", DistilBertForMaskedLM(small)),
        ("bert", BertForMaskedLM(large)),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """SST-2's files, positive where the noun is `array`; SQuAD's, where the answer is always the
    noun before `of`.
    """
    folder, chance = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, rows in (("train", 128), ("dev", 50), ("test", 10)):
        labels = chance.integers(0, 2, rows)
        texts = [
            f"The {chance.choice(ADJECTIVES[4:])} {noun} {chance.choice(VERBS)}."
            for noun in np.array(["word", "array"])[labels]
        ]
        lines = (
            ["index\tsentence", *(f"{i}\t{t}" for i, t in enumerate(texts))]
            if split == "test"
            else [
                "sentence\tlabel",
                *(f"{t}\t{label}" for t, label in zip(texts, labels, strict=True)),
            ]
        )
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        questions = []
        for i in range(rows):
            start = "The " + chance.choice(ADJECTIVES) + " "
            noun = str(chance.choice(NOUNS))
            answers = [{"text": noun, "answer_start": len(start)}]
            context = f"{start}{noun} of a {chance.choice(ADJECTIVES)} {chance.choice(NOUNS)}."
            questions.append(
                {
                    "context": context,
                    "qas": [{"id": f"{split}{i}", "question": "Which name?", "answers": answers}],
                }
            )
        if split != "test":
            (folder / f"{split}-v1.1.json").write_text(
                json.dumps({"data": [{"title": "t", "paragraphs": questions}]})
            )
    return folder


@pytest.fixture
def settings(models, data, tmp_path):
    """Settings of a fine-tuning that takes about a second."""
    return {
        "model": str(models / "student"),
        "task": "sst2",
        "data_dir": str(data),
        "seeds": 1,
        "output": str(tmp_path / "result.json"),
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "max_length": 24,
        "precision": "fp32",
        "threads": 1,
    }


def words(settings: dict) -> list[str]:
    pairs = [("--" + name, value) for name, value in settings.items()]
    return [
        word for name, value in pairs for word in ([name] if value is True else [name, str(value)])
    ]


def outcome(record: dict) -> dict:
    """A record without what no two calls have in common."""
    times = ("seconds", "tokens_per_second", "begun")
    seeds = {
        seed: {k: v for k, v in run.items() if k not in times}
        for seed, run in record["seeds"].items()
    }
    return {k: v for k, v in record.items() if k != "command"} | {"seeds": seeds}


# ---------------------------------------------------------------------------------- what is learned
def test_a_separable_task_is_learned_and_the_kept_model_gives_the_same_answers(settings, tmp_path):
    """The score is that of the model after the last step: scored again from its folder, it is the
    same to the last answer.
    """
    record = finetune(
        FinetuneConfig(**settings, save=str(tmp_path / "kept"), predict=str(tmp_path / "SST-2.tsv"))
    )
    assert record["summary"]["validation"]["accuracy"]["median"] > 95 and record == read_record(
        settings["output"]
    )
    right = split_numbers(record["labels"]["validation"]) == split_numbers(
        record["seeds"]["0"]["predictions"]["validation"]
    )
    assert record["seeds"]["0"]["scores"]["validation"]["accuracy"] == pytest.approx(
        100 * right.mean()
    )
    assert (
        record["seeds"]["0"]["steps"] == 4 * 8 and {"machine", "command", "rows"} <= record.keys()
    )
    lines = (tmp_path / "SST-2.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and [line.split("\t")[0] for line in lines[1:]] == [
        str(i) for i in range(10)
    ]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}

    again = settings | {
        "model": str(tmp_path / "kept" / "seed-0"),
        "evaluate_only": True,
        "output": str(tmp_path / "again.json"),
    }
    given = finetune(FinetuneConfig(**again))
    assert given["seeds"]["0"]["predictions"] == record["seeds"]["0"]["predictions"]

    # Another order of the same names, in capitals, with the head's rows exchanged: the same
    # answers.
    folder = tmp_path / "kept" / "seed-0"
    other = shutil.copytree(folder, tmp_path / "other")
    model = load_task_model(str(other), find_task("sst2"))
    with torch.no_grad():
        for p in (model.classifier.weight, model.classifier.bias):
            p.copy_(p.flip(0))
    model.config.id2label, model.config.label2id = (
        {0: "POSITIVE", 1: "NEGATIVE"},
        {"POSITIVE": 0, "NEGATIVE": 1},
    )
    model.save_pretrained(other)
    exchanged = finetune(
        FinetuneConfig(**again | {"model": str(other), "output": str(tmp_path / "exchanged.json")})
    )
    assert exchanged["seeds"]["0"]["predictions"] == record["seeds"]["0"]["predictions"]

    # A teacher of the same function, whose word alone counts, has nothing to teach: if its outputs
    # are put in the task's order.
    taught = {
        "model": str(folder),
        "distil_from": str(other),
        "alpha": 1.0,
        "epochs": 1,
        "learning_rate": 1e-6,
    }
    same = finetune(FinetuneConfig(**settings | taught | {"output": str(tmp_path / "same.json")}))
    assert same["seeds"]["0"]["training_loss"] < 1e-5
    assert same["seeds"]["0"]["predictions"] == record["seeds"]["0"]["predictions"]


def test_seeds_repeat_and_differ(settings, tmp_path):
    brief = settings | {"epochs": 1, "seeds": 2}
    first = finetune(FinetuneConfig(**brief))
    second = finetune(FinetuneConfig(**brief | {"output": str(tmp_path / "second.json")}))
    assert outcome(first) == outcome(second)
    assert first["seeds"]["0"]["training_loss"] != first["seeds"]["1"]["training_loss"]


def test_warm_up_and_decay_are_the_trainers(settings, monkeypatch):
    """Oracle: the line from 0 to the highest rate in a quarter of the 16 steps, and from there to
    0.
    """
    rates, kinds = [], set()

    class Watched(program_file.Progress):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            inner = getattr(optimizer, "optimizer", optimizer)
            rates.append(inner.param_groups[0]["lr"])
            kinds.add((type(inner), inner.defaults["lr"], len(inner.param_groups)))

    monkeypatch.setattr(program_file, "Progress", Watched)
    finetune(FinetuneConfig(**settings | {"epochs": 2, "warmup_ratio": 0.25}))
    expected = [5e-3 * min(step / 4, (16 - step) / 12) for step in range(16)]
    assert rates == pytest.approx(expected) and kinds == {(torch.optim.AdamW, 5e-3, 2)}


# ----------------------------------------------------------------------------------------- going on
class as_finetuning:
    """Prepare the launcher's program to be this one, and to get a signal when the model of a seed
    is loaded.
    """

    def __init__(self, call: int):
        self.call = call

    def __call__(self) -> None:
        replace("distil_lib.pretrain.main", main)
        signal_at("distil_lib.finetune.finetuning.load_task_model", self.call, signal.SIGKILL)()


def test_a_killed_call_goes_on_and_leaves_the_file_of_one_never_killed(
    program, settings, tmp_path, monkeypatch
):
    brief = settings | {"epochs": 1, "seeds": 3}
    done = program(words(brief), as_finetuning(call=2))  # the first load is that of seed 0
    assert done.code == -signal.SIGKILL and list(read_record(brief["output"])["seeds"]) == ["0"], (
        done.err
    )
    fitted, fit = [], Finetuning.fit
    monkeypatch.setattr(
        Finetuning,
        "fit",
        lambda self, seed, precision: fitted.append(seed) or fit(self, seed, precision),
    )
    resumed = finetune(FinetuneConfig(**brief))
    assert fitted == [1, 2]
    assert outcome(resumed) == outcome(
        finetune(FinetuneConfig(**brief | {"output": str(tmp_path / "whole.json")}))
    )
    fitted.clear()
    finetune(FinetuneConfig(**brief))
    assert fitted == []


def test_what_is_retained_is_printed(settings, tmp_path, capsys):
    """Compared with itself, a model keeps 100%; with one that makes one mistake in 50 where it
    makes none, 50 of 49.
    """
    record = finetune(FinetuneConfig(**settings))
    main(words(settings | {"compare_with": settings["output"]}))
    assert f"accuracy on validation: 100.0% of {settings['output']}" in capsys.readouterr().out
    run = record["seeds"]["0"]
    truth = split_numbers(record["labels"]["validation"])
    run["predictions"]["validation"] = join_numbers([1 - truth[0], *truth[1:]])
    run["scores"]["validation"]["accuracy"] = 98.0
    record["summary"] = median_and_quartiles(record)
    (tmp_path / "worse.json").write_text(json.dumps(record))
    right = (
        split_numbers(read_record(settings["output"])["seeds"]["0"]["predictions"]["validation"])
        == truth
    ).sum()
    main(words(settings | {"compare_with": tmp_path / "worse.json"}))
    assert f": {100 * right / 49:.1f}% of" in capsys.readouterr().out


def test_another_configuration_in_the_same_file_is_refused(settings, refused):
    finetune(FinetuneConfig(**settings | {"epochs": 1}))
    refused({"epochs": 2}, "another configuration", "epochs was 1 and is 2")


# --------------------------------------------------------------------------------------- the losses
def test_the_loss_of_question_answering_by_hand_with_padding_masked():
    task, generator = find_task("squad"), torch.Generator().manual_seed(0)
    student, teacher = (
        {f"{e}_logits": 3 * torch.randn(2, 5, generator=generator) for e in ("start", "end")}
        for _ in range(2)
    )
    lengths, gold = (5, 3), {"start": (1, 2), "end": (4, 2)}
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    inputs = {"attention_mask": mask} | {
        f"{end}_positions": torch.tensor(places) for end, places in gold.items()
    }
    expected = 0.0
    for end, places in gold.items():
        for row, (n, place) in enumerate(
            zip(lengths, places, strict=True)
        ):  # each window cut to its own length
            mine, theirs = student[f"{end}_logits"][row, :n], teacher[f"{end}_logits"][row, :n]
            t, s = (theirs / 2).softmax(-1), (mine / 2).softmax(-1)
            expected += (
                -0.5 * mine.softmax(-1)[place].log() + 0.5 * 4 * (t * (t / s).log()).sum()
            ) / 4
    assert task_loss(task, student, inputs, teacher) == pytest.approx(float(expected), rel=1e-5)
    unmasked = task_loss(task, student, inputs | {"attention_mask": torch.ones_like(mask)}, teacher)
    assert abs(float(unmasked - expected)) > 0.01
    louder = {
        name: logits.masked_fill(mask == 0, 50.0).requires_grad_()
        for name, logits in student.items()
    }
    loss = task_loss(task, louder, inputs, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert all(
        logits.grad.isfinite().all() and (logits.grad[mask == 0] == 0).all()
        for logits in louder.values()
    )


def test_the_losses_of_classes_and_of_numbers():
    logits, told, labels = (
        torch.tensor([[1.0, 2.0], [0.5, -1.0]]),
        torch.tensor([[0.0, 1.0], [3.0, 1.0]]),
        torch.tensor([1, 1]),
    )
    hard, soft = F.cross_entropy(logits, labels), soft_target_loss(logits, told, temperature=2.0)
    inputs, outputs = {"labels": labels}, {"logits": logits}
    assert task_loss(find_task("sst2"), outputs, inputs) == hard
    assert task_loss(
        find_task("sst2"), outputs, inputs, {"logits": told}, 0.25, 2.0
    ) == pytest.approx(float(0.75 * hard + 0.25 * soft))
    numbers = (
        {"logits": torch.tensor([[1.0], [3.0]])},
        {"labels": torch.tensor([2.0, 5.0])},
        {"logits": torch.tensor([[1.0], [2.0]])},
    )
    assert task_loss(find_task("stsb"), *numbers) == pytest.approx(0.5 * 2.5 + 0.5 * 0.5)


def test_question_answering_is_learned_from_a_bert_with_token_types(
    settings, models, tmp_path, refused
):
    """A place that the context's grammar gives away, with models of different classes."""
    questions = settings | {"task": "squad", "max_length": 48, "epochs": 8}
    taught = finetune(
        FinetuneConfig(
            **questions | {"model": str(models / "bert"), "save": str(tmp_path / "kept")}
        )
    )
    assert taught["summary"]["validation"]["f1"]["median"] > 95
    second = questions | {
        "distil_from": str(tmp_path / "kept" / "seed-0"),
        "output": str(tmp_path / "second.json"),
    }
    learned = finetune(FinetuneConfig(**second | {"predict": str(tmp_path / "answers.json")}))
    assert (
        learned["summary"]["validation"]["f1"]["median"] > 90
        and "exact match" in learned["summary"]["validation"]
    )
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert (
        list(answers) == [f"dev{i}" for i in range(50)]
        and learned["configuration"]["distil_from"] == second["distil_from"]
    )
    alone = finetune(FinetuneConfig(**questions | {"output": str(tmp_path / "alone.json")}))
    assert alone["seeds"]["0"]["training_loss"] != learned["seeds"]["0"]["training_loss"]
    refused(
        {"distil_from": tmp_path / "kept" / "seed-0", "output": tmp_path / "wrong.json"},
        "has not learned sst2",
    )


# ------------------------------------------------------------------------------- submissions, names
def test_submissions_have_glues_words_and_ranges(tmp_path):
    expected = {
        "mnli": ([0, 1, 2], ["entailment", "neutral", "contradiction"]),
        "rte": ([1, 0], ["not_entailment", "entailment"]),
        "qnli": ([0], ["entailment"]),
        "wnli": ([0, 1], ["0", "1"]),
        "cola": ([1], ["1"]),
        "stsb": ([5.7, -0.2, 3.25], ["5.000", "0.000", "3.250"]),
    }
    for name, (answers, predictions) in expected.items():
        write_predictions(
            Split(find_task(name), Dataset.from_dict({}), Dataset.from_dict({})),
            answers,
            tmp_path / "f.tsv",
        )
        assert (tmp_path / "f.tsv").read_text().split("\n") == [
            "index\tprediction",
            *(f"{i}\t{p}" for i, p in enumerate(predictions)),
            "",
        ]
    work = SimpleNamespace(config=SimpleNamespace(predict="out/MNLI.tsv"))
    names = [
        Finetuning.submission(work, split).name
        for split in ("test_matched", "test_mismatched", "test")
    ]
    assert names == ["MNLI-m.tsv", "MNLI-mm.tsv", "MNLI.tsv"]


def test_labels_are_found_by_name_or_number():
    task, config = find_task("rte"), lambda *names: SimpleNamespace(id2label=dict(enumerate(names)))
    assert label_order(config("NOT-Entailment", "Entailment"), task, "m") == [1, 0]
    assert (
        label_order(config("LABEL_0", "LABEL_1"), task, "m") == [0, 1]
        and label_order(config("score"), find_task("stsb"), "m") == []
    )
    for names in (
        ("yes", "no"),
        ("entailment", "neutral", "not_entailment"),
        ("LABEL_0", "entailment"),
    ):
        with pytest.raises(ValueError, match="has the labels"):
            label_order(config(*names), task, "m")


# ---------------------------------------------------------------------------------------- bad input
@pytest.fixture
def refused(settings, capsys):
    """The command with these changes is refused with these words."""

    def check(changes, *expected):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(words(settings | changes))
        assert_user_error(Finished(stop.value.code, *capsys.readouterr()), *expected)

    return check


def test_settings_models_and_teachers_that_do_not_fit(
    refused, settings, models, tmp_path, tokenizer, data
):
    copy = lambda name: shutil.copytree(models / "student", tmp_path / name)
    for changes, expected in (
        ({"task": "sst3"}, ["no task 'sst3'", "did you mean 'sst2'"]),
        ({"epochs": 0}, ["epochs is 0"]),
        ({"precision": "fp8"}, ["fp8", "bf16"]),
        ({"lerning_rate": 1}, ["lerning_rate", "did you mean 'learning_rate'"]),
        ({"max_length": 64}, ["max_length is 64", "48 tokens"]),
        ({"max_length": 2}, ["max_length is 2", "3 tokens at least"]),
        ({"model": tmp_path / "nowhere"}, ["nowhere", "could not be loaded", "tokenizer.json"]),
        ({"model": "no/such-model"}, ["no/such-model", "network"]),
        ({"evaluate_only": True}, ["has not learned sst2"]),
        ({"evaluate_only": True, "distil_from": models / "bert"}, ["drop one"]),
        ({"distil_from": models / "bert"}, ["has not learned sst2", "--save"]),
        ({"compare_with": data / "train.tsv"}, ["train.tsv is no result"]),
        ({"data_dir": tmp_path / "nowhere"}, ["nowhere is not a folder"]),
    ):
        refused(changes, *expected)

    mute = copy("mute")
    for file in mute.glob("tokenizer*"):
        file.unlink()
    refused({"model": mute}, "mute has no tokenizer", "tokenizer.save_pretrained")
    pickled = copy("pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    refused({"model": pickled}, "pytorch_model.bin", "pickle", "safetensors")
    cut = copy("cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    refused({"model": cut}, "damaged")
    three = load_task_model(str(models / "student"), find_task("mnli"), seed=0)
    three.save_pretrained(tmp_path / "three")
    tokenizer.save_pretrained(tmp_path / "three")
    refused({"distil_from": tmp_path / "three"}, "three has 3 outputs and sst2 2")
    load_task_model(str(models / "student"), find_task("sst2"), seed=0).save_pretrained(
        tmp_path / "two"
    )
    changed = json.loads((models / "student" / "tokenizer.json").read_text())
    first, second = list(changed["model"]["vocab"])[-2:]
    ids = changed["model"]["vocab"]
    ids[first], ids[second] = ids[second], ids[first]
    shutil.copy(models / "student" / "tokenizer_config.json", tmp_path / "two")
    (tmp_path / "two" / "tokenizer.json").write_text(json.dumps(changed))
    refused({"distil_from": tmp_path / "two"}, "another tokenizer", "model differ")

    empty = tmp_path / "empty"
    shutil.copytree(data, empty)
    (empty / "train.tsv").write_text("sentence\tlabel\n")
    refused({"data_dir": empty}, "train")
    assert not (tmp_path / "result.json").exists()


def test_a_hub_that_does_not_answer(settings, tmp_path):
    """The settings of the Hub are read at import: a program of its own, which asks where nobody
    listens.
    """
    environment = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    program = f"{IMPATIENT}import distil_lib.finetune.__main__ as m; m.main()"
    command = [
        sys.executable,
        "-c",
        program,
        *words(settings | {"model": "distilbert/distilbert-base-uncased"}),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert_user_error(
        Finished(done.returncode, done.stdout, done.stderr),
        "distilbert/distilbert-base-uncased",
        "network connection",
    )
    assert not (tmp_path / "result.json").exists()
