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
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

try:
    from command_line.command import run_command, versions
    from command_line.output import UserError, prepare_folder, write_json
    from contrastive_dp.processes import Processes
    from image_experiments.settings import Settings, check_shares, flat, preset_named, resolve
    from image_experiments.stages import Place
except ModuleNotFoundError as error:
    sys.exit(
        f"error: the package {error.name} is missing; in a clone of the project: pip install -e '.[diffusion,diffusers,images]'"
    )

OURS = ("stages", "unfinished", "shards", "data", "checkpoints", "curves", "generated", "synthetic", "outcomes", "mosaics")
UNRENAMED = re.compile(r"\..+\.\d+\.\w+")  # files are written under such a name, .NAME.PROCESS.SUFFIX, then renamed
HELP = "Generate, select, adversarially train, evaluate: robust accuracy with real, unguided and guided synthetic images."


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Run all stages that are not current and write the tables; returns the exit status. arguments: that made the settings."""
    begin = time.perf_counter()
    settings = found_on_hub(on_absolute_paths(resolve(settings)))
    from image_experiments.pipeline import plan
    from image_experiments.reuse import check_reuse, take_over
    from image_experiments.together import join, launch, leave, started_by_torchrun

    several = started_by_torchrun()
    out = settings.out
    assert out is not None
    device, workers = choose_device(settings)
    stages = chosen_stages(settings, plan(settings))
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
        taken = processes.told(take_over(stages, place, settings.reuse) if processes.first else None)  # the others wait
        if taken and processes.first:
            print(f"took {taken} of {len(stages)} stages from {' '.join(map(str, settings.reuse))}")
        run_stages(settings, stages, place, processes, workers)
        if place.part and processes.first:
            print(told_of_part(settings, out))
        elif settings.until is not None and processes.first:
            print(told_of_step(settings, out, len(stages)))
        elif processes.first:
            report(settings, out, stages, round(time.perf_counter() - begin, 2))
    if several:
        leave(processes)
    return 0


def chosen_stages(settings: Settings, stages: list[Any]) -> list[Any]:
    """Those that --part or --until leave. Raises UserError where that is none."""
    from image_experiments.pipeline import needed_for, up_to

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


def run_stages(settings: Settings, stages: list[Any], place: Place, processes: Processes, workers: int) -> None:
    """In this process, on workers, on a cluster, or together with other processes."""
    from image_experiments.scheduler import run_all
    from image_experiments.tensorboard import log_stage
    from image_experiments.together import run_together

    on_finished = (lambda stage: log_stage(stage, place.out)) if settings.tensorboard else (lambda _stage: None)
    if processes.count > 1:
        run_together(stages, place, processes, on_finished)
    else:
        run_all(stages, place, min(workers, len(stages)), on_finished, settings.cluster)


def report(settings: Settings, out: Path, stages: list[Any], seconds: float) -> None:
    """Write tables, summary and pictures; print the table."""
    from image_experiments import report as tables
    from image_experiments.pictures import draw_all
    from image_experiments.stages import read_stamp

    data = tables.results(out, "data")
    rows = tables.metric_rows(settings, out, settings.dataset)
    described = tables.description_rows(settings, out)
    gains = tables.differences(rows)
    warnings = tables.warnings_of(settings, out)
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
        from image_experiments.tensorboard import log_metrics

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
    from image_experiments.cost import calibrate, data_of, estimate
    from image_experiments.scheduler import MENDABLE, on_all
    from image_experiments.stages import is_current

    stale: set[str] = set()
    for stage in stages:
        if any(needed.name in stale for needed in stage.inputs.values()) or not is_current(stage, place.out, place.kind):
            stale.add(stage.name)
    for stage in stages:
        print(f"{'would run ' if stage.name in stale else 'unchanged '} {stage.name}")
    print(f"{len(stale)} of {len(stages)} stages, results in {place.out}")
    if settings.reuse:
        print("what --reuse would spare is known only when the run begins, and is not taken off")
    begin, left, data = time.perf_counter(), [stage for stage in stages if stage.name in stale], data_of(settings)
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
        for path in [*out.glob(".*"), *(path for folder in OURS for path in (out / folder).rglob(".*"))]:
            if path.is_file() and UNRENAMED.fullmatch(path.name):
                path.unlink()  # left by a process that was killed while it wrote
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
    status = run_command(Settings, lambda settings: run(settings, given), HELP, arguments, default=lambda: preset_named(given))
    if arguments is None and "TORCHELASTIC_RUN_ID" in os.environ:
        # one of several: their connections may not outlive a failure in peace
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
