"""What guidance costs, as ratios of times measured side by side in one run.

    python benchmarks/bench_guidance.py [--images 16] [--repeats 5] [--device cuda] [--only-floor]

1. One guidance evaluation with a WRN-28-10-shaped encoder against the naive form of the public code: both states encoded with graph,
   parameters not frozen, backward through everything. Gradients are compared.
2. A guided sampling step, less its U-Net evaluation, against the floor: its networks forward and backward to the input once. With a large
   encoder, and with the small one of the digits, where the rest of a step weighs most.
3. A whole guided step of the digits, its U-Net and 250 images as in the preset `cpu`, against its networks alone.
4. Bytes held after few and after many steps. 5. Guiding every k-th step. 6. Import time beyond torch.
"""

from __future__ import annotations

import copy
import gc
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierFeatures,
    ClassifierGuidance,
    ContrastiveGuidance,
    FeedbackGuidance,
    Guidance,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    ParticleGuidance,
    SupervisedContrastive,
    autoguidance,
    ddim_sample,
    frozen,
)
from image_experiments.engine.calibration import seconds as seconds_of
from image_experiments.engine.cost import MAXRSS_BYTES
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.unet import UNetSettings, make_noise_prediction


@dataclass(frozen=True)
class Settings:
    """Size of the measurement."""

    images: int = 256 if torch.cuda.is_available() else 16
    """Batch size, 32x32 RGB."""
    repeats: int = 5
    """Measurements of each kind, taken in turn; medians are reported."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where everything is measured."""
    only_floor: bool = False
    """Only what a step of each guidance costs over its networks."""


class WideResNet(nn.Module):
    """The shape of WRN-28-10 with SiLU (Zagoruyko, Komodakis 2016): 36 M parameters, 640 penultimate features. Weights are random."""

    def __init__(self, depth: int = 28, widen: int = 10, classes: int = 10) -> None:
        super().__init__()
        blocks, widths = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        for i in range(3):
            for j in range(blocks):
                layers.append(_Residual(widths[i] if j == 0 else widths[i + 1], widths[i + 1], 2 if i and j == 0 else 1))
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(widths[3]), nn.SiLU())
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.body(x).mean(dim=(2, 3)))
        return out


class _Residual(nn.Module):
    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(width_in), nn.SiLU())
        self.second = nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width_out),
            nn.SiLU(),
            nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False),
        )
        self.short = nn.Conv2d(width_in, width_out, 1, stride, bias=False) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        out: Tensor = self.second(active) + (x if self.short is None else self.short(active))
        return out


def medians(jobs: dict[str, Callable[[], Any]], settings: Settings) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(settings.repeats):
        for name, job in jobs.items():
            times[name].append(seconds_of(job, torch.device(settings.device)))
    return {name: float(np.median(values)) for name, values in times.items()}


def compare_with_naive(settings: Settings, classifier: WideResNet, schedule: NoiseSchedule) -> None:
    naive, ours, _ = both_forms(settings.images, classifier, schedule)
    seconds = medians({"naive": naive, "ours": ours}, settings)
    ratio = seconds["naive"] / seconds["ours"]
    # in double precision, where rounding does not hide a difference; in single precision the two differ by about 1e-5
    naive, ours, eps = both_forms(2, copy.deepcopy(classifier).double(), schedule)
    left, right = naive(), ours()
    error = float((left - right).abs().max() / (left - eps).abs().max())
    print(f"guidance, {settings.images} images: naive {seconds['naive']:.2f} s / ours {seconds['ours']:.2f} s = {ratio:.2f}; "
          f"gradients differ by {error:.1e}")  # fmt: skip


def both_forms(
    images: int, classifier: WideResNet, schedule: NoiseSchedule
) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Tensor]:
    """One guidance evaluation, naive and ours, on the same states; and the noise prediction that they add to."""
    weight, generator = classifier.fc.weight, torch.Generator().manual_seed(0)
    x, eps, x_before, eps_before = (torch.randn(images, 3, 32, 32, generator=generator).to(weight) for _ in range(4))
    embed, loss, t, t_before = ClassifierFeatures(classifier), InfoNCE(), 400, 420
    a, b = schedule[t], schedule[t_before]

    def denoised(state: Tensor, noise: Tensor, level: float) -> Tensor:
        return (state - math.sqrt(1 - level) * noise) / math.sqrt(level)

    def naive() -> Tensor:
        classifier.zero_grad()
        leaf = denoised(x, eps, a).requires_grad_()
        features = [
            classifier.body((v + 1) / 2).mean(dim=(2, 3)) for v in (leaf, denoised(x_before, eps_before, b).requires_grad_())
        ]
        z, previous = (F.normalize(f, dim=1) for f in features)
        logits = z @ previous.T / loss.temperature
        F.cross_entropy(logits, torch.arange(len(z), device=z.device), reduction="sum").backward()
        assert leaf.grad is not None
        return eps + math.sqrt((1 - a) / a) * leaf.grad

    guide = ContrastiveGuidance(embed, loss, 1.0).start(schedule)
    guide(x_before, t_before, eps_before)
    kept = guide.kept

    def ours() -> Tensor:
        guide.kept = kept
        return guide(x, t, eps)

    return naive, ours, eps


