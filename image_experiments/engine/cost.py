"""Estimates the cost of a run in advance: seconds, memory, disk and network evaluations, from half a minute of calibration."""

from __future__ import annotations

import heapq
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch

from command_line.cluster import usable_cores
from command_line.output import UserError, text_table
from image_experiments.engine.calibration import Probe, no_memory
from image_experiments.engine.checks import Facts
from image_experiments.engine.progress import ROBUST, attacked, steps_trained
from image_experiments.engine.run_stage import make_current
from image_experiments.engine.scheduler import FIXABLE, on_all, own_device
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Place, Stage
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.precision import gpu_arithmetic
from image_experiments.models.unet import make_unet
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import ON_PREDICTION, Method
from image_experiments.synthesis.strength import images_tried
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.diffusion_training import DiffusionSettings

T = TypeVar("T")
CLEAN = 0.9
"""Assumed share of test images that are classified correctly; ROBUST of progress.py withstand an attack."""
BUDGET = 0.8  # seconds per measurement
DESCRIPTION_SECONDS = 0.5  # for measures that do not go through a network
PICTURE_SECONDS = 3.0
NOT_DEDUCTED = "what --reuse saves is known only when a run begins, and is not deducted"
MAXRSS_BYTES = 1.0 if sys.platform == "darwin" else 1024.0  # unit of ru_maxrss
CHOICE_SECONDS, COMPILING_SECONDS = 10.0, 60.0  # to measure a choice of speed, approximately


Rates = dict[str, float]
"""Measured seconds: "start KEY" and "step KEY" of a training (see key), "beyond METHOD" and "step METHOD" per image of a sampler, "attack
NETWORK" per image and step of PGD in an evaluation, "pass NETWORK" with the run's own arithmetic, "part PART" of AutoAttack per image,
"imports". Also "peak", bytes, and "share": the fraction of the time in which this process had a processor, 1 if nothing else used it."""


def key(settings: Any) -> str:
    """What determines the time of a training step."""
    if isinstance(settings, DiffusionSettings):
        return "diffusion"
    names = ("network", "adversary", "attack_steps", "batch_size", "precision", "compile", "cutmix")
    return " ".join(str(getattr(settings, name)) for name in names)


def calibrate(settings: Settings, stages: list[Stage], facts: Facts, device: str) -> Rates:
    """Time everything that these stages do, once, in this process, on the card that it would have as a worker."""
    device = own_device(device)
    make_current(torch.device(device))
    rates = {"imports": _import_all()}
    wall, processor = time.perf_counter(), time.process_time()
    probe = Probe(facts.shape, len(facts.classes), settings.threat(), torch.device(device), BUDGET)
    with gpu_arithmetic(settings.tf32, settings.cudnn_benchmark):  # as run_stage.py
        rates |= _training_and_sampling(settings, stages, probe)
    if settings.tf32 or settings.cudnn_benchmark:
        probe.passes.clear()  # of the other arithmetic
    with gpu_arithmetic(tf32=False):  # as jobs.evaluate
        rates |= _attacks(settings, stages, facts, probe)
    if device.startswith("cuda"):
        return rates | {"peak": float(torch.cuda.max_memory_allocated(device)), "share": 1.0}
    spent = (time.perf_counter() - wall) * torch.get_num_threads()
    share = min((time.process_time() - processor) / spent, 1.0) if stages else 1.0
    return rates | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES, "share": share}


def _training_and_sampling(settings: Settings, stages: list[Stage], probe: Probe) -> Rates:
    """ "start KEY", "step KEY", "pass NETWORK", "beyond METHOD" and "step METHOD"."""
    rates = _passes("pass", settings, stages, probe)
    for chosen, kind in ((stage.arguments.get("settings"), stage.name.partition("/")[0]) for stage in stages):
        if isinstance(chosen, ClassifierSettings | DiffusionSettings) and f"step {key(chosen)}" not in rates:
            part = "diffusion" if isinstance(chosen, DiffusionSettings) else "classifier" if kind == "classifier" else "encoder"
            choice = min(_fitting(_explicit(chosen), probe.step, part), key=lambda found: found.step)
            rates |= {f"start {key(chosen)}": choice.start, f"step {key(chosen)}": choice.step}
    if any("method" in stage.arguments for stage in stages):
        methods = [method for method in settings.parsed_methods() if method.generates]
        made = next(
            _fitting(
                _explicit(settings.generation),
                lambda one: probe.sampling(settings.diffusion, one, methods, settings.encoder.network),
                "generation",
            )
        )
        rates |= {f"beyond {name}": beyond for name, (beyond, _) in made.items()}
        rates |= {f"step {name}": a_step for name, (_, a_step) in made.items()}
    return rates


