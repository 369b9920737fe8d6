"""The csv files and the printed report of the analysis of a table."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_line.output import text_table, write_csv
from simulations.mixtures.certainty import MOST_FEATURES, MOST_ROWS, subset_sizes
from simulations.mixtures.real_data import OPTIMUM, Analysis, optimum_by_eps, verdict
from theory import Interval, share_interval

ROWS_A_FEATURE = 5  # with fewer training rows per feature, the estimated mixture is too optimistic
SHORT_NAMES = {OPTIMUM: "est. optimum", "adversarial logistic": "adv. logistic"}


def write_analysis(analysis: Analysis, folder: Path) -> None:
    """Write real_data.csv and the five files that go with it; `n` is empty if no number of samples is enough."""
    name = analysis.table.name
    write_csv(
        folder / "real_data.csv",
        (
            "data",
            "p",
            "eps",
            "classifier",
            "predicted",
            "with_held_out_moments",
            "measured",
            "measured_low",
            "measured_high",
            "standard_error",
            "moments_gap",
            "shape_gap",
        ),
        [
            (
                *(name, c.p, c.eps, c.classifier, c.predicted, c.with_moments, c.measured),
                *_ends(c.measured, analysis.distinct_test_rows),
                *(c.standard_error, c.moments_gap, c.shape_gap),
            )
            for c in analysis.comparisons
        ],
    )
    needs = [(name, n.p, n.eps, n.accuracy, n.ceiling, "" if n.n is None else n.n) for n in analysis.needs]
    write_csv(folder / "real_data_samples.csv", ("data", "p", "eps", "accuracy", "ceiling", "n"), needs)
    write_csv(
        folder / "real_data_certainty.csv", ("data", "p", "eps", "quantity", "low", "estimate", "high"), _certainty_rows(analysis)
    )
    curve = [(name, c.p, c.eps, c.n, c.predicted, c.measured, c.standard_error) for c in analysis.curve]
    write_csv(folder / "real_data_learning_curve.csv", ("data", "p", "eps", "n", "predicted", "measured", "standard_error"), curve)
    frontier_header = ("radius", "mean_scale", "std_scale", "sample_multiplier")
    write_csv(folder / "real_data_frontier.csv", frontier_header, list(analysis.frontier))
    shape_header = ("direction", "class", "mean_shift", "std_ratio", "skewness", "excess_kurtosis", "ks_p")
    write_csv(folder / "real_data_shape.csv", shape_header, [tuple(asdict(shape).values()) for shape in analysis.shapes])


def summarise(analysis: Analysis) -> dict[str, Any]:
    """The section of summary.json."""
    optimum = [
        {"p": p, "eps": eps, "robust_accuracy": value, "trivial": trivial} for p, eps, value, trivial in optimum_by_eps(analysis)
    ]
    return {
        "data": analysis.table.name,
        "classes": analysis.table.classes,
        "rows": {"training": analysis.train_rows, "held_out": analysis.test_rows},
        "dimension": analysis.mixture.dim,
        "dropped_features": analysis.dropped,
        "shrinkage": analysis.shrinkage,
        "predicted_optimum": optimum,
        "verdict": verdict(analysis),
    }


def doubts(analysis: Analysis) -> list[str]:
    """What a reader of any of its numbers must know."""
    rows, dim, lines, prior = analysis.distinct_train_rows, analysis.mixture.dim, [], analysis.mixture.prior
    worth = 4 * prior * (1 - prior) * rows
    if analysis.dropped:
        lines.append(f"dropped as constant in the training half: {', '.join(analysis.dropped)}")
    if rows < ROWS_A_FEATURE * dim:
        different = "different " if rows < analysis.train_rows else ""
        lines.append(
            f"WARNING: {rows} {different}training rows for {dim} features, fewer than {ROWS_A_FEATURE} a feature: predictions of the "
            "estimated mixture are biased upwards; trust what was measured and the intervals"
        )
    elif worth < ROWS_A_FEATURE * dim:
        lines.append(
            f"WARNING: {rows} training rows, but only {min(prior, 1 - prior):.0%} of one class, say as much as {worth:.0f} of equal "
            f"classes, fewer than {ROWS_A_FEATURE} for each of {dim} features: predictions of the estimated mixture are biased upwards; "
            "trust what was measured and the intervals"
        )
    return lines


def answer(analysis: Analysis, accuracy: float, confidence: float) -> list[str]:
    """How robust a classifier can be at a middle radius, what was reached, and what it takes: two sentences, or one if every radius is
    trivial or nothing is known of certainty."""
    live = {(p, eps): value for p, eps, value, trivial in optimum_by_eps(analysis) if not trivial}
    name = analysis.table.name
    if not live:
        return [f"{name}: {verdict(analysis)[0]}"]
    radii = sorted(eps for p, eps in live if p == next(iter(live))[0] and eps > 0) or [next(iter(live))[1]]
    p, eps = next(iter(live))[0], radii[(len(radii) - 1) // 2]
    found = next((row for row in analysis.certainties if (row.p, row.eps) == (p, eps)), None)
    where = f"{name}, attacks of l_{p:g} size {eps:.3g} standard deviations"
    if found is None:
        return [f"{where}: the best classifier has robust accuracy {live[p, eps]:.3f}, if the classes are Gaussian"]
    best = _shown(found.optimum, ".3f") if found.optimum is not None else f"{live[p, eps]:.3f} ({_why_no_interval(p, analysis)})"
    needed, model = found.measured_needed, found.needed
    most = _most_tried(analysis)
    rows = f"more than {most} rows" if math.isinf(needed.estimate) else f"{_counted(needed, f'more than {most}')} rows"
    took = f"{rows}, measured on subsets of the training half, with the threshold that all its rows give"
    if model is not None:
        enough = "no number would do" if math.isinf(model.estimate) else f"{_counted(model, 'no bound')} would do"
        took += f"; if the classes were Gaussian, {enough}"
    prior = analysis.mixture.prior
    larger = analysis.table.classes[prior > 0.5]
    return [
        f"{where}: the best classifier has robust accuracy {best}, if the classes are Gaussian with one covariance; the one fitted here "
        f"has {_shown(found.measured, '.3f')} on held-out rows; to say {larger!r} always has {max(prior, 1 - prior):.3f}",
        f"for {accuracy:g} there as the mean over both classes, with probability {confidence:g}, the averaging classifier needs {took}",
    ]


def _why_no_interval(p: float, analysis: Analysis) -> str:
    if p == 1:
        return "no interval: they are for p = 2 and inf"
    if analysis.mixture.dim > MOST_FEATURES:
        return f"no interval beyond {MOST_FEATURES} features, and this is too high"
    return "no interval: too few rows for the features, or one depends on others, so this is too high"


def _most_tried(analysis: Analysis) -> int:
    """The largest number of rows of which averages were measured."""
    return subset_sizes(min(analysis.distinct_train_rows, MOST_ROWS))[-1]


def _counted(interval: Interval, beyond: str) -> str:
    """A number of rows with its interval."""
    low, high = (beyond if math.isinf(end) else f"{end:.0f}" for end in (interval.low, interval.high))
    return f"{interval.estimate:.0f} [{low}, {high}]"


def describe_analysis(analysis: Analysis, accuracy: float, confidence: float) -> str:
    """The report in full."""
    table, dim = analysis.table, analysis.mixture.dim
    lines = [
        f"\nreal data {table.name}: {table.classes[0]!r} against {table.classes[1]!r}, {analysis.train_rows} training and "
        f"{analysis.test_rows} held-out rows, {dim} features; attack radii eps in feature standard deviations"
    ]
    lines += doubts(analysis)
    lines += [
        _accuracy_table(analysis),
        "est. optimum: best classifier for the Gaussian mixture estimated from the training half. trivial: eps >= ||mu||_p there, and its",
        "best classifier guesses the larger class.",
        *(_how_sure(analysis, accuracy, confidence) if analysis.certainties else []),
        "to averaging, samples at Wasserstein-2 distance r from the real classes can be worth this many real ones each (frontier, T7;",
        "other learners may want less separation):",
        "  " + ", ".join(f"r={r:.3g}: {m:.2f}" for r, _, _, m in analysis.frontier),
        "where the Gaussian assumption breaks (moments: gap closed by held-out means and spreads of the scores; shape: the rest)",
        *(f"  {line}" for line in verdict(analysis)),
    ]
    return "\n".join(lines)


def _ends(measured: float, rows: int) -> tuple[float, float]:
    """95 % interval of an accuracy that was measured on held-out rows."""
    interval = share_interval(round(measured * rows), rows)
    return interval.low, interval.high


def _certainty_rows(analysis: Analysis) -> list[tuple[Any, ...]]:
    return [
        (analysis.table.name, row.p, row.eps, quantity, *interval)
        for row in analysis.certainties
        for quantity, interval in (
            ("optimum, Gaussian", row.optimum),
            ("estimated optimum, measured", row.measured),
            ("averaging, Gaussian", row.averaging),
            ("n, Gaussian", row.needed),
            ("n, measured", row.measured_needed),
        )
        if interval is not None
    ]


def _how_sure(analysis: Analysis, accuracy: float, confidence: float) -> list[str]:
    header = (
        "how sure (95 %)",
        "best possible",
        "measured",
        "averaging",
        f"n for {accuracy:g}, Gaussian",
        f"n for {accuracy:g}, measured",
    )
    most = _most_tried(analysis)
    rows = [
        (
            f"p={row.p:g} eps={row.eps:.3g}",
            _shown(row.optimum, ".3f"),
            _shown(row.measured, ".3f"),
            _shown(row.averaging, ".3f"),
            _shown(row.needed, ".0f"),
            _shown(row.measured_needed, ".0f").replace("inf", f">{most}"),
        )
        for row in analysis.certainties
    ]
    return [
        text_table(header, rows),
        "best possible: robust accuracy of the best classifier if the classes are Gaussian with one covariance; estimate [95 % interval]",
        f"('-': p = 1, too few rows for the features, more than {MOST_FEATURES} of them, or some that depend on others). measured: the",
        "estimated best classifier on the held-out rows; the best one reaches at least the low end. averaging: balanced robust accuracy",
        "after as many rows, by the Gaussian model.",
        f"n: rows with which averaging reaches {accuracy:g} with probability {confidence:g}, by the Gaussian model (inf: no number is",
        "enough), and measured with subsets of the training half.",
    ]


def _shown(interval: Interval | None, digits: str) -> str:
    return "-" if interval is None else f"{interval.estimate:{digits}} [{interval.low:{digits}}, {interval.high:{digits}}]"


def _accuracy_table(analysis: Analysis) -> str:
    names = list(dict.fromkeys(row.classifier for row in analysis.comparisons))
    cells = {(row.p, row.eps, row.classifier): f"{row.predicted:.3f} / {row.measured:.3f}" for row in analysis.comparisons}
    rows = [
        (
            f"p={p:g} eps={eps:.3g}" + " (trivial)" * trivial,
            *(cells.get((p, eps, name), "-") for name in names),
        )
        for p, eps, _, trivial in optimum_by_eps(analysis)
    ]
    header = ("robust accuracy, predicted / measured", *(SHORT_NAMES.get(name, name) for name in names))
    return text_table(header, rows)
