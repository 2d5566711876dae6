"""One step: what teacher and student see, and that parts of a batch add up to the whole."""

import pytest
import torch
from helpers import randomize
from transformers import DistilBertConfig

from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.losses import TripleLoss, cosine_loss, mlm_loss, soft_target_loss
from distil_lib.masking import MicroBatch
from distil_lib.student import Student

SIZES = {"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_heads": 2, "max_position_embeddings": 12}


def model(layers: int, seed: int, dropout: float = 0.0) -> Student:
    config = DistilBertConfig(**SIZES, n_layers=layers, dropout=dropout, attention_dropout=dropout)
    return randomize(Student(config), seed).double()


def batch(rows: int = 6, seed: int = 0) -> MicroBatch:
    """Sequences of unequal lengths with unequal numbers of masked tokens; the third has none."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([12, 3, 7, 12, 1, 5])[:rows, None]
    counted = torch.arange(12) < lengths
    true = torch.randint(1, 40, (rows, 12), generator=generator)
    hidden = (
        torch.rand(rows, 12, generator=generator)
        < torch.tensor([0.5, 0.9, 0.0, 0.1, 0.9, 0.4])[:rows, None]
    ) & counted
    shown = torch.where(hidden, 39, true) * counted
    return MicroBatch(
        shown, torch.where(hidden, true, -100), counted, torch.arange(rows), padded=True
    )


def cut(whole: MicroBatch, rows) -> MicroBatch:
    return MicroBatch(
        whole.input_ids[rows],
        whole.labels[rows],
        whole.loss_mask[rows],
        whole.examples[rows],
        whole.padded,
    )


@pytest.mark.parametrize("soft_targets", ["all", "masked"])
def test_the_losses_are_those_of_the_models_outputs_at_their_positions(soft_targets):
    """Oracle: both models called by hand on everything, each loss with its own mask."""
    student, teacher, b = model(2, 1), model(3, 2), batch()
    out = DistillationStep(student, teacher, TripleLoss(), soft_targets)(b)
    with torch.no_grad():
        s, t = student(b.input_ids, b.loss_mask), teacher(b.input_ids, b.loss_mask)
    hidden = b.labels != -100
    expected = [
        soft_target_loss(s.logits, t.logits, b.loss_mask if soft_targets == "all" else hidden, 2.0),
        mlm_loss(s.logits, b.labels),
        cosine_loss(s.last_hidden_state, t.last_hidden_state, b.loss_mask),
    ]
    torch.testing.assert_close(torch.stack([out.ce, out.mlm, out.cos]), torch.stack(expected))
    torch.testing.assert_close(out.loss.detach(), 5 * expected[0] + 2 * expected[1] + expected[2])


def gradient(student) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in student.parameters()])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("soft_targets", ["all", "masked"])
@pytest.mark.parametrize(
    "parts", [[[0, 1, 2], [3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[0, 1, 2, 3, 4], [5]]]
)
def test_micro_batches_add_up_to_the_whole_batch(parts, soft_targets, dtype, tolerance):
    """Oracle: one backward pass over all of it.

    The parts have unequal numbers of tokens; one has no hidden word at all.
    """
    student, teacher, whole = model(2, 1).to(dtype), model(3, 2).to(dtype), batch()
    step = DistillationStep(student, teacher, TripleLoss(), soft_targets)
    loss = step(whole).loss
    loss.backward()
    expected = gradient(student)
    student.zero_grad()
    micro_batches = [cut(whole, rows) for rows in parts]
    counts, total = step.count_tokens(micro_batches), 0.0
    for micro_batch in micro_batches:
        out = step(micro_batch, counts)
        out.loss.backward()
        total += out.loss.item()
    assert (gradient(student) - expected).norm() / expected.norm() < tolerance
    assert abs(total / loss.item() - 1) < tolerance


def test_a_mean_of_means_is_told_apart():
    """The bug put in on purpose: each micro-batch divided by its own tokens."""
    student, whole = model(2, 1), batch()
    step = DistillationStep(student, model(3, 2), TripleLoss())
    step(whole).loss.backward()
    expected = gradient(student)
    student.zero_grad()
    for rows in ([0, 1, 2], [3, 4, 5]):
        (step(cut(whole, rows)).loss / 2).backward()
    assert (gradient(student) - expected).norm() / expected.norm() > 0.01


def test_an_empty_micro_batch_adds_nothing():
    student, empty = model(2, 1), batch(1)
    empty.labels.fill_(-100)
    empty.loss_mask.fill_(False)
    empty.padded = False
    step = DistillationStep(student, model(3, 2), TripleLoss())
    out = step(empty, step.count_tokens([batch()]))
    out.loss.backward()
    assert out.loss == 0 and (gradient(student) == 0).all()


# -------------------------------------------------------------------------------------- the teacher
def perfect_student_has_nothing_to_learn(step_of):
    """A student equal to its teacher, with dropout in the teacher's configuration: L_ce and
    L_cos are 0 to rounding."""
    teacher = model(2, 1, dropout=0.5).train()
    student = model(2, 1)
    out = step_of(student, teacher)(batch())
    assert out.ce.abs() < 1e-9 and out.cos.abs() < 1e-9


class TeacherInTrainMode(DistillationStep):
    def __init__(self, *args):
        super().__init__(*args)
        self.teacher.train()


class TeacherSeesOtherCorruption(DistillationStep):
    def __init__(self, student, teacher, loss):
        blind = lambda ids, *rest: teacher(ids.roll(1, 0), *rest)
        blind.eval = teacher.eval
        super().__init__(student, teacher, loss)
        self.teacher = blind


class TeacherSeesTheAnswers(DistillationStep):
    def __call__(self, b, counts=None):
        true = torch.where(b.labels == -100, b.input_ids, b.labels)
        real, self.teacher = self.teacher, lambda ids, *rest: real(true, *rest)
        return super().__call__(b, counts)


def test_the_teacher_is_in_evaluation_mode_and_sees_the_same_corrupted_batch():
    perfect_student_has_nothing_to_learn(lambda s, t: DistillationStep(s, t, TripleLoss()))


@pytest.mark.parametrize(
    "trap", [TeacherInTrainMode, TeacherSeesOtherCorruption, TeacherSeesTheAnswers]
)
def test_a_teacher_treated_otherwise_is_told_apart(trap):
    with pytest.raises(AssertionError):
        perfect_student_has_nothing_to_learn(lambda s, t: trap(s, t, TripleLoss()))


def test_the_teacher_gets_no_gradient_and_does_not_change():
    student, teacher = model(2, 1), model(3, 2)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    DistillationStep(student, teacher, TripleLoss())(batch()).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_without_soft_targets_and_cosine_no_teacher_is_asked():
    student, b = model(2, 1), batch()
    out = DistillationStep(student, None, TripleLoss(0, 1, 0))(b)
    torch.testing.assert_close(
        out.loss, mlm_loss(student(b.input_ids, b.loss_mask).logits, b.labels)
    )
    for alphas in ((1, 0, 0), (0, 0, 1)):
        with pytest.raises(UserError, match="teacher"):
            DistillationStep(student, None, TripleLoss(*alphas))


def test_unknown_soft_targets_are_refused():
    with pytest.raises(UserError, match="all, masked"):
        DistillationStep(model(1, 1), model(1, 1), TripleLoss(), "some")
