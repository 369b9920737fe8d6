"""A search over a design by successive halving, on validation images alone: `result = search("designs/digits-search.toml")`.

Every candidate (a run's method) is tried with a few seeds; the best are tried with more, and so on (Jamieson, Talwalkar 2016). Test
images choose nothing: a design that uses them is refused. The winner was chosen by its mean, so that mean is too high; measure it in a
new design on other seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from command_line.command import versions
from command_line.folder_claim import note_claim
from command_line.messages import QUIET, Talk
from command_line.output import UserError, is_hidden, prepare_folder, text_table, write_csv, write_json
from command_line.result import read_table
from command_line.spawning import without_main
from command_line.values import changed
from image_experiments.engine.fingerprint import forget_code
from image_experiments.engine.presets import settings_from
from image_experiments.engine.scheduler import as_before
from image_experiments.engine.settings import OF_AUTO, OF_METHODS, resolve
from image_experiments.experiment import only_run_in
from image_experiments.sweeps import (
    DESIGNS,
    Design,
    Run,
    SweepSettings,
    arguments_of,
    attacks_of,
    check_experiment,
    check_in_process,
    checked_calls,
    conduct_sweep,
    in_this_program,
    read_design,
    resolved,
)
from image_experiments.synthesis.methods import Method, parse_method

HEADER = ("rung", "run", "method", "seeds", "robust_accuracy", "standard_deviation", "clean_accuracy", "place", "kept")
Candidate = tuple[str, str]
"""(run, method as in the design)."""


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines the result (workers does not)."""

    design: Path = DESIGNS / "digits-search.toml"
    """The design file: its runs and methods are the candidates. It must evaluate on validation images."""
    rungs: tuple[int, ...] = (2, 4, 8)
    """Seeds at each rung, growing: all candidates get the first number, those that are kept the next."""
    keep: float = 1 / 3
    """Share of the candidates that is kept at each rung, at least one."""
    most: int = 0
    """Refuse to train more classifiers than this in all (0: no limit)."""
    attack: str = ""
    """The attack by which candidates are ranked, as in sweep.csv (default: the only one of the design)."""
    seed: int | None = None
    """First seed (default: as in the design, or 0)."""
    data_dir: Path | None = None
    """Files of the data set, passed on to run_cifar.py."""
    workers: int = 0
    """Number of processes (0: one per core, with CUDA one: give the number of GPUs). Does not change the results."""
    out: Path | None = None
    """Folder for the results (default: results/DESIGN)."""
    force: bool = False
    """Continue in a folder that holds another search. Its tables are overwritten."""
    dry_run: bool = False
    """Print the resolved settings, how many classifiers would be trained and what the first rung would cost, then stop."""


def search(design: str | Path, talk: Talk = QUIET, **changes: Any) -> Any:
    """Search a design file; returns search.csv as a DataFrame, best candidate first within each rung. Continues where it stopped.

    changes: to SearchSettings, for example rungs=(2, 6), out="results/mine". Raises UserError: one line.
    """
    if isinstance(design, Mapping) or not isinstance(design, str | Path):
        raise UserError(f"design={design!r}: give the path of a design file")
    settings = changed(SearchSettings(Path(design)), **changes)
    if settings.dry_run:
        raise UserError("dry_run=True: belongs to the command line, run_search.py; leave it out")
    forget_code()
    settings, parsed = checked(settings, in_process=True)
    with without_main(), as_before():
        in_this_program(talk, partial(conduct_search, settings, parsed, talk))
    assert settings.out is not None
    return read_table(settings.out / "search.csv")


MOST_SEEDS = 1000


def checked(settings: SearchSettings, in_process: bool = False) -> tuple[SearchSettings, Design]:
    """The settings completed, and the design. in_process: its runs take place in this program. Raises UserError before anything is made."""
    design = read_design(settings.design)
    rungs = settings.rungs
    if not rungs or rungs[0] < 1 or rungs[-1] > MOST_SEEDS or any(a >= b for a, b in pairwise(rungs)):
        raise UserError(
            f"--rungs {' '.join(map(str, rungs))}: give numbers of seeds that grow up to {MOST_SEEDS}, for example 2 4 8"
        )
    if settings.most < 0:
        raise UserError(f"--most {settings.most}: give a number of classifiers, or 0 for no limit")
    if not 0 < settings.keep < 1:
        raise UserError(f"--keep {settings.keep}: must lie in (0, 1); 0.33 keeps the best third at each rung")
    settings = replace(settings, out=settings.out or Path("results") / settings.design.stem)
    sweep, runs = resolved(sweep_of(settings, 1), design)
    attacks: dict[str, list[str]] = {}
    measured: dict[str, tuple[str, float | None, int, int]] = {}
    calls = checked_calls(sweep, design, runs)
    if in_process:
        check_in_process(calls)
    for one, arguments in calls:
        chosen = resolve(settings_from(arguments))
        evaluation = chosen.evaluation
        attacks[one.name] = attacks_of(chosen)
        images = min(evaluation.autoattack_images or chosen.validation, chosen.validation)
        measured[one.name] = chosen.norm, chosen.eps, chosen.validation, images
        if evaluation.split != "validation":
            raise UserError(
                f"--design {settings.design}: run {one.name} evaluates on {evaluation.split} images, which must choose nothing; add "
                '"--evaluation.split", "validation" to its base'
            )
    settings = replace(settings, attack=ranking_attack(settings.attack, attacks))
    check_alike(settings, measured)
    planned = trainings(settings, design)
    if settings.most and planned > settings.most:
        raise UserError(f"--most {settings.most}: this search trains {planned} classifiers; use fewer candidates, rungs or seeds")
    return replace(settings, seed=sweep.seed), design


