"""What is compared in each problem, and the hints for the mistakes that are known.

What is right is not here: it is what the reference solutions give. A problem without inputs
compares the values of its names; one with inputs calls the function of its name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Values = dict[str, Any]  # the names that a notebook has defined


@dataclass(frozen=True)
class Problem:
    """How an answer is compared.

    Attributes:
        names: what the notebook must define.
        mistakes: a hint, and what this mistake gives: a function where the answer is one, otherwise
            the values, or a function from the right values to the wrong ones.
        inputs: arguments of each call, if the answer is a function.
        seen: what is compared, of the notebook's values; by default those of `names`.
    """

    names: tuple[str, ...]
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    seen: Callable[[Values], Any] | None = None


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """The same normal numbers in each call."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
