"""Which layers a student keeps, and that at its start it is the teacher cut to them."""

import copy

import numpy as np
import pytest
import torch
from helpers import randomize
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from distil_lib.errors import UserError
from distil_lib.initialization import (
    LAYER_PARTS,
    STRATEGIES,
    initialize_student,
    select_layers,
    skipped_positions,
    student_config,
)
from distil_lib.teacher import MaskedLM

SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 34,
}
TEACHERS = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "bert, encoder and pooler": lambda: BertModel(BertConfig(**SIZES)),
    "bert, encoder alone": lambda: BertModel(BertConfig(**SIZES), add_pooling_layer=False),
    "roberta": lambda: RobertaForMaskedLM(
        RobertaConfig(**SIZES, pad_token_id=1, layer_norm_eps=1e-3)
    ),
    "roberta, encoder and pooler": lambda: RobertaModel(
        RobertaConfig(**SIZES, pad_token_id=1, layer_norm_eps=1e-3)
    ),
}


@pytest.fixture(params=TEACHERS)
def teacher(request):
    return randomize(TEACHERS[request.param](), std=0.1).eval()


@pytest.fixture
def ids():
    return torch.randint(5, 90, (3, 17), generator=torch.Generator().manual_seed(0))


def cut(teacher, layers):
    """Oracle: the teacher itself with a shorter list of layers."""
    short = copy.deepcopy(teacher)
    short.base_model.encoder.layer = nn.ModuleList(
        short.base_model.encoder.layer[i] for i in layers
    )
    return short


# --------------------------------------------------------------------------------------- the choice
@pytest.mark.parametrize(
    "teacher, student, strategy, expected",
    [
        (12, 6, "spread", [0, 2, 4, 7, 9, 11]),  # the released DistilBERT
        (12, 6, "alternate", [0, 2, 4, 6, 8, 10]),
        (12, 6, "first", [0, 1, 2, 3, 4, 5]),
        (12, 6, "last", [6, 7, 8, 9, 10, 11]),
        (12, 1, "spread", [11]),
        (6, 3, "spread", [0, 2, 5]),
    ],
)
def test_layers_by_hand(teacher, student, strategy, expected):
    assert select_layers(teacher, student, strategy) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_choice_is_of_the_right_number_and_rises(strategy):
    for teacher in range(1, 25):
        for student in range(1, teacher + 1):
            layers = select_layers(teacher, student, strategy)
            assert len(layers) == student
            assert all(a < b for a, b in zip(layers, layers[1:], strict=False))
            assert 0 <= layers[0] and layers[-1] < teacher
            assert all(type(i) is int for i in layers)


def test_spread_is_numpy_linspace_rounded():
    for teacher in range(2, 25):
        for student in range(2, teacher + 1):
            assert (
                select_layers(teacher, student)
                == np.linspace(0, teacher - 1, student).round().astype(int).tolist()
            )


def test_random_depends_on_the_seed_alone_and_misses_no_layer():
    draws = [tuple(select_layers(12, 6, "random", seed)) for seed in range(40)]
    torch.manual_seed(7)
    assert draws == [tuple(select_layers(12, 6, "random", seed)) for seed in range(40)]
    assert len(set(draws)) > 20 and {i for draw in draws for i in draw} == set(range(12))


@pytest.mark.parametrize("student", [0, 13, -1])
def test_more_layers_than_the_teacher_has_are_refused_with_what_would_fit(student):
    with pytest.raises(UserError, match="1 to 12"):
        select_layers(12, student)


def test_an_unknown_strategy_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="spread, alternate"):
        select_layers(12, 6, "middle")


