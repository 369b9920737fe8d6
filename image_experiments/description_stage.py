"""Synthetic images described in the feature space that was chosen."""

from __future__ import annotations

from torch import nn

from contrastive_dp import ClassifierFeatures
from image_experiments.adversarial import Images
from image_experiments.features import DescriptionSettings, class_snr_and_alignment, describe_images, flat_pixels
from image_experiments.real_images import RealImages
from image_experiments.selection import pseudo_labels, unit_features


def describe_synthetic(
    settings: DescriptionSettings, real: RealImages, synthetic: Images, judge: nn.Module, encoder: nn.Module, split: str
) -> dict[str, float]:
    """Measures of some of the synthetic images beside the real ones, see features.describe_images; and their class SNR in pixels, in the
    judge's and in the encoder's features, whichever of them the other measures are taken in.

    split: where choices are made on validation images nobody looks at the test images, and the floors are nan.
    """
    made = synthetic.some(settings.images)
    parts = {
        "train": real.train.some(settings.images),
        "validation": real.validation.some(settings.images),
        # no more than synthetic ones, as a Frechet distance depends on how many are compared
        "test": real.test.some(len(made) if split == "test" else 0),
        "synthetic": made,
    }
    pixels = {name: flat_pixels(part.x) for name, part in parts.items()}
    labels = {name: part.y.numpy() for name, part in parts.items()}
    embedded = {"pixels": pixels}
    for kind, classifier in (("judge", judge), ("encoder", encoder)):
        embed = ClassifierFeatures(classifier)
        used = parts if kind == settings.features else ("train", "synthetic")  # class SNR alone
        embedded[kind] = {name: unit_features(embed, parts[name].x).double().numpy() for name in used if len(parts[name])}
    features = pixels | embedded[settings.features]  # without validation images there are no features of theirs
    judged = {name: pseudo_labels(judge, parts[name].x).numpy() for name in ("test", "synthetic") if len(parts[name])}
    return describe_images(features, labels, pixels, judged, settings.neighbours) | {
        f"class_snr_{kind}": class_snr_and_alignment(of["train"], labels["train"], of["synthetic"], labels["synthetic"])[0]
        for kind, of in embedded.items()
    }
