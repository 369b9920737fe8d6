"""Stages: skipped while nothing changed, run again when settings, code, inputs or outputs did; a failure keeps what was made."""

import contextlib
import errno
import itertools
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from command_line import used_code
from command_line.folder_claim import note_claim
from command_line.output import UserError, walk_links
from command_line.used_code import code_of_function
from image_experiments.engine import devices, fingerprint, jobs, processes, reuse, scheduler
from image_experiments.engine.changes import check_device, told_of_changes, told_of_shards
from image_experiments.engine.devices import FirstCard, check_cards_alike, check_cards_apart, device_on_cluster
from image_experiments.engine.fingerprint import PACKAGES, check_code, code_digest, source_digest
from image_experiments.engine.plan import plan as make_plan
from image_experiments.engine.plan import up_to
from image_experiments.engine.presets import preset, smoke
from image_experiments.engine.run_stage import is_current, run_stage
from image_experiments.engine.scheduler import Bar, card_of_worker, code_for_worker, run_all
from image_experiments.engine.settings import resolve, usual_eps
from image_experiments.engine.stages import Place, Stage, StageRun
from image_experiments.models.precision import gpu_arithmetic
from image_experiments.synthesis.selection import SelectionSettings
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.curves import Curve

RAN = []
ERRORS = [Exception()]


def write(run, text):
    RAN.append("write")
    run.outputs["file"].write_text(text)
    return {"length": len(text)}


def copy(run, times):
    RAN.append("copy")
    run.outputs["file"].write_text(run.inputs["source"]["file"].read_text() * times)
    return {"from": run.results["source"]["length"]}


def fail(run):
    RAN.append("fail")
    (run.scratch / "half").write_text("kept for the next try")
    raise ERRORS[0]


def plan(text="ab", times=2, outside="x"):
    first = Stage("first/a", write, {"text": text}, {"file": "made/first.txt"}, outside={"file": outside})
    return [first, Stage("second/a", copy, {"times": times}, {"file": "made/second.txt"}, {"source": first})]


def made_stage(out):
    """A stage that has been made in the folder."""
    stage = plan()[0]
    assert run(out, [stage]) == ["write"]
    return stage


def run(out, planned, where="cpu, 1 threads"):
    RAN.clear()
    run_all(planned, Place(out, where, "cpu", 1), 1)
    return list(RAN)


def test_the_bar_tells_the_time_left_only_after_a_hundredth_of_the_work():
    bar = scheduler.Bar(plan(), {"first/a": 1.0, "second/a": 3.0})
    bar.report("first/a", 1, 100)
    assert "<" not in str(bar.bar)
    assert "first/a 1/100" in str(bar.bar)
    bar.report("first/a", 5, 100)
    assert "<" in str(bar.bar)
    bar.finished("first/a", "done")
    bar.report("first/a", 99, 100)  # from a queue that is slower than the result
    bar.report("second/a", 1, 100)
    assert "first/a" not in str(bar.bar)
    bar.bar.close()


def test_stages_run_once_and_again_only_where_something_changed(tmp_path):
    assert run(tmp_path, plan()) == ["write", "copy"]
    assert (tmp_path / "made/second.txt").read_text() == "abab"
    assert run(tmp_path, plan()) == []
    assert run(tmp_path, plan(times=3)) == ["copy"]
    assert run(tmp_path, plan(text="cd", times=3)) == ["write", "copy"]
    assert run(tmp_path, plan(text="cd", times=3, outside="y")) == ["write"]  # it made the same: the second has nothing to do
    assert run(tmp_path, plan(text="cd", times=3, outside="y"), where="cuda, 1 threads") == ["write", "copy"]


def test_another_version_code_or_result_of_an_input_runs_a_stage_again(tmp_path, monkeypatch):
    run(tmp_path, plan())
    monkeypatch.setattr(fingerprint, "code_digest", lambda function, _types: (function.__name__, ("torch",)))
    assert run(tmp_path, plan()) == ["write", "copy"]
    monkeypatch.setattr(fingerprint, "version", lambda package: "other" if package == "torch" else "same")
    assert run(tmp_path, plan()) == ["write", "copy"]
    monkeypatch.setattr(fingerprint, "code_digest", lambda function, _types: ("x" if function is copy else "write", ("torch",)))
    assert run(tmp_path, plan()) == ["copy"]
    stamp = tmp_path / "stages/first/a.json"
    stamp.write_text(stamp.read_text().replace('"length": 2', '"length": 3'))
    assert run(tmp_path, plan()) == ["copy"]


