"""Trains classifiers, standard or adversarial, on real images or a mix of real and synthetic ones. Resuming gives the exact same result."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp.processes import ALONE, Processes, normalise_across
from contrastive_dp.randomness import mixed_seed
from contrastive_dp.resumable import Checkpoints, ResumableTraining, advance_to, check_losses, fingerprint
from contrastive_dp.transfer import room_on, sent
from image_experiments.data.images import Images
from image_experiments.data.shuffling import batch_indices
from image_experiments.models.classifier_files import one_hot
from image_experiments.models.precision import Compile, Precision, prepared
from image_experiments.training.attacks import AttackLoss, Threat, first_delta, pgd, strongest
from image_experiments.training.augmentation import Augmentation, augment, cutmix

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class ClassifierSettings:
    """How a classifier is trained."""

    network: str = "small-cnn"
    """linear, small-cnn, small-cnn-W (W channels), preact-resnet-18, wrn-28-10 or any wrn-D-K; dm-wrn-D-K pads as DM-Improves-AT does."""
    adversary: Literal["none", "pgd", "trades"] = "pgd"
    """none: standard training; pgd: training on attacked images (Madry et al. 2018); trades: TRADES (Zhang et al. 2019)."""
    attack_steps: int = 5
    """Attack steps during training."""
    attack_step_size: float = 0.0
    """Step size in units of eps (0: 2.5 / attack steps)."""
    beta: float = 6.0
    """Weight of the robustness term of TRADES."""
    steps: int = 800
    """Total number of optimiser steps."""
    batch_size: int = 128
    """Images per step, real and synthetic together."""
    generated_fraction: float = 0.7
    """Fraction of synthetic images in each batch, if there are any."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum 0.9, or Adam with decoupled weight decay (AdamW)."""
    learning_rate: float = 0.1
    """Peak learning rate."""
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    """cosine: linear warm-up, then down to 0; one-cycle: up from 4 % for 30 % of the steps, then down to 4 % (Smith, Topin 2019)."""
    warmup: int = 0
    """Linear warm-up steps of the cosine schedule."""
    weight_decay: float = 5e-4
    """Weight decay of all parameters."""
    average: float = 0.995
    """Decay of the averaged weights, which are the ones evaluated (0: evaluate the last weights)."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread over all classes."""
    cutmix: float = 0.0
    """Probability that a batch is mixed by CutMix (Yun et al. 2019)."""
    augmentation: Augmentation = "auto"
    """none; crop: random shifts by up to 1/8 of the width; crop-flip: also mirrored; auto: what suits the data set."""
    keep: Literal["last", "best"] = "last"
    """Which weights to keep: the last, or the best on the validation images under PGD-10 (with adversary none: without an attack)."""
    validate_every: int = 200
    """Steps between validations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    precision: Precision = "float32"
    """float32; bfloat16: mixed precision; auto: whichever is faster, as measured at the start of the run."""
    compile: Compile = "no"
    """Use torch.compile, which first takes about a minute; auto: only if it pays off, as measured at the start of the run."""

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("batch_size", 1),
            ("attack_steps", 1),
            ("validate_every", 1),
            ("checkpoint_every", 1),
            ("warmup", 0),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} must be >= {low}")
        for name, range_of in (
            ("generated_fraction", "[0, 1]"),
            ("average", "[0, 1)"),
            ("label_smoothing", "[0, 1)"),
            ("cutmix", "[0, 1]"),
        ):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (value == 1 and range_of == "[0, 1)"):
                raise ValueError(f"{name}={value} must lie in {range_of}")
        for name in ("learning_rate",):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number > 0")
        for name in ("beta", "weight_decay", "attack_step_size"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number >= 0")

    @property
    def synthetic_in_batch(self) -> int:
        """Synthetic images in each batch, if there are any."""
        return round(self.generated_fraction * self.batch_size)


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The images a classifier is trained and validated on. classes: the number of classes. part: (k, n), the training with these images is
    the k-th of n equal parts of the steps."""

    real: Images
    classes: int
    synthetic: Images | None = None
    validation: Images | None = None
    part: tuple[int, int] = (1, 1)


