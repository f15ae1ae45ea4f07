import argparse
import hashlib
import http.server
import json
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from published import published_shapes, published_state
from safetensors.torch import save_file

import rfdetr
from rfdetr import PRESETS, Arch, UserError
from rfdetr.data.categories import CategoryMap
from rfdetr.model import downloads
from rfdetr.model.checkpoint_files import read_tensors
from rfdetr.model.config import preset_config
from rfdetr.model.official import published_names


def zeros(config):
    return {name: torch.zeros(shape) for name, shape in published_shapes(config).items()}


@pytest.fixture(scope="module")
def nano_state():
    return published_state(preset_config("nano"), torch.float32)


@pytest.mark.parametrize("name", [n for n in PRESETS if n not in ("2xlarge", "max", "seg-max")])
def test_every_published_configuration_loads(name):
    grid = 37 if name == "base" else preset_config(name).position_grid
    state = zeros(preset_config(name, position_grid=grid))
    model = rfdetr.load_official(name, state)
    report = model.load_report
    assert {e.key for e in report.entries} == set(state)
    assert {e.key for e in report.dropped} == {
        k for k in state if k.endswith(("_kp_active_mask", "mask_token"))
    }
    assert all(e.reason for e in report.dropped)
    assert {e.target for e in report.loaded} == set(model.state_dict())
    assert model.config.default_arch == PRESETS[name].arch
    assert model.config.categories == CategoryMap.official() and not model.training


def test_what_the_file_says_wins_over_the_configuration():
    released = preset_config(
        "seg-large", num_classes=3, queries=200, default_arch=PRESETS["seg-large"].arch.replace(queries=200)
    )
    model = rfdetr.load_official("seg-large", {"model": zeros(released), "epoch": 3})
    assert model.config.queries == 200 and model.config.default_arch.queries == 200
    assert model.config.num_classes == 3 and model.config.categories is None
    assert any("queries is 200" in note for note in model.load_report.notes)
    assert "num_classes is 3" in str(model.load_report)
    assert (
        rfdetr.load_official("xlarge", zeros(preset_config("xlarge", num_classes=366))).config.num_classes
        == 366
    )


def same(model, other):
    assert model.config == other.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_all_file_kinds_give_the_same_network(tmp_path, nano_state):
    model = rfdetr.load_official("nano", nano_state)
    arguments = argparse.Namespace(lr=1e-4, output_dir="out", names=["a", "b"])
    torch.save({"model": nano_state, "args": arguments, "epoch": 12}, tmp_path / "a.pth")
    torch.save(nano_state, tmp_path / "b.pt")
    torch.save({"state_dict": {f"model.{k}": v for k, v in nano_state.items()}}, tmp_path / "c.ckpt")
    save_file(nano_state, tmp_path / "d.safetensors")
    for file in sorted(tmp_path.iterdir()):
        same(model, rfdetr.load_official("nano", file))


def test_saved_transformers_checkpoints_load(tmp_path):
    transformers = pytest.importorskip("transformers")
    from test_parity import transformers_model

    config = preset_config("nano", num_classes=5)
    theirs = transformers_model(config, config.default_arch).float()
    assert isinstance(theirs, transformers.RfDetrForObjectDetection)
    theirs.save_pretrained(tmp_path)
    memory = rfdetr.load_official("nano", theirs.state_dict())
    same(memory, rfdetr.load_official("nano", tmp_path / "model.safetensors"))
    assert memory.load_report.layout == "Transformers"
    keys = {e.key for e in memory.load_report.entries}
    assert keys == set(theirs.state_dict())


def test_a_fixed_size_checkpoint_is_a_supernet(nano_state):
    model = rfdetr.load_official("nano", nano_state)
    for arch in (Arch(160, 10, 4, 1, 50), Arch(128, 16, 1, 0, 20), Arch(144, 12, 2, 2, 100)):
        with torch.no_grad():
            output = model(torch.zeros(1, 3, arch.resolution, arch.resolution), arch)
        assert output.logits.shape == (1, arch.queries, 91) and output.logits.isfinite().all()


def test_kernel_and_positions_can_be_stored_larger(nano_state):
    model = rfdetr.load_official("nano", nano_state, base_patch=20, position_grid=48)
    assert model.backbone.patch_kernel.shape[-1] == 20 and model.backbone.positions.shape[1] == 1 + 48**2
    assert {e.target for e in model.load_report.resized} == {"backbone.patch_kernel", "backbone.positions"}
    assert len(model.load_report.entries) == len(nano_state)


def test_folders_and_shards_load(tmp_path, nano_state):
    model = rfdetr.load_official("nano", nano_state)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    save_file(nano_state, whole / "model.safetensors")
    same(model, rfdetr.load_official("nano", path_or_state_dict=whole))
    keys = sorted(nano_state)
    shards = {"model-00001-of-00002.safetensors": keys[:99], "model-00002-of-00002.safetensors": keys[99:]}
    for name, names in shards.items():
        save_file({key: nano_state[key] for key in names}, parts / name)
    index = {"metadata": {}, "weight_map": {key: name for name, names in shards.items() for key in names}}
    file = parts / "model.safetensors.index.json"
    file.write_text(json.dumps(index))
    for path in (parts, str(file)):
        same(model, rfdetr.load_official("nano", path))
    (parts / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"missing: model-00002-of-00002\.safetensors"):
        rfdetr.load_official("nano", parts)
    file.write_text("[]")
    with pytest.raises(UserError, match="no readable weight_map"):
        rfdetr.load_official("nano", parts)
    with pytest.raises(UserError, match="holds no weights: expected one of"):
        rfdetr.load_official("nano", tmp_path)


