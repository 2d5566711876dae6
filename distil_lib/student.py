"""The DistilBERT encoder and its masked-language-modelling head, written to be read.

    student = Student(DistilBertConfig(n_layers=6))
    output = student(input_ids)                                # output.logits: (B, L, V)
    output = student(input_ids, positions=labels != -100)      # output.logits: (N, V), only where they are wanted

Section 3 of Sanh et al. (2019): BERT's layers, half as many of them, without token-type embeddings and without pooler. The names
of the parameters are those of `transformers.DistilBertForMaskedLM`, so either opens what the other saves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForMaskedLM


@dataclass
class StudentOutput:
    """`last_hidden_state` (B, L, H); `logits` (B, L, V), or (N, V) at N chosen positions, or whatever was asked for instead of them
    (`project`); `hidden_states` if asked: embeddings and each layer's output, (B, L, H) each."""

    last_hidden_state: Tensor
    logits: Any
    hidden_states: tuple[Tensor, ...] | None = None


def layer_norm_eps(config: DistilBertConfig) -> float:
    """BERT's 1e-12, which `transformers` fixes for DistilBERT, or what `initialize_student` took over from another teacher."""
    return getattr(config, "layer_norm_eps", 1e-12)


class Embeddings(nn.Module):
    """A word's vector plus its position's, normalized. BERT adds a third, the token type's; the student has none."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.dim, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[
            : input_ids.shape[1]
        ]  # (L, H), the same for every sequence
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + positions))


class Attention(nn.Module):
    """Every position looks at every other, `n_heads` times in parallel, each head in its own H / n_heads dimensions."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.attention_dropout
        self.q_lin = nn.Linear(config.dim, config.dim)
        self.k_lin = nn.Linear(config.dim, config.dim)
        self.v_lin = nn.Linear(config.dim, config.dim)
        self.out_lin = nn.Linear(config.dim, config.dim)

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        B, L, H = hidden.shape
        q, k, v = (
            lin(hidden).view(B, L, self.n_heads, -1).transpose(1, 2)
            for lin in (self.q_lin, self.k_lin, self.v_lin)
        )
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, dropout_p=dropout
        )  # (B, heads, L, H / heads)
        return self.out_lin(context.transpose(1, 2).reshape(B, L, H))


class FeedForward(nn.Module):
    """Two linear maps with a GELU between them, at each position alone: H -> 4H -> H."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.lin2(F.gelu(self.lin1(hidden))))


class Layer(nn.Module):
    """Attention, then feed-forward. Each adds to its input, and the sum is normalized *after* it ("post-LayerNorm", as in BERT)."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))
        self.ffn = FeedForward(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))

    def forward(self, hidden: Tensor, visible: Tensor | None) -> Tensor:
        hidden = self.sa_layer_norm(hidden + self.attention(hidden, visible))
        return self.output_layer_norm(hidden + self.ffn(hidden))


class Encoder(nn.Module):
    """Embeddings and layers: ids (B, L) -> the outputs of the embeddings and of each layer, (B, L, H) each."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.transformer = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(config) for _ in range(config.n_layers))}
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[Tensor]:
        # (B, 1, 1, L), True where a position may be looked at: one row for all heads and all positions that look.
        visible = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        hidden_states = [self.embeddings(input_ids)]
        for layer in self.transformer["layer"]:
            hidden_states.append(layer(hidden_states[-1], visible))
        return hidden_states


class Student(nn.Module):
    """DistilBERT for masked language modelling.

    Weights start as in BERT: normal with standard deviation `config.initializer_range`, biases 0.
    """

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        if config.activation != "gelu":
            raise ValueError(
                f"activation is {config.activation!r}; the student knows only the exact 'gelu' of BERT."
            )
        self.config = config
        self.distilbert = Encoder(config)
        self.vocab_transform = nn.Linear(config.dim, config.dim)
        self.vocab_layer_norm = nn.LayerNorm(config.dim, eps=layer_norm_eps(config))
        self.vocab_projector = nn.Linear(config.dim, config.vocab_size)
        self.apply(self._initialize)
        if config.tie_word_embeddings:  # one matrix reads words in and reads words out
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
        project: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> StudentOutput:
        """Encode and predict.

        input_ids: (B, L). attention_mask: (B, L), 0 at padding; None if there is none. positions: (B, L) bool, where logits are
        wanted, in row-major order; None for all. The vocabulary projection is a third of the arithmetic, so ask for few.
        project: called in place of the projection, with states (N, H), matrix (V, H) and bias (V,); its result takes the logits'
        place. It must do its work at once: where weights are sharded they are whole only until the forward pass ends.
        """
        hidden_states = self.distilbert(input_ids, attention_mask)
        last = hidden_states[-1]
        logits = self.head(last if positions is None else last[positions], project)
        return StudentOutput(last, logits, tuple(hidden_states) if output_hidden_states else None)

    def head(
        self, hidden: Tensor, project: Callable[[Tensor, Tensor, Tensor], Any] | None = None
    ) -> Any:
        """Hidden states (..., H) to logits over the vocabulary (..., V), or to what `project` makes of them (see `forward`)."""
        states = self.vocab_layer_norm(F.gelu(self.vocab_transform(hidden)))
        projector = self.vocab_projector
        return (
            projector(states)
            if project is None
            else project(states, projector.weight, projector.bias)
        )

    def to_transformers(self) -> DistilBertForMaskedLM:
        """The same model as an object of `transformers`, sharing no memory with this one."""
        model = DistilBertForMaskedLM(self.config).to(self.vocab_projector.weight.dtype)
        model.load_state_dict(self.state_dict())
        return model.train(self.training)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder (`config.json`, `model.safetensors`) that `AutoModelForMaskedLM.from_pretrained` opens."""
        self.to_transformers().save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "Student":
        """Read what `save_pretrained`, or any DistilBERT of `transformers`, has written."""
        model = DistilBertForMaskedLM.from_pretrained(folder, use_safetensors=True, dtype=dtype)
        student = cls(model.config).to(dtype)
        student.load_state_dict(model.state_dict())
        return student.eval()
