import pytest
import torch
from torch import nn
from torch.nn import functional as F

from contrastive_dp import (
    ClassifierFeatures,
    ContrastiveGuidance,
    InfoNCE,
    NoiseSchedule,
    OnUnitRange,
    ProjectionHead,
    SupervisedContrastive,
    ddim_sample,
    embed_anchors,
    frozen,
    train_projection_head,
)


class Classifier(nn.Module):
    """A small convolutional classifier on [0, 1], with batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)

    def features(self, x):
        return self.pool(self.body(x)).flatten(1)

    def forward(self, x):
        return self.fc(self.features(x))


class Noisy(nn.Dropout):
    """A noise prediction with dropout."""

    def forward(self, x, _t):
        return super().forward(x)


@pytest.fixture
def images():
    return torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_penultimate_features_on_the_unit_range(images):
    classifier = Classifier()
    features = ClassifierFeatures(classifier)(images)
    assert features.shape == (7, 6)
    assert torch.allclose(features, classifier.eval().features((images + 1) / 2), atol=1e-6)
    assert torch.allclose(ClassifierFeatures(classifier, "fc", (-1, 1))(images), classifier.features(images), atol=1e-6)
    assert torch.allclose(OnUnitRange(classifier)(images), classifier((images + 1) / 2), atol=1e-6)


def test_the_classifier_is_copied_frozen_and_left_alone(images):
    classifier = Classifier().train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    embed = ClassifierFeatures(classifier)
    embed(images)
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert not any(parameter.requires_grad for parameter in embed.parameters())
    assert torch.equal(embed(images), embed(images))  # no dropout
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert not frozen(classifier).training


def test_what_is_meant_otherwise_is_told(images):
    """Images in [0, 1] where [-1, 1] is meant, and a network whose dropout is on."""
    embed = ClassifierFeatures(Classifier())
    with pytest.warns(UserWarning, match=r"x lies in \[0, 1\], but images in \[-1, 1\] are meant: give 2 \* x - 1"):
        embed_anchors(embed, (images + 1) / 2)
    training = nn.Sequential(Classifier()).train()
    with pytest.warns(UserWarning, match=r"embed is in training mode.*call embed\.eval\(\)"):
        ContrastiveGuidance(training, InfoNCE(), 0.1).start(NoiseSchedule.linear())
    with pytest.warns(UserWarning, match="noise_prediction is in training mode"):
        ddim_sample(Noisy().train(), images, NoiseSchedule.linear(), 1)
    embed_anchors(embed, images)  # and nothing else is
    ContrastiveGuidance(training.eval(), InfoNCE(), 0.1).start(NoiseSchedule.linear())


def test_features_guide_images(images, schedule):
    """Gradient to the input through the captured features, against finite differences."""
    embed = ClassifierFeatures(Classifier().double())
    x, previous = images.double(), F.normalize(embed(images.double().flip(0)), dim=1)
    guide = ContrastiveGuidance(embed, InfoNCE(), 1.0, at="xt").start(schedule)
    guide(images.double().flip(0), 350, torch.zeros_like(x))
    push = guide(x, 300, torch.zeros_like(x)) / (1 - schedule[300]) ** 0.5
    step, index = 1e-6, (2, 1, 4, 3)
    values = []
    for sign in (1, -1):
        moved = x.clone()
        moved[index] += sign * step
        values.append(float(InfoNCE()(F.normalize(embed(moved), dim=1), previous)))
    assert float(push[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_anchors_have_unit_norm_and_pieces_do_not_matter(images):
    embed = ClassifierFeatures(Classifier())
    anchors = embed_anchors(embed, images, 2)
    assert torch.allclose(anchors.norm(dim=1), torch.ones(7))
    assert torch.allclose(anchors, embed_anchors(embed, images), atol=1e-6)


def test_a_projection_head_learns_and_survives_the_disk(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    x = torch.randn(120, 10, generator=generator) + 0.7 * torch.eye(10)[labels]

    def loss_of(head):
        return float(SupervisedContrastive()(F.normalize(head(x), dim=1), labels=labels))

    head = train_projection_head(lambda v: v, x, labels, dim=4, steps=150, seed=3)
    untrained = train_projection_head(lambda v: v, x, labels, dim=4, steps=1, learning_rate=1e-12, seed=3)
    assert loss_of(head) < 0.8 * loss_of(untrained)
    assert torch.equal(train_projection_head(lambda v: v, x, labels, dim=4, steps=150, seed=3)(x), head(x))
    assert not any(p.requires_grad for p in head.parameters())
    again = ProjectionHead.load(head.save(tmp_path / "head.safetensors"))
    assert torch.equal(again(x), head(x))
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_a_head_learns_from_features_of_half_precision():
    """In float16 Adam's small numbers are 0, and its weights became NaN."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(40) % 2
    x = torch.randn(40, 4, generator=generator) + 2 * labels[:, None]
    half = train_projection_head(lambda v: v.half(), x, labels, 2, steps=20)
    single = train_projection_head(lambda v: v.half().float(), x, labels, 2, steps=20)
    for ours, theirs in zip(half.parameters(), single.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(half(x.half()), half(x.half().float()))  # as nn.Sequential(embed, head) uses it


def test_a_head_of_double_precision_survives_the_disk(tmp_path):
    x, labels = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    head = train_projection_head(lambda v: v, x, labels, 2, steps=3)
    again = ProjectionHead.load(head.save(tmp_path / "head.safetensors"))
    assert again(x).dtype == torch.float64
    assert torch.equal(again(x), head(x))


def test_a_head_is_not_trained_on_a_loss_of_previous_states():
    seen = []
    with pytest.raises(ValueError, match=r"loss=InfoNCE compares with previous states.*use SupervisedContrastive"):
        train_projection_head(lambda v: seen.append(v) or v, torch.zeros(4, 2), torch.arange(4), loss=InfoNCE())
    assert not seen
    with pytest.raises(ValueError, match=r"steps=2\.5 must be a whole number"):
        train_projection_head(lambda v: v, torch.zeros(4, 2), torch.arange(4), steps=2.5)
    x, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    whole, given = (train_projection_head(lambda v: v, x, labels, 2, steps=steps)(x) for steps in (3, 3.0))
    assert torch.equal(whole, given)


def test_training_a_head_leaves_the_global_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_projection_head(
        lambda v: v, torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2, 2, steps=2
    )
    assert torch.equal(torch.rand(3), expected)


def test_bad_embeddings_are_named(tmp_path, images):
    with pytest.raises(ValueError, match=r"Conv2d has no nn\.Linear"):
        ClassifierFeatures(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"is in nn\.DataParallel.*give classifier\.module"):
        ClassifierFeatures(nn.DataParallel(Classifier()))
    with pytest.raises(ValueError, match=r"layer='pol' is unknown.*did you mean 'pool'"):
        ClassifierFeatures(Classifier(), layer="pol")
    with pytest.raises(ValueError, match=r"layer 'body.0' was fed shape \(7, 3, 8, 8\)"):
        ClassifierFeatures(Classifier(), layer="body.0")(images)
    with pytest.raises(FileNotFoundError, match="no such file"):
        ProjectionHead.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        ProjectionHead.load(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="x contains nan"):
        embed_anchors(lambda v: v, torch.full((2, 3), float("nan")))


def test_heads_of_different_seeds_see_different_batches():
    seen = {}
    x, labels = torch.arange(40.0)[:, None] * torch.ones(1, 3), torch.arange(40) % 2
    for seed in (0, 77):
        rows = []

        class Spy(SupervisedContrastive):
            def __call__(self, z, previous=None, labels=None, rows=rows):
                rows.append(labels.tolist())
                return super().__call__(z, previous, labels)

        train_projection_head(lambda v: v, x, labels, 2, Spy(), steps=3, batch_size=16, seed=seed)
        seen[seed] = rows
    assert seen[0] != seen[77]
    assert seen[0][0] != seen[0][1]


def test_a_head_that_does_not_fit_its_file_is_named(tmp_path):
    from contrastive_dp.files import write_safetensors

    write_safetensors(
        tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {"projection_head": '{"features": 3, "dim": 2, "hidden": 3}'}
    )
    with pytest.raises(ValueError, match="does not hold the weights of a projection head"):
        ProjectionHead.load(tmp_path / "a.safetensors")


def test_any_range_of_values_is_taken_from_images_of_the_sampler():
    """x in [-1, 1] becomes low + (x + 1) / 2 (high - low)."""
    network = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    found = ClassifierFeatures(network, value_range=(-2.0, 6.0))(torch.tensor([[-1.0, 0.0, 1.0]]))
    assert torch.equal(found, torch.tensor([[-2.0, 2.0, 6.0]]))