# -------------------------------------------------------------------------------------- the copying
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layers", [*STRATEGIES, [5, 1], [2]])
def test_the_student_is_the_teacher_cut_to_the_chosen_layers(
    teacher, ids, layers, dtype, tolerance
):
    teacher = teacher.to(dtype)
    student = initialize_student(teacher, layers).eval()
    chosen = select_layers(6, 3, layers) if isinstance(layers, str) else layers
    with torch.no_grad():
        reference = cut(teacher, chosen).base_model(ids).last_hidden_state
        states = student(ids).last_hidden_state
    assert reference.abs().max() > 1 and states.dtype == dtype
    # Relative to the largest state: the one sum that is rounded otherwise is of that size.
    assert (states - reference).abs().max() / reference.abs().max() < tolerance


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_so_are_its_logits_where_the_teacher_has_a_head(name, ids, dtype, tolerance):
    teacher = randomize(TEACHERS[name](), std=0.1).eval().to(dtype)
    with torch.no_grad():
        reference = cut(teacher, [0, 2, 5])(ids).logits
        logits = initialize_student(MaskedLM(teacher), 3).eval()(ids).logits
    assert (logits - reference).abs().max() / reference.abs().max() < tolerance


def test_padding_is_treated_as_the_teacher_treats_it(teacher, ids):
    mask = (torch.arange(17) < torch.tensor([[17], [9], [3]])).long()
    ids = torch.where(mask.bool(), ids, teacher.config.pad_token_id)
    with torch.no_grad():
        reference = (
            cut(teacher, [0, 2, 5])
            .base_model(ids, attention_mask=mask)
            .last_hidden_state[mask.bool()]
        )
        states = initialize_student(teacher, 3).eval()(ids, mask).last_hidden_state[mask.bool()]
    assert (states - reference).abs().max() / reference.abs().max() < 1e-6


def test_layers_are_copied_bit_for_bit(teacher):
    student = initialize_student(teacher, [4, 0, 2])
    for new, old in enumerate([4, 0, 2]):
        theirs = teacher.base_model.encoder.layer[old].state_dict()
        mine = student.distilbert.transformer["layer"][new].state_dict()
        assert len(mine) == len(theirs) == 16
        for part, name in LAYER_PARTS.items():
            for kind in ("weight", "bias"):
                assert torch.equal(mine[f"{name}.{kind}"], theirs[f"{part}.{kind}"])


def test_given_the_same_input_the_layers_compute_the_same_bits(teacher, ids):
    student = initialize_student(teacher, [1, 4]).eval()
    with torch.no_grad():
        hidden = teacher.base_model.embeddings(ids)
        for new, old in enumerate([1, 4]):
            reference = teacher.base_model.encoder.layer[old](hidden)
            reference = reference[0] if isinstance(reference, tuple) else reference
            assert torch.equal(
                student.distilbert.transformer["layer"][new](hidden, None), reference
            )


def test_the_student_shares_no_memory_with_the_teacher(teacher):
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    with torch.no_grad():
        for p in initialize_student(teacher).parameters():
            p.add_(1)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_embeddings_or_head_can_be_left_at_random():
    teacher = randomize(TEACHERS["bert"]())
    words = teacher.bert.embeddings.word_embeddings.weight
    fresh = initialize_student(teacher, copy_embeddings=False, seed=1)
    assert not torch.isclose(fresh.distilbert.embeddings.word_embeddings.weight, words).any(1).all()
    assert fresh.vocab_projector.weight is fresh.distilbert.embeddings.word_embeddings.weight
    headless = initialize_student(teacher, copy_head=False)
    assert not torch.equal(
        headless.vocab_transform.weight, teacher.cls.predictions.transform.dense.weight
    )
    assert torch.equal(headless.distilbert.embeddings.word_embeddings.weight, words)


