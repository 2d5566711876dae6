"""A checkpoint as an ONNX file, which runs where there is no PyTorch: by ONNX Runtime on a server, a phone, or in a browser.

    python -m distil_lib.export --model data/student --output runs/student-onnx
    python -m distil_lib.export --model runs/student-doc-qa/seed-0 --int8 --output runs/student-qa-onnx

    run = open_onnx("runs/student-onnx/model.onnx", threads=1)
    run({"input_ids": ids, "attention_mask": mask})["logits"]           # arrays (B, L) in, (B, L, V) out

Section 3 of Sanh et al. (2019), "On device computation". Batch and length are dynamic: any that the model can read. Beside the file lie
its tokenizer, its configuration, and `export.json`, which says how far its outputs are from PyTorch's. A float32 file that is further
than `TOLERANCE` away is not written at all.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from distil_lib.common.files import atomic_folder, check_writable
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.export.cls_only import ClsOnlyClassifier
from distil_lib.finetune.models import load_task_tokenizer
from distil_lib.model_folder import check_model_folder

# The head's name: the end of the architecture's name, the class that loads it, and its outputs.
HEADS = {
    "masked-lm": ("ForMaskedLM", AutoModelForMaskedLM, ("logits",)),
    "classification": (
        "ForSequenceClassification",
        AutoModelForSequenceClassification,
        ("logits",),
    ),
    "question-answering": (
        "ForQuestionAnswering",
        AutoModelForQuestionAnswering,
        ("start_logits", "end_logits"),
    ),
}
KINDS = ("bert", "distilbert")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOLERANCE = 1e-4  # of a float32 file: the largest difference from PyTorch's outputs, or of their size where they are beyond 1
OPSET = 20  # the first with GELU as one operator


class MissingPackage(UserError):
    """An optional package is not installed."""


def need(package: str, extra: str = "export") -> ModuleType:
    """An optional package. Raises `MissingPackage`, which says how to install it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it at its import
    try:
        return __import__(package)
    except ImportError as error:
        what = (
            f"pip install -e '.[{extra}]', in the project's folder"
            if extra
            else f"pip install {package}"
        )
        raise MissingPackage(
            f"The package {package} is not installed.", f"Install it: {what}."
        ) from error


# ------------------------------------------------------------------------------------------------------------ the model, in PyTorch
def head_of(config: PreTrainedConfig, name: str) -> str:
    """Which of `HEADS` a checkpoint was saved with. Raises `UserError` if it is none of them."""
    for architecture in config.architectures or ():
        for head, (ending, _, _) in HEADS.items():
            if architecture.endswith(ending):
                return head
    raise UserError(
        f"{name} was saved as {', '.join(config.architectures or ['nothing'])}.",
        f"Pass --head, one of {', '.join(HEADS)}.",
    )


def load_model(name: str, head: str | None = None) -> tuple[PreTrainedModel, str]:
    """A BERT or DistilBERT in evaluation mode, float32, and the name of its head: that of the checkpoint unless told otherwise.

    Raises `UserError` for whatever keeps it from loading, and for a head that the checkpoint does not have.
    """
    if head is not None and head not in HEADS:
        raise UserError(f"There is no head {head!r}.", f"Choose one of {', '.join(HEADS)}.")
    where = locate(name)
    check_model_folder(where)
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        if config.model_type not in KINDS:
            raise UserError(
                f"{name} is a {config.model_type}.",
                f"What can be exported are {' and '.join(KINDS)} models.",
            )
        head = head or head_of(config, name)
        options = {
            "dtype": torch.float32,
            "use_safetensors": True,
            "trust_remote_code": False,
            "output_loading_info": True,
        }
        model, info = HEADS[head][1].from_pretrained(where, config=config, **options)
    except SafetensorError as error:
        raise UserError(
            f"The weights of {name} are damaged ({error}).", "Copy or download the model again."
        ) from error
    except UserError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"{name} could not be loaded ({reason[:200]}).",
            "Pass a folder that `save_pretrained` has written.",
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{name} has no head for {head}: {missing[0]} is missing.",
            "Fine-tune it first, or pass the --head that it has.",
        )
    return model.eval(), head


