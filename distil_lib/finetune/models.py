"""Models with a task's head: any checkpoint of `transformers`, its tokenizer, its outputs' names.

    tokenizer = load_task_tokenizer("data/student")
    model = load_task_model("data/student", task, seed=0)    # a new head on the pretrained encoder
    teacher = load_task_model("runs/teacher-squad", task)    # fine-tuned: its own head
    order = label_order(teacher.config, task, "runs/...")    # [1, 0] for names in the other order

Safetensors only, no foreign code.
"""

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from distil_lib.common.files import update
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.model_folder import SAFELY, check_model_folder, check_weights, loading
from distil_lib.tasks.task import Task
from distil_lib.text.tokenizer import load_tokenizer

# Families that number their positions from the padding's id + 1, as RoBERTa does.
OFFSET = frozenset(
    "altclip camembert clap data2vec-text esm ibert lilt longformer luke mluke roberta "
    "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod".split()
)
UNLIMITED = sys.maxsize


# --------------------------------------------------------------------------------------- loading
def _register_own(name: str) -> None:
    """Import the model types of this library that `transformers` does not know."""
    folder = Path(locate(name))
    if folder.is_dir() and not (folder / "config.json").is_file():
        return
    with loading(name):
        given, _ = PreTrainedConfig.get_config_dict(folder)
    if given.get("model_type") == "elmo":
        import_module("distil_lib.elmo.tokenizer").register()  # nobody else waits for it


def load_task_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a checkpoint.

    Raises:
        UserError: if there is none, or it cannot be loaded.
    """
    _register_own(name)
    with loading(name):
        return load_tokenizer(locate(name))


def load_config(name: str) -> PreTrainedConfig:
    """The configuration of a checkpoint. Raises `UserError` if there is none."""
    check_model_folder(locate(name))
    _register_own(name)
    with loading(name):
        return AutoConfig.from_pretrained(locate(name), **SAFELY)


def load_task_model(name: str, task: Task, seed: int | None = None) -> PreTrainedModel:
    """A model with the head of a task, in float32.

    Args:
        name: a folder or a name on the Hub.
        task: the task.
        seed: of the random head that a checkpoint gets that has none. Without a seed such a
            checkpoint is refused, because it has not learned the task.

    Raises:
        UserError: for whatever keeps the model from loading, and for weights that are no numbers.
    """
    config = load_config(name)
    if seed is not None:
        set_seed(seed)
        _name_outputs(config, task)
    elif config.num_labels != task.num_labels:
        raise UserError(
            f"{name} has {config.num_labels} outputs and {task.name} {task.num_labels}.",
            f"Pass a checkpoint that was fine-tuned on {task.name}; a fine-tuning keeps it in "
            "its folder `save`.",
        )
    questions = task.kind == "question answering"
    family = AutoModelForQuestionAnswering if questions else AutoModelForSequenceClassification
    options = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    with loading(name):
        model, info = family.from_pretrained(
            locate(name), config=config, dtype="float32", **options
        )
    encoder = f"{model.base_model_prefix}."
    lost = sorted(
        key for key in info["missing_keys"] if key.startswith(encoder) and ".pooler." not in key
    )
    if lost:
        raise UserError(
            f"{name} lacks {len(lost)} weights of its encoder, {lost[0]} among them.",
            "Save or download the model again.",
        )
    check_weights(name, model, info)
    if seed is None and (missing := sorted(info["missing_keys"])):
        raise UserError(
            f"{name} has not learned {task.name}: it has no {missing[0]}.",
            "Fine-tune it first, and keep it.",
            setting="save",
        )
    return model


def _name_outputs(config: PreTrainedConfig, task: Task) -> None:
    if hasattr(config, "for_task"):  # of this library's own model types
        config.for_task(task.kind, len(task.text))
    if task.kind == "question answering":
        return
    config.id2label = dict(enumerate(task.labels or ["score"]))
    config.label2id = {label: i for i, label in config.id2label.items()}
    config.problem_type = "single_label_classification" if task.labels else "regression"


# -------------------------------------------------------------------------------- what models say
def positions(config: PreTrainedConfig) -> int:
    """The longest text, in tokens, that a model can read; `UNLIMITED` for relative positions."""
    longest = getattr(config, "max_position_embeddings", 512)
    if config.model_type == "mpnet":  # its embeddings use 1, whatever the configuration says
        return longest - 2
    if config.model_type in OFFSET:
        return longest - (config.pad_token_id + 1)
    return longest if longest > 0 else UNLIMITED


def label_order(config: PreTrainedConfig, task: Task, name: str) -> list[int]:
    """For each class of the task the checkpoint's output that has its name.

    Names are compared without case; LABEL_0, LABEL_1, ... are taken by their numbers.

    Returns:
        [] for a task without classes.

    Raises:
        UserError: if the names do not fit.
    """
    if not task.labels:
        return []
    names = config.id2label or {}
    outputs = {_plain(label): int(i) for i, label in names.items()}
    if len(outputs) == len(task.labels):
        numbered = [f"label_{i}" for i in range(len(task.labels))]
        for wanted in ([_plain(label) for label in task.labels], numbered):
            if all(label in outputs for label in wanted):
                return [outputs[label] for label in wanted]
    raise UserError(
        f"{name} has the labels {', '.join(map(str, names.values()))}, {task.name} has "
        f"{', '.join(task.labels)}.",
        "Pass a checkpoint of this task, or write its names into `id2label` of its config.json.",
    )


def _plain(label: Any) -> str:
    return str(label).casefold().replace("-", "_").replace(" ", "_")


def check_same_tokenizer(
    mine: PreTrainedTokenizerBase, teachers: PreTrainedTokenizerBase, name: str
) -> None:
    """Raise `UserError` unless both give each text the same ids.

    A teacher of start and end positions counts tokens.
    """
    one, other = (json.loads(t.backend_tokenizer.to_str()) for t in (mine, teachers))
    different = [part for part in one if one[part] != other.get(part)]
    # Padding and truncation are those of the last call, not of the text.
    if different := [part for part in different if part not in ("padding", "truncation")]:
        raise UserError(
            f"The teacher {name} has another tokenizer than the model ({', '.join(different)} "
            "differ).",
            "Teacher and student must share a tokenizer: distil the student from a teacher of its "
            "own family.",
        )


def weights_fingerprint(name: str, config: PreTrainedConfig) -> str:
    """Which weights a name stood for: a hash of the folder's safetensors, or the Hub's commit."""
    folder = Path(locate(name))
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None))
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        update(digest, path)
    return digest.hexdigest()[:16]
