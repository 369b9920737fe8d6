"""What samplers, guidance and embeddings are given that was seen to go wrong: the right values, or one line that says what to do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from contrastive_dp import (
    ClassAnchored,
    ClassifierFeatures,
    ClassifierGuidance,
    ContrastiveGuidance,
    DiffusersNoisePrediction,
    NoiseSchedule,
    OnUnitRange,
    ProjectionHead,
    TrainingSettings,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    embed_anchors,
    load_diffusers,
    schedule_of,
    train_noise_prediction,
    train_projection_head,
)
from contrastive_dp.guidance import LEAST_CHANGE
from tests.contrastive_dp.conftest import small_unet

diffusers = pytest.importorskip("diffusers")
SHAPE = (1, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)


class Prototypes(nn.Module):
    """The exact network of classes N(prototype, 0.1^2 I) in [-1, 1], its output rounded to bfloat16, as a trained network's is inexact.

    kind: what it gives, noise, v or x_0. The error of the noise, 0.002 of it, is 50 times the signal where the cosine schedule ends.
    """

    config = {}  # noqa: RUF012

    def __init__(self, schedule, kind):
        super().__init__()
        self.schedule, self.kind = schedule, kind
        self.means = torch.rand((10, *SHAPE), generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8

    def forward(self, x, t, class_labels=None):
        a = self.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        x, mean = x.double(), self.means[class_labels].double()
        x_0 = mean + 0.01 * a.sqrt() / (0.01 * a + 1 - a) * (x - a.sqrt() * mean)
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        given = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0, "sample": x_0}[self.kind]
        return SimpleNamespace(sample=given.bfloat16().float())


def made_by(solver, kind, schedule, steps=20, n=400):
    """Images and asked classes."""
    network = DiffusersNoisePrediction(Prototypes(schedule, kind), schedule, kind)
    network.conditional = True
    labels = torch.arange(n) % 10
    x_T = torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(2))
    draws = torch.Generator().manual_seed(3)
    if solver == "ddim":
        return ddim_sample(network, x_T, schedule, steps, labels, clip=1.0), labels
    if solver == "ddpm":
        return ddpm_sample(network, x_T, schedule, steps, labels, generator=draws, clip=1.0), labels
    scheduler = getattr(diffusers, solver)(num_train_timesteps=len(schedule), trained_betas=schedule.betas.numpy())
    return diffusers_sample(network, x_T, scheduler, steps, labels, clip=1.0, generator=draws), labels


SOLVERS = (
    "ddim",
    "ddpm",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "DPMSolverSinglestepScheduler",
)


@pytest.mark.filterwarnings("ignore")  # diffusers' own, of a scheduler that changes its settings
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_makes_the_same_images(solver, kind, schedule):
    """Every image nearest to its prototype, mean within 0.01 and standard deviation within 5 % of the classes' own, whatever the network
    gives. Without clipping the fast solvers made noise of the cosine schedule (.64 of the labels wrong, 99.9 % of the pixels at an end)."""
    chosen = getattr(NoiseSchedule, schedule)()
    x, labels = made_by(solver, kind, chosen)
    prototypes = Prototypes(chosen, kind).means
    wrong = torch.cdist(x.flatten(1), prototypes.flatten(1)).argmin(dim=1) != labels
    assert wrong.float().mean() <= 0.03
    assert x.mean() == pytest.approx(float(prototypes.mean()), abs=0.01)
    assert x.std() == pytest.approx(float((prototypes.var() + 0.01).sqrt()), rel=0.05)


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_flow_matching_is_refused(kind):
    """x_t = (1 - s) x_0 + s noise: read as sqrt(a) x_0 + sqrt(1-a) noise it ends 2 to 65 away from the right answer."""
    for flow in ({"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, {"use_flow_sigmas": True}):
        scheduler = getattr(diffusers, kind)(**flow)
        for call in (
            lambda s=scheduler: diffusers_sample(lambda x, t: x, torch.zeros(2, 3), s, 5),
            lambda s=scheduler: schedule_of(s),
        ):
            with pytest.raises(ValueError, match=f"{kind} is set up for flow matching|expects 'flow_prediction'"):
                call()


@pytest.mark.parametrize("sigmas", ["use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_noise_levels_closer_than_the_schedules_are_refused(sigmas):
    """They round to the same timestep again and again on the cosine schedule; on the linear one they are right."""
    schedules = NoiseSchedule.cosine(), NoiseSchedule.linear()
    if sigmas == "use_beta_sigmas":  # wrong on the linear schedule too: a standard deviation of .07 in place of .2
        for schedule in schedules:
            scheduler = diffusers.DPMSolverMultistepScheduler(trained_betas=schedule.betas.numpy(), use_beta_sigmas=True)
            with pytest.raises(ValueError, match="with use_beta_sigmas goes from much noise to none in its last step"):
                diffusers_sample(lambda x, t: x, torch.zeros(2, 3), scheduler, 20)
        return
    cosine, linear = (diffusers.DPMSolverMultistepScheduler(trained_betas=s.betas.numpy(), **{sigmas: True}) for s in schedules)
    with pytest.raises(ValueError, match=r"visits timestep 99\d twice in 20 steps.*leave out use_karras_sigmas"):
        diffusers_sample(lambda x, t: x, torch.zeros(2, 3), cosine, 20)
    assert torch.isfinite(diffusers_sample(lambda x, t: x / 2, torch.ones(2, 3), linear, 12)).all()


def test_a_scheduler_of_learned_variances_draws_its_own():
    """The noise prediction brings no variance: the result is that of the fixed one, where diffusers split the noise in two."""
    x_T = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = [
        diffusers_sample(
            lambda x, t: x / 2,
            x_T,
            diffusers.DDPMScheduler(variance_type=kind, clip_sample=False),
            10,
            generator=torch.Generator().manual_seed(1),
        )
        for kind in ("learned_range", "learned", "fixed_small")
    ]
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[1], made[2])


@pytest.mark.parametrize("wrap", [lambda logits: (logits,), lambda logits: {"logits": logits}, lambda logits: [logits, None]])
def test_a_classifier_that_returns_more_than_logits_is_one_line(schedule, wrap):
    guidance = ClassifierGuidance(lambda x: wrap(x.flatten(1)), 0.1)
    with pytest.raises(ValueError, match=r"classifier returned a (tuple|dict|list) for 4 samples: .* lambda x: model\(x\)\.logits"):
        ddim_sample(lambda x, t, y: x, torch.randn(4, 5), schedule, 4, torch.tensor([0, 1, 2, 3]), guidance=guidance)


def test_guidance_made_in_inference_mode_guides_as_any_other(schedule):
    """Classifier, embedding, anchors and head, made where tensors are of a kind that autograd cannot use."""
    x, y, x_T = torch.rand(30, *SHAPE) * 2 - 1, torch.arange(30) % 3, torch.randn(6, *SHAPE)

    def guided():
        torch.manual_seed(4)
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
        embed = ClassifierFeatures(classifier)
        head = train_projection_head(embed, x, y, 4, steps=5)
        whole = nn.Sequential(embed, head)
        anchored = ContrastiveGuidance(whole, ClassAnchored(embed_anchors(whole, x), y), 0.2, relative=True)
        return anchored, ClassifierGuidance(OnUnitRange(classifier), 0.2, relative=True)

    expected = guided()
    with torch.inference_mode():
        within = guided()
    for one, other in zip(expected, within, strict=True):
        made = [ddim_sample(lambda x, t, y: x / 2, x_T, schedule, 4, torch.arange(6) % 3, guidance=g) for g in (one, other)]
        assert torch.equal(*made)
        with torch.inference_mode():
            again = ddim_sample(lambda x, t, y: x / 2, x_T, schedule, 4, torch.arange(6) % 3, guidance=other)
        assert torch.equal(made[0], again)


def test_uint8_images_are_what_they_are_in_minus_one_to_one():
    pixels = torch.randint(0, 256, (24, *SHAPE), generator=GENERATOR, dtype=torch.uint8)
    signed, y = pixels.float() / 127.5 - 1, torch.arange(24) % 2
    torch.manual_seed(5)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 2)).eval()
    embed = ClassifierFeatures(classifier)
    assert torch.equal(embed(pixels), embed(signed))
    assert torch.allclose(embed(pixels), torch.relu(classifier[1](pixels.flatten(1) / 255)), atol=1e-6)
    assert torch.equal(OnUnitRange(classifier)(pixels), OnUnitRange(classifier)(signed))
    assert torch.equal(embed_anchors(embed, pixels), embed_anchors(embed, signed))
    heads = [train_projection_head(embed, x, y, 4, steps=3) for x in (pixels, signed)]
    assert all(torch.equal(a, b) for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True))
    assert isinstance(heads[0], ProjectionHead)


@pytest.mark.parametrize("kind", ["0..255", "int"])
def test_images_on_another_scale_are_refused(kind):
    pixels = torch.randint(0, 256, (8, *SHAPE), generator=GENERATOR)
    x, y = pixels.float() if kind == "0..255" else pixels, torch.arange(8) % 2
    message = (
        r"looks like \[0, 255\]: give images in \[-1, 1\]" if kind == "0..255" else "dtype torch.int64: give floating-point samples"
    )
    embed = lambda x: x.flatten(1)  # noqa: E731
    network = nn.Conv2d(1, 1, 1)
    for call in (
        lambda: embed_anchors(embed, x),
        lambda: train_projection_head(embed, x, y, 2, steps=1),
        lambda: train_noise_prediction(network, x, NoiseSchedule.linear(), TrainingSettings(steps=1)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert embed_anchors(embed, torch.full((2, 4, 2, 2), -3.0)).shape == (2, 16)  # latents of any range are none of these
    assert embed_anchors(embed, torch.full((2, 3), 7.0)).shape == (2, 3)


def test_a_vanishing_gradient_gives_no_push(schedule):
    """A classifier that is certain: p(y) = 1 up to rounding for most samples, and what is left of the gradient is rounding error. Relative
    guidance once gave 4 of 165 such samples the whole push; and a sample that is in doubt keeps it."""
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(2, 12, generator=generator)
    classifier = lambda x: 20 * x @ weight.T  # noqa: E731
    x = torch.randn(300, 12, generator=generator)
    labels = classifier(x).argmax(dim=1)
    lead = (classifier(x)[:, 0] - classifier(x)[:, 1]).abs()
    eps = torch.randn(300, 12, generator=generator)
    guide = ClassifierGuidance(classifier, 0.3, at="xt", relative=True).start(schedule, labels)
    push = (guide(x, 500, eps) - eps).norm(dim=1) / eps.norm(dim=1)
    certain, doubtful = lead > 30, lead < 3
    assert certain.sum() > 165
    assert push[certain].max() < 1e-3
    assert doubtful.any()
    torch.testing.assert_close(push[doubtful], torch.full_like(push[doubtful], 0.3))
    assert (push <= 0.3 + 1e-6).all()


def test_the_floor_of_relative_guidance_by_its_definition(schedule):
    """push = scale |eps| g / |g| where |g| |eps| >= LEAST_CHANGE, else scale |eps|^2 g / LEAST_CHANGE: continuous at the floor."""
    x, eps, labels = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 2
    for size in (1e-9, 1e-5, 1e-3, 1.0):
        classifier = lambda v, size=size: torch.stack([size * v.sum(dim=1), torch.zeros(5, dtype=torch.float64)], dim=1)  # noqa: E731
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(classifier(leaf), labels, reduction="sum"), leaf)
        guide = ClassifierGuidance(classifier, 0.7, at="xt", relative=True).start(schedule, labels)
        norms = eps.norm(dim=1, keepdim=True), g.norm(dim=1, keepdim=True)
        full = norms[0] * g / norms[1]
        expected = torch.where(norms[0] * norms[1] >= LEAST_CHANGE, full, norms[0] ** 2 * g / LEAST_CHANGE)
        torch.testing.assert_close(guide(x, 300, eps) - eps, 0.7 * expected, rtol=1e-9, atol=1e-15)
    assert np.isfinite(LEAST_CHANGE)


@pytest.mark.parametrize(
    "kind", ["DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler", "LCMScheduler", "CogVideoXDDIMScheduler"]
)
def test_schedulers_that_do_something_else_are_refused(kind):
    scheduler = getattr(diffusers, kind)()
    for call in (lambda: diffusers_sample(lambda x, t: x, torch.zeros(2, 3), scheduler, 5), lambda: schedule_of(scheduler)):
        with pytest.raises(ValueError, match=f"{kind} (is not known to sample|expects)"):
            call()

    class Mine(diffusers.DDIMScheduler):
        """Someone's own."""

    assert len(schedule_of(Mine())) == 1000


def test_float_images_in_0_to_255_are_refused_by_the_wrappers():
    images = torch.randint(0, 256, (4, *SHAPE), generator=GENERATOR).float()
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for wrapped in (OnUnitRange(network), ClassifierFeatures(network)):
        with pytest.raises(ValueError, match=r"looks like \[0, 255\]"):
            wrapped(images)
        wrapped(images.clone().requires_grad_())  # an estimate that guidance differentiates may lie anywhere
    assert ClassifierFeatures(network, value_range=(-1, 1))(images.detach()).shape == (4, 64)


def test_a_unet_with_nan_is_refused(tmp_path):
    network = small_unet()
    with torch.no_grad():
        network.conv_in.weight[0, 0, 0, 0] = float("nan")
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(200)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"conv_in\.weight holds NaN or infinity: its training failed"):
        load_diffusers(tmp_path)
