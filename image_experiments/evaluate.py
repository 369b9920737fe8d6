"""How robust is this checkpoint? `python image_experiments/evaluate.py CHECKPOINT --dataset cifar10 [--norm linf] [--eps 8/255]`.

    python image_experiments/evaluate.py wrn.pt --data-dir FOLDER                               # a published checkpoint: PGD, AutoAttack
    python image_experiments/evaluate.py wrn.pt --data-dir FOLDER --attacks pgd --test 1000     # a first look
    python image_experiments/evaluate.py results/digits-cpu/export/real-seed0/real-seed0.pt --dataset digits    # one of our own

Checkpoints: weights in the layouts of Gowal, Rebuffi and Wang, of TRADES, Carmon and RobustBench's Standard, of Rice, of Wong, of
ResNet-18, or our own; .pt, .pth, .pth.tar or safetensors, in any of the usual wrappings. Nothing in them is run. From Python, for any
torch module:

    from image_experiments.evaluate import evaluate
    verdict = evaluate(module, images, labels, eps=8 / 255)     # verdict.table, verdict.per_class, verdict.warnings

Writes OUT/evaluation.csv, per_class.csv, per_image.csv and evaluation.json. The same command goes on after an interruption.
Exit status: 0 fine; 1 bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script, from any folder, from a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line.missing import needs_packages

with needs_packages(__name__):
    import numpy as np
    import torch
    import tyro
    from torch import Tensor

    from command_line.command import Help, run_command, settings_line, versions
    from command_line.folder_claim import check_claim, note_claim
    from command_line.output import UserError, check_writable, file_digest, plain, prepare_folder, text_table
    from command_line.values import Radius, as_fraction, check_radius
    from image_experiments.data.dataset import Dataset, described
    from image_experiments.data.read_dataset import DatasetName, read_dataset
    from image_experiments.data.stored_dataset import order_of_test_images
    from image_experiments.engine.checks import check_distance
    from image_experiments.engine.fingerprint import code_digest
    from image_experiments.engine.settings import usual_eps
    from image_experiments.evaluation.robustness import EvaluationSettings
    from image_experiments.experiment import only_run_in
    from image_experiments.models.classifier_files import names_its_network, read_classifier
    from image_experiments.models.classifiers import Normalised, classifier_without_weights, make_classifier
    from image_experiments.models.precision import gpu_arithmetic
    from image_experiments.models.published import MEANS, pixels, twin_of
    from image_experiments.models.timm_networks import PREFIX as TIMM
    from image_experiments.training.attacks import Norm, Threat
    from image_experiments.verdict import Attack, Examined, Verdict, evaluate, evaluation_settings, examine, judged, write_verdict

__all__ = ["Verdict", "evaluate"]
HELP = Help("Robust accuracy of a checkpoint under PGD and AutoAttack.")


@dataclass(frozen=True)
class Settings:
    """What is attacked, and how."""

    checkpoint: tyro.conf.Positional[Path]
    """Weights of a classifier: .pt, .pth, .pth.tar or .safetensors."""
    network: str | None = None
    """Its network, for example dm-wrn-28-10-relu or timm:resnet18 (default: recognised from the keys)."""
    normalisation: str = "auto"
    """Pixel normalisation: cifar10, pytorch-cifar, cifar100, half (0.5 and 0.5), none, or auto (the file's, else its public code's)."""
    dataset: DatasetName = "cifar10"
    """Data set whose test images are attacked."""
    data_dir: Path | None = None
    """Its files, as for run_cifar.py (default: downloaded once, if it can be)."""
    image_size: int = 0
    """Resize images to this many pixels per side (0: keep their size; MNIST is padded to 32, GTSRB resized to 32)."""
    classes: tuple[str, ...] = ()
    """Only these classes of the data set, by name."""
    test: int = 0
    """Number of test images, class-balanced (0: all)."""
    norm: Norm = "linf"
    """Norm of the attacks."""
    eps: Radius | None = None
    """Radius, such as 0.03 or 8/255 (default: the usual one for the data set and norm)."""
    attacks: tuple[Attack, ...] = ("pgd", "autoattack")
    """pgd, and one of autoattack, apgd (its two APGD parts) and apgd-ce (the first). PGD is always made: it checks the other."""
    pgd_steps: int = 20
    """Steps of PGD, each of size 2.5 eps / steps."""
    pgd_restarts: int = 1
    """Random starts of PGD."""
    autoattack_images: int | None = None
    """Number of images for AutoAttack, the first of the class-balanced list (default: all)."""
    batch_size: int = 250
    """Images attacked together; an interruption loses at most one batch."""
    seed: int = 0
    """Seed of the attacks."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads (0: as torch chooses)."""
    out: Path | None = None
    """Folder for the results (default: results/evaluation-CHECKPOINT)."""
    force: bool = False
    """Write to a folder that holds another evaluation."""


