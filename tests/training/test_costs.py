"""The arithmetic of a step against torch's own counter, and a run's plan against the program."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, Features, Sequence, Value
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM, BertConfig, DistilBertConfig, RobertaConfig

from distil_lib.distillation import DistillationStep
from distil_lib.initialization import student_config
from distil_lib.losses import TripleLoss
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training.config import PretrainConfig, load_preset
from distil_lib.training.costs import (
    device_hours,
    forward_cost,
    head_share,
    parameters,
    resident_bytes,
    run_cost,
    step_cost,
)
from distil_lib.training.setup import run_length

B, L = 3, 22  # 15% of the 20 words of such a block are 3, a whole number
TEACHER = BertConfig(
    vocab_size=37,
    hidden_size=12,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=24,
)
STUDENT = student_config(TEACHER, 2, dropout=0.0)
BASE = BertConfig()  # BERT-base is the default of `transformers`


def counted(function, *arguments) -> int:
    """What torch counts while it computes; attention is spelled out, since the counter does not
    know the CPU's fused kernel.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops()


@pytest.fixture
def batch():
    ids = torch.randint(5, 37, (B, L), generator=torch.Generator().manual_seed(0))
    labels = torch.full((B, L), -100)
    labels[:, [2, 9, 17]] = ids[:, [2, 9, 17]]
    return MicroBatch(ids, labels, torch.ones(B, L, dtype=torch.bool), torch.arange(B))


@pytest.fixture
def models():
    return Student(STUDENT), MaskedLM(AutoModelForMaskedLM.from_config(TEACHER))


def test_a_forward_pass_part_by_part(batch, models):
    for model in models:
        cost = forward_cost(model.config, L)
        encoder = cost.layers + cost.attention
        assert counted(model.head, torch.randn(B, L, 12)) == B * L * cost.head
        assert counted(model, batch.input_ids) == B * L * (encoder + cost.head)
        few = forward_cost(model.config, L, head_share=3 / L)
        at_labels = counted(model, batch.input_ids, None, batch.labels != -100)
        assert at_labels == B * (L * encoder + 3 * cost.head)
        assert few.head * L == pytest.approx(3 * cost.head)
    # The scores are the part that grows with the square of a block's length; nothing else does.
    assert (
        forward_cost(TEACHER, 2 * L).attention
        == 2 * forward_cost(TEACHER, L).attention
        == 2 * 3 * 4 * L * 12
    )


@pytest.mark.parametrize("soft_targets", ["all", "masked"])
@pytest.mark.parametrize("alphas", [(5, 2, 1), (0, 2, 1), (0, 1, 0)])
def test_a_training_step(alphas, soft_targets, batch, models):
    """Forward and backward of the library's own step, whichever losses it computes."""
    student, teacher = models
    config = PretrainConfig(
        block_size=L,
        soft_targets=soft_targets,
        **dict(zip(("alpha_ce", "alpha_mlm", "alpha_cos"), map(float, alphas), strict=True)),
    )
    step = DistillationStep(student, teacher, TripleLoss(*alphas), soft_targets)
    cost = step_cost(config, STUDENT, TEACHER)
    assert counted(lambda: step(batch).loss.backward()) == pytest.approx(
        B * L * cost.total, rel=1e-12
    )
    assert bool(cost.teacher) == step.needs_teacher


def test_a_training_step_with_a_sample(batch, models):
    """Soft targets on 5 tokens of each block.

    The shares are expected ones: moved over all 22 places, the sample meets the masked words as
    often as it would by chance.
    """
    config = PretrainConfig(block_size=L, soft_targets="sample", soft_target_fraction=0.23)
    step, cost, total = (
        DistillationStep(*models, TripleLoss(), "sample"),
        step_cost(config, STUDENT, TEACHER),
        0,
    )
    for shift in range(L):
        batch.sampled = (torch.arange(L).roll(shift) < 5).expand(B, L)
        total += counted(lambda: step(batch).loss.backward())
    assert total / L == pytest.approx(B * L * cost.total, rel=1e-12)


def test_without_soft_targets_the_teachers_head_does_nothing():
    assert step_cost(PretrainConfig(alpha_ce=0.0), STUDENT, TEACHER).teacher_head == 0
    assert head_share(PretrainConfig(alpha_ce=0.0, alpha_mlm=0.0)) == 0


def test_the_step_of_bert_base():
    """By hand, at length 128: a teacher's layer 2 (4 H^2 + 8 H^2) + 4 L H, a head 2 (H^2 + H V);
    three times for what is trained.
    """
    layer, head = 2 * 12 * 768**2 + 4 * 128 * 768, 2 * (768**2 + 768 * 30_522)
    cost = step_cost(PretrainConfig(block_size=128), student_config(BASE, 6), BASE)
    assert cost.total == 12 * layer + head + 3 * (6 * layer + head)
    assert (
        round(cost.total / 1e6) == 629
        and round(cost.heads / cost.total, 2) == 0.31
        and round(cost.teacher / cost.total, 2) == 0.35
    )
    assert head_share(PretrainConfig(block_size=128, soft_targets="masked")) == pytest.approx(
        0.15 * 126 / 128
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig, DistilBertConfig])
def test_parameters(kind, tied):
    config = kind(vocab_size=211, max_position_embeddings=33, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    assert parameters(config) == sum(p.numel() for p in model.parameters())


def test_parameters_of_the_published_models():
    assert (parameters(BASE), parameters(DistilBertConfig())) == (109_514_298, 66_985_530)


@pytest.mark.parametrize("settings", [{"epochs": 2.3}, {"max_steps": 7}, {"epochs": 1e-9}])
def test_a_plan_has_the_programs_steps(settings):
    """`corpus_tokens` that do not fill a block are dropped, as packing drops them."""
    config = PretrainConfig(batch_size=32, block_size=L, **settings)
    cost = run_cost(config, STUDENT, TEACHER, corpus_tokens=1001 * (L - 2) + 5)
    blocks = SimpleNamespace(train=range(1001), streaming=False)
    steps, sequences = run_length(config, blocks)
    assert cost.steps == steps
    assert cost.tokens == L * (sequences or steps * 32)
    assert cost.flops == cost.tokens * step_cost(config, STUDENT, TEACHER).total


def test_the_disk_of_tokenized_text(tmp_path):
    features = Features({"input_ids": Sequence(Value("int32"), length=L)})
    Dataset.from_dict({"input_ids": [[1] * L] * 20_000}, features=features).save_to_disk(tmp_path)
    found = sum(f.stat().st_size for f in tmp_path.glob("*.arrow"))
    planned = run_cost(
        load_preset("demo", block_size=L), STUDENT, TEACHER, 20_000 * (L - 2)
    ).corpus_bytes
    assert planned == pytest.approx(found, rel=0.02)


def test_hours():
    assert device_hours(3600 * 8e12, peak=4e12) == 2
    assert device_hours(3600 * 8e12, peak=4e12, utilization=0.25) == 8


def test_resident_bytes_are_those_of_a_model_in_training():
    model = Student(STUDENT)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    weights = list(model.parameters())
    held = [*weights, *(p.grad for p in weights), *moments]
    assert resident_bytes(STUDENT) == sum(tensor.nbytes for tensor in held)
    teacher = resident_bytes(STUDENT, TEACHER, teacher_bytes=2) - resident_bytes(STUDENT)
    assert teacher == 2 * parameters(TEACHER)
