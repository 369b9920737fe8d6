"""Sweeps: one table from many runs, shared stages linked and not made again, one-line errors for a wrong design."""

import errno
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from command_line import cluster
from command_line.folder_claim import claim
from command_line.messages import QUIET, Talk
from command_line.output import UserError
from command_line.statistics import crossed_interval, holm
from image_experiments import experiment, gathering, run_cifar, run_sweep, sweeps
from image_experiments.engine import jobs
from image_experiments.engine.plan import needed_for
from image_experiments.engine.presets import settings_from
from image_experiments.engine.stages import Stage
from image_experiments.output import sweep_tables
from image_experiments.sweep_cost import alike
from image_experiments.sweeps import DESIGNS, SweepSettings, read_design
from tests.image_experiments.test_run_cifar import SMALL, rows

RUNS = """
[run.first]
methods = ["real", "unguided", "noise:0.2"]

[run.chosen]
methods = ["unguided"]
arguments = ["--selection.surplus", "2", "--selection.criterion", "confidence"]
"""


def write_design(folder, text, base=()):
    path = folder / "mine.toml"
    shared = [argument for i, argument in enumerate(SMALL) if "--workers" not in SMALL[max(i - 1, 0) : i + 1]]
    two = ("--evaluation.autoattack-parts", "apgd")
    path.write_text(f"base = {json.dumps([*shared, *two, *base])}\n{text}")
    return path


def call(*arguments):
    return run_sweep.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    design = write_design(folder, RUNS)
    compare = 'compare = [["first/noise-0.2", "first/unguided"], ["chosen/unguided", "first/unguided"]]'
    design.write_text(f"seed = 4\nseeds = 2\n{compare}\n{design.read_text()}")
    assert call("--design", design, "--out", folder / "out", "--workers", 1) == 0
    return folder / "out"


def test_the_dry_run_counts_what_runs_share_once_and_what_is_made_not_at_all(swept, tmp_path, monkeypatch, capsys):
    """Two seeds. first and chosen share data, splits and networks; chosen has images of its own, of which it keeps half."""
    begun = []

    def timed(settings, stages, facts, place, count):
        begun.append(settings.methods)
        return []

    monkeypatch.setattr("image_experiments.sweep_cost.calibrated", timed)
    monkeypatch.setattr(
        "image_experiments.sweep_cost.estimate", lambda works, *_: " ".join(s.name for w in works for s in w.stages)
    )
    design = write_design(tmp_path, RUNS)
    design.write_text(f"seed = 4\nseeds = 2\n{design.read_text()}")
    assert call("--design", design, "--out", tmp_path / "new", "--workers", 1, "--dry-run") == 0
    names = capsys.readouterr().out.splitlines()[-1].split()
    assert begun == [("real", "unguided", "noise:0.2")]  # both runs are timed at once
    counts = {kind: sum(name.partition("/")[0] == kind for name in names) for kind in ("data", "split", "diffusion", "encoder")}
    assert counts == {"data": 1, "split": 2, "diffusion": 2, "encoder": 2}
    for kind, count in (("generate", 2 * 2), ("noise", 2), ("select", 2), ("classifier", 2 * (3 + 1)), ("evaluate", 2 * (3 + 1))):
        assert sum(name.startswith(f"{kind}/") for name in names) == count, kind
    assert not (tmp_path / "new").exists()
    assert call("--design", swept.parent / "mine.toml", "--out", swept, "--workers", 1, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == ""
    assert len(begun) == 1  # nothing was timed where nothing is left


def test_a_run_that_needs_images_of_an_earlier_one_is_not_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("image_experiments.sweep_cost.calibrated", lambda *_: [])
    monkeypatch.setattr("image_experiments.sweep_cost.estimate", lambda works, *_: f"{len(works)} run")
    made = tmp_path / "out" / "runs" / "first" / "synthetic" / "unguided" / "seed0.npz"
    design = write_design(tmp_path, f'[run.first]\nmethods = ["unguided"]\n[run.again]\nmethods = ["npz:{made}"]\n')
    assert call("--design", design, "--out", tmp_path / "out", "--dry-run") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2] == "run again is not counted: an earlier run makes its images"
    assert told[-1] == "1 run"


def test_images_that_are_there_are_counted_also_by_a_pattern(swept, tmp_path, monkeypatch, capsys):
    pattern = swept / "runs" / "first" / "synthetic" / "unguided" / "seed?.npz"
    design = write_design(tmp_path, f'[run.given]\nmethods = ["npz:{pattern}"]\n')
    assert stages_of(design, tmp_path / "out", monkeypatch, capsys)[0] > 0


def stages_of(design, out, monkeypatch, capsys, *flags):
    """Names of the stages that each run of a design adds, from its dry run."""
    monkeypatch.setattr("image_experiments.sweep_cost.calibrated", lambda *_: [])
    monkeypatch.setattr("image_experiments.sweep_cost.estimate", lambda works, _: "\n".join(str(len(w.stages)) for w in works))
    assert call("--design", design, "--out", out, "--dry-run", *flags) == 0
    return [int(line) for line in capsys.readouterr().out.splitlines() if line.isdigit()]


def test_what_would_be_made_on_other_threads_is_not_shared(tmp_path, monkeypatch, capsys):
    """Of data, split, diffusion, encoder, judge, generate, describe, classifier and evaluate the first two do not depend on them."""
    run = '[run.{}]\nmethods = ["unguided"]\narguments = ["--threads", "{}"]\n'
    same = write_design(tmp_path, "seeds = 1\n" + run.format("a", 1))
    (alone,) = stages_of(same, tmp_path / "out", monkeypatch, capsys)
    other = write_design(tmp_path, "seeds = 1\n" + run.format("a", 1) + run.format("b", 2))
    assert stages_of(other, tmp_path / "out", monkeypatch, capsys) == [alone, alone - 2]


