"""No step of training, sampling, guidance or attack makes the host wait for the device."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierGuidance,
    ContrastiveGuidance,
    DiffusersNoisePrediction,
    FeedbackGuidance,
    HardNegativeMining,
    InfoNCE,
    NoisePredictionMLP,
    NoiseSchedule,
    ParticleGuidance,
    SupervisedContrastive,
    TrainingSettings,
    autoguidance,
    cads,
    classifier_free,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    train_noise_prediction,
)
from contrastive_dp.adapters import EDMNoisePrediction
from contrastive_dp.guidance import particle
from contrastive_dp.nan_watch import Watch
from image_experiments.data.images import Images
from image_experiments.models.precision import prepared_unet
from image_experiments.models.unet import UNetSettings, make_noise_prediction
from image_experiments.synthesis.generation import make_solver
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.attacks import Threat, pgd
from tests.contrastive_dp.conftest import small_unet
from tests.stalls import Stalls, assert_no_stall_a_step

LABELS = torch.arange(8) % 2
ENCODER = nn.Sequential(nn.Flatten(), nn.Linear(2, 4))


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch):
    """On a device the watch for NaN reads values every ten steps, not every step, and particle guidance takes all pairs at once."""
    monkeypatch.setattr(particle, "_on_host", lambda z: False)
    monkeypatch.setattr(Watch, "__call__", lambda self, term, t, values: self.noted.append((term, t, torch.isfinite(values.sum()))))


def network():
    torch.manual_seed(0)
    return NoisePredictionMLP(2, classes=2, width=16, depth=1)


def unit(x):
    return nn.functional.normalize(ENCODER(x), dim=1)


def test_the_counter_sees_what_waits():
    x = torch.arange(4.0)
    with Stalls() as stalls:
        x.sum().item()
        bool(x.sum() > 1)
        x[x > 1]
        torch.nonzero(x)
        x.unique()
        x.cpu()
        x.tolist()
        x.numpy()
    assert len(stalls.places) >= 8
    with Stalls() as stalls:
        (x * 2).clamp(0, 1)
    assert not stalls.places


@pytest.mark.parametrize(
    "guidance",
    [
        None,
        ContrastiveGuidance(unit, InfoNCE(), 0.3),
        ContrastiveGuidance(unit, HardNegativeMining(), 0.3, relative=True),
        ContrastiveGuidance(unit, SupervisedContrastive(), 0.3, at="xt"),
        ContrastiveGuidance(
            unit, ClassAnchored(nn.functional.normalize(torch.ones(2, 4) + torch.eye(2, 4), dim=1), torch.arange(2)), 0.3
        ),
        ClassifierGuidance(ENCODER, 0.3),
        ContrastiveGuidance(unit, InfoNCE(negatives="same"), 0.3),
        FeedbackGuidance(ENCODER, 0.3, unit, what="margin", keep=0.5),
        FeedbackGuidance(ENCODER, 0.3, what="entropy", relative=True),
        BoundaryGuidance(ENCODER, 0.3, relative=True),
        ParticleGuidance(0.3),
        ParticleGuidance(0.3, ENCODER, relative=True, same_class=False),
    ],
    ids=lambda guidance: "none" if guidance is None else type(getattr(guidance, "loss", guidance)).__name__,
)
def test_sampling(guidance):
    schedule, x_T = NoiseSchedule.cosine(50), torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    assert_no_stall_a_step(lambda steps: ddim_sample(network(), x_T, schedule, steps, LABELS, guidance=guidance, clip=3.0))
    noise = torch.Generator().manual_seed(1)
    assert_no_stall_a_step(lambda steps: ddpm_sample(network(), x_T, schedule, steps, LABELS, guidance=guidance, generator=noise))


def test_a_fast_solver_of_diffusers():
    """DPM-Solver++, the one of the GPU presets, guided."""
    schedule, x_T = NoiseSchedule.cosine(50), torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    for guidance in (None, ParticleGuidance(0.3, ENCODER)):
        assert_no_stall_a_step(
            lambda steps, guidance=guidance: diffusers_sample(
                network(), x_T, make_solver("dpm-solver++", schedule), steps, LABELS, guidance=guidance
            )
        )


def test_classifier_free():
    schedule, x_T = NoiseSchedule.cosine(50), torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    assert_no_stall_a_step(lambda steps: ddim_sample(classifier_free(network(), 0.5, 2), x_T, schedule, steps, LABELS))


def test_guidance_by_a_weaker_model_or_a_blurred_label():
    schedule, x_T = NoiseSchedule.cosine(50), torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = DiffusersNoisePrediction(small_unet(classes=2), schedule, "epsilon")
    noise = torch.Generator().manual_seed(1)
    blurred = cads(autoguidance(model, model, 0.5), model.unet.class_embedding, 50, noise)
    assert_no_stall_a_step(lambda steps: ddim_sample(blurred, x_T, schedule, steps, LABELS, clip=1.0))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "edm"])
def test_noise_predictions(prediction):
    schedule, x_T = NoiseSchedule.cosine(50), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    if prediction == "edm":
        model = EDMNoisePrediction(lambda y, sigma, classes: y * classes.sum(dim=1).reshape(-1, 1, 1, 1), schedule, 2, null_label=2)
    else:
        model = DiffusersNoisePrediction(small_unet(classes=2), schedule, prediction)
    labels = torch.tensor([0, 1, 1, 0])
    assert_no_stall_a_step(lambda steps: ddim_sample(model, x_T, schedule, steps, labels, clip=1.0))


@pytest.mark.parametrize("loss", ["noise", "v"])
def test_training_of_a_noise_prediction(loss):
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(2))
    settings = {"batch_size": 8, "null_label": 2, "label_dropout": 0.2, "loss": loss}
    schedule = NoiseSchedule.cosine(50)
    assert_no_stall_a_step(
        lambda steps: train_noise_prediction(
            network(), x, schedule, TrainingSettings(steps=steps, **settings), torch.arange(40) % 2
        )
    )


@pytest.mark.parametrize("adversary", ["none", "pgd", "trades"])
def test_training_of_a_classifier(adversary):
    generator = torch.Generator().manual_seed(3)
    real, made = (
        Images(torch.randint(0, 256, (40, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(40) % 2) for _ in range(2)
    )

    def run(steps):
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        settings = ClassifierSettings(
            steps=steps,
            batch_size=8,
            adversary=adversary,
            attack_steps=2,
            augmentation="crop-flip",
            cutmix=0.5,
            validate_every=1000,
        )
        train_classifier(classifier, TrainingImages(real, 2, made), Threat("linf", 8 / 255), settings, 0)

    assert_no_stall_a_step(run)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attack(norm):
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    threat = Threat(norm, 0.1)
    assert_no_stall_a_step(lambda steps: pgd(classifier, x, LABELS, threat, steps, 0.02, torch.Generator().manual_seed(5)))


def test_a_compiled_noise_prediction_is_compiled_once(monkeypatch):
    """Its schedule is copied to a device once. If that happened while the call is traced, the next call would be compiled again."""

    class OfADevice(NoiseSchedule):
        def alpha_bar_on(self, device):
            if device not in self._copies:
                self._copies[device] = self.alpha_bar.clone()
            return self._copies[device]

    predict = make_noise_prediction(UNetSettings(channels=(8, 16), prediction="v"), 2, (1, 8, 8), 0)
    predict.schedule = OfADevice(NoiseSchedule.cosine(50).alpha_bar)
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)  # by the counter below instead
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(prepared_unet(predict.eval().requires_grad_(False), "yes"), backend=counter)
    for _ in range(2):
        compiled(torch.randn(8, 1, 8, 8), torch.full((8,), 10), LABELS)
    assert counter.frame_count == 1
    torch._dynamo.reset()
