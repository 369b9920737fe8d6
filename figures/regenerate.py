"""Makes all figures, tables and the report from result files: `python figures/regenerate.py`.

    python figures/regenerate.py                              # from the committed reference results, without running experiments
    python figures/regenerate.py --list                       # name, what it shows, what it is made from, whether it is current
    python figures/regenerate.py --only ceiling class_snr     # only these
    python figures/regenerate.py --results results            # from your own runs, in the folders the commands write to
    python figures/regenerate.py --run-missing --quick        # first run missing experiments there, at small size

Writes OUT/drawn/NAME.csv (the numbers), NAME.png and NAME.pdf, tables as NAME.csv, NAME.md and NAME.tex, and OUT/report.html. Figures that
are current are kept: a figure is made again only if its results, its settings or any project code that it imports has changed.
Exit status: 0 fine; 1 some figure failed or bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import difflib
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    from command_line.command import Help, run_command, settings_line
    from command_line.output import UserError, prepare_folder
    from figures.experiments import EXPERIMENTS, REFERENCE, ROOT, experiment_of
    from figures.inputs import Files
    from figures.registry import Entry, all_names, entries
    from figures.state import forget, made_from, remember, what_changed

HELP = Help("Figures, tables and the report, from result files.")
REPORT = "report"


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result."""

    only: tuple[str, ...] = ()
    """Names of figures and tables, or report (default: all)."""
    list: bool = False
    """Print name, content, inputs and state of each figure and table, then stop."""
    force: bool = False
    """Also make figures that are current."""
    run_missing: bool = False
    """Run the experiments whose results are missing, writing to --results (with this option the default is results)."""
    quick: bool = False
    """Run these experiments at small size."""
    seed: int = 0
    """First seed of these experiments."""
    results: Path | None = None
    """Folder with one folder of results per experiment (default: figures/reference, which is committed)."""
    out: Path | None = None
    """Folder for drawn/ and report.html (default: figures)."""
    workers: int = 0
    """Number of processes (0: one per core). Does not change the files."""
    dry_run: bool = False
    """Print the resolved settings and what would be made, then stop."""


@dataclass(frozen=True)
class Outcome:
    """error: one line, empty if the figure was made."""

    name: str
    error: str
    seconds: float


def resolve(settings: Settings) -> Settings:
    """Check the settings and fill in the folders. Raises UserError."""
    known = [*all_names(), REPORT]
    unknown = [name for name in settings.only if name not in known]
    if unknown:
        near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
        meant = f", did you mean {' '.join(near)}?" if near else ""
        raise UserError(f"--only {' '.join(unknown)}: unknown{meant}; --list shows all names")
    for flag, value in (("seed", settings.seed), ("workers", settings.workers)):
        if not 0 <= value < 2**31:
            raise UserError(f"--{flag} {value}: must lie in 0 .. 2^31 - 1")
    if (settings.quick or settings.seed) and not settings.run_missing:
        flag = "--quick" if settings.quick else f"--seed {settings.seed}"
        raise UserError(f"{flag}: belongs to the experiments that --run-missing runs; add --run-missing")
    if settings.results is None and settings.run_missing:
        settings = replace(settings, results=Path("results"))
    if settings.results is not None and not settings.results.is_dir() and not settings.run_missing:
        raise UserError(
            f"--results {settings.results}: no such folder; leave it out for the committed reference results, or run some"
        )
    return replace(settings, results=settings.results or REFERENCE, out=settings.out or ROOT / "figures")


def run(settings: Settings) -> int:
    """Make everything that is not current; returns the exit status."""
    begin = time.perf_counter()
    settings = resolve(settings)
    print(settings_line(settings))
    assert settings.results is not None
    assert settings.out is not None
    files, drawn = Files(settings.results), settings.out / "drawn"
    chosen = entries(settings.only) if settings.only != (REPORT,) else []
    if settings.list:
        return show_list(chosen, files, drawn)
    left_out: list[Outcome] = []
    if settings.run_missing:
        left_out = without_data(chosen, files)
        chosen = [entry for entry in chosen if entry.name not in {outcome.name for outcome in left_out}]
        for outcome in left_out:
            print(f"left out {outcome.name}: {outcome.error}")
    not_run = run_missing(settings, chosen, files) if settings.run_missing else []
    stale = [entry for entry in chosen if settings.force or what_changed(entry.name, made_from(entry, files), drawn)]
    if settings.dry_run:
        print(f"would make {' '.join(entry.name for entry in stale) or 'nothing'}; would write to {settings.out}")
        return 0
    prepare_folder(drawn)
    outcomes = make_all(stale, settings, drawn)
    failed = [outcome for outcome in outcomes if outcome.error]
    built = len(stale) - len(failed)
    failed += not_run
    kept = len(chosen) - len(stale)
    if not settings.only or REPORT in settings.only:
        from figures.report.page import make_report

        made, wrong = make_report(
            settings.out, files, settings.force, {outcome.name: outcome.error for outcome in failed + left_out}
        )
        built, kept = built + (made and not wrong), kept + (not made and not wrong)
        failed += [Outcome(REPORT, "; ".join(wrong), 0.0)] if wrong else []
    for outcome in failed:
        print(f"failed {outcome.name}: {outcome.error}", file=sys.stderr)
    report = f", report in {page}" if (page := settings.out / "report.html").is_file() else ""
    seconds = time.perf_counter() - begin
    print(f"{built} built, {kept} kept, {len(failed)} failed in {seconds:.1f} s; figures and tables in {drawn}{report}")
    return int(bool(failed) or bool(settings.only and left_out))


