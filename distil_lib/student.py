"""The DistilBERT encoder and its masked-language-modelling head, written to be read.

    student = Student(DistilBertConfig(n_layers=6))
    output = student(input_ids)                            # output.logits: (B, L, V)
    output = student(input_ids, positions=labels != -100)  # output.logits: (N, V), where wanted

Section 3 of Sanh et al. (2019): BERT's layers, half as many of them, without token-type embeddings
and without pooler. The names of the parameters are those of `transformers.DistilBertForMaskedLM`,
so either opens what the other saves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedConfig

from distil_lib.errors import UserError
from distil_lib.model_folder import load_masked_lm

Project = Callable[[Tensor, Tensor, Tensor], Any]  # see `Student.forward`


@dataclass
class StudentOutput:
    """What a model answers."""

    last_hidden_state: Tensor  # (B, L, H)
    logits: Any  # (B, L, V), or (N, V) at N chosen positions, or what `project` made instead
    hidden_states: tuple[Tensor, ...] | None = None  # (B, L, H): the embeddings', then each layer's


def states_at(hidden: Tensor, positions: Tensor | None) -> Tensor:
    """(B, L, H) -> (N, H), those at `positions` of `Student.forward`; None: all, as they are."""
    return hidden if positions is None else hidden.flatten(0, 1)[positions.flatten()]


def layer_norm_eps(config: PreTrainedConfig) -> float:
    """What `initialize_student` took over from the teacher, else 1e-12: DistilBERT has no other."""
    return getattr(config, "layer_norm_eps", 1e-12)


class Embeddings(nn.Module):
    """A word's vector plus its position's, normalized. BERT adds a third, the token type's."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        V, H = config.vocab_size, config.dim
        self.word_embeddings = nn.Embedding(V, H, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, H)
        self.LayerNorm = nn.LayerNorm(H, eps=layer_norm_eps(config))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, H)."""
        # The first L rows, (L, H): the same for every sequence, so no look-up is needed.
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + positions))


class Attention(nn.Module):
    """Every position looks at every other, in `n_heads` heads of H / n_heads dimensions each."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.attention_dropout
        self.q_lin = nn.Linear(config.dim, config.dim)
        self.k_lin = nn.Linear(config.dim, config.dim)
        self.v_lin = nn.Linear(config.dim, config.dim)
        self.out_lin = nn.Linear(config.dim, config.dim)

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        """(B, L, H) -> (B, L, H); visible: (B, 1, 1, L), True where one may look; None: all."""
        B, L, H = hidden.shape
        # (B, L, H) -> (B, heads, L, H / heads): each head attends in its own dimensions.
        q, k, v = (
            lin(hidden).view(B, L, self.n_heads, -1).transpose(1, 2)
            for lin in (self.q_lin, self.k_lin, self.v_lin)
        )
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout)
        return self.out_lin(context.transpose(1, 2).reshape(B, L, H))


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them, at each position by itself: H -> 4H -> H."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, H)."""
        return self.dropout(self.lin2(F.gelu(self.lin1(hidden))))


class Layer(nn.Module):
    """Attention, then feed-forward; each adds to its input, and the sum is normalized after it."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))
        self.ffn = FeedForward(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        """As `Attention.forward`."""
        hidden = self.sa_layer_norm(hidden + self.attention(hidden, visible))
        return self.output_layer_norm(hidden + self.ffn(hidden))


class Encoder(nn.Module):
    """Embeddings, then `n_layers` layers, each on the output of the one before."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.transformer: Any = nn.ModuleDict({"layer": layers})  # as `transformers` names it

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
        """Ids (B, L) -> outputs (B, L, H) of the embeddings and each layer; mask: 0 at padding."""
        visible = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        hidden_states = [self.embeddings(input_ids)]
        for layer in self.transformer["layer"]:
            hidden_states.append(layer(hidden_states[-1], visible))
        return hidden_states


class Student(nn.Module):
    """DistilBERT for masked language modelling; weights start as in BERT, normal and biases 0.

    Args:
        config: Sizes and dropout. `layer_norm_eps`, which DistilBERT does not have, is read too.

    Raises:
        UserError: If the activation is not BERT's exact "gelu", or there is no layer.
    """

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        if config.activation != "gelu" or config.n_layers < 1:
            problem = f"activation is {config.activation!r}, n_layers is {config.n_layers}."
            raise UserError(problem, "The student has BERT's exact 'gelu' and one layer at least.")
        self.config = config
        self.distilbert = Encoder(config)
        self.vocab_transform = nn.Linear(config.dim, config.dim)
        self.vocab_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))
        self.vocab_projector = nn.Linear(config.dim, config.vocab_size)
        self.apply(self._initialize)
        if config.tie_word_embeddings:  # one matrix for input and output
            self.vocab_projector.weight = self.distilbert.embeddings.word_embeddings.weight

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        output_hidden_states: bool = False,
        project: Project | None = None,
    ) -> StudentOutput:
        """Encode and predict.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), 0 at padding; None if there is none.
            positions: (B, L) bool, where logits are wanted, or the places (N,) among the B L, for
                which no GPU has to be waited for; None for all, a third of the arithmetic.
            output_hidden_states: Also return the output of the embeddings and of each layer.
            project: Called in place of the projection with states (N, H), matrix (V, H) and bias
                (V,), to do its work at once: sharded weights are whole in the forward pass alone.
        """
        states = self.distilbert(input_ids, attention_mask)
        last = states[-1]
        logits = self.head(states_at(last, positions), project)
        return StudentOutput(last, logits, tuple(states) if output_hidden_states else None)

    def head(self, hidden: Tensor, project: Project | None = None) -> Any:
        """Hidden states (..., H) to logits (..., V), or to what `project` makes of them."""
        states = self.vocab_layer_norm(F.gelu(self.vocab_transform(hidden)))
        out = self.vocab_projector
        return out(states) if project is None else project(states, out.weight, out.bias)

    def to_transformers(self) -> DistilBertForMaskedLM:
        """The same model as an object of `transformers`, sharing no memory with this one."""
        model: Any = DistilBertForMaskedLM(self.config)
        model.to(self.vocab_projector.weight.dtype)
        model.load_state_dict(self.state_dict())
        return model.train(self.training)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, which `AutoModelForMaskedLM` opens."""
        self.to_transformers().save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "Student":
        """Read what `save_pretrained`, or any DistilBERT of `transformers`, has written.

        Raises:
            UserError: If the folder holds no complete DistilBERT.
        """
        model: Any = load_masked_lm(folder, dtype, ("distilbert",))
        student = cls(model.config).to(dtype)
        student.load_state_dict(model.state_dict())
        return student.eval()
