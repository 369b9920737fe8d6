"""Descriptions of synthetic images against closed forms on Gaussians and plain loops."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from image_experiments.features import (
    class_snr_and_alignment,
    describe_images,
    frechet_distance,
    nearest_real,
    precision_recall,
    separation_and_diversity,
)


def test_frechet_distance_is_that_of_the_fitted_gaussians():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(300, 5)) + 0.5
    s, t = np.cov(one.T), np.cov(other.T)
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_by_plain_loops():
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(60, 2)), 0.3 * rng.normal(size=(50, 2)) + 0.4

    def covered(points, manifold, k=3):
        radius = [sorted(np.linalg.norm(manifold - m, axis=1))[k] for m in manifold]
        return np.mean([any(np.linalg.norm(p - m) <= r for m, r in zip(manifold, radius, strict=True)) for p in points])

    precision, recall = precision_recall(real, synthetic, 3)
    assert precision == pytest.approx(covered(synthetic, real))
    assert recall == pytest.approx(covered(real, synthetic))
    assert precision > 0.9  # faithful
    assert recall < 0.6  # but narrow


def test_class_snr_and_alignment_of_gaussian_classes():
    """Two classes at +-mu with covariance S: SNR = ||mu|| / sqrt(u'Su), u = mu/||mu||; classes turned by an angle: its cosine."""
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], 40_000)
    mu, angle = np.array([1.5, 0.0]), 0.7
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    noise = rng.multivariate_normal([0, 0], cov, len(y))
    real = noise + np.where(y[:, None] == 1, mu, -mu)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ mu
    synthetic = noise + np.where(y[:, None] == 1, turned, -turned)
    u = turned / 1.5
    snr, alignment = class_snr_and_alignment(real, y, synthetic, y)
    assert snr == pytest.approx(1.5 / np.sqrt(u @ cov @ u), rel=0.02)
    assert alignment == pytest.approx(np.cos(angle), abs=0.01)
    assert class_snr_and_alignment(real, y, real, y)[1] == pytest.approx(1)


def test_separation_and_diversity_by_hand():
    features = np.array([[0.0, 0], [0, 2], [3, 0], [3, 2], [7.0, 1]])
    y = np.array([0, 0, 1, 1, 2])  # centres (0, 1), (3, 1), (7, 1)
    separation, diversity = separation_and_diversity(features, y)
    assert separation == pytest.approx((3 + 7 + 4) / 3)
    assert diversity == pytest.approx(4 / 5)


def test_repeated_training_images_are_seen():
    rng = np.random.default_rng(3)
    train, validation = rng.random((50, 20)), rng.random((30, 20))
    distance, ratio = nearest_real(train[:10] + 1e-3, train, validation)
    assert distance == pytest.approx(1e-3 * np.sqrt(20))
    assert ratio < 0.01
    assert nearest_real(rng.random((40, 20)), train, validation)[1] == pytest.approx(1, abs=0.05)
    assert np.isnan(nearest_real(train, train, validation[:0])[1])


def test_a_description_holds_every_measure_and_the_label_error():
    rng = np.random.default_rng(4)
    features = {name: rng.normal(size=(40, 6)) for name in ("train", "validation", "test", "synthetic")}
    features["synthetic"] = np.concatenate([features["synthetic"], rng.normal(size=(20, 6))]) * 0.3
    labels = {name: np.arange(len(part)) % 4 for name, part in features.items()}
    labels["synthetic"] = rng.permutation(labels["synthetic"])
    judged = {name: labels[name].copy() for name in ("test", "synthetic")}
    judged["synthetic"][:15] += 1
    judged["test"][:4] += 1
    pixels = {name: rng.random((len(part), 9)) for name, part in features.items()}
    found = describe_images(features, labels, pixels, judged, 5)
    assert (found["precision"], found["recall"]) == precision_recall(features["train"], features["synthetic"][:40], 5)
    assert found["precision"] > found["recall"]
    expected = class_snr_and_alignment(features["train"], labels["train"], features["synthetic"], labels["synthetic"])
    assert (found["class_snr"], found["alignment"]) == expected
    assert found["nearest_training_image"] == nearest_real(pixels["synthetic"], pixels["train"], pixels["validation"])[0]
    assert (found["label_error"], found["label_error_floor"]) == (0.25, 0.1)
    assert found["frechet_distance"] == frechet_distance(features["train"], features["synthetic"])
    assert found["frechet_floor"] == frechet_distance(features["train"], features["test"])
    assert np.isfinite(list(found.values())).all()
    assert set(found) >= {"frechet_distance", "precision", "recall", "class_snr", "alignment", "within_class_diversity"}
