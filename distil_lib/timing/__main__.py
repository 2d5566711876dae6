"""`python -m distil_lib.timing`."""

from collections.abc import Sequence

from distil_lib.timing.table3 import PROGRAM, report, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error."""
    PROGRAM.run(lambda config, given: report(run(config, given)), arguments)


if __name__ == "__main__":
    main()
