"""Speed on images, beside straightforward loops in the style of the public codes, as ratios measured in one run: `make bench`.

    python benchmarks/bench_images.py [--seconds 4] [--repeats 2]

Each loop runs in a fresh process, on a GPU in this one; a row is printed when it is measured. "ratio": ours over the straightforward loop,
each one process with a thread a core: what somebody who waits for one network gains. "sweep": ours as run_cifar.py uses a CPU for several
methods or seeds, a process of one thread per core, each training its own network; images per second are added up. On a GPU both are one
process, sizes are those of the preset cifar10-gpu, and no file of 10^7 images is read. There the straightforward loops have torch's own
settings, and ours those of the preset: TensorFloat-32 and cuDNN's search in training and sampling. Evaluation is in full float32.
"share": arithmetic done, as torch counts it, over what matrix products or a wide convolution of the same precision reach on as many
processes and threads, whichever is more.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from command_line.cluster import usable_cores
from contrastive_dp import NoiseSchedule
from image_experiments.data.images import Images
from image_experiments.data.npz_files import ImageFile, stream_images
from image_experiments.engine.calibration import EnoughError, sampler_network, wait
from image_experiments.engine.presets import cifar10_gpu
from image_experiments.engine.scheduler import on_all
from image_experiments.models.classifiers import Normalised, make_classifier
from image_experiments.models.precision import Precision, gpu_arithmetic, prepared
from image_experiments.models.unet import make_unet
from image_experiments.synthesis.generation import GenerationSettings, Networks, Sampler, make_guidance
from image_experiments.synthesis.methods import parse_method
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.attacks import Threat, pgd
from image_experiments.training.diffusion_training import DiffusionSettings, train_diffusion

CLASSES, PRODUCT, LARGE_PRODUCT = 10, 1536, 8192
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CORES = 1 if DEVICE.type == "cuda" else usable_cores()
WAITS = 10 if DEVICE.type == "cuda" else 1
"""Training steps after which a measurement waits for the device: as in a run, what the host prepares meanwhile costs nothing."""
THREAT = Threat("linf", 8 / 255)
Shape = tuple[int, int, int]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
FULL = "full float32"


@dataclass(frozen=True)
class Settings:
    """Size of the measurement."""

    seconds: float = 4.0
    """Length of each measurement."""
    repeats: int = 2
    """Measurements of each kind, taken in turn; the best of each is reported."""


def rate(step: Callable[[], Any], images: int, length: float) -> float:
    """Images per second of a step, after one that is not counted."""
    step()
    wait(DEVICE)
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < length or done == 0:
        step()
        done += 1
        wait(DEVICE)
    return done * images / (time.perf_counter() - begin)


def random_images(n: int, shape: Shape) -> Images:
    x = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(x, torch.arange(n) % CLASSES)


def classifier(network: str, shape: Shape) -> Normalised:
    return make_classifier(network, CLASSES, shape, [0.5] * shape[0], [0.25] * shape[0]).to(DEVICE)


# The straightforward loops: what the public codes do, line by line, without their data loaders, which would only slow them.


def plain_unet(settings: DiffusionSettings, shape: Shape, length: float) -> float:
    """Ho et al.'s loop: noise, mean squared error, clipping, Adam, an average parameter by parameter, the loss printed."""
    unet = make_unet(settings, CLASSES, shape, 0).to(DEVICE)
    average = {name: p.detach().clone() for name, p in unet.named_parameters()}
    optimiser, schedule = torch.optim.Adam(unet.parameters(), 2e-4), NoiseSchedule.cosine(1000)
    data, batch = random_images(512, shape), settings.batch_size

    def step() -> float:
        index = torch.randint(len(data), (batch,))
        x, y = data.x[index].to(DEVICE).float() / 127.5 - 1, data.y[index].to(DEVICE)
        t, noise = torch.randint(1000, (batch,), device=DEVICE), torch.randn_like(x)
        loss = F.mse_loss(unet(schedule.add_noise(x, t, noise), t, class_labels=y).sample, noise)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for name, p in unet.named_parameters():
                average[name].mul_(0.999).add_(p, alpha=0.001)
        return loss.item()

    return rate(step, batch, length)