def test_what_other_than_a_setting_has_changed_is_said_before_stages_are_made_again(tmp_path, monkeypatch):
    def told(where="cpu, 1 threads", **changed):
        return told_of_changes(plan(**changed), Place(tmp_path, where, "cpu", 1))

    assert told() == []
    monkeypatch.setattr(fingerprint, "code_digest", lambda function, _types: (function.__name__, ("torch",)))
    monkeypatch.setattr(fingerprint, "version", lambda _package: "2.12.0")
    run(tmp_path, plan())
    assert told() == []
    assert told(text="cd") == []  # a setting: nothing to explain
    (changed,) = told("cuda card")
    assert "2 finished stages" in changed
    assert "because the device was cpu, 1 threads and is cuda card; to keep them, stop now" in changed
    monkeypatch.setattr(fingerprint, "version", lambda _package: "2.13.0")
    assert "because torch was 2.12.0 and is 2.13.0; to" in told()[0]
    monkeypatch.setattr(fingerprint, "code_digest", lambda function, _types: ("x" if function is copy else "write", ("torch",)))
    monkeypatch.setattr(fingerprint, "version", lambda _package: "2.12.0")
    (changed,) = told()
    assert "1 finished stage and" in changed
    assert "because the project's code has changed; to" in changed


def test_the_run_of_the_same_name_is_looked_through_first(tmp_path, monkeypatch):
    stage, asked = plan()[0], []
    for name in ("a", "b", "c"):
        run(tmp_path / "one" / name, [stage])
    monkeypatch.setattr(reuse, "_has", lambda _stage, folder, *_: asked.append(folder.name) or folder.name == "b")
    others = [tmp_path / "one" / name for name in ("a", "b", "c")]
    assert reuse.take_over([stage], Place(tmp_path / "two" / "b", "cpu, 1 threads", "cpu", 1), others) == 1
    assert asked == ["b"]


def test_the_choice_for_generation_belongs_to_the_encoders_step():
    """Machines that then make parts of a set have to make them alike."""
    chosen = {"precision": "auto"}
    stages = make_plan(resolve(preset("smoke", methods=("unguided",), generation=chosen, classifier=chosen)))
    assert {s.name for s in up_to("encoder", stages) if s.name.startswith("speed")} == {"speed/generation"}
    assert {s.name for s in stages if s.name.startswith("speed")} == {"speed/generation", "speed/classifier"}


def test_what_was_made_is_read_once_by_a_program_until_it_changes(tmp_path, monkeypatch):
    """A sweep asks for the outputs of a run several times; hundreds of gigabytes, on a slow disk."""
    run(tmp_path, plan())
    first, read = plan()[0], []
    whole = fingerprint.file_digest
    monkeypatch.setattr(fingerprint, "file_digest", lambda path: read.append(path.name) or whole(path))
    for _ in range(3):
        assert is_current(first, tmp_path, "cpu, 1 threads")
    assert read == ["first.txt"]
    assert reuse.take_over([first], Place(tmp_path / "next", "cpu, 1 threads", "cpu", 1), [tmp_path]) == 1
    assert is_current(first, tmp_path / "next", "cpu, 1 threads")
    assert read == ["first.txt"]  # another link to the same file
    (tmp_path / "made" / "first.txt").write_text("xy")
    assert not is_current(first, tmp_path, "cpu, 1 threads")


def test_what_was_made_on_another_device_is_not_made_again_unasked(tmp_path):
    """As by a job that is queued again on another kind of node, or on one whose driver fails."""
    run(tmp_path, plan())
    stages = plan()
    check_device(stages, Place(tmp_path, "cpu, 1 threads", "cpu", 1), force=False)
    elsewhere = Place(tmp_path, "cuda card", "cuda", 1)
    message = "was made on cpu, 1 threads, not on cuda card, so what is there would be made again"
    with pytest.raises(UserError, match=message):
        check_device(stages, elsewhere, force=False)
    check_device(stages, elsewhere, force=True)
    new = Place(tmp_path / "new", "cuda card", "cuda", 1)
    check_device(stages, new, force=False)
    (new.out / "unfinished" / "diffusion-1").mkdir(parents=True)
    note_claim(new.out, {"made on": "cpu, 1 threads"})
    check_device(stages, new, force=False)
    (new.out / "unfinished" / "diffusion-1" / "checkpoint.pt").touch()  # the first training was interrupted
    with pytest.raises(UserError, match=message):
        check_device(stages, new, force=False)


