"""Many runs of run_cifar.py from one design file: `python image_experiments/run_sweep.py`.

    python image_experiments/run_sweep.py                                   # ablations on digits, 3 seeds, about 40 minutes on 2 cores
    python image_experiments/run_sweep.py --design MINE.toml --out results/mine
    python image_experiments/run_sweep.py --design image_experiments/designs/gtsrb-report.toml --data-dir FOLDER_OR_ARCHIVE

A design is a TOML file: `base`, arguments of run_cifar.py that all runs share; `seed` and `seeds`; for each run a table [run.NAME] with
`methods` and `arguments`; `compare`, pairs ["RUN/METHOD", "RUN/METHOD"] whose differences are wanted; and `attacks`, the
attacks under which (default: all). A run takes what earlier ones have made from the same settings (links, no copies), so only what it
changes is made anew. The same command goes on where it was interrupted.

Writes OUT/sweep.csv (a row a run, method, seed and attack: settings, accuracies, description of the synthetic images), OUT/comparisons.csv
(differences paired by seed, with intervals that hold for all of them together), OUT/summary.json, and in OUT/runs/NAME what run_cifar.py
writes.
Exit status: 0 fine; 1 bad input or a run that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

from command_line.command import describe, run_command, versions
from command_line.experiment import claim
from command_line.output import UserError, did_you_mean, prepare_folder, text_table, write_csv, write_json
from command_line.statistics import holm, mean_interval, paired_p

DESIGNS = Path(__file__).resolve().parent / "designs"
OURS = ("--out", "--reuse", "--seed", "--seeds", "--workers", "--methods", "--force", "--dry-run")
PIECES = ("--part", "--until")
HELP = "Runs of run_cifar.py from a design file, gathered in one table."


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result, but for workers."""

    design: Path = DESIGNS / "digits-ablations.toml"
    """The design file."""
    seeds: int | None = None
    """Independent repetitions of every run (default: those of the design, or 3)."""
    seed: int | None = None
    """First seed (default: that of the design, or 0)."""
    quick: bool = False
    """One seed, the first three methods of the first run and two more runs: does the design work?"""
    reuse: tuple[Path, ...] = ()
    """Folders of other runs on images (OUT/runs/NAME of another sweep) from which to take what is the same."""
    data_dir: Path | None = None
    """Files of the data set, handed on to run_cifar.py: a design says which set, not where it lies."""
    until: Literal["description"] | None = None
    """description: make and describe the synthetic images of every run, train and attack no classifiers; writes description.csv alone."""
    workers: int = 0
    """Processes (0: one a core); does not change the results."""
    out: Path | None = None
    """Folder for the results (default: results/DESIGN)."""
    force: bool = False
    """Go on in a folder that holds another sweep or runs with other settings: its tables are overwritten."""
    dry_run: bool = False
    """Print the resolved settings and what would be run, then stop."""


@dataclass(frozen=True)
class Run:
    """One call of run_cifar.py."""

    name: str
    methods: tuple[str, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """What a design file says. compare: pairs of (run, method). attacks: names of those under which they are compared; none: all."""

    base: tuple[str, ...]
    runs: list[Run]
    compare: list[tuple[tuple[str, str], tuple[str, str]]]
    seed: int
    seeds: int
    attacks: tuple[str, ...] = ()


def read_design(path: Path) -> Design:
    """Raises UserError naming what is wrong with the file."""
    try:
        design = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"--design {path}: cannot be read ({error.strerror}); name a TOML file, for example one of {DESIGNS}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--design {path}: is not TOML ({error}); mend that line") from None
    _check_names(path, "the design", design, ("base", "run", "compare", "attacks", "seed", "seeds"))
    tables = design.get("run", {})
    if not isinstance(tables, dict) or not tables:
        raise UserError(f"--design {path}: holds no run; add a table [run.NAME] with methods = [...]")
    runs = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"--design {path}: run.{name} must be a table [run.{name}] with methods = [...]")
        _check_names(path, f"[run.{name}]", table, ("methods", "arguments"))
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise UserError(
                f"--design {path}: [run.{name}] must be named by letters, digits, -, _ and . alone, at most 100: it names a folder"
            )
        methods, arguments = (_texts(path, f"[run.{name}] {key}", table.get(key, [])) for key in ("methods", "arguments"))
        if not methods:
            raise UserError(f'--design {path}: [run.{name}] names no methods; add methods = ["unguided"]')
        runs.append(Run(name, methods, arguments))
    base = _texts(path, "base", design.get("base", []))
    _check_arguments(path, (*base, *(text for run in runs for text in run.arguments)))
    attacks = _texts(path, "attacks", design.get("attacks", []))
    if attacks and not design.get("compare"):
        raise UserError(
            f"--design {path}: attacks says under which attacks to compare, and there is no compare; add it, or leave it out"
        )
    for attack in attacks:
        if not re.fullmatch(r"pgd-\d+|autoattack|apgd|apgd-ce", attack):
            raise UserError(f"--design {path}: attacks holds {attack}; the names are pgd-STEPS, autoattack, apgd and apgd-ce")
    return Design(base, runs, _pairs(path, design.get("compare", []), runs), *_whole(path, design), attacks)