def test_a_run_that_would_be_refused_is_named_and_reuse_is_said(swept, tmp_path, monkeypatch, capsys):
    run = '[run.{}]\nmethods = ["unguided"]\narguments = ["--device", "{}"]\n'
    design = write_design(tmp_path, run.format("a", "cpu") + run.format("b", "cuda:77"))
    assert call("--design", design, "--out", tmp_path / "out", "--dry-run") == 1
    assert "run b: --device cuda:77: torch finds" in capsys.readouterr().err
    design = write_design(tmp_path, run.format("a", "cpu"))
    stages_of(design, tmp_path / "out", monkeypatch, capsys, "--reuse", swept / "runs" / "first")
    assert call("--design", design, "--out", tmp_path / "out", "--dry-run", "--reuse", swept / "runs" / "first") == 0
    assert "what --reuse saves is known only when a run begins, and is not deducted" in capsys.readouterr().out
    assert call("--design", design, "--out", tmp_path / "out", "--dry-run", "--reuse", tmp_path) == 1
    assert f"--reuse {tmp_path}: holds no run" in capsys.readouterr().err


def test_runs_whose_steps_take_the_same_time_are_timed_together():
    """Labels, selection, radius, window, heat and counts change no step; a model without labels and further attacks do."""
    for name, groups in (("digits-eps", 1), ("digits-pipeline", 2), ("digits-confirm", 3), ("mnist-search", 1)):
        design = read_design(DESIGNS / f"{name}.toml")
        found = {alike(settings_from([*design.base, *one.arguments, "--methods", *one.methods])) for one in design.runs}
        assert len(found) == groups, name


def test_the_table_joins_settings_accuracies_and_description_of_every_run(swept):
    table = rows(swept / "sweep.csv")
    keys = {(row["run"], row["method"], row["seed"], row["attack"]) for row in table}
    assert len(table) == len(keys) == (3 + 1) * 2 * 2  # methods, seeds, attacks
    assert {(row["run"], row["surplus"], row["criterion"]) for row in table} == {
        ("first", "1.0", "random"),
        ("chosen", "2.0", "confidence"),
    }
    for run in ("first", "chosen"):
        described = {
            (row["method"], row["seed"]): row["class_snr_crossfit"] for row in rows(swept / "runs" / run / "description.csv")
        }
        metrics = {(r["method"], r["seed"], r["attack"]): r["robust_accuracy"] for r in rows(swept / "runs" / run / "metrics.csv")}
        for row in (row for row in table if row["run"] == run):
            assert float(row["robust_accuracy"]) == float(metrics[row["method"], row["seed"], row["attack"]])
            assert row["class_snr_crossfit"] == described.get((row["method"], row["seed"]), "nan")
    summary = json.loads((swept / "summary.json").read_text())
    assert summary["runs"]["chosen"]["methods"] == ["unguided"]
    assert summary["settings"]["design"] == "mine.toml"


def test_comparisons_are_paired_by_seed_and_hold_together(swept):
    table, found = rows(swept / "sweep.csv"), rows(swept / "comparisons.csv")
    assert [(row["a"], row["b"], row["attack"]) for row in found] == [
        (a, "first/unguided", attack) for a in ("first/noise-0.2", "chosen/unguided") for attack in ("pgd-5", "apgd")
    ]
    value = {(f"{r['run']}/{r['method']}", r["attack"], r["seed"]): float(r["robust_accuracy"]) for r in table}
    for row in found:
        gains = [value[row["a"], row["attack"], seed] - value[row["b"], row["attack"], seed] for seed in ("4", "5")]
        assert float(row["difference"]) == pytest.approx(np.mean(gains), abs=1e-12)
        assert row["seeds"] == "2"
        reach = [float(row[high]) - float(row[low]) for low, high in (("low", "high"), ("low_of_all", "high_of_all"))]
        ratio = stats.t.ppf(1 - 0.05 / 4 / 2, 1) / stats.t.ppf(0.975, 1)
        assert reach[1] == pytest.approx(ratio * reach[0], rel=1e-9)
    gains_of = ([0.1, 0.2, 0.15], [0.1, -0.2, 0.3], [0.01, 0.02, 0.03])
    raw = [stats.ttest_1samp(g, 0).pvalue for g in gains_of]
    header = ["run", "method", "attack", "norm", "eps", "seed", "robust_accuracy"]
    made = [["r", "base", "a", "linf", 0.1, s, 0.5] for s in range(3)]
    made += [["r", m, "a", "linf", 0.1, s, 0.5 + g] for m, of in zip("xyz", gains_of, strict=True) for s, g in enumerate(of)]
    pairs = [(("r", m), ("r", "base")) for m in "xyz"]
    compared = sweep_tables.comparisons(made, header, pairs)
    assert [row[-1] for row in compared] == pytest.approx(holm(raw), rel=1e-6)
    again = [[*row[:2], "b", *row[3:]] for row in made]  # under another attack, which is none of the family
    assert sweep_tables.comparisons(made + again, header, pairs, ["a"]) == compared
    drawn = {(m, s): np.random.default_rng([i, s]).random(50) < 0.5 for i, m in enumerate(("base", *"xyz")) for s in range(3)}
    with_images = sweep_tables.comparisons(made, header, pairs, outcomes=lambda row: drawn[row["method"], row["seed"]])
    for m, row in zip("xyz", with_images, strict=True):
        gaps = np.stack([drawn[m, s].astype(float) - drawn["base", s] for s in range(3)])
        assert tuple(row[11:15]) == pytest.approx((*crossed_interval(gaps)[1:], *crossed_interval(gaps, 1 - 0.05 / 3)[1:]))
    other = [["s", *row[1:4], 0.2, *row[5:]] for row in made]  # pairs of a run have its radius alone: the family has three twice
    both = sweep_tables.comparisons(made + other, header, [*pairs, *(tuple(("s", m) for _, m in pair) for pair in pairs)])
    assert [row[-1] for row in both] == pytest.approx(holm([*raw, *raw]), rel=1e-6)
    with pytest.raises(UserError, match="compares under pgd-3, which no run used"):
        sweep_tables.comparisons(made, header, pairs, ["a", "pgd-3"])