def test_workers_of_a_cluster_that_would_share_a_card_are_refused():
    rotated = {f"tcp://a:{i}": FirstCard("H100", f"GPU-{i}", 8) for i in range(8)}  # as dask-cuda gives them
    on_purpose = {f"tcp://b:{i}": FirstCard("H100", "GPU-9", 1) for i in range(2)}
    check_cards_apart({**rotated, **on_purpose}, "tcp://x")
    message = r"--cluster tcp://x: tcp://a:0 and tcp://a:9 see 8 GPUs and would both take the first; .*CUDA_VISIBLE_DEVICES=K dask"
    with pytest.raises(UserError, match=message):
        check_cards_apart({**rotated, "tcp://a:9": FirstCard("H100", "GPU-0", 8)}, "tcp://x")


def test_a_stage_that_another_worker_finishes_meanwhile_is_no_failure(tmp_path, monkeypatch):
    """A run that was interrupted left it with a worker of the cluster, which then removes what both were writing."""
    stage = plan()[0]
    place = Place(tmp_path, "cpu, 1 threads", "cpu", 1)

    def also_finished_elsewhere(stage, place, report):
        if finished:
            run_stage(stage, place, report)
        raise error

    monkeypatch.setattr(scheduler, "run_stage", also_finished_elsewhere)
    monkeypatch.setattr(scheduler, "check_worker", lambda *_: None)
    errors = FileNotFoundError(2, "No such file", "checkpoint.pt"), UserError("shard-0.npz: cannot write")
    for finished, error in itertools.product((False, True), errors):
        with contextlib.nullcontext() if finished else pytest.raises(type(error)):
            scheduler._work(stage, place, False, None)


def test_a_cluster_runs_on_what_its_workers_have():
    """Not on what the machine has from which the run is started."""
    plain, cards = {"a": "", "b": ""}, {"a": "H100", "b": "H100"}
    assert device_on_cluster("auto", plain, "tcp://x") == ("cpu", "")
    assert device_on_cluster("auto", cards, "tcp://x") == ("cuda", "H100")
    assert device_on_cluster("cuda:1", cards, "tcp://x") == ("cuda:1", "H100")
    assert device_on_cluster("cpu", cards | plain, "tcp://x") == ("cpu", "")
    with pytest.raises(UserError, match=r"--cluster tcp://x: its workers have unlike devices \(H100, no GPU\); stop some"):
        device_on_cluster("auto", {"a": "H100", "b": ""}, "tcp://x")
    with pytest.raises(UserError, match="--device cuda: the workers of --cluster tcp://x have no GPU"):
        device_on_cluster("cuda", plain, "tcp://x")


def test_shards_of_another_recipe_are_told_and_kept(tmp_path):
    """From another machine, after hours: once they were not used, and then deleted."""
    made = Stage("generate/a/seed0", write, {"text": "x"}, {"file": "made/a.txt", "manifest": "made/a.json"})
    place = Place(tmp_path, "cpu, 1 threads", "cpu", 1)
    ours = f"generate_a_seed0-{fingerprint.fingerprint(made, tmp_path, place.kind)[:12]}"
    theirs, ours = (tmp_path / "shards" / name for name in (f"generate_a_seed0-{'0' * 12}", ours))
    for folder in (theirs, ours):
        folder.mkdir(parents=True)
        (folder / "shard-00000.npz").write_text("images")
    (told,) = told_of_shards([made, *plan()], place)
    assert told.startswith(f"{theirs}: 1 shard of other settings")
    assert "merge_shards.py" in told

    def both(run, text):
        write(run, text)
        run.outputs["manifest"].write_text("{}")
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "code_digest", lambda _function, _types: ("x", ()))
        run(tmp_path, [replace(made, function=both)])
    assert (theirs / "shard-00000.npz").is_file()
    assert not list((tmp_path / "unfinished").glob("*"))


def test_a_file_that_was_touched_or_lost_is_made_again(tmp_path):
    run(tmp_path, plan())
    (tmp_path / "made/first.txt").write_text("other")
    assert run(tmp_path, plan()) == ["write"]
    (tmp_path / "made/second.txt").unlink()
    assert run(tmp_path, plan()) == ["copy"]
    (tmp_path / "stages/second/a.json").unlink()
    assert run(tmp_path, plan()) == ["copy"]


