"""The three losses of DistilBERT, each with its own mask, and their weighted sum.

    loss = TripleLoss(alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0, temperature=2.0)
    out = loss(student_logits, teacher_logits, labels, student_hidden, teacher_hidden,
               ce_mask=attention_mask, cos_mask=attention_mask)
    out.loss.backward()

Section 2 of Sanh et al. (2019), "Training loss". Every loss is a sum over tokens divided by their
number in *all* micro-batches and processes (`TripleLoss.combine`): in a mean of means a token's
weight would depend on how many other tokens its micro-batch holds.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # the label of a position that is not predicted, as in `F.cross_entropy`


def _reduce(per_token: Tensor, reduction: str) -> Tensor:
    """per_token (N,) -> scalar. The mean of no tokens is 0, with a gradient of 0, and not NaN."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'.")
    return per_token.sum() / (max(per_token.numel(), 1) if reduction == "mean" else 1)


def _select(x: Tensor, mask: Tensor | None) -> Tensor:
    """Rows (N, D) of x (..., D) where mask (...) is set, in fp32 at least: long sums need it."""
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(f"mask is {tuple(mask.shape)}; x has the tokens {tuple(x.shape[:-1])}.")
    rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask.bool()]
    return rows.to(torch.promote_types(x.dtype, torch.float32))


def _check_equal_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        s, t = tuple(student.shape), tuple(teacher.shape)
        raise ValueError(f"shapes differ: {s} (student) and {t} (teacher).")


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    temperature: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """L_ce: T^2 KL(teacher || student) of the distributions softened by the temperature T.

    The paper writes the cross-entropy -sum t_i log s_i. The KL divergence subtracts the teacher's
    entropy, which no student can change: the gradient is the same, and the loss is 0 exactly when
    the distributions are equal. T^2 keeps the gradient's size when T changes (Hinton et al. 2015).

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V).
        mask: (...), True at the tokens that count; None for all.
        temperature: T, above 0.
        reduction: "mean" over tokens, or their "sum".

    Returns:
        A scalar in nats (times T^2), summed over the vocabulary.

    Raises:
        ValueError: If shapes differ, or temperature or reduction have no meaning.
    """
    _check_equal_shapes(student_logits, teacher_logits)
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive.")
    log_student = F.log_softmax(_select(student_logits, mask) / temperature, dim=-1)
    log_teacher = F.log_softmax(_select(teacher_logits, mask) / temperature, dim=-1)
    # PyTorch's order is (input, target): KL(target || input), here KL(teacher || student).
    per_token = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    return temperature**2 * _reduce(per_token, reduction)


def mlm_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """L_mlm in nats: cross-entropy with the true word at masked tokens (Devlin et al. 2019, 3.1).

    Args:
        logits: (..., V).
        labels: (...), the true id where a word is to be predicted, and -100 elsewhere.
        reduction: "mean" over masked tokens, or their "sum".
    """
    masked = labels != IGNORED
    per_token = F.cross_entropy(_select(logits, masked), labels[masked], reduction="none")
    return _reduce(per_token, reduction)


def cosine_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """L_cos, from 0 to 2: 1 - cos of the angle between last hidden states (Sanh et al. 2019, 2).

    Args:
        student_hidden: (..., H).
        teacher_hidden: (..., H).
        mask: As for `soft_target_loss`: here the tokens that are not padding.
        reduction: "mean" over tokens, or their "sum".

    Raises:
        ValueError: If shapes differ.
    """
    _check_equal_shapes(student_hidden, teacher_hidden)
    student, teacher = _select(student_hidden, mask), _select(teacher_hidden, mask)
    return _reduce(1 - F.cosine_similarity(student, teacher, dim=-1), reduction)


@dataclass
class TokenCounts:
    """How many tokens each loss is a mean over, in the *whole* batch of an optimizer step."""

    ce: int
    mlm: int
    cos: int


@dataclass
class TripleLossOutput:
    """`loss` = alpha_ce ce + alpha_mlm mlm + alpha_cos cos, with gradient; its parts without."""

    loss: Tensor
    ce: Tensor
    mlm: Tensor
    cos: Tensor


