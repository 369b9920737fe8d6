"""The scripts for a lent GPU: one folder of what is missing there, and one call that ends by itself."""

import json
import re
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_bundle
import gpu_check
import gpu_cifar10
import profile_steps

from image_experiments.engine import presets
from image_experiments.engine.calibration import Probe
from image_experiments.training.attacks import Threat

ROOT = Path(__file__).resolve().parents[1]


def test_packages_come_in_the_pinned_versions():
    text = "tyro==1.0\ndocstring_parser==0.18.0\nPOT==0.9.7.post1\n# absent==3\n"
    assert gpu_bundle.pinned(("docstring-parser", "tyro", "absent", "pot"), text) == [
        "docstring_parser==0.18.0",
        "tyro==1.0",
        "POT==0.9.7.post1",
    ]
    found = gpu_bundle.pinned(gpu_bundle.WANTED, (ROOT / "constraints.txt").read_text())
    assert {"diffusers", "tyro", "pyautoattack", "pooch"} <= {entry.partition("==")[0] for entry in found}


def test_what_cannot_be_bundled_is_one_line(tmp_path, monkeypatch):
    for settings, message in (
        (gpu_bundle.Settings(tmp_path), "exists already; name a new folder"),
        (gpu_bundle.Settings(tmp_path / "new", data=(tmp_path / "none.tar",)), "none.tar: no such file"),
    ):
        with pytest.raises(Exception, match=message):
            gpu_bundle.run(settings)
    monkeypatch.setattr(gpu_bundle.subprocess, "run", lambda *_a, **_k: SimpleNamespace(returncode=0))
    (tmp_path / "data.bin").write_bytes(b"0" * 2**20)
    with pytest.raises(Exception, match=r"--most 0\.5: the folder would hold 1\.0 MiB"):
        gpu_bundle.run(gpu_bundle.Settings(tmp_path / "new", data=(tmp_path / "data.bin",), most=0.5))
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(gpu_bundle.subprocess, "run", lambda *_a, **_k: SimpleNamespace(returncode=1))
    with pytest.raises(Exception, match=r"pip could not install diffusers==\S+ "):
        gpu_bundle.run(gpu_bundle.Settings(tmp_path / "new"))


def test_a_part_that_takes_too_long_is_stopped_and_its_lines_are_kept(tmp_path):
    slow = gpu_check.Part("slow", ("-c", "print('first', flush=True); import time; time.sleep(60)"), 1.0)
    status, lines = gpu_check.call(slow, tmp_path, gpu_check.environment_with(None), 3.0)
    assert status == "stopped after 3 s"
    assert (lines[0], lines[-1]) == ("first", "KeyboardInterrupt")  # asked to end, and told where it was
    assert (tmp_path / "slow.txt").read_text().startswith("first\n")
    bad = gpu_check.Part("bad", ("-c", "raise SystemExit(3)"), 1.0)
    assert gpu_check.call(bad, tmp_path, gpu_check.environment_with(None), 30.0) == ("failed with status 3", [])


def test_the_table_is_printed_last_and_a_failure_is_the_status(tmp_path, monkeypatch, capsys):
    parts = [
        gpu_check.Part("tests", ("-c", "print('35 passed')"), 0.5),
        gpu_check.Part("bench", ("-c", "raise SystemExit(1)"), 1.0),
    ]
    monkeypatch.setattr(gpu_check, "parts_of", lambda _seconds: parts)
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert re.match(r"device: .*torch \S+\ntests: passed\n    35 passed\nbench: failed with status 1\n$", printed)
    assert (tmp_path / "out" / "table.txt").read_text() == printed
    assert gpu_check.main(["--out", str(tmp_path / "out"), "--only", "tests"]) == 0
    assert gpu_check.main(["--bundle", str(tmp_path)]) == 1
    assert "has no folder site; make it with gpu_bundle.py" in capsys.readouterr().err


def test_packages_of_the_bundle_are_found(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "of_the_bundle.py").write_text("VALUE = 7\n")
    part = gpu_check.Part("found", ("-c", "import of_the_bundle, contrastive_dp; print(of_the_bundle.VALUE)"), 1.0)
    assert gpu_check.call(part, tmp_path, gpu_check.environment_with(tmp_path), 60.0) == ("passed", ["7"])


def test_the_plan_fills_the_time_that_there_is():
    """By hand: of 1,100 s, 150 are fixed and 6 starts take 30; of the rest 0.3 for the U-Net, 0.15 for attacks, 0.22 at most for images."""
    rates = gpu_cifar10.Rates(0.02, 1e-5, 0.05, 5.0, 0.1)
    steps, whole = gpu_cifar10.steps_within(rates, 1100.0), 0.95 * 950 - 30
    images, attacked = min(int(0.22 * whole / (20 * 1e-5 * 5.7) / 1000) * 1000, 50_000), int(0.15 * whole / 4 / 0.1)
    left = 0.7 * whole - images * 20 * 1e-5 * 5.7 - 4 * attacked * 0.1
    assert steps["unet"] == int(0.3 * whole / 0.02)
    assert (steps["images"], steps["autoattack"]) == (images, attacked)
    assert (steps["classifier"], steps["encoder"]) == (int(0.85 * left / 4.5 / 0.05), int(0.42 * left / 4.5 / 0.05))
    assert gpu_cifar10.steps_within(replace(rates, autoattack=1e-3), 1100.0)["autoattack"] == 500


