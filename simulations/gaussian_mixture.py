"""The main job: `python simulations/gaussian_mixture.py`.

1. Theory against simulation: compares every closed form T1-T16 with Monte Carlo that samples data, fits learners and attacks them exactly.
2. Real data: compares the theory's predictions for a table with two labels with measurements on fitted classifiers.

Writes OUT/theory_vs_simulation.csv (quantity,setting,theory,simulation,standard_error,z), curves and real-data tables as csv, a PNG of
each, and OUT/summary.json. Exit status: 0 fine; 1 some |z| > 5 or bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if __package__ in (None, ""):  # run as a script, from any folder, from a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line.missing import needs_packages

with needs_packages(__name__):
    import numpy as np

    from command_line.cluster import check_ways
    from command_line.command import Help, run_command, settings_line, versions
    from command_line.folder_claim import claim_anew, finish_claim
    from command_line.messages import QUIET, TERMINAL, Talk, told_of_files, with_details, write_details
    from command_line.output import UserError, prepare_folder, text_table, write_csv
    from command_line.result import Result
    from command_line.values import Radius, changed, checked

if TYPE_CHECKING:
    from simulations.mixtures.tables import Table

Part = Literal["all", "simulation", "data"]
HELP = Help("Closed-form theory of robust classification against simulation, and on your data.")


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result."""

    data: str = "breast-cancer"
    """Table: breast-cancer, digits:A,B, or FILE.npz / FILE.csv with features and two labels."""
    label: str | None = None
    """Label column of a csv file (default: the last)."""
    group: str | None = None
    """Column of a csv file that says which rows belong together, as those of one patient; they stay on one side of the split."""
    eps: tuple[Radius, ...] = ()
    """Attack radii on the real data, in feature standard deviations, 0.1 or 1/10 (default: fractions of each norm of the class mean)."""
    norms: tuple[Literal["1", "2", "inf"], ...] = ("2", "inf")
    """Norms p of the attack on the real data."""
    accuracy: float = 0.8
    """Target robust accuracy on the real data: how many samples does the averaging learner need to reach it?"""
    confidence: float = 0.95
    """Probability with which the target accuracy must be reached."""
    radius: tuple[float, ...] = ()
    """Wasserstein-2 budgets for the frontier on the real data (default: fractions of the total standard deviation)."""
    part: Part = "all"
    """Which part to run: all, only theory against simulation, or only the real data."""
    quick: bool = False
    """Fewer repetitions, without the slowest checks: about 35 s instead of about 80 s on 2 cores."""
    seed: int = 0
    """Seed of all random streams. The same seed gives the same files for any number of workers."""
    cluster: str | None = None
    """Address host:port of a Dask scheduler to run on, instead of processes on this machine. The files are the same."""
    workers: int = 0
    """Number of processes (0: one per core)."""
    out: Path | None = None
    """Folder for the results (default: results/gaussian_mixture; other tables and single parts have their own folders)."""
    force: bool = False
    """Write into a folder that holds an experiment with other settings. Its tables are overwritten."""
    verbose: bool = False
    """Print all tables, which are in OUT/report.txt too."""
    dry_run: bool = False
    """Print the resolved settings and what would run, then stop."""


def check_settings(settings: Settings) -> None:
    """Raise UserError for values that no part can use."""
    for name, values in (("eps", settings.eps), ("radius", settings.radius)):
        for value in values:
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"--{name} {value}: must be a finite number >= 0")
    if not 0.5 <= settings.accuracy < 1:
        raise UserError(f"--accuracy {settings.accuracy}: must lie in [0.5, 1)")
    if not 0 < settings.confidence < 1:
        raise UserError(f"--confidence {settings.confidence}: must lie strictly between 0 and 1")
    if not settings.norms:
        raise UserError("--norms: give at least one of 1, 2, inf")
    for name, number in (("seed", settings.seed), ("workers", settings.workers)):
        if not 0 <= number < 2**32:
            raise UserError(f"--{name} {number}: must lie in 0 .. 2^32 - 1")
    check_used_by_part(settings)
    check_ways(settings.workers, settings.cluster)


OF_THE_DATA = ("data", "label", "group", "norms", "eps", "accuracy", "confidence", "radius")
OF_THE_SIMULATION = ("quick", "cluster")


