"""Twelve bugs of the triple loss that run and whose curve falls, and the checks that catch them.

    for bug in BUGS:
        caught = [name for name, check in CHECKS.items() if not check(bug.code)]

A bug replaces one part of `LossCode`; `RIGHT` has the library's own functions. A check is True
where its statement holds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_lib.losses import IGNORED, cosine_loss, mlm_loss, soft_target_loss
from distil_lib.student import StudentOutput

ALPHAS = (5.0, 2.0, 1.0)


@dataclass(frozen=True)
class Text:
    """Sentences, each (B, L): true ids, ids with blanks, with other blanks, and two masks."""

    words: Tensor
    corrupted: Tensor
    again: Tensor
    masked: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Answers:
    """What both models say about a text, and the words and masks of the text."""

    student_logits: Tensor  # (B, L, V)
    teacher_logits: Tensor
    student_hidden: Tensor  # (B, L, H)
    teacher_hidden: Tensor
    words: Tensor  # (B, L)
    masked: Tensor
    counted: Tensor


# ------------------------------------------------------------------ what is right
def labels_of_masked(words: Tensor, masked: Tensor, counted: Tensor) -> Tensor:
    """The true word at masked tokens, -100 elsewhere."""
    return torch.where(masked, words, IGNORED)


def ask_teacher(teacher: nn.Module, text: Text) -> StudentOutput:
    """In evaluation mode, with the same blanks as the student."""
    with torch.no_grad():
        return teacher.eval()(text.corrupted, text.counted)


def share_of_tokens(tokens: Sequence[int]) -> list[float]:
    """The weight of each micro-batch's mean: its share of all tokens."""
    return [n / sum(tokens) for n in tokens]


@dataclass(frozen=True)
class LossCode:
    """The five pieces of code in which the bugs are."""

    ce: Callable[..., Tensor] = soft_target_loss
    cos: Callable[..., Tensor] = cosine_loss
    labels: Callable[..., Tensor] = labels_of_masked
    ask: Callable[..., StudentOutput] = ask_teacher
    weights: Callable[[Sequence[int]], list[float]] = share_of_tokens

    def answers(self, student: nn.Module, teacher: nn.Module, text: Text) -> Answers:
        """Both models on a text."""
        out, reference = student(text.corrupted, text.counted), self.ask(teacher, text)
        states = (out.last_hidden_state, reference.last_hidden_state)
        masks = (text.words, text.masked, text.counted)
        return Answers(out.logits, reference.logits, *states, *masks)

    def losses(self, parts: Sequence[Answers]) -> tuple[Tensor, Tensor, Tensor]:
        """(L_ce, L_mlm, L_cos) of a batch in micro-batches."""
        total: Any = [0.0, 0.0, 0.0]
        tokens = [int(a.counted.sum()) for a in parts]
        masked = [int(a.masked.sum()) for a in parts]
        shares = zip(parts, self.weights(tokens), self.weights(masked), strict=True)
        for a, all_tokens, of_masked in shares:
            labels = self.labels(a.words, a.masked, a.counted)
            total[0] += all_tokens * self.ce(a.student_logits, a.teacher_logits, a.counted)
            total[1] += of_masked * mlm_loss(a.student_logits, labels)
            total[2] += all_tokens * self.cos(a.student_hidden, a.teacher_hidden, a.counted)
        return tuple(total)

    def loss(self, parts: Sequence[Answers]) -> Tensor:
        """The triple loss, weighted 5, 2 and 1."""
        return sum(
            (w * x for w, x in zip(ALPHAS, self.losses(parts), strict=True)), torch.zeros(())
        )


RIGHT = LossCode()


