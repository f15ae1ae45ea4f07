"""An installed wheel works as a clone does: built, installed in a fresh environment, used elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of an environment with the wheel, and the libraries of this one without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, because a build leaves files beside pyproject.toml.
    source = folder / "source"
    source.mkdir()
    for name in ("rfdetr", "data_manifests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(folder), str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    # A plain path line: the editable install's own .pth file in that folder is not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(environment / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return environment


def run(environment, folder, *words, program="rfdetr"):
    """Run a program of the environment from `folder` with nothing of the checkout in sight."""
    hidden = {"PYTHONPATH", "RFDETR_MANIFESTS", "RFDETR_MIRROR"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [str(environment / "bin" / program), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=variables | {"RFDETR_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"},
    )


def test_the_package_that_runs_is_the_installed_one(installed, tmp_path):
    shown = run(installed, tmp_path, "-c", "import rfdetr; print(rfdetr.__file__)", program="python")
    assert str(installed) in shown.stdout, shown.stderr


def test_names_of_data_sets_are_known(installed, tmp_path):
    listed = run(installed, tmp_path, "data", "list")
    assert listed.returncode == 0, listed.stderr
    for name in (path.stem for path in (ROOT / "data_manifests").glob("*.yaml") if path.stem != "official"):
        assert name in listed.stdout


def test_a_network_is_trained_evaluated_and_exported(installed, tmp_path):
    training = run(installed, tmp_path, "train", "--profile", "smoke", "--steps", "2", "--out", "run")
    assert training.returncode == 0, training.stderr
    for words in (
        ("evaluate", "run", "--data", "digits", "--split", "val", "--arch", "r64-p16-w1-d1-q6"),
        ("export", "run", "--arch", "r64-p16-w1-d1-q6", "--out", "model.onnx"),
        ("benchmark", "model.onnx", "--samples", "3", "--pause", "0"),
    ):
        done = run(installed, tmp_path, *words)
        assert done.returncode == 0, (words, done.stderr)


def test_what_a_wheel_does_not_hold_is_said_in_one_line(installed, tmp_path):
    done = run(installed, tmp_path, "book")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no book/_toc.yml") and "Traceback" not in done.stderr
