"""Settings of all programs: whatever is given ends in a sound configuration or in one message.

Oracles: the annotations of the settings themselves (pydantic is not asked), round trips through
YAML, and inputs that are wrong by construction.
"""

import dataclasses
import math
import pkgutil
import random
import time
from pathlib import Path

import pytest
import yaml

import distil_lib
from distil_lib.common import cli
from distil_lib.common.cli import Program, checked
from distil_lib.errors import UserError
from distil_lib.training.config import PROGRAM as PRETRAIN
from distil_lib.training.config import PretrainConfig

PLACES = [
    "training.config",
    "finetune.config",
    "ablation.__main__",
    "timing.table3",
    "timing.backend_comparison",
    "elmo.pretrain",
    "export.__main__",
    "text.tokenizer",
    "text.cache",
]


def programs() -> dict[str, Program]:
    modules = {place: pkgutil.resolve_name(f"distil_lib.{place}") for place in PLACES}
    return {place: m.PROGRAM for place, m in modules.items() if hasattr(m, "PROGRAM")}


PROGRAMS = programs()


def test_every_program_is_here():
    sources = Path(distil_lib.__file__).parent.rglob("*.py")
    made = [path for path in sources if "\nPROGRAM = Program(" in path.read_text("utf-8")]
    assert len(made) == len({id(program) for program in PROGRAMS.values()}) == len(PLACES)


NUMBERS = (
    "nan inf -inf -1 0 -0 1 2 0.5 1.5 1e308 1e-320 1e400 4294967296 1000000000000 ² ٣ 1_0".split()
)
WORDS = ["", " ", "auto", "fp32", "none", "None", "true", "no", "x" * 300, "a/" * 300, "\0", "a\nb"]
ODD = [
    "\udcff",
    "🙂",
    "é" * 200,
    "9" * 5000,
    "[1]",
    "{}",
    "--",
    "-",
    "~",
    "..",
    "{0}",
    "%s",
    "%(prog)s",
]
TEXTS = [*NUMBERS, *WORDS, *ODD]
VALUES = [
    *(None, True, False, 0, 1, -1, 3, 10**12, 10**5000, 0.5, 1.5, -0.1, math.nan, math.inf, 1e308),
    *([], {}, [1], [0], ["x"], [[1]], [None], {"a": 1}, b"bytes", object(), int, (1,), {1}),
]
LONGEST = 900  # letters of a message


