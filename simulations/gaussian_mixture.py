"""The main job: `python simulations/gaussian_mixture.py`.

1. Theory against simulation: every closed form T1-T11 beside Monte Carlo that samples data, fits learners and attacks them exactly.
2. Real data: what the theory predicts for a table with two labels, and what fitted classifiers measure.

Writes OUT/theory_vs_simulation.csv (quantity,setting,theory,simulation,standard_error,z), curves and real-data tables as csv, a PNG for
each, and OUT/summary.json. Exit status: 0 fine; 1 some |z| > 5 or bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

import numpy as np
import tyro

from simulations.output import UserError, prepare_folder, text_table, write_csv, write_json

Part = Literal["all", "simulation", "data"]
HELP = "Closed-form theory of robust classification against simulation, and on your data."


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result."""

    data: str = "breast-cancer"
    """breast-cancer, digits:A,B, or FILE.npz / FILE.csv with features and two labels."""
    label: str | None = None
    """Label column of a csv file (default: the last)."""
    eps: tuple[float, ...] = ()
    """Attack radii on the real data in feature standard deviations (default: fractions of each norm of the class mean)."""
    norms: tuple[Literal["1", "2", "inf"], ...] = ("2", "inf")
    """Norms p of the attack on the real data."""
    accuracy: float = 0.8
    """Wished robust accuracy on the real data: how many samples would the averaging learner need?"""
    confidence: float = 0.95
    """With what probability should the wish be met?"""
    radius: tuple[float, ...] = ()
    """Wasserstein-2 budgets for the frontier on the real data (default: fractions of the total standard deviation)."""
    part: Part = "all"
    """Run both parts, only theory against simulation, or only the real data."""
    quick: bool = False
    """Fewer repetitions: under 15 s instead of under 60 s on 2 cores."""
    seed: int = 0
    """Seed of every random stream; the same seed gives the same files on any number of workers."""
    workers: int = 0
    """Processes (0: one a core)."""
    out: Path = Path("results/gaussian_mixture")
    """Folder for the results."""
    dry_run: bool = False
    """Print the resolved settings and what would be run, then stop."""


def check_settings(settings: Settings) -> None:
    """Raise UserError for values that no part could use."""
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


def run(settings: Settings) -> int:
    """Run the chosen parts and write their files; returns the exit status."""
    start = time.perf_counter()
    check_settings(settings)
    print("settings: " + ", ".join(f"{name}={_shown(value)}" for name, value in asdict(settings).items()))
    with_simulation, with_data = settings.part != "data", settings.part != "simulation"
    if with_data:
        from simulations.tables import load_table

        table = load_table(settings.data, settings.label)  # bad input is said before anything is computed
    if settings.dry_run:
        parts = ["theory against simulation"] * with_simulation + [f"real data {settings.data}"] * with_data
        print(f"would run: {' and '.join(parts)}; would write to {settings.out}")
        return 0
    prepare_folder(settings.out)
    summary: dict[str, Any] = {"settings": asdict(settings), "versions": versions(), "seconds": {}}
    failed = False
    if with_simulation:
        summary["theory_vs_simulation"] = compare_with_simulation(settings)
        failed = summary["theory_vs_simulation"]["failures"] > 0
        summary["seconds"]["simulation"] = round(time.perf_counter() - start, 2)
    if with_data:
        begin = time.perf_counter()
        summary["real_data"] = analyse_real_data(settings, table)
        summary["seconds"]["real_data"] = round(time.perf_counter() - begin, 2)
    from simulations.pictures import draw_all

    begin = time.perf_counter()
    drawn = draw_all(settings.out, real_data=with_data, simulation=with_simulation)
    summary["seconds"]["pictures"] = round(time.perf_counter() - begin, 2)
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    write_json(settings.out / "summary.json", summary)
    print(f"wrote {settings.out}/summary.json, csv files and {len(drawn)} PNG in {summary['seconds']['total']:.0f} s")
    if failed:
        print("FAILED: some simulation disagrees with theory by more than 5 standard errors", file=sys.stderr)
    return int(failed)


def compare_with_simulation(settings: Settings) -> dict[str, Any]:
    """Part 1: run all checks, write them and the exact curves, print one line a quantity."""
    from scipy.stats import kstest

    from simulations.checks import HEADER, Z_LIMIT, Effort, run_all
    from simulations.curves import CURVES
    from simulations.theory_checks import all_checks

    effort = Effort.quick() if settings.quick else Effort()
    jobs = [*CURVES.values(), *(check.rows for check in all_checks())]
    results = run_all(jobs, settings.seed, effort, settings.workers or os.cpu_count() or 1)
    rows = [row for rows in results[len(CURVES) :] for row in rows]
    write_csv(settings.out / "theory_vs_simulation.csv", HEADER, [row.cells for row in rows])
    for name, (header, lines) in zip(CURVES, results, strict=False):
        write_csv(settings.out / f"{name}.csv", header, lines)
    z = np.array([row.z for row in rows])
    failures = [row for row in rows if not abs(row.z) <= Z_LIMIT]
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row.quantity, []).append(row.z)
    lines = [(name, str(len(v)), f"{np.mean(v):+.2f}", f"{np.abs(v).max():.2f}") for name, v in groups.items()]
    print(text_table(("theory against simulation", "rows", "mean z", "max |z|"), lines))
    ks = kstest(z, "norm")
    print(f"{len(rows)} rows, largest |z| {np.abs(z).max():.2f}, Kolmogorov-Smirnov p = {ks.pvalue:.3f} against a standard normal")
    for row in failures:
        numbers = f"theory {row.theory:.6g}, simulation {row.simulation:.6g}, z {row.z:.1f}"
        print(f"  |z| > {Z_LIMIT:g}: {row.quantity}, {row.setting}: {numbers}")
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


