"""The program from its command line to the model that it leaves, for teachers and students."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers import (
    apart,
    assert_user_error,
    newest_weights,
    random_documents,
    randomize,
    replace,
    weights,
    without_times,
    write_jsonl,
)
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, RobertaConfig, RobertaForMaskedLM

from distil_lib.errors import UserError
from distil_lib.student import Student
from distil_lib.text.batches import epoch_order
from distil_lib.training.config import parse_arguments
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.metrics_file import read_metrics

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def make_run(small_run, tmp_path):
    """A `PretrainingRun` in this process, ready to train."""

    def make(name="run", **changes) -> PretrainingRun:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)
        return PretrainingRun(parse_arguments(small_run(tmp_path / name, **changes)))

    return make


# --------------------------------------------------------------------------------------- end to end
@pytest.fixture(scope="module")
def student_run(small_run, program, tmp_path_factory):
    """A finished distillation: (its folder, what the program said)."""
    folder = tmp_path_factory.mktemp("runs") / "student"
    done = program(small_run(folder, max_steps=60, eval_every=30, save_every=30, log_every=10))
    assert done.code == 0, done.err
    return folder, done


def test_a_run_leaves_all_that_it_promises(student_run):
    folder, done = student_run
    promised = ".lock .lock.json config.yaml metrics.jsonl checkpoints model curves.png".split()
    assert {p.name for p in folder.iterdir()} == set(promised)
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == [
        "step-00000030",
        "step-00000060",
    ]
    model = {p.name for p in (folder / "model").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "curves.png",
    } <= model
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_steps"] == 60
    assert str(folder / "model") in done.out


def test_it_says_at_start_how_many_processes_and_threads_there_are(student_run):
    """So that nobody trains alone without knowing."""
    assert "1 process(es)" in student_run[1].out and "1 thread(s)" in student_run[1].out


def test_metrics_are_complete_and_the_losses_fall(student_run):
    rows = read_metrics(student_run[0])
    training, held_out = [r for r in rows if "loss" in r], [r for r in rows if "accuracy" in r]
    assert [r["step"] for r in training] == list(range(10, 61, 10)) and [
        r["step"] for r in held_out
    ] == [30, 60]
    assert all(
        {"ce", "mlm", "cos", "norm", "lr", "tokens_per_second", "tokens", "seconds"} <= set(r)
        for r in training
    )
    assert all(
        0 < r["mfu"] < 1 and r["non_padding_fraction"] == 1 and 0 < r["head_flops_fraction"] < 1
        for r in training
    )
    assert all({"mlm_loss", "accuracy", "kl", "agreement", "cosine"} <= set(r) for r in held_out)
    assert [r["tokens"] for r in training] == [r["step"] * 8 * 16 for r in training]
    assert (
        training[-1]["loss"] < training[0]["loss"]
        and held_out[-1]["mlm_loss"] < held_out[0]["mlm_loss"]
    )
    for r in training:
        assert r["loss"] == pytest.approx(5 * r["ce"] + 2 * r["mlm"] + r["cos"], rel=1e-4)


def test_its_model_opens_in_transformers_and_here(student_run, tokenizer):
    folder = student_run[0] / "model"
    theirs, mine = (
        AutoModelForMaskedLM.from_pretrained(folder).eval(),
        Student.from_pretrained(folder),
    )
    ids = torch.tensor(
        [
            AutoTokenizer.from_pretrained(folder)("The array returns the [MASK] of a new file.")[
                "input_ids"
            ]
        ]
    )
    assert ids.tolist() == [tokenizer("The array returns the [MASK] of a new file.")["input_ids"]]
    torch.testing.assert_close(theirs(ids).logits, mine(ids).logits, atol=1e-5, rtol=1e-5)
    assert mine.config.n_layers == 2
    card = (folder / "README.md").read_text()
    last = read_metrics(student_run[0])[-1]
    assert f"{last['accuracy']:.4f}" in card and "--max_steps 60" in card


def test_a_teacher_is_pretrained_by_the_same_program(small_run, program, tmp_path):
    done = program(
        small_run(
            tmp_path / "bert",
            teacher=None,
            alpha_ce=0,
            alpha_cos=0,
            hidden_size=16,
            hidden_layers=2,
            heads=2,
            optimizer="muon",
            save_dtype="bfloat16",
            max_steps=40,
            eval_every=20,
        )
    )
    assert done.code == 0, done.err
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "bert" / "model")
    assert type(model).__name__ == "BertForMaskedLM" and model.dtype == torch.bfloat16
    rows = [r for r in read_metrics(tmp_path / "bert") if "accuracy" in r]
    assert (
        set(rows[0]) == {"step", "mlm_loss", "accuracy"}
        and rows[-1]["mlm_loss"] < rows[0]["mlm_loss"]
    )
    student = program(
        small_run(
            tmp_path / "pupil", teacher=tmp_path / "bert" / "model", student_layers=1, max_steps=2
        )
    )
    assert student.code == 0, student.err  # what it made serves as a teacher


# --------------------------------------------------------------- from a model that is there already
LONGER = {"teacher": None, "alpha_ce": 0, "alpha_cos": 0}


@pytest.fixture(params=["bert", "roberta"])
def start(request, teacher_folder, tokenizer, tmp_path) -> Path:
    """A model that can read 32 tokens."""
    if request.param == "bert":
        return teacher_folder
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    pad = tokenizer.pad_token_id
    config = RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=pad, max_position_embeddings=32 + pad + 1, **sizes
    )
    randomize(RobertaForMaskedLM(config)).save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta"


def test_a_model_goes_on_being_pretrained(start, small_run, program, tmp_path):
    """Oracle: the folder it was started from, which two steps of a small rate hardly change.

    And its card says so.
    """
    run = tmp_path / "longer"
    done = program(
        small_run(run, **LONGER, init_from=start, block_size=32, learning_rate=1e-6, max_steps=2)
    )
    assert done.code == 0, done.err
    assert 0 < apart(weights(run), load_file(start / "model.safetensors")) < 1e-5
    assert f"from {start}" in (run / "model" / "README.md").read_text()


def test_every_weight_learns_and_dropout_is_that_of_the_run(start, make_run):
    run = make_run(**LONGER, init_from=start, dropout=0.25, max_steps=2)
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    assert {m.p for m in run.model.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert (
        run.model.config.hidden_dropout_prob
        == run.model.config.attention_probs_dropout_prob
        == 0.25
    )
    run.train()
    assert run.model.training
    unchanged = {name for name, p in run.model.named_parameters() if torch.equal(p, before[name])}
    assert not {name for name in unchanged if "key.bias" not in name}, (
        unchanged
    )  # a constant that softmax does not see


def test_blocks_longer_than_its_positions_are_refused(start, make_run):
    with pytest.raises(UserError, match="32 positions; a block has 33"):
        make_run(**LONGER, init_from=start, block_size=33)


@pytest.mark.parametrize(
    "changes",
    [
        {"init_layers": "none"},
        {"init_layers": "3,1"},
        {"soft_targets": "masked", "log_with": "tensorboard"},
        {"alpha_ce": 0, "alpha_mlm": 0},
        {"precision": "bf16", "teacher_dtype": "bfloat16"},
        {"dataloader_num_workers": 1},
    ],
)
def test_settings_work(changes, small_run, program, tmp_path):
    done = program(small_run(tmp_path / "run", max_steps=2, **changes))
    assert done.code == 0, done.err
    assert all(torch.isfinite(w).all() for w in weights(tmp_path / "run").values())


# ----------------------------------------------------------------- one curve, whatever the hardware
def test_micro_batches_give_the_same_parameters(make_run, tmp_path):
    """Oracle: whole batches, in float64, where Adam enlarges no rounding that matters. 7 sequences
    in micro-batches of 2, with unequal numbers of masked words; the last step has fewer.
    """
    for name, micro in (("whole", 7), ("parts", 2)):
        run = make_run(name, batch_size=7, micro_batch_size=micro, max_steps=0, epochs=0.4)
        assert run.setup.sequences % 7 and run.setup.steps > 20
        run.model.double(), run.teacher.double()
        run.train()
    assert apart(newest_weights(tmp_path / "parts"), newest_weights(tmp_path / "whole")) < 1e-9
    whole, parts = (
        [r for r in read_metrics(tmp_path / name) if "loss" in r] for name in ("whole", "parts")
    )
    for a, b in zip(whole, parts, strict=True):
        assert {k: a[k] for k in ("step", "tokens", "lr")} == {
            k: b[k] for k in ("step", "tokens", "lr")
        }
        assert without_times([a]) == [pytest.approx(without_times([b])[0])]


def in_parts(run, micro_batches, counts):
    """The library's step."""
    return run._optimizer_step(micro_batches, counts)


