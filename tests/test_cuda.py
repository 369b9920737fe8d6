"""The same numbers on a GPU as on a CPU, to stated tolerances; the same seed, the same result; and no step that waits for the device.

    python -m pytest -m cuda -W default tests/test_cuda.py          # on a machine with a GPU, whose packages may warn of their own

Without one everything runs too, with a CPU in the GPU's place, so that the tests themselves stay right. Tolerances are for full float32.
"""

import contextlib
import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierGuidance,
    ContrastiveGuidance,
    DiffusersNoisePrediction,
    FeedbackGuidance,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    ParticleGuidance,
    SampleNoise,
    SupervisedContrastive,
    TrainingSettings,
    autoguidance,
    cads,
    classifier_free,
    ddim_sample,
    ddpm_sample,
    embed_anchors,
    train_noise_prediction,
)
from contrastive_dp.guidance.particle import lower_median
from image_experiments import run_cifar
from image_experiments.data.images import Images
from image_experiments.engine.calibration import Probe
from image_experiments.evaluation.features import nearest_distances
from image_experiments.evaluation.robustness import EvaluationSettings, autoattack_robustness, pgd_robustness
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.precision import gpu_arithmetic
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.training import adversarial_training
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.attacks import Threat, pgd
from image_experiments.training.diffusion_training import DiffusionSettings
from tests.contrastive_dp.conftest import small_unet
from tests.image_experiments.test_run_cifar import SMALL

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore:Synchronization debug mode")]
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LABELS = torch.arange(8) % 3
SCHEDULE = NoiseSchedule.cosine(100)


@pytest.fixture(autouse=True)
def full_float32():
    with gpu_arithmetic(tf32=False):
        yield
    if GPU.type == "cuda":  # or one step that waits would fail every test after it
        torch.cuda.set_sync_debug_mode("default")


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classifier(seed=0, network="small-cnn-8"):
    return make_classifier(network, 3, (3, 8, 8), [0.5] * 3, [0.3] * 3, seed=seed).eval().requires_grad_(False)


def close(found, expected, relative):
    """||found - expected|| <= relative ||expected||."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    assert torch.isfinite(found).all()
    assert float((found - expected).norm()) <= relative * float(expected.norm()), float((found - expected).norm() / expected.norm())


def model(device, conditional=True):
    unet = small_unet(classes=4 if conditional else None)
    return DiffusersNoisePrediction(unet.to(device), SCHEDULE, "epsilon", null_label=3 if conditional else None)


def guidances(device):
    learner, judge = classifier(1).to(device), classifier(2).to(device)
    embed = nn.Sequential(learner.body)
    anchors = embed_anchors(embed, draw(9, 12, 3, 8, 8).to(device))
    losses = [InfoNCE(), InfoNCE(negatives="same"), HardNegativeMining(), SupervisedContrastive()]
    losses.append(ClassAnchored(anchors, (torch.arange(12) % 3).to(device)))
    found = [ContrastiveGuidance(embed, loss, 0.2, relative=True) for loss in losses]
    found += [ClassifierGuidance(learner, 0.2, relative=True), FeedbackGuidance(learner, 0.2, judge, relative=True)]
    return [*found, BoundaryGuidance(learner, 0.2, 0.3, relative=True), ParticleGuidance(0.2, embed, relative=True)]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "classifier-free", "autoguidance", "cads"])
def test_samplers_agree(sampler):
    """Ten steps of a U-Net: 1e-3 of the images' norm."""
    found = []
    for device in (torch.device("cpu"), GPU):
        network, x_T, labels = model(device), SampleNoise(3).normal_of((8, 3, 8, 8), device=device), LABELS.to(device)
        predict = {
            "classifier-free": lambda n=network: classifier_free(n, 0.5, 3),
            "autoguidance": lambda n=network, d=device: autoguidance(n, lambda x, t, y: 0.9 * n(x, t, y), 0.5),
            "cads": lambda n=network: cads(n, n.unet.class_embedding, 100, SampleNoise(4), scale=0.5),
        }.get(sampler, lambda n=network: n)()
        if sampler == "ddpm":
            found.append(ddpm_sample(predict, x_T, SCHEDULE, 10, labels, generator=SampleNoise(5), clip=1.0))
        else:
            found.append(ddim_sample(predict, x_T, SCHEDULE, 10, labels, clip=1.0))
    close(found[1], found[0], 1e-3)