def test_scale_and_window_that_were_found_are_in_the_table(tmp_path):
    settings = {"generation.window": [0, 700], "diffusion.timesteps": 1000, "evaluation.split": "test"}
    settings |= {f"generation.{n}": 0 for n in ("at", "head")}
    settings |= {f"selection.{n}": 0 for n in ("surplus", "criterion", "order", "labels", "labeller", "ensemble")}
    results = {"strength/infonce-auto/seed3": {"scale": 0.17, "window": [0, 400]}}
    results |= {f"strength/infonce-auto/seed4-round{n}": {"scale": 0.1 * n, "window": [0, 700]} for n in (1, 2)}
    (tmp_path / "summary.json").write_text(json.dumps({"settings": settings, "results": results}))
    (tmp_path / "description.csv").write_text("method,seed,class_snr\ninfonce-auto,3,2.5\nunguided,3,4.5\n")
    (tmp_path / "metrics.csv").write_text("method,seed,robust_accuracy\ninfonce-auto,3,0.7\nunguided,3,0.6\n")
    header, table = sweep_tables.gather([("main", tmp_path)])
    auto, unguided = (dict(zip(header, row, strict=True)) for row in table)
    assert (auto["scale"], auto["window_low"], auto["window_high"], auto["class_snr"]) == (0.17, 0, 400, 2.5)
    assert np.isnan(unguided["scale"])
    assert unguided["window_high"] == 700
    (tmp_path / "summary.json").write_text(json.dumps({"settings": {**settings, "rounds": 2}, "results": results}))
    (tmp_path / "metrics.csv").write_text("method,seed,robust_accuracy\ninfonce-auto,4,0.7\n")
    header, (row,) = sweep_tables.gather([("main", tmp_path)])
    assert dict(zip(header, row, strict=True))["scale"] == 0.2  # that of the last round


def test_what_each_part_of_autoattack_left_is_in_the_table(swept):
    for row in rows(swept / "sweep.csv"):
        if row["attack"] != "apgd":
            assert row["after_apgd_ce"] == "nan"
            continue
        summary = json.loads((swept / "runs" / row["run"] / "summary.json").read_text())
        found = summary["results"][f"evaluate/{row['method']}/seed{row['seed']}"]["rows"][1]["after"]
        assert list(found) == ["clean", "apgd-ce", "apgd-t"]
        assert float(row["after_apgd_ce"]) == found["apgd-ce"]
        assert float(row["clean_accuracy"]) >= found["apgd-ce"] >= float(row["robust_accuracy"])
    left = {"clean": 0.9, "apgd-ce": 0.7, "apgd-t": 0.65, "fab-t": 0.64, "square": 0.63}  # of all four parts
    evaluated = {"evaluate/unguided/seed3": {"rows": [{"attack": "autoattack", "norm": "linf", "eps": 0.1, "after": left}]}}
    row = {"method": "unguided", "seed": 3, "attack": "autoattack", "norm": "linf", "eps": 0.1}
    found = sweep_tables.after_parts({"results": evaluated}, row)
    assert found == {"after_apgd_ce": 0.7, "after_apgd_t": 0.65, "after_fab_t": 0.64}


def test_what_runs_share_is_made_once_and_selection_changes_what_is_learned_from(swept):
    first, chosen = swept / "runs" / "first", swept / "runs" / "chosen"
    for part in ("diffusion-seed5", "encoder-seed5"):
        (ours,), (theirs,) = (
            [p for p in (run / "checkpoints").rglob("*") if part in str(p) and p.is_file()][:1] for run in (first, chosen)
        )
        assert ours.samefile(theirs) or ours.read_bytes() == theirs.read_bytes()
    seconds = json.loads((chosen / "summary.json").read_text())["seconds"]
    made = json.loads((first / "summary.json").read_text())["seconds"]
    assert seconds["diffusion/seed4"] == made["diffusion/seed4"]  # the very run
    assert json.loads((chosen / "summary.json").read_text())["settings"]["reuse"] == [str(first)]
    with (
        np.load(first / "synthetic" / "unguided" / "seed4.npz") as a,
        np.load(chosen / "synthetic" / "unguided" / "seed4.npz") as b,
    ):
        assert a["image"].shape == b["image"].shape
        assert not np.array_equal(a["image"], b["image"])


