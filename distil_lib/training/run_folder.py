"""What a run leaves behind: `config.yaml`, `metrics.jsonl`, `checkpoints/`, `model/` with its card, `curves.png`.

rows = read_metrics("runs/mini")                          # one dictionary a line of metrics.jsonl
plot_curves("runs/mini")
"""

import shutil
from pathlib import Path

import yaml

from distil_lib.errors import UserError
from distil_lib.training.checkpoint import latest_valid_checkpoint, list_checkpoints
from distil_lib.training.config import RESUMABLE_OVERRIDES, PretrainConfig

PARTIAL = ".config.yaml.partial"


def open_run(config: PretrainConfig) -> Path | None:
    """Make the run's folder, or check that it may be gone on with. Returns the checkpoint to resume from, None for a new run.

    Raises `UserError` for a folder that holds another run, or a run of other settings.
    """
    folder = Path(config.output)
    # A run that was killed before it had written its configuration has left nothing that counts.
    used = folder.is_dir() and any(path.name != PARTIAL for path in folder.iterdir())
    if used and not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not empty and holds no run.", "Choose another --output.")
    if used and config.overwrite:
        shutil.rmtree(folder)
    elif used and not config.resume:
        remedy = "Go on with it by --resume, delete it by --overwrite, or choose another --output."
        raise UserError(f"{folder} holds a run already.", remedy)
    elif used:
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        now = vars(config)
        changed = [
            k for k in now if k not in RESUMABLE_OVERRIDES and k in saved and now[k] != saved[k]
        ]
        if changed:
            difference = ", ".join(f"{k} was {saved[k]!r} and is {now[k]!r}" for k in changed)
            raise UserError(
                f"{folder} was started with other settings: {difference}.",
                "Resume with the same, or choose another --output.",
            )
        checkpoint = latest_valid_checkpoint(folder / "checkpoints")
        if checkpoint is None and list_checkpoints(folder / "checkpoints"):
            raise UserError(f"No checkpoint in {folder} is whole.", "Start again with --overwrite.")
        return checkpoint
    elif config.resume:
        raise UserError(
            f"There is no run in {folder} to go on with.", "Leave --resume away to start one."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(folder / PARTIAL)
        (folder / PARTIAL).rename(folder / "config.yaml")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}).", "Choose another --output."
        ) from error
    return None


def saved_precision(config: PretrainConfig) -> str | None:
    """The precision that a run to be resumed was started with."""
    path = Path(config.output, "config.yaml")
    return (
        yaml.safe_load(path.read_text()).get("precision")
        if config.resume and path.is_file()
        else None
    )
