"""What theory says that the images of a sweep are worth, from their description alone: `python simulations/image_worth.py --sweep OUT`.

    python simulations/image_worth.py --sweep results/digits-confirm                        # every set, in unguided images of run `soft`
    python simulations/image_worth.py --sweep results/mine --plain main/unguided            # in those of another run

T16's logistic learner of two classes is given what describes a set of images: how many there are, their class SNR, their share of wrong
labels and their effective dimension, in the features of a classifier that took no part. The real images count as having the plain
ones' class SNR, with right labels. The worth of an image is the number of plain images that makes this learner miss the best direction by
the same angle (`theory.sample_worth`). Nothing is fitted, and no robust accuracy is read. With half of the labels wrong
it is nan.

Writes OUT/worth.csv (run, method, what describes the set, worth) and OUT/summary.json. Exit status: 0 fine; 1 bad input; 2 unknown flag;
130 interrupted.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script, from any folder, from a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line.missing import needs_packages

with needs_packages(__name__):
    import numpy as np

    from command_line.command import Help, run_command, settings_line, versions
    from command_line.drawing import read_columns
    from command_line.folder_claim import claim
    from command_line.output import UserError, did_you_mean, file_digest, prepare_folder, text_table, write_csv, write_json
    from theory import ProportionalLaw, sample_worth

HELP = Help("What theory says that the images of a sweep are worth, from their description alone.")
DESCRIPTION = {
    "n_real": "n_real",
    "n_synthetic": "n_synthetic",
    "class_snr": "class_snr_crossfit_judge",
    "label_error": "label_error",
    "effective_dimension": "effective_dimension_judge",
}
"""What theory is given, and its column in sweep.csv."""
HEADER = ("run", "method", *DESCRIPTION, "worth")
MOST_WRONG = 0.5
"""Share of wrong labels from which two classes teach the opposite."""


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result."""

    sweep: Path
    """Folder of a sweep (OUT of run_sweep.py), with sweep.csv."""
    plain: str = "soft/unguided"
    """RUN/METHOD of the images that worth is counted in."""
    classes: int = 10
    """Number of classes of the data."""
    out: Path | None = None
    """Folder for the results (default: SWEEP-worth)."""
    force: bool = False
    """Write into a folder that holds another experiment. Its table is overwritten."""


def run(settings: Settings) -> int:
    """Read, compute, write; returns the exit status. Raises UserError."""
    sweep = settings.sweep.resolve() if settings.sweep.name in ("", "..") else settings.sweep  # which have no name to add to
    settings = replace(settings, out=settings.out or sweep.with_name(f"{sweep.name}-worth"))
    print(settings_line(settings))
    if settings.classes < 2:
        raise UserError(f"--classes {settings.classes}: must be at least 2")
    table, seeds = read_sets(settings.sweep)
    rows = worths(table, plain_of(settings.plain, table), settings.classes)
    out = prepare_folder(settings.out or Path())
    claim(out, {"experiment": "image_worth", **asdict(settings)}, force=settings.force)
    write_csv(out / "worth.csv", HEADER, rows)
    about = asdict(replace(settings, sweep=Path(settings.sweep.name))) | {"seed": seeds[0], "seeds": len(seeds)}
    write_json(
        out / "summary.json", {"settings": about, "versions": versions(), "sweep_sha256": file_digest(settings.sweep / "sweep.csv")}
    )
    print(text_table(HEADER, [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]))
    print(f"worth: images of {settings.plain} per image of the set; wrote {out}/worth.csv")
    return 0


def read_sets(sweep: Path) -> tuple[dict[tuple[str, str], dict[str, float]], list[int]]:
    """({(run, method): its description, means over seeds} of every set of synthetic images, the seeds). Raises UserError."""
    path = sweep / "sweep.csv"
    if not path.is_file():
        raise UserError(f"--sweep {sweep}: has no sweep.csv; name the folder that run_sweep.py wrote")
    data = read_columns(path, text=("run", "method"))
    missing = [column for column in ("run", "method", "seed", *DESCRIPTION.values()) if column not in data]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}; make the sweep with this version")
    found = {}
    for key in dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True)):
        of = (data["run"] == key[0]) & (data["method"] == key[1])
        cells = {name: data[column][of] for name, column in DESCRIPTION.items()}
        if "" in cells["class_snr"].tolist():  # real images alone
            continue
        found[key] = {name: _mean(values) for name, values in cells.items()}
    bad = next((key for key, one in found.items() if not _usable(one)), None)
    if bad:
        raise UserError(f"{path}: the description of {'/'.join(bad)} is {found[bad]}; theory needs numbers, and none below 0")
    try:
        return found, sorted({int(float(seed)) for seed in data["seed"]})
    except ValueError:
        raise UserError(f"{path}: the column seed holds what is no whole number; make the sweep anew") from None


def _mean(values: Any) -> float:
    """Mean of numbers that are not below 0; nan if one is no such number."""
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        return math.nan
    return float(np.mean(numbers)) if (numbers >= 0).all() else math.nan


def _usable(description: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, description.values())) and description["effective_dimension"] > 0


def plain_of(name: str, table: Mapping[tuple[str, str], Mapping[str, float]]) -> Mapping[str, float]:
    """The description of the plain images. Raises UserError, also where most of their labels are wrong."""
    run_of, _, method = name.partition("/")
    if (run_of, method) not in table:
        known = ["/".join(key) for key in table]
        raise UserError(f"--plain {name}: no such set{did_you_mean(name, known)}; the sweep has {', '.join(known)}")
    if (wrong := table[run_of, method]["label_error"]) >= MOST_WRONG:
        raise UserError(
            f"--plain {name}: a share of {wrong:.2f} of its labels is wrong; theory needs less than 1/2, so name another set"
        )
    return table[run_of, method]


def worths(table: Mapping[tuple[str, str], Mapping[str, float]], plain: Mapping[str, float], classes: int) -> list[tuple[Any, ...]]:
    """A row of HEADER for every set; worth nan where half of the labels are wrong, of which T16's two classes say nothing."""
    rows = []
    for (run_of, method), of in table.items():
        worth = math.nan
        if of["label_error"] < MOST_WRONG:
            try:
                per_dimension = sample_worth(*(law_of(one, plain["class_snr"], classes) for one in (of, plain)))
            except ValueError as error:
                raise UserError(f"--sweep: {run_of}/{method}, described by {dict(of)}, is beyond the theory ({error})") from None
            worth = per_dimension * plain["effective_dimension"] / of["effective_dimension"]
        rows.append((run_of, method, *of.values(), worth))
    return rows


def law_of(description: Mapping[str, float], snr_real: float, classes: int) -> ProportionalLaw:
    """T16's logistic learner of two of the classes: real images first, if there are any, then those of the set."""
    n_real, n, snr, wrong, dim = (description[name] for name in DESCRIPTION)
    parts = [(snr_real, 2 * n_real / classes / dim, 0.0)] * (n_real > 0) + [(snr, 2 * n / classes / dim, wrong)]
    snrs, ratios, noise = zip(*parts, strict=True)
    return ProportionalLaw(snrs, ratios, label_noise=noise)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
