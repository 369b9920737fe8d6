"""How robust is a classifier? Clean accuracy, PGD and AutoAttack of any torch module, per class and per image, with intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from command_line.output import UserError, write_csv, write_json
from command_line.values import check_radius
from image_experiments.evaluation.evaluate import attack
from image_experiments.evaluation.robustness import PARTS, EvaluationSettings, collected
from image_experiments.training.attacks import Norm, Threat

Attack = Literal["pgd", "apgd-ce", "apgd", "autoattack"]
Array = np.ndarray[Any, Any]
HEADER = ("attack", "norm", "eps", "images", "right", "accuracy", "low", "high")


@dataclass
class Verdict:
    """rows: one per attack, under HEADER; "clean" first. outcomes: {attack: (n,) bool, which of the first n images withstood it}. labels,
    predicted: (n,) of all images. classes: names. warnings: in words. after: AutoAttack's accuracy after each of its parts."""

    rows: list[tuple[Any, ...]]
    outcomes: dict[str, Array]
    labels: Array
    predicted: Array
    classes: tuple[str, ...]
    warnings: list[str] = field(default_factory=list)
    after: dict[str, float] = field(default_factory=dict)

    @property
    def table(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(HEADER))

    @property
    def per_class(self) -> Any:
        """Accuracy of each class under each attack, as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self._of_classes(), columns=["class", "images", *self.outcomes])

    def _of_classes(self) -> list[list[Any]]:
        rows = []
        for k, name in enumerate(self.classes):
            members = self.labels == k
            found = [right[members[: len(right)]] for right in self.outcomes.values()]
            rows.append([name, int(members.sum()), *(float(right.mean()) if len(right) else float("nan") for right in found)])
        return rows

    def save(self, out: Path, order: Array) -> None:
        """Write evaluation.csv, per_class.csv and per_image.csv. order: the place of each image in the data set's own order."""
        write_csv(out / "evaluation.csv", HEADER, self.rows)
        write_csv(out / "per_class.csv", ["class", "images", *self.outcomes], self._of_classes())
        columns = [[int(right[i]) if i < len(right) else "" for i in range(len(order))] for right in self.outcomes.values()]
        rows = zip(order.tolist(), self.labels.tolist(), self.predicted.tolist(), *columns, strict=True)
        write_csv(out / "per_image.csv", ["image", "label", "predicted", *self.outcomes], rows)


def evaluate(
    module: nn.Module,
    images: Any,
    labels: Any,
    *,
    norm: Norm = "linf",
    eps: float = 8 / 255,
    attacks: Sequence[Attack] = ("pgd", "autoattack"),
    seed: int = 0,
    **settings: Any,
) -> Verdict:
    """Attack a classifier from images in [0, 1] to logits, on its own device, in evaluation mode.

    images: (n, C, H, W) in [0, 1], or uint8; (n, H, W, C) is taken too. labels: (n,). attacks: "pgd" (always made, it checks the others),
    and at most one of "apgd-ce", "apgd" and "autoattack" (its authors' package, version "standard").
    settings: of EvaluationSettings: pgd_steps, pgd_restarts, autoattack_images, batch_size.
    Raises UserError for images, labels, attacks or outputs of the module that cannot be.
    """
    check_radius(f"eps={eps:g}", eps, norm)
    chosen = evaluation_settings(attacks, settings)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x, y = checked_images(images).to(device), torch.as_tensor(np.asarray(labels)).long().to(device)
    if y.shape != x.shape[:1]:
        raise UserError(f"labels have shape {tuple(y.shape)} for {len(x)} images; give one class number an image")
    with tempfile.TemporaryDirectory() as folder:
        return judged(module, x, y, Threat(norm, eps), chosen, seed, scratch=Path(folder), report=lambda _done, _total: None)


def judged(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    settings: EvaluationSettings,
    seed: int,
    *,
    scratch: Path,
    report: Callable[[int, int], None],
) -> Verdict:
    """The verdict on images x (n, C, H, W) in [0, 1] with labels y. scratch: folder from which an interrupted call goes on, if everything
    is the same. report(done, total): batches."""
    was = module.training
    module.eval()
    try:
        predicted, warnings = _look(module, x, y, settings.batch_size)
        found = attack(module, x, y, [threat], settings, seed, scratch=scratch, report=report)
    finally:
        module.train(was)
    outcomes = {name.partition(" ")[0]: right for name, right in found.outcomes.items()}
    rows = [_row(name, right, *(("", "") if name == "clean" else (threat.norm, threat.eps))) for name, right in outcomes.items()]
    classes = tuple(map(str, range(int(y.max()) + 1)))
    after = found.rows[-1].get("after", {})
    return Verdict(rows, outcomes, y.cpu().numpy(), predicted.cpu().numpy(), classes, [*warnings, *found.warnings], after)


