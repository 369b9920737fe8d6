"""Where a package, or a name of the system, is missing: one line, and everything that does not need it goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from command_line.missing import REMEDY, UnsupportedError, line_for, needs_packages

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for room in ("simulations", "image_experiments", "figures")
    for path in (ROOT / room).glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def python(code, *arguments):
    """What a fresh Python prints."""
    found = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_programs_that_people_run_say_in_one_line_which_package_is_missing():
    code = """
import runpy, sys
sys.modules["tyro"] = None
for program in sys.argv[1:]:
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        print(program, end.code)
"""
    line = f"error: the package tyro is missing; {REMEDY}"
    assert len(PROGRAMS) >= 11
    assert python(code, *PROGRAMS) == [f"{program} {line}" for program in PROGRAMS]


def test_from_python_a_missing_package_is_pythons_own_error():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), needs_packages("simulations.gaussian_mixture"):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("", name="scipy.stats"), f"the package scipy.stats is missing; {REMEDY}"),
        (
            ImportError("cannot import name 'cli' from 'tyro'", name="tyro"),
            "cannot import name 'cli' from 'tyro'; its version does not fit; in",
        ),
        (
            ImportError("libcudart.so.12: cannot open\nshared object file", name="torch._C"),
            "the package torch cannot be loaded (libcudart.so.12: cannot open shared object file); put that right",
        ),
        (UnsupportedError("needs Linux"), "needs Linux"),
        (ImportError("attempted relative import with no known parent package"), None),
        (ImportError("cannot import name 'old' from 'theory.value'", name="theory.value"), None),
    ],
)
def test_what_is_said_of_an_import_that_failed(error, line):
    said = line_for(error)
    assert said is None if line is None else said.startswith(line)


@pytest.mark.parametrize("package", ["torch", "numpy", "safetensors.torch"])
def test_the_library_says_what_to_install(package):
    code = """
import sys
sys.modules[sys.argv[1]] = None
try:
    import contrastive_dp
except ModuleNotFoundError as error:
    print(error.name, str(error).rpartition("; ")[2])
"""
    assert python(code, package) == [f"{package} contrastive_dp needs it: pip install numpy torch safetensors"]


def test_a_torch_without_its_distributed_part_is_enough_for_one_process():
    code = 'import sys; sys.modules["torch.distributed.nn.functional"] = None; import contrastive_dp; print("there")'
    assert python(code) == ["there"]


def test_names_that_linux_alone_has_are_not_needed():
    """macOS and Windows have no errno.EUCLEAN; `make lint` looks for more such names."""
    assert python("import errno; del errno.EUCLEAN; import command_line.output; print('there')") == ["there"]


def test_on_windows_the_image_experiments_say_where_they_run():
    code = """
import sys
sys.platform = "win32"
try:
    import image_experiments
except ImportError as error:
    print(error)
sys.platform = "linux"
from command_line.command import Help, run_command
from tests.command_line.test_output import Nothing
sys.platform = "win32"
def run(settings):
    import image_experiments
sys.stderr = sys.stdout
print(run_command(Nothing, run, Help("Nothing."), []))
"""
    told = "the image experiments need Linux or macOS; on Windows run them in WSL"
    assert python(code) == [told, f"error: {told}", "1"]
