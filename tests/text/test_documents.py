"""Documents in: what is read as prose and what is not, each paragraph once, and who is held out."""

import ast
import json
import warnings

import pandas
import pytest
from datasets import Dataset
from helpers import random_documents, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.text.blocks import split_documents
from distil_lib.text.deduplication import deduplicate, write_documents
from distil_lib.text.docstrings import docstrings, paragraphs
from distil_lib.text.documentation import documentation_files
from distil_lib.text.documents import load_documents, split_of
from distil_lib.text.local_files import local_rows


def as_they_are(path):
    """The documents of a file or folder, before paragraphs are deduplicated."""
    return write_documents(local_rows(path))


# --------------------------------------------------------------------------------------- docstrings
def test_docstrings_are_those_that_python_itself_reports():
    """Oracle: `__doc__` of the same source, executed."""
    source = '''"""Of the module."""
class Outer:
    """Of a class."""
    def method(self):
        """Of a method,

        in two paragraphs."""
    async def waits(self):
        "Of a coroutine."
def silent():
    text = "No docstring, just a string."
'''
    import inspect

    names = {}
    exec(source, names)
    outer = names["Outer"]
    expected = [names["__doc__"], outer.__doc__, inspect.getdoc(outer.method), outer.waits.__doc__]
    assert sorted(docstrings(source)) == sorted(expected)


def test_source_is_parsed_and_never_run(tmp_path):
    trace = tmp_path / "ran"
    assert docstrings(f'"""Of the module."""\nopen({str(trace)!r}, "w")\n') == ["Of the module."]
    assert not trace.exists()


def test_documentation_handed_to_a_function_is_found():
    """Compiled packages document themselves so."""
    source = (
        "add_newdoc('package', 'name', '''\n    The words.\n\n    More of them.\n''')\n"
        "other.set_docstring(f, 'Of f.')\nprint('No.')"
    )
    assert {"The words.\n\nMore of them.", "Of f."} <= set(docstrings(source))
    assert "No." not in docstrings(source)


@pytest.mark.parametrize(
    "documented", ["('T', '''\n    Of T.\n    ''')", "[('T', 'Of T.'), ('real', 'Of real.')]"]
)
def test_documentation_handed_over_in_tuples_and_lists_is_found(documented):
    """As numpy documents the attributes of its arrays."""
    found = docstrings(f"add_newdoc('numpy', 'ndarray', {documented})\nprint(('no', 'No.'))")
    assert (
        "Of T." in found and ("Of real." in found) == ("real" in documented) and "No." not in found
    )


def test_doubtful_escapes_in_foreign_sources_are_no_business_of_the_reader():
    source = '"Of the module."\npattern = "\\d"'
    with pytest.warns((SyntaxWarning, DeprecationWarning), match="escape"):
        ast.parse(source)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert docstrings(source) == ["Of the module."]
    assert not heard


@pytest.mark.parametrize("source", ["def broken(:", "x = 1\0", b"\xff\xfe not utf-8 \x80", ""])
def test_source_that_does_not_parse_has_no_docstrings(source):
    assert docstrings(source) == []


# --------------------------------------------------------------------------------------- paragraphs
PROSE = "This sentence tells the reader what the function does."


@pytest.mark.parametrize(
    "marked, plain",
    [
        (
            "Calls :func:`~numpy.sum` for every row of the table.",
            "Calls numpy.sum for every row of the table.",
        ),
        (
            "Calls :func:`the sum <numpy.sum>` for every row of the table.",
            "Calls the sum for every row of the table.",
        ),
        (
            "Returns ``mask`` where *all* values are **not** valid today.",
            "Returns mask where all values are not valid today.",
        ),
        (
            "See `the manual <https://example.org/x>`_ for what it means.",
            "See the manual for what it means.",
        ),
        (
            "See [the manual](https://example.org/x) for what it means.",
            "See the manual for what it means.",
        ),
        (
            "This is described in the first book of Knuth [1]_.",
            "This is described in the first book of Knuth .",
        ),
        (
            ":param axis: the axis that the values are added along.",
            "the axis that the values are added along.",
        ),
        (
            "- a point of a list, which reads as a sentence.",
            "a point of a list, which reads as a sentence.",
        ),
        (
            "A paragraph that goes on\nin the line below it.",
            "A paragraph that goes on in the line below it.",
        ),
    ],
)
def test_markup_becomes_its_text(marked, plain):
    assert paragraphs(marked) == [plain]


