"""One experiment from Python, as run_cifar.py makes it: `result = run(preset("smoke", eps=8 / 255))`."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line.command import versions
from command_line.folder_claim import FILE, check_claim, note_claim
from command_line.messages import QUIET, TERMINAL, Talk, noting
from command_line.output import TEMPORARY, UserError, prepare_folder, write_json
from command_line.result import Result as ResultOfRun
from command_line.spawning import without_main
from command_line.values import as_number, checked
from contrastive_dp.processes import Processes
from image_experiments.data.dataset import Array
from image_experiments.data.given import absolute as absolute_parts
from image_experiments.data.given import names_of_parts
from image_experiments.data.npz_files import ImageFile
from image_experiments.engine.changes import DEVICE, check_device, own_shards, shards_in, told_of_changes, told_of_shards
from image_experiments.engine.checks import (
    check_beforehand,
    check_names,
    encoder_doubts,
    encoder_line,
    facts_of,
    facts_without_reading,
)
from image_experiments.engine.devices import check_places_alike, place_of
from image_experiments.engine.fingerprint import check_code, forget_code, source_digest
from image_experiments.engine.plan import data_digest, digest_of_parts, may_relabel, needed_for, plan, up_to
from image_experiments.engine.processes import run_together
from image_experiments.engine.progress import work_of
from image_experiments.engine.reuse import check_reuse, take_over
from image_experiments.engine.scheduler import Bar, as_before, run_all
from image_experiments.engine.settings import Settings, flat, resolve
from image_experiments.engine.stages import Place, Stage, read_stamp
from image_experiments.engine.unused import told_of_unread
from image_experiments.generated import Generated, Made
from image_experiments.models.classifier_files import load_classifier
from image_experiments.models.classifiers import Normalised
from image_experiments.output import tables, tensorboard
from image_experiments.synthesis.methods import parse_method

FOLDERS = (
    "stages",
    "unfinished",
    "shards",
    "data",
    "checkpoints",
    "curves",
    "generated",
    "rounds",
    "synthetic",
    "outcomes",
    "mosaics",
)
"""The folders that a run makes in OUT."""
FREE = (
    *(
        "preset",
        "out",
        "reuse",
        "workers",
        "processes",
        "port",
        "cluster",
        "part",
        "until",
        "device",
        "tensorboard",
        "describe",
        "force",
        "dry_run",
    ),
    *("seed", "seeds", "data_dir", "encoder_from", "diffusion.load"),
)
"""Settings that do not make it a different experiment; for outside files the content counts, not the location."""
SMOKE = "the preset smoke runs every stage once, at a small size: its numbers mean nothing (--preset cpu: some that do)"
UNSELECTED = "images that are read (npz:) keep their labels and are not selected: --selection acts on those that are generated here"
GROWING = ("methods", "all seeds")
"""Settings to which an experiment may add entries."""


class Result(ResultOfRun):
    """The results of a run, read from its folder on access.

    out: the folder. settings: {"classifier.steps": 800, ...}. warnings: about data, training and evaluation. Tables are pandas DataFrames
    with the content of the csv files of the same names: metrics (one row per method, seed and attack), details (the same with counts and
    standard errors), description (of the synthetic images), differences (gains with intervals).
    """

    def __init__(self, out: str | Path) -> None:
        super().__init__(out)
        try:
            self.settings: dict[str, Any] = self.summary["settings"]
            self.warnings: list[str] = self.summary["warnings"]
            self.classes: list[str] = self.summary["data"]["classes"]
            height, width, channels = self.summary["data"]["shape"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.out}: holds no run on images; name the out of one") from None
        self.shape = (channels, height, width)

    def __repr__(self) -> str:
        seeds = range(self.settings["seed"], self.settings["seed"] + self.settings["seeds"])
        return f"Result({str(self.out)!r}: {self.settings['dataset']}, {', '.join(self.settings['methods'])}; seeds {list(seeds)})"

    @property
    def metrics(self) -> Any:
        """metrics.csv as a DataFrame: a row per method, seed and attack; columns in docs/outputs.md."""
        return self.table("metrics")

    @property
    def details(self) -> Any:
        """details.csv as a DataFrame: numbers of images and Wilson intervals of the rows of metrics."""
        return self.table("details")

    @property
    def description(self) -> Any:
        """description.csv as a DataFrame: a row per set of synthetic images; columns in docs/outputs.md."""
        return self.table("description")

    @property
    def differences(self) -> Any:
        """differences.csv as a DataFrame: gains over real and over unguided images, paired by seed, with intervals."""
        return self.table("differences")

    def synthetic(self, method: str, seed: int = 0) -> tuple[Array, Array]:
        """Images uint8 (n, H, W, C) and labels (n,) of a method, named as in the tables, for example "infonce-0.3". Raises UserError."""
        file = self._made(method, seed)
        return file.images, file.labels

    def generated(self, *methods: str, seeds: Sequence[int] | int | None = None, transform: Any = None) -> Generated:
        """The images of these methods as a torch Dataset, with to_npz and to_image_folder for other trainers. seeds: default all.
        transform: of each image, as in torch's data sets. Raises UserError."""
        wrong = next((method for method in methods if not isinstance(method, str)), None)
        if wrong is not None:
            raise UserError(f"methods={wrong!r}: give names, generated('unguided', 'infonce-0.3')")
        first = self.settings["seed"]
        every = range(first, first + self.settings["seeds"])
        seeds = every if seeds is None else as_number(seeds)
        chosen = [as_number(one) for one in ([seeds] if isinstance(seeds, int) else seeds)]
        if len(set(methods)) < len(methods) or len(set(chosen)) < len(chosen):
            raise UserError(f"methods={methods}, seeds={chosen}: one is named twice; give each once")
        parts = [
            Made(self._made(method, seed), method, self._strength(method, seed), seed) for method in methods for seed in chosen
        ]
        if not parts:
            raise UserError(f"methods={methods}, seeds={seeds}: name at least one method and seed")
        return Generated(parts, self.classes, transform)

    def _made(self, method: str, seed: int) -> ImageFile:
        path = self._file("synthetic images", self.out / "synthetic" / method / f"seed{seed}.npz", method, seed)
        channels, height, width = self.shape
        return ImageFile(path, len(self.classes), (height, width, channels))

    def _strength(self, method: str, seed: int) -> float:
        """Scale of a method's guidance or noise, the one that was found (in the last round) if it was automatic; nan if it has none."""
        last = tables.of_each_round(self.settings.get("rounds", 1), f"strength/{method}/seed{seed}")[-1]
        found = self.summary["results"].get(last, {}).get("scale")
        if found is not None:
            return float(found)
        named = {one.label: one for one in map(parse_method, self.settings["methods"]) if one.file is None}
        fixed = method in named and not named[method].automatic
        return named[method].scale if fixed and named[method].scale else math.nan

    def classifier(self, method: str, seed: int = 0) -> Normalised:
        """The classifier trained with a method's images, frozen: maps [0, 1] images (n, C, H, W) to logits. Raises UserError."""
        path = self._file("classifier", self.out / "checkpoints" / f"{method}-seed{seed}.safetensors", method, seed)
        return load_classifier(path, len(self.classes), self.shape)

    def _file(self, what: str, path: Path, method: str, seed: int) -> Path:
        if not isinstance(seed := as_number(seed), int):
            raise UserError(f"seed={seed!r}: give a whole number")
        known = method in set(self.metrics["method"]) and 0 <= seed - self.settings["seed"] < self.settings["seeds"]
        if not known or not path.is_file():  # a file may also be there of an experiment that --force replaced
            names, seeds = (", ".join(map(str, dict.fromkeys(self.metrics[column]))) for column in ("method", "seed"))
            raise UserError(f"{self.out}: has no {what} of {method!r}, seed {seed}; its methods are {names}, its seeds {seeds}")
        return path


