"""Tables of a sweep: one row per run, method, seed and attack; and the comparisons in its design."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from command_line.output import UserError
from command_line.statistics import holm, mean_interval, paired_p


def gather(runs: Sequence[tuple[str, Path]]) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of sweep.csv: settings of the run, its metrics.csv, and the columns of its description.csv (nan without images).

    If the scale was auto, `scale` and the window are those that were found (in the last round). after_PART: robust accuracy after this and
    all earlier parts of AutoAttack, if several were run.
    """
    from command_line.drawing import read_columns
    from image_experiments.output.tables import of_each_round
    from image_experiments.synthesis.methods import ON_PREDICTION

    selection = ("surplus", "criterion", "order", "labels", "labeller", "ensemble")
    settings = ("window_low", "window_high", "at", "head", *selection)
    rows: list[dict[str, Any]] = []
    for name, folder in runs:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        chosen = summary["settings"]
        low, high = chosen["generation.window"] or (0, chosen["diffusion.timesteps"])
        values = (low, high, *(chosen[f"{p}.{n}"] for p, n in (("generation", "at"), ("generation", "head"))))
        values += tuple(chosen[f"selection.{n}"] for n in selection)
        about = {"run": name, "split": chosen["evaluation.split"]} | dict(zip(settings, values, strict=True))
        described = records(read_columns(folder / "description.csv"))
        of = {(row["method"], row["seed"]): row for row in described}
        attacked = {
            tuple(row[name] for name in ("method", "seed", "attack", "norm", "eps")): int(row["images"])
            for row in (records(read_columns(folder / "details.csv")) if (folder / "details.csv").is_file() else [])
        }
        for row in records(read_columns(folder / "metrics.csv")):
            last = of_each_round(chosen.get("rounds", 1), f"strength/{row['method']}/seed{row['seed']}")[-1]
            found = summary["results"].get(last)
            window = {} if found is None else dict(zip(settings[:2], found["window"], strict=True)) | {"scale": found["scale"]}
            one = tuple(row.get(name) for name in ("method", "seed", "attack", "norm", "eps"))
            images = {"images": attacked[one]} if one in attacked else {}
            described_so = of.get((row["method"], row["seed"]), {})
            given = NOT_SELECTED if row["method"].startswith(("npz-", "noise-real-")) else {}
            unread = UNREAD if row["method"].startswith(ON_PREDICTION) else {}
            rows.append(about | given | unread | window | row | images | after_parts(summary, row) | described_so)
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, math.nan) for name in header] for row in rows]


NOT_SELECTED = {"labels": "given", "labeller": "none", "ensemble": 0, "criterion": "none", "order": "none", "surplus": 1.0}
"""What stands in sweep.csv for images that are read, or copies of real ones, on which --selection does not act."""


UNREAD = {"window_low": math.nan, "window_high": math.nan, "at": "", "head": math.nan}
"""What stands in sweep.csv for methods that change the noise prediction itself: they act at every step."""


def gather_descriptions(
    folders: Sequence[tuple[str, Path]], methods_of: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> tuple[list[str], list[list[Any]]]:
    """(header, rows) of description.csv: one row per run, method and seed that was described, from the files of the stages."""
    from image_experiments.engine.stages import read_stamp
    from image_experiments.synthesis.methods import parse_method

    rows: list[dict[str, Any]] = []
    for name, folder in folders:
        for method in map(parse_method, methods_of[name]):
            for seed in seeds:
                stamp = read_stamp(folder, f"describe/{method.label}/seed{seed}")
                if stamp is not None:  # there is none of real images
                    about = {"run": name, "method": method.label, "seed": seed}
                    rows.append(about | {measure: float(value) for measure, value in stamp["results"].items()})
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, math.nan) for name in header] for row in rows]


