"""Table 3 of Sanh et al. (2019): a pass over STS-B's development set on a CPU, by three systems.

    python -m distil_lib.timing --systems elmo bert-base distilbert --threads 1 2 --batch 1
    python -m distil_lib.timing --data stsb         # the real texts and vocabulary, from the Hub
    python -m distil_lib.timing --data stsb --pairs 1500 --rounds 1      # all: half an hour

Section 4.1. The weights are random: how long a product of matrices takes does not depend on what
the numbers are (but for denormal ones, below 1e-38, which neither random nor trained weights lead
to). Protocol (`timing.protocol`): each count of threads has a process of its own; every system
warms up; in each round every system passes over all texts once, in an order that rotates from round
to round. Tokenization is timed apart from the model. Batches of 1 have no padding; larger ones are
taken in the texts' order and padded to their longest text.
"""

import datetime
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from distil_lib.common.cli import NonNegativeInt, Program, Settings, ThreadCounts, Width, option
from distil_lib.common.files import check_writable, write_result
from distil_lib.common.hardware import check_threads
from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.pages.paper_numbers import table
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.timing.protocol import (
    describe_cpu,
    in_pinned_process,
    interleaved_rounds,
    quartiles,
    sampling_error,
    speedup,
)
from distil_lib.timing.sentence_pairs import (
    Pair,
    documentation_pairs,
    measured_lengths,
    sample,
    stsb_lengths,
    stsb_pairs,
)
from distil_lib.timing.systems import SYSTEMS, in_batches, new_system

REFERENCE = "bert-base"
WHOLE = 1500  # pairs of STS-B's development set


