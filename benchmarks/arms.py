"""The ways to do a training step that `step.py` compares, and what they share: models, batches,
optimizers.

    shop = BenchmarkContext("default", "docs:pandas,scikit-learn", 64, 64, torch.device("cpu"))
    step = Step(shop, all_arms("bf16", "fp32")["ours, masked"])
    step.seconds(), step.peak_bytes(), step.parts()

A context holds the models and batches that all arms share.
"""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from distil_lib.common.paths import data_folder
from distil_lib.distillation import DistillationStep
from distil_lib.fused_losses import CHUNK_BYTES, Projection
from distil_lib.initialization import initialize_student
from distil_lib.losses import IGNORED, TripleLoss
from distil_lib.masking import DynamicMasking, MicroBatch, random_stream
from distil_lib.teacher import MaskedLM, load_teacher
from distil_lib.text.batches import StepBatches
from distil_lib.text.blocks import load_blocks
from distil_lib.text.documents import load_documents
from distil_lib.text.packing import tokenize
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.training.compilation import compile_layers, keep_gradients
from distil_lib.training.compiled_losses import compiled_vocabulary_losses
from distil_lib.training.config import PretrainConfig, load_preset
from distil_lib.training.costs import step_cost
from distil_lib.training.optimization import StackedMuon, build_optimizers

# The preset whose settings hold, and the teacher's layers and width where it is made anew.
PRESETS = {"default": "mini", "base": "paper", "small": "mini", "tiny": "mini"}
SHAPES = {"base": (12, 768), "small": (12, 256), "tiny": (2, 32)}
PARTS = (
    "teacher layers",
    "teacher head",
    "student layers",
    "student head, losses",
    "optimizer",
    "rest",
)


@dataclass(frozen=True)
class Arm:
    """A way to do the step.

    teacher: the precision its weights are kept in. optimizer: of `BenchmarkContext.optimizers`.
    compiled: "layers", "losses", or both; "graphs": layers that replay CUDA graphs. chunk: bytes of
    logits in the compiled losses.
    """

    soft_targets: str = "all"
    precision: str = "fp32"
    teacher: str = "fp32"
    padded: bool = False
    fused: bool = True
    optimizer: str = "fused AdamW"
    compiled: str = ""
    chunk: int | None = None


def all_arms(precision: str, teacher: str, compiled: bool = False) -> dict[str, Arm]:
    """precision, teacher: what this machine and the default configuration choose for ours."""
    textbook = Arm(padded=True, fused=False, optimizer="plain AdamW")
    arms = {"textbook": textbook, "textbook, packed": replace(textbook, padded=False)}
    ours = {
        soft: Arm(soft, precision, teacher if precision == "bf16" else "fp32")
        for soft in ("all", "sample", "masked")
    }
    arms |= {f"ours, {soft}": arm for soft, arm in ours.items()}
    changes = {}
    if compiled:  # first, because where time is short the rest has been measured before
        for part in ("layers", "losses", "layers, losses", "graphs, losses"):
            changes[f"compiled {part}"] = {"compiled": part}
        for size in (32, 512):
            chunk = {"compiled": "losses", "chunk": size * 2**20}
            changes[f"compiled losses, chunks of {size} MiB"] = chunk
    changes |= {
        "padded": {"padded": True},
        "definition": {"fused": False},
        "plain AdamW": {"optimizer": "plain AdamW"},
        "Muon": {"optimizer": "Muon"},
        "Muon, stacks": {"optimizer": "Muon, stacks"},
    }
    if precision == "bf16":
        other = "bf16" if teacher == "fp32" else "fp32"
        changes |= {
            "fp32": {"precision": "fp32", "teacher": "fp32"},
            f"teacher kept in {other}": {"teacher": other},
        }
    return arms | {
        f"{soft}: {name}": replace(ours[soft], **change)
        for soft in ("all", "masked")
        for name, change in changes.items()
    }