@pytest.mark.parametrize("sampling", [1e-6, 1e-5, 6e-5, 5e-4])
@pytest.mark.parametrize("seconds", [540.0, 1100.0])
@pytest.mark.parametrize("classifier", [0.03, 0.12])
def test_what_is_planned_fits(sampling, seconds, classifier):
    """Whatever the card: all that rates tell of, and what they do not."""
    rates = gpu_cifar10.Rates(0.05, sampling, classifier, 5.0, 0.05)
    steps = gpu_cifar10.steps_within(rates, seconds)
    takes = steps["unet"] * rates.unet + (4 * steps["classifier"] + steps["encoder"]) * classifier
    takes += 20 * steps["images"] * sampling * 5.7 + 4 * steps["autoattack"] * rates.autoattack + 6 * rates.start
    assert takes + gpu_cifar10.FIXED <= seconds
    assert takes + gpu_cifar10.FIXED > 0.85 * seconds or steps["images"] == 50_000
    assert min(steps.values()) >= 0


def test_the_calls_are_ones_that_run_cifar_takes(tmp_path):
    from image_experiments.engine.presets import settings_from
    from image_experiments.engine.settings import resolve

    steps = {"unet": 100, "images": 30_000, "classifier": 20, "encoder": 10, "autoattack": 300}
    calls = gpu_cifar10.calls_of(gpu_cifar10.base_of(steps, tmp_path, 500, tiny=False), tmp_path, 300, 30_000)
    main, paper, whole, more = (resolve(settings_from(call)) for call in calls.values())
    assert (main.methods, paper.methods) == (("real", "unguided", "particle:auto"), ("infonce:0.3",))
    assert (main.diffusion.steps, main.classifier.steps, main.encoder.steps) == (100, 20, 10)
    assert (main.diffusion.warmup, main.classifier.warmup, main.encoder.warmup) == (10, 2, 1)
    assert main.diffusion == paper.diffusion == whole.diffusion
    assert main.classifier == paper.classifier == whole.classifier
    assert (paper.selection.labels, paper.selection.criterion, paper.selection.surplus) == ("pseudo", "confidence", 1.25)
    assert (main.synthetic, main.eps, main.test, main.evaluation.autoattack_images) == (30_000, 8 / 255, 2000, 300)
    assert [one.evaluation.autoattack_parts for one in (main, paper, whole)] == ["apgd", "apgd", "all"]
    assert whole.evaluation.autoattack_images == 200
    assert (more.methods, more.synthetic, more.diffusion, more.classifier) == (
        ("unguided",),
        60_000,
        main.diffusion,
        main.classifier,
    )


def test_a_card_that_cannot_be_measured_gets_a_plan_all_the_same(tmp_path, monkeypatch, capsys):
    def broken(_device):
        raise RuntimeError("CUDA error: no kernel image")

    monkeypatch.setattr(gpu_cifar10, "measured", broken)
    monkeypatch.setattr(gpu_cifar10, "status_within", lambda *_a, **_k: 1)
    data = tmp_path / "cifar"
    data.mkdir()
    kept = tmp_path / "kept"
    assert gpu_cifar10.main(["--data-dir", str(data), "--out", str(tmp_path / "out"), "--keep", str(kept), "--limit", "540"]) == 1
    printed = capsys.readouterr()
    assert "measuring failed (RuntimeError: CUDA error: no kernel image); planned with assumed rates" in printed.err
    assert "nothing is finished" in printed.out
    design = json.loads((kept / "design.json").read_text())
    assert design["rates"]["measured"] is False
    assert min(design["steps"].values()) > 10
    assert {path.name for path in kept.iterdir()} >= {"design.json", "table.txt", "main.txt", "paper.txt", "runs.tar.gz"}
    assert len(list(kept.iterdir())) <= 8


def test_no_process_of_a_part_stays_on_the_card(tmp_path):
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    _, (pid, *_) = gpu_check.call(gpu_check.Part("parent", ("-c", code), 1.0), tmp_path, gpu_check.environment_with(None), 3.0)
    for _ in range(50):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is alive")


def test_too_little_time_is_one_line_and_nothing_is_noted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_cifar10, "measured", lambda _device: gpu_cifar10.Rates(1.0, 1.0, 1.0, 1.0, 1.0))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10-jpeg.tar.xz").write_bytes(b"")
    assert gpu_cifar10.main(["--bundle", str(tmp_path), "--out", str(tmp_path / "out"), "--limit", "30"]) == 1
    assert "--budget 30: leaves time for" in capsys.readouterr().err
    assert not (tmp_path / "out" / "design.json").exists()
    assert gpu_check.main(["--out", str(tmp_path / "check"), "--limit", "1"]) == 1
    assert "tests: not started, no time is left" in capsys.readouterr().out


