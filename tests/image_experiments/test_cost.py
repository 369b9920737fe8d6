"""The dry run: sums that can be done by hand, a schedule that can be drawn by hand, and a calibration that measures what it says."""

import itertools
import re
import time
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch._inductor.exc import InvalidCxxCompiler

from command_line.output import UserError
from contrastive_dp import NoiseSchedule
from image_experiments import run_cifar
from image_experiments.engine import progress
from image_experiments.engine.calibration import Choice, Probe, choose, sampler_network, seconds
from image_experiments.engine.checks import Facts, facts_without_reading, known_facts
from image_experiments.engine.cost import (
    CLEAN,
    PICTURE_SECONDS,
    Work,
    _explicit,
    _fitting,
    calibrate,
    disk_bytes,
    estimate,
    evaluations,
    guided_steps,
    key,
    makespan,
    mean_of,
    passing_bytes,
    shown,
    shown_bytes,
    stage_seconds,
)
from image_experiments.engine.plan import plan
from image_experiments.engine.presets import PRESETS, cifar10_gpu, cpu, paper, preset_named, smoke
from image_experiments.engine.progress import ROBUST
from image_experiments.engine.settings import resolve
from image_experiments.engine.stages import Stage
from image_experiments.evaluation.robustness import EvaluationSettings
from image_experiments.models.diffusion_files import read_diffusion, save_diffusion
from image_experiments.models.unet import make_noise_prediction
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import parse_method
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.attacks import Threat
from image_experiments.training.diffusion_training import DiffusionSettings
from tests.image_experiments.conftest import write_folder
from tests.image_experiments.test_together import SMALL

SHAPE = (1, 8, 8)


def stage(name, *needed):
    return Stage(name, print, {}, {}, {other.name: other for other in needed})


def test_a_schedule_drawn_by_hand():
    """a 3 and b 1 begin; b's worker takes c (needs b) until 1 + 4; a's takes d (needs a) until 3 + 2; e needs both and ends at 6."""
    a, b = stage("a"), stage("b")
    c, d = stage("c", b), stage("d", a)
    e = stage("e", c, d)
    seconds = {"a": 3.0, "b": 1.0, "c": 4.0, "d": 2.0, "e": 1.0}
    assert makespan([a, b, c, d, e], seconds, 2, 0.0) == 6.0
    assert makespan([a, b, c, d, e], seconds, 2, 10.0) == 16.0
    assert makespan([a, b, c, d, e], seconds, 1, 0.0) == 11.0
    assert makespan([], {}, 2, 1.0) == 0.0
    advised = replace(c, advice={"speed": a})  # waits for the choice, though it takes no file of it
    assert makespan([a, b, advised], {"a": 70.0, "b": 1.0, "c": 1.0}, 2, 0.0) == 71.0


def test_sizes_are_those_of_the_files_that_will_be_read(tmp_path):
    """A copy of GTSRB need not have its size; official files need not be read."""
    write_folder(tmp_path, np.random.default_rng(0), train=24, test=12, size=8)
    copied = replace(smoke(), dataset="gtsrb", data_dir=tmp_path, train=0, validation=4)
    read, data = known_facts(copied)
    assert len(read.labels) == 24
    assert (data.shape, len(data.classes), data.pool, data.test) == ((3, 8, 8), 2, 24, 12)
    read, official = known_facts(replace(copied, data_dir=tmp_path / "archives", image_size=16))
    assert read is None
    assert (official.shape, len(official.classes), official.pool, official.test) == ((3, 16, 16), 43, 26_640, 12_630)
    assert facts_without_reading(replace(copied, data_dir=None, classes=("00001", "00042"))) is None  # they differ in number


def test_some_classes_are_counted_and_not_guessed():
    """Digits 1 and 8 are 117 of the 600 that may be trained on, not two tenths of them."""
    _, data = known_facts(replace(smoke(), classes=("1", "8")))
    _, labels = load_digits(return_X_y=True)
    assert data.pool + data.test == int(np.isin(labels, (1, 8)).sum())
    assert data.pool == 117