# ----------------------------------------------------------------------------------------- material
def make_teacher(size: str) -> MaskedLM:
    if size == "default":
        return load_teacher(data_folder("teacher"))
    layers, width = SHAPES[size]
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    if size != "base":
        heads = {"num_attention_heads": max(width // 64, 1)}
        shape |= heads | {"vocab_size": len(load_tokenizer(data_folder("tokenizer")))}
    # The rest of BERT-base is that class's default; speed does not ask for sense.
    return MaskedLM(BertForMaskedLM(BertConfig(**shape))).eval()


def piece_lengths(corpus: str, tokenizer, sequences: int, block: int, seed: int) -> np.ndarray:
    """Lengths of `sequences` paragraphs of the corpus drawn at random, [CLS] and [SEP] included,
    none longer than a block: what a padded batch holds that gives each piece of text a row of its
    own.
    """
    texts = [
        paragraph
        for document in load_documents(corpus)["text"][:400]
        for paragraph in document.split("\n\n")
    ]
    lengths = [len(ids) + 2 for ids in tokenize(texts, tokenizer)]
    return np.minimum(random_stream(seed).choice(lengths, sequences), block)


def cut(batch: MicroBatch, lengths: np.ndarray, pad: int) -> MicroBatch:
    """The same blocks, each ended after its length and padded."""
    counted = torch.arange(batch.input_ids.shape[1]) < torch.from_numpy(lengths)[:, None]
    ids, labels = (
        batch.input_ids.masked_fill(~counted, pad),
        batch.labels.masked_fill(~counted, IGNORED),
    )
    return replace(batch, input_ids=ids, labels=labels, loss_mask=counted, padded=True)


def compiled(model: nn.Module, graphs: bool) -> nn.Module:
    """A second object with the same weights, whose layers are compiled."""
    twin = copy.deepcopy(model, {id(p): p for p in (*model.parameters(), *model.buffers())})
    compile_layers(twin, graphs=graphs)
    return twin


class BenchmarkContext:
    """Models, batches and optimizers that all arms share, so that they fit into memory together."""

    def __init__(
        self,
        size: str,
        corpus: str,
        sequences: int,
        block: int,
        device: torch.device,
        dropout: float = 0.0,
        seed: int = 0,
    ):
        self.block, self.device, self.preset = block, device, PRESETS[size]
        self.config = self.configure("all")
        tokenizer = load_tokenizer(data_folder("tokenizer"))
        masking = DynamicMasking(
            tokenizer,
            self.config.mlm_probability,
            0.0,
            seed,
            sample=self.config.soft_target_fraction,
        )
        self.loader = StepBatches(
            load_blocks(corpus, tokenizer, block).train, masking, sequences, sequences, seed=seed
        )
        (packed,) = self.loader[0]
        lengths = piece_lengths(corpus, tokenizer, sequences, block, seed)
        self.batches = {False: packed, True: cut(packed, lengths, tokenizer.pad_token_id)}
        torch.manual_seed(seed)
        teacher = make_teacher(size).requires_grad_(False)
        self.student = initialize_student(teacher, "spread", dropout=dropout).to(device).train()
        self.teachers = {
            "fp32": teacher.to(device),
            "bf16": copy.deepcopy(teacher).to(device, torch.bfloat16),
        }
        # Steps in a row make one sample: a GPU has work queued up, as in training.
        self.steps_in_a_row = 5 if device.type == "cuda" else 1
        (fused,) = build_optimizers(self.student, "adamw", 1e-5)
        settings = {"lr": 1e-5, "betas": (0.9, 0.98), "eps": 1e-6, "foreach": False, "fused": False}
        plain = torch.optim.AdamW(
            [{k: g[k] for k in ("params", "weight_decay")} for g in fused.param_groups], **settings
        )
        rest, muon = build_optimizers(self.student, "muon", 1e-5)
        own = {k: v for k, v in muon.defaults.items() if k != "params"}
        matrices = muon.param_groups[0]["params"]
        self.twins: dict[tuple[int, bool], nn.Module] = {}
        self.compiled_losses = compiled_vocabulary_losses()
        self.optimizers = {"fused AdamW": [fused], "plain AdamW": [plain]} | {
            name: [rest, kind(matrices, **own)]
            for name, kind in {"Muon": torch.optim.Muon, "Muon, stacks": StackedMuon}.items()
        }

    def compiled(self, model: nn.Module, graphs: bool) -> nn.Module:
        key = (id(model), graphs)
        if key not in self.twins:
            self.twins[key] = compiled(model, graphs)
        return self.twins[key]

    def configure(self, soft_targets: str) -> PretrainConfig:
        return load_preset(self.preset, soft_targets=soft_targets, block_size=self.block)

    def flops(self, soft_targets: str) -> dict[str, float]:
        """Of a step's parts, per token."""
        cost = step_cost(
            self.configure(soft_targets), self.student.config, self.teachers["fp32"].config
        )
        teacher, student = (
            cost.teacher_layers + cost.teacher_attention,
            cost.student_layers + cost.student_attention,
        )
        return dict(
            zip(
                PARTS,
                (teacher, cost.teacher_head, student, cost.student_head, 0.0, 0.0),
                strict=True,
            )
        )

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def autocast(self, precision: str):
        return (
            torch.autocast(self.device.type, torch.bfloat16)
            if precision == "bf16"
            else nullcontext()
        )


class Step:
    """An arm, ready to run."""

    def __init__(self, shop: BenchmarkContext, arm: Arm):
        self.shop, self.arm, self.marks = shop, arm, {}
        student, teacher = shop.student, shop.teachers[arm.teacher]
        self.graphs = "graphs" in arm.compiled
        if self.graphs or "layers" in arm.compiled:
            student, teacher = (shop.compiled(m, self.graphs) for m in (student, teacher))
        fused = arm.fused
        if "losses" in arm.compiled:
            fused = shop.compiled_losses
        if arm.chunk:
            number = 2 if arm.precision == "bf16" else 4
            fused = partial(fused, chunk=arm.chunk // (number * student.config.vocab_size))
        self.step = DistillationStep(student, teacher, TripleLoss(), arm.soft_targets, fused)
        batch = shop.batches[arm.padded]
        self.counts = self.step.count_tokens([batch])
        self.batch = batch.pin_memory() if shop.device.type == "cuda" else batch
        self.tokens = self.counts.cos

    def __call__(self, mark=lambda name: None) -> None:
        shop, optimizers = self.shop, self.shop.optimizers[self.arm.optimizer]
        if self.graphs:
            keep_gradients(shop.student)
            torch.compiler.cudagraph_mark_step_begin()
        with shop.autocast(self.arm.precision):
            loss = self.step(self.batch, self.counts).loss
            mark("backward")
            loss.backward()
        mark("optimizer")
        nn.utils.clip_grad_norm_(shop.student.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
        shop.student.zero_grad(set_to_none=not self.graphs)

    def seconds(self) -> float:
        self.shop.student.zero_grad()  # of the arm before, which may keep its gradients
        start = self.shop.now()
        for _ in range(self.shop.steps_in_a_row):
            self()
        return (self.shop.now() - start) / self.shop.steps_in_a_row

    def peak_bytes(self) -> int:
        """The most that tensors take at once during a step, beyond weights and the optimizer's
        state.
        """
        if self.shop.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            self()
        events = [
            (e.start_ns(), e.nbytes())
            for e in profile.profiler.kineto_results.events()
            if e.name() == "[memory]"
        ]
        held = np.cumsum([size for _, size in sorted(events, key=lambda event: event[0])])
        return int(held.max())

    def parts(self) -> dict[str, float]:
        """Seconds of each of `PARTS` in one step, between marks that hooks set.

        The gradient with respect to the encoder's output arrives where the head's backward pass
        ends and that of the layers begins.
        """
        shop, marks = self.shop, {}

        def mark(name: str) -> None:
            marks[name] = shop.now()

        encoders = {
            "student": self.step.student.distilbert,
            "teacher": self.step.teacher.model.base_model,
        }
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name: mark(name))
            for name, module in encoders.items()
        ]
        hooks.append(encoders["teacher"].register_forward_hook(lambda *_: mark("teacher's end")))

        def end_of_student(module, inputs, hidden_states) -> None:
            hidden_states[-1].register_hook(lambda gradient: mark("layers' backward"))
            mark("student's end")

        hooks.append(encoders["student"].register_forward_hook(end_of_student))
        mark("start")
        self(mark)
        mark("end")
        for hook in hooks:
            hook.remove()
        took = {
            "teacher layers": marks["teacher's end"] - marks["teacher"],
            "teacher head": self.teacher_head(),
        }
        took["student layers"] = (
            marks["student's end"]
            - marks["student"]
            + marks["optimizer"]
            - marks["layers' backward"]
        )
        both_heads = marks["layers' backward"] - marks["student's end"]
        took["student head, losses"] = (
            both_heads - took["teacher head"]
        )  # the fused losses ask for the teacher's logits
        took["optimizer"] = marks["end"] - marks["optimizer"]
        took["rest"] = marks["end"] - marks["start"] - sum(took.values())
        return took

    def teacher_head(self) -> float:
        """Seconds of its logits alone, chunk by chunk as the fused losses ask for them."""
        teacher, soft = self.step.teacher, self.step.soft_mask(self.batch)
        batch, soft = self.batch.to(self.shop.device), soft.to(self.shop.device)
        with torch.no_grad(), self.shop.autocast(self.arm.precision):
            hidden = teacher(batch.input_ids, positions=soft & False).last_hidden_state[soft]
            start = self.shop.now()
            logits = teacher.head(hidden, Projection)
            rows = torch.arange(len(hidden), device=self.shop.device)
            for chunk in rows.split(
                max(CHUNK_BYTES[self.shop.device.type] // (4 * teacher.config.vocab_size), 1)
            ):
                logits[chunk]
            return self.shop.now() - start