def check_alike(settings: SearchSettings, measured: Mapping[str, tuple[str, float | None, int, int]]) -> None:
    """Raise UserError if runs would be ranked by other radii or images. measured: of each run norm, eps, validation images, and how many of
    them AutoAttack gets."""
    by_pgd = settings.attack.startswith("pgd")
    ways = {run: (norm, eps, images, images if by_pgd else some) for run, (norm, eps, images, some) in measured.items()}
    first, *others = ways
    for run in others:
        if ways[run] != ways[first]:
            told = "; ".join(f"{norm} {eps:.4g}, {some} of {images} images" for norm, eps, images, some in (ways[first], ways[run]))
            raise UserError(
                f"--design {settings.design}: runs {first} and {run} would be ranked by unlike measurements ({told}); give all runs the "
                "same --norm, --eps, --validation and --evaluation.autoattack-images"
            )


def ranking_attack(chosen: str, attacks: dict[str, list[str]]) -> str:
    """The attack by which to rank: the chosen one, or the only one. Raises UserError if it is not clear, or a run does not have it."""
    known = list(dict.fromkeys(name for names in attacks.values() for name in names))
    if not chosen and len(known) > 1:
        raise UserError(f"--attack is missing: candidates are attacked by {', '.join(known)}; name one of them")
    attack = chosen or known[0]
    lacking = [run for run, names in attacks.items() if attack not in names]
    if lacking:
        raise UserError(
            f"--attack {attack}: run {lacking[0]} is attacked by {', '.join(attacks[lacking[0]])}; all runs need the same attack"
        )
    return attack


def sweep_of(settings: SearchSettings, rung: int) -> SweepSettings:
    """The settings of a rung's sweep; it takes over what earlier rungs have made."""
    assert settings.out is not None
    earlier = tuple(
        folder
        for number in range(1, rung)
        for folder in sorted((settings.out / f"rung-{number}" / "runs").glob("*"))
        if not is_hidden(folder.name)
    )
    return SweepSettings(
        settings.design,
        seeds=settings.rungs[rung - 1],
        seed=settings.seed,
        reuse=earlier,
        data_dir=settings.data_dir,
        workers=settings.workers,
        out=settings.out / f"rung-{rung}",
        force=settings.force,
    )


def candidates_of(design: Design) -> list[Candidate]:
    """All candidates of a design."""
    return [(one.name, method) for one in design.runs for method in one.methods]


def kept_of(count: int, keep: float) -> int:
    """How many of `count` candidates are kept."""
    return max(math.ceil(count * keep - 1e-9), 1)


def trainings(settings: SearchSettings, design: Design) -> int:
    """Number of classifiers that are trained in all."""
    count, before, total = len(candidates_of(design)), 0, 0
    for seeds in settings.rungs:
        total, before = total + count * (seeds - before), seeds
        count = kept_of(count, settings.keep)
    return total


def conduct_search(settings: SearchSettings, design: Design, talk: Talk, make: Callable[[list[str]], int]) -> int:
    """Go through the rungs; write search.csv after each, and summary.json at the end. make: arguments of run_cifar.py -> status.

    Raises UserError if another search is writing there.
    """
    assert settings.out is not None
    with only_run_in(prepare_folder(settings.out)):
        return _conduct(settings, design, talk, make)


