"""No step waits for its device: it runs on tensors that hold no numbers.

Oracle: PyTorch's `meta` device. A tensor there has a shape and no values, so whatever would have to
be read from a GPU before the step can go on (`.item()`, `bool()`, how many places a mask selects)
is an error.
"""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from helpers import randomize
from torch import nn
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig

from distil_lib.distillation import DistillationStep
from distil_lib.losses import TripleLoss, cosine_loss
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training.compiled_losses import compiled_vocabulary_losses
from distil_lib.training.config import PretrainConfig
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.optimization import StackedMuon, build_optimizers, linear_schedule

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
ALPHAS = [(5, 2, 1), (5, 0, 0), (0, 2, 1), (0, 2, 0)]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture(autouse=True)
def meta_knows_no_autocast(monkeypatch):
    """PyTorch refuses the question whether it is on."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


def models(device: str) -> tuple[Student, MaskedLM]:
    sizes = {"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_heads": 2}
    student = randomize(Student(DistilBertConfig(**sizes, n_layers=2, dropout=0.0)))
    teacher = MaskedLM(BertForMaskedLM(BertConfig(**SIZES, num_hidden_layers=2)))
    return student.to(device), randomize(teacher).to(device)


def batch(empty: bool = False) -> MicroBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 40, (3, 10), generator=generator)
    hidden = (torch.rand(3, 10, generator=generator) < 0.3) & (not empty)
    sampled = torch.rand(3, 10, generator=generator) < 0.2
    counted = torch.full_like(hidden, not empty)
    labels = torch.where(hidden, ids, -100)
    return MicroBatch(ids, labels, counted, torch.arange(3), sampled=sampled)


def a_step_without_values(step: DistillationStep, empty: bool = False) -> None:
    """The loop's own step between batches on the CPU and changed weights, on `meta`."""
    *_, muon = build_optimizers(step.student, "muon")  # PyTorch's fused AdamW needs a real device
    muon = StackedMuon(muon.param_groups[0]["params"])
    setup = SimpleNamespace(
        step=step,
        device=torch.device("meta"),
        world=1,
        graphs=False,
        optimizers=[muon],
        schedules=[linear_schedule(muon, 1, 2)],
    )
    run = SimpleNamespace(
        setup=setup, accelerator=Accelerator(cpu=True), model=step.student, config=PretrainConfig()
    )
    gradients = []
    muon.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad for p in step.student.parameters())
    )
    figures = PretrainingRun._optimizer_step(
        run, [batch(), batch(empty)], step.count_tokens([batch()])
    )
    assert figures.is_meta and figures.shape == (5,)  # written down later, all at once
    assert gradients and all(g is not None and g.is_meta for g in gradients)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("alphas", ALPHAS)
@pytest.mark.parametrize("soft_targets", ["all", "masked", "sample"])
def test_a_step_asks_its_device_nothing(soft_targets, alphas, empty):
    step = DistillationStep(*models("meta"), TripleLoss(*alphas), soft_targets)
    a_step_without_values(step, empty)


@pytest.mark.parametrize("soft_targets", ["all", "masked", "sample"])
def test_the_losses_for_a_compiler_ask_nothing_either(soft_targets):
    losses = compiled_vocabulary_losses(lambda function: function)
    a_step_without_values(DistillationStep(*models("meta"), TripleLoss(), soft_targets, losses))


def _mask_on_the_device(monkeypatch):
    told = Student.forward

    def asks(self, ids, mask=None, positions=None, **options):
        where = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
        return told(self, ids, mask, where, **options)

    monkeypatch.setattr(Student, "forward", asks)


def _cosine_by_mask(monkeypatch):
    def asks(student, teacher, reduction):
        everywhere = torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device)
        return cosine_loss(student, teacher, everywhere, reduction)

    monkeypatch.setattr("distil_lib.distillation.cosine_loss", asks)


def _batch_moved_too_early(monkeypatch):
    told = DistillationStep.__call__
    monkeypatch.setattr(
        DistillationStep,
        "__call__",
        lambda self, batch, counts: told(self, batch.to(torch.device("meta")), counts),
    )


def _norm_is_read(monkeypatch):
    clip = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *a, **how: float(clip(*a, **how)))


@pytest.mark.parametrize(
    "bug", [_mask_on_the_device, _cosine_by_mask, _batch_moved_too_early, _norm_is_read]
)
def test_a_step_that_asks_is_caught(bug, monkeypatch):
    bug(monkeypatch)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|data-dependent"):
        a_step_without_values(DistillationStep(*models("meta"), TripleLoss()))
