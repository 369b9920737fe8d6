"""One sweep from the tables of several, each with seeds of its own: what machines that share no disk have made.

Of a folder are read sweep.csv and summary.json, which are written when a sweep ends, and runs/*/outcomes/*.npz, which say which images
withstood. Together these are a few megabytes. Without the outcomes the intervals for new images are nan.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line.folder_claim import differences
from command_line.output import UserError, listed
from image_experiments.data.npz_files import DAMAGE
from image_experiments.output.sweep_tables import outcomes_in

TABLE, SUMMARY = "sweep.csv", "summary.json"
NUMBERS = ("seed", "eps", "robust_accuracy", "images")
"""Columns that comparisons need as numbers; all others stay text, so that the joined table has the very same cells."""


ROUNDING = 1e-9
"""Of a share that was written as text."""


@dataclass(frozen=True)
class Finished:
    """A finished sweep. rows: of its sweep.csv, by column."""

    out: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def seeds(self) -> range:
        settings = self.summary["settings"]
        return range(settings["seed"], settings["seed"] + settings["seeds"])

    @property
    def attacks(self) -> set[tuple[str, ...]]:
        """What each seed must have: (run, method, attack, norm, eps)."""
        return {tuple(str(row[name]) for name in ("run", "method", "attack", "norm", "eps")) for row in self.rows}

    @property
    def data(self) -> dict[str, str]:
        """Checksum of the data by run; empty in tables of earlier versions."""
        return dict(self.summary.get("data", {}))

    @property
    def told(self) -> dict[str, Any]:
        """Name, seeds, versions and seconds, for summary.json."""
        about = {"folder": self.out.resolve().name, "seeds": list(self.seeds)}
        return about | {name: self.summary[name] for name in ("versions", "seconds")}


def read_finished(
    folders: Sequence[Path], base: Sequence[str], runs: Mapping[str, Mapping[str, Any]], seeds: range
) -> list[Finished]:
    """The sweeps of which the whole is gathered, by their first seed.

    base, runs: of the whole, {name: {"methods", "arguments"}}. seeds: of the whole. Raises UserError for a folder without a finished
    sweep, for one of another design or data set, and unless each of the seeds is in one folder.
    """
    sweeps = [_read(folder) for folder in folders]
    for one in sweeps:
        held, ours = (_by_name(base, runs) for base, runs in ((one.summary["base"], one.summary["runs"]), (base, runs)))
        different = differences(dict.fromkeys(ours) | held, dict.fromkeys(held) | ours)
        if different:
            raise UserError(f"--gather {one.out}: holds another sweep ({listed(different, 3, '; ')}); give the design that made it")
    _check_data(sweeps)
    _check_rows(sweeps)
    _check_seeds(sweeps, seeds)
    return sorted(sweeps, key=lambda one: one.seeds[0])


def joined(sweeps: Sequence[Finished]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of sweep.csv, as one sweep of all seeds writes it: by run, then method, then seed."""
    rows = [row for one in sweeps for row in one.rows]
    header = list(dict.fromkeys(name for row in rows for name in row))
    order = {side: i for i, side in enumerate(dict.fromkeys((row["run"], row["method"]) for row in rows))}
    rows.sort(key=lambda row: (order[row["run"], row["method"]], row["seed"]))  # stable: attacks stay in their order
    return header, [[row.get(name, "nan") for name in header] for row in rows]


def outcomes_in_all(sweeps: Sequence[Finished]) -> tuple[Callable[[dict[str, Any]], Any], list[Path]]:
    """(outcomes as of outcomes_in, the folders in which it has missed some). outcomes raises UserError for a damaged file."""
    runs = {seed: one.out / "runs" for one in sweeps for seed in one.seeds}
    missed: list[Path] = []

    def folder_of(row: dict[str, Any]) -> Path:
        return runs[row["seed"]] / row["run"]

    read = outcomes_in(folder_of)

    def outcomes(row: dict[str, Any]) -> Any:
        where = folder_of(row) / "outcomes"
        try:
            found = read(row)
        except (*DAMAGE, ValueError):
            raise UserError(f"{where}: the file of {row['method']}, seed {row['seed']} is damaged; copy it again") from None
        if found is None and row["split"] == "test":
            missed.append(where)
        if found is not None and abs(float(np.mean(found)) - row["robust_accuracy"]) > ROUNDING:
            raise UserError(
                f"{where}: {row['method']}, seed {row['seed']} is of another training than the row of {TABLE}; finish that sweep, or copy "
                "both again"
            )
        return found

    return outcomes, missed


