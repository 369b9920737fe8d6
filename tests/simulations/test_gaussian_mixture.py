"""The main job as a user runs it."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from command_line.output import UserError, prepare_folder, text_table, write_csv, write_json, write_whole
from image_experiments.engine.presets import preset, settings_from
from simulations import gaussian_mixture
from simulations.mixtures import monte_carlo
from simulations.mixtures.monte_carlo import Check, Effort, Estimate

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "simulations" / "gaussian_mixture.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One quick run from another folder, as a script."""
    folder = tmp_path_factory.mktemp("main")
    command = [sys.executable, str(SCRIPT), "--quick", "--out", "out", "--seed", "3", "--workers", "1"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False), folder / "out"


def test_quick_run_agrees_with_theory(finished):
    result, out = finished
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.startswith("settings: data=breast-cancer")
    with (out / "theory_vs_simulation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["quantity", "setting", "theory", "simulation", "standard_error", "z"]
    assert len(rows) >= 200
    assert {row["quantity"].split()[0] for row in rows} == {f"T{i}" for i in range(1, 17)} | {"Interval"}
    for row in rows:
        z = (float(row["simulation"]) - float(row["theory"])) / float(row["standard_error"])
        assert float(row["z"]) == pytest.approx(z)
        assert abs(z) <= 5
    summary = json.loads((out / "summary.json").read_text())
    assert summary["theory_vs_simulation"]["rows"] == len(rows)
    assert summary["theory_vs_simulation"]["kolmogorov_smirnov"]["p_value"] > 1e-4
    assert summary["settings"]["seed"] == 3
    assert summary["real_data"]["rows"] == {"training": 284, "held_out": 285}


def test_every_csv_has_its_picture(finished):
    _, out = finished
    pictures = {path.stem for path in out.glob("*.png")}
    drawn = (
        "accuracy_against_n",
        "ceiling",
        "linf_mean",
        "frontier",
        "ddim_shrinkage",
        "class_snr",
        "phase_diagram",
        "sample_gap",
        "real_data",
        "beside_real_data",
        "subpopulations",
    )
    assert pictures == {*drawn, "theory_vs_simulation"}
    for name in pictures:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.csv").is_file()
    assert not list(out.glob(".*")), "temporary files were left"


@pytest.mark.slow
def test_same_files_on_any_number_of_workers(tmp_path):
    for workers in (1, 2):
        arguments = ["--quick", "--workers", str(workers), "--out", str(tmp_path / str(workers))]
        subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True)
    names = sorted(path.name for path in (tmp_path / "1").iterdir() if path.name != "summary.json")
    assert len(names) > 15
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_rows_do_not_depend_on_order_or_company():
    first = Check("a", "x=1", lambda rng, effort: {"": Estimate(0.0, rng.random(), 1.0)})
    second = Check("b", "x=1", first.run)
    alone = first.rows(5, Effort.quick())
    assert monte_carlo.run_all([second.rows, first.rows], 5, Effort.quick(), 1)[1] == alone
    assert first.rows(6, Effort.quick()) != alone
    assert second.rows(5, Effort.quick())[0].simulation != alone[0].simulation


