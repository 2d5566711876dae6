"""ELMo's pretraining: the loss is that of two language models, they learn, and what they leave
behind can be fine-tuned.
"""

import contextlib
import json
import math
import os
import shutil
import signal
from collections import Counter, namedtuple

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import randomize, write_jsonl
from safetensors.torch import load_file, save_file

from distil_lib.common.files import locked
from distil_lib.elmo import pretrain as elmo_pretrain
from distil_lib.elmo.characters import character_ids
from distil_lib.elmo.config import ElmoPretrainConfig
from distil_lib.elmo.language_model import ElmoForPreTraining, perplexities
from distil_lib.elmo.model import Elmo, ElmoConfig
from distil_lib.elmo.pretrain import main, pretrain
from distil_lib.elmo.run_folder import LOCK, complete_checkpoint, latest_valid_checkpoint
from distil_lib.elmo.tokenizer import new_tokenizer
from distil_lib.elmo.trainer import ElmoTrainer, Recorder
from distil_lib.elmo.vocabulary import EDGE, UNKNOWN, load_words, unigram_perplexity
from distil_lib.errors import UserError
from distil_lib.finetune.models import load_task_model, load_task_tokenizer
from distil_lib.tasks.registry import find_task
from distil_lib.text.blocks import split_documents
from distil_lib.text.documents import load_documents

datasets.disable_progress_bars()
SMALL = {
    "max_characters": 14,
    "filters": [8, 16, 16],
    "cell_size": 32,
    "projection_size": 16,
    "encoder_size": 8,
    "classifier_size": 8,
    "block_size": 20,
    "batch_size": 16,
    "precision": "fp32",
    "threads": 1,
}


@pytest.fixture(scope="module")
def settings(corpus):
    return SMALL | {"corpus": str(corpus), "vocabulary": 30}


@pytest.fixture(scope="module")
def words(settings):
    return load_words(settings["corpus"], 30, 20, 14)


# --------------------------------------------------------------------------------------------------
# ------------------------ text
def test_words_and_classes_are_counted_on_the_training_documents(words, settings):
    """Oracle: a Counter over the documents that `split_documents` gives for training."""
    train, held_out = split_documents(load_documents(settings["corpus"]))
    split = new_tokenizer().words
    count = Counter(word for text in train["text"] for word in split(text))
    frequent = [word for word, _ in count.most_common(28)]
    # Back from numbers to words, by their characters.
    of = {tuple(row): word for word in count for row in character_ids([[word]], 14)[0].tolist()}
    say = lambda text: [of[tuple(row)] for row in words.characters[text].tolist()]
    for texts, part in ((words.train, train), (words.held_out, held_out)):
        assert [w for text in texts for w in say(text)] == [
            w for text in part["text"] for w in split(text)
        ]
        assert max(map(len, texts)) == 20 and min(map(len, texts)) > 0
    rare = sum(n for word, n in count.items() if word not in frequent)
    assert words.frequency[UNKNOWN] == rare > 0 and words.frequency[EDGE] == len(words.train)
    assert sorted(words.frequency[EDGE + 1 :]) == sorted(count[word] for word in frequent)
    for text in words.train[:20]:
        for word, label in zip(say(text), words.classes[text].tolist(), strict=True):
            assert words.frequency[label] == (count[word] if label > EDGE else rare)


def test_unigram_perplexity_by_hand(words):
    p = (words.frequency + 1) / (words.frequency + 1).sum()
    labels = [label for text in words.held_out for label in [*words.classes[text].tolist(), EDGE]]
    assert unigram_perplexity(words, words.held_out) == pytest.approx(
        math.prod(p[label] ** (-1 / len(labels)) for label in labels)
    )


# --------------------------------------------------------------------------------------------------
# ------------------------ loss
@pytest.fixture
def model(words):
    sizes = {
        "max_characters": 14,
        "filters": [3, 4],
        "character_size": 4,
        "cell_size": 7,
        "projection_size": 5,
    }
    return randomize(
        ElmoForPreTraining(ElmoConfig(**sizes, classes=len(words.frequency))), std=0.5
    ).double()


def losses_by_hand(model, words, text) -> tuple[list, list]:
    """Of each word of a text and one end, read without padding and word by word: from the left,
    from the right.
    """
    rows = words.characters[np.array([1, *text, 2])].long()[None]
    last = model.elmo.bilm(model.elmo.characters(rows), torch.tensor([len(text) + 2]))[-1][0]
    labels = [EDGE, *words.classes[text].tolist(), EDGE]
    loss = lambda state, label: F.cross_entropy(model.softmax(state), torch.tensor(label))
    left = [loss(last[t, :5], labels[t + 1]) for t in range(len(text) + 1)]
    right = [loss(last[t, 5:], labels[t - 1]) for t in range(1, len(text) + 2)]
    return left, right


