"""diffusers models and schedulers: conversions, folders, guided solvers, refusals."""

import json
import re
import shutil
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from contrastive_dp import (
    ClassAnchored,
    ContrastiveGuidance,
    DiffusersNoisePrediction,
    EDMNoisePrediction,
    InfoNCE,
    NoiseSchedule,
    SampleNoise,
    SupervisedContrastive,
    ddim_sample,
    diffusers_sample,
    embed_anchors,
    load_diffusers,
    schedule_of,
)
from tests.contrastive_dp.conftest import small_unet
from theory import GaussianMixture, ddim_law

diffusers = pytest.importorskip("diffusers")
UNet2DOutput = pytest.importorskip("diffusers.models.unets.unet_2d").UNet2DOutput


def noise(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    diffusers.DDPMPipeline(small_unet(), diffusers.DDPMScheduler(200, beta_start=1e-3, beta_end=0.1)).save_pretrained(path)
    return path


def flattened(folder, target):
    """The layout of google/ddpm-cifar10-32: everything side by side."""
    target.mkdir()
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            shutil.copy(file, target / file.name)
    shutil.copy(folder / "model_index.json", target)
    return target


def test_a_pipeline_folder_in_either_layout(folder, tmp_path):
    x, t = noise(0, 2, 3, 8, 8), torch.tensor([5, 150])
    expected = small_unet()(x, t).sample
    for path in (folder, str(folder), flattened(folder, tmp_path / "flat")):
        predict, schedule = load_diffusers(path)
        assert torch.allclose(predict(x, t), expected, atol=1e-6)
        assert torch.allclose(schedule.alpha_bar, NoiseSchedule.linear(200, 1e-3, 0.1).alpha_bar, rtol=1e-5)
        assert not any(parameter.requires_grad for parameter in predict.parameters())
        assert not predict.unet.training


def test_every_prediction_type_means_the_same_noise(schedule):
    """A network that knows eps, v and x_0 of one and the same noisy state."""
    x_0, eps, t = noise(1, 4, 3, 8, 8), noise(2, 4, 3, 8, 8), torch.tensor([3, 200, 700, 990])
    a = schedule.alpha_bar[t].float()[:, None, None, None]
    x_t = schedule.add_noise(x_0, t, eps)

    class Knows(torch.nn.Module):
        config: ClassVar[dict[str, object]] = {}

        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def forward(self, x, t, class_labels=None):
            return UNet2DOutput(sample=self.answer)

    answers = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0, "sample": x_0}
    for kind, answer in answers.items():
        assert torch.allclose(
            DiffusersNoisePrediction(Knows(answer), schedule, kind)(x_t, t), eps, atol=1e-4 if kind == "sample" else 1e-5
        )
    wide = torch.cat([eps, eps + 5], dim=1)  # learned variances in the second half
    assert torch.equal(DiffusersNoisePrediction(Knows(wide), schedule)(x_t, t), eps)
    with pytest.raises(ValueError, match="did you mean 'v_prediction'"):
        DiffusersNoisePrediction(Knows(eps), schedule, "v-prediction")


def test_labels_reach_conditional_networks_alone(schedule):
    x, t, labels = noise(0, 2, 3, 8, 8), torch.tensor([5, 5]), torch.tensor([0, 2])
    conditional = small_unet(classes=3)
    predict = DiffusersNoisePrediction(conditional, schedule, null_label=1)
    assert torch.equal(predict(x, t, labels), conditional(x, t, class_labels=labels).sample)
    assert torch.equal(predict(x, t), conditional(x, t, class_labels=torch.tensor([1, 1])).sample)
    with pytest.raises(ValueError, match="class-conditional: pass labels"):
        DiffusersNoisePrediction(conditional, schedule)(x, t)
    unconditional = small_unet()
    assert torch.equal(DiffusersNoisePrediction(unconditional, schedule)(x, t, labels), unconditional(x, t).sample)


def test_ddim_inside_diffusers_equals_ours_with_guidance(pair, schedule):
    x_T, labels = noise(3, 24, 3, dtype=torch.float64), torch.arange(24) % 2
    guidance = ContrastiveGuidance(lambda x: x, SupervisedContrastive(), 0.2, window=(0, 500))
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(20)
    theirs = diffusers_sample(pair[0], x_T, scheduler, 20, labels, guidance)
    ours = ddim_sample(pair[0], x_T, schedule, scheduler.timesteps.tolist(), labels, guidance=guidance)
    assert torch.allclose(theirs, ours, atol=2e-5)
    assert scheduler.num_inference_steps == 20  # the caller's scheduler is not touched


