"""Tables of a guided experiment: prediction and measurement, gain at equal sample size, distance paid; and the printed table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from command_line.output import write_csv
from command_line.statistics import mean_interval
from contrastive_dp import NoiseSchedule
from simulations.guided.designs import UNGUIDED, designs_of
from simulations.guided.models import Setting, problem_named
from simulations.guided.runs import RUN_HEADER, Measured, mean_and_error, run_row
from simulations.guided.theory import Classes, equivalent_kappa, predict
from theory import distinguishability_frontier, misalignment_ceiling

MULTIPLIER_SIZE = 20  # training set size at which the sample multiplier is determined
SETTING_COLUMNS = tuple(Setting.__dataclass_fields__)
PREDICTION_HEADER = (
    *SETTING_COLUMNS, "seeds",
    "class_snr", "class_snr_error", "class_snr_predicted", "alignment", "alignment_error", "alignment_predicted",
    "w2", "w2_error", "w2_predicted", "w2_floor", "accuracy", "accuracy_error", "accuracy_predicted", "optimum",
    "multiplier", "multiplier_low", "multiplier_high", "multiplier_predicted", "label", "designs",
)  # fmt: skip
CLASSES_HEADER = ("problem", "class", "mean1", "mean2", "std1", "std2")
ROTATION_HEADER = (*SETTING_COLUMNS, "seed", "group", "alignment", "accuracy", "label", "designs")
ACCURACY_HEADER = (
    *SETTING_COLUMNS, "learner", "n", "seeds", "accuracy", "accuracy_error", "class_snr", "gain", "gain_low", "gain_high", "optimum",
    "label", "designs",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """All runs of one setting, by seed."""

    setting: Setting
    runs: list[Measured]

    def values(self, name: str) -> list[float]:
        return [getattr(run, name) for run in self.runs]

    def accuracies(self, learner: str, n: int) -> dict[int, float]:
        """Mean robust accuracy by seed."""
        return {run.seed: value for run in self.runs for name, size, value, _ in run.accuracies if (name, size) == (learner, n)}


def grouped(runs: Sequence[Measured]) -> dict[Setting, Group]:
    groups: dict[Setting, Group] = {}
    for run in runs:
        groups.setdefault(run.setting, Group(run.setting, [])).runs.append(run)
    return groups


def write_tables(
    out: Path, runs: Sequence[Measured], groups: dict[Setting, Group], schedule: NoiseSchedule, whole_study: bool
) -> list[tuple[Any, ...]]:
    """Write every csv file of these runs; returns the rows of prediction.csv. whole_study: False for a single setting and its baseline."""
    cells = list(groups)
    write_csv(out / "guidance.csv", RUN_HEADER, [run_row(run) for run in runs])
    timed = ("label", "score", "solver", "steps", "problem")
    rows = [(*(getattr(run.setting, name) for name in timed), run.seed, run.microseconds_per_sample) for run in runs]
    write_csv(out / "timing.csv", ("setting", *timed[1:], "seed", "microseconds_per_sample"), rows)
    predictions = prediction_rows(groups, schedule)
    write_csv(out / "prediction.csv", PREDICTION_HEADER, predictions)
    write_csv(out / "accuracy.csv", ACCURACY_HEADER, accuracy_rows(groups))
    write_csv(out / "rotation.csv", ROTATION_HEADER, rotation_rows(runs) if whole_study else [])
    write_csv(out / "ceiling.csv", ("alignment", "accuracy"), ceiling_rows("two") if whole_study else [])
    write_csv(out / "classes.csv", CLASSES_HEADER, class_rows([cell.problem for cell in cells]))
    write_csv(out / "frontier.csv", ("w2", "class_snr"), frontier_rows(cells[0].problem))
    return predictions


def baseline_of(setting: Setting) -> Setting:
    """The unguided setting to compare with: same problem, score, solver and steps."""
    return replace(UNGUIDED, problem=setting.problem, score=setting.score, solver=setting.solver, steps=setting.steps)


def prediction_rows(groups: dict[Setting, Group], schedule: NoiseSchedule) -> list[tuple[Any, ...]]:
    """Rows of prediction.csv, one per setting. Predictions are for DDIM; other solvers get nan."""
    rows = []
    for setting, group in groups.items():
        known = predict(setting, schedule) if setting.solver == "ddim" else None
        reference = predict(baseline_of(setting), schedule) if setting.solver == "ddim" else None
        cells: list[Any] = [*asdict(setting).values(), len(group.runs)]
        for name in ("class_snr", "alignment", "w2"):
            cells += [*mean_and_error(group.values(name)), getattr(known, name) if known else math.nan]
        accuracy, error = mean_and_error(list(group.accuracies("averaging", MULTIPLIER_SIZE).values()))
        known_accuracy = known.averaging_accuracy(MULTIPLIER_SIZE) if known else math.nan
        cells += [float(np.mean(group.values("w2_floor"))), accuracy, error, known_accuracy, problem_named(setting.problem).optimum]
        base = groups.get(baseline_of(setting))
        theirs = base.accuracies("averaging", MULTIPLIER_SIZE) if base else {}
        start = float(np.mean(list(theirs.values()))) if theirs else math.nan
        # paired by seed: the interval of the gain is added to the unguided mean
        _, low, high = paired_gain(group.accuracies("averaging", MULTIPLIER_SIZE), theirs)
        cells += [multiplier(setting, a, start) for a in (accuracy, start + low, start + high)]
        cells.append(multiplier(setting, known_accuracy, reference.averaging_accuracy(MULTIPLIER_SIZE) if reference else math.nan))
        rows.append((*cells, setting.label, designs_of(setting)))
    return rows


def multiplier(setting: Setting, accuracy: float, unguided: float) -> float:
    """How many unguided samples one guided sample is worth to the averaging learner: squared ratio of equivalent class SNRs (T4).

    accuracy, unguided: mean robust accuracies at equal sample size, both measured with the same seeds or both predicted.
    """
    problem = problem_named(setting.problem)
    ours, theirs = (equivalent_kappa(problem, value, MULTIPLIER_SIZE) for value in (accuracy, unguided))
    return (ours / theirs) ** 2


def accuracy_rows(groups: dict[Setting, Group]) -> list[tuple[Any, ...]]:
    """Rows of accuracy.csv: setting, learner, n, and gain over the unguided runs with the same seeds and n, with its 95 % interval."""
    rows = []
    for setting, group in groups.items():
        base = groups.get(baseline_of(setting))
        for learner, n in dict.fromkeys((name, size) for name, size, _, _ in group.runs[0].accuracies):
            ours = group.accuracies(learner, n)
            mean, error = mean_and_error(list(ours.values()))
            gain = paired_gain(ours, base.accuracies(learner, n)) if base else (math.nan,) * 3
            snr, optimum = float(np.mean(group.values("class_snr"))), problem_named(setting.problem).optimum
            rows.append(
                (
                    *asdict(setting).values(),
                    learner,
                    n,
                    len(ours),
                    mean,
                    error,
                    snr,
                    *gain,
                    optimum,
                    setting.label,
                    designs_of(setting),
                )
            )
    return rows


def paired_gain(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float, float, float]:
    """Mean difference over common seeds and its 95 % interval (Student's t)."""
    return mean_interval([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def rotation_rows(runs: Sequence[Measured]) -> list[tuple[Any, ...]]:
    """Rows of rotation.csv: alignment and averaging accuracy of groups of samples that were guided together, in the windows design."""
    return [
        (*asdict(run.setting).values(), run.seed, i, *values, run.setting.label, designs_of(run.setting))
        for run in runs
        if "windows" in designs_of(run.setting)
        for i, values in enumerate(run.groups)
    ]


def ceiling_rows(problem_name: str) -> list[tuple[Any, ...]]:
    """(alignment, accuracy) along T3's ceiling, for misaligned means and infinitely many samples; empty for more than two classes."""
    problem = problem_named(problem_name)
    if problem.binary is None:
        return []
    return [(float(c), misalignment_ceiling(problem.binary, float(c), problem.eps)) for c in np.linspace(-1, 1, 101)]


def class_rows(problem_names: Sequence[str]) -> list[tuple[Any, ...]]:
    """(problem, class, mean, standard deviation along the first two axes) of the real classes."""
    return [
        (
            name,
            k,
            *map(float, mean[:2]),
            *map(float, np.sqrt(np.broadcast_to(np.asarray(cov.variances, dtype=float), len(mean))[:2])),
        )
        for name in dict.fromkeys(problem_names)
        for k, (mean, cov) in enumerate(
            zip(problem_named(name).mixture.means, problem_named(name).mixture.covariances, strict=True)
        )
    ]


def frontier_rows(problem_name: str) -> list[tuple[Any, ...]]:
    """(w2, class SNR) along T7's frontier for the real classes; empty for more than two."""
    problem = problem_named(problem_name)
    if problem.binary is None:
        return []
    start = Classes(
        problem, problem.mixture.means, np.stack([np.diag(cov.variances) for cov in problem.mixture.covariances])
    ).class_snr
    radii = np.linspace(0, 0.9 * math.sqrt(problem.binary.covariance.trace), 60)
    return [(float(r), start * math.sqrt(distinguishability_frontier(problem.binary, float(r)).sample_multiplier)) for r in radii]


def fewer_samples(groups: dict[Setting, Group], setting: Setting, few: int, many: int) -> tuple[float, float, float] | None:
    """Averaging accuracy of `few` guided minus `many` unguided samples: mean and 95 % interval over paired seeds."""
    group, base = groups.get(setting), groups.get(baseline_of(setting))
    if group is None or base is None:
        return None
    return paired_gain(group.accuracies("averaging", few), base.accuracies("averaging", many))


def printed_rows(rows: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    """The table for the terminal, from the rows of prediction.csv: measured (predicted)."""
    lines = []
    for row in rows:
        cell = dict(zip(PREDICTION_HEADER, row, strict=True))
        setting = Setting(**{name: cell[name] for name in SETTING_COLUMNS})
        where = "" if setting.problem == "two" else f"{setting.problem}: "
        how = "" if (setting.solver, setting.steps) == ("ddim", 50) else f" [{setting.solver} {setting.steps}]"
        extra = f" every {setting.every}" * (setting.every > 1) + ("" if setting.score == "exact" else f" [{setting.score}]")
        name = f"{where}{setting.label}{f' {setting.scale:g}' if setting.guidance != 'none' else ''}{extra}{how}"
        lines.append(
            (
                name,
                *(f"{cell[k]:.3f} ({cell[f'{k}_predicted']:.3f})" for k in ("class_snr", "alignment", "w2")),
                f"{cell['w2_floor']:.3f}",
                f"{cell['accuracy']:.4f} ({cell['accuracy_predicted']:.4f})",
                f"{cell['multiplier']:.2f} ({cell['multiplier_predicted']:.2f})",
            )
        )
    return lines


PRINTED_HEADER = ("measured (predicted)", "class SNR", "alignment", "W2", "W2 floor", f"accuracy n={MULTIPLIER_SIZE}", "multiplier")
