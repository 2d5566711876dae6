"""The models of a run, made from its configuration: the teacher, and what is trained."""

import hashlib
import json

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from distil_lib.common.paths import locate
from distil_lib.common.trainer import quick_attention
from distil_lib.errors import UserError
from distil_lib.initialization import initialize_student, skipped_positions, student_config
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM, load_teacher, new_teacher
from distil_lib.text.tokenizer import check_same_reading
from distil_lib.training.config import PretrainConfig
from distil_lib.vocabulary import check_vocabulary


def load_run_teacher(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> MaskedLM | None:
    """The run's teacher, or None if a BERT is pretrained."""
    if config.teacher is None:
        return None
    name = locate(config.teacher)
    teacher = load_teacher(name, tokenizer, getattr(torch, config.teacher_dtype))
    check_same_reading(tokenizer, name)
    return teacher


def round_linear_maps(teacher: MaskedLM, dtype: torch.dtype) -> int:
    """Keep a teacher's linear maps in the precision that autocast rounds them to at every use.

    It answers with the same bits, and nothing has to be rounded again in each step. The output gets
    a matrix of its own: the table of word vectors, which it shares, is not rounded by autocast. Its
    bias stays as it is, for logits are summed up in fp32.

    Returns:
        The number of maps.
    """
    output = teacher.model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.to(dtype), requires_grad=False)
    linear = [module for module in teacher.modules() if isinstance(module, nn.Linear)]
    for module in linear:
        if module is not output:
            module.to(dtype)
    return len(linear)


def model_fingerprint(model: MaskedLM | None) -> str:
    """A hash of what a model computes: weights and configuration, wherever its files are."""
    if model is None:
        return ""
    settings = model.config.to_diff_dict()
    for name in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        settings.pop(name, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def new_model(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    teacher: MaskedLM | None,
    device: torch.device,
) -> Student | MaskedLM:
    """The model that is trained, as it is before the first step."""
    model: Student | MaskedLM
    if teacher is None:
        model = _new_bert(config, tokenizer, device)
    else:
        model = _new_student(config, tokenizer, teacher)
    check_positions(config.block_size, model.config)
    return model


def check_positions(block_size: int, model: PretrainedConfig) -> None:
    """Raise `UserError` unless a model of this configuration reads blocks of so many tokens."""
    longest = model.max_position_embeddings - skipped_positions(model)
    if block_size > longest:
        raise UserError(
            f"The model knows {longest} positions; a block has {block_size} tokens.",
            f"Choose blocks of {longest} tokens at most.",
            setting="block_size",
        )


def check_losses(config: PretrainConfig) -> None:
    """Raise `UserError` if a BERT without a teacher is to learn from one."""
    if config.alpha_ce or config.alpha_cos:
        raise UserError(
            "L_ce and L_cos need a teacher.",
            "Choose a teacher, or set both weights to 0 to pretrain a BERT.",
            setting=("teacher", "alpha_ce", "alpha_cos"),
        )


def _new_bert(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, device: torch.device
) -> MaskedLM:
    check_losses(config)
    attention = quick_attention(device, config.block_size)
    if config.init_from is not None:
        start = load_teacher(locate(config.init_from), tokenizer, new_head=True)
        check_same_reading(tokenizer, locate(config.init_from))
        return start.to_training(config.dropout, attention)
    shape = (config.hidden_size, config.hidden_layers, config.heads)
    return new_teacher(tokenizer, *shape, dropout=config.dropout, attention=attention)


def _new_student(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, teacher: MaskedLM
) -> Student:
    choice, layers = config.layer_choice(), config.student_layers
    if choice is None:
        layers = layers or teacher.config.num_hidden_layers // 2
        model = Student(student_config(teacher.config, layers, config.dropout))
    else:
        model = initialize_student(
            teacher,
            choice,
            layers,
            copy_head=config.copy_head,
            dropout=config.dropout,
            seed=config.seed,
        ).float()
    check_vocabulary(model.config.vocab_size, tokenizer, str(config.teacher))
    if config.freeze_positions:
        model.distilbert.embeddings.position_embeddings.requires_grad_(False)
    return model
