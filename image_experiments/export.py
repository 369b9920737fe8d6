"""Exports the classifiers of a finished run in common formats: `python image_experiments/export.py OUT [--to FOLDER]`.

Writes one folder per method and seed with NAME.pt (a plain state_dict of a network from [0, 1] images to logits, to load with strict=True),
NAME.json (RobustBench's model card with this run's numbers) and model.py with architectures.py, which build the network with torch only.
RobustBench's loader accepts them as a model-zoo entry: {"model": model.model} and the weights. Diffusion models need no export:
OUT/checkpoints/diffusion-seedN is a diffusers pipeline, and the code of Gowal, Rebuffi and Wang reads OUT/synthetic/METHOD/seedN.npz.
Exit status: 0 fine; 1 bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    import tyro

    from command_line.command import Help, run_command, settings_line
    from command_line.output import UserError, file_digest, prepare_folder, write_json, write_whole
    from command_line.values import as_fraction

HELP = Help("Export the classifiers of a run for RobustBench's loader, with model cards.")
MODEL = '''"""Builds the network of {name}.pt, which takes images in [0, 1]. Needs torch and architectures.py beside it."""

from architectures import make_classifier


def model():
    """The network; load with model().load_state_dict(torch.load("{name}.pt", weights_only=True), strict=True)."""
    return make_classifier({network!r}, {classes!r}, {shape!r}, [0.0] * {channels!r}, [1.0] * {channels!r})
'''
NAME = re.compile(r"[\w.+-]+/seed\d+")


@dataclass(frozen=True)
class Settings:
    """What to export."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run of run_cifar.py."""
    to: Path | None = None
    """Folder to write (default: RUN/export)."""
    methods: tuple[str, ...] = ()
    """Methods to export, by the names of their folders (default: all)."""


def run(settings: Settings) -> int:
    """Export the classifiers; returns the exit status."""
    print(settings_line(settings))
    summary = read_summary(settings.run)
    if summary["settings"].get("evaluation.split", "test") != "test":
        raise UserError(
            f"{settings.run}: was attacked on validation images, which choose; export what was run with --evaluation.split test"
        )
    known = [name.removeprefix("evaluate/") for name in summary["results"] if name.startswith("evaluate/")]
    if odd := next((name for name in known if not NAME.fullmatch(name)), None):
        raise UserError(
            f"{settings.run}: {odd!r} is no name of a method and a seed, and names go into code; do not use this folder"
        )
    methods = list(dict.fromkeys(name.rpartition("/seed")[0] for name in known))
    unknown = [method for method in settings.methods if method not in methods]
    if unknown:
        raise UserError(f"--methods {unknown[0]}: not in {settings.run}, which has {', '.join(methods)}")
    chosen = [name for name in known if not settings.methods or name.rpartition("/seed")[0] in settings.methods]
    for name in chosen:
        flat_name = name.replace("/", "-")
        check_unchanged(settings.run, flat_name, summary["results"][f"evaluate/{name}"])
    to = prepare_folder(settings.to or settings.run / "export")
    for name in chosen:
        export_classifier(settings.run, to, name, summary)
    print(f"wrote {len(chosen)} classifiers to {to}")
    return 0


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json of a finished run. Raises UserError if there is none."""
    path = folder / "summary.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no summary.json; give the folder of a finished run of run_cifar.py")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(found.get(name), dict) for name in ("settings", "results", "data")):
            return found
    except (ValueError, AttributeError):
        pass
    raise UserError(f"{path}: no summary of run_cifar.py; run the command again that made it")


def weights_of(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / f"{name}.safetensors"


def check_unchanged(folder: Path, name: str, evaluated: dict[str, Any]) -> None:
    """Raise UserError if the weights are not those that were evaluated."""
    weights = weights_of(folder, name)
    if not weights.is_file() or file_digest(weights) != evaluated.get("weights_sha256"):
        raise UserError(f"{weights}: missing, or not what was evaluated; run the command again that made {folder}")


def export_classifier(folder: Path, to: Path, name: str, summary: dict[str, Any]) -> None:
    """Write NAME.pt, NAME.json, model.py and architectures.py of METHOD/seedN."""
    from contrastive_dp.files import read_safetensors, write_checkpoint
    from image_experiments.models import classifiers as architectures

    flat_name = name.replace("/", "-")
    weights = weights_of(folder, flat_name)
    tensors, metadata = read_safetensors(weights)
    about = known_facts(weights, metadata)
    to = prepare_folder(to / flat_name)
    write_checkpoint(to / f"{flat_name}.pt", tensors)
    write_json(to / f"{flat_name}.json", model_card(name, about["network"], summary))
    shape = about["shape"]
    text = MODEL.format(name=flat_name, network=about["network"], classes=about["classes"], shape=shape, channels=shape[0])
    write_whole(to / "model.py", lambda path: path.write_text(text, encoding="utf-8"))
    source = Path(architectures.__file__)
    write_whole(to / "architectures.py", lambda path: shutil.copyfile(source, path))


def known_facts(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """network, classes and shape of the weights. Raises UserError for anything else, as they are written into code."""
    try:
        about: dict[str, Any] = json.loads(metadata["classifier"])
        found = {"network": about["network"], "classes": about["classes"], "shape": tuple(about["shape"])}
        numbers = (found["classes"], *found["shape"])
        if isinstance(found["network"], str) and [type(number) for number in numbers] == [int] * 4:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: does not say what it holds; run the command again that made it")


def model_card(name: str, network: str, summary: dict[str, Any]) -> dict[str, Any]:
    """RobustBench's model_info of METHOD/seedN: accuracies in percent, AutoAttack's only if it attacked all test images. Fields that the
    run does not know are left for the author."""
    rows, trained = summary["results"][f"evaluate/{name}"]["rows"], summary["results"][f"classifier/{name}"]
    threat = (rows[0]["norm"], rows[0]["eps"])
    whole = max((row for row in rows if (row["norm"], row["eps"]) == threat), key=lambda row: row["images"])
    auto = next((row for row in rows if row["attack"] == "autoattack" and (row["norm"], row["eps"]) == threat), None)
    percent = f"{100 * auto['robust_accuracy']:.2f}" if auto else ""
    complete = auto is not None and auto["images"] == summary["data"]["test"]
    footnote = f"{trained['n_real']} real and {trained['n_synthetic']} synthetic training images; {threat[0]}; {name}."
    if auto and not complete:
        footnote += f" AutoAttack on {auto['images']} of {summary['data']['test']} test images: {percent}."
    return {
        "link": "",
        "name": name.replace("/", "-"),
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": summary["settings"]["dataset"],
        "venue": "unpublished",
        "architecture": network,
        "eps": as_fraction(threat[1]),
        "clean_acc": f"{100 * whole['clean_accuracy']:.2f}",
        "reported": percent if complete else "",
        "autoattack_acc": percent if complete else "",
        "footnote": footnote,
        "unreliable": False,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
