"""How much faster the same models become without another weight being learned: every rung of `rungs`, in one interleaved run.

    python -m distil_lib.timing.backend_comparison --threads 1 2 --output data/results/timing/ladder-full.json              # full size, random weights
    python -m distil_lib.timing.backend_comparison --teacher runs/teacher-doc-package/seed-0 --student runs/student-doc-package/seed-0 --task doc-package

Of each rung: latency by length and batch, memory, size on disk, how far its outputs are from those of eager fp32, and, of models that
are fine-tuned on a task, its score. Every visit, after a pause, calls a rung twice and times the second call, as a program that keeps
running would find it. Random weights (without --teacher and --student: a BERT-base and a DistilBERT) take the time of trained ones, but
nothing can be said about what their decisions lose.
"""

import datetime
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import psutil
import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoConfig,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from distil_lib.common.cli import NonNegativeInt, Program, Settings, ThreadCounts, Width, option
from distil_lib.common.files import check_writable, write_result
from distil_lib.errors import UserError
from distil_lib.export.onnx_model import INPUTS, example
from distil_lib.finetune.features import Collator, Split, encode, predict, text_length
from distil_lib.finetune.models import label_order, load_task_tokenizer, positions
from distil_lib.tasks.registry import find_task, load_task
from distil_lib.timing.backends import (
    BACKENDS,
    EAGER,
    Module,
    Run,
    Unavailable,
    build,
    bytes_on_disk,
    prepare,
    runtimes,
)
from distil_lib.timing.protocol import interleaved_rounds, machine, pinned_process, quotient, spread

ROLES = ("teacher", "student")
SHAPE = (1, 32)  # batch and length at which rungs are compared
PAUSE = 0.05  # seconds before each visit: threads of the runtime before it wait for work without sleeping, and would take its cores


Counts = Annotated[list[Width], Field(min_length=1)]
Backend = Literal[tuple(BACKENDS)]  # type: ignore[valid-type]


@dataclass
class BackendComparisonConfig(Settings):
    """Settings of the command line."""

    teacher: str = option(
        "", "checkpoint with its tokenizer; by default a BERT-base with random weights"
    )
    student: str = option("", "the same; by default a DistilBERT with random weights")
    backends: list[Backend] = option([*BACKENDS], "what is compared")
    threads: ThreadCounts = option([1], "counts of threads, each in a process of its own")
    batches: Counts = option([1, 8], "texts in a batch")
    lengths: Counts = option([8, 32, 128], "tokens of a text")
    rounds: Annotated[int, Field(ge=1, le=10_000)] = option(
        9, "visits to every backend at every shape"
    )
    task: str = option("", "a task that both are fine-tuned on: the score of each backend")
    data_dir: str | None = option(None, "folder with the task's files, instead of the Hub")
    rows: NonNegativeInt = option(0, "score the first so many examples; 0 for all")
    size: Literal["full", "small"] = option(
        "full", "of random models: full, or small: a try-out in seconds"
    )
    output: str = option("", "JSON file to write, with all samples")

    def check(self) -> None:
        """See `Settings.check`."""
        if self.task and not (self.teacher and self.student):
            raise UserError(
                "Random weights have learned no task.",
                "Give a teacher and a student that are fine-tuned on it, or no task.",
                setting=("teacher", "student", "task"),
            )
        if self.output and Path(self.output).exists():
            raise UserError(
                f"{self.output} exists.", "Choose another name, or delete the file.", "output"
            )
        # What all are compared to is always there.
        chosen = [name for name in BACKENDS if name in self.backends and name != EAGER]
        self.backends = [EAGER, *chosen]


PROGRAM = Program(
    BackendComparisonConfig,
    "python -m distil_lib.timing.backend_comparison",
    "The same models by every backend: latency, memory, size, and what the outputs lose.",
)


def random_model(role: str, size: str = "full") -> torch.nn.Module:
    """A BERT-base or a DistilBERT that classifies pairs, weights random."""
    torch.manual_seed(0)
    if role == "teacher":
        sizes = {
            "hidden_size": 96,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "vocab_size": 8192,
        }
        return BertForSequenceClassification(
            BertConfig(**(sizes if size == "small" else {}))
        ).eval()
    sizes = {"dim": 96, "n_heads": 4, "hidden_dim": 384, "n_layers": 2, "vocab_size": 8192}
    return DistilBertForSequenceClassification(
        DistilBertConfig(**(sizes if size == "small" else {}))
    ).eval()


# ----------------------------------------------------------------------------------------------------- of one rung, in one process
def open_backends(
    folders: Mapping[str, Path], rungs: Sequence[str], threads: int, given: Mapping
) -> tuple[dict[tuple, Run], dict[str, str]]:
    """Those that run, by role and rung, and of the others the reason. given: inputs to try them on."""
    opened, reasons, loaded = {}, {}, {}
    for role, folder in folders.items():
        for rung in rungs:
            try:
                run = build(rung, folder, threads, loaded)
                run(given)
                opened[role, rung] = run
            except Unavailable as reason:
                reasons[rung] = str(reason)
            except (
                RuntimeError,
                OSError,
            ) as error:  # a compiler or a runtime that is there and fails
                reasons[rung] = (
                    f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
                )
    return opened, reasons


