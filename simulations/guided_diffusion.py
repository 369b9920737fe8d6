"""Guided diffusion on Gaussian mixtures, where everything is known: `python simulations/guided_diffusion.py`.

Runs guidance x scale x window x steps x solver x seeds, with exact scores and trained networks. Compares measured class SNR, alignment,
Wasserstein-2 distance and robust accuracy of learners with what theory predicts from the guidance setting alone.

    python simulations/guided_diffusion.py --quick                                   # everything, small
    python simulations/guided_diffusion.py --guidance anchored --scale 0.3           # one setting against no guidance
    python simulations/guided_diffusion.py --guidance supervised --high 400 --at x0 --target-snr 2

Writes OUT/guidance.csv (one row per run), prediction.csv, accuracy.csv, learners.csv, value.csv, gallery.csv and more, OUT/summary.json,
OUT/*.png.
Exit status: 0 fine; 1 bad input or a run that failed; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):  # run as a script, from any folder, from a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line.missing import needs_packages

with needs_packages(__name__):
    from command_line.cluster import check_ways, fan_out
    from command_line.command import Help, run_command, settings_line, versions
    from command_line.folder_claim import claim_anew, finish_claim
    from command_line.messages import QUIET, TERMINAL, Talk, told_of_files, with_details, write_details
    from command_line.output import UserError, prepare_folder, text_table, write_csv
    from command_line.result import Result
    from command_line.values import changed, checked

Part = Literal["guidance", "windows", "every", "solvers", "mixtures", "network", "learners", "value", "gallery"]
ALL_PARTS: tuple[Part, ...] = ("guidance", "windows", "every", "solvers", "mixtures", "network", "learners", "value", "gallery")
Guided = Literal[
    "constant",
    "classifier",
    "feedback",
    "boundary",
    "boundary-near",
    "classifier-free",
    "autoguidance",
    "particle",
    "infonce",
    "infonce-other",
    "infonce-same",
    "hard-negative",
    "supervised",
    "anchored",
]
GROUP_OF_SAMPLES = 256  # simulations.guided.theory.GROUP, which is not imported before the input is checked
MOST_SEEDS_OF_VALUE = 8
UNUSED: dict[str, tuple[str, ...]] = {"learners": ("samples",), "value": ("samples",), "gallery": ("samples", "seeds", "quick")}
"""Options that a part of the study does not use."""
SINGLE_RUN_OPTIONS = (
    "problem",
    "scale",
    "low",
    "high",
    "at",
    "relative",
    "reverse",
    "every",
    "temperature",
    "solver",
    "steps",
    "train_on",
)
HELP = Help("Contrastive-guided diffusion on Gaussian mixtures: theory's prediction beside measurement.")


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result. With --guidance, runs one setting against no guidance; without, the parts of the study."""

    parts: tuple[Part, ...] = ALL_PARTS
    """Parts of the study to run."""
    guidance: Guided | None = None
    """Run this one guidance instead of the study."""
    problem: Literal["two", "d10", "d100", "anisotropic", "unbalanced", "ring"] = "two"
    """Mixture of a single run."""
    scale: float = 0.3
    """Guidance scale lambda of a single run."""
    low: int = 0
    """Guide at timesteps low <= t < high."""
    high: int = 1000
    """Guide at timesteps low <= t < high."""
    at: Literal["xt", "x0"] = "xt"
    """What the loss of a single run sees: the noisy state or the denoised estimate."""
    relative: bool = False
    """Take the scale as a fraction of the noise prediction's norm."""
    reverse: bool = False
    """Ascend the loss instead of descending it."""
    every: int = 1
    """Guide every k-th step."""
    temperature: float = 0.0
    """Temperature of the loss (0: the loss's own default)."""
    solver: Literal["ddim", "ddpm", "dpm-solver++", "unipc"] = "ddim"
    """Sampler of a single run."""
    steps: int = 50
    """Steps of a single run."""
    train_on: int = 0
    """Train the noise prediction on this many real samples (0: use the exact one)."""
    target_w2: float | None = None
    """Choose the scale at which theory predicts this Wasserstein-2 distance."""
    target_snr: float | None = None
    """Choose the scale at which theory predicts this class SNR."""
    seeds: int = 0
    """Independent repetitions (0: 20, with --quick 4). The part value takes at most 8 of them, with --quick 2; the gallery has one."""
    samples: int = 0
    """Samples per run (0: 5120, with --quick 1024)."""
    quick: bool = False
    """Fewer seeds, samples and fits: about 3 minutes instead of 40 on 2 cores."""
    seed: int = 0
    """First seed. The same seed gives the same files for any number of workers (except timing.csv)."""
    cluster: str | None = None
    """Address host:port of a Dask scheduler to run on, instead of processes on this machine. The files are the same."""
    workers: int = 0
    """Number of processes (0: one per core)."""
    out: Path | None = None
    """Folder for the results (default: results/guided_diffusion; for single runs results/guided_diffusion-GUIDANCE)."""
    force: bool = False
    """Write into a folder that holds an experiment with other settings. Its tables are overwritten."""
    verbose: bool = False
    """Print all tables, which are in OUT/report.txt too."""
    dry_run: bool = False
    """Print the resolved settings and what would run, then stop."""


