import errno
import os

import pytest
import torch
from training_case import CONFIG, MODEL, SPACE, data, network, run

from rfdetr import RFDETR, SearchSpace, UserError
from rfdetr.model.config import ModelConfig
from rfdetr.training import checkpoint as module
from rfdetr.training.checkpoint import load_checkpoint, model_from_checkpoint
from rfdetr.training.loop import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder, steps=3)


def test_it_holds_everything(finished):
    folder, result = finished
    found = load_checkpoint(folder / "checkpoint.pt")
    assert found.step == 3 and found.space == SPACE and found.config == CONFIG.replace(steps=3)
    assert found.model == ModelConfig(**MODEL, default_arch=SPACE.largest)
    assert (
        found.provenance["data"] == data().fingerprint
        and {"torch", "numpy", "python"} <= found.provenance["versions"].keys()
    )
    assert [c["name"] for c in found.provenance["categories"]] == list(data().class_names)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [], "no temporary file is left"
    assert result.checkpoint == folder / "checkpoint.pt"


def test_network_with_and_without_averaging(finished):
    folder, result = finished
    averaged = model_from_checkpoint(folder / "checkpoint.pt")
    trained = model_from_checkpoint(folder / "checkpoint.pt", ema=False)
    assert not averaged.training and not torch.equal(averaged.class_head.weight, trained.class_head.weight)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(averaged(images, SPACE.largest).logits, result.model(images, SPACE.largest).logits)


@pytest.mark.parametrize("spoil", ["truncated", "empty", "text", "other"])
def test_files_that_are_no_checkpoint(finished, tmp_path, spoil):
    content = (finished[0] / "checkpoint.pt").read_bytes()
    path = tmp_path / "bad.pt"
    if spoil == "other":
        torch.save({"model": {"a": torch.zeros(1)}}, path)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[spoil])
    with pytest.raises(UserError, match=r"bad\.pt"):
        load_checkpoint(path)
    with pytest.raises(UserError, match=r"there is no checkpoint .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"format": module.FORMAT, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_a_network_of_other_sizes_is_refused(finished):
    folder, _ = finished
    other = RFDETR(**{**MODEL, "ffn_dim": 48, "queries": 9})
    with pytest.raises(UserError, match=r"another network: .*queries is 8, here 9.*ffn_dim is 32, here 48"):
        load_checkpoint(folder / "checkpoint.pt", expect=other.config)
    with pytest.raises(UserError, match="another network"):
        train(other, data(), SPACE, CONFIG, folder, progress=False, accelerator="cpu")


def test_another_recipe_space_or_dataset_is_refused(finished):
    folder, _ = finished
    space = SearchSpace((48,), (8,), (1,), (2,), (8,))
    for arguments, message in (
        ((data(), SPACE, CONFIG.replace(lr=2.0)), "lr is 0.001, here 2.0"),
        ((data(), SPACE, CONFIG.replace(schedule="linear")), "schedule is 'none'"),
        ((data(), space, CONFIG), "resolutions is"),
        ((data(size=11), SPACE, CONFIG), "other data"),
    ):
        with pytest.raises(UserError, match=message):
            train(network(), *arguments, folder, progress=False, accelerator="cpu")


def test_starting_anew_replaces_the_run(tmp_path):
    run(tmp_path, steps=3)
    train(
        network(),
        data(),
        SPACE,
        CONFIG.replace(steps=1, lr=2e-3),
        tmp_path,
        resume=False,
        progress=False,
        accelerator="cpu",
    )
    found = load_checkpoint(tmp_path / "checkpoint.pt")
    assert found.step == 1 and found.config.lr == 2e-3
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_fine_tuning_starts_from_a_checkpoint_with_another_recipe(finished, tmp_path):
    model = model_from_checkpoint(finished[0] / "checkpoint.pt")
    before = model.class_head.weight.detach().clone()
    train(model, data(), SPACE.largest, CONFIG.replace(steps=1), tmp_path, progress=False, accelerator="cpu")
    step = (model.class_head.weight - before).abs().max()
    assert 0 < step < 3 * CONFIG.lr


def test_a_full_disk_keeps_the_earlier_checkpoint(finished, tmp_path, monkeypatch):
    run(tmp_path, steps=3)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(content, file):
        """What torch does when a write fails: its own error, with the reason behind it."""
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598") from None

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(UserError, match=r"no space left to write .*checkpoint\.pt"):
        run(tmp_path, steps=6)
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    run(tmp_path, steps=6)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 6
