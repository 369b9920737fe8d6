"""The experiment as stages: what each reads and writes, and how they depend on each other. jobs.py says what they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.output import UserError
from contrastive_dp.randomness import mixed_seed
from image_experiments.engine import jobs
from image_experiments.engine.fingerprint import source_digest
from image_experiments.engine.settings import Settings, Until
from image_experiments.engine.stages import Stage
from image_experiments.models.diffusion_files import FILES as DIFFUSION_FILES
from image_experiments.synthesis.methods import Method


def plan(settings: Settings) -> list[Stage]:
    """All stages of a run, each after its inputs. Raises UserError for a missing file."""
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        for advising in stage.advice.values():
            stages.setdefault(advising.name, advising)
        return stages.setdefault(stage.name, stage)

    read = {name: getattr(settings, name) for name in ("dataset", "image_size", "group_pattern", "classes", "test")}
    file = {"images": "data/images.npz"}
    data = add(Stage("data", jobs.read_data, read, file, **_outside("--data-dir", settings.data_dir, "data_dir"), on_device=False))
    seeds = range(settings.seed, settings.seed + settings.seeds)
    speed = _speed(settings, data)
    shared = {seed: _shared_stages(settings, data, seed, speed) for seed in seeds}
    for seed in seeds:
        for stage in shared[seed].values():
            add(stage)
    for method in settings.parsed_methods():
        for seed in seeds:
            _add_method(settings, method, seed, shared[seed], speed, add)
    return list(stages.values())


Add = Callable[[Stage], Stage]
Speed = dict[str, dict[str, Stage]]
STEPS: dict[Until, tuple[str, ...]] = {
    "diffusion": ("diffusion", "weaker"),
    "encoder": ("encoder", "judge", "labeller"),
    "generation": ("strength", "generate", "select", "noise", "read"),
    "description": ("describe",),
    "training": ("classifier",),
}
"""Steps at which --until stops, in order, with the kinds of their stages (the beginnings of the stages' names)."""


def up_to(until: Until, stages: list[Stage]) -> list[Stage]:
    """The stages of this step and of the steps before it, and the stages they need."""
    steps = list(STEPS)
    return needed_for([kind for step in steps[: steps.index(until) + 1] for kind in STEPS[step]], stages)


def needed_for(kinds: Sequence[str], stages: list[Stage]) -> list[Stage]:
    """The stages of these kinds and the stages they need."""
    needed: set[str] = set()

    def need(stage: Stage) -> None:
        needed.add(stage.name)
        for earlier in stage.needs.values():
            need(earlier)

    for stage in stages:
        if stage.name.partition("/")[0] in kinds:
            need(stage)
    return [stage for stage in stages if stage.name in needed]


def _outside(flag: str, path: Path | None, argument: str = "") -> dict[str, Any]:
    """Arguments of Stage for an outside file or folder: the checksum of its content, and its path as an argument of the function."""
    found: dict[str, Any] = {"paths": {argument: path}} if argument else {}
    if path is None:
        return found
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder; check the path")
    return found | {"outside": {flag: source_digest(path)}}


def _speed(settings: Settings, data: Stage) -> dict[str, dict[str, Stage]]:
    """{part: {"speed": the stage that chooses its precision and compilation}}; empty for parts where nothing needs to be measured."""
    found: dict[str, dict[str, Stage]] = {}
    for name in ("encoder", "diffusion", "generation", "classifier"):
        part = getattr(settings, name)
        found[name] = {}
        if "auto" in (part.precision, part.compile):
            arguments = {"part": name, "settings": part, "diffusion": settings.diffusion, "encoder": settings.encoder.network}
            arguments |= {"threat": settings.threat(), "synthetic": settings.synthetic}
            outside = _outside("--diffusion", settings.diffusion.load)
            file = {"timings": f"speed-{name}.csv"}
            found[name]["speed"] = Stage(f"speed/{name}", jobs.choose_speed, arguments, file, {"data": data}, **outside)
    return found


def _shared_stages(settings: Settings, data: Stage, seed: int, speed: Speed) -> dict[str, Stage]:
    """The stages that the methods of one seed share: the split and, for synthetic images, diffusion model, encoder and judge."""
    methods = settings.parsed_methods()
    chosen = {"train": settings.train, "validation": settings.validation, "seed": seed}
    file = {"split": f"data/split-seed{seed}.npz"}
    split = Stage(f"split/seed{seed}", jobs.split_data, chosen, file, {"data": data}, on_device=False)
    found = {"data": data, "split": split}
    real = dict(found)

    def trained(kind: str) -> dict[str, str]:
        return {"weights": f"checkpoints/{kind}-seed{seed}.safetensors", "curve": f"curves/{kind}-seed{seed}.csv"}

    if any(m.generates or m.kind == "noise" for m in methods) and settings.diffusion.load is None:
        arguments: dict[str, Any] = {"settings": settings.diffusion, "seed": seed}
        outputs = _diffusion_files("diffusion", seed)
        found["diffusion"] = Stage(
            f"diffusion/seed{seed}", jobs.train_diffusion_model, arguments, outputs, real, shared=True, advice=speed["diffusion"]
        )
    if any(m.kind != "real" for m in methods):
        arguments = {"threat": settings.threat(), "seed": seed}
        if settings.encoder_from is None:
            training = {**arguments, "settings": settings.encoder}
            found["encoder"] = Stage(
                f"encoder/seed{seed}", jobs.train_encoder, training, trained("encoder"), real, shared=True, advice=speed["encoder"]
            )
        else:
            outside = _outside("--encoder-from", settings.encoder_from, "file")
            weights = {"weights": f"checkpoints/encoder-seed{seed}.safetensors"}
            reading = {"network": settings.encoder.network}
            found["encoder"] = Stage(f"encoder/seed{seed}", jobs.read_encoder, reading, weights, real, **outside)
        judge = replace(settings.encoder, adversary="none", steps=settings.description.steps, keep="last")
        arguments |= {"settings": judge}
        found["judge"] = Stage(
            f"judge/seed{seed}", jobs.train_judge, arguments, trained("judge"), real, shared=True, advice=speed["encoder"]
        )
    return found


def _add_method(settings: Settings, method: Method, seed: int, shared: dict[str, Stage], speed: Speed, add: Add) -> None:
    """The stages of one method and seed: synthetic images, their description, a classifier, its evaluation."""
    real = {name: shared[name] for name in ("data", "split")}
    inputs = dict(real)
    if method.kind != "real":
        inputs["synthetic"] = _synthetic(settings, method, seed, shared, speed, add)
        described = {**inputs, **{name: shared[name] for name in ("encoder", "judge")}}
        told = {"settings": settings.description, "split": settings.evaluation.split}
        add(Stage(f"describe/{method.label}/seed{seed}", jobs.describe, told, {}, described))
    arguments = {"settings": settings.classifier, "threat": settings.threat(), "seed": seed}
    name = f"{method.label}-seed{seed}"
    outputs = {"weights": f"checkpoints/{name}.safetensors", "curve": f"curves/{name}.csv"}
    classifier = add(
        Stage(
            f"classifier/{method.label}/seed{seed}",
            jobs.train_compared,
            arguments,
            outputs,
            inputs,
            shared=True,
            advice=speed["classifier"],
        )
    )
    threats = [settings.threat(), *settings.evaluation.further()]
    add(
        Stage(
            f"evaluate/{method.label}/seed{seed}",
            jobs.evaluate,
            {"settings": settings.evaluation, "threats": threats, "seed": seed},
            {"outcomes": f"outcomes/{name}.npz"},
            {**real, "classifier": classifier},
        )
    )


def _synthetic(settings: Settings, method: Method, seed: int, shared: dict[str, Stage], speed: Speed, add: Add) -> Stage:
    """The stage whose output is the synthetic images of a method."""
    real = {name: shared[name] for name in ("data", "split")}
    file = {"images": f"synthetic/{method.label}/seed{seed}.npz"}
    where = f"{method.label}/seed{seed}"
    if method.kind == "npz":
        arguments: dict[str, Any] = {"count": settings.synthetic, "seed": seed}
        outside = _outside("--methods npz", method.file, "file")
        return add(Stage(f"read/{where}", jobs.read_generated, arguments, file, real, **outside, on_device=False))
    if method.kind == "noise":
        plain = _synthetic(settings, Method("unguided", "unguided"), seed, shared, speed, add)
        arguments, inputs = {"std": method.scale, "seed": seed}, {**real, "synthetic": plain}
        return add(Stage(f"noise/{where}", jobs.add_noise, arguments, file, inputs, on_device=False))
    if method.kind == "noise-real":
        arguments = {"std": method.scale, "count": settings.synthetic, "seed": seed}
        return add(Stage(f"noise/{where}", jobs.add_noise_to_real, arguments, file, real, on_device=False))
    chosen = settings.selection
    selects = chosen.surplus > 1 or may_relabel(settings)
    generated = _generated(settings, method, seed, shared, speed, add, "generated" if selects else "synthetic")
    if not selects:
        return generated
    arguments = {"settings": chosen, "count": settings.synthetic, "seed": seed}
    inputs = {**real, "encoder": shared["encoder"], **_labellers(settings, seed, shared, speed, add), "generated": generated}
    return add(Stage(f"select/{where}", jobs.select, arguments, file, inputs))


def _labellers(settings: Settings, seed: int, shared: dict[str, Stage], speed: Speed, add: Add) -> dict[str, Stage]:
    """The stages that train the classifiers that label; none if the encoder does."""
    chosen = settings.selection
    if chosen.labeller == "encoder" or not may_relabel(settings):
        return {}
    numbers = range(1, chosen.ensemble + 1)
    return {f"labeller {n}": _labeller(settings, chosen.labeller, n, seed, shared, speed, add) for n in numbers}


def _labeller(settings: Settings, kind: str, number: int, seed: int, shared: dict[str, Stage], speed: Speed, add: Add) -> Stage:
    """The stage that trains one of the classifiers of the encoder's recipe, or its recipe without attacks, that guide nothing."""
    recipe = settings.encoder if kind == "robust" else replace(settings.encoder, adversary="none")
    name = f"{kind}-{number}"
    outputs = {
        "weights": f"checkpoints/labeller-{name}-seed{seed}.safetensors",
        "curve": f"curves/labeller-{name}-seed{seed}.csv",
    }
    arguments = {"settings": recipe, "threat": settings.threat(), "seed": seed, "number": number}
    real = {name: shared[name] for name in ("data", "split")}
    return add(
        Stage(f"labeller/{name}/seed{seed}", jobs.train_labeller, arguments, outputs, real, shared=True, advice=speed["encoder"])
    )


def may_relabel(settings: Settings) -> bool:
    """Whether labels may come from a classifier; for a loaded model this is known only once it is read."""
    return settings.selection.relabels(settings.diffusion.load is None and settings.diffusion.conditional)


def _generated(
    settings: Settings, method: Method, seed: int, shared: dict[str, Stage], speed: Speed, add: Add, folder: str
) -> Stage:
    """The stage that samples the images of a method, after one that finds its strength if the scale is auto."""
    where = f"{method.label}/seed{seed}"
    outputs = {"images": f"{folder}/{where}.npz", "manifest": f"{folder}/{where}.json"}
    about = {"settings": settings.generation, "diffusion": settings.diffusion, "method": method, "seed": seed}
    used = ("data", "split", "diffusion", *(("encoder",) if method.uses_encoder else ()))
    needed = {name: stage for name, stage in shared.items() if name in used}
    if method.kind == "feedback" and settings.generation.keep:
        needed["labeller 1"] = _labeller(settings, "standard", 1, seed, shared, speed, add)
    if method.kind == "autoguidance":
        needed["weaker"] = _weaker(settings, seed, shared, speed, add)
    outside, advice = _outside("--diffusion", settings.diffusion.load), speed["generation"]
    if method.automatic:
        trying = {**needed, "encoder": shared["encoder"], "judge": shared["judge"]}
        needed["strength"] = add(Stage(f"strength/{where}", jobs.find_strength, about, {}, trying, **outside, advice=advice))
    about = {**about, "count": math.ceil(settings.synthetic * settings.selection.surplus)}
    return add(Stage(f"generate/{where}", jobs.generate, about, outputs, needed, **outside, shared=True, advice=advice))


def _weaker(settings: Settings, seed: int, shared: dict[str, Stage], speed: Speed, add: Add) -> Stage:
    """The stage that trains the weaker model of autoguidance: the same network, a fraction of the steps."""
    steps = max(round(settings.generation.weaker * settings.diffusion.steps), 1)
    arguments: dict[str, Any] = {"settings": replace(settings.diffusion, steps=steps), "seed": mixed_seed(seed, WEAKER)}
    return add(
        Stage(
            f"weaker/seed{seed}",
            jobs.train_diffusion_model,
            arguments,
            _diffusion_files("weaker", seed),
            {name: shared[name] for name in ("data", "split")},
            shared=True,
            advice=speed["diffusion"],
        )
    )


WEAKER = 10
"""Sets the weaker model apart from other networks of a seed."""


def _diffusion_files(kind: str, seed: int) -> dict[str, str]:
    """The files of a diffusion model, by role."""
    outputs = {role: f"checkpoints/{kind}-seed{seed}/{path}" for role, path in DIFFUSION_FILES.items()}
    return outputs | {"curve": f"curves/{kind}-seed{seed}.csv"}
