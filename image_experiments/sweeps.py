"""Many runs from one design, from Python, like run_sweep.py: `result = sweep({"run": {"main": {"methods": ["real"]}}})`."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from command_line.command import versions
from command_line.folder_claim import check_claim, note_claim
from command_line.messages import QUIET, Talk
from command_line.output import UserError, did_you_mean, listed, prepare_folder, text_table, write_csv, write_json
from command_line.result import folder_of, read_table
from command_line.spawning import without_main
from command_line.values import changed
from image_experiments.engine.changes import check_device
from image_experiments.engine.checks import facts_without_reading
from image_experiments.engine.devices import place_of
from image_experiments.engine.fingerprint import forget_code
from image_experiments.engine.presets import flags_of, settings_from
from image_experiments.engine.scheduler import as_before
from image_experiments.engine.settings import Settings, resolve
from image_experiments.evaluation.robustness import attack_name, parts_for
from image_experiments.experiment import Result, check_settings, checked_stages, conduct, only_run_in, prepared
from image_experiments.gathering import Finished, joined, outcomes_in_all, read_finished
from image_experiments.output.sweep_tables import COMPARED, comparisons, gather, gather_descriptions, outcomes_in
from image_experiments.output.tables import results

DESIGNS = Path(__file__).resolve().parent / "designs"
OWN_FLAGS = ("--out", "--reuse", "--seed", "--seeds", "--workers", "--methods", "--force", "--dry-run")
INTERRUPTED = 130
PIECES = ("--part", "--until")
ELSEWHERE = "--cluster"
"""A design is a file of results, also of other people; whoever answers at a Dask address may run code here."""


@dataclass(frozen=True)
class SweepSettings:
    """Everything that determines the result (workers does not)."""

    design: Path = DESIGNS / "digits-ablations.toml"
    """The design file."""
    seeds: int | None = None
    """Independent repetitions of every run (default: as in the design, or 3)."""
    seed: int | None = None
    """First seed (default: as in the design, or 0)."""
    quick: bool = False
    """Try out the design: one seed, the first three methods of the first run, and two more runs."""
    reuse: tuple[Path, ...] = ()
    """Folders of other image runs (such as OUT/runs/NAME of another sweep) whose identical stages are reused."""
    gather: tuple[Path, ...] = ()
    """Folders of this sweep with other seeds, from other machines: join their tables and make nothing anew."""
    data_dir: Path | None = None
    """Files of the data set, passed on to run_cifar.py: a design names the data set, not its location."""
    until: Literal["description"] | None = None
    """description: only make and describe the synthetic images, without training or attacking classifiers; writes only description.csv."""
    workers: int = 0
    """Number of processes (0: one per core, with CUDA one: give the number of GPUs). Does not change the results."""
    out: Path | None = None
    """Folder for the results (default: results/DESIGN)."""
    force: bool = False
    """Continue in a folder that holds another sweep, or runs with other settings. Its tables are overwritten."""
    dry_run: bool = False
    """Print the resolved settings, what would run and what it would cost, then stop."""


@dataclass(frozen=True)
class Run:
    """One call of run_cifar.py."""

    name: str
    methods: tuple[str, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """The content of a design file. compare: pairs of (run, method). attacks: names of the attacks to compare under; empty: all."""

    base: tuple[str, ...]
    runs: list[Run]
    compare: list[tuple[tuple[str, str], tuple[str, str]]]
    seed: int
    seeds: int
    attacks: tuple[str, ...] = ()


def read_design(path: Path) -> Design:
    """Read a design file. Raises UserError naming what is wrong with it."""
    where = f"--design {path}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); name a TOML file, for example one of {DESIGNS}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: is not TOML ({error}); fix that line") from None
    return design_of(content, where)


def design_of(design: Mapping[str, Any], where: str = "design") -> Design:
    """A design from a dictionary with the structure of a design file: {"base", "run": {NAME: {"methods", "arguments"}}, "compare", ...}.

    base, arguments: a command line, ["--train", "100"], or settings by name, {"train": 100, "classifier.steps": 50}.
    Raises UserError naming what is wrong with it.
    """
    _check_names(where, "the design", design, ("base", "run", "compare", "attacks", "seed", "seeds"))
    tables = design.get("run", {})
    if not isinstance(tables, Mapping) or not tables:
        raise UserError(f"{where}: holds no run; add a table [run.NAME] with methods = [...]")
    runs = []
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise UserError(f"{where}: run.{name} must be a table [run.{name}] with methods = [...]")
        _check_names(where, f"[run.{name}]", table, ("methods", "arguments"))
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise UserError(
                f"{where}: [run.{name}] must be named by letters, digits, -, _ and . alone, at most 100: it names a folder"
            )
        methods, arguments = (_texts(where, f"[run.{name}] {key}", table.get(key, [])) for key in ("methods", "arguments"))
        if not methods:
            raise UserError(f'{where}: [run.{name}] names no methods; add methods = ["unguided"]')
        runs.append(Run(name, methods, arguments))
    base = _texts(where, "base", design.get("base", []))
    _check_arguments(where, (*base, *(text for run in runs for text in run.arguments)))
    attacks = _texts(where, "attacks", design.get("attacks", []))
    if attacks and not design.get("compare"):
        raise UserError(f"{where}: attacks applies to compare, which is missing; add compare, or leave attacks out")
    for attack in attacks:
        if not re.fullmatch(r"pgd-\d+|autoattack|apgd|apgd-ce", attack):
            raise UserError(f"{where}: attacks holds {attack}; the names are pgd-STEPS, autoattack, apgd and apgd-ce")
    return Design(base, runs, _pairs(where, design.get("compare", []), runs), *_whole(where, design), attacks)


def _check_arguments(where: str, arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in PIECES:
            raise UserError(f"{where}: {argument} makes a piece of a run, and a sweep needs whole ones; take it out")
        if flag == ELSEWHERE:
            raise UserError(f"{where}: {argument} names a machine, and a design may come from others; take it out")
        if flag in OWN_FLAGS:
            raise UserError(f"{where}: {argument} belongs to run_sweep.py or to methods = [...]; take it out of the arguments")


def _whole(where: str, design: Mapping[str, Any]) -> tuple[int, int]:
    found = []
    for name, usual, least in (("seed", 0, 0), ("seeds", 3, 1)):
        value = design.get(name, usual)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**31:
            raise UserError(f"{where}: {name} = {value} must be a whole number of at least {least}")
        found.append(value)
    return found[0], found[1]


def _pairs(where: str, value: Any, runs: list[Run]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Both sides of every comparison as (run, method), checked to be in the design."""
    from image_experiments.synthesis.methods import parse_method

    known = {(one.name, parse_method(method).label) for one in runs for method in one.methods}
    found = []
    for pair in value if isinstance(value, list | tuple) else [value]:
        sides = (
            [tuple(side.split("/")) for side in pair]
            if isinstance(pair, list | tuple) and all(isinstance(s, str) for s in pair)
            else []
        )
        if len(set(sides)) != 2 or not all(side in known for side in sides):
            names = ", ".join(sorted("/".join(side) for side in known))
            raise UserError(f'{where}: compare holds {pair}; write ["RUN/METHOD", "RUN/METHOD"] of {names}')
        found.append((sides[0], sides[1]))
    return found


