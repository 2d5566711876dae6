"""What the loop counts between two lines of `metrics.jsonl`."""

import time


class Throughput:
    """Tokens and seconds of the training itself, without evaluations and checkpoints."""

    def __init__(self, seconds: float = 0.0, tokens: int = 0):
        self.seconds, self.tokens = seconds, tokens  # up to the last line
        self.new_tokens = self.new_places = 0
        self.restart()

    def restart(self) -> None:
        """Do not count what happened since the last step."""
        self.began = time.perf_counter()

    def add(self, tokens: int, places: int) -> None:
        """Count a step. places: all that were computed, padding included."""
        self.new_tokens, self.new_places = self.new_tokens + tokens, self.new_places + places

    def take(self, flops_per_token: float, peak: float) -> dict[str, float]:
        """The figures since the last line, and begin anew."""
        now = time.perf_counter()
        speed = self.new_tokens / (now - self.began)
        figures = {
            "tokens_per_second": round(speed, 1),
            "mfu": round(speed * flops_per_token / peak, 4),
            "non_padding_fraction": round(self.new_tokens / self.new_places, 4),
        }
        self.seconds, self.tokens = self.seconds + now - self.began, self.tokens + self.new_tokens
        self.new_tokens = self.new_places = 0
        self.began = now
        return figures
