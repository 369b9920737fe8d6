"""Samples synthetic images with any solver and guidance of contrastive_dp. The noise depends on (seed, number of the image) alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierFeatures,
    ClassifierGuidance,
    ContrastiveGuidance,
    ContrastiveLoss,
    FeedbackGuidance,
    Guidance,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    OnUnitRange,
    ParticleGuidance,
    SampleNoise,
    SupervisedContrastive,
    autoguidance,
    boundary_distances,
    cads,
    classifier_free,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    embed_anchors,
    train_projection_head,
)
from contrastive_dp.randomness import mixed_seed
from image_experiments.data.dataset import Array
from image_experiments.data.images import Images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.models.precision import Compile, Precision, prepared, prepared_unet
from image_experiments.synthesis.methods import CONTRASTIVE, Method

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GenerationSettings:
    """Sampling and guidance; the guidance strength is part of the method."""

    solver: Literal["ddim", "ddpm", "dpm-solver++", "unipc"] = "ddim"
    """DDIM, ancestral sampling (ddpm), or a fast solver from diffusers."""
    steps: int = 25
    """Network evaluations per image."""
    eta: float = 0.0
    """Noise of DDIM: 0 is deterministic, 1 is ancestral."""
    initial_std: float = 1.0
    """Standard deviation of the initial noise; values above 1: hotter noise, a higher sampling temperature."""
    batch_size: int = 250
    """Images sampled together. InfoNCE, hard-negative, supervised and particle guidance compare them, so it affects the result."""
    window: tuple[int, int] | None = (0, 700)
    """Guide at timesteps low <= t < high; a scale auto tries `windows` instead."""
    label_error: float = 0.05
    """With scale auto: by how much guidance may raise the fraction of labels that the judge finds wrong, compared with unguided images."""
    windows: tuple[tuple[int, int], ...] = ((0, 400), (0, 700))
    """With scale auto: windows to try instead of window; the one with the most diverse images is used."""
    pilot: int = 500
    """With scale auto: images per trial, in whole batches. With 500, a label error of 5 % has a standard error of 1 %, differences less."""
    at: Literal["x0", "xt"] = "x0"
    """What the encoder sees: the denoised estimate (x0), or the noisy state as in the paper (xt)."""
    relative: bool = True
    """Take the scale as a fraction of the noise prediction's norm, per image; otherwise it is lambda itself."""
    every: int = 1
    """Guide every k-th step, k times as strongly."""
    temperature: float = 0.0
    """Temperature of the loss (0: the loss's own default)."""
    head: int = 0
    """Dimension of a projection head trained on the encoder's features before sampling (0: the features themselves; paper: 128)."""
    anchors: int = 1000
    """Use at most this many real images as anchors in anchored guidance."""
    negatives: Literal["all", "other", "same"] = "all"
    """With infonce: push an image away from all others of its batch, or from those of other classes, or of the same class, alone."""
    feedback: Literal["loss", "entropy", "margin"] = "loss"
    """With feedback: the encoder quantity to raise; margin: of another class over the image's own."""
    keep: float = 1.0
    """With feedback: a classifier not used in guidance protects a label whose probability is at most this (0: never)."""
    target: float = 1.0
    """With boundary: hold images at this distance from the encoder's decision boundary, as a fraction of the training images' mean (0: on
    it)."""
    repel: Literal["pixels", "features"] = "features"
    """With particle: space in which images of a class repel each other; features: the encoder's, of unit norm."""
    weaker: float = 0.2
    """With autoguidance: the weaker model is trained for this fraction of diffusion.steps."""
    precision: Precision = "float32"
    """float32; bfloat16: mixed precision; auto: whichever is faster, as measured at the start of the run."""
    compile: Compile = "no"
    """Use torch.compile, which first takes about a minute; auto: only if it pays off, as measured at the start of the run."""

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep={self.keep} is a probability: give a number in [0, 1]")
        if not 0 < self.weaker < 1:
            raise ValueError(f"weaker={self.weaker} must lie in (0, 1)")
        if not math.isfinite(self.target):
            raise ValueError(f"target={self.target} must be a finite number")
        for name in ("steps", "batch_size", "every", "anchors", "pilot"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} must lie in [0, 1]")
        if not 0 < self.label_error < 1:
            raise ValueError(f"label_error={self.label_error} must lie in (0, 1)")
        if not self.windows or not all(0 <= low < high for low, high in self.windows):
            raise ValueError(f"windows={self.windows} must hold pairs low high with 0 <= low < high")
        if not 0 < self.initial_std < math.inf:
            raise ValueError(f"initial_std={self.initial_std} must be a finite number > 0")
        if self.eta > 0 and self.solver != "ddim":
            raise ValueError(f"eta={self.eta} belongs to DDIM: leave it out with solver={self.solver}")
        if not 0 <= self.temperature < math.inf or self.head < 0:
            raise ValueError(f"temperature={self.temperature}, head={self.head}: must be >= 0")
        if self.every > self.steps:
            raise ValueError(f"every={self.every} is more than steps={self.steps}")