def rates_of(settings):
    """Round numbers in place of measurements."""
    rates = {
        f"{what} {key(part)}": value
        for part in (settings.classifier, settings.encoder)
        for what, value in (("start", 2.0), ("step", 0.5))
    }
    rates |= {
        "start diffusion": 1.0,
        "step diffusion": 0.25,
        f"attack {settings.classifier.network}": 1e-4,
        f"pass {settings.classifier.network}": 1e-4,
    }
    rates |= {"beyond unguided": 0.001, "step unguided": 0.01, "beyond infonce-0.3": 0.002, "step infonce-0.3": 0.03}
    rates |= {"part apgd-ce": 0.1, "part apgd-t": 0.2, "part fab-t": 0.3, "part square": 0.4}
    return rates | {"imports": 4.0, "peak": 1e9, "share": 1.0}


def test_sums_done_by_hand():
    settings = resolve(smoke())
    stages = {s.name: s for s in plan(settings)}
    data, rates = known_facts(settings)[1], rates_of(settings)
    assert (data.shape, len(data.classes), data.pool, data.test) == ((1, 8, 8), 10, 600, 1197)

    def cost(name):
        return stage_seconds(stages[name], settings, data, rates)

    assert cost("diffusion/seed0") == pytest.approx(1 + 1000 * 0.25)
    assert cost("classifier/real/seed0") == pytest.approx(2 + 200 * 0.5 + 1 * 100 * 12 * 1e-4)
    assert cost("generate/unguided/seed0") == pytest.approx(500 * (0.001 + 20 * 0.01))
    inside = guided_steps(settings.generation, 1000)
    assert inside == sum(t < 700 for t in torch.linspace(999, 0, 20).round().tolist()) == 14
    assert cost("generate/infonce-0.3/seed0") == pytest.approx(500 * (0.001 + 14 * 0.03 + 6 * 0.01))
    auto = 40 * (CLEAN * 0.1 + ROBUST * (0.2 + 0.3 + 0.4))
    assert cost("evaluate/real/seed0") == pytest.approx(1197 * 20 * 1e-4 + auto)
    assert evaluations(list(stages.values()), settings) == (2 * 500 * 20, 1000 * 64)
    images = disk_bytes([s for s in stages.values() if s.name.startswith(("data", "generate"))], settings, data)
    assert images == pytest.approx((600 + 1197 + 2 * 500) * 72)
    assert passing_bytes(list(stages.values()), data) == 500 * 72


def test_a_scale_that_is_to_be_found_costs_its_trials_and_a_choice_by_validation_its_images():
    """Of the two windows the wider one is taken, of 25 scales five: 1 + 2 x 5 trials of 500 images."""
    evaluation = EvaluationSettings(split="validation", pgd_steps=20, autoattack_images=None, autoattack_parts="apgd-ce")
    settings = resolve(replace(smoke(), methods=("infonce:auto",), evaluation=evaluation))
    stages = {s.name: s for s in plan(settings)}
    data, rates = known_facts(settings)[1], rates_of(settings)
    rates |= {"beyond infonce-auto": 0.002, "step infonce-auto": 0.03}
    rates = {name: value for name, value in rates.items() if not name.startswith("part ") or name == "part apgd-ce"}
    found = stage_seconds(stages["strength/infonce-auto/seed0"], settings, data, rates)
    assert found == pytest.approx(11 * 500 * (0.001 + 14 * 0.03 + 6 * 0.01))
    attacked = stage_seconds(stages["evaluate/infonce-auto/seed0"], settings, data, rates)
    assert attacked == pytest.approx(100 * 20 * 1e-4 + 100 * CLEAN * 0.1)
    assert evaluations(list(stages.values()), settings)[0] == (11 * 500 + 500) * 20


@pytest.mark.parametrize("name", PRESETS)
def test_every_stage_of_every_preset_has_a_cost(name):
    """A dry run with precision or compile auto ended in a traceback."""
    settings = resolve(replace(PRESETS[name](), methods=("unguided", "feedback:0.1", "autoguidance:0.5", "cads")))
    rates = defaultdict(lambda: 1e-3, rates_of(settings))
    stages = plan(settings)
    costs = {stage.name: stage_seconds(stage, settings, Facts((3, 32, 32), tuple("abc"), 1000, 100), rates) for stage in stages}
    assert all(np.isfinite(list(costs.values())))
    if "auto" in (settings.classifier.precision, settings.classifier.compile):
        assert costs["speed/classifier"] < 100 < costs["classifier/unguided/seed0"] * 1e4