def test_a_damaged_stamp_is_one_line(tmp_path):
    run(tmp_path, plan())
    for content in ("{", "[]", "{}"):
        (tmp_path / "stages/first/a.json").write_text(content)
        with pytest.raises(UserError, match="is damaged; delete it"):
            run(tmp_path, plan())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "made/x"),
            r"bad: cannot use made/x \(No space left on device\); free some space",
        ),
        (ValueError("scale=-1 must be > 0"), "bad: scale=-1 must be > 0"),
        (UserError("two\nlines"), "bad: two lines"),
    ],
)
def test_a_failure_names_the_stage_keeps_the_others_and_its_own_checkpoints(tmp_path, error, message):
    ERRORS[0] = error
    bad = Stage("bad", fail, {}, {})
    with pytest.raises(UserError, match=message):
        run(tmp_path, [*plan(), bad])
    assert (tmp_path / "made/second.txt").read_text() == "abab"
    assert not (tmp_path / "stages/bad.json").exists()
    assert len(list((tmp_path / "unfinished").glob("bad-*/half"))) == 1
    assert run(tmp_path, plan()) == []


def test_an_error_of_ours_is_no_user_error(tmp_path):
    ERRORS[0] = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, [Stage("bad", fail, {}, {})])


def test_checkpoints_of_other_settings_are_never_met(tmp_path):
    seen = []

    def look(run, text):
        seen.append(sorted(path.name for path in run.scratch.iterdir()))
        (run.scratch / text).write_text("")
        if len(seen) < 3:
            raise ValueError("stopped")
        return {}

    stage = lambda text: [Stage("look", look, {"text": text}, {})]  # noqa: E731
    for text in ("a", "b"):
        with pytest.raises(UserError):
            run_all(stage(text), Place(tmp_path, "cpu, 1 threads", "cpu", 1), 1)
    run_all(stage("a"), Place(tmp_path, "cpu, 1 threads", "cpu", 1), 1)
    assert seen == [[], [], ["a"]]
    assert not list((tmp_path / "unfinished").iterdir())  # nothing is left behind


def test_training_does_not_depend_on_the_code_of_evaluation():
    """A change in the attacks' package code runs the evaluation again, not the diffusion model."""
    from image_experiments.engine import jobs

    assert code_digest(jobs.train_diffusion_model) != code_digest(jobs.evaluate)
    diffusion = code_of_function(jobs.train_diffusion_model, PACKAGES).modules
    assert "image_experiments.training.diffusion_training" in diffusion
    assert "contrastive_dp.training" in diffusion
    assert "image_experiments.evaluation.robustness" not in diffusion
    assert "image_experiments.training.attacks" not in diffusion
    assert "image_experiments.engine.settings" not in diffusion


def test_digests_of_folders_see_every_change(tmp_path):
    (tmp_path / "a").write_text("1")
    before = source_digest(tmp_path)
    (tmp_path / "a").write_text("22")
    assert source_digest(tmp_path) != before
    assert source_digest(tmp_path / "a") != source_digest(Path(__file__))


def test_the_folder_one_stands_in_is_read_as_by_its_name(tmp_path, monkeypatch):
    """`--data-dir .`: its folders are ./train to the walk and train to a path."""
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "0.png").write_text("1")
    before = source_digest(tmp_path)
    monkeypatch.chdir(tmp_path / "train")
    assert source_digest(Path("..")) == before
    monkeypatch.chdir(tmp_path)
    assert source_digest(Path()) == before
    assert sorted(found.as_posix() for found, *_ in walk_links(Path(), print)) == [".", "train", "train/cat"]


