"""The training loop: exact after interruption, averaged as stated, good enough to know the exact noise prediction."""

import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from contrastive_dp import NoisePredictionMLP, NoiseSchedule, TrainingSettings, train_noise_prediction
from contrastive_dp.processes import ALONE, normalise_across
from contrastive_dp.resumable import ResumableTraining, fingerprint
from tests.contrastive_dp.conftest import GaussianNoise, small_unet

QUICK = TrainingSettings(steps=12, batch_size=16, learning_rate=1e-3, ema=0.9, label_dropout=0.2, seed=4, null_label=2)


class WithDropout(nn.Module):
    """A network that draws random numbers of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = NoisePredictionMLP(2, classes=2, width=16, depth=1)
        self.dropout = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x, t, labels=None):
        return self.inner(self.dropout(self.norm(x)), t, labels)


@pytest.fixture
def data():
    labels = torch.arange(60) % 2
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(2)) * 0.5 + (2 * labels[:, None] - 1.0)
    return x, labels


def train(data, schedule, settings=QUICK, **more):
    if "checkpoint_every" in more:
        settings = replace(settings, checkpoint_every=more.pop("checkpoint_every"))
    return train_noise_prediction(WithDropout(), data[0], schedule, settings, data[1], **more)


def same(left, right):
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_an_interrupted_run_ends_bit_identical(tmp_path, schedule, data):
    whole = train(data, schedule)
    for stop, every in ((5, 1000), (7, 3)):  # interrupted by Ctrl-C: saved on the way out, or at the last multiple of 3
        file = tmp_path / f"{stop}.pt"

        def interrupt(step, loss, stop=stop):
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(data, schedule, checkpoint=file, checkpoint_every=every, on_step=interrupt)
        torch.manual_seed(stop)  # whatever else happened to the global stream
        assert same(train(data, schedule, checkpoint=file), whole)
        assert same(train(data, schedule, checkpoint=file), whole)  # finished: nothing left to do
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt"}


def test_a_killed_run_goes_on_from_the_last_checkpoint(tmp_path, schedule, data):
    def killed(step, loss):
        if step == 8:
            raise MemoryError

    file = tmp_path / "run.pt"
    with pytest.raises(MemoryError):
        train(data, schedule, checkpoint=file, checkpoint_every=3, on_step=killed)
    assert torch.load(file, weights_only=True)["step"] == 6
    assert same(train(data, schedule, checkpoint=file), train(data, schedule))
    assert same(train(data, schedule, replace(QUICK, steps=20), checkpoint=file), train(data, schedule, replace(QUICK, steps=20)))


def test_averaged_weights_follow_the_stated_decay(schedule, data):
    """EMA, warm-up, clipping and Adam's first step, against a recursion written out here."""
    settings = replace(QUICK, steps=6, ema=0.5, warmup=4, clip=0.01, label_dropout=0.0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2))
    network.forward = lambda x, t: network[0](x)
    weights = [network[0].weight.detach().clone()]
    averaged = train_noise_prediction(
        network, data[0], schedule, settings, on_step=lambda step, loss: weights.append(network[0].weight.detach().clone())
    )
    mean = weights[0]
    for step, weight in enumerate(weights[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    assert torch.allclose(averaged.state_dict()["0.weight"], mean, rtol=1e-6)
    first_move = (weights[1] - weights[0]).abs()
    assert torch.allclose(first_move, torch.full_like(first_move, settings.learning_rate / 4), rtol=1e-3)  # Adam: lr times the sign


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped(schedule, data, clip):
    torch.manual_seed(0)
    network, norms = NoisePredictionMLP(2, 2, 8, 1), []

    def norm_of_gradient(step, loss):
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in network.parameters() if p.grad is not None)))

    train_noise_prediction(
        network, data[0], schedule, replace(QUICK, steps=3, clip=clip, label_dropout=0.0), on_step=norm_of_gradient
    )
    if clip:
        assert max(norms) <= clip * (1 + 1e-4)
    else:
        assert min(norms) > 0.01


def test_labels_are_dropped_at_the_stated_rate(schedule, data):
    """Share of null labels within 4 standard errors."""
    seen = []

    class Spy(NoisePredictionMLP):
        def forward(self, x, t, labels=None):
            seen.append(labels)
            return super().forward(x, t, labels)

    train_noise_prediction(Spy(2, 2, 8, 1), data[0], schedule, replace(QUICK, steps=40, batch_size=100), data[1])
    share = float((torch.cat(seen) == 2).float().mean())
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 4000)


