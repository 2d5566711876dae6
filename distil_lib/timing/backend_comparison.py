"""How much faster the same models become by other backends, without learning another weight.

    python -m distil_lib.timing.backend_comparison --threads 1 2       # full size, random weights
    python -m distil_lib.timing.backend_comparison --task doc-package --teacher T --student S

Of each backend: latency by length and batch, memory, size on disk, how far its outputs are from
those of eager fp32, and, of models that are fine-tuned on a task, its score. Every visit, after a
pause, calls a backend twice and times the second call, as a program that keeps running would find
it. Random weights (without teacher and student: a BERT-base and a DistilBERT) take the time of
trained ones, but nothing can be said about what their decisions lose.
"""

import datetime
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from distil_lib.common.files import check_writable, write_result
from distil_lib.common.hardware import check_threads
from distil_lib.errors import UserError
from distil_lib.export.load import INPUTS, dummy_inputs
from distil_lib.finetune.models import label_order, load_config, load_task_tokenizer, positions
from distil_lib.tasks.registry import find_task
from distil_lib.timing.backend_config import PROGRAM, BackendComparisonConfig
from distil_lib.timing.backend_differences import random_difference, score
from distil_lib.timing.backend_latency import measure, memory
from distil_lib.timing.backend_report import SHAPE, report
from distil_lib.timing.backends import bytes_on_disk, prepare, runtimes
from distil_lib.timing.protocol import describe_cpu, in_pinned_process
from distil_lib.timing.systems import new_model

SYSTEM_OF = {"teacher": "bert-base", "student": "distilbert"}
ROLES = tuple(SYSTEM_OF)


def compare_backends(config: BackendComparisonConfig, arguments: Sequence[str] = ()) -> dict:
    """The whole record; written to `config.output` if that is not empty.

    Raises:
        UserError: for bad input, and for a backend whose outputs are NaN.
    """
    if config.output:
        check_writable(Path(config.output), new=True)
    check_threads(max(config.threads))  # not after an hour with fewer
    names = {role: getattr(config, role) for role in ROLES}
    # Both are checked before the first is exported, which takes minutes.
    configs = {role: load_config(name) for role, name in names.items() if name}
    for role in configs:
        load_task_tokenizer(names[role])
    models = {
        role: name or new_model(SYSTEM_OF[role], config.size, labels=2)
        for role, name in names.items()
    }
    configs |= {role: m.config for role, m in models.items() if not isinstance(m, str)}
    if max(config.lengths) > (longest := min(map(positions, configs.values()))):
        raise UserError(
            f"A length of {max(config.lengths)} is asked for.",
            f"These models read {longest} tokens at most.",
            setting="lengths",
        )
    if config.task:
        for role, model_config in configs.items():
            label_order(model_config, find_task(config.task), names[role])
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "distil_lib.timing.backend_comparison", *arguments]),
        "begun": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "configuration": asdict(config),
        "machine": describe_cpu() | {"runtimes": runtimes()},
        "backends": {},
        "threads": {},
    }
    with tempfile.TemporaryDirectory() as where:
        folders = {role: prepare(model, Path(where, role)) for role, model in models.items()}
        vocab_size = min(c.vocab_size for c in configs.values())
        given, fewest = dummy_inputs(INPUTS, vocab_size, *SHAPE), min(config.threads)
        for role, folder in folders.items():
            compared: tuple = (random_difference, config, role, folder, vocab_size)
            if config.task:
                compared = (score, config, role, names[role], folder)
            record["backends"][role] = {
                backend: {
                    "difference": difference,
                    "bytes": bytes_on_disk(backend, folder),
                    "memory": in_pinned_process(fewest, memory, backend, folder, given),
                }
                for backend, difference in in_pinned_process(fewest, *compared).items()
            }
        for threads in dict.fromkeys(config.threads):
            found = in_pinned_process(threads, measure, folders, config, vocab_size)
            record["threads"][str(threads)] = found
    if config.output:
        write_result(Path(config.output), record)
    return record


main = partial(PROGRAM.run, lambda config, arguments: report(compare_backends(config, arguments)))

if __name__ == "__main__":
    main()