def test_two_networks_a_step_and_a_weaker_model_are_counted():
    settings = resolve(replace(smoke(), methods=("unguided", "autoguidance:0.5")))
    forward, backward = evaluations(plan(settings), settings)
    assert forward == 500 * 20 + 2 * 500 * 20
    assert backward == (1000 + 200) * 64


def test_measuring_a_choice_of_speed_is_no_training():
    """Each choice was counted as one more training of the U-Net, and as one more network on disk."""
    settings = resolve(replace(PRESETS["cifar10-gpu"](), methods=("unguided",), seeds=1))
    stages, facts = plan(settings), Facts((3, 32, 32), tuple("0123456789"), 50_000, 10_000)
    assert any(stage.name == "speed/diffusion" for stage in stages)
    assert evaluations(stages, settings)[1] == settings.diffusion.steps * settings.diffusion.batch_size
    measuring = [stage for stage in stages if stage.name.startswith("speed/")]
    assert disk_bytes(measuring, settings, facts) == disk_bytes([], settings, facts)
    assert set(progress.work_of(measuring, settings, facts).values()) == {progress.SMALL}


def test_a_busy_machine_is_said_and_the_time_is_a_range():
    """Half of a processor while it was measured: between half of the time and all of it."""
    settings = resolve(smoke())
    stages = [stage for stage in plan(settings) if not stage.name.startswith("judge")]  # whose rate is not among these
    data, rates = known_facts(settings)[1], rates_of(settings)
    idle = estimate([Work(settings, stages, [rates], data, 2)], 1.0)
    seconds = {stage.name: stage_seconds(stage, settings, data, rates) for stage in stages}
    end = makespan(stages, seconds, 2, rates["imports"]) + rates["imports"] + PICTURE_SECONDS
    assert f"time: {shown(end)} on 2 processes" in idle
    assert "busy" not in idle
    told = estimate([Work(settings, stages, [{**rates, "share": 0.4}, {**rates, "share": 0.6}], data, 2)], 1.0)
    assert f"time: {shown(end / 2)} to {shown(end)} on 2 processes" in told
    assert "this machine is busy: while it was measured, the measurement had a processor for 50% of the time" in told


def test_runs_that_follow_each_other_add_up():
    """Times, images and files are added; memory and the shards of one set are not."""
    settings = resolve(smoke())
    stages = [stage for stage in plan(settings) if not stage.name.startswith("judge")]
    data, rates = known_facts(settings)[1], rates_of(settings)
    one, two = (Work(settings, stages, [rates], data, workers) for workers in (2, 1))
    told = estimate([one, two, Work(settings, [], [rates], data, 1)], 1.0)
    assert f"time: {shown(one.duration() + two.duration())} on 2 processes" in told
    assert one.duration() < two.duration()
    assert f"disk: {shown_bytes(2 * disk_bytes(stages, settings, data) + passing_bytes(stages, data))}" in told
    assert f"memory: {shown_bytes(rates['peak'])};" in told
    assert f"images: {2 * sum(s.arguments['count'] for s in stages if s.name.startswith('generate/')):,.0f} generated" in told
    assert estimate([Work(settings, [], [rates], data, 1)], 1.0) == estimate([], 1.0) == "nothing is left to do"


def test_measurements_made_side_by_side_are_averaged_and_their_memory_added():
    settings = resolve(smoke())
    one, two = rates_of(settings), rates_of(settings)
    two |= {f"attack {settings.classifier.network}": 3e-4, "peak": 1e8}
    mean = mean_of([one, two])
    assert mean[f"attack {settings.classifier.network}"] == pytest.approx(2e-4)
    assert mean["peak"] == 11e8
    assert mean["step diffusion"] == one["step diffusion"]


def test_numbers_are_shown_with_the_unit_that_suits_them():
    assert [shown(s) for s in (3.21, 130, 7200.0, 2 * 86400, 4 * 365 * 86400)] == [
        "3.2 s",
        "2.2 min",
        "2.0 h",
        "2.0 days",
        "4.0 years",
    ]
    assert [shown_bytes(n) for n in (1500, 2.5e6, 3e9, 4.2e12)] == ["2 kB", "2.5 MB", "3.0 GB", "4.2 TB"]


