"""The learning curve of the diffusion model; its rows survive an interruption, like the checkpoints."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from command_line.output import write_csv

HEADER = ("step", "loss", "clean_accuracy", "robust_accuracy")
SHORT = ("step", "loss")


class Curve:
    """Mean losses over `every` steps each, written to a file as they come.

    A row is written before the checkpoint of the same step; a run that resumes from an earlier checkpoint writes the same row again.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.unfinished = path.with_name("unfinished-" + path.name)
        self.rows = [(int(step), float(loss)) for step, loss in _read(path)]
        self.recent: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Record the loss of a step; it stays on the device until a row is due."""
        if not self.recent and (step - 1) % self.every:  # resumed within an interval, after an interruption that saved a checkpoint
            before = [(int(number), torch.tensor(float(value))) for number, value in _read(self.unfinished)]
            self.recent = before if before and before[-1][0] == step - 1 else []
        self.recent.append((step, loss))
        if step % self.every == 0:
            mean = float(torch.stack([value.to(loss.device) for _, value in self.recent]).cpu().double().mean())
            self.rows = [row for row in self.rows if row[0] < step] + [(step, mean)]
            self.recent.clear()
            write_csv(self.path, SHORT, self.rows)

    def keep_unfinished(self) -> None:
        """Write the losses since the last row, for a run that resumes within the interval. Without any, those of an earlier run stay."""
        if not self.recent:
            return
        write_csv(self.unfinished, SHORT, [(step, float(loss)) for step, loss in self.recent])

    def write(self, path: Path) -> Path:
        """The whole curve as csv."""
        return write_csv(path, HEADER, [(step, loss, "", "") for step, loss in self.rows])


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [(row["step"], row["loss"]) for row in csv.DictReader(stream)]
