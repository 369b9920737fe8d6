"""CIFAR-10 at 32 x 32 on one GPU, without network: does synthetic data, and guidance, help robustness?

    python benchmarks/gpu_cifar10.py --bundle FOLDER --out /tmp/cifar10 --keep OUT --limit 560 --budget 1100 --seed 500
    python benchmarks/gpu_cifar10.py --tiny --out /tmp/tiny          # the same path on small images and networks, on a CPU

Trains a class-conditional U-Net (9 M parameters, v, bfloat16, EMA) on 49,000 images (1,000 are for validation), makes up to 50,000 images a
method with a 20-step solver, and trains PreActResNet-18 adversarially (PGD-7, l_inf 8/255), with equal steps, on real images alone and with
those of each method; then PGD-20 on 2,000 test images and the two gradient parts of AutoAttack (apgd) on up to 500 of them. Nothing is
compiled: within these minutes that would cost about what it saves. Numbers of steps and images follow from speeds that are measured at the
start, and stand in OUT/design.json before anything is trained. FOLDER: from gpu_bundle.py, with a copy of CIFAR-10 as images in one
archive; --data-dir names CIFAR-10 elsewhere, as for run_cifar.py.

Calls of run_cifar.py: OUT/main (real, unguided, and guidance as the evidence on small images chose it), OUT/paper (InfoNCE in the
paper's pipeline: pseudo-labels, the most confident of 1.25 times as many) and, if time is left, OUT/autoattack (all of AutoAttack on 200
images) and OUT/more (twice as many unguided images).

Ends by itself before --limit; --budget: seconds of all calls together, for which it is planned. What a limit cuts off, the same command
finishes if OUT is still there: on a machine that is lent, send the second call at once, before that is taken away. In 540 s alone each
classifier sees its images three to five times, too few to compare with anything published; plan with --budget 1100, in two calls. Results
that fit into few files are in KEEP: the table, logs and one archive. One seed: intervals are binomial and
say nothing of other seeds. Prints a short table last.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpu_call import environment_with, paths_with, status_within

IMAGES, CLASSIFIERS = 50_000, 4
BATCH = 512
"""Images of an adversarial step, as in the preset cifar10-gpu."""
GUIDED = "particle:auto"
"""The guidance of OUT/main, with labels as drawn; fixed before the call. It is the best on small images, with the strength that it finds
by itself: on photographs the strength of digits, and soft labels, cost robust accuracy (docs/results/photographs.md)."""
# The paper's model has no labels; here it is the same U-Net, as a second one would not fit into the time.
PAPER = ("--selection.labels", "pseudo", "--selection.surplus", "1.25", "--selection.criterion", "confidence")


@dataclass(frozen=True)
class Rates:
    """Seconds: of a step of the U-Net, of a sampler step per image, of an adversarial step, before the first step of each; of AutoAttack's
    gradient parts per image, if half of the images withstand them. measured: or assumed, where measuring failed."""

    unet: float
    sampling: float
    classifier: float
    start: float
    autoattack: float
    measured: bool = True


ASSUMED = Rates(0.08, 6e-5, 0.12, 5.0, 0.05, measured=False)
"""For a card of which nothing is known: slow, so that a call ends early rather than late."""
FIXED = 150.0
"""Seconds for what no rate tells: reading 60,000 images, descriptions, means, checkpoints, pictures, starts of processes."""
MOST_GENERATION = 0.22
"""Share of the time that sampling may take; the number of images follows."""


def measured(device: str) -> Rates:
    """The rates on this device, of the preset cifar10-gpu."""
    import torch

    from image_experiments.engine.calibration import Probe
    from image_experiments.engine.presets import cifar10_gpu
    from image_experiments.models.precision import gpu_arithmetic
    from image_experiments.training.attacks import Threat

    settings = cifar10_gpu()
    unet = replace(settings.diffusion, precision="bfloat16", compile="no")
    sampler = replace(settings.generation, precision="bfloat16", compile="no")
    trained = replace(settings.classifier, precision="bfloat16", compile="no")
    probe = Probe((3, 32, 32), 10, Threat("linf", 8 / 255), torch.device(device), budget=1.0)
    with gpu_arithmetic(tf32=True, cudnn_benchmark=True):
        found = probe.step(unet).step, probe.sampler(unet, sampler).step, probe.step(trained).step
    with gpu_arithmetic(tf32=False):  # as the evaluation
        parts = probe.autoattack_parts(trained.network, 250, "apgd")
    torch.cuda.empty_cache()  # does nothing without a GPU; otherwise the runs would lack what is held here
    return Rates(*found, 5.0, 0.5 * sum(parts.values()))


def steps_within(rates: Rates, seconds: float) -> dict[str, int]:
    """Images a method, and steps of the U-Net, of the encoder and of each classifier, such that all of it takes about `seconds`.

    Of what FIXED leaves, 0.3 goes to the U-Net; 0.15 to attacks, for at most 500 images; MOST_GENERATION at most to sampling (three sets,
    one of them 1.25 times as large, guidance at twice the cost, and the trials of its strength); the rest to the classifiers. The encoder
    gets half as many steps.
    """
    whole = max(0.95 * (seconds - FIXED) - 6 * rates.start, 0.0)
    per_image = 20 * rates.sampling * (1.0 + 2.0 + 2.5 + 0.2)
    images = min(IMAGES, int(MOST_GENERATION * whole / per_image / 1000) * 1000)
    attacked = int(min(500, 0.15 * whole / CLASSIFIERS / rates.autoattack))
    left = 0.7 * whole - images * per_image - CLASSIFIERS * attacked * rates.autoattack
    a_classifier = left / (CLASSIFIERS + 0.5) / rates.classifier
    return {
        "unet": int(0.3 * whole / rates.unet),
        "images": images,
        "classifier": int(0.85 * a_classifier),
        "encoder": int(0.42 * a_classifier),
        "autoattack": attacked,
    }


def base_of(steps: dict[str, int], data: Path, seed: int, tiny: bool) -> list[str]:
    """The options of run_cifar.py that both calls share."""
    found = ["--preset", "cifar10-gpu", "--seed", str(seed), "--workers", "1", "--validation", "1000"]
    if tiny:
        found = ["--dataset", "digits", "--train", "100", "--validation", "20", "--test", "60", "--synthetic", "40", *TINY]
        return ["--preset", "smoke", "--seed", str(seed), "--workers", "1", *found]
    for part, name in (("diffusion", "unet"), ("classifier", "classifier"), ("encoder", "encoder")):
        found += [f"--{part}.steps", str(steps[name]), f"--{part}.compile", "no", f"--{part}.precision", "bfloat16"]
        found += [f"--{part}.warmup", str(steps[name] // 10)]  # a tenth, as the presets
    found += ["--classifier.validate-every", str(steps["classifier"]), "--encoder.validate-every", str(steps["encoder"])]
    found += ["--generation.compile", "no", "--generation.precision", "bfloat16", "--synthetic", str(steps["images"])]
    found += ["--description.steps", "300", "--description.images", "500", "--threads", "8", "--test", "2000"]
    return [*found, "--dataset", "cifar10", "--data-dir", str(data)]


TINY = (
    *("--encoder.steps", "20", "--classifier.steps", "20", "--diffusion.channels", "8", "16", "--diffusion.steps", "30"),
    *("--generation.steps", "4", "--evaluation.pgd-steps", "3", "--description.steps", "10"),
)
TINY_STEPS = {"unet": 30, "images": 40, "classifier": 20, "encoder": 20, "autoattack": 4}
WHOLE = 200
"""Images for all of AutoAttack."""


def calls_of(base: list[str], out: Path, attacked: int, images: int) -> dict[str, list[str]]:
    """The calls of run_cifar.py by the name of their folder. attacked: images for the gradient parts of AutoAttack. images: a method's."""
    methods, reused = ("--methods", "real", "unguided", GUIDED), ("--reuse", str(out / "main"))
    parts = ("--evaluation.autoattack-parts", "apgd", "--evaluation.autoattack-images", str(attacked))
    whole = ("--evaluation.autoattack-parts", "all", "--evaluation.autoattack-images", str(min(attacked, WHOLE)))
    return {
        "main": [*base, *parts, *methods, "--out", str(out / "main")],
        "paper": [*base, *parts, *PAPER, "--methods", "infonce:0.3", "--out", str(out / "paper"), *reused],
        "autoattack": [*base, *whole, *methods, "--out", str(out / "autoattack"), *reused],
        "more": [*base, *parts, "--synthetic", str(2 * images), "--methods", "unguided", "--out", str(out / "more"), *reused],
    }


