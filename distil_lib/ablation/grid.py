"""What an ablation consists of: arms and seeds from a YAML file, and a hash of each one's configuration.

    grid = read_grid("mini")                                  # distil_lib/ablation/grids/mini.yaml, or a file of one's own
    jobs = grid.jobs(arms=["triple", "without-ce"], seeds=2)  # seed 0 of every arm first, then seed 1
    jobs[0].pretraining, jobs[0].key                          # its PretrainConfig, and the hash of all that decides its numbers

A grid file reads

    preset: mini                   # what the arms differ from
    base: {max_steps: 150}         # settings of all arms
    reference: triple              # the arm that the others are compared with
    seeds: 3                       # of an arm that says nothing else
    tasks: [doc-package, doc-qa]   # fine-tuned on afterwards; a mapping gives a task settings of its own
    finetuning: {train_rows: 600}  # settings of `finetune` for all tasks; finetuning_seeds: how often each student is fine-tuned
    include: mini                  # take over another grid's arms
    arms:
      without-ce: {says: No soft targets., seeds: 5, settings: {alpha_ce: 0.0}}
      soft-targets-all:            # without an entry: one of the included arms that is left away
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from distil_lib.common.cli import near
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.finetune.config import FREE, FinetuneConfig
from distil_lib.tasks.registry import find_task
from distil_lib.text.sources import Source, corpus_fingerprint, parse_corpus
from distil_lib.training.config import RESUMABLE_OVERRIDES, PretrainConfig, load_preset

GRIDS = Path(__file__).parent / "grids"
FORMAT = 1  # raised whenever the same configuration would give other numbers: part of the hash
KEYS = (
    "preset",
    "base",
    "reference",
    "seeds",
    "tasks",
    "finetuning",
    "finetuning_seeds",
    "include",
    "arms",
)
MODEL_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "vocab.txt")
# Not for a grid to say: they belong to the (arm, seed) or to the machine, or are the same for all.
RESERVED = {
    PretrainConfig: {"seed", "output", "resume", "overwrite", "log_with"},
    FinetuneConfig: {
        "model",
        "task",
        "seeds",
        "output",
        "predict",
        "save",
        "compare_with",
        "evaluate_only",
        "precision",
    },
}


@dataclass(frozen=True)
class Arm:
    """One way to distil: what it `says` of itself, how many seeds it gets, and the settings in which it differs."""

    name: str
    says: str
    seeds: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """An arm with a seed: the student that is pretrained, and the tasks it is fine-tuned on with `finetuning_seeds`."""

    arm: Arm
    seed: int
    pretraining: PretrainConfig
    finetuning: Mapping[str, FinetuneConfig]
    finetuning_seeds: tuple[int, ...]
    configuration: Mapping[
        str, Any
    ]  # all that decides the numbers, and nothing else (see `InputFingerprints.result_determining_settings`)
    common: str  # `Grid.common`
    family: str  # `Grid.family`

    @cached_property
    def key(self) -> str:
        return _hash(self.configuration)

    @property
    def title(self) -> str:
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
    contents: "InputFingerprints" = field(
        default_factory=lambda: InputFingerprints(), compare=False, repr=False
    )

    def jobs(self, arms: Sequence[str] = (), seeds: int = 0) -> list[Job]:
        """The (arm, seed) of all arms or of some, seeds outermost, so that whatever is done first is of all arms.

        seeds: of each arm, instead of the number in the file. Raises `UserError` for a setting that does not fit, and for two arms that
        are one and the same.
        """
        for name in arms:
            if name not in self.arms:
                raise UserError(
                    f"The grid {self.name} has no arm {name!r}.",
                    near(name, self.arms) + f"It has {', '.join(self.arms)}.",
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
                    "Leave one of them away.",
                )
        return jobs

    @cached_property
    def common(self) -> str:
        """A hash of what all arms and seeds share: records with another one are of another experiment."""
        return _hash(
            self.contents.result_determining_settings(
                self._config({}, 0), self.tasks, range(self.finetuning_seeds)
            )
        )

    @cached_property
    def family(self) -> str:
        """As `common`, but whatever versions the documented packages have: the same experiment on another Python's documentation."""
        return _hash(
            InputFingerprints(versions=False).result_determining_settings(
                self._config({}, 0), self.tasks, range(self.finetuning_seeds)
            )
        )

    def _config(self, settings: Mapping[str, Any], seed: int) -> PretrainConfig:
        config = load_preset(self.preset, **{**self.base, **settings, "seed": seed})
        if config.precision == "auto":
            remedy = "Say `precision: fp32` or `precision: bf16` in its base: numbers to be compared must not depend on a machine's speed."
            raise UserError(f"The grid {self.name} leaves the precision open.", remedy)
        return config

    def _job(self, arm: Arm, seed: int) -> Job:
        try:
            config = self._config(arm.settings, seed)
        except UserError as error:
            raise UserError(f"The arm {arm.name}: {error.problem}", error.remedy) from error
        own = tuple(range(seed * self.finetuning_seeds, (seed + 1) * self.finetuning_seeds))
        return Job(
            arm,
            seed,
            config,
            self.tasks,
            own,
            self.contents.result_determining_settings(config, self.tasks, own),
            self.common,
            self.family,
        )


