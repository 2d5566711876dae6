r"""Accelerate's launcher, with one message for bad input and exit codes that mean something.

    python -m distil_lib.launch distil_lib/pretrain.py --preset mini
    python -m distil_lib.launch --config_file distil_lib/training/accelerate_configs/ddp.yaml \\
        distil_lib/pretrain.py --preset mini

It takes what `accelerate launch` takes and starts what that would start. `accelerate launch` itself
exits with 1 and prints a traceback whatever its program says. This command checks the settings
before any process starts. A single pretraining runs in this very process, which has PyTorch loaded
already, and another program takes its place: signals and exit codes need nobody to hand them on. Of
several processes, the code of the one that failed first counts.
"""

import gc
import logging
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from distil_lib.common.errors import exit_on_user_error
from distil_lib.errors import UserError

LEVEL = "TORCH_CPP_LOG_LEVEL"
PRETRAIN = Path(__file__).with_name("pretrain.py")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Launch, and exit with the program's code: 0 done, 2 bad input, 130 or 143 stopped."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with exit_on_user_error():
            sys.exit(_launch(given))
    except KeyboardInterrupt:
        sys.exit(130)


def _launch(arguments: Sequence[str]) -> int:
    loud = os.environ.get(LEVEL)
    os.environ[LEVEL] = loud or "FATAL"  # read once, here: this process only tries to connect
    from accelerate.commands import launch

    if loud is None:
        del os.environ[LEVEL]
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    def refuse(message: str) -> NoReturn:
        raise UserError(f"The launcher does not understand: {message[:200]}.", "See --help.")

    parser = launch.launch_command_parser()
    parser.prog, parser.error = "python -m distil_lib.launch", refuse
    options = parser.parse_args(arguments)
    check_settings(options.training_script, options.training_script_args)
    asked = options.num_processes  # before Accelerate writes the number of GPUs there
    logging.disable(logging.CRITICAL)  # the launcher's own: what counts is what the program says
    try:
        options = launch._validate_launch_command(options)[0]
        if options.use_deepspeed or options.tpu or options.use_megatron_lm:
            refuse("DeepSpeed, Megatron-LM and TPUs are not supported")
        if (options.multi_gpu or options.use_fsdp) and not options.cpu:
            return _launch_several(options)
        if options.config_file is not None:
            asked = options.num_processes
        if (asked or 1) > 1 or (options.num_machines or 1) > 1:
            raise UserError(
                "With these settings the launcher would start a single process.",
                "Leave out --cpu (use_cpu) and give --multi_gpu (distributed_type: MULTI_GPU): "
                "processes that have no GPU compute on the CPU.",
                setting=("num_processes", "num_machines"),
            )
        command, environment = prepare_simple_launcher_cmd_env(options)
    except UserError:
        raise
    except (ValueError, AssertionError, OSError, TypeError, AttributeError) as error:
        refuse((str(error).splitlines() or [type(error).__name__])[0].rstrip("."))
    if command[0] == sys.executable and _is_pretraining(options.training_script):
        _pretrain_here(environment, options.training_script_args)
        return 0
    if os.name == "nt":
        return subprocess.call(command, env=environment)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def check_settings(script: str, arguments: Sequence[str]) -> None:
    """Refuse settings of the pretraining that are wrong, before any process starts.

    Raises:
        UserError: they are.
    """
    if _is_pretraining(script):
        from distil_lib.training.config import parse_arguments

        parse_arguments(arguments)


def _is_pretraining(script: str) -> bool:
    return Path(script).resolve() == PRETRAIN or script == "distil_lib.pretrain"


def _pretrain_here(environment: Mapping[str, str], arguments: Sequence[str]) -> None:
    """What a new process would do, without the seconds in which it loads PyTorch once more."""
    import torch

    from distil_lib import pretrain

    logging.disable(logging.NOTSET)
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # which was read when torch began
    gc.freeze()
    gc.enable()
    pretrain.main(arguments)


def _launch_several(options: Namespace) -> int:
    from accelerate.commands.launch import multi_gpu_launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from distil_lib.common.rendezvous import watch_machines

    watch_machines(options)
    try:
        multi_gpu_launcher(options)
    except SignalException as stop:  # the processes have been told, and have ended
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code not in (2, 130, 143):  # of those the process has told why
            print(f"error: process {rank} has ended with code {code}.", file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    gc.disable()  # as in `pretrain`
    main()
