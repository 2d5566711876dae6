"""`python -m distil_lib.timing`."""

from functools import partial

from distil_lib.timing.table3 import PROGRAM, report, run

main = partial(PROGRAM.run, lambda config, arguments: report(run(config, arguments)))

if __name__ == "__main__":
    main()
