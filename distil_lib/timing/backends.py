"""One checkpoint, made faster in several ways: the backends that page D compares.

    folder = prepare("data/student", Path("runs/comparison"))   # the checkpoint and its ONNX files
    run = build("onnx int8", folder, threads=1)                   # or `Unavailable`, which says why
    run({"input_ids": ids, "attention_mask": mask})["logits"]     # tensors in, arrays out

None of them trains anything, and none needs texts to calibrate it. A backend whose package or
compiler is missing on a machine is left out.
"""

import contextlib
import copy
import inspect
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_lib.common.files import atomic_folder
from distil_lib.errors import UserError
from distil_lib.export.load import HEADS, load_model, outputs_of
from distil_lib.export.onnx_model import (
    InferenceFn,
    MissingPackage,
    export,
    open_onnx,
    quantize,
    require_package,
)
from distil_lib.finetune.models import load_task_tokenizer

BACKENDS = {
    "eager fp32": "PyTorch as it comes",
    "bf16 autocast": "products in bfloat16, weights converted at each call",
    "bf16 weights": "everything in bfloat16",
    "compiled fp32": "torch.compile: kernels of C++, fused",
    "onnx fp32": "ONNX Runtime",
    "onnx int8": "ONNX Runtime, weights int8, activations as they come",
    "onnx int8, first token": "the same; of a classifier's last layer, the first token alone",
    "openvino fp32": "OpenVINO",
    "openvino bf16": "OpenVINO, products in bfloat16",
}
EAGER = "eager fp32"
ONNX = "onnx/model.onnx"
# What other backends than PyTorch open; `ONNX` where it is not named.
FILES = {"onnx int8": "int8/model_int8.onnx", "onnx int8, first token": "cls_only/model_int8.onnx"}


class Unavailable(Exception):
    """A backend that this machine does not have; its text says why."""


def runtimes() -> dict[str, str]:
    """Versions of the packages of the backends beyond PyTorch that are installed."""
    found = {}
    for name in ("onnx", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def prepare(model: PreTrainedModel | str, folder: Path) -> Path:
    """Write all that the backends need: `checkpoint`, `onnx`, `int8`, and for classes `cls_only`.

    Without ONNX's packages, whose backends are then unavailable, only the checkpoint is written.

    Args:
        model: a checkpoint's folder, or a model with random weights, which gets the tokenizer of
            `data/tokenizer`.
        folder: where to write.

    Returns:
        The folder.
    """
    if isinstance(model, str):
        tokenizer, model = load_task_tokenizer(model), load_model(model)[0]
    else:
        tokenizer = load_task_tokenizer("data/tokenizer")
    with atomic_folder(folder) as whole:
        checkpoint = whole / "checkpoint"
        model.save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
        try:
            export(str(checkpoint), whole / "onnx")
        except MissingPackage:
            pass
        else:
            (whole / "int8").mkdir()
            quantize(whole / ONNX, whole / FILES["onnx int8"])
            if type(model).__name__.endswith(HEADS["classification"][0]):
                export(str(checkpoint), whole / "cls_only", int8=True, cls_only=True)
    return folder


def bytes_on_disk(backend: str, folder: Path) -> int:
    """Of the file that a backend needs to start."""
    if backend.startswith(("onnx", "openvino")):
        return (folder / FILES.get(backend, ONNX)).stat().st_size
    size = (folder / "checkpoint" / "model.safetensors").stat().st_size
    return size // 2 if backend == "bf16 weights" else size


def build(
    backend: str, folder: Path, threads: int = 1, loaded: dict[Path, PreTrainedModel] | None = None
) -> InferenceFn:
    """A prepared checkpoint by one backend: a function of tensors (B, L) that gives float32 arrays.

    Args:
        backend: one of `BACKENDS`.
        folder: as `prepare` has written it.
        threads: of the runtimes that do not ask PyTorch.
        loaded: models by folder, so that PyTorch's backends share one.

    Raises:
        Unavailable: this machine does not have what the backend needs.
    """
    if backend not in BACKENDS:
        raise UserError(f"There is no backend {backend!r}.", f"Choose from {', '.join(BACKENDS)}.")
    onnx = backend.startswith("onnx")
    if onnx or backend.startswith("openvino"):
        try:
            require_package("onnxruntime") if onnx else require_package("openvino", extra="")
        except MissingPackage as error:
            raise Unavailable(str(error)) from error
        file = folder / FILES.get(backend, ONNX)
        if not file.is_file():
            raise Unavailable(
                f"{file.parent.name}/{file.name} has not been made: ONNX's packages are missing, "
                "or it is for classifiers alone."
            )
        if onnx:
            return open_onnx(file, threads)
        return _openvino(file, "bf16" if backend.endswith("bf16") else "f32", threads)
    loaded = {} if loaded is None else loaded
    if folder not in loaded:
        loaded[folder] = load_model(str(folder / "checkpoint"))[0]
    model: Any = loaded[folder]
    if backend == "bf16 weights":
        model = copy.deepcopy(model).to(torch.bfloat16)
    elif backend == "compiled fp32":
        if not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++", "cl"))):
            raise Unavailable("torch.compile needs a C++ compiler, and there is none.")
        model = torch.compile(model, dynamic=True)
    return _torch(model, loaded[folder], autocast=backend == "bf16 autocast")


def _torch(model: nn.Module, original: PreTrainedModel, autocast: bool) -> InferenceFn:
    outputs, taken = outputs_of(original), inspect.signature(type(original).forward).parameters

    @torch.inference_mode()
    def run(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            answer = model(**{name: tensor for name, tensor in given.items() if name in taken})
        return {name: getattr(answer, name).float().numpy() for name in outputs}

    return run


def _openvino(file: Path, precision: str, threads: int) -> InferenceFn:
    openvino = require_package("openvino", extra="")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("OpenVINO knows no bfloat16 on this processor.")
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(file), "CPU", options)
    inputs = [port.get_any_name() for port in compiled.inputs]
    outputs = [port.get_any_name() for port in compiled.outputs]

    def run(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        found = compiled({name: np.asarray(given[name], np.int64) for name in inputs})
        return {name: np.array(found[name], np.float32) for name in outputs}

    return run


class BackendModule(nn.Module):
    """A backend with the interface of a model, for the code of a task (`features.predict`)."""

    def __init__(self, run: InferenceFn):
        super().__init__()
        self.run, self.device_of = run, nn.Parameter(torch.zeros(0))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs by name."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        given |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return {name: torch.from_numpy(array) for name, array in self.run(given).items()}
