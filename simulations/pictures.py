"""Pictures of the main job, drawn from its csv files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import ndtri

from command_line.drawing import COLOURS, DASHES, MARKERS, Columns, draw, marks, new_figure, read_columns, style


def draw_all(folder: Path, real_data: bool = True, simulation: bool = True) -> list[Path]:
    """Draw the pictures of one or both parts of the main job from the csv files in `folder`; returns the PNG paths."""
    return draw(folder, {**(SIMULATION_PICTURES if simulation else {}), **(DATA_PICTURES if real_data else {})})


def draw_accuracy_against_n(folder: Path) -> Any:
    data = read_columns(folder / "accuracy_against_n.csv")
    figure, (left, right) = new_figure(2)
    for i, c in enumerate(np.unique(data["separation"])):
        rows = data["separation"] == c
        for axis, x in ((left, data["n"][rows]), (right, data["kappa"][rows])):
            axis.plot(x, data["mean"][rows], label=f"c = {c:g}", **style(i))
            marks(axis, i, x, data["simulation"][rows], data["standard_error"][rows])
        left.fill_between(data["n"][rows], data["q05"][rows], data["q95"][rows], color=COLOURS[i], alpha=0.15, lw=0)
    for axis in (left, right):
        axis.axhline(data["ceiling"][0], color="0.3", lw=1, ls=(0, (1, 1)))
        axis.set_xscale("log")
        axis.set_ylabel(r"robust accuracy ($\ell_2$, $\varepsilon$ = 0.5)")
    left.text(1, data["ceiling"][0] + 0.006, "ceiling", color="0.3", fontsize=9)
    left.set_xlabel("synthetic samples n")
    left.set_title("Exact mean, 5-95 % band, simulation (±2 s.e.)", fontsize=10)
    left.legend(title="class separation", loc="lower right")
    right.set_xlabel(r"$\kappa = c\,\|\mu\|\sqrt{n}\,/\,\tilde\sigma$")
    right.set_title("The same curves against κ: one curve", fontsize=10)
    return figure


def draw_ceiling(folder: Path) -> Any:
    data = read_columns(folder / "ceiling.csv")
    figure, (axis,) = new_figure(1, 5.6)
    for i, (name, label) in enumerate((("ceiling", "n = ∞: the ceiling"), ("n30", "n = 30"), ("n5", "n = 5"))):
        axis.plot(data["angle_degrees"], data[name], label=label, lw=2.5 if i == 0 else 1.5, **style(i))
    axis.axhline(0.5, color="0.5", lw=0.8)
    axis.text(1, 0.507, "guessing", color="0.35", fontsize=9)
    axis.set_xlabel("angle between synthetic and real mean (degrees)")
    axis.set_ylabel(r"mean robust accuracy ($\ell_2$, $\varepsilon$ = 0.5)")
    axis.set_title("A rotated mean has a ceiling (d = 20, ‖μ‖ = 2, σ = 1)", fontsize=10)
    axis.legend()
    return figure


def draw_linf_mean(folder: Path) -> Any:
    data = read_columns(folder / "linf_mean.csv")
    figure, (axis,) = new_figure(1, 7.0)
    axis.bar(data["coordinate"], data["real"], color="0.85", edgecolor="0.5", label="real mean μ")
    for i, eps in enumerate(("0.2", "0.5")):
        style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 5}
        axis.plot(data["coordinate"], data[f"eps_{eps}"], lw=1, ls=DASHES[i], label=f"optimal synthetic mean, ε = {eps}", **style)
    axis.set_xlabel("coordinate (sorted)")
    axis.set_ylabel("mean (units of σ)")
    axis.set_title(r"$\ell_\infty$: averaging on soft(μ, ε) is as robust as adversarial training on real data", fontsize=10)
    axis.legend()
    return figure


def draw_frontier(folder: Path) -> Any:
    data = read_columns(folder / "frontier.csv")
    figure, (left, right) = new_figure(2)
    for i, snr in enumerate(np.unique(data["mean_over_total_std"])):
        rows = data["mean_over_total_std"] == snr
        x = data["radius_over_total_std"][rows]
        left.plot(x, data["sample_multiplier"][rows], label=f"‖μ‖/(√d σ) = {snr:g}", **style(i))
        right.plot(x, data["mean_scale"][rows], **style(i))
        right.plot(x, data["std_scale"][rows], lw=3, alpha=0.5, **style(i))
    left.set_yscale("log")
    left.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    left.minorticks_off()
    left.set_ylabel("sample multiplier")
    left.set_title("Real samples that one frontier sample is worth", fontsize=10)
    left.legend()
    right.set_ylabel("scale of the mean (thin), of the std (thick)")
    right.set_title("Where the frontier puts the synthetic classes", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel(r"Wasserstein-2 distance from the real class / ($\sqrt{d}\,\sigma$)")
    return figure


def draw_ddim_shrinkage(folder: Path) -> Any:
    data = read_columns(folder / "ddim_shrinkage.csv")
    figure, (left, right) = new_figure(2)
    for i, std in enumerate(np.unique(data["std"])):
        rows = data["std"] == std
        look = {**style(i), "marker": MARKERS[i], "ms": 4}
        left.plot(data["steps"][rows], data["std_ratio"][rows], label=f"σ = {std:g}", **look)
        right.plot(data["steps"][rows], data["class_snr_ratio"][rows], label=f"σ = {std:g}", **look)
    left.set_ylabel("generated / true standard deviation")
    left.set_title("Few DDIM steps shrink a class of std σ ...", fontsize=10)
    right.set_yscale("log")
    right.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.set_ylabel("generated / true class SNR")
    right.set_title("... and so raise its class SNR (linear schedule)", fontsize=10)
    for axis in (left, right):
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("DDIM steps (exact score)")
        axis.legend()
    return figure


def draw_class_snr(folder: Path) -> Any:
    data = read_columns(folder / "class_snr.csv")
    figure, (axis,) = new_figure(1, 6.2, 4.0)
    curves = dict.fromkeys(zip(data["learner"], data["training_eps_over_sigma"], strict=True))
    for i, (learner, eps) in enumerate(curves):
        rows = (data["learner"] == learner) & (data["training_eps_over_sigma"] == eps)
        label = f"{learner}, adversarial, ε/σ = {eps:g}" if eps else learner
        axis.plot(data["class_snr"][rows], data["variance"][rows], label=label, **style(i))
        best = data["optimal_class_snr"][rows][0]
        if np.isfinite(best):
            value = np.exp(np.interp(np.log(best), np.log(data["class_snr"][rows]), np.log(data["variance"][rows])))
            axis.plot(best, value, MARKERS[i], color=COLOURS[i], ms=8, mec="black")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(0.03, 300)
    axis.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_xlabel(r"class SNR of one sample, $\kappa_1 = c\,\|\mu\|/\tilde\sigma$")
    axis.set_ylabel(r"$V = n\,\mathrm{E}\tan^2(\mathrm{angle})/(d-1)$: relative sample need")
    axis.set_title("Which separation teaches a learner fastest? (marks: optimum)", fontsize=10)
    axis.legend(fontsize=9)
    return figure


def draw_sample_gap(folder: Path) -> Any:
    data = read_columns(folder / "sample_gap.csv")
    figure, (axis,) = new_figure(1, 6.0)
    series = (
        ("standard_samples", "no attack"),
        ("robust_samples", r"$\ell_\infty$, ε = 0.25"),
        ("robust_samples_separation_2", r"$\ell_\infty$, ε = 0.25, classes 2x apart"),
        ("carmon_order", r"$4\varepsilon^2\sqrt{d n_0}$, order only (Carmon et al. 2019)"),
    )
    for i, (name, label) in enumerate(series):
        marker = {} if name == "carmon_order" else {"marker": MARKERS[i], "ms": 4}
        axis.plot(data["dim"], data[name], label=label, **style(i), **marker)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("dimension d")
    axis.set_ylabel("samples for mean accuracy 0.8")
    axis.set_title(r"The robust sample gap: averaging, Schmidt model, $n_0$ = 5", fontsize=10)
    axis.legend(fontsize=9)
    return figure


def draw_real_data(folder: Path) -> Any:
    data = read_columns(folder / "real_data.csv")
    curve = read_columns(folder / "real_data_learning_curve.csv")
    norms, names = np.unique(data["p"]), list(dict.fromkeys(data["classifier"]))
    panels = len(norms) + 1 + bool(curve)
    columns = 2 if panels > 2 else panels
    figure, grid = plt.subplots(-(-panels // columns), columns, figsize=(5.0 * columns, 8.0), layout="constrained", squeeze=False)
    axes = list(grid.flat)
    for spare in axes[panels:]:
        spare.set_visible(False)
    for axis, p in zip(axes, norms, strict=False):
        _draw_attacks(axis, data, p, names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    scatter = axes[len(norms)]
    for i, name in enumerate(names):
        rows = data["classifier"] == name
        scatter.plot(data["predicted"][rows], data["measured"][rows], MARKERS[i], color=COLOURS[i], ms=5)
    scatter.plot([0, 1], [0, 1], color="0.4", lw=1)
    scatter.set_xlabel("predicted robust accuracy")
    scatter.set_ylabel("measured robust accuracy")
    scatter.set_title(f"{Path(str(data['data'][0])).name}: all attacks", fontsize=10)
    if curve:
        _draw_learning_curve(axes[len(norms) + 1], curve)
    return figure


def _draw_attacks(axis: Any, data: Columns, p: float, names: list[str]) -> None:
    for i, name in enumerate(names):
        rows = (data["p"] == p) & (data["classifier"] == name)
        if not rows.any():
            continue
        axis.plot(data["eps"][rows], data["predicted"][rows], **style(i))
        marks(axis, i, data["eps"][rows], data["measured"][rows], data["standard_error"][rows], name)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel(f"attack radius ε, {_norm_name(p)} (feature standard deviations)")
    axis.set_ylabel("robust accuracy")
    axis.set_title(f"{_norm_name(p)} attack: lines predicted, marks measured (±2 s.e.)", fontsize=10)


def _draw_learning_curve(axis: Any, curve: Columns) -> None:
    attacks = [(p, eps) for p, eps in dict.fromkeys(zip(curve["p"], curve["eps"], strict=True)) if eps > 0 or p == curve["p"][0]]
    if not attacks:
        return
    for i, (p, eps) in enumerate(attacks):  # eps = 0 is the same in every norm: shown once
        rows = (curve["p"] == p) & (curve["eps"] == eps)
        axis.plot(curve["n"][rows], curve["predicted"][rows], **style(i))
        label = f"{_norm_name(p)}, ε = {eps:.2g}" if eps else "no attack"
        marks(axis, i, curve["n"][rows], curve["measured"][rows], curve["standard_error"][rows], label)
    axis.set_xscale("log")
    axis.set_xticks(np.unique(curve["n"]), [f"{n:g}" for n in np.unique(curve["n"])])
    axis.minorticks_off()
    axis.set_xlabel("training samples n")
    axis.set_ylabel("balanced robust accuracy")
    axis.set_title("averaging learner: lines predicted, marks measured", fontsize=10)
    axis.legend(fontsize=9, loc="lower right")


def _norm_name(p: float) -> str:
    return r"$\ell_\infty$" if np.isinf(p) else rf"$\ell_{p:g}$"


def draw_z_scores(folder: Path) -> Any:
    data = read_columns(folder / "theory_vs_simulation.csv")
    z = np.sort(data["z"])
    expected = ndtri((np.arange(len(z)) + 0.5) / len(z))
    figure, (axis,) = new_figure(1, 4.6, 4.0)
    axis.plot(expected, z, "o", ms=3, color=COLOURS[0])
    axis.plot([-3.5, 3.5], [-3.5, 3.5], color="0.4", lw=1)
    axis.set_xlabel("standard normal quantile")
    axis.set_ylabel("z = (simulation - theory) / standard error")
    axis.set_title(f"{len(z)} comparisons of theory with simulation", fontsize=10)
    return figure


SIMULATION_PICTURES: dict[str, Callable[[Path], Any]] = {
    "accuracy_against_n": draw_accuracy_against_n,
    "ceiling": draw_ceiling,
    "linf_mean": draw_linf_mean,
    "frontier": draw_frontier,
    "ddim_shrinkage": draw_ddim_shrinkage,
    "class_snr": draw_class_snr,
    "sample_gap": draw_sample_gap,
    "theory_vs_simulation": draw_z_scores,
}
DATA_PICTURES: dict[str, Callable[[Path], Any]] = {"real_data": draw_real_data}
