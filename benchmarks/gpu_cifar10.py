"""CIFAR-10 at 32 x 32 on one GPU, in one call and without network: does synthetic data, and guidance, help robustness?

    python benchmarks/gpu_cifar10.py --bundle FOLDER --out OUT --limit 540 --seed 500
    python benchmarks/gpu_cifar10.py --tiny --out /tmp/tiny          # the same path on small images and networks, on a CPU

Trains a class-conditional U-Net (9 M parameters, v, bfloat16, EMA) on all 50,000 images for a third of the time, makes 50,000 images a
method with a 20-step solver, and trains PreActResNet-18 adversarially (PGD-7, l_inf 8/255), with equal steps, on real images alone and with
those of each method; then PGD-20 on 2,000 test images and AutoAttack on up to 500 of them. The numbers of steps follow from speeds that are
measured at the start, and stand in OUT/design.json before anything is trained. FOLDER: from gpu_bundle.py, with a copy of CIFAR-10 as
images in one archive; --data-dir names CIFAR-10 elsewhere, as for run_cifar.py.

Two calls of run_cifar.py: OUT/main (real, unguided, and guidance as the evidence on small images chose it) and OUT/paper (InfoNCE in the
paper's pipeline: pseudo-labels, the most confident of 1.25 times as many). Ends by itself before the limit; what a limit cuts off, the same
command finishes. One seed: intervals are binomial and say nothing of other seeds. Prints a short table last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpu_call import environment_with, paths_with, status_within

IMAGES, CLASSIFIERS = 50_000, 4
GUIDED = "particle:auto"
"""The guidance of OUT/main, with labels as drawn; fixed before the call. It is the best on small images, with the strength that it finds
by itself: on photographs the strength of digits, and soft labels, cost robust accuracy (docs/results/photographs.md)."""
PAPER = ("--selection.labels", "pseudo", "--selection.surplus", "1.25", "--selection.criterion", "confidence")


@dataclass(frozen=True)
class Rates:
    """Seconds: of a step of the U-Net, of a sampler step per image, of an adversarial step, before the first step of each; of AutoAttack
    per image, if half of the images withstand it."""

    unet: float
    sampling: float
    classifier: float
    start: float
    autoattack: float


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
    probe = Probe((3, 32, 32), 10, Threat("linf", 8 / 255), torch.device(device), budget=2.0)
    with gpu_arithmetic(tf32=True, cudnn_benchmark=True):
        found = probe.step(unet).step, probe.sampler(unet, sampler).step, probe.step(trained).step
    with gpu_arithmetic(tf32=False):  # as the evaluation
        parts = probe.autoattack_parts(trained.network, 250)
    return Rates(*found, 5.0, 0.5 * sum(parts.values()))


def steps_within(rates: Rates, seconds: float, images: int = IMAGES) -> dict[str, int]:
    """Steps of the U-Net, of the encoder, and of each classifier, such that all of it takes about `seconds`.

    A third goes to the U-Net; AutoAttack gets up to a sixth, for at most 500 images; what generation (three sets, one of them 1.25 times as
    large, guidance at twice the cost, and the trials of its strength) leaves is for the classifiers; the encoder gets half as many steps.
    """
    unet = 0.33 * seconds
    generation = 20 * images * rates.sampling * (1.0 + 2.0 + 2.5 + 0.2)
    attacked = int(min(500, max(seconds / 6 / CLASSIFIERS / rates.autoattack, 100)))
    evaluation = CLASSIFIERS * attacked * rates.autoattack
    left = max(0.95 * seconds - unet - generation - evaluation - 6 * rates.start, 0.1 * seconds)
    a_classifier = left / (CLASSIFIERS + 0.5) / rates.classifier
    return {
        "unet": max(int(unet / rates.unet), 1),
        "classifier": max(int(0.85 * a_classifier), 1),
        "encoder": max(int(0.42 * a_classifier), 1),
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
    found += ["--classifier.validate-every", str(steps["classifier"]), "--encoder.validate-every", str(steps["encoder"])]
    found += [
        "--generation.compile",
        "no",
        "--generation.precision",
        "bfloat16",
        "--description.steps",
        "300",
        "--description.images",
        "2000",
    ]
    found += ["--evaluation.autoattack-images", str(steps["autoattack"]), "--test", "2000"]
    return [*found, "--dataset", "cifar10", "--data-dir", str(data)]


TINY = (
    *("--encoder.steps", "20", "--classifier.steps", "20", "--diffusion.channels", "8", "16", "--diffusion.steps", "30"),
    *("--generation.steps", "4", "--evaluation.autoattack-images", "4", "--evaluation.pgd-steps", "3", "--description.steps", "10"),
)


def calls_of(base: list[str], out: Path) -> dict[str, list[str]]:
    """The calls of run_cifar.py by the name of their folder."""
    main = [*base, "--methods", "real", "unguided", GUIDED, "--out", str(out / "main")]
    paper = [*base, *PAPER, "--methods", "infonce:0.3", "--out", str(out / "paper"), "--reuse", str(out / "main")]
    return {"main": main, "paper": paper}


def table_of(out: Path) -> list[str]:
    """A line for each classifier and attack that is finished, with binomial standard errors; also of a call that was cut off."""
    lines = []
    for name in ("main", "paper"):
        for path in sorted((out / name / "stages" / "evaluate").glob("*/seed*.json")):
            for row in json.loads(path.read_text(encoding="utf-8"))["results"]["rows"]:
                about = f"{name} {path.parent.name}: {row['attack']} {row['norm']} {row['eps']:.4f}, {row['images']} images"
                accuracies = (
                    f"clean {row['clean_accuracy']:.4f}, robust {row['robust_accuracy']:.4f} +- {row['standard_error']:.4f}"
                )
                lines.append(f"{about}: {accuracies}")
    return lines or ["nothing is finished; the same command goes on"]


GRACE, LEAST_STEPS = 20.0, 50
"""Seconds for a run to finish its step and save it; fewest steps of a training."""


def steps_for(chosen: argparse.Namespace, begin: float) -> dict[str, int]:
    """The steps noted in OUT/design.json, or new ones by measurement, and noted. Raises UserError for another call's, or too few."""
    from command_line.output import UserError, write_json  # found only now, see main

    design, about = chosen.out / "design.json", {"seed": chosen.seed, "tiny": chosen.tiny}
    if design.is_file():  # the same command goes on with the same steps
        known = json.loads(design.read_text(encoding="utf-8"))
        if {name: known[name] for name in about} != about:
            raise UserError(f"--out {chosen.out}: holds another call ({known}); name another folder")
        steps: dict[str, int] = known["steps"]
        return steps
    rates = Rates(1e-3, 1e-9, 1e-3, 0.0, 1e-3) if chosen.tiny else measured(chosen.device)
    steps = steps_within(rates, chosen.limit - (time.monotonic() - begin))
    if min(steps.values()) < LEAST_STEPS:
        raise UserError(f"--limit {chosen.limit:g}: leaves time for steps {steps}, too few to learn anything; give more")
    write_json(design, {"steps": steps, "rates": asdict(rates), **about})
    return steps


