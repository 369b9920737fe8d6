"""Sweeps on a Dask cluster: a worker is killed on the way, and the tables are those of one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations import gaussian_mixture
from tests.image_experiments.test_together import SMALL, table

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = """
import sys, time
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1")
    print(cluster.scheduler_address, *(worker.pid for worker in cluster.workers.values()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path):
    """(address, process numbers of two workers) of a cluster of its own; dead workers are replaced."""
    program = tmp_path / "cluster.py"
    program.write_text(CLUSTER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3"}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([sys.executable, str(program)], env=environment, cwd=ROOT, **streams)
    address, *workers = process.stdout.readline().split()
    yield address, [int(worker) for worker in workers]
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


def run(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, **streams)


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_a_sweep_over_images_with_a_worker_killed_half_way_ends_with_the_same_table(cluster, tmp_path):
    address, workers = cluster
    command = ["image_experiments/run_cifar.py", *SMALL, "--seeds", "2"]
    finish(run(*command, "--workers", "1", "--out", tmp_path / "one"))
    process = run(*command, "--cluster", address, "--out", tmp_path / "two")
    stamps = tmp_path / "two" / "stages"
    deadline = time.monotonic() + 100
    while len(list(stamps.rglob("*.json"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(workers[0], signal.SIGKILL)
    finish(process)
    for name in ("metrics.csv", "details.csv", "description.csv", "differences.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert len(table(tmp_path / "two" / "metrics.csv")) == 12


@pytest.mark.slow
def test_a_sweep_over_simulations_with_a_worker_killed_half_way_ends_with_the_same_table(cluster, tmp_path):
    address, workers = cluster
    command = ["simulations/gaussian_mixture.py", "--quick", "--part", "simulation"]
    finish(run(*command, "--workers", "1", "--out", tmp_path / "one"))
    process = run(*command, "--cluster", address, "--out", tmp_path / "two")
    shown, seen = "", False
    while not seen:  # the progress bar tells how far it is
        shown += process.stdout.read(1)
        seen = any(f" {percent}%|" in shown for percent in range(15, 80))
        assert process.poll() is None, shown
    os.kill(workers[0], signal.SIGKILL)
    finish(process)
    for path in (tmp_path / "one").glob("*.csv"):
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("command_line.cluster.CONNECT_SECONDS", 1)
    arguments = ["--quick", "--cluster", "tcp://127.0.0.1:9", "--out", str(tmp_path / "out")]
    assert gaussian_mixture.main(arguments) == 1
    error = capsys.readouterr().err
    assert "no Dask scheduler answers" in error.strip().splitlines()[-1]
    assert "Traceback" not in error
