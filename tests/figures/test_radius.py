"""The figure of the training radius on made-up sweeps whose slopes are known, against scipy."""

import csv

import numpy as np
import pytest
from scipy import stats

from command_line.output import UserError
from figures.image_figures import radius
from figures.inputs import Files

SEEDS, STDS = range(3, 8), (1.0, 0.8, 1.3)


def write_sweep(folder, log_odds):
    """log_odds(eps, seed, snr) -> float."""
    rng = np.random.default_rng(1)
    (folder / "digits-eps").mkdir()
    with (folder / "digits-eps" / "sweep.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("run", "seed", "attack", "norm", "eps", "robust_accuracy"))
        described = []
        for eps in (0.15, 0.05, 0.25):
            for std in STDS:
                for seed in SEEDS:
                    snr = float(5 / std + rng.uniform(0, 0.5))
                    odds = log_odds(eps, seed, snr)
                    writer.writerow((f"eps-{eps}-std-{std}", seed, "pgd-20", "linf", eps, 1 / (1 + np.exp(-odds))))
                    described.append((f"eps-{eps}-std-{std}", "unguided", seed, snr))
    (folder / "digits-eps-description").mkdir()
    with (folder / "digits-eps-description" / "description.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("run", "method", "seed", "class_snr_crossfit"), *described[::-1]])  # in any order
    return Files(folder)


def test_slopes_that_were_put_in_come_out(tmp_path):
    b = {0.05: -0.7, 0.15: -0.2, 0.25: 0.4}
    found = radius.slopes(radius.read_sets(write_sweep(tmp_path, lambda eps, seed, snr: seed / 7 + b[eps] * np.log(snr))))
    assert list(found) == [0.05, 0.15, 0.25]
    for eps, of in found.items():
        assert list(of) == list(SEEDS)
        assert list(of.values()) == pytest.approx([b[eps]] * len(SEEDS), rel=1e-9)


@pytest.mark.parametrize(("step", "told"), [(0.5, "larger"), (-0.5, "smaller"), (0.0, "no difference detected")])
def test_the_verdict_has_the_sign_of_the_change(tmp_path, step, told):
    rng = np.random.default_rng(5)
    files = write_sweep(tmp_path, lambda eps, seed, snr: 0.1 + step * eps * 10 * np.log(snr) + 0.02 * rng.standard_normal())
    assert radius.finding(files).count(f"by Holm: {told})") == 2


def test_accuracies_without_log_odds_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"robust accuracy 1 of eps-0.15-std-1.0, seed 3, has no log odds"):
        radius.read_sets(write_sweep(tmp_path, lambda eps, seed, snr: 1000.0))


def test_numbers_and_words_are_those_of_scipy(tmp_path):
    rng = np.random.default_rng(2)
    seen = {}

    def noisy(eps, seed, snr):
        seen.setdefault((eps, seed), []).append((snr, odds := 0.3 + 3 * eps * np.log(snr) + 0.05 * rng.standard_normal()))
        return odds

    files = write_sweep(tmp_path, noisy)
    slope = {key: stats.linregress(*np.log([x for x, _ in v])[None], [y for _, y in v]).slope for key, v in seen.items()}
    gaps = {
        (a, b): [slope[b, seed] - slope[a, seed] for seed in SEEDS] for a, b in ((0.05, 0.15), (0.15, 0.25))
    }  # fmt: skip
    for i, ((a, b), values) in enumerate(gaps.items()):
        drawn = radius.numbers(files).series("change", f"{a} to {b}")
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        found = (drawn.x[0], drawn.y[0], drawn.low[0], drawn.high[0])
        assert found == pytest.approx((i, np.mean(values), *interval), rel=1e-9)
    first = radius.numbers(files).series("log odds", "ε = 0.05")
    assert first.y[1] == 0  # sets run from the hottest noise to the coldest, the second is the unguided one
    assert first.x[0] < first.x[1] < first.x[2]
    said = radius.finding(files)
    p = sorted(stats.ttest_1samp(values, 0).pvalue for values in gaps.values())
    assert all(f"(p {adjusted:.2g} by Holm" in said for adjusted in (2 * p[0], max(2 * p[0], p[1])))
    assert f"{np.mean(gaps[0.05, 0.15]):+.2f} [" in said


def test_a_set_that_was_not_described_is_one_line(tmp_path):
    files = write_sweep(tmp_path, lambda eps, seed, snr: 0.5)
    path = tmp_path / "digits-eps-description" / "description.csv"
    path.write_text(
        "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("eps-0.15-std-1.0,unguided,4"))
    )
    with pytest.raises(
        UserError, match=r"description.csv: lacks eps-0.15-std-1.0, seed 4; make it anew with: .*--until description"
    ):
        radius.read_sets(files)
