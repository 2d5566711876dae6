"""ELMo part by part against the same arithmetic in plain loops, and through the programs that know
nothing of it.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers import ADJECTIVES, VERBS, randomize
from torch import nn

from distil_lib.elmo import model as elmo_file
from distil_lib.elmo.characters import character_ids, cut_words, ends
from distil_lib.elmo.classifier import ElmoForSequenceClassification, read
from distil_lib.elmo.model import Elmo, ElmoConfig, reverse
from distil_lib.elmo.tokenizer import new_tokenizer, register
from distil_lib.errors import UserError
from distil_lib.finetune.config import FinetuneConfig
from distil_lib.finetune.models import load_task_model, load_task_tokenizer
from distil_lib.finetune.runner import finetune
from distil_lib.tasks.registry import find_task

SMALL = {
    "max_characters": 9,
    "character_size": 4,
    "filters": [3, 4, 5],
    "cell_size": 7,
    "projection_size": 5,
    "encoder_size": 4,
    "classifier_size": 6,
    "num_labels": 3,
}
TEXTS = [
    ["The", "file", "is", "closed", "."],
    ["Why", "?"],
    ["A", "naïve", "reimplementation", "!"],
]
equal = lambda a, b: torch.testing.assert_close(
    torch.as_tensor(a), torch.as_tensor(b), rtol=1e-9, atol=1e-12
)


@pytest.fixture
def model() -> ElmoForSequenceClassification:
    return randomize(ElmoForSequenceClassification(ElmoConfig(**SMALL)), std=0.5).double().eval()


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --------------------------------------------------------------------------------------------------
# ----------------------- sizes
def test_the_papers_elmo_has_178_million_parameters():
    """Oracle: the sizes of Peters et al. (2018) and Wang et al. (2018), multiplied and added."""
    filters = (32, 32, 64, 128, 256, 512, 1024)
    n, cells, vector, hidden = sum(filters), 4096, 512, 1500
    embeddings = 262 * 16
    convolutions = sum(number * (16 * width + 1) for width, number in enumerate(filters, start=1))
    highways = 2 * 2 * (n * n + n)
    projection = n * vector + vector
    lstm = (
        4 * cells * (vector + vector + 2) + cells * vector
    )  # 4 gates of input and state with two biases; the projection has none
    first, second = (2 * 4 * hidden * (inputs + hidden + 2) for inputs in (2 * vector, 2 * hidden))

    with torch.device("meta"):
        model = ElmoForSequenceClassification(
            ElmoConfig(problem_type="regression", num_labels=1)
        )  # STS-B, as in Table 3
    characters = model.elmo.characters
    assert (
        size(characters.embeddings) == embeddings and size(characters.convolutions) == convolutions
    )
    assert size(characters.highways) == highways and size(characters.projection) == projection
    assert size(model.elmo.bilm) == 4 * lstm
    assert (
        size(model.elmo)
        == embeddings + convolutions + highways + projection + 4 * lstm
        == 93_666_400
    )
    assert size(model.elmo) - 4 * 4 * cells == 93_600_864  # with one bias, as released: "93.6 M"
    assert size(model.encoder) == first + second == 84_336_000
    assert (
        size(model) - size(model.classifier) == 93_666_400 + first + second + 3 + 1 == 178_002_404
    )
    assert size(model.classifier) == 4 * 2 * hidden + 1
    with torch.device("meta"):
        pairs = ElmoForSequenceClassification(ElmoConfig(num_labels=3))
    assert size(pairs.classifier) == 4 * 2 * hidden * 512 + 512 + 512 * 3 + 3


# --------------------------------------------------------------------------------------------------
# ----------- words to characters
def test_a_word_in_characters():
    """By hand: a mark, bytes + 1, a mark, filled up; a long word is cut to make room for its end;
    no word is all 0.
    """
    ids = character_ids([["a", "né", "abcdefghij"], []], max_characters=7)
    assert ids[0].tolist() == [
        [259, 98, 260, 261, 261, 261, 261],
        [259, 111, 0xC3 + 1, 0xA9 + 1, 260, 261, 261],
        [259, 98, 99, 100, 101, 102, 260],
    ]
    assert ids.shape == (2, 3, 7) and not ids[1].any()
    assert ends(7).tolist() == [
        [259, 257, 260, 261, 261, 261, 261],
        [259, 258, 260, 261, 261, 261, 261],
    ]


def test_the_tokenizers_stream_cut_at_its_marks_is_the_words():
    """Whatever bytes a text has, and even if it speaks of special tokens: no character of it is
    one.
    """
    every_byte = " ".join(
        chr(c)
        for c in itertools.chain(range(33, 0x250), range(0x4E00, 0x4E40), range(0x1F600, 0x1F640))
    )
    texts = [
        "[SEP] and [MASK] don't\n\tcount",
        "",
        every_byte,
        "anticonstitutionnellement " * 3,
        " ",
        "\x00a",
    ]
    tokenizer = new_tokenizer()
    batch = tokenizer.pad(tokenizer(texts), return_tensors="pt")
    for most in (9, 50):
        expected = character_ids([tokenizer.words(text) for text in texts], most)
        assert torch.equal(
            cut_words(batch["input_ids"], batch["attention_mask"] > 0, most), expected
        )
    assert tokenizer.words(texts[0]) == [
        "[",
        "SEP",
        "]",
        "and",
        "[",
        "MASK",
        "]",
        "don",
        "'",
        "t",
        "count",
    ]
    assert len(tokenizer) <= ElmoConfig().vocab_size
    pair = tokenizer(["a b", ""], ["c", "d"], return_tensors="pt", padding=True)
    for text, words in ((0, [["a", "b"], []]), (1, [["c"], ["d"]])):
        kept = (pair["attention_mask"] > 0) & (pair["token_type_ids"] == text)
        assert torch.equal(cut_words(pair["input_ids"], kept), character_ids(words))


@pytest.mark.parametrize("most", [1, 4, 5, 100])
def test_a_pair_is_cut_word_by_word_from_the_longer_text(most):
    tokenizer = new_tokenizer()
    for a, b in itertools.product((0, 1, 3, 8), repeat=2):
        x, y = a, b
        while x + y > most:
            x, y = (x - 1, y) if x > y else (x, y - 1)
        one, two = (" ".join(map(str, range(n))) for n in (a, b))
        ids = tokenizer(one, two, truncation="longest_first", max_length=most)
        assert ids == tokenizer(" ".join(one.split()[:x]), " ".join(two.split()[:y]))
        assert tokenizer([one], truncation=True, max_length=most) == tokenizer(
            [" ".join(one.split()[:most])]
        )


# --------------------------------------------------------------------------------------------------
# ---------------- the encoder
def test_characters_to_vectors_by_hand(model):
    """Oracle: each window of each filter, its largest positive answer, two gates, one matrix."""
    part = model.elmo.characters
    w = {name: p.detach().numpy() for name, p in part.named_parameters()}
    ids = character_ids(TEXTS, 9)[0]
    with torch.no_grad():
        vectors = part(ids[None])[0]
    for word, vector in zip(ids.tolist(), vectors, strict=True):
        characters = w["embeddings.weight"][word]  # (9, 4)
        features = []
        for number in range(3):
            kernel, bias = w[f"convolutions.{number}.weight"], w[f"convolutions.{number}.bias"]
            for k in range(len(bias)):
                answers = [
                    bias[k] + (kernel[k].T * characters[t : t + number + 1]).sum()
                    for t in range(9 - number)
                ]
                features.append(max(0.0, *answers))
        x = np.array(features)
        for number in range(2):
            both = [
                w[f"highways.{number}.{name}.weight"] @ x + w[f"highways.{number}.{name}.bias"]
                for name in ("gate", "replacement")
            ]
            x = sigmoid(both[0]) * x + (1 - sigmoid(both[0])) * np.maximum(both[1], 0)
        equal(vector, w["projection.weight"] @ x + w["projection.bias"])


def lstm_by_hand(lstm: nn.LSTM, inputs: np.ndarray) -> np.ndarray:
    """(T, P) of (T, P): gates in PyTorch's order (input, forget, new, output), and a state that is
    projected before it is used.
    """
    w_in, w_state, b_in, b_state, w_out = (p.detach().numpy() for p in lstm.all_weights[0])
    state, cell, outputs = np.zeros(len(w_out)), np.zeros(w_out.shape[1]), []
    for x in inputs:
        i, f, g, o = np.split(w_in @ x + b_in + w_state @ state + b_state, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = w_out @ (sigmoid(o) * np.tanh(cell))
        outputs.append(state)
    return np.stack(outputs)


def layers_by_hand(elmo: Elmo, words: list[str]) -> list[np.ndarray]:
    """The three outputs of one text, which is between its ends while it is read."""
    first, last = ends(9)[:, None]
    with torch.no_grad():
        vectors = elmo.characters(torch.cat([first, character_ids([words], 9)[0], last])).numpy()
    sides = []
    for lstms, way in (
        (elmo.bilm.forwards, slice(None)),
        (elmo.bilm.backwards, slice(None, None, -1)),
    ):
        one = lstm_by_hand(lstms[0], vectors[way])
        two = lstm_by_hand(lstms[1], one) + one
        sides.append([vectors, one[way], two[way]])
    return [np.concatenate(both, -1)[1:-1] for both in zip(*sides, strict=True)]


def agrees(elmo: Elmo) -> bool:
    with torch.no_grad():
        outputs = elmo(character_ids(TEXTS, 9))
    close = [
        np.allclose(layer[row, : len(words)], expected, rtol=1e-9, atol=1e-12)
        for row, words in enumerate(TEXTS)
        for layer, expected in zip(outputs, layers_by_hand(elmo, words), strict=True)
    ]
    assert len(close) == 9 and all(
        not layer[row, len(words) :].any() for layer in outputs for row, words in enumerate(TEXTS)
    )
    return all(close)


def test_three_layers_by_hand_and_each_bug_shows(model, monkeypatch):
    assert agrees(model.elmo)
    monkeypatch.setattr(
        elmo_file, "reverse", lambda x, lengths: x.flip(1)
    )  # the way back begins in the padding
    assert not agrees(model.elmo)
    monkeypatch.undo()
    monkeypatch.setattr(
        Elmo, "with_ends", lambda self, ids: torch.nn.functional.pad(ids, (0, 0, 1, 1))
    )  # ends forgotten
    assert not agrees(model.elmo)
    monkeypatch.undo()
    add = torch.Tensor.__add__
    monkeypatch.setattr(
        torch.Tensor, "__add__", lambda a, b: b if torch.is_tensor(b) and b.ndim == 3 else add(a, b)
    )  # no residual
    assert not agrees(model.elmo)


def test_backwards_is_forwards_on_the_text_reversed(model):
    """With the LSTMs exchanged, a text and the same from its end give the same two halves,
    exchanged and reversed.
    """
    bilm, lengths = model.elmo.bilm, torch.tensor([6, 3])
    vectors = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(bilm)
    other.forwards, other.backwards = other.backwards, other.forwards
    with torch.no_grad():
        for one, two in zip(
            bilm(vectors, lengths), other(reverse(vectors, lengths), lengths), strict=True
        ):
            for row, length in enumerate(lengths):
                equal(
                    one[row, :length].flip(0), torch.cat(two[row, :length].chunk(2, -1)[::-1], -1)
                )


def test_no_direction_sees_the_word_it_is_to_predict(model):
    """Another word at position 2 changes the left half from there on and the right half up to
    there, and nothing else.
    """
    ids = character_ids([TEXTS[0], [*TEXTS[0][:2], "was", *TEXTS[0][3:]]], 9)
    with torch.no_grad():
        for layer in model.elmo(ids)[1:]:
            left, right = (
                ((layer[0] - layer[1]).abs() > 1e-9)[:, half].any(-1).tolist()
                for half in (slice(5), slice(5, 10))
            )
            assert left == [False] * 2 + [True] * 3 and right == [True] * 3 + [False] * 2


# --------------------------------------------------------------------------------------------------
# ------------- GLUE's baseline
def test_mix_by_hand(model):
    layers = torch.randn(
        3, 2, 4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    w = np.exp(model.mix.weights.detach().numpy())
    expected = model.mix.gamma.item() * sum(
        share * layer.numpy() for share, layer in zip(w / w.sum(), layers, strict=True)
    )
    equal(model.mix(layers).detach(), expected)
    fresh = ElmoForSequenceClassification(ElmoConfig(**SMALL)).mix.double()
    equal(fresh(layers).detach(), layers.mean(0))  # before anything is learned: the plain mean


def test_a_pair_by_hand(model):
    """Each text of the batch read alone; the maximum over its words only; then [u; v; |u - v|; u *
    v] and one hidden layer.
    """
    firsts, seconds = TEXTS, [TEXTS[2], TEXTS[0], TEXTS[1]]

    def sentence(words):
        states = model.encoder(model.mix(model.elmo(character_ids([words], 9))))[0][0]
        assert not torch.allclose(states.max(0).values, states.mean(0))
        return states.max(0).values

    with torch.no_grad():
        logits = model.classify(character_ids(firsts, 9), character_ids(seconds, 9))
        _, hidden, _, _, last = model.classifier
        for row, (one, two) in enumerate(zip(firsts, seconds, strict=True)):
            u, v = sentence(one), sentence(two)
            expected = last(torch.tanh(hidden(torch.cat([u, v, abs(u - v), u * v]))))
            equal(logits[row], expected)


def test_neighbours_and_padding_change_nothing(model):
    """Through tokenizer and `forward`: a pair's logits are the same alone, in a batch, and with
    padding of other lengths.
    """
    tokenizer = new_tokenizer()
    firsts, seconds = (
        ["The file is closed.", "Why?", "", "one two three four five six seven"],
        ["It is open.", "A b c d e.", "so", "Ü!"],
    )
    with torch.no_grad():
        together = model(**tokenizer(firsts, seconds, padding=True, return_tensors="pt")).logits
        for row, pair in enumerate(zip(firsts, seconds, strict=True)):
            alone = tokenizer(*pair, return_tensors="pt")
            equal(model(**alone).logits[0], together[row])
            equal(
                model(
                    **tokenizer.pad(alone, padding="max_length", max_length=90, return_tensors="pt")
                ).logits[0],
                together[row],
            )
            words = [character_ids([tokenizer.words(text)], 9) for text in pair]
            equal(model.classify(*words)[0], together[row])
    assert together.isfinite().all() and len(torch.unique(together, dim=0)) == 4
    with pytest.raises(ValueError, match="token_type_ids"):
        model(torch.full((1, 3), 259))


def test_an_lstm_reads_back_from_the_last_word():
    """Oracle: PyTorch's LSTM on each text without padding."""
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True).double()
    vectors, lengths = torch.randn(3, 5, 3, dtype=torch.float64), torch.tensor([5, 1, 3])
    outputs = read(lstm, vectors, lengths)
    assert outputs.shape == (3, 5, 8)
    for row, length in enumerate(lengths):
        equal(outputs[row, :length].detach(), lstm(vectors[row : row + 1, :length])[0][0].detach())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_encoder_stays_as_it_is_unless_it_is_asked_to_learn(frozen):
    torch.manual_seed(0)
    model = ElmoForSequenceClassification(ElmoConfig(**SMALL, freeze_encoder=frozen)).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    ids = character_ids(TEXTS, 9)
    torch.nn.functional.cross_entropy(
        model.classify(ids, ids.flip(0)), torch.tensor([0, 1, 2])
    ).backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in before if name.startswith("elmo.") != frozen} - changed <= {
        "mix.gamma"
    }
    assert frozen == (not any(name.startswith("elmo.") for name in changed))