def run_all(chosen: argparse.Namespace, data: Path, begin: float) -> int:
    """Make both calls, as far as time allows; print the table. Returns the exit status."""
    steps, environment, status = steps_for(chosen, begin), environment_with(chosen.bundle), 0
    for name, call in calls_of(base_of(steps, data, chosen.seed, chosen.tiny), chosen.out).items():
        left = chosen.limit - (time.monotonic() - begin) - GRACE
        if left < GRACE:
            status = 1  # the next call goes on here
            break
        command = [sys.executable, "image_experiments/run_cifar.py", *call, "--device", "cpu" if chosen.tiny else chosen.device]
        with (chosen.out / f"{name}.txt").open("a", encoding="utf-8") as log:
            status = 0 if status_within(left, command, environment, log, GRACE - 5.0) == 0 else 1
        if status:
            break
    table = "\n".join([f"steps {steps}, {time.monotonic() - begin:.0f} s", *table_of(chosen.out)])
    (chosen.out / "table.txt").write_text(table + "\n", encoding="utf-8")
    print(table)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line (with argparse: tyro may be in the bundle) and run; returns the exit status."""
    parser = argparse.ArgumentParser(description="CIFAR-10 at 32 x 32 on one GPU, in one call.")
    parser.add_argument("--bundle", type=Path, help="folder of gpu_bundle.py, with data/cifar10-jpeg.tar.xz")
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10, if not in the bundle: as for run_cifar.py")
    parser.add_argument("--out", type=Path, default=Path("results/gpu_cifar10"), help="folder for the results")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds after which everything has ended")
    parser.add_argument("--seed", type=int, default=500, help="seed of this call")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--tiny", action="store_true", help="small images and networks on a CPU, to try it out")
    chosen = parser.parse_args(arguments)
    chosen.out = chosen.out.resolve()  # the calls have another working directory
    chosen.bundle, chosen.data_dir = (path and path.resolve() for path in (chosen.bundle, chosen.data_dir))
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
