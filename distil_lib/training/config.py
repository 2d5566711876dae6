"""The configuration of a pretraining run: a dataclass, presets in YAML, and a command line that overrides any field.

config = parse_arguments(["--preset", "mini", "--learning_rate", "1e-3"])
config = load_preset("mini", max_steps=100)
"""

import argparse
import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from distil_lib.common.cli import SettingsParser, option, unknown_setting
from distil_lib.errors import UserError

PRESETS = Path(__file__).parent / "presets"


@dataclass
class PretrainConfig:
    """Every setting of a run. With a teacher a student is distilled from it; without one a BERT is pretrained (a new teacher)."""

    # Where to
    output: str = option(
        "runs/pretrain",
        "run folder to write: config.yaml, metrics.jsonl, checkpoints/, model/, curves.png",
    )
    resume: bool = option(False, "go on from the newest whole checkpoint of the output folder")
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
    block_size: int = option(64, "tokens in a sequence")
    mlm_probability: float = option(0.15, "share of the words that are hidden")
    mask_smoothing: float = option(
        0.7, "rare words are hidden more often: chance ~ count ** -smoothing; 0 for all alike"
    )
    # Models
    teacher: str | None = option(
        None, "folder or Hub name of the teacher; none to pretrain a BERT from nothing"
    )
    teacher_dtype: str = option("float32", "precision the teacher is kept in: float32 or bfloat16")
    init_from: str | None = option(
        None, "folder or Hub name of a BERT that goes on being pretrained, if there is no teacher"
    )
    student_layers: int | None = option(
        None, "layers of the student; half of the teacher's by default"
    )
    init_layers: str = option(
        "spread",
        'teacher layers to start from: spread, alternate, first, last, random, none, or a list "0,2,4"',
    )
    copy_head: bool = option(True, "start the MLM head as the teacher's")
    freeze_positions: bool = option(False, "do not train the position embeddings")
    hidden_size: int = option(256, "width of a BERT that is pretrained from nothing")
    hidden_layers: int = option(6, "layers of such a BERT")
    heads: int = option(4, "attention heads of such a BERT")
    dropout: float = option(0.1, "dropout of the model that is trained")
    # Losses
    alpha_ce: float = option(5.0, "weight of L_ce, the soft targets")
    alpha_mlm: float = option(2.0, "weight of L_mlm, the hidden words")
    alpha_cos: float = option(1.0, "weight of L_cos, the hidden states")
    temperature: float = option(2.0, "temperature of the soft targets")
    soft_targets: str = option("all", "tokens with soft targets: all, masked, or a random sample")
    soft_target_fraction: float = option(0.15, "share of the tokens in that sample")
    fused: bool = option(
        True, "losses over the vocabulary a chunk of tokens at a time, or else by their definition"
    )
    # Optimization
    batch_size: int = option(
        32, "sequences per optimizer step, over all processes and micro-batches together"
    )
    micro_batch_size: int = option(
        32, "most sequences one process computes at once; what exceeds it is accumulated"
    )
    max_steps: int = option(0, "optimizer steps; 0 to count epochs instead")
    epochs: float = option(3.0, "passes over the corpus, if max_steps is 0")
    optimizer: str = option(
        "adamw", "adamw, or muon (for the matrices inside the layers, adamw for the rest)"
    )
    learning_rate: float = option(5e-4, "at its highest, after the warm-up")
    warmup_ratio: float = option(
        0.05, "share of the steps in which the learning rate rises; then it falls linearly to 0"
    )
    weight_decay: float = option(0.01, "of matrices; LayerNorms and biases have none")
    adam_beta1: float = option(0.9, "decay of Adam's mean")
    adam_beta2: float = option(0.98, "decay of Adam's square mean")
    adam_eps: float = option(1e-6, "Adam's epsilon")
    max_grad_norm: float = option(5.0, "gradients are clipped to this norm")
    seed: int = option(0, "of weights, order, masks and dropout")
    precision: str = option(
        "auto", "fp32, bf16 (autocast), or auto: whichever is quicker on this machine, measured"
    )
    # While it runs
    log_every: int = option(10, "steps between two lines of metrics.jsonl")
    eval_every: int = option(500, "steps between two evaluations on held-out text")
    eval_blocks: int = option(1000, "held-out sequences that are evaluated")
    save_every: int = option(500, "steps between two checkpoints")
    save_total_limit: int = option(2, "checkpoints to keep; 0 for all")
    save_dtype: str = option("float32", "precision of the weights in model/: float32 or bfloat16")
    threads: int = option(
        0, "CPU threads of each process; 0 to share this machine's cores among its processes"
    )
    dataloader_num_workers: int = option(0, "processes that prepare batches")
    log_with: str | None = option(
        None, "also log to tensorboard, wandb, ... (whatever Accelerate knows and is installed)"
    )

    def __post_init__(self):
        positive = (
            "block_size",
            "batch_size",
            "micro_batch_size",
            "learning_rate",
            "log_every",
            "eval_every",
            "save_every",
            "eval_blocks",
            "hidden_size",
            "hidden_layers",
            "heads",
            "mlm_probability",
            "max_grad_norm",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}.", "It must be positive.")
        for name in (
            "max_steps",
            "weight_decay",
            "seed",
            "save_total_limit",
            "threads",
            "dataloader_num_workers",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}.", "It must not be negative.")
        choices = {
            "precision": ("auto", "fp32", "bf16"),
            "teacher_dtype": ("float32", "bfloat16"),
            "save_dtype": ("float32", "bfloat16"),
            "soft_targets": ("all", "masked", "sample"),
            "optimizer": ("adamw", "muon"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}.", f"Choose one of {', '.join(allowed)}."
                )
        for name in ("mlm_probability", "warmup_ratio", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{name} is {getattr(self, name)}.",
                    "It is a share: from 0 up to, but not including, 1.",
                )
        if not 0 < self.soft_target_fraction <= 1:
            raise UserError(
                f"soft_target_fraction is {self.soft_target_fraction}.",
                "It is a share: above 0, and 1 at most.",
            )
        alphas = (self.alpha_ce, self.alpha_mlm, self.alpha_cos)
        if min(alphas) < 0 or not any(alphas) or self.temperature <= 0:
            raise UserError(
                f"alphas {alphas}, temperature {self.temperature}.",
                "No alpha may be negative nor all 0; T must be positive.",
            )
        if self.student_layers is not None and self.student_layers <= 0:
            raise UserError(
                f"student_layers is {self.student_layers}.", "A student has one layer or more."
            )
        if self.teacher is None and self.freeze_positions:
            raise UserError(
                "freeze_positions is for students.",
                "A BERT that is pretrained needs to learn its positions: leave it away.",
            )
        if self.teacher is not None and self.init_from is not None:
            raise UserError(
                "Both a teacher and init_from are given.",
                "A student starts from its teacher: drop --init_from.",
            )
        if not self.max_steps and self.epochs <= 0:
            raise UserError("Neither max_steps nor epochs is positive.", "Say how long to train.")

    def layer_choice(self) -> str | list[int] | None:
        """`init_layers` as `initialize_student` takes it; None for a random start."""
        if self.init_layers == "none":
            return None
        parts = self.init_layers.split(",")
        return (
            [int(p) for p in parts] if all(p.strip().isdigit() for p in parts) else self.init_layers
        )

    def save(self, path: Path) -> None:
        path.write_text(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False))


