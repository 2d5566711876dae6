"""A checkpoint as an ONNX file, which runs without PyTorch: on a server, a phone, or in a browser.

    python -m distil_lib.export --model data/student --output runs/student-onnx
    python -m distil_lib.export --model runs/student-doc-qa/seed-0 --int8 --output runs/qa-onnx

    run = open_onnx("runs/student-onnx/model.onnx", threads=1)
    run({"input_ids": ids, "attention_mask": mask})["logits"]       # (B, L) in, (B, L, V) out

Section 3 of Sanh et al. (2019), "On device computation". Batch and length are dynamic: any that the
model can read. Beside the file lie its tokenizer, its configuration, and `export.json`, which says
how far its outputs are from PyTorch's. A float32 file that is further than `TOLERANCE` away, or
answers NaN, is not written.
"""

import contextlib
import importlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_lib.common.files import atomic_folder, check_writable
from distil_lib.errors import UserError
from distil_lib.export.cls_only import ClsOnlyClassifier
from distil_lib.export.load import HEADS, dummy_inputs, load_model, model_inputs
from distil_lib.finetune.models import load_task_tokenizer

# Of a float32 file: the largest difference from PyTorch's outputs, or of their size beyond 1.
TOLERANCE = 1e-4
OPSET = 20  # the first with GELU as one operator
REQUIRED = ("onnx", "onnxruntime", "onnxscript")
InferenceFn = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


class MissingPackage(UserError):
    """An optional package is not installed."""


def require_package(package: str, extra: str = "export") -> ModuleType:
    """Import an optional package. Raises `MissingPackage`, which says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        command = f"pip install -e '.[{extra}]', in the project's folder"
        raise MissingPackage(
            f"The package {package} is not installed.",
            f"Install it: {command if extra else f'pip install {package}'}.",
        ) from error


class TracedModel(nn.Module):
    """A model as a function of tensors in a fixed order, which is what can be traced."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs, both in the order that was given."""
        answer = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(answer, name) for name in self.outputs)


@contextlib.contextmanager
def silence_exporter() -> Iterator[None]:
    """Suppress the exporters' remarks, and remove the handler that they add to the root logger."""
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
    """Write a float32 ONNX file with dynamic batch and length.

    Args:
        model: in evaluation mode; its `config` says how many positions it has.
        inputs: names of the inputs.
        outputs: names of the outputs.
        file: where to write.
    """
    require_package("onnxscript")
    config: Any = model.config
    given = dummy_inputs(inputs, config.vocab_size, batch=2, length=8)
    longest = config.max_position_embeddings
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    with silence_exporter(), torch.no_grad():
        torch.onnx.export(
            TracedModel(model, inputs, outputs).eval(),
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


def quantize(source: Path, target: Path) -> None:
    """Write an ONNX file whose matrices and embeddings are int8; activations become uint8.

    A matrix has a scale for each output, a table of embeddings a single one. The scales of
    activations are found while the file runs ("dynamic"): nothing has to be calibrated.
    """
    require_package("onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The exporter's shapes of transposed matrices are those of before.
    del model.graph.value_info[:]
    with silence_exporter():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def open_onnx(file: str | Path, threads: int = 1) -> InferenceFn:
    """A file as a function from inputs to outputs, by ONNX Runtime on the CPU.

    Args:
        file: the ONNX file.
        threads: of the runtime.

    Returns:
        A function of tensors or arrays, (B, L) whole numbers by name, which returns arrays by name.
        Inputs that the file does not have are ignored.

    Raises:
        UserError: the file is no ONNX file.
    """
    runtime: Any = require_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Sum and LayerNorm in one operator take longer than the two on CPUs with wide vectors.
    slower = ["SkipLayerNormFusion"]
    try:
        session = runtime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=slower
        )
    except Exception as error:  # the runtime's own classes have nothing else in common
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{file} could not be opened ({reason}).", "Export it again.") from error
    inputs = [part.name for part in session.get_inputs()]
    outputs = [part.name for part in session.get_outputs()]

    def run(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(given[name], np.int64) for name in inputs}
        return dict(zip(outputs, session.run(outputs, arrays), strict=True))

    return run


def max_difference(
    run: InferenceFn, model: PreTrainedModel, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> tuple[float, float]:
    """Compare a file's outputs with PyTorch's, at shapes that were not traced.

    Returns:
        The largest difference, and the largest of PyTorch's outputs; NaN where one of them is.
    """
    differences, largest = [], []
    for batch, length in ((1, 5), (3, min(33, model.config.max_position_embeddings))):
        given = dummy_inputs(inputs, model.config.vocab_size, batch, length, seed=length)
        with torch.no_grad():
            expected = model(**given)
        found = run(given)
        for name in outputs:
            differences.append(np.abs(found[name] - expected[name].numpy()).max())
            largest.append(expected[name].abs().max().item())
    # numpy's maximum is NaN if one of the numbers is; Python's depends on their order.
    return float(np.max(differences)), float(np.max(largest))


def export(
    name: str,
    output: str | Path,
    int8: bool = False,
    head: str | None = None,
    command: str = "",
    cls_only: bool = False,
) -> dict:
    """Write the ONNX file of a checkpoint into a new folder, with tokenizer and configuration.

    Args:
        name: folder or name on the Hub of a BERT or DistilBERT, with its tokenizer.
        output: the folder; the file in it is `model.onnx` or `model_int8.onnx`.
        int8: weights in int8.
        head: the output layer; by default what the checkpoint was saved with.
        command: for the record.
        cls_only: of a classifier, compute the last layer for [CLS] alone (`ClsOnlyClassifier`),
            which gives the same answers sooner.

    Returns:
        The record, which is also written to `export.json`.

    Raises:
        UserError: for bad input, and for a file that does not compute what PyTorch does. Then
            nothing is written.
    """
    output = Path(output)
    check_writable(output, new=True)
    for package in REQUIRED:
        require_package(package)
    model, head = load_model(name, head)
    tokenizer = load_task_tokenizer(name)
    inputs, outputs = model_inputs(model, tokenizer), HEADS[head][2]
    # Two plain products: the fused attention guards rows that attend to nothing, which takes time.
    model.set_attn_implementation("eager")
    computed = ClsOnlyClassifier(model) if cls_only else model
    with atomic_folder(output) as folder:
        file = folder / "model.onnx"
        to_onnx(computed, inputs, outputs, file)
        difference, largest = max_difference(open_onnx(file), model, inputs, outputs)
        if not difference <= TOLERANCE * max(largest, 1.0):  # NaN fails, too
            raise UserError(
                f"The ONNX file of {name} is {difference:.2g} away from PyTorch.",
                "Report it, with the model's config.json.",
            )
        if int8:
            file = folder / "model_int8.onnx"
            quantize(folder / "model.onnx", file)
            (folder / "model.onnx").unlink()
            difference, largest = max_difference(open_onnx(file), model, inputs, outputs)
            if not math.isfinite(difference):
                raise UserError(
                    f"The int8 file of {name} answers NaN or infinity.",
                    "Export it in float32.",
                    setting="int8",
                )
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        record = {
            "command": command,
            "model": name,
            "head": head,
            "file": file.name,
            "bytes": file.stat().st_size,
            "opset": OPSET,
            "cls_only": cls_only,
            "inputs": inputs,
            "outputs": outputs,
            "largest_output": largest,
            "largest_difference": difference,
            "versions": {
                package: version(package) for package in ("torch", "transformers", *REQUIRED)
            },
        }
        text = json.dumps(record, indent=1) + "\n"
        (folder / "export.json").write_text(text, encoding="utf-8")
    return record