def run(settings: Settings, talk: Talk = QUIET) -> Result:
    """Run an experiment, or continue it: only what has changed is made again. Blocks; a progress bar goes to standard error.

    settings: from `preset`, for example. `until`, `part`, `processes` and `dry_run` are for the command line only.
    Raises UserError: one line that names value, cause and remedy.
    """
    if not isinstance(settings, Settings):
        raise UserError(f"settings={settings!r}: give Settings, for example run(preset('smoke'))")
    settings = checked(settings)
    for name, usual in (("dry_run", False), ("part", None), ("until", None), ("processes", 1)):
        if getattr(settings, name) != usual:
            raise UserError(f"{name}={getattr(settings, name)}: belongs to the command line, run_cifar.py; leave it out")
    settings = prepared(settings)
    forget_code()
    stages = checked_stages(settings)
    place, workers = place_of(settings)
    with without_main(), as_before():
        conduct(settings, stages, place, workers, talk)
    return Result(place.out)


def prepared(settings: Settings) -> Settings:
    """The resolved settings, with every path in its final form. Raises UserError."""
    return found_on_hub(on_absolute_paths(resolve(settings)))


def checked_stages(settings: Settings) -> list[Stage]:
    """The stages of a run, checked as far as possible without the data. Raises UserError."""
    stages = chosen_stages(settings, plan(settings))
    if settings.tensorboard:
        tensorboard.check_installed()
    check_apart(settings)
    check_names(stages)
    check_reuse(settings.reuse)
    check_code(stages)
    return stages


