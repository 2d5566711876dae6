"""The folder of a run: who may write into it, and what is cut off when a run goes on."""

import json
import shlex

import pytest
import yaml
from torch import nn
from transformers import DistilBertConfig, DistilBertForMaskedLM

from distil_lib.common.hardware import describe_machine
from distil_lib.errors import UserError
from distil_lib.training.config import RESUMABLE_OVERRIDES, PretrainConfig, parse_arguments
from distil_lib.training.metrics_file import MetricsFile, plot_curves, read_metrics
from distil_lib.training.model_card import model_card
from distil_lib.training.run_folder import open_run


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        return PretrainConfig(**{"output": str(tmp_path / "run"), "precision": "fp32"} | changes)

    return make


def opened(config):
    """The checkpoint to resume from; the run that opened the folder has ended."""
    checkpoint, lock = open_run(config)
    lock.release()
    return checkpoint


def names(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".lock"))


def content(folder):
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock")]
    return {p.relative_to(folder): p.read_bytes() for p in paths}


def test_a_new_run_writes_its_settings(config, tmp_path):
    assert opened(config(temperature=3.0)) is None
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == vars(
        config(temperature=3.0)
    )


def test_an_empty_folder_will_do(config, tmp_path):
    (tmp_path / "run").mkdir()
    assert opened(config()) is None


def test_a_run_that_was_killed_before_it_had_its_settings_counts_as_none(
    config, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pathlib.Path.rename", killed)
        opened(config())
    assert names(tmp_path / "run") == [".config.yaml.partial"]
    with pytest.raises(UserError, match="no run"):
        opened(config(resume=True))
    assert opened(config(temperature=3.0)) is None
    assert names(tmp_path / "run") == ["config.yaml"]


def test_a_folder_with_another_run_is_left_alone(config, tmp_path):
    opened(config())
    before = content(tmp_path)
    with pytest.raises(UserError, match="Resume it, overwrite it"):
        opened(config(temperature=3.0))
    assert content(tmp_path) == before


def test_a_folder_with_something_else_is_never_deleted(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match="holds no run"):
            opened(config(**options))
    assert content(tmp_path / "run").popitem()[1] == b"years of work"


def test_overwrite_starts_from_nothing(config, tmp_path):
    opened(config())
    (tmp_path / "run" / "metrics.jsonl").write_text("old\n")
    opened(config(overwrite=True))
    assert names(tmp_path / "run") == ["config.yaml"]


def test_a_file_in_the_way_is_named(config, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        opened(config())


def test_resume_needs_a_run(config):
    with pytest.raises(UserError, match="no run"):
        opened(config(resume=True))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 3.0},
        {"batch_size": 16},
        {"seed": 1},
        {"teacher": "data/teacher"},  # None before: their contents are compared, not their paths
    ],
)
def test_resume_with_settings_that_change_the_result_is_refused_with_both_values(
    change, config, tmp_path
):
    opened(config())
    before = content(tmp_path)
    ((name, value),) = change.items()
    with pytest.raises(UserError) as error:
        opened(config(resume=True, **change))
    assert f"{name} was {getattr(config(), name)!r} and is {value!r}" in str(error.value)
    assert content(tmp_path) == before


def test_resume_may_change_what_does_not_change_the_result(config):
    opened(config())
    others = {
        "save_total_limit": 5,
        "log_every": 3,
        "save_every": 7,
        "threads": 2,
        "dataloader_num_workers": 1,
        "micro_batch_size": 4,
        "log_with": "tensorboard",
        "time_limit": "8m",
        "compile": "off",
    }
    assert set(others) == RESUMABLE_OVERRIDES - {"output", "resume", "overwrite"}
    assert opened(config(resume=True, **others)) is None  # nothing saved yet: from the start


def test_resume_where_no_checkpoint_is_whole_says_so(config, tmp_path):
    opened(config())
    (tmp_path / "run" / "checkpoints" / "step-00000005").mkdir(parents=True)
    with pytest.raises(UserError, match="complete"):
        opened(config(resume=True))


# ------------------------------------------------------------------------------------------ metrics
def test_metrics_written_after_the_checkpoint_are_cut_off_when_a_run_goes_on(tmp_path):
    """Oracle: the file of a run that was never stopped."""
    rows = [{"step": i, "loss": 1 / (i + 3)} for i in range(6)]
    whole = MetricsFile(tmp_path / "metrics.jsonl")
    for row in rows[:3]:
        whole.write(row)
    saved = whole.sync()
    for row in ({"step": 3, "loss": 99.0}, {"step": 4, "loss": 99.0}):
        whole.write(row)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # and a kill in the middle of a line
    resumed = MetricsFile(tmp_path / "metrics.jsonl", saved)
    for row in rows[3:]:
        resumed.write(row)
    assert read_metrics(tmp_path) == rows
    assert resumed.sync() == (tmp_path / "metrics.jsonl").stat().st_size


def test_a_new_run_empties_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    MetricsFile(tmp_path / "metrics.jsonl").write({"step": 2})
    assert read_metrics(tmp_path) == [{"step": 2}]


def test_each_line_is_on_the_disk_when_it_is_written(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write({"step": 1, "loss": 0.1})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.1}]  # and floats come back to the bit


