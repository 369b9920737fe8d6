"""CIFAR-sized images, end to end: `python image_experiments/run_cifar.py`.

Trains an encoder and a diffusion model on real images, generates synthetic ones without and with guidance, selects, trains classifiers
adversarially on real and synthetic images, attacks them, and prints robust accuracy by method with its spread over seeds.

    python image_experiments/run_cifar.py                                       # every stage once, on handwritten digits
    python image_experiments/run_cifar.py --preset cpu                          # real numbers with 3 seeds
    python image_experiments/run_cifar.py --preset paper                        # CIFAR-10 as published (GPU)
    python image_experiments/run_cifar.py --dataset images --data-dir FOLDER --methods real unguided supervised:0.1
    python image_experiments/run_cifar.py --preset cpu --until generation       # a step at a time: the whole command goes on from there

The same command goes on where it was interrupted and skips what has not changed. Writes OUT/metrics.csv, details.csv, description.csv,
differences.csv, summary.json, samples.png and more pictures, synthetic/METHOD/*.npz, checkpoints/, curves/.
Exit status: 0 fine; 1 bad input or a stage that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

try:
    import tyro

    from command_line.command import run_command, versions
    from command_line.experiment import check_claim, note_claim
    from command_line.output import TEMPORARY, UserError, check_writable, prepare_folder, write_json
    from contrastive_dp.processes import Processes
    from image_experiments.engine.presets import preset_named
    from image_experiments.engine.settings import Settings, check_shares, flat, resolve
    from image_experiments.engine.stages import Place
except ModuleNotFoundError as error:
    sys.exit(
        f"error: the package {error.name} is missing; in a clone of the project: pip install -e '.[diffusion,diffusers,images]'"
    )

OURS = ("stages", "unfinished", "shards", "data", "checkpoints", "curves", "generated", "synthetic", "outcomes", "mosaics")
HELP = "Generate, select, adversarially train, evaluate: robust accuracy with real, unguided and guided synthetic images."


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Run all stages that are not current and write the tables; returns the exit status. arguments: that made the settings."""
    begin = time.perf_counter()
    settings = found_on_hub(on_absolute_paths(resolve(settings)))
    from image_experiments.engine.checks import check_names
    from image_experiments.engine.plan import plan
    from image_experiments.engine.reuse import check_reuse, take_over
    from image_experiments.engine.together import join, launch, leave, started_by_torchrun

    several = started_by_torchrun()
    out = settings.out
    assert out is not None
    device, workers = choose_device(settings)
    stages = chosen_stages(settings, plan(settings))
    check_names(stages)
    check_reuse(settings.reuse)
    if settings.processes > 1 and not several and not settings.dry_run:
        return launch(settings.processes, settings.port, Path(__file__), arguments)
    processes = Processes()
    if several:
        check_alone(settings)
        processes, device = join(cpu=device == "cpu")
        check_shares(settings, processes.count)
    place = Place(out, f"{device.partition(':')[0]}, {settings.threads} threads", device, settings.threads, settings.parts())
    if processes.first:
        print(describe(settings))
    if settings.dry_run:
        return show_plan(settings, stages, place, workers) if processes.first else 0
    with only_run_in(prepare_folder(out)) if processes.first else nullcontext():
        once(processes, lambda: check_folder(settings, out))
        taken = processes.told(take_over(stages, place, settings.reuse) if processes.first else None)  # the others wait
        if taken and processes.first:
            print(f"took {taken} of {len(stages)} stages from {' '.join(map(str, settings.reuse))}")
        made = look_at_data(settings, stages, place, processes)
        if processes.first:
            note_claim(out, identity(settings), FREE)
        run_stages(settings, stages, place, processes, workers, made)
        if place.part and processes.first:
            print(told_of_part(settings, out))
        elif settings.until is not None and processes.first:
            print(told_of_step(settings, out, len(stages)))
        elif processes.first:
            report(settings, out, stages, round(time.perf_counter() - begin, 2))
    if several:
        leave(processes)
    return 0


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError where a command line would be refused, as far as that is known without reading the data; SystemExit for flags."""
    from image_experiments.engine.checks import check_beforehand, check_names
    from image_experiments.engine.cost import facts_without_reading
    from image_experiments.engine.plan import plan

    given = list(arguments)
    settings = tyro.cli(Settings, args=given, default=preset_named(given), config=(tyro.conf.AvoidSubcommands,))
    settings = found_on_hub(on_absolute_paths(resolve(settings)))
    check_names(chosen_stages(settings, plan(settings)))
    facts = facts_without_reading(settings)
    if facts is not None:
        check_beforehand(settings, facts)


def chosen_stages(settings: Settings, stages: list[Any]) -> list[Any]:
    """Those that --part or --until leave. Raises UserError where that is none."""
    from image_experiments.engine.plan import needed_for, up_to

    if settings.part is not None:
        return needed_for(("generate",), stages)
    if settings.until is None:
        return stages
    found = up_to(settings.until, stages)
    if not found:
        spared = "these methods need no such step, or --diffusion and --encoder-from bring what it makes"
        raise UserError(f"--until {settings.until}: {spared}; name a later one, or leave it out")
    return found


def told_of_step(settings: Settings, out: Path, count: int) -> str:
    """What --until has done, and what comes next."""
    told = f"{count} stages, up to {settings.until}, are done; the same command with a later --until, or without, goes on"
    return f"{told} (the tables in {out} are those of an earlier run)" if (out / "summary.json").is_file() else told


def told_of_part(settings: Settings, out: Path) -> str:
    """What --part has made, and what comes next."""
    left = len(list((out / "shards").glob("*/shard-*.npz")))
    if not left:
        return f"part {settings.part} was the last: the images are in {out}/synthetic, or {out}/generated where some are to be selected"
    return (
        f"made part {settings.part}: {left} shards are in {out}/shards; bring them together with merge_shards.py, or copy them into one "
        "OUT/shards and run without --part"
    )


def on_absolute_paths(settings: Settings) -> Settings:
    """On a cluster, whose workers run elsewhere, every path as seen from everywhere; else the settings as they are."""
    if settings.cluster is None:
        return settings

    def absolute(path: Path | None) -> Path | None:
        return path.absolute() if path is not None and path.exists() else path

    methods = tuple(f"npz:{m.file.absolute()}" if m.file is not None else m.text for m in settings.parsed_methods())
    assert settings.out is not None
    return replace(
        settings,
        out=settings.out.absolute(),
        data_dir=absolute(settings.data_dir),
        encoder_from=absolute(settings.encoder_from),
        diffusion=replace(settings.diffusion, load=absolute(settings.diffusion.load)),
        methods=methods,
    )


def check_alone(settings: Settings) -> None:
    """UserError for options that a process started by torchrun would not read."""
    for name, value in (("workers", settings.workers), ("cluster", settings.cluster)):
        if value:
            raise UserError(f"--{name} {value}: torchrun has started processes that share the work; leave it out")
    if settings.processes not in (1, int(os.environ["WORLD_SIZE"])):
        raise UserError(f"--processes {settings.processes}: torchrun has started {os.environ['WORLD_SIZE']}; leave it out")
    if ":" in settings.device:
        raise UserError(f"--device {settings.device}: each process takes a GPU of its own; use cuda")


def found_on_hub(settings: Settings) -> Settings:
    """The settings with the folder of the diffusion model they name, downloaded where it is a name on the hub: before anything is trained.

    Raises UserError for what is neither.
    """
    if settings.diffusion.load is None or settings.diffusion.load.is_dir():
        return settings
    from contrastive_dp.adapters import find_pipeline

    try:
        return replace(settings, diffusion=replace(settings.diffusion, load=find_pipeline(settings.diffusion.load)))
    except FileNotFoundError as error:
        raise UserError(f"--diffusion {error}") from None


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
        "force",
        "dry_run",
    ),
    *("seed", "seeds"),
)
"""Settings that make no other experiment."""
GROWING = ("methods", "all seeds")
"""Settings to which an experiment may add entries."""


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that say which experiment a folder holds."""
    return flat(settings) | {"all seeds": list(range(settings.seed, settings.seed + settings.seeds))}