def test_the_loop_of_the_readme_is_diffusers_sample(pair):
    """Three lines in a loop of one's own give what diffusers_sample gives."""
    x_T, labels = noise(3, 24, 3, dtype=torch.float64), torch.arange(24) % 2
    guidance = ContrastiveGuidance(lambda x: x, SupervisedContrastive(), 0.2, window=(0, 500))
    scheduler = diffusers.UniPCMultistepScheduler()
    expected = diffusers_sample(pair[0], x_T, scheduler, 12, labels, guidance)
    guide = guidance.start(schedule_of(scheduler), labels)
    scheduler.set_timesteps(12)
    x = x_T
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps = pair[0](x, t.expand(len(x)), labels)
            x = scheduler.step(guide(x, t, eps), t, x).prev_sample
    assert torch.equal(x, expected)


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_fast_solvers_reach_the_limit_of_ddim_on_gaussians(pair, schedule, kind):
    """20 evaluations against the exact classes: standard deviation within 1 %, means within 0.01; DDIM at 20 is 9 % off."""
    predict, means, std = pair
    x_T, labels = noise(3, 50, 3, dtype=torch.float64), torch.arange(50) % 2
    x = diffusers_sample(predict, x_T, getattr(diffusers, kind)(), 20, labels)
    residual = (x - means[labels]) / std
    assert float((residual - x_T).abs().max()) < 0.03 * float(x_T.abs().max())
    slow = ddim_law(means[0].numpy(), std, schedule.visited(20).numpy())[1]
    assert np.abs(np.asarray(slow) / std - 1).min() > 0.05


def test_guided_fast_solvers_approach_guided_ddim(pair, schedule):
    x_T, labels = noise(3, 60, 3, dtype=torch.float64), torch.arange(60) % 2

    def embed(x):
        return torch.cat([x, torch.full_like(x[:, :1], 3.0)], dim=1)

    anchors = embed_anchors(embed, pair[1].repeat(5, 1) + 0.3 * noise(1, 10, 3, dtype=torch.float64))
    guidance = ContrastiveGuidance(embed, ClassAnchored(anchors, torch.arange(10) % 2), 0.1)
    limit = ddim_sample(pair[0], x_T, schedule, 1000, labels, guidance=guidance)
    fast = diffusers_sample(pair[0], x_T, diffusers.UniPCMultistepScheduler(), 20, labels, guidance)
    plain = ddim_sample(pair[0], x_T, schedule, 1000, labels)
    assert (limit - plain).norm() > 5 * (fast - limit).norm()


def test_bad_models_and_schedulers_are_named(folder, tmp_path, pair):
    x_T, labels = noise(3, 4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="rescales its states"):
        diffusers_sample(pair[0], x_T, diffusers.EulerDiscreteScheduler(), 5, labels)
    with pytest.raises(ValueError, match="has no alphas_cumprod"):
        diffusers_sample(pair[0], x_T, diffusers.FlowMatchEulerDiscreteScheduler(), 5, labels)
    with pytest.raises(ValueError, match=r"pass a torch\.Generator"):
        diffusers_sample(pair[0], x_T, diffusers.DDPMScheduler(), 5, labels, generator=SampleNoise(0))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\)"):
        diffusers_sample(pair[0], x_T, diffusers.DDIMScheduler(), 5, labels[:3])
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        load_diffusers(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded as a U-Net"):
        load_diffusers(broken)
    weights.unlink()
    torch.save(small_unet().state_dict(), broken / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="with safetensors weights"):
        load_diffusers(broken)


def test_a_name_that_is_nowhere(monkeypatch):
    import huggingface_hub

    def refuse(name, **_):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match="nobody/nothing is neither a folder nor reachable"):
        load_diffusers("nobody/nothing")


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_schedulers_of_models_that_predict_something_else(pair, kind):
    """diffusers_sample feeds noise predictions whatever the pipeline's scheduler expected; a loop of one's own is refused."""
    x_T, labels = noise(3, 30, 3, dtype=torch.float64), torch.arange(30) % 2
    expected = diffusers_sample(pair[0], x_T, diffusers.DPMSolverMultistepScheduler(), 15, labels)
    other = diffusers.DPMSolverMultistepScheduler(prediction_type=kind)
    assert torch.equal(diffusers_sample(pair[0], x_T, other, 15, labels), expected)
    with pytest.raises(ValueError, match=f"this scheduler expects '{kind}', guidance acts on noise"):
        schedule_of(other)