def _conduct(settings: SearchSettings, design: Design, talk: Talk, make: Callable[[list[str]], int]) -> int:
    begin, out, left = time.perf_counter(), settings.out, candidates_of(design)
    assert out is not None
    check_search(settings, design)
    note_claim(out, identity(settings, design))
    (out / "summary.json").unlink(missing_ok=True)  # of an earlier search
    rows: list[tuple[Any, ...]] = []
    for rung in range(1, len(settings.rungs) + 1):
        runs = [replace(one, methods=tuple(m for m in one.methods if (one.name, m) in left)) for one in design.runs]
        some = replace(design, runs=[one for one in runs if one.methods], compare=[], attacks=())
        sweep, calls = calls_of_rung(settings, some, rung)
        talk.say(f"\n##### rung {rung} of {len(settings.rungs)}: {len(left)} candidates, {settings.rungs[rung - 1]} seeds")
        status = conduct_sweep(replace(sweep, force=True), some, calls, talk, make)
        if status:
            return status
        assert sweep.out is not None
        ranked = rank(sweep.out / "sweep.csv", left, settings)
        stays = kept_of(len(left), settings.keep)
        rows += [(rung, *row, place + 1, place < stays) for place, row in enumerate(ranked)]
        by_label = {(run, parse_method(method).label): (run, method) for run, method in left}
        left = [by_label[row[0], row[1]] for row in ranked[:stays]]
        write_csv(out / "search.csv", HEADER, rows)
        talk.say(text_table(HEADER[1:7], [_shown(row) for row in ranked[: stays + 2]]))
    best = rows[-len(ranked)]
    about = {"settings": identity(settings, design), "versions": versions("torch", "diffusers")}
    told = {"run": best[1], "method": best[2], "robust_accuracy": best[4], "seeds": best[3], "note": OPTIMISTIC}
    seconds = {"this call": round(time.perf_counter() - begin, 2)}
    write_json(out / "summary.json", about | {"trained": trainings(settings, design), "best": told, "seconds": seconds})
    talk.say(f"best: {best[1]}/{best[2]}, {best[4]:.4f} over {best[3]} seeds; {OPTIMISTIC}. Wrote {out}/search.csv")
    return 0


OPTIMISTIC = "chosen by this mean, so it is too high; measure it in a new design on other seeds"


def _shown(row: Sequence[Any]) -> list[str]:
    return [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]


def rank(table: Path, left: Sequence[Candidate], settings: SearchSettings) -> list[tuple[Any, ...]]:
    """(run, method, seeds, mean robust accuracy, its standard deviation, mean clean accuracy) of each candidate, the best first.

    Equal candidates keep the order of the design. Raises UserError for an attack that is missing.
    """
    data = read_table(table)
    found = []
    for run, method in left:
        label = parse_method(method).label
        of = data[(data["run"] == run) & (data["method"] == label) & (data["attack"] == settings.attack)]
        if of.empty:
            raise UserError(f"{table}: {run}/{label} was not attacked by {settings.attack}; name one of its attacks with --attack")
        first = of.iloc[0]  # the first threat is that of training
        of = of[(of["eps"] == first["eps"]) & (of["norm"] == first["norm"])]
        robust = of["robust_accuracy"].to_numpy()
        spread = float(robust.std(ddof=1)) if len(robust) > 1 else math.nan
        found.append((run, label, len(robust), float(robust.mean()), spread, float(of["clean_accuracy"].mean())))
    return sorted(found, key=lambda row: -row[3])


def calls_of_rung(settings: SearchSettings, design: Design, rung: int) -> tuple[SweepSettings, list[tuple[Run, list[str]]]]:
    """The sweep of a rung; every run with its command line, without options of methods that fell out. The design was checked before."""
    sweep, runs = resolved(sweep_of(settings, rung), design)
    assert sweep.out is not None
    found = []
    for one in runs:
        methods = [parse_method(method) for method in one.methods]
        kept = replace(one, arguments=without_others_options(one.arguments, methods))
        base = replace(design, base=without_others_options(design.base, methods))
        found.append((kept, arguments_of(sweep, base, kept, sweep.out / "runs" / one.name)))
    return sweep, found


def without_others_options(arguments: Sequence[str], methods: Sequence[Method]) -> tuple[str, ...]:
    """The arguments without those that belong to a method of another kind, or to a scale auto where there is none, and without rounds where
    nothing is generated."""
    kinds = {method.kind for method in methods}
    foreign = {name for name, of in OF_METHODS.items() if not kinds & set(of)}
    foreign |= set() if any(method.automatic for method in methods) else set(OF_AUTO)
    unused = {f"--generation.{name.replace('_', '-')}" for name in foreign}
    unused |= set() if any(method.generates for method in methods) else {"--rounds"}
    found: list[str] = []
    skip = False
    for argument in arguments:
        if argument.startswith("--"):
            skip = argument.partition("=")[0].replace("_", "-") in unused
        if not skip:
            found.append(argument)
    return tuple(found)


def check_search(settings: SearchSettings, design: Design) -> None:
    """Raise UserError if OUT holds another search of which anything was made."""
    assert settings.out is not None
    check_experiment(settings.out, identity(settings, design), (), settings.force)


def identity(settings: SearchSettings, design: Design) -> dict[str, Any]:
    """What identifies the search in a folder."""
    about: dict[str, Any] = {
        "experiment": "search",
        "base": list(design.base),
        "rungs": list(settings.rungs),
        "keep": settings.keep,
        "seed": settings.seed,
        "attack": settings.attack,
    }
    for one in design.runs:
        about[f"run {one.name}"] = [*one.arguments, "--methods", *one.methods]
    return about
