"""What the outputs of a backend lose against PyTorch in float32.

difference({"logits": expected}, {"logits": found})    # {"largest": 0.02, "equal": 0.99}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from distil_lib.errors import UserError
from distil_lib.export.load import INPUTS, dummy_inputs
from distil_lib.finetune.features import Collator, Split, encode, predict, text_length
from distil_lib.finetune.models import label_order, load_task_tokenizer, positions
from distil_lib.tasks.registry import find_task, load_task
from distil_lib.timing.backend_config import BackendComparisonConfig
from distil_lib.timing.backend_latency import open_backends
from distil_lib.timing.backends import EAGER, BackendModule


def difference(
    expected: Mapping[str, Sequence[np.ndarray]], found: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, float]:
    """Compare two runs over the same texts.

    Args:
        expected: outputs by name, an array of each text.
        found: the same of the other run.

    Returns:
        `largest`, the largest difference of an output, and `equal`, the share of texts in which
        every argmax is the same.

    Raises:
        UserError: there are no texts, or an output is NaN or infinite.
    """
    largest, equal = [], []
    for name, arrays in expected.items():
        pairs = list(zip(arrays, found[name], strict=True))
        largest += [np.abs(a - b).max() for a, b in pairs]
        equal.append([a.argmax() == b.argmax() for a, b in pairs])
    if not largest or not np.isfinite(largest).all():
        raise UserError("Outputs that are compared are NaN or infinite.", "Leave this backend out.")
    return {"largest": float(np.max(largest)), "equal": float(np.all(equal, axis=0).mean())}


def score(config: BackendComparisonConfig, role: str, name: str, folder: Path) -> dict[str, dict]:
    """Of each backend the task's score and its `difference` from eager fp32.

    Args:
        config: names the task, its data, and the backends.
        role: "teacher" or "student".
        name: the checkpoint, for its tokenizer and the order of its labels.
        folder: as `backends.prepare` has written it.
    """
    task = find_task(config.task)
    split_name = task.evaluation[0]
    rows = load_task(task, config.data_dir, [split_name])[1][split_name]
    tokenizer = load_task_tokenizer(name)
    model_config = AutoConfig.from_pretrained(folder / "checkpoint")
    length = text_length(0, task, positions(model_config), name)
    split = Split(task, rows, encode(task, rows, tokenizer, length))
    order = label_order(model_config, task, name)
    collate = Collator(task, tokenizer)
    given = {k: v for k, v in collate([split.features[0]]).items() if k in INPUTS}
    opened, _ = open_backends({role: folder}, config.backends, torch.get_num_threads(), given)
    found = {
        backend: predict(BackendModule(run), split.features, collate, batch_size=8)
        for (_, backend), run in opened.items()
    }
    return {
        backend: {
            "metric": task.metric,
            "score": task.compute(split.decode(outputs, order), split.references)[task.metric],
            **difference(found[EAGER], outputs),
            "examples": len(rows),
        }
        for backend, outputs in found.items()
    }


def random_difference(
    config: BackendComparisonConfig, role: str, folder: Path, vocab_size: int, texts: int = 64
) -> dict[str, dict]:
    """`difference` from eager fp32 on random ids."""
    given = [dummy_inputs(INPUTS, vocab_size, 1, 32, seed) for seed in range(texts)]
    opened, _ = open_backends({role: folder}, config.backends, torch.get_num_threads(), given[0])
    found = {}
    for (_, backend), run in opened.items():
        outputs = [run(one) for one in given]
        found[backend] = {name: [one[name][0] for one in outputs] for name in outputs[0]}
    return {backend: difference(found[EAGER], outputs) for backend, outputs in found.items()}
