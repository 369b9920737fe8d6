"""Where the time of a step goes, on a GPU or a CPU: `python benchmarks/profile_steps.py`.

    python benchmarks/profile_steps.py [--steps 10] [--rows 8]

Of U-Net training, adversarial training and guided sampling, as the preset cifar10-gpu does them (on a CPU with the small networks of
bench_images.py): the operations that take most of the device's time, and how much of the time the device had nothing to do. A device that
waits calls for larger batches or compilation; one that works, for other arithmetic.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from bench_images import (
    CLASSES,
    DEVICE,
    ENCODER,
    LEARNERS,
    SAMPLED,
    THREAT,
    UNETS,
    classifier,
    random_images,
    sampler_of,
)
from torch.profiler import ProfilerActivity, profile

from image_experiments.engine.calibration import EnoughError, wait
from image_experiments.models.precision import Precision, gpu_arithmetic
from image_experiments.synthesis.generation import GenerationSettings, Sampler
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.diffusion_training import train_diffusion

ON_GPU = DEVICE.type == "cuda"
WARM = 5
"""Steps before those that are looked at."""


@dataclass(frozen=True)
class Settings:
    """How much is looked at."""

    steps: int = 10
    """Steps of each kind."""
    rows: int = 8
    """Operations to name."""


def of_training(settings: Settings, begin: Callable[[Callable[..., None]], Any]) -> tuple[Any, float]:
    """The profile of some steps of a training loop, and their seconds on the clock."""
    watched = profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * ON_GPU])
    done, times = 0, list[float]()

    def on_step(*_: Any) -> None:
        nonlocal done
        done += 1
        if done == WARM:
            wait(DEVICE)
            watched.start()
            times.append(time.perf_counter())
        elif done == WARM + settings.steps:
            wait(DEVICE)
            times.append(time.perf_counter())
            watched.stop()
            raise EnoughError

    with contextlib.suppress(EnoughError):
        begin(on_step)
    return watched, times[1] - times[0]


def of_sampling(settings: Settings, sampler: Sampler) -> tuple[Any, float]:
    """The same of sampling, whose steps are those of its settings."""
    labels = torch.arange(SAMPLED) % CLASSES
    sampler.sample(labels, 0)
    wait(DEVICE)
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * ON_GPU]) as watched:
        begin = time.perf_counter()
        sampler.sample(labels, 0)
        wait(DEVICE)
        took = time.perf_counter() - begin
    return watched, took


def guided(settings: Settings) -> Sampler:
    """A sampler with particle guidance in every step, on a GPU in bfloat16."""
    shape, unet = UNETS[-1]
    precision: Precision = "bfloat16" if ON_GPU else "float32"
    generation = GenerationSettings(steps=settings.steps, batch_size=SAMPLED, window=None, precision=precision)
    return sampler_of(unet, shape, ENCODER, "particle:0.1", generation)


def tell(name: str, found: tuple[Any, float], rows: int) -> None:
    """Print the operations that take longest, with their share of the time on the clock."""
    watched, took = found
    spent = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
    # annotations span kernels that stand there themselves
    averages = [one for one in watched.key_averages() if not getattr(one, "is_user_annotation", False)]
    # a kernel stands there twice: by itself, and as time of the operation that started it, whose name is easier to read
    started = [one for one in averages if one.device_type.name == "CPU"]
    of = sorted(started, key=lambda one: getattr(one, spent), reverse=True)
    busy = sum(getattr(one, spent) for one in averages if (one in started) != ON_GPU) / 1e6
    print(f"{name}: {took:.3f} s on the clock, {busy / took:.0%} of it in operations of the {'GPU' if ON_GPU else 'CPU'}")
    for one in of[:rows]:
        print(f"    {getattr(one, spent) / 1e6 / took:6.1%}  {one.count:6d} times  {one.key[:90]}", flush=True)


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    shape, unet = UNETS[-1]
    learner_shape, network, batch = LEARNERS[-1]
    fast: dict[str, Any] = {"precision": "bfloat16" if ON_GPU else "float32", "steps": 10**6, "checkpoint_every": 10**6}
    learner = ClassifierSettings(network=network, attack_steps=7, batch_size=batch, validate_every=10**6, augmentation="none")
    with gpu_arithmetic(tf32=True, cudnn_benchmark=True):
        found = of_training(
            settings,
            lambda look: train_diffusion(replace(unet, **fast), random_images(512, shape), CLASSES, 0, DEVICE, on_step=look),
        )
        tell("U-Net training", found, settings.rows)
        images = TrainingImages(random_images(512, learner_shape), CLASSES, None)
        found = of_training(
            settings,
            lambda look: train_classifier(
                classifier(network, learner_shape), images, THREAT, replace(learner, **fast), 0, on_step=look
            ),
        )
        tell("adversarial training", found, settings.rows)
        tell("sampling with particle guidance", of_sampling(settings, guided(settings)), settings.rows)


if __name__ == "__main__":
    main()