def check_scale(settings: Settings) -> None:
    """Raise UserError for an invalid scale, temperature or target."""
    for name in ("scale", "temperature"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            remedy = "; to ascend the loss use --reverse" if name == "scale" and value < 0 else ""
            raise UserError(f"--{name} {value}: must be a finite number >= 0{remedy}")
    for name in ("target_w2", "target_snr"):
        value = getattr(settings, name)
        flag = f"--{name.replace('_', '-')}"
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} {value}: must be a finite number > 0")
        if value is not None and settings.guidance is None:
            raise UserError(f"{flag} chooses the scale of one guidance: add --guidance, for example --guidance anchored")
        if value is not None and settings.solver != "ddim":
            raise UserError(f"{flag}: theory predicts DDIM only; use --solver ddim")
        if value is not None and settings.scale != Settings.scale:
            raise UserError(f"{flag} chooses the scale: leave out --scale {settings.scale:g}")
    if settings.target_w2 is not None and settings.target_snr is not None:
        raise UserError("--target-w2 and --target-snr both choose the scale: give one of them")


def check_numbers(settings: Settings) -> None:
    """Raise UserError for invalid windows, counts and parts."""
    if not 0 <= settings.low < settings.high <= 1000:
        raise UserError(f"--low {settings.low} --high {settings.high}: the window must satisfy 0 <= low < high <= 1000 timesteps")
    for name, least, most in (
        ("every", 1, 1000),
        ("steps", 1, 1000),
        ("seeds", 0, 10**6),
        ("seed", 0, 2**31),
        ("workers", 0, 1024),
    ):
        value = getattr(settings, name)
        if not least <= value <= most:
            raise UserError(f"--{name} {value}: must lie in {least} .. {most}")
    for name in ("samples", "train_on"):
        value = getattr(settings, name)
        if value != 0 and not 32 <= value <= 10**8:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be 0 or lie in 32 .. 10^8")
    if settings.samples % GROUP_OF_SAMPLES not in (0, *range(32, GROUP_OF_SAMPLES)):
        raise UserError(
            f"--samples {settings.samples}: leaves a last batch of {settings.samples % GROUP_OF_SAMPLES}; "
            f"give a multiple of {GROUP_OF_SAMPLES}"
        )
    check_ways(settings.workers, settings.cluster)
    if settings.every > settings.steps:
        raise UserError(
            f"--every {settings.every}: is more than --steps {settings.steps}; guide at least every {settings.steps}th step"
        )
    if not settings.parts:
        raise UserError(f"--parts: give at least one of {' '.join(ALL_PARTS)}")


def check_combination(settings: Settings) -> None:
    """Raise UserError for options of a single run in the study, and vice versa, so that no option is silently ignored."""
    default = Settings()
    if settings.guidance is None:
        for name in SINGLE_RUN_OPTIONS:
            if getattr(settings, name) != getattr(default, name):
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag} {getattr(settings, name)}: belongs to a single run; add --guidance, for example --guidance anchored"
                )
        check_used_by_parts(settings)
        return
    if settings.parts != default.parts:
        raise UserError(f"--parts {' '.join(settings.parts)}: belongs to the study; leave out --guidance")
    everything = ("low", "high", "at", "relative", "reverse", "every", "temperature")
    unread: dict[str, tuple[str, ...]] = dict.fromkeys(("classifier-free", "autoguidance"), everything)
    unread |= dict.fromkeys(("classifier", "feedback", "boundary", "boundary-near", "particle"), ("temperature",))
    unread["constant"] = ("at", "relative", "temperature")
    for name in unread.get(settings.guidance, ()):
        if getattr(settings, name) != getattr(default, name):
            raise UserError(f"--{name} {getattr(settings, name)}: {settings.guidance} guidance does not use it; leave it out")