def evaluation_settings(attacks: Sequence[str], changes: dict[str, Any]) -> EvaluationSettings:
    """Settings of these attacks. Raises UserError for unknown ones, or two that exclude each other."""
    known = ("pgd", *PARTS, "autoattack")
    for name in attacks:
        if name not in known:
            raise UserError(f"attacks={name}: unknown; use {', '.join(known)}")
    parts = [name for name in attacks if name != "pgd"]
    if len(set(parts)) > 1:
        raise UserError(
            f"attacks={' '.join(attacks)}: {parts[0]} and {parts[1]} exclude each other, one is a part of the other; name one"
        )
    if not parts:
        changes = {**changes, "autoattack_images": 0}
    elif parts[0] != "autoattack":
        changes = {**changes, "autoattack_parts": parts[0]}
    try:
        return EvaluationSettings(**changes)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def checked_images(images: Any) -> Tensor:
    """Images as float (n, C, H, W) in [0, 1]. Raises UserError for anything that cannot be that."""
    x = images.detach() if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if x.ndim != 4 or not len(x):
        raise UserError(f"images have shape {tuple(x.shape)}; give (n, C, H, W)")
    if x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2).contiguous()
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise UserError(f"images have type {x.dtype}; give floating point in [0, 1], or uint8")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        remedy = "divide by 255" if low >= 0 and high <= 255 else "undo the normalisation, it belongs into the module"
        raise UserError(f"images lie in [{low:.3g}, {high:.3g}], attacks are on [0, 1]; {remedy}")
    return x.float()


def _look(module: nn.Module, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, list[str]]:
    """(predicted class of each image, what makes attacks or labels doubtful). Raises UserError for outputs that are no logits."""
    import logging

    from pyautoattack.checks import check_randomized, check_range_output, check_zero_gradients

    with torch.no_grad():
        logits = torch.cat([module(piece) for piece in x.split(size)])
    if logits.ndim != 2 or len(logits) != len(x) or not torch.isfinite(logits).all():
        what = "not finite" if logits.ndim == 2 and len(logits) == len(x) else f"of shape {tuple(logits.shape)} for {len(x)} images"
        raise UserError(f"the module's outputs are {what}; it must give finite logits (n, classes)")
    if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise UserError(f"labels reach from {int(y.min())} to {int(y.max())}, the module has {logits.shape[1]} classes")
    warnings: list[str] = []
    logger, some = logging.getLogger("auto-attack"), slice(0, min(size, len(x)))
    with collected(warnings):
        check_range_output(module, x[some], logger=logger)
        check_randomized(module, x[some], y[some], logger=logger)
        seen = x[some].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(module(seen), y[some], reduction="sum"), seen)
        check_zero_gradients(gradient, logger=logger)
    predicted = logits.argmax(dim=1)
    other = in_another_order(predicted.cpu().numpy(), y.cpu().numpy(), logits.shape[1])
    return predicted, [*warnings, *([other] if other else [])]


def in_another_order(predicted: Array, labels: Array, classes: int) -> str | None:
    """A warning if predictions fit the labels far better once the classes are renamed, otherwise None."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (predicted, labels), 1)
    place, renamed = linear_sum_assignment(-counts)
    right, could = np.trace(counts) / len(labels), counts[place, renamed].sum() / len(labels)
    if could - right < 0.2 or could < 0.5:
        return None
    moved = [f"{k} is {name}" for k, name in zip(place, renamed, strict=True) if k != name and counts[k].any()]
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return f"classes seem to be in another order: accuracy {right:.1%}, but {could:.1%} if its class {', '.join(moved[:3])}{more}"


def _row(attack_name: str, right: Array, norm: str, eps: float | str) -> tuple[Any, ...]:
    """A row under HEADER, with Wilson's 95 % interval for new images."""
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return (attack_name, norm, eps, len(right), int(right.sum()), float(right.mean()), float(interval.low), float(interval.high))


def write_verdict(verdict: Verdict, out: Path, order: Array, about: dict[str, Any]) -> dict[str, Any]:
    """The tables, and evaluation.json with what was attacked, how and what is doubtful, which is returned."""
    verdict.save(out, order)
    results = [dict(zip(HEADER, row, strict=True)) for row in verdict.rows]
    content = {**about, "results": results, "after": verdict.after, "warnings": verdict.warnings}
    write_json(out / "evaluation.json", content)
    return content
