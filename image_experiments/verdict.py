"""How robust is a classifier? Clean accuracy, PGD and AutoAttack of any torch module, per class and per image, with intervals."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from command_line.output import UserError, did_you_mean, write_csv, write_json
from command_line.values import as_number, check_radius
from contrastive_dp._checks import normal_tensor
from image_experiments.data.sanity_checks import check_range
from image_experiments.evaluation.evaluate import evaluate_classifier
from image_experiments.evaluation.robustness import PARTS, EvaluationSettings, collected, lacks_tiles
from image_experiments.models.precision import gpu_arithmetic
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
    eps, seed, settings = as_number(eps), as_number(seed), {name: as_number(value) for name, value in settings.items()}
    if not isinstance(module, nn.Module):
        raise UserError(f"module={type(module).__name__}: give an nn.Module, on whose device and in whose mode it is attacked")
    if norm not in ("linf", "l2") or isinstance(eps, bool) or not isinstance(eps, int | float):
        raise UserError(f"norm={norm!r}, eps={eps!r}: give norm 'linf' or 'l2', and a number")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed={seed!r}: give a whole number")
    check_radius(f"eps={eps:g}", eps, norm)
    unknown = next((name for name in settings if name not in SETTINGS), None)
    if unknown is not None:
        raise UserError(
            f"{unknown}={settings[unknown]!r}: unknown{did_you_mean(unknown, SETTINGS)}; there are {', '.join(SETTINGS)}"
        )
    chosen = evaluation_settings(attacks, settings)
    kind = next((p for p in module.parameters()), torch.zeros(1))
    x = normal_tensor(checked_images(images).to(kind.device, torch.float32))
    y = normal_tensor(checked_labels(labels).to(kind.device))
    attacked = module if kind.dtype == torch.float32 else _InFloat32(module, kind.dtype)
    examined = examine(attacked, x, y, chosen.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        return judged(attacked, examined, Threat(norm, eps), chosen, seed, scratch=Path(folder))


class _InFloat32(nn.Module):
    """A module with parameters of another floating type, as the attacks see it: float32 images in, float32 logits out."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Any:
        logits = self.module(x.to(self.dtype))
        return logits.float() if isinstance(logits, Tensor) else logits


SETTINGS = ("pgd_steps", "pgd_restarts", "autoattack_images", "batch_size")


@dataclass(frozen=True, eq=False)
class Examined:
    """Images x (n, C, H, W) in [0, 1] and labels y that a module can be attacked on, its predictions, and what is doubtful already."""

    x: Tensor
    y: Tensor
    predicted: Tensor
    warnings: list[str]