def check_used_by_parts(settings: Settings) -> None:
    """Raise UserError for an option that none of the parts uses, or uses in full."""
    if settings.parts == ("value",) and settings.seeds > MOST_SEEDS_OF_VALUE:
        raise UserError(f"--seeds {settings.seeds}: --parts value takes at most {MOST_SEEDS_OF_VALUE}")
    for name in ("samples", "seeds", "quick"):
        given = getattr(settings, name)
        if given and all(name in UNUSED.get(part, ()) for part in settings.parts):
            shown = f"--{name}" if given is True else f"--{name} {given}"
            raise UserError(f"{shown}: --parts {' '.join(settings.parts)} does not use it; leave it out")


def resolve(settings: Settings) -> Settings:
    """Check the settings and fill in the defaults that depend on others."""
    check_scale(settings)
    check_numbers(settings)
    check_combination(settings)
    folder = "guided_diffusion" if settings.guidance is None else f"guided_diffusion-{settings.guidance}"
    usual = MOST_SEEDS_OF_VALUE if settings.parts == ("value",) and settings.guidance is None else 20
    return replace(
        settings,
        seeds=settings.seeds or (4 if settings.quick else usual),
        samples=settings.samples or (1024 if settings.quick else 5120),
        out=settings.out or Path("results") / (folder + "-quick" * settings.quick),
    )


def run(settings: Settings | None = None, talk: Talk = QUIET, **changes: Any) -> Result:
    """Run the study, or one setting, from Python: result.table("guidance"), result.summary, result.out.

    changes: to the settings, for example run(guidance="infonce", scale=1.0). Raises UserError: one line that names value, cause, remedy.
    """
    if not isinstance(settings, Settings | None):
        raise UserError(f"settings={settings!r}: give Settings, or the changes alone, run(quick=True)")
    chosen = resolve(changed(checked(settings or Settings()), **changes))
    if chosen.dry_run:
        raise UserError("dry_run=True: belongs to the command line, guided_diffusion.py; leave it out")
    conduct(chosen, cells_of(chosen, talk), talk)
    return Result(str(chosen.out))


def command(settings: Settings) -> int:
    """Run as a command; returns the exit status."""
    settings = resolve(settings)
    print(settings_line(settings))
    cells = cells_of(settings, TERMINAL)
    if settings.dry_run:
        runs = [f"{c.problem} {c.score} {c.label} {c.scale:g} {c.solver} {c.steps}" for c in cells]
        print("would run " + "; ".join([*runs, *told_of(parts_of(settings))]))
        print(f"would write to {settings.out}")
        return 0
    conduct(settings, cells, TERMINAL)
    return 0


def parts_of(settings: Settings) -> tuple[Part, ...]:
    """Parts of the study; empty for a single setting."""
    return () if settings.guidance is not None else settings.parts


def cells_of(settings: Settings, talk: Talk) -> list[Any]:
    """The sampler settings to run."""
    from contrastive_dp import NoiseSchedule
    from simulations.guided.designs import settings_of

    parts = parts_of(settings)
    cells = (
        settings_of(tuple(p for p in parts if p not in WITH_FILES_OF_THEIR_OWN))
        if parts
        else single(settings, NoiseSchedule.linear(), talk)
    )
    talk.say(", ".join([f"{len(cells)} settings x {settings.seeds} seeds"] * bool(cells) + told_of(parts)))
    return cells


def told_of(parts: Sequence[Part]) -> list[str]:
    """What the parts make that have files of their own."""
    return [words for part, words in TOLD.items() if part in parts]