def sound(config) -> None:
    """No value that is out of range, not finite, or of a type that YAML does not give back."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, list) else [value]:
            assert type(one) in (str, int, float, bool, type(None)), (field.name, one)
            if isinstance(one, int | float):
                assert math.isfinite(one) and abs(one) <= 1.8e308, (field.name, one)
                assert type(one) is float or -1 < one < 2**32, (field.name, one)
            if isinstance(one, str):
                assert one.isprintable() and len(one) < 5000, (field.name, one)
    if "seed" in config.__dict__:
        assert 0 <= config.seed < 2**32
    written = yaml.safe_dump(dataclasses.asdict(config))
    assert type(config)(**yaml.safe_load(written)) == config


def one_message(error: UserError) -> None:
    text = f"{error.problem} {error.remedy}"
    assert error.problem and error.remedy and "\n" not in text and len(text) < LONGEST, text


@pytest.mark.parametrize("place", PROGRAMS)
def test_any_command_line_ends_in_a_sound_configuration_or_in_one_message(place, capsys):
    program, chance, ends = PROGRAMS[place], random.Random(place), set()
    names = [field.name for field in dataclasses.fields(program.settings)]
    begun = time.monotonic()
    for _ in range(120):
        arguments = []
        for _ in range(chance.randint(1, 3)):
            name = chance.choice(names)
            if chance.random() < 0.1:
                name = chance.choice([name[:-1], name.replace("_", "-"), name.upper(), "", "--"])
            how = chance.choice(["apart", "joined", "alone", "several"])
            texts = [chance.choice(TEXTS) for _ in range({"alone": 0, "several": 3}.get(how, 1))]
            arguments += [f"--{name}={texts[0]}"] if how == "joined" else [f"--{name}", *texts]
        try:
            config = program.parse(arguments)
        except UserError as error:
            one_message(error)
            ends.add("refused")
        except SystemExit as end:
            assert end.code == 0 and {"--h", "--help"} & set(arguments), arguments
        else:
            sound(config)
            ends.add("accepted")
    assert "refused" in ends and capsys.readouterr().err == ""
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("place", PROGRAMS)
def test_any_values_from_python_end_in_a_sound_configuration_or_in_one_message(place):
    kind, chance = PROGRAMS[place].settings, random.Random(place)
    names = [field.name for field in dataclasses.fields(kind) if field.name != "task"]
    for _ in range(120):
        chosen = {chance.choice(names): chance.choice([*VALUES, *TEXTS]) for _ in range(2)}
        try:
            sound(kind(**chosen))
        except UserError as error:
            one_message(error)


def test_any_file_ends_in_settings_or_in_one_message(tmp_path):
    """Presets with letters and lines changed, cut and doubled, bytes of any kind among them."""
    chance, path, ends = random.Random(0), tmp_path / "mine.yaml", []
    files = sorted(PRETRAIN.presets.glob("*.yaml"))
    for _ in range(150):
        content = bytearray(chance.choice(files).read_bytes())
        for _ in range(chance.randint(1, 5)):
            where = chance.randrange(len(content))
            match chance.randrange(5):
                case 0:
                    content[where] = chance.randrange(256)
                case 1:
                    del content[where : where + chance.randint(1, 50)]
                case 2:
                    signs = [b"\t", b"\n", b": ", b"[", b"{", b"&a ", b"*a", b"'"]
                    content[where:where] = chance.choice([*signs, b"!!python/name:os.x "])
                case 3:
                    content += content[where:]
                case 4:
                    content[where:where] = chance.choice(TEXTS).encode("utf-8", "replace")
            content = content or bytearray(b" ")
        path.write_bytes(content)
        try:
            sound(PretrainConfig(**PRETRAIN.preset(path)))
            ends.append("accepted")
        except UserError as error:
            one_message(error)
            ends.append("refused")
    assert set(ends) == {"accepted", "refused"}


BOMB = "\n".join(
    [
        "a: &a [x, x]",
        *(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"1: 2\n", "'1' is no name"),
        (b"null: 1\n", "no name"),
        (b"[1]: 2\n", "no name"),
        (b"seed: " + b"[" * 5000, "nested too deeply"),
        (b"seed: " + b"{a: " * 5000, "nested too deeply"),
        (BOMB.encode(), "anchors and aliases"),
        (b"seed: &seed 1\n", "anchors and aliases"),
        (b"seed: " + b"1" * 100_000_000, "bytes"),
        (b"seed: " + b"1" * 200_000, "no YAML"),
        (b"\x89PNG\x00\xff", "UTF-8"),
        ("corpus: caf\xe9\n".encode("latin-1"), "UTF-8"),
        (b"corpus: a\x00b\n", "no YAML"),
        (b"seed:\t1\n\tcorpus: x\n", "no YAML"),
        (b"corpus: !!python/object/apply:os.system [id]\n", "no YAML"),
        (b"seed: 2024-99-99\n", "no YAML"),
        (b"seed: 1\nseed: 2\n", "there twice"),
        (b"seed: 1\n--- \nseed: 2\n", "no YAML"),
        (b"5\n", "no settings"),
        (b"layers: none\n", "Did you mean 'init_layers'"),
        (b"keep: 3\n", "Did you mean 'save_total_limit'"),
    ],
)
def test_a_file_that_is_no_preset_is_refused_at_once(content, words, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(UserError) as error:
        PRETRAIN.preset(tmp_path / "mine.yaml")
    one_message(error.value)
    assert words in str(error.value) and "mine.yaml" in str(error.value)
    assert time.monotonic() - begun < 3


def test_a_file_in_utf_8_with_a_mark_at_its_begin_is_read(tmp_path):
    (tmp_path / "mine.yaml").write_text("corpus: café/文\n", encoding="utf-8-sig")
    assert PRETRAIN.preset(tmp_path / "mine.yaml") == {"corpus": "café/文"}


@pytest.mark.parametrize(
    "settings",
    [
        *({"learning_rate": v} for v in (math.nan, math.inf, -math.inf)),
        *({"mask_smoothing": v} for v in (math.nan, math.inf, -5.0)),
        {"weight_decay": math.nan},
        {"max_grad_norm": math.nan},
        {"temperature": math.nan},
        {"adam_beta1": 1.5},
        {"adam_eps": -1.0},
        {"seed": 2**32},
        {"epochs": math.inf},
        {"hidden_size": 10**9},
        {"dataloader_num_workers": 5000},
        {"output": "x" * 256},
        {"corpus": "a\0b"},
        {"student_layers": 10**9},
        {"block_size": True},
        {"batch_size": 3.5},
        {"max_steps": "3"},
        {"learning_rate": 10**400},
    ],
)
def test_values_that_no_run_survives_are_refused_by_name(settings):
    with pytest.raises(UserError) as error:
        PretrainConfig(**settings)
    one_message(error.value)
    assert error.value.settings == tuple(settings) and str(error.value).startswith(*settings)


@pytest.mark.parametrize(
    "place, arguments",
    [
        ("finetune.config", ["--learning_rate", "inf"]),
        ("finetune.config", ["--weight_decay", "nan"]),
        ("finetune.config", ["--seeds", "1000000000000"]),
        ("elmo.pretrain", ["--learning_rate", "inf"]),
        ("elmo.pretrain", ["--max_grad_norm", "nan"]),
        ("elmo.pretrain", ["--filters", "0"]),
        ("text.tokenizer", ["--vocab_size", "0"]),
        ("text.tokenizer", ["--vocab_size", "-5"]),
        ("text.tokenizer", ["--vocab_size", "1000000000000"]),
        ("timing.table3", ["--threads", "0"]),
        ("timing.table3", ["--systems", "gpt"]),
        ("timing.backend_comparison", ["--backends", "nothing"]),
        ("timing.backend_comparison", ["--rungs", "onnx"]),
        ("export.__main__", ["--head", "x"]),
    ],
)
def test_the_other_programs_refuse_theirs(place, arguments):
    with pytest.raises(UserError) as error:
        PROGRAMS[place].parse(arguments)
    one_message(error.value)


@pytest.mark.parametrize("old, new", cli.RENAMED.items())
def test_the_old_name_of_a_setting_leads_to_the_new_one(old, new):
    found = [
        p for p in PROGRAMS.values() if new in (f.name for f in dataclasses.fields(p.settings))
    ]
    assert found
    for program in found:
        with pytest.raises(UserError, match=f"Did you mean '{new}'"):
            program.parse([f"--{old}", "1"])


@pytest.mark.parametrize("place", PROGRAMS)
def test_help_names_every_setting_and_its_choices(place, capsys):
    with pytest.raises(SystemExit) as end:
        PROGRAMS[place].parse(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(PROGRAMS[place].settings):
        assert f"--{field.name} " in text and "MISSING" not in text
    assert "Exit codes: 0 done, 2 bad input" in text


def test_a_mutant_that_checks_nothing_is_seen(monkeypatch):
    """The fuzz has teeth: without the checks its oracle fails."""
    monkeypatch.setattr(cli, "checked", lambda kind, name, value, *args, **more: value)
    with pytest.raises(AssertionError):
        for value in VALUES:
            sound(PretrainConfig(learning_rate=value))


def test_a_path_is_taken_as_its_text(tmp_path):
    assert checked(PretrainConfig, "output", tmp_path) == str(tmp_path)


@pytest.mark.parametrize("name", ["output", "teacher", "corpus", "log_with", "init_from"])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_no_value(name, text):
    """What `--teacher "$TEACHER"` gives where the variable is not set."""
    with pytest.raises(UserError, match="empty text"):
        PRETRAIN.parse([f"--{name}", text])


def test_what_means_the_same_is_the_same():
    """So two arms of a grid cannot differ in the sign of 0 or in a space alone."""
    one = PretrainConfig(alpha_cos=-0.0, init_layers="0, 2")
    other = PretrainConfig(alpha_cos=0.0, init_layers="0,2")
    assert repr(one) == repr(other) and one.layer_choice() == [0, 2]
    assert PretrainConfig(init_layers="\u0663").layer_choice() == "\u0663"  # an Arabic 3