def test_disagreement_fails_the_run(tmp_path, monkeypatch, capsys):
    """A theory that is wrong by 6 standard errors ends with exit status 1 and names the row."""
    broken = Check("T1 broken", "p=2", lambda rng, effort: {"": Estimate(0.5, 0.5 + 6 * 0.01, 0.01)})
    monkeypatch.setattr("simulations.mixtures.theory_checks.all_checks", lambda: [broken])
    monkeypatch.setattr("simulations.mixtures.curves.CURVES", {})
    assert gaussian_mixture.main(["--part", "simulation", "--quick", "--workers", "1", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "T1 broken, p=2: theory 0.5, simulation 0.56, z 6.0" in output.out
    assert "FAILED" in output.err


def test_real_data_alone_with_all_options(tmp_path, capsys):
    options = ["--data", "digits:1,7", "--norms", "1", "2", "inf", "--eps", "0", "0.1", "--radius", "0.5", "--accuracy", "0.9"]
    assert gaussian_mixture.main([*options, "--part", "data", "--out", str(tmp_path)]) == 0
    with (tmp_path / "real_data.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(float(row["p"]), float(row["eps"])) for row in rows} == {(p, e) for p in (1, 2, math.inf) for e in (0, 0.1)}
    for row in rows:
        gap = float(row["measured"]) - float(row["predicted"])
        assert float(row["moments_gap"]) + float(row["shape_gap"]) == pytest.approx(gap, abs=1e-12)
    said, told = capsys.readouterr().out, (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert "where the Gaussian assumption breaks" in told
    assert "where the Gaussian assumption breaks" not in said
    assert len(said.splitlines()) <= 9  # settings, what was read, what is doubtful, the answer, the files


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert gaussian_mixture.main(["--dry-run", "--out", str(tmp_path / "none")]) == 0
    assert "would run: theory against simulation and real data breast-cancer" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


BAD = [
    (["--eps", "-1"], "--eps -1.0: must be a finite number >= 0"),
    (["--eps", "nan"], "--eps nan"),
    (["--radius", "inf"], "--radius inf"),
    (["--accuracy", "1.5"], "--accuracy 1.5: must lie in"),
    (["--confidence", "0"], "--confidence 0.0: must lie"),
    (["--seed", "-2"], "--seed -2: must lie in 0"),
    (["--seed", "5000000000"], "--seed 5000000000: must lie in 0"),
    (["--workers", "-1"], "--workers -1"),
    (["--data", "breast-cancre"], "did you mean 'breast-cancer'"),
    (["--data", "missing.csv"], "no such file"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_settings_are_one_line(tmp_path, capsys, arguments, message):
    assert gaussian_mixture.main([*arguments, "--out", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_all_radii_trivial_is_said_plainly(tmp_path, capsys):
    assert gaussian_mixture.main(["--part", "data", "--eps", "100", "--out", str(tmp_path)]) == 0
    assert "no classifier beats guessing" in capsys.readouterr().out
    assert (tmp_path / "summary.json").is_file()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((40, 3)), "no feature varies"),
        (np.repeat([[0.0], [1.0]], 20, axis=0), "constant within each class"),
        (np.tile(np.arange(20.0), 2)[:, None], "same mean|cannot be analysed|wrote"),
    ],
)
def test_degenerate_tables_are_one_line(tmp_path, capsys, features, message):
    np.savez(tmp_path / "a.npz", x=features, y=np.repeat([0, 1], 20))
    status = gaussian_mixture.main(["--part", "data", "--data", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out")])
    output = capsys.readouterr()
    assert re.search(message, output.err + output.out)
    assert status == (0 if "wrote" in output.out else 1)
    assert output.err.count("\n") <= 1


def test_extreme_units_change_nothing(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 3)), np.repeat([0, 1], 30)
    x[y == 1] += 1
    tables = []
    for scale in (1.0, 1e-200, 1e160):
        np.savez(tmp_path / "a.npz", x=x * scale, y=y)
        flags = ["--part", "data", "--data", str(tmp_path / "a.npz"), "--norms", "2", "--out", str(tmp_path / "out")]
        assert gaussian_mixture.main(flags) == 0
        tables.append(np.genfromtxt(tmp_path / "out" / "real_data.csv", delimiter=",", skip_header=1, usecols=(1, 2, 4, 6)))
    for table in tables[1:]:
        np.testing.assert_allclose(tables[0], table, atol=1e-6)


def test_unknown_flag_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        gaussian_mixture.main(["--quik"])
    assert caught.value.code == 2
    assert "--quick" in capsys.readouterr().err


def test_parts_and_tables_get_their_own_folders():
    folder = gaussian_mixture.default_folder
    settings = gaussian_mixture.Settings
    assert folder(settings()) == Path("results/gaussian_mixture")
    names = {
        folder(settings(part=part, data=data)) for part in ("all", "data") for data in ("breast-cancer", "digits:3,8", "a/b.csv")
    }
    assert len(names | {folder(settings(part="simulation"))}) == 7


@pytest.mark.parametrize("options", [["--help"], ["--part", "data", "--data", "table.npz", "--norms", "2", "--eps", "0.1"]])
def test_closed_output_is_no_traceback(tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("table.npz", x=np.random.default_rng(0).standard_normal((60, 2)), y=np.repeat([0, 1], 30))
    command = f"{sys.executable} {SCRIPT} {' '.join(options)} --out {tmp_path} | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


def test_few_rows_are_warned_of(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.standard_normal((40, 30)), y=np.repeat([0, 1], 20))
    flags = ["--part", "data", "--data", str(tmp_path / "a.npz"), "--norms", "2", "--eps", "0.1", "--out", str(tmp_path)]
    assert gaussian_mixture.main(flags) == 0
    assert "WARNING: 20 training rows for 30 features" in capsys.readouterr().out


def test_unwritable_output(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert gaussian_mixture.main(["--part", "data", "--out", str(tmp_path / "file")]) == 1
    assert "cannot create the folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_reader_who_goes_away_is_no_error(tmp_path):
    """As `... | head -1` does: the work goes on to its end."""
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal((60, 3)), y=np.repeat([0, 1], 30))
    flags = ["--part", "data", "--data", str(tmp_path / "a.npz"), "--norms", "2", "--eps", "0.1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "simulations/gaussian_mixture.py", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "rror" not in error
    assert (tmp_path / "out" / "summary.json").is_file()


def test_another_experiment_does_not_overwrite_the_first(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).standard_normal((60, 3)), y=np.repeat([0, 1], 30))
    out = tmp_path / "out"
    flags, main = ["--part", "data", "--data", str(tmp_path / "a.npz"), "--out", str(out)], gaussian_mixture.main
    assert main([*flags, "--eps", "1/10"]) == 0
    before = (out / "real_data.csv").read_bytes()
    assert main([*flags, "--eps", "0.2", "--seed", "1"]) == 1
    assert "holds another experiment (eps 0.1 there, 0.2 here; seed 0 there, 1 here)" in capsys.readouterr().err
    assert (out / "real_data.csv").read_bytes() == before
    assert main([*flags, "--eps", "0.1", "--workers", "1"]) == 0
    assert (out / "real_data.csv").read_bytes() == before
    assert main([*flags, "--eps", "0.2", "--force"]) == 0


def test_data_of_the_same_name_in_another_folder_are_another_experiment(tmp_path, capsys, monkeypatch):
    """And the same file is the same data, from wherever it is named."""
    main, out = gaussian_mixture.main, tmp_path / "out"
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "t.npz", x=np.random.default_rng(seed).standard_normal((60, 3)), y=np.repeat([0, 1], 30))
    flags = ["--part", "data", "--out", str(out), "--norms", "2", "--eps", "0.1", "--data"]
    monkeypatch.chdir(tmp_path / "a")
    assert main([*flags, "t.npz"]) == 0
    monkeypatch.chdir(tmp_path / "b")
    before = (out / "real_data.csv").read_bytes()
    assert main([*flags, "t.npz"]) == 1
    assert "holds another experiment (data " in capsys.readouterr().err
    assert (out / "real_data.csv").read_bytes() == before
    assert main([*flags, "../a/t.npz"]) == 0


def test_a_leading_tilde_is_the_home_folder_in_every_flag(tmp_path, monkeypatch):
    """Shells leave --out=~/x and quoted words as they are; a folder named ~ invites rm -r ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).standard_normal((60, 3)), y=np.repeat([0, 1], 30))
    flags = ["--part", "data", "--data", "~/t.npz", "--out=~/results", "--norms", "2", "--eps", "0.1"]
    assert gaussian_mixture.main(flags) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "t.npz"]
    named = settings_from(["--out", "~/a", "--reuse", "~/b", "c~/d"]), preset("smoke", out="~/a", reuse=["~/b", "c~/d"])
    for settings in named:
        assert settings.out == tmp_path / "a"
        assert settings.reuse == (tmp_path / "b", Path("c~/d"))


def test_a_user_without_a_home_folder_is_told(monkeypatch, capsys):
    """As in a container under a user number of its own."""
    import pwd

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", dict[int, str]().__getitem__)
    assert gaussian_mixture.main(["--out=~/results"]) == 1
    assert capsys.readouterr().err == "error: ~/results: this user has no home folder; give the whole path\n"
    with pytest.raises(UserError, match="no home folder"):
        preset("smoke", out="~/a")


def test_interrupted_write_keeps_the_earlier_file(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("x",), [(0.1,), (1 / 3,)])
    before = path.read_bytes()

    def fail(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_full_disk_is_one_line(tmp_path):
    def fail(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write.*No space left.*another --out"):
        write_whole(tmp_path / "a.csv", fail)
    assert not list(tmp_path.iterdir())


def test_csv_keeps_every_digit_and_json_every_infinity(tmp_path):
    values = np.random.default_rng(0).standard_normal(5)
    write_csv(tmp_path / "a.csv", ("x",), [(float(v),) for v in values])
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "a.csv", skiprows=1), values)
    write_json(tmp_path / "a.json", {"a": math.inf, "b": [np.float64(0.5), Path("x")], "c": (np.int64(2),)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "inf", "b": [0.5, "x"], "c": [2]}


def test_text_table_is_aligned():
    assert text_table(("name", "n"), [("a", "1"), ("long", "22")]).splitlines() == ["name   n", "----  --", "a      1", "long  22"]


def test_prepare_folder(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b").is_dir()


def test_estimates_carry_the_standard_error_that_is_theirs():
    values = np.random.default_rng(0).normal(size=50)
    found = monte_carlo.average(0.1, values)
    assert (found.simulation, found.standard_error) == pytest.approx((values.mean(), stats.sem(values)), rel=1e-12)
    shared = monte_carlo.share(0.3, 40, 100)
    assert (shared.simulation, shared.standard_error) == pytest.approx((0.4, np.sqrt(0.3 * 0.7 / 100)), rel=1e-12)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--part", "data", "--quick"], "--quick: --part data"),
        (["--part", "simulation", "--eps", "0.1"], "--eps 0.1: --part simulation"),
        (["--part", "simulation", "--norms", "1", "2"], "--norms 1 2: --part simulation"),
        (["--part", "simulation", "--data", "digits:3,8"], "--data digits:3,8: --part simulation"),
    ],
)
def test_an_option_that_the_part_does_not_use_is_refused(flags, named, tmp_path, capsys):
    assert gaussian_mixture.main([*flags, "--dry-run", "--out", str(tmp_path / "out")]) == 1
    assert named in capsys.readouterr().err