def _check_names(where: str, place: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            raise UserError(f"{where}: {place} has {name}{did_you_mean(str(name), known)}; known are {', '.join(known)}")


def _texts(where: str, place: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping) and place != "attacks" and not place.endswith("methods"):
        try:
            return tuple(flags_of(value))
        except UserError as error:
            raise UserError(f"{where}: {place}: {error}") from None
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise UserError(f'{where}: {place} must be a list of texts, for example ["--synthetic", "250"]')
    return tuple(value)


class SweepResult:
    """The results of a sweep, read from its folder on access.

    out: the folder. runs: {name: Result}. Tables are pandas DataFrames: table (sweep.csv: one row per run, method, seed and attack),
    comparisons (those in the design), description (with until="description", instead of both).
    """

    def __init__(self, out: str | Path) -> None:
        self.out = folder_of(out, "a sweep")
        path = self.out / "summary.json"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            names, self._until = summary["runs"], summary["settings"]["until"]
            self._gathered = [f"{one['folder']} (seeds {' '.join(map(str, one['seeds']))})" for one in summary.get("gathered", ())]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{self.out}: holds no finished sweep; run it to the end first") from None
        self.names = tuple(names)

    def __repr__(self) -> str:
        return f"SweepResult({str(self.out)!r}: {', '.join(self.names)})"

    @property
    def runs(self) -> dict[str, Result]:
        """{name in the design: its Result}. Raises UserError where the runs lie elsewhere, or were not made to their end."""
        if self._until:
            raise UserError(
                f"{self.out}: was made with until={self._until!r}, which leaves no runs but their description; see .description"
            )
        if self._gathered:
            raise UserError(f"{self.out}: was gathered from tables; its runs lie where they were made, in {listed(self._gathered)}")
        return {name: Result(self.out / "runs" / name) for name in self.names}

    @property
    def table(self) -> Any:
        """sweep.csv as a DataFrame: the rows of all runs' metrics with their settings and descriptions."""
        return read_table(self.out / "sweep.csv")

    @property
    def comparisons(self) -> Any:
        """comparisons.csv as a DataFrame: the differences that the design planned, paired by seed."""
        return read_table(self.out / "comparisons.csv")

    @property
    def description(self) -> Any:
        """description.csv as a DataFrame: with until="description", a row per run, method and seed."""
        return read_table(self.out / "description.csv")


def sweep(design: str | Path | Mapping[str, Any], talk: Talk = QUIET, **changes: Any) -> SweepResult:
    """Run a design, a file or a dictionary (see design_of), and collect the results; continues where it stopped.

    changes: to SweepSettings, for example seeds=2, out="results/mine". Raises UserError: one line.
    """
    if not isinstance(design, str | Path | Mapping) or "\0" in str(design):
        raise UserError(f"design={design!r}: give the path of a design file, or a dictionary like one")
    if isinstance(design, Mapping):
        parsed, changes = design_of(design), {"design": Path("sweep"), **changes}
    else:
        parsed, changes = read_design(Path(design)), {"design": Path(design), **changes}
    settings, runs = resolved(changed(SweepSettings(), **changes), parsed)
    forget_code()
    if settings.dry_run:
        raise UserError("dry_run=True: belongs to the command line, run_sweep.py; leave it out")
    if settings.gather:
        gather_sweep(settings, parsed, runs, talk)
    else:
        calls = checked_calls(settings, parsed, runs)
        check_in_process(calls)
        with without_main(), as_before():
            in_this_program(talk, partial(conduct_sweep, settings, parsed, calls, talk))
    assert settings.out is not None
    return SweepResult(settings.out)


def check_in_process(calls: Sequence[tuple[Run, list[str]]]) -> None:
    """Raise UserError for a run that several processes are to share: from Python there is one."""
    for one, arguments in calls:
        if (processes := settings_from(arguments).processes) > 1:
            raise UserError(f"run {one.name}: processes={processes}: belongs to run_sweep.py and run_search.py; leave it out")


def check_devices(out: Path, calls: Sequence[tuple[Run, list[str]]]) -> None:
    """Raise UserError if a run was made on another device, before the sweep is taken for unfinished."""
    for one, arguments in calls:
        if (out / "runs" / one.name / "stages").is_dir():
            settings = prepared(settings_from(arguments))
            check_device(checked_stages(settings), place_of(settings)[0], settings.force)


def run_one(arguments: Sequence[str], talk: Talk) -> int:
    """One run in this process; returns 0."""
    settings = prepared(settings_from(arguments))
    place, workers = place_of(settings)
    conduct(settings, checked_stages(settings), place, workers, talk)
    return 0


def in_this_program(talk: Talk, conduct: Callable[[Callable[[list[str]], int]], object]) -> None:
    """Call conduct(make), where make runs one command line in this process: arguments -> status.

    A run that fails is said, and does not keep others from being made. Raises UserError with the messages of all that failed, at the end.
    """
    failed: list[str] = []

    def make(arguments: list[str]) -> int:
        try:
            return run_one(arguments, talk)
        except (UserError, ImportError, OSError) as error:  # as run_command of command_line
            told = " ".join(str(error).split())
            talk.warn(told)
            failed.append(f"run {Path(arguments[arguments.index('--out') + 1]).name}: {told}")
            return 1

    conduct(make)
    if failed:
        raise UserError(listed(failed, 3, "; "))


def checked_calls(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> list[tuple[Run, list[str]]]:
    """Every run with its command line. Raises UserError if one would be refused."""
    assert settings.out is not None
    calls = [(one, arguments_of(settings, design, one, settings.out / "runs" / one.name)) for one in runs]
    _check_calls(settings, design, calls)
    return calls


def conduct_sweep(
    settings: SweepSettings,
    design: Design,
    calls: Sequence[tuple[Run, list[str]]],
    talk: Talk,
    make: Callable[[list[str]], int],
) -> int:
    """Make all runs, one after the other, each reusing what earlier ones share with it; then the tables, if none failed.

    make: arguments -> status. One that fails does not keep the others from being made.
    """
    begin, out, runs = time.perf_counter(), settings.out, [one for one, _ in calls]
    assert out is not None
    with only_run_in(prepare_folder(out)):
        claim_sweep(settings, design, runs)
        check_devices(out, calls)
        if not settings.until:  # until the tables are written again, the sweep is not finished
            (out / "summary.json").unlink(missing_ok=True)
        made, failed = list(settings.reuse), list[str]()
        for i, (one, arguments) in enumerate(calls):
            talk.say(f"\n=== {one.name}: run {i + 1} of {len(runs)}")
            status = make([*arguments, *(["--reuse", *map(str, made)] if made else [])])
            if status == INTERRUPTED:
                return status
            if status:
                talk.warn(f"run {one.name} of {settings.design} ended with status {status}; see above")
                failed.append(one.name)
            if (out / "runs" / one.name / "stages").is_dir():  # also what one that failed has finished
                made.append(out / "runs" / one.name)
        if failed:
            talk.warn(
                f"{len(failed)} of {len(runs)} runs failed ({listed(failed)}), so there is no table; put right what they say and run the "
                "same command again"
            )
            return 1
        write_results(settings, design, runs, begin, talk)
    return 0


def claim_sweep(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> None:
    """Note in OUT which sweep it holds. Raises UserError if it holds another."""
    check_sweep(settings, design, runs)
    assert settings.out is not None
    note_claim(prepare_folder(settings.out), identity(settings, design, runs))


def check_sweep(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> None:
    """Raise UserError if OUT holds another sweep of which anything was made."""
    assert settings.out is not None
    growing = ("all seeds", "runs", "compare", *(f"methods of {one.name}" for one in runs))
    check_experiment(settings.out, identity(settings, design, runs), growing, settings.force)


def check_experiment(out: Path, about: Mapping[str, Any], growing: Collection[str], force: bool) -> None:
    """Raise UserError if the folder is of another command, or holds another experiment of this one of which anything was made."""
    kind = {"experiment": about["experiment"]}
    check_claim(out, about if holds_results(out) else kind, growing=growing, force=force)


def holds_results(out: Path) -> bool:
    """Whether a sweep or a search has made anything in the folder: a stage of a run, or a table."""
    return any((out / name).is_file() for name in ("summary.json", "sweep.csv", "search.csv")) or any(
        found.is_file() for runs in (out, *out.glob("rung-*")) for found in runs.glob("runs/*/stages/**/*.json")
    )


def finished(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> list[Finished]:
    """The sweeps in the folders of settings.gather. Raises UserError if they are not this one, or would be overwritten."""
    out, whole = settings.out, {one.name: asdict(one) for one in runs}
    assert out is not None
    found = read_finished(settings.gather, design.base, whole, seeds_of(settings))
    if any(one.out.resolve() == out.resolve() for one in found) or ((out / "runs").is_dir() and not settings.force):
        raise UserError(f"--out {out}: holds a sweep that was made there, and its tables would be overwritten; give another --out")
    return found


def gather_sweep(settings: SweepSettings, design: Design, runs: Sequence[Run], talk: Talk) -> None:
    """The tables of a sweep whose seeds were made in the folders of settings.gather, as if all had been made in one."""
    begin, out = time.perf_counter(), settings.out
    assert out is not None
    sweeps = finished(settings, design, runs)
    if any(one.summary["versions"] != sweeps[0].summary["versions"] for one in sweeps):
        talk.warn(
            "the folders were made by different versions of packages, which summary.json names; seeds may differ for that reason too"
        )
    outcomes, missed = outcomes_in_all(sweeps)
    header, rows = joined(sweeps)
    compared = compared_in(design, header, rows, outcomes)
    if missed:
        talk.warn(
            f"the intervals for new images are nan: outcomes are missing, for example in {missed[0]}; copy runs/*/outcomes too"
        )
    claim_sweep(settings, design, runs)
    write_csv(out / "sweep.csv", header, rows)
    write_comparisons(out, compared, talk)
    settings = replace(settings, gather=tuple(Path(one.told["folder"]) for one in sweeps))
    seconds = {"this call": round(time.perf_counter() - begin, 2)}
    write_summary(settings, design.base, runs, seconds, sweeps[0].data, [one.told for one in sweeps])
    talk.say(f"wrote {out}/sweep.csv with {len(rows)} rows and summary.json, from {len(sweeps)} folders")


def resolved(settings: SweepSettings, design: Design) -> tuple[SweepSettings, list[Run]]:
    """The settings completed from the design, and its runs (with --quick only some). Raises UserError."""
    seeds = design.seeds if settings.seeds is None else settings.seeds
    settings = replace(settings, seed=design.seed if settings.seed is None else settings.seed, seeds=seeds)
    for name, least in (("seeds", 1), ("seed", 0), ("workers", 0)):
        if not least <= getattr(settings, name) <= 2**31:
            raise UserError(f"--{name} {getattr(settings, name)}: must lie in {least} .. 2^31")
    _check_data_dir(settings, design)
    for name in ("quick", "until", "reuse"):
        if settings.gather and getattr(settings, name):
            raise UserError(f"--gather: only joins tables of whole sweeps, and makes nothing; leave out --{name}")
    settings, runs = replace(settings, out=settings.out or Path("results") / settings.design.stem), design.runs
    if settings.until:
        runs = [one for one in runs if set(one.methods) != {"real"}]  # with real images only, there is nothing to describe
    if not settings.quick:
        return settings, runs
    return replace(settings, seeds=1), [replace(runs[0], methods=runs[0].methods[:3]), *runs[1:3]]


def arguments_of(settings: SweepSettings, design: Design, one: Run, folder: Path) -> list[str]:
    """The command line of a run."""
    arguments = [*design.base, *data_flags(settings), *one.arguments, "--seeds", str(settings.seeds), "--seed", str(settings.seed)]
    arguments += ["--out", str(folder), "--workers", str(settings.workers), "--methods", *one.methods]
    return arguments + (["--until", settings.until] if settings.until else []) + (["--force"] if settings.force else [])


def _check_calls(settings: SweepSettings, design: Design, calls: Sequence[tuple[Run, list[str]]]) -> None:
    """Raise UserError for a run that would be refused, before the first one starts rather than hours later."""
    attacks = {}
    for one, arguments in calls:
        try:
            chosen = settings_from(arguments)
            if not waits_for_images(settings, one):
                check_settings(chosen)
            attacks[one.name] = _attacks(resolve(chosen))
        except UserError as error:
            raise UserError(f"--design {settings.design}: run {one.name}: {error}") from None
    _check_attacks(settings, design, attacks)


def _attacks(settings: Settings) -> set[tuple[Any, ...]]:
    """(name, norm, eps, split, number of images: 0 where it is not known yet) of the attacks that the tables of a run may have."""
    chosen = settings.evaluation
    threats = [(threat.norm, round(threat.eps, 9)) for threat in (settings.threat(), *chosen.further())]
    facts = facts_without_reading(settings)
    whole = (settings.test or (facts.test if facts else 0)) if chosen.split == "test" else settings.validation
    some = chosen.autoattack_images or whole
    images = {name: whole if name.startswith("pgd") else min(some, whole or some) for name in attacks_of(settings)}
    return {(name, *threat, chosen.split, images[name]) for name in images for threat in threats}


def _check_attacks(settings: SweepSettings, design: Design, of: Mapping[str, set[tuple[Any, ...]]]) -> None:
    """Raise UserError for an attack that no run has, and for a pair of runs without an attack in common. of: the attacks of each run."""
    where, known = f"--design {settings.design}", {attack[0] for attacks in of.values() for attack in attacks}
    unknown = [name for name in design.attacks if name not in known]
    if unknown:
        raise UserError(f"{where}: attacks holds {unknown[0]}, which no run has; they have {', '.join(sorted(known))}")
    for a, b in design.compare if not settings.until else ():
        runs = [of[side[0]] for side in (a, b) if side[0] in of]
        named = [[one for one in attacks if not design.attacks or one[0] in design.attacks] for attacks in runs]
        if len(runs) == 2 and not any(_alike(one, other) for one in named[0] for other in named[1]):
            raise UserError(
                f"{where}: compare holds {'/'.join(a)} and {'/'.join(b)}, which have no attack of the same radius on as many images"
            )


def _alike(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two attacks may be compared: the same on as many images, as far as their number is known."""
    return one[:-1] == other[:-1] and (one[-1] == other[-1] or 0 in (one[-1], other[-1]))


def attacks_of(settings: Settings) -> list[str]:
    """Names of the attacks of a run that its tables may have: with two or three classes apgd is apgd-ce alone, and how many there are may
    not be known beforehand."""
    evaluation, found = settings.evaluation, [f"pgd-{settings.evaluation.pgd_steps}"]
    if evaluation.autoattack_images == 0:
        return found
    if evaluation.autoattack_parts != "apgd":
        return [*found, "autoattack" if evaluation.autoattack_parts == "all" else "apgd-ce"]
    facts = facts_without_reading(settings)
    classes = len(settings.classes or (facts.classes if facts else ()))
    return [*found, *(["apgd-ce", "apgd"] if not classes else [attack_name(parts_for(classes, "apgd"))])]


def waits_for_images(settings: SweepSettings, one: Run) -> bool:
    """Whether a run takes images that an earlier run of the sweep will make."""
    from image_experiments.synthesis.methods import parse_method

    assert settings.out is not None
    files = [method.file for method in map(parse_method, one.methods) if method.file is not None]
    return any(not file.exists() and file.resolve().is_relative_to(settings.out.resolve()) for file in files)


def write_results(settings: SweepSettings, design: Design, runs: list[Run], begin: float, talk: Talk) -> None:
    """Write tables and summary; print what the comparisons show."""
    out = settings.out
    assert out is not None
    folders = [(one.name, out / "runs" / one.name) for one in runs]
    table = "description" if settings.until else "sweep"
    methods = {one.name: one.methods for one in runs}
    header, rows = gather_descriptions(folders, methods, seeds_of(settings)) if settings.until else gather(folders)
    write_csv(out / f"{table}.csv", header, rows)
    if not settings.until:
        write_comparisons(out, compared_in(design, header, rows, outcomes_in(lambda row: out / "runs" / row["run"])), talk)
    seconds = round(time.perf_counter() - begin, 2)
    if not settings.until or not (out / "summary.json").is_file():  # a sweep that was finished stays so
        data = {name: results(folder, "data")["sha256"] for name, folder in folders}
        write_summary(settings, design.base, runs, {"this call": seconds}, data)
    talk.say(f"wrote {out}/{table}.csv with {len(rows)} rows and summary.json in {seconds:.0f} s")


def compared_in(
    design: Design, header: list[str], rows: list[list[Any]], outcomes: Callable[[dict[str, Any]], Any]
) -> list[list[Any]]:
    """The comparisons of the design whose runs are in the table. outcomes: see comparisons."""
    run = header.index("run")
    made = {row[run] for row in rows}
    pairs = [pair for pair in design.compare if all(side[0] in made for side in pair)]
    return comparisons(rows, header, pairs, design.attacks, outcomes)


def write_comparisons(out: Path, compared: list[list[Any]], talk: Talk) -> None:
    """Write and print the comparisons; without any, no table of an earlier design is left."""
    if not compared:
        (out / "comparisons.csv").unlink(missing_ok=True)
        return
    write_csv(out / "comparisons.csv", COMPARED, compared)
    shown = [[f"{cell:+.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in compared]
    talk.say(text_table(COMPARED, shown))


def identity(settings: SweepSettings, design: Design, runs: Sequence[Run]) -> dict[str, Any]:
    """What identifies the sweep in a folder: base, and arguments and methods of each run. Runs compare the content of their data,
    wherever these lie."""
    found: dict[str, Any] = {
        "experiment": "sweep",
        "base": list(design.base),
        "runs": [one.name for one in runs],
    }
    found |= {"compare": [f"{'/'.join(a)} - {'/'.join(b)}" for a, b in design.compare]}
    for one in runs:
        found |= {f"arguments of {one.name}": list(one.arguments), f"methods of {one.name}": list(one.methods)}
    return found | {"all seeds": list(seeds_of(settings))}


def seeds_of(settings: SweepSettings) -> range:
    """The seeds of resolved settings."""
    assert settings.seed is not None
    assert settings.seeds is not None
    return range(settings.seed, settings.seed + settings.seeds)


def _check_data_dir(settings: SweepSettings, design: Design) -> None:
    if settings.data_dir is None:
        return
    given = (*design.base, *(text for one in design.runs for text in one.arguments))
    if any(text.partition("=")[0] in ("--data-dir", "--data_dir") for text in given):
        raise UserError(f"--data-dir {settings.data_dir}: {settings.design} names a --data-dir of its own; take one of them out")
    if not settings.data_dir.exists():
        raise UserError(f"--data-dir {settings.data_dir}: does not exist; name the folder or archive with the data set")


def data_flags(settings: SweepSettings) -> tuple[str, ...]:
    return () if settings.data_dir is None else ("--data-dir", str(settings.data_dir))


def write_summary(
    settings: SweepSettings,
    base: Sequence[str],
    runs: Sequence[Run],
    seconds: dict[str, float],
    data: Mapping[str, str],
    gathered: Sequence[Any] = (),
) -> None:
    """Write what was run, with which settings, in how many seconds, on what data (their checksum by run), and of what it was gathered."""
    out = settings.out
    assert out is not None
    place = None if settings.data_dir is None else Path(settings.data_dir.name)
    design = Path(settings.design.name)  # names only, so that the file does not depend on the working folder
    settings = replace(settings, design=design, data_dir=place)
    summary = {"settings": asdict(settings), "versions": versions("torch", "diffusers"), "base": list(base), "data": dict(data)}
    summary |= {"gathered": list(gathered)} if gathered else {}
    write_json(out / "summary.json", summary | {"runs": {one.name: asdict(one) for one in runs}, "seconds": seconds})
