"""The experiment on images, from Python:

    from image_experiments import preset, run
    result = run(preset("smoke", eps=8 / 255))
    result.metrics          # a pandas DataFrame

The same as commands: run_cifar.py, run_sweep.py, run_search.py, evaluate.py. Names are imported on first use.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from command_line.missing import UnsupportedError

if sys.platform == "win32":
    raise UnsupportedError("the image experiments need Linux or macOS; on Windows run them in WSL")

if TYPE_CHECKING:
    from command_line.output import UserError
    from image_experiments.engine.presets import preset
    from image_experiments.engine.settings import Settings
    from image_experiments.experiment import Result, run
    from image_experiments.searching import search
    from image_experiments.sweeps import SweepResult, sweep
    from image_experiments.verdict import evaluate

WHERE = {
    "Settings": "image_experiments.engine.settings",
    "preset": "image_experiments.engine.presets",
    "Result": "image_experiments.experiment",
    "run": "image_experiments.experiment",
    "SweepResult": "image_experiments.sweeps",
    "sweep": "image_experiments.sweeps",
    "search": "image_experiments.searching",
    "evaluate": "image_experiments.verdict",
    "UserError": "command_line.output",
}
__all__ = ["Result", "Settings", "SweepResult", "UserError", "evaluate", "preset", "run", "search", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(WHERE[name]), name)
