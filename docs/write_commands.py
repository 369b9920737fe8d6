"""Writes docs/commands.md from --help-all of every command. `make docs` calls it; a test compares."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "simulations/gaussian_mixture.py",
    "simulations/guided_diffusion.py",
    "simulations/image_worth.py",
    "image_experiments/run_cifar.py",
    "image_experiments/run_sweep.py",
    "image_experiments/run_search.py",
    "image_experiments/evaluate.py",
    "image_experiments/export.py",
    "image_experiments/merge_shards.py",
    "figures/regenerate.py",
    "figures/keep_reference.py",
)
HEAD = """# Commands

Every command has `--help` (long ones also `--help-all`), `--version` and `--traceback`, which shows where an error arose. It prints its
settings first. It exits with 0 if all is well, 1 for an error that you can fix (gaussian_mixture.py also where a simulation disagrees
with theory), 2 for an unknown flag, 130 if it was interrupted. `python docs/write_commands.py` writes this page.
"""


TELL = """
import contextlib, io, json, runpy, sys
told = {}
for command in sys.argv[1:]:
    sys.argv = [command, "--help-all"]
    page = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(page, encoding="utf-8")) as out, contextlib.suppress(SystemExit):
        runpy.run_path(command, run_name="__main__")
    out.flush()
    told[command] = page.getvalue().decode()
print(json.dumps(told))
"""
"""A program that prints the help of all commands, so that packages are imported once."""


@functools.cache
def all_help() -> dict[str, str]:
    narrow = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONHASHSEED": "0"}
    call = [sys.executable, "-c", TELL, *COMMANDS]
    done = subprocess.run(call, cwd=ROOT, env=narrow, check=True, capture_output=True, text=True, encoding="utf-8")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def help_of(command: str) -> list[str]:
    """Lines of its help, without frames."""
    return [re.sub(r"^│ ?|\s*│$", "", line).rstrip() for line in all_help()[command].splitlines()]


def from_here(default: re.Match[str]) -> str:
    """A default that is a file of the project, without its folder and the spaces where the line was full."""
    path = default.group(1).replace(" ", "")
    return f"(default: {path[path.rindex('image_experiments/') :]})"


def escaped(text: str) -> str:
    text = re.sub(r"\(default: '?(/.*?\.toml)'?\)", from_here, text)
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")


def is_open(name: str) -> bool:
    """Whether the choices of an option go on in the next line."""
    return any(name.count(left) > name.count(right) for left, right in ("{}", "[]"))


def page_of(command: str) -> str:
    """Its section: a table for each group of options."""
    lines = help_of(command)
    about = next(line for line in lines if line and not line.startswith("usage:"))
    made = [f"## {Path(command).name}", "", escaped(about), "", "```", f"python {command} [OPTIONS]", "```"]
    rows: list[list[str]] = []
    for line in lines:
        if group := re.match(r"╭─ (.*?) ─", line):
            made += ["", f"**{group.group(1)}**", "", "| option | what |", "|---|---|"]
            rows = []
        elif line.startswith("╰"):
            made += [
                f"| `{name.replace('|', chr(92) + '|')}` | {escaped(what)} |" for name, what in rows if not name.startswith("-h")
            ]
            rows = []
        elif rows and not line.startswith(" ") and is_open(rows[-1][0]):
            rows[-1][0] += ("" if rows[-1][0].endswith(",") else " ") + line.strip()
        elif line.startswith(" ") and rows:
            rows[-1][1] = f"{rows[-1][1]} {line.strip()}".strip()
        elif re.match(r"--?\w|[A-Z]+( |$)|\[|\w+ \[", line) and not line.startswith("--version:"):
            rows.append([*re.split(r"\s{2,}", line.strip(), maxsplit=1), ""][:2])
    return "\n".join(made) + "\n"


def page() -> str:
    return "\n".join([HEAD, *map(page_of, COMMANDS)])


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(page(), encoding="utf-8")