def _check_arguments(path: Path, arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in PIECES:
            raise UserError(f"--design {path}: {argument} makes a piece of a run, and a sweep needs whole ones; take it out")
        if flag in OURS:
            raise UserError(
                f"--design {path}: {argument} belongs to run_sweep.py or to methods = [...]; take it out of the arguments"
            )


def _whole(path: Path, design: dict[str, Any]) -> tuple[int, int]:
    found = []
    for name, usual, least in (("seed", 0, 0), ("seeds", 3, 1)):
        value = design.get(name, usual)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**31:
            raise UserError(f"--design {path}: {name} = {value} must be a whole number of at least {least}")
        found.append(value)
    return found[0], found[1]


def _pairs(path: Path, value: Any, runs: list[Run]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Both sides of every comparison as (run, method), each in the design."""
    from image_experiments.synthesis.methods import parse_method

    known = {(one.name, parse_method(method).label) for one in runs for method in one.methods}
    found = []
    for pair in value if isinstance(value, list) else [value]:
        sides = (
            [tuple(side.split("/")) for side in pair] if isinstance(pair, list) and all(isinstance(s, str) for s in pair) else []
        )
        if len(sides) != 2 or not all(side in known for side in sides):
            names = ", ".join(sorted("/".join(side) for side in known))
            raise UserError(f'--design {path}: compare holds {pair}; write ["RUN/METHOD", "RUN/METHOD"] of {names}')
        found.append((sides[0], sides[1]))
    return found


def _check_names(path: Path, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise UserError(f"--design {path}: {where} has {name}{did_you_mean(name, known)}; known are {', '.join(known)}")


def _texts(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UserError(f'--design {path}: {where} must be a list of texts, for example ["--synthetic", "250"]')
    return tuple(value)


def run(settings: Settings) -> int:
    """Run what the design lists and gather it; returns the exit status."""
    begin = time.perf_counter()
    design = read_design(settings.design)
    settings, runs = resolve(settings, design)
    out = settings.out
    assert out is not None
    print(describe(settings))
    calls = [(one, arguments_of(settings, design, one, out / "runs" / one.name)) for one in runs]
    _check_calls(settings, calls)
    if settings.dry_run:
        for one, _ in calls:
            print(
                f"would run {one.name}: {' '.join((*design.base, *_data(settings), *one.arguments))} --methods {' '.join(one.methods)}"
            )
        print(f"would write to {out}")
        return 0
    from image_experiments.run_cifar import main as run_cifar

    growing = ("all seeds", "runs", "compare", *(f"methods of {one.name}" for one in runs))
    claim(prepare_folder(out), identity(settings, design, runs), growing=growing, force=settings.force)
    made = list(settings.reuse)
    for i, (one, arguments) in enumerate(calls):
        print(f"\n=== {one.name}: run {i + 1} of {len(runs)}")
        status = run_cifar([*arguments, *(["--reuse", *map(str, made)] if made else [])])
        if status:
            print(f"error: run {one.name} of {settings.design} ended with status {status}; see above", file=sys.stderr)
            return status
        made.append(out / "runs" / one.name)
    write_results(settings, design, runs, out, begin)
    return 0


def resolve(settings: Settings, design: Design) -> tuple[Settings, list[Run]]:
    """The settings with what the design says, and its runs, or with --quick some. Raises UserError."""
    seeds = design.seeds if settings.seeds is None else settings.seeds
    settings = replace(settings, seed=design.seed if settings.seed is None else settings.seed, seeds=seeds)
    for name, least in (("seeds", 1), ("seed", 0), ("workers", 0)):
        if not least <= getattr(settings, name) <= 2**31:
            raise UserError(f"--{name} {getattr(settings, name)}: must lie in {least} .. 2^31")
    _check_data_dir(settings, design)
    settings, runs = replace(settings, out=settings.out or Path("results") / settings.design.stem), design.runs
    if settings.until:
        runs = [one for one in runs if set(one.methods) != {"real"}]  # of real images alone there is nothing to describe
    if not settings.quick:
        return settings, runs
    return replace(settings, seeds=1), [replace(runs[0], methods=runs[0].methods[:3]), *runs[1:3]]


def arguments_of(settings: Settings, design: Design, one: Run, folder: Path) -> list[str]:
    """The command line of a run."""
    arguments = [*design.base, *_data(settings), *one.arguments, "--seeds", str(settings.seeds), "--seed", str(settings.seed)]
    arguments += ["--out", str(folder), "--workers", str(settings.workers), "--methods", *one.methods]
    return arguments + (["--until", settings.until] if settings.until else []) + (["--force"] if settings.force else [])


def _check_calls(settings: Settings, calls: Sequence[tuple[Run, list[str]]]) -> None:
    """UserError for a run that would be refused: before the first begins, not hours later."""
    from image_experiments.run_cifar import check_arguments

    assert settings.out is not None
    for one, arguments in calls:
        files = [Path(method.removeprefix("npz:")) for method in one.methods if method.startswith("npz:")]
        if any(not file.exists() and file.absolute().is_relative_to(settings.out.absolute()) for file in files):
            continue  # an earlier run makes it
        try:
            check_arguments(arguments)
        except UserError as error:
            raise UserError(f"--design {settings.design}: run {one.name}: {error}") from None


def write_results(settings: Settings, design: Design, runs: list[Run], out: Path, begin: float) -> None:
    """Tables and summary; prints the comparisons."""
    folders = [(one.name, out / "runs" / one.name) for one in runs]
    table = "description" if settings.until else "sweep"
    header, rows = gather_descriptions(folders, runs) if settings.until else gather(folders)
    write_csv(out / f"{table}.csv", header, rows)
    if not settings.until:
        pairs = [pair for pair in design.compare if all(side[0] in dict(folders) for side in pair)]
        compared = comparisons(rows, header, pairs, design.attacks, outcomes_in(dict(folders)))
        if compared:
            write_csv(out / "comparisons.csv", COMPARED, compared)
            shown = [[f"{cell:+.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in compared]
            print(text_table(COMPARED, shown))
    seconds = round(time.perf_counter() - begin, 2)
    write_summary(settings, design.base, runs, out, seconds)
    print(f"wrote {out}/{table}.csv with {len(rows)} rows and summary.json in {seconds:.0f} s")


def identity(settings: Settings, design: Design, runs: Sequence[Run]) -> dict[str, Any]:
    """What says which sweep a folder holds: the base, the data, and of each run its arguments and methods."""
    assert settings.seed is not None
    assert settings.seeds is not None
    found: dict[str, Any] = {"base": list(design.base), "data_dir": settings.data_dir, "runs": [one.name for one in runs]}
    found |= {"compare": [f"{'/'.join(a)} - {'/'.join(b)}" for a, b in design.compare], "attacks": list(design.attacks)}
    for one in runs:
        found |= {f"arguments of {one.name}": list(one.arguments), f"methods of {one.name}": list(one.methods)}
    return found | {"all seeds": list(range(settings.seed, settings.seed + settings.seeds))}


def _check_data_dir(settings: Settings, design: Design) -> None:
    if settings.data_dir is None:
        return
    given = (*design.base, *(text for one in design.runs for text in one.arguments))
    if any(text.partition("=")[0] in ("--data-dir", "--data_dir") for text in given):
        raise UserError(f"--data-dir {settings.data_dir}: {settings.design} names a --data-dir of its own; take one of them out")
    if not settings.data_dir.exists():
        raise UserError(f"--data-dir {settings.data_dir}: does not exist; name the folder or archive with the data set")


def _data(settings: Settings) -> tuple[str, ...]:
    return () if settings.data_dir is None else ("--data-dir", str(settings.data_dir))


def write_summary(settings: Settings, base: Sequence[str], runs: list[Run], out: Path, seconds: float) -> None:
    """What was run, with what, in how many seconds."""
    data = None if settings.data_dir is None else Path(settings.data_dir.name)
    design = Path(settings.design.name)  # names alone: the same file whatever folder it was called from
    settings = replace(settings, design=design, data_dir=data)
    summary = {"settings": asdict(settings), "versions": versions("torch", "diffusers"), "base": list(base)}
    write_json(out / "summary.json", summary | {"runs": {one.name: asdict(one) for one in runs}, "seconds": {"this call": seconds}})


def gather(runs: Sequence[tuple[str, Path]]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of sweep.csv: settings of the run, its metrics.csv, and the columns of its description.csv (nan without images).

    Where a scale was found, `scale` holds it and the window is the one that was found with it. after_PART: robust accuracy after this part
    of AutoAttack and those before it, where several were run.
    """
    from command_line.drawing import read_columns

    settings = ("window_low", "window_high", "at", "head", "surplus", "criterion", "order")
    rows: list[dict[str, Any]] = []
    for name, folder in runs:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        chosen = summary["settings"]
        low, high = chosen["generation.window"] or (0, chosen["diffusion.timesteps"])
        values = (low, high, *(chosen[f"{p}.{n}"] for p, n in (("generation", "at"), ("generation", "head"))))
        values += tuple(chosen[f"selection.{n}"] for n in ("surplus", "criterion", "order"))
        about = {"run": name, "split": chosen["evaluation.split"]} | dict(zip(settings, values, strict=True))
        described = records(read_columns(folder / "description.csv"))
        of = {(row["method"], row["seed"]): row for row in described}
        attacked = {
            tuple(row[name] for name in ("method", "seed", "attack", "norm", "eps")): int(row["images"])
            for row in (records(read_columns(folder / "details.csv")) if (folder / "details.csv").is_file() else [])
        }
        for row in records(read_columns(folder / "metrics.csv")):
            found = summary["results"].get(f"strength/{row['method']}/seed{row['seed']}")
            window = {} if found is None else dict(zip(settings[:2], found["window"], strict=True)) | {"scale": found["scale"]}
            one = tuple(row.get(name) for name in ("method", "seed", "attack", "norm", "eps"))
            images = {"images": attacked[one]} if one in attacked else {}
            described_so = of.get((row["method"], row["seed"]), {})
            rows.append(about | window | row | images | after_parts(summary, row) | described_so)
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, math.nan) for name in header] for row in rows]