# -------------------------------------------------------------------------------------------------
# as a citizen of transformers
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder with its tokenizer, as pretraining leaves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("elmo")
    sizes = {
        "max_characters": 12,
        "character_size": 8,
        "filters": [8, 16, 16],
        "cell_size": 24,
        "projection_size": 12,
    }
    randomize(
        Elmo(ElmoConfig(**sizes, encoder_size=12, classifier_size=12)), std=0.4
    ).save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


def test_saved_weights_come_back_to_the_bit_and_a_new_head_depends_on_the_seed(folder, tmp_path):
    """Starting values are drawn for what the folder lacks, and for nothing else: gates' biases, for
    instance, start at 1.
    """
    one, again, two = (load_task_model(str(folder), find_task("mrpc"), seed) for seed in (0, 0, 1))
    saved = Elmo.from_pretrained(folder).state_dict()
    assert all(
        torch.equal(weight, one.state_dict()[f"elmo.{name}"]) for name, weight in saved.items()
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert not torch.equal(one.encoder.weight_ih_l0, two.encoder.weight_ih_l0)
    one.save_pretrained(tmp_path)
    new_tokenizer().save_pretrained(tmp_path)
    kept, tokenizer = (
        load_task_model(str(tmp_path), find_task("mrpc")),
        load_task_tokenizer(str(tmp_path)),
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), kept.state_dict().values(), strict=True)
    )
    text = "don't say [SEP]"
    assert tokenizer(text, truncation=True, max_length=4) == new_tokenizer()(
        text, truncation=True, max_length=4
    )
    register()  # a second time
    assert (
        load_task_model(str(folder), find_task("sst2"), 0).config.texts == 1
        and kept.config.texts == 2
    )
    assert isinstance(load_task_model(str(folder), find_task("stsb"), 0).classifier, nn.Linear)


