"""The exercises of chapter 2, on temperature."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from distil_lib.losses import mlm_loss, soft_target_loss
from distil_lib.pages import bugs
from distil_lib.pages.exercises import Exercise, drawn


def _overconfident_model() -> list[tuple[Tensor, Tensor]]:
    """Logits (2000, 12), and labels drawn from them at a temperature of 1.6."""
    logits = 3 * drawn(2, 2000, 12).double()
    chance = torch.Generator().manual_seed(3)
    labels = torch.multinomial((logits / 1.6).softmax(-1), 1, generator=chance)[:, 0]
    return [(logits, labels)]


def _of_all_tokens(bug: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A wrong loss of chapter 5, without a mask."""
    return lambda student, teacher, T: bug(student, teacher, None, T)


def _variance(logits: Tensor, weights: Tensor) -> Tensor:
    return (weights * logits**2).sum() - (weights * logits).sum() ** 2


def _entropy_slope(logits: Tensor, T: float) -> Tensor:
    """dH/dT = Var(z) / T^3."""
    return _variance(logits, (logits / T).softmax(-1)) / T**3


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which the labels are most probable."""
    return float(minimize_scalar(lambda T: mlm_loss(logits / T, labels).item(), (0.5, 2)).x)


EXERCISES = {
    "ex-02-1": Exercise(
        answer=5 / 9,
        mistakes={
            "That is the probability at T = 1. At T = 2 take the square root of each part first.": (
                25 / 35
            ),
            "You squared the parts: this is T = 1/2. At T = 2 take square roots.": 625 / 707,
            "You halved the probability. Temperature divides the logits: take square roots of the "
            "parts, then divide by their new sum.": 25 / 70,
        },
    ),
    "ex-02-2": Exercise(
        answer=lambda s, t, T: soft_target_loss(s, t, temperature=T),
        mistakes={
            "You forgot the factor T^2.": _of_all_tokens(bugs.no_t_squared),
            "Your loss is V times too small: you took the mean over the vocabulary too. Sum over "
            "the words, then take the mean over the tokens.": _of_all_tokens(bugs.reduction_mean),
            "You exchanged the two models: this is KL(student || teacher). The weights of the sum "
            "are the teacher's probabilities.": _of_all_tokens(bugs.reversed_kl),
            "You took the sum over the tokens. The loss is a mean over them.": (
                lambda s, t, T: len(s) * soft_target_loss(s, t, temperature=T)
            ),
            "This is the cross-entropy. Subtract the teacher's entropy: equal models must give "
            "0.": lambda s, t, T: T**2 * F.cross_entropy(s / T, (t / T).softmax(-1)),
            "You softened the teacher alone. Divide the student's logits by T as well.": (
                lambda s, t, T: T**2 * soft_target_loss(s, t / T, temperature=1.0)
            ),
        },
        # Logits of student and teacher, five tokens of seven words, and a temperature.
        inputs=lambda: [(*2 * drawn(seed, 2, 5, 7).double(), 1.0 + seed) for seed in (1, 2)],
    ),
    "ex-02-3": Exercise(
        answer=_entropy_slope,
        mistakes={
            "This is the derivative by 1/T. Multiply it by d(1/T)/dT = -1/T^2.": lambda logits, T: (
                -_variance(logits, (logits / T).softmax(-1)) / T
            ),
            "You weighted all logits alike. The variance is taken under the softened "
            "probabilities.": lambda logits, T: (
                _variance(logits, torch.full_like(logits, 1 / len(logits))) / T**3
            ),
            "You took the variance at T = 1. The probabilities are softened, too.": (
                lambda logits, T: _variance(logits, logits.softmax(-1)) / T**3
            ),
        },
        inputs=lambda: [(3 * drawn(1, 9).double(), T) for T in (2.0, 0.7)],
    ),
    "ex-02-4": Exercise(
        answer=_best_temperature,
        mistakes={
            "You found 1/T: you multiplied the logits where T divides them.": (
                lambda logits, labels: 1 / _best_temperature(logits, labels)
            ),
            "You returned the smallest loss. Return the temperature that gives it.": (
                lambda logits, labels: mlm_loss(logits / _best_temperature(logits, labels), labels)
            ),
            "You did not look between 1 and 2: the loss of these logits is lowest inside.": (
                lambda logits, labels: 1.0
            ),
        },
        inputs=_overconfident_model,
        tolerance=0.02,
    ),
}
