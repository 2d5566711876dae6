"""Every cut of the default teacher, untrained: how far each is from the whole teacher.

    all_cuts()[0, 2, 5]     # held-out KL divergence of layers 0, 2 and 5, in nats

Six layers can be cut in 63 ways that leave at least one. Their figures are recorded; to record them
again: `DISTIL_RECORD=1 python -c "from distil_lib.pages.cuts import all_cuts; all_cuts()"`.
"""

import itertools
from collections.abc import Callable, Sequence

from distil_lib.common.paths import data_folder
from distil_lib.evaluation import evaluate_masked_lm, held_out_batches
from distil_lib.initialization import initialize_student
from distil_lib.pages.short_runs import CachedTeacher, recorded_runs
from distil_lib.teacher import load_teacher
from distil_lib.text.blocks import load_blocks
from distil_lib.text.tokenizer import load_tokenizer

LAYERS = 6
CUTS = [cut for kept in range(1, LAYERS + 1) for cut in itertools.combinations(range(LAYERS), kept)]


def all_cuts(live: Sequence[tuple[int, ...]] = ()) -> dict[tuple[int, ...], float]:
    """The recorded KL divergence to the whole teacher, in nats, of each cut.

    It is measured as in chapter 4, on the same held-out text.

    Args:
        live: cuts that are measured again here, and compared with the record.

    Raises:
        UserError: if one of these is not what was recorded.
    """
    measured: list[Callable[[tuple[int, ...]], float]] = []

    def run(*layers: int) -> float:
        if not measured:  # text and teacher are loaded when they are needed
            measured.append(_measure())
        return measured[0](layers)

    return recorded_runs("cuts", run, CUTS, live)


def _measure() -> Callable[[tuple[int, ...]], float]:
    tokenizer = load_tokenizer(data_folder("tokenizer"))
    teacher = load_teacher(data_folder("teacher"))
    blocks = load_blocks("docs:pandas,scikit-learn", tokenizer, 64)
    held_out = list(held_out_batches(blocks.held_out, tokenizer, size=96, batch_size=32))
    observer = CachedTeacher(teacher)

    def measure(layers: tuple[int, ...]) -> float:
        return evaluate_masked_lm(initialize_student(teacher, layers), held_out, observer)["kl"]

    return measure
