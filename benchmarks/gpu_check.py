"""Is everything right and fast on this GPU? `python benchmarks/gpu_check.py`, in one call and without network.

    python benchmarks/gpu_check.py --bundle FOLDER --out OUT --limit 420

Runs the tests marked cuda (a GPU against a CPU, no step that waits), then bench_images.py, bench_guidance.py and profile_steps.py on the
card. FOLDER: from gpu_bundle.py, for packages that the machine lacks. Writes OUT/tests.txt, bench.txt and so on as they come, ends before
the limit by itself and prints a short table last. Without a GPU it runs on the CPU, to try it out. Exit status: 0 all green; 1 otherwise.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gpu_call import environment_with, status_within


@dataclass(frozen=True)
class Part:
    """A command with its log and the share of the time that is left which it may take."""

    name: str
    arguments: tuple[str, ...]
    share: float


def parts_of(seconds: float) -> list[Part]:
    """The tests, the bench with measurements of this length, what a guided step costs, and where the time of a step goes."""
    told = ("-v", "--tb=short", "--durations=10", "-o", "faulthandler_timeout=60")  # a log that is cut off must tell names
    # the machine may hold packages that warn
    tests = ("-m", "pytest", *told, "-W", "default", "-p", "no:cacheprovider", "-m", "cuda", "tests/test_cuda.py")
    bench = ("benchmarks/bench_images.py", "--seconds", f"{seconds:g}", "--repeats", "1")
    guidance = ("benchmarks/bench_guidance.py", "--only-floor", "--repeats", "3")
    profile = ("benchmarks/profile_steps.py", "--rows", "7")
    return [Part("tests", tests, 0.5), Part("bench", bench, 0.6), Part("guidance", guidance, 0.5), Part("profile", profile, 1.0)]


def call(part: Part, out: Path, environment: dict[str, str], limit: float) -> tuple[str, list[str]]:
    """Run a part for at most `limit` seconds; (what became of it, its last lines). Its output is in OUT/NAME.txt, line by line."""
    path = out / f"{part.name}.txt"
    with path.open("w", encoding="utf-8") as log:
        command = [sys.executable, *part.arguments]
        status = status_within(limit - GRACE, command, environment, log, GRACE, signal.SIGINT)  # on which pytest tells what failed
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = {0: "passed", None: f"stopped after {limit:.0f} s"}.get(status, f"failed with status {status}")
    return told, lines[-LAST_LINES:]


LAST_LINES, GRACE = 25, 2.0
LEAST_SECONDS = 3.0


def device_line(environment: dict[str, str]) -> str:
    """The device and the versions, as the commands see them."""
    code = (
        "import platform, torch; found = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU, CPU'; "
        "print(f'{found}; Python {platform.python_version()}, torch {torch.__version__}')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
    except subprocess.TimeoutExpired:
        return "does not answer within 60 s"
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line (with argparse: tyro may be in the bundle) and run; returns the exit status."""
    parser = argparse.ArgumentParser(description="Tests and speed on this GPU.")
    parser.add_argument("--bundle", type=Path, help="folder of gpu_bundle.py")
    parser.add_argument("--out", type=Path, default=Path("results/gpu_check"), help="folder for the logs")
    parser.add_argument("--limit", type=float, default=420.0, help="seconds after which everything has ended")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each measurement of speed")
    parser.add_argument("--only", choices=("tests", "bench", "guidance", "profile"), help="run this part alone")
    chosen = parser.parse_args(arguments)
    if chosen.bundle is not None and not (chosen.bundle / "site").is_dir():
        print(f"error: --bundle {chosen.bundle}: has no folder site; make it with gpu_bundle.py", file=sys.stderr)
        return 1
    begin, environment = time.monotonic(), environment_with(chosen.bundle) | {"PYTHONDONTWRITEBYTECODE": "1"}
    chosen.out.mkdir(parents=True, exist_ok=True)
    table = [f"device: {device_line(environment)}"]
    good = True
    for part in parts_of(chosen.seconds):
        if chosen.only not in (None, part.name):
            continue
        left = chosen.limit - (time.monotonic() - begin) - 2.0
        status, lines = "not started, no time is left", list[str]()
        if left > LEAST_SECONDS:
            status, lines = call(part, chosen.out, environment, left * (1.0 if chosen.only else part.share))
        good &= status == "passed"
        table += [f"{part.name}: {status}", *(f"    {line}" for line in lines)]
        (chosen.out / "table.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
