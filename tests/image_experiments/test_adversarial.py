"""Training of classifiers: the direction that theory says, losses by hand, batches, and interruptions."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from contrastive_dp.randomness import mixed_seed
from image_experiments.data.images import Images
from image_experiments.data.npz_files import ImageFile, stream_images
from image_experiments.data.shuffling import batch_indices
from image_experiments.models.classifiers import make_classifier
from image_experiments.training import adversarial_training as adversarial
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, learning_rate, train_classifier
from image_experiments.training.attacks import Threat, pgd, strongest
from image_experiments.training.augmentation import augment, cutmix
from tests.image_experiments.conftest import SPREAD, as_uint8, mixture_images
from theory import BinaryMixture, learned_classifier

P = {"linf": np.inf, "l2": 2}


def mixture():
    rng = np.random.default_rng(3)
    mean = np.concatenate([np.full(5, 0.8), np.full(10, 0.3), np.zeros(10)])
    return BinaryMixture(mean, np.diag(rng.uniform(0.5, 1.5, 25)))


@pytest.mark.parametrize(("adversary", "norm", "eps"), [("none", "linf", 0.0), ("pgd", "linf", 0.25), ("pgd", "l2", 0.8)])
def test_adversarial_training_of_a_linear_model_finds_the_direction_of_theory(adversary, norm, eps):
    """Direction of the infinite-sample adversarial learner, Sigma^-1 (mu - z*): cosine > 0.99 from 40,000 images."""
    problem = mixture()
    images = as_uint8(*mixture_images(problem, 40_000, seed=0))
    settings = ClassifierSettings(
        network="linear", adversary=adversary, attack_steps=4, steps=1500, batch_size=1000, optimiser="adam", learning_rate=0.02,
        weight_decay=0.0, average=0.99, augmentation="none",
    )  # fmt: skip
    network = make_classifier("linear", 2, (1, 5, 5), [0.5], [SPREAD])
    trained, _ = train_classifier(network, TrainingImages(images, 2), Threat(norm, eps * SPREAD), settings, 0)
    found = (trained.head.weight[1] - trained.head.weight[0]).double().numpy()
    wanted = learned_classifier(problem, "adversarial" if eps else "logistic", **({"eps": eps, "p": P[norm]} if eps else {}))
    cosine = found @ wanted.weights / np.linalg.norm(found) / np.linalg.norm(wanted.weights)
    assert cosine > 0.99
    if eps:  # and not the direction of training without attacks
        other = learned_classifier(problem, "logistic").weights
        assert cosine > other @ wanted.weights / np.linalg.norm(other) / np.linalg.norm(wanted.weights) + 0.001


def small(steps=12, **more):
    kinds = {
        "network": "small-cnn-8",
        "steps": steps,
        "batch_size": 16,
        "attack_steps": 2,
        "checkpoint_every": 5,
        "validate_every": 4,
    }
    return ClassifierSettings(**{**kinds, "augmentation": "crop", **more})


def random_images(n, seed, classes=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 1, 8, 8), generator=generator).to(torch.uint8)
    return Images(x, torch.randint(0, classes, (n,), generator=generator))


def trained(settings, **more):
    network = make_classifier(settings.network, 3, (1, 8, 8), [0.5], [0.3], seed=1)
    parts = {"real": random_images(40, 0), "synthetic": random_images(30, 1), "validation": random_images(20, 2)}
    parts |= {name: more.pop(name) for name in list(more) if name in parts}
    return train_classifier(network, TrainingImages(classes=3, **parts), Threat("linf", 0.1), settings, 9, **more)


@pytest.mark.parametrize(
    "more", [{}, {"adversary": "trades", "keep": "best"}, {"cutmix": 0.5, "network": "wrn-10-1", "average": 0.0}]
)
def test_an_interrupted_training_ends_bit_identical(tmp_path, more):
    settings = small(**more)
    whole, curve = trained(settings)

    def stop(step, _loss):
        if step == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(settings, checkpoint=tmp_path / "c.pt", on_step=stop)
    steps = []
    again, same_curve = trained(settings, checkpoint=tmp_path / "c.pt", on_step=lambda step, _loss: steps.append(step))
    assert steps[0] == 6  # goes on from the checkpoint of step 5
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    assert curve == same_curve
    assert [row["step"] for row in curve] == [4, 8, 12]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_step_saves_it_and_goes_on_from_there(tmp_path, number):
    """The signal comes within step 8; checkpoints are due every 5 steps."""
    settings, calls = small(), 0
    whole, curve = trained(settings)

    class Interrupted(type(whole)):
        def forward(self, x):
            nonlocal calls
            calls += self.training
            if calls == 8 and self.training:
                os.kill(os.getpid(), number)
            return super().forward(x)

    before = signal.signal(number, signal.default_int_handler)  # as the commands have it
    network = make_classifier(settings.network, 3, (1, 8, 8), [0.5], [0.3], seed=1)
    network.__class__ = Interrupted
    images = TrainingImages(random_images(40, 0), 3, random_images(30, 1), random_images(20, 2))
    try:
        with pytest.raises(KeyboardInterrupt):
            train_classifier(network, images, Threat("linf", 0.1), settings, 9, checkpoint=tmp_path / "c.pt")
        assert signal.getsignal(number) is signal.default_int_handler  # put back
    finally:
        signal.signal(number, before)
    steps = []
    again, same_curve = trained(settings, checkpoint=tmp_path / "c.pt", on_step=lambda step, _loss: steps.append(step))
    assert steps[0] == 9
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    assert curve == same_curve


def test_best_keeps_the_weights_of_the_best_look():
    looks = []
    original = adversarial._look

    def record(run, *arguments):
        original(run, *arguments)
        looks.append({name: tensor.clone() for name, tensor in run.averaged.state_dict().items()})

    adversarial._look = record
    try:
        kept, curve = trained(small(keep="best", learning_rate=0.3, validate_every=2))
    finally:
        adversarial._look = original
    best = int(np.argmax([row["robust_accuracy"] for row in curve]))
    assert all(torch.equal(kept.state_dict()[name], tensor) for name, tensor in looks[best].items())


def test_the_losses_are_those_of_the_docstring():
    """pgd: H(y, f(x')); trades: H(y, f(x)) + beta KL(p(x) || p(x')); by their definitions, on one batch."""
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=1)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    threat = Threat("linf", 0.1)
    for adversary, loss in (("pgd", "cross-entropy"), ("trades", "kl")):
        settings = small(adversary=adversary, label_smoothing=0.1, beta=3.0)
        found = adversarial._loss(network, network, x, target, threat, settings, torch.Generator().manual_seed(4))
        attacked = pgd(network.eval(), x, target, threat, 2, 0.125, torch.Generator().manual_seed(4), loss)
        p, q = network(x).softmax(dim=1), network(attacked).softmax(dim=1)
        smooth = 0.9 * target + 0.1 / 3
        if adversary == "pgd":
            expected = -(smooth * q.log()).sum(dim=1).mean()
        else:
            expected = -(smooth * p.log()).sum(dim=1).mean() + 3.0 * (p * (p / q).log()).sum(dim=1).mean()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        parameters = list(network.parameters())
        gradients = [torch.autograd.grad(loss, parameters) for loss in (found, expected)]
        for ours, theirs in zip(*gradients, strict=True):  # through both sides of TRADES' divergence
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_adams_weight_decay_is_decoupled():
    """AdamW: w (1 - learning rate x decay) where the gradient is 0; with Adam's own the step would be the learning rate."""
    layer = torch.nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros(1, 2)
    adversarial._optimiser(layer, small(optimiser="adam", learning_rate=0.1, weight_decay=0.5)).step()
    torch.testing.assert_close(layer.weight.detach(), before * 0.95)


