"""What an ablation consists of: arms and seeds from a YAML file.

    grid = read_grid("mini")                         # ablation/grids/mini.yaml, or a file
    jobs = grid.jobs(arms=["triple", "without-ce"])  # seed 0 of every arm first, then seed 1
    jobs[0].pretraining, jobs[0].name                # its settings, and the name of its record

A grid file reads

    preset: mini                   # what the arms differ from
    base: {max_steps: 150}         # settings of all arms
    reference: triple              # the arm that the others are compared with
    seeds: 3                       # of an arm that says nothing else
    tasks: [doc-package, doc-qa]   # fine-tuned on afterwards; a mapping gives a task own settings
    finetuning: {train_rows: 600}  # settings of `finetune` for all tasks
    finetuning_seeds: 1            # how often each student is fine-tuned
    include: mini                  # take over another grid's arms
    arms:
      without-ce: {says: No soft targets., seeds: 5, settings: {alpha_ce: 0.0}}
      soft-targets-all:            # without an entry: leave out this included arm
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distil_lib.ablation.fingerprints import InputFingerprints, settings_hash
from distil_lib.common.cli import (
    Seeds,
    Settings,
    checked,
    find_yaml,
    near,
    read_settings,
    unknown_setting,
)
from distil_lib.errors import UserError
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.tasks.registry import TASKS, find_task
from distil_lib.training.config import PretrainConfig, load_preset

GRIDS = Path(__file__).parent / "grids"
ARM_NAME = re.compile(r"[\w+-][\w.+-]{0,79}")  # it is part of a file's name


@dataclass
class Arm(Settings):
    """One way to distil; a grid's file has the rest under its name.

    Attributes:
        name: What it is called in tables and files.
        says: One sentence on it.
        seeds: How many it gets.
        settings: The settings in which it differs from the grid's base.
    """

    name: str
    says: str = ""
    seeds: Seeds = 3
    settings: dict[str, Any] | None = None


# Not for a grid to say: they belong to the (arm, seed) or to the machine, or are the same for all.
RESERVED: dict[type, set[str]] = {
    Arm: {"name"},
    PretrainConfig: {"seed", "output", "resume", "overwrite", "log_with", "time_limit"},
    FinetuneConfig: set(
        "model task seeds output predict save compare_with evaluate_only precision".split()
    ),
}


@dataclass(frozen=True)
class Job:
    """An arm with a seed: a student to pretrain, and the tasks to fine-tune it on.

    Attributes:
        arm: The arm.
        seed: Of the pretraining.
        pretraining: The settings of the student.
        finetuning: The settings of each task.
        finetuning_seeds: The seeds of each fine-tuning.
        configuration: All that decides the numbers, and nothing else.
        experiment_hash: See `Grid`.
        experiment_hash_without_versions: See `Grid`.
    """

    arm: Arm
    seed: int
    pretraining: PretrainConfig
    finetuning: Mapping[str, FinetuneConfig]
    finetuning_seeds: tuple[int, ...]
    configuration: Mapping[str, Any]
    experiment_hash: str
    experiment_hash_without_versions: str

    @cached_property
    def key(self) -> str:
        """The hash of its configuration."""
        return settings_hash(self.configuration)

    @property
    def name(self) -> str:
        """For files: "triple-seed0-016cee49"."""
        return f"{self.arm.name}-seed{self.seed}-{self.key[:8]}"

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """Arms, and what they have in common."""

    name: str
    preset: str
    base: Mapping[str, Any]
    reference: str
    arms: Mapping[str, Arm]
    tasks: Mapping[str, FinetuneConfig]
    finetuning_seeds: int
    inputs: InputFingerprints = field(default_factory=InputFingerprints, compare=False, repr=False)

    def jobs(self, arms: Sequence[str] = (), seeds: int = 0) -> list[Job]:
        """The (arm, seed) of all arms or of some. All arms get seed 0 before any gets seed 1.

        Args:
            arms: Only these.
            seeds: How many for each arm, instead of the number in the file.

        Raises:
            UserError: A setting does not fit, or two arms are the same.
        """
        for name in arms:
            if name not in self.arms:
                raise UserError(
                    f"The grid {self.name} has no arm {name!r}.",
                    f"{near(name, self.arms)}It has {', '.join(self.arms)}.",
                    setting="arms",
                )
        chosen = [self.arms[name] for name in dict.fromkeys(arms or self.arms)]
        most = seeds or max(arm.seeds for arm in chosen)
        jobs = [
            self._job(arm, seed)
            for seed in range(most)
            for arm in chosen
            if seed < (seeds or arm.seeds)
        ]
        first: dict[str, Job] = {}
        for job in jobs:
            same = first.setdefault(job.key, job)
            if same.arm is not job.arm:
                raise UserError(
                    f"The arms {same.arm.name} and {job.arm.name} are the same.",
                    "Remove one of them.",
                )
        return jobs

    @cached_property
    def experiment_hash(self) -> str:
        """Of what all arms and seeds share: records with another one are of another experiment."""
        return self._shared(self.inputs)

    @cached_property
    def experiment_hash_without_versions(self) -> str:
        """As `experiment_hash`, whatever versions the documented packages have.

        It is the same for one experiment on the documentation of two Python installations.
        """
        return self._shared(InputFingerprints(versions=False))

    def _shared(self, inputs: InputFingerprints) -> str:
        seeds = range(self.finetuning_seeds)
        config = self._config(None, 0)
        return settings_hash(inputs.result_determining_settings(config, self.tasks, seeds))

    def _config(self, settings: Mapping[str, Any] | None, seed: int) -> PretrainConfig:
        config = load_preset(self.preset, **{**self.base, **(settings or {}), "seed": seed})
        if config.precision == "auto":
            raise UserError(
                f"The grid {self.name} leaves the precision open.",
                "Say `precision: fp32` or `precision: bf16` in its base: numbers to be compared "
                "must not depend on a machine's speed.",
            )
        return config

    def _job(self, arm: Arm, seed: int) -> Job:
        try:
            config = self._config(arm.settings, seed)
        except UserError as error:
            problem = f"The arm {arm.name}: {error.problem}"
            raise UserError(problem, error.remedy, error.settings) from error
        own = tuple(range(seed * self.finetuning_seeds, (seed + 1) * self.finetuning_seeds))
        configuration = self.inputs.result_determining_settings(config, self.tasks, own)
        shared = self.experiment_hash, self.experiment_hash_without_versions
        return Job(arm, seed, config, self.tasks, own, configuration, *shared)


# ------------------------------------------------------------------------- the grid's file
@dataclass
class GridFile(Settings):
    """The entries of a grid's file; see the top of this module."""

    preset: str = "mini"
    base: dict[str, Any] | None = None
    reference: str | None = None
    seeds: Seeds = 3
    tasks: list[str] | dict[str, dict[str, Any] | None] | None = None
    finetuning: dict[str, Any] | None = None
    finetuning_seeds: Seeds = 1
    include: str | None = None
    arms: dict[str, dict[str, Any] | None] | None = None


