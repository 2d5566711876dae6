"""Listings: what works is shown, what only describes or refuses is not.

Oracle: the listing computes what the function computes.
"""

from distil_lib.losses import soft_target_loss
from distil_lib.pages.plots import show_source, working_lines

SOURCE = '''def half(x):
    """Half of x.

    Raises:
        ValueError: if x is odd.
    """

    if x % 2:
        raise ValueError("odd")

    # A comment stays.
    if x > 100:
        x = 100
    return x // 2
'''


def test_a_listing_has_the_lines_that_work():
    listing = working_lines(SOURCE)
    assert "Half of" not in listing and "raise" not in listing and "A comment stays" in listing
    names: dict = {}
    exec(listing, names)
    assert names["half"](8) == 4 and names["half"](1000) == 50 and names["half"](7) == 3


def test_the_listing_of_a_loss_is_short_and_whole():
    text = show_source(soft_target_loss).data
    assert text.startswith("```python\ndef soft_target_loss(") and '"""' not in text
    assert "temperature**2" in text