def test_what_is_not_copied_depends_on_the_seed_alone_and_nobodys_random_numbers_change(
    monkeypatch,
):
    teacher = TEACHERS["bert"]()
    heads = []
    monkeypatch.setattr(
        torch.cuda,
        "manual_seed_all",
        lambda _: pytest.fail("the GPUs' random numbers were changed"),
    )
    for state, seed in ((5, 1), (6, 1), (5, 2)):
        torch.default_generator.manual_seed(state)
        before = torch.get_rng_state()
        heads.append(initialize_student(teacher, copy_head=False, seed=seed).vocab_transform.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0], heads[1]) and not torch.isclose(heads[0], heads[2]).any(1).all()


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_teacher_kept_in_bf16_gives_a_student_in_fp32_whose_one_sum_is_not_rounded(name):
    teacher = randomize(TEACHERS[name]()).to(torch.bfloat16)
    student = initialize_student(teacher)
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    embeddings, positions = (
        teacher.base_model.embeddings,
        student.distilbert.embeddings.position_embeddings.weight,
    )
    expected = (
        embeddings.position_embeddings.weight.float()
        + embeddings.token_type_embeddings.weight[0].float()
    )
    assert torch.equal(positions, expected[-len(positions) :])
    assert not torch.equal(
        positions, positions.bfloat16().float()
    )  # the sum has more digits than its terms


def test_dropout_is_the_teachers_unless_given():
    teacher = BertModel(
        BertConfig(**SIZES, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4)
    )
    assert (
        initialize_student(teacher).config.dropout,
        initialize_student(teacher).config.attention_dropout,
    ) == (0.3, 0.4)
    assert (
        initialize_student(teacher, dropout=0.0).config.dropout
        == initialize_student(teacher, dropout=0.0).config.attention_dropout
        == 0
    )


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=24)),
            "electra",
        ),
        (lambda: BertModel(BertConfig(**SIZES, hidden_act="relu")), "relu"),
        (lambda: BertModel(BertConfig(**SIZES, is_decoder=True)), "encoder"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        initialize_student(make())


@pytest.mark.parametrize("layers", [[0, 6], [-1], []])
def test_layers_that_the_teacher_does_not_have_are_refused(layers):
    with pytest.raises(UserError, match="0 to 5"):
        initialize_student(TEACHERS["bert, encoder alone"](), layers)


@pytest.mark.parametrize(
    "teacher, student, expected",
    [
        (12, 5, [0, 2, 4, 6, 8]),
        (7, 3, [0, 2, 4]),
        (12, 4, [0, 3, 6, 9]),
        (11, 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_alternate_has_one_stride(teacher, student, expected):
    """ "Every second (or third, ...) from the first on": the largest constant stride that fits."""
    assert select_layers(teacher, student, "alternate") == expected
    for teacher in range(1, 25):
        for student in range(2, teacher + 1):
            layers = select_layers(teacher, student, "alternate")
            (stride,) = {b - a for a, b in zip(layers, layers[1:], strict=False)}
            assert layers[0] == 0 and stride * student <= teacher < (stride + 1) * student


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_the_positions_that_roberta_skips_are_left_out(offset):
    config = RobertaConfig(**SIZES, pad_token_id=offset)
    assert skipped_positions(config) == offset + 1
    assert student_config(config, 2).max_position_embeddings == 34 - offset - 1
    assert skipped_positions(BertConfig(**SIZES, pad_token_id=offset)) == 0


def test_an_untied_teacher_gives_an_untied_student_with_its_projection():
    teacher = randomize(BertForMaskedLM(BertConfig(**SIZES, tie_word_embeddings=False)))
    decoder, words = teacher.cls.predictions.decoder.weight, teacher.bert.embeddings.word_embeddings
    student = initialize_student(teacher)
    assert torch.equal(student.vocab_projector.weight, decoder)
    assert torch.equal(student.distilbert.embeddings.word_embeddings.weight, words.weight)
    plain = initialize_student(teacher, copy_head=False)  # the projection starts as the words
    assert torch.equal(plain.vocab_projector.weight, words.weight)


def test_other_settings_are_the_teachers():
    config = BertConfig(**SIZES, initializer_range=0.5, layer_norm_eps=1e-3, pad_token_id=2)
    mine = student_config(config, 4)
    assert (mine.initializer_range, mine.layer_norm_eps, mine.pad_token_id) == (0.5, 1e-3, 2)
    assert (mine.dim, mine.hidden_dim, mine.n_layers, mine.n_heads) == (24, 48, 4, 4)
    assert mine.vocab_size == 90 and mine.tie_word_embeddings
