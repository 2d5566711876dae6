"""The two losses over the vocabulary without its logits: those of `losses`, chunk by chunk.

    places, ce_tokens, mlm_tokens = sort_tokens(ce_mask, labels != -100)
    def project(states, weight, bias):              # the student calls it instead of projecting
        return fused_vocabulary_losses(states, weight, bias, teacher_logits, true_ids,
                                       ce_weight=5 / ce_tokens, mlm_weight=2 / mlm_tokens)
    weighted, ce_sum, mlm_sum = student(input_ids, positions=places, project=project).logits

With 30,522 words, the logits of 16,000 tokens are 2 GB, and the definition keeps several copies of
them until its backward pass. None of it is needed. Let z = W h + b be a token's logits, s and t the
student's and the teacher's softmax at temperature T, p the student's at 1 and e the true word's
unit vector. From d log s_i / d z_j = (1[i = j] - s_j) / T follow both gradients:

    d/dz  T^2 KL(t || s)  =  -T^2 sum_i t_i (1[i = j] - s_j) / T  =  T (s - t)
    d/dz  -log p_true     =  p - e

The loss is a sum over tokens with weights that are known beforehand. So a token's logits give its
g = dL/dz, and what it adds to the gradients of its states, g W, of the matrix, g h^T, and of the
bias, g. The forward pass computes them; the backward pass multiplies by the gradient that arrives.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# fp32 bytes of a chunk of logits, of which four or five are alive at once. Of 2 to 64 MiB, 16 was
# near the best on a CPU. A GPU wants larger products; its figure has not been measured.
CHUNK_BYTES = {"cpu": 16 * 2**20, "cuda": 128 * 2**20}


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """The product a @ b in `dtype`; a CPU rounds one of 16 bits before it widens it."""
    if a.is_cuda and a.dtype.itemsize == 2:
        return torch.mm(a, b, out_dtype=dtype)
    return torch.mm(a, b).to(dtype)


class Projection:
    """Logits that are computed when they are asked for: `projection[rows]` is (n, V), fp32 or fp64.

    Args:
        states: (N, H), what the head makes of the hidden states.
        weight: (V, H).
        bias: (V,).
    """

    def __init__(self, states: Tensor, weight: Tensor, bias: Tensor):
        device, dtype = states.device.type, states.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:  # as `nn.Linear` does
            dtype = torch.get_autocast_dtype(device)
        self.states, self.weight, self.bias = states.to(dtype), weight.to(dtype), bias

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        dtype = torch.promote_types(self.states.dtype, torch.float32)
        return _product(self.states[rows], self.weight.t(), dtype).add_(self.bias)


def _soft(z: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sum of T^2 KL(teacher || student) and its gradient T (s - t). Uses up both logits (n, V)."""
    # Every step writes over what is no longer needed: two more matrices (n, V), and not six.
    log_s = F.log_softmax(z.div_(temperature), -1)
    log_t = F.log_softmax(teacher.div_(temperature), -1)
    t = torch.exp(log_t, out=teacher)
    loss = temperature**2 * log_t.sub_(log_s).mul_(t).sum(-1).sum()
    return loss, torch.exp(log_s, out=z).sub_(t).mul_(temperature)


