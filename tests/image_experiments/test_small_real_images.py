"""Reduced CIFAR-10 (JPEG copy) and GTSRB, end to end through the command, where ../shared/data is there."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from image_experiments.data.splitting import split
from image_experiments.data.stored_dataset import load_dataset

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
REDUCED = [
    "--validation", "215", "--train", "1290", "--test", "430", "--synthetic", "430", "--methods", "real", "unguided", "infonce:0.3",
    "--encoder.steps", "300", "--encoder.adversary", "none", "--encoder.optimiser", "adam", "--encoder.learning-rate", "0.002",
    "--classifier.steps", "300", "--classifier.attack-steps", "2", "--classifier.optimiser", "adam", "--classifier.learning-rate", "0.002",
    "--diffusion.channels", "16", "32", "32", "--diffusion.steps", "150",
    "--diffusion.batch-size", "32", "--generation.steps", "10", "--evaluation.autoattack-images", "20", "--description.steps", "300",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("archive", "classes"), [("cifar10-jpeg.tar.xz", 10), ("gtsrb32.tar.xz", 43)])
def test_reduced_photographs_end_to_end(tmp_path, archive, classes):
    if not (DATA / archive).is_file():
        pytest.skip(f"../shared/data/{archive} is absent")
    command = [sys.executable, "image_experiments/run_cifar.py", "--dataset", "images", "--data-dir", str(DATA / archive), *REDUCED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 6
    assert {float(row["eps"]) for row in table} == {8 / 255}
    assert all(0 <= float(row["robust_accuracy"]) <= float(row["clean_accuracy"]) <= 1 for row in table)
    real = next(float(row["clean_accuracy"]) for row in table if row["method"] == "real")
    assert real > 1.5 / classes  # better than guessing, after 300 steps
    assert (tmp_path / "samples.png").stat().st_size > 10_000
    data = load_dataset(tmp_path / "data" / "images.npz")
    summary = json.loads((tmp_path / "summary.json").read_text())["data"]
    assert len(data.classes) == classes
    assert data.images.shape[1:] == (32, 32, 3)
    if classes == 43:  # tracks: every third of 30 frames, so about ten to a track
        assert 5 < summary["pool"] / summary["groups"] < 15
        with np.load(tmp_path / "data" / "split-seed0.npz") as places:
            assert not set(data.groups[places["train"]]) & set(data.groups[places["validation"]])
        for seed in range(3):
            chosen = split(data, 0, 430, seed)
            assert not set(data.groups[chosen.train]) & set(data.groups[chosen.validation])
            assert np.bincount(data.labels[chosen.validation]).tolist() == [10] * 43
    else:
        assert summary["groups"] == summary["pool"] == 50_000
