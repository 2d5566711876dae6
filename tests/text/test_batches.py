"""Which blocks make a step, and how processes and micro-batches share them out."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from distil_lib.masking import DynamicMasking
from distil_lib.text.batches import (
    StepBatches,
    epoch_order,
    sequences_of_step,
    split_into_micro_batches,
)


@pytest.fixture(scope="module")
def rows():
    """23 blocks of 10 ids, all different."""
    return [{"input_ids": list(range(5 + i, 15 + i))} for i in range(23)]


@pytest.fixture
def batches(rows, tokenizer):
    def make(**options):
        return StepBatches(
            Dataset.from_list(rows),
            DynamicMasking(tokenizer),
            **({"batch_size": 5, "micro_batch_size": 2} | options),
        )

    return make


# ---------------------------------------------------------------------------------------- the order
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_steps_read_one_permutation_after_the_other(batch_size, examples, seed):
    """Oracle: the permutations of the epochs joined and cut into batches."""
    steps = -(-3 * examples // batch_size)
    numbers, epochs = (
        np.concatenate(x)
        for x in zip(
            *(sequences_of_step(s, batch_size, examples, seed) for s in range(steps)), strict=True
        )
    )
    for epoch in range(3):
        seen = numbers[epochs == epoch]
        assert sorted(seen) == list(range(examples))
        assert seen.tolist() == epoch_order(examples, seed, epoch).tolist()
    assert (np.diff(epochs) >= 0).all()


def test_epochs_and_seeds_have_orders_of_their_own():
    assert len({tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_order_and_masks_are_drawn_from_streams_of_their_own(tokenizer, monkeypatch):
    """The trap: for example 0, seeds [seed, epoch] and [seed, epoch, example] are the same."""
    philox, states = np.random.Philox, []
    monkeypatch.setattr(
        np.random,
        "Philox",
        lambda seed: states.append(tuple(seed.generate_state(8))) or philox(seed),
    )
    epoch_order.cache_clear()
    for seed, epoch in itertools.product((0, 1), (0, 1, 2)):
        epoch_order(50, seed, epoch)
        DynamicMasking(tokenizer, seed=seed)(torch.full((3, 10), 20), range(3), epoch)
    assert len(set(states)) == len(states) == 2 * 3 * (1 + 3)


def test_a_step_depends_on_its_number_alone():
    forwards = [sequences_of_step(s, 7, 20, seed=1)[0].tolist() for s in range(12)]
    epoch_order.cache_clear()
    assert [
        sequences_of_step(s, 7, 20, seed=1)[0].tolist() for s in reversed(range(12))
    ] == forwards[::-1]


def test_a_run_of_a_given_length_ends_within_its_last_step():
    sizes = [len(sequences_of_step(s, 8, 5, seed=0, total=21)[0]) for s in range(3)]
    assert sizes == [8, 8, 5]


# -------------------------------------------------------------------------------------- the sharing
@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))
def test_every_place_is_computed_exactly_once(count, micro_batch_size, world):
    shares = [
        split_into_micro_batches(count, micro_batch_size, rank, world) for rank in range(world)
    ]
    assert sorted(place for share in shares for micro in share for place in micro) == list(
        range(count)
    )
    assert len({len(share) for share in shares}) == 1  # all take part in every exchange
    sizes = [len(micro) for share in shares for micro in share]
    assert max(sizes) <= micro_batch_size and max(sizes) - min(sizes) <= 1
    assert len(shares[0]) == -(
        -count // (micro_batch_size * world)
    )  # no more exchanges than needed


@pytest.mark.parametrize(
    "micro_batch_size, world", [(5, 1), (1, 1), (2, 1), (2, 2), (3, 2), (1, 4), (4, 4)]
)
def test_hardware_does_not_change_what_a_step_computes(batches, micro_batch_size, world):
    """Oracle: the whole step in one piece."""
    (whole,) = batches(micro_batch_size=5)[6]
    parts = [
        m
        for rank in range(world)
        for m in batches(micro_batch_size=micro_batch_size, rank=rank, world=world)[6]
    ]
    for name in ("input_ids", "labels", "examples"):
        kept = [getattr(m, name)[m.loss_mask.any(1)] for m in parts]
        assert torch.equal(torch.cat(kept), getattr(whole, name))
    assert sum(int(m.loss_mask.sum()) for m in parts) == 50


def test_a_step_holds_the_blocks_that_it_names(batches, rows):
    for micro in batches()[3]:
        original = torch.where(micro.labels == -100, micro.input_ids, micro.labels)
        assert original.tolist() == [rows[i]["input_ids"] for i in micro.examples]
        assert micro.attention_mask is None and micro.loss_mask.all()


@pytest.mark.parametrize("world", [2, 5])
def test_a_process_without_a_sequence_gets_one_of_which_nothing_counts(batches, world):
    """Three sequences for one process each, or five processes."""
    last = [
        batches(batch_size=3, micro_batch_size=1, rank=rank, world=world, total=3)[0]
        for rank in range(world)
    ]
    idle = [m for share in last for m in share if not m.loss_mask.any()]
    assert len(idle) == world * len(last[0]) - 3 > 0
    assert all((m.labels == -100).all() and m.input_ids.shape == (1, 10) for m in idle)


def test_blocks_are_masked_anew_in_each_epoch(batches):
    one_epoch = batches(batch_size=23, micro_batch_size=23)
    masks = []
    for step in (0, 1):
        (micro,) = one_epoch[step]
        masks.append(
            {
                int(e): tuple(labels.tolist())
                for e, labels in zip(micro.examples, micro.labels, strict=True)
            }
        )
    assert masks[0].keys() == masks[1].keys()
    assert sum(masks[0][e] != masks[1][e] for e in masks[0]) > 20


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_the_same_steps_whatever_the_number_of_workers(batches, workers):
    steps = batches()
    loader = DataLoader(steps, batch_size=None, sampler=range(2, 9), num_workers=workers)
    for number, loaded in enumerate(loader, start=2):
        for mine, theirs in zip(steps[number], loaded, strict=True):
            assert torch.equal(mine.input_ids, theirs.input_ids) and torch.equal(
                mine.labels, theirs.labels
            )