def conduct(settings: Settings, cells: list[Any], talk: Talk) -> None:
    """Run everything and write the files."""
    from contrastive_dp import NoiseSchedule

    start, schedule, parts, out = time.perf_counter(), NoiseSchedule.linear(), parts_of(settings), settings.out
    assert out is not None
    claim_anew(prepare_folder(out), {"experiment": "guided_diffusion", **asdict(settings)}, force=settings.force)
    details: list[str] = []
    talk = with_details(talk, details, settings.verbose)
    summary: dict[str, Any] = {"settings": asdict(settings), "versions": versions("torch", "diffusers"), "seconds": {}}
    if cells:
        try:
            summary["guidance"] = run_settings(settings, cells, schedule, out, talk)
        except (FloatingPointError, ValueError) as error:  # the libraries name value, cause and remedy in one line
            raise UserError(f"guided runs: {error}") from error
        summary["seconds"]["guidance"] = round(time.perf_counter() - start, 2)
        write_details(details, out)  # after each part, so that none is lost where a later one stops
    for name, study in WITH_FILES_OF_THEIR_OWN.items():
        if name in parts:
            begin = time.perf_counter()
            summary[name] = study(settings, out, talk)
            summary["seconds"][name] = round(time.perf_counter() - begin, 2)
            write_details(details, out)
    from figures.of_run import draw_run
    from simulations.guided.points import write_points

    if settings.guidance is not None or "guidance" in parts:
        write_points(out, settings.seed, schedule, cells, effort_of(settings).training_steps)
    drawn = [path for experiment in DRAWN for path in draw_run(experiment, out)]
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    finish_claim(out, summary)
    talk.say(told_of_files(out, drawn, summary["seconds"]["total"], ("samples", "guided_accuracy")))


def single(settings: Settings, schedule: Any, talk: Talk) -> list[Any]:
    """The unguided setting and the requested one, whose scale theory chooses if a target is given."""
    from simulations.guided.models import Setting
    from simulations.guided.report import baseline_of
    from simulations.guided.theory import scale_for

    names = ("problem", "guidance", "scale", "low", "high", "at", "relative", "every", "reverse", "temperature", "solver", "steps")
    score = f"network-{settings.train_on}" if settings.train_on else "exact"
    setting = Setting(score=score, **{name: getattr(settings, name) for name in names})
    for target, quantity in ((settings.target_w2, "w2"), (settings.target_snr, "class_snr")):
        if target is not None:
            scale, expected = scale_for(setting, schedule, quantity, target)
            setting = replace(setting, scale=scale)
            talk.say(f"scale {scale:.5g}: theory predicts class SNR {expected.class_snr:.4g}, W2 {expected.w2:.4g}")
    return [baseline_of(setting), setting]


def run_settings(settings: Settings, cells: list[Any], schedule: Any, out: Path, talk: Talk) -> dict[str, Any]:
    """Run every setting with every seed, on all cores; write the tables, print prediction and measurement."""
    from simulations.guided.designs import settings_of
    from simulations.guided.report import PRINTED_HEADER, grouped, printed_rows, write_tables
    from simulations.guided.runs import LEARNERS

    effort = effort_of(settings)
    # all learners to compare guidances and mixtures, only the averaging learner to compare solvers, windows or networks
    every_learner = set(cells) if settings.guidance is not None else set(settings_of(("guidance", "mixtures")))
    jobs = []
    for together in sharing_a_network(cells):
        learners = LEARNERS if together[0] in every_learner else LEARNERS[:1]
        jobs += [(together, seed, effort, learners) for seed in _seeds(settings)]
    place = {cell: i for i, cell in enumerate(cells)}
    batches = parallel(_measure, jobs, settings, "guided runs")
    runs = sorted((run for batch in batches for run in batch), key=lambda run: (place[run.setting], run.seed))
    groups = grouped(runs)
    predictions = write_tables(out, runs, groups, schedule, whole_study=settings.guidance is None)
    table = text_table(PRINTED_HEADER, printed_rows(predictions))
    talk.detail(table)
    if settings.guidance is not None and not settings.verbose:
        talk.say(table)
    return headline(groups, predictions, talk)


