"""One checkpoint, made faster in several ways: the rungs of chapter 11's ladder.

    folder = prepare("data/student", Path("runs/ladder-student"))            # the checkpoint, and the ONNX files beside it
    run = build("onnx int8", folder, threads=1)                              # or `Unavailable`, which says why
    run({"input_ids": ids, "attention_mask": mask})["logits"]                # tensors in, arrays out, whatever the rung

None of them trains anything, and none needs a calibration text. What is missing on a machine, a package or a compiler, leaves its rung out.
"""

import contextlib
import copy
import inspect
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_lib.common.files import atomic_folder
from distil_lib.errors import UserError
from distil_lib.export.onnx_model import (
    HEADS,
    MissingPackage,
    export,
    load_model,
    need,
    open_onnx,
    quantize,
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
FILES = {
    "onnx int8": "int8/model_int8.onnx",
    "onnx int8, first token": "first_token/model_int8.onnx",
}  # of other runtimes' rungs, ONNX
Run = Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]


class Unavailable(Exception):
    """A rung that this machine does not have; its text says why."""


def runtimes() -> dict[str, str]:
    """Versions of the packages that carry out the rungs beyond PyTorch, as far as they are installed."""
    found = {}
    for name in ("onnx", "onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def prepare(
    model: PreTrainedModel | str, folder: Path, tokenizer_of: str = "data/tokenizer"
) -> Path:
    """Write all that the rungs need into `folder`: `checkpoint`, `onnx`, `int8` and, of a classifier, `first_token`; it is returned.

    model: a checkpoint's folder, or a model with random weights, which gets the tokenizer of `tokenizer_of`. Without ONNX's packages, whose
    rungs are then unavailable, only the checkpoint.
    """
    if isinstance(model, str):
        tokenizer, model = load_task_tokenizer(model), load_model(model)[0]
    else:
        tokenizer = load_task_tokenizer(tokenizer_of)
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
                export(str(checkpoint), whole / "first_token", int8=True, first_token=True)
    return folder


def bytes_on_disk(rung: str, folder: Path) -> int:
    """Of the file that a rung needs to start."""
    if rung.startswith(("onnx", "openvino")):
        return (folder / FILES.get(rung, ONNX)).stat().st_size
    size = (folder / "checkpoint" / "model.safetensors").stat().st_size
    return size // 2 if rung == "bf16 weights" else size


def build(
    rung: str, folder: Path, threads: int = 1, loaded: dict[Path, PreTrainedModel] | None = None
) -> Run:
    """A prepared checkpoint on one rung, as a function from tensors (B, L) to the outputs' float32 arrays.

    threads: of the runtimes that do not ask PyTorch. loaded: models by folder, so that PyTorch's rungs share one. Raises `Unavailable`.
    """
    if rung not in BACKENDS:
        raise UserError(f"There is no rung {rung!r}.", f"Choose from {', '.join(BACKENDS)}.")
    try:
        if rung.startswith("onnx"):
            return _onnx(folder / FILES.get(rung, ONNX), threads)
        if rung.startswith("openvino"):
            return _openvino(folder / ONNX, "bf16" if rung.endswith("bf16") else "f32", threads)
    except MissingPackage as error:
        raise Unavailable(str(error)) from error
    loaded = {} if loaded is None else loaded
    if folder not in loaded:
        loaded[folder] = load_model(str(folder / "checkpoint"))[0]
    model = loaded[folder]
    if rung == "bf16 weights":
        model = copy.deepcopy(model).to(torch.bfloat16)
    elif rung == "compiled fp32":
        _need_compiler()
        model = torch.compile(model, dynamic=True)
    return _torch(model, loaded[folder], autocast=rung == "bf16 autocast")


def outputs_of(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of a model's outputs."""
    return next(
        outputs for ending, _, outputs in HEADS.values() if type(model).__name__.endswith(ending)
    )


def _torch(model: nn.Module, original: PreTrainedModel, autocast: bool) -> Run:
    outputs, taken = outputs_of(original), inspect.signature(type(original).forward).parameters

    @torch.inference_mode()
    def run(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            answer = model(**{name: tensor for name, tensor in given.items() if name in taken})
        return {name: getattr(answer, name).float().numpy() for name in outputs}

    return run


def _onnx(file: Path, threads: int) -> Run:
    need("onnxruntime")
    if not file.is_file():
        raise Unavailable(
            f"{file.parent.name}/{file.name} has not been made: ONNX's packages are missing, or it is for classifiers alone."
        )
    return open_onnx(file, threads)


def _openvino(file: Path, precision: str, threads: int) -> Run:
    openvino = need("openvino", extra="")
    if not file.is_file():
        raise Unavailable(f"{file.name} has not been made: ONNX's packages are missing.")
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


def _need_compiler() -> None:
    names = (os.environ.get("CXX") or "g++", "clang++", "cl")
    if not any(map(shutil.which, names)):
        raise Unavailable("torch.compile needs a C++ compiler, and there is none.")


class Module(nn.Module):
    """A rung behind the face of a model, so that a task's own code can ask it (`task_features.predict`)."""

    def __init__(self, run: Run):
        super().__init__()
        self.run, self.device_of = run, nn.Parameter(torch.zeros(0))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        given |= {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return {name: torch.from_numpy(array) for name, array in self.run(given).items()}
