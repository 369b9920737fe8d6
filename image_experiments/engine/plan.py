"""The experiment as stages: what each reads and writes, and how they depend on each other. jobs.py says what they do."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from command_line.output import UserError
from contrastive_dp.randomness import mixed_seed
from image_experiments.data.given import parts_of
from image_experiments.data.official import official_in
from image_experiments.engine import jobs
from image_experiments.engine.fingerprint import source_digest
from image_experiments.engine.settings import Settings, Until
from image_experiments.engine.stages import Stage, of_round
from image_experiments.models.diffusion_files import FILES as DIFFUSION_FILES
from image_experiments.synthesis.methods import Method
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.diffusion_training import DiffusionSettings


def plan(settings: Settings) -> list[Stage]:
    """All stages of a run, each after its inputs. Raises UserError for a missing file."""
    stages: dict[str, Stage] = {}
    read = {name: getattr(settings, name) for name in ("dataset", "image_size", "group_pattern", "classes", "test")}
    file = {"images": "data/images.npz"}
    data = Stage("data", jobs.read_data, read, file, **_data_files(settings), on_device=False)
    stages[data.name] = data
    speed = _speed(settings, data)
    seeds = [SeedPlan(settings, seed, stages, data, speed) for seed in range(settings.seed, settings.seed + settings.seeds)]
    for one in seeds:
        one.add_shared()
    for method in settings.parsed_methods():
        for one in seeds:
            one.add_method(method)
    return list(stages.values())


Speed = dict[str, dict[str, Stage]]
Inputs = dict[str, Stage]
Job = Callable[..., dict[str, Any] | None]
STEPS: dict[Until, tuple[str, ...]] = {
    "diffusion": ("diffusion", "weaker"),
    # with the precision of the images: machines that then make parts of a set have to make them alike
    "encoder": ("encoder", "judge", "labeller", "keeper", "strength", "speed/generation"),
    "generation": ("generate", "select", "gather", "noise", "read"),
    "description": ("describe",),
    "training": ("classifier",),
}
"""Steps at which --until stops, in order, with the kinds of their stages (the beginnings of the stages' names), or a whole name."""


def up_to(until: Until, stages: list[Stage]) -> list[Stage]:
    """The stages of this step and of the steps before it, and the stages they need."""
    steps = list(STEPS)
    if until == "encoder":  # the strength of a later round needs what the rounds before it made and trained
        stages = [stage for stage in stages if not re.fullmatch(r"strength/.*-round(?!1$)\d+", stage.name)]
    return needed_for([kind for step in steps[: steps.index(until) + 1] for kind in STEPS[step]], stages)


def needed_for(kinds: Sequence[str], stages: list[Stage]) -> list[Stage]:
    """The stages of these kinds, or names, and the stages they need."""
    needed: set[str] = set()

    def need(stage: Stage) -> None:
        if stage.name in needed:
            return
        needed.add(stage.name)
        for earlier in stage.needs.values():
            need(earlier)

    for stage in stages:
        if stage.name.partition("/")[0] in kinds or stage.name in kinds:
            need(stage)
    return [stage for stage in stages if stage.name in needed]


def _outside(flag: str, path: Path | None, argument: str = "", digest: Callable[[Path], str] = source_digest) -> dict[str, Any]:
    """Arguments of Stage for an outside file or folder: the checksum of its content, and its path as an argument of the function."""
    found: dict[str, Any] = {"paths": {argument: path}} if argument else {}
    if path is None:
        return found
    if not path.exists():
        raise UserError(f"{flag} {path}: no such file or folder; check the path")
    return found | {"outside": {flag: digest(path)}}


def _data_files(settings: Settings) -> dict[str, Any]:
    """As _outside, for the files of the data."""
    return _outside("--data-dir", settings.data_dir, "data_dir", digest=lambda path: data_digest(settings.dataset, path))


def data_digest(dataset: str, path: Path) -> str:
    """Checksum of the files of a data set: its official ones, if they are all in the folder, whatever else is; otherwise all there is."""
    official = official_in(dataset, path)
    return _joined([source_digest(file) for file in official]) if official else source_digest(path)


def _joined(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def digest_of_parts(path: Path) -> str:
    """Checksum of all files of generated images that `path` names."""
    try:
        parts = parts_of(path)
    except UserError as error:
        raise UserError(f"--methods npz:{error}") from None
    return _joined([source_digest(part) for part in parts])


def _speed(settings: Settings, data: Stage) -> dict[str, dict[str, Stage]]:
    """{part: {"speed": the stage that chooses its precision and compilation}}; empty for parts where nothing needs to be measured."""
    found: dict[str, dict[str, Stage]] = {}
    for name in ("encoder", "diffusion", "generation", "classifier"):
        part = getattr(settings, name)
        found[name] = {}
        if "auto" in (part.precision, part.compile):
            arguments = {"part": name, "settings": part, "diffusion": settings.diffusion}
            arguments |= {"threat": settings.threat(), "synthetic": settings.synthetic}
            outside = _outside("--diffusion", settings.diffusion.load)
            file = {"timings": f"speed-{name}.csv"}
            found[name]["speed"] = Stage(f"speed/{name}", jobs.choose_speed, arguments, file, {"data": data}, **outside)
    return found


WEAKER, ROUND = 10, 1000
"""Set the weaker model, and the images of later rounds, apart from other random numbers of a seed."""


@dataclass(frozen=True, eq=False)
class SeedPlan:
    """Adds the stages of one seed to `stages`, the plan so far by name. speed: as from _speed."""

    settings: Settings
    seed: int
    stages: dict[str, Stage]
    data: Stage
    speed: Speed

    def add(
        self, name: str, function: Job, arguments: dict[str, Any], outputs: dict[str, str], inputs: Inputs, **more: Any
    ) -> Stage:
        """Add a stage, after those that only advise it; one of this name that is in the plan already is kept."""
        stage = Stage(name, function, arguments, outputs, inputs, **more)
        for advising in stage.advice.values():
            self.stages.setdefault(advising.name, advising)
        return self.stages.setdefault(stage.name, stage)

    @property
    def real(self) -> Inputs:
        """The data set, and which of its images this seed trains on."""
        chosen = {"train": self.settings.train, "validation": self.settings.validation, "seed": self.seed}
        file = {"split": f"data/split-seed{self.seed}.npz"}
        split = self.add(f"split/seed{self.seed}", jobs.split_data, chosen, file, {"data": self.data}, on_device=False)
        return {"data": self.data, "split": split}

    def add_shared(self) -> None:
        """Add what the methods share, in the order in which it is needed: first what takes longest."""
        methods = self.settings.parsed_methods()
        _ = self.real
        if any(m.generates or m.kind == "noise" for m in methods) and self.settings.diffusion.load is None:
            self.diffusion("diffusion", self.settings.diffusion, self.seed)
        if any(m.kind != "real" for m in methods) and self.settings.describe:
            _ = self.encoder, self.judge
        elif any(m.generates or m.kind == "noise" for m in methods):
            _ = self.encoder

    def diffusion(self, kind: str, settings: DiffusionSettings, seed: int) -> Stage:
        """The stage that trains a diffusion model."""
        outputs = {role: f"checkpoints/{kind}-seed{self.seed}/{path}" for role, path in DIFFUSION_FILES.items()}
        outputs |= {"curve": f"curves/{kind}-seed{self.seed}.csv"}
        arguments, advice = {"settings": settings, "seed": seed}, self.speed["diffusion"]
        name = f"{kind}/seed{self.seed}"
        return self.add(name, jobs.train_diffusion_model, arguments, outputs, self.real, shared=True, advice=advice)

    def helper(self, name: str, function: Job, settings: ClassifierSettings, **more: Any) -> Stage:
        """The stage that trains a classifier which is not compared, only used: KIND or KIND/WHICH."""
        stem = f"{name.replace('/', '-')}-seed{self.seed}"
        outputs = {"weights": f"checkpoints/{stem}.safetensors", "curve": f"curves/{stem}.csv"}
        arguments = {"settings": settings, "threat": self.settings.threat(), "seed": self.seed, **more}
        advice = self.speed["encoder"]
        return self.add(f"{name}/seed{self.seed}", function, arguments, outputs, self.real, shared=True, advice=advice)

    @property
    def encoder(self) -> Stage:
        """The stage that trains or reads the encoder."""
        if self.settings.encoder_from is None:
            return self.helper("encoder", jobs.train_encoder, self.settings.encoder)
        outside = _outside("--encoder-from", self.settings.encoder_from, "file")
        weights = {"weights": f"checkpoints/encoder-seed{self.seed}.safetensors"}
        reading = {"network": self.settings.encoder.network, "dataset": self.settings.dataset}
        return self.add(f"encoder/seed{self.seed}", jobs.read_encoder, reading, weights, self.real, **outside)

    @property
    def judge(self) -> Stage:
        """The stage that trains the judge."""
        steps = self.settings.description.steps
        warmup = min(self.settings.encoder.warmup, steps // 10)  # nobody sets the warm-up of a judge
        return self.helper("judge", jobs.train_judge, replace(self.standard, steps=steps, warmup=warmup))

    def labeller(self, kind: str, number: int) -> Stage:
        """The stage that trains one of the classifiers of the encoder's recipe, or its recipe without attacks, that guide nothing."""
        recipe = self.settings.encoder if kind == "robust" else self.standard
        return self.helper(f"labeller/{kind}-{number}", jobs.train_labeller, recipe, number=number)

    @property
    def standard(self) -> ClassifierSettings:
        """The encoder's recipe without attacks."""
        return replace(self.settings.encoder, adversary="none", keep="last")

    @property
    def keeper(self) -> Stage:
        """The stage that trains the classifier that keeps the labels in feedback; it labels nothing."""
        return self.helper("keeper", jobs.train_labeller, self.standard, number=0)

    def add_method(self, method: Method) -> None:
        """Add the stages of a method: synthetic images, their description, a classifier, its evaluation."""
        settings, where = self.settings, f"{method.label}/seed{self.seed}"
        inputs, before = dict[str, Stage](), None
        if method.kind != "real":
            inputs["synthetic"], before = self.rounds(method) if method.generates else (self.not_sampled(method), None)
            if settings.describe:
                described = {**self.real, **inputs, "encoder": self.encoder, "judge": self.judge}
                told = {"settings": settings.description, "split": settings.evaluation.split}
                self.add(f"describe/{where}", jobs.describe, told, {}, described)
        classifier = self.classifier(method, inputs, settings.rounds if method.generates else 1, before)
        threats = [settings.threat(), *settings.evaluation.further()]
        arguments = {"settings": settings.evaluation, "threats": threats, "seed": self.seed}
        outcomes = {"outcomes": f"outcomes/{method.label}-seed{self.seed}.npz"}
        self.add(f"evaluate/{where}", jobs.evaluate, arguments, outcomes, {**self.real, "classifier": classifier})

    def classifier(self, method: Method, inputs: Inputs, number: int, before: Stage | None) -> Stage:
        """The stage that trains a method's classifier, or its part in a round, going on from `before`, that of the round before."""
        suffix = self._suffix(number) if method.generates else ""
        stem = f"{method.label}-seed{self.seed}{suffix}"
        outputs = {"weights": f"checkpoints/{stem}.safetensors", "curve": f"curves/{stem}.csv"}
        arguments: dict[str, Any] = {"settings": self.settings.classifier, "threat": self.settings.threat(), "seed": self.seed}
        if suffix or before is not None:
            arguments["of_rounds"] = (number, self.settings.rounds)
        if suffix:
            outputs["last"] = f"checkpoints/{stem}-last.safetensors"
        inputs = {**self.real, **inputs, **({} if before is None else {"before": before})}
        name, advice = f"classifier/{method.label}/seed{self.seed}{suffix}", self.speed["classifier"]
        return self.add(name, jobs.train_compared, arguments, outputs, inputs, shared=True, advice=advice)

    def _suffix(self, number: int) -> str:
        """What the names of a round's stages end in; those of the last round are the method's own."""
        return "" if number == self.settings.rounds else of_round(number, self.settings.rounds)

    def not_sampled(self, method: Method) -> Stage:
        """The stage whose output is the synthetic images of a method that samples none: read, or noise on others."""
        count, where = self.settings.synthetic, f"{method.label}/seed{self.seed}"
        file = {"images": f"synthetic/{where}.npz"}
        if method.kind == "npz":
            arguments: dict[str, Any] = {"count": count, "seed": self.seed}
            assert method.file is not None
            outside = {"paths": {"file": method.file}, "outside": {"--methods npz": digest_of_parts(method.file)}}
            return self.add(f"read/{where}", jobs.read_generated, arguments, file, self.real, **outside, on_device=False)
        if method.kind == "noise":
            plain, _ = self.rounds(Method("unguided", "unguided"))
            arguments, inputs = {"std": method.scale, "seed": self.seed}, {**self.real, "synthetic": plain}
            return self.add(f"noise/{where}", jobs.add_noise, arguments, file, inputs, on_device=False)
        arguments = {"std": method.scale, "count": count, "seed": self.seed}
        return self.add(f"noise/{where}", jobs.add_noise_to_real, arguments, file, self.real, on_device=False)

    def rounds(self, method: Method) -> tuple[Stage, Stage | None]:
        """(the stage whose output is all synthetic images of a method, the classifier of the round before the last, if there is one).

        Each round makes its share of the images, guided by the classifier of the round before (in the first by the encoder), and trains
        that classifier on, with all images so far.
        """
        everything = classifier = None
        rounds = self.settings.rounds
        for number in range(1, rounds + 1):
            made = self.made(method, number, classifier or self.encoder)
            if everything is None:
                everything = made
            else:
                where = f"{method.label}/seed{self.seed}{self._suffix(number)}"
                file = {"images": f"{'rounds/all' if number < rounds else 'synthetic'}/{where}.npz"}
                inputs = {**self.real, "earlier": everything, "made": made}
                everything = self.add(f"gather/{where}", jobs.gather, {}, file, inputs, on_device=False)
            if number < rounds:
                classifier = self.classifier(method, {"synthetic": everything}, number, classifier)
        assert everything is not None
        return everything, classifier

    def made(self, method: Method, number: int, guide: Stage) -> Stage:
        """The stage whose output is the images of a round, labelled and selected if the settings say so. guide: in the encoder's place."""
        settings, suffix = self.settings, of_round(number, self.settings.rounds)
        where = f"{method.label}/seed{self.seed}{suffix}"
        path = f"{'rounds/new' if suffix else 'synthetic'}/{where}"
        seed = self.seed if number == 1 else mixed_seed(self.seed, ROUND + number)
        chosen, ends = settings.selection, [settings.synthetic * k // settings.rounds for k in (number - 1, number)]
        surplus = [math.ceil(end * chosen.surplus) for end in ends]  # images that are generated before this round, and after it
        selects = chosen.surplus > 1 or may_relabel(settings)
        generated = self.generated(method, where, f"generated/{where}" if selects else path, surplus, seed, guide)
        if not selects:
            return generated
        labellers = range(1, chosen.ensemble + 1) if chosen.labeller != "encoder" and may_relabel(settings) else ()
        inputs = {**self.real, "encoder": guide, **{f"labeller {n}": self.labeller(chosen.labeller, n) for n in labellers}}
        arguments = {"settings": chosen, "count": ends[1] - ends[0], "seed": seed}
        return self.add(f"select/{where}", jobs.select, arguments, {"images": f"{path}.npz"}, {**inputs, "generated": generated})

    def generated(self, method: Method, where: str, path: str, numbers: Sequence[int], seed: int, guide: Stage) -> Stage:
        """The stage that samples images of a method, the first number up to the second, after one that finds a scale that is auto."""
        settings = self.settings
        about: dict[str, Any] = {"settings": settings.generation, "diffusion": settings.diffusion, "method": method, "seed": seed}
        count = numbers[1] - numbers[0]
        needed = dict(self.real)
        if settings.diffusion.load is None:
            needed["diffusion"] = self.diffusion("diffusion", settings.diffusion, self.seed)
        if method.uses_encoder:
            needed["encoder"] = guide
        if method.kind == "feedback" and settings.generation.keep:
            needed["keeper"] = self.keeper
        if method.kind == "autoguidance":
            steps = max(round(settings.generation.weaker * settings.diffusion.steps), 1)
            needed["weaker"] = self.diffusion("weaker", replace(settings.diffusion, steps=steps), mixed_seed(self.seed, WEAKER))
        outside, advice = _outside("--diffusion", settings.diffusion.load), self.speed["generation"]
        if method.automatic:
            trying = {**needed, "judge": self.judge}
            tried = about | {"size": min(settings.generation.batch_size, max(count, 2))}
            needed["strength"] = self.add(f"strength/{where}", jobs.find_strength, tried, {}, trying, **outside, advice=advice)
        about |= {"count": count, **({"before": numbers[0]} if numbers[0] else {})}
        outputs = {"images": f"{path}.npz", "manifest": f"{path}.json"}
        return self.add(f"generate/{where}", jobs.generate, about, outputs, needed, **outside, shared=True, advice=advice)


def may_relabel(settings: Settings) -> bool:
    """Whether labels may come from a classifier; for a loaded model this is known only once it is read."""
    return settings.selection.relabels(settings.diffusion.load is None and settings.diffusion.conditional)
