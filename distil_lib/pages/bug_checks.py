"""The checks that catch the bugs of the triple loss, and the small examples that they use.

    caught = [name for name, check in CHECKS.items() if not check(bug.code)]

A check is True where its statement holds.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_lib.pages.bugs import RIGHT, Answers, LossCode, Text
from distil_lib.student import StudentOutput


# ------------------------------------------------------------- the example by hand, toys
def hand_example() -> Answers:
    """Six tokens in two sentences of a vocabulary of three; logits of padding mean nothing."""
    a, b, c = math.log(4) * torch.eye(3, dtype=torch.float64)
    sure = 3 * a  # softened at T = 2: (8, 1, 1) / 10
    pad = torch.tensor([9.0, -9.0, 3.0], dtype=torch.float64)
    hats = [[[2, 0], [0, 1], [4, 3], [1, 0]], [[0, 1], [4, 3], [9, 9], [9, 9]]]
    states = [[[1, 0], [0, 1], [3, 4], [1, 0]], [[1, 0], [3, 4], [-9, 9], [9, 1]]]
    return Answers(
        student_logits=torch.stack([a, b, a, sure, a, c, -pad, -pad]).view(2, 4, 3),
        teacher_logits=torch.stack([a, b, c, a, a, b, pad, pad]).view(2, 4, 3),
        student_hidden=torch.tensor(states).double(),
        teacher_hidden=torch.tensor(hats).double(),
        words=torch.tensor([[0, 1, 2, 0], [0, 1, 0, 0]]),
        masked=torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]]).bool(),
        counted=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
    )


def by_hand() -> tuple[float, float, float]:
    """(L_ce, L_mlm, L_cos) of the example, on paper."""
    ce = (2 * math.log(2) + 4 * math.log(5 / 4)) / 6
    return ce, math.log(3), (0.04 + 1 + 0.04) / 6


class Toy(nn.Module):
    """A language model of 9 words that mixes each word with the mean of its sentence."""

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embed, self.out = nn.Embedding(9, 6).double(), nn.Linear(6, 9).double()
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, mask: Tensor) -> StudentOutput:
        """(B, L) ids and their mask to states and logits."""
        x, weight = self.embed(ids), mask[..., None].double()
        mixed = x + (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        hidden = self.dropout(torch.tanh(mixed))
        return StudentOutput(hidden, 2 * self.out(hidden))


def toy_text() -> Text:
    """Four sentences, from 3 to 8 tokens; word 8 is the blank."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 8, (4, 8), generator=generator)
    counted = torch.arange(8) < torch.tensor([[3], [5], [8], [8]])
    masked = torch.zeros(4, 8).bool()
    masked[[0, 1, 2, 2, 2, 3, 3], [1, 0, 2, 4, 6, 3, 5]] = True
    blank = torch.full_like(words, 8)
    again = torch.where(masked.roll(1, 1), blank, words)
    return Text(words, torch.where(masked, blank, words), again, masked, counted)


def _halves() -> list[Text]:
    """The toys' text as two micro-batches."""
    rows = (slice(2), slice(2, 4))
    return [Text(*(x[part] for x in vars(toy_text()).values())) for part in rows]


def _training(*codes: LossCode, steps: int) -> Iterator[list[tuple[float, Tensor]]]:
    """(loss, gradient) by each code, at the weights that the last of them reaches, step by step.

    Two micro-batches a step.
    """
    student, teacher, halves = Toy(1).eval(), Toy(0), _halves()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for _ in range(steps):
            found = []
            for code in codes:
                loss = code.loss([code.answers(student, teacher, half) for half in halves])
                optimizer.zero_grad()
                loss.backward()
                of_all = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
                found.append((loss.item(), torch.cat(of_all)))
            yield found
            optimizer.step()


def training_curve(code: LossCode, steps: int = 60) -> list[float]:
    """The triple loss of a toy student, step by step."""
    return [loss for ((loss, _),) in _training(code, steps=steps)]


def gradients_beside_right(code: LossCode, steps: int = 60) -> list[tuple[float, float]]:
    """How long a code's gradient is, in lengths of the right one, and the cosine between both.

    Both are taken at the same weights: those that the right code reaches, before each of its steps.
    """
    return [
        (float(wrong.norm() / right.norm()), float(F.cosine_similarity(wrong, right, dim=0)))
        for (_, wrong), (_, right) in _training(code, RIGHT, steps=steps)
    ]


# ------------------------------------------------------------------------- the checks
def _same(x: Any, y: Any) -> bool:
    return abs(float(x) - float(y)) < 1e-9


