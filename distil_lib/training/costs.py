"""What a training run costs, from its configuration alone: parameters, arithmetic, hours, disk.

    student = student_config(teacher, 6)
    cost = run_cost(load_preset("paper"), student, teacher, corpus_tokens=4_300_000_000)
    cost.steps, cost.step.total, device_hours(cost.flops, peak=125e12, utilization=0.3)

The matrix products of a step are counted: a multiply-add is 2 operations, and a backward pass costs
twice its forward pass (each product has two gradients). Look-ups, LayerNorms, softmaxes and the
optimizer take time but little arithmetic, and are left out.
"""

from dataclasses import asdict, dataclass

from transformers import PretrainedConfig

from distil_lib.masking import sample_size
from distil_lib.training.config import PretrainConfig

TOKEN_BYTES = 4  # blocks are stored as int32
BACKWARD = 2  # times the forward pass


def _feed_forward(config: PretrainedConfig) -> int:
    return config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size


def parameters(config: PretrainedConfig) -> int:
    """The parameters of a BERT, RoBERTa or DistilBERT with its MLM head.

    A matrix that is used twice counts once.
    """
    H, F, V = config.hidden_size, _feed_forward(config), config.vocab_size
    token_types = getattr(config, "type_vocab_size", 0)
    embeddings = (V + config.max_position_embeddings + token_types) * H + 2 * H
    layer = 4 * (H * H + H) + (H * F + F) + (F * H + H) + 2 * 2 * H
    head = (H * H + H) + 2 * H + V
    # Untied, the matrix is its own, and so is the second bias in BERT and RoBERTa.
    if not config.tie_word_embeddings:
        head += V * H + (0 if config.model_type == "distilbert" else V)
    return embeddings + config.num_hidden_layers * layer + head


def resident_bytes(
    student: PretrainedConfig, teacher: PretrainedConfig | None = None, teacher_bytes: int = 4
) -> int:
    """What a GPU holds whatever the batch, in bytes; what each token needs comes on top.

    Args:
        student: configuration of the model that is trained in fp32 with AdamW: weights, gradients
            and two means of 4 bytes each.
        teacher: configuration of its teacher, of which only the weights are there.
        teacher_bytes: of each of them, 2 with `teacher_dtype: bfloat16`.
    """
    return 16 * parameters(student) + (teacher_bytes * parameters(teacher) if teacher else 0)


@dataclass(frozen=True)
class ForwardCost:
    """FLOPs of a forward pass, per token of the batch.

    layers: their linear maps. attention: its scores and means. head: the MLM head.
    """

    layers: float
    attention: float
    head: float


def forward_cost(
    config: PretrainedConfig, block_size: float, head_share: float = 1.0
) -> ForwardCost:
    """FLOPs of one model on blocks of `block_size` tokens.

    Args:
        config: the model's configuration.
        block_size: tokens in a sequence.
        head_share: the share of the tokens at which the head computes logits.
    """
    H, n = config.hidden_size, config.num_hidden_layers
    return ForwardCost(
        layers=2.0 * n * (4 * H * H + 2 * H * _feed_forward(config)),
        # Each token's query with all keys, then its weights with all values.
        attention=2.0 * n * 2 * block_size * H,
        head=2.0 * (H * H + H * config.vocab_size) * head_share,
    )


@dataclass(frozen=True)
class StepCost:
    """FLOPs of a training step, per token of the batch.

    Forward and backward passes of the student, forward pass of the teacher.
    """

    student_layers: float
    student_attention: float
    student_head: float
    teacher_layers: float = 0.0
    teacher_attention: float = 0.0
    teacher_head: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return sum(asdict(self).values())

    @property
    def teacher(self) -> float:
        """The teacher's forward pass."""
        return self.teacher_layers + self.teacher_attention + self.teacher_head

    @property
    def heads(self) -> float:
        """The MLM heads of student and teacher."""
        return self.student_head + self.teacher_head


def _masked_share(config: PretrainConfig) -> float:
    """The share of a block's tokens that are masked, which are never [CLS] or [SEP]."""
    return config.mlm_probability * (config.block_size - 2) / config.block_size


def soft_share(config: PretrainConfig) -> float:
    """The share of a block's tokens that have soft targets: what the teacher's head computes."""
    if not config.alpha_ce:
        return 0.0
    if config.soft_targets == "sample":
        return sample_size(config.soft_target_fraction, config.block_size) / config.block_size
    return 1.0 if config.soft_targets == "all" else _masked_share(config)


def head_share(config: PretrainConfig) -> float:
    """The share of a block's tokens that have soft targets, a label or both.

    That is where the student's head computes.
    """
    soft, hard = soft_share(config), _masked_share(config) if config.alpha_mlm else 0.0
    if config.soft_targets == "sample":  # drawn independently of what is masked
        return soft + hard - soft * hard
    return max(soft, hard)


def step_cost(
    config: PretrainConfig, student: PretrainedConfig, teacher: PretrainedConfig | None = None
) -> StepCost:
    """FLOPs of a run's step, by part.

    Args:
        config: the run's settings.
        student: configuration of the model that is trained.
        teacher: configuration of its teacher, if it has one.
    """
    learns = forward_cost(student, config.block_size, head_share(config))
    parts = [(1 + BACKWARD) * part for part in (learns.layers, learns.attention, learns.head)]
    if teacher is not None and (config.alpha_ce or config.alpha_cos):
        answers = forward_cost(teacher, config.block_size, soft_share(config))
        parts += [answers.layers, answers.attention, answers.head]
    return StepCost(*parts)


@dataclass(frozen=True)
class RunCost:
    """Costs of a whole run.

    tokens: that training reads, epochs and special tokens included. corpus_bytes: of the tokenized
    text on disk.
    """

    step: StepCost
    steps: int
    tokens: int
    corpus_bytes: int

    @property
    def flops(self) -> float:
        """FLOPs of all tokens that training reads."""
        return self.step.total * self.tokens


def run_cost(
    config: PretrainConfig,
    student: PretrainedConfig,
    teacher: PretrainedConfig | None,
    corpus_tokens: int,
) -> RunCost:
    """Costs of a run over a corpus.

    Args:
        config: the run's settings.
        student: configuration of the model that is trained.
        teacher: configuration of its teacher, if it has one.
        corpus_tokens: WordPieces in the training part, without [CLS] and [SEP] of each block.
    """
    blocks = corpus_tokens // (config.block_size - 2)
    sequences = config.max_steps * config.batch_size or max(round(config.epochs * blocks), 1)
    return RunCost(
        step=step_cost(config, student, teacher),
        steps=-(-sequences // config.batch_size),
        tokens=sequences * config.block_size,
        corpus_bytes=blocks * config.block_size * TOKEN_BYTES,
    )


def device_hours(flops: float, peak: float, utilization: float = 1.0) -> float:
    """Hours that one device needs; n devices divide them by n.

    Args:
        flops: what is to be computed.
        peak: FLOP/s of the device.
        utilization: the share of it that is reached.
    """
    return flops / (peak * utilization) / 3600
