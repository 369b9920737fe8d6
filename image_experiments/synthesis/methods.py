"""Methods: the ways to make synthetic images, as named on the command line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from command_line.output import UserError, did_you_mean
from command_line.values import at_home
from image_experiments.data.given import PIECES, stem_of

CONTRASTIVE = ("infonce", "hard-negative", "supervised", "anchored")
BY_LABEL = ("feedback", "boundary", "cads")
"""These need a model that draws the classes that are asked for."""
ON_PREDICTION = ("classifier-free", "autoguidance", "cads")
"""These change the noise prediction itself, at every step and in one direction."""
KINDS = (*CONTRASTIVE, "classifier", "feedback", "boundary", "particle", *ON_PREDICTION)
"""Guidance by a contrastive loss; by a classifier (Dhariwal, Nichol 2021); by what the encoder finds hard (Hemmat et al. 2023) or by its
boundary; by repulsion (Corso et al. 2023); classifier-free (Ho, Salimans 2022), by a weaker model (Karras et al. 2024), and with blurred
labels (CADS, Sadat et al. 2024)."""
NOISES = ("noise", "noise-real")
"""Gaussian noise on unguided images, and on copies of the real training images."""
DEFAULT_GUIDANCE = "particle:auto"
"""The best of those compared on digits and MNIST, with automatic strength (strength.py); tested in designs/*-default.toml."""
DEFAULT_SCALE = 0.3
DEFAULT_NOISE = 0.1
UNCONDITIONAL = "auto uses label error, and this model takes no labels"


@dataclass(frozen=True)
class Method:
    """kind: "real", "unguided", "noise", "noise-real", "npz" or one of KINDS. scale: guidance scale, or standard deviation of the noise on
    the [0, 1] scale."""

    text: str
    kind: str
    scale: float = 0.0
    reverse: bool = False
    file: Path | None = None
    automatic: bool = False
    """Whether the scale still has to be found by strength.py; until then `scale` is a usual value."""

    @property
    def label(self) -> str:
        """Name in tables and folders: infonce-0.3, anchored-reversed-0.1, unguided."""
        if self.file is not None:
            return re.sub(r"[^\w.-]", "_", f"npz-{stem_of(self.file)}")
        return self.kind + "-reversed" * self.reverse + self._strength

    @property
    def _strength(self) -> str:
        return "" if self.kind in ("real", "unguided") else "-auto" if self.automatic else f"-{self.scale:g}"

    @property
    def uses_encoder(self) -> bool:
        """Whether the encoder guides."""
        return self.kind in KINDS and self.kind not in ON_PREDICTION

    @property
    def generates(self) -> bool:
        """Whether images are sampled for this method; "noise" uses the unguided ones, "noise-real" the real ones."""
        return self.kind not in ("real", "npz", *NOISES)


def parse_method(text: str) -> Method:
    """The method named KIND, KIND:SCALE, KIND:auto, KIND-reversed[:SCALE|:auto] or npz:FILE. Raises UserError naming the nearest kind."""
    name, colon, rest = text.partition(":")
    if name == "npz":
        if not rest:
            raise UserError(f"--methods {text}: name the file of generated images: npz:FILE, npz:FOLDER or npz:'PATTERN'")
        return Method(text, "npz", file=Path(PIECES.join(map(at_home, rest.split(PIECES)))))
    kind, reverse = name.removesuffix("-reversed"), name.endswith("-reversed")
    known = ("real", "unguided", *NOISES, "npz", *KINDS)
    if kind not in known:
        raise UserError(f"--methods {text}: unknown{did_you_mean(kind, known)}; use one of {', '.join(known)}")
    if kind in ("real", "unguided"):
        if colon or reverse:
            raise UserError(f"--methods {text}: {kind} takes no scale and no direction; write {kind}")
        return Method(text, kind)
    if reverse and kind in (*NOISES, *ON_PREDICTION):
        raise UserError(f"--methods {text}: {kind} cannot be reversed; write {kind}")
    if rest == "auto":
        if kind in (*NOISES, *ON_PREDICTION):
            raise UserError(f"--methods {text}: {kind} has no scale auto; give a number, for example {kind}:0.1")
        return Method(text, kind, DEFAULT_SCALE, reverse, automatic=True)
    try:
        scale = float(rest) if colon else (DEFAULT_NOISE if kind in NOISES else DEFAULT_SCALE)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"--methods {text}: the scale must be a finite number > 0, for example {kind}:0.3")
    return Method(text, kind, scale, reverse)