def check_apart(settings: Settings) -> None:
    """Raise UserError if results would be written into a folder that is read: its content would be another after every run."""
    assert settings.out is not None
    for flag, path in (("data-dir", settings.data_dir), ("diffusion", settings.diffusion.load)):
        if path is not None and path.is_dir() and settings.out.resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"--out {settings.out}: lies in --{flag} {path}, whose content every result would change; give another --out"
            )


def check_settings(settings: Settings) -> None:
    """Raise UserError if a run would be refused, as far as this is known without reading the data."""
    settings = prepared(settings)
    checked_stages(settings)
    facts = facts_without_reading(settings)
    if facts is not None:
        check_beforehand(settings, facts)


def conduct(
    settings: Settings, stages: list[Stage], place: Place, workers: int, talk: Talk, processes: Processes | None = None
) -> None:
    """Run all stages that are not current, and write the tables."""
    begin = time.perf_counter()
    processes = processes or Processes()
    check_places_alike(processes.all_of(place.kind))
    with only_run_in(prepare_folder(place.out), processes.first):
        once(processes, lambda: check_folder(settings, place.out))
        once(processes, lambda: check_device(stages, place, settings.force))
        taken = processes.told(take_over(stages, place, settings.reuse) if processes.first else None)  # the others wait
        if taken and processes.first:
            few = len(settings.reuse) <= MOST_NAMED
            others = " ".join(map(str, settings.reuse)) if few else f"{len(settings.reuse)} runs"
            talk.say(f"took {taken} of {len(stages)} stages from {others}")
        doubts: list[str] = []
        talk_and_note = noting(talk, doubts)
        if processes.first:
            tell(talk, (), [*told_of_changes(stages, place), *told_of_shards(stages, place)])
            tell(talk_and_note, (), told_of_unread(settings))
        made = look_at_data(settings, stages, place, processes, talk_and_note)
        if processes.first:
            note_claim(place.out, {**identity(settings), DEVICE: place.kind}, FREE)
        left = [stage for stage in stages if stage.name not in made]
        work = work_of(left, settings, facts_of(tables.results(place.out, "data")))
        bar = Bar(left, work, shown=processes.first, lines=talk.shown and processes.first)
        run_stages(settings, stages, place, processes, workers, made, bar)
        if not processes.first:
            return
        if place.part:
            talk.say(told_of_part(settings, stages, place))
        elif settings.until is not None:
            talk.say(told_of_step(settings, place.out, len(stages)))
        else:
            report(settings, place, stages, round(time.perf_counter() - begin, 2), talk, doubts)


