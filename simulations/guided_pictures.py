"""Pictures of `guided_diffusion.py`, drawn from its csv files alone; a picture whose file is missing or empty is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker
from scipy.special import ndtr

from command_line.drawing import COLOURS, MARKERS, Columns, draw, marks, new_figure, read_columns, style
from command_line.output import write_csv
from contrastive_dp import NoiseSchedule
from simulations.guided_designs import ANCHORED, INFONCE, ROTATION, SUPERVISED, UNGUIDED, WINDOWS, guidance_design
from simulations.guided_models import Setting, problem_named
from simulations.guided_runs import Effort, generate

SHOWN_SAMPLES, SHOWN_TRAJECTORIES = 512, 24
ROTATING = replace(ROTATION[0], high=1000)
STUDY_PANELS = (UNGUIDED, ANCHORED, SUPERVISED, INFONCE, ROTATING)
RANGE = 3.6  # half width of the sample panels


def write_picture_data(
    folder: Path, seed: int, schedule: NoiseSchedule, cells: Sequence[Setting], training_steps: int = Effort.training_steps
) -> None:
    """samples.csv and trajectories.csv: points of one run for a panel a setting (those of the study, or of a single run in the plane)."""
    panels = STUDY_PANELS if len(cells) > 2 else [cell for cell in cells if problem_named(cell.problem).mixture.dim == 2]
    points: list[tuple[Any, ...]] = []
    paths: list[tuple[Any, ...]] = []
    for i, setting in enumerate(panels):
        visited: list[tuple[int, Any]] = []
        x, y = generate(setting, seed, SHOWN_SAMPLES, schedule, on_step=lambda t, x, visited=visited: visited.append((t, x)))
        name = setting.label if setting.guidance == "none" else f"{setting.label}, λ = {setting.scale:.3g}"
        points += [(i, name, setting.problem, int(k), float(p[0]), float(p[1])) for p, k in zip(x, y, strict=True)]
        first = visited[: len(visited) // 2]  # of the first of the two groups
        for step, (_, state) in enumerate(first):
            t = first[step + 1][0] if step + 1 < len(first) else -1  # the state after a step is at the next timestep, -1 is clean
            level = math.sqrt(schedule[t])
            paths += [
                (i, name, j, step, t, level, float(state[j, 0]), float(state[j, 1]), int(y[j])) for j in range(SHOWN_TRAJECTORIES)
            ]
    write_csv(folder / "samples.csv", ("panel", "name", "problem", "label", "x1", "x2"), points)
    write_csv(folder / "trajectories.csv", ("panel", "name", "sample", "step", "t", "signal", "x1", "x2", "label"), paths)


def draw_all(folder: Path, parts: Sequence[str]) -> list[Path]:
    """Draw the pictures that these parts of the study have data for; without parts, those of a single run."""
    wanted = {name for part in parts for name in PICTURES_OF_PART.get(part, ())} if parts else set(SINGLE_RUN)
    chosen = {name: PICTURES[name] for name in PICTURES if name in wanted}
    return draw(folder, {name: drawing for name, (drawing, files) in chosen.items() if all(_has_rows(folder / f) for f in files)})


def _has_rows(path: Path) -> bool:
    return path.is_file() and bool(read_columns(path))


def _panels(data: Columns) -> list[tuple[str, Any]]:
    return [(str(data["name"][data["panel"] == i][0]), data["panel"] == i) for i in np.unique(data["panel"])]


def draw_samples(folder: Path) -> Any:
    data = read_columns(folder / "samples.csv")
    panels = _panels(data)
    figure, axes = new_figure(len(panels), 3.1 * len(panels), 4.0)
    problem = problem_named(str(data["problem"][0]))
    reach = max(RANGE, 1.35 * problem.radius)
    grid = np.linspace(-reach, reach, 90)
    plane = np.stack(np.meshgrid(grid, grid), axis=-1)
    for axis, (name, rows) in zip(axes, panels, strict=True):
        for k, (mean, cov) in enumerate(zip(problem.mixture.means, problem.mixture.covariances, strict=True)):
            offset = (plane - mean).reshape(-1, 2)
            density = np.exp(-0.5 * (offset * cov.solve(offset)).sum(axis=1)).reshape(len(grid), -1)
            axis.contour(grid, grid, density, levels=[0.135, 0.607], colors=[COLOURS[k % 6]], linewidths=0.8)
            members = rows & (data["label"] == k)
            axis.plot(
                data["x1"][members],
                data["x2"][members],
                MARKERS[(k + k // 6) % 6],
                color=COLOURS[k % 6],
                ms=2 + k // 6,
                alpha=0.5,
                mew=0,
            )
            centre = data["x1"][members].mean(), data["x2"][members].mean()
            axis.plot(*centre, "X", color=COLOURS[k % 6], ms=10, mec="black")
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        axis.set_aspect("equal")
        axis.set_title(_two_lines(name), fontsize=9)
    parts = ("Generated samples (dots), their class means (crosses),", "real classes (contours at 1 and 2 σ)")
    figure.suptitle((" " if len(panels) > 2 else "\n").join(parts), fontsize=10)
    return figure


def _two_lines(name: str) -> str:
    return name.replace(", λ", ",\nλ") if "λ" in name else f"{name}\n"


def draw_trajectories(folder: Path) -> Any:
    data = read_columns(folder / "trajectories.csv")
    panels = _panels(data)
    figure, axes = new_figure(len(panels), 3.1 * len(panels), 4.0)
    for axis, (name, rows) in zip(axes, panels, strict=True):
        for j in np.unique(data["sample"][rows]):
            path = rows & (data["sample"] == j)
            k = int(data["label"][path][0]) % 6
            axis.plot(data["x1"][path], data["x2"][path], color=COLOURS[k], lw=0.8, alpha=0.7)
            axis.plot(data["x1"][path][-1], data["x2"][path][-1], MARKERS[k], color=COLOURS[k], ms=4)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_title(_two_lines(name), fontsize=9)
    figure.suptitle("Trajectories of 24 samples from noise to the end (marks)", fontsize=10)
    return figure


def _chosen(data: Columns, setting: Setting) -> Any:
    rows = np.ones(len(data["problem"]), dtype=bool)
    for name in ("problem", "score", "guidance", "scale", "low", "high", "at", "every", "solver", "steps"):
        rows &= data[name] == getattr(setting, name)
    return rows


def _settings_in(data: Columns) -> list[Setting]:
    """The exact-score settings of a table that are on the first problem in it, in order."""
    columns = list(Setting.__dataclass_fields__)
    kinds = {name: type(getattr(UNGUIDED, name)) for name in columns}
    rows = zip(*(data[name] for name in columns), strict=True)
    cells = [{n: (v == "True" if kinds[n] is bool else kinds[n](v)) for n, v in zip(columns, row, strict=True)} for row in rows]
    return list(dict.fromkeys(Setting(**cell) for cell in cells))


def _curves(data: Columns) -> list[Setting]:
    """What is drawn against n: the settings of the study's panels, or those of a single run."""
    settings = _settings_in(data)
    return [setting for setting in STUDY_PANELS if setting in settings] if len(settings) > 2 else settings