def check_used_by_part(settings: Settings) -> None:
    """Raise UserError for an option that the chosen part does not use, so that none is silently ignored."""
    default = Settings()
    unused = {"all": (), "data": OF_THE_SIMULATION, "simulation": OF_THE_DATA}[settings.part]
    for name in unused:
        value = getattr(settings, name)
        if value != getattr(default, name):
            said = "" if value is True else f" {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
            raise UserError(f"--{name}{said}: --part {settings.part} does not use it; leave it out, or run both parts")


def run(settings: Settings | None = None, talk: Talk = QUIET, **changes: Any) -> Result:
    """Run both parts, or the chosen one, from Python: result.table("theory_vs_simulation"), result.summary, result.out.

    changes: to the settings, for example run(quick=True, seed=1). Warns if a simulation disagrees with theory.
    Raises UserError: one line that names value, cause and remedy.
    """
    if not isinstance(settings, Settings | None):
        raise UserError(f"settings={settings!r}: give Settings, or the changes alone, run(quick=True)")
    chosen = prepared(changed(checked(settings or Settings()), **changes))
    if chosen.dry_run:
        raise UserError("dry_run=True: belongs to the command line, gaussian_mixture.py; leave it out")
    failures = conduct(chosen, read_data(chosen, talk), talk)
    if failures:
        warnings.warn(f"{failures} simulations disagree with theory; see failing_rows in {chosen.out}/summary.json", stacklevel=2)
    return Result(str(chosen.out))


def prepared(settings: Settings) -> Settings:
    """The checked settings, with their folder."""
    check_settings(settings)
    return replace(settings, out=settings.out or default_folder(settings))


def command(settings: Settings) -> int:
    """Run as a command; returns the exit status."""
    settings = prepared(settings)
    print(settings_line(settings))
    table = read_data(settings, TERMINAL)
    if settings.dry_run:
        parts = ["theory against simulation"] * (settings.part != "data")
        parts += [f"real data {settings.data}"] * (settings.part != "simulation")
        print(f"would run: {' and '.join(parts)}; would write to {settings.out}")
        return 0
    failures = conduct(settings, table, TERMINAL)
    if failures:
        print("FAILED: some simulation disagrees with theory by more than 5 standard errors", file=sys.stderr)
    return int(failures > 0)


def read_data(settings: Settings, talk: Talk) -> Table | None:
    """The table of the second part, read before anything is computed, so that bad input is reported first."""
    if settings.part == "simulation":
        return None
    from simulations.mixtures.tables import load_table

    _check_not_overwritten(settings)
    table = load_table(settings.data, settings.label, settings.group)
    talk.say("\n".join(table.described()))
    return table


def _check_not_overwritten(settings: Settings) -> None:
    """Raise UserError if a table of results would take the place of the data."""
    from simulations.mixtures.curves import CURVES

    data = Path(settings.data)
    written = data.name.startswith("real_data") or data.stem in (*CURVES, "theory_vs_simulation")
    if written and settings.out is not None and data.is_file() and data.resolve().parent == settings.out.resolve():
        raise UserError(f"--data {settings.data}: lies in --out, whose tables are written anew; give another --out")


def conduct(settings: Settings, table: Table | None, talk: Talk) -> int:
    """Run the chosen parts and write their files; returns how many simulations disagree with theory."""
    start, out = time.perf_counter(), settings.out
    assert out is not None
    data = Path(settings.data) if Path(settings.data).exists() else settings.data  # a file is another one in another folder
    claim_anew(prepare_folder(out), {"experiment": "gaussian_mixture", **asdict(settings), "data": data}, force=settings.force)
    details: list[str] = []
    talk = with_details(talk, details, settings.verbose)
    summary: dict[str, Any] = {"settings": asdict(settings), "versions": versions(), "seconds": {}}
    failures = 0
    if settings.part != "data":
        summary["theory_vs_simulation"] = compare_with_simulation(settings, out, talk)
        failures = summary["theory_vs_simulation"]["failures"]
        summary["seconds"]["simulation"] = round(time.perf_counter() - start, 2)
        write_details(details, out)  # after each part, so that none is lost where a later one stops
    if table is not None:
        begin = time.perf_counter()
        summary["real_data"] = analyse_real_data(settings, table, out, talk)
        summary["seconds"]["real_data"] = round(time.perf_counter() - begin, 2)
    from figures.of_run import draw_run

    begin = time.perf_counter()
    drawn = draw_run("gaussian_mixture", out)
    summary["seconds"]["pictures"] = round(time.perf_counter() - begin, 2)
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    finish_claim(out, summary)
    write_details(details, out)
    first = ("phase_diagram", "real_data") if settings.data == Settings.data else ("real_data",)
    talk.say(told_of_files(out, drawn, summary["seconds"]["total"], first))
    return int(failures)