def test_what_is_beside_the_weights_is_reported(nano_state):
    wrapped = {f"module.{key}": value for key, value in nano_state.items()}
    content = {"ema_model": {}, "model": wrapped, "args": {"lr": 1e-4}}
    model = rfdetr.load_official("nano", content)
    same(model, rfdetr.load_official("nano", nano_state))
    assert "entries beside the weights, not used: args, ema_model" in model.load_report.notes


def test_half_precision_gives_float32_and_whole_numbers_are_refused(nano_state):
    half = rfdetr.load_official("nano", {k: v.half() for k, v in nano_state.items()})
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    key = "transformer.decoder.layers.0.linear1.weight"
    torch.testing.assert_close(half.decoder.layers[0].fc1.weight.data, nano_state[key].half().float())
    with pytest.raises(UserError, match=f"{key} as torch.int8.*quantised"):
        rfdetr.load_official("nano", {**nano_state, key: nano_state[key].char()})


@pytest.mark.parametrize("classes", [90, 80])
def test_another_number_of_classes_starts_at_the_prior(nano_state, classes):
    names = [f"thing {i}" for i in range(classes)]
    model = rfdetr.load_official("nano", nano_state, num_classes=classes, class_names=names)
    assert model.config.num_classes == classes and model.config.categories.names == tuple(names)
    assert model.class_head.weight.shape == (classes, 256) and not model.training
    for layer in (model.class_head, model.selection.classes):
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full_like(layer.bias, 0.01))
    report = model.load_report
    fresh = {key for key in model.state_dict() if key.startswith(("class_head.", "selection.classes."))}
    assert {e.target for e in report.initialised} == fresh
    assert {e.target for e in report.loaded} == set(model.state_dict()) - fresh
    dropped = {e.key for e in report.dropped if "class layer for 91 classes" in e.reason}
    assert dropped == {k for k in nano_state if "class_embed" in k}
    assert {e.key for e in report.entries if e.action != "initialised"} == set(nano_state)
    unchanged = rfdetr.load_official("nano", nano_state, num_classes=91)
    same(unchanged, rfdetr.load_official("nano", nano_state))


def test_float64_is_kept(nano_state):
    wide = {k: v.double() for k, v in nano_state.items()}
    assert rfdetr.load_official("nano", wide).class_head.weight.dtype == torch.float64


@pytest.mark.parametrize(
    "name, other, hint",
    [
        ("small", "nano", "it fits nano"),
        ("nano", "seg-nano", "it fits seg-nano"),
        ("medium", "large", "it fits large"),
        ("nano", "xlarge", "embed_dim is 768, not 384"),
        ("xlarge", "2xlarge", "it fits 2xlarge"),
    ],
)
def test_another_architecture_is_refused(name, other, hint):
    with pytest.raises(UserError, match=hint):
        rfdetr.load_official(name, zeros(preset_config(other)))