MOST_NAMED = 4


def chosen_stages(settings: Settings, stages: list[Stage]) -> list[Stage]:
    """The stages that --part or --until select. Raises UserError if there are none."""
    if settings.part is not None:
        return needed_for(("generate",), stages)
    if settings.until is None:
        return stages
    found = up_to(settings.until, stages)
    if not found:
        spared = "these methods skip this step, or --diffusion and --encoder-from replace it"
        raise UserError(f"--until {settings.until}: {spared}; name a later one, or leave it out")
    return found


def told_of_step(settings: Settings, out: Path, count: int) -> str:
    """Message about what --until has done, and what comes next."""
    told = f"{count} stages, up to {settings.until}, are done; continue with the same command and a later or no --until"
    return f"{told} (the tables in {out} are those of an earlier run)" if (out / "summary.json").is_file() else told


def told_of_part(settings: Settings, stages: list[Stage], place: Place) -> str:
    """Message about what --part has made, and what comes next."""
    out, own = place.out, [own_shards(stage, place) for stage in stages]
    left = sum(len(shards_in(folder)) for folder in own if folder is not None)
    sets = [stage for stage, shards in zip(stages, own, strict=True) if shards is not None]
    if not left and not all((out / path).is_file() for stage in sets for path in stage.outputs.values()):
        return f"part {settings.part} makes nothing: no set has so many shards as there are parts; name fewer parts"
    if not left:
        return f"part {settings.part} was the last: the images are in {out}/synthetic, or {out}/generated where some are to be selected"
    return (
        f"made part {settings.part}: {left} shards are in {out}/shards; bring them together with merge_shards.py, or copy them into one "
        "OUT/shards and run without --part"
    )


def on_absolute_paths(settings: Settings) -> Settings:
    """On a cluster, whose workers run elsewhere, the settings with absolute paths; otherwise the settings unchanged."""
    if settings.cluster is None:
        return settings

    def absolute(path: Path | None) -> Path | None:
        return path.absolute() if path is not None and path.exists() else path

    methods = tuple(f"npz:{absolute_parts(m.file)}" if m.file is not None else m.text for m in settings.parsed_methods())
    assert settings.out is not None
    return replace(
        settings,
        out=settings.out.absolute(),
        data_dir=absolute(settings.data_dir),
        encoder_from=absolute(settings.encoder_from),
        diffusion=replace(settings.diffusion, load=absolute(settings.diffusion.load)),
        methods=methods,
    )


