"""Sampling: images belong to (seed, number), every guidance does what it is named for, noise is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contrastive_dp import (
    ClassifierGuidance,
    ContrastiveGuidance,
    NoiseSchedule,
    SampleNoise,
    SupervisedContrastive,
    boundary_distances,
    classifier_free,
    ddim_sample,
)
from image_experiments.data.images import Images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.diffusion_files import read_diffusion, save_diffusion
from image_experiments.models.unet import make_unet
from image_experiments.synthesis import generation
from image_experiments.synthesis.generation import (
    GenerationSettings,
    Networks,
    Sampler,
    make_guidance,
    make_sampler,
    make_solver,
    noisy,
)
from image_experiments.synthesis.methods import KINDS, parse_method
from image_experiments.training.diffusion_training import DiffusionSettings, train_diffusion
from tests.contrastive_dp.conftest import small_unet

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def trained():
    """A class-conditional model of bright and dark images, a classifier of them, and some of them."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = (80 + 100 * y[:, None, None, None] + torch.randint(-30, 31, (64, *SHAPE), generator=generator)).to(torch.uint8)
    settings = DiffusionSettings(channels=(8, 16), steps=500, batch_size=32, learning_rate=5e-3, ema=0.98, label_dropout=0.1)
    network = train_diffusion(settings, Images(x, y), 2, 0, torch.device("cpu"))
    encoder = make_classifier("small-cnn-8", 2, SHAPE, [0.5], [0.25], seed=1)
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(encoder(x.float() / 255), y).backward()
        optimiser.step()
    return network, settings.noise_schedule(), encoder.eval(), x.float() / 127.5 - 1, y


def sampler(trained, method, seed=3, **settings):
    network, schedule, encoder, x, y = trained
    chosen = GenerationSettings(steps=10, batch_size=16, **settings)
    method = parse_method(method)
    networks = Networks(network, schedule, encoder, other_encoder(), linear_network(schedule))
    guidance = make_guidance(method, chosen, networks, x, y, seed)
    return Sampler(networks, method, guidance, chosen, SHAPE, 2, seed, torch.device("cpu"))


def sample(trained, method, n=16, first=0, seed=3, **settings):
    return sampler(trained, method, seed, **settings).sample(torch.arange(first, first + n) % 2, first)


def other_encoder():
    return make_classifier("small-cnn-8", 2, SHAPE, [0.5], [0.25], seed=6).eval()


def linear_network(schedule):
    """A noise prediction that knows nothing but N(0, 1)."""
    return lambda x, t, _labels: x * (1 - schedule.alpha_bar[t]).sqrt().reshape(-1, 1, 1, 1).to(x.dtype)


def test_the_model_makes_the_classes_that_are_asked_for(trained):
    made = sample(trained, "unguided").float().mean(dim=(1, 2, 3))
    assert made[1::2].mean() > made[::2].mean() + 50


@pytest.mark.parametrize("settings", [{}, {"eta": 0.5}, {"solver": "ddpm"}, {"solver": "dpm-solver++"}, {"solver": "unipc"}])
def test_an_image_belongs_to_its_number(trained, settings):
    """Drawn alone or among others an unguided image differs by rounding alone; with another seed it is another."""
    whole = sample(trained, "unguided", **settings).int()
    part = sample(trained, "unguided", n=8, first=8, **settings).int()
    assert (whole[8:] - part).abs().max() <= 1
    assert (whole - sample(trained, "unguided", seed=4, **settings).int()).abs().float().mean() > 2
    brightness = whole.float().mean(dim=(1, 2, 3))
    assert brightness[1::2].mean() > brightness[::2].mean() + 50


@pytest.mark.parametrize("kind", [kind for kind in KINDS if parse_method(kind).uses_encoder])
def test_a_sampler_that_is_aimed_anew_is_the_one_made_for_that_strength(trained, kind):
    made = sampler(trained, f"{kind}:auto", window=(0, 900), head=4)
    labels = torch.arange(16) % 2
    for method, window in ((f"{kind}:0.4", (0, 400)), ("unguided", (0, 900)), (f"{kind}:0.2", (0, 700))):
        aimed = made.aimed(parse_method(method), replace(made.settings, window=window))
        assert torch.equal(aimed.sample(labels, 0), sample(trained, method, window=window, head=4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_guidance_changes_the_images_more_when_stronger(trained, kind):
    plain = sample(trained, "unguided").float()
    weak, strong = ((sample(trained, f"{kind}:{scale}").float() - plain).square().mean() for scale in (0.1, 0.5))
    assert 0 < weak < strong


def test_class_guidance_raises_the_encoders_confidence_and_its_reverse_lowers_it(trained):
    encoder, labels = trained[2], torch.arange(16) % 2

    def margin(method):
        logits = encoder(sample(trained, method).float() / 255).detach()
        return float((logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None])).mean())

    for kind in ("classifier", "supervised", "anchored"):
        assert margin(f"{kind}:0.3") > margin("unguided") > margin(f"{kind}-reversed:0.3"), kind


