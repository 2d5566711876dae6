"""The three losses of DistilBERT, each with its own mask, and their weighted sum.

    loss = TripleLoss(alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0, temperature=2.0)
    out = loss(student_logits, teacher_logits, labels, student_hidden, teacher_hidden, attention_mask)
    out.loss.backward()

Section 2 of Sanh et al. (2019), "Training loss". Every loss is a sum over tokens and a number of tokens, and the mean is their
quotient: where a batch is spread over micro-batches or processes, divide the sums by the number of tokens in *all* of it
(`reduction="sum"`, or `counts` of `TripleLoss`). A mean of means would weigh tokens by the company they happen to be in.

Everything is computed in fp32 at least, whatever the precision of the logits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = (
    -100
)  # the label of a position that is not predicted, as in `torch.nn.functional.cross_entropy`


def _wide(x: Tensor) -> Tensor:
    """fp32, or fp64 if it is that already: a sum over 30,000 words loses the small ones in 16 bits."""
    return x if x.dtype == torch.float64 else x.float()


def _reduce(per_token: Tensor, reduction: str) -> Tensor:
    """per_token (N,) -> scalar. The mean of no tokens is 0, with a gradient of 0, and not NaN."""
    if reduction == "sum":
        return per_token.sum()
    if reduction == "mean":
        return per_token.sum() / max(per_token.numel(), 1)
    raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'.")


def _select(x: Tensor, mask: Tensor | None) -> Tensor:
    """Rows of x (..., D) where mask (...) is set: (N, D)."""
    if mask is None:
        return x.reshape(-1, x.shape[-1])
    if mask.shape != x.shape[:-1]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but one entry per token is {tuple(x.shape[:-1])}."
        )
    return x[mask.bool()]


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    temperature: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """L_ce: T^2 * KL(teacher || student) of the distributions softened by T, summed over the vocabulary, mean over tokens.

    student_logits, teacher_logits: (..., V). mask: (...), True at the tokens that count; None for all.

    The paper writes the cross-entropy -sum t_i log s_i. The KL divergence subtracts the teacher's entropy, which no student can
    change: the gradient is the same, and the loss is 0 exactly when the student has learned everything. T^2 keeps the gradient's
    size when T changes (Hinton et al. 2015, section 2).
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)} differ."
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive.")
    log_student = F.log_softmax(_wide(_select(student_logits, mask)) / temperature, dim=-1)
    log_teacher = F.log_softmax(_wide(_select(teacher_logits, mask)) / temperature, dim=-1)
    per_token = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    return temperature**2 * _reduce(per_token, reduction)


def mlm_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """L_mlm: cross-entropy with the true word, mean over the words that were hidden.

    logits: (..., V). labels: (...), the true id where a word is to be predicted and -100 elsewhere.
    """
    mask = labels != IGNORED
    return _reduce(
        F.cross_entropy(_wide(_select(logits, mask)), labels[mask], reduction="none"), reduction
    )


def cosine_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """L_cos: 1 - cos of the angle between the last hidden states, mean over tokens.

    student_hidden, teacher_hidden: (..., H). mask: (...), True at the tokens that count (all that are not padding); None for all.
    """
    if student_hidden.shape != teacher_hidden.shape:
        raise ValueError(
            f"student states {tuple(student_hidden.shape)} and teacher states {tuple(teacher_hidden.shape)} differ."
        )
    student, teacher = _wide(_select(student_hidden, mask)), _wide(_select(teacher_hidden, mask))
    return _reduce(1 - F.cosine_similarity(student, teacher, dim=-1), reduction)


@dataclass
class TokenCounts:
    """How many tokens each loss is a mean over; in the whole batch, wherever its parts are computed."""

    ce: int
    mlm: int
    cos: int


@dataclass
class TripleLossOutput:
    """`loss` = alpha_ce * ce + alpha_mlm * mlm + alpha_cos * cos, a scalar with gradient; the parts, unweighted, without."""

    loss: Tensor
    ce: Tensor
    mlm: Tensor
    cos: Tensor


@dataclass(frozen=True)
class TripleLoss:
    """alpha_ce * L_ce + alpha_mlm * L_mlm + alpha_cos * L_cos. The defaults are those of the released training code.

    A loss whose alpha is 0 is not computed, and what only it needs may be None.
    """

    alpha_ce: float = 5.0
    alpha_mlm: float = 2.0
    alpha_cos: float = 1.0
    temperature: float = 2.0

    def __post_init__(self):
        alphas = (self.alpha_ce, self.alpha_mlm, self.alpha_cos)
        if min(alphas) < 0 or sum(alphas) == 0 or self.temperature <= 0:
            raise ValueError(
                f"alphas {alphas} must not be negative nor all 0, and temperature {self.temperature} must be positive."
            )

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
        """The loss of one (micro-)batch.

        student_logits, teacher_logits, labels: (..., V), (..., V), (...), all positions or the same chosen ones.
        student_hidden, teacher_hidden: (B, L, H). ce_mask, cos_mask: which tokens those losses see; None for all given.
        counts: the number of tokens to divide by, of the whole batch; those of this part by default.
        """
        zero = torch.zeros((), device=student_logits.device)
        ce = mlm = cos = zero
        reduction = "mean" if counts is None else "sum"
        if self.alpha_ce:
            ce = soft_target_loss(
                student_logits, teacher_logits, ce_mask, self.temperature, reduction
            )
        if self.alpha_mlm:
            mlm = mlm_loss(student_logits, labels, reduction)
        if self.alpha_cos:
            cos = cosine_loss(student_hidden, teacher_hidden, cos_mask, reduction)
        if counts is not None:
            ce, mlm, cos = (
                ce / max(counts.ce, 1),
                mlm / max(counts.mlm, 1),
                cos / max(counts.cos, 1),
            )
        loss = self.alpha_ce * ce + self.alpha_mlm * mlm + self.alpha_cos * cos
        if not self.alpha_ce and not self.alpha_mlm:
            loss = (
                loss + 0.0 * student_logits.sum()
            )  # distributed training wants a gradient, be it 0, for the head as well
        return TripleLossOutput(loss, ce.detach(), mlm.detach(), cos.detach())
