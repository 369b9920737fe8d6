"""Tables of a run, from the stamps of its stages: metrics.csv, description.csv, differences.csv and the table on the terminal."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from command_line.output import listed, text_table, write_csv
from command_line.statistics import crossed_interval, mean_interval
from image_experiments.data.dataset import Array
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import of_round, read_stamp, stamp_path

METRICS = ("dataset", "method", "seed", "n_real", "n_synthetic", "clean_accuracy", "robust_accuracy", "attack", "norm", "eps")
DETAILS = ("method", "seed", "attack", "norm", "eps", "images", "clean_accuracy", "robust_accuracy", "standard_error")
Row = dict[str, Any]
Outcomes = Callable[[Row], "Array | None"]


def metric_rows(settings: Settings, out: Path) -> list[Row]:
    """One row per method, seed and attack."""
    found: list[Row] = []
    for method in settings.parsed_methods():
        for seed in range(settings.seed, settings.seed + settings.seeds):
            trained = results(out, f"classifier/{method.label}/seed{seed}")
            about = {"dataset": settings.dataset, "method": method.label, "seed": seed}
            about |= {name: trained[name] for name in ("n_real", "n_synthetic")}
            found += [about | row for row in results(out, f"evaluate/{method.label}/seed{seed}")["rows"]]
    return found


def description_rows(settings: Settings, out: Path) -> list[Row]:
    """One row per synthetic set; none with --no-describe."""
    if not settings.describe:
        return []
    return [
        {"method": method.label, "seed": seed}
        | {
            name: float(value) for name, value in results(out, f"describe/{method.label}/seed{seed}").items()
        }  # JSON stores NaN as text
        for method in settings.parsed_methods()
        if method.kind != "real"
        for seed in range(settings.seed, settings.seed + settings.seeds)
    ]


def results(out: Path, name: str) -> Row:
    """What a finished stage returned."""
    stamp = read_stamp(out, name)
    assert stamp is not None, f"stage {name} has not run"
    found: Row = stamp["results"]
    return found


LEARNED_NOTHING = 0.95
"""Training has failed if its final loss is above this, in units of ln K, the loss of guessing among K equally frequent classes."""


def warnings_of(settings: Settings, out: Path) -> list[str]:
    """Warnings about failed training and about evaluations, each naming its classifier."""
    found = []
    guessing = math.log(len(results(out, "data")["classes"]))
    # the last loss is a mean since the previous validation: with only one, it includes the beginning of training
    long_enough = settings.classifier.steps >= 2 * settings.classifier.validate_every
    for method in settings.parsed_methods():
        for seed in range(settings.seed, settings.seed + settings.seeds):
            who = f"{method.label}, seed {seed}"
            loss = results(out, f"classifier/{method.label}/seed{seed}")["last_loss"]
            if long_enough and loss > LEARNED_NOTHING * guessing:
                found.append(
                    f"{who}: training loss ended at {loss:.3f}, guessing is {guessing:.3f}: it learned almost nothing under attack, so "
                    "its robust accuracy says little about the images; use more --classifier.steps or a smaller --eps"
                )
            found += [f"{who}: {text}" for text in results(out, f"evaluate/{method.label}/seed{seed}")["warnings"]]
            found += uneven_classes(settings, out, method.label, seed)
    return found + encoders_that_lag(settings, out)


UNEVEN = 0.5
"""A selected set is told to be uneven if a class has less than this part of an even share."""


def uneven_classes(settings: Settings, out: Path, label: str, seed: int) -> list[str]:
    """Warnings about classes of which selection, or new labels, left few images."""
    classes = results(out, "data")["classes"]
    stamps = [read_stamp(out, name) for name in of_each_round(settings.rounds, f"select/{label}/seed{seed}")]
    rounds = [stamp["results"]["of_each_class"] for stamp in stamps if stamp is not None]
    counts = [sum(each) for each in zip(*rounds, strict=True)] if rounds else []
    share = sum(counts) / len(classes)
    few = [f"{count} of class {kind}" for kind, count in zip(classes, counts, strict=bool(counts)) if count < UNEVEN * share]
    if not few:
        return []
    remedy = "make more, with a larger --selection.surplus, or take other labels"
    return [f"{label}, seed {seed}: kept {listed(few)}, an even share is {share:.0f}; {remedy}"]


LAGS = 0.1
"""By how much the clean accuracy of an encoder that was read may be below that of the classifiers without a warning."""


def encoders_that_lag(settings: Settings, out: Path) -> list[str]:
    """Warnings about encoders that were read and are far less accurate than classifiers trained here; they may expect other images."""
    found = []
    for seed in range(settings.seed, settings.seed + settings.seeds) if settings.encoder_from is not None else ():
        if read_stamp(out, f"encoder/seed{seed}") is None:
            continue
        right = results(out, f"encoder/seed{seed}")["last_clean_accuracy"]
        best = max(results(out, f"evaluate/{m.label}/seed{seed}")["rows"][0]["clean_accuracy"] for m in settings.parsed_methods())
        if right < best - LAGS:
            found.append(
                f"encoder, seed {seed}: {right:.3f} right, classifiers trained here {best:.3f}: it may expect images that are normalised, "
                "not in [0, 1], or have its classes in another order"
            )
    return found


def differences(
    rows: list[Row], baselines: Iterable[str] = ("real", "unguided"), outcomes: Outcomes = lambda _row: None
) -> list[Row]:
    """Method minus baseline, paired by seed (with the same test images and, except for the method, the same random numbers), with 95 %
    intervals of the mean: low and high for new seeds and these images, low_images and high_images for new seeds and images. nan with one
    seed. outcomes(row): (images,) bool, which images withstood the attack; None if each seed has its own images.
    """
    found = []
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for attack, norm, eps in dict.fromkeys((row["attack"], row["norm"], row["eps"]) for row in rows):
        of = {(r["method"], r["seed"]): r for r in rows if (r["attack"], r["norm"], r["eps"]) == (attack, norm, eps)}
        value = {key: row["robust_accuracy"] for key, row in of.items()}
        withstood = {key: outcomes(row) for key, row in of.items()}
        images = min(row.get("images", math.inf) for row in of.values())
        seeds = sorted({seed for _, seed in value})
        for baseline in (name for name in baselines if name in methods):
            for method in (name for name in methods if name != baseline):
                gains = [value[method, seed] - value[baseline, seed] for seed in seeds]
                gain, low, high = mean_interval(gains, resolution=1 / images)
                ends = both_ends([withstood[method, seed] for seed in seeds], [withstood[baseline, seed] for seed in seeds])
                about = {"method": method, "baseline": baseline, "attack": attack, "norm": norm, "eps": eps, "seeds": len(seeds)}
                found.append(about | {"gain": gain, "low": low, "high": high, "low_images": ends[0], "high_images": ends[1]})
    return found


def both_ends(a: Sequence[Array | None], b: Sequence[Array | None], level: float = 0.95) -> tuple[float, float]:
    """Both ends of the interval of a mean difference for new seeds and new images; a, b: for each seed, which images withstood."""
    gaps = [one.astype(np.float64) - other for one, other in zip(a, b, strict=True) if one is not None and other is not None]
    if not gaps or len(gaps) < len(a) or len({len(gap) for gap in gaps}) > 1:
        return math.nan, math.nan
    return crossed_interval(np.stack(gaps), level)[1:]


def outcomes_of(out: Path, row: Row) -> Array | None:
    """Which images withstood the attack of a row, from the stored outcomes; None if they are missing."""
    path = out / "outcomes" / f"{row['method']}-seed{row['seed']}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as content:
        key = f"{row['attack']} {row['norm']}-{row['eps']:.6g}"
        return np.asarray(content[key]) if key in content.files else None


def write_tables(out: Path, rows: list[Row], described: list[Row] | None, gains: list[Row]) -> None:
    """Write the csv files. described: None with --no-describe; what was described before then stays, if it is of the same images."""
    write_csv(out / "metrics.csv", METRICS, [[row[name] for name in METRICS] for row in rows])
    write_csv(out / "details.csv", DETAILS, [[row[name] for name in DETAILS] for row in rows])
    if described is None:
        columns, cells = _still_described(out)
    else:
        columns, cells = list(described[0]) if described else ["method", "seed"], [list(row.values()) for row in described]
    write_csv(out / "description.csv", columns, cells)
    header = ("method", "baseline", "attack", "norm", "eps", "seeds", "gain", "low", "high", "low_images", "high_images")
    write_csv(out / "differences.csv", header, [[row[name] for name in header] for row in gains])


def _still_described(out: Path) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of the description that is there, without those of images that were made after they were described."""
    path = out / "description.csv"
    if not path.is_file():
        return ["method", "seed"], []
    with path.open(newline="", encoding="utf-8") as stream:
        header, *lines = csv.reader(stream)
    rows = []
    for line in lines:
        where = "{}/seed{}".format(*(line[header.index(name)] for name in ("method", "seed")))
        stamp, images = stamp_path(out, f"describe/{where}"), out / "synthetic" / f"{where}.npz"
        if stamp.is_file() and images.is_file() and images.stat().st_mtime <= stamp.stat().st_mtime:
            rows.append(line)
    return header if rows else ["method", "seed"], rows


