"""The experiment as stages: what each reads, does and writes, and how they hang together.

A stage's function imports what it uses within its body: those modules are its code, and a change in one of them runs it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.output import UserError, file_digest
from image_experiments.engine.settings import Settings, Until
from image_experiments.engine.stages import Stage, StageRun, source_digest
from image_experiments.synthesis.methods import UNCONDITIONAL, Method
from image_experiments.training.diffusion import FILES as DIFFUSION_FILES


def plan(settings: Settings) -> list[Stage]:
    """All stages of a run, each after its inputs. Raises UserError for a file that is not there."""
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        return stages.setdefault(stage.name, stage)

    read = {name: getattr(settings, name) for name in ("dataset", "data_dir", "image_size", "group_pattern", "classes", "test")}
    data = add(Stage("data", read_data, read, {"images": "data/images.npz"}, outside=_outside(settings.data_dir, "--data-dir")))
    seeds = range(settings.seed, settings.seed + settings.seeds)
    speed = _speed(settings, data)
    for stage in speed.values():
        add(stage)
    shared = {seed: _shared_stages(settings, data, seed, speed) for seed in seeds}
    for seed in seeds:
        for stage in shared[seed].values():
            add(stage)
    for method in settings.parsed_methods():
        for seed in seeds:
            _add_method(settings, method, seed, shared[seed], add)
    return list(stages.values())


STEPS: dict[Until, tuple[str, ...]] = {
    "diffusion": ("diffusion",),
    "encoder": ("encoder", "judge"),
    "generation": ("strength", "generate", "select", "noise", "read"),
    "description": ("describe",),
    "training": ("classifier",),
}
"""Steps at which --until stops, in order: the kinds of their stages, with which the names begin."""


def up_to(until: Until, stages: list[Stage]) -> list[Stage]:
    """The stages of this step, of those before it, and what they need."""
    steps = list(STEPS)
    return needed_for([kind for step in steps[: steps.index(until) + 1] for kind in STEPS[step]], stages)


def needed_for(kinds: Sequence[str], stages: list[Stage]) -> list[Stage]:
    """The stages of these kinds and those that they need."""
    needed: set[str] = set()

    def need(stage: Stage) -> None:
        needed.add(stage.name)
        for earlier in stage.inputs.values():
            need(earlier)

    for stage in stages:
        if stage.name.partition("/")[0] in kinds:
            need(stage)
    return [stage for stage in stages if stage.name in needed]


def _outside(path: Path | None, flag: str) -> dict[str, str]:
    """Checksum of what a stage reads from outside."""
    if path is None:
        return {}
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder; check the path")
    return {flag: source_digest(path)}


def _speed(settings: Settings, data: Stage) -> dict[str, Stage]:
    """The stage that chooses precision and compilation, where a part leaves that to a measurement."""
    parts = {name: getattr(settings, name) for name in ("encoder", "diffusion", "generation", "classifier")}
    open_parts = {name: part for name, part in parts.items() if "auto" in (part.precision, part.compile)}
    if not open_parts:
        return {}
    arguments = {"parts": open_parts, "threat": settings.threat(), "synthetic": settings.synthetic, "diffusion": settings.diffusion}
    arguments |= {"methods": [method for method in settings.parsed_methods() if method.generates], "encoder": settings.encoder}
    return {"speed": Stage("speed", choose_speed, arguments, {}, {"data": data})}


def _shared_stages(settings: Settings, data: Stage, seed: int, speed: dict[str, Stage]) -> dict[str, Stage]:
    """What the methods of one seed share: split; and for synthetic images diffusion model, encoder and judge."""
    methods = settings.parsed_methods()
    chosen = {"train": settings.train, "validation": settings.validation, "seed": seed}
    split = Stage(f"split/seed{seed}", split_data, chosen, {"split": f"data/split-seed{seed}.npz"}, {"data": data})
    found = {"data": data, "split": split}
    real = dict(found)
    found |= speed
    timed = real | speed

    def trained(kind: str) -> dict[str, str]:
        return {"weights": f"checkpoints/{kind}-seed{seed}.safetensors", "curve": f"curves/{kind}-seed{seed}.csv"}

    if any(m.generates or m.kind == "noise" for m in methods) and settings.diffusion.load is None:
        arguments: dict[str, Any] = {"settings": settings.diffusion, "seed": seed}
        outputs = {role: f"checkpoints/diffusion-seed{seed}/{path}" for role, path in DIFFUSION_FILES.items()}
        outputs |= {"curve": f"curves/diffusion-seed{seed}.csv"}
        found["diffusion"] = Stage(f"diffusion/seed{seed}", train_diffusion, arguments, outputs, timed, shared=True)
    if any(m.kind != "real" for m in methods):
        arguments = {"threat": settings.threat(), "seed": seed}
        if settings.encoder_from is None:
            training = {**arguments, "settings": settings.encoder}
            found["encoder"] = Stage(f"encoder/seed{seed}", train_encoder, training, trained("encoder"), timed, shared=True)
        else:
            outside = _outside(settings.encoder_from, "--encoder-from")
            reading = {"file": settings.encoder_from, "network": settings.encoder.network}
            weights = {"weights": f"checkpoints/encoder-seed{seed}.safetensors"}
            found["encoder"] = Stage(f"encoder/seed{seed}", read_encoder, reading, weights, real, outside)
        judge = replace(settings.encoder, adversary="none", steps=settings.description.steps, keep="last")
        arguments |= {"settings": judge}
        found["judge"] = Stage(f"judge/seed{seed}", train_judge, arguments, trained("judge"), timed, shared=True)
    return found


def _add_method(settings: Settings, method: Method, seed: int, shared: dict[str, Stage], add: Callable[[Stage], Stage]) -> None:
    """The stages of one method and seed: synthetic images, their description, a classifier, its evaluation."""
    real = {name: shared[name] for name in ("data", "split")}
    speed = {name: stage for name, stage in shared.items() if name == "speed"}
    inputs = dict(real)
    if method.kind != "real":
        inputs["synthetic"] = _synthetic(settings, method, seed, shared, add)
        described = {**inputs, **{name: shared[name] for name in ("encoder", "judge")}}
        told = {"settings": settings.description, "split": settings.evaluation.split}
        add(Stage(f"describe/{method.label}/seed{seed}", describe, told, {}, described))
    arguments = {"settings": settings.classifier, "threat": settings.threat(), "seed": seed}
    name = f"{method.label}-seed{seed}"
    outputs = {"weights": f"checkpoints/{name}.safetensors", "curve": f"curves/{name}.csv"}
    classifier = add(
        Stage(f"classifier/{method.label}/seed{seed}", train_compared, arguments, outputs, inputs | speed, shared=True)
    )
    threats = [settings.threat(), *settings.evaluation.further()]
    add(
        Stage(
            f"evaluate/{method.label}/seed{seed}",
            evaluate,
            {"settings": settings.evaluation, "threats": threats, "seed": seed},
            {"outcomes": f"outcomes/{name}.npz"},
            {**real, "classifier": classifier},
        )
    )


def _synthetic(settings: Settings, method: Method, seed: int, shared: dict[str, Stage], add: Callable[[Stage], Stage]) -> Stage:
    """The stage whose output is the synthetic images of a method."""
    real = {name: shared[name] for name in ("data", "split")}
    file = {"images": f"synthetic/{method.label}/seed{seed}.npz"}
    if method.kind == "npz":
        arguments: dict[str, Any] = {"file": method.file, "count": settings.synthetic, "seed": seed}
        outside = _outside(method.file, "--methods npz")
        return add(Stage(f"read/{method.label}/seed{seed}", read_generated, arguments, file, real, outside))
    if method.kind == "noise":
        plain = _synthetic(settings, Method("unguided", "unguided"), seed, shared, add)
        arguments = {"std": method.scale, "seed": seed}
        return add(Stage(f"noise/{method.label}/seed{seed}", add_noise, arguments, file, {**real, "synthetic": plain}))
    if method.kind == "noise-real":
        arguments = {"std": method.scale, "count": settings.synthetic, "seed": seed}
        return add(Stage(f"noise/{method.label}/seed{seed}", add_noise_to_real, arguments, file, real))
    chosen = settings.selection
    relabel = chosen.pseudo_label == "always" or (chosen.pseudo_label == "auto" and settings.diffusion.load is not None)
    relabel |= chosen.pseudo_label == "auto" and not settings.diffusion.conditional
    selects = chosen.surplus > 1 or relabel
    count = math.ceil(settings.synthetic * chosen.surplus)
    made = f"{'generated' if selects else 'synthetic'}/{method.label}/seed{seed}"
    outputs = {"images": f"{made}.npz", "manifest": f"{made}.json"}
    arguments = {"settings": settings.generation, "diffusion": settings.diffusion, "method": method, "count": count, "seed": seed}
    unused = ("judge", "encoder") if method.kind in ("unguided", "classifier-free") else ("judge",)
    needed = {name: stage for name, stage in shared.items() if name not in unused}
    outside = _outside(settings.diffusion.load, "--diffusion")
    if method.automatic:
        finding = {"settings": settings.generation, "diffusion": settings.diffusion, "method": method, "seed": seed}
        needed["strength"] = add(Stage(f"strength/{method.label}/seed{seed}", find_strength, finding, {}, shared, outside))
    generated = add(Stage(f"generate/{method.label}/seed{seed}", generate, arguments, outputs, needed, outside, shared=True))
    if not selects:
        return generated
    arguments = {"settings": chosen, "diffusion": settings.diffusion, "count": settings.synthetic, "seed": seed}
    needed = {**real, "encoder": shared["encoder"], "generated": generated}
    return add(Stage(f"select/{method.label}/seed{seed}", select, arguments, file, needed))


# What the stages do. Each is called with its run and its arguments, and returns results that JSON can hold.


def read_data(
    run: StageRun,
    dataset: Any,
    data_dir: Path | None,
    image_size: int,
    group_pattern: str | None,
    classes: tuple[str, ...],
    test: int,
) -> dict[str, Any]:
    from image_experiments.data.datasets import described, read_dataset
    from image_experiments.data.stored import write_data

    data = read_dataset(dataset, data_dir, image_size, group_pattern, classes)
    if test > len(data.test_labels):
        raise UserError(f"--test {test}: there are {len(data.test_labels)} test images; use at most that many, or 0 for all")
    write_data(run.outputs["images"], data, test)
    return {
        "source": data.source,
        "sha256": data.checksum(),
        "classes": list(data.classes),
        "pool": len(data.labels),
        "groups": len(set(data.groups.tolist())),
        "test": test or len(data.test_labels),
        "shape": list(data.images.shape[1:]),
        "read": described(data),
        "doubts": list(data.doubts),
    }


def choose_speed(
    run: StageRun, parts: dict[str, Any], threat: Any, synthetic: int, diffusion: Any, methods: list[Method], encoder: Any
) -> dict[str, Any]:
    from image_experiments.engine.calibration import Probe, choose

    shape, classes = run.results["data"]["shape"], len(run.results["data"]["classes"])
    probe = Probe((shape[2], shape[0], shape[1]), classes, threat, run.device, budget=2.0)
    chosen = {}
    for i, (name, part) in enumerate(parts.items()):
        chosen[name] = choose(probe, name, part, diffusion, methods, encoder.network, synthetic, run.scratch.parent.parent)
        run.report(i + 1, len(parts))
    return chosen


def _timed(run: StageRun, part: str, settings: Any) -> Any:
    """Settings with the precision and compilation that were measured to be fastest, where they were left open."""
    found = run.results.get("speed", {}).get(part)
    return settings if found is None else replace(settings, precision=found["precision"], compile=found["compile"])


def split_data(run: StageRun, train: int, validation: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from image_experiments.data.datasets import split
    from image_experiments.data.stored import read_data, write_split

    data = read_data(run.inputs["data"]["images"])
    chosen = split(data, train, validation, seed)
    write_split(run.outputs["split"], chosen)
    used = np.isin(data.groups, data.groups[chosen.validation])
    # images that share a group with a validation image are in neither part
    return {"train": len(chosen.train), "validation": len(chosen.validation), "unused": int(used.sum()) - len(chosen.validation)}


def train_diffusion(run: StageRun, settings: Any, seed: int) -> dict[str, Any]:
    from image_experiments.data.stored import read_real
    from image_experiments.training.curves import Curve
    from image_experiments.training.diffusion import save_diffusion, train_diffusion

    settings = _timed(run, "diffusion", settings)
    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    curve = Curve(run.scratch / "losses.csv", settings.checkpoint_every)

    def on_step(step: int, loss: Any) -> None:
        if run.processes.first:
            curve.add(step, loss)
        run.report(step, settings.steps)

    checkpoint = run.scratch / "checkpoint.pt"
    try:
        network = train_diffusion(
            settings, real.train.x, real.train.y, len(real.classes), seed, run.device, checkpoint, on_step, run.processes
        )
    except KeyboardInterrupt:  # between two steps, training has saved a checkpoint
        if run.processes.first:
            curve.keep_unfinished()
        raise
    if run.processes.first:
        save_diffusion(run.outputs["index"].parent, network, settings.noise_schedule(), real.classes)
        curve.write(run.outputs["curve"])
    return {"parameters": sum(p.numel() for p in network.parameters())}


def train_encoder(run: StageRun, settings: Any, threat: Any, seed: int) -> dict[str, Any]:
    from contrastive_dp.randomness import mixed_seed
    from image_experiments.data.stored import read_real
    from image_experiments.engine.jobs import train_and_save

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    # a seed of its own: with that of the classifiers the network that guides would be the one of method "real" that is judged
    return train_and_save(run, real, real.train, None, _timed(run, "encoder", settings), threat, mixed_seed(seed, 7))


def read_encoder(run: StageRun, file: Path, network: str) -> dict[str, Any]:
    from image_experiments.data.stored import read_real
    from image_experiments.models.classifier_files import load_classifier, save_classifier
    from image_experiments.training.classifier import accuracy

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    encoder = load_classifier(file, len(real.classes), real.shape, network)
    save_classifier(run.outputs["weights"], encoder, network, real.shape)
    tried, which = (real.validation, "validation") if len(real.validation) else (real.train.some(1000), "training")
    return {"last_clean_accuracy": accuracy(encoder, tried), "tried_on": which}


def train_judge(run: StageRun, settings: Any, threat: Any, seed: int) -> dict[str, Any]:
    import torch

    from contrastive_dp.randomness import mixed_seed
    from image_experiments.data.stored import read_real
    from image_experiments.engine.jobs import train_and_save
    from image_experiments.training.classifier import Images

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    both = Images(torch.cat([real.train.x, real.validation.x]), torch.cat([real.train.y, real.validation.y]))
    return train_and_save(
        run,
        replace(real, validation=Images(real.validation.x[:0], real.validation.y[:0])),
        both,
        None,
        _timed(run, "encoder", settings),
        threat,
        mixed_seed(seed, 1),
    )


def train_compared(run: StageRun, settings: Any, threat: Any, seed: int) -> dict[str, Any]:
    from image_experiments.data.stored import read_real, read_synthetic
    from image_experiments.engine.jobs import train_and_save

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    synthetic = read_synthetic(run.inputs["synthetic"]["images"], real) if "synthetic" in run.inputs else None
    in_batch = settings.synthetic_in_batch if synthetic is not None else 0
    return train_and_save(run, real, real.train, synthetic, _timed(run, "classifier", settings), threat, seed) | {
        "n_real": len(real.train) if in_batch < settings.batch_size else 0,  # images that no batch holds are not trained on
        "n_synthetic": len(synthetic) if synthetic is not None and in_batch else 0,
    }


def generate(run: StageRun, settings: Any, diffusion: Any, method: Method, count: int, seed: int) -> dict[str, Any] | None:
    from image_experiments.data.stored import read_real
    from image_experiments.models.classifier_files import load_classifier
    from image_experiments.synthesis.sets import generate_in_shards
    from image_experiments.training.diffusion import read_diffusion

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    folder = run.inputs["diffusion"]["index"].parent if "diffusion" in run.inputs else None
    network, schedule, conditional = read_diffusion(diffusion, folder, real.classes, real.shape)
    if method.automatic:
        chosen = run.results["strength"]
        found = f"{method.text.removesuffix('auto')}{chosen['scale']:g}"
        method = replace(method, text=found, scale=chosen["scale"], automatic=False)
        settings = replace(settings, window=tuple(chosen["window"]))
    if method.kind == "classifier-free" and network.null_label is None:
        raise UserError(
            f"--methods {method.text}: this model has no label that stands for none; use one trained with label dropout"
        )
    encoder = None
    if "encoder" in run.inputs:
        encoder = load_classifier(run.inputs["encoder"]["weights"], len(real.classes), real.shape)
    settings = _timed(run, "generation", settings)
    whole = generate_in_shards(run, real, network, schedule, encoder, method, settings, count, seed)
    return {"images": count, "conditional": conditional} if whole else None


def find_strength(run: StageRun, settings: Any, diffusion: Any, method: Method, seed: int) -> dict[str, Any]:
    import torch

    from image_experiments.data.stored import read_real
    from image_experiments.models.classifier_files import load_classifier
    from image_experiments.synthesis.sets import batch_maker
    from image_experiments.synthesis.strength import choose_strength
    from image_experiments.training.classifier import Images
    from image_experiments.training.diffusion import read_diffusion

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    folder = run.inputs["diffusion"]["index"].parent if "diffusion" in run.inputs else None
    network, schedule, conditional = read_diffusion(diffusion, folder, real.classes, real.shape)
    if not conditional:
        raise UserError(f"--methods {method.text}: {UNCONDITIONAL}; give a number")
    encoder, judge = (
        load_classifier(run.inputs[name]["weights"], len(real.classes), real.shape).to(run.device) for name in ("encoder", "judge")
    )
    settings = replace(_timed(run, "generation", settings), compile="no")  # no trial is long enough to repay it

    def make(tried: Method, chosen: Any) -> Images:
        size = min(chosen.batch_size, max(chosen.pilot, 2))
        batch = batch_maker(run.device, real, network, schedule, encoder, tried, chosen, size, seed)
        x, y = (torch.cat(parts) for parts in zip(*map(batch, range(-(-chosen.pilot // size))), strict=True))
        return Images(x, y)

    return choose_strength(make, method, settings, judge, run.report)


def select(run: StageRun, settings: Any, diffusion: Any, count: int, seed: int) -> dict[str, Any]:
    from contrastive_dp import ClassifierFeatures
    from image_experiments.data.image_files import stream_images
    from image_experiments.data.stored import read_real, read_synthetic
    from image_experiments.models.classifier_files import load_classifier
    from image_experiments.synthesis.selection import best_of_each_class, keeps_highest, pseudo_labels, scores

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    made = read_synthetic(run.inputs["generated"]["images"], real)
    encoder = load_classifier(run.inputs["encoder"]["weights"], len(real.classes), real.shape).to(run.device)
    unconditional = not run.results["generated"]["conditional"]
    relabelled = settings.pseudo_label == "always" or (settings.pseudo_label == "auto" and unconditional)
    y = pseudo_labels(encoder, made.x) if relabelled else made.y
    score = scores(settings.criterion, encoder, ClassifierFeatures(encoder), made.x, y, real.train.x, real.train.y, seed)
    kept = best_of_each_class(score, y, count, keeps_highest(settings), len(real.classes))
    assert made.file is not None
    pieces = made.file.pieces(kept.numpy(), y[kept].numpy())
    stream_images(run.outputs["images"], count, made.file.images.shape[1:], pieces)
    counts = y[kept].bincount(minlength=len(real.classes)).tolist()
    return {"relabelled": relabelled, "of": len(made), "fewest_of_a_class": min(counts), "most_of_a_class": max(counts)}


def add_noise(run: StageRun, std: float, seed: int) -> dict[str, Any]:
    from contrastive_dp.randomness import mixed_seed
    from image_experiments.data.image_files import stream_images
    from image_experiments.data.stored import read_real, read_synthetic
    from image_experiments.synthesis.generation import noisy

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    plain = read_synthetic(run.inputs["synthetic"]["images"], real).file
    assert plain is not None
    stream_images(run.outputs["images"], len(plain), plain.images.shape[1:], noisy(plain.pieces(), std, mixed_seed(seed, 2)))
    return {"images": len(plain)}


def add_noise_to_real(run: StageRun, std: float, count: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from contrastive_dp.randomness import mixed_seed
    from image_experiments.data.image_files import stream_images
    from image_experiments.data.stored import read_real
    from image_experiments.synthesis.generation import noisy

    train = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"]).train
    copies = np.arange(count) % len(train)
    images, labels = train.x.numpy().transpose(0, 2, 3, 1)[copies], train.y.numpy()[copies]
    stream_images(run.outputs["images"], count, images.shape[1:], noisy([(images, labels)], std, mixed_seed(seed, 2)))
    return {"images": count}


def read_generated(run: StageRun, file: Path, count: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from image_experiments.data.balance import balanced_choice
    from image_experiments.data.image_files import check_given, stream_images
    from image_experiments.data.stored import read_real

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    channels, height, width = real.shape
    given = check_given(file, len(real.classes), (height, width, channels), count)
    kept = balanced_choice(given.labels, count, np.random.default_rng([seed, 4]))
    stream_images(run.outputs["images"], count, (height, width, channels), given.pieces(kept))
    return {"images": count}


def describe(run: StageRun, settings: Any, split: str) -> dict[str, Any]:
    from image_experiments.data.stored import read_real, read_synthetic
    from image_experiments.evaluation.description import describe_synthetic
    from image_experiments.models.classifier_files import load_classifier

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    synthetic = read_synthetic(run.inputs["synthetic"]["images"], real)
    judge, encoder = (
        load_classifier(run.inputs[name]["weights"], len(real.classes), real.shape).to(run.device) for name in ("judge", "encoder")
    )
    return describe_synthetic(settings, real, synthetic, judge, encoder, split)


def evaluate(run: StageRun, settings: Any, threats: list[Any], seed: int) -> dict[str, Any]:
    from image_experiments.data.stored import read_real
    from image_experiments.evaluation.classifier import evaluate_classifier
    from image_experiments.models.classifier_files import load_classifier

    real = read_real(run.inputs["data"]["images"], run.inputs["split"]["split"])
    weights = run.inputs["classifier"]["weights"]
    classifier = load_classifier(weights, len(real.classes), real.shape)
    return evaluate_classifier(run, real, classifier, settings, threats, seed) | {"weights_sha256": file_digest(weights)}
