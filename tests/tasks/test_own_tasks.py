"""Tasks of one's own: a YAML file or a `Task`, files of four kinds, and what is refused.

Oracle: the rows that the test wrote, whatever the format; AG News is the shape (four classes).
"""

import json
import math

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from distil_lib.errors import UserError
from distil_lib.tasks.registry import find_task, load_task
from distil_lib.tasks.task import Task

NAMES = ("World", "Sports", "Business", "Sci/Tech")
ROWS = [(f'Story {i}, with a "quote" and NA', i % 4) for i in range(8)]
YAML = "source: {source}\ntext: text\nlabel: label\nmetric: accuracy\nsplits: [train, test]\n"


def write(folder, kind, rows=ROWS, split="train"):
    """A file of a split in one of the formats."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{split}.{kind}"
    data = Dataset.from_list([{"text": t, "label": n} for t, n in rows])
    if kind == "parquet":
        data.to_parquet(file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in data))
    elif kind == "csv":
        data.to_pandas().to_csv(file, index=False)
    else:
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        file.write_text("\n".join(lines) + "\n")
    return folder


def declared(tmp_path, text=None, **source):
    file = tmp_path / "my_news.yaml"
    file.write_text(text if text is not None else YAML.format(**source))
    return str(file)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_task(tmp_path, kind):
    for split in ("train", "test"):
        write(tmp_path / "news [1]*", kind, split=split)  # characters that are patterns elsewhere
    task, data = load_task(declared(tmp_path, source="news [1]*"))
    assert task.name == "my_news" and task.labels == ("0", "1", "2", "3") and task.num_labels == 4
    assert list(data) == ["train", "test"] and task.evaluation == ("test",)
    assert list(zip(data["train"]["text_a"], data["train"]["label"], strict=True)) == ROWS
    assert data["train"].features["label"].names == list(task.labels)
    assert task.compute(data["test"]["label"][:], data["test"]["label"][:]) == {"accuracy": 100}


def test_the_hubs_names_words_and_ids_are_one_task(tmp_path, monkeypatch):
    """A `ClassLabel` column of the Hub, words in a file, and given names: the same ids."""
    hub = Dataset.from_dict(
        {"text": [t for t, _ in ROWS], "label": [n for _, n in ROWS], "x": NAMES * 2}
    )
    hub = hub.cast_column("label", ClassLabel(names=list(NAMES)))
    asked = []

    def load(*where):
        asked.append(where)
        return DatasetDict(train=hub, test=hub)

    monkeypatch.setattr(datasets, "load_dataset", load)
    task, data = load_task(declared(tmp_path, source="hub:fancyzhx/ag_news"))
    assert asked == [("fancyzhx/ag_news", None)] and task.labels == NAMES
    assert data["train"].column_names == ["text_a", "label"]
    for split in ("train", "test"):
        write(tmp_path / "words", "csv", [(text, NAMES[label]) for text, label in ROWS], split)
    word_task, words = load_task(declared(tmp_path, source="words"))
    assert word_task.labels == tuple(sorted(NAMES))
    assert [word_task.labels[i] for i in words["test"]["label"]] == [NAMES[n] for _, n in ROWS]
    given = YAML + "labels: [World, Sports, Business, Sci/Tech]\n"
    given_task, same = load_task(declared(tmp_path, given.format(source="words")))
    assert given_task.labels == NAMES and same["train"]["label"][:] == [n for _, n in ROWS]


def test_numbers_that_do_not_start_at_0_are_names(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "stars", "jsonl", [(text, label + 1) for text, label in ROWS], split)
    task, data = load_task(declared(tmp_path, source="stars"))
    assert task.labels == ("1", "2", "3", "4")
    assert data["test"]["label"][:] == [label for _, label in ROWS]


def test_a_regression_and_two_texts(tmp_path):
    rows = [{"one": f"a{i}", "two": f"b{i}", "score": i - 3.5} for i in range(6)]
    for split in ("train", "dev"):
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}-00000.parquet")
    text = (
        "source: .\ntext: [one, two]\nlabel: score\nmetric: pearson/spearman\nsplits: [train, dev]"
    )
    task, data = load_task(declared(tmp_path, text))
    assert task.kind == "regression" and (task.low, task.high) == (-math.inf, math.inf)
    assert data["dev"]["label"][:] == [row["score"] for row in rows]
    assert data["dev"]["text_b"][:] == [row["two"] for row in rows]
    assert task.compute(data["dev"]["label"][:], data["dev"]["label"][:])[task.metric] > 99.9


def test_in_python_the_same_task_is_a_few_words(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "news", "csv", split=split)
    task = Task(
        "news",
        "classification",
        ("text",),
        "macro F1",
        folder=str(tmp_path / "news"),
        splits=("train", "test"),
        evaluation=("test",),
    )
    assert find_task(task) is task and load_task(task)[0].labels == ("0", "1", "2", "3")


def test_a_text_of_a_million_characters_is_read(tmp_path):
    rows = [("x" * 1_000_000, 0), ("y", 1)]
    for kind in ("csv", "tsv", "jsonl"):
        for split in ("train", "test"):
            write(tmp_path / kind, kind, rows, split)
        data = load_task(declared(tmp_path, source=kind))[1]
        assert data["train"]["text_a"][:] == [text for text, _ in rows]


# ------------------------------------------------------------------------------------- bad input
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "declares no task"),
        (YAML + "labels: &a [x, y]", "anchors"),
        ("- a\n- b", "declares no task"),
        ("a: [", "is no YAML"),
        ("[" * 5000, "is no YAML"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
        ("\x00", "is no YAML"),
        ("x" * 300_000, "more than 262,144 bytes"),
        (YAML + "metrik: 1", "unknown key 'metrik'"),
        ("source: .\ntext: text\nmetric: accuracy", "does not say label"),
        (YAML.replace("accuracy", "blue"), "unknown metric 'blue'.*Choose from accuracy"),
        (YAML.replace("text: text", "text: [a, b, c]"), "text has 3 names"),
        (YAML.replace("text: text", "text: 5"), "text is a int"),
        (YAML.replace("label: label", "label: {a: 1}"), "label is a dict"),
        (YAML.replace("label: label", "label:"), "label is a NoneType"),
        (YAML.replace("[train, test]", "[train]"), "one split only"),
        (YAML.replace("[train, test]", "[train, train]"), "splits train, train"),
        (YAML.replace("[train, test]", "[test, train]"), "splits test, train"),
        (YAML.replace("text: text", "text: label"), "one column twice"),
        (YAML.replace("text: text", "text: [a, a]"), "one column twice"),
        (YAML + "text: other", "text is there twice"),
        (YAML + "labels: [010, 011]", "another number"),
        (YAML + "labels: [yes, no]", "quotation marks"),
        (YAML + "labels: [one]", "labels one"),
        (YAML + "labels: [one, one]", "labels one, one"),
        (YAML.replace("accuracy", "pearson") + "labels: [a, b]", "a regression has none"),
        (YAML.replace("accuracy", "mcc") + "labels: [a, b, c]", "for two classes"),
        (BOMB, "anchors"),
    ],
)
def test_a_bad_declaration_is_one_message(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as raised:
        find_task(declared(tmp_path, text.replace("{source}", ".")))
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([("a", 0), ("b", 0)], ROWS, "holds 1 different labels"),
        (ROWS, [("a", 7)], "Row 1 of the split 'test' of my_news has the label 7"),
        (ROWS, [("a", 0), ("b", -1)], "Row 2 .* label -1"),
        ([(f"{i}", i / 7) for i in range(9)], ROWS, "Row 1 .* label 0.0"),
        ([(f"{i}", i) for i in range(2000)], ROWS, "2000 different labels"),
        ([("a", True), ("b", False)], ROWS, "Row 1 .* label True"),
        ([("a", 0), ("b", None)], ROWS, "Row 2 .* label None"),
        ([("a", 0), (None, 1)], ROWS, "Row 2 .* text None"),
        ([(5, 0), (6, 1)], ROWS, "Row 1 .* text 5"),
        ([(["a"], 0), (["b"], 1)], ROWS, r"Row 1 .* text \['a'\]"),
        ([("a", [0]), ("b", [1])], ROWS, r"Row 1 .* label \[0\]"),
    ],
)
def test_bad_rows_are_named(tmp_path, train, test, words):
    for split, rows in (("train", train), ("test", test)):
        write(tmp_path / "news", "parquet", rows, split)
    with pytest.raises(UserError, match=words):
        load_task(declared(tmp_path, source="news"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"text": "a", "label": 0}', '{"text": 5, "label": 1}'], "Row 2 .* text 5, a int"),
        (['{"text": "a", "label": 0}', '{"text": "b", "label": "x"}'], "Row 2 .* label 'x', a str"),
        (['{"text": "a", "label": 0}', "[1]"], "Line 2 of .* is no JSON object"),
        (['{"text": "a", "label": 0}', "{"], "cannot be read"),
        (["[" * 100_000], "cannot be read"),
        (['{"text": "a", "label": 1' + "0" * 400 + "}"] * 2, "cannot be read"),
        (['{"text": "a"}', '{"text": "b"}'], "has no column label"),
        ([], "holds no example"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, lines, words):
    write(tmp_path / "news", "jsonl", split="test")
    (tmp_path / "news" / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=words):
        load_task(declared(tmp_path, source="news"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,label\na,0\nb,1,2\n", "cannot be read .*line 3"),
        ("text,label\na\nb\n", "Row 1 .* (label|text)"),
        ("text\na\nb\n", "has no column label"),
        ("", "cannot be read"),
        ("text,label\n", "holds no example"),
        ("text,label\nHello, world,0\nBye, all,1\n", "more columns in its rows"),
        ("text,label\na,0,\nb,1,\n", "more columns in its rows"),
        ("text,text,label\na,b,0\nc,d,1\n", "two columns text"),
        ("text, label\na,0\nb,1\n", "no column label"),
        ("text;label\na;0\nb;1\n", "no column text"),
        ("Text,Label\na,0\nb,1\n", "no column text"),
        ("text,label\na\0b,0\nc,1\n", "NUL"),
        ("text,label\na,yes\nb, yes\nc,no\n", "white space alone"),
        ("text,label\na,0.5\nb,1\nc,0\n", "label 0.5"),
        ("text,label\na,0\nb,\nc,1\n", "Row 2 .* label None"),
        ("text,label\na,0\nb,1\nc,nan\n", "Row 3 .* label 'nan'"),
        ("text,label\na,N/A\nb,7\nc,8\n", "Row 1 .* label 'N/A'"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, words):
    write(tmp_path / "news", "csv", split="test")
    (tmp_path / "news" / "train.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        load_task(declared(tmp_path, source="news"))


def test_shards_of_two_schemas_missing_columns_and_places(tmp_path):
    folder = write(tmp_path / "news", "parquet", split="test")
    for number, rows in enumerate(([("a", 0), ("b", 1)], [("a", "x")])):
        write(tmp_path / "shard", "parquet", rows).joinpath("train.parquet").rename(
            folder / f"train-{number}.parquet"
        )
    with pytest.raises(UserError, match=r"train-1\.parquet has other columns or types"):
        load_task(declared(tmp_path, source="news"))
    for shard in folder.glob("train-*"):
        shard.unlink()
    write(folder, "parquet")
    with pytest.raises(UserError, match="no column texts"):
        other = YAML.replace("text: text", "text: texts").format(source="news")
        load_task(declared(tmp_path, other))
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_task(declared(tmp_path, source="nowhere"))
    with pytest.raises(UserError, match="does not say where its data are"):
        load_task(Task("x", "classification", ("text",), "accuracy"))
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        find_task(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["01", "1", "2"], ("01", "1", "2")),
        (["1e3", "1000", "2"], ("1000", "1e3", "2")),
        (["True", "False", "True"], ("False", "True")),
        (["NA", "null", "NA"], ("NA", "null")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["1.0", "0.0", "1.0"], ("0", "1")),
    ],
)
def test_labels_of_a_csv_are_classes_as_they_are_written(tmp_path, written, names):
    """Oracle: the texts of the file. As numbers, 01 and 1 would be one class."""
    (tmp_path / "n").mkdir()
    lines = ["text,label", *(f"t{i},{label}" for i, label in enumerate(written))]
    for split in ("train", "test"):
        (tmp_path / "n" / f"{split}.csv").write_text("\n".join(lines))
    task, data = load_task(declared(tmp_path, source="n"))
    assert task.labels == names
    found = [task.labels[i] for i in data["train"]["label"]]
    assert found == [label.removesuffix(".0") for label in written]


def test_strings_of_parquet_in_any_form_and_not_in_utf8(tmp_path):
    (tmp_path / "n").mkdir()
    texts = pyarrow.array(["a", "b"], pyarrow.string_view())
    table = pyarrow.table(
        {"text": texts, "label": pyarrow.array(["x", "y"], pyarrow.string_view())}
    )
    bytes_of = [
        None,
        pyarrow.py_buffer(np.int32([0, 1, 2]).tobytes()),
        pyarrow.py_buffer(b"\xff\xfe"),
    ]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, bytes_of)
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / "n" / f"{split}.parquet")
    task, data = load_task(declared(tmp_path, source="n"))
    assert task.labels == ("x", "y") and data["test"]["text_a"][:] == ["a", "b"]
    table = pyarrow.table({"text": broken, "label": ["x", "y"]})
    pyarrow.parquet.write_table(table, tmp_path / "n" / "test.parquet")
    with pytest.raises(UserError, match=r"test\.parquet cannot be read .*UTF8"):
        load_task(declared(tmp_path, source="n"))


def test_a_folder_here_is_not_read_in_place_of_the_hub(tmp_path, monkeypatch):
    """`datasets` prefers a folder of that name."""
    (tmp_path / "owner").mkdir()
    for split in ("train", "test"):
        write(tmp_path / "owner" / "news", "csv", split=split)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a name on the Hub, and a file or folder here"):
        load_task(declared(tmp_path, source="hub:owner/news"))
