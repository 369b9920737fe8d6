"""Names options that a run does not read, so that nobody believes in their effect."""

from __future__ import annotations

from collections.abc import Iterator

from image_experiments.engine.presets import PRESETS
from image_experiments.engine.settings import Settings, as_flag, flat
from image_experiments.synthesis.methods import CONTRASTIVE, ON_PREDICTION, Method


def told_of_unread(settings: Settings) -> list[str]:
    """A line for each option that differs from the preset and from its default, and has no effect. No refusal: a design's options are
    for all of its runs."""
    presets, defaults, chosen = flat(PRESETS[settings.preset]()), flat(Settings()), flat(settings)
    told = []
    for name, why in _without_effect(settings):
        if chosen[name] not in (presets[name], defaults[name]):
            told.append(f"{as_flag(name, chosen[name])}: has no effect here, as {why}")
    return told


def _without_effect(settings: Settings) -> Iterator[tuple[str, str]]:
    """(name of a setting, why it has no effect)."""
    if settings.diffusion.load is not None:
        yield "diffusion.conditional", "a loaded model takes labels or not, and draws by them if it does"
    methods = settings.parsed_methods()
    guided = [method for method in methods if method.uses_encoder]
    if not guided:
        others = sorted({method.kind for method in methods if method.kind in ON_PREDICTION})
        why = (
            f"{' and '.join(others)} act{'s' * (len(others) == 1)} at every step" if others else "no method is guided by an encoder"
        )
        yield from ((f"generation.{name}", why) for name in ("window", "at", "every", "relative"))
    elif all(method.automatic for method in guided):
        yield "generation.window", "a scale auto chooses among --generation.windows"
    if not any(_may_use_head(method, settings) for method in methods):
        yield "generation.head", f"only {', '.join(CONTRASTIVE)} and particle in features take one"


def _may_use_head(method: Method, settings: Settings) -> bool:
    return method.kind in CONTRASTIVE or (method.kind == "particle" and settings.generation.repel == "features")
