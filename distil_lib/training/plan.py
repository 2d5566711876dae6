"""What a run will need, said before anything runs: `pretrain.py --plan`.

    print(plan_run(load_preset("mini")))

Nothing is trained and no text or weights are read. Of a teacher only config.json is opened (from
the Hub, if it lies there), of the text only the size of its files, or of what is packed already.
"""

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from transformers import PretrainedConfig

from distil_lib.common.hardware import (
    choose_precision,
    describe_machine,
    launch_precision,
    matmul_ceiling,
    on_cpu,
    set_threads,
)
from distil_lib.common.paths import cache_folder
from distil_lib.training.config import PretrainConfig
from distil_lib.training.costs import RunCost, parameters, run_cost, step_cost
from distil_lib.training.memory import StepMemory, optimizer_bytes, step_memory
from distil_lib.training.models import check_positions
from distil_lib.training.plan_inputs import corpus_tokens, planned_models
from distil_lib.training.setup import check_settings
from distil_lib.training.time_limit import parse_duration

# What recorded steps reach of the machine's matrix products, at the least and at the most.
UTILIZATION = {"cpu": (0.2, 0.6), "cuda": (0.18, 0.25)}
RECORDS = {
    "cpu": "data/results/real_teacher beside other work, benchmarks/results/step-base.json alone",
    "cuda": "benchmarks/results/step-base-h200.json; small models reach less",
}
# On a CPU the system sees more of a process than its tensors: the libraries, and what the C library
# keeps of memory that was given back (up to 1.4 times the tensors in the runs that were measured).
PROGRAM_BYTES, KEPT = 600e6, 1.4
UNKNOWN_TEXT = 10**9  # WordPieces, where a text's length is not known
FOUND = "see What we found"  # the page
FREE_SHARE = 0.9  # of the free memory: the rest is for what is not counted