def final_table(rows: list[Row], described: list[Row]) -> str:
    """Mean (sd over seeds) of every accuracy and the measures of the synthetic images, one line per method."""
    attacks = list(dict.fromkeys((row["attack"], row["norm"], row["eps"]) for row in rows))
    images = {attack: next(r["images"] for r in rows if (r["attack"], r["norm"], r["eps"]) == attack) for attack in attacks}
    header = ["method", "real", "synthetic", f"clean (n={images[attacks[0]]})"]
    header += [f"{attack} {norm} {eps:.4g} (n={images[attack, norm, eps]})" for attack, norm, eps in attacks]
    shown = {
        "label_error": "label err.",
        "class_snr_crossfit": "class SNR",
        "within_class_diversity": "diversity",
        "frechet_distance": "Frechet",
    }
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of = [row for row in rows if row["method"] == method]
        line = [method, str(of[0]["n_real"]), str(of[0]["n_synthetic"])]
        line.append(spread([row["clean_accuracy"] for row in of if (row["attack"], row["norm"], row["eps"]) == attacks[0]]))
        for attack in attacks:
            line.append(spread([row["robust_accuracy"] for row in of if (row["attack"], row["norm"], row["eps"]) == attack]))
        line += [spread([row[name] for row in described if row["method"] == method], 3) for name in shown]
        lines.append(line)
    return text_table([*header, *shown.values()], lines)


