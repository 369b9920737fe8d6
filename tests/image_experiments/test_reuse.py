"""Reuse: a stage is taken from another run if and only if it would be made from the same there, and is whole."""

import pytest

from command_line.output import UserError
from image_experiments.reuse import take_over
from image_experiments.run_cifar import main
from image_experiments.stages import Place, is_current
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
        taken(tmp_path / "b", plan(), tmp_path / "nothing")
    assert main(["--reuse", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "error: --reuse" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.npz"))