def test_settings_reach_the_guidance(trained):
    encoder, x, y = trained[2:]
    settings = GenerationSettings(window=(5, 400), at="xt", relative=False, every=2, temperature=0.4, head=8)
    networks = Networks(lambda x, _t, _y: x, trained[1], encoder, other_encoder())
    guidance = make_guidance(parse_method("supervised-reversed:0.2"), settings, networks, x, y, 0)
    assert isinstance(guidance, ContrastiveGuidance)
    assert guidance.loss == SupervisedContrastive(0.4)
    assert (guidance.scale, guidance.window, guidance.at, guidance.relative, guidance.every) == (0.2, (5, 400), "xt", False, 2)
    assert guidance.reverse
    assert guidance.embed(x).shape == (64, 8)
    assert isinstance(make_guidance(parse_method("classifier"), settings, networks, x, y, 0), ClassifierGuidance)
    by_class = torch.argsort(y, stable=True)  # as a folder of images has them
    anchored = make_guidance(parse_method("anchored"), GenerationSettings(anchors=10), networks, x[by_class], y[by_class], 0)
    assert anchored.loss.anchors.shape == (10, 128)
    assert anchored.loss.anchor_labels.bincount().tolist() == [5, 5]
    for kind in ("unguided", "classifier-free", "autoguidance", "cads"):
        assert make_guidance(parse_method(kind), settings, networks, x, y, 0) is None
    feedback = make_guidance(parse_method("feedback:0.2"), GenerationSettings(feedback="entropy", keep=0.7), networks, x, y, 0)
    assert (feedback.what, feedback.keep) == ("entropy", 0.7)
    unit = (x + 1) / 2
    torch.testing.assert_close(feedback.learner(x), encoder(unit))
    torch.testing.assert_close(feedback.judge(x), networks.judge(unit))
    assert make_guidance(parse_method("feedback"), GenerationSettings(keep=0), networks, x, y, 0).judge is None
    boundary = make_guidance(parse_method("boundary"), GenerationSettings(target=0.3), networks, x, y, 0)
    distances = boundary_distances(boundary.learner, x, y)
    assert boundary.target == pytest.approx(0.3 * float(distances.mean()), rel=1e-5)
    assert boundary.width == pytest.approx(0.1 * abs(float(distances.mean())), rel=1e-5)
    torch.testing.assert_close(boundary.learner(x), encoder(unit))
    particle = make_guidance(parse_method("particle"), GenerationSettings(), networks, x, y, 0)
    torch.testing.assert_close(particle.embed(x).norm(dim=1), torch.ones(64))
    assert make_guidance(parse_method("particle"), GenerationSettings(repel="pixels"), networks, x, y, 0).embed is None
    assert (
        make_guidance(parse_method("infonce"), GenerationSettings(negatives="other"), networks, x, y, 0).loss.negatives == "other"
    )


def test_the_encoder_is_fed_images_in_the_unit_range(trained):
    """At x0_hat, with images in [-1, 1], everything the encoder sees lies within what it was trained on, or near it."""
    seen = []
    network, schedule, encoder, x, y = trained

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = encoder

        def forward(self, images):
            seen.append((float(images.detach().min()), float(images.detach().max())))
            return self.inner(images)

    settings = GenerationSettings(steps=10, window=(0, 300))
    networks = Networks(network, schedule, Spy())
    guidance = make_guidance(parse_method("classifier"), settings, networks, x, y, 0)
    method = parse_method("classifier")
    Sampler(networks, method, guidance, settings, SHAPE, 2, 0, torch.device("cpu")).sample(y[:4], 0)
    assert len(seen) == 3
    assert all(-0.3 < low < 0.5 < high < 1.3 for low, high in seen)


def test_mixed_precision_changes_little(trained):
    plain, mixed = sample(trained, "unguided").float(), sample(trained, "unguided", precision="bfloat16").float()
    assert 0 < (plain - mixed).abs().mean() < 10


