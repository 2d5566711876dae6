"""What a corpus is called, and mixtures of several."""

import json

import pytest
from helpers import random_documents, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from distil_lib.errors import UserError
from distil_lib.text.blocks import load_blocks
from distil_lib.text.deduplication import deduplicate
from distil_lib.text.documents import load_documents, split_documents, split_of
from distil_lib.text.sources import Source, corpus_fingerprint, parse_corpus


# ------------------------------------------------------------------------------------- the grammar
@pytest.mark.parametrize(
    "corpus, expected",
    [
        ("docs", [Source("docs", "docs")]),
        ("docs:numpy,pandas", [Source("docs", "docs:numpy,pandas")]),
        ("hub:a/b:c:d", [Source("hub", "hub:a/b:c:d")]),
        ("some/file.txt", [Source("path", "some/file.txt")]),
        ("docs+more", [Source("path", "docs+more")]),
        ("hub:a/b + docs", [Source("hub", "hub:a/b"), Source("docs", "docs")]),
        ("hub:a/b  +\n x y.txt", [Source("hub", "hub:a/b"), Source("path", "x y.txt")]),
        ("0.6 hub:a/b + 4e-1 docs", [Source("hub", "hub:a/b", 0.6), Source("docs", "docs", 0.4)]),
        ("3 docs + 1 a/b", [Source("docs", "docs", 3.0), Source("path", "a/b", 1.0)]),
    ],
)
def test_the_grammar_of_corpora(corpus, expected):
    assert parse_corpus(corpus) == expected


def test_the_parts_of_a_name():
    (source,) = parse_corpus("hub:a/b:c:d")
    assert source.repository == ("a/b", "c", "d")
    assert parse_corpus("hub:a/b")[0].repository == ("a/b", None, "train")
    assert parse_corpus("docs:numpy, pandas,")[0].packages == ("numpy", "pandas")


def test_what_exists_is_a_path_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "hub:a", "2 notes", "a + b"):
        (tmp_path / name).mkdir()
        assert parse_corpus(name) == [Source("path", name)]


@pytest.mark.parametrize(
    "corpus",
    ["", " ", "docs + ", " + docs", "docs + + docs", "hub:", "hub:a/b:c:d:e", "hub:a/b/c",
     "hub:a b", "0.5 docs", "0.5 docs + hub:a/b", "0 docs + 1 hub:a/b"],
)  # fmt: skip
def test_a_name_that_means_nothing_is_refused(corpus):
    with pytest.raises(UserError):
        parse_corpus(corpus)


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(corpus):
    try:
        assert parse_corpus(corpus)
    except UserError as error:
        assert error.problem and error.remedy


# ---------------------------------------------------------------------------------------- mixtures
@pytest.fixture
def parts(tmp_path):
    """Two files; the second says a part of the first again."""
    first, second = random_documents(60, seed=1), random_documents(90, seed=2)
    files = (
        write_jsonl(tmp_path / "first.jsonl", first),
        write_jsonl(tmp_path / "second.jsonl", second[:45] + first[:10] + second[45:]),
    )
    return list(map(str, files))


def rows(documents):
    return list(zip(documents["name"], documents["text"], strict=True))


def test_a_mixture_is_its_parts_joined_and_then_deduplicated(parts):
    """Oracle: `datasets.concatenate_datasets` of the parts, deduplicated."""
    import datasets

    joined = datasets.concatenate_datasets([load_documents(part) for part in parts])
    mixture = load_documents(" + ".join(parts))
    assert rows(mixture) == rows(deduplicate(joined))
    assert len(mixture) == 150 < len(joined) == 160
    assert rows(load_documents(" + ".join(parts[::-1]))) != rows(mixture)


