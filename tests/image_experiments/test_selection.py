"""Scores against their definitions, and the choice of the best of each class against a plain loop."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from contrastive_dp import ClassifierFeatures
from image_experiments.data.images import Images
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.labels_and_features import pseudo_labels
from image_experiments.synthesis import selection
from image_experiments.synthesis.methods import parse_method
from image_experiments.synthesis.selection import (
    Scorers,
    SelectionSettings,
    best_of_each_class,
    keeps_highest,
    ranks_in_clusters,
    scores,
)


@pytest.fixture(scope="module")
def problem():
    generator = torch.Generator().manual_seed(0)
    encoder = make_classifier("small-cnn-8", 4, (1, 8, 8), [0.5], [0.3], seed=2).eval().double()
    x = torch.randint(0, 256, (30, 1, 8, 8), generator=generator).to(torch.uint8)
    real = torch.randint(0, 256, (40, 1, 8, 8), generator=generator).to(torch.uint8)
    return encoder, x, torch.arange(30) % 4, real, torch.arange(40) % 4


class Double(torch.nn.Module):
    """The network in double precision on what the stages hand over in single."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.double())


def found(problem, criterion):
    encoder, x, y, real, real_y = problem
    by = Scorers(Double(encoder), Double(encoder), Images(real, real_y))
    return scores(criterion, by, x, y, 12, seed=1).double().numpy()


def features_of(problem, x):
    z = ClassifierFeatures(problem[0])(x.double() / 127.5 - 1).detach().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_confidence_and_entropy_by_their_definitions(problem):
    encoder, x, y = problem[:3]
    p = encoder(x.double() / 255).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found(problem, "confidence"), p[np.arange(30), y], rtol=1e-6)
    np.testing.assert_allclose(found(problem, "entropy"), [-sum(v * math.log(v) for v in row) for row in p], rtol=1e-6)


def test_gradient_norm_by_finite_differences(problem):
    encoder, x, y = problem[:3]
    loss = lambda images: -encoder(images).log_softmax(dim=1)[torch.arange(30), y]  # noqa: E731
    base = x.float().double() / 255
    h, total = 1e-6, np.zeros(30)
    for i in range(64):
        step = torch.zeros(64, dtype=torch.double)
        step[i] = h
        step = step.reshape(1, 1, 8, 8)
        total += ((loss(base + step) - loss(base - step)) / (2 * h)).detach().numpy() ** 2
    np.testing.assert_allclose(found(problem, "gradient-norm"), np.sqrt(total), rtol=1e-4)


def test_the_loss_and_the_distance_to_the_boundary_are_the_encoders_whoever_labels(problem):
    encoder, x, y, real, real_y = problem
    other = make_classifier("small-cnn-8", 4, (1, 8, 8), [0.5], [0.3], seed=9).eval().double()
    by = Scorers(Double(encoder), Double(other), Images(real, real_y))
    base = x.float().double() / 255
    logits = encoder(base).detach().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found_loss = scores("loss", by, x, y, 12, seed=1).numpy()
    np.testing.assert_allclose(found_loss, -np.log(p[np.arange(30), y]), rtol=1e-5)
    theirs = other(base).softmax(dim=1).detach().numpy()[np.arange(30), y]
    np.testing.assert_allclose(scores("confidence", by, x, y, 12, seed=1).numpy(), theirs, rtol=1e-5)

    def margin(images):
        rows = encoder(images).detach().numpy()
        return np.array([row[k] - max(v for j, v in enumerate(row) if j != k) for row, k in zip(rows, y.tolist(), strict=True)])

    h, square = 1e-6, np.zeros(30)
    for i in range(64):
        step = torch.zeros(64, dtype=torch.double)
        step[i] = h
        square += ((margin(base + step.reshape(1, 1, 8, 8)) - margin(base - step.reshape(1, 1, 8, 8))) / (2 * h)) ** 2
    found_boundary = scores("boundary", by, x, y, 12, seed=1).numpy()
    np.testing.assert_allclose(found_boundary, np.abs(margin(base)) / np.sqrt(square), rtol=1e-4)


