"""What a run will cost, before it runs: seconds, memory, disk and network evaluations, from a calibration of half a minute."""

from __future__ import annotations

import heapq
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from command_line.output import text_table
from image_experiments.data.dataset import Dataset
from image_experiments.data.official import CLASSES, is_a_copy
from image_experiments.data.reading import read_dataset
from image_experiments.engine.calibration import Choice, Probe, Shape
from image_experiments.engine.checks import Facts
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Stage
from image_experiments.models.unet import make_unet
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import Method
from image_experiments.synthesis.strength import trials
from image_experiments.training.classifier import ClassifierSettings
from image_experiments.training.diffusion import DiffusionSettings

KNOWN: dict[str, tuple[Shape, int, int, int]] = {
    "digits": ((1, 8, 8), 10, 600, 1197),
    "cifar10": ((3, 32, 32), 10, 50_000, 10_000),
    "gtsrb": ((3, 32, 32), 43, 39_209, 12_630),
    "mnist": ((1, 32, 32), 10, 60_000, 10_000),
    "mnist-t10k": ((1, 32, 32), 10, 5_000, 5_000),
}
"""Shape, classes, training images and test images of data sets that need not be read to know."""
CLEAN, ROBUST = 0.9, 0.6
"""Shares of the test images assumed to be classified right and to withstand an attack: what AutoAttack's later parts must still attack."""
BUDGET = 0.8  # seconds a measurement
DESCRIPTION_SECONDS = 0.5  # of measures that do not go through a network
PICTURE_SECONDS = 3.0


@dataclass(frozen=True)
class Data:
    """What the costs depend on: shape (C, H, W), classes, training, validation and test images."""

    shape: Shape
    classes: int
    train: int
    validation: int
    test: int


@dataclass
class Rates:
    """Measured seconds. classifier: of a training step by settings; diffusion: alike; sampling: {method: (an image, an image and step)};
    attack: an image and step of PGD; autoattack: {part: an image}; imports: loading all packages in a fresh process; peak: bytes;
    share: of the time that this process had a processor while it measured, 1 where nothing else wanted it."""

    classifier: dict[str, Choice] = field(default_factory=dict)
    diffusion: Choice | None = None
    sampling: dict[str, tuple[float, float]] = field(default_factory=dict)
    attack: dict[str, float] = field(default_factory=dict)
    autoattack: dict[str, float] = field(default_factory=dict)
    imports: float = 0.0
    peak: int = 0
    share: float = 1.0