def test_the_attack_meets_standing_batch_statistics_and_the_step_moving_ones():
    """BatchNorm is in evaluation mode while attacked and in training mode in the loss; the images differ from step to step."""
    modes, inputs = [], []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_classifier("wrn-10-1", 3, (1, 8, 8), [0.5], [0.3], seed=1)

        def forward(self, x):
            modes.append(self.training)
            inputs.append(x.detach().clone())
            return self.inner(x)

    settings = small(steps=2, attack_steps=2, augmentation="none", batch_size=40, generated_fraction=0.0)
    train_classifier(Spy(), TrainingImages(random_images(40, 0), 3), Threat("linf", 0.1), settings, 9)
    assert modes == [False, False, True] * 2
    assert all(x.min() >= 0 and x.max() <= 1 for x in inputs)
    real = (random_images(40, 0).x.float() / 255)[batch_indices(40, 40, 0, mixed_seed(9, 0))]
    assert (inputs[2] - real).abs().max() <= 0.1 + 1e-6  # what the loss sees is attacked, within the threat
    first, second = (
        inputs[i] - (random_images(40, 0).x.float() / 255)[batch_indices(40, 40, s, mixed_seed(9, 0))] for i, s in ((0, 0), (3, 1))
    )
    assert not torch.allclose(first, second)  # another random start every step


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "constant"},
        {"weight_decay": 0.1},
        {"attack_step_size": 0.01},
        {"batch_size": 8},
        {"beta": 1.0, "adversary": "trades"},
    ],
)
def test_every_setting_of_training_is_read(change):
    def weights(settings):
        return torch.cat([p.flatten() for p in trained(settings, validation=None)[0].parameters()])

    base = small(steps=6, learning_rate=0.05, adversary=change.get("adversary", "pgd"))
    assert not torch.equal(weights(base), weights(small(**{"steps": 6, "learning_rate": 0.05, **change})))


