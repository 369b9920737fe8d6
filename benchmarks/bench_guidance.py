"""What guidance costs, as ratios of times measured side by side in one run.

    python benchmarks/bench_guidance.py [--images 16] [--repeats 5]

1. One guidance evaluation with a WRN-28-10-shaped encoder against the naive form of the public code: both states encoded with graph,
   parameters not frozen, backward through everything. Gradients are compared.
2. A guided sampling step, less its U-Net evaluation, against the floor: its networks forward and backward to the input once.
3. Bytes held after few and after many steps. 4. Guiding every k-th step. 5. Import time beyond torch.
"""

from __future__ import annotations

import copy
import gc
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    ddim_sample,
    frozen,
)


@dataclass(frozen=True)
class Settings:
    """Size of the measurement."""

    images: int = 16
    """Batch size, 32x32 RGB."""
    repeats: int = 5
    """Measurements of each kind, taken in turn; medians are reported."""


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


def medians(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values)) for name, values in times.items()}


def compare_with_naive(settings: Settings, classifier: WideResNet, schedule: NoiseSchedule) -> None:
    naive, ours, _ = both_forms(settings.images, classifier, schedule)
    seconds = medians({"naive": naive, "ours": ours}, settings.repeats)
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
    dtype, generator = classifier.fc.weight.dtype, torch.Generator().manual_seed(0)
    x, eps, x_before, eps_before = (torch.randn(images, 3, 32, 32, generator=generator).to(dtype) for _ in range(4))
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
        F.cross_entropy(logits, torch.arange(len(z)), reduction="sum").backward()
        assert leaf.grad is not None
        return eps + math.sqrt((1 - a) / a) * leaf.grad

    guide = ContrastiveGuidance(embed, loss, 1.0).start(schedule)
    guide(x_before, t_before, eps_before)
    kept = guide.embedding

    def ours() -> Tensor:
        guide.embedding = kept
        return guide(x, t, eps)

    return naive, ours, eps


def compare_with_floor(settings: Settings, classifier: WideResNet, schedule: NoiseSchedule) -> None:
    """Every guidance with networks of its own: a step beyond its U-Net over one forward and one backward pass of these to the input."""
    embed, judge = ClassifierFeatures(classifier), copy.deepcopy(classifier).requires_grad_(False)
    learner, generator = frozen(classifier), torch.Generator().manual_seed(1)
    anchors = F.normalize(torch.randn(200, 640, generator=generator), dim=1)
    network = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)  # a U-Net of next to no cost
    x_T = torch.randn(settings.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, steps = torch.arange(settings.images) % 10, [420, 410, 400, 390]

    def predict(x: Tensor, _t: Tensor, _labels: Tensor) -> Tensor:
        out: Tensor = network(x)
        return out

    def floor() -> Tensor:
        leaf = x_T.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(embed(leaf).sum(), leaf)
        return gradient

    guidances: dict[str, tuple[Guidance, int]] = {
        # the step at 420 lies before the window and is encoded once, forward only: three guided steps and a third of a floor
        "InfoNCE": (ContrastiveGuidance(embed, InfoNCE(), 0.01, window=(0, 420)), 1),
        "hard negatives": (ContrastiveGuidance(embed, HardNegativeMining(), 0.01, window=(0, 420)), 1),
        "supervised": (ContrastiveGuidance(embed, SupervisedContrastive(), 0.01), 1),
        "class-anchored": (ContrastiveGuidance(embed, ClassAnchored(anchors, torch.arange(200) % 10), 0.01), 1),
        "classifier": (ClassifierGuidance(learner, 0.01), 1),
        "boundary": (BoundaryGuidance(learner, 0.01), 1),
        "particle, in features": (ParticleGuidance(0.01, embed), 1),
        "feedback": (FeedbackGuidance(learner, 0.01), 1),
        "feedback with a judge": (FeedbackGuidance(learner, 0.01, judge), 2),
    }
    jobs: dict[str, Callable[[], Any]] = {"floor": floor, "forward": lambda: _forward(embed, x_T)}
    jobs["plain"] = partial(ddim_sample, predict, x_T, schedule, steps, labels)
    for name, (guidance, _) in guidances.items():
        jobs[name] = partial(ddim_sample, predict, x_T, schedule, steps, labels, guidance=guidance)
    seconds = medians(jobs, settings.repeats)
    for name, (guidance, networks) in guidances.items():
        first = seconds["forward"] if guidance.window else 0.0
        per_step = (seconds[name] - seconds["plain"] - first) / (3 if guidance.window else 4)
        print(f"{name}: a guided step beyond its U-Net {per_step:.3f} s / {networks} network forward and backward to the input "
              f"{networks * seconds['floor']:.3f} s = {per_step / seconds['floor'] / networks:.3f}")  # fmt: skip


@torch.no_grad()
def _forward(embed: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = embed(x)
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
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    print(f"memory: tensors alive after 10 steps {peaks[0]:.1f} MiB, after 100 steps {peaks[1]:.1f} MiB; peak resident grew by "
          f"{resident[1] - resident[0]:.1f} MiB")  # fmt: skip


def every_k(settings: Settings, classifier: WideResNet, schedule: NoiseSchedule) -> None:
    embed = ClassifierFeatures(classifier)
    x_T = torch.randn(max(settings.images // 4, 2), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    jobs: dict[str, Callable[[], Any]] = {}
    for k in (1, 2, 5):
        guidance = ContrastiveGuidance(embed, InfoNCE(), 0.01, every=k)
        jobs[str(k)] = partial(ddim_sample, lambda x, t: x * 0.1, x_T, schedule, 11, guidance=guidance)
    seconds = medians(jobs, max(settings.repeats // 2, 1))
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
    classifier, schedule = WideResNet().eval(), NoiseSchedule.linear()
    print(f"encoder: {sum(p.numel() for p in classifier.parameters()) / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    import_time(settings.repeats)
    compare_with_naive(settings, classifier, schedule)
    compare_with_floor(settings, classifier, schedule)
    every_k(settings, classifier, schedule)
    memory_against_steps(schedule)


if __name__ == "__main__":
    main()
