"""Tasks in uniform columns from GLUE's own files, from Parquet and from a network that fails, and
what is refused.
"""

import json

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from distil_lib.common.hub import CLIENT_ERROR
from distil_lib.errors import UserError
from distil_lib.tasks.metrics import GLUE
from distil_lib.tasks.registry import TASKS, Task, find_task, fingerprints, load_task

QUOTE = '"No, he said'  # a lone quotation mark must not swallow what follows
# Headers as in GLUE's archive; rows (texts..., label as written there); labels as on the Hub.
FILES = {
    "cola": (
        "CoLA",
        None,
        ["gj04\t1\t\tIt holds.", f"gj04\t0\t*\t{QUOTE}"],
        [("It holds.",), (QUOTE,)],
        [1, 0],
    ),
    "sst2": (
        "SST-2",
        "sentence\tlabel",
        ["fine \t1", f"{QUOTE}\t0"],
        [("fine ",), (QUOTE,)],
        [1, 0],
    ),
    "mrpc": (
        "MRPC",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ["1\t7\t8\tA b\tB a", f"0\t9\t3\t{QUOTE}\tC"],
        [("A b", "B a"), (QUOTE, "C")],
        [1, 0],
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["1\t2\t3\tWhy?\tHow?\t0", f"4\t5\t6\t{QUOTE}\tX\t1"],
        [("Why?", "How?"), (QUOTE, "X")],
        [0, 1],
    ),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        [
            "0\tg\tf\t2012\t1\ts\ts\tA plane.\tA jet.\t4.750",
            f"1\tg\tf\t2012\t1\ts\ts\t{QUOTE}\tX\t0.000",
        ],
        [("A plane.", "A jet."), (QUOTE, "X")],
        [4.75, 0.0],
    ),
    "mnli": (
        "MNLI",
        "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label",
        [
            "0\tp\tIt is.\tIt was.\tneutral\tentailment",
            f"1\tp\t{QUOTE}\tX\tneutral\tcontradiction",
            "2\tp\tY\tZ\tentailment\tneutral",
        ],
        [("It is.", "It was."), (QUOTE, "X"), ("Y", "Z")],
        [0, 2, 1],
    ),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel",
        ["0\tWho?\tI do.\tentailment", f"1\t{QUOTE}\tX\tnot_entailment"],
        [("Who?", "I do."), (QUOTE, "X")],
        [0, 1],
    ),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel",
        ["0\tA.\tB.\tnot_entailment", f"1\t{QUOTE}\tX\tentailment"],
        [("A.", "B."), (QUOTE, "X")],
        [1, 0],
    ),
    "wnli": (
        "WNLI",
        "index\tsentence1\tsentence2\tlabel",
        ["0\tA.\tB.\t1", f"1\t{QUOTE}\tX\t0"],
        [("A.", "B."), (QUOTE, "X")],
        [1, 0],
    ),
}


