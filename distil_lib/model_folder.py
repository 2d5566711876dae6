"""Models from outside, checked before anything of them is used: folders and names on the Hub.

    config = check_model_folder("runs/teacher")            # {"model_type": "bert", ...}
    model = load_masked_lm("runs/teacher", torch.float32, ("bert", "roberta"))

Every loader of foreign models starts here. Only JSON and safetensors are read, and no code.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.utils import cached_file, logging

from distil_lib.errors import UserError

FAMILIES = ("bert", "roberta", "distilbert")  # whose layers a student can take over
INDEX = "model.safetensors.index.json"
ENTIRE = (
    "Pass a folder with config.json, model.safetensors and tokenizer.json, as `save_pretrained` "
    "writes them, or a name on the Hub with a network connection."
)
MOST_PARAMETERS = 2e10  # a larger encoder is a mistake in config.json
# Entries of config.json with the range of their values. What is not here is left to `transformers`.
COUNTS = {
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads"), (1, 512)),
    **dict.fromkeys(("hidden_size", "dim", "intermediate_size", "hidden_dim"), (1, 2**17)),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "num_labels"), (1, 2**22)),
    **dict.fromkeys(("type_vocab_size", "pad_token_id", "chunk_size_feed_forward"), (0, 2**22)),
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
NUMBERS = dict.fromkeys((*DROPOUTS, "initializer_range"), (0.0, 1.0))
NUMBERS["layer_norm_eps"] = (1e-30, 0.1)
BERT_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
DISTILBERT_SIZES = ("n_layers", "dim", "hidden_dim", "n_heads")
TYPES = {
    **dict.fromkeys(("model_type", "hidden_act", "activation"), str),
    **dict.fromkeys(("tie_word_embeddings", "is_decoder", "add_cross_attention"), bool),
    **dict.fromkeys(("id2label", "label2id"), dict),
}
DTYPES = (None, "auto", "float64", "float32", "float16", "bfloat16")
# How a model is read, whatever its config.json says: no code of it is run, and it answers by name.
SAFELY = {"trust_remote_code": False, "return_dict": True, "chunk_size_feed_forward": 0}
# These make `transformers` fetch or run code, or open other files.
FORBIDDEN = ("auto_map", "quantization_config", "transformers_weights")
ATTENTION = (None, "eager", "sdpa")  # any other string may be a package of native code on the Hub


def check_model_folder(name: str | Path) -> dict[str, Any]:
    """The entries of config.json, checked with the folder before `transformers` sees any of it.

    Args:
        name: A folder with config.json and *.safetensors, or a name on the Hub.

    Raises:
        UserError: If there is no such folder, if its weights are missing or pickled, if its index
            leads out of it, or if config.json has a value that no model can have.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        a_path = folder.is_absolute() or len(folder.parts) > 2 or str(name).startswith((".", "~"))
        if folder.exists() or a_path:
            problem = "is a file, and not a folder" if folder.exists() else "does not exist"
            raise UserError(f"{name} {problem}.", ENTIRE)
        with loading(name):
            missing = {"_raise_exceptions_for_missing_entries": False}
            file, index = cached_file(name, "config.json"), cached_file(name, INDEX, **missing)
        _check_index(name, Path(index) if index else None)
        return check_config(name, Path(str(file)))
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} is no model: it has no config.json.", ENTIRE)
    if not any(folder.glob("*.safetensors")):
        pickles = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        only = f"only {pickles}, a pickle, which can run foreign code when it is opened"
        remedy = "Save the model again with safetensors (`model.save_pretrained(folder)`)."
        raise UserError(f"{name} holds {only if pickles else 'no weights'}.", remedy)
    _check_index(name, folder / INDEX, folder)
    config = check_config(name, folder / "config.json")
    for path in sorted(folder.glob("*.safetensors")):
        _check_types(name, path)
    return config


def _check_types(name: str | Path, path: Path) -> None:
    """Weights are real numbers: whole ones would be taken for them without their scale."""
    if not path.is_file():
        raise UserError(f"{path} is no file.", ENTIRE)
    with path.open("rb") as file:
        if file.read(8) == b"version ":
            remedy = "Fetch the file itself: `git lfs pull`."
            raise UserError(f"{path} is a pointer of Git LFS, and no weights.", remedy)
    # A damaged file is the loader's to name.
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118  # it is no dictionary
            kind = file.get_slice(key).get_dtype()
            if kind not in ("F64", "F32", "F16", "BF16") and "position_ids" not in key:
                remedy = "Quantized models are not read: take the one that this was made from."
                raise UserError(f"The weight {key} of {name} is of the type {kind}.", remedy)


