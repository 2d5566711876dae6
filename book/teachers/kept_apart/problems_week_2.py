"""Problem set 2: how its answers are compared, and the mistakes that are known."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from problem import Problem, Values, normal


def _two_sentences() -> tuple[torch.Tensor, torch.Tensor]:
    """Three states (3, 2, 4, 8), and a mask with padding."""
    return normal(3, 2, 4, 8, seed=3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()


def _attention(
    scale: float, padding: bool = True, axis: int = -1
) -> Callable[..., list[torch.Tensor]]:
    def attend(q, k, v, mask):
        scores = q @ k.transpose(-1, -2) * scale
        if padding:
            scores = scores.masked_fill(~mask[:, None, :], -1e9)
        return (scores.softmax(axis) @ v)[mask]

    return attend


def _shown(values: Values) -> list[list[bool]]:
    """Which of the three losses each example shows to be wrong."""
    return [
        [fault > (0.01 if i == j else 1e-6) for j, fault in enumerate(values["faults"](example))]
        for i, example in enumerate(values[f"example_{name}"] for name in "abc")
    ]


PROBLEMS = {
    "2.1": Problem(
        ("layer", "share"),
        {
            "The biases and LayerNorms are missing.": [196608, 1114368 / (1114368 + 4 * 196608)],
            "The LayerNorms are missing: two of 2 H in each layer.": [
                197760,
                1114368 / (1114368 + 4 * 197760),
            ],
            "The encoder has four layers.": [198272, 1114368 / (1114368 + 198272)],
        },
    ),
    "2.2": Problem(
        ("spread", "alternate"),
        {
            "You cut the decimals off. `spread` rounds.": [
                [0, 4, 9, 13, 18, 23],
                [0, 4, 8, 12, 16, 20],
            ],
            "`alternate` takes every fourth layer here, not every second.": [
                [0, 5, 9, 14, 18, 23],
                [0, 2, 4, 6, 8, 10],
            ],
            "The layers are counted from 0.": [[1, 6, 10, 15, 19, 24], [1, 5, 9, 13, 17, 21]],
        },
    ),
    "2.3": Problem(
        ("tokens_ce", "tokens_mlm", "tokens_cos", "without_mask", "with_batchmean"),
        {
            "Padding is no token.": [18, 3, 18, 2 / 3, 4],
            "The factors are value by right value: you have the inverse.": [
                12,
                3,
                12,
                3 / 2,
                1 / 4,
            ],
            "The hidden states are compared at all tokens, not at the masked ones.": [
                12,
                3,
                3,
                2 / 3,
                4,
            ],
        },
    ),
    "2.4": Problem(
        ("attend",),
        {
            "Divide the scores by the square root of d.": _attention(1.0),
            "Divide by the square root of d, not by d.": _attention(1 / 8),
            "Padding is read: the mask is missing.": _attention(8**-0.5, padding=False),
            "The softmax runs along the keys, the last axis.": _attention(8**-0.5, axis=-2),
        },
        # What stands in the rows of padding does not matter: v is 0 there, and the rows are cut.
        lambda: [(*(_two_sentences()[0]), _two_sentences()[1])],
        lambda values: lambda q, k, v, mask: values["attend"](q, k, v, mask)[mask],
    ),
    "2.5": Problem(
        ("state_loss",),
        {
            "Padding counts in your mean.": lambda s, t, mask: (
                1 - F.cosine_similarity(s, t, dim=-1)
            ).mean(),
            "The angle is taken along the width, the last axis.": lambda s, t, mask: (
                1 - F.cosine_similarity(s[mask], t[mask], dim=0)
            ).mean(),
            "This is the cosine. The loss is 1 less it.": lambda s, t, mask: F.cosine_similarity(
                s[mask], t[mask], dim=-1
            ).mean(),
            "You took the sum over the tokens.": lambda s, t, mask: (
                1 - F.cosine_similarity(s[mask], t[mask], dim=-1)
            ).sum(),
        },
        lambda: [(*_two_sentences()[0][:2], _two_sentences()[1])],
    ),
    "2.6": Problem(
        ("learning_rate",),
        {
            "It falls from the peak to 0 over the steps that are left, not over all steps.": (
                lambda step, steps, warmup, peak: (
                    peak * min(step / (warmup * steps), 1 - step / steps)
                )
            ),
            "After the warm-up it stays. It has to fall to 0.": lambda step, steps, warmup, peak: (
                peak * min(step / (warmup * steps), 1)
            ),
            "The peak is missing.": lambda step, steps, warmup, peak: min(
                step / (warmup * steps), (steps - step) / (steps - warmup * steps)
            ),
        },
        lambda: [(step, 400, 0.1, 3.0) for step in (0, 7, 39, 40, 41, 200, 399, 400)],
    ),
    "2.7": Problem(
        ("example_a", "example_b", "example_c"),
        {
            "Each of your examples shows more than one bug.": [[True] * 3] * 3,
            "Your example for `loss_a` does not show its bug. Are its two distributions the same "
            "numbers in another order?": [
                [False, False, False],
                [False, True, False],
                [False, False, True],
            ],
        },
        seen=_shown,
    ),
    "2.8": Problem(
        ("harm", "together"),
        {
            "Removed are the layers 1 and 3. You have the sum of the two.": lambda right: [
                right[0],
                right[0][1] + right[0][3],
            ],
            "The first number is for layer 0: your order is another.": lambda right: [
                right[0][::-1],
                right[1],
            ],
        },
    ),
}