@dataclass(frozen=True, eq=False)
class Networks:
    """What images are sampled with. unet: the noise prediction; encoder: a classifier on [0, 1] that guides; judge: one that keeps labels
    in feedback; weaker: a weaker noise prediction. None for those that the method does not use. conditional: whether unet draws the class
    that is asked for."""

    unet: nn.Module
    schedule: NoiseSchedule
    encoder: nn.Module | None = None
    judge: nn.Module | None = None
    weaker: nn.Module | None = None
    conditional: bool = True

    def prepared(self, device: torch.device, compiled: str) -> Networks:
        """The same on a device, in the memory format that is fastest there."""
        encoder, judge = (None if n is None else prepared(n.to(device), "no") for n in (self.encoder, self.judge))
        unet = prepared_unet(self.unet.to(device), compiled)
        weaker = None if self.weaker is None else prepared_unet(self.weaker.to(device), compiled)
        return Networks(unet, self.schedule, encoder, judge, weaker, self.conditional)


def make_guidance(
    method: Method, settings: GenerationSettings, networks: Networks, x: Tensor, y: Tensor, seed: int
) -> Guidance | None:
    """The guidance of a method, None for "unguided" and for those that change the noise prediction itself.

    x: real training images (m, C, H, W), uint8 or in [-1, 1], with labels y, of which only sees_training_images makes use.
    """
    encoder = networks.encoder
    if encoder is None or not method.uses_encoder:
        return None
    common: dict[str, Any] = {
        "scale": method.scale,
        "window": settings.window,
        "at": settings.at,
        "relative": settings.relative,
        "every": settings.every,
        "reverse": method.reverse,
    }
    if method.kind == "classifier":
        return ClassifierGuidance(OnUnitRange(encoder), **common)
    if method.kind == "feedback":
        judge = OnUnitRange(networks.judge) if networks.judge is not None and settings.keep else None
        return FeedbackGuidance(OnUnitRange(encoder), judge=judge, what=settings.feedback, keep=settings.keep or 1.0, **common)
    if method.kind == "boundary":
        learner = OnUnitRange(encoder)
        usual = float(boundary_distances(learner, x, y, 500).mean())
        return BoundaryGuidance(learner, target=settings.target * usual, width=max(WIDTH * abs(usual), 1e-6), **common)
    embed: nn.Module = ClassifierFeatures(encoder)
    if _uses_head(method, settings):
        embed = nn.Sequential(embed, train_projection_head(embed, x, y, settings.head, seed=seed))
    if method.kind == "particle":
        features = nn.Sequential(embed, UnitNorm()) if settings.repel == "features" else None
        # without labels no class is drawn: the numbers that images go by do not say which of them are alike
        return ParticleGuidance(embed=features, same_class=networks.conditional, **common)
    return ContrastiveGuidance(embed, make_loss(method, settings, embed, x, y, seed), **common)


WIDTH = 0.1
"""Boundary guidance has full strength from this share of the training images' mean distance away from its target."""


class UnitNorm(nn.Module):
    """(n, k) -> rows of unit norm."""

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=1)


def make_loss(method: Method, settings: GenerationSettings, embed: Embed, x: Tensor, y: Tensor, seed: int) -> ContrastiveLoss:
    """The contrastive loss of a method."""
    warm: dict[str, Any] = {"temperature": settings.temperature} if settings.temperature else {}
    if method.kind == "infonce":
        return InfoNCE(negatives=settings.negatives, **warm)
    if method.kind == "hard-negative":
        return HardNegativeMining(**warm)
    if method.kind == "supervised":
        return SupervisedContrastive(**warm)
    if method.kind == "anchored":
        anchors = Images(x, y).some(settings.anchors, seed)
        return ClassAnchored(embed_anchors(embed, anchors.x), anchors.y, **warm)
    raise ValueError(f"{method.text} is no contrastive guidance")


