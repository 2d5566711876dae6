"""Problem set 1: how its answers are compared, and the mistakes that are known."""

import math

import torch
import torch.nn.functional as F
from problem import Problem, normal


def _softened(s: torch.Tensor, t: torch.Tensor, T: float) -> torch.Tensor:
    return (s / T).softmax(-1) - (t / T).softmax(-1)


PROBLEMS = {
    "1.1": Problem(
        ("kl_t_s", "kl_s_t"),
        {
            "The unit is nats: use the natural logarithm.": [1.0, math.inf],
            "You exchanged the two directions.": [math.inf, math.log(2)],
            "A word that only the student believes in costs an infinite number.": [
                math.log(2),
                0.5 * math.log(0.5),
            ],
        },
    ),
    "1.2": Problem(
        ("noise_first", "noise_second", "labels"),
        {
            "You took the sum of the squares. The noise is 1 less it.": [0.82, 0.5, 0.5 / 0.82],
            "The labels are the other quotient: more are needed at the second token.": [
                0.18,
                0.5,
                0.36,
            ],
            "Do not round the number of labels.": [0.18, 0.5, 3],
        },
    ),
    "1.3": Problem(
        ("hot", "cold"),
        {
            "Centre the logits of each model before you take the difference.": [29 / 6, 4],
            "The hot limit is divided by 2 V.": [26, 4],
            "Divide by 2 V, not by V.": [26 / 3, 4],
            "Cold: the student's largest logit, less that of the teacher's first choice.": [
                26 / 6,
                3,
            ],
        },
    ),
    "1.4": Problem(
        ("pull",),
        {
            "The mean over the tokens is missing: divide by N.": lambda s, t, T: (
                T * _softened(s, t, T)
            ),
            "You forgot T^2: this is the gradient of the KL divergence alone.": lambda s, t, T: (
                _softened(s, t, T) / T / len(s)
            ),
            "A factor 1/T is missing: the loss sees the logits divided by T.": lambda s, t, T: (
                T**2 * _softened(s, t, T) / len(s)
            ),
            "The sign is that of the push. The gradient points uphill.": lambda s, t, T: (
                -T * _softened(s, t, T) / len(s)
            ),
        },
        lambda: [(normal(5, 7), normal(5, 7, seed=1), T) for T in (2.0, 0.7)],
    ),
    "1.5": Problem(
        ("smoothed_loss",),
        {
            "You took the sum over the tokens.": lambda z, y, e: F.cross_entropy(
                z, y, label_smoothing=e, reduction="sum"
            ),
            "The true word gets its part of epsilon, too.": lambda z, y, e: F.cross_entropy(
                z, y, label_smoothing=e * z.shape[-1] / (z.shape[-1] - 1)
            ),
            "The true word keeps 1 - epsilon, not 1.": lambda z, y, e: (
                F.cross_entropy(z, y) - e * z.log_softmax(-1).mean()
            ),
        },
        lambda: [
            (normal(6, 5, seed=4), torch.tensor([0, 1, 4, 4, 2, 3]), e) for e in (0.1, 0.3, 0.5)
        ],
    ),
    "1.6": Problem(
        ("keep_top",),
        {
            "Divide what is kept by its sum.": lambda z, k, T: torch.where(
                z >= z.topk(k).values[:, -1:], (z / T).softmax(-1), 0.0
            ),
            "You forgot the temperature.": lambda z, k, T: z.masked_fill(
                z < z.topk(k).values[:, -1:], -math.inf
            ).softmax(-1),
        },
        lambda: [(2 * normal(6, 9, seed=5), k, T) for k, T in ((3, 2.0), (5, 0.5))],
    ),
    "1.7": Problem(
        ("k_cold", "k_warm"),
        {
            "You stop one word too early: at this k the sum is still below 95%.": (
                lambda right: [k - 1 for k in right]
            ),
            "You exchanged the two temperatures.": lambda right: right[::-1],
        },
    ),
    "1.8": Problem(
        ("correlation", "agree_sure", "agree_unsure"),
        {
            "You exchanged the two halves.": lambda right: [right[0], *right[:0:-1]],
            "The shares are shares, not numbers of tokens.": lambda right: [
                right[0],
                *(46 * share for share in right[1:]),
            ],
        },
    ),
}