@pytest.fixture(scope="module")
def probe():
    return Probe((1, 8, 8), 10, Threat("linf", 0.1), torch.device("cpu"), 0.3)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns: [seconds]."""
    now = [0.0]
    monkeypatch.setattr("image_experiments.engine.calibration.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_a_step_is_timed_after_the_first_and_scaled_to_the_whole_batch(probe, clock, monkeypatch):
    """An image takes 0.01 s, the first step 5 s more. A budget of 0.3 s holds batches of 2 and 8, not of 32."""

    def training(network, data, threat, settings, seed, on_step):
        for step in itertools.count(1):
            clock[0] += 0.01 * settings.batch_size + (5.0 if step == 1 else 0.0)
            on_step(step, torch.zeros(()))

    monkeypatch.setattr("image_experiments.engine.calibration.train_classifier", training)
    monkeypatch.setattr(Probe, "attack_passes", lambda *_: 0.0)
    found = probe.step(ClassifierSettings(batch_size=128, precision="float32", compile="no"))
    assert (found.batch, found.start, found.step) == (8, pytest.approx(5.0), pytest.approx(1.28))


def test_everything_is_timed_with_the_arithmetic_it_has_in_a_run(monkeypatch):
    """As the settings say, evaluations in full float32."""
    seen = defaultdict(set)

    def look(name, found):
        def measured(*_args, **_more):
            cudnn = torch.backends.cudnn
            seen[name].add((torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark))
            return found

        monkeypatch.setattr(Probe, name, measured)

    look("step", Choice("float32", "no", 0.1, 0.1, 2))
    look("sampling", {"unguided": (0.1, 0.1)})
    look("attack_passes", 0.1)
    look("autoattack_parts", {"apgd-ce": 0.1})
    settings = resolve(replace(smoke(), tf32=True, cudnn_benchmark=True))
    facts = known_facts(settings)[1]
    rates = calibrate(settings, plan(settings), facts, "cpu")
    assert {name.partition(" ")[0] for name in rates} >= {"attack", "pass", "part", "start", "step", "beyond"}
    trained, judged = ("high", True, True), ("highest", False, False)
    assert seen == {"step": {trained}, "sampling": {trained}, "attack_passes": {trained, judged}, "autoattack_parts": {judged}}


def test_a_step_is_really_taken(probe):
    found = probe.step(ClassifierSettings(batch_size=16, attack_steps=1, augmentation="none"))
    assert found.step > 0
    assert 2 <= found.batch <= 16


def test_the_fastest_way_is_chosen_and_what_was_tried_is_written(probe, tmp_path, monkeypatch):
    took = {
        ("float32", "no"): (0.0, 2.0),
        ("float32", "yes"): (50.0, 1.0),
        ("bfloat16", "no"): (0.0, 1.5),
        ("bfloat16", "yes"): (60.0, 0.4),
    }

    def measured(self, settings, timed):
        assert timed == (0 if settings.compile == "no" or "no" not in compilations else 16)  # compiled, as many as without
        start, step = took[settings.precision, settings.compile]
        return Choice(settings.precision, settings.compile, start, step, 16)

    compilations = ("no", "yes")

    monkeypatch.setattr(Probe, "step", measured)
    for steps, expected in ((10, ("bfloat16", "no")), (1000, ("bfloat16", "yes"))):
        part = ClassifierSettings(steps=steps, precision="auto", compile="auto")
        found = choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv")
        assert (found["precision"], found["compile"]) == expected
    part = ClassifierSettings(steps=1000, precision="float32", compile="auto")
    assert choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv") == {
        "precision": "float32",
        "compile": "yes",
    }
    assert len((tmp_path / "tried.csv").read_text().splitlines()) == 3


def test_what_does_not_compile_is_not_chosen(probe, tmp_path, monkeypatch):
    """On a machine without a C++ compiler; other errors, and a compilation that was asked for, are not passed over."""

    def measured(self, settings, timed):
        if settings.compile == "yes":
            raise error
        return Choice(settings.precision, settings.compile, 0.0, 1.0, 16)

    monkeypatch.setattr(Probe, "step", measured)
    part = ClassifierSettings(steps=10, precision="float32", compile="auto")
    error = InvalidCxxCompiler()
    assert choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv")["compile"] == "no"
    with pytest.raises(InvalidCxxCompiler):
        choose(probe, "classifier", replace(part, precision="auto", compile="yes"), DiffusionSettings(), 10, tmp_path / "tried.csv")
    error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv")["compile"] == "no"
    error = RuntimeError("a mistake of our own")
    with pytest.raises(RuntimeError, match="a mistake"):
        choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv")


def test_what_does_not_fit_in_memory_is_not_chosen(probe, tmp_path, monkeypatch):
    def measured(self, settings, timed):
        if settings.precision == "float32":
            raise torch.cuda.OutOfMemoryError("no memory")
        return Choice(settings.precision, settings.compile, 0.0, 1.0, 16)

    monkeypatch.setattr(Probe, "step", measured)
    part = ClassifierSettings(steps=10, precision="auto")
    assert choose(probe, "classifier", part, DiffusionSettings(), 10, tmp_path / "tried.csv")["precision"] == "bfloat16"
    assert "float32,no,inf,inf,inf" in (tmp_path / "tried.csv").read_text()
    with pytest.raises(UserError, match="batch-size 128: does not fit in this device's memory"):
        choose(
            probe, "classifier", replace(part, precision="float32", compile="auto"), DiffusionSettings(), 10, tmp_path / "none.csv"
        )
    assert not (tmp_path / "none.csv").exists()


def test_a_sampler_that_compiles_is_timed_by_its_steps_and_not_by_its_compilation(probe, clock, monkeypatch):
    """A network whose first call takes a second: that is the start; a step takes what the others take."""
    calls = []

    def slow_at_first(x, t, labels):
        clock[0] += 1.0 if not calls else 0.02
        calls.append(len(x))
        return x

    monkeypatch.setattr("image_experiments.engine.calibration.sampler_network", lambda *_: (slow_at_first, NoiseSchedule.linear()))
    found = probe.sampler(DiffusionSettings(), GenerationSettings(batch_size=32, compile="yes"), 8)
    assert set(calls) == {8}  # as many as were timed without
    assert found.batch == 8
    assert found.start == pytest.approx(0.98)
    assert found.step * 8 == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_device_that_is_timed_is_waited_for(monkeypatch, kind):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device(kind, 1) if kind == "cuda" else torch.device(kind)
    assert seconds(lambda: time.sleep(0.01), device) >= 0.01
    assert waited == ([device] * 2 if kind == "cuda" else [])


def test_what_is_left_open_is_measured_before_and_what_is_not_is_left_alone():
    always = {"diffusion", "encoder", "judge", "classifier", "generate"}
    for preset, expected in ((smoke, set()), (cpu, set()), (cifar10_gpu, always | {"strength"}), (paper, always)):
        stages = plan(resolve(preset()))
        parts = {"encoder", "diffusion", "generation", "classifier"} if expected else set()
        assert {s.name for s in stages if s.name.startswith("speed")} == {f"speed/{part}" for part in parts}
        assert not any("speed" in s.inputs for s in stages)  # the choice decides how fast, and not what
        readers = {s.name.split("/")[0] for s in stages if "speed" in s.advice}
        assert readers == expected
    assert preset_named(["--preset", "cifar10-gpu"]).synthetic == 50_000


def test_the_dry_run_prints_what_it_will_cost_and_writes_nothing(tmp_path, capsys):
    assert run_cifar.main(["--dry-run", "--workers", "1", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "15 of 15 stages" in text
    assert re.search(
        r"^time: [\d.]+ (s|min)( to [\d.]+ (s|min))? on 1 processes, of which (evaluate|diffusion) takes the largest share, \d+%$",
        text,
        re.M,
    )
    assert re.search(r"^memory: [\d.]+ (MB|GB); disk: [\d.]+ MB$", text, re.M)
    assert "images: 1,000 generated; diffusion network: 2e+04 evaluations in sampling, 6.4e+04 in training" in text
    assert not (tmp_path / "out").exists()


def test_methods_without_a_model_need_none(tmp_path, capsys):
    assert run_cifar.main(["--dry-run", "--workers", "1", "--methods", "real", "--out", str(tmp_path / "out")]) == 0
    assert "diffusion network: 0 evaluations" in capsys.readouterr().out


def test_guidance_every_few_steps_and_without_a_window():
    assert guided_steps(GenerationSettings(steps=20, window=None), 1000) == 20
    assert guided_steps(GenerationSettings(steps=20, window=None, every=3), 1000) == 7


def test_what_is_done_already_costs_nothing_and_the_rest_is_known(tmp_path, capsys):
    out = ["--workers", "1", "--out", str(tmp_path / "out")]
    assert run_cifar.main([*SMALL, "--methods", "real", *out]) == 0
    for flag, value, stages in (
        ("--classifier.steps", "29", "classifier/real/seed0"),
        ("--evaluation.pgd-steps", "4", "evaluate/real/seed0"),
    ):
        capsys.readouterr()
        assert run_cifar.main([*SMALL, "--methods", "real", *out, flag, value, "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert f"would run  {stages}" in text
        assert "unchanged  split/seed0" in text
        assert "time: " in text
    capsys.readouterr()
    assert run_cifar.main([*SMALL, "--methods", "real", *out, "--dry-run"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_part_is_priced_alone_and_bad_settings_are_one_line(tmp_path, capsys):
    out = ["--workers", "1", "--dry-run", "--out", str(tmp_path / "out")]
    assert run_cifar.main([*SMALL, "--part", "1/2", *out]) == 0
    assert "evaluate" not in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for change, message in (
        (["--diffusion", str(tmp_path / "empty")], "is missing: give the folder of a diffusers pipeline"),
        (["--diffusion.channels", "8", "8", "8", "8", "8"], "cannot be halved"),
        (["--classifier.network", "foo"], "'foo' is unknown"),
    ):
        assert run_cifar.main([*SMALL, *change, *out]) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert message in error.splitlines()[-1]


def test_a_precision_that_does_not_fit_is_left_out_and_none_is_refused():
    """As the run itself chooses: float32 may not fit where bfloat16 does."""

    def measure(one):
        if one.precision in lacking:
            raise torch.OutOfMemoryError("no memory")
        return one.precision

    both = _explicit(ClassifierSettings(precision="auto", batch_size=77))
    lacking = {"float32"}
    assert list(_fitting(both, measure, "encoder")) == ["bfloat16"]
    lacking = {"float32", "bfloat16"}
    with pytest.raises(UserError, match=r"--encoder\.batch-size 77: does not fit in this device's memory"):
        list(_fitting(both, measure, "encoder"))

    def broken(_one):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(_fitting(both, broken, "encoder"))


@pytest.mark.filterwarnings("error")
def test_particles_are_measured_in_company(probe):
    """A first measurement of two images has two of one class, so nobody is told that particles are alone."""
    settings = GenerationSettings(steps=4, batch_size=8, window=None)
    found = probe.sampling(DiffusionSettings(channels=(8, 16)), settings, [parse_method("particle:0.1")], "small-cnn")
    assert set(found) == {"unguided", "particle-0.1"}


def test_a_loaded_model_is_timed_on_its_own_schedule_and_null_label(tmp_path):
    """A model of 400 timesteps that predicts v ended in an IndexError, and one with a null label was said to have none."""
    made = DiffusionSettings(channels=(8, 16), timesteps=400, prediction="v", label_dropout=0.1)
    save_diffusion(tmp_path, make_noise_prediction(made, 2, SHAPE, 0), made.noise_schedule(), ("cat", "dog"))
    loaded = DiffusionSettings(load=tmp_path)
    network, schedule = sampler_network(loaded, SHAPE, 2, torch.device("cpu"), "no")
    assert len(schedule) == 400
    assert network.null_label == read_diffusion(loaded, None, ("cat", "dog"), SHAPE)[0].null_label == 2
    Probe(SHAPE, 2, Threat("linf", 0.1), torch.device("cpu"), 0.1).sampler(loaded, GenerationSettings(steps=5))