def optimizer_stepped_on_the_first_micro_batch(run, micro_batches, counts):
    run._optimizer_step(micro_batches[:1], counts)
    for micro_batch in micro_batches[1:]:
        run.setup.step(micro_batch, counts).loss.backward()


def each_micro_batch_its_own_mean(run, micro_batches, counts):
    for micro_batch in micro_batches:
        (run.setup.step(micro_batch).loss / len(micro_batches)).backward()
    run._optimizer_step([], counts)


def two_steps_of_one_batch(make_run, step) -> dict[str, torch.Tensor]:
    run = make_run(
        f"{step.__name__}", batch_size=7, micro_batch_size=2, warmup_ratio=0.1, max_grad_norm=1e9
    )
    for number, micro_batches in zip(range(2), run.setup.batches(0), strict=False):
        torch.manual_seed(number)
        step(run, micro_batches, run.setup.step.count_tokens(micro_batches))
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def test_accumulation_done_wrong_is_told_apart(make_run):
    """The bugs put in on purpose; the oracle is the same two steps without micro-batches."""

    def whole(run, micro_batches, counts):
        names = ("input_ids", "labels", "loss_mask", "examples")
        run._optimizer_step(
            [
                type(micro_batches[0])(
                    *(torch.cat([getattr(m, n) for m in micro_batches]) for n in names)
                )
            ],
            counts,
        )

    expected = two_steps_of_one_batch(make_run, whole)
    assert apart(two_steps_of_one_batch(make_run, in_parts), expected) < 1e-4
    for wrong in (optimizer_stepped_on_the_first_micro_batch, each_micro_batch_its_own_mean):
        assert apart(two_steps_of_one_batch(make_run, wrong), expected) > 1e-3


