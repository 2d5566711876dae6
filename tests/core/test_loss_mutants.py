"""The traps of public code that a loss can fall into: each is put in and must be told apart.

A check is a function that raises `AssertionError` for a wrong loss. The library's loss passes all
of them; every wrong variant below fails the one that is named beside it.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distil_lib import losses

B, L, V, T = 3, 5, 11, 2.0
RANDOM = np.random.default_rng(4)
STUDENT, TEACHER = (torch.from_numpy(RANDOM.normal(size=(B, L, V), scale=2.0)) for _ in range(2))
MASK = torch.arange(L) < torch.tensor([[5], [3], [1]])  # 9 tokens, then padding
LABELS = torch.where(
    torch.from_numpy(RANDOM.random((B, L)) < 0.5) & MASK,
    torch.from_numpy(RANDOM.integers(0, V, (B, L))),
    -100,
)


# --------------------------------------------------------------------------------------- the checks
def teaches(loss):
    """The gradient pulls the student towards the teacher: a step downhill brings it nearer."""
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, TEACHER, MASK, T), student, allow_unused=True)
    assert gradient is not None
    distance = lambda s: (
        (torch.softmax(s / T, -1) - torch.softmax(TEACHER / T, -1))[MASK].square().sum()
    )
    assert distance(STUDENT - 0.1 * gradient) < distance(STUDENT)


def is_kl_by_hand(loss):
    s, t = (F.softmax(x[MASK] / T, -1) for x in (STUDENT, TEACHER))
    expected = T**2 * sum((t[i] * (t[i] / s[i]).log()).sum() for i in range(9)) / 9
    torch.testing.assert_close(loss(STUDENT, TEACHER, MASK, T), expected)


def keeps_its_gradient(loss):
    """Hinton et al. (2015): at high temperature the gradient does not depend on it any more."""
    norms = []
    for temperature in (50.0, 100.0):
        student = STUDENT.clone().requires_grad_()
        loss(student, TEACHER, MASK, temperature).backward()
        norms.append(student.grad.norm())
    assert abs(norms[0] / norms[1] - 1) < 0.1


def ignores_padding(loss):
    other = torch.where(MASK[..., None], STUDENT, STUDENT + 5 * torch.arange(V))
    torch.testing.assert_close(loss(other, TEACHER, MASK, T), loss(STUDENT, TEACHER, MASK, T))


def does_not_grow_with_length(loss):
    """The same tokens twice over, in sequences of twice the length: the same mean."""
    twice = [torch.cat([x, x], 1) for x in (STUDENT, TEACHER, MASK)]
    torch.testing.assert_close(loss(*twice, T), loss(STUDENT, TEACHER, MASK, T))


def does_not_shrink_with_the_vocabulary(loss):
    """More words of no chance at all change nothing."""
    wider = [F.pad(x, (0, 20), value=-1e4) for x in (STUDENT, TEACHER)]
    torch.testing.assert_close(loss(*wider, MASK, T), loss(STUDENT, TEACHER, MASK, T))


def does_not_mix_positions(loss):
    """Each token's loss is its own: reordering the tokens changes nothing."""
    order = torch.tensor([3, 0, 4, 1, 2])
    shift = (
        torch.arange(L)[None, :, None] * 1.5
    )  # a constant for each position, which no softmax over words can see
    torch.testing.assert_close(
        loss(STUDENT + shift, TEACHER, MASK, T), loss(STUDENT, TEACHER, MASK, T)
    )
    torch.testing.assert_close(
        loss(STUDENT[:, order], TEACHER[:, order], MASK[:, order], T),
        loss(STUDENT, TEACHER, MASK, T),
    )


# ------------------------------------------------------------------------------- the wrong variants
def both_sides(student, teacher, mask, temperature):
    t = teacher[mask] / temperature
    return (
        temperature**2
        * F.kl_div(F.log_softmax(t, -1), F.softmax(t, -1), reduction="none").sum(-1).mean()
        + 0 * student.sum()
    )


def softmax_over_positions(student, teacher, mask, temperature):
    s, t = F.log_softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(s, t, reduction="none").sum(-1)[mask].mean()


def temperature_not_squared(student, teacher, mask, temperature):
    return losses.soft_target_loss(student, teacher, mask, temperature) / temperature**2


