"""TensorBoard logs of learning curves and results, on request; written after each stage, from the csv files."""

from __future__ import annotations

import csv
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from command_line.output import UserError
from image_experiments.engine.stages import Stage, flat_name


def log_stage(stage: Stage, out: Path) -> None:
    """Log the learning curve of a finished stage."""
    if "curve" not in stage.outputs:
        return
    with (out / stage.outputs["curve"]).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with _writer(out / "tensorboard" / flat_name(stage.name)) as writer:
        for row in rows:
            for name, value in row.items():
                if name != "step" and value:
                    writer.add_scalar(name, float(value), int(row["step"]))


def log_metrics(out: Path, rows: list[dict[str, Any]]) -> None:
    """Log clean and robust accuracy of each classifier, with the seed as step."""
    for method in dict.fromkeys(row["method"] for row in rows):
        with _writer(out / "tensorboard" / f"results_{method}") as writer:
            for row in rows:
                if row["method"] == method:
                    writer.add_scalar(f"{row['attack']} {row['norm']} {row['eps']:.4g}", row["robust_accuracy"], row["seed"])
                    writer.add_scalar("clean", row["clean_accuracy"], row["seed"])


def check_installed() -> None:
    """Raise UserError if the package is missing."""
    if find_spec("tensorboard") is None:
        raise UserError("--tensorboard: the package tensorboard is missing; pip install tensorboard")


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)  # the curve of an earlier run of the same stage
    return SummaryWriter(str(folder))