def draw_accuracy_against_n(folder: Path) -> Any:
    data = read_columns(folder / "accuracy.csv")
    learners = [name for name in dict.fromkeys(data["learner"]) if name != "lda"]
    figure, axes = new_figure(len(learners), 4.4 * len(learners), 3.8)
    optimum = float(data["optimum"][0])
    lost = bool(np.isfinite(optimum))  # what is lost against the optimum, on a logarithmic axis
    for axis, learner in zip(axes, learners, strict=True):
        for i, setting in enumerate(_curves(data)):
            rows = _chosen(data, setting) & (data["learner"] == learner)
            n, mean, error = data["n"][rows], data["accuracy"][rows], np.nan_to_num(data["accuracy_error"][rows])
            if lost:
                mean = optimum - mean
            axis.plot(n, mean, label=f"{setting.label}, λ = {setting.scale:.3g}" if setting.scale else setting.label, **style(i))
            low = mean - 1.96 * error
            axis.fill_between(
                n, np.maximum(low, 0.1 * mean) if lost else low, mean + 1.96 * error, color=COLOURS[i], alpha=0.25, lw=0
            )
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        if lost:
            axis.set_yscale("log")
        axis.set_xlabel("generated training samples n")
        axis.set_title(f"{learner} learner", fontsize=10)
    axes[0].set_ylabel(f"robust optimum ({optimum:.3f}) - robust accuracy" if lost else "robust accuracy")
    axes[0].legend(fontsize=8, title="bands: 95 % over seeds", title_fontsize=8)
    return figure