def write_tsv(folder, header, rows, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(
            "\n".join([*([header] if header else []), *rows, ""]), encoding="utf-8"
        )


def rows_of(data):
    columns = [data[name][:] for name in ("text_a", "text_b") if name in data.column_names]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize("nested", [True, False])
def test_glues_own_files_give_the_hubs_texts_and_labels(tmp_path, name, nested):
    folder, header, rows, texts, labels = FILES[name]
    splits = [split for split in TASKS[name].splits if not split.startswith("test")]
    names = [split.replace("validation", "dev") + ".tsv" for split in splits]
    write_tsv(tmp_path / folder if nested else tmp_path, header, rows, *names)
    task, data = load_task(name, tmp_path if nested else str(tmp_path))
    assert task is TASKS[name] and list(data) == splits
    for split in splits:
        assert rows_of(data[split]) == texts
        assert data[split]["label"][:] == pytest.approx(labels)
        assert set(data[split].column_names) <= {"text_a", "text_b", "label"}
    if task.labels:
        assert data["train"].features["label"].names == list(task.labels)
    # Predicting the labels scores everything as right; MNLI reports the matched split first.
    score = task.compute(labels, data[task.evaluation[0]]["label"][:])
    assert score[task.metric] == pytest.approx(100)
    assert task.evaluation[0] == ("validation_matched" if name == "mnli" else "validation")


def test_test_files_have_no_labels(tmp_path):
    _, header, rows, *_ = FILES["rte"]
    write_tsv(tmp_path, header, rows, "train.tsv", "dev.tsv")
    write_tsv(tmp_path, "index\tsentence1\tsentence2", ["0\tA\tB"], "test.tsv")
    _, data = load_task("rte", tmp_path)
    assert data["test"]["label"][:] == [-1] and data["train"]["label"][:] == [1, 0]
    write_tsv(tmp_path / "CoLA", None, FILES["cola"][2], "train.tsv", "dev.tsv")
    write_tsv(
        tmp_path / "CoLA", "index\tsentence", ["0\tIt is."], "test.tsv"
    )  # the one file of CoLA with a header
    _, data = load_task("cola", tmp_path)
    assert rows_of(data["test"]) == [("It is.",)] and len(data["train"]) == 2


def test_microsofts_own_files_are_split_by_glues_list(tmp_path):
    _, header, rows, texts, _ = FILES["mrpc"]
    write_tsv(
        tmp_path, "\ufeff" + header, rows, "msr_paraphrase_train.txt", "msr_paraphrase_test.txt"
    )
    with pytest.raises(UserError, match=r"dev_ids\.tsv"):
        load_task("mrpc", tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("9\t3\n")
    _, data = load_task("mrpc", tmp_path)
    assert (
        rows_of(data["train"]) == texts[:1]
        and rows_of(data["validation"]) == texts[1:]
        and rows_of(data["test"]) == texts
    )


def test_a_few_broken_rows_are_left_out_aloud_and_many_are_an_error(tmp_path):
    _, header, rows, texts, _ = FILES["qqp"]
    write_tsv(tmp_path, header, [rows[0], "4\t5", rows[1]], "train.tsv", "dev.tsv")
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        _, data = load_task("qqp", tmp_path)
    assert rows_of(data["train"]) == texts
    write_tsv(tmp_path, header, [rows[0], "4\t5", "4\t6", rows[1]], "train.tsv")
    with pytest.raises(UserError, match="2 of 4 rows"):
        load_task("qqp", tmp_path)


def test_parquet_in_the_hubs_columns_and_squads_json(tmp_path):
    rows = Dataset.from_dict({"premise": ["A"], "hypothesis": ["B"], "label": [2], "idx": [0]})
    for split in ("train", "validation_matched", "validation_mismatched"):
        rows.to_parquet(tmp_path / "mnli" / f"{split}-00000-of-00001.parquet")
    _, data = load_task("mnli", tmp_path)
    assert rows_of(data["train"]) == [("A", "B")] and data["train"]["label"][:] == [2]
    question = {
        "id": "q",
        "question": "Who?",
        "answers": [{"text": "cat", "answer_start": 4}, {"text": "The cat", "answer_start": 0}],
    }
    article = {"title": "T", "paragraphs": [{"context": "The cat sat.", "qas": [question]}]}
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(json.dumps({"version": "1.1", "data": [article]}))
    task, data = load_task("squad", tmp_path)
    (row,) = data["validation"]
    assert (
        row["answers"] == {"text": ["cat", "The cat"], "answer_start": [4, 0]}
        and row["context"] == "The cat sat."
    )
    assert task.compute(["the CAT."], [row["answers"]["text"]]) == {"f1": 100, "exact match": 100}


def test_labels_as_words_are_translated(tmp_path):
    rows = Dataset.from_dict(
        {
            "sentence1": ["A", "C"],
            "sentence2": ["B", "D"],
            "label": ["not_entailment", "entailment"],
        }
    )
    for split in ("train", "validation"):
        rows.to_parquet(tmp_path / f"{split}.parquet")
    assert load_task("rte", tmp_path)[1]["train"]["label"][:] == [1, 0]


def test_batches_are_encoded_for_a_trainer(tokenizer):
    """Oracle: the tokenizer itself, on the texts one by one; what is too long keeps both texts, the
    shorter one whole.
    """
    batch = {
        "text_a": ["The old array.", "value " * 40],
        "text_b": ["A key.", "A key."],
        "label": [1, 0],
    }
    encoded = TASKS["mrpc"].encode(batch, tokenizer, max_length=16)
    assert encoded["input_ids"][0] == tokenizer(batch["text_a"][0], batch["text_b"][0])["input_ids"]
    assert len(encoded["input_ids"][1]) == 16 and encoded["labels"] == [1, 0]
    assert tokenizer.decode(encoded["input_ids"][1], skip_special_tokens=True).endswith("a key.")
    alone = TASKS["sst2"].encode({"text_a": ["The old array."], "label": [1]}, tokenizer)
    assert alone["input_ids"] == [tokenizer("The old array.")["input_ids"]]


def test_logits_are_scored_like_classes_and_columns_like_numbers():
    labels = [2, 0, 1]
    assert TASKS["mnli"].compute(np.eye(3)[labels], labels) == {"accuracy": 100}
    assert TASKS["stsb"].compute([[1.0], [2.0], [3.0]], [1, 2, 3])["pearson"] == pytest.approx(100)
    assert [TASKS[name].num_labels for name in ("mnli", "stsb", "squad")] == [3, 1, 2]


# ---------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("typed", "meant"),
    [("SST-2", "sst2"), ("sts-b", "stsb"), ("docqa", "doc-qa"), ("squda", "squad")],
)
def test_a_name_close_to_a_task_is_answered_with_the_task(typed, meant):
    with pytest.raises(UserError, match=f"Did you mean '{meant}'"):
        find_task(typed)
    with pytest.raises(UserError, match=r"There is no task 'xyzzy'\. Choose"):
        load_task("xyzzy")


def small(**columns):
    data = Dataset.from_dict({"sentence": ["One.", "Two."], "label": [0, 1]} | columns)
    return {"train": data, "validation": data}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("sst2", small(label=[0, 2]), r"label 2\. .*0 \(negative\), 1 \(positive\)"),
        (
            "sst2",
            small(label=[0, -1]),
            "label -1",
        ),  # -1 means unlabelled, which only a test split may be
        ("sst2", small(label=["positive", "meh"]), "label 'meh'"),
        ("sst2", small(label=[0, None]), "label None"),
        (
            "stsb",
            small(sentence1=["a", "b"], sentence2=["c", "d"], label=[5.0, 5.5]),
            r"label 5\.5\. .*0 to 5",
        ),
        (
            "stsb",
            small(sentence1=["a", "b"], sentence2=["c", "d"], label=[5.0, float("nan")]),
            "label nan",
        ),
        ("mrpc", small(), "no column sentence1, sentence2"),
        ("sst2", {"train": small()["train"]}, "lacks the split validation"),
        (
            "sst2",
            {"train": small()["train"].select([]), "validation": small()["train"]},
            "'train' of sst2 is empty",
        ),
        ("squad", small(), "no column id, question"),
        ("sst2", small(sentence=["", " \t"]), "Every sentence in the split '.*' of sst2 is empty"),
    ],
)
def test_bad_data_is_refused_with_what_is_wrong(monkeypatch, name, data, words):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: DatasetDict(data))
    with pytest.raises(UserError, match=words):
        load_task(name)


