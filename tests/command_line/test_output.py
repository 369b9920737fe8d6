"""Remedies that fit what the system says, numbers as people write them, streams whose reader has gone."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line.command import Help, Unbroken, run_command
from command_line.messages import TERMINAL, told_of_files
from command_line.output import TEMPORARY, UserError, remedy_for, temporary_name, write_whole
from command_line.values import check_radius, number


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "change its permissions"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EMFILE, "raise the limit of open files"),
        (errno.ENOENT, "it was moved, deleted or replaced"),
        (errno.EIO, "the disk, or the connection to it, fails"),
        (errno.EPROTO, "check it"),
    ],
)
def test_a_remedy_fits_the_error(tmp_path, code, remedy):
    """Once every error of the system was told to free some space."""
    error = OSError(code, os.strerror(code))
    assert remedy_for(error).startswith(remedy)

    def fail(_path):
        raise error

    with pytest.raises(UserError, match=rf"cannot write \({os.strerror(code)}\); {remedy}"):
        write_whole(tmp_path / "a.csv", fail)
    assert not list(tmp_path.iterdir())


def test_names_of_unfinished_files_are_ours_and_short():
    name = temporary_name("x" * 250 + ".npz")
    assert name.startswith(TEMPORARY)
    assert name.endswith(".npz")
    assert len(name) < 80
    assert len({temporary_name(f"{i}.csv") for i in range(100)}) == 100


def test_a_file_with_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".csv")
    write_whole(path, lambda temporary: temporary.write_text("a"))
    assert path.read_text() == "a"


@pytest.mark.parametrize(
    ("eps", "norm", "message"),
    [
        (8.0, "linf", r"did you mean 8/255\?"),
        (1.0, "linf", r"did you mean 1/255\?"),
        (256.0, "linf", "turns every image into any other, as images lie in"),
        (128.0, "l2", r"did you mean 128/255\?"),
        (0.0, "linf", "must be a finite number > 0"),
        (float("nan"), "l2", "must be a finite number > 0"),
    ],
)
def test_radii_that_mean_nothing(eps, norm, message):
    with pytest.raises(UserError, match=message):
        check_radius(f"--eps {eps}", eps, norm)


@pytest.mark.parametrize(("eps", "norm"), [(8 / 255, "linf"), (0.3, "linf"), (0.999, "linf"), (2.0, "l2"), (128 / 255, "l2")])
def test_radii_in_use(eps, norm):
    assert check_radius("--eps", eps, norm) == eps


def test_infinities_are_for_the_caller_to_refuse():
    assert number("inf") == float("inf")
    assert number("1e400") == float("inf")


def test_a_stream_without_a_reader_swallows_what_is_written():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as raw:
        stream = Unbroken(raw)
        print("heard", file=stream)
        os.close(reader)
        for _ in range(3):
            print("unheard", file=stream)
            stream.flush()
        assert stream.fileno() == writer
        assert not stream.isatty()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit of open files (ulimit -n)"),
        (ConnectionError("the server hung up"), "the server hung up; check it"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"),
            "cannot use a/b (No such file or directory); it was moved",
        ),
    ],
)
def test_an_error_without_a_file_is_not_blamed_on_standard_output(error, line, capsys):
    def run(settings):
        raise error

    assert run_command(Nothing, run, Help("Nothing."), []) == 1
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_standard_output_that_is_full_is_named():
    full = "from command_line.command import Help, run_command\nfrom tests.command_line.test_output import Nothing\n"
    full += "import sys; sys.exit(run_command(Nothing, lambda settings: print('x' * 100_000) or 0, Help('Nothing.')))"
    found = subprocess.run(["sh", "-c", f'{sys.executable} -c "$0" > /dev/full', full], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (
        1,
        "error: cannot use standard output (No space left on device); redirect or free it\n",
    )


def test_names_of_files_cannot_write_over_a_terminal(capsys):
    def run(settings):
        TERMINAL.say("read \x1b[2Ka\tb")
        TERMINAL.warn("left out \x9d0;c\x07")
        raise UserError("\x1b]52;c;eA==\x07 is no image; é, ᶠ, \u200d and \u202f stay")

    assert run_command(Nothing, run, Help("Nothing."), []) == 1
    printed = capsys.readouterr()
    assert printed.out == "read \\x1b[2Ka\tb\n"
    assert printed.err == (
        "warning: left out \\x9d0;c\\x07\nerror: \\x1b]52;c;eA==\\x07 is no image; é, ᶠ, \u200d and \u202f stay\n"
    )


@pytest.mark.parametrize("arguments", [["--n", ""], ["--n="], [""]])
def test_a_value_that_is_empty_is_refused(arguments, capsys):
    """As of --out "$OUT" with OUT not set: the folder would be the one at hand."""
    assert run_command(Nothing, lambda _settings: 0, Help("Nothing."), arguments) == 1
    assert "is empty; give a value" in capsys.readouterr().err


def test_a_path_that_is_not_utf8_is_refused(capsys):
    """Results could not hold it."""
    assert run_command(Nothing, lambda _settings: pytest.fail("ran"), Help("Nothing."), ["--n", "caf\udce9"]) == 1
    assert capsys.readouterr().err == "error: caf\\udce9: is not UTF-8; rename it\n"


@dataclass(frozen=True)
class Nothing:
    """Nothing."""

    n: int = 1
    """A number."""


def test_traceback_is_taken_off_the_command_line_wherever_it_stands(capsys):
    def run(settings):
        raise UserError(f"--n {settings.n}: is wrong")

    for arguments, shown in ((["--n", "2"], False), (["--traceback", "--n", "2"], True), (["--n", "2", "--traceback"], True)):
        assert run_command(Nothing, run, Help("Test."), arguments) == 1
        error = capsys.readouterr().err
        assert error.endswith("error: --n 2: is wrong\n")
        assert ("Traceback" in error) == shown


def test_the_last_line_says_which_picture_to_open_first():
    """The first of those named that was drawn; nothing if there is no choice."""
    drawn = [Path(f"out/{name}.png") for name in ("ceiling", "real_data", "phase_diagram")]
    for first, said in (
        (("phase_diagram", "real_data"), "; open phase_diagram.png first"),
        (("x", "ceiling"), "; open ceiling.png first"),
        ((), ""),
    ):
        line = told_of_files(Path("out"), drawn, 3.2, first)
        assert line == f"wrote 3 pictures, csv files and report.txt with all tables (--verbose prints them) to out in 3 s{said}"
    assert told_of_files(Path("out"), drawn[:1], 3.2, ("ceiling",)).startswith("wrote 1 picture, csv files")
    assert "first" not in told_of_files(Path("out"), drawn[:1], 3.2, ("ceiling",))
