"""The memory that the tensors of a training process take at once, from its configuration alone.

    memory = step_memory(load_preset("mini"), student, teacher)
    memory.peak, memory.largest            # bytes, and the part of the run that needs them

Counted is what torch's allocator hands out (`torch.cuda.max_memory_allocated` on a GPU), tensor by
tensor, as the step of `distillation` keeps them for its backward pass. The program itself comes on
top: on a CPU the libraries, and what the C library keeps of memory that was given back.
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from distil_lib.fused_losses import CHUNK_BYTES
from distil_lib.training.config import PretrainConfig
from distil_lib.training.costs import _feed_forward, head_share, parameters, soft_share

SHORT_BLOCK = 128  # see `models.new_model`
EVALUATED = 64  # sequences at once, of which 15% of the words are masked
# Matrices (tokens x words) that are alive at the worst moment: logits, softmaxes and products.
FUSED_COPIES = 5  # of a chunk
DEFINED_COPIES = 5  # of all tokens, beside both models' logits
EVALUATED_COPIES = 5  # the same


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process.

    model: weights and the optimizer's means, always there. gradients: of all weights. teacher: its
    weights. activations: what the student's layers keep for the backward pass. head: the losses
    over the vocabulary. evaluation: logits of held-out text. exchange: buffers of the gradients
    where several processes train. accumulates: whether gradients are there in the forward pass.
    """

    model: int
    gradients: int
    teacher: int
    activations: int
    head: int
    evaluation: int
    exchange: int = 0
    accumulates: bool = False

    @property
    def moments(self) -> dict[str, int]:
        """Bytes at the moments of a run that may need most."""
        held = self.model + self.teacher + self.exchange
        kept = self.gradients if self.accumulates else 0
        return {
            "forward pass": held + kept + self.activations + self.head,
            "optimizer": held + self.gradients,
            "evaluation": held + self.evaluation,
        }

    @property
    def peak(self) -> int:
        """The most of them."""
        return max(self.moments.values())

    @property
    def largest(self) -> str:
        """The moment that needs most."""
        return max(self.moments, key=self.moments.__getitem__)


def optimizer_bytes(config: PretrainConfig, model: PretrainedConfig) -> int:
    """AdamW's two means of each weight; Muon has one of each matrix inside the layers."""
    H, F = model.hidden_size, _feed_forward(model)
    matrices = model.num_hidden_layers * (4 * H * H + 2 * H * F)
    return 8 * parameters(model) - (4 * matrices if config.optimizer == "muon" else 0)


def teacher_bytes(config: PretrainConfig, teacher: PretrainedConfig) -> int:
    """A teacher's weights; its linear maps are in bf16 where products are (`round_linear_maps`)."""
    if config.teacher_dtype == "bfloat16":
        return 2 * parameters(teacher)
    H, F, n = teacher.hidden_size, _feed_forward(teacher), teacher.num_hidden_layers
    maps = n * (4 * (H * H + H) + 2 * H * F + F + H) + H * H + H  # the last is the head's own
    # The output's matrix is a rounded copy where it is the table of word vectors too.
    output = teacher.vocab_size * H * (1 if teacher.tie_word_embeddings else -1)
    rounded = 2 * (output - maps) if config.precision == "bf16" else 0
    return 4 * parameters(teacher) + rounded


def layer_bytes(config: PretrainConfig, model: PretrainedConfig, device: str = "cpu") -> int:
    """What a layer keeps of each token for the backward pass."""
    H, F = model.hidden_size, _feed_forward(model)
    number = 2 if config.precision == "bf16" else 4
    # LayerNorm's two inputs, and the layer's output; in bf16 the inputs of the linear maps are
    # rounded copies, one for each of query, key and value, and one before the feed-forward block.
    kept = 3 * 4 * H + (4 * number * H if number == 2 else 4 * H)
    kept += number * (4 * H + 2 * F)  # query, key, value, mean; before and after the GELU
    if config.dropout:
        kept += H  # a mask of bytes
    return kept + score_bytes(config, model, device)


def score_bytes(config: PretrainConfig, model: PretrainedConfig, device: str = "cpu") -> int:
    """What attention keeps of each token where it is not fused: scores, with dropout a mask too.

    On a CPU that is in a BERT that is pretrained on short blocks, and wherever there is dropout,
    where the scores are in fp32 whatever the precision.
    """
    if device != "cpu":
        return 0
    short_bert = config.teacher is None and config.block_size <= SHORT_BLOCK
    number = 2 if config.precision == "bf16" and short_bert else 4
    copies = number + 1 if config.dropout else 0
    copies += number if config.dropout or short_bert else 0
    return model.num_attention_heads * config.block_size * copies


def step_memory(
    config: PretrainConfig,
    student: PretrainedConfig,
    teacher: PretrainedConfig | None = None,
    device: str = "cpu",
    world: int = 1,
) -> StepMemory:
    """The memory of a process.

    Args:
        config: the run's settings, with a precision that is not "auto".
        student: configuration of the model that is trained.
        teacher: configuration of its teacher, if it has one.
        device: "cpu" or "cuda".
        world: the processes that share the batch.
    """
    H, V, L = student.hidden_size, student.vocab_size, config.block_size
    share = -(-config.batch_size // world)
    sequences = min(config.micro_batch_size, share)
    tokens, weights = sequences * L, parameters(student)
    bf16 = config.precision == "bf16"
    number = 2 if bf16 else 4
    matrices = weights - (student.max_position_embeddings * H if bf16 else weights)
    activations = student.num_hidden_layers * tokens * layer_bytes(config, student, device)
    activations += tokens * 4 * (2 * H + (H if teacher else 0)) + 2 * matrices
    activations += tokens * score_bytes(config, student, device)  # a layer's gradients of them
    predicted = round(tokens * head_share(config))
    if config.fused:
        chunk = min(predicted, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * V))
        # The matrix's gradient is made in the forward pass, chunk by chunk: a product, then a sum.
        product = 4 * V * H + (2 * V * H if bf16 and device == "cpu" else 0)
        logits = max(FUSED_COPIES * chunk * 4 * V, 2 * chunk * 4 * V + product)
        logits += 4 * V * H
    else:
        logits = predicted * V * (DEFINED_COPIES * 4 + 2 * number)
    states = predicted * 4 * 5 * H
    if teacher is not None:
        states += round(tokens * soft_share(config)) * 4 * 2 * H
    evaluated = EVALUATED_COPIES * 4 + 2 * number  # bytes for each token and word
    evaluation = round(0.15 * EVALUATED * L) * V * evaluated + EVALUATED * L * 4 * 2 * H
    return StepMemory(
        model=4 * weights + optimizer_bytes(config, student),
        gradients=4 * weights,
        teacher=teacher_bytes(config, teacher) if teacher else 0,
        activations=activations,
        head=logits + states,
        evaluation=evaluation,
        exchange=4 * weights if world > 1 else 0,
        accumulates=share > config.micro_batch_size or config.compile == "graphs",
    )