def test_a_trained_network_knows_the_exact_noise_prediction():
    """Mean squared difference from the exact noise prediction, against the spread of what is predicted."""
    schedule = NoiseSchedule.linear(100, 1e-3, 0.2)
    means, std, n = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.5, 4000
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    x = means[labels] + std * torch.randn(n, 2, generator=generator)
    torch.manual_seed(0)
    settings = TrainingSettings(steps=800, batch_size=256, learning_rate=3e-3, ema=0.98)
    network = train_noise_prediction(NoisePredictionMLP(2, 2, 64, 2), x, schedule, settings, labels)
    t = torch.randint(100, (2000,), generator=generator)
    x_t = schedule.add_noise(x[:2000], t, torch.randn(2000, 2, generator=generator))
    exact = GaussianNoise(means.double(), std, schedule)(x_t, t, labels[:2000])
    error = ((network(x_t, t, labels[:2000]) - exact) ** 2).mean() / exact.var()
    assert float(error) < 0.01


def test_the_same_loop_trains_a_unet_on_uint8_images(schedule):
    """The loss falls, images are mapped to [-1, 1], augmentation is applied."""
    images = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).repeat(16, 1, 1, 1)
    unet = small_unet()
    network = nn.Module()
    network.unet, network.forward = unet, lambda x, t: unet(x, t).sample
    losses, ranges = [], []

    def flip(x, generator):
        ranges.append((float(x.min()), float(x.max())))
        return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)

    settings = TrainingSettings(steps=60, batch_size=16, learning_rate=3e-3, ema=0.9, augment=flip)
    train_noise_prediction(
        network, images, schedule, replace(settings, augment=flip), on_step=lambda step, loss: losses.append(float(loss))
    )
    assert -1 <= min(low for low, _ in ranges) < -0.9
    assert 0.9 < max(high for _, high in ranges) <= 1
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_loss_v_is_the_squared_error_of_v(schedule):
    """A network that gives a v of its own: its loss is the mean of (v - (sqrt(a) eps - sqrt(1-a) x_0))^2, taken here from those."""
    seen, losses = [], []

    class GivesV(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, x, t):
            a = schedule.alpha_bar[t][:, None]
            v = self.bias + torch.sin(3 * x)
            seen.append((x, a, v.detach()))
            return a.sqrt() * v + (1 - a).sqrt() * x

    x_0 = torch.tensor([[0.7, -1.1]], dtype=torch.float64)  # one sample, so that the noise follows from x_t
    settings = TrainingSettings(steps=3, batch_size=64, learning_rate=0.1, loss="v")
    train_noise_prediction(GivesV(), x_0, schedule, settings, on_step=lambda _, loss: losses.append(float(loss)))
    for (x, a, v), loss in zip(seen, losses, strict=True):
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        expected = (v - (a.sqrt() * eps - (1 - a).sqrt() * x_0)).square().mean()
        assert loss == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0 must be > 0"),
        ({"ema": 1.0}, r"ema=1 must lie in \[0, 1\)"),
        ({"steps": 0}, "steps=0"),
        ({"clip": -1.0}, "clip=-1 is negative"),
        ({"label_dropout": 1.5}, "label_dropout=1.5"),
        ({"loss": "nois"}, "did you mean 'noise'"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **change)


def test_bad_data_is_named(schedule, data):
    network = NoisePredictionMLP(2, 2, 8, 1)
    plain = replace(QUICK, label_dropout=0.0)
    with pytest.raises(ValueError, match="data contains nan"):
        train_noise_prediction(network, torch.full((3, 2), math.nan), schedule, plain)
    with pytest.raises(ValueError, match=r"data has shape \(0, 2\)"):
        train_noise_prediction(network, torch.zeros(0, 2), schedule, plain)
    with pytest.raises(ValueError, match=r"dtype torch\.int64"):
        train_noise_prediction(network, torch.zeros(3, 2, dtype=torch.int64), schedule, plain)
    with pytest.raises(ValueError, match="needs labels and null_label"):
        train_noise_prediction(network, data[0], schedule, replace(QUICK, null_label=None), data[1])
    with pytest.raises(ValueError, match=r"labels has shape \(60,\)|give an integer tensor"):
        train_noise_prediction(network, data[0][:5], schedule, plain, data[1])


def test_nan_names_the_step(schedule, data):
    class Broken(NoisePredictionMLP):
        calls = 0

        def forward(self, x, t, labels=None):
            Broken.calls += 1
            return super().forward(x, t, labels) * (math.nan if Broken.calls == 7 else 1.0)

    with pytest.raises(FloatingPointError, match="the loss at step 7 is nan"):
        train_noise_prediction(Broken(2, 2, 8, 1), data[0], schedule, replace(QUICK, label_dropout=0.0))


