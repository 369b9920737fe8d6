"""Settings of run_cifar.py: one frozen dataclass with one part per stage, their checks, and the defaults that depend on the data set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from command_line.output import UserError
from command_line.values import Radius, check_radius
from contrastive_dp.processes import Processes
from image_experiments.data.dataset import check_classes
from image_experiments.data.official import CLASSES, is_a_copy
from image_experiments.data.read_dataset import DatasetName, check_options
from image_experiments.evaluation.features import DescriptionSettings
from image_experiments.evaluation.robustness import EvaluationSettings
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import BY_LABEL, CONTRASTIVE, DEFAULT_GUIDANCE, KINDS, UNCONDITIONAL, Method, parse_method
from image_experiments.synthesis.selection import SelectionSettings
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.attacks import Norm, Threat
from image_experiments.training.augmentation import Augmentation
from image_experiments.training.diffusion_training import DiffusionSettings

Preset = Literal["smoke", "cpu", "cifar10-gpu", "paper", "paper-gtsrb", "paper-mnist"]
Until = Literal["diffusion", "encoder", "generation", "description", "training"]


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result (workers does not)."""

    preset: Preset = "smoke"
    """smoke: every stage once, at a small size; cpu: meaningful numbers, 3 seeds, 2 cores; cifar10-gpu: one GPU, meant for an hour a seed;
    paper, paper-gtsrb, paper-mnist: the published sizes for the three data sets. Other flags override the preset."""
    dataset: DatasetName = "digits"
    """digits (part of scikit-learn); cifar10, cifar100, gtsrb, svhn, stl10, mnist (downloaded once); mnist-t10k (its test file alone);
    images (see --data-dir)."""
    data_dir: Path | None = None
    """Folder with the data set's official files. For images, and for copies of the photographs: a folder with train/CLASS/* and
    test/CLASS/*, or a tar or zip of such a folder."""
    image_size: int = 0
    """Resize images to this many pixels per side (0: keep their size; MNIST is padded to 32, GTSRB resized to 32)."""
    classes: tuple[str, ...] = ()
    """Use only these classes of the data set, by name (default: all). Labels are numbered within these, also in npz files and models."""
    group_pattern: str | None = None
    """Regular expression on file stems: training images with the same first group (frames of a video) are never split ('': no groups)."""
    train: int = 300
    """Real training images (0: all that are not used for validation)."""
    validation: int = 100
    """Real images held out for validation, class-balanced."""
    test: int = 0
    """Test images (0: all)."""
    methods: tuple[str, ...] = ("real", "unguided", DEFAULT_GUIDANCE)
    """What to compare: real, unguided, noise[:STD], noise-real[:STD], GUIDANCE[:SCALE], GUIDANCE-reversed[:SCALE], or generated images as
    npz:FILE, npz:FOLDER of parts, npz:'PATTERN'. SCALE may be auto: the largest that keeps labels nearly as right as without guidance, see
    generation.label_error."""
    synthetic: int = 500
    """Synthetic images per method."""
    rounds: int = 1
    """Generate in this many equal rounds. After each, the classifier trains further on all images so far and replaces the encoder in the
    next: it guides, labels and selects. Total images and training steps are those of one round."""
    norm: Norm = "linf"
    """Norm of the attacks in training and evaluation."""
    eps: Radius | None = None
    """Radius of the attacks on the [0, 1] scale, such as 0.03 or 8/255 (default: the usual one for the data set and norm)."""
    seeds: int = 1
    """Independent repetitions, each with its own training images, networks and noise."""
    seed: int = 0
    """First seed."""
    encoder: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(steps=300))
    """The classifier whose features are used for guidance, selection and pseudo-labels; trained on the real images."""
    encoder_from: Path | None = None
    """File with weights for encoder.network (safetensors or pt), to use instead of training the encoder."""
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    """The diffusion model."""
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    """Sampling and guidance."""
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    """Which generated images to keep."""
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    """The classifier trained with each method's images, to compare the methods."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Attacks on the test images."""
    description: DescriptionSettings = field(default_factory=DescriptionSettings)
    """Measures of the synthetic images."""
    describe: bool = True
    """Measure the synthetic images (description.csv). Without it, images that are only read need neither encoder nor judge."""
    out: Path | None = None
    """Folder for the results (default: results/DATASET-PRESET). Run the same command again to continue where it stopped."""
    reuse: tuple[Path, ...] = ()
    """Folders of other runs (their --out). What they made from the same settings, code and inputs is linked instead of made again."""
    workers: int = 0
    """Number of processes (0: one per core, with CUDA one). On a machine with several GPUs they take the cards in turn. Does not change the
    results."""
    threads: int = 1
    """CPU threads per process. Changes the last digits of the results, because sums are added up in a different order."""
    processes: int = 1
    """Number of processes that share each training and generation (gloo; with CUDA nccl, one GPU each), instead of --workers. On several
    machines, start this command with torchrun instead. Results equal those of one process up to rounding."""
    port: int = 0
    """Port on which --processes connect to each other (0: any free port)."""
    cluster: str | None = None
    """Address host:port of a Dask scheduler whose workers can access OUT. They run the stages, instead of processes on this machine."""
    part: str | None = None
    """K/N: generate only the K-th of N parts of each method's images, as shards in OUT/shards, then stop. See merge_shards.py."""
    until: Until | None = None
    """Run only up to this step: diffusion, encoder (judge, and scales auto), generation, description (of the images) or training. To
    continue, run the same command with a later step, or without this option (default: run everything, including evaluation)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    tf32: bool = False
    """On a GPU, use TensorFloat-32 for float32 products and convolutions in training and sampling; evaluation never does."""
    cudnn_benchmark: bool = False
    """On a GPU, let cuDNN time its algorithms and take the fastest; which one it is may change the last digits from run to run."""
    tensorboard: bool = False
    """Also write TensorBoard logs to OUT/tensorboard."""
    force: bool = False
    """Continue in a folder that holds an experiment with other settings, or made on another device. Its tables are overwritten."""
    dry_run: bool = False
    """Print the resolved settings, what was read, which stages would run and what they would cost, then stop."""

    def parsed_methods(self) -> list[Method]:
        """The methods, in the order given."""
        return [parse_method(text) for text in self.methods]

    def parts(self) -> tuple[int, int] | None:
        """(K, N) of --part. Raises UserError."""
        if self.part is None:
            return None
        found = re.fullmatch(r"(\d+)/(\d+)", self.part)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--part {self.part}: write K/N with 1 <= K <= N, for example 2/3")
        return int(found[1]), int(found[2])

    def threat(self) -> Threat:
        """The threat of training and evaluation."""
        assert self.eps is not None
        return Threat(self.norm, self.eps)


USUAL_EPS: dict[tuple[str, str], float] = {
    ("digits", "linf"): 0.15,
    ("digits", "l2"): 0.5,
    ("mnist", "linf"): 0.3,
    ("mnist", "l2"): 2.0,
}
USUAL_EPS_OF_PHOTOGRAPHS = {"linf": 8 / 255, "l2": 128 / 255}


def usual_eps(dataset: str, norm: str) -> float:
    """The radius that is usual for a data set and norm."""
    return USUAL_EPS.get((dataset.partition("-")[0], norm), USUAL_EPS_OF_PHOTOGRAPHS[norm])


AUGMENTATIONS: dict[str, Augmentation] = {
    "digits": "none",
    "mnist": "crop",
    "gtsrb": "crop",
    "cifar10": "crop-flip",
    "cifar100": "crop-flip",
    "stl10": "crop-flip",
    "images": "crop",
}


def resolve(settings: Settings) -> Settings:
    """Check the settings and fill in what depends on the data set. Raises UserError."""
    _check_numbers(settings)
    if not settings.methods:
        raise UserError(f"--methods: name at least one of real, unguided, {', '.join(KINDS)}")
    methods = settings.parsed_methods()
    repeated = {name for name in settings.classes if settings.classes.count(name) > 1}
    if repeated:
        raise UserError(f"--classes: {min(repeated)} is named twice; give each class once")
    named = {method.label.casefold(): method for method in methods if method.file is not None}
    for method in methods:
        other = named.get(method.label.casefold(), method)
        if other.file != method.file:
            called = sorted({each.label.removeprefix("npz-") for each in (method, other)})
            alike = f"both are called {called[0]}" if len(called) == 1 else f"some disks do not tell {' from '.join(called)}"
            raise UserError(
                f"--methods npz:{method.file} npz:{other.file}: results are named by the file, and {alike}; rename one of them"
            )
    twice = {method.label for method in methods if [m.label for m in methods].count(method.label) > 1}
    if twice:
        raise UserError(f"--methods: {min(twice)} is named twice; give each method once")
    _check_combination(settings, methods)
    kind = AUGMENTATIONS.get(settings.dataset.partition("-")[0], "crop")
    eps = usual_eps(settings.dataset, settings.norm) if settings.eps is None else settings.eps
    threats = [Threat(settings.norm, eps), *settings.evaluation.further()]
    if len(set(threats)) < len(threats):
        raise UserError(f"--evaluation.threats {' '.join(settings.evaluation.threats)}: one is named twice, or is --norm and --eps")
    return replace(
        settings,
        eps=eps,
        encoder=_augmented(settings.encoder, kind),
        classifier=_augmented(settings.classifier, kind),
        out=settings.out or Path("results") / f"{settings.dataset}-{settings.preset}",
    )


def _augmented(settings: ClassifierSettings, kind: Augmentation) -> ClassifierSettings:
    return replace(settings, augmentation=kind) if settings.augmentation == "auto" else settings


def _check_numbers(settings: Settings) -> None:
    for name, least, most in (
        ("train", 0, 10**9),
        ("validation", 0, 10**9),
        ("test", 0, 10**9),
        ("synthetic", 2, 10**9),
        ("seeds", 1, 10**6),
        ("seed", 0, 2**31),
        ("workers", 0, 1024),
        ("threads", 1, 1024),
        ("image_size", 0, 4096),
        ("processes", 1, 1024),
        ("port", 0, 65535),
        ("rounds", 1, 1000),
    ):
        value = getattr(settings, name)
        if not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} {value}: must lie in {least} .. {most}")
    if settings.test == 1:
        raise UserError("--test 1: one image gives no accuracy; use more, or 0 for all")
    if 0 < settings.image_size < 4:
        raise UserError(
            f"--image-size {settings.image_size}: networks halve images twice; use at least 4, or 0 for images as they are"
        )
    if settings.eps is not None:
        check_radius(f"--eps {settings.eps}", settings.eps, settings.norm)
    for text, threat in zip(settings.evaluation.threats, settings.evaluation.further(), strict=True):
        check_radius(f"--evaluation.threats {text}", threat.eps, threat.norm)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", settings.device):
        raise UserError(f"--device {settings.device}: use auto, cpu, cuda or cuda:N")


def _check_combination(settings: Settings, methods: list[Method]) -> None:
    """Raise UserError for settings that contradict each other, and for options that would have no effect."""
    _check_recipes(settings, methods)
    _check_data_options(settings)
    _check_processes(settings)
    free = [method for method in methods if method.kind == "classifier-free"]
    if free and not settings.diffusion.label_dropout and settings.diffusion.load is None:
        raise UserError(f"--methods {free[0].text}: needs a model trained without labels too; add --diffusion.label-dropout 0.1")
    if free and not settings.diffusion.conditional:
        raise UserError(f"--methods {free[0].text}: needs a class-conditional model; leave out --diffusion.no-conditional")
    _check_methods_options(settings, methods)
    _check_selection(settings)
    _check_automatic(settings, methods)
    _check_rounds(settings, methods)
    if settings.diffusion.load is None:
        check_windows(settings, methods, settings.diffusion.timesteps, "timesteps of the diffusion")
    if not settings.diffusion.load and settings.generation.steps > settings.diffusion.timesteps:
        raise UserError(
            f"--generation.steps {settings.generation.steps}: the diffusion has {settings.diffusion.timesteps} timesteps; use fewer"
        )
    if settings.synthetic * settings.selection.surplus > 10**9:
        raise UserError(f"--selection.surplus {settings.selection.surplus}: makes more than 10^9 images; use less")
    for method in methods:
        if method.kind in KINDS and settings.generation.batch_size < 2:
            raise UserError(
                f"--generation.batch-size {settings.generation.batch_size}: guidance compares images of a batch; use at least 2"
            )


def _check_recipes(settings: Settings, methods: list[Method]) -> None:
    """Raise UserError for classifiers whose weights are chosen on no images, or on those they are compared on, or that only warm up."""
    if settings.evaluation.split == "validation" and settings.validation == 0:
        raise UserError("--evaluation.split validation: no validation images are set apart; add --validation 100")
    by_its_recipe = settings.selection.labeller != "encoder" or any(method.kind == "feedback" for method in methods)
    trained = by_its_recipe or (settings.encoder_from is None and any(method.kind != "real" for method in methods))
    for part in ("encoder", "classifier") if trained else ("classifier",):
        chosen: ClassifierSettings = getattr(settings, part)
        if settings.evaluation.split == "validation" and chosen.keep == "best":
            raise UserError(
                f"--evaluation.split validation: --{part}.keep best has chosen the weights by these images; use --{part}.keep last"
            )
        if chosen.keep == "best" and settings.validation == 0:
            raise UserError(f"--{part}.keep best: chooses on validation images; set some apart with --validation, or use last")
        if chosen.schedule == "cosine" and chosen.warmup >= chosen.steps:
            raise UserError(
                f"--{part}.warmup {chosen.warmup}: the learning rate would rise for all of {chosen.steps} steps; use fewer, such as "
                f"{chosen.steps // 20}"
            )


def _check_selection(settings: Settings) -> None:
    """Raise UserError for a choice among images where all are kept."""
    if settings.selection.criterion != "random" and settings.selection.surplus == 1:
        raise UserError(
            f"--selection.criterion {settings.selection.criterion}: keeps all there are; make more, --selection.surplus 2"
        )
    if settings.selection.labels == "agreeing" and settings.selection.surplus == 1:
        raise UserError("--selection.labels agreeing: drops images, and as many are to be kept; make more, --selection.surplus 1.5")
    if settings.selection.surplus == 1 and settings.selection.order != SelectionSettings().order:
        raise UserError(f"--selection.order {settings.selection.order}: all images are kept; make more, --selection.surplus 2")


def _check_automatic(settings: Settings, methods: list[Method]) -> None:
    """Raise UserError if a scale cannot be found automatically: the model takes no labels, or the scale is no fraction."""
    found = [method for method in methods if method.automatic]
    if found and not settings.generation.relative:
        raise UserError(
            f"--methods {found[0].text}: auto tries fractions of the noise prediction; add --generation.relative, or give a number"
        )
    if found and not settings.diffusion.conditional and settings.diffusion.load is None:
        raise UserError(f"--methods {found[0].text}: {UNCONDITIONAL}; give a number, or leave out --diffusion.no-conditional")


def check_windows(settings: Settings, methods: list[Method], timesteps: int, whose: str) -> None:
    """Raise UserError for a window beyond the timesteps: `windows` if a scale is auto, `window` if one is not."""
    windows = {"windows": settings.generation.windows} if any(method.automatic for method in methods) else {}
    if settings.generation.window is not None and any(method.uses_encoder and not method.automatic for method in methods):
        windows["window"] = (settings.generation.window,)
    for name, pairs in windows.items():
        for low, high in pairs:
            if not 0 <= low < high <= timesteps:
                raise UserError(f"--generation.{name} {low} {high}: must satisfy 0 <= low < high <= {timesteps}, the {whose}")


def _check_rounds(settings: Settings, methods: list[Method]) -> None:
    """Raise UserError for rounds that would be empty, or that a way of running or a method does not have."""
    rounds = settings.rounds
    if rounds == 1:
        return
    if settings.synthetic < 2 * rounds or settings.classifier.steps < rounds:
        raise UserError(
            f"--rounds {rounds}: each needs 2 images and a training step, there are {settings.synthetic} images and "
            f"{settings.classifier.steps} steps; use fewer rounds"
        )
    if settings.part is not None:
        raise UserError(
            f"--rounds {rounds}: a later round needs the classifier of the one before; leave out --part {settings.part}"
        )
    if not any(method.generates for method in methods):
        raise UserError(f"--rounds {rounds}: no method generates images; leave it out")
    if settings.classifier.keep == "best":
        raise UserError(
            f"--rounds {rounds}: the next round goes on from the last weights, not the best; use --classifier.keep last"
        )
    noise = next((method for method in methods if method.kind == "noise"), None)
    if noise is not None:
        raise UserError(f"--methods {noise.text}: noise is put on images of one round; leave out --rounds {rounds}")


def check_labels(settings: Settings, methods: list[Method], conditional: bool) -> None:
    """Raise UserError for labels and methods that do not go with a conditional, or unconditional, model, and for a labeller that would
    label nothing."""
    chosen, negatives = settings.selection, settings.generation.negatives
    if chosen.labeller != "encoder" and not chosen.relabels(conditional):
        raise UserError(
            f"--selection.labeller {chosen.labeller}: labels stay as drawn, so it would label nothing; add --selection.labels pseudo, soft "
            "or agreeing"
        )
    if conditional:
        return
    if chosen.labels in ("agreeing", "drawn"):
        raise UserError(f"--selection.labels {chosen.labels}: an unconditional model has no drawn labels; use pseudo or soft")
    for method in methods:
        if method.kind in BY_LABEL:
            raise UserError(f"--methods {method.text}: needs labels, and this model takes none; use a class-conditional one")
        if method.kind == "infonce" and negatives != "all":
            raise UserError(f"--generation.negatives {negatives}: goes by labels, and this model takes none; use all")


OF_METHODS: dict[str, tuple[str, ...]] = {
    "negatives": ("infonce",),
    "feedback": ("feedback",),
    "keep": ("feedback",),
    "target": ("boundary",),
    "repel": ("particle",),
    "weaker": ("autoguidance",),
    "anchors": ("anchored",),
    "temperature": CONTRASTIVE,
}
"""Settings of generation that only these kinds of method read."""
OF_AUTO = ("label_error", "pilot", "windows")
"""Settings of generation that only a scale auto reads."""


def _check_methods_options(settings: Settings, methods: list[Method]) -> None:
    """Raise UserError for labels that do not go with the model, and for a setting of a method that is not run."""
    if settings.diffusion.load is None:
        check_labels(settings, methods, settings.diffusion.conditional)
    weaker = next((method for method in methods if method.kind == "autoguidance"), None)
    if weaker is not None and settings.diffusion.load is not None:
        raise UserError(f"--methods {weaker.text}: needs a weaker model of the same recipe, trained here; leave out --diffusion")
    chosen, usual = settings.generation, GenerationSettings()
    for name, kinds in OF_METHODS.items():
        value = getattr(chosen, name)
        if value != getattr(usual, name) and not any(method.kind in kinds for method in methods):
            raise UserError(
                f"--generation.{name} {value}: belongs to {' or '.join(kinds)}, which {'is' if len(kinds) == 1 else 'are'} not among the "
                "methods; leave it out"
            )
    for name in OF_AUTO:
        if getattr(chosen, name) != getattr(usual, name) and not any(method.automatic for method in methods):
            raise UserError(f"--generation.{name.replace('_', '-')}: belongs to a scale auto, which no method has; leave it out")


def _check_processes(settings: Settings) -> None:
    """Raise UserError for ways of running that exclude each other, or a number of processes that does not divide a batch."""
    ways = [
        f"--{name} {value}"
        for name, value in (
            ("processes", settings.processes if settings.processes > 1 else 0),
            ("workers", settings.workers),
            ("cluster", settings.cluster),
        )
        if value
    ]
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)}: exclude each other; give one of them")
    if settings.port and settings.processes == 1:
        raise UserError(f"--port {settings.port}: belongs to --processes; leave it out")
    if settings.processes > 1 and ":" in settings.device:
        raise UserError(f"--device {settings.device}: each of --processes {settings.processes} takes a GPU of its own; use cuda")
    check_shares(settings, settings.processes)
    if settings.parts() is not None and not any(m.generates for m in settings.parsed_methods()):
        raise UserError(f"--part {settings.part}: no method generates images; leave it out")
    if settings.until == "description" and not settings.describe:
        raise UserError("--until description: --no-describe leaves it out; leave one of them out")
    if settings.until is not None and settings.part is not None:
        raise UserError(f"--until {settings.until}: --part {settings.part} stops after generation; leave one of them out")


def check_shares(settings: Settings, processes: int) -> None:
    """Raise UserError if a batch cannot be shared equally."""
    for part in ("encoder", "diffusion", "classifier"):
        try:
            Processes(0, processes).share(getattr(settings, part).batch_size)
        except ValueError as error:
            raise UserError(f"--{part}.batch-size: {error}") from None


def _check_data_options(settings: Settings) -> None:
    """Raise UserError for file options that do not apply to the data set."""
    if settings.dataset in CLASSES and not is_a_copy(settings.dataset, settings.data_dir):
        check_classes(settings.classes, CLASSES[settings.dataset], settings.dataset)
    check_options(settings.dataset, settings.data_dir, settings.image_size, settings.group_pattern)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"classifier.steps": 800, ...} of nested settings."""
    found: dict[str, Any] = {}
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if hasattr(value, "__dataclass_fields__"):
            found |= flat(value, f"{prefix}{entry.name}.")
        else:
            found[prefix + entry.name] = value
    return found


def as_flag(name: str, value: Any) -> str:
    """--part.name VALUE."""
    flag = "diffusion" if name == "diffusion.load" else name.replace("_", "-")
    part, dot, last = flag.rpartition(".")
    if isinstance(value, bool):
        return f"--{part}{dot}{'' if value else 'no-'}{last}"
    return f"--{flag} {shown(value)}"


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