FIELDS = {f.name: f for f in dataclasses.fields(PretrainConfig)}
TYPES = get_type_hints(
    PretrainConfig
)  # HfArgumentParser writes `str` over the fields' own `str | None`
# Settings that may differ when a run goes on: they change nothing of what is computed.
RESUMABLE_OVERRIDES = frozenset(
    {
        "output",
        "resume",
        "overwrite",
        "save_total_limit",
        "log_every",
        "save_every",
        "threads",
        "dataloader_num_workers",
        "log_with",
        "micro_batch_size",
    }
)


def preset_names() -> list[str]:
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def read_settings(preset: str | Path) -> dict[str, Any]:
    """The settings of a preset's name or of a YAML file, checked for names that do not exist and values of a wrong type."""
    path = PRESETS / f"{preset}.yaml"
    if not path.is_file():
        path = Path(preset)
    if not path.is_file():
        hint = difflib.get_close_matches(str(preset), preset_names(), 1)
        raise UserError(
            f"There is no preset and no file {str(preset)!r}.",
            (f"Did you mean {hint[0]!r}? " if hint else "")
            + f"The presets are {', '.join(preset_names())}.",
        )
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is no YAML ({str(error).splitlines()[0]}).",
            "Each line reads `setting: value`.",
        ) from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings.", "Each line reads `setting: value`.")
    for name, value in settings.items():
        if name not in FIELDS:
            raise unknown_setting(name, str(path), FIELDS)
        expected = TYPES[name]
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            settings[name] = float(value)
        elif not isinstance(value, expected) or (
            isinstance(value, bool) and expected in (int, float)
        ):
            wanted = getattr(expected, "__name__", str(expected))
            raise UserError(
                f"{name} in {path} is {value!r}.",
                f"It must be of type {wanted} (write 5.0e-4, not 5e-4, in YAML).",
            )
    return settings


def load_preset(preset: str | Path, **overrides: Any) -> PretrainConfig:
    """A preset's configuration, with some fields changed."""
    for name in overrides:
        if name not in FIELDS:
            raise unknown_setting(name, "The call", FIELDS)
    return PretrainConfig(**read_settings(preset) | overrides)


def parse_arguments(arguments: list[str] | None = None) -> PretrainConfig:
    """The configuration of a command line: the preset's settings, then whatever the command line says. Raises `UserError`."""
    parser = SettingsParser(
        PretrainConfig,
        usage="%(prog)s [--preset NAME] [--SETTING VALUE ...]",
        description="Pretrain a teacher, or distil a student from one (Sanh et al. 2019).",
        epilog=f"Presets: {', '.join(preset_names())}. Exit codes: 0 done, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM and saved.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset", default=None, help="name of a preset, or a YAML file with settings"
    )
    first_look = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # the preset sets the defaults of all the rest
    first_look.add_argument(
        "--preset", nargs="?"
    )  # without a value: the other parser complains, as it does of any setting
    preset = first_look.parse_known_args(arguments)[0].preset
    if preset is not None:
        parser.set_defaults(**read_settings(preset))
    values = vars(parser.parse_args(arguments))
    values.pop("preset")
    return PretrainConfig(**values)