def headline(groups: Any, predictions: list[tuple[Any, ...]], talk: Talk) -> dict[str, Any]:
    """Print and return the claims of the study, with intervals."""
    from simulations.guided.designs import ANCHORED
    from simulations.guided.models import Setting
    from simulations.guided.report import MULTIPLIER_SIZE, PREDICTION_HEADER, SETTING_COLUMNS, fewer_samples

    claims: dict[str, Any] = {"runs": sum(len(group.runs) for group in groups.values())}
    for few, many in ((20, 20), (20, 60), (200, 200), (200, 600)):
        gain = fewer_samples(groups, ANCHORED, few, many)
        if gain is not None and not math.isnan(gain[0]):
            claims[f"anchored n={few} minus unguided n={many}"] = gain
            told = talk.say if (few, many) == (20, 60) else talk.detail
            told(
                f"what guidance is worth to averaging: {few} samples, {ANCHORED.label} {ANCHORED.scale:g}, minus {many} unguided ones: "
                f"{gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}] of robust accuracy"
            )
    ratios = {}
    for row in predictions:
        cell = dict(zip(PREDICTION_HEADER, row, strict=True))
        setting = Setting(**{name: cell[name] for name in SETTING_COLUMNS})
        if (
            setting.score == "exact"
            and setting.guidance != "none"
            and 0 < cell["multiplier"] < math.inf
            and cell["multiplier_predicted"] > 0
        ):
            ratios[setting] = (cell["multiplier_predicted"] / cell["multiplier"], cell["multiplier_predicted"])
    moderate = {setting: ratio for setting, (ratio, predicted) in ratios.items() if predicted <= 5}
    if moderate:
        missed = {f"{s.problem}: {s.label} {s.scale:g} every {s.every}": r for s, r in moderate.items() if not 0.9 <= r <= 1.1}
        claims["multiplier"] = {
            "settings": len(moderate),
            "within 10 %": len(moderate) - len(missed),
            "others, predicted/measured": missed,
        }
        talk.say(
            f"theory against measurement: worth in samples at n={MULTIPLIER_SIZE}, predicted up to 5, within 10 % of the measured one in "
            f"{len(moderate) - len(missed)} of {len(moderate)} settings"
        )
        for name, ratio in missed.items():
            talk.detail(f"  predicted / measured {ratio:.2f}: {name}")
        name, ratio = max(((name, r) for name, r in missed.items()), key=lambda one: abs(math.log(one[1])), default=("", 1.0))
        if name:
            talk.say(f"largest deviation: predicted / measured = {ratio:.2f} for {name}")
    return claims


