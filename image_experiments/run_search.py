"""Find the best guidance, labels and selection by successive halving: `python image_experiments/run_search.py --design FILE`.

    python image_experiments/run_search.py --design image_experiments/designs/digits-search.toml --dry-run
    python image_experiments/run_search.py --design MINE.toml --rungs 2 6 --keep 0.25 --most 100

The design is that of run_sweep.py; its runs and methods are the candidates. All are tried with a few seeds, the best with more. Validation
images alone decide: a design that evaluates on test images is refused. The same command resumes after an interruption.

Writes OUT/search.csv (one row per rung and candidate, ranked), OUT/summary.json (the best), and the sweeps of the rungs in OUT/rung-K.
Exit status: 0 fine; 1 bad input or a run that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    from command_line.command import Help, run_command, settings_line
    from command_line.messages import TERMINAL
    from image_experiments.experiment import tell_refusal
    from image_experiments.run_cifar import main as run_cifar
    from image_experiments.searching import (
        SearchSettings,
        calls_of_rung,
        candidates_of,
        check_search,
        checked,
        conduct_search,
        trainings,
    )

HELP = Help("Successive halving over the runs and methods of a design, on validation images.")


def run(settings: SearchSettings) -> int:
    """Search; returns the exit status."""
    settings, design = checked(settings)
    print(settings_line(settings))
    print(f"{len(candidates_of(design))} candidates, {trainings(settings, design)} classifiers to train in all")
    if not settings.dry_run:
        return conduct_search(settings, design, TERMINAL, run_cifar)
    tell_refusal(lambda: check_search(settings, design))
    print(f"would write to {settings.out}")
    from image_experiments.sweep_cost import cost_of_sweep

    sweep, calls = calls_of_rung(settings, design, 1)
    print(f"the first rung, with {settings.rungs[0] * len(candidates_of(design))} of these classifiers:")
    print(cost_of_sweep(sweep, calls))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    interrupted = "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    return run_command(SearchSettings, run, HELP, arguments, interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(main())
