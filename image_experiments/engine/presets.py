"""Presets: complete groups of settings; and settings built from names or from a command line."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from command_line.output import UserError, did_you_mean
from command_line.refusals import framed, refused_flag, refused_value
from command_line.values import as_number, changed, check_named_by_text, words_at_home
from image_experiments.engine.settings import Settings
from image_experiments.evaluation.features import DescriptionSettings
from image_experiments.evaluation.robustness import EvaluationSettings
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import DEFAULT_GUIDANCE
from image_experiments.synthesis.selection import SelectionSettings
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.diffusion_training import DiffusionSettings


def smoke() -> Settings:
    """Every stage once, on digits, in less than 90 s on 2 cores."""
    return Settings(
        methods=("real", "unguided", "infonce:0.3"),
        encoder=ClassifierSettings(steps=200, learning_rate=0.05, attack_steps=3),
        diffusion=DiffusionSettings(
            channels=(16, 32), steps=1000, batch_size=64, learning_rate=4e-3, ema=0.99, checkpoint_every=100
        ),
        generation=GenerationSettings(steps=20, batch_size=100),
        classifier=ClassifierSettings(steps=200, learning_rate=0.05, attack_steps=3, checkpoint_every=100),
        evaluation=EvaluationSettings(autoattack_images=40),
    )


def cpu() -> Settings:
    """Meaningful numbers on digits in 15 minutes on 2 cores."""
    return Settings(
        preset="cpu",
        seeds=3,
        methods=("real", "unguided", "noise:0.1", DEFAULT_GUIDANCE, "infonce:0.3", "anchored:0.3"),
        synthetic=2000,
        encoder=ClassifierSettings(steps=600, learning_rate=0.05),
        diffusion=DiffusionSettings(
            channels=(24, 48), steps=1500, batch_size=64, learning_rate=2e-3, ema=0.998, checkpoint_every=150
        ),
        generation=GenerationSettings(steps=25, batch_size=250),
        classifier=ClassifierSettings(steps=1000, learning_rate=0.05),
        evaluation=EvaluationSettings(autoattack_images=200),
    )


def cifar10_gpu() -> Settings:
    """CIFAR-10 on one GPU, meant for an hour a seed, not measured yet (see --dry-run): a U-Net of 9 M parameters, 50,000 images per
    method, one seed."""
    trained = ClassifierSettings(
        network="preact-resnet-18",
        steps=3000,
        batch_size=512,
        attack_steps=7,
        learning_rate=0.2,
        warmup=100,
        checkpoint_every=250,
        validate_every=500,
        precision="auto",
        compile="auto",
    )
    return Settings(
        preset="cifar10-gpu",
        dataset="cifar10",
        train=0,
        validation=1000,
        methods=("real", "unguided", DEFAULT_GUIDANCE, "infonce:0.3", "anchored:0.1"),
        synthetic=50_000,
        encoder=replace(trained, steps=2000),
        diffusion=DiffusionSettings(
            channels=(96, 128, 160),
            blocks=2,
            attention=(False, True, False),
            dropout=0.1,
            prediction="v",
            steps=20_000,
            batch_size=256,
            learning_rate=4e-4,
            warmup=500,
            ema=0.9995,
            augmentation="crop-flip",
            checkpoint_every=1000,
            precision="auto",
            compile="auto",
        ),
        generation=GenerationSettings(solver="dpm-solver++", steps=20, batch_size=500, precision="auto", compile="auto"),
        classifier=trained,
        evaluation=EvaluationSettings(autoattack_images=1000, batch_size=500),
        tf32=True,
        cudnn_benchmark=True,
        description=DescriptionSettings(images=5000, steps=1500),
    )


def paper() -> Settings:
    """The published sizes (Ouyang, Xie, Cheng 2023; Gowal et al. 2021), for a GPU. The U-Net is class-conditional and guided at x0_hat;
    the paper's is unconditional and guided at x_t: for that, add --diffusion.no-conditional --generation.at xt."""
    trained = ClassifierSettings(
        network="wrn-28-10",
        adversary="trades",
        attack_steps=10,
        steps=19_600,
        batch_size=1024,
        generated_fraction=0.7,
        learning_rate=0.4,
        warmup=490,
        label_smoothing=0.1,
        keep="best",
        validate_every=490,
        checkpoint_every=490,
        precision="auto",
        compile="auto",
    )
    return Settings(
        preset="paper",
        dataset="cifar10",
        train=0,
        validation=1024,
        methods=("real", "unguided", "infonce:0.3", "hard-negative:0.3", "supervised:0.1", "anchored:0.1"),
        synthetic=1_000_000,
        encoder=replace(trained, steps=9_800),
        diffusion=DiffusionSettings(
            channels=(128, 256, 256, 256),
            blocks=2,
            attention=(False, True, False, False),
            dropout=0.1,
            schedule="linear",
            steps=500_000,
            batch_size=128,
            learning_rate=2e-4,
            warmup=5000,
            ema=0.9999,
            checkpoint_every=5000,
            precision="auto",
            compile="auto",
        ),
        generation=GenerationSettings(steps=50, batch_size=512, precision="auto", compile="auto"),
        selection=SelectionSettings(surplus=1.25, criterion="confidence"),
        classifier=trained,
        evaluation=EvaluationSettings(pgd_restarts=5, batch_size=500),
        tf32=True,
        cudnn_benchmark=True,
        description=DescriptionSettings(images=10_000, steps=9_800),
    )


