"""Runs jobs on the cores of this machine or on a Dask cluster; results are the same as with one process, in the order of the jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command_line.output import UserError

CONNECT_SECONDS = 15


def usable_cores() -> int:
    """The cores that this process may use: of a batch job those that it was given, not all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fan_out(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    name: str,
    unit: str,
    cluster: str | None,
    package: str,
) -> list[Any]:
    """[function(*job) for job in jobs] with a progress bar. workers: processes on this machine (0: one per core). package: the package
    with the jobs' code.

    cluster: address of a Dask scheduler, used instead of processes on this machine; another worker repeats the jobs of a lost one.
    Raises UserError for a cluster that does not answer, or whose workers keep dying.
    """
    from joblib import Parallel, delayed, parallel_config
    from tqdm import tqdm

    calls = (delayed(_on_one_thread)(function, *job) for job in jobs)

    def collect(parallel: Any) -> list[Any]:
        return list(tqdm(parallel(calls), total=len(jobs), desc=name, unit=unit))

    if cluster is None:
        return collect(Parallel(n_jobs=workers or usable_cores(), return_as="generator", batch_size=1))
    with connected(cluster, (package,)), parallel_config(backend="dask"):
        try:
            return collect(Parallel(return_as="generator", batch_size=1))
        except Exception as error:
            if (lost := lost_worker(error)) is not None:
                raise UserError(f"{name}: {lost}") from None
            raise


def _on_one_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a job. Sums of several threads differ in the last digit, and how many there are depends on the number of workers."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(*arguments)


def check_ways(workers: int, cluster: str | None) -> None:
    """Raise UserError if both are given."""
    if workers and cluster is not None:
        raise UserError(f"--workers {workers} and --cluster {cluster}: exclude each other; give one of them")


@contextmanager
def connected(address: str, packages: Iterable[str], folder: Path | None = None) -> Iterator[Any]:
    """A Dask client whose workers have these packages and can access this folder, if one is given. Raises UserError."""
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise UserError(f"--cluster {address}: needs Dask; pip install dask distributed") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=True)
    except (OSError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"--cluster {address}: no Dask scheduler answers ({reason}); check the address, host:port") from None
    with client:
        if not client.nthreads():
            raise UserError(f"--cluster {address}: has no workers; start some with: dask worker {address} --nthreads 1")
        for package in packages:
            asked = f"__import__('importlib.util').util.find_spec({package!r}) is not None"
            lacking = [name for name, there in client.run(eval, asked).items() if not there]
            if lacking:
                raise UserError(f"--cluster {address}: worker {lacking[0]} lacks {package}; pip install -e . there, this version")
        if folder is not None:
            blind = [name for name, there in client.run(os.path.isdir, str(folder.absolute())).items() if not there]
            if blind:
                raise UserError(f"--out {folder}: worker {blind[0]} does not see this folder; choose one that all machines share")
        yield client


def lost_worker(error: BaseException) -> str | None:
    """The message for an error that means that workers of a cluster died; None for any other error."""
    if type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError"):
        return (
            f"the cluster lost it ({type(error).__name__}): its workers kept dying, perhaps out of memory, or its scheduler stopped; "
            "run the same command again"
        )
    return None
