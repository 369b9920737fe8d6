"""End-to-end experiment on CIFAR-sized images: `python image_experiments/run_cifar.py`.

Trains an encoder and a diffusion model on real images, generates and selects synthetic images with and without guidance, adversarially
trains classifiers on real and synthetic images, attacks them, and prints robust accuracy by method with its spread over seeds.

    python image_experiments/run_cifar.py                                       # every stage once, on handwritten digits
    python image_experiments/run_cifar.py --preset cpu                          # meaningful numbers, 3 seeds
    python image_experiments/run_cifar.py --preset paper                        # CIFAR-10 at the published size (GPU)
    python image_experiments/run_cifar.py --dataset images --data-dir FOLDER --methods real unguided supervised:0.1
    python image_experiments/run_cifar.py --preset cpu --until generation       # step by step: the full command continues from there

The same command resumes after an interruption and skips what has not changed. Writes OUT/metrics.csv, details.csv, description.csv,
differences.csv, summary.json, samples.png and more pictures, synthetic/METHOD/*.npz, checkpoints/, curves/.
Exit status: 0 fine; 1 bad input or a stage that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    from command_line.command import Help, run_command
    from command_line.messages import TERMINAL
    from command_line.output import UserError, check_writable
    from image_experiments.engine.devices import here, not_deducted, place_of
    from image_experiments.engine.presets import PRESETS, preset_named
    from image_experiments.engine.settings import Settings, as_flag, check_shares, flat, resolve, shown
    from image_experiments.experiment import MOST_NAMED, SMOKE, check_folder, checked_stages, conduct, prepared, tell, tell_refusal

HELP = Help(
    "Generate, select, adversarially train, evaluate: robust accuracy with real, unguided and guided synthetic images.",
    common=(
        *("preset", "dataset", "data_dir", "train", "validation", "methods", "synthetic", "norm", "eps", "seeds", "seed"),
        *("encoder_from", "diffusion.load", "diffusion.steps", "generation.solver", "generation.steps"),
        *(
            "selection.surplus",
            "selection.criterion",
            "selection.labels",
            "classifier.network",
            "classifier.steps",
            "classifier.adversary",
        ),
        *("describe", "evaluation.autoattack_images", "out", "workers", "device", "until", "dry_run"),
    ),
    alike={"encoder": "classifier"},
)


def run(settings: Settings, arguments: Sequence[str]) -> int:
    """Run all stages that are not current and write the tables; returns the exit status. arguments: those that gave the settings."""
    settings = prepared(settings)
    stages = checked_stages(settings)
    place, workers = place_of(settings)
    if settings.dry_run:
        print(beginning(settings))
        print(everything(settings))
        return show_plan(settings, stages, place, workers)
    from image_experiments.engine.processes import launch, started_by_torchrun

    if started_by_torchrun():
        return run_as_one_of_several(settings, stages, place.device == "cpu")
    if settings.processes > 1:
        check_cards(settings.processes, place.device)
        return launch(settings.processes, settings.port, Path(__file__), arguments)
    print(beginning(settings))
    conduct(settings, stages, place, workers, TERMINAL)
    return 0


def run_as_one_of_several(settings: Settings, stages: list[Any], cpu: bool) -> int:
    """What one process does of a run that several share; returns the exit status."""
    from image_experiments.engine.processes import joined

    check_alone(settings)
    with joined(cpu) as (processes, device):
        check_shares(settings, processes.count)
        place, workers = place_of(settings, device)
        if processes.first:
            print(beginning(settings))
        conduct(settings, stages, place, workers, TERMINAL, processes)
    return 0


def check_cards(processes: int, device: str) -> None:
    """Raise UserError for more processes than cards: nccl refuses two processes on one."""
    import torch

    cards = torch.cuda.device_count() if device.startswith("cuda") else processes
    if processes > cards:
        raise UserError(
            f"--processes {processes}: each needs a GPU of its own, and torch finds {cards}; use at most {cards}, or --device cpu"
        )


def check_alone(settings: Settings) -> None:
    """Raise UserError for options that have no effect in a process started by torchrun."""
    for name, value in (("workers", settings.workers), ("cluster", settings.cluster)):
        if value:
            raise UserError(f"--{name} {value}: torchrun has started processes that share the work; leave it out")
    if settings.processes not in (1, int(os.environ["WORLD_SIZE"])):
        raise UserError(f"--processes {settings.processes}: torchrun has started {os.environ['WORLD_SIZE']}; leave it out")
    if ":" in settings.device:
        raise UserError(f"--device {settings.device}: each process takes a GPU of its own; use cuda")


def show_plan(settings: Settings, stages: list[Any], place: Any, workers: int) -> int:
    """Print which stages would run and what they would cost; a stage whose inputs would be made anew also runs."""
    from image_experiments.data.dataset import described
    from image_experiments.data.splitting import split
    from image_experiments.engine.changes import check_device, told_of_changes, told_of_shards
    from image_experiments.engine.checks import check_beforehand, known_facts
    from image_experiments.engine.cost import NOT_DEDUCTED, Work, calibrated, estimate
    from image_experiments.engine.run_stage import to_make
    from image_experiments.engine.unused import told_of_unread

    check_writable(place.out)
    tell_refusal(lambda: check_folder(settings, place.out))
    tell_refusal(lambda: check_device(stages, place, settings.force))
    read, facts = known_facts(settings)
    if read is not None:
        tell(TERMINAL, described(read), read.doubts)
        for seed in range(settings.seed, settings.seed + settings.seeds):
            split(read, settings.train, settings.validation, seed)
    doubts = [*check_beforehand(settings, facts), *told_of_unread(settings)]
    tell(TERMINAL, (), [*doubts, *told_of_changes(stages, place), *told_of_shards(stages, place)])
    left = to_make(stages, place)
    for told, these in (("unchanged ", [stage for stage in stages if stage not in left]), ("would run ", left)):
        for line in grouped([stage.name for stage in these]):
            print(f"{told} {line}")
    print(f"{len(left)} of {len(stages)} stages, results in {place.out}")
    for line in not_deducted(settings):
        print(line)
    if settings.reuse:
        print(NOT_DEDUCTED)
    begin, count = time.perf_counter(), min(workers, max(len(left), 1))
    measured = calibrated(settings, left, facts, here(place), count)
    print(estimate([Work(settings, left, measured, facts, count)], time.perf_counter() - begin))
    return 0


def grouped(names: Sequence[str]) -> list[str]:
    """One line per kind of stage; the seeds of one method are grouped together."""
    kinds: dict[str, dict[str, list[int]]] = {}
    for name in names:
        kind, _, rest = name.partition("/")
        method, _, seed = rest.rpartition("seed")
        seeds = kinds.setdefault(kind, {}).setdefault(method.strip("/") or (rest if not seed.isdigit() else ""), [])
        seeds += [int(seed)] if seed.isdigit() else []
    lines = []
    for kind, methods in kinds.items():
        distinct = {tuple(seeds) for seeds in methods.values()}
        common = next(iter(distinct)) if len(distinct) == 1 else ()
        of = f" (seed{'s' if len(common) > 1 else ''} {_ranged(common)})" if common else ""
        if sum(map(len, methods.values())) <= 1:
            lines += [name for name in names if name.partition("/")[0] == kind]
        else:
            lines.append(f"{kind}: {', '.join(methods)}{of}" if any(methods) else f"{kind}{of}")
    return lines


def _ranged(seeds: Sequence[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1 else ", ".join(map(str, seeds))


def beginning(settings: Settings) -> str:
    """What runs, and the settings that differ from the preset; summary.json has all settings."""
    usual = replace(
        PRESETS[settings.preset](), dataset=settings.dataset, data_dir=settings.data_dir, norm=settings.norm, out=settings.out
    )
    known = flat(resolve(usual)) | {"data_dir": None}
    named = ("methods", "seed", "seeds", "preset", "dataset", "norm", "eps", "out", "dry_run")
    other = {name: value for name, value in flat(settings).items() if value != known[name] and name not in named}
    seeds = settings.seeds
    lines = [
        f"settings: preset {settings.preset} on {settings.dataset}, {settings.norm} eps {settings.eps:.4g}, "
        f"{'seed' if seeds == 1 else f'{seeds} seeds from'} {settings.seed}, results in {settings.out}",
        f"methods: {' '.join(settings.methods)}",
    ]
    if settings.preset == "smoke":
        lines.append(SMOKE)
    if len(settings.reuse) > MOST_NAMED:
        del other["reuse"]
        lines.append(f"reuses what {len(settings.reuse)} runs have made")
    if other:
        lines.append("other than the preset: " + " ".join(as_flag(name, value) for name, value in other.items()))
    return "\n".join(lines)


def everything(settings: Settings) -> str:
    """All settings, one paragraph per part."""
    parts: dict[str, list[str]] = {"": []}
    for name, value in flat(settings).items():
        part, _, setting = name.rpartition(".")
        parts.setdefault(part, []).append(f"{setting}={shown(value)}")
    paragraphs = [f"{part}: " * bool(part) + ", ".join(entries) for part, entries in parts.items()]
    form = textwrap.TextWrapper(120, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(["all settings:", *map(form.fill, paragraphs)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    interrupted = "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    status = run_command(
        Settings, lambda settings: run(settings, given), HELP, arguments, lambda: preset_named(given), interrupted=interrupted
    )
    if arguments is None and "TORCHELASTIC_RUN_ID" in os.environ:
        # one of several processes: closing their connections normally may hang or fail
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