def run_learners(settings: Settings, out: Path, talk: Talk) -> dict[str, Any]:
    """Compare learners on guided samples of every class SNR with T10 and T11."""
    from simulations.guided.learners import FITS, HEADER, SAMPLES, TRAINING_EPS, optimum_interval, tabulate

    samples, fits = (SAMPLES // 4, FITS) if settings.quick else (SAMPLES, FITS)
    by_seed = parallel(_learn, [(seed, samples, fits) for seed in _seeds(settings)], settings, "learners")
    write_csv(out / "learners.csv", HEADER, tabulate(by_seed, samples))
    found = {}
    for name, eps in (("logistic", 0.0), (f"adversarial, training eps {TRAINING_EPS:g} sigma", TRAINING_EPS)):
        interval = optimum_interval(by_seed, eps)
        found[name] = interval
        told = talk.detail if eps else talk.say
        told(
            f"{name} regression learns fastest at class SNR {interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}], "
            f"theory {interval['theory']:.3f}"
        )
    return found


def run_value(settings: Settings, out: Path, talk: Talk) -> dict[str, Any]:
    """What each guidance is worth to learners with few and many samples per dimension: theory's prediction beside fits."""
    from contrastive_dp import NoiseSchedule
    from simulations.guided.value import BEST_HEADER, HEADER, SAMPLES_PER_DIM, best_guidances, tabulate
    from simulations.guided.value import settings as settings_of_value

    cells = settings_of_value()
    ratios: tuple[int, ...] = SAMPLES_PER_DIM
    if settings.quick:
        cells, ratios = [cell for cell in cells if cell.scale in (0.0, 0.05)], SAMPLES_PER_DIM[:1]
    seeds = list(_seeds(settings))[: 2 if settings.quick else MOST_SEEDS_OF_VALUE]
    talk.detail(f"value: {len(cells)} settings x {len(seeds)} seeds")
    jobs = [(cell, seed, ratios) for cell in cells for seed in seeds]
    found = parallel(_value, jobs, settings, "value")
    measured = {cell: found[i * len(seeds) : (i + 1) * len(seeds)] for i, cell in enumerate(cells)}
    rows, best = tabulate(measured, NoiseSchedule.linear())
    write_csv(out / "value.csv", HEADER, rows)
    write_csv(out / "value_best.csv", BEST_HEADER, best)
    lines = best_guidances(rows)
    for line in lines:
        (talk.say if parts_of(settings) == ("value",) else talk.detail)(line)
    return {"seeds": len(seeds), "best": lines}


def run_gallery(settings: Settings, out: Path, talk: Talk) -> dict[str, Any]:
    """What each guidance does to samples in the plane, at the same distance from the real classes."""
    from simulations.guided.gallery import HEADER, W2, settings_of_gallery, write_gallery

    shown = parallel(_show, [(cell, settings.seed) for cell in settings_of_gallery()], settings, "gallery")
    write_gallery(out, shown)
    rows = [dict(zip(HEADER, one.row, strict=True)) for one in shown]
    worst = max(rows, key=lambda row: abs(math.log(row["class_snr"] / row["class_snr_predicted"])))
    talk.say(
        f"{len(rows) - 1} guidances at a W2 distance of {W2:g}; largest deviation: class SNR {worst['class_snr']:.3f} where "
        f"{worst['class_snr_predicted']:.3f} was predicted, {worst['label']}"
    )
    return {
        "seeds": 1,
        "w2": W2,
        "settings": len(rows),
        "worst class SNR over predicted": worst["class_snr"] / worst["class_snr_predicted"],
    }


TOLD = {
    "learners": "learners at every class SNR",
    "value": "what each guidance is worth",
    "gallery": "what each guidance does to samples",
}
WITH_FILES_OF_THEIR_OWN = {"learners": run_learners, "value": run_value, "gallery": run_gallery}
"""Parts that are not made of settings and seeds as the others are."""
DRAWN = ("guided_diffusion", "guided_value", "guided_gallery")
"""Names in figures/experiments.py for the whole study and for two of its parts."""


def parallel(function: Any, jobs: list[tuple[Any, ...]], settings: Settings, name: str) -> list[Any]:
    """[function(*job) for job in jobs] on several processes or a Dask cluster with a progress bar; in the order of the jobs."""
    try:
        return fan_out(function, jobs, settings.workers, name, "run", settings.cluster, "simulations")
    except (FloatingPointError, ValueError) as error:  # contrastive_dp names value, cause and remedy in one line
        raise UserError(f"{name}: {error}") from error


def effort_of(settings: Settings) -> Any:
    """Samples, fits and training steps of a run."""
    from simulations.guided.runs import Effort

    effort = Effort(samples=settings.samples)
    if settings.guidance is not None:
        effort = replace(effort, slow_samples=settings.samples)
    if settings.quick:
        effort = replace(effort, averaging_fits=64, other_fits=2, training_steps=500)
    return effort


def sharing_a_network(cells: list[Any]) -> list[tuple[Any, ...]]:
    """Settings that run one after another in the same process: those that share a trained network together, all others alone."""
    groups: dict[Any, list[Any]] = {}
    for cell in cells:
        groups.setdefault(cell if cell.score == "exact" else (cell.problem, cell.score), []).append(cell)
    return [tuple(group) for group in groups.values()]


def _measure(cells: tuple[Any, ...], seed: int, effort: Any, learners: tuple[str, ...]) -> Any:
    from simulations.guided.runs import measure

    return [measure(cell, seed, effort, learners) for cell in cells]


def _learn(seed: int, samples: int, fits: int) -> Any:
    from simulations.guided.learners import learn_at_every_snr

    return learn_at_every_snr(seed, samples, fits)


def _value(cell: Any, seed: int, ratios: tuple[int, ...]) -> Any:
    from simulations.guided.value import measure_value

    return measure_value(cell, seed, ratios)


def _show(cell: Any, seed: int) -> Any:
    from simulations.guided.gallery import show

    return show(cell, seed)


def _seeds(settings: Settings) -> range:
    return range(settings.seed, settings.seed + settings.seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    return run_command(Settings, command, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