def read_grid(
    name: str | Path, preset: str | None = None, included_by: Sequence[Path] = ()
) -> Grid:
    """A grid by the name of one of the library's, or from a file.

    Args:
        name: Name or file.
        preset: Another preset than the file's.
        included_by: The files that are being read already.

    Raises:
        UserError: The file is missing or wrong; the message says where.
    """
    path = find_yaml("grid", GRIDS, name)
    file = GridFile(**read_settings(GridFile, path))
    where = f" in {path}"
    base = _settings(PretrainConfig, file.base, f"base{where}")
    arms: dict[str, Arm] = {}
    if file.include is not None:
        if path.resolve() in included_by:
            raise UserError(f"{path} includes itself.", "Remove one `include`.")
        arms |= read_grid(file.include, None, [*included_by, path.resolve()]).arms
    for arm, entry in (file.arms or {}).items():
        if entry is None:
            arms.pop(arm, None)
        else:
            arms[arm] = _arm(arm, entry, file.seeds, path)
    reference = next(iter(arms), None) if file.reference is None else file.reference
    if reference not in arms:
        raise UserError(
            f"The reference of {path} is {reference!r}, which is none of its arms.",
            f"{near(reference, arms)}Its arms are {', '.join(arms) or 'none'}.",
        )
    preset = file.preset if preset is None else preset
    precision = load_preset(preset, **base).precision
    shared = _settings(FinetuneConfig, file.finetuning, f"finetuning{where}")
    named = file.tasks if isinstance(file.tasks, dict) else dict.fromkeys(file.tasks or ())
    tasks = {}
    for task, own in named.items():
        if find_task(task).name not in TASKS:
            raise UserError(
                f"{path} names the task {task}.", f"A grid takes these: {', '.join(TASKS)}."
            )
        own = shared | _settings(FinetuneConfig, own, f"the task {task}{where}")
        tasks[find_task(task).name] = FinetuneConfig(task=task, precision=precision, **own)
    return Grid(path.stem, preset, base, reference, arms, tasks, file.finetuning_seeds)


def _arm(name: str, entry: Mapping[str, Any], seeds: int, path: Path) -> Arm:
    where = f"the arm {name} in {path}"
    if not ARM_NAME.fullmatch(name):
        raise UserError(
            f"{path} has an arm {name[:100]!r}.",
            "A name consists of up to 80 letters, digits and any of . _ + -",
        )
    arm = Arm(name, **{"seeds": seeds} | _settings(Arm, entry, where))
    arm.settings = _settings(PretrainConfig, arm.settings, where)
    if "precision" in arm.settings:
        raise UserError(
            f"An arm of {path} has a precision of its own.", "Give it to all of them, in `base`."
        )
    return arm


def _settings(kind: type, given: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """Settings of a class, with names and values checked."""
    known = {entry.name for entry in dataclasses.fields(kind)} - RESERVED.get(kind, set())
    for name in given or {}:
        if name not in known:
            raise unknown_setting(name, where[0].upper() + where[1:], known)
    return {k: checked(kind, k, v, f" of {where}") for k, v in (given or {}).items()}
