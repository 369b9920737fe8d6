"""Describes synthetic images in the chosen feature space."""

from __future__ import annotations

from torch import nn

from contrastive_dp import ClassifierFeatures
from image_experiments.data.images import Images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.evaluation.features import DescriptionSettings, class_snr, describe_images, flat_pixels, nearest_real
from image_experiments.models.labels_and_features import pseudo_labels, unit_features


def describe_synthetic(
    settings: DescriptionSettings, real: SplitDataset, synthetic: Images, judge: nn.Module, encoder: nn.Module, split: str
) -> dict[str, float]:
    """Measures of some of the synthetic images against the real ones, see features.describe_images. Their class SNR is always measured in
    pixels, in the judge's features and in the encoder's features, whichever of these the other measures use.

    split: with "validation", where choices are made, the test images are not used and the floors are nan.
    """
    made = synthetic.some(settings.images)
    parts = {
        "train": real.train.some(settings.images),
        # no more than the synthetic ones, because a Frechet distance depends on how many images are compared
        "test": real.test.some(len(made) if split == "test" else 0),
        "synthetic": made,
    }
    device = next(judge.parameters()).device
    nearest = nearest_real(flat_pixels(made.x), flat_pixels(real.train.x), flat_pixels(real.validation.x), device)  # all of them
    pixels = {name: flat_pixels(parts[name].x).astype("float64") for name in ("train", "test", "synthetic")}
    labels = {name: part.y.numpy() for name, part in parts.items()}
    embedded = {"pixels": pixels}
    for kind, classifier in (("judge", judge), ("encoder", encoder)):
        embed = ClassifierFeatures(classifier)
        used = parts if kind == settings.features else ("synthetic",)  # class SNR alone
        embedded[kind] = {name: unit_features(embed, parts[name].x).double().numpy() for name in used if len(parts[name])}
    features = pixels | embedded[settings.features]
    judged = {name: pseudo_labels(judge, parts[name].x).numpy() for name in ("test", "synthetic") if len(parts[name])}
    return describe_images(features, labels, nearest, judged, settings.neighbours) | {
        f"class_snr_crossfit_{kind}": class_snr(of["synthetic"], labels["synthetic"])[0] for kind, of in embedded.items()
    }
