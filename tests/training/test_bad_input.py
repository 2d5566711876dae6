"""Bad input: one clear message on standard error, exit code 2, no traceback, and nothing
half-written.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import (
    IMPATIENT,
    assert_user_error,
    random_documents,
    randomize,
    replace,
    write_jsonl,
)
from transformers import BertConfig, BertModel, ElectraConfig, ElectraForMaskedLM

from distil_lib.teacher import new_teacher
from distil_lib.text.tokenizer import train_tokenizer
from distil_lib.training.checkpoint import latest_valid_checkpoint


@pytest.fixture
def refused(program, small_run, tmp_path):
    """Start a run with these changes, and check that it is refused with these words and leaves no
    output.
    """

    def check(changes, *words, more=()):
        folder = tmp_path / "output"
        assert_user_error(program([*small_run(folder, **changes), *more]), *words)
        assert not folder.exists()

    return check


# ------------------------------------------------------------------------- settings, and the launch
def test_unknown_presets_and_settings_with_the_real_command(tmp_path):
    """The file itself, as it is launched."""
    script = Path(__file__).parents[2] / "distil_lib" / "pretrain.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(
        [sys.executable, script, "--preset", "minni"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.splitlines()[0].startswith("error: ")
        and "Did you mean 'mini" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"temperatur": 2}, ["temperatur", "did you mean"]),
        ({"batch_size": "many"}, ["batch_size", "many"]),
        ({"temperature": 0}, ["temperature"]),
        ({"alpha_mlm": -1}, ["alpha_mlm"]),
        ({"block_size": 4}, ["block of 4", "8 to"]),
        ({"block_size": 64}, ["64", "32"]),  # more positions than the teacher has
        ({"init_layers": "middle"}, ["middle", "spread"]),
        ({"init_layers": "0,9"}, ["0 to 3"]),
        ({"student_layers": 5}, ["student of 5 layers", "teacher of 4", "1 to 4"]),
        ({"teacher": None}, ["need a teacher"]),
        ({"log_with": "no-such-tracker"}, ["no-such-tracker"]),
        ({"preset": "no-such-preset"}, ["no-such-preset"]),
    ],
)
def test_settings_that_do_not_fit(changes, words, refused):
    refused(changes, *words)


def test_heads_that_do_not_divide_the_width(refused):
    refused(
        {"teacher": None, "alpha_ce": 0, "alpha_cos": 0, "hidden_size": 10, "heads": 4},
        "10",
        "4 heads",
    )


# ------------------------------------------------------------------------------------------- corpus
@pytest.mark.parametrize(
    "name, content, words",
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", "", "no text"),
        ("blank.jsonl", '{"text": " "}\n', "empty"),
    ],
)
def test_a_corpus_that_is_missing_or_empty(name, content, words, refused, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    refused({"corpus": tmp_path / name}, name, words)


def test_a_corpus_too_small_for_one_batch(refused, tmp_path):
    small = write_jsonl(tmp_path / "small.jsonl", random_documents(6, paragraphs=1))
    refused({"corpus": small, "batch_size": 500}, "less than a batch of 500", "--batch_size")


# ---------------------------------------------------------------------------- teacher and tokenizer
def test_a_teacher_that_does_not_exist_or_is_no_checkpoint(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"\x89PNG")
    refused({"teacher": tmp_path / "photos"}, "photos", "config.json")
    refused({"teacher": tmp_path / "nowhere"}, "nowhere")


@pytest.fixture
def copied(teacher_folder, tmp_path):
    """A copy of the teacher to do harm to."""
    import shutil

    return Path(shutil.copytree(teacher_folder, tmp_path / "copied"))


def test_a_truncated_teacher(refused, copied):
    for size in (1000, 5):
        os.truncate(copied / "model.safetensors", size)
        refused({"teacher": copied}, "copied", "damaged")


def test_a_teacher_with_a_broken_configuration(refused, copied):
    for text in ("{", "{}", '{"model_type": "no-such-model"}', ""):
        (copied / "config.json").write_text(text)
        refused({"teacher": copied}, "copied")


class Explosive:
    """Unpickled, it writes a file: what a foreign pickle may do."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (open, (self.trace, "w"))


def test_a_pickled_teacher_is_refused_and_never_opened(refused, copied, tmp_path):
    (copied / "model.safetensors").unlink()
    torch.save({"weights": Explosive(tmp_path / "ran")}, copied / "pytorch_model.bin")
    refused({"teacher": copied}, "pytorch_model.bin", "pickle", "safetensors")
    assert not (tmp_path / "ran").exists()


