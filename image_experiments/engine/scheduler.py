"""Runs stages as soon as their inputs exist: in this process, in several processes on this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from tqdm import tqdm

from command_line.cluster import connected, lost_worker
from command_line.output import UserError, remedy_for
from contrastive_dp.freed_memory import keep_freed_memory
from image_experiments.engine.fingerprint import CodeOfRun, check_worker, code_for_worker
from image_experiments.engine.run_stage import is_current, run_stage
from image_experiments.engine.stages import Place, Stage, read_stamp

POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0
"""Time that a worker has to finish its step and save a checkpoint when told to stop."""
WITHOUT_GUESS, WITH_GUESS = (f"{{percentage:3.0f}}%|{{bar}}| {{elapsed}}{rest}{{postfix}}" for rest in ("", "<{remaining}"))
ENOUGH_TO_GUESS = 0.01
"""Share of the work after which the bar tells the time that is left: the first steps compile and fill caches, which looks like hours."""
FIXABLE = (UserError, ValueError, FloatingPointError, OSError, torch.OutOfMemoryError)
"""Errors the user can fix: their messages name value, cause and remedy."""
OnFinished = Callable[[Stage], None]


class Bar:
    """A progress bar over the work of stages (progress.py); it names the running stages and prints a line for each finished one.

    shown: whether there is a bar; lines: whether there are lines.
    """

    def __init__(
        self, stages: Sequence[Stage], work: Mapping[str, float] = MappingProxyType({}), shown: bool = True, lines: bool = True
    ) -> None:
        self.lines = lines
        known = {stage.name: work.get(stage.name, 1.0) for stage in stages}
        self.share = {name: value / sum(known.values()) for name, value in known.items()}
        self.bar = tqdm(total=1.0, bar_format=WITHOUT_GUESS, smoothing=0, mininterval=0.5, disable=not shown or not stages)
        self.under_way: dict[str, str] = {}
        self.done: dict[str, float] = {}
        """Fraction of each stage that is done."""
        self.ended: set[str] = set()

    def report(self, name: str, done: int, total: int) -> None:
        if name not in self.ended:  # a report may come after the result
            self.under_way[name] = f"{name} {done}/{total}"
        self._show(name, done / max(total, 1))

    def finished(self, name: str, line: str) -> None:
        self.ended.add(name)
        self.under_way.pop(name, None)
        if self.lines:
            self.bar.write(line)
        self._show(name, 1.0)

    def _show(self, name: str, done: float) -> None:
        self.done[name] = max(min(done, 1.0), self.done.get(name, 0.0))
        self.bar.set_postfix_str(", ".join(self.under_way.values()), refresh=False)
        now = math.fsum(self.share[each] * part for each, part in self.done.items())
        if now >= ENOUGH_TO_GUESS:
            self.bar.bar_format = WITH_GUESS
        self.bar.update(now - self.bar.n)


def run_all(
    stages: list[Stage],
    place: Place,
    workers: int,
    on_finished: OnFinished = lambda _stage: None,
    cluster: str | None = None,
    made: Collection[str] = (),
    bar: Bar | None = None,
) -> None:
    """Run every stage that is not current, inputs first; the results depend neither on `workers` nor on the order of finishing.

    cluster: address of a Dask scheduler whose workers see the same folders, instead of processes on this machine; if a worker is lost,
    another repeats its stage. made: names of stages that have just run and are not reported again. bar: for these stages.
    Raises UserError naming the stage that failed; the work of other stages is kept, and the same command continues from there.
    """
    stages = [stage for stage in stages if stage.name not in made]
    bar = bar or Bar(stages)
    try:
        if cluster is not None:
            with connected(cluster, ("image_experiments", "contrastive_dp"), place.out) as client:
                submit = client.get_executor(pure=False).submit
                _side_by_side(stages, place, lambda: max(len(client.nthreads()), 1), bar, on_finished, submit, None, made)
        elif workers == 1:
            set_up(place.threads)
            _one_after_the_other(stages, place, bar, on_finished)
        else:
            with _processes(workers, place.threads) as (submit, reports):
                _side_by_side(stages, place, lambda: workers, bar, on_finished, submit, reports, made)
    finally:
        bar.bar.close()


def on_all(count: int, threads: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """[function(*arguments)] from this many processes at once, sharing the machine as stages would; from this process if count is 1."""
    if count == 1:
        set_up(threads)
        return [function(*arguments)]
    with _processes(count, threads) as (submit, _), _killed_told():
        return [future.result() for future in [submit(function, *arguments) for _ in range(count)]]


def set_up(threads: int) -> None:
    """Set up a process that runs stages: number of threads, and memory that is kept between steps."""
    torch.set_num_threads(threads)
    keep_freed_memory()


@contextmanager
def as_before() -> Iterator[None]:
    """Context for a run in a program of others: afterwards its number of threads and its current card are what they were."""
    threads, card = torch.get_num_threads(), torch.cuda.current_device() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if card is not None:
            torch.cuda.set_device(card)


LATE = (0.5, 1.5, 8, 20, 35)
"""Seconds to wait, one after the other, for a stamp that another machine wrote."""


def finish(stage: Stage, place: Place, bar: Bar, skipped: bool, on_finished: OnFinished) -> None:
    """Report that a stage, or a part of it, is done."""
    stamp = read_stamp(place.out, stage.name)
    for pause in () if place.part else LATE:  # a network file system shows what another machine wrote up to a minute late
        if stamp is None:
            time.sleep(pause)
            stamp = read_stamp(place.out, stage.name)
    if stamp is None and place.part:
        bar.finished(stage.name, f"{stage.name}: this part is made")
        return
    if stamp is None:
        raise UserError(f"{stage.name}: left no stamp in {place.out}; choose an --out that all workers see by the same name")
    seconds = f"{stamp['seconds']:.1f} s"
    bar.finished(stage.name, f"{stage.name}: {'unchanged' if skipped else seconds}")
    on_finished(stage)


def _one_after_the_other(stages: list[Stage], place: Place, bar: Bar, on_finished: OnFinished) -> None:
    for stage in stages:
        skipped = is_current(stage, place.out, place.kind)
        if not skipped:
            try:
                run_stage(stage, place, bar.report)
            except FIXABLE as error:
                raise UserError(reason(stage, error)) from error
        finish(stage, place, bar, skipped, on_finished)


@contextmanager
def _killed_told() -> Iterator[None]:
    """One line for a process that the system killed."""
    try:
        yield
    except BrokenExecutor:
        raise UserError(
            "a process was killed, perhaps because memory ran out; use fewer --workers and run the same command again: it resumes from the "
            "last checkpoint"
        ) from None


@contextmanager
def _processes(workers: int, threads: int) -> Iterator[tuple[Callable[..., Future[None]], Any]]:
    """Processes on this machine that end with this one: (submit, queue of reports)."""
    context = multiprocessing.get_context("spawn")  # fork does not work with CUDA or with threads
    reports: Any = context.Queue()
    started_so_far = context.Value("i", 0)
    with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(), threads, reports, started_so_far)) as pool:
        try:
            yield pool.submit, reports
        except BaseException:
            started = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.terminate()  # each finishes its current step and saves it, see _stop
            patience = threading.Timer(GRACE_SECONDS, _kill, (started,))
            patience.daemon = True
            patience.start()
            for process in started:
                process.join()
            patience.cancel()
            raise


def _side_by_side(
    stages: list[Stage],
    place: Place,
    workers: Callable[[], int],
    bar: Bar,
    on_finished: OnFinished,
    submit: Callable[..., Future[None]],
    reports: Any,
    made: Collection[str] = (),
) -> None:
    """workers: () -> current number of workers. reports: queue of (stage, done, total), or None."""
    waiting, running = list(stages), dict[Future[None], Stage]()
    done, outdated = set[str](made), set[str]()
    while waiting or running:
        limit = workers()
        for stage in [s for s in waiting if all(needed.name in done for needed in s.needs.values())]:
            if stage.name not in outdated and is_current(stage, place.out, place.kind):
                waiting.remove(stage)
                done.add(stage.name)
                finish(stage, place, bar, True, on_finished)
                continue
            outdated.add(stage.name)
            if len(running) < limit:
                waiting.remove(stage)
                with _killed_told():
                    running[submit(_work, stage, place, reports is not None, code_for_worker(stage))] = stage
        _await(running, done, reports, place, bar, on_finished)


def _await(
    running: dict[Future[None], Stage], done: set[str], reports: Any, place: Place, bar: Bar, on_finished: OnFinished
) -> None:
    """Pass on reports until a stage ends. Raises UserError if one failed."""
    while running:
        ended, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        with contextlib.suppress(queue.Empty):
            while reports is not None:
                bar.report(*reports.get_nowait())
        for future in ended:
            stage = running.pop(future)
            try:
                with _killed_told():
                    future.result()
            except FIXABLE as error:
                raise UserError(reason(stage, error)) from error
            except Exception as error:
                if (lost := lost_worker(error)) is not None:
                    raise UserError(f"{stage.name}: {lost}") from None
                raise
            done.add(stage.name)
            finish(stage, place, bar, False, on_finished)
        if ended:
            return


BATCHES = {
    **dict.fromkeys(("generate", "strength"), "generation"),
    **dict.fromkeys(("diffusion", "weaker"), "diffusion"),
    **dict.fromkeys(("encoder", "judge", "labeller", "keeper"), "encoder"),
    "classifier": "classifier",
    "evaluate": "evaluation",
}
"""{kind of stage: the group of settings with its batch size}."""


def reason(stage: Stage, error: BaseException) -> str:
    """One line: the stage, the cause and the remedy."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        text = f"cannot use {error.filename or 'a file'} ({error.strerror}); {remedy_for(error)}, then run the same command again"
    if isinstance(error, torch.OutOfMemoryError):
        kind = stage.name.partition("/")[0]
        text = "the GPU's memory is full"
        if kind in BATCHES:
            text += f"; use a smaller --{BATCHES[kind]}.batch-size, with --force, which keeps the stages that do not depend on it"
        else:
            text += "; use fewer --workers, or --device cpu"
    return f"{stage.name}: {text}"