class Answers(nn.Module):
    """A model as a function of tensors in a fixed order, which is what can be traced."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        answer = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(answer, name) for name in self.outputs)


def model_inputs(model: PreTrainedModel, tokenizer: Any) -> tuple[str, ...]:
    """What the tokenizer gives and the model takes: BERT has token types, DistilBERT has none."""
    known = INPUTS if model.config.model_type == "bert" else INPUTS[:2]
    return tuple(name for name in known if name in (*tokenizer.model_input_names, *INPUTS[:2]))


def example(
    inputs: tuple[str, ...], vocab_size: int, batch: int, length: int, seed: int = 0
) -> dict[str, Tensor]:
    """Random ids (batch, length), the second half of the last text being padding and, of two types, the second half of the second."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocab_size, (batch, length), generator=generator)
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    types[:, length // 2 :] = 1
    if batch > 1:
        mask[-1, (length + 1) // 2 :] = 0
    return {
        name: {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}[name]
        for name in inputs
    }


# -------------------------------------------------------------------------------------------------------------------- to ONNX
@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks on packages that are not needed here, and without the handler that the root logger gets by them."""
    handlers = [*logging.root.handlers]
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers[:] = handlers


def to_onnx(
    model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...], file: Path
) -> None:
    """Write a float32 ONNX file with dynamic batch and length; `model`, which has a `config`, in evaluation mode. Needs `onnxscript`."""
    need("onnxscript")
    given = example(inputs, model.config.vocab_size, batch=2, length=8)
    longest = model.config.max_position_embeddings
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    with quiet(), torch.no_grad():
        torch.onnx.export(
            Answers(model, inputs, outputs).eval(),
            tuple(given.values()),
            file,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=(tuple(shape for _ in inputs),),
        )


def quantize(source: Path, target: Path, embeddings: bool = True) -> None:
    """Write an ONNX file whose matrices, and the embeddings unless told otherwise, are int8; activations become uint8 as they come.

    A matrix has a scale for each output, a table of embeddings a single one. "Dynamic": nothing has to be calibrated.
    """
    need("onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    del model.graph.value_info[
        :
    ]  # the exporter's shapes of transposed matrices are those of before
    kinds = ["MatMul", "Gemm", *(["Gather"] if embeddings else [])]
    with quiet():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=kinds,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def open_onnx(
    file: str | Path, threads: int = 1
) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    """A function from the inputs' tensors or arrays, (B, L) whole numbers, to the outputs' arrays, by ONNX Runtime on the CPU.

    Inputs that the file does not have are passed over. Raises `UserError` for a file that is none.
    """
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = (
        threads,
        1,
        3,
    )
    slower = [
        "SkipLayerNormFusion"
    ]  # sum and LayerNorm in one operator, which takes longer than the two on CPUs with wide vectors
    try:
        session = runtime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=slower
        )
    except Exception as error:  # the runtime's own classes have nothing else in common
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{file} could not be opened ({reason}).",
            "Export it again: python -m distil_lib.export.",
        ) from error
    inputs, outputs = (
        [part.name for part in parts] for parts in (session.get_inputs(), session.get_outputs())
    )

    def run(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(given[name], np.int64) for name in inputs}
        return dict(zip(outputs, session.run(outputs, arrays), strict=True))

    return run


def apart(
    run: Callable, model: PreTrainedModel, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> tuple[float, float]:
    """The largest difference of a file's outputs from PyTorch's at shapes that were not traced, and the largest of PyTorch's outputs."""
    difference = largest = 0.0
    for batch, length in ((1, 5), (3, min(33, model.config.max_position_embeddings))):
        given = example(inputs, model.config.vocab_size, batch, length, seed=length)
        with torch.no_grad():
            expected = model(**given)
        found = run(given)
        for name in outputs:
            difference = max(difference, float(np.abs(found[name] - expected[name].numpy()).max()))
            largest = max(largest, float(expected[name].abs().max()))
    return difference, largest


def export(
    name: str,
    output: str | Path,
    int8: bool = False,
    head: str | None = None,
    command: str = "",
    first_token: bool = False,
) -> dict:
    """Write the folder `output`: `model.onnx` or `model_int8.onnx`, tokenizer, `config.json`, and the record that is returned.

    first_token: of a classifier, the last layer for its first token alone (`ClsOnlyClassifier`), which gives the same answers sooner. Raises
    `UserError` for bad input, and for a float32 file that does not compute what PyTorch does; then nothing is written.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"{output} exists.", "Choose another --output, or delete it.")
    check_writable(output)
    for package in ("onnx", "onnxruntime", "onnxscript"):
        need(package)
    model, head = load_model(name, head)
    tokenizer = load_task_tokenizer(name)
    inputs, outputs = model_inputs(model, tokenizer), HEADS[head][2]
    model.set_attn_implementation(
        "eager"
    )  # two plain products; the fused one guards rows that attend to nothing, which takes time
    computed = ClsOnlyClassifier(model) if first_token else model
    with atomic_folder(output) as folder:
        file = folder / "model.onnx"
        to_onnx(computed, inputs, outputs, file)
        difference, largest = apart(open_onnx(file), model, inputs, outputs)
        if not difference <= TOLERANCE * max(largest, 1.0):
            raise UserError(
                f"The ONNX file of {name} is {difference:.2g} away from PyTorch.",
                "Report it, with the model's config.json.",
            )
        if int8:
            file = folder / "model_int8.onnx"
            quantize(folder / "model.onnx", file)
            (folder / "model.onnx").unlink()
            difference, largest = apart(open_onnx(file), model, inputs, outputs)
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        record = {
            "command": command,
            "model": name,
            "head": head,
            "file": file.name,
            "bytes": file.stat().st_size,
            "opset": OPSET,
            "first_token": first_token,
            "inputs": inputs,
            "outputs": outputs,
            "largest_output": largest,
            "largest_difference": difference,
            "versions": {
                package: version(package)
                for package in ("torch", "transformers", "onnx", "onnxruntime", "onnxscript")
            },
        }
        (folder / "export.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