def plain_pgd(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """PGD as Rice, Wong, Kolter (2020) write it: loss.backward(), whose gradients of the weights nobody reads."""
    delta = torch.zeros_like(x).uniform_(-THREAT.eps, THREAT.eps).requires_grad_()
    for _ in range(steps):
        F.cross_entropy(network((x + delta).clamp(0, 1)), y).backward()
        assert delta.grad is not None
        delta.data = (delta + THREAT.eps / 4 * delta.grad.sign()).clamp(-THREAT.eps, THREAT.eps).detach()
        delta.grad.zero_()
    return (x + delta.detach()).clamp(0, 1)


def plain_adversarial(settings: ClassifierSettings, shape: Shape, length: float) -> float:
    """Adversarial training of the same public code."""
    network = classifier(settings.network, shape)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    data, batch = random_images(512, shape), settings.batch_size

    def step() -> float:
        index = torch.randint(len(data), (batch,))
        x, y = data.x[index].to(DEVICE).float() / 255, data.y[index].to(DEVICE)
        network.train()
        attacked = plain_pgd(network, x, y, settings.attack_steps)
        loss = F.cross_entropy(network(attacked), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return rate(step, batch, length)


def plain_attack(network: str, shape: Shape, length: float) -> float:
    """PGD-20 on test images."""
    attacked, data = classifier(network, shape).eval(), random_images(250, shape)
    x, y = data.x.to(DEVICE).float() / 255, data.y.to(DEVICE)
    with gpu_arithmetic(tf32=False):  # as ours
        return rate(lambda: plain_pgd(attacked, x, y, 20), 250, length)


# Ours.


def timed_steps(begin: Callable[[Callable[..., None]], Any], batch: int, length: float) -> float:
    """Images per second of one of our training loops, after two steps (on a GPU 20) that are not counted."""
    times: list[float] = []
    done = 0

    def on_step(*_: Any) -> None:
        nonlocal done
        done += 1
        if done % WAITS:
            return
        wait(DEVICE)
        times.append(time.perf_counter())
        if len(times) > 2 and times[-1] - times[1] > length:
            raise EnoughError

    with contextlib.suppress(EnoughError), gpu_arithmetic(tf32=True, cudnn_benchmark=True):  # as the presets for a GPU
        begin(on_step)
    return (len(times) - 2) * WAITS * batch / (times[-1] - times[1])


def our_unet(settings: DiffusionSettings, shape: Shape, length: float) -> float:
    data, endless = random_images(512, shape), replace(settings, steps=10**6, checkpoint_every=10**6)

    def begin(on_step: Callable[..., None]) -> None:
        train_diffusion(endless, data, CLASSES, 0, DEVICE, on_step=on_step)

    return timed_steps(begin, settings.batch_size, length)


def our_adversarial(settings: ClassifierSettings, shape: Shape, length: float, file: Path | None = None) -> float:
    endless = replace(settings, steps=10**6, validate_every=10**6, checkpoint_every=10**6, augmentation="none")
    synthetic = None if file is None else Images.mapped(ImageFile(file, CLASSES, (shape[1], shape[2], shape[0])))
    network, data = classifier(settings.network, shape), random_images(512, shape)

    def begin(on_step: Callable[..., None]) -> None:
        train_classifier(network, TrainingImages(data, CLASSES, synthetic), THREAT, endless, 0, on_step=on_step)

    return timed_steps(begin, settings.batch_size, length)


def our_attack(network: str, shape: Shape, length: float) -> float:
    attacked = prepared(classifier(network, shape), "no").eval().requires_grad_(False)
    data, generator = random_images(250, shape), torch.Generator(DEVICE).manual_seed(0)
    x, y = data.x.to(DEVICE).float() / 255, data.y.to(DEVICE)
    with gpu_arithmetic(tf32=False):  # as evaluations are
        return rate(lambda: pgd(attacked, x, y, THREAT, 20, THREAT.eps / 4, generator), 250, length)


def sampler_of(
    diffusion: DiffusionSettings, shape: Shape, encoder_network: str, method: str, settings: GenerationSettings
) -> Sampler:
    """A sampler with fresh networks, guided, where there is guidance, by features of a classifier."""
    network, schedule = sampler_network(diffusion, shape, CLASSES, DEVICE, "no")
    chosen, data = parse_method(method), random_images(CLASSES, shape)
    encoder, x = prepared(classifier(encoder_network, shape), "no"), data.x.to(DEVICE).float() / 127.5 - 1
    networks = Networks(network, schedule, encoder)
    guidance = make_guidance(chosen, settings, networks, x, data.y.to(DEVICE), 0)
    return Sampler(networks, chosen, guidance, settings, shape, CLASSES, 0, DEVICE)


def our_sampling(
    diffusion: DiffusionSettings, shape: Shape, encoder_network: str, method: str, batch: int, precision: Precision, length: float
) -> float:
    """Images per second with 10 steps of DDIM, all of them guided, where there is guidance."""
    settings = GenerationSettings(steps=10, batch_size=batch, window=None, precision=precision)
    sampler, labels = sampler_of(diffusion, shape, encoder_network, method, settings), torch.arange(batch) % CLASSES
    with gpu_arithmetic(tf32=True, cudnn_benchmark=True):
        return rate(lambda: sampler.sample(labels, 0), batch, length)


@torch.no_grad()
def flops_per_second(precision: str, length: float) -> float:
    """The measured ceiling: of a product of square matrices or of a wide convolution, whichever is faster here. "float32" may use
    TensorFloat-32 on a GPU, "full float32" not."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # on a GPU large and several at once: a small or single one would measure how long it takes to begin
    side, count, times = (PRODUCT, 16, 1) if DEVICE.type == "cpu" else (LARGE_PRODUCT, 512, 10)
    a, b = (torch.randn(side, side, device=DEVICE).to(kind) for _ in range(2))
    x, weights = torch.randn(count, 256, 32, 32, device=DEVICE).to(kind), torch.randn(256, 256, 3, 3, device=DEVICE).to(kind)
    x, weights = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weights))

    def repeated(work: Callable[[], Any]) -> None:
        for _ in range(times):
            work()

    with gpu_arithmetic(tf32=precision != FULL, cudnn_benchmark=True):
        products = rate(lambda: repeated(lambda: a @ b), times, length / 2) * 2 * side**3
        convolutions = rate(lambda: repeated(lambda: F.conv2d(x, weights, padding=1)), times, length / 2)
    return max(products, convolutions * 2 * len(x) * 32 * 32 * 256 * 256 * 9)


def flops(work: Callable[[], Any], images: int) -> float:
    """Arithmetic an image of a piece of work, as torch counts it."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / images


def flops_of_unet(settings: DiffusionSettings, shape: Shape, training: bool) -> float:
    unet = make_unet(settings, CLASSES, shape, 0)
    x, t, y = torch.zeros(2, *shape), torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    if training:
        return flops(lambda: unet(x, t, class_labels=y).sample.sum().backward(), 2)
    with torch.no_grad():
        return flops(lambda: unet(x, t, class_labels=y), 2)


def flops_of_attack(network: str, shape: Shape, steps: int, training: bool) -> float:
    """Of PGD, a forward pass and as much for the gradient a step, and of a training step after it, three times a forward pass."""
    attacked = make_classifier(network, CLASSES, shape, [0.5] * shape[0], [0.25] * shape[0])
    with torch.no_grad():
        forward = flops(lambda: attacked(torch.rand(2, *shape)), 2)
    return forward * (2 * steps + 3 * training)


def alone(function: Callable[..., float], *arguments: Any) -> float:
    """function(*arguments) in a fresh process with a thread a core; on a GPU here, as a process takes seconds to begin there."""
    if DEVICE.type == "cuda":
        found = function(*arguments)
        torch.cuda.empty_cache()
        return found
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (CORES,)) as pool:
        return pool.submit(function, *arguments).result()


def on_all_cores(function: Callable[..., float], *arguments: Any) -> float:
    """The sum over as many processes of one thread as there are cores."""
    return sum(on_all(CORES, 1, function, *arguments)) if CORES > 1 else alone(function, *arguments)


def best(settings: Settings, call: Callable[..., float], *arguments: Any) -> float:
    return max(call(*arguments, settings.seconds) for _ in range(settings.repeats))


FAILED: list[str] = []
"""Why measurements failed: the other rows are worth having, and the exit status says that some are missing."""


def attempted(name: str, call: Callable[..., float], *arguments: Any) -> float:
    """call(*arguments), or nan where it fails, whatever the reason, which is noted."""
    try:
        return call(*arguments)
    except Exception as error:
        FAILED.append(f"failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        print(f"{name}: {FAILED[-1]}", file=sys.stderr, flush=True)
        return math.nan


def compared(
    settings: Settings, name: str, theirs: float, share: float, call: Callable[..., float], *arguments: Any
) -> tuple[str, ...]:
    """A row of the table; of a measurement that fails, why. theirs: images per second of the straightforward loop (nan: there is none).
    share: of the ceiling, for ours at an image per second."""
    one = attempted(name, best, settings, alone, call, *arguments)
    if math.isnan(one):
        return (name, FAILED[-1])
    several = best(settings, on_all_cores, call, *arguments) if CORES > 1 else one
    known = not math.isnan(theirs)
    ratios = [f"{ours / theirs:.2f}" if known else "" for ours in (one, several)]
    return (name, f"{theirs:.0f}" if known else "", f"{one:.0f}", ratios[0], f"{several:.0f}", ratios[1], f"{several * share:.0%}")


UNETS: list[tuple[Shape, DiffusionSettings]] = [
    ((1, 8, 8), DiffusionSettings(channels=(24, 48))),
    ((3, 32, 32), DiffusionSettings(channels=(32, 64), batch_size=32)),
]
LEARNERS: list[tuple[Shape, str, int]] = [
    ((1, 8, 8), "small-cnn", 128),
    ((3, 32, 32), "small-cnn", 128),
    ((3, 32, 32), "wrn-16-4", 16),
]
SAMPLED, ENCODER = 64, "small-cnn"
if DEVICE.type == "cuda":
    GPU = cifar10_gpu()
    UNETS = [((3, 32, 32), replace(GPU.diffusion, compile="no"))]
    LEARNERS = [((3, 32, 32), GPU.classifier.network, GPU.classifier.batch_size)]
    SAMPLED, ENCODER = GPU.generation.batch_size, GPU.encoder.network


def show(row: Sequence[str]) -> None:
    """Print a row of the table, at once."""
    print(row[0].ljust(46) + "".join(cell.rjust(16) for cell in row[1:]), flush=True)


def compare_training(settings: Settings, ceilings: dict[str, float]) -> tuple[float, float]:
    """Rows of the table: U-Net and adversarial training. Returns images per second of the last straightforward loop of each."""
    of_unet = theirs = math.nan
    for shape, unet in UNETS:
        of_unet = attempted("straightforward U-Net training", best, settings, alone, plain_unet, unet, shape)
        work = flops_of_unet(unet, shape, True)
        for precision in PRECISIONS:
            chosen = replace(unet, precision=precision)
            name = f"U-Net training {shape[1]}x{shape[2]}, {precision}"
            show(compared(settings, name, of_unet, work / ceilings[precision], our_unet, chosen, shape))
    for shape, network, batch in LEARNERS:
        trained = ClassifierSettings(network=network, attack_steps=7, batch_size=batch)
        theirs = attempted("straightforward adversarial training", best, settings, alone, plain_adversarial, trained, shape)
        work = flops_of_attack(network, shape, 7, True)
        for precision in PRECISIONS:
            learner = replace(trained, precision=precision)
            name = f"adversarial training, {network} {shape[1]}x{shape[2]}, {precision}"
            show(compared(settings, name, theirs, work / ceilings[precision], our_adversarial, learner, shape))
    return of_unet, theirs


def compare_the_rest(settings: Settings, ceilings: dict[str, float]) -> None:
    """Rows of the table: sampling and evaluation."""
    shape, unet = UNETS[-1]
    work = 10 * flops_of_unet(unet, shape, False)
    for precision in PRECISIONS if DEVICE.type == "cuda" else PRECISIONS[:1]:
        for method in ("unguided", "infonce:0.3", "particle:0.1"):
            name = f"sampling {shape[1]}x{shape[2]}, 10 steps, {method}, {precision}"
            arguments = (unet, shape, ENCODER, method, SAMPLED, precision)
            show(compared(settings, name, math.nan, work / ceilings[precision], our_sampling, *arguments))
    theirs = attempted("straightforward evaluation", best, settings, alone, plain_attack, ENCODER, shape)
    share = flops_of_attack(ENCODER, shape, 20, False) / ceilings[FULL]
    show(compared(settings, f"evaluation, PGD-20, {ENCODER} {shape[1]}x{shape[2]}", theirs, share, our_attack, ENCODER, shape))


def compare_compiled(settings: Settings, ceilings: dict[str, float], theirs: tuple[float, float]) -> None:
    """The same training, compiled; last, as it may take a minute a row to begin. theirs: as compare_training returned."""
    (shape, unet), (_, network, batch) = UNETS[-1], LEARNERS[-1]
    fast: dict[str, Any] = {"precision": "bfloat16", "compile": "yes"}
    work = flops_of_unet(unet, shape, True) / ceilings["bfloat16"]
    show(compared(settings, "U-Net training, bfloat16, compiled", theirs[0], work, our_unet, replace(unet, **fast), shape))
    learner = ClassifierSettings(network=network, attack_steps=7, batch_size=batch, **fast)
    work = flops_of_attack(network, shape, 7, True) / ceilings["bfloat16"]
    name = "adversarial training, bfloat16, compiled"
    show(compared(settings, name, theirs[1], work, our_adversarial, learner, shape))


def compare_sizes(settings: Settings) -> str:
    """Adversarial training on a file of 10^7 images beside one of 10^5."""
    shape, trained = (3, 8, 8), ClassifierSettings(network="small-cnn", attack_steps=7, batch_size=256)
    piece = random_images(10_000, shape)
    images, labels = piece.x.numpy().transpose(0, 2, 3, 1), piece.y.numpy()
    with tempfile.TemporaryDirectory() as folder:
        files = {
            n: stream_images(Path(folder) / f"{n}.npz", n, (8, 8, 3), ((images, labels) for _ in range(n // 10_000)))
            for n in (10**5, 10**7)
        }
        ratios = []
        for _ in range(settings.repeats + 1):
            few, many = (alone(our_adversarial, trained, shape, settings.seconds, files[n]) for n in files)
            ratios.append(many / few)
    found = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"adversarial training on 10^7 mapped images / on 10^5: {np.median(ratios):.2f} of the throughput ({found})"


def main() -> int:
    """Measure and print; returns the exit status."""
    settings = tyro.cli(Settings, description=__doc__)
    on_gpu = DEVICE.type == "cuda"
    ceilings = {kind: best(settings, on_all_cores, flops_per_second, kind) for kind in (*PRECISIONS, *[FULL] * on_gpu)}
    print(
        f"ceiling of matrix products and convolutions on {CORES} processes: "
        + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in ceilings.items()),
        flush=True,
    )
    ceilings.setdefault(FULL, ceilings["float32"])  # the same on a CPU
    show(("images per second", "straightforward", "ours", "ratio", "sweep", "ratio", "share"))
    theirs = compare_training(settings, ceilings)
    compare_the_rest(settings, ceilings)
    if on_gpu:
        compare_compiled(settings, ceilings, theirs)
    else:
        print(compare_sizes(settings))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
