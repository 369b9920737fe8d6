"""The simulations from Python: the tables that the commands write, errors as exceptions of one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from command_line.output import UserError, write_json
from simulations import gaussian_mixture, guided_diffusion


def test_the_main_job_from_python(tmp_path, capsys):
    found = gaussian_mixture.run(data="digits:3,8", part="data", eps=(0.1,), norms=("2",), out=tmp_path / "out", workers=1)
    assert capsys.readouterr().out == ""
    assert set(found.tables) >= {"real_data_accuracy"} or found.tables
    name = found.tables[0]
    lines = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
    assert len(found.table(name)) == len(lines) - 1
    assert ",".join(found.table(name).columns) == lines[0]
    assert found.summary["settings"]["data"] == "digits:3,8"


def test_a_guided_run_from_python(tmp_path, capsys):
    found = guided_diffusion.run(guidance="anchored", scale=0.3, quick=True, seeds=1, samples=512, out=tmp_path / "out", workers=1)
    assert capsys.readouterr().out == ""
    assert list(found.table("guidance")["guidance"]) == ["none", "anchored"]
    assert len(found.table("rotation")) == len(found.table("ceiling")) == 0  # belong to the whole study
    assert len(found.table("frontier")) > 0


@pytest.mark.parametrize(
    ("run", "changes", "message"),
    [
        (gaussian_mixture.run, {"accuracy": 0.2}, r"--accuracy 0\.2: must lie in \[0\.5, 1\)"),
        (gaussian_mixture.run, {"dta": "x"}, "dta: no such setting, did you mean data"),
        (gaussian_mixture.run, {"dry_run": True}, "belongs to the command line"),
        (guided_diffusion.run, {"guidance": "anchored", "scale": float("nan")}, "--scale nan"),
        (guided_diffusion.run, {"seeds": -1}, "--seeds -1"),
    ],
)
def test_errors_are_exceptions(tmp_path, run, changes, message):
    with pytest.raises(UserError, match=message):
        run(out=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_simulation_that_disagrees_with_theory_is_not_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(
        gaussian_mixture, "conduct", lambda settings, _table, _talk: write_json(settings.out / "summary.json", {}) and 2
    )
    (tmp_path / "out").mkdir()
    with pytest.warns(UserWarning, match=r"^2 simulations disagree with theory; see failing_rows in .*summary\.json"):
        gaussian_mixture.run(part="simulation", out=tmp_path / "out")


def test_settings_are_checked_as_from_the_command_line(tmp_path):
    with pytest.raises(UserError, match="settings='digits:3,8': give Settings"):
        gaussian_mixture.run("digits:3,8")
    settings = gaussian_mixture.Settings(
        data="digits:3,8", part="data", eps=(0.1,), norms=("2",), out=str(tmp_path / "out"), workers=1
    )
    assert gaussian_mixture.run(settings).out == tmp_path / "out"


def test_importing_changes_no_path():
    code = "import sys; before = list(sys.path); import simulations.gaussian_mixture, image_experiments.evaluate; assert sys.path == before"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(gaussian_mixture.__file__).parents[1])
