"""Weights are rounded to bf16 once a step, and the teacher's linear maps once a run: the same bits.

Oracle: PyTorch's autocast, which rounds at every use.
"""

import contextlib
import copy
from functools import partial

import pytest
import torch
from helpers import newest_weights, randomize
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from distil_lib.teacher import MaskedLM
from distil_lib.training.config import PretrainConfig, parse_arguments
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.memory import teacher_bytes
from distil_lib.training.models import round_linear_maps

BERT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_heads": 2, "n_layers": 2}
FAMILIES = {
    "bert": lambda: BertForMaskedLM(BertConfig(**BERT, intermediate_size=32)),
    "untied": lambda: BertForMaskedLM(BertConfig(**BERT, tie_word_embeddings=False)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**BERT, intermediate_size=32)),
    "distilbert": lambda: DistilBertForMaskedLM(DistilBertConfig(**SMALL)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_of_rounded_maps_answers_with_the_same_bits(family):
    teacher = randomize(MaskedLM(FAMILIES[family]())).eval().requires_grad_(False)
    rounded = copy.deepcopy(teacher)
    # Two layers of six maps, the head's own, and the output.
    assert round_linear_maps(rounded, torch.bfloat16) == 2 * 6 + 2
    sizes = {p.data_ptr(): p.nbytes for p in rounded.parameters()}
    plan = PretrainConfig(teacher="a teacher", precision="bf16")
    assert teacher_bytes(plan, rounded.config) == sum(sizes.values())
    ids = torch.randint(5, 40, (3, 10), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected, found = teacher(ids), rounded(ids)
    assert torch.equal(expected.logits, found.logits)
    assert torch.equal(expected.last_hidden_state, found.last_hidden_state)


class Casts(TorchDispatchMode):
    """How often each of some tensors is copied in another precision."""

    def __init__(self, tensors):
        super().__init__()
        self.counts = {tensor.data_ptr(): 0 for tensor in tensors}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.counts:
            self.counts[args[0].data_ptr()] += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def forgetting(autocast):
    """Autocast that rounds anew after each block."""
    with autocast():
        yield
    torch.clear_autocast_cache()


@pytest.mark.usefixtures("fresh_accelerator")
def test_a_weight_is_rounded_once_for_all_micro_batches_of_a_step(small_run, tmp_path, monkeypatch):
    """Oracle: the same run whose micro-batches each round for themselves."""
    from accelerate.state import AcceleratorState

    counted, finished = {}, {}
    for way in ("once", "each"):
        arguments = small_run(tmp_path / way, precision="bf16", micro_batch_size=2, max_steps=3)
        run = PretrainingRun(parse_arguments(arguments))
        if way == "each":
            alone = partial(forgetting, run.accelerator.autocast)
            monkeypatch.setattr(run.accelerator, "autocast", alone)
        maps = [m for m in run.model.distilbert.transformer.modules() if isinstance(m, nn.Linear)]
        casts = Casts([m.weight for m in maps])
        kept = Casts([m.weight for m in run.teacher.modules() if isinstance(m, nn.Linear)])
        with casts, kept:
            run.train()
        counted[way], finished[way] = set(casts.counts.values()), newest_weights(tmp_path / way)
        assert len(casts.counts) == 2 * 6 and len(kept.counts) == 4 * 6 + 2
        assert set(kept.counts.values()) == {0}  # not even the output's matrix
        AcceleratorState._reset_state(True)
    evaluations = counted["once"].copy().pop() - 3
    assert counted == {"once": {3 + evaluations}, "each": {3 * 4 + evaluations}}
    assert 0 < evaluations < 3
    for name, tensor in finished["each"].items():
        assert torch.equal(finished["once"][name], tensor), name