@dataclass(frozen=True)
class Plan:
    """A run and what it needs; `plan_run` puts it into words."""

    config: PretrainConfig
    student: PretrainedConfig
    teacher: PretrainedConfig | None
    device: str
    world: int
    precision_reason: str
    corpus_tokens: int | None
    exact: bool
    ceiling: float
    free_memory: float
    bf16_is_quicker: bool = False

    @property
    def cost(self) -> RunCost:
        """Steps, tokens and FLOPs."""
        tokens = self.corpus_tokens or UNKNOWN_TEXT
        return run_cost(self.config, self.student, self.teacher, tokens)

    def memory(self, config: PretrainConfig) -> StepMemory:
        """Of one process with these settings."""
        return step_memory(config, self.student, self.teacher, self.device, self.world)

    def fits(self, config: PretrainConfig) -> bool:
        """Whether its memory is there."""
        return self.resident(config) <= FREE_SHARE * self.free_memory

    def resident(self, config: PretrainConfig) -> float:
        """What the system sees of a process at the most."""
        tensors = self.memory(config).peak
        return PROGRAM_BYTES + KEPT * tensors if self.device == "cpu" else tensors

    @property
    def speeds(self) -> list[float]:
        """Tokens per second of all processes: the slowest and the fastest to expect."""
        each = self.ceiling * self.world / self.cost.step.total
        return [share * each for share in UTILIZATION[self.device]]

    @property
    def run_bytes(self) -> int:
        """Of the run folder when it is largest: checkpoints, one of them being written, model."""
        weights = 4 * parameters(self.student)
        one = weights + optimizer_bytes(self.config, self.student)
        saves = max(self.cost.steps // self.config.save_every, 1)
        kept = self.config.save_total_limit
        number = min(kept + 1, saves) if kept else saves
        return number * one + (weights if self.config.save_dtype == "float32" else weights // 2)


def plan_run(config: PretrainConfig) -> str:
    """The plan of a run, as a table of two columns, and what the plan would change.

    Raises:
        UserError: something does not fit together, as far as the configurations say.
    """
    device = "cuda" if torch.cuda.is_available() and not on_cpu() else "cpu"
    world = int(os.environ.get("WORLD_SIZE", 1))
    config = replace(config, precision=launch_precision(config.precision))
    if device == "cpu":
        set_threads(config.threads)
    precision, why = choose_precision(torch.device(device))
    quicker, reason = config.precision == "fp32" and precision == "bf16", ""
    if config.precision == "auto":
        config, reason = replace(config, precision=precision), f" ({why})"
    check_settings(config, world)
    student, teacher = planned_models(config)
    check_positions(config.block_size, student)
    tokens, exact = corpus_tokens(config)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    if device == "cuda":
        free = float(torch.cuda.mem_get_info()[0])
    else:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        free = psutil.virtual_memory().available / local
    ceiling = matmul_ceiling(torch.device(device), dtype)
    models = (config, student, teacher)
    plan = Plan(*models, device, world, reason, tokens, exact, ceiling, free, quicker)
    first, *others = list(suggestions(plan)) or ["nothing"]
    lines = [*_lines(plan), ("change", first), *(("", said) for said in others)]
    return "\n".join(f"{name:11} {said}".rstrip() for name, said in lines)


# ---------------------------------------------------------------------------------------- in words
def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    config, cost, memory = plan.config, plan.cost, plan.memory(plan.config)
    kind = f"a BERT from {config.init_from or 'nothing'}, pretrained"
    if plan.teacher is not None:
        kind = f"a student of {config.teacher}"
    shape = f"{plan.student.num_hidden_layers} layers x {plan.student.hidden_size}"
    yield "plan", f"{kind}: {shape}. Nothing is trained."
    said = f"{parameters(plan.student):,}"
    if plan.teacher is not None:
        said = f"teacher {parameters(plan.teacher):,}, student {said}"
    yield "parameters", said
    machine = describe_machine()
    where = machine["gpu"] if plan.device == "cuda" else f"{machine['threads']} thread(s) each"
    chosen = f"{config.precision}{plan.precision_reason}"
    yield "processes", f"{plan.world} on {plan.device}, {where}, {chosen}"
    tokens = config.batch_size * config.block_size
    share = -(-config.batch_size // plan.world)
    parts = -(-share // config.micro_batch_size)
    flops = _flops(tokens * cost.step.total)
    shape = f"{config.batch_size} x {config.block_size} = {tokens:,} tokens"
    yield "step", f"{shape}, {flops}, {parts} micro-batch(es) a process"
    read = f"{cost.tokens / 1e6:,.1f} million tokens"
    yield "run", f"{cost.steps:,} steps, {read}, {_flops(cost.flops)}"
    yield "text", _text(plan)
    sizes = {
        "student and optimizer": memory.model,
        "teacher": memory.teacher,
        "gradients": memory.gradients,
        "kept by layers": memory.activations,
        "head and losses": memory.head,
        "held-out logits": memory.evaluation if memory.largest == "evaluation" else 0,
    }
    split = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in sizes.items() if size)
    most = f"most in the {memory.largest} ({split})"
    yield "memory", f"{memory.peak / 1e9:.2f} GB of tensors a process, {most}"
    more = ""
    if plan.device == "cpu":
        more = f"with its libraries {plan.resident(config) / 1e9:.1f} GB at the most; "
    yield "", f"{more}{plan.free_memory / 1e9:.1f} GB are free for it"
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
        yield "", "FSDP is on: of student, optimizer and gradients a process holds only a part"
    yield "time", _time(plan)
    slow, fast = UTILIZATION[plan.device]
    measured = f"measured now: products at {plan.ceiling * plan.world / 1e9:,.0f} GFLOP/s"
    yield "", f"{measured}; recorded: steps reach {slow:.0%} to {fast:.0%} of that"
    yield "", f"({RECORDS[plan.device]})"
    text = f", {cost.corpus_bytes / 1e9:.2f} GB of packed text" if _packs(plan) else ""
    free = f"{_free_disk(config.output) / 1e9:,.0f} GB are free"
    yield "disk", f"{plan.run_bytes / 1e9:.2f} GB in {config.output}{text}; {free}"


def _text(plan: Plan) -> str:
    config, cost = plan.config, plan.cost
    if plan.corpus_tokens is None:
        assumed = "" if config.max_steps else f": planned for {UNKNOWN_TEXT:,} WordPieces"
        return f"{config.corpus}, of unknown length before it is read{assumed}"
    passes = cost.tokens / config.block_size * (config.block_size - 2) / plan.corpus_tokens
    about = "" if plan.exact else "about "
    how = "packed already" if plan.exact else "by the size of its files"
    return f"{about}{plan.corpus_tokens:,} WordPieces ({how}), read {passes:.1f} times"


def _time(plan: Plan) -> str:
    slow, fast = plan.speeds
    hours = [plan.cost.tokens / speed / 3600 for speed in (fast, slow)]
    said = f"{_hours(hours[0])} to {_hours(hours[1])}, at {fast:,.0f} to {slow:,.0f} tokens/s"
    if plan.config.time_limit is not None:
        limit = parse_duration(plan.config.time_limit) / 3600
        steps = [min(int(plan.cost.steps * limit / h), plan.cost.steps) for h in reversed(hours)]
        said += f"; {plan.config.time_limit} are enough for {steps[0]:,} to {steps[1]:,} steps"
    return said


def suggestions(plan: Plan) -> Iterator[str]:
    """Settings that the plan would change, and why."""
    config, teacher = plan.config, plan.teacher
    if not plan.fits(config):
        yield _smaller(plan)
    if not config.fused:
        saved = plan.memory(config).peak - plan.memory(replace(config, fused=True)).peak
        yield f"--fused true: the same losses with {saved / 1e9:.2f} GB less"
    if teacher is not None and config.alpha_ce and config.soft_targets == "all":
        cheaper = replace(config, soft_targets="masked")
        less = 1 - step_cost(cheaper, plan.student, teacher).total / plan.cost.step.total
        yield f"--soft_targets masked: {less:.0%} less arithmetic, better in equal time ({FOUND})"
    if teacher is not None and config.init_layers == "none":
        yield f"--init_layers spread: a random start costs more than all else ({FOUND})"
    if teacher is not None and not config.alpha_ce:
        yield f"--alpha_ce 5: the teacher's answers are not used ({FOUND})"
    if plan.bf16_is_quicker:
        yield "--precision auto: products in bf16 are quicker on this machine"
    if plan.corpus_tokens is not None:
        blocks = plan.corpus_tokens // (config.block_size - 2)
        if blocks < config.batch_size:
            yield f"--corpus: the text gives {blocks} blocks, less than a batch"
    if plan.run_bytes > _free_disk(config.output):
        yield "--save_total_limit 1, or another --output: the disk is too small for the checkpoints"
    if _packs(plan) and plan.cost.corpus_bytes > _free_disk(cache_folder()):
        yield "--streaming true, or another DISTIL_CACHE: the disk is too small for the packed text"


def _smaller(plan: Plan) -> str:
    """What makes the memory fit, if anything does."""
    config = plan.config
    share = min(config.micro_batch_size, -(-config.batch_size // plan.world))
    size = 1 << max(share - 1, 1).bit_length()  # the powers of two below it
    while size > 1:
        size //= 2
        if plan.fits(replace(config, micro_batch_size=size)):
            return f"--micro_batch_size {size}: the memory is too small; the curve stays the same"
    half = replace(config, micro_batch_size=1, teacher_dtype="bfloat16")
    if plan.teacher is not None and plan.fits(half):
        return "--micro_batch_size 1 --teacher_dtype bfloat16: the memory is too small"
    return "a smaller student, or several GPUs with fsdp.yaml: the memory is too small"


# ----------------------------------------------------------------------------------------- helpers
def _packs(plan: Plan) -> bool:
    return not plan.config.streaming and plan.corpus_tokens is not None and not plan.exact


def _free_disk(path: str | Path) -> int:
    """Bytes that are free where a path will be."""
    there = Path(path).expanduser().resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _flops(number: float) -> str:
    for size, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e6:,.1f} MFLOP"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{max(math.ceil(60 * hours), 1)} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"
