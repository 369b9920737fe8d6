"""Out to the tools that people use: RobustBench's loader, written here from its documentation, gives the same answers to the image."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections import OrderedDict

import numpy as np
import pytest
import torch

from command_line.output import file_digest
from command_line.values import as_fraction
from contrastive_dp.files import read_safetensors, write_safetensors
from image_experiments import run_cifar
from image_experiments.data.npz_files import ImageFile
from image_experiments.export import main, model_card
from tests.image_experiments.test_together import SMALL

LOADER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from model import model

def without(state, prefix):
    return {key[len(prefix):] if prefix in key else key: value for key, value in state.items()}

checkpoint = torch.load(sys.argv[2], map_location="cpu", weights_only=True)
state = without(without(checkpoint, "module."), "model.")  # as robustbench.utils.load_model does
network = model()
network.load_state_dict(state, strict=True)
images = np.load(sys.argv[3])
with torch.no_grad():
    right = network.eval()(torch.from_numpy(images["x"])).argmax(dim=1).numpy() == images["y"]
np.save(sys.argv[4], right)
"""
CARD = {
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps", "clean_acc",
    "reported", "autoattack_acc", "footnote", "unreliable",
}  # fmt: skip


ELSEWHERE = {"PATH": "", "PYTHONPATH": sysconfig.get_path("purelib")}
"""With -S, Python finds the packages but not this clone, of which a .pth file tells."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small run, exported."""
    out = tmp_path_factory.mktemp("run") / "out"
    whole = ("--methods", "real", "unguided", "--evaluation.autoattack-parts", "all")
    assert run_cifar.main([*SMALL, *whole, "--workers", "1", "--out", str(out)]) == 0
    assert main([str(out)]) == 0
    return out


def test_a_strict_loader_without_our_packages_gets_the_same_accuracy_to_the_image(exported, tmp_path):
    folder = exported / "export" / "unguided-seed0"
    with np.load(exported / "data" / "images.npz") as data:
        x, y = data["test_image"].transpose(0, 3, 1, 2).astype(np.float32) / 255, data["test_label"]
    np.savez(tmp_path / "test.npz", x=x, y=y)
    command = [sys.executable, "-S", "-c", LOADER, str(folder), str(folder / "unguided-seed0.pt"), str(tmp_path / "test.npz")]
    done = subprocess.run(
        [*command, str(tmp_path / "right.npy")], cwd=tmp_path, capture_output=True, text=True, check=False, env=ELSEWHERE
    )
    assert done.returncode == 0, done.stderr
    with np.load(exported / "outcomes" / "unguided-seed0.npz") as outcomes:
        np.testing.assert_array_equal(np.load(tmp_path / "right.npy"), outcomes["clean"])
    state = torch.load(folder / "unguided-seed0.pt", weights_only=True)
    assert isinstance(state, dict | OrderedDict)
    assert all(isinstance(value, torch.Tensor) and not key.startswith(("module.", "model.")) for key, value in state.items())


def test_the_model_card_has_robustbenchs_fields_and_this_runs_numbers(exported):
    card = json.loads((exported / "export" / "unguided-seed0" / "unguided-seed0.json").read_text())
    assert set(card) == CARD
    with np.load(exported / "outcomes" / "unguided-seed0.npz") as outcomes:
        auto = outcomes["autoattack l2-0.5"]
        assert card["clean_acc"] == f"{100 * outcomes['clean'].mean():.2f}"
    assert card["autoattack_acc"] == card["reported"] == ""  # four images of sixty are no benchmark
    assert f"AutoAttack on 4 of 60 test images: {100 * auto.mean():.2f}." in card["footnote"]
    summary = json.loads((exported / "summary.json").read_text())
    summary["data"]["test"] = 4
    assert model_card("unguided/seed0", "wrn-10-1", summary)["autoattack_acc"] == f"{100 * auto.mean():.2f}"
    assert card["architecture"] == "wrn-10-1"
    assert card["eps"] == "0.5"
    assert [as_fraction(eps) for eps in (8 / 255, 0.1, 128 / 255, 1.0)] == ["8/255", "0.1", "128/255", "1"]


