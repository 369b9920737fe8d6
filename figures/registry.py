"""All figures and tables, in the order of the report."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from command_line.output import UserError
from figures.figure import Figure

SECTIONS = {
    "theory_figures": (
        "accuracy_against_n",
        "ceiling",
        "linf_mean",
        "sample_gap",
        "frontier",
        "class_snr",
        "phase_diagram",
        "beside_real_data",
        "subpopulations",
        "theory_vs_simulation",
        "real_data",
    ),
    "diffusion_figures": (
        "samples",
        "trajectories",
        "ddim_shrinkage",
        "price_gain",
        "guidance_gallery",
        "guidance_value",
        "prediction",
        "guided_accuracy",
        "gain_against_snr",
        "learners",
        "rotation",
        "solvers",
    ),
    "image_figures": (
        "digit_samples",
        "robust_accuracy",
        "comparisons_confirmed",
        "exchange_rate",
        "predicted_worth",
        "data_on_diagram",
        "pipeline",
        "pipeline_mnist",
        "pipeline_gtsrb",
        "where_guidance_gains",
        "accuracy_against_synthetic",
        "ablation_loss",
        "ablation_window",
        "ablation_embedding",
        "ablation_selection",
        "paper_ablations",
        "diversity_robustness",
        "forecast",
        "comparisons",
        "comparisons_further",
        "radius",
        "gtsrb_samples",
        "cifar10_samples",
        "training_curves",
        "comparisons_photographs",
    ),
    "tables": (
        "theory_checks",
        "guidance",
        "best_guidance",
        "images",
        "ablations",
        "search",
        "predictors",
        "claims",
        "attack_parts",
        "photographs",
        "claims_photographs",
        "traffic_signs",
        "sets",
    ),
}
"""Section -> its modules, each figures/SECTION/NAME.py. To add a figure, add a module there and a line here."""


@dataclass(frozen=True)
class Entry:
    """A figure or a table by name, with its module."""

    name: str
    section: str
    module: ModuleType

    @property
    def figure(self) -> Figure:
        found: Figure = self.module.FIGURE
        return found

    @property
    def is_table(self) -> bool:
        return self.section == "tables"


def entries(names: tuple[str, ...] = ()) -> list[Entry]:
    """The entries with these names (empty: all), in the order of the report."""
    return [
        Entry(name, section, _module(section, name))
        for section, members in SECTIONS.items()
        for name in members
        if not names or name in names
    ]


def _module(section: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"figures.{section}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"figures.{section}.{name}":
            raise
        raise UserError(f"figures/registry.py: lists {name}, but there is no figures/{section}/{name}.py; write it") from None


def all_names() -> list[str]:
    return [name for members in SECTIONS.values() for name in members]


def figures_of(experiment: str) -> list[Entry]:
    """Figures, without tables, whose results all come from this experiment."""
    return [e for e in entries() if not e.is_table and all(name.startswith(f"{experiment}/") for name in e.figure.inputs)]