def teacher_not_softened(student, teacher, mask, temperature):
    return losses.soft_target_loss(student, teacher * temperature, mask, temperature)


def directions_swapped(student, teacher, mask, temperature):
    return losses.soft_target_loss(teacher, student, mask, temperature)


def probabilities_where_logs_are_expected(student, teacher, mask, temperature):
    s, t = (F.softmax(x[mask] / temperature, -1) for x in (student, teacher))
    return temperature**2 * F.kl_div(s, t, reduction="none").sum(-1).mean()


def reduction_mean(student, teacher, mask, temperature):
    s, t = (
        F.log_softmax(student[mask] / temperature, -1),
        F.softmax(teacher[mask] / temperature, -1),
    )
    return temperature**2 * F.kl_div(s, t, reduction="mean")


def reduction_batchmean(student, teacher, mask, temperature):
    s, t = F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)
    return temperature**2 * F.kl_div(
        s * mask[..., None], t * mask[..., None], reduction="batchmean"
    )


def padding_in_the_mean(student, teacher, mask, temperature):
    return losses.soft_target_loss(student, teacher, None, temperature)


def padding_in_the_count(student, teacher, mask, temperature):
    return losses.soft_target_loss(student, teacher, mask, temperature, "sum") / mask.numel()


CHECKS = (
    teaches,
    is_kl_by_hand,
    keeps_its_gradient,
    ignores_padding,
    does_not_grow_with_length,
    does_not_shrink_with_the_vocabulary,
    does_not_mix_positions,
)
WRONG = [
    (both_sides, teaches),
    (softmax_over_positions, does_not_mix_positions),
    (temperature_not_squared, keeps_its_gradient),
    (teacher_not_softened, is_kl_by_hand),
    (directions_swapped, is_kl_by_hand),
    (probabilities_where_logs_are_expected, is_kl_by_hand),
    (reduction_mean, does_not_shrink_with_the_vocabulary),
    (reduction_batchmean, does_not_grow_with_length),
    (padding_in_the_mean, ignores_padding),
    (padding_in_the_count, is_kl_by_hand),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_librarys_loss_passes(check):
    check(losses.soft_target_loss)


@pytest.mark.filterwarnings("ignore:reduction")  # even torch warns of one of them
@pytest.mark.parametrize("wrong, check", WRONG)
def test_the_wrong_variant_is_caught(wrong, check):
    with pytest.raises(AssertionError):
        check(wrong)


# ---------------------------------------------------------------- the same for the other two losses
def mlm_counts_hidden_words_only(loss):
    expected = (
        -F.log_softmax(STUDENT, -1)[LABELS != -100]
        .gather(-1, LABELS[LABELS != -100][:, None])
        .mean()
    )
    torch.testing.assert_close(loss(STUDENT, LABELS), expected)


def cosine_ignores_padding(loss):
    other = torch.where(MASK[..., None], STUDENT, -TEACHER)
    torch.testing.assert_close(loss(other, TEACHER, MASK), loss(STUDENT, TEACHER, MASK))
    torch.testing.assert_close(
        loss(TEACHER, TEACHER, MASK), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0
    )


def mlm_over_all_tokens(logits, labels):
    return losses.mlm_loss(logits, labels, "sum") / labels.numel()


def mlm_ignored_is_word_zero(logits, labels):
    return losses.mlm_loss(logits, labels.clamp(min=0))


def cosine_with_padding(student, teacher, mask):
    return losses.cosine_loss(student, teacher, None)


def cosine_not_subtracted(student, teacher, mask):
    return 1 - losses.cosine_loss(student, teacher, mask)


def test_the_librarys_other_losses_pass():
    assert 0 < (LABELS != -100).sum() < MASK.sum()
    mlm_counts_hidden_words_only(losses.mlm_loss)
    cosine_ignores_padding(losses.cosine_loss)


@pytest.mark.parametrize(
    "wrong, check",
    [
        (mlm_over_all_tokens, mlm_counts_hidden_words_only),
        (mlm_ignored_is_word_zero, mlm_counts_hidden_words_only),
        (cosine_with_padding, cosine_ignores_padding),
        (cosine_not_subtracted, cosine_ignores_padding),
    ],
)
def test_their_wrong_variants_are_caught(wrong, check):
    with pytest.raises(AssertionError):
        check(wrong)
