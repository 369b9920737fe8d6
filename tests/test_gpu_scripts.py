"""The scripts for a lent GPU: one folder of what is missing there, and one call that ends by itself."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_bundle
import gpu_check

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
    status, lines = gpu_check.call(slow, tmp_path, gpu_check.with_bundle(None), 3.0)
    assert status == "stopped after 3 s"
    assert lines == ["first"]
    assert (tmp_path / "slow.txt").read_text() == "first\n"
    bad = gpu_check.Part("bad", ("-c", "raise SystemExit(3)"), 1.0)
    assert gpu_check.call(bad, tmp_path, gpu_check.with_bundle(None), 30.0) == ("failed with status 3", [])


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
    assert gpu_check.call(part, tmp_path, gpu_check.with_bundle(tmp_path), 60.0) == ("passed", ["7"])
