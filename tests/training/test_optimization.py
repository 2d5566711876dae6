"""What the optimizers touch, and the learning rate over the steps."""

import pytest
import torch
from helpers import randomize
from torch import nn
from torch.optim import AdamW, Muon
from transformers import DistilBertConfig

from distil_lib.errors import UserError
from distil_lib.student import Student
from distil_lib.teacher import new_teacher
from distil_lib.training.optimization import StackedMuon, build_optimizers, linear_schedule


@pytest.fixture(params=["student", "teacher"])
def model(request, tokenizer):
    if request.param == "teacher":
        return randomize(new_teacher(tokenizer, hidden_size=16, layers=2, heads=2, max_length=8))
    return randomize(
        Student(
            DistilBertConfig(
                vocab_size=30,
                dim=16,
                hidden_dim=32,
                n_layers=2,
                n_heads=2,
                max_position_embeddings=8,
            )
        )
    )


def only_matrices_are_decayed(model, optimizers):
    """With gradients of 0 an update is the decay alone: matrices shrink, LayerNorms and biases stay
    to the bit.
    """
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:
        optimizer.step()
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.testing.assert_close(p.detach(), before[name] * (1 - 0.1 * 0.5))
        else:
            assert torch.equal(p, before[name]), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_layernorms_and_biases_are_not_decayed(model, name):
    only_matrices_are_decayed(
        model, build_optimizers(model, name, learning_rate=0.1, weight_decay=0.5)
    )


def test_decay_on_everything_is_told_apart(model):
    """The bug put in on purpose."""
    with pytest.raises(AssertionError):
        only_matrices_are_decayed(model, [AdamW(model.parameters(), lr=0.1, weight_decay=0.5)])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_exactly_one_group(model, name):
    optimizers = build_optimizers(model, name)
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_muon_gets_exactly_the_matrices_inside_the_layers(model):
    """Oracle: six matrices a layer, whatever they are called; not the embeddings, not the head."""
    adamw, muon = build_optimizers(model, "muon")
    assert isinstance(adamw, AdamW) and isinstance(muon, Muon)
    encoder = (
        model.distilbert.transformer["layer"]
        if isinstance(model, Student)
        else model.model.bert.encoder.layer
    )
    expected = {id(m.weight) for m in encoder.modules() if isinstance(m, torch.nn.Linear)}
    assert len(expected) == 12
    assert {id(p) for p in muon.param_groups[0]["params"]} == expected


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_parameters_are_not_touched(model, name):
    """Not even by weight decay, and not even if they have a gradient."""
    frozen = next(
        p for n, p in model.named_parameters() if "position_embeddings" in n
    ).requires_grad_(False)
    before = frozen.clone()
    optimizers = build_optimizers(model, name, learning_rate=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(frozen, before)


def test_settings_reach_the_optimizer(model):
    (adamw,) = build_optimizers(model, "adamw", learning_rate=0.2, betas=(0.8, 0.7), eps=1e-3)
    for group in adamw.param_groups:
        assert (group["lr"], tuple(group["betas"]), group["eps"]) == (0.2, (0.8, 0.7), 1e-3)


def test_an_unknown_optimizer_is_refused(model):
    with pytest.raises(UserError, match="adamw, muon"):
        build_optimizers(model, "sgd")


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("warmup, total", [(4, 20), (1, 10), (10, 10)])
def test_the_learning_rate_rises_to_its_height_and_falls_to_nothing(model, name, warmup, total):
    """Oracle: two straight lines."""
    optimizers = build_optimizers(model, name, learning_rate=0.3)
    schedules = [linear_schedule(o, warmup, total) for o in optimizers]
    for step in range(total + 1):
        height = step / warmup if step < warmup else (total - step) / max(total - warmup, 1)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * height)
            optimizer.step()
            schedule.step()


def trained(optimizer, shapes, steps=3) -> list[torch.Tensor]:
    """Matrices after some steps on gradients that are no one's; the third has none."""
    generator = torch.Generator().manual_seed(0)
    matrices = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    optimizer = optimizer(matrices, lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for _ in range(steps):
        for number, p in enumerate(matrices):
            gradient = torch.randn(p.shape, generator=generator)
            p.grad = None if number == 2 else gradient
        optimizer.step()
    states = [optimizer.state[p].get("momentum_buffer", torch.zeros(())) for p in matrices]
    return [p.detach() for p in matrices] + states


SHAPES = [(16, 16), (16, 64), (16, 16), (64, 16), (16, 16), (64, 16)]


def test_stacked_muon_is_pytorchs_muon():
    """To the bit, momentum included: the same state can go on under either."""
    pairs = zip(trained(StackedMuon, SHAPES), trained(Muon, SHAPES), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


class _NormOfTheStack(StackedMuon):
    """The bug put in on purpose: one norm for all matrices of a stack."""

    def _update(self, group, shape, parameters):
        norm = torch.Tensor.norm
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "norm", lambda x, **_: norm(x))
            super()._update(group, shape, parameters)


def test_matrices_that_touch_each_other_are_told_apart():
    pairs = list(zip(trained(_NormOfTheStack, SHAPES), trained(Muon, SHAPES), strict=True))
    assert not all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_stacks_take_few_products():
    """Oracle: 15 products a stack of equal shape, however many matrices it holds."""

    def products(optimizer):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            trained(optimizer, SHAPES * 4, steps=1)
        names = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
        return sum(e.count for e in profile.key_averages() if e.key in names)

    assert products(StackedMuon) == 15 * 3
    assert products(Muon) == 15 * 23
