"""Held-out figures: means over all masked tokens, however they are batched and shared."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import randomize
from transformers import DistilBertConfig

from distil_lib.evaluation import evaluate_masked_lm, held_out_batches, masked_lm_sums, to_figures
from distil_lib.student import Student


@pytest.fixture
def models(tokenizer):
    def model(seed):
        config = DistilBertConfig(
            vocab_size=len(tokenizer),
            dim=16,
            hidden_dim=32,
            n_layers=1,
            n_heads=2,
            max_position_embeddings=24,
        )
        return randomize(Student(config), seed)

    return model(1), model(2).eval()


@pytest.fixture
def blocks():
    ids = np.random.default_rng(0).integers(5, 100, (13, 24))
    return Dataset.from_list([{"input_ids": row.tolist()} for row in ids])


def test_figures_are_those_of_all_hidden_words_together(models, blocks, tokenizer):
    """Oracle: everything in one batch, word by word in numpy.

    The batches are of 5, 5 and 3 blocks.
    """
    student, teacher = models
    figures = evaluate_masked_lm(
        student, held_out_batches(blocks, tokenizer, 99, batch_size=5), teacher
    )
    (everything,) = held_out_batches(blocks, tokenizer, 99, batch_size=13)
    with torch.no_grad():
        s, t = (m.eval()(everything.input_ids) for m in models)
    hidden = (everything.labels != -100).numpy()
    log_s, log_t = (torch.log_softmax(x.logits.double(), -1).numpy()[hidden] for x in (s, t))
    labels = everything.labels.numpy()[hidden]
    a, b = (x.last_hidden_state.numpy().reshape(-1, 16) for x in (s, t))
    expected = {
        "mlm_loss": -np.mean([row[label] for row, label in zip(log_s, labels, strict=True)]),
        "accuracy": np.mean(log_s.argmax(-1) == labels),
        "kl": np.mean((np.exp(log_t) * (log_t - log_s)).sum(-1)),
        "agreement": np.mean(log_s.argmax(-1) == log_t.argmax(-1)),
        "cosine": np.mean(
            (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        ),
    }
    assert figures == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_the_batches_means_would_be_another_number(models, blocks, tokenizer):
    """So that the test above can tell them apart."""
    batches = list(held_out_batches(blocks, tokenizer, 99, batch_size=5))
    means = [evaluate_masked_lm(models[0], [b])["mlm_loss"] for b in batches]
    whole = evaluate_masked_lm(models[0], batches)["mlm_loss"]
    assert abs(np.mean(means) - whole) > 1e-4


@pytest.mark.parametrize("world", [2, 3, 5])
def test_sums_over_processes_are_those_of_one(models, blocks, tokenizer, world):
    """13 blocks by 2 do not divide by any of them: none may be counted twice."""
    student, teacher = models
    batches = [held_out_batches(blocks, tokenizer, 99, 2, rank, world) for rank in range(world)]
    shares = [masked_lm_sums(student, share, teacher, torch.device("cpu")) for share in batches]
    whole = evaluate_masked_lm(student, held_out_batches(blocks, tokenizer, 99, 2), teacher)
    assert to_figures(sum(shares), True) == pytest.approx(whole, rel=1e-9)


def test_the_same_words_are_hidden_in_every_evaluation_and_in_any_batches(blocks, tokenizer):
    def labels(batch_size):
        return torch.cat([b.labels for b in held_out_batches(blocks, tokenizer, 99, batch_size)])

    assert torch.equal(labels(4), labels(4)) and torch.equal(labels(4), labels(13))


def test_no_more_blocks_are_evaluated_than_asked_for(blocks, tokenizer):
    examples = [int(e) for b in held_out_batches(blocks, tokenizer, 7, 3) for e in b.examples]
    assert examples == list(range(7))


def test_a_model_agrees_with_itself(models, blocks, tokenizer):
    figures = evaluate_masked_lm(models[1], held_out_batches(blocks, tokenizer, 99, 5), models[1])
    assert (
        figures["agreement"] == 1
        and abs(figures["kl"]) < 1e-6
        and abs(figures["cosine"] - 1) < 1e-6
    )


def test_without_a_teacher_there_are_no_figures_about_one(models, blocks, tokenizer):
    assert set(evaluate_masked_lm(models[0], held_out_batches(blocks, tokenizer, 99, 5))) == {
        "mlm_loss",
        "accuracy",
    }


def test_evaluation_leaves_the_model_as_it_was(models, blocks, tokenizer):
    for training in (True, False):
        student = models[0].train(training)
        evaluate_masked_lm(student, held_out_batches(blocks, tokenizer, 99, 5), models[1])
        assert student.training is training
        assert all(p.grad is None for p in student.parameters())


def test_held_out_text_too_short_to_hide_a_word_has_no_figures_that_look_real(models, tokenizer):
    one = Dataset.from_list([{"input_ids": [2, 3, 3, 3, 3, 3, 3, 3]}])  # special tokens alone
    figures = evaluate_masked_lm(models[0], held_out_batches(one, tokenizer, 9, 5))
    assert all(np.isnan(v) for v in figures.values())