def _attacks(settings: Settings, stages: list[Stage], facts: Facts, probe: Probe) -> Rates:
    """ "attack NETWORK" and "part PART"."""
    rates = _passes("attack", settings, stages, probe)
    _, images = attacked(settings, facts)
    if images and any(stage.name.startswith("evaluate/") for stage in stages):
        batch = max(min(settings.evaluation.batch_size, round(ROBUST * images)), 1)
        parts = probe.autoattack_parts(settings.classifier.network, batch, settings.evaluation.autoattack_parts)
        rates |= {f"part {name}": cost for name, cost in parts.items()}
    return rates


def _passes(name: str, settings: Settings, stages: list[Stage], probe: Probe) -> Rates:
    """ "NAME NETWORK" of both networks."""
    networks = dict.fromkeys((settings.classifier.network, settings.encoder.network)) if stages else ()
    return {f"{name} {network}": probe.attack_passes(network, settings.evaluation.batch_size) for network in networks}


def calibrated(settings: Settings, stages: list[Stage], facts: Facts, place: Place, count: int) -> list[Rates]:
    """The same by `count` processes at once, at most one a core. Raises UserError."""
    try:
        return on_all(min(count, usable_cores()), place.threads, calibrate, settings, stages, facts, place.device)
    except FIXABLE as error:
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error


def _import_all() -> float:
    """Seconds to import what the stages import."""
    begin = time.perf_counter()
    import diffusers  # noqa: F401
    import pyautoattack  # noqa: F401
    import torchmetrics.image.fid  # noqa: F401
    from diffusers import DDIMPipeline, UNet2DModel  # noqa: F401

    return time.perf_counter() - begin


def _explicit(settings: Any) -> list[Any]:
    """The settings for each precision that is still open; compilation is left to the run itself."""
    precisions = ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    compiled = "no" if settings.compile == "auto" else settings.compile
    return [replace(settings, precision=precision, compile=compiled) for precision in precisions]


def _fitting(settings: Sequence[Any], measure: Callable[[Any], T], part: str) -> Iterator[T]:
    """The measurements at each precision for which the device has the memory, made as they are asked for. Raises UserError if there is
    none."""
    found = False
    for one in settings:
        try:
            made = measure(one)
        except RuntimeError as error:
            if not no_memory(error):
                raise
        else:
            found = True
            yield made
            continue
        torch.cuda.empty_cache()  # here, where the error holds no tensor any more; does nothing without a GPU
    if not found:
        raise UserError(f"--{part}.batch-size {settings[0].batch_size}: does not fit in this device's memory; use a smaller one")


def mean_of(measured: list[Rates]) -> Rates:
    """The mean of measurements that were made in parallel; peak memory is added up."""
    mean = {name: sum(rates[name] for rates in measured) / len(measured) for name in measured[0]}
    return mean | {"peak": sum(rates["peak"] for rates in measured)}


def guided_steps(settings: GenerationSettings, timesteps: int, window: tuple[int, int] | None = None) -> int:
    """Number of guided sampler steps: every k-th step within the settings' window, or within `window`."""
    low, high = window or settings.window or (0, timesteps)
    visited = [round(t) for t in torch.linspace(timesteps - 1, 0, settings.steps).tolist()]
    return math.ceil(sum(low <= t < high for t in visited) / settings.every)