def run(settings: Settings) -> int:
    """Attack and write; returns the exit status."""
    print(settings_line(settings))
    checked, eps, out, device = _checked(settings)
    data = read_dataset(settings.dataset, settings.data_dir, settings.image_size, None, settings.classes)
    height, width, channels = data.images.shape[1:]
    check_distance("--eps", Threat(settings.norm, eps), (channels, height, width))
    order = order_of_test_images(data, settings.test)
    if settings.test > len(order):
        raise UserError(f"--test {settings.test}: {data.source} has {len(order)} test images; use fewer, or 0 for all")
    if (settings.autoattack_images or 0) > len(order):
        raise UserError(
            f"--autoattack-images {settings.autoattack_images}: there are {len(order)} test images; use at most that many"
        )
    images, labels = np.ascontiguousarray(data.test_images[order].transpose(0, 3, 1, 2)), data.test_labels[order]
    classifier, about = _classifier(settings, data)
    key = {name: value for name, value in asdict(settings).items() if name not in FREE} | about
    key |= {"attacks": sorted(set(settings.attacks) | {"pgd"}), "eps": eps, "data": data.checksum()}
    key |= {"kind": "evaluation", "weights_sha256": file_digest(settings.checkpoint), MADE_BY: _made_by(about["network"], device)}
    _check_folder(out, key, settings.force)
    print(
        f"{settings.checkpoint.name}: {about['network']}, pixels {NORMALISED.get(about['normalisation'], 'normalised as for CIFAR')}"
    )
    print("\n".join([*described(data), f"{len(order)} test images are attacked"]))
    done = _finished(out, key)
    if done is not None:
        return _tell(done, out, "unchanged:")
    classifier.to(device)
    x, y = torch.from_numpy(images).to(device).float() / 255, torch.from_numpy(labels).to(device)
    examined = examine(classifier, x, y, checked.batch_size)
    examined.warnings.extend(data.doubts)
    some = x[:500], y[:500], checked.batch_size
    examined.warnings.extend(_other_normalisation(classifier, *some, about["normalisation"]))
    if twin_of(about["network"]) and not names_its_network(settings.checkpoint):  # which reads the file again
        examined.warnings.extend(_other_network(classifier, *some, about["network"]))
    for doubt in examined.warnings:
        print(f"warning: {doubt}", file=sys.stderr)
    prepare_folder(out)
    with only_run_in(out):
        for name in TABLES:  # of another evaluation that --force replaces
            (out / name).unlink(missing_ok=True)
        note_claim(out, key, ())
        verdict = _attacked(classifier, examined, Threat(settings.norm, eps), checked, settings.seed, out / UNFINISHED)
        verdict.classes, told = data.classes, len(examined.warnings)
        about |= {name: key[name] for name in ("norm", "eps", "data", "weights_sha256")} | {"checkpoint": settings.checkpoint.name}
        about |= {"versions": versions("torch", "pyautoattack"), "device": _kind_of(device)}
        written = write_verdict(verdict, out, order, {"settings": plain(key), **about})
        shutil.rmtree(out / UNFINISHED)
    return _tell(written, out, "wrote", told)