def test_the_look_at_validation_images_is_right():
    """Clean and robust accuracy of the curve are those of the weights it would keep, on [0, 1]."""
    validation, threat = random_images(500, 2), Threat("linf", 0.02)
    settings = small(steps=100, validate_every=100, adversary="none", learning_rate=0.1)
    network = make_classifier(settings.network, 3, (1, 8, 8), [0.5], [0.3], seed=1)
    network, curve = train_classifier(network, TrainingImages(random_images(40, 0), 3, validation=validation), threat, settings, 9)
    clean = (network(validation.x.float() / 255).argmax(dim=1) == validation.y).double().mean()
    assert curve[-1]["clean_accuracy"] == pytest.approx(clean.item())
    for steps, the_same in ((10, True), (1, False)):  # ten steps of PGD find what one does not
        start = torch.Generator().manual_seed(mixed_seed(9, -100 % 2**31))
        right = strongest(network, validation.x.float() / 255, validation.y, threat, steps, 1, start).double().mean().item()
        assert (curve[-1]["robust_accuracy"] == pytest.approx(right)) is the_same
    assert curve[-1]["robust_accuracy"] < curve[-1]["clean_accuracy"]


def test_a_batch_has_its_share_of_synthetic_images():
    real, synthetic = Images(torch.zeros(50, 1, 2, 2, dtype=torch.uint8), torch.zeros(50).long()), random_images(50, 0)
    synthetic = Images(torch.ones(50, 1, 2, 2, dtype=torch.uint8), synthetic.y)
    for fraction, count in ((0.7, 14), (0.0, 0), (1.0, 20)):
        parts = adversarial._parts(TrainingImages(real, 3, synthetic), small(batch_size=20, generated_fraction=fraction))
        x, _ = adversarial._Batches(parts, 0, torch.device("cpu"), 3).of_step(3)
        assert len(x) == 20
        assert int(x.amax(dim=(1, 2, 3)).sum()) == count


