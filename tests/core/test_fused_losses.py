"""The fused losses against their definition: the same losses and gradients, far less memory.

And a sample of tokens against all.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers import randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
)

from distil_lib import fused_losses as fused
from distil_lib.distillation import DistillationStep
from distil_lib.fused_losses import Projection, fused_vocabulary_losses, sort_tokens
from distil_lib.losses import TripleLoss, mlm_loss, soft_target_loss
from distil_lib.masking import MicroBatch, sample_size, sample_tokens
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM

MASKS = ("ce only", "mlm only", "both", "neither")


def head(tokens: int, width: int, words: int, seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    """States (N, H), matrix (V, H) and bias (V,)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((tokens, width), (words, width), (words,))
    ]


@st.composite
def cases(draw):
    """(student's head, teacher's head, labels, ce_mask, temperature, ce_weight, mlm_weight, chunk).

    Each token has soft targets, a label, both or neither, and a chunk may be of one token or of
    more than there are.
    """
    tokens, width, words = (
        draw(st.integers(0, 12)),
        draw(st.integers(1, 6)),
        draw(st.integers(2, 30)),
    )
    kinds = torch.tensor(
        draw(st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens)), dtype=torch.long
    )
    true = torch.randint(
        words, (tokens,), generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    weights = draw(st.tuples(*[st.sampled_from([0.0, 0.01, 0.7, 5.0])] * 2))
    return (
        head(
            tokens, width, words, draw(st.integers(0, 99)), draw(st.sampled_from([0.1, 1.0, 3.0]))
        ),
        head(tokens, draw(st.integers(1, 6)), words, draw(st.integers(0, 99))),
        torch.where((kinds == 1) | (kinds == 2), true, -100),
        (kinds == 0) | (kinds == 2),
        draw(st.sampled_from([0.5, 1.0, 2.0, 7.0])),
        *weights,
        draw(st.integers(1, 14)),
    )


def loss_and_gradients(function, student, *rest) -> list[torch.Tensor]:
    """(loss, L_ce, L_mlm, gradients of states, matrix and bias). `rest` as `cases` draws it."""
    student = [x.detach().clone().requires_grad_() for x in student]
    loss, *parts = function(student, *rest)
    (3 * loss).backward()  # 3: the gradient that arrives is not always 1
    return [loss.detach(), *parts, *(x.grad / 3 for x in student)]


def definition(student, teacher, labels, ce_mask, temperature, ce_weight, mlm_weight, chunk=None):
    z, t = F.linear(*student), F.linear(*teacher)
    ce, mlm = soft_target_loss(z, t, ce_mask, temperature, "sum"), mlm_loss(z, labels, "sum")
    return (
        ce_weight * ce + mlm_weight * mlm,
        ce.detach() * bool(ce_weight),
        mlm.detach() * bool(mlm_weight),
    )


def fused_form(student, teacher, labels, ce_mask, temperature, ce_weight, mlm_weight, chunk=None):
    places, soft, labelled = sort_tokens(ce_mask, labels != -100)
    answers = Projection(teacher[0][places[:soft]], *teacher[1:])
    true = labels[places[len(places) - labelled :]]
    rest = (answers, true, temperature, ce_weight, mlm_weight, chunk)
    return fused_vocabulary_losses(student[0][places], *student[1:], *rest)


def to(dtype, case):
    return [[x.to(dtype) for x in part] for part in case[:2]] + list(case[2:])


def error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference, relative to each tensor's largest entry and to 1 where that is
    less."""
    assert [x.shape for x in found] == [x.shape for x in expected]
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True) if b.numel()]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs)


# ------------------------------------------------------------------------------------- same numbers
def check(function, case):
    assert error(loss_and_gradients(function, *case), loss_and_gradients(definition, *case)) < 1e-10


@settings(deadline=None, max_examples=100)
@given(cases())
def test_losses_and_gradients_are_those_of_the_definition(case):
    check(fused_form, case)
    single = to(torch.float32, case)
    assert (
        error(loss_and_gradients(fused_form, *single), loss_and_gradients(definition, *single))
        < 1e-5
    )


def case_of(kinds: str, tokens=9, words=20, chunk=4):
    kind = torch.tensor(
        [MASKS.index(k) for k in itertools.islice(itertools.cycle(kinds.split(", ")), tokens)]
    )
    labels = torch.where((kind == 1) | (kind == 2), torch.arange(tokens) % words, -100)
    return (
        head(tokens, 5, words, 1),
        head(tokens, 3, words, 2),
        labels,
        (kind == 0) | (kind == 2),
        2.0,
        0.7,
        0.3,
        chunk,
    )


@pytest.mark.parametrize(
    "kinds",
    [*MASKS, "ce only, mlm only", "neither, both, ce only", "mlm only, both, neither, ce only"],
)
@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_separate_masks_and_the_borders_of_chunks(kinds, chunk):
    check(fused_form, case_of(kinds, chunk=chunk))


def test_gradients_are_finite_differences():
    student, *rest = case_of("mlm only, both, neither, ce only", tokens=5, words=6, chunk=2)
    inputs = [x.clone().requires_grad_() for x in student]
    assert torch.autograd.gradcheck(lambda *inputs: fused_form(inputs, *rest)[0], inputs)


def test_a_matrix_that_is_tied_gets_both_its_gradients():
    states, weight, bias = head(6, 4, 6, 0)
    rest = case_of("both", 6, 6)[1:]

    def tied(function):
        return lambda student, *rest: function(
            [student[0] @ student[1].T[:, :4], *student[1:]], *rest
        )

    both = [
        loss_and_gradients(tied(f), (states, weight, bias), *rest) for f in (fused_form, definition)
    ]
    assert error(*both) < 1e-10


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.made |= {x.shape for x in tree_flatten(result)[0] if isinstance(x, torch.Tensor)}
        return result


def test_it_can_be_called_backward_twice_and_computes_no_gradient_that_nobody_wants():
    student, *rest = case_of("both, ce only")
    with torch.no_grad():
        loss, *_ = fused_form(student, *rest)
    inputs = [x.requires_grad_() for x in student]
    again, *parts = fused_form(inputs, *rest)
    assert (
        loss == again.detach()
        and not loss.requires_grad
        and not any(p.requires_grad for p in parts)
    )
    first, second = (torch.autograd.grad(again, inputs, retain_graph=True) for _ in range(2))
    assert error(first, second) == 0
    with torch.no_grad(), Shapes() as seen:
        fused_form(inputs, *rest)
    assert inputs[1].shape not in seen.made  # of the matrix's gradient
    with Shapes() as seen:
        fused_form(inputs, *rest)
    assert inputs[1].shape in seen.made


@pytest.mark.parametrize("ce_weight, mlm_weight", [(0.02, 0.01), (0.02, 0.0), (0.0, 0.01)])
def test_bfloat16_is_as_near_to_the_truth_as_the_definition_in_bfloat16(ce_weight, mlm_weight):
    """Oracle: the definition in float64. The fused form adds up over 10 chunks."""
    tokens, words = 150, 500
    labels = torch.where(torch.arange(tokens) % 3 == 0, torch.arange(tokens), -100)
    ce_mask = torch.arange(tokens) % 4 != 1
    exact = (
        head(tokens, 64, words, 1, 0.3),
        head(tokens, 32, words, 2, 0.3),
        labels,
        ce_mask,
        2.0,
        ce_weight,
        mlm_weight,
        15,
    )
    truth, single = loss_and_gradients(definition, *exact), to(torch.float32, exact)

    def distances(function):
        def low(*case):
            with torch.autocast("cpu", torch.bfloat16):
                return function(*case)

        found = loss_and_gradients(low, *single)
        assert all(x.dtype == torch.float32 for x in found)
        return [
            float((a.double() - b).norm() / b.norm().clamp_min(1e-30))
            for a, b in zip(found, truth, strict=True)
        ]

    for mine, theirs in zip(distances(fused_form)[3:], distances(definition)[3:], strict=True):
        assert 0 < mine < 2 * theirs < 0.05
    assert max(distances(fused_form)[:3]) < 1e-2


# --------------------------------------------------------------------------- bugs put in on purpose
def _temperature_not_squared(monkeypatch, soft=fused._soft):
    monkeypatch.setattr(fused, "_soft", lambda z, t, T: [x / T for x in soft(z, t, T)])


def _mean_of_each_chunk(monkeypatch, soft=fused._soft):
    monkeypatch.setattr(
        fused, "_soft", lambda z, t, T: [x / n for n in [len(z)] for x in soft(z, t, T)]
    )


def _a_soft_target_left_out(monkeypatch, number=Projection.__len__):
    monkeypatch.setattr(Projection, "__len__", lambda p: number(p) - 1)


def _a_soft_target_too_many(monkeypatch, number=Projection.__len__):
    monkeypatch.setattr(Projection, "__len__", lambda p: number(p) + 1)


def _label_left_out(monkeypatch, hard=fused._hard):
    monkeypatch.setattr(
        fused, "_hard", lambda z, labels: (hard(z.clone(), labels)[0], z.softmax(-1))
    )


def _teacher_rows_turned(monkeypatch, getitem=Projection.__getitem__):
    monkeypatch.setattr(Projection, "__getitem__", lambda p, rows: getitem(p, rows).flip(0))


def _labels_of_other_tokens(monkeypatch, hard=fused._hard):
    monkeypatch.setattr(fused, "_hard", lambda z, labels: hard(z, labels.flip(0)))


@pytest.mark.parametrize(
    "bug",
    [
        _temperature_not_squared,
        _mean_of_each_chunk,
        _a_soft_target_left_out,
        _a_soft_target_too_many,
        _label_left_out,
        _teacher_rows_turned,
        _labels_of_other_tokens,
    ],
)
def test_a_bug_is_caught(bug, monkeypatch):
    case = case_of("mlm only, both, ce only, ce only")
    check(fused_form, case)
    bug(monkeypatch)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(fused_form, case)


# ------------------------------------------------------------------------------------------- memory
def peak_bytes(function) -> int:
    """Most bytes that torch's allocator has given out at once while the function ran: each of
    its records counted, in order."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    records = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(
        itertools.accumulate(e.nbytes() for e in sorted(records, key=lambda e: e.start_ns()))
    )