def judged(
    module: nn.Module,
    examined: Examined,
    threat: Threat,
    settings: EvaluationSettings,
    seed: int,
    *,
    scratch: Path,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verdict:
    """The verdict. scratch: folder from which an interrupted call goes on, if everything is the same. report(done, total): batches."""
    height, width = examined.x.shape[-2:]
    if lacks_tiles(settings, threat, height, width):
        raise UserError(
            f"norm=l2: AutoAttack's Square attack cannot tile images of {width}x{height} pixels; use attacks pgd and apgd, or another size"
        )
    with _attackable(module):
        found = evaluate_classifier(module, examined.x, examined.y, [threat], settings, seed, scratch=scratch, report=report)
    outcomes = {name.partition(" ")[0]: right for name, right in found.outcomes.items()}
    rows = [_row(name, right, *(("", "") if name == "clean" else (threat.norm, threat.eps))) for name, right in outcomes.items()]
    labels, predicted = examined.y.cpu().numpy(), examined.predicted.cpu().numpy()
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Verdict(
        rows, outcomes, labels, predicted, classes, [*examined.warnings, *found.warnings], found.rows[-1].get("after", {})
    )


@contextmanager
def _attackable(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, in full float32, with gradients whatever the caller has switched off, of images alone: parts of AutoAttack call
    backward(), which would add to those of the parameters. Afterwards everything is as before, also a debugger's trace, which the package
    switches off.
    """
    modes = {part: part.training for part in module.modules()}
    differentiated = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.is_leaf]
    traced = sys.gettrace()
    module.eval()
    try:
        for parameter in differentiated:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), gpu_arithmetic(tf32=False):
            yield
    finally:
        for parameter in differentiated:
            parameter.requires_grad_(True)
        if sys.gettrace() is not traced:
            sys.settrace(traced)
        for part, training in modes.items():
            part.training = training


def evaluation_settings(attacks: Sequence[str], changes: dict[str, Any]) -> EvaluationSettings:
    """Settings of these attacks. Raises UserError for unknown ones, or two that exclude each other."""
    known = ("pgd", *PARTS, "autoattack")
    for name in attacks:
        if name not in known:
            raise UserError(f"attacks={name}: unknown; use {', '.join(known)}")
    parts = list(dict.fromkeys(name for name in attacks if name != "pgd"))
    for name, value in changes.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (name == "autoattack_images" and value is None):
            raise UserError(f"{name}={value!r}: give a whole number")
    if len(parts) > 1:
        raise UserError(
            f"attacks={' '.join(attacks)}: {parts[0]} and {parts[1]} exclude each other, one is a part of the other; name one"
        )
    images = changes.get("autoattack_images")
    if (not parts and images) or (parts and images == 0):
        raise UserError(f"autoattack_images={images}: has no meaning with attacks={' '.join(attacks)}; leave one of them out")
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
    try:
        array = images if isinstance(images, Tensor) else np.ascontiguousarray(images)
        x = array.detach() if isinstance(array, Tensor) else torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"images cannot be read as numbers ({error}); give an array or a tensor (n, C, H, W)") from None
    if x.ndim != 4 or not len(x):
        raise UserError(f"images have shape {tuple(x.shape)}; give (n, C, H, W)")
    if x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2).contiguous()
    if x.dtype == torch.uint8:
        check_range(x.cpu().numpy(), "images")
        return x.float() / 255
    if not x.is_floating_point():
        raise UserError(f"images have type {x.dtype}; give floating point in [0, 1], or uint8")
    low, high = float(x.min()), float(x.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN is neither
        remedy = "divide by 255" if low >= 0 and high <= 255 else "undo the normalisation, it belongs into the module"
        raise UserError(f"images lie in [{low:.3g}, {high:.3g}], attacks are on [0, 1]; {remedy}")
    return x.clamp(0, 1)


ROUNDING = 1e-6


def checked_labels(labels: Any) -> Tensor:
    """Labels as int64. Raises UserError for anything but whole numbers."""
    try:
        y = labels.detach() if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"labels cannot be read as numbers ({error}); give class numbers (n,)") from None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"labels have type {y.dtype}; give whole class numbers (n,)")
    return y.long()


def examine(module: nn.Module, x: Tensor, y: Tensor, size: int) -> Examined:
    """Look before attacking: predictions, in pieces of `size`, and what makes attacks or labels doubtful.

    Raises UserError for a module that cannot be attacked on these images, and for labels that it does not have.
    """
    import logging

    from pyautoattack.checks import check_randomized, check_range_output, check_zero_gradients, funcs

    funcs.update(dict.fromkeys(funcs, 0))  # counts calls that a dynamic defence makes, of every module in this program

    if y.shape != x.shape[:1]:
        raise UserError(f"labels have shape {tuple(y.shape)} for {len(x)} images; give one class number an image")
    with _attackable(module):
        logits, gradient = _first_pass(module, x, y, size)
        if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
            raise UserError(f"labels reach from {int(y.min())} to {int(y.max())}, the module has {logits.shape[1]} classes")
        warnings: list[str] = []
        logger = logging.getLogger("auto-attack")
        with collected(warnings):
            check_range_output(module, x[:size], logger=logger)
            check_randomized(module, x[:size], y[:size], logger=logger)
            check_zero_gradients(gradient, logger=logger)
    predicted = logits.argmax(dim=1)
    other = in_another_order(predicted.cpu().numpy(), y.cpu().numpy(), logits.shape[1])
    return Examined(x, y, predicted, [*warnings, *([other] if other else [])])


def _first_pass(module: nn.Module, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(logits of all images, gradient of the loss of the first). Raises UserError for a module that gives neither."""
    try:
        with torch.no_grad():
            logits = torch.cat([module(piece) for piece in x.split(size)])
        if logits.ndim == 2 and len(logits) == len(x) and torch.isfinite(logits).all():
            seen, some = x[:size].clone().requires_grad_(True), y[:size].clamp(0, logits.shape[1] - 1)
            (gradient,) = torch.autograd.grad(F.cross_entropy(module(seen), some, reduction="sum"), seen)
            return logits, gradient
    except torch.OutOfMemoryError:
        raise UserError(f"{size} images at once do not fit in memory; use a smaller batch_size") from None
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"the module cannot be attacked ({' '.join(str(error).split())[:200]}); it must map images {tuple(x.shape[1:])} to logits "
            "(n, classes), with gradients"
        ) from None
    what = "not finite" if logits.ndim == 2 and len(logits) == len(x) else f"of shape {tuple(logits.shape)} for {len(x)} images"
    raise UserError(f"the module's outputs are {what}; it must give finite logits (n, classes)")


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