def check_folder(settings: Settings, out: Path) -> None:
    """UserError where the folder holds another experiment that has trained something: its files would be overwritten."""
    trained = ("diffusion", "encoder", "judge", "classifier", "generate")
    if (out / "summary.json").is_file() or any(any((out / "stages" / kind).rglob("*.json")) for kind in trained):
        check_claim(out, identity(settings), FREE, GROWING, settings.force)


def look_at_data(settings: Settings, stages: list[Any], place: Place, processes: Processes) -> set[str]:
    """Read the data and an encoder that is not trained, say what they are, and check what they decide; returns the stages that did it.

    Raises UserError before anything is trained.
    """
    from image_experiments.engine.checks import check_beforehand, facts_of
    from image_experiments.engine.cost import facts_without_reading
    from image_experiments.engine.plan import needed_for
    from image_experiments.output.tables import results

    known = facts_without_reading(settings)
    if known is not None:
        once(processes, lambda: told((), check_beforehand(settings, known)))
    made: set[str] = set()
    for kind in ("data", "split", *(["encoder"] if settings.encoder_from is not None else [])):
        some = needed_for((kind,), stages)
        if not any(stage.name.partition("/")[0] == kind for stage in some):
            continue  # no method needs it, or --until stops before
        run_stages(settings, some, place, processes, 1, made)
        made |= {stage.name for stage in some}
        if processes.first:
            told(*lines_of(kind, settings, some, place.out))
        if kind == "data" and known is None:
            once(processes, lambda: told((), check_beforehand(settings, facts_of(results(place.out, "data")))))
    return made


