"""Methods in words, and one look for each."""

import pytest

from figures.words import LAST, PLACES, in_words, place_of, radius_in_words


@pytest.mark.parametrize(
    ("method", "words", "place"),
    [
        ("unguided", "unguided", 0),
        ("real", "real images alone", LAST),
        ("infonce-0.3", "InfoNCE 0.3", 1),
        ("infonce-auto", "InfoNCE auto", 1),
        ("anchored-0.1", "class-anchored 0.1", 2),
        ("anchored-reversed-0.1", "away from the anchors 0.1", 3),
        ("anchored-reversed-auto", "away from the anchors auto", 3),
        ("noise-0.05", "noise 0.05", 4),
        ("hard-negative-1", "hard negatives 1", 5),
        ("classifier-0.1", "classifier 0.1", 9),
        ("classifier-free-0.3", "classifier-free 0.3", 9),
        ("twice as many unguided", "twice as many unguided", 7),
        ("npz-dig", "npz-dig", LAST),
    ],
)
def test_a_method_has_one_name_and_one_place(method, words, place):
    assert in_words(method) == words
    assert place_of(words) == place
    assert max(PLACES.values()) < LAST < 12  # figures tell twelve apart


def test_radii_are_fractions_where_they_are():
    assert radius_in_words("linf", 8 / 255) == "l_inf 8/255"
    assert radius_in_words("l2", 0.5) == "l_2 0.5"
    assert radius_in_words("linf", 0.15) == "l_inf 0.15"