def test_a_bad_answer_is_found_while_loading(monkeypatch):
    rows = {
        "id": ["q"],
        "question": ["Who?"],
        "context": ["The cat."],
        "answers": [{"text": ["dog"], "answer_start": [4]}],
    }
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_: DatasetDict(train=Dataset.from_dict(rows), validation=Dataset.from_dict(rows)),
    )
    with pytest.raises(UserError, match="'dog' of question q is not in its context"):
        load_task("squad")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, r"holds none of train\.parquet, train\.tsv"),
        (lambda folder: (folder / "train.tsv").write_text(""), "no column sentence, label"),
        (lambda folder: (folder / "train.tsv").write_text("sentence\tlabel\n"), "holds no example"),
        (
            lambda folder: (folder / "train.tsv").write_text("text\tlabel\nA\t1\n"),
            "no column sentence; it has text, label",
        ),
        (
            lambda folder: (folder / "train.tsv").write_text("sentence\tlabel\nA\tpositive\n"),
            "label 'positive'",
        ),
        (
            lambda folder: (folder / "train.tsv").write_bytes(b"sentence\tlabel\n\xff\xfe\t1\n"),
            "cannot be read",
        ),
        (lambda folder: (folder / "train.parquet").write_text("no parquet"), "cannot be read"),
        (
            lambda folder: (folder / "train.tsv").write_text("sentence\tlabel\nA\t1\n"),
            "lacks the split validation",
        ),
    ],
)
def test_bad_files_are_refused_with_what_is_wrong(tmp_path, write, words):
    write(tmp_path)
    with pytest.raises(UserError, match=words):
        load_task("sst2", tmp_path)


def test_a_folder_or_a_split_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        load_task("sst2", tmp_path / "no")
    with pytest.raises(UserError, match="has no split dev"):
        load_task("sst2", tmp_path, splits=["dev"])


# ------------------------------------------------------------------------------------------ network
@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("reset by peer"),
        RuntimeError("wrapped"),
        CLIENT_ERROR("timed out"),
        datasets.exceptions.DatasetNotFoundError("no such repository"),
    ],
)
def test_a_network_error_is_one_message_at_once(monkeypatch, error):
    """The Hub's client has tried again by itself: nothing here waits, or asks a second time."""
    calls = []

    def load(*_):
        calls.append(1)
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=rf"could not be loaded .*{error}.*doc-qa") as raised:
        load_task("sst2")
    assert len(calls) == 1 and raised.value.settings == ("data_dir",)


def test_the_fingerprint_changes_with_any_row_and_nothing_else():
    data, other = fingerprints(small()), fingerprints(small(label=[1, 1]))
    assert data == fingerprints(small())
    assert len({*data.values(), *other.values()}) == 4


def test_tasks_are_declared_whole():
    assert set(GLUE) < set(TASKS) and len([name for name in TASKS if name.startswith("doc-")]) >= 6
    for task in TASKS.values():
        assert isinstance(task, Task) and task.source and set(task.evaluation) < set(task.splits)
    with pytest.raises(TypeError):
        TASKS["sst2"] = None
