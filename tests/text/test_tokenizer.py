"""Tokenizers that people bring: used, or refused in one sentence that says what to do."""

import json
import os
import shutil
import sys

import pytest
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distil_lib.errors import UserError
from distil_lib.text import tokenizer as library
from distil_lib.text.tokenizer import (
    check_same_reading,
    load_tokenizer,
    main,
    train_tokenizer,
)

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def saved(folder, vocabulary, **special):
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **(SPECIAL | special))
    made.save_pretrained(folder)
    return folder


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_sound_tokenizer_is_read(tmp_path):
    words = {w: i for i, w in enumerate([*SPECIAL.values(), "a", "b"])}
    assert len(load_tokenizer(saved(tmp_path, words))) == 6


def no_mask(folder):
    saved(folder, {"a": 0}, mask_token=None)


def repeated_ids(folder):
    saved(folder, {w: i for i, w in enumerate([*SPECIAL.values(), "a", "b"])})
    change(folder / "tokenizer.json", lambda c: c["model"]["vocab"].update(b=4))


def huge_id(folder):
    saved(folder, {w: i for i, w in enumerate([*SPECIAL.values(), "a", "b"])})
    change(folder / "tokenizer.json", lambda c: c["model"]["vocab"].update(b=2_000_000_000))


def damaged(folder):
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": [1]}}')
    (folder / "tokenizer_config.json").write_text("[]")


def deep(folder):
    (folder / "tokenizer.json").write_text("[" * 100_000)


def short(folder):
    saved(folder, {w: i for i, w in enumerate([*SPECIAL.values(), "a"])})
    change(folder / "tokenizer_config.json", lambda c: c.update(model_max_length=-5))


def foreign_code(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["code.Evil", None]}, "tokenizer_class": "Evil"})
    )
    (folder / "code.py").write_text(f"open({str(folder / 'PWNED')!r}, 'w')")


@pytest.mark.parametrize(
    "make", [no_mask, repeated_ids, huge_id, damaged, deep, short, foreign_code]
)
def test_a_tokenizer_that_cannot_be_used_is_refused(make, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError) as error:
        load_tokenizer(folder)
    assert "named" in error.value.problem and error.value.remedy
    assert not (folder / "PWNED").exists()