def test_data_of_another_type_than_the_network_are_named(schedule, data):
    with pytest.raises(ValueError, match=r"data is torch.float64, the network torch.float32: give data.to\(torch.float32\)"):
        train_noise_prediction(NoisePredictionMLP(2, 2), data[0].double(), schedule, QUICK, data[1])


def test_a_frozen_network_is_named(schedule, data):
    with pytest.raises(ValueError, match=r"frozen, as load_diffusers leaves them: call network\.requires_grad_\(True\) first"):
        train_noise_prediction(NoisePredictionMLP(2, 2).requires_grad_(False), data[0], schedule, QUICK, data[1])


def test_a_fingerprint_of_any_type_tells_contents_and_types_apart():
    x = torch.arange(6.0).reshape(2, 3)
    found = {fingerprint(of) for of in (x, x + 1, x.T, x.bfloat16(), x.half(), x.double(), x.bool())}
    assert len(found) == 7
    assert fingerprint(x.T.contiguous().T) == fingerprint(x)


def test_training_seeds_no_stream_of_the_caller(schedule, data, monkeypatch):
    """torch.manual_seed would seed every GPU that the caller uses."""
    torch.manual_seed(3)
    network, before = NoisePredictionMLP(2, 2), torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", lambda _seed: pytest.fail("seeds all devices"))
    train_noise_prediction(network, data[0], schedule, QUICK, data[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoints_that_do_not_fit_are_named(tmp_path, schedule, data):
    file = tmp_path / "run.pt"
    train(data, schedule, checkpoint=file)
    with pytest.raises(ValueError, match=r"other settings \(seed 4 -> 5\)"):
        train(data, schedule, replace(QUICK, seed=5), checkpoint=file)
    with pytest.raises(ValueError, match=r"other settings \(augment"):
        train(data, schedule, replace(QUICK, augment=lambda x, _generator: 2 * x), checkpoint=file)
    with pytest.raises(ValueError, match="other data, labels or noise schedule"):
        train((data[0] + 1, data[1]), schedule, checkpoint=file)
    with pytest.raises(ValueError, match="other data, labels or noise schedule"):
        train(data, NoiseSchedule.cosine(), checkpoint=file)
    mine = WithDropout()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(ValueError, match="at step 12, beyond steps=5"):
        train_noise_prediction(mine, data[0], schedule, replace(QUICK, steps=5), data[1], checkpoint=file)
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.state_dict().items())  # as it came
    other = WithDropout()
    other.inner = NoisePredictionMLP(2, classes=2, width=16, depth=2)  # some weights would fit
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit the network"):
        train_noise_prediction(other, data[0], schedule, QUICK, data[1], checkpoint=file)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    with pytest.raises(ValueError, match="does not fit the network"):
        train_noise_prediction(NoisePredictionMLP(2, 2, 8, 1), data[0], schedule, QUICK, data[1], checkpoint=file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged or no checkpoint of ours"):
        train(data, schedule, checkpoint=file)
    torch.save({"step": 3}, file)
    with pytest.raises(ValueError, match=r"lacks .*it is no checkpoint of ours"):
        train(data, schedule, checkpoint=file)


def test_code_in_a_checkpoint_is_never_run(tmp_path, schedule, data):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"step": Evil()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="damaged or no checkpoint of ours"):
        train(data, schedule, checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "ran").exists()


def test_ctrl_c_within_a_step_saves_at_its_end(tmp_path, schedule, data):
    """SIGINT arrives in the middle of step 5, far from the next checkpoint that is due."""
    whole = train(data, schedule)

    def signalled(step, loss):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    file = tmp_path / "c.pt"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            train(data, schedule, checkpoint=file, checkpoint_every=1000, on_step=signalled)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert torch.load(file, weights_only=True)["step"] == 4
    steps = []
    again = train(data, schedule, checkpoint=file, on_step=lambda step, _loss: steps.append(step))
    assert steps[0] == 5
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_ctrl_c_in_the_last_step_loses_nothing(tmp_path, schedule, data):
    def interrupt(step, loss):
        if step == QUICK.steps:
            raise KeyboardInterrupt

    file, steps = tmp_path / "c.pt", []
    with pytest.raises(KeyboardInterrupt):
        train(data, schedule, checkpoint=file, checkpoint_every=1000, on_step=interrupt)
    assert torch.load(file, weights_only=True)["step"] == QUICK.steps
    again = train(data, schedule, checkpoint=file, on_step=lambda step, _loss: steps.append(step))
    assert not steps
    assert same(again, train(data, schedule))


@pytest.mark.parametrize("loss", ["noise", "v"])
def test_a_prediction_of_another_shape_is_not_trained_on(schedule, loss):
    """It would be broadcast, and the samplers refuse it after the training."""
    settings, data = (
        TrainingSettings(steps=1, batch_size=4, loss=loss),
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0)),
    )

    class Narrow(nn.Linear):
        def forward(self, x, t):
            return super().forward(x)

    with pytest.raises(ValueError, match=r"the noise prediction has shape \(4, 1\), x has \(4, 3\)"):
        train_noise_prediction(Narrow(3, 1), data, schedule, settings)

    class Output(Narrow):
        def forward(self, x, t):
            return {"sample": super().forward(x, t)}

    with pytest.raises(ValueError, match="returned dict: it must return a tensor shaped like x"):
        train_noise_prediction(Output(3, 3), data, schedule, settings)


