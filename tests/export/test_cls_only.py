"""The classifier that leaves out what its answer does not need, against the whole one."""

from types import SimpleNamespace

import pytest
import torch
from helpers import randomize
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
)

from distil_lib.errors import UserError
from distil_lib.export.cls_only import ClsOnlyClassifier
from distil_lib.export.load import dummy_inputs, model_inputs

FEW = {"vocab_size": 100, "max_position_embeddings": 40}
BERT = BertConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_labels=3,
    **FEW,
)
DISTILBERT = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4, num_labels=3, **FEW)
MODELS = (BertForSequenceClassification(BERT), DistilBertForSequenceClassification(DISTILBERT))
MODELS += (
    DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT.to_dict() | {"n_layers": 1})),
)


NAMES = SimpleNamespace(
    model_input_names=["input_ids", "attention_mask", "token_type_ids"]
)  # a tokenizer's


@pytest.mark.parametrize("model", MODELS, ids=["bert", "distilbert", "one layer"])
def test_the_logits_are_the_whole_models(model):
    """Oracle: `transformers`, with padding, at any batch and length; the model is not changed."""
    randomize(model).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quicker = ClsOnlyClassifier(model).eval()
    for batch, length in ((1, 1), (1, 9), (4, 40)):
        given = dummy_inputs(model_inputs(model, NAMES), 100, batch, length, seed=length)
        with torch.no_grad():
            torch.testing.assert_close(
                quicker(**given).logits, model(**given).logits, atol=1e-4, rtol=1e-4
            )
    after = model.state_dict()
    assert list(after) == list(before) and all(
        torch.equal(after[name], before[name]) for name in before
    )


@pytest.mark.parametrize("model", MODELS[:2], ids=["bert", "distilbert"])
def test_only_the_first_token_goes_through_the_last_feed_forward_network(model):
    """Counted by hooks: positions that reach each widening matrix, from below; the last sees 1."""
    rows, hooks = [], []
    quicker = ClsOnlyClassifier(model.eval())
    for module in quicker.modules():
        if isinstance(module, nn.Linear) and module.out_features == 64:
            hooks.append(
                module.register_forward_hook(
                    lambda _, given, out: rows.append(out.shape[:2].numel())
                )
            )
    quicker(**dummy_inputs(model_inputs(model, NAMES), 100, 2, 10))
    for hook in hooks:
        hook.remove()
    assert rows == [20] * (len(rows) - 1) + [2] and len(rows) == model.config.num_hidden_layers


@pytest.mark.parametrize(
    "bug", ["padding is read", "what attention found is forgotten", "the heads are mixed up"]
)
def test_bugs_put_in_on_purpose_are_noticed(bug):
    model = randomize(BertForSequenceClassification(BERT)).eval()
    quicker = ClsOnlyClassifier(model)
    given = dummy_inputs(model_inputs(model, NAMES), 100, 4, 12)
    with torch.no_grad():
        expected = model(**given).logits
        if bug == "padding is read":
            given["attention_mask"] = torch.ones_like(given["attention_mask"])
        elif bug == "what attention found is forgotten":
            quicker.output = nn.Sequential(quicker.output, nn.Threshold(1e9, 0.0))
        else:
            quicker.split = lambda vectors: vectors.unflatten(-1, (-1, 4)).permute(0, 3, 1, 2)
        assert (quicker(**given).logits - expected).abs().max() > 1e-2


def test_other_heads_are_refused():
    questions = DistilBertConfig(**DISTILBERT.to_dict() | {"num_labels": 2})
    for model in (BertForMaskedLM(BERT), DistilBertForQuestionAnswering(questions)):
        with pytest.raises(UserError, match="more than the first token"):
            ClsOnlyClassifier(model)
