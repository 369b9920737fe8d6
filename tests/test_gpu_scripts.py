"""The scripts for a lent GPU: one folder of what is missing there, and one call that ends by itself."""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_bundle
import gpu_check
import gpu_cifar10

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
    assert lines == ["first"]
    assert (tmp_path / "slow.txt").read_text() == "first\n"
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


def test_steps_fill_the_time_that_there_is():
    """By hand: of 540 s a third for the U-Net, 50,000 x 20 x 5.7 sampler steps, 90 s of AutoAttack, the rest for 4 + 0.5 classifiers."""
    rates = gpu_cifar10.Rates(0.02, 1e-5, 0.05, 5.0, 0.1)
    steps = gpu_cifar10.steps_within(rates, 540.0)
    left = 0.95 * 540 - 0.33 * 540 - 20 * 50_000 * 1e-5 * 5.7 - 90 - 30
    classifier, encoder = int(0.85 * left / 4.5 / 0.05), int(0.42 * left / 4.5 / 0.05)
    assert steps == {"unet": 8910, "classifier": classifier, "encoder": encoder, "autoattack": 225}
    assert steps["unet"] * 0.02 + classifier * 0.05 * 4 + encoder * 0.05 + 90 < 540
    assert gpu_cifar10.steps_within(replace(rates, autoattack=1e-3), 540.0)["autoattack"] == 500
    slow = gpu_cifar10.steps_within(gpu_cifar10.Rates(1e3, 1e3, 1e3, 1e3, 1e3), 10.0)
    assert slow == {"unet": 1, "classifier": 1, "encoder": 1, "autoattack": 100}


def test_the_calls_are_ones_that_run_cifar_takes(tmp_path):
    from image_experiments.engine.presets import settings_from
    from image_experiments.engine.settings import resolve

    steps = {"unet": 100, "classifier": 20, "encoder": 10, "autoattack": 300}
    calls = gpu_cifar10.calls_of(gpu_cifar10.base_of(steps, tmp_path, 500, tiny=False), tmp_path)
    main, paper = (resolve(settings_from(call)) for call in calls.values())
    assert (main.methods, paper.methods) == (("real", "unguided", "particle:auto"), ("infonce:0.3",))
    assert (main.diffusion.steps, main.classifier.steps, main.encoder.steps) == (100, 20, 10)
    assert main.diffusion == paper.diffusion
    assert main.classifier == paper.classifier
    assert (paper.selection.labels, paper.selection.criterion, paper.selection.surplus) == ("pseudo", "confidence", 1.25)
    assert (main.synthetic, main.eps, main.test, main.evaluation.autoattack_images) == (50_000, 8 / 255, 2000, 300)


def test_no_process_of_a_part_stays_on_the_card(tmp_path):
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    _, (pid,) = gpu_check.call(gpu_check.Part("parent", ("-c", code), 1.0), tmp_path, gpu_check.environment_with(None), 3.0)
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
    assert "--limit 30: leaves time for steps" in capsys.readouterr().err
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
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--limit", "300"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "made" / "table.txt").read_text() == printed
    (tmp_path / "made" / "main" / "details.csv").unlink()  # as where a call is cut off before the tables
    assert gpu_cifar10.table_of(tmp_path / "made") == printed.splitlines()[1:]
    for name in ("main real", "main unguided", "main particle-auto", "paper infonce-0.3"):
        assert re.search(rf"^{name}: autoattack linf 0\.1500, 4 images: clean \S+, robust \S+ \+- \S+$", printed, re.M)
    design = (tmp_path / "made" / "design.json").read_text()
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--limit", "100"]) == 0  # goes on with the same steps, and all is done
    assert (tmp_path / "made" / "design.json").read_text() == design
    assert gpu_cifar10.main(["--tiny", "--out", "made", "--seed", "1"]) == 1
    assert "holds another call" in capsys.readouterr().err
    assert gpu_cifar10.main(["--bundle", str(tmp_path)]) == 1
    assert "no CIFAR-10 there; name its folder with --data-dir, or pack a copy with gpu_bundle.py --data" in capsys.readouterr().err
