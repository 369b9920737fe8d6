"""Results become the committed ones whole or not at all, with command, seeds, versions, date and checksums."""

import json
import shutil

import pytest

from figures import keep_reference
from figures.experiments import EXPERIMENTS, REFERENCE


def call(*arguments):
    return keep_reference.main([str(argument) for argument in arguments])


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "results")
    return tmp_path / "results"


def test_what_figures_read_is_kept_with_where_it_comes_from(copy, tmp_path, capsys):
    (copy / "gaussian_mixture" / "large.bin").write_bytes(b"0" * 3_000_000)  # no figure reads it
    assert call("--results", copy, "--out", tmp_path / "kept") == 0
    assert "gaussian_mixture" in capsys.readouterr().out
    notes = json.loads((tmp_path / "kept" / "provenance.json").read_text())
    assert set(notes) == set(EXPERIMENTS)
    for name, note in notes.items():
        kept = {str(p.relative_to(tmp_path / "kept" / name)) for p in (tmp_path / "kept" / name).rglob("*") if p.is_file()}
        assert (
            kept
            == set(note["sha256"])
            == {str(p.relative_to(REFERENCE / name)) for p in (REFERENCE / name).rglob("*") if p.is_file()}
        )
        assert note["command"].startswith(f"python {EXPERIMENTS[name].script}")
        assert all(rows > 0 for rows in note["rows"].values())
        assert {"date", "seed", "seeds", "versions", "seconds"} <= set(note)


def test_results_of_other_settings_are_not_kept_and_a_seed_is_noted(copy, tmp_path, capsys):
    """Captions name the data of the committed results."""
    kept, path = shutil.copytree(REFERENCE, tmp_path / "kept"), copy / "gaussian_mixture" / "summary.json"
    before = (kept / "provenance.json").read_bytes()
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"settings": summary["settings"] | {"seed": 7, "workers": 3}}))
    assert call("gaussian_mixture", "--results", copy, "--out", kept) == 0
    note = json.loads((kept / "provenance.json").read_text())["gaussian_mixture"]
    assert (note["seed"], note["command"]) == (7, "python simulations/gaussian_mixture.py --seed 7")
    (kept / "provenance.json").write_bytes(before)
    path.write_text(json.dumps(summary | {"settings": summary["settings"] | {"data": "digits:3,8"}}))
    assert call("gaussian_mixture", "--results", copy, "--out", kept) == 1
    error = capsys.readouterr().err
    assert "was made with other settings than" in error
    assert "digits:3,8 here" in error
    assert (kept / "provenance.json").read_bytes() == before


def test_what_is_wrong_is_one_line_and_nothing_is_touched(copy, tmp_path, capsys, monkeypatch):
    kept = tmp_path / "kept"
    for arguments, message in [
        (("gaussian_mixtur",), "did you mean gaussian_mixture?"),
        (("--results", tmp_path / "nowhere"), "holds no results"),
        (("digits-cpu", "--results", tmp_path / "nowhere"), "is missing; run python image_experiments/run_cifar.py"),
    ]:
        assert call(*arguments, "--out", kept) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert "\n" not in error
        assert message in error
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert call("--results", copy, "--out", copy) == 1  # would delete what it copies
    assert "is where they are kept" in capsys.readouterr().err
    (copy / "digits-cpu" / "summary.json").write_text("{}")
    assert call("--results", copy, "--out", kept) == 1
    assert "does not tell settings with seed" in capsys.readouterr().err
    (copy / "digits-cpu" / "metrics.csv").unlink()
    assert call("--results", copy, "--out", kept) == 1
    assert "metrics.csv: is missing, a figure reads it" in capsys.readouterr().err
    for path, content in before.items():
        path.write_bytes(content)
    (copy / "digits-cpu" / "details.csv").write_text("x" * keep_reference.MOST_BYTES)
    assert call("--results", copy, "--out", kept) == 1
    assert f"more than {keep_reference.MOST_BYTES}" in capsys.readouterr().err
    assert not kept.exists()