def table_of(out: Path) -> list[str]:
    """A line for each classifier and attack that is finished, with binomial standard errors, and for each set of images; also of a call
    that was cut off."""
    lines = []
    for name in ("main", "paper", "autoattack", "more"):
        for path in sorted((out / name / "stages" / "describe").glob("*/seed*.json")):
            told = json.loads(path.read_text(encoding="utf-8"))["results"]
            measures = ", ".join(f"{words} {told[key]:.4f} (real {told[floor]:.4f})" for key, floor, words in MEASURES)
            lines.append(f"{name} {path.parent.name}: {measures}")
        for path in sorted((out / name / "stages" / "evaluate").glob("*/seed*.json")):
            for row in json.loads(path.read_text(encoding="utf-8"))["results"]["rows"]:
                about = f"{name} {path.parent.name}: {row['attack']} {row['norm']} {row['eps']:.4f}, {row['images']} images"
                accuracies = (
                    f"clean {row['clean_accuracy']:.4f}, robust {row['robust_accuracy']:.4f} +- {row['standard_error']:.4f}"
                )
                lines.append(f"{about}: {accuracies}")
    return lines or ["nothing is finished; the same command goes on"]


MEASURES = (("label_error", "label_error_floor", "wrong labels"), ("frechet_distance", "frechet_floor", "Frechet distance"))
GRACE, LEAST = 20.0, {"unet": 50, "images": 1000, "classifier": 50, "encoder": 20, "autoattack": 4}
"""Seconds for a run to finish its step and save it; what is too little to learn anything from."""
PACKED = ("*.csv", "*.json", "samples.png", "stages/**/*.json", "outcomes/*.npz", "curves/*.csv")
"""What is kept of a run's folder."""