def draw_price_gain(folder: Path) -> Any:
    data, frontier = read_columns(folder / "prediction.csv"), read_columns(folder / "frontier.csv")
    figure, (axis,) = new_figure(1, 7.6, 4.8)
    axis.plot(frontier["w2"], frontier["class_snr"], color="black", lw=2, label="frontier (T7): no classes lie above")
    plane = _plain_rows(data)
    if plane.sum() > len(guidance_design()):  # the study: leave the windows to their own picture
        plane &= np.isin(_family(data), [_family_of(setting) for setting in guidance_design()])
    families = list(dict.fromkeys(zip(data["guidance"][plane], data["at"][plane], data["high"][plane], strict=True)))
    for i, (guidance, at, high) in enumerate(families):
        rows = plane & (data["guidance"] == guidance) & (data["at"] == at) & (data["high"] == high)
        order = np.argsort(data["scale"][rows])
        name = "unguided" if guidance == "none" else Setting(guidance=str(guidance), at=str(at), high=int(high)).label
        look = {"color": COLOURS[i % 6], "marker": MARKERS[i % 6], "ms": 7, "mec": "black", "ls": "-" if i < 6 else "--", "lw": 1}
        axis.plot(
            data["w2"][rows][order], data["class_snr"][rows][order], label=name, mfc=COLOURS[i % 6] if i < 6 else "white", **look
        )
    study = len(_settings_in(data)) > 2
    axis.set_xlim(-0.03, 1.25 if study else 1.1 * max(float(np.nanmax(data["w2"])), 0.5))
    low, high = float(np.nanmin(data["class_snr"])), float(np.nanmax(data["class_snr"]))
    axis.set_ylim(0.8 if study else 0.7 * low, 6 if study else 1.5 * high)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.minorticks_off()
    axis.set_xlabel("price: Wasserstein-2 distance to the real classes")
    axis.set_ylabel("gain: class SNR")
    question = "Which guidance buys distinguishability at the lowest price?\n(marks joined in order of scale)"
    axis.set_title(question if study else "Distinguishability bought, and its price", fontsize=10)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _family(data: Columns) -> Any:
    return np.array([f"{g} {at} {int(high)}" for g, at, high in zip(data["guidance"], data["at"], data["high"], strict=True)])


def _family_of(setting: Setting) -> str:
    return f"{setting.guidance} {setting.at} {setting.high}"


def _plain_rows(data: Columns) -> Any:
    """Of a study: two classes in the plane, exact score, DDIM with 50 steps, guided at every step from t = 0. Of a single run: all."""
    rows = np.ones(len(data["problem"]), dtype=bool)
    if len(_settings_in(data)) > 2:
        plain = {"problem": "two", "score": "exact", "solver": "ddim", "steps": 50, "every": 1, "low": 0}
        for name, value in plain.items():
            rows &= data[name] == value
    return rows


def draw_rotation(folder: Path) -> Any:
    data = read_columns(folder / "rotation.csv")
    figure, (left, right) = new_figure(2, 10.5, 4.0)
    problem = problem_named("two")
    real = problem.binary
    assert real is not None
    names = ("unanchored, sees the noisy state", "unanchored, sees the denoised estimate", "anchored to real samples")
    for i, (base, name) in enumerate(zip(ROTATION, names, strict=True)):
        family = np.zeros(len(data["seed"]), dtype=bool)
        for j, (low, high) in enumerate(WINDOWS):
            rows = _chosen(data, replace(base, low=low, high=high))
            family |= rows
            jitter = np.linspace(-0.1, 0.1, int(rows.sum())) + 0.25 * (i - 1)
            left.plot(j + jitter, data["alignment"][rows], MARKERS[i], color=COLOURS[i], ms=2.5, label=name if j == 0 else None)
        right.plot(data["alignment"][family], data["accuracy"][family], MARKERS[i], color=COLOURS[i], ms=3, label=name)
    cosines = np.linspace(-1, 1, 200)
    norm, std = float(np.linalg.norm(real.mean)), math.sqrt(float(real.cov))
    right.plot(cosines, ndtr((cosines * norm - problem.eps) / std), color="black", lw=1, label="ceiling of T3")
    left.set_xticks(range(len(WINDOWS)), [f"{low}-{high}" for low, high in WINDOWS], fontsize=8)
    left.set_xlabel("window of timesteps guided (0: almost clean)")
    left.set_ylabel("alignment: cosine to the real optimum")
    left.set_title("A mark a batch of 256: who rotates the classes at high noise?", fontsize=10)
    left.legend(fontsize=8, loc="center left", bbox_to_anchor=(0, 0.3))
    right.set_xlabel("alignment")
    right.set_ylabel("robust accuracy, averaging the 256 samples")
    right.set_title("Rotated classes stay at their ceiling (T3)", fontsize=10)
    right.legend(fontsize=8)
    return figure


