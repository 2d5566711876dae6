"""Pretrain a teacher, or distil a student from one.

    accelerate launch distil_lib/pretrain.py --preset mini                # distil the default student
    accelerate launch distil_lib/pretrain.py --preset mini-teacher        # pretrain the default teacher
    accelerate launch distil_lib/pretrain.py --preset mini --resume       # go on after a stop

Section 3 of Sanh et al. (2019). The mean of each loss is taken over the tokens of the whole batch, wherever its parts are computed;
gradients are exchanged once per optimizer step. So the same preset gives the same curve on any number of processes.
"""

import signal
import sys

from transformers.utils import logging as transformers_logging

from distil_lib.common.errors import exit_on_user_error
from distil_lib.training.config import parse_arguments
from distil_lib.training.loop import PretrainingRun


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with exit_on_user_error():
        run = PretrainingRun(parse_arguments(arguments), arguments)

        def ask_to_stop(number: int, frame: object) -> None:
            run.stop_signal = number  # acted on at the end of the step

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask_to_stop)
        try:
            run.train()
        finally:  # a message must not hang on the end of the progress bar
            if run.bar is not None:
                run.bar.close()


if __name__ == "__main__":
    main()
