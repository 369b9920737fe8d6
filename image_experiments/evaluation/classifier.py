"""One classifier under every attack: rows for the table, outcomes image by image, warnings."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from command_line.output import write_whole
from contrastive_dp.randomness import mixed_seed
from image_experiments.data.stored import RealImages
from image_experiments.engine.stages import StageRun
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
from image_experiments.models.precision import prepared
from image_experiments.training.attacks import Threat


def evaluate_classifier(
    run: StageRun, real: RealImages, classifier: nn.Module, settings: EvaluationSettings, threats: list[Threat], seed: int
) -> dict[str, Any]:
    """Clean accuracy, PGD on all images of the split, AutoAttack on the first of them, under each threat; writes who withstood what."""
    classifier = prepared(classifier.to(run.device), "no")
    images = real.test if settings.split == "test" else real.validation
    x, y = images.x.to(run.device).float() / 255, images.y.to(run.device)
    n = len(y) if settings.autoattack_images is None else min(settings.autoattack_images, len(y))
    batches = -(-len(y) // settings.batch_size)
    parts = parts_for(len(real.classes), settings.autoattack_parts)
    most = len(parts) * -(-n // settings.batch_size)  # batches of AutoAttack's parts, if every image stays robust
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    outcomes: dict[str, Any] = {}
    for i, threat in enumerate(threats):
        scratch = (run.scratch / f"pgd-{i}.pt", run.scratch / f"autoattack-{i}.pt")
        key = f"{threat.norm}-{threat.eps:.6g}"
        pgd = pgd_robustness(
            classifier,
            x,
            y,
            threat,
            settings,
            mixed_seed(seed, 100 + i),
            checkpoint=scratch[0],
            on_batch=lambda batch: run.report(batch, batches + most),
        )
        outcomes |= {"clean": pgd.clean.numpy(), f"pgd-{settings.pgd_steps} {key}": pgd.robust.numpy()}
        rows.append(_row(f"pgd-{settings.pgd_steps}", threat, pgd))
        if n == 0:
            continue
        auto = autoattack_robustness(
            classifier,
            x[:n],
            y[:n],
            threat,
            len(real.classes),
            batch_size=settings.batch_size,
            parts=settings.autoattack_parts,
            seed=mixed_seed(seed, 200 + i),
            checkpoint=scratch[1],
            on_batch=lambda batch: run.report(batches + batch, batches + most),
        )
        name = attack_name(parts)
        outcomes[f"{name} {key}"] = auto.robust.numpy()
        rows.append(_row(name, threat, auto) | {"after": auto.after})
        odd = disagreement(pgd.robust[:n], auto.robust)
        warnings += [f"{threat}: {text}" for text in (*auto.warnings, *([odd] if odd else []))]

    def write(path: Any) -> None:
        with path.open("wb") as stream:
            np.savez(stream, **outcomes)

    write_whole(run.outputs["outcomes"], write)
    return {"rows": rows, "warnings": warnings}


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