def test_a_teacher_of_another_vocabulary_than_the_tokenizer(refused, documents, tmp_path):
    train_tokenizer((d["text"] for d in documents), vocab_size=120).save_pretrained(
        tmp_path / "other"
    )
    refused({"tokenizer": tmp_path / "other"}, "160", "120")


def test_a_tokenizer_that_is_none(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    refused({"tokenizer": tmp_path / "photos"}, "photos", "tokenizer")


def test_teachers_that_are_no_bert(refused, tmp_path, tokenizer):
    config = ElectraConfig(vocab_size=len(tokenizer), hidden_size=16, num_attention_heads=2)
    ElectraForMaskedLM(config).save_pretrained(tmp_path / "other")
    refused({"teacher": tmp_path / "other"}, "electra")
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(encoder).save_pretrained(tmp_path / "headless")
    refused({"teacher": tmp_path / "headless"}, "headless", "head")


def test_a_teacher_with_an_activation_the_student_does_not_have(refused, tmp_path, tokenizer):
    teacher = new_teacher(tokenizer, 16, 2, 2, max_length=32)
    teacher.config.hidden_act = "relu"
    randomize(teacher).save_pretrained(tmp_path / "relu")
    refused({"teacher": tmp_path / "relu"}, "relu")


# ------------------------------------------------------------------------------------------ network
CLOSED = "http://127.0.0.1:9"  # the port of the discard service, where nobody listens


def online(arguments, folder, endpoint) -> subprocess.CompletedProcess:
    """The program as a user with a network has it: the settings of the Hub are read at import."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "home"),
        "DISTIL_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    program = f"{IMPATIENT}from distil_lib import pretrain\npretrain.main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


def test_no_network(small_run, tmp_path):
    done = online(
        small_run(tmp_path / "output", corpus="hub:wikimedia/wikipedia:20231101.en"),
        tmp_path,
        CLOSED,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "wikimedia/wikipedia" in done.stderr
        and "network" in done.stderr
        and 'the corpus "docs"' in done.stderr
    )
    assert "Retrying" in done.stderr  # the network may have failed for a moment
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus": "hub:no/such-corpus"},
        {"teacher": "no/such-teacher"},
        {"tokenizer": "no/such-tokenizer"},
    ],
)
def test_offline_by_choice(changes, refused):
    """HF_HUB_OFFLINE=1, as in these tests."""
    refused(changes, "no/such", "network")


# -------------------------------------------------------------------------------- the output folder
def test_an_output_folder_with_another_run_stays_as_it_is(program, small_run, tmp_path):
    assert program(small_run(tmp_path / "run", max_steps=2)).code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert_user_error(
        program(small_run(tmp_path / "run", max_steps=2)),
        "holds a run already",
        "--resume",
        "--overwrite",
    )
    assert_user_error(
        program([*small_run(tmp_path / "run", max_steps=3), "--resume"]), "max_steps was 2 and is 3"
    )
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


class full_disk:
    """From the second checkpoint on, the disk is full."""

    def __call__(self):
        from distil_lib.training import checkpoint

        save_file, calls = checkpoint.save_file, []

        def fails(tensors, path):
            calls.append(path)
            if len(calls) > 2:
                Path(path).write_bytes(b"as much as there was room for")
                raise OSError(28, "No space left on device", str(path))
            save_file(tensors, path)

        replace("distil_lib.training.checkpoint.save_file", fails)


def test_a_full_disk_while_saving(program, small_run, tmp_path):
    """The last good checkpoint stays whole, and the run can go on from it."""
    assert_user_error(program(small_run(tmp_path / "run"), full_disk()), "disk is full", "--resume")
    folder = tmp_path / "run" / "checkpoints"
    assert (
        latest_valid_checkpoint(folder).name == "step-00000004" and len(list(folder.iterdir())) == 1
    )
    done = program([*small_run(tmp_path / "run"), "--resume"])
    assert done.code == 0 and "steps 4 to 12" in done.out


def test_a_disk_that_is_really_full(program, small_run, tmp_path):
    """A file system of 450 kB, which the metrics or the third checkpoint fill.

    Only the superuser can make one.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.name != "posix"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=450k", "tmpfs", disk], capture_output=True
        ).returncode
    ):
        pytest.skip("no right to mount a file system of a limited size here")
    try:
        assert_user_error(program(small_run(disk / "run", save_total_limit=0)), "disk is full")
        assert latest_valid_checkpoint(disk / "run" / "checkpoints") is not None
    finally:
        subprocess.run(["umount", disk], check=True)