def _kill(processes: list[Any]) -> None:
    for process in processes:
        process.kill()


_reports: Any = None
_number = 0
"""Which of the workers this process is, from 0."""


def _begin_worker(parent: int, threads: int, reports: Any, started: Any) -> None:
    global _reports, _number  # noqa: PLW0603 (a process pool hands nothing else to its workers)
    _reports = reports
    with started.get_lock():
        _number = started.value
        started.value += 1
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell makes background jobs ignore it
            signal.signal(number, _stop)
    set_up(threads)
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


_at_work = False


def _stop(_signal: int, _frame: object) -> None:
    """On Ctrl-C or at the end of the run: a running stage saves its progress (training does); an idle worker ends."""
    if not _at_work:
        os._exit(1)
    raise KeyboardInterrupt


def end_with(parent: int) -> None:
    """End this process when its parent is gone (killed, for example): the lock is gone too, and two runs must not write one folder.

    For a fraction of a second both may write, but they write the same content, and each file as a whole.
    """
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def card_of_worker(device: str, number: int, cards: int) -> str:
    """The device of the number-th worker: with device cuda, workers take the cards in turn; a card that is named is taken by all."""
    return f"cuda:{number % cards}" if device == "cuda" and cards > 1 else device


def own_device(device: str) -> str:
    """The device of this worker."""
    return card_of_worker(device, _number, torch.cuda.device_count())


def _work(stage: Stage, place: Place, reporting: bool, code: CodeOfRun) -> None:
    """Run a stage on a worker."""
    check_worker(stage, code)
    last = 0.0

    def report(name: str, done: int, total: int) -> None:
        nonlocal last
        if reporting and time.monotonic() - last > POLL_SECONDS:
            last = time.monotonic()
            _reports.put((name, done, total))

    if not reporting:  # a cluster worker, which has not been set up
        if is_current(stage, place.out, place.kind):
            return  # a run that was interrupted has left it with another worker, which has finished it meanwhile
        set_up(place.threads)
    global _at_work  # noqa: PLW0603 (read by a signal's handler)
    _at_work = True
    try:
        run_stage(stage, replace(place, device=own_device(place.device)), report)
    except (OSError, UserError):
        # the worker of a run that was interrupted has finished it meanwhile, and removed what both were writing
        if reporting or not is_current(stage, place.out, place.kind):
            raise
    except KeyboardInterrupt:
        if not reporting:
            raise
        os._exit(1)  # the run is ending: leave quietly
    finally:
        _at_work = False
