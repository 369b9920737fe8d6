"""One classifier, trained and written: the stage that encoder, judge and the compared classifiers share."""

from __future__ import annotations

from typing import Any

from command_line.output import write_csv
from image_experiments.data.stored import RealImages
from image_experiments.engine.stages import StageRun
from image_experiments.models.classifier_files import mean_and_std, save_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.training.attacks import Threat
from image_experiments.training.classifier import ClassifierSettings, Images, train_classifier
from image_experiments.training.curves import HEADER


def train_and_save(
    run: StageRun,
    real: RealImages,
    trained_on: Images,
    synthetic: Images | None,
    settings: ClassifierSettings,
    threat: Threat,
    seed: int,
) -> dict[str, Any]:
    """Train, going on from a checkpoint, and write weights and learning curve; returns the last row of the curve."""
    classifier = make_classifier(settings.network, len(real.classes), real.shape, *mean_and_std(trained_on.x), seed).to(run.device)
    trained, curve = train_classifier(
        classifier,
        trained_on,
        threat,
        settings,
        classes=len(real.classes),
        seed=seed,
        synthetic=synthetic,
        validation=real.validation if len(real.validation) else None,
        checkpoint=run.scratch / "checkpoint.pt",
        on_step=lambda step: run.report(step, settings.steps),
        processes=run.processes,
    )
    if not run.processes.first:
        return {}
    save_classifier(run.outputs["weights"], trained, settings.network, real.shape)
    write_csv(run.outputs["curve"], HEADER, [[row.get(name, "") for name in HEADER] for row in curve])
    return {f"last_{name}": value for name, value in curve[-1].items()}