def analyse_real_data(settings: Settings, table: Any) -> dict[str, Any]:
    """Part 2: predict, measure, write, print."""
    from simulations.real_data import analyse, optimum_by_eps, verdict

    norms = tuple(float(p) for p in settings.norms)
    try:
        analysis = analyse(table, norms, settings.eps, settings.accuracy, settings.confidence, settings.radius, settings.seed)
    except (ValueError, RuntimeError) as error:  # theory/ and scikit-learn name value, cause and remedy in one line
        raise UserError(f"--data {table.name} cannot be analysed: {error}") from error
    name = table.name
    write_csv(
        settings.out / "real_data.csv",
        (
            "data",
            "p",
            "eps",
            "classifier",
            "predicted",
            "with_held_out_moments",
            "measured",
            "standard_error",
            "moments_gap",
            "shape_gap",
        ),
        [
            (name, c.p, c.eps, c.classifier, c.predicted, c.with_moments, c.measured, c.standard_error, c.moments_gap, c.shape_gap)
            for c in analysis.comparisons
        ],
    )
    needs = [(name, n.p, n.eps, n.accuracy, n.ceiling, "" if n.n is None else n.n) for n in analysis.needs]
    write_csv(settings.out / "real_data_samples.csv", ("data", "p", "eps", "accuracy", "ceiling", "n"), needs)
    curve = [(name, c.p, c.eps, c.n, c.predicted, c.measured, c.standard_error) for c in analysis.curve]
    write_csv(
        settings.out / "real_data_learning_curve.csv", ("data", "p", "eps", "n", "predicted", "measured", "standard_error"), curve
    )
    write_csv(
        settings.out / "real_data_frontier.csv", ("radius", "mean_scale", "std_scale", "sample_multiplier"), list(analysis.frontier)
    )
    shape_header = ("direction", "class", "mean_shift", "std_ratio", "skewness", "excess_kurtosis", "ks_p")
    write_csv(settings.out / "real_data_shape.csv", shape_header, [tuple(asdict(shape).values()) for shape in analysis.shapes])
    print_real_data(analysis, settings)
    return {
        "data": name,
        "classes": table.classes,
        "rows": {"training": analysis.train_rows, "held_out": analysis.test_rows},
        "dimension": analysis.mixture.dim,
        "dropped_features": analysis.dropped,
        "shrinkage": analysis.shrinkage,
        "predicted_optimum": [
            {"p": p, "eps": eps, "robust_accuracy": value, "trivial": trivial}
            for p, eps, value, trivial in optimum_by_eps(analysis)
        ],
        "verdict": verdict(analysis),
    }


def print_real_data(analysis: Any, settings: Settings) -> None:
    """The report on the terminal."""
    from simulations.real_data import optimum_by_eps, verdict

    table = analysis.table
    print(
        f"\nreal data {table.name}: {table.classes[0]!r} against {table.classes[1]!r}, {analysis.train_rows} training and "
        f"{analysis.test_rows} held-out rows, {analysis.mixture.dim} features; radii in feature standard deviations"
    )
    if analysis.dropped:
        print(f"dropped {len(analysis.dropped)} features that are constant in the training half: {', '.join(analysis.dropped)}")
    rows = []
    for p, eps, value, trivial in optimum_by_eps(analysis):
        group = {c.classifier: c for c in analysis.comparisons if (c.p, c.eps) == (p, eps)}
        need = next((n for n in analysis.needs if (n.p, n.eps) == (p, eps)), None)
        samples = "-" if need is None else (f"ceiling {need.ceiling:.3f}" if need.n is None else str(need.n))
        cells = [f"{c.predicted:.3f} / {c.measured:.3f}" for c in group.values()]
        rows.append((f"p={p:g} eps={eps:.3f}", "guessing" if trivial else f"{value:.3f}", *cells, samples))
    names = list(dict.fromkeys(c.classifier for c in analysis.comparisons))
    shown = [name.replace("robust optimum (theory)", "optimum").replace("adversarial logistic", "adv. logistic") for name in names]
    if any(len(row) != len(names) + 3 for row in rows):  # p=1 has no adversarial training
        rows = [row if len(row) == len(names) + 3 else (*row[:-1], "-", row[-1]) for row in rows]
    print(text_table(("robust accuracy, predicted / measured", "best possible", *shown, f"n for {settings.accuracy:g}"), rows))
    print(
        f"n for {settings.accuracy:g}: samples with which averaging reaches it (balanced) with probability {settings.confidence:g}; "
        "'guessing': eps >= ||mu||_p, no classifier beats the larger class"
    )
    print("frontier: " + "; ".join(f"W2 {r:.3g} -> one sample is worth {m:.2f}" for r, _, _, m in analysis.frontier))
    print("where the Gaussian assumption breaks:")
    for line in verdict(analysis):
        print(f"  {line}")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("contrastive-dp", "numpy", "scipy", "scikit-learn", "matplotlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _shown(value: Any) -> str:
    return "default" if value in ((), None) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; user errors are one line on standard error and status 1."""
    settings = tyro.cli(Annotated[Settings, tyro.conf.arg(name="")], args=arguments, description=HELP)
    try:
        return run(settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: files already written are whole, none is half-written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