@pytest.mark.parametrize("number", range(9))
def test_pushes_of_every_guidance_agree(number):
    """Two guided steps from the same states: 2e-3 of the push."""
    found = []
    for device in (torch.device("cpu"), GPU):
        guide = guidances(device)[number].start(SCHEDULE, LABELS.to(device))
        states = [draw(seed, 8, 3, 8, 8).to(device) for seed in (1, 2, 3, 4)]
        guide(states[0], 60, states[1])
        found.append(guide(states[2], 50, states[3]) - states[3])
        guide.watch.report()
    close(found[1], found[0], 2e-3)


def test_noise_belongs_to_its_sample_on_every_device():
    whole, part = SampleNoise(7, 0), SampleNoise(7, 3)
    for _ in range(3):
        one, other = whole.normal_of((6, 40), device=GPU), part.normal_of((3, 40), device=GPU)
        assert torch.equal(one[3:], other)
    close(SampleNoise(1).normal_of((50, 200), device=GPU), SampleNoise(1).normal_of((50, 200)), 1e-6)


@functools.cache
def learned():
    """A classifier that tells three kinds of noisy images apart, some of them only just; such images (60, 3, 8, 8), and their labels."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(60) % 3
    x = (0.5 + 0.12 * (y - 1.0)[:, None, None, None] + 0.12 * torch.randn(60, 3, 8, 8, generator=generator)).clamp(0, 1)
    network = make_classifier("small-cnn-8", 3, (3, 8, 8), [0.5] * 3, [0.3] * 3, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.eval().requires_grad_(False), x, y


def test_what_a_plan_is_made_from_runs_on_the_device():
    """A fast solver in bfloat16, adversarial training, every part of AutoAttack, a few iterations each, and cuDNN's choice of kernels."""
    probe = Probe((3, 8, 8), 10, Threat("linf", 0.03), GPU, budget=0.05)
    diffusion = DiffusionSettings(channels=(8, 16), batch_size=16, prediction="v", precision="bfloat16", compile="no")
    sampling = GenerationSettings(solver="dpm-solver++", steps=4, batch_size=20, precision="bfloat16", compile="no")
    trained = ClassifierSettings(network="small-cnn-8", attack_steps=2, batch_size=16, precision="bfloat16", compile="no")
    with gpu_arithmetic(tf32=True, cudnn_benchmark=True):
        choices = [probe.step(diffusion), probe.sampler(diffusion, sampling), probe.step(trained)]
    assert all(1e-9 < one.step < 10 for one in choices)
    parts = probe.autoattack_parts("small-cnn-8", 20)
    assert set(parts) == {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert all(0 < cost < 1e3 for cost in parts.values())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_agree(norm):
    """PGD from the same start: 3e-3 of the perturbation for l_2, all but 1 in 500 pixels for l_inf, which steps by signs; AutoAttack's
    first part and PGD-20, from another start: but for three in sixty."""
    victim, x, y, threat = *learned(), Threat(norm, {"linf": 0.1, "l2": 1.0}[norm])
    start = threat.random(x, torch.Generator().manual_seed(2))
    found, withstood = [], []
    settings = EvaluationSettings(batch_size=60, pgd_restarts=1, autoattack_images=60, autoattack_parts="apgd-ce")
    for device in (torch.device("cpu"), GPU):
        network = copy.deepcopy(victim).to(device)
        target = torch.nn.functional.one_hot(y, 3).float().to(device)
        found.append(pgd(network, x.to(device), target, threat, 5, 0.03, start.to(device), "cross-entropy").cpu() - x)
        some = [pgd_robustness(network, x.to(device), y.to(device), threat, settings, 3).robust]
        some.append(autoattack_robustness(network, x.to(device), y.to(device), threat, settings, 3).robust)
        withstood.append(torch.stack(some))
    if norm == "l2":
        close(found[1], found[0], 3e-3)
    else:
        assert ((found[1] - found[0]).abs() > 1e-3).double().mean() <= 2e-3
    assert ((withstood[0] != withstood[1]).sum(dim=1) <= 3).all()
    assert (withstood[0].sum(dim=1) >= 6).all(), "the attacks have nothing to do"
    assert (withstood[0].sum(dim=1) <= 54).all(), "the attacks do nothing"


def test_nearest_images_agree():
    points, among = draw(1, 50, 300).numpy(), draw(2, 70, 300).numpy()
    np.testing.assert_allclose(nearest_distances(points, among, GPU), nearest_distances(points, among), rtol=1e-9)


def trained_unet(checkpoint=None, stop_at=None, steps=6, precision="float32"):
    settings = TrainingSettings(steps=steps, batch_size=8, seed=3, precision=precision, checkpoint_every=3)
    network = model(GPU)
    x = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    losses = []

    def on_step(step, loss):
        losses.append(loss)
        if step == stop_at:
            raise KeyboardInterrupt

    found = train_noise_prediction(network, x, SCHEDULE, settings, torch.arange(40) % 3, checkpoint=checkpoint, on_step=on_step)
    return torch.cat([p.flatten() for p in found.parameters()]), torch.stack(losses).cpu()


@pytest.fixture
def one_order(monkeypatch):
    """Convolutions sum in one order: in bfloat16 another one moves these weights by 2e-4, the classifier's by 4e-4."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.usefixtures("one_order")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_unet_trains_the_same_twice(precision):
    (one, losses), (two, again) = (trained_unet(precision=precision) for _ in range(2))
    close(two, one, 1e-3 if precision == "bfloat16" else 1e-4)  # other sums on a GPU may be in another order
    close(again, losses, 1e-3)


@pytest.mark.usefixtures("one_order")
def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path):
    whole, losses = trained_unet()
    with pytest.raises(KeyboardInterrupt):
        trained_unet(tmp_path / "c.pt", stop_at=4)
    resumed, rest = trained_unet(tmp_path / "c.pt")
    assert len(rest) == 2
    close(resumed, whole, 1e-4)
    close(rest, losses[4:], 1e-3)


def trained_classifier(precision="float32", adversary="pgd", network="wrn-10-1"):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(64) % 3
    x = (60 * y[:, None, None, None] + torch.randint(0, 100, (64, 3, 8, 8), generator=generator)).to(torch.uint8)
    settings = ClassifierSettings(
        network=network,
        adversary=adversary,
        steps=12,
        batch_size=16,
        attack_steps=2,
        learning_rate=0.05,
        augmentation="crop",
        precision=precision,
    )
    fresh = make_classifier(network, 3, (3, 8, 8), [0.5] * 3, [0.3] * 3, seed=2).to(GPU)
    parts = TrainingImages(Images(x, y), 3, Images(x[:30], y[:30]), Images(x[30:], y[30:]))
    found, curve = train_classifier(fresh, parts, Threat("linf", 0.02), settings, 4)
    return torch.cat([p.flatten() for p in found.parameters()]), curve


@pytest.mark.usefixtures("one_order")
@pytest.mark.parametrize(("precision", "adversary"), [("float32", "pgd"), ("float32", "trades"), ("bfloat16", "pgd")])
def test_a_classifier_trains_the_same_twice(precision, adversary):
    (one, curve), (two, _) = (trained_classifier(precision, adversary) for _ in range(2))
    close(two, one, 1e-3)
    assert np.isfinite(curve[-1]["loss"])


@contextlib.contextmanager
def no_waiting():
    """On a GPU, any operation within that waits for it raises RuntimeError."""
    if GPU.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if GPU.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


class Guarded:
    """on_step that forbids waiting from the second step to the one before the last."""

    def __init__(self, steps):
        self.steps, self.seen = steps, 0

    def __call__(self, *_):
        self.seen += 1
        if GPU.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if 1 < self.seen < self.steps - 1 else "default")


@pytest.mark.parametrize("number", range(9))
def test_no_step_of_sampling_waits(number):
    x_T, watch = draw(1, 8, 3, 8, 8).to(GPU), Guarded(9)  # NaNs are looked for every ten guided steps, which waits
    ddim_sample(model(GPU), x_T, SCHEDULE, 9, LABELS.to(GPU), guidance=guidances(GPU)[number], clip=1.0, on_step=watch)
    assert watch.seen == 9


def test_no_step_of_sampling_with_noise_waits():
    """The noise of each sample, in every step; and the networks of classifier-free guidance, autoguidance and CADS."""
    network, x_T, labels = model(GPU), draw(1, 8, 3, 8, 8).to(GPU), LABELS.to(GPU)
    unlike = autoguidance(classifier_free(network, 0.5, 3), lambda x, t, y: 0.9 * network(x, t, y), 0.5)
    for predict in (network, unlike, cads(network, network.unet.class_embedding, 100, SampleNoise(4), scale=0.5)):
        watch = Guarded(9)
        ddpm_sample(predict, x_T, SCHEDULE, 9, labels, generator=SampleNoise(5), clip=1.0, on_step=watch)
        assert watch.seen == 9


def test_a_median_without_waiting_is_the_median():
    for seed in range(20):
        values = draw(seed, 7, 7).square().to(GPU)
        kept = draw(seed + 50, 7, 7).to(GPU) > 1.5 - seed / 8
        expected = np.sort(values[kept].cpu().numpy())[(int(kept.sum()) - 1) // 2] if kept.any() else np.inf
        assert float(lower_median(values, kept)) == expected


def test_no_step_of_training_or_attack_waits(monkeypatch):
    settings, watch = TrainingSettings(steps=8, batch_size=8, seed=3), Guarded(8)
    x = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    train_noise_prediction(model(GPU), x, SCHEDULE, settings, torch.arange(40) % 3, on_step=watch)
    watch = Guarded(8)
    fresh = make_classifier("wrn-10-1", 3, (3, 8, 8), [0.5] * 3, [0.3] * 3, seed=2).to(GPU)
    chosen = ClassifierSettings(network="wrn-10-1", steps=8, batch_size=16, attack_steps=2, augmentation="crop-flip", cutmix=0.5)
    images = Images(x, torch.arange(40) % 3)
    train_classifier(fresh, TrainingImages(images, 3, images), Threat("linf", 0.02), chosen, 4, on_step=watch)
    monkeypatch.setattr(adversarial_training, "room_on", lambda device: float(device.type == "cuda"))  # read one step ahead instead
    watch = Guarded(8)
    train_classifier(fresh, TrainingImages(images, 3, images), Threat("linf", 0.02), chosen, 4, on_step=watch)
    network, unit, target = classifier(1).to(GPU), torch.rand(8, 3, 8, 8).to(GPU), torch.eye(3)[LABELS].to(GPU)
    start = torch.zeros_like(unit)
    with no_waiting():
        pgd(network, unit, target, Threat("linf", 0.1), 5, 0.03, start, "cross-entropy")


@pytest.mark.slow  # without a GPU it repeats test_run_cifar.py; -m cuda takes it
def test_a_whole_run_on_the_device(tmp_path):
    more = ("--methods", "real", "unguided", "infonce:0.3", "boundary:0.1", "--device", GPU.type, "--tf32", "--out", str(tmp_path))
    assert run_cifar.main([*SMALL, *more]) == 0
    assert run_cifar.main([*SMALL, *more]) == 0  # nothing is left to do