def test_sampling_can_begin_hotter(trained):
    """Where the noise prediction is linear, DDIM is too: twice the standard deviation at the beginning is twice that of the images."""

    def spread(std):
        settings = GenerationSettings(steps=3, batch_size=4, initial_std=std)
        y, device = torch.arange(4) % 2, torch.device("cpu")
        sampler = Sampler(Networks(lambda x, _t, _y: x, trained[1]), parse_method("unguided"), None, settings, SHAPE, 2, 0, device)
        made = sampler.sample(y, 0)
        return float((made.float() - 127.5).std())

    assert spread(0.2) / spread(0.1) == pytest.approx(2, rel=0.02)


def test_fast_solvers_keep_our_noise_schedule():
    schedule = NoiseSchedule.cosine(1000)
    for solver in ("dpm-solver++", "unipc"):
        levels = make_solver(solver, schedule).alphas_cumprod
        torch.testing.assert_close(levels.double(), schedule.alpha_bar, rtol=1e-4, atol=1e-7)


def test_noise_has_the_stated_standard_deviation():
    plain, labels = np.full((50, 16, 16, 3), 128, dtype=np.uint8), np.arange(50)

    def changed(seed, size):
        pieces = ((plain[i : i + size], labels[i : i + size]) for i in range(0, 50, size))
        images, kept = zip(*noisy(pieces, 0.1, seed), strict=True)
        assert np.concatenate(kept).tolist() == labels.tolist()
        return np.concatenate(images)

    unit = torch.full((50, 3, 16, 16), 128 / 255)
    exact = ((unit + 0.1 * SampleNoise(5, 0).normal(unit)).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(changed(5, 50) - exact).max() < 0.501  # rounded, not cut off
    made = changed(5, 50) / 255 - 128 / 255
    assert made.std() == pytest.approx(0.1, rel=0.02)
    assert abs(made.mean()) < 0.002
    np.testing.assert_array_equal(changed(5, 50), changed(5, 7))
    assert (changed(5, 50) != changed(6, 50)).any()


def test_a_trained_model_comes_back_and_is_a_pipeline_of_diffusers(trained, tmp_path):
    from diffusers import DDIMPipeline

    settings = DiffusionSettings(channels=(8, 16), label_dropout=0.1)
    save_diffusion(tmp_path / "d", trained[0], settings.noise_schedule(), ("cat", "dog"))
    network, schedule, conditional = read_diffusion(settings, tmp_path / "d", 2, SHAPE)
    x, t, y = torch.randn(3, *SHAPE), torch.tensor([5, 500, 900]), torch.tensor([0, 1, 0])
    assert torch.equal(network(x, t, y), trained[0](x, t, y))
    assert conditional
    assert torch.equal(schedule.alpha_bar, settings.noise_schedule().alpha_bar)
    theirs = DDIMPipeline.from_pretrained(tmp_path / "d")
    assert torch.equal(theirs.unet(x, t, class_labels=y).sample, trained[0](x, t, y))
    torch.testing.assert_close(theirs.scheduler.alphas_cumprod.double(), schedule.alpha_bar, rtol=1e-4, atol=1e-7)
    again, _, conditional = read_diffusion(DiffusionSettings(load=tmp_path / "d"), None, ("cat", "dog"), SHAPE)  # as anyone else's
    assert conditional
    assert again.null_label == 2
    assert torch.equal(again(x, t, y), trained[0](x, t, y))
    turned, _, _ = read_diffusion(DiffusionSettings(load=tmp_path / "d"), None, ("dog", "cat"), SHAPE)
    assert torch.equal(turned(x, t, y), trained[0](x, t, 1 - y))
    assert torch.equal(
        turned(x, t, torch.full_like(y, 2)), trained[0](x, t, torch.full_like(y, 2))
    )  # the label that stands for none
    with pytest.raises(ValueError, match="was not trained on class 'fox', but on cat, dog"):
        read_diffusion(DiffusionSettings(load=tmp_path / "d"), None, ("dog", "fox"), SHAPE)
    (tmp_path / "d" / "classes.json").unlink()  # someone else's: three labels, and nothing says what they are
    with pytest.raises(ValueError, match="knows 3 labels, the data have 2 classes: say which are which"):
        read_diffusion(DiffusionSettings(load=tmp_path / "d"), None, ("cat", "dog"), SHAPE)
    for labels, null in (((1, 0), 2), ((2, 0), None)):
        told = DiffusionSettings(load=tmp_path / "d", class_labels=labels, null_label=null)
        network, _, _ = read_diffusion(told, None, ("cat", "dog"), SHAPE)
        assert torch.equal(network(x, t, y), trained[0](x, t, torch.tensor(labels)[y]))
        assert network.null_label == (2 if null == 2 else None)
    with pytest.raises(ValueError, match="knows the labels 0 to 2, not 7"):
        read_diffusion(DiffusionSettings(load=tmp_path / "d", class_labels=(0, 7)), None, ("cat", "dog"), SHAPE)


def test_a_model_that_gives_v_is_trained_and_kept_as_such(tmp_path):
    from diffusers import DDIMPipeline

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8, generator=generator), torch.arange(20) % 2
    settings = DiffusionSettings(channels=(8, 16), steps=3, batch_size=8, prediction="v")
    trained = train_diffusion(settings, Images(x, y), 2, 0, torch.device("cpu"))
    save_diffusion(tmp_path / "d", trained, settings.noise_schedule())
    x_t = torch.randn(3, *SHAPE, generator=generator)
    t, y = torch.tensor([5, 500, 990]), torch.tensor([0, 1, 0])
    theirs = DDIMPipeline.from_pretrained(tmp_path / "d")
    assert theirs.scheduler.config.prediction_type == "v_prediction"
    a = settings.noise_schedule().alpha_bar[t].float()[:, None, None, None]
    expected = a.sqrt() * theirs.unet(x_t, t, class_labels=y).sample + (1 - a).sqrt() * x_t
    for read in (settings, DiffusionSettings(load=tmp_path / "d")):
        network, _, _ = read_diffusion(read, tmp_path / "d", 2, SHAPE)
        torch.testing.assert_close(network(x_t, t, y), expected, rtol=1e-4, atol=1e-5)  # levels in files are single


