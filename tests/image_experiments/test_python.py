"""The experiment from Python: the same as the command makes, as tables, arrays and modules; errors are exceptions of one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line.spawning import without_main
from image_experiments import Result, Settings, SweepResult, UserError, preset, run, sweep
from image_experiments.engine.presets import flags_of, settings_from
from image_experiments.training.adversarial_training import ClassifierSettings
from tests.image_experiments.conftest import write_folder
from tests.image_experiments.test_run_cifar import ROOT, rows

TINY = {
    "train": 60,
    "validation": 20,
    "test": 60,
    "synthetic": 40,
    "workers": 1,
    "norm": "l2",
    "methods": ["real", "unguided", "infonce:0.3"],
    "encoder": {"steps": 8, "validate_every": 8},
    "diffusion": {"channels": (8, 8), "steps": 8},
    "generation": {"steps": 4, "batch_size": 20},
    "classifier.steps": 10,
    "classifier.validate_every": 10,
    "description": {"steps": 8},
    "evaluation": {"pgd_steps": 3, "autoattack_images": 6, "autoattack_parts": "apgd-ce"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run(preset("smoke", out=str(tmp_path_factory.mktemp("python") / "out"), **TINY))


def test_tables_arrays_and_modules_are_those_of_the_files(made):
    assert made.metrics.to_dict("list")["robust_accuracy"] == [
        float(row["robust_accuracy"]) for row in rows(made.out / "metrics.csv")
    ]
    assert list(made.differences["gain"]) == [float(row["gain"]) for row in rows(made.out / "differences.csv")]
    assert set(made.details) >= {"images", "standard_error"}
    assert list(made.description["method"]) == ["unguided", "infonce-0.3"]
    assert made.settings["classifier.steps"] == 10
    assert repr(made) == f"Result('{made.out}': digits, real, unguided, infonce:0.3; seeds [0])"
    images, labels = made.synthetic("infonce-0.3")
    with np.load(made.out / "synthetic/infonce-0.3/seed0.npz") as content:
        assert np.array_equal(images, content["image"])
        assert np.array_equal(labels, content["label"])
    with np.load(made.out / "data/images.npz") as data, np.load(made.out / "outcomes/real-seed0.npz") as outcomes:
        x = torch.from_numpy(data["test_image"]).permute(0, 3, 1, 2).float() / 255
        right = made.classifier("real", 0)(x).argmax(dim=1).numpy() == data["test_label"]
        assert np.array_equal(right, outcomes["clean"])


def test_the_callers_program_is_left_as_it_was(tmp_path):
    """Threads of torch, and how matplotlib shows figures: the next training was slow, and plots of a notebook did not appear."""
    code = f"""
import torch
import matplotlib
torch.set_num_threads(3)
matplotlib.use("svg")
from image_experiments import preset, run
if __name__ == "__main__":
    small = {{"classifier.steps": 2, "evaluation.autoattack_images": 0, "test": 20, "workers": 1}}
    run(preset("smoke", out={str(tmp_path / "out")!r}, methods=("real",), **small))
    print(torch.get_num_threads(), matplotlib.get_backend())