def test_the_same_command_does_nothing_twice_and_gives_the_same_table(swept):
    before = (swept / "sweep.csv").read_bytes()
    stages = {path: path.stat().st_mtime_ns for path in (swept / "runs").rglob("stages/**/*") if path.is_file()}
    assert call("--design", swept.parent / "mine.toml", "--out", swept, "--workers", 1) == 0
    assert (swept / "sweep.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in stages} == stages


def test_until_its_tables_are_written_again_a_sweep_is_not_finished(swept, tmp_path, capsys):
    """Or --gather would take rows of before and outcomes of after; and two sweeps at once would mix theirs."""
    out = shutil.copytree(swept, tmp_path / "out")
    settings, design = SweepSettings(design=design_of(swept)[1], out=out), read_design(design_of(swept)[1])
    settings, runs = sweeps.resolved(settings, design)
    calls = [(one, []) for one in runs]
    with experiment.only_run_in(out), pytest.raises(UserError, match="another run is writing there"):
        sweeps.conduct_sweep(settings, design, calls, QUIET, lambda _arguments: pytest.fail("ran"))
    assert (out / "summary.json").is_file()
    assert sweeps.conduct_sweep(settings, design, calls, QUIET, lambda _arguments: 1) == 1
    assert not (out / "summary.json").exists()
    assert call(*design_of(swept), "--out", tmp_path / "all", "--gather", out) == 1
    assert "holds no finished sweep" in capsys.readouterr().err


def test_the_committed_designs_are_sound(capsys, monkeypatch):
    monkeypatch.setattr("image_experiments.sweep_cost.cost_of_sweep", lambda *_: "")  # tested above, on smaller ones
    for path in sorted(DESIGNS.glob("*.toml")):
        head = path.read_text(encoding="utf-8").partition("\n\n[run")[0]
        assert "# Cost: " in head, path  # said before a run, not found out by it
        design = read_design(path)
        assert design.base
        assert "unguided" in design.runs[0].methods
        assert call("--design", path, "--dry-run", "--seeds", 1) == 0
    assert "would run window-0-200: --preset cpu" in capsys.readouterr().out


def test_the_data_set_lies_where_the_caller_says(tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr("image_experiments.run_sweep.run_cifar", lambda arguments: given.append(arguments) or 3)
    design = write_design(tmp_path, "[run.a]\nmethods = ['real']\n", ["--dataset", "images"])
    assert call("--design", design, "--data-dir", tmp_path / "set", "--dry-run") == 1
    assert f"--data-dir {tmp_path}/set: does not exist" in capsys.readouterr().err
    (tmp_path / "set").mkdir()
    assert call("--design", design, "--data-dir", tmp_path / "set", "--out", tmp_path / "out") == 1
    arguments = given[0]
    assert arguments[arguments.index("--data-dir") + 1] == str(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "moved")  # the content counts, which each run compares
    assert call("--design", design, "--data-dir", tmp_path / "moved", "--out", tmp_path / "out") == 1
    settings = SweepSettings(design, data_dir=tmp_path / "set", out=tmp_path)
    sweeps.write_summary(settings, (), [], {"this call": 1.0}, {})  # names no folder of this machine
    summary = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert (summary["design"], summary["data_dir"]) == ("mine.toml", "set")
    twice = write_design(tmp_path, "[run.a]\nmethods = ['real']\narguments = ['--data-dir=/else']\n")
    assert call("--design", twice, "--data-dir", tmp_path / "set", "--dry-run") == 1
    assert "names a --data-dir of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run.a]\nmethods = []\n", "[run.a] names no methods"),
        ("[run.a]\nmethod = ['real']\n", "[run.a] has method, did you mean methods?"),
        ("[runs.a]\nmethods = ['real']\n", "the design has runs, did you mean run?"),
        ("", "holds no run"),
        ("[run]\na = 3\n", "run.a must be a table"),
        ("[run.a]\nmethods = 'real'\n", "[run.a] methods must be a list of texts"),
        ("[run.a]\nmethods = ['real']\narguments = ['--seeds=3']\n", "--seeds=3 belongs to run_sweep.py"),
        ("[run.a]\nmethods = ['real']\narguments = ['--dry_run']\n", "--dry_run belongs to run_sweep.py"),
        (
            "[run.a]\nmethods = ['real']\narguments = ['--cluster', 'tcp://x:1']\n",
            "--cluster names a machine, and a design may come from",
        ),
        ("[run.a]\nmethods = ['real']\narguments = ['--until', 'training']\n", "--until makes a piece of a run"),
        ("[run.a]\nmethods = ['real']\narguments = ['--part=1/2']\n", "--part=1/2 makes a piece of a run"),
        ("[run.'../../away']\nmethods = ['real']\n", "[run.../../away] must be named by letters"),
        ("[run.a\n", "is not TOML"),
        ("compare = [['a/real']]\n[run.a]\nmethods = ['real']\n", "compare holds ['a/real']; write"),
        ("compare = [['a/real', 'a/unguided']]\n[run.a]\nmethods = ['real']\n", "of a/real"),
        ("seeds = 0\n[run.a]\nmethods = ['real']\n", "seeds = 0 must be a whole number of at least 1"),
        ("seed = 'x'\n[run.a]\nmethods = ['real']\n", "seed = x must be a whole number of at least 0"),
        ("[run.a]\nmethods = ['infonc']\n", "infonc"),
        ("attacks = ['pgd-20']\n[run.a]\nmethods = ['real']\n", "attacks applies to compare, which is missing"),
        (
            "attacks = ['pgd']\ncompare = [['a/real', 'a/real']]\n[run.a]\nmethods = ['real']\n",
            "attacks holds pgd; the names are pgd-STEPS",
        ),
    ],
)
def test_a_wrong_design_is_one_line_and_status_1(tmp_path, capsys, text, message):
    assert call("--design", write_design(tmp_path, text), "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --")
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def sent(swept):
    """The sweep in two folders, each with a seed, as two machines would send them: tables and outcomes, no images and no networks."""
    found = []
    for seed in (5, 4):
        out = swept.parent / f"seed{seed}"
        assert (
            call(*design_of(swept), "--out", out, "--workers", 1, "--seed", seed, "--seeds", 1, "--reuse", *swept.glob("runs/*"))
            == 0
        )
        found.append(swept.parent / "sent" / f"seed{seed}")
        for path in (out / "sweep.csv", out / "summary.json", *out.glob("runs/*/outcomes/*.npz")):
            target = found[-1] / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return found


def design_of(swept):
    return "--design", swept.parent / "mine.toml"


def test_gathered_tables_are_those_of_one_sweep(swept, sent, tmp_path, capsys):
    assert call(*design_of(swept), "--out", tmp_path / "all", "--gather", *sent) == 0
    for name in ("sweep.csv", "comparisons.csv", "settings.json"):
        assert (tmp_path / "all" / name).read_bytes() == (swept / name).read_bytes(), name
    compared = rows(swept / "comparisons.csv")
    assert all(np.isfinite(float(row["low_images"])) for row in compared)  # so the outcomes were read
    summary = json.loads((tmp_path / "all" / "summary.json").read_text())
    assert [(one["folder"], one["seeds"]) for one in summary["gathered"]] == [("seed4", [4]), ("seed5", [5])]
    taken = [json.loads((folder / "summary.json").read_text())["seconds"] for folder in sent]
    assert [one["seconds"] for one in summary["gathered"]] == taken[::-1]
    printed = capsys.readouterr()
    assert "from 2 folders" in printed.out
    assert not printed.err
    result = sweeps.sweep(swept.parent / "mine.toml", out=tmp_path / "again", gather=sent)
    assert len(result.comparisons) == len(compared)
    with pytest.raises(UserError, match=r"gathered from tables; its runs lie where they were made, in seed4 \(seeds 4\), seed5"):
        print(result.runs)
    again = sweeps.sweep(swept.parent / "mine.toml", out=tmp_path / "third", gather=[tmp_path / "all"])  # gathered once more
    assert again.table.equals(result.table)