def test_installed_documentation_and_a_file_mix(parts):
    mixture = load_documents(f"docs:packaging + {parts[0]}")
    assert rows(mixture) == rows(load_documents("docs:packaging")) + rows(load_documents(parts[0]))


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 5), (0.2, 0.8)])
def test_weights_are_shares_of_the_text_and_the_scarcest_part_is_whole(parts, weights):
    """Oracle: the letters of either part, and that no more text would keep the shares."""
    whole = [load_documents(part) for part in parts]
    mixture = load_documents(" + ".join(f"{w} {p}" for w, p in zip(weights, parts, strict=True)))
    taken = [[r for r in rows(mixture) if r[0].startswith(n)] for n in ("first", "second")]
    letters = [sum(len(text) for _, text in part) for part in taken]
    longest = max(len(text) for _, text in rows(mixture))
    assert abs(letters[0] * weights[1] - letters[1] * weights[0]) <= longest * max(weights)
    kept = [set(rows(part)) for part in whole]
    assert all(set(t) <= k for t, k in zip(taken[:1], kept[:1], strict=True))
    assert len(taken[0]) == 60 or len(taken[1]) == 90
    assert rows(mixture) == [*taken[0], *taken[1]]


def test_a_mixture_is_split_by_document_without_a_paragraph_on_both_sides(parts):
    train, held_out = split_documents(load_documents(" + ".join([*parts, parts[0]])))
    said = [{p for text in part["text"] for p in text.split("\n\n")} for part in (train, held_out)]
    assert said[0] and said[1] and not said[0] & said[1]
    assert all(split_of(name) == "held_out" for name in held_out["name"])


def test_a_mixture_is_cached_like_a_single_corpus(parts, tokenizer, tmp_path, monkeypatch):
    from distil_lib.text import blocks as library

    corpus = f"2 {parts[0]} + 1 {parts[1]}"
    made = load_blocks(corpus, tokenizer, 16, cache=tmp_path)
    monkeypatch.setattr(library, "load_documents", None)  # not called again
    again = load_blocks(corpus, tokenizer, 16, cache=tmp_path)
    assert (made.cache_key, made.content_hash) == (again.cache_key, again.content_hash)


def test_the_key_of_a_mixture_tells_its_parts_order_and_weights(parts):
    names = [
        " + ".join(parts), " + ".join(parts[::-1]), parts[0], f"1 {parts[0]} + 1 {parts[1]}",
        f"2 {parts[0]} + 1 {parts[1]}",
    ]  # fmt: skip
    assert len({json.dumps(corpus_fingerprint(name)) for name in names}) == len(names)


@pytest.mark.parametrize("weights", ["{} + {}", "1 {} + 2 {}"])
@pytest.mark.parametrize("bad", ["empty.txt", "missing.txt", "blank.jsonl", "docs:no-such-package"])
def test_a_mixture_with_an_empty_or_missing_part_names_it(weights, bad, parts, tmp_path, tokenizer):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.jsonl").write_text('{"text": " \\n\\n "}\n')
    name = bad if bad.startswith("docs") else str(tmp_path / bad)
    with pytest.raises(UserError) as error:
        load_blocks(weights.format(parts[0], name), tokenizer, 16, cache=tmp_path / "cache")
    assert bad.removeprefix("docs:") in error.value.problem
    assert list((tmp_path / "cache" / "blocks").iterdir()) == []


def test_a_part_that_says_nothing_new_has_no_share(parts):
    with pytest.raises(UserError, match="parts before it"):
        load_documents(f"1 {parts[0]} + 1 {parts[0]}")


@pytest.mark.parametrize("name", ["hub:../x", "hub:./x", "hub:.x", "hub:a/..", "hub:a/.b"])
def test_a_path_is_no_name_on_the_hub(name):
    with pytest.raises(UserError, match="does not name a dataset"):
        parse_corpus(name)


def test_a_folder_here_is_not_read_in_place_of_the_hub(tmp_path, monkeypatch):
    """`datasets` prefers a folder of that name."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a name on the Hub, and a file or folder here"):
        parse_corpus("hub:owner/name")
    assert parse_corpus("hub:owner/other")[0].kind == "hub"