def test_double_precision_is_trained_in_double_precision(schedule):
    seen, data = [], torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Linear(nn.Linear):
        def forward(self, x, t):
            return super().forward(x)

    network = Linear(3, 3, dtype=torch.float64)
    train_noise_prediction(
        network, data, schedule, TrainingSettings(steps=1, batch_size=4), on_step=lambda _step, loss: seen.append(loss)
    )
    assert seen[0].dtype == torch.float64


def test_an_interrupt_within_a_step_leaves_the_last_checkpoint(tmp_path, schedule, data):
    """Batch statistics have moved and the step has not: nothing is saved, and the run still ends bit-identical."""
    calls = []

    def interrupt(module, inputs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    file, network = tmp_path / "run.pt", WithDropout()
    network.dropout.register_forward_pre_hook(interrupt)  # after the batch normalisation
    with pytest.raises(KeyboardInterrupt):
        train_noise_prediction(network, data[0], schedule, replace(QUICK, checkpoint_every=2), data[1], checkpoint=file)
    assert torch.load(file, weights_only=True)["step"] == 4
    assert same(train(data, schedule, checkpoint=file), train(data, schedule))


def test_nan_weights_never_replace_a_checkpoint(tmp_path, schedule, data):
    class Broken(NoisePredictionMLP):
        calls = 0

        def forward(self, x, t, labels=None):
            Broken.calls += 1
            return super().forward(x, t, labels) * (math.nan if Broken.calls == 7 else 1.0)

    file, plain = tmp_path / "run.pt", replace(QUICK, label_dropout=0.0)
    with pytest.raises(FloatingPointError, match="the loss at step 7 is nan"):
        train_noise_prediction(Broken(2, 2, 8, 1), data[0], schedule, replace(plain, checkpoint_every=3), checkpoint=file)
    content = torch.load(file, weights_only=True)
    assert content["step"] == 6
    assert all(torch.isfinite(value).all() for value in content["network"].values())


def test_seeds_give_different_runs(schedule, data):
    def weights(seed):
        torch.manual_seed(0)
        settings = replace(QUICK, seed=seed, label_dropout=0.0)
        return train_noise_prediction(NoisePredictionMLP(2, 2, 8, 1), data[0], schedule, settings).state_dict()["input.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_more_bad_calls_are_named(tmp_path, schedule, data):
    network, plain = NoisePredictionMLP(2, 2, 8, 1), replace(QUICK, label_dropout=0.0)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        train_noise_prediction(network, data[0], schedule, plain, checkpoint=tmp_path / "no" / "run.pt")
    with pytest.raises(ValueError, match="checkpoint_every=0"):
        replace(plain, checkpoint_every=0)
    with pytest.raises(ValueError, match="labels contain null_label=1"):
        train_noise_prediction(network, data[0], schedule, replace(plain, null_label=1), data[1])


def test_settings_of_numpy_are_read_again_from_a_checkpoint(tmp_path, schedule, data):
    """Sweeps write seed=np.int64(3) and learning rates of np.logspace; an unpickler that runs no code refuses numpy's scalars."""
    path = tmp_path / "run.pt"
    settings = replace(
        QUICK,
        seed=np.int64(3),
        learning_rate=np.logspace(-4, -3, 3)[1],
        steps=np.int64(12),
        checkpoint_every=5,
        null_label=np.int64(2),
    )
    assert type(settings.seed) is int
    assert type(settings.learning_rate) is float

    def stop(step, _loss):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, schedule, settings, checkpoint=path, on_step=stop)
    assert path.exists()
    resumed, whole = (train(data, schedule, settings, **more) for more in ({"checkpoint": path}, {}))
    for left, right in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)


