"""Classifiers of a finished run as others take them: `python image_experiments/export.py OUT [--to FOLDER]`.

For each method and seed a folder with NAME.pt (a bare state_dict: logits on [0, 1], strict), NAME.json (RobustBench's model card, with this
run's numbers) and model.py with architectures.py, which build the network from torch alone. RobustBench's loader takes the three as a
model-zoo entry: {"model": model.model} and the weights. Diffusion models need no export: OUT/checkpoints/diffusion-seedN is a pipeline of
diffusers, and OUT/synthetic/METHOD/seedN.npz is what Gowal's, Rebuffi's and Wang's code reads.
Exit status: 0 fine; 1 bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

from command_line.command import describe, run_command
from command_line.output import UserError, prepare_folder, write_json, write_whole

HELP = "Export the classifiers of a run for RobustBench's loader, with model cards."
MODEL = '''"""Builds the network of {name}.pt, which takes images in [0, 1]. Needs torch and architectures.py beside it."""

from architectures import make_classifier


def model():
    """The network; load with model().load_state_dict(torch.load("{name}.pt", weights_only=True), strict=True)."""
    return make_classifier({network!r}, {classes}, {shape}, [0.0] * {channels}, [1.0] * {channels})
'''


@dataclass(frozen=True)
class Settings:
    """What to export."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run of run_cifar.py."""
    to: Path | None = None
    """Folder to write (default: RUN/export)."""
    methods: tuple[str, ...] = ()
    """Methods as in metrics.csv (default: all)."""


def run(settings: Settings) -> int:
    """Export; returns the exit status."""
    print(describe(settings))
    rows = read_metrics(settings.run)
    to = prepare_folder(settings.to or settings.run / "export")
    known = list(dict.fromkeys(row["method"] for row in rows))
    unknown = [method for method in settings.methods if method not in known]
    if unknown:
        raise UserError(f"--methods {unknown[0]}: not in {settings.run}/metrics.csv, which has {', '.join(known)}")
    written = 0
    for method, seed in dict.fromkeys((row["method"], row["seed"]) for row in rows):
        if not settings.methods or method in settings.methods:
            name = f"{method}-seed{seed}"
            of_it = [row for row in rows if (row["method"], row["seed"]) == (method, seed)]
            export_classifier(settings.run / "checkpoints" / f"{name}.safetensors", to / name, name, of_it)
            written += 1
    print(f"wrote {written} classifiers to {to}")
    return 0


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv. Raises UserError where there are none."""
    path = folder / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{folder}: has no metrics.csv; give the folder of a finished run of run_cifar.py")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"method", "seed", "attack", "clean_accuracy", "robust_accuracy"} <= set(rows[0]):
        raise UserError(f"{path}: no table of run_cifar.py; run the command again that made it")
    return rows


def export_classifier(weights: Path, folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    """Write NAME.pt, NAME.json, model.py and architectures.py. Raises UserError for a file that is missing or damaged."""
    from contrastive_dp.files import read_safetensors, write_checkpoint
    from image_experiments import architectures

    try:
        tensors, metadata = read_safetensors(weights)
        about = json.loads(metadata["classifier"])
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(f"{weights}: {' '.join(str(error).split())}; run the command again that made it") from None
    prepare_folder(folder)
    write_checkpoint(folder / f"{name}.pt", tensors)
    write_json(folder / f"{name}.json", model_card(name, about, rows))
    shape = tuple(about["shape"])
    text = MODEL.format(name=name, network=about["network"], classes=about["classes"], shape=shape, channels=shape[0])
    write_whole(folder / "model.py", lambda path: path.write_text(text, encoding="utf-8"))
    source = Path(architectures.__file__)
    write_whole(folder / "architectures.py", lambda path: shutil.copyfile(source, path))


def model_card(name: str, about: dict[str, Any], rows: list[dict[str, str]]) -> dict[str, Any]:
    """RobustBench's model_info of a classifier: accuracies in percent; what this run does not know is left for the author."""
    best = next((row for row in rows if row["attack"] == "autoattack"), None)
    row = best or rows[0]
    attacked = f"{100 * float(best['robust_accuracy']):.2f}" if best else ""
    return {
        "link": "",
        "name": name,
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": row["dataset"],
        "venue": "unpublished",
        "architecture": about["network"],
        "eps": as_fraction(float(row["eps"])),
        "clean_acc": f"{100 * float(row['clean_accuracy']):.2f}",
        "reported": attacked,
        "autoattack_acc": attacked,
        "footnote": f"{row['n_real']} real and {row['n_synthetic']} synthetic training images, {row['norm']}, seed {row['seed']}.",
        "unreliable": False,
    }


def as_fraction(eps: float) -> str:
    """8/255 for 0.03137..., else the number as it is."""
    steps = round(eps * 255)
    return f"{steps}/255" if 0 < steps < 255 and abs(steps / 255 - eps) < 1e-9 else f"{eps:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
