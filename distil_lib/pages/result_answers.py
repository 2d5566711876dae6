"""What fine-tuning, the paper's tables and the clocks answer, computed from their records.

    cpu_time()[0].text      # "2.05 times as fast (2.00 to 2.17); the paper's table: 1.63"

Each function returns the answers to one question of `findings`, the one that decides first.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from distil_lib.common.files import read_json
from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.finetune.records import median_and_quartiles, read_record
from distil_lib.finetune.retention import retention
from distil_lib.pages import grid_results
from distil_lib.pages.finding_answers import SCALE, Answer, Result
from distil_lib.pages.grid_results import RESULTS
from distil_lib.pages.luck import equally_good
from distil_lib.pages.paper_numbers import table
from distil_lib.training.metrics_file import read_metrics

SUITE = ("doc-acceptability", "doc-package", "doc-same", "doc-signature", "doc-near", "doc-qa")
WORDS_DO_AS_WELL = ("doc-same", "doc-signature")  # no model beats a bag of words there


@cache
def _kept(student: str, teacher: str, task: str, reference: str = "") -> dict[str, float]:
    """Retention on a task; `reference` is the teacher's file where it has another name."""
    mine = read_record(RESULTS / student / f"{task}.json")
    theirs = read_record(RESULTS / teacher / f"{reference or task}.json")
    return retention(mine, theirs)


def over_tasks(student: str, teacher: str, tasks: Sequence[str] = SUITE) -> Result:
    """Mean difference over tasks; their errors are taken for independent."""
    found = [_kept(student, teacher, task) for task in tasks]
    mean = float(np.mean([k["difference"] for k in found]))
    width = [k["difference_high"] - k["difference_low"] for k in found]
    half = 1.96 * math.sqrt(sum((w / 3.92) ** 2 for w in width)) / len(found)
    return Result.of(mean, mean - half, mean + half, 2, "points")


def teacher_and_tasks() -> list[Answer]:
    """What the teacher's answers are worth in a task's score."""
    name = "with a teacher minus without"
    six = over_tasks("student", "student-without-teacher")
    four = over_tasks(
        "student", "student-without-teacher", [t for t in SUITE if t not in WORDS_DO_AS_WELL]
    )
    text = f"{six} points over six tasks; {four} over the four on which it beats a bag of words"
    full = Answer("07_evaluation", text, "default student, 2,600 steps", 2600, 5, {name: six})
    e = grid_results.judged("documentation")["mlm-alone"]
    turned = Result(-e.mean, -e.high, -e.low, -grid_results.verdict(e), 2, "points")
    text = f"{turned} points over six tasks, four of them fine-tuned for fewer than 100 steps"
    short = Answer("08_ablations", text, SCALE, 300, 3, {name: turned})
    return [full, short]


def what_the_student_keeps() -> list[Answer]:
    """The default student and its teacher: held-out accuracy and tasks."""
    accuracy = {
        who: read_metrics(data_folder(who))[-1]["accuracy"] for who in ("student", "teacher")
    }
    kept = accuracy["student"] / accuracy["teacher"]
    tasks = over_tasks("student", "teacher")
    text = f"{kept:.1%} of its accuracy on masked tokens; on six tasks {tasks} points"
    return [Answer("07_evaluation", text, "default student, 2,600 steps", 2600, 1)]