def test_statistics_of_one_process_alone_are_refused():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    assert normalise_across(network, ALONE) is network
    two = replace(ALONE, count=2)
    assert type(normalise_across(network, two)[1]) is not nn.BatchNorm2d
    with pytest.raises(ValueError, match="BatchNorm1d takes statistics in each process alone"):
        normalise_across(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), two)


class Spy(nn.Module):
    """Notes what it is trained on; predicts no noise."""

    def __init__(self):
        super().__init__()
        self.zero, self.seen = nn.Parameter(torch.zeros(1)), []

    def forward(self, x, t, labels=None):
        self.seen.append((x.detach().clone(), t.clone()))
        return x * self.zero


def trained_on(data, schedule, **settings):
    spy = Spy()
    train_noise_prediction(spy, data, schedule, TrainingSettings(learning_rate=1e-6, batch_size=64, **settings))
    return [torch.cat(parts) for parts in zip(*spy.seen, strict=True)]


def test_all_timesteps_are_trained_equally_often():
    """z of a count of 1,280 draws among two levels; the last is where every sampler begins."""
    _, t = trained_on(torch.zeros(8, 2), NoiseSchedule([0.9, 0.3]), steps=20)
    assert set(t.tolist()) == {0, 1}
    assert abs(float((t == 1).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(len(t))


def test_what_is_trained_on_is_what_augmentation_makes():
    x, _ = trained_on(
        torch.full((8, 2), 50.0), NoiseSchedule([0.9, 0.3]), steps=5, augment=lambda x, _generator: torch.zeros_like(x)
    )
    assert float(x.abs().max()) < 10


def test_no_labels_are_the_label_for_no_label():
    network = NoisePredictionMLP(2, classes=3)
    nn.init.normal_(network.output.weight)  # it is zero at the start
    x, t = torch.randn(5, 2), torch.arange(5) * 100
    assert torch.equal(network(x, t), network(x, t, torch.full((5,), 3)))
    assert not torch.allclose(network(x, t), network(x, t, torch.zeros(5, dtype=torch.int64)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision_are_refused(dtype, schedule):
    """An average moves by less than half a unit in their last place, so it would stand still."""
    network = NoisePredictionMLP(2).to(dtype)
    with pytest.raises(ValueError, match='train it in float32, with precision="bfloat16"'):
        train_noise_prediction(network, torch.zeros(8, 2, dtype=dtype), schedule, TrainingSettings(steps=1, batch_size=4))


def test_batch_statistics_are_averaged_and_counters_copied():
    network = nn.BatchNorm1d(2)
    run = ResumableTraining(network, torch.optim.SGD(network.parameters(), 0.1), 0.5, {}, "")
    mean = network.running_mean.clone()
    for step in (1, 2, 3):
        network(torch.randn(8, 2, generator=torch.Generator().manual_seed(step)) + 5)
        run.stepped()
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * network.running_mean
    torch.testing.assert_close(run.averaged.running_mean, mean)
    assert float((mean - network.running_mean).abs().min()) > 0.01
    assert int(run.averaged.num_batches_tracked) == 3


def test_processes_at_unlike_steps_are_refused():
    layer = nn.Linear(1, 1)
    run = ResumableTraining(layer, torch.optim.SGD(layer.parameters(), 0.1), 0.9, {}, "")
    run.check_same_step(SimpleNamespace(all_of=lambda step: [step, step]))
    with pytest.raises(ValueError, match=r"checkpoints of steps \[0, 5\]: give them one output folder"):
        run.check_same_step(SimpleNamespace(all_of=lambda step: [step, step + 5]))


def test_the_loss_is_the_mean_squared_error_of_the_noise(schedule):
    """Of a network that predicts none, recomputed from the states it saw: the mean over entries, not their sum."""
    x_0, seen, losses = torch.tensor([[0.7, -1.1, 0.4]], dtype=torch.float64), [], []

    class Zero(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x, t):
            seen.append((x, schedule.alpha_bar[t][:, None]))
            return self.bias.expand_as(x)

    settings = TrainingSettings(steps=2, batch_size=64, learning_rate=1e-9)
    train_noise_prediction(Zero(), x_0, schedule, settings, on_step=lambda _, loss: losses.append(float(loss)))
    for (x, a), loss in zip(seen, losses, strict=True):
        assert loss == pytest.approx(float(((x - a.sqrt() * x_0) / (1 - a).sqrt()).square().mean()), rel=1e-5)
