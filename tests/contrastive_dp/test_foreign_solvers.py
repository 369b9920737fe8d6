"""diffusers' solvers with our guidance, on exact Gaussian networks: their own closed form, or the flow they converge to, at their order.

With a constant gradient of size c, the guided flow in y = x / sqrt(a) and sigma is dy/dsigma = sigma (y - m) / (s^2 + sigma^2)
+ c sigma / sqrt(1 + sigma^2), so y - m = sqrt(s^2 + sigma^2) (constant + c ln(sqrt(1 + sigma^2) + sqrt(s^2 + sigma^2))).
"""

import math
import warnings

import numpy as np
import pytest
import torch

from contrastive_dp import guide_states
from contrastive_dp.forms import alpha_bar_of, scales
from tests.contrastive_dp.test_forms import MEANS, STD, Constant, said_by
from theory import ddim_law

diffusers = pytest.importorskip("diffusers")
LABELS = torch.tensor([0, 1, 1, 0])
MEAN = torch.from_numpy(MEANS)[LABELS]
STEPS = (10, 50, 250)
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of NumPy, about DEIS

FORMS = {
    "DDIM": ("alpha_bar", "noise"),
    "DPMSolverMultistep": ("alpha_bar", "noise"),
    "DPMSolverSinglestep": ("alpha_bar", "noise"),
    "UniPCMultistep": ("alpha_bar", "noise"),
    "DEISMultistep": ("alpha_bar", "noise"),
    "EulerDiscrete": ("sigma", "noise"),
    "HeunDiscrete": ("sigma", "noise"),
    "LMSDiscrete": ("sigma", "noise"),
    "EDMEuler": ("sigma", "x0"),
    "EDMDPMSolverMultistep": ("sigma", "x0"),
    "FlowMatchEulerDiscrete": ("flow", "velocity"),
}
"""What a scheduler's states and outputs are."""
NETWORKS = {"epsilon": "noise", "v_prediction": "v", "sample": "x0"}


def scheduler_of(name, steps, prediction="epsilon"):
    """A scheduler ready for these steps, and its levels."""
    more = {
        "DDIM": {"clip_sample": False, "timestep_spacing": "trailing"},
        "FlowMatchEulerDiscrete": {},
        "EDMEuler": {},
        "EDMDPMSolverMultistep": {},
    }.get(name, {"beta_schedule": "linear"})
    if prediction != "epsilon":
        more |= {"prediction_type": prediction}
    scheduler = getattr(diffusers, f"{name}Scheduler")(**more)
    flow = FORMS[name][0] == "flow"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy about LMS's integrals
        if flow:  # at pure noise, flow time 1, nothing is guided
            scheduler.set_timesteps(sigmas=np.linspace(0.99, 0.99 / steps, steps))
        else:
            scheduler.set_timesteps(steps)
    if FORMS[name][0] == "alpha_bar":
        return scheduler, [*(float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps), 1.0]
    return scheduler, scheduler.sigmas.tolist()


def exact(x, level, form, output):
    """What a perfect network says, for each sample's class."""
    signal, noise = scales(form, level)
    eps = noise * (x - signal * MEAN) / (signal**2 * STD**2 + noise**2)
    return said_by(output, x, eps, signal, noise)


def sampled(name, steps, pull, prediction="epsilon"):
    """(start x_T in the form of DDPM, levels of alpha_bar, samples) of a scheduler's own loop with guidance of size `pull`."""
    form, output = FORMS[name]
    output = NETWORKS[prediction] if prediction != "epsilon" else output
    scheduler, levels = scheduler_of(name, steps, prediction)
    guide = guide_states(Constant(pull), levels[: len(scheduler.timesteps)], form, output, LABELS) if pull else None
    noise = torch.from_numpy(np.random.default_rng(6).standard_normal((4, 3)))
    x = noise * (float(scheduler.init_noise_sigma) if form == "sigma" else 1)
    start = x / math.hypot(*scales(form, levels[0]))
    for i, t in enumerate(scheduler.timesteps):
        if form == "sigma":
            scheduler.scale_model_input(x, t)  # our networks take states as they are
        made = exact(x, levels[i], form, output)
        made = guide(x, i, made) if guide else made
        if name.startswith("EDM"):  # it preconditions a raw network itself
            s, d = levels[i], scheduler.config.sigma_data
            made = (made - d**2 / (s**2 + d**2) * x) * math.hypot(s, d) / (s * d)
        x = scheduler.step(made, t, x).prev_sample.double()
    return start, [float(alpha_bar_of(form, level)) for level in levels], x.numpy()


def the_limit(start, a, pull):
    """Where the guided flow takes a start of level a."""
    sigma = math.sqrt((1 - a) / a)

    def pulled(s):
        return math.log(math.sqrt(1 + s**2) + math.sqrt(STD**2 + s**2))

    free = (start.numpy() / math.sqrt(a) - MEAN.numpy()) / math.sqrt(STD**2 + sigma**2)
    return MEAN.numpy() + STD * (free - pull * (pulled(sigma) - pulled(0.0)))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("pull", [0.0, 0.4])
@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "EDMEuler", "FlowMatchEulerDiscrete"])
def test_solvers_of_first_order_are_the_law(name, pull, steps):
    """x_0 = mean + product x_T at their own levels (T8), relative to the largest pull; they compute in single precision."""
    start, a, made = sampled(name, steps, pull)
    for i, k in enumerate(LABELS.tolist()):
        guidance = [[pull * math.sqrt(1 - level)] * 3 for level in a[:-1]]
        mean, product = ddim_law(MEANS[k], STD, [*a[:-1], 1.0], guidance=guidance if pull else None)
        expected = mean + product * start[i].numpy()
        assert np.abs(made[i] - expected).max() < 2e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("pull", [0.0, 0.4])
@pytest.mark.parametrize(
    "name",
    [
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "UniPCMultistep",
        "DEISMultistep",
        "HeunDiscrete",
        "LMSDiscrete",
        "EDMDPMSolverMultistep",
    ],
)
def test_faster_solvers_converge_to_the_flow(name, pull):
    """Guided or not, the error falls faster than one over steps: five times as many steps make it 8 times smaller at least, and at 250 it
    is below .005; DDIM's, of first order, is .018."""
    errors = []
    for steps in STEPS:
        start, a, made = sampled(name, steps, pull)
        errors.append(float(np.abs(made - the_limit(start, a[0], pull)).max()))
    assert errors[1] < errors[0] / 8
    assert errors[2] < 0.005


@pytest.mark.parametrize("pull", [0.0, 0.4])
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "DDIM"])
def test_what_the_network_predicts_makes_no_difference(name, prediction, pull):
    expected = sampled(name, 10, pull)[2]
    np.testing.assert_allclose(sampled(name, 10, pull, prediction)[2], expected, rtol=1e-4, atol=1e-4)


def test_the_limit_is_that_of_many_steps():
    """The closed form against DDIM's law at 20,000 levels, guided."""
    a = 1 / (1 + np.concatenate([np.geomspace(50, 1e-3, 20000), [0.0]]) ** 2)
    guidance = [[0.4 * math.sqrt(1 - level)] * 3 for level in a[:-1]]
    mean, product = ddim_law(MEANS[0], STD, a.tolist(), guidance=guidance)
    x = torch.tensor([[0.3, -1.2, 0.8]], dtype=torch.float64)
    found = the_limit(x.expand(4, 3), float(a[0]), 0.4)[0]
    np.testing.assert_allclose(found, mean + product * x.numpy()[0], rtol=0, atol=2e-3)
