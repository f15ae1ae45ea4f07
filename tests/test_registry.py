"""Dataset names and paths; fetching from a mirror or from the source, verified."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from test_voc import add, lists, voc_object

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
    for number in range(4):
        add(root / "SET", f"p{number}", [voc_object("cell", 1, 1, 9, 9)], seed=number)
    lists(root / "SET", train=["p0", "p1"], val=["p2"], test=["p3"])
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
        "converter": "voc",
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
    [converted] = home.iterdir()  # nothing else is left behind
    assert (converted / "LICENSE").read_text() == "MIT"
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
    assert len(list((home / "voc").iterdir())) == 1
    (tree / "SET" / "ImageSets" / "Main" / "train.txt").write_text("p0\n")
    data = load_dataset(tree, "train")
    assert len(data) == 1 and data.name == "mine"


def test_unknown_names(home, tmp_path):
    with pytest.raises(UserError, match=r"unknown dataset 'digts'.*digits.*bccd"):
        load_dataset("digts")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="COCO format"):
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