"""
    (tmp_path / "mine.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "mine.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-2:] == ["3", "svg"], done.stderr


def test_running_twice_makes_nothing_again_and_a_method_more_makes_its_own_alone(made):
    def stamps():
        return {p.relative_to(made.out): p.stat().st_mtime_ns for p in (made.out / "stages").rglob("*.json")}

    before = stamps()
    again = run(preset("smoke", out=made.out, **TINY))
    assert stamps() == before
    assert again.metrics.equals(made.metrics)
    assert Result(made.out).metrics.equals(made.metrics)
    run(preset("smoke", out=made.out, **{**TINY, "methods": [*TINY["methods"], "noise:0.2"]}))
    after = stamps()
    assert {path: after[path] for path in before} == before
    assert {str(path) for path in set(after) - set(before)} == {
        f"stages/{kind}/noise-0.2/seed0.json" for kind in ("noise", "describe", "classifier", "evaluate")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ep": 0.1}, "ep: no such setting, did you mean eps?"),
        ({"eps": float("nan")}, "--eps nan"),
        ({"classifier.step": 3}, "step: no such setting, did you mean steps?"),
        ({"classifier": {"steps": 0}}, "steps=0 must be >= 1"),
        ({"train.x": 1}, "train.x: train has no settings of its own"),
        ({"methods": ["infonc"]}, "--methods infonc: unknown, did you mean infonce?"),
        ({"data_dir": "/nowhere", "dataset": "images"}, "--data-dir /nowhere: no such file or folder"),
        ({"seeds": "3"}, "seeds='3': give a whole number"),
        ({"seeds": True}, "seeds=True: give a whole number"),
        ({"eps": "8/0"}, "eps: '8/0' is no number; write 0.03 or 8/255"),
        ({"norm": "l3"}, "norm='l3': use one of linf, l2"),
        ({"methods": 3}, "methods=3: give a list"),
        ({"encoder": "small"}, "encoder='small': give a dictionary of its settings, or ClassifierSettings(...)"),
        ({"classifier.cutmix": None}, "cutmix=None: give a number"),
        ({"diffusion.conditional": 1}, "conditional=1: give True or False"),
        ({"dry_run": True}, "dry_run=True: belongs to the command line"),
        ({"until": "encoder"}, "until=encoder: belongs to the command line"),
        ({"train": 10_000}, "--train 10000: 580 images are left"),
        ({"generation.window": (100, 500, 7)}, "window=(100, 500, 7): give 2 values"),
        ({"generation.windows": [(0,)]}, "windows=(0,): give 2 values"),
        ({"data_dir": 123, "dataset": "images"}, "data_dir=123: give a path"),
        ({"reuse": [3]}, "reuse=3: give a path"),
        ({"reuse": "a b"}, "--reuse a b: holds no run"),
        ({"methods": "npz:a b.npz"}, "--methods npz:a b.npz: no such file"),
        ({"out": ""}, "out='': give a path"),
        ({"norm": ["l2"]}, "norm=['l2']: use one of linf, l2"),
        ({"classifier": {3: 4}}, "classifier: 3: settings are named by text"),
    ],
)
def test_an_error_is_an_exception_of_one_line(tmp_path, changes, message):
    with pytest.raises(UserError) as raised:
        run(preset("smoke", **{**TINY, "out": tmp_path / "out", **changes}))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: preset(None), "preset(None): name one of smoke, cpu"),
        (lambda: preset(["cpu"]), "preset(['cpu']): name one of"),
        (lambda: run("smoke"), "settings='smoke': give Settings, for example run(preset('smoke'))"),
        (lambda: run(None), "settings=None: give Settings"),
        (lambda: run(Settings(classifier={"steps": 3})), "classifier={'steps': 3}: give a dictionary of its settings, or"),
        (lambda: run(Settings(eps="8/0")), "eps: '8/0' is no number"),
        (lambda: run(Settings(classifier=ClassifierSettings(network=3))), "network=3: give text"),
        (lambda: run(Settings(encoder=Settings().diffusion)), "give a dictionary of its settings, or ClassifierSettings(...)"),
        (lambda: run(preset("smoke", out="a\0b")), "out='a\\x00b': give a path"),
        (lambda: run(preset("smoke", dataset="images", data_dir="a" * 5000)), "data_dir: a path of 5000 characters is too long"),
        (lambda: run(preset("smoke", device=np.array([[1, 2], [3, 4]]))), "device=array([[1, 2],"),
        (lambda: run(preset("smoke", device="x" * 100_000)), " ... "),
        (lambda: preset("smoke", name="x"), "name: no such setting"),
        (lambda: Result(None), "out=None: give the folder of a run"),
        (lambda: Result("a" * 5000), "holds no finished run"),
        (lambda: sweep("a\0"), "give the path of a design file"),
        (lambda: sweep(None), "design=None: give the path of a design file"),
        (lambda: sweep([1]), "design=[1]: give the path"),
        (lambda: sweep({3: 4}), "design: the design has 3; known are base, run"),
        (lambda: sweep({"run": {3: {"methods": ["real"]}}}), "design: [run.3] must be named by letters"),
        (lambda: sweep({"base": {3: 4}, "run": {"a": {"methods": ["real"]}}}), "design: base: 3: settings are named by text"),
        (
            lambda: sweep({"base": {"ep": 4}, "run": {"a": {"methods": ["real"]}}}),
            "design: base: ep: no such setting, did you mean eps?",
        ),
        (
            lambda: sweep({"run": {"a": {"methods": ["real"], "arguments": {"classifier": {"step": 3}}}}}),
            "design: [run.a] arguments: step: no such setting, did you mean steps?",
        ),
    ],
)
def test_what_is_no_setting_at_all_is_one_line_too(wrong, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        wrong()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_doubts_about_given_files_are_among_the_warnings(made, tmp_path):
    """Not only printed, where nobody sees it: from Python nothing is."""
    file = tmp_path / "mine.npz"
    images, labels = made.synthetic("unguided")
    np.savez(file, image=images[labels != 3], label=labels[labels != 3])
    found = run(preset("smoke", **{**TINY, "methods": [f"npz:{file}"], "synthetic": 20, "out": tmp_path / "out"}))
    assert any("has no images of 3: are its labels numbered" in line for line in found.warnings)
    assert found.summary["warnings"] == found.warnings


def test_two_runs_in_threads_share_one_main_module():
    main = sys.modules["__main__"]
    before = (main.__spec__, getattr(main, "__file__", None))
    first, second = without_main(), without_main()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not hasattr(main, "__file__")
    second.__exit__(None, None, None)
    assert (main.__spec__, getattr(main, "__file__", None)) == before


def test_results_stay_where_they_are_when_the_program_moves(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.out.parent)
    found = Result("out")
    monkeypatch.chdir(tmp_path)
    assert found.metrics.equals(made.metrics)


def test_what_is_not_there_is_said(made, tmp_path):
    with pytest.raises(UserError, match="--preset smok: unknown, did you mean smoke"):
        preset("smok")
    with pytest.raises(UserError, match=r"preset='cpu': is named first; write preset\('cpu', \.\.\.\)"):
        preset("smoke", preset="cpu")
    with pytest.raises(
        UserError, match=r"has no classifier of 'infonce', seed 0; its methods are real, unguided, .*, its seeds 0$"
    ):
        made.classifier("infonce")
    with pytest.raises(UserError, match="has no synthetic images of 'real'"):
        made.synthetic("real")
    forced = tmp_path / "forced"
    shutil.copytree(made.out, forced)
    for kind, name in (("checkpoints", "gone-0.1-seed0.safetensors"), ("checkpoints", "unguided-seed7.safetensors")):
        shutil.copy(next((forced / kind).glob("unguided-*")), forced / kind / name)  # of an experiment that --force replaced
    for method, seed in (("gone-0.1", 0), ("unguided", 7)):
        with pytest.raises(UserError, match=f"has no classifier of '{method}', seed {seed}; its methods are real, unguided"):
            Result(forced).classifier(method, seed)
    with pytest.raises(UserError, match="holds no finished run"):
        Result(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="holds no run on images"):
        Result(tmp_path)
    with pytest.raises(UserError, match=r"nothing\.csv: was not made by this run; its tables are description"):
        made.table("nothing")


def test_a_sweep_takes_a_dictionary(made, tmp_path):
    """The same stages as above: all but one classifier are taken from there."""
    base = {name: value for name, value in TINY.items() if name not in ("methods", "workers")}
    design = {
        "base": base,
        "run": {"first": {"methods": ["unguided"]}, "longer": {"methods": ["unguided"], "arguments": {"classifier.steps": 12}}},
        "compare": [["longer/unguided", "first/unguided"]],
        "seeds": 1,
    }
    found = sweep(design, out=tmp_path / "sweep", reuse=[made.out], workers=1)
    assert list(found.table["run"].unique()) == ["first", "longer"]
    assert len(found.comparisons) == 2
    assert found.runs["longer"].settings["classifier.steps"] == 12
    first = json.loads((tmp_path / "sweep/runs/first/summary.json").read_text())["seconds"]
    assert first["classifier/unguided/seed0"] == made.summary["seconds"]["classifier/unguided/seed0"]  # the very run
    assert SweepResult(tmp_path / "sweep").names == ("first", "longer")
    with pytest.raises(UserError, match="design: holds no run"):
        sweep({"run": {}}, out=tmp_path / "none")
    with pytest.raises(UserError, match=r"design: the design has runs, did you mean run"):
        sweep({"runs": {}}, out=tmp_path / "none")


def test_values_are_taken_as_people_write_them():
    settings = preset("smoke", eps="8/255", methods="real unguided", seeds=np.int64(2), data_dir="x", reuse=["a", "b"])
    assert settings.eps == 8 / 255
    assert settings.methods == ("real", "unguided")
    assert (settings.seeds, type(settings.seeds)) == (2, int)
    assert (settings.data_dir, settings.reuse) == (Path("x"), (Path("a"), Path("b")))
    part = preset("smoke", classifier=ClassifierSettings(steps=7), **{"generation.window": None, "generation.windows": [[0, 5]]})
    assert (part.classifier.steps, part.generation.window, part.generation.windows) == (7, None, ((0, 5),))


def test_settings_by_name_and_a_command_line_say_the_same():
    changes = {"eps": 0.1, "diffusion.conditional": False, "classifier": {"beta": 2.0}, "methods": ("real", "unguided")}
    assert settings_from(flags_of(changes)) == preset("smoke", **changes)
    changes = {
        "preset": "cpu",
        "tensorboard": np.bool_(True),
        "generation": {"windows": ((0, 5), (0, 9)), "window": None},
        "out": Path("x"),
    }
    assert settings_from(flags_of(changes)) == preset("cpu", **{name: value for name, value in changes.items() if name != "preset"})
    with pytest.raises(UserError, match=r"--classifier\.step"):
        settings_from(["--classifier.step", "3"])
    with pytest.raises(UserError, match=r"^--generation.steps 0 must be >= 1$"):
        settings_from(["--generation.steps", "0"])


def test_a_script_without_a_main_guard_runs_on_two_processes(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nprint('once')\nfrom image_experiments import preset, run\n"
        f"changes = {dict(TINY, workers=2, methods=['real'], seeds=2)!r}\n"
        f"print(len(run(preset('smoke', out={str(tmp_path / 'out')!r}, **changes)).metrics))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once", "4"]


def test_importing_the_door_loads_nothing():
    probe = "import sys, image_experiments; print([m for m in ('torch', 'numpy', 'pandas', 'tyro') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_data_that_were_moved_are_the_same_data(tmp_path):
    """Also for a folder that says which experiment it holds; other content is another experiment."""
    settings = {**TINY, "methods": ["real"], "train": 12, "validation": 4, "test": 0, "dataset": "images", "out": tmp_path / "out"}
    write_folder(tmp_path / "here", np.random.default_rng(0))
    first = run(preset("smoke", **settings, data_dir=tmp_path / "here"))
    stamps = {path: path.stat().st_mtime_ns for path in (first.out / "stages").rglob("*.json")}
    (tmp_path / "here").rename(tmp_path / "there")
    again = run(preset("smoke", **settings, data_dir=tmp_path / "there"))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert again.summary["data"]["sha256"] == first.summary["data"]["sha256"]
    next((tmp_path / "there" / "train").rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"holds another experiment \(content of --data-dir \w+ there, \w+ here\)"):
        run(preset("smoke", **settings, data_dir=tmp_path / "there"))