def test_the_generator_reaches_the_scheduler_and_the_callers_is_left_alone(pair):
    x_T, labels = noise(3, 8, 3, dtype=torch.float64), torch.arange(8) % 2
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    runs = [diffusers_sample(pair[0], x_T, scheduler, 10, labels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert scheduler.num_inference_steps is None
    for stochastic in (
        scheduler,
        diffusers.DDPMParallelScheduler(clip_sample=False),
        diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
        diffusers.SASolverScheduler(),
        type("Mine", (diffusers.DDPMScheduler,), {})(clip_sample=False),
    ):
        with pytest.raises(ValueError, match=f"{type(stochastic).__name__} draws noise"):
            diffusers_sample(pair[0], x_T, stochastic, 10, labels)
    with pytest.raises(ValueError, match="rescales its states"):
        schedule_of(diffusers.EulerDiscreteScheduler())
    with pytest.raises(ValueError, match="guide_states"):
        schedule_of(diffusers.FlowMatchEulerDiscreteScheduler())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_conversions_stay_finite(schedule, dtype):
    class Zero(torch.nn.Module):
        config: ClassVar[dict[str, object]] = {}

        def forward(self, x, t, class_labels=None):
            return UNet2DOutput(sample=torch.zeros_like(x))

    x, t = noise(0, 3, 3, 4, 4).to(dtype), torch.tensor([0, 2, 4])
    assert torch.isfinite(DiffusersNoisePrediction(Zero(), schedule, "sample")(x, t)).all()


def test_an_edm_network_is_a_noise_prediction():
    """The exact denoiser E[x_0 | y] of a Gaussian mixture gives the mixture's exact noise prediction, with and without a class."""
    rng = np.random.default_rng(3)
    means, covs = rng.standard_normal((3, 4)), [np.diag(rng.uniform(0.2, 2.0, 4)) for _ in range(3)]
    mixture, schedule = GaussianMixture(means, covs), NoiseSchedule.linear(1000)

    class Denoiser(torch.nn.Module):
        def forward(self, y, sigma, class_labels=None):
            out = []
            for i in range(len(y)):
                posterior = []
                for mean, cov in zip(means, covs, strict=True):
                    total = cov + float(sigma[i]) ** 2 * np.eye(4)
                    away = y[i].numpy() - mean
                    log_weight = -0.5 * (away @ np.linalg.solve(total, away) + np.linalg.slogdet(total)[1])
                    posterior.append((log_weight, mean + cov @ np.linalg.solve(total, away)))
                if class_labels is not None and class_labels[i].any():
                    out.append(posterior[int(class_labels[i].argmax())][1])
                else:
                    weights = np.exp([p[0] - max(q[0] for q in posterior) for p in posterior])
                    out.append(sum(w * p[1] for w, p in zip(weights / weights.sum(), posterior, strict=True)))
            return torch.from_numpy(np.array(out))

    x, labels = torch.from_numpy(rng.standard_normal((6, 4))), torch.tensor([0, 1, 2, 2, 1, 0])
    plain = EDMNoisePrediction(Denoiser(), schedule)
    classes = EDMNoisePrediction(Denoiser(), schedule, classes=3, null_label=3)
    for t in (0, 7, 400, 999):
        times, a = torch.full((6,), t), float(schedule.alpha_bar[t])
        exact = mixture.noise_prediction(x.numpy(), a)
        np.testing.assert_allclose(plain(x, times).numpy(), exact, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(classes(x, times, torch.full((6,), 3)).numpy(), exact, rtol=1e-6, atol=1e-8)
        of_class = mixture.noise_prediction(x.numpy(), a, labels.numpy())
        np.testing.assert_allclose(classes(x, times, labels).numpy(), of_class, rtol=1e-6, atol=1e-8)


def test_a_diffusers_folder_of_another_kind_is_one_line(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(ValueError, match="holds a UNet2DConditionModel, which works in another space or takes text"):
        load_diffusers(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "ScoreSdeVeScheduler"}')
    with pytest.raises(ValueError, match="has a ScoreSdeVeScheduler, whose models know other noise levels"):
        load_diffusers(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_diffusers(tmp_path)


def test_the_reason_is_the_hubs_answer_or_the_first_cause():
    """Raised as the hub's client raises: its advice on the way is left out, a ring of causes ends, an empty one is named by its kind."""
    from huggingface_hub.errors import RepositoryNotFoundError

    from contrastive_dp.adapters import reason_of

    def caught(raising):
        try:
            raising()
        except Exception as error:
            return error
        raise AssertionError

    def refused():
        try:
            raise OSError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("look at https://example.org for advice") from error

    def unknown():
        response = SimpleNamespace(headers={}, request=None)
        said = "401 Client Error.\n\nRepository Not Found for url: x.\nPlease log in"
        try:
            raise ValueError("Client error '401 Unauthorized'")
        except ValueError as error:
            raise RepositoryNotFoundError(said, response=response) from error

    def ring():
        first, second = KeyError("a"), ValueError("b")
        first.__cause__, second.__cause__ = second, first
        raise first

    assert reason_of(caught(refused)) == "[Errno 111] Connection refused"
    assert reason_of(caught(unknown)) == "401 Client Error. Repository Not Found for url: x."
    assert reason_of(caught(ring)) == "b"
    assert reason_of(TimeoutError()) == "TimeoutError"


def saved(folder, scheduler=None):
    """A pipeline in this folder."""
    diffusers.DDPMPipeline(small_unet(), scheduler or diffusers.DDPMScheduler()).save_pretrained(folder)


def test_pipelines_of_latents_are_refused(tmp_path):
    """Their U-Net has the shape of small images."""
    saved(tmp_path / "a")
    load_diffusers(tmp_path / "a")
    (tmp_path / "a/model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}))
    with pytest.raises(ValueError, match="has a vqvae: its U-Net makes latents, not images"):
        load_diffusers(tmp_path / "a")
    saved(tmp_path / "b")
    (tmp_path / "b/vae").mkdir()
    with pytest.raises(ValueError, match="has a vae"):
        load_diffusers(tmp_path / "b")


def test_schedules_that_ddim_does_not_know_are_read_by_ddpm(tmp_path):
    scheduler = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    saved(tmp_path, scheduler)
    _, schedule = load_diffusers(tmp_path)
    assert torch.allclose(schedule.alpha_bar, scheduler.alphas_cumprod.double(), atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"_class_name": "DDPMWuerstchenScheduler", "s": 0.008}, "DDPMWuerstchenScheduler, whose models know other noise levels"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type='continuous'"),
    ],
)
def test_schedulers_with_other_levels_are_named(tmp_path, settings, named):
    saved(tmp_path)
    (path,) = tmp_path.rglob("scheduler_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ValueError, match=re.escape(named)):
        load_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("spacing", "steps", "known"), [("linspace", 10, False), ("trailing", 7, False), ("trailing", 10, True), ("leading", 7, True)]
)
def test_ddim_that_goes_between_its_timesteps_is_refused(pair, spacing, steps, known):
    """diffusers' DDIM steps by T // n whatever the spacing, so that with linspace states and timesteps part."""
    predict, _, _ = pair
    with pytest.raises(ValueError, match="PNDMScheduler with timestep_spacing='linspace' and 10 steps goes to levels between"):
        diffusers_sample(predict, torch.zeros(4, 3), diffusers.PNDMScheduler(timestep_spacing="linspace"), 10)
    solver = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=False)
    x_T, labels = torch.randn(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    if known:
        diffusers_sample(predict, x_T, solver, steps, labels)
        return
    with pytest.raises(ValueError, match=f"timestep_spacing='{spacing}' and {steps} steps goes to levels between its timesteps"):
        diffusers_sample(predict, x_T, solver, steps, labels)


class WithDropout(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.1)

    def forward(self, x, t, labels=None):
        return self.dropout(x)


def test_arguments_of_the_wrong_kind_are_named_as_by_our_samplers(pair):
    predict, _, _ = pair
    solver, labels = diffusers.DDIMScheduler(), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="x_T is ndarray: it must be a Tensor"):
        diffusers_sample(predict, np.zeros((4, 3)), solver, 5, labels)
    with pytest.raises(ValueError, match="guidance is InfoNCE: it must be a Guidance"):
        diffusers_sample(predict, torch.zeros(4, 3), solver, 5, labels, guidance=InfoNCE())
    with pytest.warns(UserWarning, match="training mode"):
        diffusers_sample(WithDropout().train(), torch.zeros(4, 3), solver, 5, labels)