def test_images_that_are_held_or_read_ahead_give_the_same_batches(tmp_path):
    """Held: in memory, whole, with their soft labels. Read ahead: by a thread, also after a jump, as when a training is resumed."""
    soft = np.random.default_rng(0).dirichlet([1] * 3, 30).astype(np.float32)
    made = random_images(30, 1)
    path = stream_images(tmp_path / "a.npz", 30, (8, 8, 1), [(made.x.numpy().transpose(0, 2, 3, 1), made.y.numpy())], soft)
    parts = [(random_images(40, 0), 5), (Images.mapped(ImageFile(path, 3, (8, 8, 1))), 11)]
    plain, held, ahead = (adversarial._Batches(parts, 7, torch.device("cpu"), 3, room) for room in (0.0, 1e6, 0.0))
    ahead.reader = ThreadPoolExecutor(1)
    assert [part.file is None for part, _ in plain.parts] == [True, False]
    assert all(part.file is None for part, _ in held.parts)
    small = adversarial._Batches(
        parts, 7, torch.device("cpu"), 3, 2 * 30 * 64
    )  # with 8 bytes of label and 12 of soft label, too much
    assert small.parts[1][0].file is not None
    ahead.last = 11
    for step in (0, 1, 2, 9, 10):
        expected = plain.of_step(step)
        index = batch_indices(30, 11, step, mixed_seed(7, 1)).numpy()
        np.testing.assert_array_equal(expected[1][5:].numpy(), soft[index])
        np.testing.assert_array_equal(expected[0][5:].numpy(), made.x[index].numpy())
        for other in (held, ahead):
            for one, same in zip(expected, other.of_step(step), strict=True):
                assert torch.equal(one, same)
    assert ahead.ahead is None  # nothing is read beyond the last step
    ahead.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        ahead.reader.submit(print)


def test_every_image_comes_once_an_epoch():
    seen = torch.cat([batch_indices(7, 3, step, 5) for step in range(14)])  # six epochs of seven
    for epoch in range(6):
        assert sorted(seen[epoch * 7 : epoch * 7 + 7].tolist()) == list(range(7))
    assert not torch.equal(seen[:7], seen[7:14])
    assert not torch.equal(seen, torch.cat([batch_indices(7, 3, step, 6) for step in range(14)]))
    assert len(batch_indices(3, 10, 2, 0)) == 10  # more than there are


def test_learning_rates():
    rates = lambda **kind: [learning_rate(small(steps=100, learning_rate=0.4, **kind), step) for step in range(100)]  # noqa: E731
    cosine = rates(schedule="cosine", warmup=10)
    assert cosine[0] == pytest.approx(0.04)
    assert cosine[9] == pytest.approx(0.4)
    assert cosine[55] == pytest.approx(0.2)
    assert (np.diff(cosine[10:]) <= 0).all()
    cycle = rates(schedule="one-cycle")
    assert int(np.argmax(cycle)) == 30
    assert max(cycle) == pytest.approx(0.4)
    assert cycle[0] == cycle[99] == pytest.approx(0.016)
    assert set(rates(schedule="constant")) == {0.4}


def test_augmentation_shifts_and_mirrors():
    """Each result is one of the shifted, perhaps mirrored, copies of its image; all of them come up."""
    x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
    copies = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    copies += [copy.flip(3) for copy in copies]
    found = augment(x.expand(400, 2, 8, 8), "crop-flip", torch.Generator().manual_seed(1), fill=-1.0)
    which = [next(i for i, copy in enumerate(copies) if torch.equal(copy[0], image)) for image in found]
    assert set(which) == set(range(18))
    only_shifted = augment(x.expand(100, 2, 8, 8), "crop", torch.Generator().manual_seed(1), fill=-1.0)
    assert all(any(torch.equal(copy[0], image) for copy in copies[:9]) for image in only_shifted)
    assert torch.equal(augment(x, "none", torch.Generator()), x)
    with pytest.raises(ValueError, match="depends on the data set"):
        augment(x, "auto", torch.Generator())


def test_shifts_are_an_eighth_of_either_side():
    """16x24 pixels: by up to 2 rows and 3 columns. Of 70 copies one is missed with probability 4e-5."""
    x = torch.rand(1, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (3, 3, 2, 2), value=-1.0)
    copies = [padded[0, :, i : i + 16, j : j + 24] for i in range(5) for j in range(7)]
    copies += [copy.flip(2) for copy in copies]
    found = augment(x.expand(1000, -1, -1, -1), "crop-flip", torch.Generator().manual_seed(1), fill=-1.0)
    assert {next(i for i, copy in enumerate(copies) if torch.equal(copy, image)) for image in found} == set(range(70))