def test_digests_of_folders_take_any_name_and_leave_out_what_file_managers_make(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.png").write_text("1")
    before = source_digest(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / ".ipynb_checkpoints" / "0.png").write_text("x")
    assert source_digest(tmp_path) == before
    (tmp_path / "train" / "no-utf-8-\udce9.txt").write_text("x")
    assert source_digest(tmp_path) != before


def test_digests_of_folders_follow_links_as_the_reader_does(tmp_path):
    """A folder of links was taken for an empty one, so other images behind the links were taken for the same."""
    for name in ("real", "plain"):
        (tmp_path / name / "train" / "cat").mkdir(parents=True)
        (tmp_path / name / "train" / "cat" / "0.png").write_text("1")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(tmp_path / "real" / "train")
    (tmp_path / "real" / "train" / "cat" / "back").symlink_to(tmp_path / "real")  # which the reader refuses
    before = source_digest(tmp_path / "linked")
    assert before == source_digest(tmp_path / "plain")
    (tmp_path / "real" / "train" / "cat" / "0.png").write_text("22")
    assert source_digest(tmp_path / "linked") != before


def test_what_is_made_again_takes_the_summary_away_first(tmp_path):
    """Interrupted then, tables of before would lie beside files of after, and look finished."""
    run(tmp_path, plan())
    (tmp_path / "summary.json").write_text("{}")
    run(tmp_path, plan())
    more = Stage("third/a", write, {"text": "more"}, {"file": "made/third.txt"})
    assert run(tmp_path, [*plan(), more]) == ["write"]  # growing leaves what is there true
    assert (tmp_path / "summary.json").is_file()
    failing = Stage("third/a", fail, {}, {"file": "made/third.txt"})
    ERRORS[0] = UserError("stopped")
    with pytest.raises(UserError, match="stopped"):
        run(tmp_path, [*plan(), failing])
    assert not (tmp_path / "summary.json").exists()


def test_stamps_hold_results_and_checksums(tmp_path):
    run(tmp_path, plan())
    stamp = json.loads((tmp_path / "stages/second/a.json").read_text())
    assert stamp["results"] == {"from": 2}
    assert stamp["outputs"]["file"]["path"] == "made/second.txt"
    assert is_current(plan()[1], tmp_path, "cpu, 1 threads")


def test_a_worker_that_dies_is_one_line(tmp_path):
    """As when the system kills it for want of memory."""
    with pytest.raises(UserError, match=r"bad: a process was killed.*fewer --workers"):
        run_all([Stage("bad", die, {}, {})], Place(tmp_path, "cpu, 1 threads", "cpu", 1), 2)


def test_a_measurement_whose_process_dies_is_one_line():
    with pytest.raises(UserError, match="a process was killed, perhaps because memory ran out"):
        scheduler.on_all(2, 1, die, None)


def die(run):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_loss_curve_is_the_same_after_interruptions_of_both_kinds(tmp_path):
    """Killed: goes on from the step of a row. Interrupted: training saves at once, and the losses since the last row are kept."""
    losses = torch.arange(1.0, 31.0)

    def go(curve, first, last):
        for step in range(first, last + 1):
            curve.add(step, losses[step - 1])

    whole, killed, stopped = (Curve(tmp_path / f"{name}.csv", 10) for name in "abc")
    go(whole, 1, 30)
    go(killed, 1, 17)
    go(Curve(tmp_path / "b.csv", 10), 11, 30)
    go(stopped, 1, 17)
    stopped.keep_unfinished()
    go(Curve(tmp_path / "c.csv", 10), 18, 30)
    assert whole.rows == [(10, 5.5), (20, 15.5), (30, 25.5)]
    assert Curve(tmp_path / "b.csv", 10).rows == Curve(tmp_path / "c.csv", 10).rows == whole.rows


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """altered(module, old, new): from now on the module's source is read with this change."""
    original = used_code.module_path

    def alter(module, old, new):
        text = original(module).read_text()
        assert text.count(old) >= 1, (module, old)
        file = tmp_path / f"{module}.py"
        file.write_text(text.replace(old, new))
        monkeypatch.setattr(used_code, "module_path", lambda name: file if name == module else original(name))
        fingerprint._digests.clear()  # what was read stays read: a module is known by its file

    fingerprint._digests.clear()
    yield alter
    fingerprint._digests.clear()


ALL_KINDS = {"data", "split", "diffusion", "encoder", "judge", "strength", "generate", "select", "noise", "describe", "classifier"}
ALL_KINDS |= {"evaluate"}


SHARED = {"diffusion", "encoder", "judge", "generate", "classifier"}
"""Stages on which several processes work together."""


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("image_experiments.training.attacks", '"""Projected', '"""Changed: projected', set()),
        ("contrastive_dp.resumable", "def advance_to(", "# a comment\ndef advance_to(", set()),
        ("image_experiments.data.stored_dataset", "TEST_ORDER = 2", "TEST_ORDER = 3", {"data"}),
        ("image_experiments.data.splitting", "default_rng([seed, 1])", "default_rng([seed, 2])", {"split"}),
        ("image_experiments.synthesis.selection", "NEIGHBOURS = 5", "NEIGHBOURS = 6", {"select"}),
        ("contrastive_dp.guidance.base", "LEAST_CHANGE = 1e-3", "LEAST_CHANGE = 1e-4", {"strength", "generate"}),
        ("contrastive_dp.losses", "self.temperature", "2 * self.temperature", {"strength", "generate"}),
        ("image_experiments.synthesis.strength", "0.02, 1.28", "0.02, 1.29", {"strength"}),
        ("image_experiments.evaluation.features", "PIECE = ", "PIECE = 1 + ", {"describe"}),
        (
            "image_experiments.training.attacks",
            "def pgd(",
            "def pgd(unused=0, *, more=0, ",
            {"encoder", "judge", "classifier", "evaluate"},
        ),
        ("contrastive_dp.schedules", "offset: float = 0.008", "offset: float = 0.009", {"diffusion", "strength", "generate"}),
        ("contrastive_dp.processes", "def all_of(self", "def all_of(self, *_unused", SHARED),
        ("command_line.statistics", "ddof=1", "ddof=0", set()),  # of the tables, which are written every time
        ("command_line.output", "raise the limit of", "raise the limits of", set()),  # words of an error
        ("command_line.output", "LONGEST_SHOWN = 160", "LONGEST_SHOWN = 150", set()),
        ("contrastive_dp.resumable", "raise FloatingPointError(", 'raise FloatingPointError("So: " ', set()),
    ],
)
def test_a_change_of_code_runs_what_uses_it_again_and_nothing_else(tmp_path, altered, module, old, new, expected):
    methods = ("real", "infonce:auto", "noise:0.1")
    settings = replace(smoke(), methods=methods, selection=SelectionSettings(surplus=2, criterion="confidence"), out=tmp_path)
    stages_of_run = make_plan(resolve(settings))

    def digests():
        return {s.name: code_digest(*fingerprint._code_of(s))[0] for s in stages_of_run}

    before = digests()
    altered(module, old, new)
    now = digests()
    assert {name.partition("/")[0] for name in before} == ALL_KINDS
    assert {name.partition("/")[0] for name in before if now[name] != before[name]} == expected


