"""Short distillations: trained as the definition says, recorded once, compared wherever a page is
executed.
"""

import math

import pytest
import torch
from torch import nn

from distil_lib.errors import UserError
from distil_lib.initialization import initialize_student
from distil_lib.losses import TripleLoss
from distil_lib.masking import MicroBatch
from distil_lib.pages import short_runs
from distil_lib.pages.short_runs import CachedTeacher, recorded_runs, short_distillation
from distil_lib.teacher import load_teacher
from distil_lib.training.optimization import build_optimizers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(short_runs, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def recorded(folder, monkeypatch):
    """A record of 2 x for x = 1, 2."""
    monkeypatch.setenv("DISTIL_RECORD", "1")
    recorded_runs("double", lambda x: {"value": 2.0 * x}, [(1,), (2,)], live=[])
    monkeypatch.delenv("DISTIL_RECORD")


def test_what_was_recorded_is_read_and_only_the_live_run_is_computed(recorded):
    called = []

    def run(x):
        called.append(x)
        return {"value": 2.0 * x + 0.01}

    found = recorded_runs("double", run, [(1,), (2,)], live=[(2,)])
    assert found == {(1,): {"value": 2.0}, (2,): {"value": 4.0}} and called == [2]


@pytest.mark.parametrize("now", [4.1, math.nan, math.inf])
def test_a_run_that_gives_other_numbers_stops_the_page(recorded, now):
    with pytest.raises(UserError, match=r"\(2,\) gives"):
        recorded_runs("double", lambda x: {"value": now}, [(1,), (2,)], live=[(2,)])


@pytest.mark.parametrize("name, jobs", [("double", [(3,)]), ("unknown", [(1,)])])
def test_a_run_without_a_record_is_named(recorded, name, jobs):
    with pytest.raises(UserError, match="DISTIL_RECORD"):
        recorded_runs(name, lambda x: 0.0, jobs, live=[])


@pytest.fixture
def batches(tokenizer):
    torch.manual_seed(0)
    made = []
    for _ in range(5):
        ids = torch.randint(5, len(tokenizer), (4, 12))
        labels = torch.where(torch.rand(4, 12) < 0.3, ids, -100)
        made.append(
            MicroBatch(ids, labels, torch.ones_like(ids, dtype=torch.bool), torch.arange(4))
        )
    return made


def test_a_cached_teacher_answers_as_the_teacher_and_is_asked_once(teacher_folder, batches):
    teacher = load_teacher(teacher_folder)
    cached, asked = CachedTeacher(teacher), []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    for batch in [*batches, *batches]:
        mask = batch.labels != -100
        expected = teacher.model(batch.input_ids).logits[mask]
        assert torch.allclose(cached(batch.input_ids, None, mask).logits, expected, atol=1e-5)
    assert len(asked) == len(batches)


def test_short_distillation_is_adamw_with_a_linear_schedule(teacher_folder, batches):
    """Oracle: the same steps written out with torch's own optimizer; decay spares LayerNorms and
    biases.
    """
    teacher = load_teacher(teacher_folder)
    loss = TripleLoss(1.0, 0.0, 0.0)
    student = initialize_student(teacher, "first", dropout=0.0)
    losses = short_distillation(
        student, teacher, loss, batches, 1e-2, warmup_steps=2, max_grad_norm=0.1
    )

    by_hand = initialize_student(teacher, "first", dropout=0.0).train()
    parameters = list(by_hand.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
    expected = []
    for n, batch in enumerate(batches):
        mask = batch.labels != -100
        rate = 1e-2 * (n / 2 if n < 2 else (5 - n) / 3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        s = by_hand(batch.input_ids).logits[mask] / 2
        with torch.no_grad():
            t = teacher.model(batch.input_ids).logits[mask] / 2
        value = 4 * (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1).mean()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(value.item())
    assert losses == pytest.approx(expected, rel=1e-4)
    for a, b in zip(student.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_short_distillation_may_keep_its_learning_rate(teacher_folder, batches):
    """Oracle: torch's own optimizer at one rate; the callback counts the steps."""
    teacher = load_teacher(teacher_folder)
    loss, counted = TripleLoss(0.0, 1.0, 0.0), []
    student = initialize_student(teacher, "first", dropout=0.0)
    short_distillation(
        student, teacher, loss, batches, 1e-3, decay=False, after_step=counted.append
    )
    assert counted == [1, 2, 3, 4, 5]

    by_hand = initialize_student(teacher, "first", dropout=0.0).train()
    (optimizer,) = build_optimizers(by_hand, learning_rate=1e-3)
    for batch in batches:
        mask = batch.labels != -100
        logits = by_hand(batch.input_ids).logits[mask]
        nn.functional.cross_entropy(logits, batch.labels[mask]).backward()
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(student.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