def summarize(
    rounds: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    pairs: int,
    sizes: Sequence[float],
) -> dict[str, dict]:
    """Of each system the figures of the table.

    Args:
        rounds: what `System.measure` found, for each system and round.
        pairs: how many were passed over.
        sizes: of each batch.

    Returns:
        `seconds` for the whole set and `tokenizer` (quartiles over rounds), `pair_ms`,
        `sampling_error`, and `speedup` against the reference.

    Raises:
        UserError: a time is not a positive number.
    """

    def whole(name: str, part: str) -> list[float]:
        return [WHOLE / pairs * float(np.sum(one[part])) for one in rounds[name]]

    totals = {name: whole(name, "model") for name in rounds}
    for name, seconds in totals.items():
        if not all(0 < total < np.inf for total in seconds):  # NaN fails, too
            raise UserError(f"The seconds of {name} are no positive numbers.", "Time it again.")
    summary: dict[str, dict] = {}
    for name, found in rounds.items():
        each = np.median([one["model"] for one in found], axis=0)
        summary[name] = {
            "seconds": quartiles(totals[name]),
            "tokenizer": quartiles(whole(name, "tokenizer")),
            "pair_ms": 1000 * statistics.median(totals[name]) / WHOLE,
            "sampling_error": sampling_error(each, np.asarray(sizes), WHOLE * len(each) // pairs),
        }
        if REFERENCE in totals:
            summary[name]["speedup"] = speedup(totals[REFERENCE], totals[name])
    return summary


# -------------------------------------------------------------------------------------- the program
@dataclass
class TimingConfig(Settings):
    """Settings of the command line."""

    systems: Annotated[list[Literal["elmo", "bert-base", "distilbert"]], Field(min_length=1)] = (
        option(["elmo", "bert-base", "distilbert"], "what is timed")
    )
    threads: ThreadCounts = option([1], "counts of threads, each in a process of its own")
    batch: Width = option(1, "pairs in a batch")
    pairs: Annotated[int, Field(ge=1, le=1500)] = option(
        100, "a sample of the 1,500 with their distribution of lengths, scaled up; 1500 for all"
    )
    rounds: Annotated[int, Field(ge=1, le=10_000)] = option(5, "passes of every system")
    warmup: NonNegativeInt = option(5, "batches before the first round")
    data: Literal["docs", "stsb"] = option(
        "docs", "docs: installed documentation, to STS-B's lengths; stsb: the set itself"
    )
    data_dir: str | None = option(None, "folder with STS-B's files, instead of the Hub")
    tokenizer: str = option("", "of the BERTs; by default data/tokenizer, for stsb BERT's own")
    size: Literal["full", "small"] = option("full", "full, or small: a try-out in seconds")
    output: str = option("", "JSON file to write, with all samples")

    def check(self) -> None:
        """See `Settings.check`."""
        self.tokenizer = self.tokenizer or (
            "data/tokenizer" if self.data == "docs" else "google-bert/bert-base-uncased"
        )
        self.systems = list(dict.fromkeys(self.systems))


PROGRAM = Program(
    TimingConfig,
    "python -m distil_lib.timing",
    "Time systems on a CPU (Sanh et al. 2019, Table 3).",
)


def load_texts(config: TimingConfig) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs to be read, and what the record says of them."""
    tokenizer = load_tokenizer(locate(config.tokenizer))
    whole = stsb_pairs(config.data_dir) if config.data == "stsb" else None
    lengths = stsb_lengths() if whole is None else measured_lengths(whole, tokenizer)
    rows = sample(lengths["pieces_a"] + lengths["pieces_b"], config.pairs)
    if whole is None:
        texts = documentation_pairs(tokenizer, lengths.iloc[rows])
    else:
        texts = [whole[row] for row in rows]
    found = measured_lengths(texts, tokenizer)
    mean = {
        name: {"read": float(found[name].mean()), "whole set": float(lengths[name].mean())}
        for name in found
    }
    described = {"data": config.data, "pairs": len(texts), "of": len(lengths), "mean_lengths": mean}
    return texts, described


def measure(config: TimingConfig, texts: Sequence[Pair]) -> dict:
    """All systems in this process: samples, and what `summarize` makes of them."""
    batches = in_batches(texts, config.batch)
    systems = {name: new_system(name, config.tokenizer, config.size) for name in config.systems}
    for system in systems.values():
        system.warm_up(batches, config.warmup)
    passes = {name: partial(system.measure, batches) for name, system in systems.items()}
    say = partial(print, file=sys.stderr, flush=True)
    rounds = interleaved_rounds(passes, config.rounds, say)
    masks = {
        name: [system.prepare(batch)["attention_mask"] for batch in batches]
        for name, system in systems.items()
    }
    sizes = [mask.numel() for mask in masks[config.systems[0]]]
    return {
        "threads": torch.get_num_threads(),
        "machine": describe_cpu(),
        "parameters": {name: system.parameters for name, system in systems.items()},
        "fill": {
            name: sum(int(mask.sum()) for mask in each) / sum(mask.numel() for mask in each)
            for name, each in masks.items()
        },
        "summary": summarize(rounds, len(texts), sizes),
        "rounds": {
            name: [{part: np.round(s, 6).tolist() for part, s in one.items()} for one in found]
            for name, found in rounds.items()
        },
    }


def run(config: TimingConfig, arguments: Sequence[str] = ()) -> dict:
    """The whole record; written to `config.output` if that is not empty.

    Raises:
        UserError: for bad input, before anything is timed.
    """
    if config.output:
        check_writable(Path(config.output), new=True)
    check_threads(max(config.threads))  # not after an hour with fewer
    texts, described = load_texts(config)
    record = {
        "command": shlex.join(["python", "-m", "distil_lib.timing", *arguments]),
        "begun": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "configuration": asdict(config),
        "texts": described,
        "padding": "none" if config.batch == 1 else "to the longest of the batch",
        "machine": describe_cpu(),
        "threads": {
            str(threads): in_pinned_process(threads, measure, config, texts)
            for threads in dict.fromkeys(config.threads)
        },
    }
    if config.output:
        write_result(Path(config.output), record)
    return record


def report(record: dict) -> str:
    """The table, beside the paper's."""
    paper: Any = table(3)
    reference = SYSTEMS[REFERENCE]
    size, seconds = paper.columns
    machine, texts, config = record["machine"], record["texts"], record["configuration"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['flags'])}); "
        f"torch {machine['torch']}",
        f"{texts['pairs']} of {texts['of']} pairs ({texts['data']}), scaled to {WHOLE}; "
        f"batch {config['batch']}, padding {record['padding']}; {config['rounds']} rounds: "
        "median (quartiles); x: lowest to highest round",
    ]
    for threads, found in record["threads"].items():
        lines += [
            "",
            f"threads: {threads}",
            "",
            f"| system | parameters (M) | seconds | ms a pair | of tokenization | x {reference} "
            f"| paper: M | seconds | x {reference} |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for name, one in found["summary"].items():
            row, total = paper.loc[SYSTEMS[name]], one["seconds"]
            speed = (
                "{median:.2f} ({low:.2f}-{high:.2f})".format(**one["speedup"])
                if "speedup" in one
                else ""
            )
            cells = [
                SYSTEMS[name],
                f"{found['parameters'][name] / 1e6:.1f}",
                "{median:.1f} ({q1:.1f}-{q3:.1f})".format(**total),
                f"{one['pair_ms']:.2f}",
                f"{1000 * one['tokenizer']['median'] / WHOLE:.2f}",
                speed,
                f"{row[size]:.0f}",
                f"{row[seconds]:.0f}",
                f"{paper.loc[reference, seconds] / row[seconds]:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        error = max(one["sampling_error"] for one in found["summary"].values())
        fill = ", ".join(f"{SYSTEMS[name]} {share:.0%}" for name, share in found["fill"].items())
        lines.append(
            f"\nthe sample adds a standard error of at most {error:.1%} to the seconds; "
            f"tokens that are no padding: {fill}"
        )
    return "\n".join(lines)
