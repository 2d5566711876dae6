"""Settings: presets, files, the command line, and what is refused."""

import dataclasses
from types import NoneType
from typing import get_args, get_type_hints

import pytest
import yaml

from distil_lib.errors import UserError
from distil_lib.training.config import (
    FIELDS,
    PretrainConfig,
    load_preset,
    parse_arguments,
    preset_names,
    read_settings,
)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_what_its_file_says(name):
    """Oracle: the file, read by another hand."""
    from distil_lib.training.config import PRESETS

    written = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    config = load_preset(name)
    assert written and {k: getattr(config, k) for k in written} == written
    assert parse_arguments(["--preset", name]) == config
    defaults = dataclasses.asdict(PretrainConfig())
    assert all(getattr(config, k) == v for k, v in defaults.items() if k not in written)


def test_the_presets_are_those_of_the_book():
    mini = {"mini", "mini-teacher", "mini-teacher-longer", "mini-without-teacher"}
    real = {"real-student", "real-teacher", "real-without-teacher"}
    assert {"demo", "colab", "paper"} | mini | real == set(preset_names())


def test_the_paper_preset_is_the_released_recipe():
    """Sanh et al. (2019) and the published training command: alphas 5, 2, 1; T 2; lr 5e-4; warm-up
    5%; betas .9, .98; ...
    """
    config = load_preset("paper")
    recipe = {
        "alpha_ce": 5,
        "alpha_mlm": 2,
        "alpha_cos": 1,
        "temperature": 2,
        "mlm_probability": 0.15,
        "mask_smoothing": 0.7,
        "learning_rate": 5e-4,
        "warmup_ratio": 0.05,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_eps": 1e-6,
        "max_grad_norm": 5,
        "epochs": 3,
        "batch_size": 4000,
        "student_layers": 6,
        "freeze_positions": True,
        "optimizer": "adamw",
        "init_layers": "spread",
    }
    assert {k: getattr(config, k) for k in recipe} == recipe


# --------------------------------------------------------------------------------- the command line
def test_the_command_line_overrides_the_preset_and_the_preset_the_defaults():
    config = parse_arguments(
        "--preset mini --temperature 3.5 --max_steps=7 --resume --init_layers 0,2,5".split()
    )
    preset = load_preset("mini")
    assert (config.temperature, config.max_steps, config.resume, config.init_layers) == (
        3.5,
        7,
        True,
        "0,2,5",
    )
    assert (
        dataclasses.replace(preset, temperature=3.5, max_steps=7, resume=True, init_layers="0,2,5")
        == config
    )


def test_every_field_can_be_given_on_the_command_line():
    """Each with a value of its own type that is not its default."""
    changed = {
        "corpus": "other",
        "time_limit": "8m",
        "compile": "on",
        "streaming": True,
        "precision": "bf16",
        "teacher_dtype": "bfloat16",
        "save_dtype": "bfloat16",
        "warmup_ratio": 0.2,
        "soft_targets": "masked",
        "optimizer": "muon",
        "mlm_probability": 0.3,
        "dropout": 0.4,
        "copy_head": False,
        "soft_target_fraction": 0.3,
        "fused": False,
        "adam_eps": 0.5,
        "adam_beta1": 0.5,
        "adam_beta2": 0.5,
    }
    for name, field in FIELDS.items():
        hint = get_type_hints(PretrainConfig)[name]
        kind = next((a for a in get_args(hint) if a is not NoneType), hint)
        value = changed.get(name, {str: "x", int: 3, float: 1.5, bool: True}.get(kind))
        assert value != field.default, name
        also = (
            ["--teacher", "x"] if name == "freeze_positions" else []
        )  # which has a meaning for students alone
        assert getattr(parse_arguments([f"--{name}", str(value), *also]), name) == value, name


def test_a_file_of_settings_serves_as_a_preset(tmp_path):
    (tmp_path / "mine.yaml").write_text("batch_size: 12\nlearning_rate: 1\n")
    config = parse_arguments(["--preset", str(tmp_path / "mine.yaml")])
    assert (
        config.batch_size == 12
        and config.learning_rate == 1.0
        and type(config.learning_rate) is float
    )


@pytest.mark.parametrize(
    "changes", [{}, {"corpus": "docs", "log_with": "tensorboard", "init_layers": "0,1,2,4,6,8"}]
)
@pytest.mark.parametrize("name", ["paper", "mini-teacher"])
def test_a_saved_configuration_is_a_preset_that_gives_it_back(name, changes, tmp_path):
    config = load_preset(name, **changes)
    config.save(tmp_path / "config.yaml")
    assert (
        parse_arguments(["--preset", str(tmp_path / "config.yaml")])
        == load_preset(tmp_path / "config.yaml")
        == config
    )


def test_help_explains_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in FIELDS.items():
        assert f" --{name} " in text or f" --{name}, " in text, name
        assert f"{field.metadata['help']} (default: {field.default})" in text, name
    unwrapped = text.replace("- ", "-")  # argparse breaks lines at hyphens
    assert all(name in unwrapped for name in preset_names())