def second_call(
    run: Run, given: Mapping[str, Tensor], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds."""
    run(given)
    start = clock()
    run(given)
    return clock() - start


def latencies(
    opened: Mapping[tuple, Run],
    shapes: Mapping[tuple, Mapping],
    rounds: int,
    clock=time.perf_counter,
    pause=PAUSE,
) -> dict:
    """Of each shape: of each role and rung the seconds of each round. shapes: inputs by (batch, length)."""

    def visit(run: Run, given: Mapping[str, Tensor]) -> float:
        time.sleep(pause)
        return second_call(run, given, clock)

    found = {}
    for shape, given in shapes.items():
        passes = {
            key: lambda run=run, given=given: visit(run, given) for key, run in opened.items()
        }
        for run in opened.values():
            run(given)  # a compiler, or a cache of shapes, begins its work here
        found[shape] = interleaved_rounds(passes, rounds)
        print(f"batch {shape[0]}, length {shape[1]}", file=sys.stderr, flush=True)
    return found


def measure(folders: Mapping[str, Path], config: BackendComparisonConfig, vocab_size: int) -> dict:
    """Latencies of all rungs, in this process, whose threads are set."""
    threads = torch.get_num_threads()
    shapes = {
        (b, n): example(INPUTS, vocab_size, b, n) for b in config.batches for n in config.lengths
    }
    for given in shapes.values():
        given["attention_mask"].fill_(1)
    opened, reasons = open_backends(folders, config.backends, threads, next(iter(shapes.values())))
    found = latencies(opened, shapes, config.rounds)
    reference = {shape: seconds["teacher", EAGER] for shape, seconds in found.items()}
    rows = [
        {
            "role": role,
            "rung": rung,
            "batch": shape[0],
            "length": shape[1],
            "seconds": seconds,
            "ms": spread(1000 * np.array(seconds)),
            "texts_per_second": shape[0] / float(np.median(seconds)),
            "speed": quotient(reference[shape], seconds),
        }
        for shape, each in found.items()
        for (role, rung), seconds in each.items()
    ]
    return {"threads": threads, "machine": machine(), "unavailable": reasons, "rows": rows}


def memory(rung: str, folder: Path, given: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Bytes by which this process, a fresh one, has grown once the rung has answered, and at most on the way; None if it is unavailable."""
    before = psutil.Process().memory_info().rss
    try:
        run = build(rung, folder, torch.get_num_threads())
        for _ in range(3):
            run(given)
    except (Unavailable, RuntimeError, OSError):
        return None
    return {"resident": psutil.Process().memory_info().rss - before, "peak": _peak() - before}


def _peak() -> int:
    """The most memory this process has had."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(
            int(line.split()[1]) * 1024
            for line in status.read_text().splitlines()
            if line.startswith("VmHWM")
        )
    if (peak := getattr(psutil.Process().memory_info(), "peak_wset", None)) is not None:  # Windows
        return peak
    import resource  # which Windows does not have

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes


# ---------------------------------------------------------------------------------------------------------- what the outputs lose
def difference(
    expected: Mapping[str, Sequence[np.ndarray]], found: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, float]:
    """Of two runs over the same texts: the largest difference of an output, and the share of texts in which every argmax is the same."""
    largest, same = 0.0, None
    for name, arrays in expected.items():
        pairs = list(zip(arrays, found[name], strict=True))
        largest = max([largest, *(float(np.abs(a - b).max()) for a, b in pairs)])
        equal = np.array([a.argmax() == b.argmax() for a, b in pairs])
        same = equal if same is None else same & equal
    return {"largest": largest, "equal": float(same.mean())}


def score(config: BackendComparisonConfig, role: str, name: str, folder: Path) -> dict[str, dict]:
    """Of each rung the task's figures, and its `difference` from eager fp32, over the task's evaluation split."""
    task = find_task(config.task)
    split_name = task.evaluation[0]
    rows = load_task(task, config.data_dir, [split_name])[1][split_name]
    rows = rows.select(range(min(config.rows or len(rows), len(rows))))
    tokenizer, model_config = (
        load_task_tokenizer(name),
        AutoConfig.from_pretrained(folder / "checkpoint"),
    )
    length = text_length(0, task, positions(model_config), name)
    split = Split(task, rows, encode(task, rows, tokenizer, length))
    order = label_order(model_config, task, name)
    batch = dict(Collator(task, tokenizer)([split.features[0]]))
    opened, _ = open_backends(
        {role: folder},
        config.backends,
        torch.get_num_threads(),
        {k: v for k, v in batch.items() if k in INPUTS},
    )
    scores, expected = {}, None
    for (_, rung), run in opened.items():
        outputs = predict(Module(run), split.features, Collator(task, tokenizer), batch_size=8)
        expected = outputs if expected is None else expected
        scores[rung] = {
            "metric": task.metric,
            "score": task.compute(split.decode(outputs, order), split.references)[task.metric],
        }
        scores[rung] |= difference(expected, outputs) | {"examples": len(rows)}
    return scores


def random_difference(
    config: BackendComparisonConfig, role: str, folder: Path, vocab_size: int, texts: int = 64
) -> dict[str, dict]:
    """`difference` from eager fp32 on random ids."""
    given = [example(INPUTS, vocab_size, 1, 32, seed) for seed in range(texts)]
    opened, _ = open_backends({role: folder}, config.backends, torch.get_num_threads(), given[0])
    found = {}
    for (_, rung), run in opened.items():
        outputs = [run(one) for one in given]
        found[rung] = {name: [one[name][0] for one in outputs] for name in outputs[0]}
    return {rung: difference(found[EAGER], outputs) for rung, outputs in found.items()}


# --------------------------------------------------------------------------------------------------------------------- the program
def compare_backends(config: BackendComparisonConfig, arguments: Sequence[str] = ()) -> dict:
    """The whole record; written to `config.output` if that is not empty. Raises `UserError` for bad input."""
    if config.output:
        check_writable(Path(config.output))
    names = {role: getattr(config, role) for role in ROLES}
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "distil_lib.timing.backend_comparison", *arguments]),
        "begun": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "configuration": asdict(config),
        "machine": machine() | {"runtimes": runtimes()},
        "rungs": {},
        "threads": {},
    }
    with tempfile.TemporaryDirectory() as where:
        folders = {
            role: prepare(name or random_model(role, config.size), Path(where, role))
            for role, name in names.items()
        }
        configs = {
            role: AutoConfig.from_pretrained(folder / "checkpoint")
            for role, folder in folders.items()
        }
        vocab_size = min(c.vocab_size for c in configs.values())
        if max(config.lengths) > (longest := min(map(positions, configs.values()))):
            raise UserError(
                f"A length of {max(config.lengths)} is asked for.",
                f"These models read {longest} tokens at most.",
            )
        with pinned_process(min(config.threads)) as process:
            for role, folder in folders.items():
                job = (
                    (score, config, role, names[role], folder)
                    if config.task
                    else (random_difference, config, role, folder, vocab_size)
                )
                record["rungs"][role] = {
                    rung: {"difference": found}
                    for rung, found in process.submit(*job).result().items()
                }
        for role, folder in folders.items():
            for rung, found in record["rungs"][role].items():
                found["bytes"] = bytes_on_disk(rung, folder)
                with pinned_process(min(config.threads)) as process:
                    found["memory"] = process.submit(
                        memory, rung, folder, example(INPUTS, vocab_size, *SHAPE)
                    ).result()
        for threads in dict.fromkeys(config.threads):
            with pinned_process(threads) as process:
                record["threads"][str(threads)] = process.submit(
                    measure, folders, config, vocab_size
                ).result()
    if config.output:
        write_result(Path(config.output), record)
    return record


def report(record: dict) -> str:
    """A table for each count of threads: milliseconds by shape, and how many times as fast as the teacher's eager fp32."""
    machine, config = record["machine"], record["configuration"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['flags'])}); torch {machine['torch']}"
    ]
    lines.append(
        f"{config['rounds']} rounds: medians; x teacher: median and lowest to highest round, each against eager fp32 of that round"
    )
    for threads, found in record["threads"].items():
        rows = {
            (row["role"], row["rung"], row["batch"], row["length"]): row for row in found["rows"]
        }
        shapes = list(dict.fromkeys((row["batch"], row["length"]) for row in found["rows"]))
        shape = SHAPE if SHAPE in shapes else shapes[0]
        head = [
            "model",
            "rung",
            *(f"{b} x {n}" for b, n in shapes),
            f"x teacher at {shape[0]} x {shape[1]}",
            "disk MB",
            "memory MB",
            "apart",
            "equal",
        ]
        head += ["score"] if config["task"] else []
        lines += [
            "",
            f"threads: {threads}; milliseconds by batch x length",
            "",
            f"| {' | '.join(head)} |",
            "|---|---" + "|--:" * (len(head) - 2) + "|",
        ]
        for role, rung in dict.fromkeys((row["role"], row["rung"]) for row in found["rows"]):
            one = record["rungs"][role][rung]
            apart, grown = one["difference"], one["memory"]
            cells = [
                role,
                rung,
                *(f"{rows[role, rung, b, n]['ms']['median']:.1f}" for b, n in shapes),
            ]
            cells.append(
                "{median:.2f} ({low:.2f}-{high:.2f})".format(**rows[(role, rung, *shape)]["speed"])
            )
            cells += [
                f"{one['bytes'] / 1e6:.1f}",
                f"{grown['resident'] / 1e6:.0f}" if grown else "",
                f"{apart['largest']:.2g}",
                f"{apart['equal']:.1%}",
            ]
            cells += [f"{apart['score']:.2f}"] if config["task"] else []
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            "",
            *(f"left out: {rung} ({reason})" for rung, reason in found["unavailable"].items()),
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. It ends by `SystemExit` where there is an error."""
    PROGRAM.run(lambda config, given: report(compare_backends(config, given)), arguments)


if __name__ == "__main__":
    main()
