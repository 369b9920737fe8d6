"""Methods in words, and one look for each."""

import pytest

from command_line.words import (
    LAST,
    PLACES,
    distinct_places,
    guidance_in_words,
    in_words,
    learner_in_words,
    learner_place,
    place_of,
    radius_in_words,
)


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
        ("classifier-free-0.3", "classifier-free 0.3", 7),
        ("twice as many unguided", "twice as many unguided", 7),
        ("npz-dig", "npz-dig", LAST),
        ("npz-edm-50", "npz-edm-50", LAST),
        ("anchored-1e-05", "class-anchored 1e-05", 2),
        ("", "", LAST),
    ],
)
def test_a_method_has_one_name_and_one_place(method, words, place):
    assert in_words(method) == words
    assert place_of(words) == place
    assert max(PLACES.values()) < LAST < 12  # figures tell twelve apart


def test_two_strengths_of_a_method_look_different_in_one_picture():
    names = ["unguided", "InfoNCE 0.1", "InfoNCE 0.3", "InfoNCE 1", "real images alone"]
    assert distinct_places(names) == [0, 1, 10, 9, LAST]
    assert len(set(distinct_places([f"particle {i}" for i in range(12)]))) == 12
    assert distinct_places([f"particle {i}" for i in range(14)])[12:] == [10, 10]  # there are twelve


@pytest.mark.parametrize(
    ("name", "words", "place"),
    [
        ("averaging", "averaging", 0),
        ("lda", "LDA", 1),
        ("logistic", "logistic", 2),
        ("adversarial logistic", "adversarial logistic", 3),
        ("logistic, adversarial, ε = 0.3", "logistic, adversarial, ε = 0.3", 3),
        ("linear svm", "linear SVM", 4),
        ("robust optimum (theory)", "robust optimum (theory)", 5),
        ("l_2, ε = 0.62", "l_2, ε = 0.62", 7),
    ],
)
def test_a_learner_has_one_name_and_one_place(name, words, place):
    assert learner_in_words(name) == words
    assert learner_place(words, 7) == place


def test_radii_are_fractions_where_they_are():
    assert radius_in_words("linf", 8 / 255) == "l_inf 8/255"
    assert radius_in_words("l2", 0.5) == "l_2 0.5"
    assert radius_in_words("linf", 0.15) == "l_inf 0.15"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("unguided", "unguided"),
        ("constant", "constant push"),
        ("anchored at xt", "class-anchored, noisy state"),
        ("infonce at x0 0≤t<400", "InfoNCE, estimate, t < 400"),
        ("supervised at xt 400≤t<1000", "supervised, noisy state, t ≥ 400"),
        ("reversed infonce at x0", "InfoNCE, reversed, estimate"),
        ("reversed anchored at x0", "away from the anchors, estimate"),
        ("reversed supervised", "supervised, reversed"),
    ],
)
def test_guidances_of_the_plane_in_words(label, words):
    assert guidance_in_words(label) == words