def _kind_of(device: torch.device) -> str:
    """The model of a GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


UNFINISHED = "unfinished-evaluation"
MADE_BY = "made by"
"""In the key: code, versions and kind of device. After a change of these the attacks begin anew, in the same folder."""
TABLES = ("evaluation.csv", "per_class.csv", "per_image.csv", "evaluation.json")


CODE = (judged, read_classifier)


def _made_by(network: str, device: torch.device) -> dict[str, str]:
    """Checksum of the code that attacks and loads, the versions of the packages that it uses, and the kind of device, whose random numbers
    differ."""
    found = {"device": _kind_of(device)}
    for function in CODE:
        code, packages = code_digest(function)
        found |= {function.__name__: code} | {package: version(package) for package in packages}
    if network.startswith(TIMM):
        try:
            found["timm"] = version("timm")
        except PackageNotFoundError:  # on the path without being installed
            found["timm"] = "not installed"
    return found


def _check_folder(out: Path, key: dict[str, Any], force: bool) -> None:
    """Raise UserError for a folder that holds anything but this evaluation; with force only if it is no evaluation at all."""
    other = next((name for name in ("summary.json", "stages", "checkpoints") if (out / name).exists()), None)
    if other is not None:
        raise UserError(f"--out {out}: holds {other}, so it is the folder of a run; give one of its own")
    check_claim(out, key, (MADE_BY,), force=force)


NORMALISED = {
    "file": "normalised as the file says",
    "timm": "normalised as timm says",
    "none": "as they are",
    "half": "less 0.5, over 0.5",
}


def _finished(out: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """evaluation.json of the same evaluation, or None."""
    try:
        content: dict[str, Any] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = all((out / name).is_file() for name in TABLES)
    return content if whole and content.get("settings") == json.loads(json.dumps(plain(key))) else None


MOST_THREADS = 1024
FREE = ("out", "force", "checkpoint", "data_dir", "device", "threads")
"""Settings that do not affect the results, or are compared by content."""


def _checked(settings: Settings) -> tuple[EvaluationSettings, float, Path, torch.device]:
    """(settings of the attacks, radius, folder, device). Raises UserError before anything is read."""
    for name, least in (("test", 0), ("seed", 0), ("threads", 0), ("image_size", 0)):
        if getattr(settings, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be at least {least}")
    if not settings.checkpoint.is_file():
        raise UserError(f"{settings.checkpoint}: no such file; check the path")
    if settings.normalisation not in (*MEANS, "auto"):
        raise UserError(f"--normalisation {settings.normalisation}: use auto, {', '.join(MEANS)}")
    _check_network(settings.network)
    eps = usual_eps(settings.dataset, settings.norm) if settings.eps is None else settings.eps
    check_radius(f"--eps {eps:g}", eps, settings.norm)
    names = ("pgd_steps", "pgd_restarts", "autoattack_images", "batch_size")
    checked = {name: getattr(settings, name) for name in names}
    chosen = evaluation_settings(settings.attacks, checked)
    name = "cuda" if settings.device == "auto" and torch.cuda.is_available() else settings.device.replace("auto", "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {settings.device}: torch finds no such device; use cpu") from None
    if settings.threads > MOST_THREADS:
        raise UserError(f"--threads {settings.threads}: at most {MOST_THREADS}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    stem = settings.checkpoint.name.removesuffix(".tar").rpartition(".")[0] or settings.checkpoint.name
    out = settings.out or Path("results") / f"evaluation-{stem}"
    check_writable(out)
    return chosen, eps, out, device


def _check_network(network: str | None) -> None:
    """Raise UserError for a name that no network has. Whether it fits the data is seen when both are read."""
    if network is not None and not network.startswith(TIMM):
        try:
            classifier_without_weights(network, 10, (3, 64, 64))
        except ValueError as error:
            raise UserError(f"--network: {error}") from None


def _classifier(settings: Settings, data: Dataset) -> tuple[Normalised, dict[str, Any]]:
    """(the classifier, which network and normalisation). Raises UserError if it does not fit the data."""
    height, width, channels = data.images.shape[1:]
    try:
        classifier, network, source = read_classifier(
            settings.checkpoint,
            len(data.classes),
            (channels, height, width),
            settings.network,
            settings.normalisation,
            settings.dataset,
        )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    if settings.network not in (None, network):
        raise UserError(f"--network {settings.network}: {settings.checkpoint} says that it holds a {network}; leave the option out")
    return classifier, {
        "network": network,
        "normalisation": source,
        "dataset": settings.dataset,
    }


def _attacked(
    classifier: Normalised, examined: Examined, threat: Threat, settings: EvaluationSettings, seed: int, unfinished: Path
) -> Verdict:
    """The verdict, with a progress bar; goes on from a folder of this very evaluation, which settings.json names."""
    from tqdm import tqdm

    content = (unfinished.parent / "settings.json").read_bytes()
    scratch = unfinished / hashlib.sha256(content).hexdigest()[:12]
    scratch.mkdir(parents=True, exist_ok=True)
    with tqdm(unit="batch", disable=None) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            return judged(classifier, examined, threat, settings, seed, scratch=scratch, report=report)
        except torch.OutOfMemoryError:
            raise UserError(f"--batch-size {settings.batch_size}: does not fit in memory; use less") from None
        except (ValueError, FloatingPointError) as error:  # a checkpoint that is damaged, an attack that left its ball
            raise UserError(f"{' '.join(str(error).split())}") from None


def _clean_accuracy(classify: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, size: int) -> float:
    """Share of the images that are right. size: of a piece."""
    with torch.no_grad(), gpu_arithmetic(tf32=False):
        return float((torch.cat([classify(piece) for piece in x.split(size)]).argmax(dim=1) == y).float().mean())


def _other_network(classifier: Normalised, x: Tensor, y: Tensor, size: int, network: str) -> list[str]:
    """A warning if another network under the same names fits the weights better, as clean accuracy on these images says."""
    if (twin := twin_of(network)) is None:
        return []
    other = make_classifier(
        twin, classifier.head.out_features, (x.shape[1], x.shape[2], x.shape[3]), [0.0] * x.shape[1], [1.0] * x.shape[1]
    )
    other.load_state_dict(classifier.state_dict())
    ours, theirs = (_clean_accuracy(one, x, y, size) for one in (classifier, other.to(x.device).eval()))
    if theirs < ours + max(BETTER, 5 / len(y)):  # of few images, two in a hundred are chance
        return []
    return [
        f"with --network {twin} clean accuracy on {len(y)} images would be {theirs:.1%}, not {ours:.1%} as now ({network}): both have the "
        "same names; which one was trained?"
    ]


BETTER = 0.02
"""By how much another reading of a checkpoint must raise clean accuracy to be told."""


def _other_normalisation(classifier: Normalised, x: Tensor, y: Tensor, size: int, source: str) -> list[str]:
    """A warning if another normalisation fits the weights better, as clean accuracy on these images says. size: of a piece."""
    found = {}
    choices = {name: pixels(name, x.shape[1]) for name, (mean, _) in MEANS.items() if len(mean) in (1, x.shape[1])}
    choices["file"] = (classifier.mean, classifier.std)
    for name, (mean, std) in choices.items():
        normalised = (x - mean.to(x)) / std.to(x)
        found[name] = _clean_accuracy(lambda piece: classifier.head(classifier.body(piece)), normalised, y, size)
    best = max(found, key=lambda name: found[name])
    if found[best] < found["file"] + BETTER:
        return []
    return [
        f"with --normalisation {best} clean accuracy on {len(y)} images would be {found[best]:.1%}, not {found['file']:.1%} as now "
        f"({source}); which did the training have?"
    ]


def _tell(found: dict[str, Any], out: Path, done: str, told: int = 0) -> int:
    """Print the table, the warnings but for the first `told`, and one line to quote."""
    results = found["results"]
    rows = [
        (row["attack"], str(row["images"]), str(row["right"]), f"{row['accuracy']:.2%}", f"[{row['low']:.2%}, {row['high']:.2%}]")
        for row in results
    ]
    print(text_table(("attack", "images", "right", "accuracy", "95 % interval"), rows))
    for warning in found["warnings"][told:]:
        print(f"warning: {warning}", file=sys.stderr)
    most = results[0]["images"]
    each = [f"{row['attack']} {row['accuracy']:.2%}" + f" ({row['images']} images)" * (row["images"] < most) for row in results]
    print(
        f"{found['checkpoint']} | {found['network']} | {found['dataset']}, {found['norm']} {as_fraction(found['eps'])} | {', '.join(each)}"
    )
    print(f"{done} evaluation.csv, per_class.csv, per_image.csv and evaluation.json in {out}")
    return 0


class _Called(types.ModuleType):
    """This module, which can be called: `from image_experiments import evaluate` gives the function whether or not the module is loaded."""

    def __call__(self, *arguments: Any, **settings: Any) -> Verdict:
        return evaluate(*arguments, **settings)


sys.modules[__name__].__class__ = _Called


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    interrupted = "interrupted: what was attacked is kept; run the same command to go on from the last batch"
    return run_command(Settings, run, HELP, arguments, interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(main())
