"""`python -m distil_lib.export`."""

import argparse
import shlex
import sys
from dataclasses import dataclass

from transformers import logging as transformers_logging

from distil_lib.common.cli import SettingsParser, option
from distil_lib.common.errors import exit_on_user_error
from distil_lib.errors import UserError
from distil_lib.export.onnx_model import HEADS, export


@dataclass
class ExportConfig:
    """Settings of the command line."""

    model: str = option("data/student", "folder or Hub name of a checkpoint, with its tokenizer")
    output: str = option("", "folder to write; by default runs/MODEL-onnx, or runs/MODEL-int8")
    to: str = option("onnx", "format: onnx")
    head: str | None = option(
        None, f"{', '.join(HEADS)}; by default, what the checkpoint was saved with"
    )
    int8: bool = option(False, "weights in int8, a quarter of the size")
    first_token: bool = option(
        False, "of a classifier: the last layer for the first token alone; same answers, sooner"
    )


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with exit_on_user_error():
        parser = SettingsParser(
            ExportConfig,
            prog="python -m distil_lib.export",
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            description="Write a BERT or DistilBERT as an ONNX file.",
            epilog="Exit codes: 0 done, 2 bad input.",
        )
        config = ExportConfig(**vars(parser.parse_args(arguments)))
        if config.to != "onnx":
            raise UserError(f"There is no format {config.to!r}.", "Choose onnx.")
        stem = config.model.rstrip("/").rpartition("/")[2]
        output = config.output or f"runs/{stem}-{'int8' if config.int8 else 'onnx'}"
        command = shlex.join(["python", "-m", "distil_lib.export", *arguments])
        record = export(config.model, output, config.int8, config.head, command, config.first_token)
        print(
            f"{output}/{record['file']}: {record['head']}, {record['bytes'] / 1e6:.1f} MB, inputs {', '.join(record['inputs'])}; at most "
            f"{record['largest_difference']:.2g} from PyTorch, whose outputs reach {record['largest_output']:.3g}"
        )


if __name__ == "__main__":
    main()
