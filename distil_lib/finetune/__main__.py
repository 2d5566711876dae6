"""`python -m distil_lib.finetune`."""

import sys

import datasets
from transformers import logging as transformers_logging

from distil_lib.common.errors import exit_on_user_error
from distil_lib.finetune.config import parse_arguments
from distil_lib.finetune.runner import finetune


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with exit_on_user_error():
        config = parse_arguments(arguments)
        try:
            finetune(config, arguments, progress=True)
        except KeyboardInterrupt:
            print(
                "stopped; the seeds that were finished are kept, and the same command goes on.",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(130)
        print(f"result in {config.result_file()}", flush=True)


if __name__ == "__main__":
    main()