def found_on_hub(settings: Settings) -> Settings:
    """The settings with the folder of the diffusion model; a name on the hub is downloaded first, before anything is trained.

    Raises UserError if it is neither a folder nor a name on the hub.
    """
    if settings.diffusion.load is None or settings.diffusion.load.is_dir():
        return settings
    from contrastive_dp.adapters import find_pipeline

    try:
        return replace(settings, diffusion=replace(settings.diffusion, load=find_pipeline(settings.diffusion.load)))
    except FileNotFoundError as error:
        raise UserError(f"--diffusion {error}") from None


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that identify the experiment in a folder."""
    found = {"experiment": "run", **flat(settings)} | {"all seeds": list(range(settings.seed, settings.seed + settings.seeds))}
    methods = settings.parsed_methods()
    found["methods"] = [
        m.text if m.file is None else f"npz:{names_of_parts(m.file)} {digest_of_parts(m.file)[:12]}" for m in methods
    ]
    outside = {"encoder-from": settings.encoder_from, "diffusion": settings.diffusion.load}
    digests = {flag: None if path is None else source_digest(path) for flag, path in outside.items()}
    digests |= {"data-dir": None if settings.data_dir is None else data_digest(settings.dataset, settings.data_dir)}
    return found | {f"content of --{flag}": digest and digest[:12] for flag, digest in digests.items()}


def tell_refusal(check: Callable[[], None]) -> None:
    """Say in a dry run that the run itself will be refused, if the check raises UserError."""
    try:
        check()
    except UserError as error:
        tell(TERMINAL, (), [f"the run itself will be refused: {error}"])


def check_folder(settings: Settings, out: Path) -> None:
    """Raise UserError if the folder holds another experiment with trained models: its files would be overwritten."""
    if (out / FILE).is_file():  # of another command: nothing of it is taken over, whatever is in it
        check_claim(out, {"experiment": "run"}, force=settings.force)
    trained = ("diffusion", "encoder", "judge", "classifier", "generate")
    if (out / "summary.json").is_file() or any(any((out / "stages" / kind).rglob("*.json")) for kind in trained):
        check_claim(out, identity(settings), FREE, GROWING, settings.force)


def look_at_data(settings: Settings, stages: list[Stage], place: Place, processes: Processes, talk: Talk) -> set[str]:
    """Read the data and, if it is not trained here, the encoder; describe and check them; returns the stages that did it.

    Raises UserError before anything is trained.
    """
    known = facts_without_reading(settings)
    if known is not None:
        once(processes, lambda: tell(talk, (), check_beforehand(settings, known)))
    made: set[str] = set()
    given = any(method.kind == "npz" for method in settings.parsed_methods())
    for kind in ("data", "split", *["encoder"] * (settings.encoder_from is not None), *["read"] * given):
        some = needed_for((kind,), stages)
        if not any(stage.name.partition("/")[0] == kind for stage in some):
            continue  # no method needs it, or --until stops before it
        run_stages(settings, some, place, processes, 1, made, Bar(some, shown=False, lines=talk.shown and processes.first))
        made |= {stage.name for stage in some}
        if processes.first:
            tell(talk, *lines_of(kind, settings, some, place.out))
        if kind == "data" and known is None:
            once(processes, lambda: tell(talk, (), check_beforehand(settings, facts_of(tables.results(place.out, "data")))))
    return made


def once(processes: Processes, check: Callable[[], None]) -> None:
    """Let the first process check something. If it raises UserError, all processes do, and only the first says why."""
    problem = None
    if processes.first:
        try:
            check()
        except UserError as error:
            problem = str(error)
    problem = processes.told(problem)
    if problem is not None:
        raise UserError(problem if processes.first else "")


def tell(talk: Talk, lines: Sequence[str], doubts: Sequence[str] = ()) -> None:
    """Print what was read, and what is doubtful about it."""
    for line in lines:
        talk.say(line)
    for doubt in doubts:
        talk.warn(doubt)


def lines_of(kind: str, settings: Settings, stages: list[Stage], out: Path) -> tuple[list[str], list[str]]:
    """(lines, doubts): what to print about the data, the splits, or encoders and generated images that were read."""
    if kind == "data":
        about = tables.results(out, "data")["about"]
        return about["read"], about["doubts"]
    found = {stage.name: tables.results(out, stage.name) for stage in stages if stage.name.startswith(f"{kind}/")}
    if kind == "encoder":
        lines = [encoder_line(settings, name, one) for name, one in found.items()]
        return lines, encoder_doubts(found, len(tables.results(out, "data")["classes"]))
    if kind == "read":
        doubts = [UNSELECTED] if settings.selection.surplus > 1 or may_relabel(settings) else []
        return list(dict.fromkeys(f"read {one['read']}" for one in found.values())), doubts
    first = next(iter(found.values()))
    line = f"of these {first['train']} to train on and {first['validation']} for validation, by seed"
    unused = max(one["unused"] for one in found.values())
    return [line + (f"; up to {unused} more share a group with those and are left out" if unused else "")], []


def run_stages(
    settings: Settings,
    stages: list[Stage],
    place: Place,
    processes: Processes,
    workers: int,
    made: Collection[str] = (),
    bar: Bar | None = None,
) -> None:
    """Run stages in this process, on workers, on a cluster, or together with other processes. made: stages that have just run."""
    on_finished = (lambda stage: tensorboard.log_stage(stage, place.out)) if settings.tensorboard else (lambda _stage: None)
    if processes.count > 1:
        run_together(stages, place, processes, on_finished, made, bar)
    else:
        run_all(stages, place, min(workers, len(stages)), on_finished, settings.cluster, made, bar)


def report(settings: Settings, place: Place, stages: list[Stage], seconds: float, talk: Talk, doubts: Sequence[str]) -> None:
    """Write tables, summary and pictures; print what they show. doubts: about what was read."""
    out = place.out
    from image_experiments.output.pictures import draw_all

    results = tables.results(out, "data")
    data = {name: value for name, value in results.items() if name != "about"} | results["about"]
    rows = tables.metric_rows(settings, out)
    described = tables.description_rows(settings, out)
    fixed = settings.evaluation.split == "test"  # all seeds share the test images, but each has its own validation images
    gains = tables.differences(rows, outcomes=lambda row: tables.outcomes_of(out, row) if fixed else None)
    warnings = list(dict.fromkeys([*doubts, *tables.warnings_of(settings, out)]))
    tables.write_tables(out, rows, described if settings.describe else None, gains)
    stamps = {stage.name: read_stamp(out, stage.name) or {} for stage in stages}
    summary = {
        "settings": flat(settings),
        "versions": versions("torch", "diffusers", "pyautoattack", "torchmetrics"),
        "device": place.kind,
        "data": data,
        "seeds": list(range(settings.seed, settings.seed + settings.seeds)),
        "warnings": warnings,
        "results": {name: stamp["results"] for name, stamp in stamps.items()},
        "seconds": {name: stamp["seconds"] for name, stamp in stamps.items()} | {"this call": seconds},
    }
    write_json(out / "summary.json", summary)
    drawn = draw_all(out, settings)
    if settings.tensorboard:
        tensorboard.log_metrics(out, rows)
    split = settings.evaluation.split
    attacked = data["test"] if split == "test" else settings.validation
    talk.say(f"{data['source']}: {attacked} {split} images, mean (sd) over {settings.seeds} seed{'s' * (settings.seeds > 1)}")
    talk.say(tables.final_table(rows, described))
    lines = [tables.floor_line(described), *tables.strength_lines(settings, out), *tables.gain_lines(gains)]
    lines += [SMOKE] if settings.preset == "smoke" else []
    tell(talk, [line for line in lines if line], warnings)
    talk.say(f"wrote {out}/metrics.csv, summary.json, samples.png and {len(drawn) - 1} more pictures in {seconds:.0f} s")


@contextmanager
def only_run_in(out: Path, first: bool = True) -> Iterator[None]:
    """Hold a lock on the folder. Raises UserError if another run holds it. The system releases it when the process ends, however it ends.

    first: of several processes of one run, only the first holds it.
    """
    if not first:
        yield
        return
    try:  # not what a link in a folder of others leads to
        held = os.open(out / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"{out}/.lock: cannot be written ({error.strerror}); delete it, or choose another --out") from None
    with os.fdopen(held, "w") as stream:
        for _ in range(20):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError as error:
                raise UserError(
                    f"--out {out}: its file system has no locks ({error.strerror}), and two runs could write there at once; choose another"
                ) from None
        else:
            raise UserError(f"--out {out}: another run is writing there; wait for it or choose another folder")
        unfinished = [path for folder in FOLDERS for path in (out / folder).rglob(f"{TEMPORARY}*")]
        for path in [*out.glob(f"{TEMPORARY}*"), *unfinished]:
            if path.is_dir():  # left by a process that was killed while writing
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        yield
