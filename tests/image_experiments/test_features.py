"""Descriptions of synthetic images against closed forms on Gaussians and plain loops."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from image_experiments.data.images import Images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.evaluation.description import describe_synthetic, to_boundary
from image_experiments.evaluation.features import (
    DescriptionSettings,
    class_alignment,
    class_snr,
    describe_images,
    effective_dimension,
    frechet_distance,
    nearest_distances,
    nearest_real,
    precision_recall,
    separation_and_diversity,
)
from image_experiments.models.classifiers import make_classifier


def test_frechet_distance_is_that_of_the_fitted_gaussians():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(300, 5)) + 0.5
    s, t = np.cov(one.T), np.cov(other.T)
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_by_plain_loops():
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(50, 2)), 0.3 * rng.normal(size=(50, 2)) + 0.4

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
    snr, error = class_snr(synthetic, y)
    assert snr == pytest.approx(1.5 / np.sqrt(u @ cov @ u), abs=4 * error)
    assert error < 0.01
    assert class_snr(synthetic, y, with_error=False) == (snr, pytest.approx(np.nan, nan_ok=True))
    assert class_alignment(real, y, synthetic, y) == pytest.approx(np.cos(angle), abs=0.01)
    assert class_alignment(real, y, real, y) == pytest.approx(1)
    assert class_alignment(real, y, 3 * synthetic, y) == pytest.approx(np.cos(angle), abs=0.01)  # a cosine, whatever the lengths
    three = np.repeat([0, 1, 2], 10_000)
    x = rng.normal(size=(30_000, 1)) + np.array([0.0, 2, 6])[three][:, None]
    assert class_snr(x, three, with_error=False)[0] == pytest.approx((1 + 3 + 2) / 3, rel=0.02)  # of every pair


@pytest.mark.parametrize(("n", "dim"), [(50, 128), (250, 128), (50, 3072)])
def test_identical_classes_have_class_snr_zero(n, dim):
    """Where the line is fitted to the points that it is measured on these give 1.14, .52 and 5.2."""
    rng = np.random.default_rng(n + dim)
    x, y = rng.normal(size=(2 * n, dim)) * rng.uniform(0.2, 3, dim), np.arange(2 * n) % 2
    found = np.array([class_snr(x, rng.permutation(y)) for _ in range(20)])
    assert abs(found[:, 0].mean()) < 0.05
    assert 0.4 < found[:, 0].std(ddof=1) / found[:, 1].mean() < 1.5  # of one value; a jackknife errs upwards where images are few


def test_noise_turns_the_line_towards_narrow_directions():
    """So class SNR can err high where the spread depends on the direction, as its docstring says; false alarm below 1e-4 on each side."""
    apart, std, n = np.array([1.0, 0.9]), np.array([1.0, 0.1]), 50
    along = apart / np.linalg.norm(apart)
    true = np.linalg.norm(apart) / (2 * np.linalg.norm(along * std))
    y, found = np.repeat([0, 1], n), []
    for seed in range(200):
        x = np.random.default_rng([seed, 3]).standard_normal((2 * n, 2)) * std + np.outer(y, apart)
        found.append(class_snr(x, y, seed=seed, with_error=False)[0])
    mean, error = np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))
    assert mean - true > 4 * error
    assert abs(mean - 0.942) < 4 * error


def test_the_error_of_class_snr_is_its_spread():
    """200 draws of classes of class SNR 2 in 20 dimensions: mean within 3 % of it (halves of 100 find the line to 0.975), sd as said."""
    rng, mu = np.random.default_rng(7), np.eye(20)[0] * 2
    y = np.arange(400) % 2
    found = np.array([class_snr(rng.normal(size=(400, 20)) + np.where(y[:, None] == 1, mu, -mu), y, seed) for seed in range(200)])
    line = 2 / np.sqrt(2**2 + 20 / 200)  # E of the cosine, |mu| / sqrt(|mu|^2 + dim (2 / 100) / 4)
    assert found[:, 0].mean() == pytest.approx(2 * line, abs=4 * found[:, 0].std() / np.sqrt(200))
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.25)


@pytest.mark.parametrize("times", [2, 5])
def test_copies_do_not_tell_identical_classes_apart(times):
    """Copies in both halves gave .62 for each point twice, 1.54 for each five times."""
    rng = np.random.default_rng(times)
    x, y = np.repeat(rng.normal(size=(200, 64)), times, axis=0), np.repeat(np.arange(200) % 2, times)
    found = []
    for _ in range(20):
        labels = np.repeat(rng.permutation(200) % 2, times)
        found.append(class_snr(x, labels)[0])
    assert abs(np.mean(found)) < 0.05
    assert np.isfinite(class_snr(x, y)).all()
    few = np.repeat(rng.normal(size=(4, 8)), 10, axis=0)
    assert np.isnan(class_snr(few, np.repeat([0, 0, 1, 1], 10))[1])  # two different images a class


def test_class_snr_of_few_images_or_one_class():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(30, 4))
    assert np.isnan(class_snr(x, np.zeros(30, int))).all()
    value, error = class_snr(x, np.repeat([0, 1, 2], [24, 5, 1]))  # the class of one image is left out
    assert np.isfinite(value)
    assert np.isnan(error)


def test_separation_and_diversity_by_hand():
    features = np.array([[0.0, 0], [0, 2], [3, 0], [3, 2], [7.0, 1]])
    y = np.array([0, 0, 1, 1, 2])  # centres (0, 1), (3, 1), (7, 1)
    separation, diversity = separation_and_diversity(features, y)
    assert separation == pytest.approx((3 + 7 + 4) / 3)
    assert diversity == pytest.approx(4 / 5)


def test_repeated_training_images_are_seen():
    rng = np.random.default_rng(3)
    train, validation = rng.random((50, 20)), rng.random((30, 20))
    assert nearest_real(train[::-1].astype(np.float32), train.astype(np.float32), validation) == (0.0, 0.0)
    distance, ratio = nearest_real(train[:10] + 1e-3, train, validation)
    assert distance == pytest.approx(1e-3 * np.sqrt(20))
    assert ratio < 0.01
    assert nearest_real(rng.random((40, 20)), train, validation)[1] == pytest.approx(1, abs=0.05)
    assert np.isnan(nearest_real(train, train, validation[:0])[1])


def test_nearest_images_among_many_by_plain_loops():
    """More training images than fit in one piece, copies and near copies among them."""
    rng = np.random.default_rng(5)
    among = rng.random((9000, 12), dtype=np.float32)
    points = np.concatenate([among[8990:], among[:5] + np.float32(1e-4), rng.random((50, 12), dtype=np.float32)])
    expected = [np.linalg.norm(among.astype(np.float64) - p.astype(np.float64), axis=1).min() for p in points]
    found = nearest_distances(points, among)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert not found[:10].any()


def test_precision_and_recall_do_not_depend_on_the_order_of_a_file():
    """Sorted by class the first 60 of 240 images cover one class of four, and of the real images a quarter."""
    rng = np.random.default_rng(6)
    centres = 8 * rng.normal(size=(4, 6))
    real, synthetic = (centres[np.arange(n) * 4 // n] + rng.normal(size=(n, 6)) for n in (60, 240))
    shuffled = synthetic[rng.permutation(240)]
    assert precision_recall(real, synthetic, 5)[1] > 0.8
    assert precision_recall(real, synthetic, 5)[1] == pytest.approx(precision_recall(real, shuffled, 5)[1], abs=0.15)
    assert precision_recall(synthetic, real, 5)[0] > 0.8


def test_a_description_holds_every_measure_and_the_label_error():
    rng = np.random.default_rng(4)
    features = {name: rng.normal(size=(40, 6)) for name in ("train", "validation", "test", "synthetic")}
    features["synthetic"] = np.concatenate([features["synthetic"], rng.normal(size=(20, 6))]) * 0.3
    labels = {name: np.arange(len(part)) % 4 for name, part in features.items()}
    labels["synthetic"] = rng.permutation(labels["synthetic"])
    judged = {name: labels[name].copy() for name in ("test", "synthetic")}
    judged["synthetic"][:15] += 1
    judged["test"][:4] += 1
    found = describe_images(features, labels, (0.3, 0.9), judged, 5)
    assert (found["precision"], found["recall"]) == precision_recall(features["train"], features["synthetic"], 5)
    assert found["precision"] > found["recall"]
    expected = class_snr(features["synthetic"], labels["synthetic"])
    assert (found["class_snr_crossfit"], found["class_snr_crossfit_error"]) == expected
    assert found["alignment"] == class_alignment(features["train"], labels["train"], features["synthetic"], labels["synthetic"])
    assert (found["nearest_training_image"], found["nearest_relative_to_unseen"]) == (0.3, 0.9)
    assert (found["label_error"], found["label_error_floor"]) == (0.25, 0.1)
    both = separation_and_diversity(features["synthetic"], labels["synthetic"])
    assert (found["class_separation"], found["within_class_diversity"]) == both
    assert both[0] != both[1]
    assert found["frechet_distance"] == frechet_distance(features["train"], features["synthetic"])
    assert found["frechet_floor"] == frechet_distance(features["train"], features["test"])
    assert np.isfinite(list(found.values())).all()
    assert set(found) >= {"frechet_distance", "precision", "recall", "class_snr_crossfit", "alignment", "within_class_diversity"}


@pytest.mark.parametrize(("n", "dim"), [(60, 20), (40, 100), (2000, 8)])
def test_the_effective_dimension_has_no_bias_that_matters(n, dim):
    """(tr S)^2 / tr S^2 of Gaussian classes with known S, mean over 200 draws, |z| < 4 plus 2 % for that of a ratio; rotated, shifted."""
    rng = np.random.default_rng([n, dim])
    root = rng.normal(size=(dim, dim)) * np.geomspace(1, 0.05, dim)
    cov = root @ root.T
    expected = np.trace(cov) ** 2 / np.trace(cov @ cov)
    y = np.arange(n) % 4
    found = [effective_dimension(rng.normal(size=(n, dim)) @ root.T + 5.0 * rng.normal(size=(4, dim))[y], y) for _ in range(200)]
    error = np.std(found, ddof=1) / np.sqrt(200)
    assert abs(np.mean(found) - expected) < 4 * error + 0.02 * expected
    plain = [np.cov((rng.normal(size=(n, dim)) @ root.T).T) for _ in range(100)]
    if n < 10 * dim:  # what the correction is for
        assert np.mean([np.trace(s) ** 2 / np.trace(s @ s) for s in plain]) < 0.95 * expected
    assert effective_dimension(np.eye(3), np.arange(3)) != effective_dimension(np.eye(3), np.arange(3))  # nan: no freedom


def test_distances_to_the_boundary_are_those_of_a_linear_encoder():
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (1100, 1, 8, 8), generator=generator).to(torch.uint8)
    y = torch.arange(1100) % 2
    encoder = make_classifier("linear", 2, (1, 8, 8), [0.4], [0.2], seed=4).eval()
    w = (encoder.head.weight[1] - encoder.head.weight[0]).detach().double().numpy() / 0.2
    b = float((encoder.head.bias[1] - encoder.head.bias[0]).detach()) - 0.4 * w.sum()
    sign = 2 * y.numpy() - 1
    expected = sign * (x.double().flatten(1).numpy() / 255 @ w + b) / np.linalg.norm(w)
    np.testing.assert_allclose(to_boundary(encoder, Images(x, y)), expected, atol=1e-5)
    real = SplitDataset(Images(x[:50], y[:50]), Images(x[50:80], y[50:80]), Images(x[80:120], y[80:120]), ("a", "b"))
    found = describe_synthetic(DescriptionSettings(images=2000), real, Images(x[200:], y[200:]), encoder, encoder, "test")
    assert found["boundary_distance"] == pytest.approx(expected[200:].mean(), abs=1e-5)
    assert found["boundary_distance_sd"] == pytest.approx(expected[200:].std(ddof=1), rel=1e-4)
    assert found["boundary_distance_floor"] == pytest.approx(expected[80:120].mean(), abs=1e-5)
    assert found["effective_dimension_pixels"] == pytest.approx(64, rel=0.15)  # uniform grey levels
    few = describe_synthetic(DescriptionSettings(images=2000), real, Images(x[200:220], y[200:220]), encoder, encoder, "test")
    floor = float(to_boundary(encoder, real.test.some(20)).mean())  # of no more than the synthetic ones
    assert few["boundary_distance_floor"] == pytest.approx(floor, abs=1e-5)
    assert abs(floor - expected[80:120].mean()) > 1e-3
    nothing = describe_synthetic(DescriptionSettings(images=100), real, Images(x[200:], y[200:]), encoder, encoder, "validation")
    assert np.isnan(nothing["boundary_distance_floor"])


def test_all_training_images_are_searched_whatever_is_described():
    """Copies of training images that are not among those described: once "no copies", at .89 of the distance of unseen images."""
    generator = torch.Generator().manual_seed(0)

    def images(n):
        return Images(torch.randint(0, 256, (n, 1, 8, 8), generator=generator).to(torch.uint8), torch.arange(n) % 2)

    real = SplitDataset(images(600), images(60), images(60), ("a", "b"))
    judge = make_classifier("small-cnn-8", 2, (1, 8, 8), [0.5], [0.3]).eval()
    copies = Images(real.train.x[1::3].clone(), real.train.y[1::3].clone())
    found = describe_synthetic(DescriptionSettings(images=50), real, copies, judge, judge, "test")
    assert found["nearest_training_image"] == found["nearest_relative_to_unseen"] == 0
    assert np.isfinite(list(found.values())).all()


def test_copies_count_once_in_class_snr():
    """Two different images a class give no number, however often they are there; ten give that of the ten."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 8))
    assert np.isnan(class_snr(np.repeat(x, 10, axis=0), np.repeat([0, 0, 1, 1], 10))).all()
    x, y = rng.normal(size=(20, 8)), np.arange(20) % 2
    x[y == 1] += 1
    order = rng.permutation(100)
    assert class_snr(np.repeat(x, 5, axis=0)[order], np.repeat(y, 5)[order], 0)[0] == pytest.approx(
        class_snr(*once(x, y, order), 0)[0], rel=1e-12
    )


def once(x, y, order):
    """The images in the order in which the shuffled copies have them first."""
    first = list(dict.fromkeys((order // 5).tolist()))
    return x[first], y[first]


def test_precision_and_recall_need_little_memory():
    """All distances at once would take 288 MB twice."""
    rng = np.random.default_rng(4)
    real, synthetic = rng.random((6000, 4)), rng.random((6000, 4))
    tracemalloc.start()
    try:
        precision_recall(real, synthetic, 5)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_class_snr_of_many_classes_needs_little_memory():
    """The lines between 60 classes of 6,000 numbers would take 85 MB at once, three times."""
    rng = np.random.default_rng(5)
    x, y = rng.random((480, 6000)), np.arange(480) % 60
    tracemalloc.start()
    try:
        class_snr(x, y, with_error=False)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
