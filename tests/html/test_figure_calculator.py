"""Chapter 10's figure against the library's costs and memory, over a grid of settings."""

import functools
import json
import random

import pytest
from figures_harness import needs_browser

from distil_lib.common.paths import PROJECT
from distil_lib.initialization import student_config
from distil_lib.pages.figures import calculator
from distil_lib.training.config import load_preset
from distil_lib.training.costs import device_hours, parameters, resident_bytes, run_cost, step_cost
from distil_lib.training.memory import step_memory

measured = functools.cache(calculator.speeds)


def grid(number: int = 60) -> list[dict]:
    """Settings from all over the controls, the same ones in each run."""
    draw = random.Random(0)
    among = {
        "teacher": list(calculator.TEACHERS),
        "keep": [1, 2, 3, 4],
        "soft": ["masked", "all"],
        "machine": list(calculator.MACHINES),
        "vocabulary": [1000, 8192, 30522, 119547, 250000],
        "length": [16, 64, 128, 512],
        "batch": [1, 64, 4000],
        "micro": [1, 16, 64, 512],
        "text": [100_000, 1_234_567, 4_290_000_000],
        "epochs": [0.7, 3, 10.3, 77.7],  # no halves: Python rounds them to even numbers
        "speed": ["", "2300"],
        "price": ["", "2.5"],
    }
    return [{key: draw.choice(values) for key, values in among.items()} for _ in range(number)]


def expected(state: dict) -> dict:
    """The same numbers by the library."""
    teacher = calculator.teacher_config(state["teacher"], state["vocabulary"])
    student = student_config(teacher, -(-teacher.num_hidden_layers // state["keep"]))
    config = calculator.settings(
        soft_targets=state["soft"],
        block_size=state["length"],
        batch_size=state["batch"],
        micro_batch_size=state["micro"],
        epochs=state["epochs"],
        teacher="its folder",
        precision="bf16",
        dropout=0.0,
    )
    cost = run_cost(config, student, teacher, state["text"])
    speed = float(state["speed"] or 0) or nearest(state, teacher)["rate"] / cost.step.total
    hours = device_hours(cost.flops, peak=speed * cost.step.total)
    memory = step_memory(config, student, teacher, device=state["machine"])
    return {
        "flops": cost.step.total,
        "tokens": cost.tokens,
        "steps": cost.steps,
        "resident": resident_bytes(student, teacher),
        "memory": memory.peak,
        "speed": speed,
        "hours": hours,
        "price": hours * float(state["price"]) if state["price"] else None,
    } | {"parameters": [parameters(student), parameters(teacher)]}


def nearest(state: dict, teacher) -> dict:
    """The speed of this machine at the nearest width, if possible for such soft targets."""

    def far(one: dict) -> tuple[float, bool]:
        widths = one["width"], teacher.hidden_size
        return max(widths) / min(widths), one["soft"] != state["soft"]

    return min((s for s in measured() if s["machine"] == state["machine"]), key=far)


@needs_browser
def test_each_number_is_the_library_s(figure):
    live = figure("calculator")
    for state in grid():
        live.evaluate(f"(Object.assign(figure.state, {json.dumps(state)}), figure.redraw())")
        live.settle()
        shown, right = live.evaluate("figure.shown"), expected(state)
        for key, value in right.items():
            if value is None:
                assert "give a price" in live.page.inner_text(".drag table")
            else:
                assert shown[key] == pytest.approx(value, rel=1e-3), (key, state)


@needs_browser
def test_keys_and_mouse_move_the_run(figure):
    live = figure("calculator", width=360, dark=True)
    assert "30.8 minutes" in live.status  # as the page: 31 minutes
    live.page.fill('[data-key="price"]', "2")
    live.page.press('[data-key="price"]', "Enter")
    live.page.click("text=The paper's, on one GPU")
    live.settle()
    right = expected(live.state)
    assert right["steps"] == live.evaluate("figure.shown.steps")
    table = live.page.inner_text(".drag table")
    assert f"{right['hours']:.3g} hours" in table and f"{right['price']:.3g}" in table
    assert f"{right['memory'] / 1e9:.3g} GB" in table
    live.slide("vocabulary", "Home")
    assert live.state["vocabulary"] == 1000
    live.drag_slider("length", 1)
    live.drag_slider("length", 0.5)
    assert live.state["length"] == pytest.approx((16 * 512) ** 0.5, rel=0.05)
    right = expected(live.state | {k: round(live.state[k]) for k in ("length", "batch", "micro")})
    assert live.evaluate("figure.shown.hours") == pytest.approx(right["hours"], rel=1e-3)


def test_the_recorded_runs_take_as_long_as_they_did():
    """31 and 41 minutes on 2 cores, chapter 10: the speed is that of the record."""
    for preset, name, words in (
        ("mini", "this book's teacher", 8192),
        ("real-student", "MiniLM's shape", 30522),
    ):
        (one,) = [s for s in calculator.speeds() if s["source"].endswith(f" {preset}")]
        config, teacher = load_preset(preset), calculator.teacher_config(name, words)
        assert config.mlm_probability == calculator.MASKED
        cost = run_cost(config, student_config(teacher, 3), teacher, 10**6)
        minutes = 60 * device_hours(cost.flops, peak=one["rate"])
        assert round(minutes) == {"mini": 31, "real-student": 41}[preset]


def test_the_benchmarks_counted_the_same_arithmetic():
    for machine, file in calculator.BENCHMARKS.items():
        record = json.loads((PROJECT / "benchmarks" / "results" / file).read_text("utf-8"))
        bert = calculator.teacher_config("BERT-base", 30522)
        config = load_preset("paper", block_size=record["block"], soft_targets="all")
        cost = step_cost(config, student_config(bert, 6), bert)
        arm = record["arms"]["ours, all"]
        assert cost.total == pytest.approx(arm["flops_per_token"], rel=1e-6), machine


def test_the_alt_text_has_the_heads_shares():
    shares = []
    for name, words, length in (("BERT-base", 30522, 512), ("this book's teacher", 8192, 64)):
        bert = calculator.teacher_config(name, words)
        config = calculator.settings(block_size=length)
        cost = step_cost(config, student_config(bert, bert.num_hidden_layers // 2), bert)
        shares.append(round(100 * cost.heads / cost.total))
    assert f"{shares[0]}% with BERT-base and {shares[1]}% " in calculator.FIGURE.alt
