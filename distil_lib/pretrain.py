"""Pretrain a teacher, or distil a student from one.

    accelerate launch distil_lib/pretrain.py --preset mini            # distil the default student
    accelerate launch distil_lib/pretrain.py --preset mini-teacher    # pretrain its teacher
    accelerate launch distil_lib/pretrain.py --preset mini --resume   # resume after a stop
    accelerate launch distil_lib/pretrain.py --preset mini --plan     # only what it will need

Section 3 of Sanh et al. (2019). The mean of each loss is taken over the tokens of the whole batch,
wherever its parts are computed; gradients are exchanged once per optimizer step. So the same preset
gives the same curve on any number of processes.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence

from distil_lib.common.errors import resumable
from distil_lib.common.processes import end_with_launcher, run_program, shared_refusal

if __name__ == "__main__":
    end_with_launcher()  # before the imports that take seconds
    gc.disable()  # what they make is no garbage, and looking for some takes a tenth of the time

from distil_lib.common.hardware import launch_precision
from distil_lib.training.config import PLAN, PROGRAM
from distil_lib.training.loop import PretrainingRun
from distil_lib.training.plan import plan_run
from distil_lib.training.sharding import check_launch_backend


def _run(arguments: Sequence[str]) -> str | None:
    if f"--{PLAN}" in arguments:  # alone: what one process says holds for all
        return plan_run(PROGRAM.parse(arguments)) if os.environ.get("RANK", "0") == "0" else None
    with shared_refusal():
        config = PROGRAM.parse(arguments)
        check_launch_backend()
        launch_precision(config.precision)
    run = PretrainingRun(config, list(arguments))

    def ask_to_stop(number: int, frame: object) -> None:
        run.stop_signal = number  # acted on at the end of the step

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    with resumable():
        run.train()
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error, or where it was stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    run_program(lambda: _run(given))


if __name__ == "__main__":
    gc.freeze()  # nor is it looked through again between two steps
    gc.enable()
    main()
