import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.book.reach import Reach
from rfdetr.errors import UserError
from rfdetr.experiments.base.artifacts import Store, artifact_key, default_root, save_result
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.provenance import provenance
from rfdetr.sources import files_digest, meaning_digest, module_files, reached_files

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab é"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab é", max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_artifact_is_built_once_and_shared(tmp_path):
    built = []

    def build(work: Path) -> None:
        built.append(work)
        (work / "weights.txt").write_text("42")

    store = Store(tmp_path)
    first = store.artifact("supernet", {"profile": "cpu", "seed": 0}, build)
    again = store.artifact("supernet", {"seed": 0, "profile": "cpu"}, build)
    other = store.artifact("supernet", {"profile": "cpu", "seed": 1}, build)
    assert first == again != other
    assert len(built) == 2
    assert (first / "weights.txt").read_text() == "42"
    assert json.loads((first / "artifact.json").read_text())["key"] == {"profile": "cpu", "seed": 0}
    assert not list(tmp_path.glob("*.partial"))


def test_key_depends_on_the_libraries_that_compute(monkeypatch):
    """A network trained with another torch is another artifact, never stamped with the new version."""
    from importlib import metadata

    before = artifact_key({"seed": 0})
    real = metadata.version
    for library in ("torch", "numpy"):
        monkeypatch.setattr(metadata, "version", lambda name, odd=library: "9" if name == odd else real(name))
        assert artifact_key({"seed": 0}) != before


@given(st.dictionaries(st.text("ab é", max_size=6), json_values, max_size=4))
def test_key_does_not_depend_on_order(key):
    assert artifact_key(key) == artifact_key(dict(reversed(key.items())))


@given(st.dictionaries(st.text("ab é", max_size=6), json_values, min_size=1, max_size=4), st.data())
def test_key_depends_on_every_value(key, data):
    name = data.draw(st.sampled_from(sorted(key)))
    assert artifact_key(key) != artifact_key({**key, name: [key[name], "changed"]})


def test_key_refuses_what_json_cannot_hold():
    with pytest.raises(TypeError):
        artifact_key({"model": object()})
    with pytest.raises(ValueError):
        artifact_key({"rate": float("nan")})
    with pytest.raises(ValueError, match=r"no module 'rfdetr\.nowhere'"):
        artifact_key({}, ["rfdetr.nowhere"])
    with pytest.raises(ValueError, match="name"):
        Store("x").path("two words", {})


def test_failed_build_keeps_its_work_and_resumes(tmp_path):
    def build(work: Path) -> None:
        checkpoint = work / "step"
        step = int(checkpoint.read_text()) if checkpoint.exists() else 0
        checkpoint.write_text(str(step + 1))
        if step == 0:
            raise RuntimeError("stopped half-way")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError):
        store.artifact("net", {"a": 1}, build)
    assert not store.path("net", {"a": 1}).exists()
    assert (store.artifact("net", {"a": 1}, build) / "step").read_text() == "2"


WORKER = """
import sys, time
from pathlib import Path
from rfdetr.experiments.base.artifacts import Store

def build(work):
    with (work / "builders").open("a") as file:
        file.write("x")
    print("building", flush=True)
    time.sleep(float(sys.argv[2]))

print(Store(sys.argv[1]).artifact("net", {"a": 1}, build))
"""


def worker(root: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(root), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_build_once(tmp_path):
    workers = [worker(tmp_path, 0.5), worker(tmp_path, 0.5)]
    lines = [process.communicate(timeout=120)[0].split() for process in workers]
    assert [process.returncode for process in workers] == [0, 0]
    assert sum("building" in line for line in lines) == 1
    assert lines[0][-1] == lines[1][-1]
    assert (Path(lines[0][-1]) / "builders").read_text() == "x"


def test_killed_build_leaves_resumable_work_only(tmp_path):
    process = worker(tmp_path, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    process.stdout.close()
    store = Store(tmp_path)
    assert not store.path("net", {"a": 1}).exists()
    # The lock died with its process, and the work is still there.
    path = store.artifact("net", {"a": 1}, lambda work: (work / "builders").open("a").write("y"))
    assert (path / "builders").read_text() == "xy"


def test_default_root_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_STORE", str(tmp_path / "here"))
    assert default_root() == tmp_path / "here" == Store("").root
    assert Store(tmp_path).root == tmp_path
    monkeypatch.delenv("RFDETR_STORE")
    assert default_root().parts[-2:] == ("build", "artifacts")


def test_store_that_cannot_be_created_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="RFDETR_STORE"):
        Store(tmp_path / "file" / "store").artifact("net", {}, lambda work: None)


def test_result_round_trip_with_provenance(tmp_path):
    frame = pd.DataFrame({"model": ["nano", "small"], "ap": [0.5, 0.625]})
    about = provenance("cpu", 3, artifact_sha256="ab")
    path = save_result(Store(tmp_path), "05_search", frame, about)
    assert path == tmp_path / "results" / "cpu" / "05_search" / "result.csv"
    pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_dtype=False)
    written = json.loads(path.with_suffix(".json").read_text())
    assert written["rows"] == 2
    assert list(written["columns"]) == ["model", "ap"]
    assert {"profile", "seed", "commit", "versions", "device", "time_utc", "artifact_sha256"} <= set(
        written["provenance"]
    )
    assert written["provenance"]["seed"] == 3
    assert "torch" in written["provenance"]["versions"]