def stage_seconds(stage: Stage, settings: Settings, facts: Facts, rates: Rates, robust: float = ROBUST) -> float:
    """Estimated seconds of a stage. robust: share of the test images that withstand an attack."""
    arguments, kind = stage.arguments, stage.name.split("/")[0]
    chosen: Any = arguments.get("settings")
    a_pass = rates.get(f"pass {settings.encoder.network}", 0.0)
    if kind == "speed":
        seconds = CHOICE_SECONDS + COMPILING_SECONDS * (chosen.compile == "auto")
    elif steps := steps_trained(stage):
        seconds = _training_seconds(kind, chosen, steps, settings, rates)
    elif kind in ("generate", "strength"):
        count = arguments.get("count") or images_tried(chosen, arguments["size"])
        seconds = _generation_seconds(arguments["method"], count, settings, rates)
    elif kind == "evaluate":
        images, n = attacked(settings, facts)
        pgd = images * chosen.pgd_restarts * chosen.pgd_steps * rates[f"attack {settings.classifier.network}"]
        parts = [cost for name, cost in rates.items() if name.startswith("part ")]
        auto = sum(n * share * cost for share, cost in zip([CLEAN, *[robust] * len(parts)], parts, strict=False))
        seconds = (pgd + auto) * len(arguments["threats"])
    elif kind == "describe":
        seconds = DESCRIPTION_SECONDS + settings.description.images * a_pass
    elif kind == "select":  # the generated images by the encoder, or by each labeller
        passes = max(sum(role.startswith("labeller") for role in stage.inputs), 1)
        seconds = stage.inputs["generated"].arguments["count"] * passes * a_pass
    else:
        seconds = 0.1
    return float(seconds)


def _training_seconds(kind: str, chosen: Any, steps: int, settings: Settings, rates: Rates) -> float:
    """Seconds of so many steps of a training, with the validations of a classifier."""
    seconds = rates[f"start {key(chosen)}"] + steps * rates[f"step {key(chosen)}"]
    if isinstance(chosen, DiffusionSettings) or kind == "judge":
        return seconds
    looks = math.ceil(steps / chosen.validate_every)
    return seconds + looks * settings.validation * 12 * rates[f"pass {chosen.network}"]


def _generation_seconds(method: Method, count: int, settings: Settings, rates: Rates) -> float:
    """Seconds to generate the images of a method: whole batches, of which the last is cut."""
    chosen = settings.generation
    batch = min(chosen.batch_size, count)
    widest = max(chosen.windows, key=lambda ends: ends[1] - ends[0]) if method.automatic else None
    steps = chosen.steps if method.kind in ON_PREDICTION else guided_steps(chosen, settings.diffusion.timesteps, widest)
    an_image = rates["beyond unguided"] + rates["step unguided"] * (chosen.steps - steps) + rates[f"step {method.label}"] * steps
    return math.ceil(count / batch) * batch * an_image


def makespan(stages: list[Stage], seconds: dict[str, float], workers: int, imports: float) -> float:
    """Seconds until this many workers, each starting with its imports, have done all stages, in the order in which they are started."""
    names = {stage.name for stage in stages}  # all others are already done
    free = [imports] * workers
    heapq.heapify(free)
    done: dict[str, float] = {}
    waiting = list(stages)
    while waiting:
        now = heapq.heappop(free)
        ready = [s for s in waiting if all(done.get(n.name, math.inf) <= now for n in s.needs.values() if n.name in names)]
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
    """Evaluations of the diffusion network, counted per image: forward only, and forward plus backward."""
    forward = backward = 0.0
    for stage in stages:
        chosen = stage.arguments.get("settings")
        if isinstance(chosen, DiffusionSettings):
            backward += steps_trained(stage) * chosen.batch_size
        elif stage.name.startswith("generate/"):
            twice = stage.arguments["method"].kind in ("classifier-free", "autoguidance")
            forward += stage.arguments["count"] * settings.generation.steps * (1 + twice)
        elif stage.name.startswith("strength/"):
            forward += images_tried(settings.generation, stage.arguments["size"]) * settings.generation.steps
    return forward, backward


def disk_bytes(stages: list[Stage], settings: Settings, facts: Facts) -> float:
    """Bytes that these stages leave on disk."""
    image = image_bytes(facts)
    again = [stage for stage in stages if stage.name.startswith(("noise/", "select/", "read/", "gather/"))]
    copies = sum(_images_of(stage, settings) for stage in again) * image
    networks = sum(4 * _parameters(stage, facts) for stage in stages)
    data = (facts.pool + (settings.test or facts.test)) * image * any(stage.name == "data" for stage in stages)
    return data + sum(generated(stages)) * image + copies + networks


def passing_bytes(stages: list[Stage], facts: Facts) -> float:
    """Bytes of the largest set of shards, which exists at the same time as its merged file."""
    return max(generated(stages), default=0) * image_bytes(facts)


def generated(stages: list[Stage]) -> list[int]:
    """The number of images of every set that is generated."""
    return [stage.arguments["count"] for stage in stages if stage.name.startswith("generate/")]