@pytest.mark.parametrize(
    "losses", [{"ce": 1.0, "mlm": 2.0, "cos": 0.5}, {"ce": 0.0, "mlm": 2.0, "cos": 0.0}]
)
def test_curves_are_a_picture(losses, tmp_path):
    rows = [{"step": s, "loss": 3.0 / s} | losses for s in (1, 2, 3)] + [
        {"step": 3, "accuracy": 0.2}
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert plot_curves(tmp_path).read_bytes().startswith(b"\x89PNG")


def card_of(config, *arguments, **record) -> str:
    record = {
        "shape": "2 layers x 32",
        "fingerprint": "abc123",
        "tokens": 12345,
        "steps": 10,
        "minutes": 3.0,
        "tokens_per_second": 68.0,
        "processes": 2,
        "precision": "fp32",
    } | record
    return model_card(
        config,
        arguments,
        record,
        {"mlm_loss": 2.0, "accuracy": 0.4321, "kl": 0.25},
        describe_machine(),
    )


def test_the_card_holds_the_command_and_the_figures(config):
    card = card_of(config(teacher="data/teacher"), "--preset", "my own.yaml")
    assert "accelerate launch distil_lib/pretrain.py --preset 'my own.yaml'" in card
    assert all(
        words in card
        for words in ("0.4321", "0.2500", "7.3891", "12,345", "abc123", "data/teacher")
    )
    assert "# Student: 2 layers x 32\n" in card and "started from" not in card
    assert "# Teacher: 2 layers x 32\n" in (card := card_of(config())) and "from nothing" in card


@pytest.mark.parametrize(
    "changes, own",
    [
        ({"teacher": "data/teacher"}, True),
        ({}, True),
        ({"teacher": "someone/bert"}, False),
        ({"teacher": "data/teacher", "corpus": "mine.txt"}, False),
        ({"init_from": "someone/bert"}, False),
    ],
)
def test_the_card_claims_a_licence_and_a_language_only_for_the_projects_own(changes, own, config):
    """Oracle: YAML's own reader over the head of the card."""
    head = yaml.safe_load(card_of(config(**changes)).split("---")[1])
    assert ("license" in head, "language" in head) == (own, own)
    assert head["pipeline_tag"] == "fill-mask"


@pytest.mark.parametrize("eps, said", [(1e-12, False), (1e-5, True)])
def test_the_card_says_what_transformers_computes_otherwise(eps, said, config):
    """Oracle: DistilBERT of transformers, whose LayerNorms have 1e-12 whatever the setting says."""
    model = DistilBertConfig(
        vocab_size=20, dim=8, hidden_dim=8, n_layers=1, n_heads=1, layer_norm_eps=eps
    )
    theirs = DistilBertForMaskedLM(model)
    differs = {m.eps for m in theirs.modules() if isinstance(m, nn.LayerNorm)} != {eps}
    record = dict.fromkeys(("tokens", "steps", "minutes", "processes", "tokens_per_second"), 1)
    record |= {"shape": "x", "fingerprint": "x", "precision": "fp32"}
    card = model_card(config(), [], record, {"mlm_loss": 1.0}, {}, model)
    assert ("epsilon is 1e-05" in card) == said == differs


def test_the_card_of_a_run_that_went_on_from_another_quotes_how_that_was_made(config, tmp_path):
    """And no more than that: of three runs, the last card names two."""
    start = {}
    for name, shape in (
        ("first", "2 layers x 32"),
        ("second", "4 layers x 8"),
        ("third", "6 layers x 16"),
    ):
        card = card_of(config(**start), "--output", name, shape=shape)
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(card)
        start = {"init_from": str(tmp_path / name)}
    own, _, before = card.partition(f"\n`{tmp_path / 'second'}`, made by\n")
    assert "pretrain.py --output third\n" in own and f"from {tmp_path / 'second'}" in own
    second = (tmp_path / "second" / "README.md").read_text()
    assert "pretrain.py --output second\n" in before
    assert before.strip() and before.strip() in second and "--output first" not in before
    assert "made by" not in card_of(config(init_from=str(tmp_path)))  # which has no card


@pytest.mark.parametrize("said", [["--overwrite"], ["--overwrite", "true"], ["--resume=true"], []])
def test_the_cards_command_starts_the_run_anew(config, said):
    """Oracle: the program's own parser gives the same settings as those of the run, but for what
    became of an earlier run.
    """
    arguments = ["--preset", "demo", *said, "--max_steps", "7"]
    record = dict.fromkeys(("shape", "fingerprint", "precision"), "x") | dict.fromkeys(
        ("tokens", "steps", "minutes", "processes"), 1
    )
    card = model_card(
        config(), arguments, record | {"tokens_per_second": 1.0}, {"mlm_loss": 1.0}, {}
    )
    command = next(line for line in card.splitlines() if line.startswith("    accelerate"))
    assert parse_arguments(shlex.split(command)[3:]) == parse_arguments(
        ["--preset", "demo", "--max_steps", "7"]
    )


def test_a_setting_that_an_old_run_does_not_name_had_its_default(config, tmp_path):
    opened(config(max_steps=5))
    path = tmp_path / "run" / "config.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("learning_rate")]
    path.write_text("\n".join(lines))
    assert opened(config(max_steps=5, resume=True)) is None
    with pytest.raises(UserError, match=r"learning_rate was 0\.0005 and is 0\.9"):
        opened(config(max_steps=5, resume=True, learning_rate=0.9))
