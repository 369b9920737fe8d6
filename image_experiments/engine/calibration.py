"""What a step, a batch and an attack take on this device, measured in seconds on the real loops with random images."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from command_line.output import write_csv
from image_experiments.data.images import Images
from image_experiments.evaluation.robustness import Parts, make_attack, parts_for
from image_experiments.models.classifiers import Normalised, make_classifier
from image_experiments.models.diffusion_files import read_diffusion
from image_experiments.models.precision import Compile, Precision, prepared, prepared_unet
from image_experiments.models.unet import make_noise_prediction
from image_experiments.synthesis.generation import GenerationSettings, Sampler, make_guidance
from image_experiments.synthesis.methods import Method
from image_experiments.training.attacks import Threat, pgd
from image_experiments.training.classifier import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.diffusion import DiffusionSettings, train_diffusion

Shape = tuple[int, int, int]
COMPILING = 60.0  # seconds that compiling a sampler takes, about
SHORT = 2  # steps of a sampler, and iterations of an attack, that stand for all
GROWTH = 4
QUERIES = {"square": (5000, 50)}  # in all, and those that stand for them
ITERATIONS = 100  # of the other parts of AutoAttack
PASSES = {"apgd-ce": 100.0, "apgd-t": 100.0, "fab": 900.0, "fab-t": 160.0, "square": 1700.0}
"""What each part takes in passes of PGD, for each target; measured."""
WITH_WEIGHTS = 1.5  # passes of PGD that a forward and backward pass with gradients of the weights takes


@dataclass(frozen=True)
class Choice:
    """One way to compute, and what it takes: seconds before the first step, and a step."""

    precision: Precision
    compile: Compile
    start: float
    step: float

    def total(self, steps: int) -> float:
        """Seconds of so many steps."""
        return self.start + steps * self.step


class _EnoughError(Exception):
    """Ends a training that was begun to be timed."""


class Probe:
    """Measurements for images of one shape on one device. budget: seconds that one measurement may take, compiling apart."""

    def __init__(self, shape: Shape, classes: int, threat: Threat, device: torch.device, budget: float) -> None:
        self.shape, self.classes, self.threat, self.device, self.budget = shape, classes, threat, device, budget
        self.passes: dict[tuple[str, int], float] = {}

    def images(self, n: int) -> Images:
        """Random images with labels 0, 1, ..., K-1, 0, 1, ..."""
        generator = torch.Generator().manual_seed(0)
        return Images(
            torch.randint(0, 256, (n, *self.shape), generator=generator, dtype=torch.uint8), torch.arange(n) % self.classes
        )

    def classifier(self, network: str) -> Normalised:
        """One with fresh weights."""
        mean, std = [0.5] * self.shape[0], [0.25] * self.shape[0]
        return prepared(make_classifier(network, self.classes, self.shape, mean, std).to(self.device), "no")

    def classifier_step(self, settings: ClassifierSettings) -> Choice:
        """A step of adversarial training; put together from single passes where one would take too long."""
        passes = WITH_WEIGHTS + {"none": 0.0, "pgd": 1.0, "trades": 1.0}[settings.adversary] * settings.attack_steps
        passes += WITH_WEIGHTS if settings.adversary == "trades" else 0.0
        an_image = passes * self.attack_passes(settings.network, 1)
        if 2 * an_image > self.budget:
            return Choice(settings.precision, settings.compile, 0.0, an_image * settings.batch_size)

        def begin(batch: int, on_step: Callable[[int, Tensor], None]) -> None:
            shortened = replace(settings, steps=10**6, batch_size=batch, augmentation=_known(settings.augmentation), keep="last")
            shortened = replace(shortened, validate_every=10**6, checkpoint_every=10**6)
            network = self.classifier(settings.network)
            images = TrainingImages(self.images(256), self.classes)
            train_classifier(network, images, self.threat, shortened, 0, on_step=on_step)

        return self._training(begin, settings.batch_size, settings)

    def diffusion_step(self, settings: DiffusionSettings) -> Choice:
        """A step of diffusion training."""
        data = self.images(256)

        def begin(batch: int, on_step: Callable[[int, Tensor], None]) -> None:
            shortened = replace(settings, steps=10**6, batch_size=batch, checkpoint_every=10**6)
            train_diffusion(shortened, data, self.classes, 0, self.device, on_step=on_step)

        return self._training(begin, settings.batch_size, settings)

    def _training(self, begin: Callable[[int, Callable[[int, Tensor], None]], None], batch: int, settings: Any) -> Choice:
        """Seconds of the first step and of a later one; of a smaller batch, scaled up, where the whole batch takes too long."""
        n, first, later = 0, 0.0, 0.0
        if settings.compile == "yes":
            # for one size of batch, the right one, or compiling would be timed more than once, or not at all
            torch.compiler.reset()
            n = batch
            first, later = self._step_times(begin, n)
        while n < batch and later * GROWTH * 2 < self.budget:
            n = min(batch, max(n * GROWTH, 2))
            first, later = self._step_times(begin, n)
        return Choice(settings.precision, settings.compile, max(first - later, 0.0), later * batch / n)

    def _step_times(self, begin: Callable[[int, Callable[[int, Tensor], None]], None], batch: int) -> tuple[float, float]:
        """Seconds of the first step and the median of the others, of which there are as many as the budget allows."""
        times = [time.perf_counter()]

        def on_step(step: int, _loss: Tensor) -> None:
            wait()
            times.append(time.perf_counter())
            spent = times[-1] - times[1]
            if len(times) > 2 and (spent > self.budget or step >= 40):
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            begin(batch, on_step)
        gaps = sorted(after - before for before, after in itertools.pairwise(times[1:]))
        return times[1] - times[0], gaps[len(gaps) // 2]

    def sampling(
        self, diffusion: DiffusionSettings, settings: GenerationSettings, methods: list[Method], encoder: str
    ) -> dict[str, tuple[float, float]]:
        """{method: (seconds of an image beyond its steps, seconds of an image and guided step)}; an unguided step is under "unguided"."""
        network: Any = sampler_network(diffusion, self.shape, self.classes, self.device, settings.compile)
        schedule = diffusion.noise_schedule()
        found: dict[str, tuple[float, float]] = {}
        plain = replace(settings, window=None, every=1, head=0)
        real = self.images(self.classes)  # as anchors; how many there are costs little beside the network
        x = real.x.to(self.device).float() / 127.5 - 1
        if network.null_label is None and any(method.kind == "classifier-free" for method in methods):
            raise ValueError("--methods classifier-free: this model has no label that stands for none; use one with label dropout")
        for method in [Method("unguided", "unguided"), *(m for m in methods if m.kind != "unguided")]:
            guidance = make_guidance(method, plain, self.classifier(encoder), x, real.y.to(self.device), 0)

            def sample(steps: int, n: int, method: Method = method, guidance: Any = guidance) -> float:
                labels = torch.arange(n) % self.classes
                chosen = replace(plain, steps=steps)
                sampler = Sampler(network, schedule, method, guidance, chosen, self.shape, self.classes, 0, self.device)
                return seconds(lambda: sampler.sample(labels, 0))

            n, once, thrice = 0, 0.0, 0.0
            while n < settings.batch_size and thrice * GROWTH < self.budget:
                n = min(settings.batch_size, max(n * GROWTH, 2))
                once, thrice = sample(SHORT, n), sample(3 * SHORT, n)
            a_step = max(thrice - once, 1e-9) / (2 * SHORT)
            found[method.label] = (max(once - SHORT * a_step, 0.0) / n, a_step / n)
        return found

    def attack_passes(self, network: str, batch: int) -> float:
        """Seconds of an image and step of PGD."""
        if (network, batch) in self.passes:
            return self.passes[network, batch]
        classifier = self.classifier(network).eval().requires_grad_(False)
        n, took = 0, 0.0
        while n < batch and took * GROWTH < self.budget:
            n = min(batch, max(n * GROWTH, 1))
            data = self.images(n)
            x, y = data.x.to(self.device).float() / 255, data.y.to(self.device)
            generator = torch.Generator(self.device).manual_seed(0)

            def attack(x: Tensor = x, y: Tensor = y, generator: torch.Generator = generator) -> Tensor:
                return pgd(classifier, x, y, self.threat, SHORT, 0.01, generator)

            seconds(attack)  # the first call prepares kernels and memory
            took = seconds(attack)
        self.passes[network, batch] = took / n / SHORT
        return self.passes[network, batch]

    def autoattack_parts(self, network: str, batch: int, chosen: Parts = "all") -> dict[str, float]:
        """{part: seconds of an image that withstands it}; a few iterations stand for all, with a radius that fools nobody.

        Put together from single passes where a few iterations would take too long.
        """
        classifier = self.classifier(network).eval().requires_grad_(False)
        a_pass = self.attack_passes(network, batch)
        found: dict[str, float] = {}
        for part in parts_for(self.classes, chosen):
            targets = min(9, self.classes - 1) if part.endswith("-t") else 1
            an_image = a_pass * PASSES[part] * targets
            whole, short = QUERIES.get(part, (ITERATIONS, SHORT))
            if an_image * 4 * 4 * short / whole > self.budget:
                found[part] = an_image
                continue
            n, took, spent = 0, 0.0, 0.0
            while n < batch and took * GROWTH < self.budget:  # few images take nearly as long as many on small networks
                n = min(batch, max(n * GROWTH, 4))
                begin = time.perf_counter()
                spent = self._short_attack(classifier, part, n)
                took = time.perf_counter() - begin
            found[part] = spent / n
        return found

    def _short_attack(self, classifier: nn.Module, part: str, n: int) -> float:
        """Seconds of a part on n images, all iterations."""
        data = self.images(n)
        x = data.x.to(self.device).float() / 255
        with torch.no_grad():
            y = cast(Tensor, classifier(x)).argmax(dim=1)
        attack = make_attack(classifier, x, replace(self.threat, eps=1e-6), self.classes, part, 0)
        whole, short = QUERIES.get(part, (ITERATIONS, SHORT))

        def shortened(iterations: int) -> float:
            attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = attack.square.n_queries = iterations
            return seconds(lambda: attack.run_standard_evaluation(x, y, batch_size=n))

        once, thrice = shortened(short), shortened(3 * short)
        an_iteration = max(thrice - once, 1e-9) / (2 * short)
        return once + (whole - short) * an_iteration


def sampler_network(diffusion: DiffusionSettings, shape: Shape, classes: int, device: torch.device, compiled: str) -> nn.Module:
    """A noise prediction with fresh weights, or the one that is to be loaded."""
    if diffusion.load is not None:
        labels = diffusion.class_labels or tuple(range(classes))  # the time is the same whichever they are
        network: Any = read_diffusion(replace(diffusion, class_labels=labels), None, classes, shape)[0]
    else:
        network = make_noise_prediction(diffusion, classes, shape, 0)
    return prepared_unet(network.to(device).eval().requires_grad_(False), compiled)


def _known(augmentation: str) -> Any:
    return "crop" if augmentation == "auto" else augmentation


def choose(
    probe: Probe, name: str, part: Any, diffusion: DiffusionSettings, encoder: str, synthetic: int, file: Path
) -> dict[str, str]:
    """{"precision", "compile"} with which a part of the run ends first, by measurement; writes what was tried to a csv file.

    name: "encoder", "classifier", "diffusion" or "generation"; part: its settings, with "auto" where there is a choice. encoder: its
    network. synthetic: images a method.
    """
    found: list[Choice] = []
    precisions = ("float32", "bfloat16") if part.precision == "auto" else (part.precision,)
    compilations = ("no", "yes") if part.compile == "auto" else (part.compile,)
    for precision, compiled in itertools.product(precisions, compilations):
        settings = replace(part, precision=precision, compile=compiled)
        if name == "generation":
            _, a_step = probe.sampling(diffusion, settings, [], encoder)["unguided"]
            steps = settings.steps * synthetic
            found.append(Choice(precision, compiled, COMPILING if compiled == "yes" else 0.0, a_step))
        else:
            found.append(probe.diffusion_step(settings) if name == "diffusion" else probe.classifier_step(settings))
            steps = settings.steps
    best = min(found, key=lambda choice: choice.total(steps))
    rows = [(c.precision, c.compile, c.start, c.step, c.total(steps)) for c in found]
    write_csv(file, ("precision", "compile", "start_seconds", "step_seconds", "total_seconds"), rows)
    return {"precision": best.precision, "compile": best.compile}


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call, kernels on the device included."""
    wait()
    begin = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - begin


def wait() -> None:
    """Until the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