def test_images_under_a_pattern_are_gathered_from_any_folder():
    """They are named after the folder in which the sweep was started."""
    summary = {"runs": {"a": {"methods": ["real", "npz:part*.npz"]}}}
    rows = [{"run": "a", "method": method, "seed": seed} for method in ("real", "npz-sets") for seed in (3, 4)]

    def whole(some):
        return gathering._has_all(SimpleNamespace(summary=summary, rows=some, seeds=(3, 4)))

    assert whole(rows)
    assert not any(whole([row for row in rows if row is not left]) for left in rows)
    assert not whole([*rows, {"run": "a", "method": "npz-others", "seed": 3}])
    assert not whole([*rows, {"run": "b", "method": "real", "seed": 3}])


def test_numbers_may_name_runs(swept, sent, tmp_path):
    """A run named 250 is text in the table, though a reader of numbers would make it 250.0."""
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in sent]
    for folder in copies:
        for path in (folder / "sweep.csv", folder / "summary.json"):
            path.write_text(path.read_text().replace("chosen", "250").replace("first", "500"))
        for name, number in (("chosen", "250"), ("first", "500")):
            (folder / "runs" / name).rename(folder / "runs" / number)
    design = tmp_path / "mine.toml"
    design.write_text((swept.parent / "mine.toml").read_text().replace("chosen", "250").replace("first", "500"))
    assert call("--design", design, "--out", tmp_path / "all", "--gather", *copies) == 0
    found, made = rows(tmp_path / "all" / "comparisons.csv"), rows(swept / "comparisons.csv")
    assert [row["difference"] for row in found] == [row["difference"] for row in made]


def test_a_gathering_says_what_it_would_take_and_which_outcomes_are_missing(swept, sent, tmp_path, capsys):
    assert call(*design_of(swept), "--out", tmp_path / "all", "--gather", *sent, "--dry-run") == 0
    assert f"would gather seeds 4 from {sent[1]}" in capsys.readouterr().out
    assert not (tmp_path / "all").exists()
    bare = [shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("runs")) for folder in sent]
    assert call(*design_of(swept), "--out", tmp_path / "all", "--gather", *bare) == 0
    assert "the intervals for new images are nan: outcomes are missing" in capsys.readouterr().err
    for with_images, without in zip(rows(swept / "comparisons.csv"), rows(tmp_path / "all" / "comparisons.csv"), strict=True):
        assert {name for name in with_images if with_images[name] != without[name]} == {
            name for name in without if "images" in name
        }
        assert without["low_images"] == "nan"


def test_a_design_may_compare_otherwise_than_where_the_seeds_were_made(swept, sent, tmp_path):
    fewer = tmp_path / "mine.toml"
    fewer.write_text(re.sub(r"compare = .*", 'compare = [["chosen/unguided", "first/unguided"]]', design_of(swept)[1].read_text()))
    assert call("--design", fewer, "--out", tmp_path / "all", "--gather", *sent) == 0
    assert [row["a"] for row in rows(tmp_path / "all" / "comparisons.csv")] == ["chosen/unguided"] * 2


def altered(name, change):
    def spoil(folders):
        path = next(folders[0].glob(name))
        path.write_bytes(change(path.read_text() if path.suffix != ".npz" else "").encode())
        return folders

    return spoil


def other_folder_of_unknown_data(folders):
    """As of earlier versions, whose summary has no checksum of the data."""
    for folder, name in zip(folders, ('"x.zip"', "null"), strict=True):
        path = folder / "summary.json"
        content = json.loads(path.read_text())
        del content["data"]
        path.write_text(json.dumps(content).replace('"data_dir": null', f'"data_dir": {name}'))
    return folders


def another_training(folders):
    """Outcomes of a run that went on after its table was written: one image more withstands."""
    for path in folders[0].glob("runs/*/outcomes/unguided-*.npz"):
        with np.load(path) as content:
            outcomes = dict(content)
        for withstood in outcomes.values():
            withstood[np.flatnonzero(~withstood)[0]] = True
        np.savez(path, **outcomes)
    return folders


