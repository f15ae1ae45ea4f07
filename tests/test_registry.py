"""Dataset names and paths; fetching from a mirror or from the source, verified."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pytest
import yaml
from data_folders import noise, roboflow, voc

from rfdetr.cli import main
from rfdetr.data import download, manifests
from rfdetr.data.registry import dataset_names, load_dataset
from rfdetr.errors import UserError
from rfdetr.files import sha256_file


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("RFDETR_MIRROR", raising=False)
    return tmp_path / "home"


def source_tree(root):
    objects = [("cell", 1, 1, 9, 9)]
    voc(
        root / "SET",
        {"train": {"p0": objects, "p1": objects}, "val": {"p2": objects}, "test": {"p3": objects}},
    )
    (root / "LICENSE").write_text("MIT")
    return root


def pack(tree, path, prefix=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tree, arcname=prefix or ".")
    return path


@pytest.fixture
def cells(tmp_path, home, monkeypatch):
    """A registered dataset "cells" with a mirror archive, built here."""
    tree = source_tree(tmp_path / "tree")
    archive = pack(tree, tmp_path / "mirror" / "cells" / "cells.tar.gz")
    include = ["SET/Annotations/*.xml", "SET/ImageSets/Main/*.txt", "SET/JPEGImages/*.png", "LICENSE"]
    content, files = manifests.content_digest(tree, include)
    values = {
        "name": "cells",
        "kind": "archive",
        "title": "Cells",
        "licence": "MIT",
        "source": {
            "repository": "someone/cells",
            "commit": "0" * 40,
            "url": "https://example.invalid/cells.tar.gz",
        },
        "mirror": {"file": "cells/cells.tar.gz", "sha256": sha256_file(archive)},
        "include": include,
        "content_sha256": content,
        "files": files,
        "converter": "Pascal VOC",
    }
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "cells.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("RFDETR_MANIFESTS", str(folder))
    return values, folder / "cells.yaml", tree, archive


def test_embedded_scenes_by_name(home):
    data = load_dataset("parity", "valid", size=7, canvas=64, seed=3)
    assert len(data) == 7 and data.split == "val" and data[0][0].shape == (64, 64, 3) and data.seed == 3
    with pytest.raises(UserError, match="cache_side"):
        load_dataset("digits", cache_side=64)


def test_from_a_mirror(cells, home, monkeypatch, tmp_path):
    monkeypatch.setenv("RFDETR_MIRROR", str(tmp_path / "mirror"))
    assert [len(load_dataset("cells", s)) for s in ("train", "val", "test")] == [2, 1, 1]
    data = load_dataset("cells", "train", size=1, cache_side=32)
    assert data.name == "cells" and len(data) == 1 and data.class_names == ("cell",)
    [fetched] = home.glob("cells-*")
    assert (fetched / "LICENSE").read_text() == "MIT"
    assert len(list(home.glob("converted/cells-*"))) == 1  # nothing is left behind
    assert sorted(path.name for path in home.iterdir() if not path.name.endswith(".lock")) == [
        fetched.name,
        "converted",
    ]
    shutil.rmtree(tmp_path / "mirror")
    assert len(load_dataset("cells", "train")) == 2  # converted once


def test_a_changed_mirror_archive_is_refused(cells, home, monkeypatch, tmp_path):
    monkeypatch.setenv("RFDETR_MIRROR", str(tmp_path / "mirror"))
    cells[3].write_bytes(cells[3].read_bytes() + b"x")
    with pytest.raises(UserError, match=r"cells\.tar\.gz has another SHA-256"):
        load_dataset("cells")
    assert not any(home.glob("cells*"))


def test_from_the_source_with_another_archive_of_the_same_content(cells, home, monkeypatch, tmp_path):
    """A hosting site packs a commit anew: one leading folder, more files, other bytes; the content
    decides.
    """
    (cells[2] / "README.md").write_text("not part of the dataset")
    remade = pack(cells[2], tmp_path / "remade.tar.gz", prefix="cells-0000")
    monkeypatch.setattr("pooch.retrieve", lambda url, known_hash, **_: str(remade))
    assert len(load_dataset("cells", "train")) == 2
    assert not list(home.rglob("README.md"))


def test_other_content_from_the_source_is_refused(cells, home, monkeypatch, tmp_path):
    (cells[2] / "SET" / "Annotations" / "p0.xml").write_text("<annotation/>")
    changed = pack(cells[2], tmp_path / "changed.tar.gz", prefix="cells-0000")
    monkeypatch.setattr("pooch.retrieve", lambda url, known_hash, **_: str(changed))
    with pytest.raises(UserError, match="not cells as its manifest describes"):
        load_dataset("cells")
    assert not any(home.glob("cells*"))


def test_no_network_is_a_clear_message(cells, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("pooch.retrieve", fail)
    with pytest.raises(UserError, match=r"example\.invalid.*no route.*RFDETR_MIRROR"):
        load_dataset("cells")


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/escape.txt", "a/../../escape.txt", "..\\escape.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_path_leaves_the_folder(tmp_path, name, kind):
    archive = tmp_path / f"bad.{kind}"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"bad"))
    else:
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr(name, "bad")
    with pytest.raises(UserError, match="unsafe path"):
        download.extract(archive, tmp_path / "in", ("*",), 0)
    assert not (tmp_path / "escape.txt").exists()


def test_links_in_an_archive_are_left_out(tmp_path):
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        info = tarfile.TarInfo("link/file")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"ok"))
    download.extract(archive, tmp_path / "in", ("*",), 0)
    assert (
        not (tmp_path / "in" / "link").is_symlink()
        and (tmp_path / "in" / "link" / "file").read_bytes() == b"ok"
    )


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_that_grows_without_end_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(download, "SMALL", 2**20)
    (tmp_path / "zeros").write_bytes(bytes(30_000_000))
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.write(tmp_path / "zeros", "zeros.jpg")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tmp_path / "zeros", "zeros.jpg")
    assert archive.stat().st_size < 100_000
    with pytest.raises(UserError, match="more than 200 times its size"):
        download.extract(archive, tmp_path / "in", ("*",), 0)
    assert sum(path.stat().st_size for path in (tmp_path / "in").iterdir()) < 25_000_000


def test_a_damaged_archive(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b\x08 damaged")
    with pytest.raises(UserError, match="could not be unpacked"):
        download.extract(tmp_path / "x.tar.gz", tmp_path / "in", ("*",), 0)


def test_large_datasets_are_fetched_only_when_asked_for(home, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"1\.\d GB.*\n.*instances|annotations_trainval2017.zip"):
        load_dataset("coco2017", "val")
    with pytest.raises(UserError, match="no split 'test'"):
        load_dataset("coco2017", "test")
    fetched = []

    def retrieve(url, known_hash, path, **_):
        fetched.append((Path(url).name, known_hash))
        archive = tmp_path / Path(url).name
        with zipfile.ZipFile(archive, "w") as zipped:
            if "annotations" in url:
                zipped.writestr(
                    "annotations/instances_val2017.json",
                    '{"images": [], "annotations": [], "categories": []}',
                )
            else:
                zipped.writestr("val2017/readme.txt", "pictures")
        return str(archive)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert len(load_dataset("coco2017", "val", download=True)) == 0
    assert [name for name, _ in fetched] == ["annotations_trainval2017.zip", "val2017.zip"]
    assert all(known.startswith("md5:") and len(known) == 36 for _, known in fetched)
    assert len(load_dataset("coco2017", "val")) == 0 and len(fetched) == 2  # there now


def test_datasets_that_need_an_account_say_what_to_do(home):
    with pytest.raises(UserError, match="ROBOFLOW_API_KEY"):
        load_dataset("rf100vl/some-dataset", "test")
    with pytest.raises(UserError, match=r"objects365\.org"):
        load_dataset("objects365")
    with pytest.raises(UserError, match="one dataset"):
        load_dataset("bccd/x")


def test_a_voc_folder_by_path_is_converted_once_and_again_when_it_changes(tmp_path, home):
    tree = source_tree(tmp_path / "mine")
    assert len(load_dataset(tree, "train")) == 2 and len(load_dataset(tree, "test")) == 1
    assert len(list((home / "converted").glob("mine-*"))) == 1
    (tree / "SET" / "ImageSets" / "Main" / "train.txt").write_text("p0\n")
    data = load_dataset(tree, "train")
    assert len(data) == 1 and data.name == "mine"


def test_unknown_names(home, tmp_path):
    with pytest.raises(UserError, match=r"unknown dataset 'digts'.*digits.*bccd"):
        load_dataset("digts")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"Found: no pictures.*COCO JSON"):
        load_dataset(tmp_path / "empty")
    with pytest.raises(UserError, match="'dev'"):
        load_dataset("digits", "dev")


def test_every_registered_manifest_is_complete(monkeypatch):
    monkeypatch.delenv("RFDETR_MANIFESTS", raising=False)
    names = manifests.manifest_names()
    assert {"bccd", "raccoon", "coco2017", "rf100vl", "objects365"} <= set(names) <= set(dataset_names())
    for name in names:
        manifest = manifests.load_manifest(name)
        assert manifest.name == name and manifest.licence and manifest.title
        if manifest.kind == "archive":
            assert len(manifest.content_sha256) == len(manifest.mirror["sha256"]) == 64
            assert manifest.source["commit"] in manifest.source["url"] and manifest.files > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "magic"}, "magic"), ({"content_sha256": ""}, "content_sha256"), ({"colour": "red"}, "colour")],
)
def test_a_wrong_manifest_is_named(cells, change, message):
    cells[1].write_text(yaml.safe_dump({**cells[0], **change}))
    with pytest.raises(UserError, match=rf"cells\.yaml.*{message}"):
        manifests.load_manifest("cells")


def test_content_digest_depends_on_paths_and_content_alone(tmp_path):
    tree = source_tree(tmp_path / "a")
    first = manifests.content_digest(tree)
    shutil.copytree(tree, tmp_path / "b", copy_function=shutil.copyfile)
    assert manifests.content_digest(tmp_path / "b") == first
    (tmp_path / "b" / "LICENSE").rename(tmp_path / "b" / "LICENCE")
    assert manifests.content_digest(tmp_path / "b")[0] != first[0]
    lines = f"LICENSE {hashlib.sha256(b'MIT').hexdigest()}\n"
    assert manifests.content_digest(tree, ["LICENSE"]) == (hashlib.sha256(lines.encode()).hexdigest(), 1)


def test_commands_fetch_verify_and_list(cells, home, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RFDETR_MIRROR", str(tmp_path / "mirror"))
    facts = {"images": 4, "objects": {"cell": 4}, "splits": {"train": 2, "val": 1, "test": 1}}
    cells[1].write_text(yaml.safe_dump({**cells[0], **facts, "attribution": "name Someone"}))
    assert main(["data", "verify", "cells"]) == 2 and "`data fetch cells`" in capsys.readouterr().err
    assert main(["data", "list"]) == 0 and "Cells, 4 pictures; MIT; in the mirror" in capsys.readouterr().out
    assert main(["data", "fetch", "all"]) == 0 and "name Someone" in capsys.readouterr().out
    assert main(["data", "verify", "cells"]) == 0
    assert "4 pictures, 4 objects and the source's splits" in capsys.readouterr().out
    wrong = {**cells[0], **facts, "objects": {"cell": 5}}
    cells[1].write_text(yaml.safe_dump(wrong))
    assert (
        main(["data", "verify", "cells"]) == 2 and "the manifest gives {'cell': 5}" in capsys.readouterr().err
    )
    next(home.glob("cells-*/SET/JPEGImages/*")).unlink()
    assert main(["data", "verify", "cells"]) == 2 and "was changed" in capsys.readouterr().err


def test_a_subset_of_the_source_is_the_mirrors_content(cells, home, monkeypatch, tmp_path):
    """Every 2nd picture by name, with its XML, and every 2nd line of a list."""
    for number in range(4, 7):
        noise(cells[2] / "SET" / "JPEGImages" / f"p{number}.png", number)
        shutil.copy(
            cells[2] / "SET" / "Annotations" / "p0.xml", cells[2] / "SET" / "Annotations" / f"p{number}.xml"
        )
    whole = pack(cells[2], tmp_path / "whole.tar.gz", prefix="cells-0000")
    rule = {"files": "SET/JPEGImages/*.png", "every": 2}
    rule["take"] = ["SET/JPEGImages/{stem}.png", "SET/Annotations/{stem}.xml"]
    for number in (1, 3, 5):
        for path in cells[2].rglob(f"p{number}.*"):
            path.unlink()
    content, files = manifests.content_digest(cells[2], cells[0]["include"])
    values = {**cells[0], "subset": [rule], "content_sha256": content, "files": files}
    cells[1].write_text(yaml.safe_dump(values))
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: str(whole))
    # The lists still name all: what the subset does not hold is no flaw.
    train = load_dataset("cells", "train")
    assert [image["file_name"] for image in train.coco["images"]] == ["SET/JPEGImages/p0.png"]
    assert train.report.notes["listed pictures outside the subset"] == 2
    (tmp_path / "list.txt").write_text("b/2.jpg x\na/1.jpg x\nb/2.jpg x\nc/3.jpg x\n")
    assert manifests.listed_names(tmp_path, {"lines": "list.txt"}) == ["a/1.jpg", "b/2.jpg", "c/3.jpg"]


def test_large_datasets_come_from_the_mirror_too(home, monkeypatch, tmp_path):
    values = {"name": "big", "kind": "parts", "title": "Big", "licence": "MIT", "needs": {"val": ["all"]}}
    values["needs"] = {"val": ["annotations", "pictures"]}
    mirror = tmp_path / "mirror" / "big"
    mirror.mkdir(parents=True)
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }
    noise(tmp_path / "a.png", 1)
    values["parts"] = {}
    for name, folder in (("annotations", "annotations"), ("pictures", "val")):
        with zipfile.ZipFile(mirror / f"{name}.zip", "w") as zipped:
            if name == "annotations":
                zipped.writestr("annotations/instances_val.json", json.dumps(content))
            else:
                zipped.write(tmp_path / "a.png", "val/a.png")
        md5 = hashlib.md5((mirror / f"{name}.zip").read_bytes()).hexdigest()
        part = {"url": f"https://example.invalid/{name}.zip", "md5": md5, "gigabytes": 0.1, "folder": folder}
        values["parts"][name] = part
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "big.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("RFDETR_MANIFESTS", str(tmp_path / "manifests"))
    monkeypatch.setenv("RFDETR_MIRROR", str(tmp_path / "mirror"))
    assert len(load_dataset("big", "val")) == 1 and (mirror / "pictures.zip").is_file()
    shutil.rmtree(home)
    (mirror / "pictures.zip").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"pictures\.zip has md5"):
        load_dataset("big", "val")


def test_a_collection_is_fetched_by_its_package(home, monkeypatch, tmp_path, capsys):
    calls = []

    def download_rf20vl_full(path):
        calls.append(path)
        if len(calls) == 1:
            raise OSError("connection lost")
        roboflow(Path(path) / "cells")

    monkeypatch.setenv("ROBOFLOW_API_KEY", "")
    assert main(["data", "fetch", "rf20vl"]) == 2 and "ROBOFLOW_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("ROBOFLOW_API_KEY", "k")
    monkeypatch.setitem(sys.modules, "rf100vl", None)
    assert main(["data", "fetch", "rf20vl"]) == 2 and "pip install rf100vl" in capsys.readouterr().err
    package = types.SimpleNamespace(download_rf20vl_full=download_rf20vl_full)
    monkeypatch.setitem(sys.modules, "rf100vl", package)
    assert main(["data", "fetch", "rf20vl"]) == 2 and "connection lost" in capsys.readouterr().err
    assert main(["data", "fetch", "rf20vl"]) == 0 and calls[0] == calls[1]
    assert len(load_dataset("rf20vl/cells", "train")) == 3


def test_two_processes_that_open_one_folder_for_the_first_time(tmp_path, home):
    voc(tmp_path / "set", {None: {f"p{number}": [("cell", 1, 1, 9, 9)] for number in range(60)}})
    code = (
        "import sys; from rfdetr.data.registry import load_dataset\n"
        "data = load_dataset(sys.argv[1], 'train'); print(len(data), data.fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in running]
    assert all(process.returncode == 0 for process in running), results
    assert len({out for out, _ in results}) == 1 and results[0][0].startswith(b"42 ")
    assert len(list((home / "converted").glob("set-*"))) == 1
    assert not list((home / "converted").glob(".*.*/data"))


def test_a_conversion_does_not_depend_on_where_the_folder_lies(tmp_path, home):
    voc(tmp_path / "a" / "set")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (load_dataset(tmp_path / name / "set", "train") for name in "ab")
    assert first.fingerprint == second.fingerprint and first.path == second.path
    assert first.folder == tmp_path / "a" / "set" and second.folder == tmp_path / "b" / "set"


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "file" / "home"))
    voc(tmp_path / "set")
    with pytest.raises(UserError, match=r"file.*RFDETR_DATA"):
        load_dataset(tmp_path / "set")