def keep(chosen: argparse.Namespace) -> None:
    """Copy what says how it went to KEEP: the table, design and logs, and one archive of tables, outcomes, curves and samples."""
    if chosen.keep is None:
        return
    chosen.keep.mkdir(parents=True, exist_ok=True)
    for path in [*chosen.out.glob("*.txt"), *chosen.out.glob("design.json")]:
        shutil.copy(path, chosen.keep)
    with tarfile.open(chosen.keep / "runs.tar.gz", "w:gz") as archive:
        for path in sorted(path for pattern in PACKED for path in chosen.out.glob(f"*/{pattern}")):
            archive.add(path, path.relative_to(chosen.out))


def rates_on(device: str) -> Rates:
    """Measured, or ASSUMED where that fails: a call that plans badly is worth more than one that ends here."""
    try:
        return measured(device)
    except Exception as error:  # whatever it is
        print(f"warning: measuring failed ({type(error).__name__}: {error}); planned with assumed rates", file=sys.stderr)
        return ASSUMED


def steps_for(chosen: argparse.Namespace, begin: float) -> dict[str, int]:
    """The plan noted in OUT/design.json, or a new one by measurement, and noted. Raises UserError for another call's, or too few steps."""
    from command_line.output import UserError, write_json  # found only now, see main

    design, about = chosen.out / "design.json", {"seed": chosen.seed, "tiny": chosen.tiny}
    if design.is_file():  # the same command goes on with the same steps
        known = json.loads(design.read_text(encoding="utf-8"))
        if {name: known[name] for name in about} != about:
            raise UserError(f"--out {chosen.out}: holds another call ({known}); name another folder")
        steps: dict[str, int] = known["steps"]
        return steps
    if chosen.tiny:
        write_json(design, {"steps": TINY_STEPS, **about})
        return TINY_STEPS
    rates = rates_on(chosen.device)
    steps = steps_within(rates, max(chosen.budget, chosen.limit) - (time.monotonic() - begin))
    if any(steps[name] < least for name, least in LEAST.items()):
        raise UserError(
            f"--budget {max(chosen.budget, chosen.limit):g}: leaves time for {steps}, too little to learn anything; give more"
        )
    write_json(design, {"steps": steps, "rates": asdict(rates), **about})
    return steps


