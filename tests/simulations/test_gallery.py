"""What each guidance does to samples at the same price: `guided_diffusion.py --parts gallery`."""

import csv

import numpy as np
import ot
import pytest

from simulations.guided.gallery import W2, settings_of_gallery
from simulations.guided.models import Setting
from simulations.guided.points import SHOWN_SAMPLES
from simulations.guided.runs import Effort
from simulations.guided_diffusion import main

CLASSES = {0: np.array([-1.0, 0.0]), 1: np.array([1.0, 0.0])}  # unit variance


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Rows and points of three settings, given in an order that is not that of their class SNRs."""
    small = [Setting(), Setting(guidance="classifier-free"), Setting(guidance="boundary-near", at="x0", relative=True, high=700)]
    out = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.guided.gallery.settings_of_gallery", lambda: small)
        assert main(["--parts", "gallery", "--workers", "1", "--seed", "3", "--out", str(out)]) == 0
    tables = []
    for name in ("gallery", "gallery_samples", "gallery_classes"):
        with (out / f"{name}.csv").open(newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    return out, *tables


def test_panels_go_from_together_to_apart_and_cost_the_same(gallery):
    out, rows, _, classes = gallery
    assert [row["guidance"] for row in rows] == ["boundary-near", "none", "classifier-free"]
    guided = [row for row in rows if row["guidance"] != "none"]
    assert [float(row["w2_predicted"]) for row in guided] == pytest.approx([W2] * 2, abs=1e-4)
    assert [float(row["w2"]) for row in guided] == pytest.approx([W2] * 2, abs=0.05)
    assert {int(row["class"]): (float(row["mean1"]), float(row["std2"])) for row in classes} == {0: (-1, 1), 1: (1, 1)}
    assert (out / "guidance_gallery.png").is_file()


def test_measured_numbers_are_those_of_the_points(gallery):
    """Class SNR and Bures distance from the points that are shown, a tenth of those measured: six standard errors of a mean of 256."""
    _, rows, points, _ = gallery
    assert len(points) == SHOWN_SAMPLES * len(rows)
    assert Effort.samples > SHOWN_SAMPLES
    for row in rows:
        x = {k: np.array([[float(p["x1"]), float(p["x2"])] for p in points if (p["name"], p["label"]) == (row["label"], str(k))])
             for k in CLASSES}  # fmt: skip
        apart = np.linalg.norm(x[1].mean(axis=0) - x[0].mean(axis=0)) / 2
        variance = np.mean([cloud.var(axis=0).mean() for cloud in x.values()])
        assert apart / np.sqrt(variance) == pytest.approx(float(row["class_snr"]), abs=6 / np.sqrt(SHOWN_SAMPLES))
        squares = [
            ot.gaussian.bures_wasserstein_distance(cloud.mean(axis=0), CLASSES[k], np.cov(cloud.T), np.eye(2)) ** 2
            for k, cloud in x.items()
        ]
        assert np.sqrt(np.mean(squares)) == pytest.approx(float(row["w2"]), abs=0.15)


def test_every_guidance_is_shown():
    settings = settings_of_gallery()
    assert len({setting.label for setting in settings}) == len(settings) == 15
    assert {setting.problem for setting in settings} == {"two"}