def once(processes: Processes, check: Callable[[], None]) -> None:
    """Let the first process check something. Where it raises UserError all do, and the first alone says why."""
    problem = None
    if processes.first:
        try:
            check()
        except UserError as error:
            problem = str(error)
    problem = processes.told(problem)
    if problem is not None:
        raise UserError(problem if processes.first else "")


def told(lines: Sequence[str], doubts: Sequence[str] = ()) -> None:
    """Print what was read, and what is doubtful about it."""
    for line in lines:
        print(line)
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)


def lines_of(kind: str, settings: Settings, stages: list[Any], out: Path) -> tuple[list[str], list[str]]:
    """(lines, doubts): what to say of the data, of the splits, or of encoders that were read."""
    from image_experiments.engine.checks import encoder_doubts, encoder_line
    from image_experiments.output.tables import results

    if kind == "data":
        data = results(out, "data")
        return data["read"], data["doubts"]
    found = {stage.name: results(out, stage.name) for stage in stages if stage.name.startswith(f"{kind}/")}
    if kind == "encoder":
        lines = [encoder_line(settings, name, one) for name, one in found.items()]
        return lines, encoder_doubts(found, len(results(out, "data")["classes"]))
    first = next(iter(found.values()))
    line = f"of these {first['train']} to train on and {first['validation']} for validation, by seed"
    unused = max(one["unused"] for one in found.values())
    return [line + (f"; up to {unused} more share a group with those and are left out" if unused else "")], []


def run_stages(
    settings: Settings, stages: list[Any], place: Place, processes: Processes, workers: int, made: Collection[str] = ()
) -> None:
    """In this process, on workers, on a cluster, or together with other processes. made: stages that were run just before."""
    from image_experiments.engine.scheduler import run_all
    from image_experiments.engine.together import run_together
    from image_experiments.output.tensorboard import log_stage

    on_finished = (lambda stage: log_stage(stage, place.out)) if settings.tensorboard else (lambda _stage: None)
    if processes.count > 1:
        run_together(stages, place, processes, on_finished, made)
    else:
        run_all(stages, place, min(workers, len(stages)), on_finished, settings.cluster, made)


def report(settings: Settings, out: Path, stages: list[Any], seconds: float) -> None:
    """Write tables, summary and pictures; print the table."""
    from image_experiments.engine.stages import read_stamp
    from image_experiments.output import tables
    from image_experiments.output.pictures import draw_all

    data = tables.results(out, "data")
    rows = tables.metric_rows(settings, out, settings.dataset)
    described = tables.description_rows(settings, out)
    fixed = settings.evaluation.split == "test"  # every seed has the same test images, and validation images of its own
    gains = tables.differences(rows, outcomes=lambda row: tables.outcomes_of(out, row) if fixed else None)
    warnings = [*data["doubts"], *tables.warnings_of(settings, out)]
    tables.write_tables(out, rows, described, gains)
    stamps = {stage.name: read_stamp(out, stage.name) or {} for stage in stages}
    summary = {
        "settings": flat(settings),
        "versions": versions("torch", "diffusers", "pyautoattack", "torchmetrics"),
        "data": data,
        "seeds": list(range(settings.seed, settings.seed + settings.seeds)),
        "warnings": warnings,
        "results": {name: stamp["results"] for name, stamp in stamps.items()},
        "seconds": {name: stamp["seconds"] for name, stamp in stamps.items()} | {"this call": seconds},
    }
    write_json(out / "summary.json", summary)
    drawn = draw_all(out, settings)
    if settings.tensorboard:
        from image_experiments.output.tensorboard import log_metrics

        log_metrics(out, rows)
    split = settings.evaluation.split
    attacked = data["test"] if split == "test" else settings.validation
    print(f"{data['source']}: {attacked} {split} images, mean (sd) over {settings.seeds} seeds")
    print(tables.final_table(rows, described))
    for line in filter(None, [tables.floor_line(described), *tables.strength_lines(settings, out), *tables.gain_lines(gains)]):
        print(line)
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    print(f"wrote {out}/metrics.csv, summary.json, samples.png and {len(drawn) - 1} more pictures in {seconds:.0f} s")


