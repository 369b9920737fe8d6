"""What each guidance does to samples, at the same price: one panel each, for figures/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from command_line.output import write_csv
from contrastive_dp import NoiseSchedule
from simulations.guided.models import Setting, problem_named
from simulations.guided.points import SHOWN_SAMPLES, digits
from simulations.guided.report import CLASSES_HEADER, class_rows
from simulations.guided.runs import Effort, generate, moments
from simulations.guided.theory import predict, scale_for
from simulations.guided.value import GUIDANCES

PROBLEM, W2 = "two", 0.5
"""Every guidance changes the classes by this Wasserstein-2 distance, half of what separates a class mean from the boundary."""
HEADER = (*Setting.__dataclass_fields__, "label", "class_snr", "class_snr_predicted", "w2", "w2_predicted", "alignment")


@dataclass(frozen=True)
class Shown:
    """One panel: a row of gallery.csv, and its points."""

    row: tuple[Any, ...]
    points: list[tuple[Any, ...]]


def settings_of_gallery() -> list[Setting]:
    """No guidance, and every guidance; their scales are chosen when they run."""
    return [Setting(problem=PROBLEM), *(replace(base, problem=PROBLEM) for base in GUIDANCES)]


def show(setting: Setting, seed: int) -> Shown:
    """The setting at the scale at which theory predicts W2: measured on the samples of a full run, the first of which are shown."""
    torch.set_num_threads(1)
    schedule, problem = NoiseSchedule.linear(), problem_named(setting.problem)
    if setting.guidance == "none":
        expected = predict(setting, schedule)
    else:
        scale, expected = scale_for(setting, schedule, "w2", W2)
        setting = replace(setting, scale=scale)
    x, y = generate(setting, seed, Effort.samples, schedule)
    found = moments(problem, x.double().numpy(), y.numpy())
    numbers = (found.class_snr, expected.class_snr, found.w2, expected.w2, found.alignment)
    points = [(setting.label, int(k), *digits(p)) for p, k in zip(x[:SHOWN_SAMPLES], y[:SHOWN_SAMPLES], strict=True)]
    return Shown((*asdict(setting).values(), setting.label, *numbers), points)


def write_gallery(folder: Path, shown: Sequence[Shown]) -> None:
    """Write gallery.csv, gallery_samples.csv and gallery_classes.csv. Panels go from classes drawn together to classes held apart."""
    place = HEADER.index("class_snr_predicted")
    ordered = [shown[i] for i in np.argsort([one.row[place] for one in shown], kind="stable")]
    write_csv(folder / "gallery.csv", HEADER, [one.row for one in ordered])
    write_csv(folder / "gallery_samples.csv", ("name", "label", "x1", "x2"), [point for one in ordered for point in one.points])
    write_csv(folder / "gallery_classes.csv", CLASSES_HEADER, class_rows([PROBLEM]))
