"""`--plan` against what it plans: memory as torch's allocator counts it, disk, refusals."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from distil_lib import pretrain
from distil_lib.distillation import DistillationStep
from distil_lib.errors import UserError
from distil_lib.evaluation import masked_lm_sums
from distil_lib.initialization import student_config
from distil_lib.launch import check_settings
from distil_lib.losses import TripleLoss
from distil_lib.masking import MicroBatch
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM, new_teacher
from distil_lib.training.checkpoint import save_checkpoint
from distil_lib.training.config import PretrainConfig
from distil_lib.training.memory import EVALUATED, step_memory
from distil_lib.training.models import new_model, round_linear_maps
from distil_lib.training.optimization import build_optimizers
from distil_lib.training.plan import Plan, plan_run, suggestions

V, L, B = 2000, 64, 16
WITHOUT = {"alpha_ce": 0.0, "alpha_cos": 0.0}


def bert(dropout: float = 0.0) -> BertConfig:
    return BertConfig(
        vocab_size=V,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )


def settings(**changes) -> PretrainConfig:
    kept = {"block_size": L, "batch_size": B, "micro_batch_size": B, "dropout": 0.0}
    kept |= {"precision": "fp32", "teacher": None if "alpha_ce" in changes else "a BERT"}
    return PretrainConfig(**kept | changes)


class Training:
    """What a run trains, after one step."""

    def __init__(self, config: PretrainConfig):
        torch.manual_seed(0)
        self.config, self.teacher = config, None
        self.shape = bert(config.dropout)
        if config.teacher is None:
            model = BertForMaskedLM(self.shape)
            model.set_attn_implementation("eager")  # as `new_model` does for short blocks
            self.model = MaskedLM(model).train()
        else:
            self.shape = student_config(bert(), 2, config.dropout)
            self.model = Student(self.shape).train()
            self.teacher = MaskedLM(BertForMaskedLM(bert())).to(
                getattr(torch, config.teacher_dtype)
            )
            if config.precision == "bf16":  # as `prepare_training` does
                round_linear_maps(self.teacher, torch.bfloat16)
        self.optimizers = build_optimizers(self.model, config.optimizer)
        loss = TripleLoss(config.alpha_ce, config.alpha_mlm, config.alpha_cos)
        self.step = DistillationStep(
            self.model, self.teacher, loss, config.soft_targets, config.fused
        )
        self()

    def batch(self, sequences: int, masked: int) -> MicroBatch:
        ids = torch.randint(5, V, (sequences, L), generator=torch.Generator().manual_seed(0))
        labels = torch.full_like(ids, -100)
        labels[:, 1 : 1 + masked] = 7
        return MicroBatch(ids, labels, ids > 0, torch.arange(sequences))

    def __call__(self) -> None:
        batch = self.batch(self.config.micro_batch_size, masked=round(0.15 * (L - 2)))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            self.step(batch).loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def held(self) -> int:
        """Bytes of what is there between two steps."""
        models = [self.model] + ([self.teacher] if self.teacher else [])
        weights = {p.data_ptr(): p.nbytes for model in models for p in model.parameters()}
        states = [state for o in self.optimizers for state in o.state.values()]
        return sum(weights.values()) + sum(t.nbytes for s in states for t in s.values())

    def peak(self, work) -> int:
        """The most bytes of tensors during `work`, by torch's profiler."""
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            work()
        found = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        changes = [e.nbytes() for e in sorted(found, key=lambda event: event.start_ns())]
        return self.held() + int(np.cumsum(changes).max())

    def planned(self):
        teacher = None if self.teacher is None else self.teacher.config
        return step_memory(self.config, self.shape, teacher)


@pytest.mark.parametrize(
    "changes",
    [
        {"soft_targets": "masked"},
        {"soft_targets": "all", "precision": "bf16"},
        {"soft_targets": "masked", "precision": "bf16", "teacher_dtype": "bfloat16"},
        {"dropout": 0.1, "soft_targets": "masked"},
        {"fused": False},
        {"optimizer": "muon", "soft_targets": "masked", "precision": "bf16"},
        WITHOUT,
    ],
    ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()),
)
def test_the_memory_of_a_step(changes):
    """Within 15% of torch's own count; a part that was forgotten is more."""
    training = Training(settings(**changes))
    memory, measured = training.planned(), training.peak(training)
    assert memory.moments["forward pass"] == pytest.approx(measured, rel=0.15)
    assert memory.model + memory.teacher == pytest.approx(training.held(), rel=0.01)
    parts = (memory.activations, memory.head)
    assert all(abs(measured - memory.moments["forward pass"]) < part for part in parts)


def test_the_memory_of_an_evaluation():
    training = Training(settings(soft_targets="masked"))
    batch = training.batch(EVALUATED, masked=round(0.15 * L))
    work = lambda: masked_lm_sums(training.model, [batch], training.teacher, torch.device("cpu"))
    measured = training.peak(work)
    assert training.planned().moments["evaluation"] == pytest.approx(measured, rel=0.15)


