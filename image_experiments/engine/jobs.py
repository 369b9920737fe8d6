"""What each stage of the experiment does: reads the files of earlier stages, writes its own, returns results that JSON can hold.

Each is called with its run and its arguments; plan.py lists the stages and how they depend on each other. Results under "about" are for
people to read and affect no other stage.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from command_line.output import UserError, file_digest, write_csv, write_json, write_whole
from contrastive_dp.randomness import mixed_seed
from image_experiments.data.balance import balanced_choice, balanced_order
from image_experiments.data.dataset import described
from image_experiments.data.given import check_given
from image_experiments.data.images import Images
from image_experiments.data.npz_files import stream_images
from image_experiments.data.read_dataset import DatasetName, read_dataset
from image_experiments.data.shards import ShardPlan, make_shards, merge, read_note, shard_path
from image_experiments.data.splitting import split
from image_experiments.data.stored_dataset import SplitDataset, load_dataset, load_split, open_synthetic, save_dataset, save_split
from image_experiments.engine.calibration import Probe, choose
from image_experiments.engine.stages import StageRun, plain
from image_experiments.evaluation.description import describe_synthetic
from image_experiments.evaluation.evaluate import evaluate_classifier
from image_experiments.evaluation.features import DescriptionSettings
from image_experiments.evaluation.robustness import EvaluationSettings
from image_experiments.models.classifier_files import load_classifier, mean_and_std, save_classifier
from image_experiments.models.classifiers import Normalised, make_classifier
from image_experiments.models.diffusion_files import read_diffusion, save_diffusion
from image_experiments.models.labels_and_features import probabilities
from image_experiments.models.precision import gpu_arithmetic, prepared
from image_experiments.synthesis.generation import GenerationSettings, Networks, Sampler, make_sampler, noisy
from image_experiments.synthesis.methods import UNCONDITIONAL, Method
from image_experiments.synthesis.selection import (
    MeanOf,
    Scorers,
    SelectionSettings,
    best_of_each_class,
    keeps_highest,
    relabel,
    scores,
)
from image_experiments.synthesis.strength import choose_strength, images_of_trial
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, accuracy, train_classifier
from image_experiments.training.attacks import Threat
from image_experiments.training.curves import HEADER, Curve
from image_experiments.training.diffusion_training import DiffusionSettings, train_diffusion

Results = dict[str, Any]


def read_data(
    run: StageRun,
    dataset: DatasetName,
    data_dir: Path | None,
    image_size: int,
    group_pattern: str | None,
    classes: tuple[str, ...],
    test: int,
) -> Results:
    """Store the data set in one file."""
    data = read_dataset(dataset, data_dir, image_size, group_pattern, classes)
    if test > len(data.test_labels):
        raise UserError(f"--test {test}: there are {len(data.test_labels)} test images; use at most that many, or 0 for all")
    save_dataset(run.outputs["images"], data, test)
    return {
        "sha256": data.checksum(),
        "classes": list(data.classes),
        "pool": len(data.labels),
        "groups": len(set(data.groups.tolist())),
        "test": test or len(data.test_labels),
        "shape": list(data.images.shape[1:]),
        "about": {"source": data.source, "read": described(data), "doubts": list(data.doubts)},
    }


def split_data(run: StageRun, train: int, validation: int, seed: int) -> Results:
    """Choose which images of the pool are for training and which for validation."""
    data = load_dataset(run.inputs["data"]["images"])
    chosen = split(data, train, validation, seed)
    save_split(run.outputs["split"], chosen)
    used = np.isin(data.groups, data.groups[chosen.validation])
    # unused images share a group with a validation image
    return {"train": len(chosen.train), "validation": len(chosen.validation), "unused": int(used.sum()) - len(chosen.validation)}


def choose_speed(run: StageRun, part: str, settings: Any, diffusion: DiffusionSettings, threat: Threat, synthetic: int) -> Results:
    """{"precision", "compile"}: the fastest choice for a part of the run, measured now."""
    shape, classes = run.results["data"]["shape"], len(run.results["data"]["classes"])
    probe = Probe((shape[2], shape[0], shape[1]), classes, threat, run.device, budget=2.0)
    return choose(probe, part, settings, diffusion, synthetic, run.outputs["timings"])


def train_diffusion_model(run: StageRun, settings: DiffusionSettings, seed: int) -> Results:
    """Train the diffusion model and write its learning curve."""
    settings, chosen = _as_measured(run, settings)
    real = _real(run)
    curve = Curve(run.scratch / "losses.csv", settings.checkpoint_every)

    def on_step(step: int, loss: Any) -> None:
        if run.processes.first:
            curve.add(step, loss)
        run.report(step, settings.steps)

    try:
        network = train_diffusion(
            settings,
            real.train,
            len(real.classes),
            seed,
            run.device,
            checkpoint=run.scratch / "checkpoint.pt",
            on_step=on_step,
            processes=run.processes,
        )
    except KeyboardInterrupt:  # training has finished its step and saved a checkpoint
        if run.processes.first:
            curve.keep_unfinished()
        raise
    if run.processes.first:
        save_diffusion(run.outputs["index"].parent, network, settings.noise_schedule(), real.classes)
        curve.write(run.outputs["curve"])
    return {"parameters": sum(p.numel() for p in network.parameters()), **chosen}


def train_encoder(run: StageRun, settings: ClassifierSettings, threat: Threat, seed: int) -> Results:
    """Train the classifier that guides, selects and pseudo-labels."""
    real = _real(run)
    # its own seed: with that of the classifiers, the guiding network would be the same as the one evaluated for method "real"
    return _train_and_save(run, real, _validated(real, None), settings, threat, mixed_seed(seed, 7))


def read_encoder(run: StageRun, file: Path, network: str, dataset: str) -> Results:
    """Read an encoder from a file and test it on images that it should know."""
    real = _real(run)
    encoder = load_classifier(file, len(real.classes), real.shape, network, dataset=dataset).to(run.device)
    save_classifier(run.outputs["weights"], encoder, network, real.shape)
    tried, which = (real.validation, "validation") if len(real.validation) else (real.train.some(1000), "training")
    return {"last_clean_accuracy": accuracy(encoder, tried), "tried_on": which}


def train_judge(run: StageRun, settings: ClassifierSettings, threat: Threat, seed: int) -> Results:
    """Train a classifier that only judges labels and guides nothing, on training and validation images together."""
    real = _real(run)
    both = Images(torch.cat([real.train.x, real.validation.x]), torch.cat([real.train.y, real.validation.y]))
    return _train_and_save(run, real, TrainingImages(both, len(real.classes)), settings, threat, mixed_seed(seed, 1))


def train_labeller(run: StageRun, settings: ClassifierSettings, threat: Threat, seed: int, number: int) -> Results:
    """Train the number-th of the classifiers that label generated images and guide none; number 0 keeps labels in feedback."""
    real = _real(run)
    return _train_and_save(run, real, _validated(real, None), settings, threat, mixed_seed(seed, LABELLERS + number))


LABELLERS = 100
"""Beyond the numbers that set other networks of a seed apart."""


def train_compared(
    run: StageRun, settings: ClassifierSettings, threat: Threat, seed: int, of_rounds: tuple[int, int] = (1, 1)
) -> Results:
    """Train a classifier with the images of one method, for the comparison of methods; of_rounds: round k of n, from the weights before."""
    real = _real(run)
    synthetic = open_synthetic(run.inputs["synthetic"]["images"], real) if "synthetic" in run.inputs else None
    in_batch = settings.synthetic_in_batch if synthetic is not None else 0
    images = replace(_validated(real, synthetic), part=of_rounds)
    return _train_and_save(run, real, images, settings, threat, seed) | {
        "n_real": len(real.train) if in_batch < settings.batch_size else 0,  # 0 if no batch holds real images
        "n_synthetic": len(synthetic) if synthetic is not None and in_batch else 0,
    }


def _train_and_save(
    run: StageRun, real: SplitDataset, images: TrainingImages, settings: ClassifierSettings, threat: Threat, seed: int
) -> Results:
    """Train, resuming from a checkpoint if there is one, and write weights and learning curve; returns the last row of the curve."""
    settings, chosen = _as_measured(run, settings)
    if "before" in run.inputs:
        classifier = (
            load_classifier(run.inputs["before"]["last"], len(real.classes), real.shape).requires_grad_(True).to(run.device)
        )
    else:
        normalisation = mean_and_std(images.real.x)
        classifier = make_classifier(settings.network, len(real.classes), real.shape, *normalisation, seed).to(run.device)
    trained, curve = train_classifier(
        classifier,
        images,
        threat,
        settings,
        seed,
        checkpoint=run.scratch / "checkpoint.pt",
        on_step=lambda step, _loss: run.report(step, settings.steps),
        processes=run.processes,
    )
    if not run.processes.first:
        return {}
    save_classifier(run.outputs["weights"], trained, settings.network, real.shape)
    if "last" in run.outputs:
        save_classifier(run.outputs["last"], classifier, settings.network, real.shape)
    write_csv(run.outputs["curve"], HEADER, [[row.get(name, "") for name in HEADER] for row in curve])
    return {f"last_{name}": value for name, value in curve[-1].items()} | chosen


def find_strength(
    run: StageRun, settings: GenerationSettings, diffusion: DiffusionSettings, method: Method, size: int, seed: int
) -> Results:
    """Find the scale and window of a method whose scale is auto. size: of the batches that the images will be made in."""
    real = _real(run)
    networks = _networks(run, diffusion, real)
    if not networks.conditional:
        raise UserError(f"--methods {method.text}: {UNCONDITIONAL}; give a number")
    judge = _classifier(run, "judge", real)
    settings = replace(_as_measured(run, settings)[0], compile="no")  # no trial is long enough to pay off compilation
    sampler = make_sampler(networks, method, settings, real, seed, run.device)

    def make(tried: Method, chosen: GenerationSettings) -> Images:
        aimed = sampler.aimed(tried, chosen)
        pieces = [aimed.numbered(batch, size) for batch in range(images_of_trial(chosen, size) // size)]
        x, y = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return Images(x, y)

    found = choose_strength(make, method, settings, judge, run.report)
    # measurements differ in the last digits from machine to machine, and the images do not depend on them
    decides = ("scale", "window")
    return {name: found[name] for name in decides} | {"about": {n: value for n, value in found.items() if n not in decides}}


def generate(
    run: StageRun,
    settings: GenerationSettings,
    diffusion: DiffusionSettings,
    method: Method,
    count: int,
    seed: int,
    before: int = 0,
) -> Results | None:
    """Generate `count` images of a method, first in shards, then in one file; None while shards of other parts are missing. before: images
    that earlier rounds have made."""
    real = _real(run)
    networks = _networks(run, diffusion, real)
    if method.automatic:
        found = run.results["strength"]
        text = f"{method.text.removesuffix('auto')}{found['scale']:g}"
        method = replace(method, text=text, scale=found["scale"], automatic=False)
        settings = replace(settings, window=tuple(found["window"]))
    if method.kind == "classifier-free" and networks.unet.null_label is None:
        raise UserError(f"--methods {method.text}: this model has no null label; use one trained with label dropout")
    settings, chosen = _as_measured(run, settings)
    sampler = make_sampler(networks, method, settings, real, seed, run.device)
    whole = _generate_in_shards(run, sampler, count, before)
    return {"images": count, "conditional": networks.conditional, **chosen} if whole else None


def _generate_in_shards(run: StageRun, sampler: Sampler, count: int, before: int) -> bool:
    """Make this process's shards; once all exist, the first process merges them. Returns whether all exist.

    Every batch is generated in full and the last one is cut, because guidance compares the images of a batch.
    """
    channels, height, width = sampler.shape
    size = min(sampler.settings.batch_size, max(count, 2))
    about = {"method": sampler.method.text, "seed": sampler.seed, "count": count, "settings": plain(sampler.settings)}
    plan = ShardPlan(run.fingerprint, about, count, size, sampler.classes, (height, width, channels))

    def make(batch: int) -> tuple[Any, Any]:
        made, labels = sampler.numbered(batch, size, before)
        return made.numpy().transpose(0, 2, 3, 1), labels.numpy()

    k, n = run.part or (1, 1)
    mine = range(plan.shards)[k - 1 :: n][run.processes.rank :: run.processes.count]
    run.shards.mkdir(parents=True, exist_ok=True)
    make_shards(run.shards, plan, mine, make, lambda done: run.report(done, plan.batches))
    run.processes.all_of(None)  # wait for the shards of the other processes
    paths = [shard_path(run.shards, number) for number in range(plan.shards)]
    if run.part is not None and any(read_note(path) is None for path in paths):
        return False
    if run.processes.first:
        merge(paths, run.outputs["images"], run.outputs["manifest"])
    return True


def select(run: StageRun, settings: SelectionSettings, count: int, seed: int) -> Results:
    """Label the generated images and keep the best `count` of them. Raises UserError if too few are left."""
    real = _real(run)
    made = open_synthetic(run.inputs["generated"]["images"], real)
    encoder = _classifier(run, "encoder", real)
    others = [_classifier(run, role, real) for role in run.inputs if role.startswith("labeller")]
    labeller = MeanOf(others) if others else encoder
    relabelled = settings.relabels(run.results["generated"]["conditional"])
    y, usable, soft = made.y, torch.arange(len(made)), None
    if relabelled:
        judged = probabilities(labeller, made.x)
        y, usable, soft = relabel(settings.labels, made.y, judged)
        if count > len(usable):
            raise UserError(
                f"--selection.labels agreeing: the labeller agrees with the labels of {len(usable)} of {len(made)} images, {count} are to "
                "be kept; use a larger --selection.surplus, with --force, which keeps the trained models"
            )
    by = Scorers(encoder, labeller, real.train)
    if settings.criterion == "coverage":  # which looks at the images together
        score = scores("coverage", by, made.x[usable], y[usable], count, seed)
    else:
        score = scores(settings.criterion, by, made.x, y, count, seed)[usable]
    kept = usable[best_of_each_class(score, y[usable], count, keeps_highest(settings), len(real.classes))]
    assert made.file is not None
    pieces = made.file.pieces(kept.numpy(), y[kept].numpy())
    stream_images(run.outputs["images"], count, made.file.images.shape[1:], pieces, None if soft is None else soft[kept].numpy())
    changed = float((y[kept] != made.y[kept]).double().mean())
    about = {"relabelled": relabelled, "changed": changed, "of": len(made), "usable": len(usable)}
    return about | {"of_each_class": y[kept].bincount(minlength=len(real.classes)).tolist()}


def gather(run: StageRun) -> Results:
    """Bring the images of a round together with those of the rounds before."""
    real = _real(run)
    files = [open_synthetic(run.inputs[role]["images"], real).file for role in ("earlier", "made")]
    parts = [file for file in files if file is not None]
    soft = [np.asarray(file.soft) for file in parts if file.soft is not None]
    count = sum(len(file) for file in parts)
    pieces = (piece for file in parts for piece in file.pieces())
    stream_images(run.outputs["images"], count, parts[0].images.shape[1:], pieces, np.concatenate(soft) if soft else None)
    return {"images": count}


def add_noise(run: StageRun, std: float, seed: int) -> Results:
    """Make the unguided images with Gaussian noise."""
    plain_images = open_synthetic(run.inputs["synthetic"]["images"], _real(run)).file
    assert plain_images is not None
    pieces = noisy(plain_images.pieces(), std, mixed_seed(seed, 2))
    stream_images(run.outputs["images"], len(plain_images), plain_images.images.shape[1:], pieces, plain_images.soft)
    return {"images": len(plain_images)}


def add_noise_to_real(run: StageRun, std: float, count: int, seed: int) -> Results:
    """Make copies of the real training images with Gaussian noise."""
    train = _real(run).train
    order = balanced_order(train.y.numpy(), np.random.default_rng([seed, 5]))  # files may lie class by class
    copies = order[np.arange(count) % len(order)]
    images, labels = train.x.numpy().transpose(0, 2, 3, 1)[copies], train.y.numpy()[copies]
    stream_images(run.outputs["images"], count, images.shape[1:], noisy([(images, labels)], std, mixed_seed(seed, 2)))
    return {"images": count}


def read_generated(run: StageRun, file: Path, count: int, seed: int) -> Results:
    """Read `count` images from the user's file of generated images."""
    real = _real(run)
    channels, height, width = real.shape
    given = check_given(file, len(real.classes), (height, width, channels), count)
    kept = balanced_choice(given.labels, count, np.random.default_rng([seed, 4]))
    stream_images(run.outputs["images"], count, (height, width, channels), given.pieces(kept), given.soft_rows(kept))
    taken = f"; {count} of them are taken (--synthetic), as equally by class as they allow" if count < len(given) else ""
    return {"images": count, "read": given.said() + taken}


