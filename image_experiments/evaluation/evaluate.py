"""One classifier under every attack: rows for the table, outcomes per image, warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_dp.randomness import mixed_seed
from image_experiments.data.dataset import Array
from image_experiments.evaluation.robustness import (
    EvaluationSettings,
    Robustness,
    attack_name,
    autoattack_robustness,
    disagreement,
    parts_for,
    pgd_robustness,
    standard_error,
)
from image_experiments.training.attacks import Threat


@dataclass
class Evaluation:
    """rows: of the table, one per attack. outcomes: {attack: (n,) bool, which images withstood it}. warnings: in words."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: dict[str, Array] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def evaluate_classifier(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    threats: list[Threat],
    settings: EvaluationSettings,
    seed: int,
    *,
    scratch: Path,
    report: Callable[[int, int], None],
) -> Evaluation:
    """Clean accuracy, PGD on all images x (n, C, H, W) in [0, 1] and AutoAttack on the first of them, under each threat.

    scratch: folder for checkpoints. report(done, total): batches, summed over all threats.
    """
    n = len(y) if settings.autoattack_images is None else min(settings.autoattack_images, len(y))
    parts = parts_for(_outputs(classifier, x), settings.autoattack_parts)
    batches = -(-len(y) // settings.batch_size)
    most = len(parts) * -(-n // settings.batch_size)  # batches of AutoAttack's parts, if every image stays robust
    found = Evaluation()
    for i, threat in enumerate(threats):
        before, total = i * (batches + most), len(threats) * (batches + most)

        def on_batch(batch: int, before: int = before, total: int = total) -> None:
            report(before + batch, total)

        key = f"{threat.norm}-{threat.eps:.6g}"
        file = scratch / f"pgd-{i}.pt"
        seeds = mixed_seed(seed, 100 + i), mixed_seed(seed, 200 + i)
        pgd = pgd_robustness(classifier, x, y, threat, settings, seeds[0], checkpoint=file, on_batch=on_batch)
        found.outcomes |= {"clean": pgd.clean.numpy(), f"pgd-{settings.pgd_steps} {key}": pgd.robust.numpy()}
        found.rows.append(_row(f"pgd-{settings.pgd_steps}", threat, pgd))
        if n == 0:
            continue
        file, after = scratch / f"autoattack-{i}.pt", lambda batch, on_batch=on_batch: on_batch(batches + batch)
        auto = autoattack_robustness(classifier, x[:n], y[:n], threat, settings, seeds[1], checkpoint=file, on_batch=after)
        found.outcomes[f"{attack_name(parts)} {key}"] = auto.robust.numpy()
        found.rows.append(_row(attack_name(parts), threat, auto) | {"after": auto.after})
        odd = disagreement(pgd.robust[:n], auto.robust, NAMED.get(attack_name(parts), "AutoAttack"))
        found.warnings += [f"{threat}: {text}" for text in (*auto.warnings, *([odd] if odd else []))]
    return found


NAMED = {"apgd-ce": "APGD-CE", "apgd": "APGD"}
"""Parts of AutoAttack, as a warning calls them."""


def _outputs(classifier: nn.Module, x: Tensor) -> int:
    """Number of classes the classifier knows."""
    with torch.no_grad():
        return int(classifier(x[:1]).shape[1])


def _row(attack: str, threat: Threat, found: Robustness) -> dict[str, Any]:
    return {
        "attack": attack,
        "norm": threat.norm,
        "eps": threat.eps,
        "images": len(found.robust),
        "clean_accuracy": found.clean_accuracy,
        "robust_accuracy": found.accuracy,
        "standard_error": standard_error(found.robust),
    }