def train_classifier(
    classifier: ModuleT,
    images: TrainingImages,
    threat: Threat,
    settings: ClassifierSettings,
    seed: int,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[ModuleT, list[dict[str, float]]]:
    """Minimise the mean over a batch of

    none:   H(y, f(x));   pgd: H(y, f(x')), x' the result of PGD on the cross-entropy;
    trades: H(y, f(x)) + beta KL(p(x) || p(x')), x' the result of PGD on that divergence,

    where H is the cross-entropy with smoothed labels; soft labels of synthetic images are y, and smoothed like the others. A batch holds
    round(generated_fraction batch_size) synthetic images; the rest are real. Both kinds are shuffled anew every epoch. Batch, augmentation
    and attack of step i depend on (seed, i) alone.

    On Ctrl-C or SIGTERM, finish the step, save the checkpoint and raise KeyboardInterrupt. on_step(step, loss): called after each step.

    processes: each takes its share of every batch. Batch norm and gradients use the whole batch, so the result equals that of one process
    up to rounding. Only the first validates, writes the checkpoint, which all must be able to read, and returns the curve.

    images.part: a later part has the learning rates, batches and attacks of its steps and begins with the classifier's present weights; the
    optimiser's momentum and the average begin anew.

    Returns the classifier in evaluation mode, frozen (averaged weights, unless average is 0), and the learning curve, one row per
    validation: step, loss, and with validation images their clean and robust accuracy (PGD-10).
    Raises ValueError for an unusable checkpoint or labels outside 0..classes-1, and FloatingPointError naming the step of a NaN loss.
    """
    if settings.keep == "best" and images.validation is None:
        raise ValueError("keep=best chooses on validation images: there are none; use keep=last")
    parts, (first, last) = _parts(images, settings), steps_of(settings.steps, images.part)
    checkpoints = Checkpoints(checkpoint, settings.checkpoint_every)
    rates = 0 if settings.schedule == "constant" else settings.steps  # a longer training has other learning rates from the start
    seen = [part for part, _ in parts] + ([images.validation] if settings.keep == "best" and images.validation is not None else [])
    run = ResumableTraining(
        normalise_across(prepared(classifier, settings.compile), processes),
        _optimiser(classifier, settings),
        settings.average,
        {**asdict(settings), "seed": seed, "threat": str(threat), "part": list(images.part), "rates until step": rates},
        fingerprint(*(tensor for of in seen for tensor in of.identity())) if checkpoint else "",
    )
    run.step = first
    run.extra = {"curve": [], "best": -1.0, "kept": {}, "recent": []}
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint)
    run.check_same_step(processes)
    device = next(classifier.parameters()).device
    run.extra["recent"] = [loss.to(device) for loss in run.extra["recent"]]  # losses since the last validation
    batches = _Batches(parts, seed, device, images.classes, room_on(device), last)
    shared = processes.sharing_gradients(run.network)

    def advance() -> Tensor:
        loss = _step(run, shared, batches, threat, settings, seed, processes)
        if processes.first:  # the others do not look
            run.extra["recent"].append(loss)
        if processes.first and (run.step % settings.validate_every == 0 or run.step == last):
            _look(run, images.validation, threat, settings, seed)
        return loss

    try:
        advance_to(run, last, advance, checkpoints, on_step, processes.first)
    finally:
        batches.close()
    chosen = _weights(run, settings)
    if settings.keep == "best" and processes.first:
        chosen.load_state_dict(run.extra["kept"])
    return cast(ModuleT, chosen.eval().requires_grad_(False)), run.extra["curve"]


def steps_of(total: int, part: tuple[int, int]) -> tuple[int, int]:
    """(steps done before, steps done after) the k-th of n parts of a training."""
    k, n = part
    return total * (k - 1) // n, total * k // n


