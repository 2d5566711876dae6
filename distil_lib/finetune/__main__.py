"""`python -m distil_lib.finetune`."""

from collections.abc import Sequence
from functools import partial

from distil_lib.finetune.config import PROGRAM, FinetuneConfig
from distil_lib.finetune.runner import finetune


def _run(config: FinetuneConfig, arguments: Sequence[str]) -> str:
    finetune(config, arguments, progress=True)
    return f"result in {config.result_file()}"


KEPT = "stopped; the seeds that were finished are kept, and the same command resumes"
main = partial(PROGRAM.run, _run, stopped=KEPT)

if __name__ == "__main__":
    main()