def test_code_that_changed_after_it_was_imported_is_refused(monkeypatch):
    """What runs is the code of the import: the new one must not be written down as if it had run."""
    path = str(used_code.module_path(__name__))
    times = {**fingerprint.source_times(), path: (2, 2)}
    monkeypatch.setattr(fingerprint, "_digests", {})
    monkeypatch.setattr(fingerprint, "source_times", lambda: times)
    monkeypatch.setattr(fingerprint, "IMPORTED", times)
    stages_of_run = plan()
    check_code(stages_of_run)
    monkeypatch.setattr(fingerprint, "source_times", lambda: {**times, path: (3, 2)})
    check_code(stages_of_run)  # a run, or a sweep, that is under way knows its code already
    fingerprint.forget_code()
    with pytest.raises(UserError, match=r"test_stages: changed on disk after Python imported it; start Python again"):
        check_code(stages_of_run)


def test_a_worker_that_started_with_other_code_does_not_run_it(monkeypatch):
    stage = plan()[0]
    ours = fingerprint.code_for_worker(stage)
    monkeypatch.setattr(fingerprint, "_digests", {})
    other = replace(ours, digest=("another", ()))
    fingerprint.check_worker(stage, other)  # imported the same files: trusted without reading them again
    assert fingerprint.code_digest(stage.function) == other.digest
    monkeypatch.setattr(fingerprint, "_digests", {})
    monkeypatch.setattr(fingerprint, "IMPORTED", {})
    monkeypatch.setattr(fingerprint, "source_times", dict)
    fingerprint.check_worker(stage, ours)  # only a comment changed, or another machine's clock
    with pytest.raises(UserError, match="changed on disk while the run was under way"):
        fingerprint.check_worker(stage, other)


def test_threads_paths_and_what_results_say_about_themselves_decide_nothing_where_they_do_not_matter(tmp_path):
    """A stage off the device is the same for any threads; the same file elsewhere is the same data."""

    def read(run, file):
        RAN.append("read")
        run.outputs["file"].write_text(file.read_text())
        return {"length": 1, "about": {"path": str(file)}}

    def planned(file):
        first = Stage(
            "first", read, {}, {"file": "a.txt"}, outside={"--file": source_digest(file)}, paths={"file": file}, on_device=False
        )
        return [first, Stage("second/a", copy, {"times": 2}, {"file": "b.txt"}, {"source": first})]

    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text("same")
    out = tmp_path / "out"
    assert run(out, planned(tmp_path / "x/data.txt")) == ["read", "copy"]
    assert run(out, planned(tmp_path / "y/data.txt")) == []
    assert run(out, planned(tmp_path / "y/data.txt"), where="cpu, 2 threads") == ["copy"]
    (tmp_path / "y/data.txt").write_text("other")
    assert run(out, planned(tmp_path / "y/data.txt"), where="cpu, 2 threads") == ["read", "copy"]