def after_parts(summary: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """Robust accuracy after each part of AutoAttack except the last, whose value is the result; empty for PGD."""
    evaluated = summary["results"].get(f"evaluate/{row['method']}/seed{row['seed']}", {"rows": []})["rows"]
    after: dict[str, float] = next(
        (r.get("after", {}) for r in evaluated if all(r[name] == row[name] for name in ("attack", "norm", "eps"))), {}
    )
    return {f"after_{part.replace('-', '_')}": left for part, left in list(after.items())[1:-1]}


COMPARED = (
    *("a", "b", "attack", "norm", "eps", "seeds", "difference", "low", "high", "low_of_all", "high_of_all"),
    *("low_images", "high_images", "low_images_of_all", "high_images_of_all", "p_holm"),
)


def outcomes_in(folder_of: Callable[[dict[str, Any]], Path]) -> Callable[[dict[str, Any]], Any]:
    """outcomes(row of the table) -> which images withstood, as tables.outcomes_of; None if each seed has its own images.

    folder_of: row -> the folder of its run.
    """
    from image_experiments.output.tables import outcomes_of

    return lambda row: outcomes_of(folder_of(row), row) if row["split"] == "test" else None


def comparisons(
    rows: list[list[Any]],
    header: list[str],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    names: Sequence[str] = (),
    outcomes: Callable[[dict[str, Any]], Any] = lambda _row: None,
) -> list[list[Any]]:
    """Robust accuracy of a minus b, paired by seed, for every pair and attack (only these names, if given): mean, its own Student 95 %
    interval, an interval that holds for all m in the table simultaneously with 95 % (Bonferroni: 1 - 0.05 / m each), and Holm's p-value
    among m. These hold for new seeds and these images. Then the same two intervals for new seeds and new images, nan if the outcomes per
    image are not known. Raises UserError for an attack that no run used."""
    from image_experiments.output.tables import both_ends

    table = [dict(zip(header, row, strict=True)) for row in rows]
    value = {(r["run"], r["method"], *_measured(r), r["seed"]): r for r in table}
    attacks = list(dict.fromkeys(_measured(r) for r in table if not names or r["attack"] in names))
    missing = sorted(set(names) - {attack[0] for attack in attacks})
    if missing:
        raise UserError(f"the design compares under {missing[0]}, which no run used; its attacks are named in sweep.csv")
    found, ps = [], []
    attacked = {run: {key[2:-1] for key in value if key[0] == run} for run in {key[0] for key in value}}
    total = sum(attack in attacked.get(a[0], ()) and attack in attacked.get(b[0], ()) for a, b in pairs for attack in attacks)
    for a, b in pairs:
        for attack in attacks:
            of = [{key[-1]: row for key, row in value.items() if key[:-1] == (*side, *attack)} for side in (a, b)]
            shared = [(of[0][seed], of[1][seed]) for seed in sorted(set(of[0]) & set(of[1]))]
            if not shared:  # --quick leaves runs out
                continue
            gains = [one["robust_accuracy"] - other["robust_accuracy"] for one, other in shared]
            images = min(row.get("images", math.inf) for both in shared for row in both)
            mean, low, high = mean_interval(gains, resolution=1 / images)
            ends = mean_interval(gains, 1 - 0.05 / total, 1 / images)[1:]
            ps.append(paired_p(gains, 1 / images))
            withstood = [[outcomes(row) for row in side] for side in zip(*shared, strict=True)]
            wider = [end for level in (0.95, 1 - 0.05 / total) for end in both_ends(withstood[0], withstood[1], level)]
            found.append(["/".join(a), "/".join(b), *attack[:3], len(gains), mean, low, high, *ends, *wider])
    return [[*row, p] for row, p in zip(found, holm(ps, total), strict=True)]


def _measured(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """(attack, norm, eps, split, number of images): accuracies on other images are not compared."""
    images = row.get("images", math.nan)
    return row["attack"], row["norm"], row["eps"], row.get("split", ""), -1 if math.isnan(images) else images


def records(columns: Any) -> list[dict[str, Any]]:
    """One dictionary per row; integers stay integers."""
    names = list(columns)
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [{n: int(v) if n in ("seed", "n_real", "n_synthetic") else v for n, v in zip(names, row, strict=True)} for row in rows]