def test_a_relative_folder_of_data_is_that_of_the_caller(tmp_path, monkeypatch):
    """The calls run in the folder of the repository."""
    given = []
    monkeypatch.setattr(gpu_cifar10, "run_all", lambda _chosen, data, _begin: given.append(data) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar").mkdir()
    assert gpu_cifar10.main(["--data-dir", "cifar", "--out", "made"]) == 0
    assert given == [tmp_path / "cifar"]


@pytest.mark.slow  # half a minute; the calls that it makes are checked above
def test_the_whole_path_on_small_images(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--keep", "kept", "--limit", "300"]) == 0
    printed = capsys.readouterr().out
    with tarfile.open("kept/runs.tar.gz") as archive:
        assert {"main/metrics.csv", "paper/samples.png", "autoattack/outcomes/real-seed500.npz"} <= set(archive.getnames())
    assert (tmp_path / "made" / "table.txt").read_text() == printed
    (tmp_path / "made" / "main" / "details.csv").unlink()  # as where a call is cut off before the tables
    assert gpu_cifar10.table_of(tmp_path / "made") == printed.splitlines()[1:]
    for name in ("main real", "main unguided", "main particle-auto", "paper infonce-0.3"):
        assert re.search(rf"^{name}: apgd linf 0\.1500, 4 images: clean \S+, robust \S+ \+- \S+$", printed, re.M)
    assert re.search(r"^more unguided: apgd linf", printed, re.M)
    assert len(re.findall(r"^\w+ \S+: wrong labels \S+ \(real \S+\), Frechet distance \S+ \(real \S+\)$", printed, re.M)) == 6
    assert re.search(r"^autoattack real: autoattack linf 0\.1500, 4 images: ", printed, re.M)
    design = (tmp_path / "made" / "design.json").read_text()
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--limit", "100"]) == 0  # goes on with the same steps, and all is done
    assert (tmp_path / "made" / "design.json").read_text() == design
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--seed", "1"]) == 1
    assert "holds another call" in capsys.readouterr().err
    assert gpu_cifar10.main(["--bundle", str(tmp_path)]) == 1
    assert "no CIFAR-10 there; name its folder with --data-dir, or pack a copy with gpu_bundle.py --data" in capsys.readouterr().err


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_profile_counts_every_kernel_once(on_gpu, monkeypatch, capsys):
    """torch lists a kernel by itself and as the device's time of the operation that started it. Half a second on the clock."""

    def event(kind, key, host, device):
        told = {"self_cpu_time_total": host, "self_device_time_total": device, "count": 3}
        return SimpleNamespace(key=key, device_type=SimpleNamespace(name=kind), **told)

    events = [event("CPU", "aten::conv", 2e4, 3e5), event("CPU", "aten::add", 4e4, 1e5), event("CUDA", "kernel_a", 0, 3e5)]
    events.append(event("CUDA", "kernel_b", 0, 1e5))
    events.append(event("CUDA", "Optimizer.step", 0, 2e5))  # spans kernels
    events[-1].is_user_annotation = True
    monkeypatch.setattr(profile_steps, "ON_GPU", on_gpu)
    profile_steps.tell("a step", (SimpleNamespace(key_averages=lambda: events), 0.5), 2)
    first, *rows = capsys.readouterr().out.splitlines()
    assert (
        first
        == f"a step: 0.500 s on the clock, {'80%' if on_gpu else '12%'} of it in operations of the {'GPU' if on_gpu else 'CPU'}"
    )
    shares = [("60.0%", "aten::conv"), ("20.0%", "aten::add")] if on_gpu else [("8.0%", "aten::add"), ("4.0%", "aten::conv")]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == shares


@pytest.mark.parametrize(("device", "sizes"), [("cuda", [500]), ("cpu", [2, 8, 32, 128, 500])])
def test_a_gpu_is_measured_with_whole_batches(device, sizes):
    probe, seen = Probe((3, 32, 32), 10, Threat("linf", 8 / 255), torch.device(device), 1.0), []
    assert probe._largest(500, 2, lambda n: seen.append(n) or 0.01) == 500
    assert seen == sizes


@pytest.mark.slow
def test_the_rates_are_measured_on_what_the_preset_trains(monkeypatch):
    """On a CPU, with networks small enough; each rate is a time of its own."""
    preset = presets.cifar10_gpu()
    small = replace(
        preset,
        diffusion=replace(preset.diffusion, channels=(8, 16, 16), batch_size=4),
        classifier=replace(preset.classifier, network="small-cnn", batch_size=4),
        generation=replace(preset.generation, batch_size=4),
    )
    monkeypatch.setattr(presets, "cifar10_gpu", lambda: small)
    rates = gpu_cifar10.measured("cpu")
    assert rates.measured
    assert len({rates.unet, rates.sampling, rates.classifier, rates.autoattack}) == 4
    assert 0 < min(rates.unet, rates.sampling, rates.classifier, rates.autoattack) <= rates.unet < 10
