"""Which teacher layers a student keeps, and the copying.

    select_layers(12, 6)                       # [0, 2, 4, 7, 9, 11], as in the released DistilBERT
    student = initialize_student(teacher, layers=6)

Section 3 of Sanh et al. (2019): the student is the teacher with every other layer left out, so it
starts as something that works a little already, which Table 4 finds worth 3.69 points of GLUE.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import DistilBertConfig, PreTrainedModel

from distil_lib.errors import UserError
from distil_lib.model_folder import check_encoder
from distil_lib.student import Student, layer_norm_eps
from distil_lib.teacher import MaskedLM

STRATEGIES = ("spread", "alternate", "first", "last", "random")


def select_layers(
    teacher_layers: int, student_layers: int, strategy: str = "spread", seed: int = 0
) -> list[int]:
    """The teacher's layers that the student keeps, counted from 0, in rising order.

    Args:
        teacher_layers: How many the teacher has.
        student_layers: How many are kept.
        strategy: "spread": evenly from the first to the last, round(linspace); 12 to 6 gives the
            released 0, 2, 4, 7, 9, 11. "alternate": every second (or third, ...) from the first on:
            0, 2, 4, 6, 8, 10, as the paper's text describes it. "first", "last": the lowest or the
            highest ones. "random": drawn without replacement.
        seed: Of the random draw.

    Raises:
        UserError: If the teacher has too few layers, or there is no such strategy.
    """
    if not 1 <= student_layers <= teacher_layers:
        asked = f"A student of {student_layers} layers"
        problem = f"{asked} cannot be cut from a teacher of {teacher_layers}."
        remedy = f"Choose from 1 to {teacher_layers} student layers."
        raise UserError(problem, remedy, setting="student_layers")
    if strategy == "spread":
        last, gaps = teacher_layers - 1, student_layers - 1
        return [round(i * last / gaps) for i in range(student_layers)] if gaps else [last]
    if strategy == "alternate":
        stride = teacher_layers // student_layers  # the largest that fits: 12 to 5 is 0, 2, 4, 6, 8
        return [i * stride for i in range(student_layers)]
    if strategy == "first":
        return list(range(student_layers))
    if strategy == "last":
        return list(range(teacher_layers - student_layers, teacher_layers))
    if strategy == "random":
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(teacher_layers, generator=generator)[:student_layers].tolist())
    remedy = f"Choose one of {', '.join(STRATEGIES)}, or pass a list of layers."
    raise UserError(f"There is no strategy {strategy!r}.", remedy, setting="init_layers")


# The names of a layer's parts in BERT and RoBERTa -> the student's. Weight and bias go together.
LAYER_PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
HEAD_PARTS = {  # the prediction head: BERT's names, RoBERTa's, the student's own
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.decoder": "vocab_projector",
    "lm_head.dense": "vocab_transform",
    "lm_head.layer_norm": "vocab_layer_norm",
    "lm_head.decoder": "vocab_projector",
    **{part: part for part in ("vocab_transform", "vocab_layer_norm", "vocab_projector")},
}


def skipped_positions(config: Any) -> int:
    """How many positions a model has and never reads: RoBERTa counts from padding_idx + 1 on."""
    return config.pad_token_id + 1 if config.model_type == "roberta" else 0


def student_config(
    config: Any, student_layers: int, dropout: float | None = None
) -> DistilBertConfig:
    """The configuration of a student of the teacher's width.

    Args:
        config: The teacher's: a BERT, RoBERTa or DistilBERT.
        student_layers: How many, at least 1.
        dropout: Between 0 and 1, for all dropouts; the teacher's by default.

    Raises:
        UserError: If the teacher's layers do not fit into a student, or no layer is asked for.
    """
    check_encoder(config)
    if student_layers < 1:
        problem = f"A student of {student_layers} layers has nothing to learn with."
        raise UserError(problem, "Choose one layer at least.", setting="student_layers")
    small = config.model_type == "distilbert"  # it has other names for the same settings
    hidden = config.dropout if small else config.hidden_dropout_prob
    attention = config.attention_dropout if small else config.attention_probs_dropout_prob
    return DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings - skipped_positions(config),
        dim=config.hidden_size,
        hidden_dim=config.hidden_dim if small else config.intermediate_size,
        n_layers=student_layers,
        n_heads=config.num_attention_heads,
        dropout=hidden if dropout is None else dropout,
        attention_dropout=attention if dropout is None else dropout,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        **cast(Any, {"layer_norm_eps": layer_norm_eps(config)}),
        tie_word_embeddings=getattr(config, "tie_word_embeddings", True),
    )


def initialize_student(
    teacher: MaskedLM | Student | PreTrainedModel,
    layers: str | int | Sequence[int] = "spread",
    student_layers: int | None = None,
    copy_embeddings: bool = True,
    copy_head: bool = True,
    dropout: float | None = None,
    seed: int = 0,
) -> Student:
    """A student that is the teacher cut to some of its layers (Sanh et al. 2019, section 3).

    The student has no token types. In single texts BERT's is always type 0, whose vector is added
    to the positions: a token's embedding differs by rounding only.

    Args:
        teacher: A BERT, RoBERTa or DistilBERT encoder, with or without MLM head and pooler.
        layers: A strategy of `select_layers`, a list of layers, or a number: so many, spread.
        student_layers: How many, for a strategy; half of the teacher's by default.
        copy_embeddings: Take over words, positions and their LayerNorm.
        copy_head: Take over the MLM head's transform, LayerNorm and bias, if the teacher has them.
        dropout: The student's; the teacher's by default.
        seed: What is not copied is drawn from it.

    Raises:
        UserError: If the teacher does not fit, or does not have these layers.
    """
    model: Any = teacher.model if isinstance(teacher, MaskedLM) else teacher
    check_encoder(model.config)
    found = model.config.num_hidden_layers
    if isinstance(layers, int):
        student_layers, layers = layers, "spread"
    if isinstance(layers, str):
        wanted = found // 2 if student_layers is None else student_layers
        layers = select_layers(found, wanted, layers, seed)
    layers = list(layers)
    if not layers or not all(0 <= i < found for i in layers):
        remedy = f"Its layers are 0 to {found - 1}."
        raise UserError(f"The teacher has no layers {layers}.", remedy, setting="init_layers")
    # Nobody else's random numbers change; `torch.manual_seed` would seed those of the GPUs as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student = Student(student_config(model.config, len(layers), dropout))
    # Never below float32, whatever the teacher is kept in: an optimizer will add small numbers.
    student = student.to(torch.promote_types(next(model.parameters()).dtype, torch.float32))
    copied = _copied_weights(model, layers, copy_embeddings, copy_head)
    unexpected = student.load_state_dict(copied, strict=False).unexpected_keys
    assert not unexpected, unexpected
    return student


def _copied_weights(
    model: Any, layers: list[int], copy_embeddings: bool, copy_head: bool
) -> dict[str, torch.Tensor]:
    """The student's parameters that come from the teacher, by the student's names."""
    weights, copied = model.state_dict(), {}
    for name, tensor in weights.items():
        path, _, kind = name.rpartition(".")  # kind: weight or bias
        if match := re.search(r"\blayer\.(\d+)\.(.+)", path):
            part = LAYER_PARTS.get(match[2], match[2])
            for new, old in enumerate(layers):  # a layer may be kept twice
                if old == int(match[1]):
                    copied[f"distilbert.transformer.layer.{new}.{part}.{kind}"] = tensor
        elif copy_head and path in HEAD_PARTS:
            copied[f"{HEAD_PARTS[path]}.{kind}"] = tensor
    if not copy_embeddings:  # the tied projection must not bring the words back in
        copied.pop("vocab_projector.weight", None)
        return copied
    # "bert.embeddings..." with a head around the encoder, "embeddings..." without.
    words = next(name for name in weights if name.endswith("word_embeddings.weight"))
    theirs, mine = words.removesuffix("word_embeddings.weight"), "distilbert.embeddings."
    dtype = torch.promote_types(weights[words].dtype, torch.float32)
    positions = weights[f"{theirs}position_embeddings.weight"].to(dtype)
    if (types := weights.get(f"{theirs}token_type_embeddings.weight")) is not None:
        positions = positions + types[0].to(dtype)
    copied[f"{mine}position_embeddings.weight"] = positions[skipped_positions(model.config) :]
    for part in ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"):
        copied[f"{mine}{part}"] = weights[f"{theirs}{part}"]
    copied.setdefault("vocab_projector.weight", weights[words])
    return copied