def gather_descriptions(folders: Sequence[tuple[str, Path]], runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of description.csv: a row a run, method and seed, from what the stages have left."""
    from image_experiments.engine.stages import read_stamp
    from image_experiments.synthesis.methods import parse_method

    rows: list[dict[str, Any]] = []
    for (name, folder), one in zip(folders, runs, strict=True):
        for method in map(parse_method, one.methods):
            stamps = sorted((folder / "stages" / "describe" / method.label).glob("seed*.json"), key=lambda path: int(path.stem[4:]))
            for path in stamps:
                found = (read_stamp(folder, f"describe/{method.label}/{path.stem}") or {})["results"]
                about = {"run": name, "method": method.label, "seed": int(path.stem[4:])}
                rows.append(about | {measure: float(value) for measure, value in found.items()})
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, math.nan) for name in header] for row in rows]


def after_parts(summary: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """What each part of AutoAttack but the last left, which is the result; nothing for PGD."""
    evaluated = summary["results"].get(f"evaluate/{row['method']}/seed{row['seed']}", {"rows": []})["rows"]
    after: dict[str, float] = next(
        (r.get("after", {}) for r in evaluated if all(r[name] == row[name] for name in ("attack", "norm", "eps"))), {}
    )
    return {f"after_{part.replace('-', '_')}": left for part, left in list(after.items())[1:-1]}


COMPARED = (
    *("a", "b", "attack", "norm", "eps", "seeds", "difference", "low", "high", "low_of_all", "high_of_all"),
    *("low_images", "high_images", "low_images_of_all", "high_images_of_all", "p_holm"),
)


def outcomes_in(folders: dict[str, Path]) -> Callable[[dict[str, Any]], Any]:
    """outcomes(row of the table) -> which images withstood, as report.outcomes_of; None where seeds have images of their own."""
    from image_experiments.output.tables import outcomes_of

    return lambda row: outcomes_of(folders[row["run"]], row) if row["split"] == "test" else None


def comparisons(
    rows: list[list[Any]],
    header: list[str],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    names: Sequence[str] = (),
    outcomes: Callable[[dict[str, Any]], Any] = lambda _row: None,
) -> list[list[Any]]:
    """Robust accuracy of a minus b, paired by seed, for every pair and attack (of these names, if any are given): mean, Student's 95 %
    interval of this one, an interval such that all m of the table hold together with 95 % (Bonferroni: 1 - 0.05 / m each), and Holm's
    p-value among m: these hold for new seeds and these images. Then the same two intervals for new seeds and new images, nan where the
    outcomes image by image are not known. Raises UserError for an attack that no run used."""
    from image_experiments.output.tables import both_ends

    table = [dict(zip(header, row, strict=True)) for row in rows]
    value = {(r["run"], r["method"], r["attack"], r["norm"], r["eps"], r["seed"]): r for r in table}
    attacks = list(dict.fromkeys((r["attack"], r["norm"], r["eps"]) for r in table if not names or r["attack"] in names))
    missing = sorted(set(names) - {attack[0] for attack in attacks})
    if missing:
        raise UserError(f"the design compares under {missing[0]}, which no run used; its attacks are named in sweep.csv")
    found, ps = [], []
    total = len(pairs) * len(attacks)
    for a, b in pairs:
        for attack in attacks:
            of = [{key[-1]: row for key, row in value.items() if key[:-1] == (*side, *attack)} for side in (a, b)]
            shared = [(of[0][seed], of[1][seed]) for seed in sorted(set(of[0]) & set(of[1]))]
            if not shared:  # --quick leaves runs out
                continue
            gains = [one["robust_accuracy"] - other["robust_accuracy"] for one, other in shared]
            images = min(row.get("images", math.inf) for both in shared for row in both)
            mean, low, high = mean_interval(gains, resolution=1 / images)
            ends = mean_interval(gains, 1 - 0.05 / total, 1 / images)[1:]
            ps.append(paired_p(gains, 1 / images))
            withstood = [[outcomes(row) for row in side] for side in zip(*shared, strict=True)]
            wider = [end for level in (0.95, 1 - 0.05 / total) for end in both_ends(withstood[0], withstood[1], level)]
            found.append(["/".join(a), "/".join(b), *attack, len(gains), mean, low, high, *ends, *wider])
    return [[*row, p] for row, p in zip(found, holm(ps, total), strict=True)]


def records(columns: Any) -> list[dict[str, Any]]:
    """A dictionary a row; whole numbers as such."""
    names = list(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{n: int(v) if n in ("seed", "n_real", "n_synthetic") else v for n, v in zip(names, row, strict=True)} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    interrupted = "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    return run_command(Settings, run, HELP, arguments, interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(main())
