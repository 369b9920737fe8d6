"""One run on several processes, on one machine or many, which go through the stages in step.

torchrun starts them, accelerate connects them (gloo on CPUs, nccl on GPUs). All processes work together on stages that can be shared; the
other stages are divided among them.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed

from command_line.output import UserError, write_whole
from contrastive_dp.processes import Processes, ProcessLostError
from image_experiments.engine.run_stage import is_current, run_stage
from image_experiments.engine.scheduler import FIXABLE, Bar, OnFinished, end_with, finish, reason, set_up
from image_experiments.engine.stages import Place, Stage

PATIENCE = timedelta(days=7)  # a process may have to wait for another's AutoAttack
STEP_PATIENCE = timedelta(minutes=30)  # but on GPUs no longer for another's gradients


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun or `accelerate launch` started."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)


def launch(processes: int, port: int, program: Path, arguments: Sequence[str]) -> int:
    """Start a command in this many processes on this machine and wait; returns the exit status.

    If one dies, the others are stopped. Raises UserError naming the one that died, or for a port that is in use.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # otherwise it prints a page for each process
    logging.getLogger("torch.distributed.launcher").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="contrastive-dp",
        rdzv_backend="static",  # c10d would unpickle what it finds at the port, which others may reach
        rdzv_configs={"rank": 0},
        rdzv_endpoint=f"127.0.0.1:{_free_port(port)}",
        max_restarts=0,
        local_addr="127.0.0.1",
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set the same and print a line about it
    try:
        elastic_launch(config, sys.executable)("-u", str(program.resolve()), *arguments)
    except SignalException:  # torchrun's exception for Ctrl-C and SIGTERM
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # it has already printed why
            return 130 if failure.exitcode == 130 else 1
        raise UserError(
            f"process {rank} of {processes} was killed ({_cause(-failure.exitcode)}); the others were stopped: run the same command again, "
            "it goes on from the last checkpoint"
        ) from None
    return 0


def _cause(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGABRT:  # how nccl ends a process
        return f"{name}: perhaps by nccl, if a GPU failed or another process sent nothing for {STEP_PATIENCE.seconds // 60} minutes"
    return f"{name}: perhaps by the system, when memory ran out"


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = "choose another, or 0 for any that is free" if port else "close what holds them"
            raise UserError(f"--port {port}: no free port ({error.strerror}); {remedy}") from None
        found: int = probe.getsockname()[1]
        return found


@contextmanager
def joined(cpu: bool) -> Iterator[tuple[Processes, str]]:
    """This process connected with the others: its place among them and its device. Ends once all have arrived, or on an error at once."""
    from accelerate import PartialState

    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    state = PartialState(cpu=cpu, timeout=PATIENCE if cpu else STEP_PATIENCE)
    talk = None if cpu else torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    processes = Processes(state.process_index, state.num_processes, talk)
    # Left to the end of Python, the threads of gloo abort one process in fifteen, and a run that ended well looks killed.
    try:
        yield processes, str(state.device)
        processes.all_of(None)
    except BaseException:
        time.sleep(IDLE)
        torch.distributed.destroy_process_group(talk)  # nccl would wait for the others
        raise
    time.sleep(IDLE)
    torch.distributed.destroy_process_group()


IDLE = 0.2
"""Seconds after which gloo's threads have let go of their last work. They need Python for that. Until torch 2.7 a group that is destroyed
before holds Python and waits for them, for ever."""


def run_together(
    stages: list[Stage],
    place: Place,
    processes: Processes,
    on_finished: OnFinished = lambda _stage: None,
    before: Collection[str] = (),
    bar: Bar | None = None,
) -> None:
    """Run every stage that is not current, all processes in step; the first decides what is next. before: stages that have already run.

    Raises UserError naming the stage that failed, or if another process is gone; finished work is kept.
    """
    set_up(place.threads)
    _check_one_folder(place, processes)
    stages = [stage for stage in stages if stage.name not in before]
    bar = bar or Bar(stages, shown=processes.first, lines=processes.first)
    waiting, done = list(stages), set[str](before)
    try:
        while waiting:
            ready = [s for s in waiting if all(needed.name in done for needed in s.needs.values())]
            current = set(
                processes.told([s.name for s in ready if is_current(s, place.out, place.kind)] if processes.first else None)
            )
            made = [s for s in ready if s.name in current]
            if not made:
                shared = next((s for s in ready if s.shared), None)
                made = [shared] if shared else ready[: processes.count]
                _run(made, place, processes, bar.report)
            for stage in made:
                waiting.remove(stage)
                done.add(stage.name)
                if processes.first:
                    finish(stage, place, bar, stage.name in current, on_finished)
    finally:
        bar.bar.close()


def _run(chosen: list[Stage], place: Place, processes: Processes, report: Callable[[str, int, int], None]) -> None:
    """Run one stage on all processes, or the i-th of several stages on process i."""
    shared = len(chosen) == 1 and chosen[0].shared
    stage = chosen[0] if shared else next(iter(chosen[processes.rank :]), None)
    failed = None
    if stage is not None:
        try:
            run_stage(stage, place, report, processes if shared else Processes())
        except ProcessLostError as error:
            raise UserError(
                f"{stage.name}: {error}; process {processes.rank} of {processes.count} stops too: run the same command again, "
                "it goes on from the last checkpoint"
            ) from None
        except FIXABLE as error:
            if shared:  # the others may be in the middle of a step: they notice when this process ends
                raise UserError(reason(stage, error)) from error
            failed = reason(stage, error)
    failures = [text for text in processes.all_of(failed) if text]
    if failures:
        raise UserError(failures[0])


def _check_one_folder(place: Place, processes: Processes) -> None:
    """Raise UserError if the processes do not see the same output folder."""
    token = place.out / ".together"
    if processes.first:
        write_whole(token, lambda path: path.write_text(str(os.getpid()), encoding="utf-8"))
    processes.told(None)
    seen = processes.all_of(token.read_text(encoding="utf-8") if token.is_file() else "")
    if processes.first:
        token.unlink()
    if len(set(seen)) > 1:
        raise UserError(f"--out {place.out}: not every process sees the same folder there; choose one that all machines share")