def facts_without_reading(settings: Settings) -> Facts | None:
    """What the checks need of a data set whose sizes are known; None for others."""
    if settings.dataset in KNOWN and not is_a_copy(settings.data_dir):
        shape, classes, pool, test = KNOWN[settings.dataset]
        if settings.image_size:
            shape = (shape[0], settings.image_size, settings.image_size)
        names = tuple(name for name in CLASSES[settings.dataset] if not settings.classes or name in settings.classes)
        return Facts(shape, names, pool * len(names) // classes, test * len(names) // classes)
    return None


def known_facts(settings: Settings) -> tuple[Dataset | None, Facts]:
    """The data, read where their sizes are not known without, and what the checks need of them."""
    facts = facts_without_reading(settings)
    if facts is not None:
        return None, facts
    found = read_dataset(settings.dataset, settings.data_dir, settings.image_size, settings.group_pattern, settings.classes)
    _, height, width, channels = found.images.shape
    return found, Facts((channels, height, width), found.classes, len(found.labels), len(found.test_labels))


def data_of(settings: Settings, facts: Facts | None = None) -> Data:
    """Sizes of the data set; what known_facts says is asked for where it is not given."""
    if facts is None:
        _, facts = known_facts(settings)
    train = settings.train or max(facts.pool - settings.validation, 1)
    return Data(facts.shape, len(facts.classes), train, settings.validation, settings.test or facts.test)


def key(settings: ClassifierSettings) -> str:
    """What decides the time of a training step."""
    names = ("network", "adversary", "attack_steps", "batch_size", "precision", "compile", "cutmix")
    return " ".join(str(getattr(settings, name)) for name in names)


def calibrate(settings: Settings, stages: list[Stage], data: Data, device: str) -> Rates:
    """Measure everything that these stages do, once, in this process."""
    rates = Rates()
    rates.imports = _import_all()
    wall, processor = time.perf_counter(), time.process_time()
    probe = Probe(data.shape, data.classes, settings.threat(), torch.device(device), BUDGET)
    for chosen in (
        stage.arguments["settings"] for stage in stages if isinstance(stage.arguments.get("settings"), ClassifierSettings)
    ):
        if key(chosen) not in rates.classifier:
            rates.classifier[key(chosen)] = _faster(chosen, probe.classifier_step)
    for network in dict.fromkeys((settings.classifier.network, settings.encoder.network)) if stages else ():
        rates.attack[network] = probe.attack_passes(network, settings.evaluation.batch_size)
    if any(isinstance(stage.arguments.get("settings"), DiffusionSettings) for stage in stages):
        rates.diffusion = _faster(settings.diffusion, probe.diffusion_step)
    methods = [method for method in settings.parsed_methods() if method.generates]
    if any("method" in stage.arguments for stage in stages):
        chosen_generation = _explicit(settings.generation)
        rates.sampling = probe.sampling(settings.diffusion, chosen_generation, methods, settings.encoder.network)
    _, images = _attacked(settings, data)
    if images and any(stage.name.startswith("evaluate/") for stage in stages):
        batch = max(min(settings.evaluation.batch_size, round(ROBUST * images)), 1)
        rates.autoattack = probe.autoattack_parts(settings.classifier.network, batch, settings.evaluation.autoattack_parts)
    rates.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.startswith("cuda"):
        rates.peak = torch.cuda.max_memory_allocated()
    else:
        spent = (time.perf_counter() - wall) * torch.get_num_threads()
        rates.share = min((time.process_time() - processor) / spent, 1.0) if stages else 1.0
    return rates


def _import_all() -> float:
    """Seconds to load what stages load."""
    begin = time.perf_counter()
    import diffusers  # noqa: F401
    import pyautoattack  # noqa: F401
    import torchmetrics.image.fid  # noqa: F401
    from diffusers import DDIMPipeline, UNet2DModel  # noqa: F401

    return time.perf_counter() - begin


def _faster(settings: Any, measure: Callable[[Any], Choice]) -> Choice:
    """The measurement, of the faster precision for "auto"; compilation is left to the run itself."""
    precisions = ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    compiled = "no" if settings.compile == "auto" else settings.compile
    found = [measure(replace(settings, precision=precision, compile=compiled)) for precision in precisions]
    return min(found, key=lambda choice: choice.step)


def _explicit(settings: GenerationSettings) -> GenerationSettings:
    precision = "float32" if settings.precision == "auto" else settings.precision
    return replace(settings, precision=precision, compile="no" if settings.compile == "auto" else settings.compile)


def mean_of(measured: list[Rates]) -> Rates:
    """The mean of measurements that were made side by side, peak memory added up."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def choice(found: list[Choice]) -> Choice:
        return replace(found[0], start=mean([c.start for c in found]), step=mean([c.step for c in found]))

    first = measured[0]
    return Rates(
        {name: choice([rates.classifier[name] for rates in measured]) for name in first.classifier},
        choice([rates.diffusion for rates in measured if rates.diffusion]) if first.diffusion else None,
        {
            name: (mean([rates.sampling[name][0] for rates in measured]), mean([rates.sampling[name][1] for rates in measured]))
            for name in first.sampling
        },
        {name: mean([rates.attack[name] for rates in measured]) for name in first.attack},
        {name: mean([rates.autoattack[name] for rates in measured]) for name in first.autoattack},
        mean([rates.imports for rates in measured]),
        sum(rates.peak for rates in measured),
        mean([rates.share for rates in measured]),
    )


def guided_steps(settings: GenerationSettings, timesteps: int, window: tuple[int, int] | None = None) -> int:
    """Steps of the sampler within the window, or within `window`, every k-th of them."""
    low, high = window or settings.window or (0, timesteps)
    visited = [round(t) for t in torch.linspace(timesteps - 1, 0, settings.steps).tolist()]
    return math.ceil(sum(low <= t < high for t in visited) / settings.every)


def stage_seconds(stage: Stage, settings: Settings, data: Data, rates: Rates, robust: float = ROBUST) -> float:
    """Estimated seconds of a stage. robust: share of the test images that withstand an attack."""
    arguments, kind = stage.arguments, stage.name.split("/")[0]
    chosen = arguments.get("settings")
    if isinstance(chosen, ClassifierSettings):
        choice = rates.classifier[key(chosen)]
        looks = math.ceil(chosen.steps / chosen.validate_every) if kind != "judge" else 0
        return choice.total(chosen.steps) + looks * data.validation * 12 * rates.attack[chosen.network]
    if isinstance(chosen, DiffusionSettings):
        assert rates.diffusion is not None
        return rates.diffusion.total(chosen.steps)
    if kind in ("generate", "strength"):
        count = arguments.get("count") or settings.generation.pilot * trials(settings.generation)
        return _generation_seconds(arguments["method"], count, settings, rates)
    if kind == "evaluate":
        return _evaluation_seconds(settings, data, rates, robust) * len(arguments["threats"])
    a_pass = rates.attack.get(settings.encoder.network, 0.0)
    if kind == "describe":
        return DESCRIPTION_SECONDS + settings.description.images * a_pass
    return arguments["count"] * settings.selection.surplus * a_pass if kind == "select" else 0.1


def _generation_seconds(method: Method, count: int, settings: Settings, rates: Rates) -> float:
    """Whole batches are made, and the last one cut."""
    chosen = settings.generation
    batch = min(chosen.batch_size, count)
    beyond, plain = rates.sampling["unguided"]
    guided = rates.sampling[method.label][1]
    widest = max(chosen.windows, key=lambda ends: ends[1] - ends[0]) if method.automatic else None
    steps = chosen.steps if method.kind == "classifier-free" else guided_steps(chosen, settings.diffusion.timesteps, widest)
    return math.ceil(count / batch) * batch * (beyond + plain * (chosen.steps - steps) + guided * steps)


def _evaluation_seconds(settings: Settings, data: Data, rates: Rates, robust: float) -> float:
    """PGD and AutoAttack under one threat."""
    chosen = settings.evaluation
    images, n = _attacked(settings, data)
    pgd = images * chosen.pgd_restarts * chosen.pgd_steps * rates.attack[settings.classifier.network]
    shares = [CLEAN, *[robust] * len(rates.autoattack)]
    return pgd + sum(n * share * cost for share, cost in zip(shares, rates.autoattack.values(), strict=False))


def _attacked(settings: Settings, data: Data) -> tuple[int, int]:
    """How many images PGD and AutoAttack attack."""
    images = data.test if settings.evaluation.split == "test" else data.validation
    n = settings.evaluation.autoattack_images
    return images, images if n is None else min(n, images)


def makespan(stages: list[Stage], seconds: dict[str, float], workers: int, imports: float) -> float:
    """Seconds until all stages are done by so many workers, each beginning with its imports, in the order in which they are started."""
    names = {stage.name for stage in stages}  # others are done already
    free = [imports] * workers
    heapq.heapify(free)
    done: dict[str, float] = {}
    waiting = list(stages)
    while waiting:
        now = heapq.heappop(free)
        ready = [s for s in waiting if all(done.get(n.name, math.inf) <= now for n in s.inputs.values() if n.name in names)]
        if not ready:  # wait for the next stage that ends
            later = [end for end in done.values() if end > now]
            heapq.heappush(free, min(later))
            continue
        stage = ready[0]
        waiting.remove(stage)
        done[stage.name] = now + seconds[stage.name]
        heapq.heappush(free, done[stage.name])
    return max(done.values(), default=0.0)


def evaluations(stages: list[Stage], settings: Settings) -> tuple[float, float]:
    """Evaluations of the diffusion network, image by image: forward alone, and forward and backward."""
    forward = backward = 0.0
    for stage in stages:
        if isinstance(stage.arguments.get("settings"), DiffusionSettings):
            backward += settings.diffusion.steps * settings.diffusion.batch_size
        elif stage.name.startswith("generate/"):
            forward += stage.arguments["count"] * settings.generation.steps
        elif stage.name.startswith("strength/"):
            forward += settings.generation.pilot * trials(settings.generation) * settings.generation.steps
    return forward, backward


def disk_bytes(stages: list[Stage], settings: Settings, data: Data) -> float:
    """Bytes of what these stages leave, and of the largest set of shards beside its merged file."""
    image = math.prod(data.shape) + 8
    sets = [stage.arguments["count"] * image for stage in stages if stage.name.startswith("generate/")]
    copies = sum(stage.name.startswith(("noise/", "select/", "read/")) for stage in stages) * settings.synthetic * image
    networks = sum(4 * _parameters(stage, data) for stage in stages)
    pool = (data.train + data.validation + data.test) * image
    return pool + sum(sets) + max(sets, default=0) + copies + networks


def _parameters(stage: Stage, data: Data) -> int:
    """Parameters of the network that a stage writes."""
    from image_experiments.models.classifiers import make_classifier

    chosen = stage.arguments.get("settings")
    with torch.device("meta"):
        if isinstance(chosen, DiffusionSettings):
            return sum(p.numel() for p in make_unet(chosen, data.classes, data.shape, 0).parameters())
        if isinstance(chosen, ClassifierSettings):
            made = make_classifier(chosen.network, data.classes, data.shape, [0.5] * data.shape[0], [0.25] * data.shape[0])
            return sum(p.numel() for p in made.parameters())
    return 0


def estimate(settings: Settings, stages: list[Stage], measured: list[Rates], data: Data, workers: int, waited: float) -> str:
    """The table that --dry-run prints. waited: seconds that calibration took."""
    rates = mean_of(measured)
    seconds = {stage.name: stage_seconds(stage, settings, data, rates) for stage in stages}
    kinds: dict[str, list[float]] = {}
    for name, value in seconds.items():
        kinds.setdefault(name.split("/")[0], []).append(value)
    total = sum(seconds.values())
    rows = [
        (kind, str(len(values)), shown(sum(values) / len(values)), shown(sum(values)), f"{sum(values) / total:.0%}")
        for kind, values in sorted(kinds.items(), key=lambda entry: -sum(entry[1]))
    ]
    if not rows:
        return "nothing is left to do"
    least = {stage.name: stage_seconds(stage, settings, data, rates, 0.0) for stage in stages}
    attacked = "evaluate" in kinds
    other = rates.imports + (PICTURE_SECONDS if attacked else 0.0)
    end, soonest = (makespan(stages, each, workers, rates.imports) + other for each in (seconds, least))
    forward, backward = evaluations(stages, settings)
    images = sum(stage.arguments["count"] for stage in stages if stage.name.startswith("generate/"))
    sooner = (
        f"      (if {ROBUST:.0%} of the test images withstand AutoAttack, which is done sooner with those that fall: {shown(soonest)}"
        " if all do)"
    )
    busy = rates.share < BUSY
    within = f"{shown(end * rates.share)} to {shown(end)}" if busy else shown(end)
    lines = [
        text_table(("stage", "number", "each", "in all", "share"), rows),
        f"time: {within} on {workers} processes, of which {rows[0][0]} takes the largest share, {rows[0][4]}",
        *([BUSY_LINE.format(rates.share)] if busy else []),
        *([sooner] if attacked else []),
        f"memory: {shown_bytes(rates.peak)}; disk: {shown_bytes(disk_bytes(stages, settings, data))}",
        f"images: {images:,.0f} generated; diffusion network: {forward:.3g} evaluations in sampling, {backward:.3g} in training",
        f"(measured in {waited:.0f} s on random images)",
    ]
    return "\n".join(lines)


BUSY = 0.85
"""Share of a processor below which other programs must have had the rest."""
BUSY_LINE = (
    "      (this machine is busy: while it was measured, the measurement had a processor for {:.0%} of the time. The first is on an idle "
    "machine, the second as busy as now)"
)


def shown(seconds: float) -> str:
    """12 s, 3.4 min, 5.6 h, 7.8 days, 9.1 years."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def shown_bytes(size: float) -> str:
    """1.2 GB."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size / 1000:.0f} kB"