def describe(run: StageRun, settings: DescriptionSettings, split: str) -> Results:
    """Measure synthetic images against the real ones."""
    real = _real(run)
    synthetic = open_synthetic(run.inputs["synthetic"]["images"], real)
    judge, encoder = (_classifier(run, name, real) for name in ("judge", "encoder"))
    return describe_synthetic(settings, real, synthetic, judge, encoder, split)


def evaluate(run: StageRun, settings: EvaluationSettings, threats: list[Threat], seed: int) -> Results:
    """Evaluate a classifier under every attack."""
    real = _real(run)
    classifier = prepared(_classifier(run, "classifier", real), "no")
    images = real.test if settings.split == "test" else real.validation.balanced()  # as AutoAttack may take the first of them alone
    with gpu_arithmetic(tf32=False):  # robust accuracy is compared with that of others, who attack in full float32
        x, y = images.x.to(run.device).float() / 255, images.y.to(run.device)
        found = evaluate_classifier(classifier, x, y, threats, settings, seed, scratch=run.scratch, report=run.report)
    write_whole(run.outputs["outcomes"], partial(_save_arrays, found.outcomes))
    digest = file_digest(run.inputs["classifier"]["weights"])
    return {"rows": found.rows, "warnings": found.warnings, "weights_sha256": digest}