@pytest.mark.parametrize("make", [repeated_ids, huge_id])
def test_bad_ids_are_seen_before_the_file_is_loaded(make, tmp_path, monkeypatch):
    """The library takes 8 GB of memory for an id of two thousand million."""
    make(tmp_path)
    monkeypatch.setattr(library.AutoTokenizer, "from_pretrained", pytest.fail)
    with pytest.raises(UserError, match=r"repeats ids|to 2000000000"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "raised, words",
    [
        (ModuleNotFoundError("No module named 'fugashi'"), ["fugashi", "Install"]),
        (ImportError("You need to install sentencepiece"), ["sentencepiece", "Install"]),
        (Exception("a bare one"), ["a bare one"]),
        (AssertionError(), ["AssertionError"]),
    ],
)
def test_whatever_a_tokenizer_raises_is_one_sentence(raised, words, monkeypatch):
    def refuse(*_, **__):
        raise raised

    monkeypatch.setattr(library.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(UserError) as error:
        load_tokenizer("owner/name")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_tokenizer_without_a_fast_form_is_named(monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(library.AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(UserError, match=r"Slow.*no fast form"):
        load_tokenizer("owner/name")


def test_a_folder_that_does_not_exist_is_no_name_on_the_hub(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "no" / "such" / "folder")


def test_a_folder_without_a_tokenizer_gets_none_made_up(teacher_folder, tmp_path):
    """`transformers` gives a BERT's folder one of five special tokens."""
    shutil.copy(teacher_folder / "config.json", tmp_path)
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("size", [-5, 0, 5, 10**12])
def test_sizes_that_no_vocabulary_has_are_refused(size):
    with pytest.raises(UserError, match="vocabulary"):
        train_tokenizer(["some text"], size)


def test_the_same_text_gives_the_same_tokenizer(documents):
    """Half of all pairs are as frequent as another one, and each hash table has its own order.

    Oracle: the trainer itself, in one pass: three times, three vocabularies.
    """
    texts = [d["text"] for d in documents]
    passes = []
    for _ in range(3):
        trainer = BertWordPieceTokenizer()
        trainer.train_from_iterator(texts, 160, min_frequency=2, show_progress=False)
        passes.append(json.dumps(trainer.get_vocab(), sort_keys=True))
    assert len(set(passes)) > 1
    orders = (texts, iter(texts), texts[::-1])
    ours = [train_tokenizer(order, 160).backend_tokenizer.to_str() for order in orders]
    assert ours[0] == ours[1] == ours[2]
    assert json.loads(ours[0])["added_tokens"][-1]["content"] == "[MASK]"  # no letter is one


# ----------------------------------------------------------------------------------- command line
def test_the_command_writes_to_runs_and_nothing_of_the_projects(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--corpus", str(corpus), "--vocab_size", "120"])
    assert len(load_tokenizer(tmp_path / "runs" / "tokenizer")) == 120
    assert "--vocab_size 120" in (tmp_path / "runs" / "tokenizer" / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "notes.txt", "vocab.txt"])
def test_nothing_that_is_no_tokenizer_is_overwritten(name, corpus, tmp_path, monkeypatch, capsys):
    """`--output .` in a project replaced its README. A tokenizer is made again in its folder."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--corpus", str(corpus), "--vocab_size", "120", "--output"]
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit) as end:
        main([*arguments, "."])
    assert end.value.code == 2 and f"no tokenizer: {name}" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
    for _ in range(2):
        main([*arguments, "made"])


@pytest.mark.parametrize(
    "arguments",
    [["--vocab_sise", "9"], ["--vocab_size", "9", "--output", __file__], ["--vocab_size", "x"]],
)
def test_bad_arguments_are_one_message(arguments, corpus, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tokenizer"])
    with pytest.raises(SystemExit) as end:
        main(["--corpus", str(corpus), *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("error: ") == 1


def edited(edit):
    return lambda folder: change(folder / "tokenizer.json", edit)


def settings(**changes):
    return lambda folder: change(folder / "tokenizer_config.json", lambda c: c.update(changes))


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (edited(lambda c: c["normalizer"].update(lowercase=False)), "upper case"),
        (edited(lambda c: c["model"].update(max_input_chars_per_word=1)), "upper case"),
        (settings(cls_token="[SEP]", sep_token="[CLS]"), "cls_token"),
        (settings(mask_token="the"), "mask_token"),
    ],
)
def test_a_tokenizer_of_the_same_words_that_reads_otherwise_is_refused(
    harm, word, teacher_folder, tokenizer_folder, tmp_path
):
    """Oracle: a change that gives some text other ids, with the same list of words."""
    shutil.copytree(tokenizer_folder, tmp_path / "other")
    harm(tmp_path / "other")
    other = load_tokenizer(tmp_path / "other")
    assert other.get_vocab() == load_tokenizer(teacher_folder).get_vocab()
    if word == "upper case":
        settings(do_lower_case=False)(tmp_path / "other")
        other = PreTrainedTokenizerFast(
            tokenizer_file=str(tmp_path / "other" / "tokenizer.json"), **SPECIAL
        )
    with pytest.raises(UserError, match=word):
        check_same_reading(other, teacher_folder)
    check_same_reading(load_tokenizer(tokenizer_folder), teacher_folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_place_of_a_tokenizer_is_not_waited_for(tokenizer_folder, tmp_path):
    folder = shutil.copytree(tokenizer_folder, tmp_path / "pipe")
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert len(load_tokenizer(folder)) < 10  # what is beside it; no teacher has so few words
    with pytest.raises(UserError, match="is a file, and not a folder"):
        load_tokenizer(folder / "tokenizer_config.json")


def test_no_tokenizer_is_written_into_a_models_folder(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("the model's")
    with pytest.raises(SystemExit) as end:
        main(["--corpus", str(tmp_path), "--output", str(tmp_path)])
    assert end.value.code == 2 and "no tokenizer: config.json" in capsys.readouterr().err
    assert (tmp_path / "tokenizer.json").read_text() == "the model's"