def test_the_allocators_records_are_counted():
    def three_then_one():
        x = torch.ones(3_000_000)
        del x
        return torch.ones(1_000_000)

    assert peak_bytes(three_then_one) == pytest.approx(12_000_000, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_is_a_tenth_of_the_definitions_at_the_papers_size(precision):
    """32 x 512 tokens, 30,522 words, soft targets everywhere and labels on 15%.

    Both peaks are straight lines in the number of tokens (of the fused form once there are chunks
    of all kinds), so that they are known where the definition would need 14 GB.
    """
    width, words = 64, 30_522

    def peak(function, tokens):
        student, teacher = (
            [x.float() for x in head(tokens, width, words, seed, 0.05)] for seed in (1, 2)
        )
        labels = torch.where(torch.arange(tokens) % 7 == 0, torch.arange(tokens), -100)
        case = (student, teacher, labels, labels > -200, 2.0, 5 / tokens, 2 / tokens)

        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss, *_ = function([x.requires_grad_() for x in student], *case[1:])
            loss.backward()

        return peak_bytes(step)

    def at_full_size(function, *tokens):
        """On the straight line through the first two peaks; any other has to lie on it."""
        first, second, *others = (peak(function, n) for n in tokens)
        line = lambda n: first + (second - first) / (tokens[1] - tokens[0]) * (n - tokens[0])
        assert others == pytest.approx([line(n) for n in tokens[2:]], rel=0.02)
        return line(32 * 512)

    assert at_full_size(fused_form, 300, 450) < at_full_size(definition, 30, 60, 90) / 10


# ------------------------------------------------------------------------------ in models and steps
TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.mark.parametrize("kind", ["student", "bert", "roberta"])
def test_a_models_projection_gives_its_logits(kind):
    if kind == "student":
        model = Student(
            DistilBertConfig(vocab_size=40, dim=16, hidden_dim=32, n_layers=1, n_heads=2)
        )
    else:
        model = MaskedLM(
            BertForMaskedLM(BertConfig(**TINY))
            if kind == "bert"
            else RobertaForMaskedLM(RobertaConfig(**TINY))
        )
    randomize(model).eval()
    ids = torch.randint(5, 40, (3, 10), generator=torch.Generator().manual_seed(0))
    positions = ids % 3 == 0
    expected = model(ids, None, positions).logits
    reference = expected if kind == "student" else model.model(ids).logits[positions]
    torch.testing.assert_close(model(ids, None, positions, project=F.linear).logits, reference)
    torch.testing.assert_close(expected, reference)
    rows = torch.tensor([4, 0, 2])
    torch.testing.assert_close(
        model(ids, None, positions, project=Projection).logits[rows], reference[rows]
    )
    places = positions.flatten().nonzero().flatten()[rows]
    torch.testing.assert_close(model(ids, None, places).logits, reference[rows])


def tiny_step(soft_targets, loss=None, teacher=None, **options) -> DistillationStep:
    config = {
        "vocab_size": 40,
        "dim": 16,
        "hidden_dim": 32,
        "n_heads": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    student, other = (
        randomize(Student(DistilBertConfig(**config, n_layers=n)), n).double() for n in (1, 2)
    )
    teacher = other if teacher is None else teacher(other)
    return DistillationStep(student, teacher, loss or TripleLoss(), soft_targets, **options)


def tiny_batch(share=0.25, seed=0, examples=(0, 1, 2, 3)) -> MicroBatch:
    """Four blocks of 12 tokens, the last padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (4, 12), generator=generator)
    counted = torch.arange(12) < torch.tensor([12, 12, 12, 7])[:, None]
    labels = torch.where((torch.rand(4, 12, generator=generator) < 0.3) & counted, ids, -100)
    sampled = sample_tokens((4, 12), share, seed, examples, [0] * 4)
    return MicroBatch(ids, labels, counted, torch.tensor(examples), padded=True, sampled=sampled)


def of_all(step, batch) -> list[torch.Tensor]:
    step.student.zero_grad()
    out = step(batch)
    out.loss.backward()
    return [
        out.loss.detach(),
        out.ce,
        out.mlm,
        out.cos,
        *(p.grad for p in step.student.parameters()),
    ]


class OnlyLogits(torch.nn.Module):
    """A teacher with another interface: called with three arguments, it answers with logits."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def forward(self, input_ids, attention_mask=None, positions=None):
        return self.teacher(input_ids, attention_mask, positions)


@pytest.mark.parametrize("alphas", [(5, 2, 1), (5, 0, 0), (0, 2, 1), (0, 0, 1), (5, 2, 0)])
@pytest.mark.parametrize("soft_targets", ["all", "masked", "sample"])
def test_the_fused_step_is_the_defined_step(soft_targets, alphas):
    """Whatever the losses and their tokens; every parameter gets a gradient, which distributed
    training wants."""
    expected = of_all(tiny_step(soft_targets, TripleLoss(*alphas), fused=False), tiny_batch())
    for teacher in (None, OnlyLogits):
        assert (
            error(
                of_all(tiny_step(soft_targets, TripleLoss(*alphas), teacher), tiny_batch()),
                expected,
            )
            < 1e-10
        )


# ------------------------------------------------------------------------------- a sample of tokens
def test_a_sample_is_a_function_of_seed_epoch_and_example_and_has_one_size():
    first = sample_tokens((3, 20), 0.15, 7, [4, 9, 4], [0, 0, 1])
    assert (
        first.sum(1).tolist() == [3, 3, 3]
        and sample_size(0.001, 20) == 1
        and sample_size(1.0, 20) == 20
    )
    assert torch.equal(
        first[1], sample_tokens((1, 20), 0.15, 7, [9], [0])[0]
    )  # whoever computes it, in whatever batch
    others = [first[0], first[1], first[2], sample_tokens((1, 20), 0.15, 8, [4], [0])[0]]
    assert len({tuple(x.tolist()) for x in others}) == 4


def ce_of(step, batch, sampled=None) -> float:
    batch.sampled = batch.sampled if sampled is None else sampled
    with torch.no_grad():
        return step(batch).ce.item()


def whole_blocks() -> MicroBatch:
    batch = tiny_batch()
    batch.loss_mask[:], batch.padded = True, False
    return batch


def is_unbiased(draws) -> None:
    """`draws`: (B, L) masks.

    The mean of the sampled loss over them is the loss on all tokens, within 4 standard errors.
    """
    batch, step = whole_blocks(), tiny_step("sample", TripleLoss(5, 0, 0))
    truth = ce_of(tiny_step("all", TripleLoss(5, 0, 0)), batch)
    found = torch.tensor([ce_of(step, batch, sampled) for sampled in draws])
    assert found.std() > 0
    assert abs(found.mean() - truth) < 4 * found.std() / len(found) ** 0.5


def test_the_mean_over_a_sample_estimates_that_over_all_tokens_without_bias():
    is_unbiased([sample_tokens((4, 12), 0.25, 0, range(4), [epoch] * 4) for epoch in range(200)])


def test_over_all_samples_that_there_are_it_is_exact():
    """The 66 pairs of 12 places, the same in each block: every token is in 11 of them."""
    batch, step = whole_blocks(), tiny_step("sample", TripleLoss(5, 0, 0))
    pairs = [
        torch.isin(torch.arange(12), torch.tensor(pair)).expand(4, 12)
        for pair in itertools.combinations(range(12), 2)
    ]
    found = sum(ce_of(step, batch, sampled) for sampled in pairs) / len(pairs)
    assert found == pytest.approx(ce_of(tiny_step("all", TripleLoss(5, 0, 0)), batch), rel=1e-12)


def test_a_biased_sample_is_caught():
    """Soft targets on masked tokens do not estimate those on all, for a masked token is harder;
    nor do a block's first tokens."""
    generator = torch.Generator().manual_seed(0)
    late = [
        torch.rand(4, 12, generator=generator).mul(torch.arange(12) + 1).topk(3).indices
        for _ in range(200)
    ]
    with pytest.raises(AssertionError):
        is_unbiased(
            [torch.zeros(4, 12, dtype=torch.bool).scatter(1, places, True) for places in late]
        )


def test_a_second_derivative_is_refused():
    """The kept gradients are constants: without a refusal their own derivative would be lost.

    Of loss ** 2, whose gradient depends on the loss, a second derivative seems to exist.
    """
    student, *rest = case_of("both, ce only")
    inputs = [x.clone().requires_grad_() for x in student]
    loss, *_ = fused_form(inputs, *rest)
    gradients = torch.autograd.grad(loss**2, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradients[0].sum().backward()


@pytest.mark.parametrize("words, chunk", [(2**10, 2**12), (2**22, 1), (2**30, 1)])
def test_a_chunk_is_as_large_as_its_memory_allows(words, chunk, monkeypatch):
    """16 MiB of fp32 logits on a CPU, and one token at least."""
    sizes = []
    monkeypatch.setattr(fused._FusedLosses, "apply", lambda *a: sizes.append(a[-1][3]))
    weight = torch.empty(words, 1, device="meta")
    fused_vocabulary_losses(torch.empty(3, 1), weight, weight[:, 0], None, torch.zeros(3).long())
    assert sizes == [chunk]
