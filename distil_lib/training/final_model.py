"""What a finished run leaves: `model/` with tokenizer and card, then `curves.png`."""

import shutil
import sys
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import get_model_state_dict

from distil_lib.common.files import atomic_folder
from distil_lib.common.hardware import describe_machine
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM
from distil_lib.training.checkpoint import WHOLE
from distil_lib.training.metrics_file import plot_curves
from distil_lib.training.model_card import model_card
from distil_lib.training.models import new_model
from distil_lib.training.run_folder import saving
from distil_lib.training.setup import TrainingSetup


def save_final_model(
    setup: TrainingSetup,
    arguments: list[str],
    figures: dict[str, float],
    steps: int,
    seconds: float,
    tokens: int,
) -> None:
    """Write the model, then its curves: a picture that fails loses no model.

    Every process calls this, because a sharded model has to be put together.

    Args:
        setup: the run.
        arguments: its command line.
        figures: the last held-out figures.
        steps: optimizer steps that were made.
        seconds: of training.
        tokens: that were read.
    """
    model = _whole_model(setup)
    if not setup.accelerator.is_main_process:
        return
    folder, config = Path(setup.config.output), setup.config
    record = {
        "shape": f"{model.config.num_hidden_layers} layers x {model.config.hidden_size}",
        "fingerprint": setup.blocks.content_hash,
        "tokens": tokens,
        "steps": steps,
        "minutes": seconds / 60,
        "tokens_per_second": tokens / max(seconds, 1e-9),
        "processes": setup.world,
        "precision": config.precision,
    }
    card = model_card(config, arguments, record, figures, describe_machine(), model.config)
    with saving(folder / "model"), atomic_folder(folder / "model") as beside:
        model = model.to(getattr(torch, config.save_dtype))
        model.save_pretrained(beside)
        setup.tokenizer.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
    try:
        shutil.copyfile(plot_curves(folder), folder / "model" / "curves.png")
    except Exception as error:  # whatever a drawing library may raise: the model is written
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"curves.png could not be drawn ({reason}).", file=sys.stderr, flush=True)
    said = ", ".join(f"{k} {v:.4f}" for k, v in figures.items())
    print(f"model in {folder / 'model'}: {said}", flush=True)


def _whole_model(setup: TrainingSetup) -> Student | MaskedLM:
    """The trained model; if it was sharded, on the main process alone, where it has to fit."""
    bare = setup.accelerator.unwrap_model(setup.model)
    if not setup.sharded:
        return bare
    state = get_model_state_dict(bare, options=WHOLE)
    if setup.accelerator.is_main_process:
        bare = new_model(setup.config, setup.tokenizer, setup.teacher, setup.device)
        bare.load_state_dict(state)
    return bare
