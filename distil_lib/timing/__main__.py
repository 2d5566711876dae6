"""`python -m distil_lib.timing`."""

import sys

import datasets
from transformers import logging as transformers_logging

from distil_lib.common.cli import SettingsParser
from distil_lib.common.errors import exit_on_user_error
from distil_lib.timing.table3 import TimingConfig, report, run


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    datasets.disable_progress_bars()
    with exit_on_user_error():
        parser = SettingsParser(
            TimingConfig,
            prog="python -m distil_lib.timing",
            allow_abbrev=False,
            description="Time systems on a CPU (Sanh et al. 2019, Table 3).",
            epilog="Exit codes: 0 done, 2 bad input.",
        )
        config = TimingConfig(**vars(parser.parse_args(arguments)))
        print(report(run(config, arguments)))


if __name__ == "__main__":
    main()