def swapped_table(folders):
    shutil.copy(folders[1] / "sweep.csv", folders[0] / "sweep.csv")
    return folders


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (lambda folders: folders[:1], (), "sweep has seeds 4 to 5; seeds 4 are in no folder"),
        (lambda folders: [folders[0], *folders], (), "seed 5 is in .* each seed belongs in one folder"),
        (lambda folders: folders, ("--seeds", 1), "the folders hold seeds 5 besides"),
        (lambda folders: [folders[0] / "runs"], (), "holds no finished sweep, there is no sweep.csv"),
        (altered("sweep.csv", lambda text: text.replace("robust", "robust,")), (), "damaged"),
        (altered("sweep.csv", lambda text: text.replace("seed", "sead")), (), "damaged"),
        (altered("sweep.csv", lambda text: text.replace("split", "spilt")), (), "damaged"),
        (altered("sweep.csv", lambda text: text.replace("0.15", "", 1)), (), "damaged"),
        (
            altered("sweep.csv", lambda text: text[: text.rindex("chosen,")]),
            (),
            "lacks chosen unguided apgd linf 0.15, which .*seed4",
        ),
        (altered("sweep.csv", lambda text: text + text[text.rindex("chosen,") :]), (), "has not one row per run"),
        (altered("sweep.csv", lambda text: text[: text.index("chosen,")]), (), "does not have the runs, methods and seeds"),
        (
            altered("sweep.csv", lambda text: re.sub("(?m)^first,.*noise.*\n", "", text)),
            (),
            "does not have the runs, methods and seeds",
        ),
        (swapped_table, (), "does not have the runs, methods and seeds"),
        (
            altered("summary.json", lambda text: text.replace("confidence", "entropy")),
            (),
            r"another sweep \(arguments of chosen entropy there",
        ),
        (altered("summary.json", lambda text: text.replace("noise:0.2", "noise:0.20")), (), r"another sweep \(methods of first"),
        (other_folder_of_unknown_data, (), "data are x.zip in .*seed5 and the"),
        (
            altered("summary.json", lambda text: re.sub('("data": {\\s*"first": ").', r"\1-", text)),
            (),
            "the data in .*seed4 are others than in .*seed5",
        ),
        (another_training, (), r"outcomes: unguided, seed 5 is of another training than the row of sweep\.csv"),
        (
            altered("summary.json", lambda text: text.replace('"until": null', '"until": "description"')),
            (),
            "does not have the runs",
        ),
        (altered("summary.json", lambda _text: "[]"), (), "damaged"),
        (altered("summary.json", lambda _text: "{}"), (), "damaged"),
        (altered("runs/*/outcomes/unguided-*.npz", lambda _text: "not a zip"), (), "the file of unguided, seed 5 is damaged"),
        (lambda folders: folders, ("--quick",), "leave out --quick"),
        (lambda folders: folders, ("--until", "description"), "leave out --until"),
    ],
)
def test_what_cannot_be_gathered_is_one_line_and_writes_nothing(swept, sent, tmp_path, capsys, spoil, flags, message):
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in sent]
    assert call(*design_of(swept), "--out", tmp_path / "all", "--gather", *spoil(copies), *flags) == 1
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_gathering_overwrites_no_sweep_that_was_made(swept, sent, tmp_path, capsys, dry):
    made = shutil.copytree(swept, tmp_path / "made", ignore=shutil.ignore_patterns("synthetic", "checkpoints"))
    copies = [shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("runs")) for folder in sent]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (made, copies[0]):
        assert call(*design_of(swept), "--out", out, "--gather", *copies, *dry) == 1
        assert "holds a sweep that was made there" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_descriptions_first_and_then_the_whole_and_nothing_less(tmp_path, capsys):
    """--until description goes on to the whole sweep; a design without one of its runs would shorten the tables."""
    runs = "[run.a]\nmethods = ['unguided']\n[run.b]\nmethods = ['real']\n"
    design = write_design(tmp_path, runs)
    flags = ("--design", design, "--out", tmp_path / "out", "--seeds", "1", "--workers", "1")
    assert call(*flags, "--until", "description") == 0
    (row,) = rows(tmp_path / "out" / "description.csv")
    assert (row["run"], row["method"], row["seed"]) == ("a", "unguided", "0")
    assert np.isfinite(float(row["class_snr_crossfit"]))
    assert not (tmp_path / "out" / "sweep.csv").exists()
    assert call(*flags) == 0
    again = rows(tmp_path / "out" / "sweep.csv")
    assert {one["class_snr_crossfit"] for one in again if one["run"] == "a"} == {row["class_snr_crossfit"]}
    assert {one["images"] for one in again} <= {"60", "4"}
    write_design(tmp_path, runs.partition("[run.b]")[0])
    assert call(*flags) == 1
    assert "holds another experiment (runs b there, " in capsys.readouterr().err
    stamps = tmp_path / "out" / "runs" / "a" / "stages" / "describe" / "unguided"
    shutil.copy(stamps / "seed0.json", stamps / "seed7.json")  # of an earlier sweep with --force
    header, found = sweep_tables.gather_descriptions([("a", tmp_path / "out" / "runs" / "a")], {"a": ["unguided"]}, range(1))
    assert [one[header.index("seed")] for one in found] == [0]


def test_what_cannot_be_compared_is_said_before_anything_is_made(tmp_path, capsys):
    for text, words in (
        (
            'attacks = ["autoattack"]\ncompare = [["a/real", "b/real"]]\n',
            "attacks holds autoattack, which no run has; they have apgd, pgd-5",
        ),
        ('compare = [["a/real", "a/real"]]\n', "compare holds"),
        ('compare = [["a/real", "c/real"]]\n', "a/real and c/real, which have no attack of the same radius on as many images"),
    ):
        runs = "".join(f"[run.{name}]\nmethods = ['real']\n" for name in "abc") + 'arguments = ["--eps", "0.05"]\n'
        design = write_design(tmp_path, runs)
        design.write_text(text + design.read_text())
        assert call("--design", design, "--out", tmp_path / "out") == 1
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_which_options_a_run_does_not_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("image_experiments.sweep_cost.calibrated", lambda *_: [])
    monkeypatch.setattr("image_experiments.sweep_cost.estimate", lambda *_: "")
    runs = '[run.a]\nmethods = ["real"]\narguments = ["--generation.every", "2", "--processes", "2"]\n'
    assert call("--design", write_design(tmp_path, runs), "--out", tmp_path / "out", "--dry-run") == 0
    told = "".join(capsys.readouterr())
    assert "run a: --generation.every 2: has no effect here, as no method is guided by an encoder" in told
    assert "run a: --processes 2: not deducted" in told


@pytest.mark.parametrize("more", [("--test", "20", "--evaluation.autoattack-images", "3"), ("--evaluation.split", "validation")])
def test_accuracies_on_other_images_are_not_compared(tmp_path, capsys, more):
    """Once a sweep crashed over them after its last run, or compared test with validation images."""
    runs = '[run.a]\nmethods = ["unguided"]\n[run.b]\nmethods = ["unguided"]\n' + f"arguments = {json.dumps(more)}\n"
    design = write_design(tmp_path, runs)
    design.write_text('compare = [["a/unguided", "b/unguided"]]\n' + design.read_text())
    assert call("--design", design, "--out", tmp_path / "out") == 1
    assert "a/unguided and b/unguided, which have no attack of the same radius on as many images" in capsys.readouterr().err