REAL_TASKS = {"sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "imdb": "IMDb", "squad": "SQuAD"}


def real_tasks() -> list[Answer]:
    """What a real teacher's student keeps; medians of the small teacher and its students."""
    kept, seeds = [], []
    for task, name in REAL_TASKS.items():
        k = _kept("real/student", "real/teacher", task)
        kept.append(f"{name} {k['retention']:.1f}% ({k['low']:.1f} to {k['high']:.1f})")
        seeds.append(len(read_record(RESULTS / "real" / "student" / f"{task}.json")["seeds"]))
    text, scale = f"a real teacher's student keeps: {'; '.join(kept)}", "6 and 3 layers x 384"
    real = Answer("07_evaluation", text, scale, 1500, min(seeds))
    texts = []
    for task, name in REAL_TASKS.items():
        medians = []
        for who in ("teacher", "student", "student-without-teacher"):
            record = read_record(RESULTS / who / f"{task}.json") if _exists(who, task) else None
            found = median_and_quartiles(record)[record["split"]] if record else {}
            medians.append(f"{found[record['metric']]['median']:.1f}" if record else "-")
        texts.append(f"{name} {', '.join(medians)}")
    text = "the small teacher, student, student without teacher: " + "; ".join(texts)
    return [real, Answer("07_evaluation", text, "default student, 2,600 steps", 2600, 5)]


def _exists(who: str, task: str) -> bool:
    return (RESULTS / who / f"{task}.json").is_file()


def second_teacher() -> list[Answer]:
    """A teacher for fine-tuning too, on the documentation's questions."""
    k = _kept("student", "student", "doc-qa-distilled", "doc-qa")
    low, high = k["difference_low"], k["difference_high"]
    found = {"second teacher": Result.of(k["difference"], low, high, 2, "points")}
    text = f"{k['difference']:+.1f} points of F1 ({low:+.1f} to {high:+.1f})"
    text += "" if found["second teacher"].verdict else ": too small to tell"
    small = Answer("b_distilling_twice", text, "1,000 training questions", 0, 5, found)
    records = (
        read_record(RESULTS / "real" / "student" / f"{name}.json")
        for name in ("squad", "squad-distilled")
    )
    once, twice = (record["seeds"]["0"]["scores"]["validation"]["f1"] for record in records)
    text = (
        f"SQuAD: {twice - once:+.1f} points of F1 ({once:.1f}, {twice:.1f}); one seed does not tell"
    )
    return [small, Answer("b_distilling_twice", text, "real teacher, 6 and 3 layers x 384", 0, 1)]


# ------------------------------------------------------------------------- the paper's numbers
def luck_of_the_development_sets() -> list[Answer]:
    """How often two equally good systems are as far apart as the paper's effects."""
    macro = np.abs(equally_good().mean(1))
    shares = {abs(change): float((macro >= abs(change)).mean()) for change in table(4).iloc[:, 0]}
    text = "; ".join(
        f"{change:.2f}: {'under 1%' if share < 0.01 else f'{share:.0%}'}"
        for change, share in sorted(shares.items())
    )
    text = f"So often are two equally good systems as far apart by luck: {text}"
    return [Answer("c_how_sure_are_we", text, "20,000 simulated pairs of systems", 0, 0)]


def ninety_seven_percent() -> list[Answer]:
    """The quotient of two macro scores, with WNLI and without."""
    scores = table(1).loc[["DistilBERT", "BERT-base"]].drop(columns="Score")
    scores.loc["BERT-base", "MNLI"] = 84.7  # the table's 86.7 does not fit its mean
    nine = scores.mean(axis=1)
    eight = scores.drop(columns="WNLI").mean(axis=1)
    shares = [100 * m["DistilBERT"] / m["BERT-base"] for m in (nine, eight)]
    text = "{:.1f}% with WNLI, {:.1f}% without".format(*shares)
    return [Answer("h_audit", text, "the paper's Table 1", 0, 0)]


# ------------------------------------------------------------------------------- time and size
def _timing(name: str) -> dict[str, Any]:
    return read_json(RESULTS / "timing" / f"{name}.json")


def _times_as_fast(system: str) -> str:
    """As BERT-base, on one thread, and by the paper's table."""
    ours = _timing("table3")["threads"]["1"]["summary"][system]["speedup"]
    paper = table(3)["inference time (seconds)"]
    name = {"elmo": "ELMo", "distilbert": "DistilBERT"}[system]
    text = "{median:.2f} times as fast as BERT-base ({low:.2f} to {high:.2f})".format(**ours)
    return f"{text}; in the paper {paper['BERT-base'] / paper[name]:.2f}"


def cpu_time() -> list[Answer]:
    """DistilBERT and BERT-base, one pair at a time, one thread."""
    scale = "full size, 100 pairs, 5 rounds"
    return [Answer("09_cpu_timing", _times_as_fast("distilbert"), scale, 0, 5)]


def elmo_time() -> list[Answer]:
    """ELMo and BERT-base."""
    return [Answer("g_elmo", _times_as_fast("elmo"), "full size, 100 pairs, 5 rounds", 0, 5)]


def runtimes_and_bytes() -> list[Answer]:
    """DistilBERT in other runtimes against BERT-base in PyTorch, 32 tokens, one thread."""
    found = {
        row["backend"]: row["speedup"]
        for row in _timing("ladder-full")["threads"]["1"]["rows"]
        if (row["role"], row["batch"], row["length"]) == ("student", 1, 32)
    }
    names = ("eager fp32", "bf16 weights", "onnx fp32", "onnx int8")
    text = "; ".join(f"{n}: {found[n]['median']:.1f} times" for n in names)
    low, high = found["onnx int8"]["low"], found["onnx int8"]["high"]
    text = f"against BERT-base in PyTorch, {text} ({low:.1f} to {high:.1f})"
    return [Answer("d_other_runtimes", text, "full size, 32 tokens, 9 rounds", 0, 9)]


def browser() -> list[Answer]:
    """Milliseconds for 32 tokens."""
    ms = {who: median(times) for who, times in _timing("browser")["median_ms"].items()}
    text = f"student {ms['student']:.0f} ms, teacher {ms['teacher']:.0f} ms for 32 tokens"
    return [Answer("e_on_a_device", text, "default models, Chromium", 0, 3)]


def training_step() -> list[Answer]:
    """Tokens in a second, ours and a textbook's loop."""
    arms = read_json(PROJECT / "benchmarks" / "results" / "step-default.json")["arms"]
    rate = {n: a["tokens"] / median(a["seconds"]) for n, a in arms.items()}
    ratio = {n: rate[n] / rate["textbook"] for n in ("ours, all", "ours, masked")}
    text = "{:.1f} times (soft targets on all tokens), {:.1f} times (on masked tokens)".format(
        *ratio.values()
    )
    return [Answer("f_where_the_time_goes", text, "default size, one thread, 7 rounds", 0, 7)]


def a_real_teacher() -> list[Answer]:
    """Held-out masked tokens found at the first guess."""
    last = {
        who: read_metrics(RESULTS / "real_teacher" / f"{who}-metrics.jsonl")[-1]
        for who in ("teacher", "student")
    }
    teacher, student = last["teacher"], last["student"]
    text = (
        f"{teacher['accuracy']:.1%} of the masked tokens after {teacher['step']:,} steps; its "
        f"student {student['accuracy']:.1%} after {student['step']:,}"
    )
    return [Answer("07_evaluation", text, "6 and 3 layers x 384", 0, 1)]