@pytest.mark.parametrize(
    "not_prose",
    [
        ">>> words = 'the words of an example are no prose at all'",
        "+-----+-----+\n| one of the cells | another one of the cells |\n+-----+-----+",
        "A heading\n---------",
        "sum(a, axis=None, dtype=None, out=None, keepdims=<no value>, initial=<no value>)",
        "axis : int or tuple of int, optional",
        ".. code-block:: python\n\n   for the word in a line that reads as a sentence: print it.",
        "```\nfor the word in a line that reads as a sentence: print it.\n```"[:3],
        "x = y + z * 2; w[0] = {1: 2}; q -= 3; r(s)",
        "",
    ],
)
def test_code_tables_signatures_and_headings_are_left_out_and_the_prose_around_them_is_kept(
    not_prose,
):
    after = "Afterwards the text goes on as if nothing had been there."
    assert paragraphs(not_prose) == []
    assert paragraphs(f"{PROSE}\n\n{not_prose}\n\n{after}") == [PROSE, after]


def test_a_literal_block_ends_where_its_indentation_ends():
    text = (
        "It is used like this in most of the programs::\n\n"
        f"    the words of the code are no prose at all.\n\n{PROSE}"
    )
    assert paragraphs(text) == ["It is used like this in most of the programs:", PROSE]


def test_the_description_of_a_numpydoc_parameter_is_kept_without_its_name_and_type():
    text = (
        "Parameters\n----------\naxis : int, optional\n"
        f"    The axis that the values are added along.\n\n{PROSE}"
    )
    assert paragraphs(text) == ["The axis that the values are added along.", PROSE]


# -------------------------------------------------------------------------- installed documentation
def test_installed_documentation_holds_the_docstrings_that_the_package_shows():
    """Oracle: the docstrings of the imported package, where the corpus has parsed its files."""
    import inspect

    from packaging import specifiers, version

    documents = load_documents("docs:packaging")
    text = "\n\n".join(documents["text"])
    for thing in (
        version.Version,
        version.parse,
        specifiers.SpecifierSet,
        specifiers.SpecifierSet.contains,
    ):
        for paragraph in paragraphs(inspect.getdoc(thing)):
            assert paragraph in text
    assert all(name.startswith("packaging/") for name in documents["name"])
    assert len(set(documents["name"])) == len(documents)


def test_tests_of_packages_are_not_documentation():
    names = [row["name"] for row in documentation_files(("python",))]
    assert "python/argparse.py" in names
    assert not [n for n in names if "/test/" in n or "/tests/" in n or "site-packages" in n]


def test_packages_that_are_not_installed_are_passed_over_and_none_at_all_is_an_error():
    assert documentation_files(("packaging", "no-such-package")) == documentation_files(
        ("packaging",)
    )
    with pytest.raises(UserError, match="no-such-package"):
        load_documents("docs:no-such-package")


# ------------------------------------------------------------------------------ each paragraph once
def test_deduplicate_by_hand():
    rows = [
        ("a", "One.\n\nTwo."),
        ("b", "one. \n\n\nThree.\n\nThree."),
        ("c", "Two."),
        ("d", "\n\nFour  words\nhere."),
    ]
    kept = deduplicate(Dataset.from_list([{"name": n, "text": t} for n, t in rows]))
    assert [(d["name"], d["text"]) for d in kept] == [
        ("a", "One.\n\nTwo."),
        ("b", "Three."),
        ("d", "Four  words\nhere."),
    ]


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5), min_size=1, max_size=6)
)
def test_deduplicate_keeps_each_paragraph_exactly_once_and_in_order(documents):
    """Oracle: the first occurrences of the paragraphs, read from first to last."""
    kept = deduplicate(
        Dataset.from_list(
            [{"name": str(i), "text": "\n\n".join(d)} for i, d in enumerate(documents)]
        )
    )
    assert [p for d in kept for p in d["text"].split("\n\n")] == list(
        dict.fromkeys(p for d in documents for p in d)
    )


