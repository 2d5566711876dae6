"""Chapter 10: memory, speed, hours and price of a distillation, by `distil_lib.training.costs`."""

from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture
from transformers import BertConfig

from distil_lib.common.files import read_json
from distil_lib.common.paths import PROJECT, data_folder
from distil_lib.initialization import student_config
from distil_lib.pages.figures import Figure
from distil_lib.pages.plots import COLORS
from distil_lib.training.config import PretrainConfig, load_preset
from distil_lib.training.costs import step_cost
from distil_lib.training.metrics_file import read_metrics

# name: layers, width, heads, width of the feed-forward block
TEACHERS = {
    "this book's teacher": (6, 256, 4, 1024),
    "MiniLM's shape": (6, 384, 12, 1536),
    "BERT-base": (12, 768, 12, 3072),
    "BERT-large": (24, 1024, 16, 4096),
}
MASKED = 0.2  # the share of masked tokens in the presets of both recorded runs
BENCHMARKS = {"cpu": "step-base.json", "cuda": "step-base-h200.json"}
MACHINES = {"cpu": "2 CPU cores (AMD EPYC)", "cuda": "one NVIDIA H200"}


def teacher_config(name: str, vocab_size: int) -> BertConfig:
    """The configuration of a teacher with another vocabulary."""
    layers, width, heads, inner = TEACHERS[name]
    return BertConfig(
        vocab_size=vocab_size,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
    )


def settings(**changed: Any) -> PretrainConfig:
    """The settings of a run that the figure computes with."""
    return PretrainConfig(mlm_probability=MASKED, **changed)


def speeds() -> list[dict[str, Any]]:
    """What was measured: tokens a second, and the FLOP a second that they are."""
    found = []
    # Runs with this book's own settings.
    real = data_folder("results", "real_teacher", "student-metrics.jsonl")
    for preset, teacher, words, run in (
        ("mini", "this book's teacher", 8192, data_folder("student")),
        ("real-student", "MiniLM's shape", 30522, real),
    ):
        bert = teacher_config(teacher, words)
        flops = step_cost(load_preset(preset), student_config(bert, 3), bert).total
        end = [row for row in read_metrics(run) if "loss" in row][-1]
        speed, source = end["tokens"] / end["seconds"], f"run of the preset {preset}"
        found.append(("cpu", "masked", bert.hidden_size, speed, speed * flops, source))
    for machine, file in BENCHMARKS.items():
        record = read_json(PROJECT / "benchmarks" / "results" / file)
        source = f"training step of {record['sequences']} x {record['block']} tokens"
        for soft in ("all", "masked"):
            arm = record["arms"][f"ours, {soft}"]
            speed = arm["tokens"] / median(arm["seconds"])
            found.append((machine, soft, 768, speed, speed * arm["flops_per_token"], source))
    names = ("machine", "soft", "width", "speed", "rate", "source")
    return [dict(zip(names, row, strict=True)) for row in found]


def _data() -> dict[str, Any]:
    return {
        "teachers": [[name, *shape] for name, shape in TEACHERS.items()],
        "machines": list(MACHINES.items()),
        "masked": MASKED,
        "speeds": [
            {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in one.items()}
            for one in speeds()
        ],
    }


def _picture() -> Picture:
    figure, axes = plt.subplots(figsize=(5.5, 2.6), layout="constrained")
    for row, name in enumerate(("BERT-base", "this book's teacher")):
        bert = teacher_config(name, 30522 if name == "BERT-base" else 8192)
        config = settings(block_size=512 if name == "BERT-base" else 64)
        cost = step_cost(config, student_config(bert, bert.num_hidden_layers // 2), bert)
        left = 0.0
        for part, color, hatch in (
            (cost.student_layers + cost.student_attention, COLORS["student"], ""),
            (cost.student_head, COLORS["student"], "//"),
            (cost.teacher_layers + cost.teacher_attention, COLORS["teacher"], ""),
            (cost.teacher_head, COLORS["teacher"], "//"),
        ):
            share = 100 * part / cost.total
            axes.barh(row, share, left=left, color=color, hatch=hatch, edgecolor="white")
            left += share
    axes.set_yticks([0, 1], ["BERT-base", "this book's\nteacher"])
    axes.set(xlabel="% of the arithmetic (hatched: the head over the vocabulary)", xlim=(0, 100))
    return figure


FIGURE = Figure(
    title="What a distillation costs",
    alt="Two bars of 100%, one for BERT-base and one for this book's teacher: the arithmetic of a "
    "training step with soft targets for all tokens, in the order student's layers, student's "
    "head, teacher's layers, teacher's head. Both heads together are 29% with BERT-base and 41% "
    "with this book's teacher.",
    picture=_picture,
    data=_data,
    height=860,
)
