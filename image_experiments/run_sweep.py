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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

from command_line.command import describe, run_command, versions
from command_line.output import UserError, did_you_mean, prepare_folder, text_table, write_csv, write_json
from command_line.statistics import holm, mean_interval, paired_p

DESIGNS = Path(__file__).resolve().parent / "designs"
OURS = ("--out", "--reuse", "--seed", "--seeds", "--workers", "--methods", "--dry-run")
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
    workers: int = 0
    """Processes (0: one a core); does not change the results."""
    out: Path | None = None
    """Folder for the results (default: results/DESIGN)."""
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
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"--design {path}: [run.{name}] must be named by letters, digits, -, _ and . alone: it names a folder")
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
    from image_experiments.methods import parse_method

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
    base, runs = (*design.base, *_data(settings)), design.runs
    settings = replace(
        settings,
        seed=design.seed if settings.seed is None else settings.seed,
        seeds=design.seeds if settings.seeds is None else settings.seeds,
    )
    for name, least in (("seeds", 1), ("seed", 0), ("workers", 0)):
        if not least <= getattr(settings, name) <= 2**31:
            raise UserError(f"--{name} {getattr(settings, name)}: must lie in {least} .. 2^31")
    if settings.quick:
        runs = [replace(runs[0], methods=runs[0].methods[:3]), *runs[1:3]]
        settings = replace(settings, seeds=1)
    out = settings.out or Path("results") / settings.design.stem
    settings = replace(settings, out=out)
    _check_data_dir(settings, design)
    print(describe(settings))
    if settings.dry_run:
        for one in runs:
            print(f"would run {one.name}: {' '.join((*base, *one.arguments))} --methods {' '.join(one.methods)}")
        print(f"would write to {out}")
        return 0
    from image_experiments.run_cifar import main as run_cifar

    prepare_folder(out)
    made = list(settings.reuse)
    for i, one in enumerate(runs):
        print(f"\n=== {one.name}: run {i + 1} of {len(runs)}")
        folder = out / "runs" / one.name
        arguments = [*base, *one.arguments, "--seeds", str(settings.seeds), "--seed", str(settings.seed), "--out", str(folder)]
        arguments += ["--workers", str(settings.workers), "--methods", *one.methods]
        if made:
            arguments += ["--reuse", *map(str, made)]
        status = run_cifar(arguments)
        if status:
            print(f"error: run {one.name} of {settings.design} ended with status {status}; see above", file=sys.stderr)
            return status
        made.append(folder)
    header, rows = gather([(one.name, out / "runs" / one.name) for one in runs])
    write_csv(out / "sweep.csv", header, rows)
    seconds = round(time.perf_counter() - begin, 2)
    write_summary(settings, design.base, runs, out, seconds)
    pairs = [pair for pair in design.compare if all(side[0] in {one.name for one in runs} for side in pair)]
    compared = comparisons(rows, header, pairs, design.attacks)
    if compared:
        write_csv(out / "comparisons.csv", COMPARED, compared)
        print(
            text_table(COMPARED, [[f"{cell:+.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in compared])
        )
    print(f"wrote {out}/sweep.csv with {len(rows)} rows and summary.json in {seconds:.0f} s")
    return 0


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
        for row in records(read_columns(folder / "metrics.csv")):
            found = summary["results"].get(f"strength/{row['method']}/seed{row['seed']}")
            window = {} if found is None else dict(zip(settings[:2], found["window"], strict=True)) | {"scale": found["scale"]}
            rows.append(about | window | row | after_parts(summary, row) | of.get((row["method"], row["seed"]), {}))
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, math.nan) for name in header] for row in rows]


def after_parts(summary: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """What each part of AutoAttack but the last left, which is the result; nothing for PGD."""
    evaluated = summary["results"].get(f"evaluate/{row['method']}/seed{row['seed']}", {"rows": []})["rows"]
    after: dict[str, float] = next(
        (r.get("after", {}) for r in evaluated if all(r[name] == row[name] for name in ("attack", "norm", "eps"))), {}
    )
    return {f"after_{part.replace('-', '_')}": left for part, left in list(after.items())[1:-1]}


COMPARED = ("a", "b", "attack", "norm", "eps", "seeds", "difference", "low", "high", "low_of_all", "high_of_all", "p_holm")


def comparisons(
    rows: list[list[Any]],
    header: list[str],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    names: Sequence[str] = (),
) -> list[list[Any]]:
    """Robust accuracy of a minus b, paired by seed, for every pair and attack (of these names, if any are given): mean, Student's 95 %
    interval of this one, an interval such that all m of the table hold together with 95 % (Bonferroni: 1 - 0.05 / m each), and Holm's
    p-value. Raises UserError for an attack that no run used."""
    table = [dict(zip(header, row, strict=True)) for row in rows]
    value = {(r["run"], r["method"], r["attack"], r["norm"], r["eps"], r["seed"]): r["robust_accuracy"] for r in table}
    attacks = list(dict.fromkeys((r["attack"], r["norm"], r["eps"]) for r in table if not names or r["attack"] in names))
    missing = sorted(set(names) - {attack[0] for attack in attacks})
    if missing:
        raise UserError(f"the design compares under {missing[0]}, which no run used; its attacks are named in sweep.csv")
    found, ps = [], []
    total = len(pairs) * len(attacks)
    for a, b in pairs:
        for attack in attacks:
            of = [{key[-1]: robust for key, robust in value.items() if key[:-1] == (*side, *attack)} for side in (a, b)]
            gains = [of[0][seed] - of[1][seed] for seed in sorted(set(of[0]) & set(of[1]))]
            if not gains:  # --quick leaves runs out
                continue
            mean, low, high = mean_interval(gains)
            ends = mean_interval(gains, 1 - 0.05 / total)[1:]
            ps.append(paired_p(gains))
            found.append(["/".join(a), "/".join(b), *attack, len(gains), mean, low, high, *ends])
    return [[*row, p] for row, p in zip(found, holm(ps), strict=True)]


def records(columns: Any) -> list[dict[str, Any]]:
    """A dictionary a row; whole numbers as such."""
    names = list(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{n: int(v) if n in ("seed", "n_real", "n_synthetic") else v for n, v in zip(names, row, strict=True)} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