def _hard(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy with the true words (n,), and its gradient p - e (n, V)."""
    log_p, labels = F.log_softmax(z, -1), labels[:, None]
    loss = -log_p.gather(-1, labels).sum()
    return loss, log_p.exp_().scatter_add_(-1, labels, log_p.new_full(labels.shape, -1.0))


def sort_tokens(soft: Tensor, labelled: Tensor) -> tuple[Tensor, int, int]:
    """Places (N,) among the B L of masks (B, L): soft targets alone, both, a label alone; counts.

    The counts are of tokens with soft targets and of tokens with a label.
    """
    kinds = (soft & ~labelled, soft & labelled, ~soft & labelled)
    places = [kind.flatten().nonzero().flatten() for kind in kinds]
    first, both, last = (len(some) for some in places)
    return torch.cat(places), first + both, both + last


class _FusedLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, teacher, labels, options):
        T, ce_weight, mlm_weight, size, learning = options
        # Sums over chunks are kept in fp32 at least: in 16 bits small parts would be lost.
        student = Projection(states, weight, bias)
        wide = torch.promote_types(states.dtype, torch.float32)
        learning = learning and any(ctx.needs_input_grad)
        ce, mlm = states.new_zeros((), dtype=wide), states.new_zeros((), dtype=wide)
        inputs = (states, weight, bias)
        gradients = [torch.zeros_like(x, dtype=wide) for x in inputs] if learning else []
        own = isinstance(teacher, Tensor)  # logits that somebody may still need
        first_label = len(states) - len(labels)
        for start in range(0, len(states), size):
            rows = slice(start, min(start + size, len(states)))
            # Tokens are sorted: the first c of a chunk have soft targets, the last m a label.
            c = max(min(rows.stop, len(teacher)) - start, 0)
            m = max(rows.stop - max(start, first_label), 0)
            # The one product that both losses share, and the only logits that exist at a time.
            z = student[rows]
            soft, hard = slice(0, c), slice(len(z) - m, len(z))
            if m:  # first, because the soft targets use up the logits
                end = rows.stop - first_label
                loss, g_hard = _hard(z[hard], labels[end - m : end])
                mlm += loss
            if c:
                answers = teacher[start : start + c]
                loss, g_soft = _soft(z[soft], answers.to(wide, copy=own), T)
                ce += loss
                g_soft.mul_(ce_weight)  # written into z[:c]
            if not learning:
                continue
            # From here on z holds dL/dz: the soft part is there, the rest is set to 0, and the
            # hard part is added (tokens with both losses get both).
            g = z
            g[c:] = 0
            if m:
                g[hard].add_(g_hard, alpha=mlm_weight)
            # The chain rule through z = W h + b. Each token is in one chunk, so its states'
            # gradient is written once; matrix and bias add up over all tokens.
            g_states, g_weight, g_bias = gradients
            g_bias += g.sum(0)
            g = g.to(student.states.dtype)
            g_states[rows] = _product(g, student.weight, wide)
            g_weight += _product(g.t(), student.states[rows], wide)
        ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(gradients, inputs, strict=False)))
        ctx.mark_non_differentiable(ce, mlm)
        return ce_weight * ce + mlm_weight * mlm, ce, mlm

    @staticmethod
    @once_differentiable  # the saved gradients are constants: a second derivative would be wrong
    def backward(ctx, gradient, *_):
        return *(gradient * g for g in ctx.saved_tensors), None, None, None


def fused_vocabulary_losses(
    states: Tensor,
    weight: Tensor,
    bias: Tensor,
    teacher: Any,
    labels: Tensor,
    temperature: float = 2.0,
    ce_weight: float = 0.0,
    mlm_weight: float = 0.0,
    chunk: int | None = None,
    number: int = 4,
    function: Callable | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`soft_target_loss` and `mlm_loss`, summed over tokens and weighted, without the logits.

    The forward pass computes the gradient, weights included. A loss of weight 0 is not computed.

    Args:
        states: (N, H), the student's, ready to be projected, in the order of `sort_tokens`.
        weight: (V, H), of the projection.
        bias: (V,), of the projection.
        teacher: (n, V) logits or the `Projection` that gives them, a row for each of the first n
            tokens, which have soft targets; None if none have.
        labels: (m,), the true ids of the last m tokens.
        temperature: T of the soft targets.
        ce_weight: alpha_ce divided by the number of tokens that the mean is over.
        mlm_weight: The same for L_mlm.
        chunk: Tokens at a time, as many as `CHUNK_BYTES` holds by default; it changes rounding.
        number: Bytes of a logit in such a chunk.
        function: Another form of what computes them: see `training.compiled_losses`.

    Returns:
        ce_weight ce + mlm_weight mlm with gradient; ce and mlm without, in nats summed over tokens.
    """
    if teacher is None or not ce_weight:
        teacher = states[:0]
    if not mlm_weight:
        labels = labels[:0]
    if chunk is None:
        bytes_at_once = CHUNK_BYTES.get(states.device.type, CHUNK_BYTES["cuda"])
        chunk = max(bytes_at_once // (len(weight) * number), 1)
    learning = torch.is_grad_enabled()  # which is off inside the function
    options = (temperature, ce_weight, mlm_weight, chunk, learning)
    return (function or _FusedLosses.apply)(states, weight, bias, teacher, labels, options)