def compare_with_simulation(settings: Settings, out: Path, talk: Talk) -> dict[str, Any]:
    """Part 1: run all checks, write them and the exact curves, say how many agree and which is furthest off."""
    from scipy.stats import kstest

    from simulations.mixtures.curves import CURVES
    from simulations.mixtures.monte_carlo import HEADER, Z_LIMIT, Effort, run_all
    from simulations.mixtures.theory_checks import all_checks

    effort = Effort.quick() if settings.quick else Effort()
    checks = [check for check in all_checks() if not (settings.quick and check.thorough)]
    jobs = [*CURVES.values(), *(check.rows for check in checks)]
    results = run_all(jobs, settings.seed, effort, settings.workers, settings.cluster)
    rows = [row for rows in results[len(CURVES) :] for row in rows]
    write_csv(out / "theory_vs_simulation.csv", HEADER, [row.cells for row in rows])
    for name, (header, lines) in zip(CURVES, results, strict=False):
        write_csv(out / f"{name}.csv", header, lines)
    z = np.array([row.z for row in rows])
    failures = [row for row in rows if not abs(row.z) <= Z_LIMIT]
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row.quantity, []).append(row.z)
    lines = [(name, str(len(v)), f"{np.mean(v):+.2f}", f"{np.abs(v).max():.2f}") for name, v in groups.items()]
    talk.detail(text_table(("theory against simulation", "rows", "mean z", "max |z|"), lines))
    ks = kstest(z, "norm")
    worst = rows[int(np.abs(z).argmax())]
    talk.say(
        f"theory against simulation: {len(rows)} comparisons, {len(rows) - len(failures)} of them within {Z_LIMIT:g} standard errors "
        f"(Kolmogorov-Smirnov p {ks.pvalue:.2f})"
    )
    talk.say(f"largest deviation: {abs(worst.z):.2f} standard errors, {worst.quantity}, {worst.setting}")
    for row in failures:
        numbers = f"theory {row.theory:.6g}, simulation {row.simulation:.6g}, z {row.z:.1f}"
        talk.say(f"  |z| > {Z_LIMIT:g}: {row.quantity}, {row.setting}: {numbers}")
    return {
        "rows": len(rows),
        "failures": len(failures),
        "largest_abs_z": float(np.abs(z).max()),
        "z_mean": float(z.mean()),
        "z_std": float(z.std()),
        "kolmogorov_smirnov": {"statistic": float(ks.statistic), "p_value": float(ks.pvalue)},
        "failing_rows": [row.cells for row in failures],
        "effort": asdict(effort),
    }


def analyse_real_data(settings: Settings, table: Table, out: Path, talk: Talk) -> dict[str, Any]:
    """Part 2: predict and measure, then write and print; nothing is written unless everything succeeds."""
    from simulations.mixtures.real_data import analyse
    from simulations.mixtures.real_data_report import answer, describe_analysis, doubts, summarise, write_analysis

    norms = tuple(dict.fromkeys(float(p) for p in settings.norms))
    eps, radius = tuple(dict.fromkeys(settings.eps)), tuple(dict.fromkeys(settings.radius))
    try:
        analysis = analyse(table, norms, eps, settings.accuracy, settings.confidence, radius, settings.seed)
        summary, text = summarise(analysis), describe_analysis(analysis, settings.accuracy, settings.confidence)
        said = [*doubts(analysis), *answer(analysis, settings.accuracy, settings.confidence)]
    except (ValueError, RuntimeError) as error:  # theory/ and scikit-learn name value, cause and remedy in one line
        raise UserError(f"--data {table.name} cannot be analysed: {error}") from error
    write_analysis(analysis, out)
    talk.detail(text)
    for line in said:
        talk.say(line)
    return summary


def default_folder(settings: Settings) -> Path:
    """results/gaussian_mixture for both parts on the default table; other combinations, and --quick, have their own folders."""
    stem = Path(settings.data).stem.replace(":", "-").replace(",", "-")
    if settings.part == "all":
        name = "gaussian_mixture" if settings.data == Settings.data else f"gaussian_mixture-{stem}"
    else:
        name = stem if settings.part == "data" else "simulation"
    return Path("results") / (name + "-quick" * settings.quick)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    return run_command(Settings, command, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
