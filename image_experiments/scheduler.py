"""Runs stages as soon as their inputs are made, on several processes, which end with the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from command_line.output import UserError
from image_experiments.stages import Stage, is_current, read_stamp, run_stage

POLL_SECONDS = 0.2
MENDABLE = (UserError, ValueError, FloatingPointError, OSError, torch.OutOfMemoryError)
"""What a stage raises for reasons that the user can mend: the message names value, cause and remedy."""


class Bar:
    """A progress bar over stages that names what is under way."""

    def __init__(self, total: int) -> None:
        self.bar = tqdm(total=total, unit="stage", smoothing=0, mininterval=0.5)
        self.under_way: dict[str, str] = {}

    def report(self, name: str, done: int, total: int) -> None:
        self.under_way[name] = f"{name} {done}/{total}"
        self.bar.set_postfix_str(", ".join(self.under_way.values()), refresh=False)
        self.bar.update(0)

    def finished(self, name: str, line: str) -> None:
        self.under_way.pop(name, None)
        self.bar.set_postfix_str(", ".join(self.under_way.values()), refresh=False)
        self.bar.write(line)
        self.bar.update(1)


def run_all(
    stages: list[Stage],
    out: Path,
    where: str,
    device: str,
    threads: int,
    workers: int,
    on_finished: Callable[[Stage], None] = lambda _stage: None,
) -> None:
    """Run every stage that is not current, inputs first; what is made does not depend on `workers`.

    Raises UserError naming the stage that failed; what other stages made is kept, and the same command goes on from there.
    """
    bar = Bar(len(stages))
    try:
        if workers == 1:
            torch.set_num_threads(threads)
            _one_after_the_other(stages, out, where, device, bar, on_finished)
        else:
            _side_by_side(stages, out, where, device, threads, workers, bar, on_finished)
    finally:
        bar.bar.close()


def _finish(stage: Stage, out: Path, bar: Bar, skipped: bool, on_finished: Callable[[Stage], None]) -> None:
    seconds = (read_stamp(out, stage.name) or {"seconds": 0.0})["seconds"]
    bar.finished(stage.name, f"{stage.name}: {'unchanged' if skipped else f'{seconds:.1f} s'}")
    on_finished(stage)


def _one_after_the_other(
    stages: list[Stage], out: Path, where: str, device: str, bar: Bar, on_finished: Callable[[Stage], None]
) -> None:
    for stage in stages:
        skipped = is_current(stage, out, where)
        if not skipped:
            try:
                run_stage(stage, out, where, device, bar.report)
            except MENDABLE as error:
                raise UserError(_reason(stage, error)) from error
        _finish(stage, out, bar, skipped, on_finished)


def _side_by_side(
    stages: list[Stage],
    out: Path,
    where: str,
    device: str,
    threads: int,
    workers: int,
    bar: Bar,
    on_finished: Callable[[Stage], None],
) -> None:
    context = multiprocessing.get_context("spawn")  # fork does not go with CUDA or with threads
    reports: Any = context.Queue()
    waiting, running = list(stages), dict[Future[None], Stage]()
    done, outdated = set[str](), set[str]()
    with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(), threads, reports)) as pool:
        try:
            while waiting or running:
                for stage in [s for s in waiting if all(needed.name in done for needed in s.inputs.values())]:
                    if stage.name not in outdated and is_current(stage, out, where):
                        waiting.remove(stage)
                        done.add(stage.name)
                        _finish(stage, out, bar, True, on_finished)
                        continue
                    outdated.add(stage.name)
                    if len(running) < workers:
                        waiting.remove(stage)
                        running[pool.submit(_work, stage, out, where, device)] = stage
                _await(running, done, reports, out, bar, on_finished)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()  # checkpoints are written whole: nothing is lost that a checkpoint interval is not
            raise


def _await(
    running: dict[Future[None], Stage], done: set[str], reports: Any, out: Path, bar: Bar, on_finished: Callable[[Stage], None]
) -> None:
    """Pass on reports until a stage ends. Raises UserError where one failed."""
    while running:
        ended, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        with contextlib.suppress(queue.Empty):
            while True:
                bar.report(*reports.get_nowait())
        for future in ended:
            stage = running.pop(future)
            try:
                future.result()
            except MENDABLE as error:
                raise UserError(_reason(stage, error)) from error
            except BrokenExecutor:
                raise UserError(
                    f"{stage.name}: a process was killed, by the system perhaps for want of memory; use fewer --workers, and run the same "
                    "command again: it goes on from the last checkpoint"
                ) from None
            done.add(stage.name)
            _finish(stage, out, bar, False, on_finished)
        if ended:
            return


def _reason(stage: Stage, error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and not isinstance(error, UserError) and error.errno is not None:
        name = error.filename or "a file"
        text = f"cannot use {name} ({error.strerror}); free some space or choose another --out, then run the same command again"
    if isinstance(error, torch.OutOfMemoryError):
        text = "the GPU's memory is full; use smaller batches (--classifier.batch-size, --generation.batch-size, --evaluation.batch-size)"
    return f"{stage.name}: {text}"


_reports: Any = None


def _begin_worker(parent: int, threads: int, reports: Any) -> None:
    global _reports  # noqa: PLW0603 (a process pool hands nothing else to its workers)
    _reports = reports
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, killed perhaps, and with it the lock: two runs must not write one folder.

    For a fraction of a second both may write; they write the same, each file whole.
    """
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _work(stage: Stage, out: Path, where: str, device: str) -> None:
    last = 0.0

    def report(name: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > POLL_SECONDS:
            last = time.monotonic()
            _reports.put((name, done, total))

    run_stage(stage, out, where, device, report)
