"""One way to name a method or a learner and to draw it, in all figures and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from command_line.values import as_fraction

WORDS = {
    "real": "real images alone",
    "infonce": "InfoNCE",
    "infonce-other": "InfoNCE, other classes",
    "infonce-same": "InfoNCE, same class",
    "hard-negative": "hard negatives",
    "boundary-near": "boundary, half the distance",
    "anchored": "class-anchored",
    "anchored-reversed": "away from the anchors",
    "classifier-reversed": "away from the classifier's class",
    "supervised-reversed": "supervised, reversed",
    "noise-real": "noisy real images",
    "cads": "CADS",
}
"""Methods whose names on the command line are not what one would say."""
PLACES = {
    "unguided": 0,
    "InfoNCE": 1,
    "class-anchored": 2,
    "away from the anchors": 3,
    "noise": 4,
    "hard negatives": 5,
    "hotter noise": 6,
    "twice as many": 7,
    "InfoNCE, same class": 6,
    "constant push": 6,
    "classifier-free": 7,
    "autoguidance": 4,
    "hold half": 5,
    "supervised": 8,
    "classifier": 9,
    "away from the classifier": 9,
    "feedback": 8,
    "particle": 10,
    "diverse half": 10,
    "selected": 10,
    "k-means": 9,
    "nearest the boundary": 7,
}
"""Place in the sequence of colours and markers (command_line/drawing.py); every other name has the last."""
LEARNER_PLACES = {
    "averaging": 0,
    "LDA": 1,
    "logistic": 2,
    "adversarial": 3,
    "logistic, adversarial": 3,
    "linear SVM": 4,
    "robust optimum": 5,
}
LAST = 11
REVERSED = "reversed "
ATTACKS = {"pgd-20": "PGD-20", "apgd-ce": "APGD-CE", "apgd": "APGD", "autoattack": "AutoAttack"}


def in_words(method: str) -> str:
    """ "away from the anchors 0.1" for "anchored-reversed-0.1"; other texts as they are."""
    found = re.fullmatch(r"(.+?)-(auto|[\d.e-]+)", method)
    kind, scale = found.groups() if found and not method.startswith("npz-") else (method, "")
    return f"{WORDS.get(kind, kind)} {scale}".rstrip()


def window_in_words(low: float, high: float) -> str:
    """ "t < 400", "t ≥ 400", "200 ≤ t < 700" or "every t"."""
    if low == 0 and high >= 1000:
        return "every t"
    return f"t < {high:g}" if low == 0 else f"t ≥ {low:g}" if high >= 1000 else f"{low:g} ≤ t < {high:g}"


def guidance_in_words(label: str) -> str:
    """ "class-anchored, noisy state, t < 400" for "anchored at xt 0≤t<400", a label of guided_diffusion.py."""
    kind, _, rest = label.removeprefix(REVERSED).partition(" at ")
    seen, _, window = rest.partition(" ")
    ends = re.fullmatch(r"(\d+)≤t<(\d+)", window)
    when = window_in_words(*map(float, ends.groups())) if ends else ""
    words = {"constant": "constant push", **WORDS}.get(kind, kind)
    if label.startswith(REVERSED):
        words = WORDS.get(f"{kind}-reversed", f"{words}, reversed")
    return ", ".join(filter(None, (words, {"xt": "noisy state", "x0": "estimate"}.get(seen, seen), when)))


def place_of(name: str) -> int:
    """Its place, by the name in words, whatever its strength."""
    return _longest(PLACES, name, LAST)


def distinct_places(names: Sequence[str]) -> list[int]:
    """The place of each name in one picture: its own, or, for a second strength of a method, the last free one."""
    own = [place_of(name) for name in names]
    free = [place for place in range(LAST + 1) if place not in own]
    second = [place in own[:i] for i, place in enumerate(own)]
    return [free.pop() if again and free else place for place, again in zip(own, second, strict=True)]


def learner_in_words(name: str, eps: float = 0.0) -> str:
    """ "LDA" for "lda"; other learners as they are. eps: radius of its training over sigma."""
    return f"{name}, adversarial, ε/σ = {eps:g}" if eps else {"lda": "LDA", "linear svm": "linear SVM"}.get(name, name)


def learner_place(name: str, otherwise: int) -> int:
    """The place of a learner, by its name in words; otherwise: of a series that is no learner."""
    return _longest(LEARNER_PLACES, name, otherwise)


def _longest(places: Mapping[str, int], name: str, otherwise: int) -> int:
    return max(((len(known), place) for known, place in places.items() if name.startswith(known)), default=(0, otherwise))[1]


def attack_in_words(attack: str, norm: str, eps: float) -> str:
    """ "APGD-CE, l_inf 8/255" for "apgd-ce", "linf" and 8 / 255."""
    return f"{ATTACKS.get(attack, attack)}, {radius_in_words(norm, eps)}"


def radius_in_words(norm: str, eps: float) -> str:
    """ "l_inf 8/255" or "l_2 0.5"."""
    return f"{norm.replace('linf', 'l_inf').replace('l2', 'l_2')} {as_fraction(eps)}"