def _save_arrays(arrays: dict[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _real(run: StageRun) -> SplitDataset:
    return load_split(run.inputs["data"]["images"], run.inputs["split"]["split"])


def _validated(real: SplitDataset, synthetic: Images | None) -> TrainingImages:
    return TrainingImages(real.train, len(real.classes), synthetic, real.validation if len(real.validation) else None)


def _networks(run: StageRun, settings: DiffusionSettings, real: SplitDataset) -> Networks:
    """The networks that sampling uses."""
    folders = {role: run.inputs[role]["index"].parent for role in ("diffusion", "weaker") if role in run.inputs}
    network, schedule, conditional = read_diffusion(settings, folders.get("diffusion"), real.classes, real.shape)
    weaker = read_diffusion(settings, folders["weaker"], real.classes, real.shape)[0] if "weaker" in folders else None
    encoder, judge = (_classifier(run, role, real) if role in run.inputs else None for role in ("encoder", "keeper"))
    return Networks(network, schedule, encoder, judge, weaker, conditional)


def _classifier(run: StageRun, role: str, real: SplitDataset) -> Normalised:
    return load_classifier(run.inputs[role]["weights"], len(real.classes), real.shape).to(run.device)


def _as_measured(run: StageRun, settings: Any) -> tuple[Any, dict[str, str]]:
    """(settings in which open precision and compilation are replaced by the fastest as measured, that choice).

    The choice affects the speed and the last digits of the results. It is recorded, so that a resumed stage keeps it.
    """
    if "auto" not in (settings.precision, settings.compile):
        return settings, {}
    note = run.scratch / "speed.json"
    if note.is_file():
        chosen: dict[str, str] = json.loads(note.read_text(encoding="utf-8"))
    else:
        chosen = {name: run.results["speed"][name] for name in ("precision", "compile")}
        if run.processes.first:
            write_json(note, chosen)
    return replace(settings, **chosen), chosen
