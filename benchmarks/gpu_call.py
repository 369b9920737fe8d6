"""What gpu_check.py and gpu_cifar10.py share: commands of this clone that end in time and leave no process on the card."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]


def paths_with(bundle: Path | None) -> list[str]:
    """Where to look for modules: in this clone, then among the packages of gpu_bundle.py's folder."""
    return [str(ROOT), *([] if bundle is None else [str((bundle / "site").resolve())])]


def environment_with(bundle: Path | None) -> dict[str, str]:
    """The environment of a command that looks for modules there and writes line by line."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths_with(bundle)), "PYTHONUNBUFFERED": "1"}


def status_within(
    seconds: float,
    command: list[str],
    environment: dict[str, str],
    log: IO[str],
    grace: float,
    stop: signal.Signals = signal.SIGTERM,
) -> int | None:
    """Run a command for at most these seconds; its exit status, or None if it was stopped. All processes that it has started end with it.

    stop: the signal that asks it to end. grace: seconds in which it may then save its progress, or say how far it came.
    """
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
