"""The configuration of a pretraining run: a dataclass, presets in YAML, and a command line.

    config = parse_arguments(["--preset", "mini", "--learning_rate", "1e-3"])
    config = load_preset("mini", max_steps=100)

Unknown settings and bad values are refused with a `UserError`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from distil_lib.common import cli
from distil_lib.common.cli import (
    Fraction,
    Layers,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Precision,
    Program,
    Seed,
    Settings,
    Temperature,
    Threads,
    Width,
    option,
)
from distil_lib.errors import UserError
from distil_lib.training.time_limit import parse_duration

PRESETS = Path(__file__).parent / "presets"
Dtype = Literal["float32", "bfloat16"]
Epochs = Annotated[float, Field(ge=0, le=1e6)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(ge=0, le=1)]  # more, and no weight would move


@dataclass
class PretrainConfig(Settings):
    """Every setting of a run.

    With a teacher a student is distilled from it; without one a BERT is pretrained: a new teacher.
    """

    # Where to
    output: str = option(
        "runs/pretrain",
        "run folder to write: config.yaml, metrics.jsonl, checkpoints/, model/, curves.png",
    )
    resume: bool = option(False, "resume from the newest complete checkpoint of the output folder")
    overwrite: bool = option(False, "delete the run that the output folder holds")
    # Text
    corpus: str = option(
        "docs",
        '"docs" (installed documentation), a file or folder, "hub:OWNER/NAME[:CONFIG[:SPLIT]]", '
        'or a mixture: "hub:OWNER/NAME + docs", "0.6 hub:OWNER/NAME + 0.4 docs"',
    )
    streaming: bool | None = option(
        None, "read a Hub corpus while training; by default when it does not fit on the disk"
    )
    tokenizer: str = option(
        "data/tokenizer", "folder or Hub name of the tokenizer, which must be the teacher's own"
    )
    block_size: Width = option(64, "tokens in a sequence")
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] = option(
        0.15, "fraction of the words that are masked"
    )
    mask_smoothing: Annotated[float, Field(ge=0, le=10)] = option(
        0.7, "rare words are masked more often: chance ~ count ** -smoothing; 0 for all alike"
    )
    # Models
    teacher: str | None = option(
        None, "folder or Hub name of the teacher; none to pretrain a BERT from nothing"
    )
    teacher_dtype: Dtype = option(
        "float32", "precision the teacher is kept in: float32 or bfloat16"
    )
    init_from: str | None = option(
        None, "folder or Hub name of a BERT to pretrain further, if there is no teacher"
    )
    student_layers: Layers | None = option(
        None, "layers of the student; half of the teacher's by default"
    )
    init_layers: str = option(
        "spread",
        "teacher layers to start from: spread, alternate, first, last, random, none, "
        'or a list "0,2,4"',
    )
    copy_head: bool = option(True, "start the MLM head as the teacher's")
    freeze_positions: bool = option(False, "do not train the position embeddings")
    hidden_size: Width = option(256, "width of a BERT that is pretrained from nothing")
    hidden_layers: Layers = option(6, "layers of such a BERT")
    heads: Layers = option(4, "attention heads of such a BERT")
    dropout: Fraction = option(0.1, "dropout of the model that is trained")
    # Losses
    alpha_ce: NonNegativeFloat = option(5.0, "weight of L_ce, the soft targets")
    alpha_mlm: NonNegativeFloat = option(2.0, "weight of L_mlm, the masked words")
    alpha_cos: NonNegativeFloat = option(1.0, "weight of L_cos, the hidden states")
    temperature: Temperature = option(2.0, "temperature of the soft targets")
    soft_targets: Literal["all", "masked", "sample"] = option(
        "all", "tokens with soft targets: all, masked, or a random sample"
    )
    soft_target_fraction: Annotated[float, Field(gt=0, le=1)] = option(
        0.15, "fraction of the tokens in that sample"
    )
    fused: bool = option(
        True, "losses over the vocabulary a chunk of tokens at a time, or else by their definition"
    )
    # Optimization
    batch_size: PositiveInt = option(
        32, "sequences per optimizer step, over all processes and micro-batches together"
    )
    micro_batch_size: PositiveInt = option(
        32, "most sequences one process computes at once; what exceeds it is accumulated"
    )
    max_steps: NonNegativeInt = option(0, "optimizer steps; 0 to count epochs instead")
    epochs: Epochs = option(3.0, "passes over the corpus, if max_steps is 0")
    time_limit: str | None = option(
        None, "end within this time (90s, 8m, 1h30m): the learning rate then falls with the time"
    )
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "adamw, or muon (for the matrices inside the layers, adamw for the rest)"
    )
    learning_rate: PositiveFloat = option(5e-4, "at its highest, after the warm-up")
    warmup_ratio: Fraction = option(
        0.05, "fraction of the steps in which the learning rate rises; then it falls linearly to 0"
    )
    weight_decay: NonNegativeFloat = option(0.01, "of matrices; LayerNorms and biases have none")
    adam_beta1: Beta = option(0.9, "decay of Adam's mean")
    adam_beta2: Beta = option(0.98, "decay of Adam's square mean")
    adam_eps: Epsilon = option(1e-6, "Adam's epsilon")
    max_grad_norm: PositiveFloat = option(5.0, "gradients are clipped to this norm")
    seed: Seed = option(0, "of weights, order, masks and dropout")
    precision: Precision = option(
        "auto", "fp32, bf16 (autocast), or auto: whichever is quicker on this machine, measured"
    )
    compile: Literal["auto", "on", "off", "graphs"] = option(
        "auto",
        "torch.compile layers and losses: on, off, auto: on a GPU whose compiler works, or graphs: "
        "on, with the layers' launches recorded in CUDA graphs",
    )
    # While it runs
    log_every: PositiveInt = option(10, "steps between two lines of metrics.jsonl")
    eval_every: PositiveInt = option(500, "steps between two evaluations on held-out text")
    eval_blocks: PositiveInt = option(1000, "held-out sequences that are evaluated")
    save_every: PositiveInt = option(500, "steps between two checkpoints")
    save_total_limit: NonNegativeInt = option(2, "checkpoints to keep; 0 for all")
    save_dtype: Dtype = option("float32", "precision of the weights in model/: float32 or bfloat16")
    threads: Threads = option(
        0, "CPU threads of each process; 0 to share this machine's cores among its processes"
    )
    dataloader_num_workers: Annotated[int, Field(ge=0, le=256)] = option(
        0, "processes that prepare batches"
    )
    log_with: str | None = option(
        None, "also log to tensorboard, wandb, ... (whatever Accelerate knows and is installed)"
    )

    def check(self) -> None:
        """See `Settings.check`."""
        self.init_layers = ",".join(part.strip() for part in self.init_layers.split(","))
        if not (self.alpha_ce or self.alpha_mlm or self.alpha_cos):
            names = ("alpha_ce", "alpha_mlm", "alpha_cos")
            raise UserError("All three alphas are 0.", "One of them must be positive.", names)
        if self.teacher is None and self.freeze_positions:
            raise UserError(
                "freeze_positions is for students.",
                "A BERT that is pretrained needs to learn its positions: leave it out.",
                setting="freeze_positions",
            )
        if self.teacher is not None and self.init_from is not None:
            raise UserError(
                "Both teacher and init_from are given.",
                "A student starts from its teacher: drop init_from.",
                setting="init_from",
            )
        start, choice = self.teacher or self.init_from, self.layer_choice()
        for name in ("hidden_size", "hidden_layers", "heads") if start else ():
            if getattr(self, name) != FIELDS[name].default:
                raise UserError(
                    f"{name} is for a BERT that is pretrained from nothing; {start} has its own.",
                    "Leave it out; student_layers says how many layers a student has.",
                    setting=name,
                )
        if isinstance(choice, list) and self.student_layers not in (None, len(choice)):
            raise UserError(
                f"init_layers names {len(choice)} layer(s), student_layers is "
                f"{self.student_layers}.",
                "Leave student_layers out: a student has as many layers as are named.",
                setting=("init_layers", "student_layers"),
            )
        if not (self.max_steps or self.epochs):
            raise UserError(
                "Neither max_steps nor epochs is positive.",
                "Say how long to train.",
                setting=("max_steps", "epochs"),
            )
        if self.time_limit is not None:
            parse_duration(self.time_limit)

    def layer_choice(self) -> str | list[int] | None:
        """`init_layers` as `initialize_student` takes it; None for a random start."""
        if self.init_layers == "none":
            return None
        parts = self.init_layers.split(",")
        return (
            [int(p) for p in parts]
            if all(p.isascii() and p.strip().isdecimal() for p in parts)
            else self.init_layers
        )

    def save(self, path: Path) -> None:
        """Write the settings as a YAML file, which is a preset too."""
        text = yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


FIELDS = {f.name: f for f in dataclasses.fields(PretrainConfig)}
# Settings that may differ when a run goes on: they change nothing of what is computed.
RESUMABLE_OVERRIDES = frozenset(
    "output resume overwrite save_total_limit log_every save_every threads dataloader_num_workers "
    "log_with micro_batch_size time_limit compile".split()
)
PLAN = "plan"  # a word of the command line that is no setting of a run


PROGRAM = Program(
    PretrainConfig,
    "accelerate launch distil_lib/pretrain.py",
    "Pretrain a teacher, or distil a student from one (Sanh et al. 2019).",
    codes="130 or 143 stopped by Ctrl-C or SIGTERM and saved; `python -m distil_lib.launch` in "
    "place of `accelerate launch` hands them on, where that says 1 and prints a traceback",
    presets=PRESETS,
    flags={
        PLAN: "print the parameters, memory, tokens, FLOPs, hours and disk of the run, and what to "
        "change; nothing runs"
    },
)
parse_arguments = PROGRAM.parse
preset_names = PROGRAM.preset_names
read_settings = PROGRAM.preset


def load_preset(preset: str | Path, **overrides: Any) -> PretrainConfig:
    """A preset's configuration, with some fields changed. Raises `UserError`."""
    for name in overrides:
        if name not in FIELDS:
            raise cli.unknown_setting(name, "The call", FIELDS)
    return PretrainConfig(**read_settings(preset) | overrides)