def _step(
    run: ResumableTraining,
    shared: nn.Module,
    batches: _Batches,
    threat: Threat,
    settings: ClassifierSettings,
    seed: int,
    processes: Processes,
) -> Tensor:
    """One step of the optimiser; returns the loss of the whole batch, on the device.

    shared: run.network with the gradients of all processes (Processes.sharing_gradients).
    Every process draws the whole batch, which is cheap, and takes its share, so results do not depend on the number of processes.
    """
    share = processes.share(settings.batch_size)
    device = next(run.network.parameters()).device
    generator = torch.Generator(device).manual_seed(mixed_seed(seed, run.step))
    x, target = batches.of_step(run.step)
    with torch.no_grad():
        x = augment(x.float() / 255, settings.augmentation, generator)
        if settings.cutmix:
            x, target = cutmix(x, target, settings.cutmix, generator)
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(settings, run.step)
    delta = None if settings.adversary == "none" else first_delta(x, threat, generator, _attack_loss(settings))[share]
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with processes.listening(), mixed:
        loss = _loss(run.network, shared, x[share], target[share], threat, settings, delta)
    run.optimiser.zero_grad()
    processes.backward(loss)
    found = loss.detach()
    processes.mean(found)
    run.optimiser.step()
    run.stepped()
    return found


def _loss(
    network: nn.Module,
    shared: nn.Module,
    x: Tensor,
    target: Tensor,
    threat: Threat,
    settings: ClassifierSettings,
    delta: Tensor | None,
) -> Tensor:
    """The objective on one batch, attacked from `delta`; batch statistics are frozen during the attack."""
    size = (settings.attack_step_size or 2.5 / settings.attack_steps) * threat.eps
    network.eval().requires_grad_(False)  # otherwise a compiled network would compute gradients that nobody uses
    attacked = x if delta is None else pgd(network, x, target, threat, settings.attack_steps, size, delta, _attack_loss(settings))
    network.train().requires_grad_(True)
    if settings.adversary != "trades":
        return F.cross_entropy(shared(attacked), target, label_smoothing=settings.label_smoothing)
    clean = shared(x)
    away = F.kl_div(F.log_softmax(shared(attacked), dim=1), F.log_softmax(clean, dim=1), reduction="batchmean", log_target=True)
    return F.cross_entropy(clean, target, label_smoothing=settings.label_smoothing) + settings.beta * away


def _attack_loss(settings: ClassifierSettings) -> AttackLoss:
    return "kl" if settings.adversary == "trades" else "cross-entropy"


def learning_rate(settings: ClassifierSettings, step: int) -> float:
    """Learning rate of step 0, 1, ..., steps - 1."""
    done = step / settings.steps
    if settings.schedule == "one-cycle":
        rise = 0.3
        level = (
            0.5 * (1 - math.cos(math.pi * done / rise))
            if done < rise
            else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
        )
        return settings.learning_rate * max(level, 0.04)
    if settings.schedule == "cosine":
        if step < settings.warmup:
            return settings.learning_rate * (step + 1) / settings.warmup
        return (
            settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - settings.warmup) / (settings.steps - settings.warmup)))
        )
    return settings.learning_rate


def _parts(images: TrainingImages, settings: ClassifierSettings) -> list[tuple[Images, int]]:
    """The parts of a batch: images, and how many of them."""
    real, synthetic, classes = images.real, images.synthetic, images.classes
    for name, part in (("real", real), ("synthetic", synthetic)):
        checked = part is None or part.file is not None  # ImageFile has already checked its labels, piece by piece
        if part is not None and not checked and not (len(part) and 0 <= int(part.y.min()) <= int(part.y.max()) < classes):
            raise ValueError(f"{name} images: {len(part)} with labels outside 0..{classes - 1}, or none at all: check the data")
    generated = settings.synthetic_in_batch if synthetic is not None else 0
    parts = [(real, settings.batch_size - generated)] + ([(synthetic, generated)] if synthetic is not None else [])
    return [(part, count) for part, count in parts if count]