def _read_json(name: str | Path, path: Path) -> dict[str, Any]:
    def no_number(text: str) -> float:
        raise ValueError(f"{text} is no number of JSON")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path.name} of {name} cannot be read ({reason}).", ENTIRE) from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} of {name} holds no object of JSON.", ENTIRE)
    return content


def _check_index(name: str | Path, path: Path | None, folder: Path | None = None) -> None:
    """The shards that an index names are *.safetensors beside it, and nothing else."""
    if path is None or not path.is_file():
        return
    shards = _read_json(name, path).get("weight_map")
    shards = list(shards.values()) if isinstance(shards, dict) else [None]
    for shard in dict.fromkeys(map(str, shards)):
        if not shard.endswith(".safetensors") or "/" in shard or "\\" in shard:
            remedy = "Its files must be *.safetensors in the same folder: save the model again."
            raise UserError(f"{INDEX} of {name} names the file {shard!r}.", remedy)
        if folder is not None and not (folder / shard).is_file():
            raise UserError(f"{name} lacks {shard}, a part of its weights.", ENTIRE)


def check_config(name: str | Path, path: Path) -> dict[str, Any]:
    """The entries of a model's config.json. Raises `UserError` for what no model can have."""
    config = _read_json(name, path)

    def refuse(key: str, value: Any, expected: str) -> None:
        problem = f"config.json of {name} has {key}: {json.dumps(value)[:80]}; {expected}."
        raise UserError(problem, "Correct it, or take another model.")

    def find_code(entries: Any) -> None:
        if isinstance(entries, list):
            entries = dict(enumerate(entries))
        for key, value in entries.items() if isinstance(entries, dict) else ():
            foreign = str(key).endswith("_implementation") and value not in ATTENTION
            if key in FORBIDDEN or foreign:
                refuse(key, value, "this would fetch or run code, which is never done here")
            find_code(value)

    find_code(config)
    config.setdefault("model_type", None)
    for key, (least, most) in COUNTS.items():
        value = config.get(key, least)
        allowed = value is None and key == "pad_token_id"
        if not allowed and (type(value) is not int or not least <= value <= most):
            refuse(key, value, f"expected is a whole number from {least} to {most}")
    for key, (low, high) in NUMBERS.items():
        value = config.get(key, low)
        if type(value) not in (int, float) or not low <= value <= high:
            refuse(key, value, f"expected is a number from {low:g} to {high:g}")
    for key in ("dtype", "torch_dtype"):
        if config.get(key) not in DTYPES:
            refuse(key, config[key], "expected is the name of a precision")
    for key, kind in TYPES.items():
        # `transformers` itself writes null for a dictionary that was not given.
        given = config.get(key) is not None or (key in config and kind is not dict)
        if given and not isinstance(config[key], kind):
            refuse(key, config[key], f"expected is a value of type {kind.__name__}")
    sizes = zip(BERT_SIZES, DISTILBERT_SIZES, strict=True)
    layers, width, inner, heads = (config.get(big, config.get(small, 1)) for big, small in sizes)
    parameters = width * (layers * (4 * width + 2 * inner) + config.get("vocab_size", 1))
    if parameters > MOST_PARAMETERS:
        refuse("parameters", math.floor(parameters), "no encoder is so large")
    if config["model_type"] in FAMILIES and width % heads:
        refuse("num_attention_heads", heads, f"expected is a divisor of the width {width}")
    return config