@pytest.mark.parametrize(
    "layers, choice",
    [
        ("none", None),
        ("spread", "spread"),
        ("0,2,4", [0, 2, 4]),
        ("0, 2", [0, 2]),
        ("7", [7]),
        ("0,x", "0,x"),
    ],
)
def test_layers_are_a_strategy_or_a_list(layers, choice):
    assert PretrainConfig(init_layers=layers).layer_choice() == choice


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--preset", "minni"], ["minni", "did you mean 'mini", "demo"]),
        (["--preset", "no/such/file.yaml"], ["no/such/file.yaml"]),
        (["--temperatur", "3"], ["temperatur", "did you mean 'temperature'"]),
        (["--batch-sise", "3"], ["batch_sise", "did you mean 'batch_size'"]),
        (["--batch_size", "many"], ["batch_size", "many"]),
        (["--batch_size"], ["batch_size"]),
        (["--preset"], ["preset"]),
        (["stray"], ["stray"]),
        (["--optimizer", "sgd"], ["sgd", "'adamw' or 'muon'"]),
    ],
)
def test_a_command_line_with_a_slip_gets_a_hint(arguments, words, capsys):
    with pytest.raises(UserError) as error:
        parse_arguments(arguments)
    assert all(word in str(error.value).lower() for word in words), error.value
    assert error.value.remedy
    assert capsys.readouterr().err == ""  # no usage of sixty lines above it


@pytest.mark.parametrize(
    "text, words",
    [
        ("temperatur: 3\n", ["temperatur", "Did you mean 'temperature'"]),
        ("batch_size: many\n", ["batch_size", "many", "integer"]),
        ("batch_size: true\n", ["batch_size", "integer"]),
        ("batch_size: 3.5\n", ["batch_size", "integer"]),
        ("learning_rate: 5e-4\n", ["learning_rate", "5.0e-4"]),
        ("teacher: 3\n", ["teacher", "text"]),
        ("resume: 1\n", ["resume", "bool"]),
        ("- a\n- list\n", ["no settings"]),
        ("batch_size: [\n", ["no YAML"]),
    ],
)
def test_a_file_with_a_slip_gets_a_hint(text, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_settings(path)
    assert all(word in str(error.value) for word in [*words, "mine.yaml"]), error.value


def test_an_empty_file_leaves_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_preset(tmp_path / "empty.yaml") == PretrainConfig()


def test_a_call_with_an_unknown_setting_gets_a_hint():
    with pytest.raises(UserError, match="max_steps"):
        load_preset("mini", max_step=3)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"micro_batch_size": -1},
        {"block_size": 0},
        {"learning_rate": 0.0},
        {"log_every": 0},
        {"eval_every": 0},
        {"save_every": 0},
        {"eval_blocks": 0},
        {"mlm_probability": 1.0},
        {"mlm_probability": 0.0},
        {"warmup_ratio": -0.1},
        {"dropout": 1.0},
        {"alpha_ce": -1.0},
        {"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_cos": 0.0},
        {"temperature": 0.0},
        {"temperature": 1e300},  # its square overflows
        {"temperature": 1e-300},
        {"adam_eps": 1e300},
        {"max_steps": 0, "epochs": 0.0},
        {"max_steps": -1},
        {"seed": -1},
        {"save_total_limit": -1},
        {"threads": -1},
        {"dataloader_num_workers": -1},
        {"hidden_layers": 0},
        {"heads": 0},
        {"hidden_size": 0},
        {"max_grad_norm": 0.0},
        {"precision": "fp8"},
        {"teacher_dtype": "half"},
        {"save_dtype": "int8"},
        {"soft_targets": "some"},
        {"student_layers": 0},
        {"student_layers": -1},
        {"freeze_positions": True},
        {"init_from": "a/bert", "teacher": "another/bert"},
        {"teacher": "a/bert", "hidden_size": 64},
        {"teacher": "a/bert", "hidden_layers": 2},
        {"init_from": "a/bert", "heads": 2},
        {"teacher": "a/bert", "init_layers": "0,2", "student_layers": 3},
    ],
)
def test_values_without_meaning_are_refused_by_name(settings):
    with pytest.raises(UserError) as error:
        PretrainConfig(**settings)
    assert any(name.split("_")[0] in str(error.value) for name in settings)


def test_the_baseline_differs_from_the_student_in_what_its_teacher_says_alone():
    student, baseline = (
        parse_arguments(["--preset", preset]) for preset in ("mini", "mini-without-teacher")
    )
    changed = {name for name in FIELDS if getattr(student, name) != getattr(baseline, name)}
    assert changed == {"output", "alpha_ce", "alpha_cos"}
    assert baseline.alpha_ce == baseline.alpha_cos == 0 < student.alpha_ce * student.alpha_cos