def draw_prediction(folder: Path) -> Any:
    data = read_columns(folder / "prediction.csv")
    quantities = (("class_snr", "class SNR"), ("w2", "Wasserstein-2 distance"), ("multiplier", "sample multiplier"))
    figure, axes = new_figure(3, 13.5, 4.2)
    known = np.isfinite(data["class_snr_predicted"])
    groups = (
        ("two classes, exact score", known & (data["score"] == "exact") & (data["problem"] == "two")),
        ("other mixtures", known & (data["problem"] != "two")),
        ("trained network", known & (data["score"] != "exact")),
    )
    for axis, (name, title) in zip(axes, quantities, strict=True):
        seen = data["w2_predicted"] > 2 * data["w2_floor"] if name == "w2" else known  # else sampling noise is what one would see
        for i, (label, rows) in enumerate(groups):
            shown = rows & seen
            if shown.any():
                axis.plot(
                    data[f"{name}_predicted"][shown], data[name][shown], MARKERS[i], color=COLOURS[i], ms=5, alpha=0.8, label=label
                )
        values = np.concatenate([data[f"{name}_predicted"][known & seen], data[name][known & seen]])
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            axis.set_visible(False)
            continue
        ends = np.array([values.min() * 0.8, values.max() * 1.25])
        axis.plot(ends, ends, color="0.4", lw=1)
        if name == "multiplier":
            axis.fill_between(ends, 0.9 * ends, 1.1 * ends, color="0.5", alpha=0.2, lw=0, label="within 10 %")
            low, high = np.clip(data["multiplier_low"], ends[0], None), np.clip(data["multiplier_high"], None, ends[1])
            axis.vlines(data["multiplier_predicted"][known], low[known], high[known], color="0.4", lw=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            one.set_minor_formatter(ticker.NullFormatter())
        axis.set_xlabel(f"{title}, predicted from the setting")
        axis.set_ylabel("measured")
        axis.set_title(title, fontsize=10)
    axes[0].legend(fontsize=8)
    axes[2].legend(fontsize=8, loc="upper left")
    return figure


def draw_learners(folder: Path) -> Any:
    data = read_columns(folder / "learners.csv")
    figure, (left, right) = new_figure(2, 11.5, 4.2)
    for i, (learner, eps) in enumerate(dict.fromkeys(zip(data["learner"], data["training_eps"], strict=True))):
        rows = (data["learner"] == learner) & (data["training_eps"] == eps)
        snr, best = data["class_snr"][rows], data["optimal_class_snr"][rows][0]
        name = f"{learner}, adversarial, ε/σ = {eps:g}" if eps else str(learner)
        for axis, column in ((left, "variance"), (right, "accuracy")):
            axis.plot(snr, data[f"{column}_theory"][rows], **style(i))
            marks(axis, i, snr, data[column][rows], data[f"{column}_error"][rows], name if axis is left else None)
            if np.isfinite(best):
                axis.axvline(best, color=COLOURS[i], lw=1, ls=(0, (1, 2)))
    left.set_yscale("log")
    left.set_ylabel(r"$V = n\,\tan^2(\mathrm{angle})/(d-1)$")
    left.legend(fontsize=8)
    left.set_title("Lines T10 and T11, marks trained on guided samples (±2 s.e.)", fontsize=10)
    right.set_ylabel("robust accuracy")
    right.set_title("Dotted: where guidance should stop separating", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel("class SNR of the guided samples")
    return figure


def draw_gain_against_snr(folder: Path) -> Any:
    data = read_columns(folder / "accuracy.csv")
    learners = list(dict.fromkeys(data["learner"]))
    figure, axes = new_figure(len(learners), 3.7 * len(learners), 3.8)
    sizes = [size for size in (20, 200) if size in data["n"]]
    straight = ~(
        (data["guidance"] == "supervised") & (data["at"] == "xt") & (data["high"] > 400) & (data["scale"] > 0.3)
    )  # rotates
    for axis, learner in zip(axes, learners, strict=True):
        for i, n in enumerate(sizes):
            rows = (
                _plain_rows(data)
                & (data["learner"] == learner)
                & (data["n"] == n)
                & (data["guidance"] != "none")
                & (data["class_snr"] < 5)
                & straight
            )
            gain = data["gain"][rows]
            error = np.abs(np.stack([gain - data["gain_low"][rows], data["gain_high"][rows] - gain]))
            axis.errorbar(
                data["class_snr"][rows], gain, np.nan_to_num(error), fmt=MARKERS[i], color=COLOURS[i], ms=4, label=f"n = {n}"
            )
        axis.axhline(0, color="0.3", lw=1)
        axis.set_ylim(-0.02, 0.02)
        axis.set_xlabel("class SNR of the guided samples")
        axis.set_title(f"{learner} learner", fontsize=10)
    figure.suptitle("Gain over unguided, 95 % intervals (without settings that rotate; the axis is cut at ±0.02)", fontsize=10)
    axes[0].set_ylabel("robust accuracy gained over unguided")
    axes[0].legend(fontsize=8)
    return figure


def draw_solvers(folder: Path) -> Any:
    data = read_columns(folder / "prediction.csv")
    figure, axes = new_figure(2, 10.5, 3.9)
    bases = (UNGUIDED, ANCHORED, SUPERVISED)
    solvers = ("ddim", "ddpm", "dpm-solver++", "unipc")
    for axis, column, title in zip(axes, ("class_snr", "w2"), ("class SNR", "Wasserstein-2 distance"), strict=True):
        for i, base in enumerate(bases):
            same = (data["problem"] == "two") & (data["score"] == "exact") & (data["every"] == 1)
            for name in ("guidance", "scale", "low", "high", "at"):
                same &= data[name] == getattr(base, name)
            for j, solver in enumerate(solvers):
                rows = same & (data["solver"] == solver)
                order = np.argsort(data["steps"][rows])
                label = f"{base.label}, {solver}" if axis is axes[0] else None
                look = {"color": COLOURS[i], "marker": MARKERS[j], "ms": 7, "ls": "-" if solver == "ddim" else "none"}
                axis.plot(
                    data["steps"][rows][order], data[column][rows][order], label=label, mfc="white" if j else COLOURS[i], **look
                )
        axis.set_xscale("log")
        axis.set_xticks([10, 20, 50, 250], ["10", "20", "50", "250"])
        axis.minorticks_off()
        axis.set_xlabel("network evaluations")
        axis.set_ylabel(title)
    figure.legend(fontsize=7, loc="outside right center")
    return figure


SINGLE_RUN = ("samples", "trajectories", "accuracy_against_n", "price_gain")
PICTURES_OF_PART = {
    "guidance": (*SINGLE_RUN, "prediction", "gain_against_snr"),
    "windows": ("rotation",),
    "solvers": ("solvers",),
    "learners": ("learners",),
}
PICTURES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "samples": (draw_samples, ("samples.csv",)),
    "trajectories": (draw_trajectories, ("trajectories.csv",)),
    "accuracy_against_n": (draw_accuracy_against_n, ("accuracy.csv",)),
    "price_gain": (draw_price_gain, ("prediction.csv", "frontier.csv")),
    "rotation": (draw_rotation, ("rotation.csv",)),
    "prediction": (draw_prediction, ("prediction.csv",)),
    "gain_against_snr": (draw_gain_against_snr, ("accuracy.csv",)),
    "solvers": (draw_solvers, ("prediction.csv",)),
    "learners": (draw_learners, ("learners.csv",)),
}
