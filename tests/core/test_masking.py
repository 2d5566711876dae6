"""Dynamic masking: what it is a function of, and its statistics on a million tokens."""

import numpy as np
import pytest
import torch

from distil_lib.masking import (
    DynamicMasking,
    MicroBatch,
    random_stream,
    sample_size,
    sample_tokens,
)


def blocks(tokenizer, number: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random ids, special ones among them."""
    return torch.randint(
        0, len(tokenizer), (number, length), generator=torch.Generator().manual_seed(seed)
    )


def within(count: int, trials: int, chance: float) -> bool:
    """Five standard deviations of a binomial: wrong once in two million times."""
    return abs(count - trials * chance) < 5 * (trials * chance * (1 - chance)) ** 0.5


# ---------------------------------------------------------- a pure function of seed, epoch, example
def masked(masking, input_ids, examples, epoch=0):
    out = masking(input_ids[examples], examples, epoch)
    return {
        e: (ids.tolist(), labels.tolist())
        for e, ids, labels in zip(examples, out.input_ids, out.labels, strict=True)
    }


def test_order_batch_company_and_rank_change_nothing(tokenizer):
    """Oracle: each example masked alone."""
    input_ids, everyone = blocks(tokenizer, 24, 32), list(range(24))
    masking = DynamicMasking(tokenizer, counts=np.arange(len(tokenizer)))
    alone = {}
    for example in everyone:
        alone |= masked(masking, input_ids, [example])
    assert masked(masking, input_ids, everyone) == alone
    assert masked(masking, input_ids, everyone[::-1]) == alone
    for world in (2, 5):
        ranks = [masked(masking, input_ids, everyone[rank::world]) for rank in range(world)]
        assert {k: v for rank in ranks for k, v in rank.items()} == alone


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_batch_holds_what_is_chosen_for_each_row(tokenizer, dtype):
    """Oracle: each row's choice written by torch's own indexing. The ids given stay as they are."""
    input_ids = blocks(tokenizer, 6, 32).to(dtype)
    before, examples, epochs = input_ids.clone(), [5, 0, 9, 2, 7, 1], [0, 1, 0, 2, 2, 0]
    masking = DynamicMasking(tokenizer, seed=4)
    out = masking(input_ids, examples, epochs)
    for row, (example, epoch) in enumerate(zip(examples, epochs, strict=True)):
        chosen, replacement = masking._choose(before[row].numpy(), example, epoch)
        shown, labels = before[row].clone(), torch.full_like(before[row], -100)
        labels[chosen] = before[row, chosen]
        shown[chosen] = torch.from_numpy(replacement).to(dtype)
        assert torch.equal(out.input_ids[row], shown) and torch.equal(out.labels[row], labels)
    assert torch.equal(input_ids, before) and out.labels.dtype == out.input_ids.dtype == dtype


def test_a_new_object_and_other_random_states_change_nothing(tokenizer):
    """As after a resume: nothing has to be remembered.

    And the caller's randomness is left alone.
    """
    input_ids = blocks(tokenizer, 8, 32)
    first = masked(DynamicMasking(tokenizer, seed=3), input_ids, list(range(8)), epoch=2)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert masked(DynamicMasking(tokenizer, seed=3), input_ids, list(range(8)), epoch=2) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_epoch_and_example_each_change_the_choice(tokenizer):
    input_ids = blocks(tokenizer, 1, 400).expand(2, -1)
    first = DynamicMasking(tokenizer, seed=0)
    choices = {
        tuple(m(input_ids[:1], [example], epoch).labels[0].tolist())
        for m, example, epoch in [
            (first, 0, 0),
            (first, 0, 1),
            (first, 1, 0),
            (first, 1, 1),
            (DynamicMasking(tokenizer, seed=1), 0, 0),
        ]
    }
    assert len(choices) == 5


def test_a_stream_depends_on_seed_and_key_alone_and_a_zero_at_the_end_is_part_of_the_key():
    def draws(seed, *key):
        return tuple(random_stream(seed, *key).integers(2**60, size=4))

    keys = [(), (0,), (1,), (1, 0), (0, 1), (1, 2), (2, 1), (1, 2, 0), (2**32, 1)]
    assert len({draws(seed, *key) for seed in (0, 7) for key in keys}) == 2 * len(keys)
    assert draws(7, 1, 2) == draws(7, 1, 2)


def test_epochs_may_differ_within_a_batch(tokenizer):
    input_ids = blocks(tokenizer, 2, 64)
    masking = DynamicMasking(tokenizer)
    together = masking(input_ids, [7, 7], [0, 1])
    for row, epoch in enumerate((0, 1)):
        assert torch.equal(
            together.labels[row], masking(input_ids[row : row + 1], [7], epoch).labels[0]
        )


def test_the_input_is_left_as_it_is(tokenizer):
    input_ids = blocks(tokenizer, 4, 64)
    copy = input_ids.clone()
    out = DynamicMasking(tokenizer)(input_ids, range(4))
    assert torch.equal(input_ids, copy) and not torch.equal(out.input_ids, copy)


# --------------------------------------------------------------------------------------- statistics
@pytest.fixture(scope="module")
def million(tokenizer):
    """8,000 blocks of 128 ids, masked: (original, shown, labels)."""
    input_ids = blocks(tokenizer, 8000, 128)
    out = DynamicMasking(tokenizer)(input_ids, range(8000))
    return input_ids, out.input_ids, out.labels


def is_special(tokenizer, ids):
    return torch.isin(ids, torch.tensor(tokenizer.all_special_ids))


def test_fifteen_per_cent_of_the_words_are_predicted(million, tokenizer):
    original, _, labels = million
    words = int((~is_special(tokenizer, original)).sum())
    assert words > 990_000
    assert within(int((labels != -100).sum()), words, 0.15)


def test_of_these_eighty_per_cent_are_hidden_ten_replaced_and_ten_kept(million, tokenizer):
    """A random word is the right one in one of as many cases as there are words."""
    original, shown, labels = million
    chosen = labels != -100
    trials, lucky = int(chosen.sum()), 0.1 / (len(tokenizer) - 5)
    assert within(int((shown[chosen] == tokenizer.mask_token_id).sum()), trials, 0.8)
    assert within(int((shown[chosen] == original[chosen]).sum()), trials, 0.1 + lucky)
    replaced = chosen & (shown != original) & (shown != tokenizer.mask_token_id)
    assert within(int(replaced.sum()), trials, 0.1 - lucky)
    counts = torch.bincount(
        shown[replaced], minlength=len(tokenizer)
    )  # every word serves as a replacement alike
    assert all(
        within(int(c), int(replaced.sum()), 1 / (len(tokenizer) - 5))
        for i, c in enumerate(counts)
        if i > 4
    )


def test_special_tokens_are_never_chosen_nor_put_in_place_of_a_word(million, tokenizer):
    original, shown, labels = million
    assert (labels[is_special(tokenizer, original)] == -100).all()
    changed = shown[(shown != original) & (shown != tokenizer.mask_token_id)]
    assert len(changed) > 10_000 and not is_special(tokenizer, changed).any()


def test_labels_are_the_true_ids_and_nothing_else_changes(million):
    original, shown, labels = million
    chosen = labels != -100
    assert torch.equal(labels[chosen], original[chosen]) and torch.equal(
        shown[~chosen], original[~chosen]
    )


def test_positions_are_chosen_alike(million, tokenizer):
    original, _, labels = million
    for position in range(0, 128, 9):
        words = int((~is_special(tokenizer, original[:, position])).sum())
        assert within(int((labels[:, position] != -100).sum()), words, 0.15)


# ---------------------------------------------------------------------------------------- smoothing
@pytest.mark.parametrize("smoothing, ratio", [(0.0, 1.0), (0.7, 100**0.7), (1.0, 100.0)])
def test_a_word_a_hundred_times_rarer_is_chosen_a_hundred_to_the_smoothing_times_as_often(
    smoothing, ratio, tokenizer
):
    """Where one word is chosen of 50 rare and 50 frequent ones, the law p ~ count ** -smoothing
    is exact."""
    frequent, rare, trials = 20, 30, 5_000
    counts = np.ones(len(tokenizer))
    counts[[frequent, rare]] = 5000, 50
    masking = DynamicMasking(tokenizer, probability=0.01, smoothing=smoothing, counts=counts)
    labels = masking(torch.tensor([[frequent, rare] * 50]).expand(trials, -1), range(trials)).labels
    assert ((labels != -100).sum(1) == 1).all()
    assert within(int((labels == rare).sum()), trials, ratio / (1 + ratio))


def test_without_counts_every_word_has_the_same_chance(tokenizer):
    labels = DynamicMasking(tokenizer, probability=0.01)(
        torch.tensor([[20, 30] * 50]).expand(5_000, -1), range(5_000)
    ).labels
    assert within(int((labels == 20).sum()), 5_000, 0.5)


def test_words_never_seen_in_training_are_no_rarer_than_those_seen_once(tokenizer):
    counts = np.zeros(len(tokenizer))
    counts[20] = 1
    masking = DynamicMasking(tokenizer, probability=0.01, counts=counts)
    labels = masking(torch.tensor([[20, 30] * 50]).expand(5_000, -1), range(5_000)).labels
    assert within(int((labels == 20).sum()), 5_000, 0.5)


def test_a_block_without_words_has_nothing_to_predict(tokenizer):
    input_ids = torch.tensor([tokenizer.all_special_ids * 3])
    out = DynamicMasking(tokenizer)(input_ids, [0])
    assert (out.labels == -100).all() and torch.equal(out.input_ids, input_ids)


@pytest.mark.parametrize(
    "options", [{"probability": 0.0}, {"probability": 1.0}, {"counts": np.ones(3)}]
)
def test_settings_without_meaning_are_refused(options, tokenizer):
    with pytest.raises(ValueError):
        DynamicMasking(tokenizer, **options)


@pytest.mark.parametrize("smoothing", [float("nan"), float("inf"), -0.1])
def test_smoothings_without_meaning_are_refused(smoothing, tokenizer):
    with pytest.raises(ValueError, match="smoothing"):
        DynamicMasking(tokenizer, smoothing=smoothing)


@pytest.mark.parametrize("sample", [-0.1, 1.1, float("nan")])
def test_samples_without_meaning_are_refused(sample, tokenizer):
    with pytest.raises(ValueError, match="sample"):
        DynamicMasking(tokenizer, sample=sample)


@pytest.mark.parametrize("words", [62, 30, 5, 1])
def test_the_share_is_right_on_average_where_it_is_no_whole_number_of_words(words, tokenizer):
    """62 words x 15% = 9.3: nine or ten, ten in three blocks of ten. Rounding would give 14.5%."""
    trials, exact = 4000, 0.15 * words
    ids = torch.arange(5, 5 + words).expand(trials, -1)
    numbers = (DynamicMasking(tokenizer)(ids, range(trials)).labels != -100).sum(1)
    assert set(numbers.tolist()) == {int(exact), int(exact) + 1}
    assert within(int((numbers > exact).sum()), trials, exact % 1)


def test_the_sample_is_drawn_from_a_stream_of_its_own():
    """Not from that of the masks, whose choice would then be tied to it."""
    examples, own = range(40), []
    drawn = sample_tokens((40, 64), 0.15, 3, examples, [2] * 40)
    for row, example in zip(drawn, examples, strict=True):
        masks = random_stream(3, 2, example).permutation(64)[:10]
        own.append(row.nonzero().flatten().tolist() == sorted(masks.tolist()))
        theirs = random_stream(3, 2, example, 1).permutation(64)[:10]
        assert row.nonzero().flatten().tolist() == sorted(theirs.tolist())
    assert not any(own)


def test_sampled_tokens_are_masked_as_often_as_others(tokenizer):
    """A sample of 10 of 62 words and 15% masks, drawn independently: 15% of the sample is
    masked."""
    ids = torch.arange(5, 67).expand(3000, -1)
    out = DynamicMasking(tokenizer, sample=10 / 62)(ids, range(3000), epoch=4)
    assert out.sampled.sum(1).tolist() == [10] * 3000
    assert torch.equal(out.sampled, sample_tokens((3000, 62), 10 / 62, 0, range(3000), [4] * 3000))
    assert within(int((out.sampled & (out.labels != -100)).sum()), 30_000, 0.15)
    assert DynamicMasking(tokenizer)(ids[:1], [0]).sampled is None


@pytest.mark.parametrize(
    "share, length, size", [(0.15, 62, 9), (0.01, 20, 1), (1.0, 20, 20), (0.26, 10, 3)]
)
def test_sizes_of_samples_by_hand(share, length, size):
    assert sample_size(share, length) == size


def test_a_micro_batch_moves_as_a_whole():
    """Every tensor of it, and nothing else; its attention mask only where there is padding."""
    tensors = [torch.zeros(2, 3) for _ in range(4)]
    for padded, sampled in ((True, torch.ones(2, 3)), (False, None)):
        batch = MicroBatch(*tensors, padded=padded, sampled=sampled)
        moved = batch.to(torch.device("meta"))
        kinds = {
            value.device.type for value in vars(moved).values() if isinstance(value, torch.Tensor)
        }
        assert (
            kinds == {"meta"} and moved.padded is padded and (moved.sampled is None) == (not padded)
        )
        assert batch.attention_mask is (batch.loss_mask if padded else None)