# ------------------------------------------------------------------------------------------------------------------- the hash
def _hash(configuration: Mapping) -> str:
    return hashlib.sha256(json.dumps([FORMAT, configuration], sort_keys=True).encode()).hexdigest()[
        :16
    ]


class InputFingerprints:
    """What the names in a configuration stand for, each looked at once. versions: whether those of the documented packages count."""

    def __init__(self, versions: bool = True):
        self.versions = versions
        self.known: dict[tuple[str, Sequence[str]], str] = {}

    def result_determining_settings(
        self,
        pretraining: PretrainConfig,
        finetuning: Mapping[str, FinetuneConfig],
        seeds: Sequence[int],
    ) -> dict:
        """All that decides a job's numbers: no folder to write to, nothing that may differ when a run is resumed, and of what is read
        the content instead of the place."""
        settings = {k: v for k, v in asdict(pretraining).items() if k not in RESUMABLE_OVERRIDES}
        for name in ("teacher", "tokenizer", "init_from"):
            settings[name] = settings[name] and self.files(settings[name], MODEL_FILES)
        settings["corpus"] = self.text(settings["corpus"])
        tasks = {}
        for name, config in finetuning.items():
            tasks[name] = {
                k: v
                for k, v in asdict(config).items()
                if k not in FREE and k not in ("model", "task")
            }
            on_hub = find_task(name).repository
            tasks[name]["data"] = (
                self.files(config.data_dir) if config.data_dir else on_hub or self.text("docs")
            )
            if config.distil_from:
                tasks[name]["distil_from"] = self.files(config.distil_from, MODEL_FILES)
        return {"pretraining": settings, "finetuning": tasks, "finetuning_seeds": list(seeds)}

    def text(self, source: str) -> str:
        """Of a corpus: a hash of the packages' versions, or of the files; of the Hub, its name."""
        described = [self._part(part) for part in parse_corpus(source)]
        return " + ".join(
            text if part.weight is None else f"{part.weight:g} {text}" for part, text in described
        )

    def _part(self, part: Source) -> tuple[Source, str]:
        source = part.name
        if part.kind == "docs":
            if not self.versions:
                return part, source
            if (source, ()) not in self.known:
                self.known[source, ()] = (
                    f"{source} {_hash({'versions': corpus_fingerprint(source)})}"
                )
            return part, self.known[source, ()]
        return part, source if part.kind == "hub" else self.files(source)

    def files(self, name: str, patterns: Sequence[str] = ("*",)) -> str:
        """A hash of a file, or of a folder's files that match, wherever they lie; a name that is not there, one on the Hub, stays."""
        place = Path(locate(name))
        if not place.exists():
            return name
        if (name, patterns) not in self.known:
            digest = hashlib.sha256()
            for path in sorted(
                {path for pattern in patterns for path in place.rglob(pattern)}
                if place.is_dir()
                else [place]
            ):
                if path.is_file():
                    digest.update(
                        f"{path.relative_to(place).as_posix()} {path.stat().st_size} ".encode()
                    )
                    with path.open("rb") as file:
                        while chunk := file.read(1 << 22):
                            digest.update(chunk)
            self.known[name, patterns] = digest.hexdigest()[:16]
        return self.known[name, patterns]


# --------------------------------------------------------------------------------------------------------------- the grid's file
def grid_names() -> list[str]:
    return sorted(path.stem for path in GRIDS.glob("*.yaml"))