def paper_gtsrb() -> Settings:
    """The published settings for GTSRB: a class-conditional model, 250 steps of the cosine schedule, guided for 50 < t < 150 at x_t with
    lambda = 39 (the paper's 5,000 for a loss that is a mean over a batch of 128). The networks are those for CIFAR-10."""
    settings = paper()
    return replace(
        settings,
        preset="paper-gtsrb",
        dataset="gtsrb",
        methods=_published("39"),
        synthetic=200_000,
        diffusion=replace(settings.diffusion, schedule="cosine", timesteps=250, steps=200_000),
        generation=replace(
            settings.generation, solver="ddpm", steps=250, batch_size=128, window=(51, 150), at="xt", relative=False, head=128
        ),
        selection=SelectionSettings(),
    )


def paper_mnist() -> Settings:
    """The published settings for MNIST: as for GTSRB, with lambda = 781 (the paper's 100,000 over 128)."""
    settings = paper_gtsrb()
    return replace(settings, preset="paper-mnist", dataset="mnist", methods=_published("781"))


def _published(strength: str) -> tuple[str, ...]:
    return ("real", "unguided", f"infonce:{strength}", f"hard-negative:{strength}")


PRESETS = {
    "smoke": smoke,
    "cpu": cpu,
    "cifar10-gpu": cifar10_gpu,
    "paper": paper,
    "paper-gtsrb": paper_gtsrb,
    "paper-mnist": paper_mnist,
}


def preset_named(arguments: list[str]) -> Settings:
    """The preset named on a command line. Raises UserError for an unknown one, suggesting the nearest known name."""
    named = "smoke"
    for i, argument in enumerate(arguments):
        if argument == "--preset" and i + 1 < len(arguments):
            named = arguments[i + 1]
        elif argument.startswith("--preset="):
            named = argument.removeprefix("--preset=")
    if named not in PRESETS:
        raise UserError(f"--preset {named}: unknown{did_you_mean(named, PRESETS)}; use one of {', '.join(PRESETS)}")
    return PRESETS[named]()


def preset(name: str = "smoke", /, **changes: Any) -> Settings:
    """The settings of a preset with changes: preset("cpu", eps=8 / 255, classifier={"steps": 50}).

    Raises UserError for an unknown preset, setting or value, suggesting the nearest name.
    """
    if not isinstance(name, str):
        raise UserError(f"preset({name!r}): name one of {', '.join(PRESETS)}")
    if "preset" in changes:
        raise UserError(f"preset={changes['preset']!r}: is named first; write preset({changes['preset']!r}, ...)")
    return changed(preset_named(["--preset", name]), **changes)


def settings_from(arguments: Sequence[str]) -> Settings:
    """The settings given by a command line of run_cifar.py. Raises UserError."""
    given = words_at_home(arguments)
    try:
        with framed() as said, contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(Settings, args=given, default=preset_named(given), config=(tyro.conf.AvoidSubcommands,))
    except SystemExit as refused:
        if line := refused_value(refused):
            raise UserError(line) from None
        raise UserError(refused_flag(said.getvalue(), given) or f"{' '.join(given)}: is no command line of run_cifar.py") from None


def flags_of(changes: Mapping[str, Any]) -> list[str]:
    """The command line equivalent to changes of settings by name: {"classifier.steps": 50} -> ["--classifier.steps", "50"].

    "preset" may be among them. Raises UserError for an unknown name and for a value that does not fit.
    """
    check_named_by_text(changes)
    others = {name: value for name, value in changes.items() if name != "preset"}
    preset(changes.get("preset", "smoke"), **others)
    return [word for name, value in changes.items() for word in _flag_of(name, value)]


def _flag_of(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [word for inner, entry in value.items() for word in _flag_of(f"{name}.{inner}", entry)]
    flag = name.replace("_", "-")
    value = as_number(value)
    if isinstance(value, bool):
        part, dot, last = flag.rpartition(".")
        return [f"--{part}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{flag}", *_words(value)]


def _words(value: Any) -> list[str]:
    if isinstance(value, str | Path) or not hasattr(value, "__iter__"):
        return [str(value)]
    return [word for entry in value for word in _words(entry)]
