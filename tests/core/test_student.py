"""The student against `transformers`' DistilBERT, and what it saves."""

import pytest
import torch
from helpers import randomize
from transformers import AutoModel, AutoModelForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from distil_lib.common.paths import data_folder
from distil_lib.student import Student

CONFIG = DistilBertConfig(
    vocab_size=97, dim=24, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=20
)


@pytest.fixture
def student():
    return randomize(Student(CONFIG)).eval()


@pytest.fixture
def batch():
    """Ids and a mask: sequences of 15, 9 and 1 tokens, padded to 15."""
    generator = torch.Generator().manual_seed(5)
    mask = (torch.arange(15) < torch.tensor([[15], [9], [1]])).long()
    return torch.randint(1, 97, (3, 15), generator=generator) * mask, mask


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ----------------------------------------------------------------------- parity with `transformers`
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_states_are_those_of_transformers(student, batch, attention, padded):
    ids, mask = batch
    reference = DistilBertForMaskedLM._from_config(CONFIG, attn_implementation=attention).eval()
    reference.load_state_dict(student.state_dict())  # strict: no name differs
    with torch.no_grad():
        expected = reference(ids, mask if padded else None, output_hidden_states=True)
        out = student(ids, mask if padded else None, output_hidden_states=True)
    seen = mask.bool() if padded else torch.ones_like(mask, dtype=torch.bool)
    assert expected.logits[seen].abs().max() > 1  # the comparison is about something
    close(out.logits[seen], expected.logits[seen])
    assert len(out.hidden_states) == len(expected.hidden_states) == 4
    for mine, theirs in zip(out.hidden_states, expected.hidden_states, strict=True):
        close(mine[seen], theirs[seen])
    close(out.last_hidden_state[seen], expected.hidden_states[-1][seen])


def test_weights_of_transformers_load_without_renaming(batch):
    reference = randomize(DistilBertForMaskedLM(CONFIG), seed=3).eval()
    student = Student(CONFIG).eval()
    student.load_state_dict(reference.state_dict())
    close(student(*batch).logits[batch[1].bool()], reference(*batch).logits[batch[1].bool()])


def test_gradients_are_those_of_transformers(student, batch):
    ids, _ = batch
    reference = student.to_transformers()
    labels = torch.roll(ids, 1)
    for model in (student, reference):
        torch.nn.functional.cross_entropy(
            model(ids).logits.flatten(0, 1), labels.flatten()
        ).backward()
    theirs = dict(reference.named_parameters())
    for name, p in student.named_parameters():
        close(p.grad, theirs[name].grad)


def test_counts_of_the_paper():
    """66 million: Sanh et al.

    (2019), Table 3; to the unit, `transformers`' distilbert-base-uncased.
    """
    with torch.device("meta"):
        student = Student(DistilBertConfig())
    assert sum(p.numel() for p in student.distilbert.parameters()) == 66_362_880
    assert sum(p.numel() for p in student.parameters()) == 66_985_530


# ------------------------------------------------------------------------------------ save and open
def test_what_it_saves_opens_everywhere(student, batch, tmp_path):
    student.save_pretrained(tmp_path)
    own, whole = Student.from_pretrained(tmp_path), AutoModelForMaskedLM.from_pretrained(tmp_path)
    encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(own(*batch).logits, student(*batch).logits)
    close(whole.eval()(*batch).logits[batch[1].bool()], student(*batch).logits[batch[1].bool()])
    close(
        encoder.eval()(*batch).last_hidden_state[batch[1].bool()],
        student(*batch).last_hidden_state[batch[1].bool()],
    )
    assert {p.name for p in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}


def test_tied_weights_stay_tied(student, batch, tmp_path):
    """One step on one of the two names moves the other."""
    student.save_pretrained(tmp_path)
    opened = Student.from_pretrained(tmp_path)
    for model in (student, opened):
        words = model.distilbert.embeddings.word_embeddings.weight
        assert model.vocab_projector.weight is words
        assert sum(p is words for p in model.parameters()) == 1
        before = words.clone()
        model.vocab_projector.weight.data.add_(1)
        assert torch.equal(words, before + 1)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert theirs.vocab_projector.weight is theirs.distilbert.embeddings.word_embeddings.weight


def test_untied_weights_stay_apart(tmp_path, batch):
    config = DistilBertConfig(**{**CONFIG.to_diff_dict(), "tie_word_embeddings": False})
    student = randomize(Student(config)).eval()
    assert (
        student.vocab_projector.weight is not student.distilbert.embeddings.word_embeddings.weight
    )
    student.save_pretrained(tmp_path)
    assert torch.equal(Student.from_pretrained(tmp_path)(*batch).logits, student(*batch).logits)


def test_bfloat16_survives_the_disk(student, tmp_path):
    student.to(torch.bfloat16).save_pretrained(tmp_path)
    opened = Student.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, tensor in student.state_dict().items():
        assert opened.state_dict()[name].dtype == torch.bfloat16 and torch.equal(
            opened.state_dict()[name], tensor
        )


def test_the_stored_student_opens_here_and_in_transformers():
    folder = data_folder("student")
    ids = torch.arange(5, 45).reshape(2, 20)
    student, theirs = (
        Student.from_pretrained(folder),
        AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval(),
    )
    with torch.no_grad():
        close(student(ids).logits, theirs(ids).logits, 1e-4)  # logits of size 10


# -------------------------------------------------------------------------------------- invariances
def test_logits_at_positions_are_those_chosen_from_all(student, batch):
    ids, mask = batch
    positions = torch.zeros_like(mask, dtype=torch.bool)
    positions[0, [2, 5]] = positions[1, 8] = True
    close(student(ids, mask, positions).logits, student(ids, mask).logits[positions], 1e-6)
    assert student(ids, mask, torch.zeros_like(positions)).logits.shape == (0, 97)


def test_padding_changes_nothing(student, batch):
    """Oracle: each sequence alone, without padding and mask."""
    ids, mask = batch
    together = student(ids, mask).logits
    for row, length in enumerate((15, 9, 1)):
        close(together[row, :length], student(ids[row : row + 1, :length]).logits[0])
    other = ids.clone()
    other[mask == 0] = 42  # what stands at the padding is of no matter
    close(student(other, mask).logits[mask.bool()], together[mask.bool()], 1e-6)


def test_dropout_works_in_training_and_not_in_evaluation(student, batch):
    assert torch.equal(student(*batch).logits, student(*batch).logits)
    student.train()
    assert not torch.equal(student(*batch).logits, student(*batch).logits)


def test_weights_start_as_in_bert():
    """Normal with standard deviation .02, biases and the padding's vector 0, LayerNorms 1 and 0."""
    student = Student(
        DistilBertConfig(vocab_size=500, dim=64, hidden_dim=128, n_layers=2, n_heads=2)
    )
    for name, p in student.named_parameters():
        if p.ndim == 2:
            assert abs(p.std().item() / 0.02 - 1) < 0.1, name
        else:
            assert (
                p == (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
            ).all(), name
    assert (student.distilbert.embeddings.word_embeddings.weight[0] == 0).all()


def test_an_activation_it_does_not_have_is_refused():
    with pytest.raises(ValueError, match="relu"):
        Student(DistilBertConfig(activation="relu"))
