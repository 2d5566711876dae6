"""The one exception that is meant for the person who asked for something that cannot be done.

    raise UserError("The model knows 32 positions; a block has 64 tokens.",
                    "Choose blocks of 32 tokens at most.", setting="block_size")

A library function states the fact and what would help. It does not name command-line flags, which
are wrong advice in a notebook: it names the setting, and the program adds `--block_size`.
"""


class UserError(ValueError):
    """Something that was asked for cannot be done.

    Programs print `problem` and `remedy` and exit with code 2 (`common.errors.exit_on_user_error`);
    in a notebook the exception itself reads the same.

    Args:
        problem: What was found, and what was expected.
        remedy: What to do about it.
        setting: The name of the setting, or the names, that the remedy changes.
    """

    def __init__(self, problem: str, remedy: str = "", setting: str | tuple[str, ...] = ()):
        # All of it goes to the base class, so that the error survives pickling to another process.
        super().__init__(problem, remedy, setting)
        self.problem, self.remedy = problem, remedy
        self.settings = (setting,) if isinstance(setting, str) else tuple(setting)

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".rstrip()