@contextlib.contextmanager
def loading(name: str | Path) -> Iterator[None]:
    """Run a loader of `transformers` without its report; what it raises becomes a `UserError`."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except UserError:
        raise
    except SafetensorError as error:
        raise UserError(f"The weights of {name} are damaged ({error}).", ENTIRE) from error
    # Anything: the libraries below raise errors of a dozen types for damaged files.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{name} could not be loaded ({reason}).", ENTIRE) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_masked_lm(
    name: str | Path, dtype: torch.dtype, families: tuple[str, ...], new_head: bool = False
) -> PreTrainedModel:
    """A masked language model of `transformers` with all its weights, or a `UserError`.

    Args:
        name: A folder, or a name on the Hub.
        dtype: The precision of its weights.
        families: What `model_type` may be.
        new_head: Whether an encoder without a head gets a random one, tied to its word embeddings.
    """
    found = check_model_folder(name)["model_type"]
    if found not in families:
        raise UserError(f"{name} is of type {found!r}.", f"Known here: {', '.join(families)}.")
    with loading(name):
        # Sizes that do not match are refused below, by name.
        report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = AutoModelForMaskedLM.from_pretrained(
            str(name), dtype=dtype, use_safetensors=True, **SAFELY, **report
        )
    for key, in_file, expected in info["mismatched_keys"]:
        problem = f"Weight {key} of {name} is {tuple(in_file)}, by config.json {tuple(expected)}"
        remedy = "Models with pruned heads, or with sizes that differ by layer, cannot be used."
        raise UserError(f"{problem}.", remedy)
    missing = sorted(key for key in info["missing_keys"] if "position_ids" not in key)
    head = {key for key in model.state_dict() if not key.startswith(f"{model.base_model_prefix}.")}
    if missing and any(key.startswith("module.") for key in info["unexpected_keys"]):
        problem = f'The weights of {name} have names that begin with "module.", of DataParallel.'
        raise UserError(
            problem, "Save the model inside it: `model.module.save_pretrained(folder)`."
        )
    # A tied decoder counts as present: its matrix is that of the words.
    tied = {key for key in head if "decoder.weight" in key}
    headless = bool(missing) and head - tied <= set(missing) <= head
    if headless and new_head:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    elif headless:
        problem = f"{name} has no head for masked language modelling: it lacks {missing[0]}."
        raise UserError(problem, "Give it one first: pretrain on from it.", setting="init_from")
    elif missing:
        problem = f"{name} lacks {len(missing)} of its weights, {missing[0]} among them."
        raise UserError(problem, "Save or download the model again.")
    check_weights(name, model, info)
    return model


def check_weights(name: str | Path, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Raise `UserError` for layers that config.json leaves out, or weights that are no numbers.

    Weights that end in one value are refused, too: so read files whose end was never written.

    Args:
        name: A folder, or a name on the Hub, for the message.
        model: What `from_pretrained` has made of it.
        info: What it said about that.
    """
    if surplus := [key for key in info["unexpected_keys"] if ".layer." in key]:
        raise UserError(f"{name} holds {min(surplus)}, which config.json leaves out.", ENTIRE)
    check_finite(name, model.state_dict())
    for key, rows in _written_rows(model):
        written = int(rows.nonzero().max()) + 1 if rows.any() else 0
        if written < len(rows) and rows[:written].all():  # of pruned ones zeros lie in between
            problem = f"The weight {key} of {name} has one value from row {written} to its end."
            raise UserError(problem, "Its file is damaged: save or download the model again.")


def _written_rows(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Of each linear map and LayerNorm, which rows hold anything; of the words whether any does.

    Biases may be zero, and rows of words or positions that no text has had.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for key, weight in model.named_parameters():
        of_words = weight.shape[:1] == (getattr(model.config, "vocab_size", 0),)  # output, too
        matrix = weight.dim() > 1 and "bias" not in key and "emb" not in key.lower()
        if key.endswith("word_embeddings.weight"):
            yield key, weight.any()[None]
        elif id(weight) in tables or of_words:
            continue
        elif matrix or key.lower().endswith("norm.weight"):
            rows = weight.reshape(len(weight), -1)
            fill = rows[-1, -1] if rows.shape[1] > 7 else 0  # what a damaged end repeats
            yield key, (rows != fill).any(1)


def check_finite(name: str | Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise `UserError` if one of these weights, of the model `name`, is NaN or infinite."""
    for key, weight in weights.items():
        if not torch.isfinite(weight).all():
            remedy = "Training or a smaller precision damaged it: take an earlier checkpoint."
            raise UserError(f"The weight {key} of {name} holds NaN or infinity.", remedy)


def check_encoder(config: Any) -> None:
    """Raise `UserError` unless the layers of a model with this configuration fit into a student.

    Args:
        config: A configuration of `transformers`.
    """
    if config.model_type not in FAMILIES:
        problem = f"A teacher of type {config.model_type!r} is not known here."
        raise UserError(problem, "Use a BERT, RoBERTa or DistilBERT.", setting="teacher")
    small = config.model_type == "distilbert"  # it has another name for the same setting
    activation = config.activation if small else config.hidden_act
    if activation != "gelu":
        remedy = "The student can only take over 'gelu' layers."
        raise UserError(f"The teacher's activation is {activation}.", remedy, setting="teacher")
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if getattr(config, "is_decoder", False) or positions != "absolute":
        problem = "The teacher is no encoder with absolute positions."
        raise UserError(problem, "Only such layers fit into the student.", setting="teacher")
