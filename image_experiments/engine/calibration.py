"""How long a step, an image and an attack take on this device: times a few steps of the real loops on random images."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from command_line.output import UserError, write_csv
from contrastive_dp import NoiseSchedule
from image_experiments.data.images import Images
from image_experiments.evaluation.robustness import PASSES, Parts, make_attack, parts_for, targets_of
from image_experiments.models.classifiers import Normalised, make_classifier
from image_experiments.models.diffusion_files import read_diffusion
from image_experiments.models.precision import Compile, Precision, prepared, prepared_unet
from image_experiments.models.unet import make_noise_prediction
from image_experiments.synthesis.generation import GenerationSettings, Networks, Sampler, make_guidance
from image_experiments.synthesis.methods import Method
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.attacks import Threat, pgd
from image_experiments.training.diffusion_training import DiffusionSettings, train_diffusion

Shape = tuple[int, int, int]
SHORT = 2
"""Sampler steps, and attack iterations, that are timed to extrapolate to all."""
GROWTH = 4
ITERATIONS = {"square": (5000, 50)}
"""Iterations of a part of AutoAttack: total, and how many are timed. For the other parts: 100 and SHORT."""
WITH_WEIGHTS = 1.5
"""Cost, in PGD passes, of a forward and backward pass with gradients of the weights."""


@dataclass(frozen=True)
class Choice:
    """One way to compute, and its cost: seconds before the first step, and seconds per step; batch: the images that were timed together.
    inf, if there was not enough memory."""

    precision: Precision
    compile: Compile
    start: float
    step: float
    batch: int = 0

    def total(self, steps: int) -> float:
        """Seconds for this many steps."""
        return self.start + steps * self.step


class EnoughError(Exception):
    """Ends a training that was only started to be timed."""


class Probe:
    """Measurements for images of one shape on one device. budget: seconds that one measurement may take, not counting compilation.

    On a GPU whole batches are measured at once, not more and more images: cuDNN prepares anew for every size, and whether a batch fits in
    memory is seen here rather than hours later."""

    def __init__(self, shape: Shape, classes: int, threat: Threat, device: torch.device, budget: float) -> None:
        self.shape, self.classes, self.threat, self.device, self.budget = shape, classes, threat, device, budget
        self.whole = device.type == "cuda"
        self.passes: dict[tuple[str, int], float] = {}

    def images(self, n: int) -> Images:
        """Random images with labels 0, 1, ..., K-1, 0, 1, ..."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (n, *self.shape), generator=generator, dtype=torch.uint8)
        return Images(x, torch.arange(n) % self.classes)

    def classifier(self, network: str) -> Normalised:
        """A classifier with fresh weights."""
        mean, std = [0.5] * self.shape[0], [0.25] * self.shape[0]
        return prepared(make_classifier(network, self.classes, self.shape, mean, std).to(self.device), "no")

    def _largest(self, most: int, least: int, measure: Callable[[int], float]) -> int:
        """Measure with more and more images, up to `most`, while the next size fits the budget; returns the last size."""
        n, took = 0, 0.0
        while n < most and took * GROWTH < self.budget:
            n = most if self.whole else min(most, max(n * GROWTH, least))
            took = measure(n)
        return n

    def step(self, settings: Any, timed: int = 0) -> Choice:
        """A training step of a classifier or of the diffusion model, depending on the type of the settings.

        If the whole batch takes too long, a smaller one is timed and scaled up; if that does too, single passes are added up. timed: time
        this many images, as another choice was, so that both are comparable.
        """
        if isinstance(settings, ClassifierSettings):
            attacked, twice = settings.adversary != "none", settings.adversary == "trades"
            passes = WITH_WEIGHTS * (1 + twice) + attacked * settings.attack_steps
            an_image = passes * self.attack_passes(settings.network, 1)
            if 2 * an_image > self.budget:
                return Choice(settings.precision, settings.compile, 0.0, an_image * settings.batch_size, 1)
        times = (0.0, 0.0)

        def measure(batch: int) -> float:
            nonlocal times
            times = self._step_times(settings, batch)
            return 2 * times[1]

        batch = settings.batch_size
        if settings.compile == "yes":  # compile only for the final batch size, or compilation would be timed more than once
            torch.compiler.reset()
            measure(n := timed or batch)
        else:
            n = self._largest(batch, 2, measure)
        return Choice(settings.precision, settings.compile, max(times[0] - times[1], 0.0), times[1] * batch / n, n)

    def _step_times(self, settings: Any, batch: int) -> tuple[float, float]:
        """Seconds of the first step, and the median over the later ones, as many as the budget allows."""
        times = [time.perf_counter()]

        def on_step(step: int, _loss: Tensor) -> None:
            wait(self.device)
            times.append(time.perf_counter())
            if len(times) > 2 and (times[-1] - times[1] > self.budget or step >= 40):
                raise EnoughError

        endless, data = replace(settings, steps=10**6, batch_size=batch, checkpoint_every=10**6), self.images(256)
        with contextlib.suppress(EnoughError):
            if isinstance(endless, DiffusionSettings):
                train_diffusion(endless, data, self.classes, 0, self.device, on_step=on_step)
            else:
                kind = "crop" if endless.augmentation == "auto" else endless.augmentation
                endless = replace(endless, augmentation=kind, keep="last", validate_every=10**6)
                network = self.classifier(endless.network)
                train_classifier(network, TrainingImages(data, self.classes), self.threat, endless, 0, on_step=on_step)
        gaps = sorted(after - before for before, after in itertools.pairwise(times[1:]))
        return times[1] - times[0], gaps[len(gaps) // 2]

    def sampling(
        self, diffusion: DiffusionSettings, settings: GenerationSettings, methods: list[Method], encoder: str
    ) -> dict[str, tuple[float, float]]:
        """{method: (seconds per image besides its steps, seconds per image and guided step)}; an unguided step is under "unguided"."""
        network, schedule = sampler_network(diffusion, self.shape, self.classes, self.device, settings.compile)
        if network.null_label is None and any(method.kind == "classifier-free" for method in methods):
            raise ValueError("--methods classifier-free: this model has no null label; use one with label dropout")
        plain = replace(settings, window=None, every=1, head=0)
        real = self.images(self.classes)  # as anchors; their number costs little compared with the network
        x, found = real.x.to(self.device).float() / 127.5 - 1, dict[str, tuple[float, float]]()
        for method in [Method("unguided", "unguided"), *(m for m in methods if m.kind != "unguided")]:
            networks = Networks(network, schedule, self.classifier(encoder), self.classifier(encoder), network)
            guidance = make_guidance(method, plain, networks, x, real.y.to(self.device), 0)
            made = Sampler(networks, method, guidance, plain, self.shape, self.classes, 0, self.device)
            _, beyond, a_step, n = self._sampler_times(made)
            found[method.label] = (beyond / n, a_step / n)
        return found

    def sampler(self, diffusion: DiffusionSettings, settings: GenerationSettings, timed: int = 0) -> Choice:
        """An unguided step of one image, and the seconds before the first. timed: as in `step`."""
        if settings.compile == "yes":
            torch.compiler.reset()
        network, schedule = sampler_network(diffusion, self.shape, self.classes, self.device, settings.compile)
        networks, plain = Networks(network, schedule), replace(settings, window=None, every=1, head=0)
        made = Sampler(networks, Method("unguided", "unguided"), None, plain, self.shape, self.classes, 0, self.device)
        start, _, a_step, n = self._sampler_times(made, timed)
        return Choice(settings.precision, settings.compile, start, a_step / n, n)

    def _sampler_times(self, made: Sampler, timed: int = 0) -> tuple[float, float, float, int]:
        """(seconds before the first step if it is compiled, seconds beside the steps, seconds of a step, images) of a sampler. A first call
        is not counted as a step: it compiles, or prepares kernels and memory."""
        compiled = made.settings.compile == "yes"
        took = (0.0, 0.0, 0.0)

        def measure(n: int) -> float:
            nonlocal took
            labels = torch.arange(n) % min(self.classes, max(n // 2, 1))  # two of a class at least, which particles need
            few, more = (replace(made, settings=replace(made.settings, steps=steps)) for steps in (SHORT, 3 * SHORT))
            first = seconds(lambda: few.sample(labels, 0), self.device)
            took = (
                first if compiled else 0.0,
                seconds(lambda: few.sample(labels, 0), self.device),
                seconds(lambda: more.sample(labels, 0), self.device),
            )
            return took[2]

        most = made.settings.batch_size
        if compiled:
            measure(n := timed or most)
        else:
            n = self._largest(most, 2, measure)
        a_step = max(took[2] - took[1], 1e-9) / (2 * SHORT)
        return max(took[0] - took[1], 0.0), max(took[1] - SHORT * a_step, 0.0), a_step, n

    def attack_passes(self, network: str, batch: int) -> float:
        """Seconds per image and step of PGD."""
        if (network, batch) in self.passes:
            return self.passes[network, batch]
        classifier, took = self.classifier(network).eval().requires_grad_(False), 0.0

        def measure(n: int) -> float:
            nonlocal took
            data, generator = self.images(n), torch.Generator(self.device).manual_seed(0)
            x, y = data.x.to(self.device).float() / 255, data.y.to(self.device)
            pgd(classifier, x, y, self.threat, SHORT, 0.01, generator)  # the first call prepares kernels and memory
            took = seconds(lambda: pgd(classifier, x, y, self.threat, SHORT, 0.01, generator), self.device)
            return took

        n = self._largest(batch, 1, measure)
        self.passes[network, batch] = took / n / SHORT
        return self.passes[network, batch]

    def autoattack_parts(self, network: str, batch: int, chosen: Parts = "all") -> dict[str, float]:
        """{part: seconds per image that withstands it}; extrapolated from a few iterations, with a radius too small to fool anything."""
        classifier, found = self.classifier(network).eval().requires_grad_(False), dict[str, float]()
        for part in parts_for(self.classes, chosen):
            whole, short = ITERATIONS.get(part, (100, SHORT))
            found[part] = self.attack_passes(network, batch) * PASSES[part] * targets_of(part, self.classes)
            if found[part] * 20 * short / whole > self.budget:  # four images, `short` iterations twice and three times as many once
                continue
            spent = 0.0

            def measure(n: int, part: str = part) -> float:
                nonlocal spent
                begin = time.perf_counter()
                spent = self._all_iterations(classifier, part, n)
                return time.perf_counter() - begin

            n = self._largest(batch, 4, measure)
            found[part] = spent / n
        return found

    def _all_iterations(self, classifier: nn.Module, part: str, n: int) -> float:
        """Seconds of a part on n images, extrapolated from a few iterations."""
        x = self.images(n).x.to(self.device).float() / 255
        with torch.no_grad():
            y = cast(Tensor, classifier(x)).argmax(dim=1)
        attack = make_attack(classifier, x, replace(self.threat, eps=1e-6), self.classes, part, 0)
        whole, short = ITERATIONS.get(part, (100, SHORT))

        def shortened(iterations: int) -> float:
            attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = attack.square.n_queries = iterations
            return seconds(lambda: attack.run_standard_evaluation(x, y, batch_size=n), self.device)

        shortened(short)  # a first call also loads and allocates what it needs
        once, thrice = shortened(short), shortened(3 * short)
        return once + (whole - short) * max(thrice - once, 1e-9) / (2 * short)


def sampler_network(
    diffusion: DiffusionSettings, shape: Shape, classes: int, device: torch.device, compiled: str
) -> tuple[Any, NoiseSchedule]:
    """(a noise prediction with fresh weights, or the one to be loaded; its schedule)."""
    if diffusion.load is not None:
        # the time is the same whichever the labels are; "no class" is known by its own label, or as one more than there are names
        labels = diffusion.class_labels or tuple(range(classes))
        found, schedule, _ = read_diffusion(replace(diffusion, class_labels=labels), None, classes, shape)
    else:
        found, schedule = make_noise_prediction(diffusion, classes, shape, 0), diffusion.noise_schedule()
    network: Any = found
    return prepared_unet(network.to(device).eval().requires_grad_(False), compiled), schedule


def choose(probe: Probe, name: str, part: Any, diffusion: DiffusionSettings, synthetic: int, file: Path) -> dict[str, str]:
    """The {"precision", "compile"} with which a part of the run finishes first, by measurement; writes what was tried to a csv file.

    name: "encoder", "classifier", "diffusion" or "generation"; part: its settings, with "auto" where there is a choice. synthetic: images
    per method. What does not fit in the device's memory, or does not compile here, is not chosen; raises UserError if nothing fits.
    """
    found: list[Choice] = []
    precisions = ("float32", "bfloat16") if part.precision == "auto" else (part.precision,)
    compilations = ("no", "yes") if part.compile == "auto" else (part.compile,)
    steps = part.steps * synthetic if name == "generation" else part.steps
    for precision in precisions:
        timed = 0  # compiled, as many images are timed as without
        for compiled in compilations:
            settings = replace(part, precision=precision, compile=compiled)
            try:
                made = probe.sampler(diffusion, settings, timed) if name == "generation" else probe.step(settings, timed)
            except RuntimeError as error:
                if not (no_memory(error) or (part.compile == "auto" and of_compiler(error))):
                    raise
                made = Choice(settings.precision, settings.compile, math.inf, math.inf)
            torch.cuda.empty_cache()  # does nothing without a GPU
            found.append(made)
            timed = made.batch
    best = min(found, key=lambda choice: choice.total(steps))
    if not math.isfinite(best.total(steps)):
        size = part.batch_size
        raise UserError(
            f"--{name}.batch-size {size}: does not fit in this device's memory, whatever the precision; use a smaller one"
        )
    rows = [(c.precision, c.compile, c.start, c.step, c.total(steps)) for c in found]
    write_csv(file, ("precision", "compile", "start_seconds", "step_seconds", "total_seconds"), rows)
    return {"precision": best.precision, "compile": best.compile}


def no_memory(error: RuntimeError) -> bool:
    """Whether a device had too little memory, as torch or the libraries that it calls say it."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "STATUS_ALLOC_FAILED" in str(error)


def of_compiler(error: RuntimeError) -> bool:
    """Whether torch.compile failed, for example on a machine without a C++ compiler."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of a call, including kernels on the device."""
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def wait(device: torch.device) -> None:
    """Wait until this device has finished all its work; any other goes on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