def test_advice_is_waited_for_and_not_part_of_what_is_made(tmp_path):
    """As the choice of precision: it may come out another way the next time, and what was made with it stays."""
    choices = iter(("fast", "slow"))

    def choose(run, threat):
        RAN.append("choose")
        return {"choice": next(choices)}

    def use(run):
        RAN.append(run.results["speed"]["choice"])
        return {}

    def planned(threat):
        speed = Stage("speed", choose, {"threat": threat}, {})
        return [speed, Stage("use", use, {}, {}, advice={"speed": speed})]

    assert run(tmp_path, planned(1)) == ["choose", "fast"]
    assert run(tmp_path, planned(1)) == []
    assert run(tmp_path, planned(2)) == ["choose"]


def test_what_results_say_about_themselves_decides_nothing(tmp_path):
    def tell(run, note):
        RAN.append("tell")
        run.outputs["file"].write_text("same")
        return {"length": 4, "about": {"note": note}}

    def planned(note):
        first = Stage("first", tell, {"note": note}, {"file": "a.txt"})
        return [first, Stage("second/a", copy, {"times": 2}, {"file": "b.txt"}, {"source": first})]

    assert run(tmp_path, planned("one")) == ["tell", "copy"]
    assert run(tmp_path, planned("two")) == ["tell"]


def test_a_measured_choice_is_noted_and_kept_by_what_goes_on(tmp_path):
    def a_run(precision):
        results = {"speed": {"precision": precision, "compile": "no"}}
        return StageRun({}, results, {}, tmp_path, tmp_path, torch.device("cpu"), print)

    plain = ClassifierSettings()
    assert jobs._as_measured(a_run("bfloat16"), plain) == (plain, {})
    open_choice = replace(plain, precision="auto")
    for measured in ("bfloat16", "float32"):  # measured again, with another outcome
        settings, chosen = jobs._as_measured(a_run(measured), open_choice)
        assert settings == replace(plain, precision="bfloat16")
        assert chosen == {"precision": "bfloat16", "compile": "no"}


def flags(run, settings=None):
    cudnn = torch.backends.cudnn
    found = [torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark]
    run.outputs["file"].write_text(json.dumps(found))
    return {}


def test_a_gpus_arithmetic_is_that_of_the_settings_and_ends_with_the_stage(tmp_path, monkeypatch):
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    for i, (tf32, benchmark) in enumerate(((False, False), (True, True))):
        place = Place(tmp_path / str(i), "cpu", "cpu", 1, tf32=tf32, cudnn_benchmark=benchmark)
        run_all([Stage("flags", flags, {}, {"file": "a.json"})], place, 1)
        expected = ["high" if tf32 else "highest", tf32, benchmark]
        assert json.loads((tmp_path / str(i) / "a.json").read_text()) == expected
        assert before == (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark)
    with gpu_arithmetic(tf32=True), gpu_arithmetic(tf32=False):  # as the evaluation within a run with TF32
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("highest", False)
    assert preset("cifar10-gpu").tf32
    assert not preset("cpu").tf32