def test_only_attacks_on_as_many_images_are_compared():
    header = ["run", "method", "seed", "attack", "norm", "eps", "split", "images", "robust_accuracy"]
    rows_of = [
        [run, "unguided", seed, attack, "linf", 0.1, "test", images, accuracy + 0.01 * seed]
        for run, attack, images, accuracy in (
            ("a", "pgd-20", 1000, 0.6),
            ("b", "pgd-20", 1000, 0.5),
            ("a", "apgd", 100, 0.6),
            ("b", "apgd", 200, 0.1),
        )
        for seed in range(3)
    ]
    (found,) = sweep_tables.comparisons(rows_of, header, [(("a", "unguided"), ("b", "unguided"))])
    assert found[:6] == ["a/unguided", "b/unguided", "pgd-20", "linf", 0.1, 3]
    assert found[6] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((), ("--test", "1197"), True),  # 0: all of digits
        ((), ("--evaluation.autoattack-images", "1197"), True),
        ((), ("--test", "1000"), False),
        (
            ("--dataset", "images", "--data-dir", "."),
            ("--dataset", "images", "--data-dir", ".", "--test", "50"),
            True,
        ),  # not known yet
    ],
)
def test_as_many_images_however_it_is_said(one, other, same):
    base = ["--preset", "cpu", "--test", "0", "--evaluation.autoattack-parts", "apgd-ce"]
    found = []
    for more in (one, other):
        settings = settings_from([*base, *more])
        if "--evaluation.autoattack-images" not in more:
            settings = replace(settings, evaluation=replace(settings.evaluation, autoattack_images=None))
        found.append(sweeps._attacks(sweeps.resolve(settings)))
    named = [[attack for attack in attacks if attack[0] == "apgd-ce"] for attacks in found]
    assert any(sweeps._alike(a, b) for a in named[0] for b in named[1]) is same


@pytest.mark.parametrize(
    ("dataset", "classes", "names"),
    [
        ("digits", (), ["apgd"]),
        ("digits", ("3", "8"), ["apgd-ce"]),
        ("digits", ("0", "1", "2", "3"), ["apgd"]),
        ("images", (), ["apgd-ce", "apgd"]),
        ("images", ("cat", "dog"), ["apgd-ce"]),
    ],
)
def test_with_few_classes_apgd_is_apgd_ce_alone(dataset, classes, names):
    settings = settings_from(
        ["--dataset", dataset, "--evaluation.autoattack-parts", "apgd", *(["--classes", *classes] if classes else [])]
    )
    assert sweeps.attacks_of(settings)[1:] == names