def run_all(chosen: argparse.Namespace, data: Path, begin: float) -> int:
    """Make the calls, as far as time allows; print the table. Returns the exit status."""
    steps, environment, status = steps_for(chosen, begin), environment_with(chosen.bundle), 0
    base = base_of(steps, data, chosen.seed, chosen.tiny)
    for name, call in calls_of(base, chosen.out, steps["autoattack"], steps["images"]).items():
        left = chosen.limit - (time.monotonic() - begin) - GRACE
        if left < GRACE:
            status = 1  # the next call goes on here
            break
        command = [sys.executable, "image_experiments/run_cifar.py", *call, "--device", "cpu" if chosen.tiny else chosen.device]
        with (chosen.out / f"{name}.txt").open("a", encoding="utf-8") as log:
            ended = status_within(left, command, environment, log, GRACE - 5.0)
        status |= ended != 0
        keep(chosen)
    epochs = steps["classifier"] * BATCH / 49_000  # published numbers are of 100 and more
    table = "\n".join(
        [f"steps {steps}, {epochs:.1f} epochs of each classifier, {time.monotonic() - begin:.0f} s", *table_of(chosen.out)]
    )
    (chosen.out / "table.txt").write_text(table + "\n", encoding="utf-8")
    keep(chosen)
    print(table)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line (with argparse: tyro may be in the bundle) and run; returns the exit status."""
    parser = argparse.ArgumentParser(description="CIFAR-10 at 32 x 32 on one GPU, in one call.")
    parser.add_argument("--bundle", type=Path, help="folder of gpu_bundle.py, with data/cifar10-jpeg.tar.xz")
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10, if not in the bundle: as for run_cifar.py")
    parser.add_argument("--out", type=Path, default=Path("results/gpu_cifar10"), help="folder for the results")
    parser.add_argument("--keep", type=Path, help="folder for what fits into few files")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds after which everything has ended")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds of all calls together (default: the limit)")
    parser.add_argument("--seed", type=int, default=500, help="seed of this call")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="small images and networks on a CPU, to try it out")
    chosen = parser.parse_args(arguments)
    chosen.out = chosen.out.resolve()  # the calls have another working directory
    chosen.bundle, chosen.data_dir, chosen.keep = (
        path and path.resolve() for path in (chosen.bundle, chosen.data_dir, chosen.keep)
    )
    begin = time.monotonic()
    sys.path[:0] = paths_with(chosen.bundle)
    from command_line.output import UserError

    data = chosen.data_dir or (chosen.bundle or Path()) / "data" / "cifar10-jpeg.tar.xz"
    try:
        if not chosen.tiny and not data.exists():
            raise UserError(f"{data}: no CIFAR-10 there; name its folder with --data-dir, or pack a copy with gpu_bundle.py --data")
        chosen.out.mkdir(parents=True, exist_ok=True)
        return run_all(chosen, data, begin)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
