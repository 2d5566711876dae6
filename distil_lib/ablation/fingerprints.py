"""Hashes of what decides a job's numbers: settings by their value, files by their content.

    inputs = InputFingerprints()
    settings = inputs.result_determining_settings(pretraining, finetuning, seeds=[0])
    settings_hash(settings)                             # "016cee4917e30394"

Jobs with the same hash have the same settings and read the same content.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_lib.common.files import update
from distil_lib.common.paths import locate
from distil_lib.finetune.config import FREE, FinetuneConfig
from distil_lib.tasks.registry import find_task
from distil_lib.text.sources import Source, corpus_fingerprint, parse_corpus
from distil_lib.training.config import RESUMABLE_OVERRIDES, PretrainConfig

# Part of every hash. Raise it when the same configuration would give other numbers, and when the
# default of an existing setting changes: settings with their default value are not hashed, so that
# a new setting does not make all records unknown.
FORMAT = 2
MODEL_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "vocab.txt")
NOT_OF_TASK = FREE | {"model", "task"}  # these say where results go, or are known otherwise


def settings_hash(settings: Mapping[str, Any]) -> str:
    """16 hexadecimal digits for what `result_determining_settings` returns; see `FORMAT`."""
    tasks = settings["finetuning"].items()
    hashed = {
        **settings,
        "pretraining": _without_defaults(PretrainConfig, settings["pretraining"]),
        "finetuning": {name: _without_defaults(FinetuneConfig, own) for name, own in tasks},
    }
    return _digest([FORMAT, hashed])


def _without_defaults(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    # Without a default (such as the data of a task) a value is compared with MISSING: it stays.
    missing = dataclasses.MISSING
    return {k: v for k, v in settings.items() if v != defaults.get(k, missing)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class InputFingerprints:
    """What the names in a configuration stand for. Each file is read once.

    Args:
        versions: Whether the versions of the documented packages count.
    """

    def __init__(self, versions: bool = True):
        self.versions = versions
        self.known: dict[tuple[str, Sequence[str]], str] = {}

    def result_determining_settings(
        self,
        pretraining: PretrainConfig,
        finetuning: Mapping[str, FinetuneConfig],
        seeds: Sequence[int],
    ) -> dict[str, Any]:
        """All settings that decide a job's numbers.

        Folders to write to and settings that may differ when a run is resumed are left out. A path
        that is read is replaced by a hash of its content.
        """
        settings = dataclasses.asdict(pretraining)
        settings = {k: v for k, v in settings.items() if k not in RESUMABLE_OVERRIDES}
        for name in ("teacher", "tokenizer", "init_from"):
            settings[name] = settings[name] and self.files(settings[name], MODEL_FILES)
        settings["corpus"] = self.text(settings["corpus"])
        tasks = {}
        for name, config in finetuning.items():
            own = dataclasses.asdict(config)
            own = tasks[name] = {k: v for k, v in own.items() if k not in NOT_OF_TASK}
            if config.data_dir:
                own["data"] = self.files(config.data_dir)
            else:
                own["data"] = find_task(name).repository or self.text("docs")
            if config.distil_from:
                own["distil_from"] = self.files(config.distil_from, MODEL_FILES)
        return {"pretraining": settings, "finetuning": tasks, "finetuning_seeds": list(seeds)}

    def text(self, source: str) -> str:
        """A corpus: a hash of the documented packages' versions, or of the files; a Hub name."""
        described = []
        for part in parse_corpus(source):
            weight = "" if part.weight is None else f"{part.weight:g} "
            described.append(weight + self._part(part))
        return " + ".join(described)

    def _part(self, part: Source) -> str:
        if part.kind == "hub":
            return part.name
        if part.kind != "docs":
            return self.files(part.name)
        if not self.versions:
            return part.name
        if (part.name, ()) not in self.known:
            # The form of the first records, which are found by it.
            versions = _digest([1, {"versions": corpus_fingerprint(part.name)}])
            self.known[part.name, ()] = f"{part.name} {versions}"
        return self.known[part.name, ()]

    def files(self, name: str, patterns: Sequence[str] = ("*",)) -> str:
        """A hash of a file, or of a folder's files that match, wherever they lie.

        A name that is not there is one on the Hub, and stays.
        """
        place = Path(locate(name))
        if not place.exists():
            return name
        if (name, patterns) not in self.known:
            found = [place]
            if place.is_dir():
                found = sorted({path for pattern in patterns for path in place.rglob(pattern)})
            digest = hashlib.sha256()
            for path in filter(Path.is_file, found):
                relative = path.relative_to(place).as_posix()
                digest.update(f"{relative} {path.stat().st_size} ".encode())
                update(digest, path)
            self.known[name, patterns] = digest.hexdigest()[:16]
        return self.known[name, patterns]