def test_loss_by_hand(model, words):
    """Texts of three lengths in one batch: the mean over all words, both directions, and its
    gradient.
    """
    texts = [words.train[0], words.train[1][:3], words.train[2][:7]]
    outputs = model(**words.batch(texts))
    each = [losses_by_hand(model, words, text) for text in texts]
    left, right = (torch.stack([loss for pair in each for loss in pair[side]]) for side in (0, 1))
    assert outputs["words"] == len(left) == sum(map(len, texts)) + 3
    torch.testing.assert_close(outputs["sums"], torch.stack([left.sum(), right.sum()]))
    expected = (left.mean() + right.mean()) / 2
    torch.testing.assert_close(outputs["loss"], expected)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(outputs["loss"], parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_perplexity_is_a_mean_over_words_not_over_batches(model, words):
    texts = [words.held_out[0], words.held_out[1][:2], words.held_out[2][:5]]
    with torch.no_grad():
        each = [losses_by_hand(model, words, text) for text in texts]
    expected = [
        math.exp(torch.stack([loss for pair in each for loss in pair[side]]).mean())
        for side in (0, 1)
    ]
    for size in (1, 2, 3):
        assert perplexities(model, words, texts, size) == pytest.approx(expected)


def test_the_characters_of_a_batch_are_those_of_its_words(words):
    texts = [words.train[0], words.train[1][:4]]
    batch = words.batch(texts)
    characters = batch["characters"][batch["places"]]
    elmo = Elmo(
        ElmoConfig(
            **{
                name: SMALL[name]
                for name in ("max_characters", "filters", "cell_size", "projection_size")
            }
        )
    )
    plain = torch.nn.utils.rnn.pad_sequence(
        [words.characters[text].long() for text in texts], batch_first=True
    )
    assert (
        torch.equal(characters, elmo.with_ends(plain))
        and len(batch["characters"]) == len(np.unique(np.concatenate(texts))) + 3
    )


# --------------------------------------------------------------------------------------------------
# ------------------------- run
def test_it_learns_and_leaves_a_model_that_fine_tuning_opens(settings, words, tmp_path, capsys):
    """Nouns come after adjectives: both directions must do better than the words' frequencies."""
    run = tmp_path / "run"
    pairs = {**settings, "output": run, "max_steps": 80, "learning_rate": 0.02, "log_every": 20}
    arguments = [
        word
        for name, value in pairs.items()
        for word in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    main(arguments)
    record = json.loads((run / "model" / "pretraining.json").read_text())
    perplexity = record["perplexity"]
    assert max(perplexity["left"], perplexity["right"]) < 0.5 * perplexity["unigram"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60, 80] and rows[-1]["loss"] < rows[0][
        "loss"
    ] - 0.5
    assert (
        sorted(path.name for path in run.iterdir()) == [LOCK, "metrics.jsonl", "model"]
        and record["steps"] == 80
    )
    assert f"held-out perplexity: {perplexity['left']:.1f} left" in capsys.readouterr().out

    saved = ElmoForPreTraining.from_pretrained(run / "model")
    assert perplexities(saved, words, words.held_out, 16) == pytest.approx(
        (perplexity["left"], perplexity["right"]), rel=1e-4
    )
    finetuned = load_task_model(str(run / "model"), find_task("mrpc"), seed=0)
    assert all(
        torch.equal(weight, finetuned.elmo.state_dict()[name])
        for name, weight in saved.elmo.state_dict().items()
    )
    assert (
        finetuned.encoder.hidden_size == 8
        and len(load_task_tokenizer(str(run / "model"))("a b")["input_ids"]) == 4
    )


def run(settings, output, **changes):
    """A run of 9 steps."""
    config = ElmoPretrainConfig(
        **settings | {"max_steps": 9, "log_every": 3, "save_every": 4} | changes, output=str(output)
    )
    return pretrain(config)


@contextlib.contextmanager
def signal_in(step: int, number: int = signal.SIGTERM):
    """Let a run get a signal in the middle of a step."""
    compute = ElmoTrainer.compute_loss

    def interrupted(trainer, *arguments, **options):
        if trainer.state.global_step == step - 1:
            os.kill(os.getpid(), number)
        return compute(trainer, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(ElmoTrainer, "compute_loss", interrupted)
        yield
    assert end.value.code == 128 + number


def lines(folder):
    """All that metrics.jsonl says, but for the time."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def spoil(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def add(path, text):
    path.write_text(path.read_text() + text)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# What may have happened to the newest checkpoint, and to the file of metrics.
DAMAGES = {
    "none": lambda run: None,
    "killed before it was complete": lambda run: (run / "checkpoint-5" / "run.json").unlink(),
    "no state": lambda run: (run / "checkpoint-5" / "trainer_state.json").unlink(),
    "half the weights": lambda run: spoil(run / "checkpoint-5" / "model.safetensors", 3000),
    "half the optimizer": lambda run: spoil(run / "checkpoint-5" / "optimizer.pt", 3000),
    "a flipped bit": lambda run: flip(run / "checkpoint-5" / "optimizer.pt"),
    "a foreign manifest": lambda run: (run / "checkpoint-5" / "run.json").write_text("[5]"),
    "half a line": lambda run: add(run / "metrics.jsonl", '{"step": 6, "lo'),
}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def never_stopped(request, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elmo") / "run"
    precision = {"precision": request.param}
    return folder, run(settings | precision, folder), settings | precision


@pytest.fixture(scope="module")
def stopped(never_stopped, tmp_path_factory):
    """The same run after a signal in step 5, between two lines of metrics."""
    folder = tmp_path_factory.mktemp("elmo") / "run"
    with signal_in(5):
        run(never_stopped[2], folder)
    return folder


def same_end(folder, never_stopped, record):
    """Weights to the bit, all lines of metrics, and the held-out perplexities."""
    whole, expected, _ = never_stopped
    found, wanted = (load_file(one / "model" / "model.safetensors") for one in (folder, whole))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    assert lines(folder) == lines(whole)
    assert record["perplexity"] == expected["perplexity"]
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "metrics.jsonl", "model"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    damage, never_stopped, stopped, tmp_path, capsys
):
    """Oracle: a run that was never stopped, in weights, metrics and figures, and in bf16 too.

    The last checkpoint may have been damaged.
    """
    settings = never_stopped[2]
    if settings["precision"] == "bf16" and damage not in ("none", "half the optimizer"):
        pytest.skip("the same as in fp32")
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    DAMAGES[damage](tmp_path)
    record = run(settings, tmp_path, resume=True, precision="auto")
    passed_over = damage not in ("none", "half a line")
    assert passed_over == ("checkpoint-5 is damaged and passed over" in capsys.readouterr().err)
    assert record["configuration"]["precision"] == settings["precision"]
    same_end(tmp_path, never_stopped, record)
    with pytest.raises(UserError, match="finished"):
        run(settings, tmp_path, resume=True)


def test_a_run_that_dies_after_its_last_step_has_the_same_figures(
    never_stopped, tmp_path, monkeypatch
):
    """Nothing is trained a second time, and bf16 is evaluated as if it had been trained here."""

    def dies(*_):
        raise MemoryError

    settings = never_stopped[2]
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(elmo_pretrain, "perplexities", dies)
        run(settings, tmp_path)
    same_end(tmp_path, never_stopped, run(settings, tmp_path, resume=True))


def test_a_weight_that_no_held_out_text_reads_may_not_be_nan(never_stopped, tmp_path, monkeypatch):
    """The file's hash is right, and the perplexities are: still no model is written."""
    settings = never_stopped[2]
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(elmo_pretrain, "perplexities", lambda *_: (2.0, math.nan))
        run(settings, tmp_path)
    checkpoint, state = latest_valid_checkpoint(tmp_path)
    weights = load_file(checkpoint / "model.safetensors")
    weights["elmo.characters.embeddings.weight"][-1] = math.nan
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    complete_checkpoint(checkpoint, state)
    monkeypatch.setattr(elmo_pretrain, "perplexities", lambda *_: (2.0, 3.0))
    with pytest.raises(UserError, match=r"embeddings\.weight .*NaN"):
        run(settings, tmp_path, resume=True)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("where", ["loss", "gradient", "held-out perplexity"])
def test_nan_is_never_a_result(where, settings, tmp_path, monkeypatch):
    """It stops the run, with the step and the cause; nothing that holds NaN is saved."""
    if where == "loss":  # weights that overflow after two steps
        changes, said = {"learning_rate": 1e30, "warmup_ratio": 0.0}, r"step \d is (nan|inf)"
    elif where == "gradient":
        forward, changes, said = ElmoForPreTraining.forward, {}, "gradient of step 1 is NaN"

        def wrong(model, **batch):
            outputs = forward(model, **batch)
            outputs["loss"].register_hook(lambda gradient: gradient * math.nan)
            return outputs

        monkeypatch.setattr(ElmoForPreTraining, "forward", wrong)
    else:
        changes, said = {}, "held-out perplexity after the last step is nan"
        monkeypatch.setattr(elmo_pretrain, "perplexities", lambda *_: (2.0, math.nan))
    with pytest.raises(UserError, match=said) as error:
        run(settings, tmp_path / "run", **changes)
    assert error.value.settings == ("learning_rate",) and "smaller" in error.value.remedy
    assert not (tmp_path / "run" / "model").exists()


def test_a_full_disk_is_named_and_costs_no_checkpoint(settings, tmp_path, monkeypatch):
    save = ElmoTrainer._save_checkpoint
    with monkeypatch.context() as patch:

        def fails(trainer, *arguments):  # what torch says where nothing can be written
            if trainer.state.global_step > 4:
                raise RuntimeError("[enforce fail at inline_container.cc:662] . unexpected pos")
            return save(trainer, *arguments)

        patch.setattr(ElmoTrainer, "_save_checkpoint", fails)
        # There is space: it is a limit.
        with pytest.raises(UserError, match="ulimit -f"):
            run(settings, tmp_path / "other")
        patch.setattr("shutil.disk_usage", lambda _: Usage(free=100))
        with pytest.raises(UserError, match="The disk is full") as error:
            run(settings, tmp_path / "full")
        assert error.value.resumable  # the program says so
    run(settings, tmp_path / "full", resume=True)
    assert (tmp_path / "full" / "model").is_dir()


Usage = namedtuple("Usage", "free")


def test_an_error_that_is_none_of_the_disk_is_not_taken_for_one(settings, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(ElmoForPreTraining, "forward", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        run(settings, tmp_path / "run")


def test_a_folder_that_is_lost_while_it_is_written_into_is_one_message(
    settings, tmp_path, monkeypatch
):
    folder, steps = tmp_path / "run", []
    before = Recorder.on_pre_optimizer_step

    def lost(recorder, *arguments, **more):
        steps.append(1)
        if len(steps) == 2:
            shutil.rmtree(folder)
            folder.write_text("another file")
        return before(recorder, *arguments, **more)

    monkeypatch.setattr(Recorder, "on_pre_optimizer_step", lost)
    with pytest.raises(UserError, match=r"run could not be written \(Not a directory\)"):
        run(settings, folder)
    assert folder.read_text() == "another file"


def test_a_run_is_resumed_with_its_own_text_and_settings_only(settings, corpus, tmp_path):
    """Another text of the same length: numbers and classes of its words are others."""
    text, folder = tmp_path / "text.jsonl", tmp_path / "run"
    settings = settings | {"corpus": str(text)}
    documents = [{"text": row} for row in load_documents(str(corpus))["text"]]
    write_jsonl(text, documents)
    with pytest.raises(UserError, match=r"no run in .*nowhere to resume"):
        run(settings, tmp_path / "nowhere", resume=True)
    with signal_in(3):
        run(settings, folder)
    with pytest.raises(UserError, match="exists already") as error:
        run(settings, folder)
    assert error.value.settings == ("resume", "output")
    with pytest.raises(UserError, match="started with batch_size 16, seed 0\\."):
        run(settings, folder, resume=True, seed=1, batch_size=8)
    write_jsonl(text, documents[::-1])
    with pytest.raises(UserError, match="text has changed"):
        run(settings, folder, resume=True)
    write_jsonl(text, documents)
    (folder / "settings.json").write_text("[")
    with pytest.raises(UserError, match="is no JSON"):
        run(settings, folder, resume=True)


def test_one_run_at_a_time(settings, tmp_path):
    with (
        locked(tmp_path, tmp_path / LOCK),
        pytest.raises(UserError, match="Another run is at work"),
    ):
        run(settings, tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_a_stop_says_where_it_has_saved(settings, tmp_path, capsys):
    with signal_in(2, signal.SIGINT):
        run(settings, tmp_path)
    assert "stopped by SIGINT and saved at step 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--cell_size", "16", "--projection_size", "16"], "projected"),
        (["--filters", "8", "0"], "filters"),
        (["--epochs", "0"], "epochs"),
        (["--warmup_ratio", "1"], "warmup"),
        (["--max_characters", "2", "--filters", "4"], "max_characters"),
        (["--batch_size", "0"], "batch_size"),
        (["--learning_rate", "-1"], "learning_rate"),
        (["--precision", "fp8"], "precision"),
        (["--batchsize", "4"], "batch_size"),
        (["--corpus", "nowhere"], "does not exist"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_input_is_one_message(arguments, word, corpus, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--corpus", str(corpus), "--output", str(tmp_path / "run"), *arguments])
    assert end.value.code == 2 and not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and word in error and "what to do: " in error


def test_what_stands_in_the_way_is_said(settings, corpus, tmp_path, monkeypatch):
    (tmp_path / "used").write_text("")
    for output in (tmp_path, tmp_path / "used"):
        with pytest.raises(UserError, match="already"):
            pretrain(ElmoPretrainConfig(**settings, output=str(output)))
    with pytest.raises(UserError, match="cannot be written"):
        pretrain(ElmoPretrainConfig(**settings, output=str(tmp_path / "used" / "run")))
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "A single document."}])
    with pytest.raises(UserError, match="single document"):
        pretrain(
            ElmoPretrainConfig(**settings | {"corpus": str(one)}, output=str(tmp_path / "run"))
        )
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        pretrain(ElmoPretrainConfig(**settings, output=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