def _logits() -> tuple[Tensor, Tensor, Tensor]:
    """Any student's and any teacher's logits, (2, 4, 3), and the mask of the example."""
    generator = torch.Generator().manual_seed(0)
    s, r = (torch.randn(2, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return s, r, hand_example().counted


def it_falls(code: LossCode) -> bool:
    """No check but a habit: the curve ends well below its start."""
    values = training_curve(code)
    return values[-1] < 0.8 * values[0]


def easy_value(code: LossCode) -> bool:
    """A known value of L_ce on one token at T = 1, with distributions that are permutations."""
    a, b = (torch.eye(3, dtype=torch.float64)[i].view(1, 1, 3) * math.log(2) for i in (0, 1))
    return _same(code.ce(b, a, torch.ones(1, 1).bool(), 1.0), math.log(2) / 4)


def known_value(code: LossCode) -> bool:
    """All three losses of the example by hand."""
    return all(map(_same, code.losses([hand_example()]), by_hand()))


def zero_if_equal(code: LossCode) -> bool:
    """L_ce is 0 for equal logits, and above 0 for others."""
    s, r, counted = _logits()
    return _same(code.ce(r, r, counted), 0) and float(code.ce(s, r, counted)) > 1e-3


def more_padding(code: LossCode) -> bool:
    """Three more places of padding change no loss."""
    x = hand_example()
    junk = {3: torch.arange(3.0).expand(2, 3, 3), 2: torch.arange(2.0).expand(2, 3, 2) + 1}
    wide = {}
    for sign, (name, value) in zip((1, -1, 1, -1, 0, 0, 0), vars(x).items(), strict=True):
        shape = sign * junk[value.shape[-1]].to(value) if sign else value.new_zeros(2, 3)
        wide[name] = torch.cat([value, shape], 1)
    return all(map(_same, code.losses([Answers(**wide)]), code.losses([x])))


def everything_twice(code: LossCode) -> bool:
    """Each sentence said twice in a row: twice the tokens, the same means."""
    x = hand_example()
    twice = Answers(**{name: torch.cat([value, value], 1) for name, value in vars(x).items()})
    return all(map(_same, code.losses([twice]), code.losses([x])))


def dead_words(code: LossCode) -> bool:
    """Five more words that neither model ever says."""
    s, r, counted = _logits()
    dead = torch.full((2, 4, 5), -1e4, dtype=torch.float64)
    wide = code.ce(torch.cat([s, dead], -1), torch.cat([r, dead], -1), counted)
    return _same(wide, code.ce(s, r, counted))


def size_at_high_t(code: LossCode) -> bool:
    """As T grows the gradient tends to a limit: it hardly changes from 100 to 200."""
    s, r, counted = _logits()
    s.requires_grad_()
    losses = [code.ce(s, r, counted, temperature) for temperature in (100.0, 200.0)]
    low, high = (float(torch.autograd.grad(loss, s)[0].norm()) for loss in losses)
    return high > 0 and abs(low / high - 1) < 0.05


def longer_vectors(code: LossCode) -> bool:
    """Each token's hidden state made longer by its own factor: L_cos does not change."""
    x = hand_example()
    factors = torch.linspace(0.5, 2, 8, dtype=torch.float64).view(2, 4, 1)
    longer = replace(x, student_hidden=factors * x.student_hidden)
    return _same(code.losses([longer])[2], code.losses([x])[2])


def no_pull_at_visible(code: LossCode) -> bool:
    """L_mlm has no gradient where nothing is masked."""
    x = hand_example()
    logits = x.student_logits.requires_grad_()
    (pull,) = torch.autograd.grad(code.losses([x])[1], logits)
    return float(pull[~x.masked].abs().sum()) == 0


def unequal_parts(code: LossCode) -> bool:
    """A batch in two micro-batches has the losses of the whole."""
    x = hand_example()
    parts = [Answers(**{k: v[i : i + 1] for k, v in vars(x).items()}) for i in (0, 1)]
    return all(map(_same, code.losses(parts), code.losses([x])))


def full_copy(code: LossCode) -> bool:
    """A full copy of the teacher has nothing to learn: L_ce and L_cos are 0."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        copy, teacher = Toy(0).eval(), Toy(0)
        with torch.no_grad():
            ce, _, cos = code.losses([code.answers(copy, teacher, toy_text())])
    return _same(ce, 0) and _same(cos, 0)


CHECKS: dict[str, Callable[[LossCode], bool]] = {
    "it falls (no check)": it_falls,
    "known value, one token": easy_value,
    "known value, by hand": known_value,
    "0 only if equal": zero_if_equal,
    "more padding": more_padding,
    "everything twice": everything_twice,
    "dead words": dead_words,
    "size at high T": size_at_high_t,
    "longer vectors": longer_vectors,
    "no pull at visible": no_pull_at_visible,
    "unequal parts": unequal_parts,
    "full copy": full_copy,
}


def caught_by(code: LossCode) -> list[str]:
    """The names of the checks that do not hold."""
    return [name for name, check in CHECKS.items() if not check(code)]
