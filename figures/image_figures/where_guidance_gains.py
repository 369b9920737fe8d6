"""Where does guidance gain? Against the class SNR of the unguided images that it would replace, treated alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import MARKERS, new_figure
from command_line.output import UserError
from command_line.words import in_words, place_of
from figures.figure import Figure, Numbers, Row, guide, marks
from figures.image_figures.ablations import SNR, by_seed, described_again, family_of, gain
from figures.inputs import Files, remedy, where

FITTED = ("digits-pipeline/sweep.csv", "mnist-pipeline/sweep.csv")
OTHERS = (
    "digits-confirm/sweep.csv",
    "mnist-confirm/sweep.csv",
    "gtsrb-confirm/sweep.csv",
    "digits-default/sweep.csv",
    "digits-rivals/sweep.csv",
    "mnist-default/sweep.csv",
    "mnist-rivals/sweep.csv",
    "gtsrb-default/sweep.csv",
    "gtsrb-rivals/sweep.csv",
    "gtsrb-pipeline/sweep.csv",
)
PREDICTED, ENOUGH = "gtsrb-pipeline/sweep.csv", 3
"""The design that holds a prediction, and how many of its four gains have to lie inside their intervals."""
DESCRIBED_AGAIN = ("mnist-report/sweep.csv", "gtsrb-report/sweep.csv", "cifar10-report/sweep.csv")
"""Their class SNR, of three seeds, stands in another file."""
FIGURE = Figure(
    "InfoNCE's gain against class SNR: a pattern that failed on traffic signs",
    "Gain in robust accuracy under APGD-CE over unguided images with the same labels and selection, mean and 95 % interval over paired "
    "seeds (Student), against the class SNR of those unguided images. Each mark is one treatment, that is labels and selection. Left: "
    "InfoNCE, and the line through the marks of digits-pipeline and mnist-pipeline (least squares), drawn after these runs. It was then "
    "used to predict four gains on traffic signs, before the run of gtsrb-pipeline, and failed: two lie inside their intervals, and both "
    "clear effects are losses where it predicted gains. Right: other guidance and noise. Colours name the method, marks the data. Marks "
    "of one design share seeds; one of MNIST is of the automatic strength. Where a design was described "
    "again, its class SNR is of three seeds.",
    (*FITTED, *OTHERS, *DESCRIBED_AGAIN, *map(described_again, DESCRIBED_AGAIN)),
    "300 real images (photographs: 1,000) and 2,000 synthetic ones (CIFAR-10: 1,000), at the radius of training; 3 to 24 seeds",
)
ATTACK, PLAIN, INFONCE = "apgd-ce", "unguided", "infonce-0.3"
LEFT, RIGHT, LINE = "InfoNCE", "other guidance, and noise", "line"
DATA = {"digits": "digits", "mnist": "MNIST", "gtsrb": "GTSRB", "cifar10": "CIFAR-10"}
OF = ", "
Gain = tuple[str, str, float, float, float, float]


def gains(table: str, files: Files) -> list[Gain]:
    """(method, run, class SNR of its unguided images, gain, low, high) of every guided set that has unguided images treated alike."""
    data = files.columns(table, "seed robust_accuracy", text="run method attack norm eps")
    attacked = where(data, attack=ATTACK)
    if not attacked.any():
        raise UserError(f"{files.path(table)}: no row has the attack {ATTACK}; {remedy(table)}")
    trained = {name: data[name][attacked][0] for name in ("norm", "eps")}  # the first radius is that of training
    data = {name: values[where(data, attack=ATTACK, **trained)] for name, values in data.items()}
    described = files.columns(described_again(table) if table in DESCRIBED_AGAIN else table, f"seed {SNR}", text="run method")
    found: list[Gain] = []
    for run, method in dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True)):
        snrs = list(by_seed(described, run, PLAIN, SNR).values())
        if method not in (PLAIN, "real") and snrs and by_seed(data, run, PLAIN):
            found.append((method, run, float(np.mean(snrs)), *gain(data, run, method, first=run)))
    return found


def fit(files: Files, tables: tuple[str, ...] = FITTED) -> tuple[float, float]:
    """(slope, class SNR without gain) of the line through InfoNCE's gains in these designs, by least squares."""
    x, y = infonce(files, tables)
    if len(x) < 3:
        raise UserError(
            f"{' and '.join(map(str, map(files.path, tables)))}: {len(x)} sets of {INFONCE}, too few for a line; {remedy(tables[0])}"
        )
    slope, constant = np.polyfit(x, y, 1)
    return float(slope), float(-constant / slope)


