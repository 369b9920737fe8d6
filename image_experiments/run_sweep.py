"""Many runs of run_cifar.py from one design file: `python image_experiments/run_sweep.py`.

    python image_experiments/run_sweep.py                                   # ablations on digits, 3 seeds, about 40 minutes on 2 cores
    python image_experiments/run_sweep.py --design MINE.toml --out results/mine
    python image_experiments/run_sweep.py --design image_experiments/designs/gtsrb-report.toml --data-dir FOLDER_OR_ARCHIVE

A design is a TOML file: `base`, arguments of run_cifar.py that all runs share; `seed` and `seeds`; one table [run.NAME] per run with
`methods` and `arguments`; `compare`, pairs ["RUN/METHOD", "RUN/METHOD"] to compare; and `attacks`, the attacks under which to compare them
(default: all). A run reuses what earlier runs made from the same settings (by links, not copies), so only what differs is made anew. The
same command resumes after an interruption.

Writes OUT/sweep.csv (one row per run, method, seed and attack: settings, accuracies, description of the synthetic images),
OUT/comparisons.csv (differences paired by seed, with simultaneous intervals), OUT/summary.json, and the output of each run_cifar.py in
OUT/runs/NAME. With --gather only the tables and the summary.
Exit status: 0 fine; 1 bad input or a run that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    from command_line.command import Help, run_command, settings_line
    from command_line.messages import TERMINAL
    from image_experiments.experiment import tell_refusal
    from image_experiments.run_cifar import main as run_cifar
    from image_experiments.sweeps import (
        Design,
        Run,
        SweepSettings,
        check_devices,
        check_sweep,
        checked_calls,
        conduct_sweep,
        data_flags,
        finished,
        gather_sweep,
        read_design,
        resolved,
    )

HELP = Help("Runs of run_cifar.py from a design file, gathered in one table.")


def run(settings: SweepSettings) -> int:
    """Run everything in the design and collect the results; returns the exit status."""
    design = read_design(settings.design)
    settings, runs = resolved(settings, design)
    print(settings_line(settings))
    if settings.gather:
        return gather_or_tell(settings, design, runs)
    calls = checked_calls(settings, design, runs)
    if not settings.dry_run:
        return conduct_sweep(settings, design, calls, TERMINAL, run_cifar)
    tell_refusal(lambda: check_sweep(settings, design, runs))
    assert settings.out is not None
    tell_refusal(partial(check_devices, settings.out, calls))
    for one in runs:
        print(
            f"would run {one.name}: {' '.join((*design.base, *data_flags(settings), *one.arguments))} --methods {' '.join(one.methods)}"
        )
    print(f"would write to {settings.out}")
    from image_experiments.engine.cost import NOT_DEDUCTED
    from image_experiments.engine.reuse import check_reuse
    from image_experiments.sweep_cost import cost_of_sweep

    if settings.reuse:
        check_reuse(settings.reuse)
        print(NOT_DEDUCTED)
    print(cost_of_sweep(settings, calls))
    return 0


def gather_or_tell(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> int:
    """Join the tables of folders with seeds of their own; returns the exit status."""
    if not settings.dry_run:
        gather_sweep(settings, design, runs, TERMINAL)
        return 0
    for one in finished(settings, design, runs):
        print(f"would gather seeds {' '.join(map(str, one.seeds))} from {one.out}")
    print(f"would write to {settings.out}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    interrupted = "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    return run_command(SweepSettings, run, HELP, arguments, interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(main())
