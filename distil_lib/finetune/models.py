"""Models with a task's head: any checkpoint of `transformers`, its tokenizer, and what its outputs are called.

    tokenizer = load_task_tokenizer("data/student")
    model = load_task_model("data/student", task, seed=0)             # the masked-language model's encoder below a new head
    teacher = load_task_model("runs/teacher-squad", task)             # fine-tuned: its own head
    order = label_order(teacher.config, task, "runs/teacher-squad")   # [1, 0] if its outputs are named in the other order

Safetensors only, no foreign code.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from distil_lib.common.hub import CLIENT_ERROR
from distil_lib.common.paths import locate
from distil_lib.elmo.model import ElmoConfig
from distil_lib.elmo.tokenizer import register
from distil_lib.errors import UserError
from distil_lib.tasks.registry import Task
from distil_lib.teacher import check_model_folder
from distil_lib.text.tokenizer import load_tokenizer

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
OFFSET = ("roberta", "xlm-roberta", "camembert")  # number their positions from the padding's id + 1


def load_task_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer that belongs to a checkpoint."""
    register()
    folder = Path(locate(name))
    if folder.is_dir() and not any((folder / file).is_file() for file in VOCABULARIES):
        raise UserError(
            f"{name} has no tokenizer.",
            "Save the model's own beside it: `tokenizer.save_pretrained(folder)`.",
        )
    return _loaded(name, load_tokenizer)


def load_task_model(name: str, task: Task, seed: int | None = None) -> PreTrainedModel:
    """A model with the head of a task, in float32.

    With a `seed`, a head that the checkpoint does not have is drawn at random; without one, such a checkpoint is refused, because it
    has not learned the task. Raises `UserError` for whatever keeps it from loading.
    """
    register()
    check_model_folder(locate(name))
    Model = (
        AutoModelForQuestionAnswering
        if task.kind == "question answering"
        else AutoModelForSequenceClassification
    )
    config = _loaded(name, lambda where: AutoConfig.from_pretrained(where, trust_remote_code=False))
    if isinstance(config, ElmoConfig) and task.kind == "question answering":
        raise UserError(
            "ELMo has no head for question answering here.", "Take a task of GLUE's, or IMDb."
        )
    if seed is not None:
        set_seed(seed)
        _name_outputs(config, task)
    elif config.num_labels != task.num_labels:
        remedy = f"Pass a checkpoint that was fine-tuned on {task.name}, as --save writes it."
        raise UserError(
            f"{name} has {config.num_labels} outputs and {task.name} {task.num_labels}.", remedy
        )
    options = {
        "config": config,
        "dtype": "float32",
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    model, info = _loaded(name, lambda where: Model.from_pretrained(where, **options))
    encoder = f"{model.base_model_prefix}."
    lost = sorted(
        key for key in info["missing_keys"] if key.startswith(encoder) and ".pooler." not in key
    )
    if lost:
        raise UserError(
            f"{name} lacks {len(lost)} weights of its encoder, {lost[0]} among them.",
            "Save or download the model again.",
        )
    if seed is None and (missing := sorted(info["missing_keys"])):
        remedy = "Fine-tune it first, and keep it with --save."
        raise UserError(f"{name} has not learned {task.name}: it has no {missing[0]}.", remedy)
    return model


def _name_outputs(config: PreTrainedConfig, task: Task) -> None:
    if task.kind == "question answering":
        return
    if isinstance(config, ElmoConfig):
        config.texts = len(task.text)  # reads them one by one: what its head is made for
    config.id2label = dict(enumerate(task.labels or ["score"]))
    config.label2id = {label: i for i, label in config.id2label.items()}
    config.problem_type = "single_label_classification" if task.labels else "regression"


def _loaded(name: str, load: Callable):
    """`load(where the name lies)`; whatever goes wrong is one message, after other attempts if it was the network."""
    try:
        return load(locate(name))
    except UserError:
        raise
    except SafetensorError as error:
        raise UserError(
            f"The weights of {name} are damaged ({error}).", "Copy or download the model again."
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AttributeError,
        TypeError,
        OfflineModeIsEnabled,
        CLIENT_ERROR,
    ) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"{name} could not be loaded ({reason[:200]}).",
            "Pass a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hub with a network connection.",
        ) from error


def positions(config: PreTrainedConfig) -> int:
    """The longest text, in tokens, that a model can read."""
    longest = getattr(config, "max_position_embeddings", 512)
    return longest - (config.pad_token_id + 1) if config.model_type in OFFSET else longest


def label_order(config: PreTrainedConfig, task: Task, name: str) -> list[int]:
    """For each class of the task the checkpoint's output that bears its name: [] for a task without classes.

    Names are compared without case, LABEL_0, LABEL_1, ... taken by their numbers. Raises `UserError` if they do not fit.
    """
    if not task.labels:
        return []
    plain = lambda label: str(label).casefold().replace("-", "_").replace(" ", "_")
    outputs = {plain(label): int(i) for i, label in config.id2label.items()}
    if len(outputs) == len(task.labels):
        for wanted in (map(plain, task.labels), (f"label_{i}" for i in range(len(task.labels)))):
            order = [outputs.get(label) for label in wanted]
            if None not in order:
                return order
    raise UserError(
        f"{name} has the labels {', '.join(map(str, config.id2label.values()))}, {task.name} has {', '.join(task.labels)}.",
        "Pass a checkpoint of this task, or write its names into `id2label` of its config.json.",
    )


def check_same_tokenizer(
    mine: PreTrainedTokenizerFast, teachers: PreTrainedTokenizerFast, name: str
) -> None:
    """Raise `UserError` unless both give each text the same ids: a teacher of start and end positions counts tokens."""
    rules = []
    for tokenizer in (mine, teachers):
        rule = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.append(
            {part: rule[part] for part in rule if part not in ("padding", "truncation")}
        )  # of the last call, not of the text
    if rules[0] != rules[1]:
        different = ", ".join(part for part in rules[0] if rules[0][part] != rules[1].get(part))
        remedy = "Teacher and student must share a tokenizer: distil the student from a teacher of its own family."
        raise UserError(
            f"The teacher {name} has another tokenizer than the model ({different} differ).", remedy
        )


def weights_fingerprint(name: str, config: PreTrainedConfig) -> str:
    """Which weights a name stood for: a hash of the folder's safetensors, or the Hub's commit."""
    folder = Path(locate(name))
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None))
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()[:16]