def floor_line(described: list[Row]) -> str:
    """The values that perfect synthetic images would reach: the measures of real test images. Empty without synthetic images, or if the
    test images are not used."""
    if not described or math.isnan(described[0]["frechet_floor"]):
        return ""
    seeds = {row["seed"]: row for row in described}.values()  # all methods of a seed have the same floor
    frechet, wrong = (spread([row[f"{name}_floor"] for row in seeds]) for name in ("frechet", "label_error"))
    return f"real test images in place of synthetic ones: label err. {wrong}, Frechet {frechet}"


def spread(values: list[float], digits: int = 4) -> str:
    """Mean and, with several seeds, standard deviation: .6286 (.0047)."""
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ({np.std(values, ddof=1):.{digits}f})" if len(values) > 1 else mean


def of_each_round(rounds: int, name: str) -> list[str]:
    """Names of the stages METHOD/seedN of each round."""
    return [name + of_round(number, rounds) for number in range(1, rounds + 1)]


def strength_lines(settings: Settings, out: Path) -> list[str]:
    """For methods with scale auto: the scale and window that were found, and their label error; one line per method, seed and round."""
    lines = []
    for method in (one for one in settings.parsed_methods() if one.automatic):
        for seed in range(settings.seed, settings.seed + settings.seeds):
            for name in of_each_round(settings.rounds, f"seed{seed}"):
                found = results(out, f"strength/{method.label}/{name}")
                found |= found["about"]
                who = f"{method.label}, {name.replace('seed', 'seed ').replace('-round', ', round ')}"
                told = f"scale {found['scale']:.3g}, window {found['window'][0]} to {found['window'][1]}"
                rest = "" if found["reached"] else ", more than asked for: the least scale"
                rest += ": the largest scale tried, labels allow more" if found["largest"] else ""
                errors = f"label error {found['label_error']:.3f}, unguided {found['unguided_label_error']:.3f}"
                lines.append(f"{who}: {told}, {errors}{rest}")
    return lines


def gain_lines(gains: list[Row]) -> list[str]:
    """Gains over the unguided images (or else over real data only) in words, if there are several seeds."""
    base = "unguided" if any(row["baseline"] == "unguided" for row in gains) else "real"
    lines = []
    for row in gains:
        if row["baseline"] != base or row["seeds"] < 2:
            continue
        about = f"{row['method']} minus {base}, {row['attack']} {row['norm']} {row['eps']:.4g}:"
        if math.isnan(row["gain"]):
            lines.append(f"{about} no number, as an accuracy is missing")
            continue
        both = f", with new images too [{row['low_images']:+.4f}, {row['high_images']:+.4f}]"
        known = not math.isnan(row["low_images"])
        seen = "gains" if row["low"] > 0 else "loses" if row["high"] < 0 else "no difference detected"
        lines.append(
            f"{about} {row['gain']:+.4f}, for new seeds [{row['low']:+.4f}, {row['high']:+.4f}]{both if known else ''}: {seen}"
        )
    return lines