def show_plan(settings: Settings, stages: list[Any], place: Place, workers: int) -> int:
    """Print which stages would run, and what they would cost; one that reads what another would make anew runs too."""
    from image_experiments.data.dataset import described
    from image_experiments.data.splitting import split
    from image_experiments.engine.checks import check_beforehand
    from image_experiments.engine.cost import calibrate, data_of, estimate, known_facts
    from image_experiments.engine.scheduler import MENDABLE, on_all
    from image_experiments.engine.stages import is_current

    check_writable(place.out)
    try:
        check_folder(settings, place.out)
    except UserError as error:
        told((), [f"the run itself will be refused: {error}"])
    read, facts = known_facts(settings)
    if read is not None:
        told(described(read), read.doubts)
        for seed in range(settings.seed, settings.seed + settings.seeds):
            split(read, settings.train, settings.validation, seed)
    told((), check_beforehand(settings, facts))
    stale: set[str] = set()
    for stage in stages:
        if any(needed.name in stale for needed in stage.inputs.values()) or not is_current(stage, place.out, place.kind):
            stale.add(stage.name)
    for stage in stages:
        print(f"{'would run ' if stage.name in stale else 'unchanged '} {stage.name}")
    print(f"{len(stale)} of {len(stages)} stages, results in {place.out}")
    if settings.reuse:
        print("what --reuse would spare is known only when the run begins, and is not taken off")
    begin, left, data = time.perf_counter(), [stage for stage in stages if stage.name in stale], data_of(settings, facts)
    count = min(workers, max(len(left), 1))
    try:
        measured = on_all(min(count, os.cpu_count() or 1), place.threads, calibrate, settings, left, data, place.device)
        print(estimate(settings, left, measured, data, count, time.perf_counter() - begin))
    except MENDABLE as error:
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error
    return 0


def choose_device(settings: Settings) -> tuple[str, int]:
    """The device, and how many processes. Raises UserError for a device that is not there."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    number = int(device.partition(":")[2] or 0)
    if device.startswith("cuda") and number >= torch.cuda.device_count():
        raise UserError(f"--device {settings.device}: torch finds {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if device.startswith("cuda"):
        return device, settings.workers or 1
    return device, settings.workers or max((os.cpu_count() or 1) // settings.threads, 1)


@contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Hold a lock on the folder. Raises UserError when another run holds it. The system frees it with the process, however it ends."""
    with (out / ".lock").open("w") as stream:
        for _ in range(20):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise UserError(f"--out {out}: another run is writing there; wait for it or choose another folder")
        for path in [*out.glob(f"{TEMPORARY}*"), *(path for folder in OURS for path in (out / folder).rglob(f"{TEMPORARY}*"))]:
            if path.is_dir():  # left by a process that was killed while it wrote
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        yield


def describe(settings: Settings) -> str:
    """All settings, a line for each part."""
    parts: dict[str, list[str]] = {"": []}
    for name, value in flat(settings).items():
        part, _, setting = name.rpartition(".")
        parts.setdefault(part, []).append(f"{setting}={_shown(value)}")
    return "settings: " + "\n".join(f"{f'  {part}: ' if part else ''}{', '.join(entries)}" for part, entries in parts.items())


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    interrupted = "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    status = run_command(
        Settings, lambda settings: run(settings, given), HELP, arguments, lambda: preset_named(given), interrupted=interrupted
    )
    if arguments is None and "TORCHELASTIC_RUN_ID" in os.environ:
        # one of several: their connections may not outlive a failure in peace
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