def test_workers_take_the_cards_in_turn():
    assert [card_of_worker("cuda", n, 3) for n in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert {card_of_worker("cuda:1", n, 3) for n in range(3)} == {"cuda:1"}
    assert card_of_worker("cpu", 2, 3) == "cpu"
    assert card_of_worker("cuda", 1, 1) == "cuda"
    check_cards_alike("cuda", 2, ["A", "A", "B"])
    check_cards_alike("cuda:2", 3, ["A", "A", "B"])
    with pytest.raises(UserError, match=r"--workers 3: takes cards of different models \(A, A, B\); name one with --device cuda:N"):
        check_cards_alike("cuda", 3, ["A", "A", "B"])


def own_number(run):
    time.sleep(0.5)  # so that another worker takes the next stage
    run.outputs["file"].write_text(str(scheduler._number))
    return {}


def test_every_worker_has_a_number_of_its_own(tmp_path):
    run_all(
        [Stage(f"number/{n}", own_number, {}, {"file": f"{n}.txt"}) for n in range(4)],
        Place(tmp_path, "cpu, 1 threads", "cpu", 1),
        2,
    )
    assert {(tmp_path / f"{n}.txt").read_text() for n in range(4)} == {"0", "1"}


def test_compiled_graphs_of_earlier_stages_are_forgotten(tmp_path, monkeypatch):
    """torch compiles at most eight graphs for one function, and falls back without a word: a ninth classifier was not compiled."""
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    stages = [
        Stage(f"flags/{n}", flags, {"settings": ClassifierSettings(compile=how)}, {"file": f"{n}.json"})
        for n, how in enumerate(("no", "yes", "auto"))
    ]
    run_all(stages, Place(tmp_path, "cpu, 1 threads", "cpu", 1), 1)
    assert len(resets) == 2


def test_a_second_interruption_before_the_first_step_loses_no_loss(tmp_path):
    losses, path = torch.arange(1.0, 31.0), tmp_path / "c.csv"

    def go(first, last, interrupted):
        curve = Curve(path, 10)
        for step in range(first, last + 1):
            curve.add(step, losses[step - 1])
        if interrupted:
            curve.keep_unfinished()
        return curve.rows

    go(1, 17, True)
    go(18, 17, True)  # interrupted again, before a step
    assert go(18, 30, False) == [(10, 5.5), (20, 15.5), (30, 25.5)]


def test_a_stage_that_another_worker_has_finished_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    """A run that is interrupted leaves its stages with the workers of a cluster."""
    stage = made_stage(tmp_path)
    monkeypatch.setattr(scheduler, "run_stage", lambda *_: pytest.fail("made again"))
    scheduler._work(stage, Place(tmp_path, "cpu, 1 threads", "cpu", 1), False, code_for_worker(stage))


def test_a_stamp_that_a_network_file_system_shows_late_is_waited_for(tmp_path, monkeypatch):
    stage = made_stage(tmp_path)
    answers, read, waited = [None, None], scheduler.read_stamp, []
    monkeypatch.setattr(scheduler, "read_stamp", lambda out, name: answers.pop() if answers else read(out, name))
    monkeypatch.setattr(scheduler.time, "sleep", waited.append)
    scheduler.finish(stage, Place(tmp_path, "cpu, 1 threads", "cpu", 1), Bar([stage], shown=False), False, lambda _stage: None)
    assert waited == list(scheduler.LATE[:2])
    monkeypatch.setattr(scheduler, "read_stamp", lambda _out, _name: None)
    with pytest.raises(UserError, match="left no stamp"):
        scheduler.finish(stage, Place(tmp_path, "cpu, 1 threads", "cpu", 1), Bar([stage], shown=False), False, lambda _stage: None)


def test_what_tf32_made_is_not_what_float32_makes():
    settings = [resolve(preset("smoke", tf32=tf32)) for tf32 in (False, True)]
    kinds = {devices._place(one, "cuda", card).kind for one in settings for card in ("A", "B")}
    assert kinds == {"A", "B", "A, TF32", "B, TF32"}


def test_processes_that_do_not_see_one_folder_are_refused(tmp_path):
    place = Place(tmp_path, "cpu", "cpu", 1)
    together, apart = (
        SimpleNamespace(first=True, told=lambda value: value, all_of=lambda token, other=other: [token, other or token])
        for other in (None, "another")
    )
    processes._check_one_folder(place, together)
    with pytest.raises(UserError, match="not every process sees the same folder there"):
        processes._check_one_folder(place, apart)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dataset", "kind", "linf", "l2"),
    [
        ("digits", "none", 0.15, 0.5),
        *((name, "crop", 0.3, 2.0) for name in ("mnist", "mnist-t10k")),
        *((name, "crop", 8 / 255, 128 / 255) for name in ("gtsrb", "svhn")),
        *((name, "crop-flip", 8 / 255, 128 / 255) for name in ("cifar10", "cifar100", "stl10")),
    ],
)
def test_no_data_set_is_mirrored_whose_classes_are_not(dataset, kind, linf, l2):
    found = resolve(preset("smoke", dataset=dataset, **{"classifier.augmentation": "auto", "encoder.augmentation": "auto"}))
    assert (found.classifier.augmentation, found.encoder.augmentation, found.eps) == (kind, kind, linf)
    assert usual_eps(dataset, "l2") == l2
