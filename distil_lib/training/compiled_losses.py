"""The losses of `fused_losses` for a GPU: of a chunk of logits one compiled function makes both.

    losses = compiled_vocabulary_losses()          # in place of `fused_vocabulary_losses`
    DistillationStep(student, teacher, TripleLoss(), fused=losses)

A GPU multiplies matrices faster than it reads what comes out. PyTorch's operations, one after the
other, read and write the logits of both models a dozen times; the compiled function reads them
twice and writes the gradient once. Logits stay in the precision of the products, and all sums over
the vocabulary are in fp32. Rows of 30,522 numbers of 16 bits begin at addresses that tensor cores
cannot load from at full speed, so matrices get rows of zeros up to the next multiple of 64.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distil_lib.fused_losses import Projection, _FusedLosses, _product, fused_vocabulary_losses

MULTIPLE = 64  # numbers in a row of logits
NOWHERE = -1e9  # the logit of a word that does not exist; minus infinity times 0 is no number


class _Logits:
    """Logits (n, V + padding) of chunks, and the bias that is still to be added to them."""

    def __init__(self, source: Projection | Tensor):
        self.source = source
        if isinstance(source, Projection):
            V, bias = len(source.weight), source.bias
            self.weight = F.pad(source.weight, (0, 0, 0, -V % MULTIPLE))
        else:  # logits that somebody has computed
            V, bias = source.shape[-1], source.new_zeros(source.shape[-1])
        bias = bias.to(torch.promote_types(bias.dtype, torch.float32))
        self.padding, self.bias = -V % MULTIPLE, F.pad(bias, (0, -V % MULTIPLE), value=NOWHERE)

    def __getitem__(self, rows: slice) -> Tensor:
        if isinstance(self.source, Projection):
            return torch.mm(self.source.states[rows], self.weight.t())
        return F.pad(self.source[rows], (0, self.padding), value=NOWHERE)


def _soft(z: Tensor, bias: Tensor, teacher: Tensor, teacher_bias: Tensor, T: float) -> Any:
    """Sum of T^2 KL(teacher || student) and its gradient, in the precision of the biases."""
    log_s = F.log_softmax((z + bias) / T, -1)
    log_t = F.log_softmax((teacher + teacher_bias) / T, -1)
    t = log_t.exp()
    return T**2 * (t * (log_t - log_s)).sum(-1).sum(), T * (log_s.exp() - t)


def _hard(z: Tensor, bias: Tensor, labels: Tensor) -> Any:
    """Sum of the cross-entropy with the true words (n,), and its gradient."""
    log_p = F.log_softmax(z + bias, -1)
    true = torch.arange(z.shape[-1], device=z.device) == labels[:, None]
    return -torch.where(true, log_p, 0.0).sum(-1).sum(), log_p.exp() - true.to(log_p.dtype)


# Three functions, because a compiler keeps a form of each for every kind of shape it meets.
def _both(z, bias, teacher, teacher_bias, labels, ce_weight, mlm_weight, T):
    ce, g_soft = _soft(z, bias, teacher, teacher_bias, T)
    mlm, g_hard = _hard(z, bias, labels)
    return (ce_weight * g_soft + mlm_weight * g_hard).to(z.dtype), ce, mlm


def _soft_alone(z, bias, teacher, teacher_bias, ce_weight, T):
    ce, g = _soft(z, bias, teacher, teacher_bias, T)
    return (ce_weight * g).to(z.dtype), ce


def _hard_alone(z, bias, labels, mlm_weight):
    mlm, g = _hard(z, bias, labels)
    return (mlm_weight * g).to(z.dtype), mlm


def _chunks(tokens: int, soft: int, hard: int, size: int) -> Iterator[tuple[slice, bool, bool]]:
    """(rows, whether they have soft targets, whether they have a label), alike in every chunk.

    Tokens are sorted: the first `soft` have soft targets, the last `hard` a label.
    """
    borders = sorted({0, soft, tokens - hard, tokens})
    for first, last in zip(borders, borders[1:], strict=False):
        for start in range(first, last, size):
            rows = slice(start, min(start + size, last))
            if start < soft or start >= tokens - hard:
                yield rows, start < soft, start >= tokens - hard


class _CompiledLosses(_FusedLosses):
    """The gradients that its forward pass has computed are handed on as the core's are."""

    @staticmethod
    def forward(ctx, states, weight, bias, teacher, labels, options):
        functions, T, ce_weight, mlm_weight, size, learning = options
        student = Projection(states, weight, bias)
        wide = torch.promote_types(states.dtype, torch.float32)
        learning = learning and any(ctx.needs_input_grad)
        ce, mlm = states.new_zeros((), dtype=wide), states.new_zeros((), dtype=wide)
        inputs = (states, weight, bias)
        gradients = [torch.zeros_like(x, dtype=wide) for x in inputs] if learning else []
        z, answers = _Logits(student), _Logits(teacher)
        # They differ from step to step, and a compiler would take numbers for constants. Filled in
        # where they are needed, they are no copy that waits for a GPU.
        weights = [torch.full_like(ce, w) for w in (ce_weight, mlm_weight)]
        first_label = len(states) - len(labels)
        for rows, soft, hard in _chunks(len(states), len(teacher), len(labels), size):
            logits = (z[rows], z.bias)
            both = (answers[rows], answers.bias) if soft else ()
            true = (labels[rows.start - first_label : rows.stop - first_label],) if hard else ()
            if soft and hard:
                g, loss, hard_loss = functions["both"](*logits, *both, *true, *weights, T)
                ce, mlm = ce + loss, mlm + hard_loss
            elif soft:
                g, loss = functions["soft"](*logits, *both, weights[0], T)
                ce = ce + loss
            else:
                g, loss = functions["hard"](*logits, *true, weights[1])
                mlm = mlm + loss
            if learning:
                g_states, g_weight, g_bias = gradients
                g_states[rows] = _product(g, z.weight, wide)
                g_weight += _product(g.t(), student.states[rows], wide)[: len(weight)]
                g_bias += g.sum(0, dtype=wide)[: len(weight)]
        ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(gradients, inputs, strict=False)))
        ctx.mark_non_differentiable(ce, mlm)
        return ce_weight * ce + mlm_weight * mlm, ce, mlm


def compiled_vocabulary_losses(compiler: Callable = torch.compile) -> Callable[..., tuple]:
    """A function with the arguments and results of `fused_losses.fused_vocabulary_losses`.

    Args:
        compiler: makes a quick function of a slow one.
    """
    kinds = {"both": _both, "soft": _soft_alone, "hard": _hard_alone}
    functions = {kind: compiler(function) for kind, function in kinds.items()}

    def apply(*inputs: Any) -> Any:
        return _CompiledLosses.apply(*inputs[:-1], (functions, *inputs[-1]))

    def losses(states: Tensor, *given: Any, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        number = 2 if torch.is_autocast_enabled(states.device.type) else states.dtype.itemsize
        options |= {"number": number, "function": apply}
        return fused_vocabulary_losses(states, *given, **options)

    return losses