def test_what_it_cannot_do_is_said(folder):
    with pytest.raises(UserError, match="question answering"):
        load_task_model(str(folder), find_task("doc-qa"), 0)
    with pytest.raises(UserError, match="projected"):
        Elmo(ElmoConfig(**SMALL | {"projection_size": 7}))
    with pytest.raises(UserError, match="1 text or 2"):
        ElmoForSequenceClassification(ElmoConfig(**SMALL, texts=3))


def test_finetuning_learns_a_separable_task_and_the_kept_model_gives_the_same_answers(
    folder, tmp_path
):
    """Positive where the noun is `array`; nothing in `finetune` knows ELMo."""
    chance = np.random.default_rng(0)
    for split, rows in (("train", 128), ("dev", 40)):
        labels, nouns = chance.integers(0, 2, rows), ("word", "array")
        lines = [
            f"The {chance.choice(ADJECTIVES)} {nouns[label]} {chance.choice(VERBS)}.\t{label}"
            for label in labels
        ]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    settings = {
        "model": str(folder),
        "task": "sst2",
        "data_dir": str(tmp_path),
        "seeds": 1,
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "max_length": 12,
        "precision": "fp32",
        "threads": 1,
    }
    kept = tmp_path / "kept"
    record = finetune(FinetuneConfig(**settings, output=str(tmp_path / "a.json"), save=str(kept)))
    assert record["summary"]["validation"]["accuracy"]["median"] > 95
    again = settings | {
        "model": str(kept / "seed-0"),
        "evaluate_only": True,
        "output": str(tmp_path / "b.json"),
    }
    assert (
        finetune(FinetuneConfig(**again))["seeds"]["0"]["predictions"]
        == record["seeds"]["0"]["predictions"]
    )
    trained = load_task_model(str(kept / "seed-0"), find_task("sst2")).elmo.state_dict()
    assert all(
        torch.equal(weight, trained[name])
        for name, weight in Elmo.from_pretrained(folder).state_dict().items()
    )
