"""The three losses against arithmetic by hand in float64, and their invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil_lib.losses import TokenCounts, TripleLoss, cosine_loss, mlm_loss, soft_target_loss


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def kl_by_hand(student, teacher, mask, temperature):
    """Token by token, word by word: T^2 sum t log(t / s), then the mean over the tokens that
    count."""
    total, tokens = 0.0, 0
    for place in zip(*np.nonzero(mask), strict=True):
        s, t = softmax(student[place] / temperature), softmax(teacher[place] / temperature)
        total += temperature**2 * sum(t[i] * np.log(t[i] / s[i]) for i in range(len(t)))
        tokens += 1
    return total / tokens


def some(*shape, seed=0, scale=2.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape, scale=scale))


@st.composite
def cases(draw):
    """(student logits, teacher logits, mask, temperature) of random shapes, at least one token
    counted."""
    batch, length, vocabulary = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 6)),
        draw(st.integers(2, 9)),
    )
    seed = draw(st.integers(0, 10_000))
    mask = torch.from_numpy(
        np.random.default_rng(seed + 2).random((batch, length)) < draw(st.floats(0.1, 1.0))
    )
    mask[draw(st.integers(0, batch - 1)), draw(st.integers(0, length - 1))] = True
    shape = (batch, length, vocabulary)
    return some(*shape, seed=seed), some(*shape, seed=seed + 1), mask, draw(st.floats(0.5, 20.0))


# ------------------------------------------------------------------------------- L_ce: soft targets
@settings(deadline=None)
@given(cases())
def test_soft_target_loss_is_kl_by_hand(case):
    student, teacher, mask, temperature = case
    expected = kl_by_hand(student.numpy(), teacher.numpy(), mask.numpy(), temperature)
    np.testing.assert_allclose(
        soft_target_loss(student, teacher, mask, temperature).item(),
        expected,
        rtol=1e-9,
        atol=1e-12,
    )


@settings(deadline=None)
@given(cases())
def test_its_gradient_is_temperature_times_the_difference_of_the_distributions(case):
    """d/dz_s [T^2 KL] = T (p_s - p_t), over the number of tokens; 0 at tokens that do not count."""
    student, teacher, mask, temperature = case
    student.requires_grad_()
    soft_target_loss(student, teacher, mask, temperature).backward()
    difference = softmax(student.detach().numpy() / temperature) - softmax(
        teacher.numpy() / temperature
    )
    expected = temperature * difference * mask.numpy()[..., None] / mask.sum().item()
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-12)


@settings(deadline=None)
@given(cases())
def test_zero_if_and_only_if_the_distributions_are_equal(case):
    """Logits may differ by a constant: the distribution is the same."""
    student, teacher, mask, temperature = case
    assert soft_target_loss(teacher + 3.0, teacher, mask, temperature).abs() < 1e-12
    apart = (
        (torch.softmax(student / temperature, -1) - torch.softmax(teacher / temperature, -1))
        .abs()[mask]
        .max()
    )
    if apart > 1e-4:
        assert soft_target_loss(student, teacher, mask, temperature) > 0


def test_at_high_temperature_the_gradient_is_the_difference_of_the_logits():
    """Hinton et al.

    (2015), section 2.1: T^2 times (z_i - v_i) / (N T^2), for logits of mean 0, within 1% at T =
    1000.
    """
    student, teacher = some(1, 50, seed=1, scale=1.0), some(1, 50, seed=2, scale=1.0)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    student.requires_grad_()
    soft_target_loss(student, teacher, temperature=1000.0).backward()
    limit = (student - teacher).detach() / 50
    assert (student.grad - limit).abs().max() < 0.01 * limit.abs().max()


def test_the_gradient_keeps_its_size_when_the_temperature_changes():
    """What T^2 is for: without it, it would shrink 100 times from T = 10 to T = 100."""
    norms = []
    for temperature in (10.0, 100.0):
        student = some(4, 30, seed=1, scale=1.0).requires_grad_()
        soft_target_loss(
            student, some(4, 30, seed=2, scale=1.0), temperature=temperature
        ).backward()
        norms.append(student.grad.norm())
    assert abs(norms[0] / norms[1] - 1) < 0.2


def test_kl_is_the_papers_cross_entropy_but_for_the_teachers_entropy():
    student, teacher = some(5, 8, seed=1), some(5, 8, seed=2)
    t = torch.softmax(teacher, -1)
    cross_entropy = -(t * torch.log_softmax(student, -1)).sum(-1).mean()
    entropy = -(t * t.log()).sum(-1).mean()
    torch.testing.assert_close(
        soft_target_loss(student, teacher, temperature=1.0), cross_entropy - entropy
    )


# ---------------------------------------------------------------------------------- L_mlm and L_cos
@settings(deadline=None)
@given(cases())
def test_mlm_loss_is_minus_the_log_probability_of_the_hidden_words(case):
    logits, _, mask, _ = case
    words = torch.from_numpy(
        np.random.default_rng(0).integers(0, logits.shape[-1], logits.shape[:-1])
    )
    labels = torch.where(mask, words, -100)
    p = softmax(logits.numpy())
    expected = -np.mean(
        [np.log(p[place][words[place]]) for place in zip(*np.nonzero(mask.numpy()), strict=True)]
    )
    np.testing.assert_allclose(mlm_loss(logits, labels).item(), expected, rtol=1e-9)
    torch.testing.assert_close(
        mlm_loss(logits, labels),
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
    )


@settings(deadline=None)
@given(cases())
def test_cosine_loss_is_one_minus_the_cosine_by_hand(case):
    student, teacher, mask, _ = case
    s, t = student.numpy()[mask.numpy()], teacher.numpy()[mask.numpy()]
    expected = np.mean(
        [1 - np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in zip(s, t, strict=True)]
    )
    np.testing.assert_allclose(cosine_loss(student, teacher, mask).item(), expected, atol=1e-9)


def test_cosine_loss_sees_directions_only():
    """0 for the same direction, 1 for a right angle, 2 for the opposite one."""
    a = torch.tensor([[3.0, 4.0]])
    for other, expected in ((7 * a, 0.0), (torch.tensor([[-4.0, 3.0]]), 1.0), (-a, 2.0)):
        assert abs(cosine_loss(a, other).item() - expected) < 1e-6


# -------------------------------------------------------------------------------------- invariances
def every_loss(student, teacher, mask, labels, temperature, reduction="mean"):
    return torch.stack(
        [
            soft_target_loss(student, teacher, mask, temperature, reduction),
            mlm_loss(student, labels, reduction),
            cosine_loss(student, teacher, mask, reduction),
        ]
    )


def labels_for(mask, vocabulary):
    return torch.where(mask, torch.arange(mask.numel()).reshape(mask.shape) % vocabulary, -100)


@settings(deadline=None)
@given(cases(), st.integers(1, 5))
def test_padding_and_the_length_of_the_sequences_change_nothing(case, extra):
    student, teacher, mask, temperature = case
    labels = labels_for(mask, student.shape[-1])
    shape = (len(mask), extra, student.shape[-1])
    longer = [
        torch.cat([x, some(*shape, seed=i, scale=50.0)], 1)
        for i, x in enumerate((student, teacher))
    ]
    pad = torch.nn.functional.pad
    padded = every_loss(
        *longer, pad(mask, (0, extra)), pad(labels, (0, extra), value=-100), temperature
    )
    torch.testing.assert_close(padded, every_loss(student, teacher, mask, labels, temperature))
    flat = every_loss(
        student[mask], teacher[mask], None, labels[mask], temperature
    )  # chosen positions alone
    torch.testing.assert_close(flat, padded)


@settings(deadline=None)
@given(cases())
def test_splitting_a_batch_changes_nothing_where_sums_are_divided_by_all_tokens(case):
    student, teacher, mask, temperature = case
    labels = labels_for(mask, student.shape[-1])
    parts = [
        every_loss(
            student[i : i + 1],
            teacher[i : i + 1],
            mask[i : i + 1],
            labels[i : i + 1],
            temperature,
            "sum",
        )
        for i in range(len(mask))
    ]
    torch.testing.assert_close(
        sum(parts) / mask.sum(), every_loss(student, teacher, mask, labels, temperature)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_logits_are_summed_in_thirty_two(dtype):
    """Oracle: the same rounded logits in float64.

    In 16 bits a sum over 5,000 words is wrong in the third digit.
    """
    student, teacher = some(3, 5000, seed=1).to(dtype), some(3, 5000, seed=2).to(dtype)
    labels = torch.tensor([1, -100, 7])
    losses = every_loss(student, teacher, None, labels, 2.0)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(
        losses.double(),
        every_loss(student.double(), teacher.double(), None, labels, 2.0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_mean_of_no_tokens_is_zero_and_has_a_gradient_of_zero():
    """And not NaN: a micro-batch may hold no hidden word."""
    student, nobody = some(2, 3, 5).requires_grad_(), torch.zeros(2, 3, dtype=torch.bool)
    losses = every_loss(student, some(2, 3, 5, seed=1), nobody, torch.full((2, 3), -100), 2.0)
    assert losses.tolist() == [0, 0, 0]
    losses.sum().backward()
    assert (student.grad == 0).all()


# ---------------------------------------------------------------------------------------- their sum
def triple_inputs(seed=0):
    student, teacher, hidden = (
        some(2, 4, 7, seed=seed),
        some(2, 4, 7, seed=seed + 1),
        some(2, 4, 5, seed=seed + 2),
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    labels = torch.tensor([[-100, 3, -100, -100], [0, 6, -100, -100]])
    return student, teacher, labels, hidden, some(2, 4, 5, seed=seed + 3), mask, mask


def test_the_sum_weighs_each_loss_by_its_alpha():
    student, teacher, labels, hidden, teacher_hidden, mask, _ = triple_inputs()
    out = TripleLoss(alpha_ce=5, alpha_mlm=2, alpha_cos=1, temperature=3)(*triple_inputs())
    ce, mlm, cos = (
        soft_target_loss(student, teacher, mask, 3),
        mlm_loss(student, labels),
        cosine_loss(hidden, teacher_hidden, mask),
    )
    torch.testing.assert_close(out.loss, 5 * ce + 2 * mlm + cos)
    torch.testing.assert_close(torch.stack([out.ce, out.mlm, out.cos]), torch.stack([ce, mlm, cos]))


def test_the_defaults_are_those_of_the_released_training_code():
    assert TripleLoss() == TripleLoss(alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0, temperature=2.0)


def test_counts_of_the_whole_batch_make_parts_that_add_up():
    student, teacher, labels, hidden, teacher_hidden, mask, _ = triple_inputs()
    loss, counts = TripleLoss(), TokenCounts(ce=5, mlm=3, cos=5)
    parts = [
        loss(
            student[[i]],
            teacher[[i]],
            labels[[i]],
            hidden[[i]],
            teacher_hidden[[i]],
            mask[[i]],
            mask[[i]],
            counts,
        ).loss
        for i in (0, 1)
    ]
    torch.testing.assert_close(sum(parts), loss(*triple_inputs()).loss)


def test_a_loss_without_weight_needs_nothing():
    student, _, labels, hidden, teacher_hidden, _, mask = triple_inputs()
    torch.testing.assert_close(
        TripleLoss(0, 2, 0)(student, None, labels).loss, 2 * mlm_loss(student, labels)
    )
    student.requires_grad_()
    out = TripleLoss(0, 0, 1)(student, None, labels, hidden, teacher_hidden, cos_mask=mask)
    out.loss.backward()  # every parameter gets a gradient, be it 0
    assert (student.grad == 0).all() and out.ce == out.mlm == 0


@pytest.mark.parametrize(
    "settings",
    [{"alpha_ce": -1}, {"alpha_ce": 0, "alpha_mlm": 0, "alpha_cos": 0}, {"temperature": 0}],
)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(ValueError):
        TripleLoss(**settings)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="differ"):
        soft_target_loss(some(2, 3), some(2, 4))
    with pytest.raises(ValueError, match="mask"):
        soft_target_loss(some(2, 3, 4), some(2, 3, 4), torch.ones(3, 2))
    with pytest.raises(ValueError, match="differ"):
        cosine_loss(some(2, 3), some(1, 3))
    with pytest.raises(ValueError, match="temperature"):
        soft_target_loss(some(2, 3), some(2, 3), temperature=0)
    with pytest.raises(ValueError, match="reduction"):
        mlm_loss(some(2, 3), torch.tensor([0, 1]), "average")


@pytest.mark.parametrize("counts", [(1, 1, 1), (0, 0, 0), (3, 1, 2), (1, 4, 7)])
def test_sums_are_divided_by_the_tokens_and_weighted(counts):
    """By hand: 6, 8 and 10 over so many tokens; of no tokens the sums are divided by 1."""
    ce, mlm, cos = (torch.tensor(x, dtype=torch.float64) for x in (6.0, 8.0, 10.0))
    n_ce, n_mlm, n_cos = (n or 1 for n in counts)
    loss = TripleLoss(5, 2, 3)
    out = loss.combine(ce, mlm, cos, TokenCounts(*counts))
    assert (out.ce, out.mlm, out.cos) == (6 / n_ce, 8 / n_mlm, 10 / n_cos)
    assert out.loss.item() == pytest.approx(
        5 * 6 / n_ce + 2 * 8 / n_mlm + 3 * 10 / n_cos, rel=1e-15
    )
    known = loss.combine(ce, mlm, cos, TokenCounts(*counts), fused=torch.tensor(7.0))
    assert known.loss.item() == pytest.approx(7 + 3 * 10 / n_cos, rel=1e-15)
    assert loss.weights(TokenCounts(*counts)) == pytest.approx((5 / n_ce, 2 / n_mlm), rel=1e-15)


def test_one_token_is_its_own_mean():
    """`counts` of a single token change nothing of the loss of that token alone."""
    student, teacher, _, hidden, teacher_hidden, *_ = triple_inputs()
    one = (student[:1, :1], teacher[:1, :1], torch.tensor([[3]]))
    states = (hidden[:1, :1], teacher_hidden[:1, :1])
    expected = 5 * soft_target_loss(*one[:2]) + 2 * mlm_loss(one[0], one[2]) + cosine_loss(*states)
    for counts in (None, TokenCounts(1, 1, 1)):
        torch.testing.assert_close(TripleLoss()(*one, *states, counts=counts).loss, expected)


def test_without_masks_all_tokens_that_are_given_count():
    student, teacher, _, hidden, teacher_hidden, *_ = triple_inputs()
    labels = torch.full((2, 4), -100)
    out = TripleLoss()(student, teacher, labels, hidden, teacher_hidden)
    torch.testing.assert_close(out.ce, soft_target_loss(student, teacher))
    torch.testing.assert_close(out.cos, cosine_loss(hidden, teacher_hidden))
    assert out.mlm == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["alpha_ce", "alpha_mlm", "alpha_cos"])
def test_alphas_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match="alphas"):
        TripleLoss(**{name: value})
    TripleLoss(**{name: 0.0})
    TripleLoss(**{name: 1e-3}, temperature=1e-3)
    with pytest.raises(ValueError, match="temperature"):
        TripleLoss(temperature=-1.0 if value > 0 else value)
