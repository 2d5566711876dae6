"""`python -m distil_lib.finetune`."""

from collections.abc import Sequence

from distil_lib.finetune.config import PROGRAM, FinetuneConfig
from distil_lib.finetune.runner import finetune


def _run(config: FinetuneConfig, arguments: Sequence[str]) -> str:
    finetune(config, arguments, progress=True)
    return f"result in {config.result_file()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error."""
    kept = "stopped; the seeds that were finished are kept, and the same command resumes"
    PROGRAM.run(_run, arguments, stopped=kept)


if __name__ == "__main__":
    main()