def test_a_diffusers_pipeline_is_loaded_and_must_fit(tmp_path):
    from diffusers import DDPMScheduler

    unet = small_unet()
    unet.save_pretrained(tmp_path / "unet")
    DDPMScheduler(num_train_timesteps=100).save_pretrained(tmp_path / "scheduler")
    network, schedule, conditional = read_diffusion(DiffusionSettings(load=tmp_path), None, 10, (3, 8, 8))
    assert not conditional
    assert len(schedule) == 100
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 50])
    torch.testing.assert_close(network(x, t, torch.tensor([0, 1])), unet(x, t).sample)
    with pytest.raises(ValueError, match=r"makes images \(3, 8, 8\), the data have \(1, 8, 8\)"):
        read_diffusion(DiffusionSettings(load=tmp_path), None, 10, SHAPE)


def test_unets_are_built_as_asked():
    unet = make_unet(DiffusionSettings(channels=(16, 32), attention=(False, True), conditional=False), 10, (3, 16, 16), 0)
    assert unet.config["down_block_types"] == ("DownBlock2D", "AttnDownBlock2D")
    assert unet.config["up_block_types"] == ("AttnUpBlock2D", "UpBlock2D")
    assert unet.config["num_class_embeds"] is None
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        make_unet(DiffusionSettings(channels=(8, 8, 8, 8)), 10, (3, 12, 12), 0)
    for bad in ({"channels": (12,)}, {"channels": ()}, {"attention": (True,)}, {"ema": 1.0}, {"steps": 0}, {"timesteps": 1}):
        with pytest.raises(ValueError, match=r"channels|attention|ema|steps"):
            DiffusionSettings(**bad)


def test_classifier_free_guidance_leaves_from_the_label_that_stands_for_none(trained):
    network, schedule, _, _, _ = trained
    labels, noise = torch.arange(6) % 2, SampleNoise(3, 0)
    x_T = noise.normal_of((6, *SHAPE), device=torch.device("cpu"))
    expected = ddim_sample(classifier_free(network, 0.5, null_label=2), x_T, schedule, 10, labels, clip=1.0)
    made = sample(trained, "classifier-free:0.5", n=6)
    assert ((made.float() / 127.5 - 1) - expected).abs().max() < 0.501 / 127.5


def test_particles_of_a_model_without_labels_repel_all_others(trained):
    """Their numbers say nothing of what they show; by them the eight images here would all be alone in their class."""
    network, schedule, encoder, x, y = trained
    networks = Networks(network, schedule, encoder, conditional=False)
    guidance = make_guidance(parse_method("particle:0.3"), GenerationSettings(), networks, x, y, 0)
    assert guidance.same_class is False
    assert make_guidance(
        parse_method("particle:0.3"), GenerationSettings(), replace(networks, conditional=True), x, y, 0
    ).same_class
    assert networks.prepared(torch.device("cpu"), "no").conditional is False


