"""What a plan has to know of a run: shapes of its models, length of its text. Little is read.

student, teacher = planned_models(config)      # configurations: no weights are opened
tokens, counted = corpus_tokens(config)
"""

from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from distil_lib.common.paths import locate
from distil_lib.errors import UserError
from distil_lib.initialization import select_layers, student_config
from distil_lib.model_folder import check_model_folder, loading
from distil_lib.teacher import new_teacher
from distil_lib.text.blocks import packed_blocks
from distil_lib.text.sources import parse_corpus
from distil_lib.text.tokenizer import load_tokenizer
from distil_lib.training.config import PretrainConfig
from distil_lib.training.models import check_losses

LETTERS_PER_WORDPIECE = 5  # bytes of English text


def planned_models(config: PretrainConfig) -> tuple[PretrainedConfig, PretrainedConfig | None]:
    """Configurations of what is trained and of its teacher."""
    if config.teacher is not None:
        teacher = _read_config(config.teacher)
        choice, found = config.layer_choice(), teacher.num_hidden_layers
        layers = config.student_layers or found // 2
        if isinstance(choice, list):
            layers = len(choice)
            if not all(0 <= layer < found for layer in choice):
                remedy = f"Its layers are 0 to {found - 1}."
                problem = f"The teacher has no layers {choice}."
                raise UserError(problem, remedy, setting="init_layers")
        elif choice is not None:
            select_layers(found, layers, choice)  # refuses what cannot be chosen
        return student_config(teacher, layers, config.dropout), teacher
    check_losses(config)
    if config.init_from is not None:
        return _read_config(config.init_from), None
    tokenizer = load_tokenizer(locate(config.tokenizer))
    shape = (config.hidden_size, config.hidden_layers, config.heads)
    with torch.device("meta"):  # no weights are made
        return new_teacher(tokenizer, *shape).config, None


def _read_config(name: str) -> PretrainedConfig:
    name = locate(name)
    check_model_folder(name)
    with loading(name):
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


def corpus_tokens(config: PretrainConfig) -> tuple[int | None, bool]:
    """(WordPieces that are trained on, whether they were counted); None where that is unknown."""
    parts = parse_corpus(config.corpus)
    local = Path(locate(config.tokenizer)).is_dir()
    if local and not any(part.kind == "hub" for part in parts):
        tokenizer = load_tokenizer(locate(config.tokenizer))
        blocks = packed_blocks(config.corpus, tokenizer, config.block_size)
        if blocks is not None:
            return blocks * (config.block_size - 2), True
    paths = [Path(part.name) for part in parts if part.kind == "path"]
    if len(paths) < len(parts):
        return None, False
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]} does not exist.", "Name a file or a folder.", "corpus")
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path])]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return size // LETTERS_PER_WORDPIECE, False
