"""Help: short by default, whole on demand, texts once, defaults that are those."""

import re
import subprocess
import sys
from importlib import import_module

import pytest

from figures import keep_reference, regenerate
from image_experiments import export, merge_shards, run_cifar, run_search, run_sweep
from simulations import gaussian_mixture, guided_diffusion, image_worth

COMMANDS = (
    gaussian_mixture,
    guided_diffusion,
    image_worth,
    regenerate,
    keep_reference,
    run_cifar,
    run_sweep,
    run_search,
    import_module("image_experiments.evaluate"),
    export,
    merge_shards,
)


def told(main, *arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def options(text):
    return re.findall(r"^\W?  ?(--[a-z][\w.-]*)", text, re.M)


def plain(text):
    return " ".join(re.sub(r"[│─╭╮╰╯]", " ", text).split())


def test_help_shows_the_two_dozen_options_that_most_runs_need(capsys):
    short, whole = (told(run_cifar.main, flag, capsys=capsys) for flag in ("--help", "--help-all"))
    assert 20 <= len(options(short)) <= 30
    assert set(options(short)) <= set(options(whole))
    assert len(options(whole)) > 100
    assert "--help-all: all options" in short
    assert "--help-all" not in whole
    assert "None" not in short + whole
    text = plain(whole)
    assert text.count("Fraction of synthetic images in each batch") == 1  # of the classifier; the encoder's refers to it
    assert "As --classifier.weight-decay." in text
    assert "(default: results/DATASET-PRESET)" in text


def test_a_presets_defaults_are_shown(capsys):
    text = told(run_cifar.main, "--preset", "cpu", "--help", capsys=capsys)
    assert "networks and noise. (default: 3)" in plain(text)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_helps_and_has_no_default_of_none(command, capsys):
    """export.py and merge_shards.py have arguments without a default, of which help once knew nothing."""
    assert "None" not in told(command.main, "--help", capsys=capsys)


@pytest.mark.parametrize("program", ["simulations/gaussian_mixture.py", "figures/regenerate.py"])
def test_every_command_says_its_version(program):
    from tests.test_repository import ROOT

    found = subprocess.run([sys.executable, str(ROOT / program), "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"contrastive-dp \d+\.\d+\.\d+\n", found.stdout)
