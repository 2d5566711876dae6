"""Which teacher layers a student keeps, and the copying.

    select_layers(12, 6)                              # [0, 2, 4, 7, 9, 11], as in the released DistilBERT
    student = initialize_student(teacher, layers=6)

Section 3 of Sanh et al. (2019): the student is the teacher with every second layer left out. It starts, then, as something that
already works a little, instead of as noise; Table 4 puts the worth of that at 3.69 points of GLUE.
"""

import re
from collections.abc import Sequence

import torch
from transformers import DistilBertConfig, PreTrainedModel

from distil_lib.errors import UserError
from distil_lib.student import Student
from distil_lib.teacher import MaskedLM

STRATEGIES = ("spread", "alternate", "first", "last", "random")


def select_layers(
    teacher_layers: int, student_layers: int, strategy: str = "spread", seed: int = 0
) -> list[int]:
    """The teacher's layers (counted from 0) that the student keeps, in rising order.

    spread:    evenly from the first to the last, round(linspace): 12 to 6 gives the released 0, 2, 4, 7, 9, 11
    alternate: every second (or third, ...) from the first on: 0, 2, 4, 6, 8, 10, as the paper's text describes it
    first, last: the lowest or the highest ones
    random:    drawn without replacement, by `seed`
    """
    if not 1 <= student_layers <= teacher_layers:
        raise UserError(
            f"A student of {student_layers} layers cannot be cut from a teacher of {teacher_layers}.",
            f"Choose from 1 to {teacher_layers} student layers.",
        )
    if strategy == "spread":
        if student_layers == 1:
            return [teacher_layers - 1]
        return [
            round(i * (teacher_layers - 1) / (student_layers - 1)) for i in range(student_layers)
        ]
    if strategy == "alternate":
        return [i * (teacher_layers // student_layers) for i in range(student_layers)]
    if strategy == "first":
        return list(range(student_layers))
    if strategy == "last":
        return list(range(teacher_layers - student_layers, teacher_layers))
    if strategy == "random":
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(teacher_layers, generator=generator)[:student_layers].tolist())
    raise UserError(
        f"There is no strategy {strategy!r}.",
        f"Choose one of {', '.join(STRATEGIES)}, or pass a list of layers.",
    )


# BERT's and RoBERTa's name of a part of a layer -> the student's. Weight and bias go together.
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
HEAD_PARTS = {  # the prediction head: BERT's names, then RoBERTa's
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.decoder": "vocab_projector",
    "lm_head.dense": "vocab_transform",
    "lm_head.layer_norm": "vocab_layer_norm",
    "lm_head.decoder": "vocab_projector",
}


def skipped_positions(config) -> int:
    """How many position embeddings a model has and never reads: RoBERTa counts positions from padding_idx + 1 on."""
    return config.pad_token_id + 1 if config.model_type == "roberta" else 0


def student_config(
    teacher_config, student_layers: int, dropout: float | None = None
) -> DistilBertConfig:
    """The configuration of a student of the teacher's width. `dropout`: the teacher's by default."""
    if teacher_config.hidden_act != "gelu":
        raise UserError(
            f"The teacher's activation is {teacher_config.hidden_act}.",
            "The student can only take over 'gelu' layers.",
        )
    return DistilBertConfig(
        vocab_size=teacher_config.vocab_size,
        max_position_embeddings=teacher_config.max_position_embeddings
        - skipped_positions(teacher_config),
        dim=teacher_config.hidden_size,
        hidden_dim=teacher_config.intermediate_size,
        n_layers=student_layers,
        n_heads=teacher_config.num_attention_heads,
        dropout=teacher_config.hidden_dropout_prob if dropout is None else dropout,
        attention_dropout=teacher_config.attention_probs_dropout_prob
        if dropout is None
        else dropout,
        initializer_range=teacher_config.initializer_range,
        pad_token_id=teacher_config.pad_token_id,
        layer_norm_eps=teacher_config.layer_norm_eps,  # not a DistilBERT setting: read by our Student alone (1e-12 in every BERT)
        tie_word_embeddings=getattr(teacher_config, "tie_word_embeddings", True),
    )


def initialize_student(
    teacher: MaskedLM | PreTrainedModel,
    layers: str | int | Sequence[int] = "spread",
    student_layers: int | None = None,
    copy_embeddings: bool = True,
    copy_head: bool = True,
    dropout: float | None = None,
    seed: int = 0,
) -> Student:
    """A student that is the teacher cut to some of its layers.

    teacher: a BERT or RoBERTa encoder of `transformers`, with or without MLM head and pooler.
    layers: a strategy of `select_layers` or the list of layers to keep; a number is short for that many, spread.
    student_layers: how many, for a strategy; half of the teacher's by default.
    copy_head: take over the MLM head's transform, LayerNorm and bias (if the teacher has them). The projection is tied to the words.

    The teacher adds a token-type vector to every token, and in pretraining on single texts it is always that of type 0. The student
    has none, so it is folded into the positions: word + (position + type 0) differs from (word + type 0) + position by rounding only.
    """
    model = teacher.model if isinstance(teacher, MaskedLM) else teacher
    config = model.config
    if config.model_type not in ("bert", "roberta"):
        raise UserError(
            f"A teacher of type {config.model_type!r} is not known here.",
            "Use a BERT or a RoBERTa.",
        )
    if config.is_decoder or getattr(config, "position_embedding_type", "absolute") not in (
        "absolute",
        None,
    ):
        raise UserError(
            "The teacher is no encoder with absolute positions.",
            "Only such layers fit into the student.",
        )
    if isinstance(layers, int):
        layers, student_layers = "spread", layers
    if isinstance(layers, str):
        layers = select_layers(
            config.num_hidden_layers, student_layers or config.num_hidden_layers // 2, layers, seed
        )
    layers = list(layers)
    if not layers or not all(0 <= i < config.num_hidden_layers for i in layers):
        raise UserError(
            f"The teacher has no layers {layers}.",
            f"Its layers are 0 to {config.num_hidden_layers - 1}.",
        )
    with torch.random.fork_rng(
        devices=[]
    ):  # what is not copied is drawn from `seed`, and nobody else's random numbers change
        torch.default_generator.manual_seed(
            seed
        )  # the CPU's; `torch.manual_seed` would reach the GPUs' as well
        student = Student(student_config(config, len(layers), dropout))
    # Never below float32, whatever the teacher is kept in: these are the weights that an optimizer will add small numbers to.
    student = student.to(torch.promote_types(model.dtype, torch.float32))
    copied = _copied_weights(model, layers, copy_embeddings, copy_head)
    unexpected = student.load_state_dict(copied, strict=False).unexpected_keys
    assert not unexpected, unexpected
    return student


def _copied_weights(
    model: PreTrainedModel, layers: list[int], copy_embeddings: bool, copy_head: bool
) -> dict[str, torch.Tensor]:
    """The student's parameters that come from the teacher, by the student's names."""
    weights = model.state_dict()
    # "bert.encoder..." with a head around the encoder, "encoder..." without.
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    copied = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(rf"{prefix}encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
            for new, old in enumerate(layers):
                if old == int(match[1]):
                    copied[
                        f"distilbert.transformer.layer.{new}.{LAYER_PARTS[match[2]]}.{match[3]}"
                    ] = tensor
        elif copy_head and (part := HEAD_PARTS.get(name.rpartition(".")[0])):
            copied[f"{part}.{name.rpartition('.')[2]}"] = tensor
    if copy_embeddings:
        words, positions, types = (
            weights[f"{prefix}embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        skipped = skipped_positions(model.config)
        dtype = torch.promote_types(words.dtype, torch.float32)
        copied["distilbert.embeddings.word_embeddings.weight"] = words
        copied["distilbert.embeddings.position_embeddings.weight"] = positions[skipped:].to(
            dtype
        ) + types[0].to(dtype)
        for kind in ("weight", "bias"):
            copied[f"distilbert.embeddings.LayerNorm.{kind}"] = weights[
                f"{prefix}embeddings.LayerNorm.{kind}"
            ]
        copied.setdefault("vocab_projector.weight", words)
    else:  # the tied projection must not bring the words back in
        copied.pop("vocab_projector.weight", None)
    return copied