# ---------------------------------------------------------------------------------- who is held out
def test_split_is_a_pure_function_of_the_name_and_holds_out_three_per_cent():
    names = [f"module-{i}.py" for i in range(20_000)]
    first = {name: split_of(name) for name in names}
    assert first == {name: split_of(name) for name in reversed(names)}
    held_out = sum(side == "held_out" for side in first.values())
    assert (
        abs(held_out - 600) < 5 * (20_000 * 0.03 * 0.97) ** 0.5
    )  # five standard deviations of a binomial


def test_adding_documents_moves_none_to_the_other_side():
    def sides(documents):
        train, held_out = split_documents(Dataset.from_list(documents))
        return dict.fromkeys(train["name"], "train") | dict.fromkeys(held_out["name"], "held_out")

    documents = random_documents(300, paragraphs=1)
    fewer, more = sides(documents[:150]), sides(documents)
    assert "held_out" in fewer.values()
    assert more | fewer == more


def test_no_held_out_paragraph_is_trained_on(tmp_path):
    """Every paragraph of the corpus occurs in three documents, of which some are held out."""
    documents = random_documents(100, paragraphs=2)
    split = split_documents(
        load_documents(str(write_jsonl(tmp_path / "thrice.jsonl", documents * 3)))
    )
    train, held_out = ({p for text in part["text"] for p in text.split("\n\n")} for part in split)
    assert train and held_out and not train & held_out
    assert len(train) + len(held_out) == 200


def test_two_documents_are_enough_to_hold_one_out_and_one_is_not():
    assert [len(part) for part in split_documents(Dataset.from_list(random_documents(2)))] == [1, 1]
    with pytest.raises(UserError, match="single document"):
        split_documents(Dataset.from_list(random_documents(1)))


# -------------------------------------------------------------------------------------- local files
def test_the_same_documents_come_out_of_every_format(tmp_path):
    """Oracle: what was written."""
    texts = [d["text"] for d in random_documents(3, paragraphs=2)]
    frame = pandas.DataFrame({"text": texts, "other": [1, 2, 3]})
    frame.to_parquet(tmp_path / "c.parquet")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"other": i, "text": t}) + "\n" for i, t in enumerate(texts))
    )
    for i, text in enumerate(texts):
        (tmp_path / f"a{i}.txt").write_text(text)
    (tmp_path / "ignored.png").write_bytes(b"\x89PNG")
    assert as_they_are(tmp_path / "b.jsonl")["text"] == texts
    assert as_they_are(tmp_path / "c.parquet")["text"] == texts
    assert as_they_are(tmp_path / "a0.txt")["text"] == texts[:1]
    together = as_they_are(tmp_path)
    assert list(together["text"]) == texts * 3
    assert len(set(together["name"])) == 9


def test_a_long_text_file_is_cut_between_paragraphs_and_nothing_is_lost(tmp_path):
    text = "\n\n".join(d["text"] for d in random_documents(60))
    (tmp_path / "long.txt").write_text(text)
    documents = as_they_are(tmp_path / "long.txt")
    assert len(documents) > 3
    assert "\n\n".join(documents["text"]) == text


def bad_corpora(folder):
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\n \n")
    (folder / "empty.jsonl").write_text("")
    (folder / "newline.jsonl").write_text("\n")
    (folder / "broken.jsonl").write_text('{"text": "one"}\n{"text": \n')
    (folder / "columns.jsonl").write_text('{"body": "one"}\n')
    (folder / "numbers.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    (folder / "nothing.jsonl").write_text('{"text": null}\n')
    (folder / "broken.parquet").write_bytes(b"PAR1 and then no more")
    (folder / "binary.txt").write_bytes(bytes(range(128, 256)) * 10)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    "name",
    (
        "missing.txt empty.txt blank.txt empty.jsonl newline.jsonl broken.jsonl columns.jsonl "
        "numbers.jsonl nothing.jsonl broken.parquet binary.txt pictures"
    ).split(),
)
def test_a_corpus_that_cannot_be_read_is_named(name, tmp_path):
    bad_corpora(tmp_path)
    with pytest.raises(UserError) as error:
        load_documents(str(tmp_path / name))
    assert name in error.value.problem and error.value.remedy