def test_profiles():
    assert set(PROFILES) == {"smoke", "cpu", "full", "gpu", "t4"}
    assert [name for name, profile in PROFILES.items() if not profile.meaningful] == ["smoke"]
    with pytest.raises(UserError, match="unknown profile 'big'; choose one of smoke, cpu, full, gpu, t4"):
        get_profile("big")


@pytest.fixture
def package(tmp_path):
    files = {
        "lib/__init__.py": (
            "from importlib import import_module\nVERSION = 1\n_LAZY = {'Net': 'lib.model.net'}\n"
            "def __getattr__(name):\n    return getattr(import_module(_LAZY[name]), name)\n"
        ),
        "lib/__main__.py": "from lib.tool import run\n",
        "lib/arch.py": "x = 1\n",
        "lib/model/__init__.py": "",
        "lib/model/net.py": "def build():\n    from ..arch import x\n    return x\n",
        "lib/model/typed.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lib.tool import run\nimport"
            " lib.arch\n"
        ),
        "lib/paper/__init__.py": "",
        "lib/paper/read.py": "",
        "lib/paper/numbers.csv": "1,2\n",
        "lib/tool.py": "def run():\n    return 1\n",
        "lib/runtimes/__init__.py": "",
        "lib/runtimes/fast.py": "",
        "lib/pick.py": (
            "from importlib import import_module\ndef get(n):\n    return"
            " import_module(f'lib.runtimes.{n}')\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


REACHED = [
    ("import numpy", []),
    ("import lib", ["__init__"]),
    ("from lib import VERSION", ["__init__"]),
    ("from lib.arch import x", ["__init__", "arch"]),
    ("from lib import Net", ["__init__", "arch", "model/__init__", "model/net"]),
    ("import lib as l\nl.Net()", ["__init__", "arch", "model/__init__", "model/net"]),
    ("def f():\n    from lib.model import net", ["__init__", "arch", "model/__init__", "model/net"]),
    ("import lib.model.typed", ["__init__", "arch", "model/__init__", "model/typed"]),
    ("import importlib\nimportlib.import_module('lib.tool')", ["__init__", "tool"]),
    ("!python -m lib run", ["__init__", "__main__", "tool"]),
    ("%matplotlib inline\nimport lib.tool", ["__init__", "tool"]),
    ("subprocess.run([sys.executable, '-m', 'lib'])", ["__init__", "__main__", "tool"]),
    ("import lib.pick", ["__init__", "pick", "runtimes/__init__", "runtimes/fast"]),
    ("import lib.paper.read", ["__init__", "paper/__init__", "paper/numbers.csv", "paper/read"]),
]


@pytest.mark.parametrize(("code", "reached"), REACHED)
def test_reached_files(package, code, reached):
    found = reached_files(code, package, "lib")
    assert [path.relative_to(package / "lib").as_posix().removesuffix(".py") for path in found] == reached


def test_codes_that_are_looked_at_together_reach_what_each_reaches_alone(package):
    reach = Reach(package, "lib")
    codes = [code for code, _ in REACHED]
    for code in [*codes, *reversed(codes)]:
        assert reach(code) == reached_files(code, package, "lib"), code


def test_digest_of_meaning_ignores_comments_and_docstrings(package):
    files = module_files(["lib.model.net"], package, "lib")
    before = meaning_digest(files, package), files_digest(files, package)
    net = package / "lib/model/net.py"
    net.write_text(
        '"""Words."""\n\n\ndef build():\n    """More words."""\n    from ..arch import x  # why\n\n   '
        " return x\n"
    )
    commented = meaning_digest(files, package), files_digest(files, package)
    assert commented[0] == before[0]
    assert commented[1] != before[1]
    net.write_text("def build():\n    from ..arch import x\n    return x + 1\n")
    assert meaning_digest(files, package) != before[0]


def test_artifact_key_depends_on_the_modules():
    keys = {
        artifact_key({}, modules) for modules in ([], ["rfdetr.errors"], ["rfdetr.experiments.base.profiles"])
    }
    assert len(keys) == 3