def _read(folder: Path) -> Finished:
    where = f"--gather {folder}"
    missing = [name for name in (TABLE, SUMMARY) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{where}: holds no finished sweep, there is no {listed(missing)}; name an --out of run_sweep.py that is done"
        )
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
            header, *cells = csv.reader(stream)
        rows = [dict(zip(header, row, strict=True)) for row in cells]
        found = Finished(folder, summary, [row | {name: _number(row[name]) for name in NUMBERS if name in row} for row in rows])
        whole = not summary["settings"]["until"] and _has_all(found)
        _by_name(summary["base"], summary["runs"])  # here and in the next line: all that is read later
        _ = found.told, found.data, found.attacks, summary["settings"]["data_dir"], [row["split"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        raise UserError(f"{where}: {TABLE} or {SUMMARY} is damaged; copy them again, or run that sweep again") from None
    if not whole:
        raise UserError(f"{where}: {TABLE} does not have the runs, methods and seeds of {SUMMARY}; run that sweep to its end first")
    return found


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


def _has_all(sweep: Finished) -> bool:
    """Whether every method of every run has every seed, and no other."""
    from image_experiments.synthesis.methods import parse_method

    needed = set()
    for run, one in sweep.summary["runs"].items():
        methods = [parse_method(text) for text in one["methods"]]
        found = {row["method"] for row in sweep.rows if row["run"] == run}
        given = {name for name in found if name.startswith("npz-")}  # named after a folder that may lie elsewhere by now
        if len(given) != sum(method.file is not None for method in methods):
            return False
        needed |= {(run, name, seed) for name in (*given, *(m.label for m in methods if m.file is None)) for seed in sweep.seeds}
    return {(row["run"], row["method"], row["seed"]) for row in sweep.rows} == needed


def _by_name(base: Sequence[str], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    parts = {f"{part} of {name}": list(one[part]) for name, one in runs.items() for part in ("methods", "arguments")}
    return {"base": list(base), "runs": list(runs)} | parts


def _check_data(sweeps: Sequence[Finished]) -> None:
    """Raise UserError unless all are of the same data: by checksum or, where a summary has none, by the name of their folder."""
    known = all(one.data for one in sweeps)
    for one in sweeps[1:]:
        if known and one.data != sweeps[0].data:
            raise UserError(f"--gather: the data in {one.out} are others than in {sweeps[0].out}; gather sweeps of one data set")
    names = {str(one.summary["settings"]["data_dir"] or "the default"): one.out for one in sweeps}
    if not known and len(names) > 1:
        raise UserError(
            f"--gather: the data are {' and '.join(f'{name} in {out}' for name, out in names.items())}; gather those of one data set"
        )


def _check_rows(sweeps: Sequence[Finished]) -> None:
    """Raise UserError if a table lacks an attack that another has, or has a row twice or not at all."""
    most = max(sweeps, key=lambda one: len(one.attacks))
    for one in sweeps:
        lacking = sorted(most.attacks - one.attacks)
        if lacking:
            raise UserError(f"--gather {one.out}: {TABLE} lacks {' '.join(lacking[0])}, which {most.out} has; copy it again")
        if len(one.rows) != len(one.attacks) * len(one.seeds):
            raise UserError(f"--gather {one.out}: {TABLE} has not one row per run, method, seed and attack; copy it again")


def _check_seeds(sweeps: Sequence[Finished], seeds: range) -> None:
    """Raise UserError unless each of the seeds is in one folder, and no others are."""
    where: dict[int, Path] = {}
    for one in sweeps:
        for seed in one.seeds:
            if seed in where:
                raise UserError(f"--gather: seed {seed} is in {where[seed]} and in {one.out}; each seed belongs in one folder")
            where[seed] = one.out
    missing, more = ([str(seed) for seed in sorted(one)] for one in (set(seeds) - set(where), set(where) - set(seeds)))
    if missing or more:
        what = f"seeds {listed(missing)} are in no folder" if missing else f"the folders hold seeds {listed(more)} besides"
        raise UserError(
            f"--gather: the sweep has seeds {seeds[0]} to {seeds[-1]}; {what}; name all its folders, or fit --seed and --seeds"
        )