def test_processes_belong_to_the_command_line(tmp_path):
    """Known before the first run is made, also if it is of the last."""
    runs = {"a": {"methods": ["real"]}, "b": {"methods": ["real"], "arguments": {"processes": 2}}}
    with pytest.raises(UserError, match=r"run b: processes=2: belongs to run_sweep\.py"):
        sweeps.sweep({"base": {"preset": "smoke"}, "run": runs}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_does_not_keep_the_others_from_being_made(tmp_path, monkeypatch):
    """But there is no table, and a run that was interrupted ends all."""
    parsed = sweeps.design_of({"base": {"preset": "smoke"}, "run": {name: {"methods": ["real"]} for name in "abc"}})
    settings, runs = sweeps.resolved(SweepSettings(out=tmp_path / "out"), parsed)
    calls, seen, told = [(one, [one.name]) for one in runs], [], []
    monkeypatch.setattr(sweeps, "check_devices", lambda *_: None)
    talk = Talk(lambda _line: None, told.append)

    def make(arguments):
        seen.append(arguments)
        (tmp_path / "out" / "runs" / arguments[0] / "stages").mkdir(parents=True)
        return {"a": 0, "b": 1, "c": 0}[arguments[0]]

    assert sweeps.conduct_sweep(settings, parsed, calls, talk, make) == 1
    reused = [f"{tmp_path}/out/runs/{name}" for name in "ab"]  # also what the one that failed has finished
    assert seen == [["a"], ["b", "--reuse", reused[0]], ["c", "--reuse", *reused]]
    assert told[0].startswith("run b of ")
    assert told[1].startswith(
        "1 of 3 runs failed (b), so there is no table; put right what they say and run the same command again"
    )
    assert not (tmp_path / "out" / "sweep.csv").exists()
    seen.clear()
    assert sweeps.conduct_sweep(settings, parsed, calls, talk, lambda arguments: seen.append(arguments) or 130) == 130
    assert len(seen) == 1


def test_from_python_runs_that_fail_are_raised_after_the_others(tmp_path, monkeypatch):
    errors, made = {"a": UserError("diffusion/seed0: the loss became NaN"), "b": OSError(28, "No space left")}, []

    def run_one(arguments, _talk):
        made.append(Path(arguments[arguments.index("--out") + 1]).name)
        if made[-1] in errors:
            raise errors[made[-1]]
        return 0

    monkeypatch.setattr(sweeps, "run_one", run_one)
    design, told = {"base": {"preset": "smoke"}, "run": {name: {"methods": ["real"]} for name in "abc"}}, []
    message = r"^run a: diffusion/seed0: the loss became NaN; run b: \[Errno 28\] No space left$"
    with pytest.raises(UserError, match=message):
        sweeps.sweep(design, Talk(lambda _line: None, told.append), out=tmp_path / "out", seeds=1)
    assert made == ["a", "b", "c"]
    assert told[0] == "diffusion/seed0: the loss became NaN"


def test_other_attacks_to_compare_under_do_not_bind_the_folder(swept, tmp_path):
    design, made = swept.parent / "mine.toml", shutil.copytree(swept, tmp_path / "out")
    fewer = tmp_path / "mine.toml"
    fewer.write_text(
        'attacks = ["apgd"]\n' + design.read_text(), encoding="utf-8-sig"
    )  # and a mark at its beginning, as editors write
    assert call("--design", fewer, "--out", made, "--workers", 1) == 0
    assert {row["attack"] for row in rows(made / "comparisons.csv")} == {"apgd"}
    before = (made / "summary.json").read_bytes()
    assert call("--design", fewer, "--out", made, "--workers", 1, "--until", "description") == 0
    assert (made / "summary.json").read_bytes() == before  # it is still finished


def test_comparisons_of_an_earlier_design_do_not_stay(tmp_path):
    (tmp_path / "comparisons.csv").write_text("a,b\n")
    sweeps.write_comparisons(tmp_path, [], QUIET)
    assert not list(tmp_path.iterdir())


def test_a_missing_design_and_a_run_that_fails_are_said(tmp_path, capsys):
    assert call("--design", tmp_path / "no.toml") == 1
    assert "cannot be read" in capsys.readouterr().err
    design = write_design(
        tmp_path, "[run.a]\nmethods = ['real']\n[run.b]\nmethods = ['classifier-free:1']\n"
    )  # needs label dropout
    for more in ((), ("--dry-run",)):  # before the first run begins
        assert call("--design", design, "--out", tmp_path / "out", *more) == 1
        assert "mine.toml: run b: --methods classifier-free:1: needs a model trained without labels too" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    (tmp_path / "set" / "train").mkdir(parents=True)
    design = write_design(tmp_path, "[run.a]\nmethods = ['real']\narguments = ['--dataset', 'images']\n")
    assert call("--design", design, "--out", tmp_path / "out", "--data-dir", tmp_path / "set") == 1  # known when the data are read
    assert "run a of" in capsys.readouterr().err
    assert not (tmp_path / "out" / "sweep.csv").exists()


def test_nothing_is_written_through_a_link_in_a_folder_of_others(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "mine")
    with (
        pytest.raises(UserError, match=r"\.lock: cannot be written \(Too many levels of symbolic links\); delete it"),
        experiment.only_run_in(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def none(_stream, _how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(experiment.fcntl, "flock", none)
    with pytest.raises(UserError, match=r"its file system has no locks \(No locks available\)"), experiment.only_run_in(tmp_path):
        pass


def test_stages_that_many_need_are_visited_once():
    """Each of 60 needs the two before it: a walk without memory would take longer than the universe."""
    stages = []
    for number in range(60):
        stages.append(Stage(f"kind/{number}", jobs.gather, {}, {}, {f"n{k}": one for k, one in enumerate(stages[-2:])}))
    assert needed_for(["kind"], stages) == stages


def test_the_cores_are_those_that_a_job_was_given(monkeypatch):
    monkeypatch.setattr(cluster.os, "sched_getaffinity", lambda _pid: {0, 5, 9}, raising=False)
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: 128)
    assert cluster.usable_cores() == 3


def test_a_folder_in_which_nothing_was_made_takes_a_corrected_design(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("image_experiments.sweep_cost.cost_of_sweep", lambda *_: "")
    design, out = write_design(tmp_path, '[run.main]\nmethods = ["real"]'), tmp_path / "out"
    settings, runs = sweeps.resolved(SweepSettings(design, seeds=80, out=out), read_design(design))
    sweeps.claim_sweep(settings, read_design(design), runs)  # interrupted after a second
    fewer = replace(settings, seeds=1)
    sweeps.check_sweep(fewer, read_design(design), runs)
    (out / "runs/main/stages/classifier").mkdir(parents=True)
    (out / "runs/main/stages/classifier/real.json").write_text("{}")
    with pytest.raises(UserError, match="holds another experiment"):
        sweeps.check_sweep(fewer, read_design(design), runs)
    assert call("--design", design, "--out", out, "--seeds", 1, "--dry-run") == 0
    assert "the run itself will be refused: --out" in "".join(capsys.readouterr())


def test_a_run_takes_over_no_folder_of_a_sweep(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    claim(tmp_path / "out", {"experiment": "sweep", "base": []})
    before = (tmp_path / "out/settings.json").read_bytes()
    assert run_cifar.main([*SMALL, "--methods", "real", "--out", str(tmp_path / "out")]) == 1
    assert "experiment sweep there, run here" in capsys.readouterr().err
    assert (tmp_path / "out/settings.json").read_bytes() == before


def test_images_that_are_not_selected_do_not_say_so_in_the_table(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    names = ("labels", "labeller", "criterion", "order", "ensemble", "surplus")
    chosen = dict(zip(names, ("soft", "robust", "confidence", "default", 4, 1.5), strict=True))
    settings = {f"selection.{name}": value for name, value in chosen.items()}
    settings |= {"generation.window": [0, 700], "generation.at": "x0", "generation.head": 0, "evaluation.split": "test"}
    (folder / "summary.json").write_text(json.dumps({"settings": settings, "results": {}}))
    (folder / "metrics.csv").write_text(
        "method,seed,attack,norm,eps\nunguided,0,pgd-20,linf,0.1\nnoise-real-0.1,0,pgd-20,linf,0.1\ncads-0.1,0,pgd-20,linf,0.1\n"
    )
    (folder / "description.csv").write_text("method,seed\n")
    header, table = sweep_tables.gather([("main", folder)])
    by_method = {row["method"]: row for row in (dict(zip(header, cells, strict=True)) for cells in table)}
    assert [by_method["unguided"][name] for name in names] == ["soft", "robust", "confidence", "default", 4, 1.5]
    assert [by_method["noise-real-0.1"][name] for name in names] == ["given", "none", "none", "none", 0, 1.0]
    assert [by_method["unguided"][name] for name in ("window_low", "window_high", "at", "head")] == [0, 700, "x0", 0]
    assert by_method["cads-0.1"]["at"] == ""  # it acts at every step
    assert all(math.isnan(by_method["cads-0.1"][name]) for name in ("window_low", "window_high", "head"))


def test_quick_is_one_seed_three_methods_and_two_more_runs():
    methods = ["real", "unguided", "noise:0.1", "noise:0.2"]
    design = sweeps.design_of({"run": {name: {"methods": methods} for name in "abcd"}, "seeds": 5})
    settings, runs = sweeps.resolved(SweepSettings(quick=True), design)
    assert settings.seeds == 1
    assert [(one.name, len(one.methods)) for one in runs] == [("a", 3), ("b", 4), ("c", 4)]
    assert list(runs[0].methods) == methods[:3]