def make_all(stale: list[Entry], settings: Settings, drawn: Path) -> list[Outcome]:
    """Make these figures, on all cores if there are many."""
    from command_line.cluster import fan_out

    if not stale:
        return []
    assert settings.results is not None
    jobs = [(entry.name, settings.results, drawn) for entry in stale]
    workers = settings.workers or (0 if len(stale) > 4 else 1)
    found: list[Outcome] = fan_out(make, jobs, workers, "figures", "figure", None, "figures")
    return found


def make(name: str, results: Path, drawn: Path) -> Outcome:
    """Make one figure or table. An error becomes its outcome and does not stop the others."""
    from figures.figure import make_figure
    from figures.table import make_table

    begin = time.perf_counter()
    (entry,) = entries((name,))
    files = Files(results)
    forget(name, drawn)
    try:
        now = made_from(entry, files)
        written = (make_table if entry.is_table else make_figure)(entry.module, name, files, drawn)
        remember(name, now, drawn, written)
        error = ""
    except UserError as problem:
        error = str(problem)
    except Exception as problem:  # a bug in the figure's code: print the traceback, and count it as failed
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem} (in figures/{entry.section}/{name}.py; see the traceback above)"
    return Outcome(name, error, time.perf_counter() - begin)


def without_data(chosen: list[Entry], files: Files) -> list[Outcome]:
    """The figures whose missing results need a copy of a data set, with the command that makes them."""
    found = []
    for entry in chosen:
        lacking = (experiment_of(name) for name in entry.figure.inputs if not (files.folder / name).is_file())
        experiment = next((one for one in lacking if one.data), None)
        if experiment is not None:
            command = f"{experiment.command()} --out {files.folder / experiment.name}"
            found.append(Outcome(entry.name, f"needs {experiment.name}, for which you name a copy of the data: {command}", 0))
    return found


def run_missing(settings: Settings, chosen: list[Entry], files: Files) -> list[Outcome]:
    """Run the experiments whose results these figures lack; returns the failed ones. Raises UserError rather than overwrite results."""
    lacking = [name for entry in chosen for name in entry.figure.inputs if not files.current(name)]
    failed: list[Outcome] = []
    for experiment in dict.fromkeys(experiment_of(name).name for name in lacking):
        folder = files.folder / experiment
        if settings.quick and (folder / "summary.json").is_file():
            raise UserError(f"{folder}: holds results, but not all; move it away, or leave out --quick to complete it at full size")
        call = EXPERIMENTS[experiment].call((files.folder / experiment).absolute(), settings.quick, settings.seed)
        size = "small size" if settings.quick else EXPERIMENTS[experiment].takes
        if settings.dry_run:
            print(f"would run {' '.join(call[1:])}")
            continue
        print(f"running {experiment} ({size}): {' '.join(call[1:])}", flush=True)
        status = subprocess.run(call, check=False, cwd=ROOT).returncode
        if status:
            failed.append(
                Outcome(experiment, f"ended with status {status}; fix what it says above and run the same command again", 0)
            )
    return failed


def show_list(chosen: list[Entry], files: Files, drawn: Path) -> int:
    """Print the figures and their states."""
    rows = []
    for entry in chosen:
        state = what_changed(entry.name, made_from(entry, files), drawn) or "current"
        rows.append(
            (entry.name, entry.figure.title, " ".join(entry.figure.inputs[:2]) + " ..." * (len(entry.figure.inputs) > 2), state)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else [0] * 3
    for row in (("name", "what it shows", "made from", "state"), *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