class _Batches:
    """The batches of a training: (images uint8, targets (n, K)) of a step, on the device; soft labels where there are any, else one-hot.

    On a GPU, images that fit are held there; those that do not are read one step ahead, in a thread, into memory that the GPU can fetch
    from while it computes.
    """

    def __init__(
        self, parts: list[tuple[Images, int]], seed: int, device: torch.device, classes: int, room: float = 0.0, last: int = 0
    ) -> None:
        """room: bytes that may be held on the device. last: number of steps; none is read beyond it."""
        self.seed, self.device, self.classes, self.last = seed, device, classes, last
        self.parts = [(part.held_on(device, room / len(parts)), count) for part, count in parts]
        elsewhere = room > 0 and any(part.y.device != device for part, _ in self.parts)
        # memory is pinned for the card that is current in the thread
        self.reader = ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,)) if elsewhere else None
        self.ahead: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def of_step(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        if self.reader is None:
            x, target = self._read(step)
        else:
            ahead = self.ahead if self.ahead is not None and self.ahead[0] == step else None
            x, target = self._read(step) if ahead is None else ahead[1].result()
            self.ahead = (step + 1, self.reader.submit(self._read, step + 1)) if step + 1 < self.last else None
        return sent(x, self.device), sent(target, self.device)

    def close(self) -> None:
        """End the reading thread."""
        if self.reader is not None:
            self.reader.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> tuple[Tensor, Tensor]:
        images, targets = [], []
        for i, (part, count) in enumerate(self.parts):
            index = batch_indices(len(part), count, step, mixed_seed(self.seed, i))
            x, y = part.rows(index)
            soft = part.soft(index)
            images.append(x)
            targets.append(one_hot(y, self.classes) if soft is None else soft)
        if len({x.device for x in images}) > 1:
            images, targets = ([sent(one, self.device) for one in each] for each in (images, targets))
        found = torch.cat(images), torch.cat(targets)
        # pinned here, in the thread that reads ahead, and as a whole: torch.cat of pinned parts is not pinned
        return found if self.device.type == "cpu" or found[0].is_cuda else (found[0].pin_memory(), found[1].pin_memory())


def _optimiser(classifier: nn.Module, settings: ClassifierSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "adam":
        return torch.optim.AdamW(classifier.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        classifier.parameters(), settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )


def _weights(run: ResumableTraining, settings: ClassifierSettings) -> nn.Module:
    return run.averaged if settings.average else run.network


def _look(run: ResumableTraining, validation: Images | None, threat: Threat, settings: ClassifierSettings, seed: int) -> None:
    """Add one row to the learning curve; keep the weights if they are the best so far."""
    recent = run.extra["recent"]
    row: dict[str, Any] = {"step": run.step, "loss": float(torch.stack(recent).mean())}
    check_losses(recent, run.step)  # and forget them
    if validation is not None:
        network = _weights(run, settings).eval()
        device = next(network.parameters()).device
        generator = torch.Generator(device).manual_seed(mixed_seed(seed, -run.step % 2**31))
        clean, robust = [], []
        for x, y in zip(validation.x.split(500), validation.y.split(500), strict=True):
            unit, labels = x.to(device).float() / 255, y.to(device)
            robust.append(strongest(network, unit, labels, threat, 10, 1, generator))
            with torch.no_grad():
                clean.append(network(unit).argmax(dim=1) == labels)
        row |= {"clean_accuracy": _share(clean), "robust_accuracy": _share(robust)}
        chosen_by = row["clean_accuracy" if settings.adversary == "none" else "robust_accuracy"]
        if settings.keep == "best" and chosen_by > run.extra["best"]:
            run.extra["best"] = chosen_by
            run.extra["kept"] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run.extra["curve"].append(row)


@torch.no_grad()
def accuracy(classifier: nn.Module, images: Images) -> float:
    """Fraction of the images that are classified as labelled; they are moved to the classifier's device in pieces."""
    device = next(classifier.parameters()).device
    pieces = zip(images.x.split(500), images.y.split(500), strict=True)
    return _share([classifier(x.to(device).float() / 255).argmax(dim=1) == y.to(device) for x, y in pieces])


def _share(right: list[Tensor]) -> float:
    return float(torch.cat(right).double().mean())
