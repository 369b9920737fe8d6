"""Reuse: a stage is taken from another run if and only if it would be made from the same there, and is whole."""

import os

import pytest

from command_line.output import UserError
from image_experiments.engine import reuse
from image_experiments.engine.reuse import check_reuse, take_over
from image_experiments.engine.run_stage import is_current
from image_experiments.engine.stages import Place
from image_experiments.run_cifar import main
from tests.image_experiments.test_stages import plan, run

CPU = "cpu, 1 threads"


def taken(out, planned, *others):
    return take_over(planned, Place(out, CPU, "cpu", 1), others)


def test_what_another_run_made_from_the_same_is_taken_and_nothing_else(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    run(a, plan())
    assert taken(b, plan(), a) == 2
    assert (b / "made/second.txt").samefile(a / "made/second.txt")
    assert run(b, plan()) == []
    assert taken(b, plan(), a) == 0  # there already
    assert taken(c, plan(times=3), a) == 1
    assert run(c, plan(times=3)) == ["copy"]
    assert (a / "made/second.txt").read_text() == "abab"  # what was taken is replaced, not written to
    assert taken(tmp_path / "d", plan(text="cd"), a) == 0  # and what would be made from other inputs is left


def test_each_stage_comes_from_the_run_that_has_it(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    run(a, plan(times=2))
    run(b, plan(text="cd", times=5))
    run(b, plan(times=3))
    assert taken(c, plan(times=3), a, b) == 2
    assert (c / "made/first.txt").samefile(a / "made/first.txt")
    assert (c / "made/second.txt").samefile(b / "made/second.txt")
    assert run(c, plan(times=3)) == []


def test_a_stage_of_the_same_settings_but_other_inputs_is_not_taken(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    run(a, plan())
    run(b, plan())
    (b / "stages/second/a.json").unlink()
    stamp = b / "stages/first/a.json"  # as if other packages had made other results from the same settings
    stamp.write_text(stamp.read_text().replace('"length": 2', '"length": 3'))
    assert taken(b, plan(), a) == 0
    assert run(b, plan()) == ["copy"]


def test_what_is_made_anew_after_links_leaves_the_other_run_alone(tmp_path):
    """These stages write into their files, which no stage should: the links are parted first."""
    a, b = tmp_path / "a", tmp_path / "b"
    run(a, plan())
    assert taken(b, plan(), a) == 2
    assert run(b, plan(times=3)) == ["copy"]
    assert (a / "made/second.txt").read_text() == "abab"
    assert (b / "made/second.txt").read_text() == "ababab"
    assert run(a, plan()) == []


def test_without_links_copies_are_made_and_nothing_is_written_through_a_leftover(tmp_path, monkeypatch):
    a, b = tmp_path / "a", tmp_path / "b"
    run(a, plan())
    other, unfinished = tmp_path / "other.txt", tmp_path / "unfinished.txt"
    other.write_text("untouched")
    unfinished.hardlink_to(other)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert taken(b, plan(), a) == 2
    assert not (b / "made/first.txt").samefile(a / "made/first.txt")
    assert run(b, plan()) == []
    reuse._link_or_copy(a / "made/first.txt", unfinished)
    assert (other.read_text(), unfinished.read_text()) == ("untouched", "ab")


def test_a_file_that_was_touched_is_not_taken(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    run(a, plan())
    (a / "made/first.txt").write_text("other")
    assert taken(b, plan(), a) == 0
    assert not is_current(plan()[0], b, CPU)
    assert not (b / "made").exists()


def test_a_stage_made_elsewhere_is_not_taken(tmp_path):
    run(tmp_path / "a", plan(), where="cuda, 1 threads")
    assert taken(tmp_path / "b", plan(), tmp_path / "a") == 0


def test_a_folder_that_holds_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(UserError, match=r"holds no run, there is no .*nothing/stages; name the --out"):
        check_reuse([tmp_path / "nothing"])
    assert main(["--reuse", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "error: --reuse" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_stage_after_one_that_is_made_anew_is_left(tmp_path):
    """Its inputs are not known yet: what lies there is of other settings."""
    a, b = tmp_path / "a", tmp_path / "b"
    run(a, plan())
    run(b, plan())
    (b / "stages/second/a.json").unlink()
    assert taken(b, plan(text="cd"), a) == 0
    assert taken(b, plan(), a) == 1