def test_coverage_keeps_one_image_of_every_clump():
    """Two classes of six clumps each, of very different sizes: six images of each class, one of each clump, the nearest to its middle."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(2, 6, 3)) * 10
    points, y, clump = [], [], []
    for k in range(2):
        for c, size in enumerate((1, 3, 30, 4, 9, 2)):
            points.append(centres[k, c] + 0.01 * rng.normal(size=(size, 3)))
            y += [k] * size
            clump += [(k, c)] * size
    order = rng.permutation(len(y))
    z, y, clump = np.concatenate(points)[order], np.array(y)[order], [clump[i] for i in order]
    rank = ranks_in_clusters(torch.from_numpy(z), torch.from_numpy(y), 12, seed=0)
    kept = best_of_each_class(rank, torch.from_numpy(y), 12, False, 2).tolist()
    assert {clump[i] for i in kept} == {(k, c) for k in range(2) for c in range(6)}
    for i in kept:
        of = [j for j in range(len(y)) if clump[j] == clump[i]]
        middle = z[of].mean(axis=0)
        assert np.linalg.norm(z[i] - middle) == pytest.approx(min(np.linalg.norm(z[j] - middle) for j in of))
    small = torch.tensor([0] * 25 + [1] * 5)  # 20 of them: 15 and 5, so fifteen clusters of the first class
    spread = torch.from_numpy(rng.normal(size=(30, 2)))
    assert (ranks_in_clusters(spread, small, 20, 0)[small == 0] == 0).sum() == 15
    with pytest.raises(ValueError, match="features of images are NaN or infinite"):
        ranks_in_clusters(torch.full((30, 2), torch.nan), small, 20, 0)
    copies = torch.zeros(20, 3)
    assert sorted(ranks_in_clusters(copies, torch.zeros(20, dtype=torch.int64), 10, 0).tolist()) == list(range(20))


def test_class_separation_and_density_by_plain_loops(problem):
    _, x, y, real, real_y = problem
    z, anchors = features_of(problem, x), features_of(problem, real)
    centres = [anchors[real_y.numpy() == k].mean(axis=0) for k in range(4)]
    distance = np.array([[np.linalg.norm(row - centre) for centre in centres] for row in z])
    expected = [min(distance[i, k] for k in range(4) if k != y[i]) - distance[i, y[i]] for i in range(30)]
    np.testing.assert_allclose(found(problem, "class-separation"), expected, atol=1e-5)
    nearest, _ = NearestNeighbors(n_neighbors=5).fit(anchors).kneighbors(z)
    np.testing.assert_allclose(found(problem, "density"), -nearest[:, 4], atol=1e-5)


def test_random_scores_follow_the_seed(problem):
    encoder, x, y, real, real_y = problem
    by = Scorers(encoder, encoder, Images(real, real_y))
    one, same, other = (scores("random", by, x, y, 12, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_class_without_a_real_image_has_no_centre(problem):
    """Its scores were all NaN, and the first images of the file were kept."""
    encoder, x, y, real, real_y = problem
    without = real_y != 2
    with pytest.raises(ValueError, match=r"class-separation: classes \[2\] have no real training image, so no centre"):
        found((encoder, x, y, real[without], real_y[without]), "class-separation")
    asked = y != 2  # a class that is not asked for needs none
    some = found((encoder, x[asked], y[asked], real[without], real_y[without]), "class-separation")
    z, f = features_of(problem, x[asked]), features_of(problem, real[without])
    centres = {k: f[real_y[without].numpy() == k].mean(axis=0) for k in (0, 1, 3)}
    for i, label in enumerate(y[asked].tolist()):
        distance = {k: np.linalg.norm(z[i] - c) for k, c in centres.items()}
        assert some[i] == pytest.approx(min(d for k, d in distance.items() if k != label) - distance[label], abs=1e-6)
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite"):
        best_of_each_class(torch.tensor([0.1, float("nan"), 0.2]), torch.tensor([0, 1, 0]), 2, True, 2)


@pytest.mark.parametrize("highest", [True, False])
def test_the_best_of_each_class_are_kept(highest):
    rng = np.random.default_rng(0)
    score, y = torch.from_numpy(rng.normal(size=200)), torch.from_numpy(rng.integers(0, 5, 200))
    kept = best_of_each_class(score, y, 50, highest, 5).numpy()
    assert len(set(kept)) == 50
    for k in range(5):
        members = np.flatnonzero(y.numpy() == k)
        best = sorted(members, key=lambda i: -score[i] if highest else score[i])[:10]
        assert sorted(best) == [i for i in kept if y[i] == k]


def test_small_classes_give_all_and_others_fill_up():
    y = torch.tensor([0] * 50 + [1] * 3 + [2] * 50)
    kept = best_of_each_class(torch.arange(103.0), y, 43, True, 3)
    assert y[kept].bincount().tolist() == [20, 3, 20]
    with pytest.raises(ValueError, match="larger surplus"):
        best_of_each_class(torch.arange(103.0), y, 104, True, 3)
    assert best_of_each_class(torch.zeros(103), y, 3, True, 3).tolist() == [0, 50, 53]  # ties: the first


def test_pseudo_labels_are_the_encoders(problem):
    encoder, x = problem[:2]
    assert torch.equal(pseudo_labels(Double(encoder), x), encoder(x.double() / 255).argmax(dim=1))


def test_directions_of_the_criteria():
    for criterion, highest in (
        ("confidence", True),
        ("entropy", False),
        ("gradient-norm", False),
        ("density", True),
        ("loss", True),
        ("boundary", False),
        ("coverage", False),
    ):
        assert keeps_highest(SelectionSettings(criterion=criterion)) is highest
        assert keeps_highest(SelectionSettings(criterion=criterion, order="highest"))
        assert not keeps_highest(SelectionSettings(criterion=criterion, order="lowest"))
    with pytest.raises(ValueError, match="surplus"):
        SelectionSettings(surplus=0.5)


@pytest.mark.parametrize(
    ("text", "label", "scale", "reverse"),
    [
        ("real", "real", 0, False),
        ("infonce", "infonce-0.3", 0.3, False),
        ("anchored-reversed:0.05", "anchored-reversed-0.05", 0.05, True),
        ("noise", "noise-0.1", 0.1, False),
        ("hard-negative:2", "hard-negative-2", 2, False),
        ("classifier-free:1.5", "classifier-free-1.5", 1.5, False),
        ("npz:/data/some file.npz", "npz-some_file", 0, False),
    ],
)
def test_methods_are_named(text, label, scale, reverse):
    method = parse_method(text)
    assert (method.label, method.scale, method.reverse) == (label, scale, reverse)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("infonse:0.3", "did you mean infonce"),
        ("infonce:-1", "must be a finite number > 0"),
        ("infonce:nan", "must be a finite number > 0"),
        ("infonce:", "must be a finite number > 0"),
        ("real:1", "takes no scale"),
        ("noise-reversed", "cannot be reversed"),
        ("npz", "name the file"),
    ],
)
def test_unknown_methods_are_one_line(text, message):
    with pytest.raises(Exception, match=message):
        parse_method(text)


def test_entropy_and_gradient_norm_are_the_labellers(problem):
    encoder, x, y, real, real_y = problem
    other = make_classifier("small-cnn-8", 4, (1, 8, 8), [0.5], [0.3], seed=9).eval().double()
    by = Scorers(Double(encoder), Double(other), Images(real, real_y))
    p = other(x.float().double() / 255).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(scores("entropy", by, x, y, 12, seed=1).numpy(), -(p * np.log(p)).sum(axis=1), rtol=1e-5)
    alone = Scorers(Double(other), Double(other), Images(real, real_y))
    of_both, of_other = (scores("gradient-norm", one, x, y, 12, seed=1).numpy() for one in (by, alone))
    np.testing.assert_array_equal(of_both, of_other)


def test_coverage_ranks_the_encoders_unit_features(problem, monkeypatch):
    """The features that it clusters; of two images in a cluster, both are as near its centre, and rounding decides."""
    seen = []
    monkeypatch.setattr(selection, "ranks_in_clusters", lambda *given: seen.append(given) or ranks_in_clusters(*given))
    ranks = found(problem, "coverage")
    ((z, y, count, seed),) = seen
    np.testing.assert_allclose(z.numpy(), features_of(problem, problem[1]), atol=1e-6)
    assert (y.tolist(), count, seed) == (problem[2].tolist(), 12, 1)
    np.testing.assert_array_equal(ranks, ranks_in_clusters(z, y, count, seed).numpy())