def image_bytes(facts: Facts) -> int:
    """Bytes of an image and its label."""
    return math.prod(facts.shape) + 8


def _images_of(stage: Stage, settings: Settings) -> int:
    """Images in the file that a stage writes."""
    if stage.name.startswith("gather/"):
        return sum(_images_of(stage.inputs[role], settings) for role in ("earlier", "made"))
    return int(stage.arguments.get("count", settings.synthetic))


def _parameters(stage: Stage, facts: Facts) -> int:
    """Parameters of the network that a stage writes."""
    chosen, made = stage.arguments.get("settings") if steps_trained(stage) else None, None
    with torch.device("meta"):
        if isinstance(chosen, DiffusionSettings):
            made = make_unet(chosen, len(facts.classes), facts.shape, 0)
        if isinstance(chosen, ClassifierSettings):
            scale = [0.5] * facts.shape[0]
            made = make_classifier(chosen.network, len(facts.classes), facts.shape, scale, scale)
    return 0 if made is None else sum(p.numel() for p in made.parameters())


@dataclass(frozen=True)
class Work:
    """Stages of one run that are to be made, by so many workers. measured: by each process that worked at the same time."""

    settings: Settings
    stages: list[Stage]
    measured: list[Rates]
    facts: Facts
    workers: int

    @cached_property
    def rates(self) -> Rates:
        return mean_of(self.measured)

    def seconds(self, robust: float = ROBUST) -> dict[str, float]:
        return {stage.name: stage_seconds(stage, self.settings, self.facts, self.rates, robust) for stage in self.stages}

    def duration(self, robust: float = ROBUST) -> float:
        """Seconds until all is done, with imports in each and, after evaluations, the pictures."""
        imports = self.rates["imports"]
        drawn = any(stage.name.startswith("evaluate/") for stage in self.stages)
        return makespan(self.stages, self.seconds(robust), self.workers, imports) + imports + PICTURE_SECONDS * drawn


def estimate(runs: Sequence[Work], waited: float) -> str:
    """The table that --dry-run prints, of one run or of several that follow each other. waited: seconds that calibration took."""
    runs = [run for run in runs if run.stages]
    kinds: dict[str, list[float]] = {}
    for name, value in (entry for run in runs for entry in run.seconds().items()):
        kinds.setdefault(name.split("/")[0], []).append(value)
    if not kinds:
        return "nothing is left to do"
    total = sum(map(sum, kinds.values()))
    rows = [
        (kind, str(len(values)), shown(sum(values) / len(values)), shown(sum(values)), f"{sum(values) / total:.0%}")
        for kind, values in sorted(kinds.items(), key=lambda entry: -sum(entry[1]))
    ]
    end, soonest = (sum(run.duration(robust) for run in runs) for robust in (ROBUST, 0.0))
    share, peak = min(run.rates["share"] for run in runs), max(run.rates["peak"] for run in runs)
    counts = [evaluations(run.stages, run.settings) for run in runs]
    disk = sum(disk_bytes(run.stages, run.settings, run.facts) for run in runs) + max(
        passing_bytes(run.stages, run.facts) for run in runs
    )
    images = sum(count for run in runs for count in generated(run.stages))
    sooner = (
        f"      (if {ROBUST:.0%} of the test images withstand AutoAttack, which is done sooner with those that fall: {shown(soonest)}"
        " if all do)"
    )
    within = f"{shown(end * share)} to {shown(end)}" if share < BUSY else shown(end)
    lines = [
        text_table(("stage", "number", "each", "in all", "share"), rows),
        f"time: {within} on {max(run.workers for run in runs)} processes, of which {rows[0][0]} takes the largest share, {rows[0][4]}",
        *([BUSY_LINE.format(share)] if share < BUSY else []),
        *([sooner] if "evaluate" in kinds else []),
        f"memory: {shown_bytes(peak)}; disk: {shown_bytes(disk)}",
        f"images: {images:,.0f} generated; diffusion network: {sum(f for f, _ in counts):.3g} evaluations in sampling, "
        f"{sum(b for _, b in counts):.3g} in training",
        f"(measured in {waited:.0f} s on random images)",
    ]
    return "\n".join(lines)


BUSY = 0.85
"""If the share of a processor is below this, other programs must have used the rest."""
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