def read_grid(name: str | Path, preset: str | None = None) -> Grid:
    """A grid by the name of one of the library's, or from a file. preset: another than the file's.

    Raises `UserError`, which says where, for whatever is not as it should be.
    """
    path = GRIDS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        hint = near(str(name), grid_names())
        raise UserError(
            f"There is no grid and no file {str(name)!r}.",
            f"{hint}The grids are {', '.join(grid_names())}.",
        )
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is no YAML ({' '.join(str(error).split())}).",
            f"See {GRIDS} for how a grid reads.",
        ) from error
    _check_keys(given, KEYS, str(path))
    seeds = _checked(given.get("seeds", 3), int, f"seeds in {path}")
    base = _settings(given.get("base"), PretrainConfig, f"base in {path}")
    arms = dict(read_grid(given["include"]).arms) if given.get("include") else {}
    for arm, entry in _mapping(given.get("arms"), f"arms in {path}").items():
        arms[arm] = None if entry is None else _arm(arm, entry, seeds, path)
    arms = {name: arm for name, arm in arms.items() if arm is not None}
    reference = given.get("reference", next(iter(arms), None))
    if reference not in arms:
        remedy = f"{near(str(reference), arms)}Its arms are {', '.join(arms) or 'none'}."
        raise UserError(
            f"The reference of {path} is {reference!r}, which is none of its arms.", remedy
        )
    preset, named = preset or given.get("preset", "mini"), given.get("tasks") or {}
    finetuning = _settings(given.get("finetuning"), FinetuneConfig, f"finetuning in {path}")
    tasks = {}
    for task, own in (
        named
        if isinstance(named, dict)
        else dict.fromkeys(_checked(named, list, f"tasks in {path}"))
    ).items():
        settings = finetuning | _settings(own, FinetuneConfig, f"the task {task} in {path}")
        tasks[find_task(task).name] = FinetuneConfig(
            task=task, precision=load_preset(preset, **base).precision, **settings
        )
    repeats = _checked(given.get("finetuning_seeds", 1), int, f"finetuning_seeds in {path}")
    if any("precision" in arm.settings for arm in arms.values()):
        raise UserError(
            f"An arm of {path} has a precision of its own.", "Give it to all of them, in `base`."
        )
    return Grid(path.stem, preset, base, reference, arms, tasks, repeats)


def _arm(name: str, entry: Any, seeds: int, path: Path) -> Arm:
    where = f"the arm {name} in {path}"
    _check_keys(entry, ("says", "seeds", "settings"), where)
    settings = _settings(entry.get("settings"), PretrainConfig, where)
    return Arm(
        name,
        str(entry.get("says", "")),
        _checked(entry.get("seeds", seeds), int, f"seeds of {where}"),
        settings,
    )


def _begin(where: str) -> str:
    return f"T{where[1:]}" if where.startswith("the ") else where


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value or {}, dict):
        raise UserError(f"{_begin(where)} holds no settings.", "Each line reads `name: value`.")
    return value or {}


def _check_keys(value: Any, keys: Sequence[str], where: str) -> None:
    for key in _mapping(value, where):
        if key not in keys:
            raise UserError(
                f"{_begin(where)} has an unknown entry {key!r}.",
                near(key, keys) + f"Known: {', '.join(keys)}.",
            )


def _checked(value: Any, expected: Any, where: str) -> Any:
    """The value if it is of that type, an int as a float where one is expected."""
    if expected is float and type(value) is int:
        return float(value)
    if (
        not isinstance(value, expected)
        or (isinstance(value, bool) and expected in (int, float))
        or (expected is int and value < 0)
    ):
        wanted = getattr(expected, "__name__", str(expected))
        raise UserError(
            f"{_begin(where)}: {value!r}.",
            f"It must be of type {wanted} (write 5.0e-4, not 5e-4, in YAML).",
        )
    return value


def _settings(value: Any, kind: type, where: str) -> dict[str, Any]:
    """Settings of a configuration's class, with names and types checked."""
    types = {
        name: hint for name, hint in get_type_hints(kind).items() if name not in RESERVED[kind]
    }
    _check_keys(value, tuple(types), where)
    return {
        name: _checked(each, types[name], f"{name} of {where}")
        for name, each in _mapping(value, where).items()
    }
