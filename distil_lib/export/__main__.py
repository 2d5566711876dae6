"""`python -m distil_lib.export`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from distil_lib.common.cli import Program, Settings, option
from distil_lib.export.onnx_model import export


@dataclass
class ExportConfig(Settings):
    """Settings of the command line."""

    model: str = option("data/student", "folder or Hub name of a checkpoint, with its tokenizer")
    output: str = option("", "folder to write; by default runs/MODEL-onnx, or runs/MODEL-int8")
    head: Literal["masked-lm", "classification", "question-answering", "features"] | None = option(
        None,
        "output layer; by default what the checkpoint was saved with; features: a vector of "
        "each token",
    )
    int8: bool = option(False, "weights in int8, a quarter of the size")
    cls_only: bool = option(
        False, "of a classifier: the last layer for [CLS] alone; same answers, faster"
    )


PROGRAM = Program(
    ExportConfig, "python -m distil_lib.export", "Write a BERT or DistilBERT as an ONNX file."
)


def _run(config: ExportConfig, arguments: Sequence[str]) -> str:
    stem = config.model.rstrip("/").rpartition("/")[2]
    output = config.output or f"runs/{stem}-{'int8' if config.int8 else 'onnx'}"
    command = shlex.join(["python", "-m", "distil_lib.export", *arguments])
    record = export(config.model, output, config.int8, config.head, command, config.cls_only)
    inputs, size = ", ".join(record["inputs"]), record["bytes"] / 1e6
    return (
        f"{output}/{record['file']}: {record['head']}, {size:.1f} MB, inputs {inputs}; at most "
        f"{record['largest_difference']:.2g} from PyTorch, whose outputs reach "
        f"{record['largest_output']:.3g}"
    )


main = partial(PROGRAM.run, _run)

if __name__ == "__main__":
    main()