def test_unexplained_missing_and_misshapen_tensors_are_errors(nano_state):
    with pytest.raises(UserError, match=r"no place for, first surprise"):
        rfdetr.load_official("nano", {**nano_state, "surprise": torch.zeros(2)})
    key = "transformer.decoder.layers.1.linear1.weight"
    with pytest.raises(UserError, match=f"missing, first {key}"):
        rfdetr.load_official("nano", {k: v for k, v in nano_state.items() if k != key})
    with pytest.raises(UserError, match=key):
        rfdetr.load_official("nano", {**nano_state, key: torch.zeros(3, 256)})
    with pytest.raises(UserError, match="not finite"):
        rfdetr.load_official("nano", {**nano_state, key: torch.full_like(nano_state[key], torch.nan)})
    with pytest.raises(UserError, match="is no checkpoint of this model"):
        rfdetr.load_official("nano", {"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="no tensor"):
        rfdetr.load_official("nano", {"epoch": 3})
    with pytest.raises(UserError, match="choose one of"):
        rfdetr.load_official("huge", nano_state)


class Attack:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("save", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_not_executed(tmp_path, save):
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    content = {"model": {"x": torch.zeros(1)}, "args": Attack(f"touch {mark}")}
    if save == "pickle":
        file.write_bytes(pickle.dumps(content["args"]))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=save == "zip")
    with pytest.raises(UserError, match="could run code"):
        rfdetr.load_official("nano", file)
    assert not mark.exists()


def test_damaged_files_are_refused(tmp_path):
    state = {"model": {"x": torch.arange(5000.0)}}
    torch.save(state, tmp_path / "whole.pth")
    save_file(state["model"], tmp_path / "whole.safetensors")
    for kind in ("pth", "safetensors"):
        content = (tmp_path / f"whole.{kind}").read_bytes()
        for length in (0, 4, 100, len(content) // 2, len(content) - 10):
            cut = tmp_path / f"cut.{kind}"
            cut.write_bytes(content[:length])
            with pytest.raises(UserError, match="truncated or damaged"):
                rfdetr.load_official("nano", cut)
    (tmp_path / "page.pth").write_text("<html>404 not found</html>")
    with pytest.raises(UserError, match="truncated or damaged"):
        rfdetr.load_official("nano", tmp_path / "page.pth")
    with pytest.raises(UserError, match="there is no checkpoint"):
        rfdetr.load_official("nano", tmp_path / "absent.pth")


def test_a_tampered_file_is_refused(tmp_path, nano_state):
    file = tmp_path / "nano.safetensors"
    save_file(nano_state, file)
    good = hashlib.md5(file.read_bytes()).hexdigest()
    assert rfdetr.load_official("nano", file, checksum=f"md5:{good}").config.queries == 300
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"\x01")
    with pytest.raises(UserError, match="changed or damaged"):
        rfdetr.load_official("nano", file, checksum=f"md5:{good}")
    for source in (nano_state, tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(UserError, match="checksum goes with one file"):
            rfdetr.load_official("nano", source, checksum=f"md5:{good}")


def test_one_changed_bit_is_noticed_without_a_checksum(tmp_path):
    """The records of a `.pth` have checksums of their own, which torch does not look at."""
    file = tmp_path / "flip.pth"
    torch.save({"model": {"x": torch.arange(5000.0)}}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    torch.load(file, weights_only=True)
    with pytest.raises(UserError, match=r"truncated or damaged.*CRC"):
        rfdetr.load_official("nano", file)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_no_damage_gets_past_as_another_error(tmp_path, kind):
    """Changed bits and cuts anywhere: the file is refused with a message, or what it holds is what was
    saved.
    """
    state = {f"a{i}": torch.arange(9.0) + i for i in range(3)}
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save({"model": state, "epoch": 3}, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    read = 0
    for attempt in range(200):
        broken = bytearray(content)
        position = int(rng.integers(len(broken)))
        if attempt % 4 == 0:
            broken = broken[:position]
        else:
            broken[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(broken)
        try:
            tensors, _, _ = read_tensors(file)
        except UserError:
            continue
        read += 1
        if kind == "zip":
            assert tensors.keys() == state.keys()
            assert all(torch.equal(tensors[name], value) for name, value in state.items())
    assert read < 150


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file, with range requests; the first answer can stop half-way."""

    content = b""
    break_first = False
    ranges: list = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        body = self.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).break_first:
            type(self).break_first = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A made-up public file on this machine; the cache is empty."""
    content = os.urandom(300_000)
    handler = type("Handler", (Server,), {"content": content, "ranges": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    entry = {
        "file": "f.pth",
        "url": f"http://127.0.0.1:{server.server_port}/f.pth",
        "md5": hashlib.md5(content).hexdigest(),
    }
    monkeypatch.setenv("RFDETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "manifest", lambda: {"official_checkpoints": {"files": {"nano": entry}}})
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_is_cached_and_repaired(served):
    path = downloads.fetch("official_checkpoints", "nano")
    assert path.read_bytes() == served.content
    assert downloads.fetch("official_checkpoints", "nano") == path and len(served.ranges) == 1
    path.write_bytes(b"tampered")
    assert downloads.fetch("official_checkpoints", "nano").read_bytes() == served.content


def test_download_continues_after_an_interruption(served):
    served.break_first = True
    with pytest.raises(UserError, match="continues where it"):
        downloads.fetch("official_checkpoints", "nano")
    path = downloads.fetch("official_checkpoints", "nano")
    assert path.read_bytes() == served.content
    assert served.ranges[0] is None and 0 < int(served.ranges[1][6:-1]) <= 150_000


def test_a_download_with_another_checksum_is_refused(served):
    served.content = b"something else"
    with pytest.raises(UserError, match="does not have the listed checksum"):
        rfdetr.load_official("nano")
    with pytest.raises(UserError, match="no public file for 'small'"):
        rfdetr.load_official("small")


def test_without_a_network_the_message_says_what_to_do(served, monkeypatch):
    entry = {"file": "f.pth", "url": "http://127.0.0.1:9/f.pth", "md5": "0" * 32}
    monkeypatch.setattr(downloads, "manifest", lambda: {"official_checkpoints": {"files": {"nano": entry}}})
    with pytest.raises(UserError, match=r"Check the network.*or put the file at .*f\.pth"):
        rfdetr.load_official("nano")


def test_the_manifest_lists_configurations_that_exist():
    files = downloads.manifest()["official_checkpoints"]["files"]
    assert set(files) < set(PRESETS)
    assert all(len(entry["md5"]) == 32 and entry["url"].startswith("https://") for entry in files.values())


def test_published_names_are_used_once():
    used = [key for keys in published_names(preset_config("seg-nano")).values() for key in keys]
    assert len(used) == len(set(used))