def test_what_cannot_be_exported_is_one_line(exported, tmp_path, capsys):
    (tmp_path / "summary.json").write_text("[]")
    for arguments, message in (
        ([str(tmp_path / "none")], "has no summary.json"),
        ([str(tmp_path)], "no summary of run_cifar.py"),
        ([str(exported), "--methods", "guided"], "not in"),
    ):
        assert main(arguments) == 1
        captured = capsys.readouterr().err.strip()
        assert captured.startswith("error: ")
        assert message in captured
        assert "\n" not in captured
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    summary = json.loads((exported / "summary.json").read_text())
    summary["settings"]["evaluation.split"] = "validation"
    (chosen / "summary.json").write_text(json.dumps(summary))
    assert main([str(chosen)]) == 1
    assert "was attacked on validation images, which choose" in capsys.readouterr().err
    name = exported / "checkpoints" / "real-seed0.safetensors"
    whole = name.read_bytes()
    name.write_bytes(whole[:100])
    assert main([str(exported), "--to", str(tmp_path / "to"), "--methods", "real"]) == 1
    assert "not what was evaluated; run the command again" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()
    name.write_bytes(whole)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"network": "small-cnn-8", "classes": "10) or print('run') or (1", "shape": [1, 8, 8]}, "does not say what it holds"),
        ({"network": "small-cnn-8", "classes": 10, "shape": ["1", 8, 8]}, "does not say what it holds"),
        ({"network": ["x"], "classes": 10, "shape": [1, 8, 8]}, "does not say what it holds"),
        ({"classes": 10}, "does not say what it holds"),
    ],
)
def test_what_others_wrote_into_a_folder_does_not_become_code(about, message, exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "theirs", ignore=shutil.ignore_patterns("export"))
    path = folder / "checkpoints" / "real-seed0.safetensors"
    write_safetensors(path, read_safetensors(path)[0], {"classifier": json.dumps(about)})
    summary = json.loads((folder / "summary.json").read_text())
    summary["results"]["evaluate/real/seed0"]["weights_sha256"] = file_digest(path)
    (folder / "summary.json").write_text(json.dumps(summary))
    assert main([str(folder), "--methods", "real"]) == 1
    assert message in capsys.readouterr().err
    assert not list(folder.rglob("model.py"))


def test_names_that_could_be_code_are_refused(exported, tmp_path, capsys):
    summary = json.loads((exported / "summary.json").read_text())
    summary["results"]['evaluate/"""\nimport os\n"""/seed0'] = summary["results"]["evaluate/real/seed0"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert main([str(tmp_path)]) == 1
    assert "is no name of a method and a seed, and names go into code; do not use this folder" in capsys.readouterr().err


def test_a_diffusion_model_of_diffusers_in_the_layout_of_the_hub_is_taken_and_labelled(tmp_path):
    """google/ddpm-cifar10-32 is unconditional, its files lie side by side, its noise schedule is linear."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "model")
    DDPMScheduler(num_train_timesteps=1000).save_pretrained(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "scheduler_config.json",
    }
    out = tmp_path / "out"
    taken = ["--diffusion", str(tmp_path / "model"), "--methods", "unguided", "--workers", "1", "--out", str(out)]
    assert run_cifar.main([*SMALL, *taken]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["results"]["select/unguided/seed0"]["relabelled"]
    assert "diffusion/seed0" not in summary["results"]
    assert summary["settings"]["diffusion.load"] == str(tmp_path / "model")


def test_our_own_diffusion_model_is_taken_as_anyone_elses(exported, tmp_path):
    taken = ["--diffusion", str(exported / "checkpoints" / "diffusion-seed0"), "--methods", "unguided", "--workers", "1"]
    assert run_cifar.main([*SMALL, *taken, "--selection.labels", "drawn", "--out", str(tmp_path)]) == 0
    one, two = (ImageFile(out / "synthetic" / "unguided" / "seed0.npz", 10, (8, 8, 1)) for out in (exported, tmp_path))
    assert np.abs(one.images.astype(int) - two.images).max() <= 1  # levels in single precision
    np.testing.assert_array_equal(one.labels, two.labels)


def test_a_name_on_the_hub_without_network_is_one_line_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run_cifar.main([*SMALL, "--diffusion", "google/ddpm-cifar10-32", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert "error: --diffusion google/ddpm-cifar10-32 is neither a folder nor reachable on the hub" in error.splitlines()[-1]
    assert "refused): check the name or the network" in error  # the cause alone, nothing of the client's own advice
    assert not (tmp_path / "out").exists()
