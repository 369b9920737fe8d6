"""The experiments whose results are drawn: the command for each, and where its results are. All paths are defined here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "figures" / "reference"
"""Small results that are committed, one folder per experiment."""


@dataclass(frozen=True)
class Experiment:
    """script and arguments: the command at full size. quick: at small size. takes: its cost on 2 cores. kept: patterns of the files that
    figures read, committed as reference results; left_out: matching names to exclude. own_seed: whether a file sets its first seed. data:
    the data set of which the user must supply a copy; empty if none is needed. reads: the experiment whose sweep it reads; such a command
    draws nothing at random and has no seed. apart: whether the command would write into the folder of another experiment by default."""

    name: str
    script: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    takes: str
    kept: tuple[str, ...] = ("*.csv",)
    left_out: tuple[str, ...] = ()
    own_seed: bool = False
    data: str = ""
    reads: str = ""
    apart: bool = False

    def command(self, quick: bool = False) -> str:
        """The command as a reader would type it."""
        data = ("--data-dir", f"COPY_OF_{self.data}") if self.data else ()
        sweep = ("--sweep", f"results/{self.reads}") if self.reads else ()
        out = ("--out", f"results/{self.name}") if self.apart else ()
        return " ".join(("python", self.script, *(self.quick if quick else self.arguments), *sweep, *data, *out))

    def call(self, folder: Path, quick: bool, seed: int) -> list[str]:
        """The command for a subprocess, with results in `folder`."""
        arguments = self.quick if quick else self.arguments
        seeds = [] if self.reads or (self.own_seed and not seed) else ["--seed", str(seed)]
        if self.reads:
            arguments = (*arguments, "--sweep", str(folder.parent / self.reads))
        return [sys.executable, str(ROOT / self.script), *arguments, *seeds, "--out", str(folder)]


SWEEPS = {
    "digits-evidence": "45 min",
    "digits-choice": "45 min",
    "digits-report": "55 min",
    "digits-apgd": "35 min",
    "digits-eps": "40 min",
    "digits-factors": "70 min",
    "mnist-report": "100 min",
    "digits-pipeline": "2.7 hours",
    "digits-paper": "4 hours",
    "digits-confirm": "90 min",
    "mnist-confirm": "2 hours",
    "mnist-pipeline": "3 hours",
    "digits-default": "55 min",
    "mnist-default": "2 hours",
    "digits-rivals": "95 min",
    "mnist-rivals": "100 min",
}
"""Comparison designs in image_experiments/designs, and their cost on 2 cores."""
WORTHS = ("digits-confirm", "mnist-confirm", "gtsrb-confirm")
"""Sweeps of which theory predicts what their images are worth."""
RUN = ("runs/main/mosaics/*.png", "runs/main/curves/*.csv")
PHOTOGRAPHS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "gtsrb-report": ("GTSRB", "70 min", RUN),
    "gtsrb-more": ("GTSRB", "60 min", ()),
    "gtsrb-confirm": ("GTSRB", "3.2 hours", ()),
    "gtsrb-default": ("GTSRB", "2 hours", ()),
    "gtsrb-pipeline": ("GTSRB", "3.7 hours", ()),
    "gtsrb-rivals": ("GTSRB", "2.5 hours", ()),
    "cifar10-report": ("CIFAR10", "35 min", RUN),
}
"""The same for photographs: data set, cost, and the files that figures read besides their tables."""


DESCRIBED: dict[str, tuple[int, str, str]] = {
    "digits-evidence": (3, "5 min", ""),
    "digits-choice": (3, "10 min", ""),
    "digits-eps": (6, "10 min", ""),
    "mnist-report": (3, "10 min", ""),
    "gtsrb-report": (3, "25 min", "GTSRB"),
    "cifar10-report": (3, "15 min", "CIFAR10"),
}
"""Designs whose images were made and described again when cross-fitting of the class SNR was introduced: seeds, cost, data set. Their
sweep.csv has the earlier in-sample class SNR under its old name; figures use the class SNR from these runs."""


def _described(design: str, seeds: int, takes: str, data: str) -> Experiment:
    arguments = ("--design", f"image_experiments/designs/{design}.toml", "--until", "description", "--seeds", str(seeds))
    kept = ("description.csv",)
    return Experiment(
        f"{design}-description",
        "image_experiments/run_sweep.py",
        arguments,
        (*arguments, "--quick"),
        takes,
        kept,
        own_seed=True,
        data=data,
        apart=True,
    )


def _worth(design: str) -> Experiment:
    return Experiment(f"{design}-worth", "simulations/image_worth.py", (), (), "10 s", ("worth.csv",), reads=design)


def _search(design: str, takes: str, *arguments: str) -> Experiment:
    script, quick = "image_experiments/run_search.py", (*arguments, "--rungs", "1", "2")
    return Experiment(design, script, arguments, quick, takes, ("search.csv",), own_seed=True)


def _sweep(design: str, takes: str, data: str = "", kept: tuple[str, ...] = ()) -> Experiment:
    arguments = ("--design", f"image_experiments/designs/{design}.toml")
    return Experiment(
        design,
        "image_experiments/run_sweep.py",
        arguments,
        (*arguments, "--quick"),
        takes,
        ("sweep.csv", "comparisons.csv", *kept),
        left_out=("encoder-*", "judge-*"),
        own_seed=True,
        data=data,
    )


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("gaussian_mixture", "simulations/gaussian_mixture.py", (), ("--quick",), "1 min"),
        Experiment(
            "guided_diffusion",
            "simulations/guided_diffusion.py",
            (),
            ("--quick",),
            "40 min; with --quick 3 min",
            left_out=("guidance.csv", "timing.csv", "value.csv", "value_best.csv"),
        ),
        Experiment(
            "guided_value",
            "simulations/guided_diffusion.py",
            ("--parts", "value"),
            ("--parts", "value", "--quick"),
            "15 min; with --quick 30 s",
            apart=True,
        ),
        Experiment(
            "guided_gallery", "simulations/guided_diffusion.py", ("--parts", "gallery"), ("--parts", "gallery"), "1 min", apart=True
        ),
        Experiment(
            "digits-cpu",
            "image_experiments/run_cifar.py",
            ("--preset", "cpu"),
            ("--preset", "cpu", "--seeds", "1", "--evaluation.autoattack-images", "40"),
            "15 min",
            ("*.csv", "mosaics/*.png"),
        ),
        _search("digits-search", "50 min"),
        _search("mnist-search", "1 hour", "--design", "image_experiments/designs/mnist-search.toml"),
        Experiment("digits-ablations", "image_experiments/run_sweep.py", (), ("--quick",), "40 min", ("sweep.csv",)),
        *(_sweep(name, takes) for name, takes in SWEEPS.items()),
        *(_sweep(name, takes, data, kept) for name, (data, takes, kept) in PHOTOGRAPHS.items()),
        *map(_worth, WORTHS),
        *(_described(name, *about) for name, about in DESCRIBED.items()),
    )
}


def experiment_of(path: str) -> Experiment:
    """The experiment of a result file named EXPERIMENT/FILE."""
    return EXPERIMENTS[path.partition("/")[0]]