def test_only_who_looks_at_training_images_makes_floats_of_them(trained, monkeypatch):
    network, schedule, encoder, x, y = trained
    seen, made = [], generation.make_guidance

    def noted(method, settings, networks, x, y, seed):
        seen.append(len(x))
        return made(method, settings, networks, x, y, seed)

    monkeypatch.setattr(generation, "make_guidance", noted)
    images = Images(((x + 1) * 127.5).round().to(torch.uint8), y)
    real = SplitDataset(images, images, images, ("dark", "bright"))
    for kind, head, many in (("unguided", 0, 0), ("infonce", 0, 0), ("classifier", 8, 0), ("anchored", 0, 64), ("infonce", 8, 64)):
        settings = GenerationSettings(head=head)
        make_sampler(Networks(network, schedule, encoder), parse_method(kind), settings, real, 0, torch.device("cpu"))
        assert seen[-1] == many, kind


def test_noise_within_ddim_is_that_of_the_settings(trained):
    network, schedule, _, _, _ = trained
    noise, labels = SampleNoise(3, 0), torch.arange(16) % 2
    x_T = noise.normal_of((16, *SHAPE))
    expected = ddim_sample(network, x_T, schedule, 10, labels, eta=0.5, generator=noise, clip=1.0)
    assert float((sample(trained, "unguided", eta=0.5).float() - (expected + 1) * 127.5).abs().max()) < 0.501
    assert not torch.equal(sample(trained, "unguided", eta=0.5), sample(trained, "unguided"))


def test_solvers_are_those_that_they_are_called():
    kinds = {name: type(make_solver(name, NoiseSchedule.linear())).__name__ for name in ("unipc", "dpm-solver++")}
    assert kinds == {"unipc": "UniPCMultistepScheduler", "dpm-solver++": "DPMSolverMultistepScheduler"}


def test_a_diffusion_training_resumes_with_its_own_augmentation_alone(tmp_path):
    """A checkpoint knows a function by its name, and all kinds had one."""
    images = Images(torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8), torch.arange(20) % 2)
    settings = DiffusionSettings(channels=(8, 16), steps=2, batch_size=4, warmup=0, augmentation="none")
    made = {"seed": 0, "device": torch.device("cpu"), "checkpoint": tmp_path / "c.pt"}
    train_diffusion(settings, images, 2, **made)
    for other in ("crop", "crop-flip"):
        with pytest.raises(ValueError, match="was made with other settings"):
            train_diffusion(replace(settings, augmentation=other, steps=4), images, 2, **made)
    train_diffusion(replace(settings, steps=4), images, 2, **made)


def test_guidance_sees_the_training_images_and_no_others(trained, monkeypatch):
    """As bytes, which the library maps to the scale of the networks."""
    parts = [Images(torch.full((4, *SHAPE), grey, dtype=torch.uint8), torch.arange(4) % 2) for grey in (0, 51, 255)]
    seen = []
    monkeypatch.setattr(generation, "make_guidance", lambda _m, _s, _n, x, y, _seed: seen.append((x, y)))
    networks = Networks(*trained[:3])
    make_sampler(networks, parse_method("anchored"), GenerationSettings(), SplitDataset(*parts, ("a", "b")), 0, torch.device("cpu"))
    ((x, y),) = seen
    assert torch.equal(x, parts[0].x)
    assert torch.equal(y, parts[0].y)


def test_autoguidance_leaves_from_the_weaker_model(trained):
    strong, weak = (lambda x, _t, _y, k=k: k * x for k in (3.0, 2.0))
    networks, method = Networks(strong, trained[1], weaker=weak), parse_method("autoguidance:0.5")
    made = Sampler(networks, method, None, GenerationSettings(), SHAPE, 2, 0, torch.device("cpu"))
    x = torch.ones(2, *SHAPE)
    assert torch.equal(made._prediction(0)(x, torch.zeros(2), torch.zeros(2)), 3.5 * x)  # 2 + 1.5 (3 - 2)


def test_blurred_labels_belong_to_the_image_and_not_to_its_noise(trained, monkeypatch):
    whole, part = sample(trained, "cads:0.5").int(), sample(trained, "cads:0.5", n=8, first=8).int()
    assert (whole[8:] - part).abs().max() <= 1
    seen = []
    monkeypatch.setattr(generation, "cads", lambda unet, _e, steps, noise, _s: seen.append((steps, noise)) or unet)
    sample(trained, "cads:0.5")
    ((steps, noise),) = seen
    assert steps == len(trained[1])
    ours, states = (one.normal_of((500, 4)).flatten().numpy() for one in (noise, SampleNoise(3)))
    assert abs(np.corrcoef(ours, states)[0, 1]) < 4 / np.sqrt(2000)  # wrong alarm: 6e-5, of a fixed seed
