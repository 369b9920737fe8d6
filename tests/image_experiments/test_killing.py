"""Killed with SIGKILL at random moments, the same command goes on: bit-identical files, no more than one checkpoint interval repeated."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from image_experiments import run_cifar

ROOT = Path(__file__).resolve().parents[2]
EVERY = 10
TINY = [
    "--train", "60", "--validation", "20", "--test", "60", "--synthetic", "48",
    "--methods", "real", "noise", "infonce:0.3",
    "--encoder.network", "small-cnn-8", "--encoder.steps", "45", "--encoder.checkpoint-every", str(EVERY), "--encoder.batch-size", "32",
    "--classifier.network", "small-cnn-8", "--classifier.steps", "45", "--classifier.checkpoint-every", str(EVERY),
    "--classifier.batch-size", "32", "--classifier.validate-every", "25",
    "--diffusion.channels", "8", "16", "--diffusion.steps", "65", "--diffusion.checkpoint-every", str(EVERY),
    "--diffusion.batch-size", "16",
    "--generation.steps", "5", "--generation.batch-size", "16", "--selection.surplus", "1.5", "--selection.criterion", "confidence",
    "--evaluation.autoattack-images", "6", "--evaluation.autoattack-parts", "apgd",
    "--evaluation.batch-size", "20", "--evaluation.pgd-steps", "5",
    "--description.steps", "40",
]  # fmt: skip


def start(out, journal, workers, **options):
    environment = {**os.environ, "JOURNAL": str(journal), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.image_experiments.journalled", *TINY, "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def kill_after(process, journal, stage, lines, delay):
    """Wait for so many more lines of the journal about this kind of stage ("": any), then a little, then SIGKILL.

    Returns the stages that were under way, or None if the run had ended by itself.
    """
    begun = len(journal.read_text()) if journal.exists() else 0

    def news():
        text = journal.read_text()[begun:] if journal.exists() else ""
        return [line for line in text.splitlines() if line.startswith(stage)]

    while process.poll() is None and len(news()) < lines:
        time.sleep(0.02)
    time.sleep(delay)
    under_way = [line.split("/")[0] for line in news()[-2:]] if process.poll() is None else None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with journal.open("a") as stream:
        stream.write("KILLED\n")
    return under_way


def contents(out):
    """{file: bytes} of everything but times; half-written and forgotten files would show."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != ".lock"):
        name = str(path.relative_to(out))
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            content.pop("seconds", None)  # shard manifests have none
            content.get("settings", {}).pop("out", None)
            content.get("settings", {}).pop("workers", None)
            found[name] = json.dumps(content).encode()
        else:
            found[name] = path.read_bytes()
    return found


def most_repeated(journal):
    """{stage: largest number of steps, batches or parts done again after a kill}."""
    repeated, last, resumed = {}, {}, set()
    for line in journal.read_text().splitlines():
        if line == "KILLED":
            resumed = set(last)
            continue
        name, done = line.rsplit(" ", 1)
        if int(done) == 0:
            continue
        if name in resumed:
            repeated[name] = max(repeated.get(name, 0), last[name] - int(done) + 1)
            resumed.discard(name)
        last[name] = int(done)
    return repeated


def finish_and_compare(out, journal, reference, workers=2):
    process = start(out, journal, workers)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    found, expected = contents(out), contents(reference)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    for name, count in most_repeated(journal).items():
        assert count <= (EVERY if name.split("/")[0] in ("diffusion", "encoder", "judge", "classifier") else 1), (name, count)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The same run, never interrupted, in this process."""
    out = tmp_path_factory.mktemp("reference") / "out"
    assert run_cifar.main([*TINY, "--workers", "1", "--out", str(out)]) == 0
    return out


def test_a_run_stopped_and_killed_ends_as_if_it_never_was(reference, tmp_path):
    """Ctrl-C on a terminal, SIGINT to the whole group, while two workers train: both leave a checkpoint of the step they were at. Then
    SIGKILL within the evaluation. Two processes make what one makes."""
    journal, out = tmp_path / "journal", tmp_path / "out"
    process = start(out, journal, 2, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    text = ""
    while process.poll() is None and not (
        "diffusion/seed0 25" in text and re.search(r"(encoder|judge|classifier/real)\S* 1\d", text)
    ):
        time.sleep(0.02)
        text = journal.read_text() if journal.exists() else ""
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted: what was made is kept; run the same command to go on from the last checkpoint"
    assert "Traceback" not in said
    step = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in journal.read_text().splitlines()}
    (saved,) = (out / "unfinished").glob("diffusion_seed0-*/checkpoint.pt")
    assert torch.load(saved, weights_only=True)["step"] == step["diffusion/seed0"] > 24
    with journal.open("a") as stream:
        stream.write("KILLED\n")
    assert kill_after(start(out, journal, 2), journal, "evaluate", 2, 0.5)
    finish_and_compare(out, journal, reference, workers=1)


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_over_all_stages_ends_as_if_it_never_was(reference, tmp_path):
    """Four kills within the short stages; every other try is killed a random number of steps on, so that the kills spread over the run."""
    rng = random.Random(0)
    short = ["data", "generate", "select", "describe"]
    journal, out, met = tmp_path / "journal", tmp_path / "out", []
    while len(met) < 20:
        stage, lines = (short.pop(0), 1) if short else ("", rng.randint(1, 45))
        under_way = kill_after(start(out, journal, 2), journal, stage, lines, rng.uniform(0, 0.3))
        if under_way is None:  # the run ended first: begin another
            finish_and_compare(out, journal, reference)
            out, journal = tmp_path / f"out{len(met)}", tmp_path / f"journal{len(met)}"
        else:
            met += [under_way]
    print(f"under way when killed: {met}; repeated: {most_repeated(journal)}")
    finish_and_compare(out, journal, reference)
