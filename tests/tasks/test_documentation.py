"""The documentation's tasks: made from small packages that the test writes, and checked for leaks,
balance and truth of labels.
"""

import os
import re
import shutil
import sys
import time
from collections import Counter

import pytest
from helpers import ADJECTIVES, NOUNS
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.masking import random_stream
from distil_lib.tasks import documentation as suite
from distil_lib.tasks import documentation_pairs as pairs
from distil_lib.tasks import documentation_questions as questions
from distil_lib.tasks import documentation_sentences as sentences
from distil_lib.tasks.documentation_sources import (
    SourceModule,
    parameters,
    parse,
    read_modules,
    suite_split,
)
from distil_lib.tasks.registry import TASKS, load_task
from distil_lib.text.documents import split_of

SHARES = {"test": 30, "validation": 300, "train": 1000}
PACKAGES = ("torch", "sympy", "scipy")  # stand-ins of these names, whose real ones hide behind them

# The backslash keeps the first sentence on one line of the docstring.
SOURCE = '''"""The {a} module of torch and scipy.{b} keeps each {b} of the {c} \
in a table that is sorted.

It can keep the {a} of an old {b} as the {c} is read, and the {b} is counted with it.

This sentence stands in the docstring of every module, and it is kept in one.
"""

class {B}:
    """A {b} of the {c} is what the {a} holds for each of its rows at the end.

    Whoever wants the {c} must read this {b} with the {a} in mind, not before.
    """

    def find_{a}(self, {a}, {c}=None):
        """The {a} is looked for in the {b} of the {c}, by the {a} alone and at once.

        If the {c} has no {b}, then the {a} of the whole is given to the caller at the end.

        Parameters
        ----------
        {a} : {b} of int, optional
            The {a} that is wanted in the {c}. It must be a {b}.
        {c} : str, default={c}s
            Where the {b} is from.

        Returns
        -------
        result : int
            Of no matter.
        """

    def drop_{b}(self, {b}, count=3):
        """This {b} is taken from the {a} and the {c} is made anew for it.

        What is left of the {a} can hold a {c} for each of the {b} that were dropped.

        Args:
            {b} (`{c}`, *optional*, defaults to 7): The {b} that goes from the {a}.
            count: How often the {c} is read by the {a}.
        """
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three distributions of 150 modules each, installed for as long as these tests run."""
    folder = tmp_path_factory.mktemp("site")
    for number, package in enumerate(PACKAGES):
        files = []
        for i in range(150):
            part = f"{package}/part{i % 3}/" + ("deep/" if i % 2 else "")
            file = f"{part}{NOUNS[i % 10]}{i}.py"
            words = {"a": NOUNS[i % 20], "c": f"{NOUNS[-1 - i % 7]}{'abc'[number]}"}
            words["b"] = (
                # no two modules say the same
                f"{ADJECTIVES[(i + number) % 15]}{chr(97 + i % 26)}{chr(97 + i // 26)}"
            )
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(SOURCE.format(B=words["b"].title(), **words))
            files.append(file)
        information = folder / f"{package}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        (information / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def modules(site):
    return read_modules(PACKAGES, SHARES)


@pytest.fixture(scope="module")
def tasks(modules):
    return {name: suite.make(name, modules) for name in suite.MAKERS}


def documents(rows):
    return {name for row in rows for name in row["document"].split()}


# -------------------------------------------------------------------------------------- all of them
def test_no_document_and_no_text_is_in_two_splits(modules, tasks):
    """And what is tested is what `corpus.split_of` holds out from the teacher."""
    for name, splits in tasks.items():
        read = {split: documents(rows) for split, rows in splits.items()}
        assert (
            not read["train"] & read["test"]
            and not read["train"] & read["validation"]
            and not read["validation"] & read["test"]
        )
        assert all(split_of(document) == "held_out" for document in read["test"]), name
        assert all(split_of(document) == "train" for document in read["train"] | read["validation"])
    paragraphs = {
        split: {p.lower() for m in part for d in m.docstrings for p in d.paragraphs}
        for split, part in modules.items()
    }
    assert paragraphs["test"] and not paragraphs["test"] & (
        paragraphs["train"] | paragraphs["validation"]
    )
    assert suite_split("torch/part0/x.py", {"test": 0, "train": 0}) is None


def test_labels_are_balanced(tasks):
    """To one row, however many rows are taken; of doc-near, a third of the pairs are from two
    packages.

    Of doc-package no package has more than its tenth, and the first rows are one from each.
    """
    for name in ("doc-acceptability", "doc-same", "doc-signature"):
        for split, rows in tasks[name].items():
            for part in (rows, rows[: len(rows) // 2]):
                counts = Counter(row["label"] for row in part)
                assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) >= 2, (
                    name,
                    split,
                    counts,
                )
    for split, rows in tasks["doc-package"].items():
        assert max(Counter(row["label"] for row in rows).values()) <= suite.SIZES[split] // len(
            pairs.PACKAGES
        )
        assert len({row["label"] for row in rows[:3]}) == 3
    for rows in tasks["doc-near"].values():
        assert abs(sum(row["label"] == 0 for row in rows) - len(rows) / 3) <= 1
    for rows in tasks["doc-qa"].values():
        counts = Counter(row["kind"] for row in rows)
        assert (
            set(counts) == set(questions.QUESTIONS)
            and max(counts.values()) - min(counts.values()) <= 1
        )


@pytest.fixture(scope="module")
def cache(site, tmp_path_factory):
    """A cache with all tasks, made once."""
    folder = tmp_path_factory.mktemp("cache")
    suite.load("doc-qa", PACKAGES, folder, SHARES)
    return folder


def made_in(cache):
    """The files of the one complete folder of a cache, beside which nothing is left."""
    (folder,) = (cache / "documentation-tasks").iterdir()
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.parquet")}


@pytest.fixture
def copied(cache, tmp_path, monkeypatch):
    """A copy of the cache; making the tasks again is copying them."""
    made = []

    def make_all(folder, packages, shares):
        made.append(1)
        (source,) = (cache / "documentation-tasks").iterdir()
        shutil.copytree(source, folder)

    monkeypatch.setattr(suite, "_make_all", make_all)
    shutil.copytree(cache, tmp_path / "cache")
    return tmp_path / "cache", made


def test_the_same_packages_give_the_same_bytes_in_any_order(cache, tmp_path):
    splits = suite.load("doc-qa", PACKAGES[::-1], tmp_path, SHARES)
    assert set(splits) == {"train", "validation", "test"}
    assert len(made_in(cache)) == 18 and made_in(cache) == made_in(tmp_path)


def test_the_cache_is_read_again_and_known_by_the_versions(cache, copied, monkeypatch):
    folder, made = copied
    first = suite.load("doc-same", PACKAGES, folder, SHARES)["test"].to_list()
    assert first and not made
    monkeypatch.setattr(suite, "documentation_version", lambda packages: ["torch 2.0"])
    suite.load("doc-same", PACKAGES, folder, SHARES)
    assert made == [1] and len(list((folder / "documentation-tasks").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "a file"])
def test_a_damaged_cache_is_made_again(cache, copied, damage):
    folder, made = copied
    (inside,) = (folder / "documentation-tasks").iterdir()
    file = inside / "doc-qa" / "test.parquet"
    if damage == "a file":
        shutil.rmtree(inside)
        inside.write_text("")
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 100 * (damage == "truncated")])
    assert len(suite.load("doc-qa", PACKAGES, folder, SHARES)["test"]) > 0
    assert made == [1] and made_in(folder) == made_in(cache)


def test_what_a_killed_call_has_left_is_removed_after_a_day(cache, copied):
    folder, _ = copied
    (inside,) = (folder / "documentation-tasks").iterdir()
    shutil.rmtree(inside)
    for name, age in (("old", 100_000), ("new", 0)):
        (left := inside.with_name(f".making-{name}")).mkdir()
        os.utime(left, (time.time() - age,) * 2)
    suite.load("doc-qa", PACKAGES, folder, SHARES)
    names = {path.name for path in (folder / "documentation-tasks").iterdir()}
    assert names == {inside.name, ".making-new"}


def test_a_cache_that_cannot_be_written_is_named(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*file.*DISTIL_CACHE"):
        suite.load("doc-qa", PACKAGES, tmp_path / "file", SHARES)


def test_they_load_as_tasks_in_uniform_columns(tasks, monkeypatch):
    from datasets import Dataset

    monkeypatch.setattr(
        suite,
        "load",
        lambda name: {split: Dataset.from_list(rows) for split, rows in tasks[name].items()},
    )
    for name in suite.MAKERS:
        task, data = load_task(name)
        columns = (
            {"id", "question", "context", "answers"} if name == "doc-qa" else {"text_a", "label"}
        )
        assert columns < set(data["test"].column_names) and task.evaluation == ("test",)
    assert TASKS["doc-package"].labels == pairs.PACKAGES


def test_packages_without_documentation_are_said(site):
    with pytest.raises(UserError, match="no test example for doc-qa"):
        suite.make("doc-qa", {"test": [], "train": []})


# -------------------------------------------------------------------------------- doc-acceptability
def undone(sentence, edit):
    """The sentence before a swap; or all but the one word that was changed."""
    words = sentence.split(" ")
    kind, i = edit.split(" ")
    i = int(i)
    if kind == "swap":
        words[i], words[i + 1] = words[i + 1], words[i]
        return {" ".join(words)}
    return {
        " ".join([*words[:i], other, *words[i + 1 :]])
        for other in [*sentences.FORMS, words[i][:-1]]
    } - {sentence}


def test_a_corrupted_sentence_differs_by_the_stated_edit_and_no_sentence_occurs_twice(
    modules, tasks
):
    for split, rows in tasks["doc-acceptability"].items():
        real = {
            s
            for m in modules[split]
            for d in m.docstrings
            for p in d.paragraphs
            for s in sentences.sentences(p)
        }
        used = []
        for row in rows:
            if row["label"]:
                assert row["text_a"] in real and row["edit"] == ""
                used.append(row["text_a"])
            else:
                assert row["text_a"] not in real
                (before,) = undone(row["text_a"], row["edit"]) & real
                used.append(before)
        assert len(used) == len(set(used)) > 10


@given(
    st.lists(
        st.sampled_from("the of value is an array has can return this it holds a".split()),
        min_size=6,
        max_size=15,
    )
)
def test_every_corruption_is_local(words):
    sentence = " ".join(["It", *words, "end."])
    for edits in sentences.corruptions(sentence).values():
        for edit, corrupted in edits:
            assert corrupted != sentence and sentence in undone(corrupted, edit)
            changed = [a != b for a, b in zip(sentence.split(), corrupted.split(), strict=True)]
            assert sum(changed) == (2 if edit.startswith("swap") else 1) and not changed[0]


# --------------------------------------------------------------------------------------- the others
def test_blanked_names_are_absent(modules, tasks):
    """Neither a package's name in any word, nor a part of the module's own path."""
    by_name = {module.name: module for part in modules.values() for module in part}
    for row in tasks["doc-package"]["train"]:
        text, module = row["text_a"].lower(), by_name[row["document"]]
        assert not re.search("|".join(PACKAGES), text)
        assert not set(re.findall(r"[a-z0-9]+", text)) & {part.lower() for part in module.path}
        assert pairs.PACKAGES[row["label"]] == module.package
    module = SourceModule("torch/torch/nn/functional.py", ())
    text = pairs.blanked(
        "PyTorch's torch.nn, functional_call and functional.relu; sklearn too", module
    )
    assert text == "_'s _._, __call and _.relu; _ too"


def test_paragraphs_of_one_docstring_follow_one_another_and_others_do_not(modules, tasks):
    by_name = {module.name: module for part in modules.values() for module in part}
    for row in tasks["doc-same"]["train"]:
        together = [
            (a, b)
            for d in by_name[row["document"]].docstrings
            for a, b in zip(d.paragraphs, d.paragraphs[1:], strict=False)
        ]
        assert ((row["text_a"], row["text_b"]) in together) == row["label"]
        first, second = {a for a, _ in together}, {b for _, b in together}
        assert (
            row["text_a"] in first and row["text_b"] in second
        )  # the negatives too: place in the docstring says nothing


def test_the_right_arguments_are_those_of_the_described_function(modules, tasks):
    by_name = {module.name: module for part in modules.values() for module in part}
    for row in tasks["doc-signature"]["train"]:
        of = {
            d.paragraphs[0]: f"_({d.arguments})"
            for d in by_name[row["document"]].docstrings
            if d.arguments
        }
        assert (of[row["text_a"]] == row["text_b"]) == row["label"] and row["text_b"] in of.values()


def test_path_similarity_by_hand():
    """Dice: 2 * (torch, nn, modules) of 4 and 4 parts; a package's __init__ is the folder; two
    packages have nothing in common.
    """
    names = (
        "torch/nn/modules/conv",
        "torch/nn/modules/rnn",
        "torch/nn/__init__",
        "scipy/nn/modules/conv",
    )
    conv, rnn, whole, other = (SourceModule(f"{name}.py", ()).path for name in names)
    assert pairs.path_similarity(conv, rnn) == 5 * 6 / 8 == pairs.path_similarity(rnn, conv)
    assert (
        pairs.path_similarity(conv, whole) == 5 * 4 / 6 and pairs.path_similarity(conv, other) == 0
    )


def test_answers_stand_where_they_are_said_to_and_answer_the_question(tasks):
    for rows in tasks["doc-qa"].values():
        for row in rows:
            (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
            assert row["context"][start : start + len(text)] == text
            assert len({row["id"] for row in rows}) == len(rows)


def test_a_parameter_section_by_hand():
    numpydoc = parse('''def f(self, x, y=2):
    """Do.

    Parameters
    ----------
    x : array_like of shape (n,), optional
        The values. More of them.

        Not this.
    y : {'a', 'b'}, default 'a'
        Which way.

    Returns
    -------
    z : int
        Nothing.
    """''')
    google = parse('''def f(x, y=2):
    """Do.

    Args:
        x (`int`, *optional*, defaults to 7):
            The value.
        y: Which
            way.

    Returns:
        z: Nothing.
    """''')
    assert [(p.name, p.type, p.description) for p in numpydoc[0].parameters] == [
        ("x", "array_like of shape (n,), optional", "The values. More of them."),
        ("y", "{'a', 'b'}, default 'a'", "Which way."),
    ]
    assert [(p.name, p.type) for p in google[0].parameters] == [
        ("x", "int, optional, defaults to 7"),
        ("y", ""),
    ]
    assert numpydoc[0].arguments == "x, y=2" and parameters("No section.") == []

    def texts(docstring):
        return {
            name: {kind: text for kind, (_, text) in found.items()}
            for name, found in questions.section(docstring)[1].items()
        }

    assert texts(numpydoc[0]) == {
        "x": {"meaning": "The values", "type": "array_like of shape (n,)"},
        "y": {"meaning": "Which way", "type": "{'a', 'b'}", "default": "'a'"},
    }
    assert texts(google[0]) == {
        "x": {"meaning": "The value", "type": "int", "default": "7"},
        "y": {"meaning": "Which way"},
    }


def test_negatives_need_a_second_docstring():
    (lonely,) = parse('"""One.\n\nIt has two paragraphs of words."""')
    assert pairs.same_docstring([SourceModule("a/b.py", (lonely,))], random_stream(0), 9) == []