def test_processes_and_micro_batches_hold_gradients_longer():
    shape, teacher = student_config(bert(), 2), bert()
    one = step_memory(settings(), shape, teacher)
    parts = step_memory(settings(batch_size=4 * B), shape, teacher)
    assert parts.moments["forward pass"] - one.moments["forward pass"] == one.gradients
    both = step_memory(settings(batch_size=2 * B), shape, teacher, world=2)
    assert both.peak - one.peak == one.gradients  # the buffers of the exchange


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_disk_of_a_run(optimizer, tmp_path):
    """Two checkpoints and the model that are written, against the plan."""
    config = settings(
        optimizer=optimizer, max_steps=2, save_every=1, save_total_limit=2, save_dtype="bfloat16"
    )
    training = Training(config)
    for step in (1, 2):
        save_checkpoint(tmp_path, step, training.model, training.optimizers, [])
    training.model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert a_plan(config).run_bytes == pytest.approx(written, rel=0.03)


def a_plan(config: PretrainConfig, free_memory: float = 1e12) -> Plan:
    shape = student_config(bert(), 2)
    return Plan(config, shape, bert(), "cpu", 1, "", 10**6, True, 1e11, free_memory)


def test_what_does_not_fit_gets_the_largest_part_that_does():
    config = settings(soft_targets="masked")
    large = replace(config, batch_size=4096, micro_batch_size=3000)
    free = 1.05 * a_plan(large).resident(replace(large, micro_batch_size=512)) / 0.9
    (said,) = suggestions(a_plan(large, free))
    assert said.startswith("--micro_batch_size 512:")
    assert not a_plan(large, free).fits(replace(large, micro_batch_size=1024))
    assert list(suggestions(a_plan(config))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"soft_targets": "all"}, "--soft_targets masked: "),
        ({"fused": False}, "--fused true"),
        ({"init_layers": "none"}, "--init_layers spread"),
        ({"alpha_ce": 0.0, "teacher": "a BERT"}, "--alpha_ce 5"),
        ({"batch_size": 20_000}, "--corpus: the text gives 16129 blocks"),
    ],
)
def test_a_setting_that_costs_is_named(changes, said):
    config = settings(**{"soft_targets": "masked"} | changes)
    assert [line for line in suggestions(a_plan(config)) if line.startswith(said)]


@pytest.fixture
def planned(teacher_folder, tokenizer_folder, corpus, tmp_path):
    """Arguments of a run whose teacher has a configuration and weights that cannot be read."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_bytes((teacher_folder / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"no weights")
    chosen = {"teacher": folder, "tokenizer": tokenizer_folder, "corpus": corpus, "block_size": 16}
    chosen |= {"batch_size": 8, "max_steps": 5, "output": tmp_path / "run", "precision": "fp32"}

    def arguments(**changes) -> list[str]:
        return [word for k, v in (chosen | changes).items() for word in (f"--{k}", str(v))]

    return arguments


def test_a_plan_runs_nothing_and_reads_no_weights(planned, corpus, tmp_path, capsys):
    corpus = shutil.copy(corpus, tmp_path / "never_packed.jsonl")
    pretrain.main(["--plan", *planned(corpus=corpus)])
    said = capsys.readouterr().out
    assert "8 x 16 = 128 tokens" in said and "5 steps" in said
    assert f"about {corpus.stat().st_size // 5:,} WordPieces" in said
    assert not (tmp_path / "run").exists()
    check_settings("distil_lib.pretrain", ["--plan", *planned()])  # the launcher knows the word


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"block_size": 4000}, "knows 32 positions"),
        ({"init_layers": "0,9"}, r"no layers \[0, 9\]"),
        ({"student_layers": 9}, "layers"),
        ({"teacher": "nowhere/at/all"}, "does not exist"),
        ({"corpus": "no/text"}, "no/text does not exist"),
    ],
)
def test_bad_input_is_one_message_and_code_2(planned, changes, problem, capsys):
    with pytest.raises(SystemExit) as stopped:
        pretrain.main(["--plan", *planned(**changes)])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == ""
    assert said.err.count("error: ") == 1
    with pytest.raises(UserError, match=problem):
        plan_run(pretrain.PROGRAM.parse(planned(**changes)))


def test_an_encoder_without_a_head_gets_one(tokenizer, tmp_path):
    """`--init_from` an encoder: its layers are kept, and the head is drawn anew."""
    teacher = new_teacher(tokenizer, 16, 2, 2, max_length=32)
    teacher.model.base_model.save_pretrained(tmp_path)
    config = PretrainConfig(init_from=str(tmp_path), block_size=16, dropout=0.0, **WITHOUT)
    model = new_model(config, tokenizer, None, torch.device("cpu"))
    ids = torch.tensor([[2, 9, 8, 3]])
    found, expected = model.eval()(ids), teacher.eval()(ids)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    assert not torch.allclose(found.logits, expected.logits)