# -------------------------------------------------------------------- what is wrong
def both_sides(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """The teacher on both sides."""
    return soft_target_loss(teacher, teacher, mask, temperature) + 0 * student.sum()


def over_places(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """A softmax over axis 1 of (B, L, V), the places."""
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    per_token = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(-1)
    return temperature**2 * per_token[mask].mean()


def no_t_squared(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """T^2 forgotten."""
    return soft_target_loss(student, teacher, mask, temperature) / temperature**2


def reduction_mean(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """A mean over tokens and vocabulary."""
    log_s = F.log_softmax(student[mask] / temperature, dim=-1)
    log_t = F.log_softmax(teacher[mask] / temperature, dim=-1)
    terms = F.kl_div(log_s, log_t, reduction="none", log_target=True)
    return temperature**2 * terms.mean()  # over tokens *and* vocabulary


def batchmean(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """A sum divided by the number of sentences."""
    log_s = F.log_softmax(student * mask[..., None] / temperature, dim=-1)
    log_t = F.log_softmax(teacher * mask[..., None] / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def with_padding(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0
) -> Tensor:
    """The mask forgotten."""
    return soft_target_loss(student, teacher, None, temperature)


def reversed_kl(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 2.0) -> Tensor:
    """Student and teacher exchanged."""
    return soft_target_loss(teacher, student, mask, temperature)


def in_train_mode(teacher: nn.Module, text: Text) -> StudentOutput:
    """Dropout disturbs the teacher."""
    with torch.no_grad():
        out = teacher.train()(text.corrupted, text.counted)
    teacher.eval()
    return out


def other_blanks(teacher: nn.Module, text: Text) -> StudentOutput:
    """The teacher sees other blanks."""
    with torch.no_grad():
        return teacher.eval()(text.again, text.counted)


def labels_everywhere(words: Tensor, masked: Tensor, counted: Tensor) -> Tensor:
    """No -100 at visible tokens."""
    return torch.where(counted, words, IGNORED)


def mean_of_means(tokens: Sequence[int]) -> list[float]:
    """Each micro-batch weighs the same."""
    return [1 / len(tokens)] * len(tokens)


def cosine_over_places(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The default axis 1 of (B, L, H), the places."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


@dataclass(frozen=True)
class Bug:
    """A name, what is wrong, what a practitioner sees, and the code with the bug in it."""

    name: str
    wrong: str
    symptom: str
    code: LossCode


BUGS = (
    Bug("teacher on both sides", "`soft_target_loss(teacher, teacher)`",
        "L_ce is 0 from the first step; the sum looks healthy", replace(RIGHT, ce=both_sides)),
    Bug("softmax over dim=1", "`log_softmax(logits, dim=1)` of (B, L, V)",
        "a large L_ce, which falls", replace(RIGHT, ce=over_places)),
    Bug("T² forgotten", "the factor `temperature**2` is missing",
        "nothing; L_ce weighs a quarter at T = 2", replace(RIGHT, ce=no_t_squared)),
    Bug("reduction='mean'", "a mean over tokens and vocabulary",
        "a tiny L_ce", replace(RIGHT, ce=reduction_mean)),
    Bug("'batchmean' on (B, L, V)", "the sum is divided by B, not by tokens",
        "a large L_ce, beside which the others count little", replace(RIGHT, ce=batchmean)),
    Bug("padding in the mean", "the mask of L_ce is forgotten",
        "the loss depends on how texts are batched", replace(RIGHT, ce=with_padding)),
    Bug("teacher in train mode", "`teacher.train()`: dropout changes its answers",
        "L_ce stops at a floor", replace(RIGHT, ask=in_train_mode)),
    Bug("different corruption", "the teacher sees other blanks than the student",
        "L_ce stops at a floor", replace(RIGHT, ask=other_blanks)),
    Bug("labels without -100", "`labels = input_ids.clone()`",
        "L_mlm too low, accuracy too good", replace(RIGHT, labels=labels_everywhere)),
    Bug("mean of means", "each micro-batch's mean weighs the same",
        "the gradient depends on how the batch is cut", replace(RIGHT, weights=mean_of_means)),
    Bug("cosine over dim=1", "`F.cosine_similarity(student, teacher)` of (B, L, H)",
        "an L_cos of ordinary size", replace(RIGHT, cos=cosine_over_places)),
    Bug("reversed KL", "`soft_target_loss(teacher, student)`",
        "nothing; the student prefers to be sure", replace(RIGHT, ce=reversed_kl)),
)  # fmt: skip


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


def training_curve(code: LossCode, steps: int = 60) -> list[float]:
    """The triple loss of a toy student, step by step; two micro-batches a step."""
    student, teacher, text = Toy(1).eval(), Toy(0), toy_text()
    halves = [Text(*(x[rows] for x in vars(text).values())) for rows in (slice(2), slice(2, 4))]
    optimizer, values = torch.optim.Adam(student.parameters(), lr=0.02), []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for _ in range(steps):
            loss = code.loss([code.answers(student, teacher, half) for half in halves])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return values


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