@dataclass(frozen=True, eq=False)
class Sampler:
    """Generates the images of one method, batch by batch. shape: (C, H, W). classes: how many the data have; also the label for "no label".

    Image i of a set depends on (seed, i) and, if guidance compares images, on the other images of its batch.
    """

    networks: Networks
    method: Method
    guidance: Guidance | None
    settings: GenerationSettings
    shape: tuple[int, int, int]
    classes: int
    seed: int
    device: torch.device

    def numbered(self, batch: int, size: int, before: int = 0) -> tuple[Tensor, Tensor]:
        """(images, labels) number batch*size ... (batch+1)*size - 1 of a set with labels 0, 1, ..., K-1, 0, 1, ...; before: images of the
        same method that were made in earlier rounds, where the labels go on."""
        labels = torch.arange(before + batch * size, before + (batch + 1) * size) % self.classes
        return self.sample(labels, batch * size), labels

    def sample(self, labels: Tensor, first: int) -> Tensor:
        """Images uint8 (n, C, H, W) on the CPU. labels: (n,) classes to draw. first: number of the first image.

        Raises FloatingPointError naming the timestep and the term that became NaN.
        """
        settings, noise, schedule = self.settings, SampleNoise(self.seed, first), self.networks.schedule
        x_T = settings.initial_std * noise.normal_of((len(labels), *self.shape), device=self.device)
        predict = self._prediction(first)
        common: dict[str, Any] = {"labels": labels.to(self.device), "guidance": self.guidance, "clip": 1.0}
        if settings.solver == "ddim":
            drawn = noise if settings.eta else None
            x = ddim_sample(predict, x_T, schedule, settings.steps, eta=settings.eta, generator=drawn, **common)
        elif settings.solver == "ddpm":
            x = ddpm_sample(predict, x_T, schedule, settings.steps, generator=noise, **common)
        else:
            x = diffusers_sample(predict, x_T, make_solver(settings.solver, schedule), settings.steps, **common)
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()

    def aimed(self, method: Method, settings: GenerationSettings) -> Sampler:
        """The same with the scale of `method`, or without guidance if that has none, and the window of `settings`; what guides, which may
        have been trained on the real images, or measured on them, is not made again."""
        guidance: Any = self.guidance
        aimed = replace(guidance, scale=method.scale, window=settings.window) if method.uses_encoder else None
        return replace(self, method=method, settings=settings, guidance=aimed)

    def _prediction(self, first: int) -> Callable[..., Tensor]:
        """The noise prediction, changed if the method changes it."""
        networks, scale = self.networks, self.method.scale
        wrap: Callable[[Any], Any] = in_bfloat16 if self.settings.precision == "bfloat16" else lambda network: network
        unet = wrap(networks.unet)
        if self.method.kind == "classifier-free":
            return classifier_free(unet, scale, self.classes)
        if self.method.kind == "autoguidance":
            return autoguidance(unet, wrap(networks.weaker), scale)
        if self.method.kind == "cads":
            of: Any = networks.unet
            noise = SampleNoise(mixed_seed(self.seed, CADS), first)
            return cads(unet, of.unet.class_embedding, len(networks.schedule), noise, scale)
        return unet


CADS = 9
"""Sets the noise on labels apart from other random numbers of a seed."""


def sees_training_images(method: Method, settings: GenerationSettings) -> bool:
    """Whether a method's guidance looks at real images: for its anchors, its usual distance from the boundary, or a projection head."""
    return method.kind in ("anchored", "boundary") or _uses_head(method, settings)


def _uses_head(method: Method, settings: GenerationSettings) -> bool:
    return settings.head > 0 and (method.kind in CONTRASTIVE or (method.kind == "particle" and settings.repel == "features"))


def make_sampler(
    networks: Networks, method: Method, settings: GenerationSettings, real: SplitDataset, seed: int, device: torch.device
) -> Sampler:
    """The sampler of a method for these real images."""
    compiled = (
        "no" if method.kind == "cads" else settings.compile
    )  # a hook in a compiled network would compile it anew at every step
    networks = networks.prepared(device, compiled)
    used = len(real.train) if sees_training_images(method, settings) else 0
    x, y = real.train.x[:used].to(device), real.train.y[:used].to(device)
    guidance = make_guidance(method, settings, networks, x, y, seed)
    return Sampler(networks, method, guidance, settings, real.shape, len(real.classes), seed, device)


def in_bfloat16(network: nn.Module) -> Callable[..., Tensor]:
    """A noise prediction whose network runs in mixed precision; the sampler's own arithmetic is unchanged."""

    def predict(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return network(x, t, labels).to(x.dtype)

    return predict


def make_solver(solver: str, schedule: NoiseSchedule) -> Any:
    """A fast solver from diffusers, on our noise schedule (Lu et al. 2022; Zhao et al. 2023)."""
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    kind = DPMSolverMultistepScheduler if solver == "dpm-solver++" else UniPCMultistepScheduler
    return kind(num_train_timesteps=len(schedule), trained_betas=schedule.betas.numpy())


def noisy(pieces: Iterable[tuple[Array, Array]], std: float, seed: int) -> Iterator[tuple[Array, Array]]:
    """Add Gaussian noise of this standard deviation, on the [0, 1] scale, to pieces of uint8 images (n, H, W, C) with labels: the simple
    baseline for any guidance. The noise of an image does not depend on how the images are cut into pieces."""
    first = 0
    for images, labels in pieces:
        unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        changed = ((unit + std * SampleNoise(seed, first).normal(unit)).clamp(0, 1) * 255).round().to(torch.uint8)
        yield changed.permute(0, 2, 3, 1).numpy(), labels
        first += len(labels)