@dataclass(frozen=True)
class TripleLoss:
    """alpha_ce L_ce + alpha_mlm L_mlm + alpha_cos L_cos (Sanh et al. 2019, section 2).

    A loss whose alpha is 0 is not computed, and what only it needs may be None.
    """

    alpha_ce: float = 5.0  # the defaults are those of the released training code
    alpha_mlm: float = 2.0
    alpha_cos: float = 1.0
    temperature: float = 2.0  # T of the soft targets

    def __post_init__(self) -> None:
        alphas = (self.alpha_ce, self.alpha_mlm, self.alpha_cos)
        # Written so that a NaN fails it: every comparison with NaN is false.
        if not (min(alphas) >= 0 and 0 < sum(alphas) < float("inf")):
            raise ValueError(f"alphas {alphas} must not be negative nor all 0.")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive.")

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor,
        student_hidden: Tensor | None = None,
        teacher_hidden: Tensor | None = None,
        ce_mask: Tensor | None = None,
        cos_mask: Tensor | None = None,
        counts: TokenCounts | None = None,
    ) -> TripleLossOutput:
        """The loss of one (micro-)batch, from its logits.

        Args:
            student_logits: (..., V), at all positions or at chosen ones.
            teacher_logits: (..., V), at the same ones.
            labels: (...), at the same ones.
            student_hidden: (B, L, H), last hidden states.
            teacher_hidden: (B, L, H).
            ce_mask: (...) bool, the tokens that L_ce sees; None for all that are given.
            cos_mask: (B, L) bool, the same for L_cos.
            counts: The numbers of tokens in the whole batch; those of this part by default.
        """
        ce = mlm = cos = torch.zeros((), device=student_logits.device)
        if self.alpha_ce:
            if teacher_logits is None:
                raise ValueError("L_ce needs the teacher's logits.")
            ce = soft_target_loss(student_logits, teacher_logits, ce_mask, self.temperature, "sum")
        if self.alpha_mlm:
            mlm = mlm_loss(student_logits, labels, "sum")
        if self.alpha_cos:
            if student_hidden is None or teacher_hidden is None:
                raise ValueError("L_cos needs the hidden states of both.")
            cos = cosine_loss(student_hidden, teacher_hidden, cos_mask, "sum")
        if not self.alpha_ce and not self.alpha_mlm:
            # Distributed training expects a gradient, even of 0, for the head as well.
            mlm = mlm + 0.0 * student_logits.sum()
        if counts is None:
            tokens = labels.numel() if ce_mask is None else int(ce_mask.sum())
            states = 0 if student_hidden is None else student_hidden.shape[:-1].numel()
            states = states if cos_mask is None else int(cos_mask.sum())
            counts = TokenCounts(tokens, int((labels != IGNORED).sum()), states)
        return self.combine(ce, mlm, cos, counts)

    def weights(self, counts: TokenCounts) -> tuple[float, float]:
        """What the sums of L_ce and L_mlm are multiplied by: alpha / number of tokens."""
        return self.alpha_ce / max(counts.ce, 1), self.alpha_mlm / max(counts.mlm, 1)

    def combine(
        self, ce: Tensor, mlm: Tensor, cos: Tensor, counts: TokenCounts, fused: Tensor | None = None
    ) -> TripleLossOutput:
        """Sums over tokens to the loss: each divided by its number of tokens, then weighted.

        Args:
            ce: The sum of L_ce over this part's tokens, a scalar.
            mlm: The same of L_mlm.
            cos: The same of L_cos.
            counts: The numbers of tokens in the whole batch. Of no tokens the mean is 0.
            fused: alpha_ce L_ce + alpha_mlm L_mlm with gradient, if `ce` and `mlm` carry none.
        """
        ce, mlm, cos = ce / max(counts.ce, 1), mlm / max(counts.mlm, 1), cos / max(counts.cos, 1)
        vocabulary = self.alpha_ce * ce + self.alpha_mlm * mlm if fused is None else fused
        loss = vocabulary + self.alpha_cos * cos
        return TripleLossOutput(loss, ce.detach(), mlm.detach(), cos.detach())
