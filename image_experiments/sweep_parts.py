"""One sweep from the tables of several, each with seeds of its own: what machines that share no disk have made.

Of a folder are read sweep.csv, settings.json and summary.json, and runs/*/outcomes/*.npz, which say which images withstood: together some
hundred kilobytes. Without the outcomes the intervals for new images are nan.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line.folder_claim import FILE
from command_line.output import UserError, listed, plain
from image_experiments.output.sweep_tables import outcomes_in

SEEDS = "all seeds"
FILES = ("sweep.csv", FILE, "summary.json")


@dataclass(frozen=True)
class Part:
    """A finished sweep. holds: what identifies it, from settings.json. rows: of sweep.csv, as text by column."""

    out: Path
    holds: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, str]]

    @property
    def seeds(self) -> list[int]:
        return [int(seed) for seed in self.holds[SEEDS]]

    @property
    def seconds(self) -> float:
        taken = self.summary["seconds"]
        return float(taken.get("total", taken["this call"]))


def read_parts(folders: Sequence[Path], sweep: Mapping[str, Any]) -> list[Part]:
    """The parts of a sweep, by their first seed. sweep: what identifies the whole (sweeps.identity).

    Raises UserError for a folder without a finished sweep, for one of another sweep, and unless each seed of the whole is in one folder.
    """
    parts = [_read(folder) for folder in folders]
    most = max((_rows_of_a_seed(part) for part in parts), key=len)
    for part in parts:
        _check_same(part, plain(dict(sweep)))
        lacking = sorted(most - _rows_of_a_seed(part))
        if lacking:
            raise UserError(f"--gather {part.out}: sweep.csv lacks {' '.join(lacking[0])}, which another folder has; copy it again")
    _check_seeds(parts, sweep[SEEDS])
    return sorted(parts, key=lambda part: min(part.seeds))


def joined(parts: Sequence[Part]) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of sweep.csv, as one sweep of all seeds writes it: by run, then method, then seed."""
    rows = [row for part in parts for row in part.rows]
    header = list(dict.fromkeys(name for row in rows for name in row))
    order = {side: i for i, side in enumerate(dict.fromkeys((row["run"], row["method"]) for row in rows))}
    rows.sort(key=lambda row: (order[row["run"], row["method"]], int(row["seed"])))  # stable: attacks stay in their order
    return header, [[row.get(name, "nan") for name in header] for row in rows]


def outcomes_of_parts(parts: Sequence[Part]) -> Callable[[dict[str, Any]], Any]:
    """outcomes(row of the table) -> which images withstood; None if each seed has its own images, or the folder came without them."""
    of = {seed: {run: part.out / "runs" / run for run in part.holds["runs"]} for part in parts for seed in part.seeds}
    return lambda row: outcomes_in(of[row["seed"]])(row)


def origin(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Name, seeds, versions and seconds of each folder, for summary.json."""
    return [
        {"folder": part.out.name, "seeds": part.seeds, "versions": part.summary["versions"], "seconds": part.seconds}
        for part in parts
    ]


def _read(folder: Path) -> Part:
    where = f"--gather {folder}"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{where}: holds no finished sweep, there is no {listed(missing)}; name an --out of run_sweep.py that is done"
        )
    try:
        holds, summary = (json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES[1:])
        with (folder / FILES[0]).open(newline="", encoding="utf-8") as stream:
            header, *cells = csv.reader(stream)
        part = Part(folder, dict(holds), dict(summary), [dict(zip(header, row, strict=True)) for row in cells])
        whole = _is_whole(part)
        origin([part])  # reads what summary.json will need
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{where}: one of {listed(FILES)} is damaged; copy them again, or run that sweep again") from None
    if not whole:
        raise UserError(
            f"{where}: sweep.csv lacks a run, seed or attack of {FILE}; copy it again, or run that sweep to its end first"
        )
    return part


def _rows_of_a_seed(part: Part) -> set[tuple[str, ...]]:
    """What each seed of a part must have: its runs, methods and attacks."""
    return {tuple(row[name] for name in ("run", "method", "attack", "norm", "eps")) for row in part.rows}


def _is_whole(part: Part) -> bool:
    """Whether every seed has the same rows, of every run."""
    of_seed = _rows_of_a_seed(part)
    return {row[0] for row in of_seed} == set(part.holds["runs"]) and len(part.rows) == len(of_seed) * len(part.seeds)


def _check_same(part: Part, sweep: Mapping[str, Any]) -> None:
    """Raise UserError if a folder holds another sweep. The data may lie elsewhere there, under the same name."""
    names = [name for name in dict.fromkeys((*sweep, *part.holds)) if name not in (SEEDS, "data_dir")]
    different = [name for name in names if part.holds.get(name) != sweep.get(name)]
    data = [Path(one["data_dir"]).name for one in (part.holds, sweep) if one.get("data_dir")]
    if different or len(set(data)) > 1:
        raise UserError(
            f"--gather {part.out}: holds another sweep, which differs in {listed(different or ['data_dir'])}; give the design that made it"
        )


def _check_seeds(parts: Sequence[Part], seeds: Sequence[int]) -> None:
    """Raise UserError unless each of the seeds is in one part, and no others are."""
    where: dict[int, Path] = {}
    for part in parts:
        for seed in part.seeds:
            if seed in where:
                raise UserError(f"--gather: seed {seed} is in {where[seed]} and in {part.out}; each seed belongs in one folder")
            where[seed] = part.out
    missing, more = ([str(seed) for seed in sorted(one)] for one in (set(seeds) - set(where), set(where) - set(seeds)))
    if missing or more:
        what = f"seeds {listed(missing)} are in no folder" if missing else f"the folders hold seeds {listed(more)} besides"
        raise UserError(
            f"--gather: the sweep has seeds {min(seeds)} to {max(seeds)}; {what}; name all its folders, or fit --seed and --seeds"
        )