def compare_with_floor(settings: Settings, classifier: nn.Module, x_T: Tensor, schedule: NoiseSchedule) -> None:
    """Every guidance with networks of its own: a step beyond its U-Net over one forward and one backward pass of these to the input."""
    x_T, classifier = x_T.to(settings.device), classifier.to(settings.device)
    embed, steps = ClassifierFeatures(classifier), [420, 410, 400, 390]
    labels = torch.arange(len(x_T), device=x_T.device) % min(10, max(len(x_T) // 2, 1))  # every class twice or more
    network = nn.Conv2d(3, 3, 3, padding=1).to(x_T.device).requires_grad_(False)  # a U-Net of next to no cost

    def predict(x: Tensor, _t: Tensor, _labels: Tensor) -> Tensor:
        out: Tensor = network(x)
        return out

    def weaker(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return predict(x, t, labels) + 0 * _forward(classifier, x)[:, :1, None, None]

    def floor() -> Tensor:
        leaf = x_T.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(embed(leaf).sum(), leaf)
        return gradient

    guidances = guidances_of(classifier, embed, x_T)
    sample = partial(ddim_sample, x_T=x_T, schedule=schedule, steps=steps, labels=labels)
    jobs: dict[str, Callable[[], Any]] = {
        "floor": floor,
        "forward": lambda: _forward(embed, x_T),
        "plain": partial(sample, predict),
    }
    jobs |= {name: partial(sample, predict, guidance=guidance) for name, (guidance, _) in guidances.items()}
    jobs["autoguidance"] = partial(sample, autoguidance(predict, weaker, 0.5))
    seconds = medians(jobs, settings)
    told = f"{type(classifier).__name__}, {len(x_T)} images of {x_T.shape[2]}x{x_T.shape[3]}"
    for name, (guidance, networks) in guidances.items():
        first = seconds["forward"] if guidance.window else 0.0
        per_step = (seconds[name] - seconds["plain"] - first) / (3 if guidance.window else 4)
        cost = networks * seconds["floor"]
        ratio = f"{networks} network forward and backward to the input {1e3 * cost:.1f} ms = {per_step / cost:.3f}" if networks else (
            f"{per_step / seconds['floor']:.3f} of a network forward and backward")  # fmt: skip
        print(f"{told}: {name}: a guided step beyond its U-Net {1e3 * per_step:.1f} ms / {ratio}")
    per_step = (seconds["autoguidance"] - seconds["plain"]) / len(steps)
    print(f"{told}: autoguidance: a step beyond its U-Net {1e3 * per_step:.1f} ms / the weaker network forward "
          f"{1e3 * seconds['forward']:.1f} ms = {per_step / seconds['forward']:.3f}")  # fmt: skip


def whole_steps(settings: Settings, classifier: nn.Module, x_T: Tensor) -> None:
    """Every guided step with its U-Net over the U-Net forward and the networks of the guidance forward and backward to the input."""
    x_T, classifier = x_T.to(settings.device), classifier.to(settings.device)
    embed, labels, steps = ClassifierFeatures(classifier), torch.arange(len(x_T), device=x_T.device) % 10, [420, 410, 400, 390]
    shape = (x_T.shape[1], x_T.shape[2], x_T.shape[3])
    unet = (
        make_noise_prediction(UNetSettings(channels=(24, 48), blocks=1, attention=()), 10, shape, seed=0).eval().to(settings.device)
    )

    def network_alone() -> None:
        leaf = x_T.clone().requires_grad_()
        torch.autograd.grad(embed(leaf).sum(), leaf)

    guidances = guidances_of(classifier, embed, x_T)
    sample = partial(ddim_sample, unet, x_T, NoiseSchedule.cosine(), steps, labels)
    jobs: dict[str, Callable[[], Any]] = {name: partial(sample, guidance=guidance) for name, (guidance, _) in guidances.items()}
    seconds = medians(jobs | {"unguided": sample, "network": network_alone}, settings)
    for name, (guidance, networks) in guidances.items():
        passes = networks * (3 if guidance.window else 4)
        cost = seconds["unguided"] + passes * seconds["network"]
        print(f"digits, {len(x_T)} images, with the U-Net: {name}: {len(steps)} steps, {passes} passes of networks "
              f"{1e3 * seconds[name]:.0f} ms / networks {1e3 * cost:.0f} ms = {seconds[name] / cost:.3f}")  # fmt: skip


def guidances_of(classifier: nn.Module, embed: ClassifierFeatures, x_T: Tensor) -> dict[str, tuple[Guidance, int]]:
    """Each guidance, and how many networks it sends forward and back."""
    judge, learner = frozen(classifier), frozen(classifier)
    anchors = torch.randn(200, embed(x_T[:1]).shape[1], generator=torch.Generator().manual_seed(1)).to(x_T.device)
    of_anchors = torch.arange(200, device=x_T.device) % 10
    return {
        # the step at 420 lies before the window and is encoded once, forward only: three guided steps and a third of a floor
        "InfoNCE": (ContrastiveGuidance(embed, InfoNCE(), 0.01, window=(0, 420)), 1),
        "hard negatives": (ContrastiveGuidance(embed, HardNegativeMining(), 0.01, window=(0, 420)), 1),
        "supervised": (ContrastiveGuidance(embed, SupervisedContrastive(), 0.01), 1),
        "class-anchored": (ContrastiveGuidance(embed, ClassAnchored(F.normalize(anchors, dim=1), of_anchors), 0.01), 1),
        "classifier": (ClassifierGuidance(learner, 0.01), 1),
        "boundary": (BoundaryGuidance(learner, 0.01), 1),
        "particle, in pixels": (ParticleGuidance(0.01), 0),
        "particle, in features": (ParticleGuidance(0.01, embed), 1),
        "feedback": (FeedbackGuidance(learner, 0.01), 1),
        "feedback with a judge": (FeedbackGuidance(learner, 0.01, judge), 2),
    }


@torch.no_grad()
def _forward(network: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = network(x)
    return out


def memory_against_steps(schedule: NoiseSchedule) -> None:
    """Largest number of tensor bytes alive during a guided run of few and of many steps, and the process's peak before and after."""
    weight = torch.randn(3 * 32 * 32, 64, generator=torch.Generator().manual_seed(0)) / 50
    guidance = ContrastiveGuidance(lambda x: torch.tanh(x.flatten(1) @ weight), InfoNCE(), 0.01)
    x_T = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    peaks, resident = [], []
    for steps in (10, 100):
        held: list[int] = []

        def look(t: int, x: Tensor, held: list[int] = held) -> None:
            if len(held) < 10 or t < 20:
                gc.collect()
                held.append(sum(o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is Tensor))

        ddim_sample(lambda x, t: x * 0.1, x_T, schedule, steps, guidance=guidance, on_step=look)
        peaks.append(max(held) / 2**20)
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES / 2**20)
    print(f"memory: tensors alive after 10 steps {peaks[0]:.1f} MiB, after 100 steps {peaks[1]:.1f} MiB; peak resident grew by "
          f"{resident[1] - resident[0]:.1f} MiB")  # fmt: skip


def every_k(settings: Settings, classifier: WideResNet, schedule: NoiseSchedule) -> None:
    embed = ClassifierFeatures(classifier)
    x_T = torch.randn(max(settings.images // 4, 2), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    jobs: dict[str, Callable[[], Any]] = {}
    for k in (1, 2, 5):
        guidance = ContrastiveGuidance(embed, InfoNCE(), 0.01, every=k)
        jobs[str(k)] = partial(ddim_sample, lambda x, t: x * 0.1, x_T.to(settings.device), schedule, 11, guidance=guidance)
    seconds = medians(jobs, replace(settings, repeats=max(settings.repeats // 2, 1)))
    print("guiding every 2nd and 5th step costs " + " and ".join(f"{seconds[k] / seconds['1']:.2f}" for k in ("2", "5")) + " of every step "
          "(what it does to the result: results/guided_diffusion/prediction.csv)")  # fmt: skip


def import_time(repeats: int) -> None:
    probe = "import time, torch; begin = time.perf_counter(); import contrastive_dp; print(time.perf_counter() - begin)"
    root = Path(__file__).resolve().parents[1]
    runs = [
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=root) for _ in range(repeats)
    ]
    print(f"import contrastive_dp beyond torch: {np.median([float(run.stdout) for run in runs]):.3f} s")


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    torch.manual_seed(0)
    classifier, schedule = WideResNet().eval().to(settings.device), NoiseSchedule.linear()
    print(f"encoder: {sum(p.numel() for p in classifier.parameters()) / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    small = make_classifier("small-cnn", 10, (3, 8, 8), [0.5] * 3, [0.25] * 3).eval()
    compare_with_floor(settings, classifier, torch.randn(settings.images, 3, 32, 32), schedule)
    compare_with_floor(settings, small, torch.randn(500, 3, 8, 8), schedule)
    whole_steps(settings, small, torch.randn(250, 3, 8, 8))
    if settings.only_floor:
        return
    import_time(settings.repeats)
    compare_with_naive(settings, classifier, schedule)
    every_k(settings, classifier, schedule)
    memory_against_steps(schedule)


if __name__ == "__main__":
    main()