def test_the_learning_rate_is_that_of_the_schedule_once_a_step(make_run, tmp_path):
    """Oracle: two straight lines, the warm-up 3 of 12 steps."""
    make_run(warmup_ratio=0.25, log_every=1).train()
    rates = [r["lr"] for r in read_metrics(tmp_path / "run") if "loss" in r]
    assert rates == pytest.approx([0.003 * min(s / 3, (12 - s) / 9) for s in range(1, 13)])


# ----------------------------------------------------------------------------------- frozen, finite
def positions_after_training(run) -> bool:
    before = run.model.distilbert.embeddings.position_embeddings.weight.clone()
    run.train()
    return torch.equal(run.model.distilbert.embeddings.position_embeddings.weight, before)


def test_frozen_positions_stay_and_free_ones_move(make_run, tmp_path):
    assert positions_after_training(make_run("frozen", freeze_positions=True, max_steps=3))
    assert not positions_after_training(make_run("free", max_steps=3))
    # The trap: an attribute set on the module, which freezes nothing.
    run = make_run("trap", max_steps=3)
    run.model.distilbert.embeddings.position_embeddings.requires_grad = False
    assert not positions_after_training(run)


def test_the_teacher_is_the_same_after_training(make_run):
    run = make_run(max_steps=3)
    before = {k: v.clone() for k, v in run.teacher.state_dict().items()}
    run.train()
    assert all(torch.equal(v, before[k]) for k, v in run.teacher.state_dict().items())
    assert len(newest_weights(Path(run.config.output))) == len(
        list(run.model.parameters())
    )  # the student and nothing else is saved