def infonce(files: Files, tables: tuple[str, ...]) -> tuple[Any, Any]:
    """(class SNR of unguided images, gain) of the sets of InfoNCE in these designs that have both."""
    points = np.array([one[2:4] for table in tables for one in gains(table, files) if one[0] == INFONCE], dtype=float).reshape(
        -1, 2
    )
    return tuple(points[np.isfinite(points).all(axis=1)].T)


def numbers(files: Files) -> Numbers:
    """x: class SNR of unguided images; y: gain. Series METHOD, DATA."""
    slope, zero = fit(files)
    rows: list[Row] = []
    for table in (*FITTED, *OTHERS, *DESCRIBED_AGAIN):
        data = DATA[table.partition("-")[0]]
        for method, run, snr, *spread in gains(table, files):
            kind = in_words(family_of(run, method))
            rows.append((LEFT if kind == in_words("infonce") else RIGHT, f"{kind}{OF}{data}", snr, *spread))
    places = [row[2] for row in rows if row[0] == LEFT]
    ends = min(places), max(places)
    rows += [(LEFT, LINE, snr, float(slope * (snr - zero))) for snr in ends]
    return Numbers.of(sorted(rows, key=lambda row: (row[0], row[1] != LINE, row[1], row[2])))


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, 7.0, 3.9)
    for axis, panel in zip(axes, (LEFT, RIGHT), strict=True):
        guide(axis, 0)
        for _, series in numbers.all(panel):
            if series.name == LINE:
                axis.plot(series.x, series.y, color="0.3", lw=1.2, label="line through digits-pipeline and mnist-pipeline")
                continue
            kind, _, data = series.name.rpartition(OF)
            marker = MARKERS[list(DATA.values()).index(data)]
            marks(axis, place_of(kind), series, series.name, marker=marker, capsize=0, lw=1)
        axis.set(xlabel="class SNR of the unguided images", title=panel)
    axes[0].set_ylabel("gain in robust accuracy over unguided")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return figure


def finding(files: Files) -> str:
    """The line, how well it fits, where each data set crosses it alone, and what it says of GTSRB, on which it was not fitted."""
    slope, zero = rule(files)
    x, y = infonce(files, FITTED)
    score = np.corrcoef(x, y)[0, 1] ** 2
    alone = " and ".join(f"{fit(files, (table,))[1]:.1f} on {DATA[table.partition('-')[0]]} alone" for table in FITTED)
    others = [one for table in (*OTHERS, *DESCRIBED_AGAIN) if table.startswith("gtsrb") for one in gains(table, files)]
    tried = "; ".join(
        f"at {snr:.1f} it says {100 * slope * (snr - zero):+.1f} points, measured {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        for method, _, snr, mean, low, high in others
        if method == INFONCE
    )
    return (
        f"The line through InfoNCE's gains over {len(x)} treatments of digits and MNIST: {100 * slope:.1f} points times (class SNR of "
        f"unguided images − {zero:.1f}), R² = {score:.2f}; it is zero at {alone}. Seen after the runs. On GTSRB, to which it was not "
        f"fitted: {tried}. {judged(slope, zero, files)}"
    )


def rule(files: Files) -> tuple[float, float]:
    """fit, as rounded in the design that predicts by it."""
    slope, zero = fit(files)
    return round(slope, 3), round(zero, 1)


def judged(slope: float, zero: float, files: Files) -> str:
    """What became of the prediction in gtsrb-pipeline.toml, by the rule that stands there."""
    of = [(slope * (snr - zero), low, high) for method, _, snr, _, low, high in gains(PREDICTED, files) if method == INFONCE]
    clear = [(said > 0) == (low > 0) for said, low, high in of if low > 0 or high < 0]
    inside = sum(low <= said <= high for said, low, high in of)
    verdict = "holds" if all(clear) and inside >= ENOUGH else "fails"
    return (
        f"For its {len(of)} gains {PREDICTED.partition('/')[0]}.toml predicted this before its run: {inside} predictions lie inside the "
        f"intervals, and of the {len(clear)} gains whose interval leaves out zero {sum(clear)} have the predicted sign. The prediction "
        f"{verdict}."
    )
