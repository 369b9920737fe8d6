"""The experiments whose results are drawn: the command that makes each, and where its results lie. The one place for paths."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "figures" / "reference"
"""Small results that are committed, a folder an experiment."""


@dataclass(frozen=True)
class Experiment:
    """script and arguments: the command at full size. quick: at small size. takes: what it costs on 2 cores. kept: patterns of the
    files that figures read, which are committed as reference results, without those left_out."""

    name: str
    script: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    takes: str
    kept: tuple[str, ...] = ("*.csv",)
    left_out: tuple[str, ...] = ()

    def command(self, quick: bool = False) -> str:
        """As a reader would type it."""
        return " ".join(("python", self.script, *(self.quick if quick else self.arguments)))

    def call(self, folder: Path, quick: bool, seed: int) -> list[str]:
        """The command for a subprocess, results into `folder`."""
        arguments = self.quick if quick else self.arguments
        return [sys.executable, str(ROOT / self.script), *arguments, "--seed", str(seed), "--out", str(folder)]


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("gaussian_mixture", "simulations/gaussian_mixture.py", (), ("--quick",), "35 s"),
        Experiment(
            "guided_diffusion",
            "simulations/guided_diffusion.py",
            (),
            ("--quick",),
            "25 min; with --quick 2 min",
            left_out=("guidance.csv", "timing.csv"),
        ),
        Experiment(
            "digits-cpu",
            "image_experiments/run_cifar.py",
            ("--preset", "cpu"),
            ("--preset", "cpu", "--seeds", "1", "--evaluation.autoattack-images", "40"),
            "7 min",
            ("*.csv", "mosaics/*.png"),
        ),
        Experiment("digits-ablations", "image_experiments/run_sweep.py", (), ("--quick",), "40 min", ("sweep.csv",)),
    )
}


def experiment_of(path: str) -> Experiment:
    """The experiment that a result file, named EXPERIMENT/FILE, comes from."""
    return EXPERIMENTS[path.partition("/")[0]]
