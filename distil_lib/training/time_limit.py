"""A run that has to end at a given time: `--time_limit 8m`."""

import re
import time

from distil_lib.errors import UserError

FIRST_GUESS = 0.1  # of the limit, for the last evaluation, checkpoint and model; then measured


def parse_duration(text: str) -> float:
    """Seconds of "90s", "8m" or "1h30m"."""
    match = re.fullmatch(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?", text)
    hours, minutes, rest = (int(n or 0) for n in match.groups()) if match else (0, 0, 0)
    seconds = 3600 * hours + 60 * minutes + rest
    if not seconds:
        raise UserError(
            f"{text!r} is no length of time.", "Write it as 90s, 8m or 1h30m.", "time_limit"
        )
    return float(seconds)


class TimeLimit:
    """How much of the run is over by the clock, from 0 to 1.

    The last evaluation, checkpoint and model have to fit in as well. What they take is measured
    while the run goes on; until then a tenth of the limit is kept for them.

    Args:
        seconds: the limit.
        started: when it began to count, by `time.monotonic`.
        first: the share of the run that was over before, if it was resumed.
    """

    def __init__(self, seconds: float, started: float, first: float = 0.0):
        self.first, self.end = first, started + seconds
        self.begin = time.monotonic()
        self.seconds, self.longest = seconds, dict.fromkeys(("step", "evaluate", "save"), 0.0)

    def measured(self, what: str, seconds: float) -> None:
        """Note how long a "step", "evaluate" or "save" took; the longest counts."""
        self.longest[what] = max(self.longest[what], seconds)

    def share(self) -> float:
        """The share of the run that is over."""
        closing = 2 * sum(self.longest.values()) + 0.02 * self.seconds
        if not self.longest["save"]:
            closing = max(closing, FIRST_GUESS * self.seconds)
        available = self.end - closing - self.begin
        over = time.monotonic() - self.begin
        share = min(over / available, 1.0) if available > 0 else 1.0
        return self.first + (1 - self.first) * share
