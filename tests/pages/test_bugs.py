"""The twelve bugs: all fall, the library passes every check, each bug is caught by one at least.

Oracles: the example's values on paper, and the library's `TripleLoss` with global counts.
"""

import pytest

from distil_lib.losses import TokenCounts, TripleLoss
from distil_lib.pages import bug_checks, bugs
from distil_lib.pages.bug_checks import CHECKS, caught_by
from distil_lib.pages.bugs import BUGS, RIGHT


def test_the_right_code_passes_every_check_and_has_the_values_on_paper():
    assert caught_by(RIGHT) == []
    losses = [float(x) for x in RIGHT.losses([bug_checks.hand_example()])]
    assert losses == pytest.approx(bug_checks.by_hand(), abs=1e-12)


def test_the_right_code_is_the_librarys_triple_loss_over_two_micro_batches():
    x = bug_checks.hand_example()
    parts = [bugs.Answers(**{k: v[i : i + 1] for k, v in vars(x).items()}) for i in (0, 1)]
    counts = TokenCounts(6, 2, 6)
    expected = sum(
        TripleLoss()(
            a.student_logits, a.teacher_logits, RIGHT.labels(a.words, a.masked, a.counted),
            a.student_hidden, a.teacher_hidden, a.counted, a.counted, counts,
        ).loss
        for a in parts
    )  # fmt: skip
    assert float(RIGHT.loss(parts)) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_falls_and_is_caught(bug):
    caught = caught_by(bug.code)
    assert caught and "it falls (no check)" not in caught


def test_there_are_twelve_and_the_mended_example_catches_reversed_kl():
    assert len({bug.name for bug in BUGS}) == 12
    assert caught_by(BUGS[-1].code) == ["known value, by hand"]
    assert {name for bug in BUGS for name in caught_by(bug.code)} == set(CHECKS) - {
        "it falls (no check)"
    }