class poison:
    """Make the loss not finite in one step."""

    def __init__(self, step):
        self.step = step

    def __call__(self):
        from distil_lib.distillation import DistillationStep

        original, calls = DistillationStep.__call__, itertools.count(1)

        def poisoned(self_, *args, **kwargs):
            out = original(self_, *args, **kwargs)
            if next(calls) == self.step:
                out.loss = out.loss * float("nan")
            return out

        replace("distil_lib.distillation.DistillationStep.__call__", poisoned)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_batch_and_last_good_checkpoint(
    small_run, program, tmp_path
):
    done = program(small_run(tmp_path / "run", max_steps=20, log_every=10), poison(7))
    assert_user_error(done, "not finite", "step 7", "sequences 48 to 55", "step-00000004")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    assert not (tmp_path / "run" / "model").exists()
    assert not re.search("nan", (tmp_path / "run" / "metrics.jsonl").read_text(), re.IGNORECASE)


# --------------------------------------------------------------------------- which data a run reads
def sequences(batches) -> list[int]:
    return [
        int(e) for step in batches for micro in step for e in micro.examples[micro.loss_mask.any(1)]
    ]


def test_a_run_goes_through_the_corpus_in_the_order_of_its_epochs(make_run):
    run = make_run(max_steps=0, epochs=1.5)
    size = len(run.blocks.train)
    expected = [*epoch_order(size, 0, 0), *epoch_order(size, 0, 1)][: round(1.5 * size)]
    assert sequences(run.setup.batches(0)) == expected


def no_data_twice_and_none_left_out(run, resumed):
    whole = sequences(run.setup.batches(0))
    assert whole[:40] + sequences(resumed(run, 5)) == whole


def test_a_resumed_run_neither_replays_nor_skips_data(make_run):
    """40 sequences are read in the 5 steps before the stop. Both traps are put in on purpose."""
    run = make_run(max_steps=0, epochs=0.5)
    no_data_twice_and_none_left_out(run, lambda run, done: run.setup.batches(done))
    for trap in (
        lambda run, done: run.setup.batches(0),
        lambda run, done: run.setup.batches(done + 1),
    ):
        with pytest.raises(AssertionError):
            no_data_twice_and_none_left_out(run, trap)


def test_a_run_goes_on_with_its_own_text_alone(small_run, program, tmp_path):
    """Copied to another day it is the same text; with another word it is not, and nothing is
    touched.
    """
    corpus, run = tmp_path / "corpus.jsonl", tmp_path / "run"
    text = write_jsonl(corpus, random_documents(40)).read_text()
    arguments = small_run(run, corpus=corpus, max_steps=2, save_every=1)
    assert program(arguments).code == 0
    os.utime(corpus, (1, 1))
    done = program([*arguments, "--resume"])
    assert done.code == 0, done.err

    def files():
        paths = [p for p in run.rglob("*") if p.is_file() and p.name != ".lock.json"]
        return {p: p.read_bytes() for p in paths}

    before = files()
    corpus.write_text(text.replace("array", "axis"))
    assert_user_error(program([*arguments, "--resume"]), str(corpus), "not what", "step-00000002")
    assert files() == before


def test_a_step_is_masked_as_the_whole_corpus_says(make_run):
    """Rare words more often: the counts are those of the corpus."""
    run = make_run()
    masking = run.setup.batches(0).dataset.masking
    ids = torch.tensor([row["input_ids"] for row in run.blocks.train]).flatten()
    counts = torch.bincount(ids, minlength=len(run.setup.tokenizer)).clamp(min=1).double().numpy()
    words = masking.words
    assert masking.weights[words] == pytest.approx(counts[words] ** -0.7)


def test_short_runs_end_too(small_run, program, tmp_path):
    """Less than one sequence by the number of epochs: one step, and a model."""
    done = program(small_run(tmp_path / "run", max_steps=0, epochs=0.0001))
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
