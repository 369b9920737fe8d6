"""Robust accuracy under PGD and under AutoAttack (its authors' package, whose warnings about unreliable evaluations are passed on)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from command_line.values import number as parsed_number
from contrastive_dp.files import read_checkpoint, write_checkpoint
from contrastive_dp.randomness import mixed_seed
from image_experiments.training.attacks import Threat, strongest

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The parts of AutoAttack (Croce, Hein 2020), in order."""
WITHOUT_TARGETS = ("apgd-ce", "fab", "square")
"""The parts for fewer than four classes, where the targeted loss is not defined."""
Parts = Literal["all", "apgd", "apgd-ce"]
PARTS: dict[str, tuple[str, ...]] = {"apgd": ("apgd-ce", "apgd-t"), "apgd-ce": ("apgd-ce",)}
"""The gradient-based parts, which take less time. With two or three classes apgd-t is not defined, so only apgd-ce is reported."""
NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class EvaluationSettings:
    """Attacks on the test images."""

    split: Literal["test", "validation"] = "test"
    """Which images to attack: test images to report results, validation images to choose between settings."""
    pgd_steps: int = 20
    """PGD steps, each of size 2.5 eps / steps."""
    pgd_restarts: int = 1
    """Random starts of PGD."""
    autoattack_images: int | None = None
    """Number of images for AutoAttack, the first of the class-balanced list (default: all; 0: no AutoAttack)."""
    autoattack_parts: Parts = "all"
    """all; apgd: only APGD-CE and APGD-T; apgd-ce: only APGD-CE. The latter two are reported under these names, not as AutoAttack."""
    batch_size: int = 250
    """Images attacked together; an interruption loses at most one batch."""
    threats: tuple[str, ...] = ()
    """Further threats to evaluate with PGD and AutoAttack, for example linf:8/255 l2:0.5."""

    def __post_init__(self) -> None:
        for name, least in (("pgd_steps", 1), ("pgd_restarts", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be >= {least}")
        if self.autoattack_images is not None and self.autoattack_images < 0:
            raise ValueError(f"autoattack_images={self.autoattack_images} must be >= 0")
        self.further()

    def further(self) -> list[Threat]:
        """The further threats. Raises ValueError for any that is not NORM:EPS."""
        found = []
        for text in self.threats:
            norm, _, eps = text.partition(":")
            try:
                found.append(Threat(norm, parsed_number(eps)))  # type: ignore[arg-type]
                if found[-1].eps == 0:
                    raise ValueError
            except ValueError:
                raise ValueError(f"threats={text!r}: write NORM:EPS, for example linf:8/255 or l2:0.5") from None
        return found


@dataclass
class Robustness:
    """Result of an attack. clean, robust: (n,) bool in the order of the images. after: robust accuracy after each part. warnings: texts."""

    clean: Tensor
    robust: Tensor
    after: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return share(self.robust)

    @property
    def clean_accuracy(self) -> float:
        return share(self.clean)


def share(right: Tensor) -> float:
    """Fraction of True values."""
    return float(right.double().mean())


def standard_error(right: Tensor) -> float:
    """sqrt(p (1 - p) / n), the standard error of an accuracy on these images."""
    p = share(right)
    return math.sqrt(p * (1 - p) / len(right))


def pgd_robustness(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    settings: EvaluationSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Robustness:
    """PGD with random restarts on x (n, C, H, W) in [0, 1]. Resumes from `checkpoint`, which is written after each batch."""
    state: dict[str, Any] = {"clean": [], "robust": []}
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint)
    pieces = list(zip(x.split(settings.batch_size), y.split(settings.batch_size), strict=True))
    for i in range(len(state["robust"]), len(pieces)):
        piece, labels = pieces[i]
        generator = torch.Generator(x.device).manual_seed(mixed_seed(seed, i))
        state["robust"].append(
            strongest(classifier, piece, labels, threat, settings.pgd_steps, settings.pgd_restarts, generator).cpu()
        )
        with torch.no_grad():
            state["clean"].append((classifier(piece).argmax(dim=1) == labels).cpu())
        if checkpoint is not None:
            write_checkpoint(checkpoint, state)
        if on_batch is not None:
            on_batch(i + 1)
    return Robustness(torch.cat(state["clean"]), torch.cat(state["robust"]))


def autoattack_robustness(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    settings: EvaluationSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Robustness:
    """AutoAttack's standard version on x (n, C, H, W) in [0, 1]: each part attacks the images that withstood the parts before it.

    With ten or more classes it is the package's own version="standard" (9 targets). With four to nine classes, every other class is a
    target. With two or three, the parts are APGD-CE, FAB and Square. settings.autoattack_parts: see PARTS. Resumes from `checkpoint`,
    which is written after each batch of each part.
    """
    with torch.no_grad():
        logits = torch.cat([classifier(piece) for piece in x.split(settings.batch_size)])
    clean, classes = (logits.argmax(dim=1) == y).cpu(), logits.shape[1]
    state: dict[str, Any] = {"robust": clean.clone(), "flags": clean, "after": {"clean": share(clean)}, "warnings": []}
    state |= {"part": 0, "batch": 0, "done": 0}
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint)
    used = parts_for(classes, settings.autoattack_parts)
    for number in range(state["part"], len(used)):
        left = torch.nonzero(state["flags"])[:, 0]  # on the CPU, like the whole state: still robust when this part began
        batches = left.split(settings.batch_size) if len(left) else ()
        for i in range(state["batch"], len(batches)):
            places = batches[i]
            with collected(state["warnings"]):
                attack = make_attack(classifier, x[places], threat, classes, used[number], mixed_seed(seed, i))
                state["robust"][places] = _withstand(attack, used[number], classifier, x[places], y[places], threat)
            state["batch"], state["done"] = i + 1, state["done"] + 1
            if checkpoint is not None:
                write_checkpoint(checkpoint, state)
            if on_batch is not None:
                on_batch(state["done"])
        state["after"][used[number]] = share(state["robust"])
        state |= {"part": number + 1, "batch": 0, "flags": state["robust"].clone()}
    with collected(state["warnings"]):
        if "square" in used:
            _check_square(state["after"])
    return Robustness(clean, state["robust"], state["after"], state["warnings"])


def parts_for(classes: int, chosen: Parts = "all") -> tuple[str, ...]:
    """The chosen parts of AutoAttack that are defined for this number of classes."""
    defined = STANDARD if classes > 3 else WITHOUT_TARGETS
    return defined if chosen == "all" else tuple(part for part in defined if part in PARTS[chosen])


PASSES = {"apgd-ce": 100.0, "apgd-t": 100.0, "fab": 900.0, "fab-t": 160.0, "square": 1700.0}
"""Measured cost of each part in PGD passes, per target, on an image that withstands it; for a guess before it was timed."""


def targets_of(part: str, classes: int) -> int:
    """The number of other classes that a part of AutoAttack aims at, one after the other; 1 for a part without targets."""
    return min(classes - 1, 9) if part.endswith("-t") else 1


def attack_name(parts: tuple[str, ...]) -> str:
    """The name under which the result of these parts is reported."""
    return next((name for name, of in PARTS.items() if of == parts), "autoattack")


def make_attack(classifier: nn.Module, x: Tensor, threat: Threat, classes: int, part: str, seed: int) -> Any:
    """One part of AutoAttack from its authors' package, set up like its version="standard"."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        classifier, norm=NORMS[threat.norm], eps=threat.eps, version="custom", attacks=[part], device=x.device, seed=seed
    )
    attack.apgd.n_restarts = 1
    attack.fab.n_restarts = 1
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    return attack


def _withstand(attack: Any, part: str, classifier: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """(n,) bool: still classified as y after one part of AutoAttack."""
    height, width = x.shape[-2:]
    if part == "square" and threat.norm == "l2" and not square_covers(height, width):
        raise ValueError(f"AutoAttack's l_2 Square attack cannot tile images of {width}x{height} pixels")
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):  # the package seeds torch's global generator
        attacked, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    if float((attacked - x).abs().max()) > 0 and not _within(attacked - x, threat):
        raise FloatingPointError(f"{part} left the ball of {threat}: do not trust this evaluation")
    with torch.no_grad():
        return (classifier(attacked).argmax(dim=1) == y).cpu()


def lacks_tiles(settings: EvaluationSettings, threat: Threat, height: int, width: int) -> bool:
    """Whether these attacks hold a Square attack that cannot begin on images of this size."""
    square = settings.autoattack_parts == "all" and settings.autoattack_images != 0
    return threat.norm == "l2" and square and not square_covers(height, width)


def square_covers(height: int, width: int) -> bool:
    """Whether the package's l_2 Square attack can begin on images of this size: its tiles, a fifth of the height wide, must not overhang.
    They do at 12, 14, 18, 19 and 24 pixels. Images of fewer than 5 pixels have none."""
    side = height // 5
    start = (height - 5 * side) // 2
    return min(height, width) >= 5 and (side == 1 or all(start + length // side * side <= length for length in (height, width)))


def _within(delta: Tensor, threat: Threat) -> bool:
    length = delta.abs().amax() if threat.norm == "linf" else delta.flatten(1).norm(dim=1).amax()
    return bool(length <= threat.eps * (1 + 1e-4) + 1e-6)


def _check_square(after: dict[str, float]) -> None:
    """The package's check that the black-box part found nothing that the gradient-based parts missed, on all images together."""
    from pyautoattack.checks import check_square_sr

    check_square_sr(after, logger=logging.getLogger("auto-attack"))


@contextmanager
def collected(warnings: list[str]) -> Iterator[None]:
    """Collect the warnings that AutoAttack's package logs, each message once, instead of printing them."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage().split(" See flags_doc")[0]
            if message not in warnings:
                warnings.append(message)

    logger, collector = logging.getLogger("auto-attack"), Collector(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated


def disagreement(pgd: Tensor, autoattack: Tensor, name: str = "AutoAttack") -> str | None:
    """A warning if PGD and AutoAttack, or its parts of this name, contradict each other on the same images, otherwise None.

    pgd, autoattack: (n,) bool, robust under each. AutoAttack is the stronger attack, so images that only PGD fools must be rare. One-sided
    sign test at 0.1 %: if both are equally strong, each image on which they differ falls to either side with probability 1/2. If PGD's
    robust accuracy exceeds AutoAttack's by more than 10 points plus two standard errors, gradients mislead PGD.
    """
    from scipy.stats import binomtest

    only_pgd = int((autoattack & ~pgd).sum())
    only_autoattack = int((pgd & ~autoattack).sum())
    differing = only_pgd + only_autoattack
    if differing and binomtest(only_pgd, differing, alternative="greater").pvalue < 1e-3:
        return f"PGD fools {only_pgd} images that {name} does not ({only_autoattack} the other way): {name} is unreliable here"
    excess, spread = only_autoattack - only_pgd, 2 * math.sqrt(differing)
    if (excess - spread) / len(pgd) > 0.1:
        return (
            f"PGD leaves {excess / len(pgd):.1%} more than {name}: gradients mislead it; read {name} alone, and try an attack made for "
            "this defence"
        )
    return None