def test_cutmix_replaces_half_on_average_as_often_as_asked():
    """400 draws; false alarm 6e-5 each: the area is uniform on [0, 1], and mixed with the given probability."""
    x, target = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.eye(8)

    def areas(probability):
        mixed = (cutmix(x, target, probability, torch.Generator().manual_seed(seed))[1] for seed in range(400))
        return np.array([float((1 - labels.diagonal()).max()) for labels in mixed])

    assert abs(areas(1.0).mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)
    assert abs((areas(0.3) > 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)


def test_cutmix_mixes_labels_by_the_area_that_it_replaced():
    n = 8
    x = torch.arange(n).float().reshape(n, 1, 1, 1).expand(n, 1, 16, 16)
    target = torch.eye(n)
    for seed in range(40):
        mixed, labels = cutmix(x, target, 1.0, torch.Generator().manual_seed(seed))
        area = torch.stack([(mixed == k).float().mean(dim=(1, 2, 3)) for k in range(n)], dim=1)
        torch.testing.assert_close(labels, area)
    same, _ = cutmix(x, target, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(same, x)


def test_nan_and_bad_labels_are_named():
    with pytest.raises(FloatingPointError, match="loss at step"):
        trained(small(steps=60, learning_rate=1e20, cutmix=0.0))
    with pytest.raises(ValueError, match=r"labels outside 0\.\.2"):
        trained(small(), synthetic=random_images(10, 0, classes=9))
    with pytest.raises(ValueError, match="keep=best"):
        trained(small(keep="best"), validation=None)
    for name, value in (
        ("steps", 0),
        ("generated_fraction", 1.5),
        ("learning_rate", float("nan")),
        ("average", 1.0),
        ("beta", -1.0),
    ):
        with pytest.raises(ValueError, match=name):
            ClassifierSettings(**{name: value})


def test_steps_draw_different_numbers():
    assert len({mixed_seed(9, step) for step in range(10_000)}) > 9_990


def test_without_attacks_the_best_look_is_the_one_without_an_attack():
    images = as_uint8(*mixture_images(mixture(), 200, seed=0))
    settings = ClassifierSettings(
        network="small-cnn-8", adversary="none", steps=40, batch_size=16, keep="best", validate_every=8, average=0.0, augmentation="none",
    )  # fmt: skip
    seen = TrainingImages(images, 2, validation=as_uint8(*mixture_images(mixture(), 100, seed=1)))
    network = make_classifier("small-cnn-8", 2, (1, 5, 5), [0.5], [SPREAD])
    trained, curve = train_classifier(network, seen, Threat("linf", 0.4), settings, 0)  # no image withstands
    best = max(curve, key=lambda row: row["robust_accuracy"])
    assert best["clean_accuracy"] < max(row["clean_accuracy"] for row in curve)  # under the attack another look would be kept
    assert adversarial.accuracy(trained, seen.validation) == max(row["clean_accuracy"] for row in curve)


def test_a_checkpoint_of_other_validation_images_or_another_length_is_refused(tmp_path):
    images = as_uint8(*mixture_images(mixture(), 60, seed=0))
    validation = [as_uint8(*mixture_images(mixture(), 20, seed=seed)) for seed in (1, 2)]

    def train(settings, looked_at, on_step=None):
        network = make_classifier("small-cnn-8", 2, (1, 5, 5), [0.5], [SPREAD])
        seen, threat = TrainingImages(images, 2, validation=validation[looked_at]), Threat("linf", 0.05)
        return train_classifier(network, seen, threat, settings, 0, checkpoint=tmp_path / "c.pt", on_step=on_step)

    def stop(step, _loss):
        if step == 7:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(small(keep="best"), 0, stop)
    with pytest.raises(ValueError, match="was made with other data"):
        train(small(keep="best"), 1)
    with pytest.raises(ValueError, match="rates until step 12 -> 24"):
        train(small(steps=24, keep="best"), 0)
    train(small(keep="best"), 0)
