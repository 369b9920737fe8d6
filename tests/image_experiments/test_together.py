"""Several processes and machines: the result is that of one process, whatever the split, the order, or who dies on the way."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from command_line.output import UserError, file_digest
from image_experiments import experiment, run_cifar
from image_experiments.data import shards as data_shards
from image_experiments.data.shards import merge
from image_experiments.merge_shards import main as merge_shards

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--train", "60", "--validation", "20", "--test", "60", "--synthetic", "56", "--methods", "real", "unguided", "infonce:0.3",
    "--encoder.network", "small-cnn-8", "--encoder.steps", "30", "--encoder.batch-size", "32", "--norm", "l2",
    "--classifier.network", "wrn-10-1", "--classifier.steps", "30", "--classifier.batch-size", "32",
    "--diffusion.channels", "8", "16", "--diffusion.steps", "40", "--diffusion.batch-size", "16",
    "--generation.steps", "4", "--generation.batch-size", "16",
    "--evaluation.autoattack-images", "4", "--evaluation.pgd-steps", "5", "--description.steps", "20",
    "--evaluation.autoattack-parts", "apgd-ce",
]  # fmt: skip


def command(*arguments):
    return [sys.executable, str(ROOT / "image_experiments" / "run_cifar.py"), *SMALL, *map(str, arguments)]


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(*arguments), cwd=ROOT, env=environment, **streams)


def run(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert run_cifar.main([*SMALL, "--workers", "1", "--out", str(out)]) == 0
    return out


@pytest.fixture
def trained(alone, tmp_path):
    """A copy of it whose generated images are gone."""
    out = tmp_path / "out"
    shutil.copytree(alone, out)
    shutil.rmtree(out / "synthetic")
    return out


def generated(out):
    """{file: checksum} of the synthetic sets and their manifests."""
    return {str(p.relative_to(out)): file_digest(p) for p in sorted((out / "synthetic").rglob("seed*"))}


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_generated_files_that_were_deleted_are_made_again_and_nothing_else(alone, trained, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in (trained / "stages").rglob("*.json")}
    capsys.readouterr()
    assert run_cifar.main([*SMALL, "--workers", "1", "--out", str(trained)]) == 0
    output = "".join(capsys.readouterr())
    assert generated(trained) == generated(alone)
    assert len(generated(alone)) == 4
    again = [line.split(":")[0].split()[-1] for line in output.splitlines() if line.rstrip().endswith(" s") and "seed0: " in line]
    assert sorted(again) == ["generate/infonce-0.3/seed0", "generate/unguided/seed0"], before


@pytest.mark.slow  # parts merged out of order are compared next, a training of two processes below
def test_two_processes_generate_what_one_does(alone, trained):
    code, output = run("--processes", 2, "--out", trained)
    assert code == 0, output
    assert generated(trained) == generated(alone)


def test_three_parts_merged_out_of_order_are_what_one_process_generates(alone, trained, tmp_path, capsys):
    for part in "123":
        shutil.copytree(trained, tmp_path / part)
        assert run_cifar.main([*SMALL, "--workers", "1", "--part", f"{part}/3", "--out", str(tmp_path / part)]) == 0
    for method in ("unguided", "infonce-0.3"):
        folders = [next((tmp_path / part / "shards").glob(f"generate_{method}_*")) for part in "312"]
        assert [len(list(folder.glob("*.npz"))) for folder in folders] == [1, 2, 1]  # four batches of at most 16
        to = tmp_path / f"{method}.npz"
        if method == "unguided":  # links to folders elsewhere are subfolders like others
            (tmp_path / "all").mkdir()
            for number, folder in enumerate(folders):
                (tmp_path / "all" / str(number)).symlink_to(folder)
            folders = [tmp_path / "all"]
        assert merge_shards([*map(str, folders), "--to", str(to)]) == 0
        assert file_digest(to) == generated(alone)[f"synthetic/{method}/seed0.npz"]
        manifest = json.loads(to.with_suffix(".json").read_text())
        assert [shard["images"] for shard in manifest["shards"]] == [16, 16, 16, 8]
        assert manifest["sha256"] == file_digest(to)
    shutil.copytree(trained, tmp_path / "9")
    assert run_cifar.main([*SMALL, "--workers", "1", "--part", "9/9", "--out", str(tmp_path / "9")]) == 0
    assert "part 9/9 makes nothing: no set has so many shards as there are parts; name fewer parts" in capsys.readouterr().out
    for part in "23":  # or one run takes them all
        shutil.copytree(tmp_path / part / "shards", tmp_path / "1" / "shards", dirs_exist_ok=True)
    assert run_cifar.main([*SMALL, "--workers", "1", "--out", str(tmp_path / "1")]) == 0
    assert generated(tmp_path / "1") == generated(alone)
    assert not list((tmp_path / "1" / "shards").iterdir())


@pytest.fixture(scope="module")
def shards(alone, tmp_path_factory):
    """Shards of two sets, made by two parts."""
    folder = tmp_path_factory.mktemp("shards")
    for part in "12":
        shutil.copytree(alone, folder / part)
        shutil.rmtree(folder / part / "synthetic")
        assert run_cifar.main([*SMALL, "--workers", "1", "--part", f"{part}/2", "--out", str(folder / part)]) == 0
    return folder


def shards_of(folder, method):
    return sorted(folder.glob(f"?/shards/generate_{method}_*/shard-*.npz"))


def test_shards_that_do_not_belong_together_are_one_line_and_nothing_is_written(shards, tmp_path):
    plain, guided = shards_of(shards, "unguided"), shards_of(shards, "infonce-0.3")
    copy = tmp_path / "copy"

    def refused(paths, message):
        with pytest.raises(UserError, match=message) as error:
            merge(paths, tmp_path / "all.npz", tmp_path / "all.json")
        assert "\n" not in str(error.value)
        assert not list(tmp_path.glob("*all*"))

    refused([*plain[:3], guided[3]], "is of another set than .*method infonce:0.3 in place of unguided")
    other = tmp_path / "other"
    shutil.copytree(plain[3].parent, other)
    other /= plain[3].name
    note = other.with_suffix(".json")
    note.write_text(note.read_text().replace('"precision": "float32"', '"precision": "bfloat16"'))  # measured to be faster there
    refused([*plain[:3], other], "another set than .* made with settings.precision bfloat16 in place of float32")
    refused(plain[:3], r"1 of 4 shards are missing \(3\)")
    shutil.copytree(plain[0].parent, copy)
    name = copy / plain[0].name
    whole = name.read_bytes()
    name.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    refused([name, *plain[1:]], "altered or damaged since it was made")
    name.write_bytes(whole)
    note = json.loads(name.with_suffix(".json").read_text())
    name.with_suffix(".json").write_text(json.dumps(note | {"sha256": "0" * 64}))
    refused([*plain, name], "same shard with different content")
    for damaged in ("{", json.dumps(note | {"shards": 10**12}), json.dumps(note | {"shards": "4"})):
        name.with_suffix(".json").write_text(damaged)
        refused([name], "is damaged; delete it")
    name.with_suffix(".json").unlink()
    refused([name, *plain[1:]], "has no note")


def test_a_merged_set_is_not_replaced_by_another(shards, tmp_path, capsys):
    to, manifest = tmp_path / "merged.npz", tmp_path / "merged.json"

    def merged(method):
        folders = {str(path.parent) for path in shards_of(shards, method)}
        return merge_shards([*sorted(folders), "--to", str(to)])

    assert merged("unguided") == 0
    before = to.read_bytes(), manifest.read_bytes()
    for content, words in (
        (before[1], r"holds another set, made with method unguided in place of infonce:0\.3"),
        (b"{}", "is damaged"),
    ):
        manifest.write_bytes(content)
        assert merged("infonce-0.3") == 1
        assert re.search(words, capsys.readouterr().err)
        assert (to.read_bytes(), manifest.read_bytes()) == (before[0], content)
    manifest.write_bytes(before[1])
    assert merged("unguided") == 0
    assert (to.read_bytes(), manifest.read_bytes()) == before


def test_the_merging_command_refuses_in_one_line(shards, tmp_path, capsys):
    folder = shards_of(shards, "unguided")[0].parent
    (tmp_path / "mine.npz").write_bytes(b"someone's")
    for arguments, message in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path)], "no shards"),
        ([str(folder), "--to", str(tmp_path / "a.txt")], "ends in .npz"),
        ([str(folder), "--to", str(tmp_path / "a.npz")], "2 of 4 shards are missing"),
        ([str(folder), "--to", str(folder / "shard-00000.npz")], "would replace a shard"),
        ([str(folder), "--to", str(tmp_path / "mine.npz")], "is there already, without a manifest"),
    ):
        assert merge_shards(arguments) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error


def test_two_processes_train_what_one_trains(alone, tmp_path):
    """At the same global batch, batch norm included; with an l_2 attack, whose steps are continuous in the gradient, unlike signs.

    A tensor is compared by its norm: where rounding turns a hidden unit off in one image, Adam moves its bias by 3e-4 of its size.
    """
    code, output = run("--processes", 2, "--methods", "real", "infonce:0.3", "--until", "training", "--out", tmp_path / "out")
    assert code == 0, output
    for name in ("encoder", "judge", "real"):
        one, two = (load_file(out / "checkpoints" / f"{name}-seed0.safetensors") for out in (alone, tmp_path / "out"))
        for key in one:
            one_norm, apart = one[key].double().norm(), (two[key].double() - one[key].double()).norm()
            assert apart <= 1e-4 * one_norm, f"{name}: {key} is {apart / one_norm:.1e} off"
    stamps = {p.stem: json.loads(p.read_text())["processes"] for p in (tmp_path / "out" / "stages").rglob("*.json")}
    assert max(stamps.values()) == 2
    curves = [[float(row["loss"]) for row in table(out / "curves" / "real-seed0.csv")] for out in (alone, tmp_path / "out")]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.slow
def test_a_killed_process_stops_the_rest_with_a_clear_line_and_a_restart_goes_on(tmp_path):
    longer = ("--diffusion.steps", 400, "--diffusion.checkpoint-every", 10, "--processes", 2, "--out", tmp_path / "out")
    process = start(*longer)
    checkpoint = None
    deadline = time.monotonic() + 120
    while checkpoint is None and time.monotonic() < deadline:
        time.sleep(0.05)
        checkpoint = next((tmp_path / "out" / "unfinished").glob("diffusion*/checkpoint.pt"), None)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    assert len(children) >= 2
    os.kill(int(children[-1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "run the same command again" in output
    assert "Traceback" not in output
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text()]
    assert checkpoint.is_file()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < 400
    code, output = run(*longer)
    assert code == 0, output
    assert (tmp_path / "out" / "metrics.csv").is_file()


def test_more_processes_than_cards_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run_cifar.check_cards(2, "cuda")
    run_cifar.check_cards(3, "cpu")
    with pytest.raises(UserError, match="--processes 3: each needs a GPU of its own, and torch finds 2; use at most 2"):
        run_cifar.check_cards(3, "cuda")


def test_numbers_of_processes_that_cannot_be_are_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["--processes", "3"], "3 processes cannot share a batch of 32 equally: use 1, 2, 4, 8, 16, 32 processes"),
            (["--processes", "2", "--port", port], f"--port {port}: no free port"),
            (["--port", "80"], "belongs to --processes"),
            (["--processes", "2", "--workers", "2"], "exclude each other"),
            (["--cluster", "127.0.0.1:1", "--workers", "2"], "exclude each other"),
            (["--part", "4/3"], "write K/N"),
            (["--part", "1/3", "--methods", "real"], "no method generates images"),
            (["--processes", "0"], "must lie in 1"),
        ):
            assert run_cifar.main([*SMALL, *arguments, *out]) == 1
            captured = capsys.readouterr()
            assert message in captured.err.strip().splitlines()[-1], captured.err
            assert captured.err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_a_merge_that_was_interrupted_goes_on(shards, tmp_path, monkeypatch):
    """Between the images and their manifest lies a checksum of all bytes; images without a manifest were refused as somebody else's."""
    folders, to = sorted({str(path.parent) for path in shards_of(shards, "unguided")}), tmp_path / "all.npz"
    digest, called = data_shards.file_digest, []

    def interrupted(path):
        called.append(path)
        if path.name.endswith("all.npz"):
            raise KeyboardInterrupt
        return digest(path)

    monkeypatch.setattr(data_shards, "file_digest", interrupted)
    assert merge_shards([*folders, "--to", str(to)]) == 130
    assert not to.exists()
    monkeypatch.undo()
    assert merge_shards([*folders, "--to", str(to)]) == 0
    assert json.loads(to.with_suffix(".json").read_text())["sha256"] == digest(to)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["all.npz"]


def test_unlike_devices_of_processes_are_one_line():
    experiment.check_places_alike(["NVIDIA H100", "NVIDIA H100"])
    with pytest.raises(
        UserError, match=r"--processes 2: have unlike devices \(NVIDIA H100, NVIDIA L4\); give them cards of one model"
    ):
        experiment.check_places_alike(["NVIDIA H100", "NVIDIA L4"])
