"""run_cifar.py with a journal: JOURNAL gets a line "stage done" for each step, batch or part that a stage reports.

The wrapping happens on import, because worker processes import the main module of the program that starts them.
"""

import os
import sys

from image_experiments import run_cifar
from image_experiments.engine import scheduler

original = scheduler.run_stage


def journalled(stage, place, report, *processes):
    def noted(name, done, total):
        with open(os.environ["JOURNAL"], "a") as stream:
            stream.write(f"{name} {done}\n")
        report(name, done, total)

    noted(stage.name, 0, 0)
    original(stage, place, noted, *processes)


scheduler.run_stage = journalled

if __name__ == "__main__":
    sys.exit(run_cifar.main())
