import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import training_case
from lightning_fabric import Fabric
from training_case import CONFIG, SPACE, data, network, run

from rfdetr import Arch, SearchSpace, UserError, interrupts
from rfdetr.evaluation.coco import CocoNumbers, CocoResult
from rfdetr.networks import open_network
from rfdetr.training.batches import batches, prepare
from rfdetr.training.checkpoint import load_checkpoint
from rfdetr.training.log import TrainingLog, read_log
from rfdetr.training.loop import Interrupted, TrainingDivergedError, train
from rfdetr.training.precision import processor_flags, resolve_precision
from rfdetr.training.sampling import draw
from rfdetr.training.step import Stepper

CASE = Path(training_case.__file__)


def start(*arguments, launcher=()):
    path = os.pathsep.join(filter(None, [str(CASE.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, *launcher, str(CASE), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def same(a, b, path=""):
    """Equal bit for bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{index}]")
    else:
        assert a == b, path


def same_state(first, second):
    a, b = load_checkpoint(first / "checkpoint.pt"), load_checkpoint(second / "checkpoint.pt")
    same([a.step, a.weights, a.ema, a.optimizer, a.rng], [b.step, b.weights, b.ema, b.optimizer, b.rng])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_a_run_writes_its_log(uninterrupted):
    rows = read_log(uninterrupted)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {Arch.parse(row["arch"]).decoder_layers for row in rows} == {2}
    kinds = {f"{k}{s}" for k in ("loss_ce", "loss_bbox", "loss_giou") for s in ("", "_0", "_enc")}
    assert kinds | {"total", "grad_norm", "lr", "images_per_s", "seconds", "updated"} <= rows[0].keys()
    table = pd.read_csv(uninterrupted / "log.csv")
    assert table["total"].tolist() == pytest.approx([row["total"] for row in rows])
    assert list(table.columns) == list(rows[0])


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, uninterrupted):
    killed = start(tmp_path, "kill=5")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 3
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4, 5]
    run(tmp_path)
    same_state(tmp_path, uninterrupted)
    assert [row["step"] for row in read_log(tmp_path)] == list(range(1, 9))
    assert pd.read_csv(tmp_path / "log.csv")["step"].tolist() == list(range(1, 9))
    losses = [[row["total"] for row in read_log(folder)] for folder in (tmp_path, uninterrupted)]
    assert losses[0] == losses[1]


def test_termination_signal_writes_a_checkpoint_and_exits_with_130(tmp_path, uninterrupted):
    stopped = start(tmp_path, "term=4")
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped after step" in stopped.stderr and "Run the same command again" in stopped.stderr
    assert 4 <= load_checkpoint(tmp_path / "checkpoint.pt").step < 8
    run(tmp_path)
    same_state(tmp_path, uninterrupted)


def test_ctrl_c_in_the_same_process(tmp_path):
    def press(row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as raised:
        train(network(), data(), SPACE, CONFIG, tmp_path, progress=press, accelerator="cpu")
    assert raised.value.code == 130 and load_checkpoint(tmp_path / "checkpoint.pt").step == raised.value.step
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_step_is_not_swallowed(tmp_path, uninterrupted, number):
    def press(row):
        if row["step"] == CONFIG.steps:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(interrupts.Interrupted) as raised, interrupts.interruptible():
        train(network(), data(), SPACE, CONFIG, tmp_path, progress=press, accelerator="cpu")
    assert raised.value.code == 130 and signal.getsignal(number) is before
    same_state(tmp_path, uninterrupted)  # what was done is kept
    assert run(tmp_path).step == CONFIG.steps


def test_more_steps_continue_a_finished_run(tmp_path, uninterrupted):
    run(tmp_path, steps=4)
    run(tmp_path, steps=8)
    same_state(tmp_path, uninterrupted)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert run(tmp_path, steps=8).step == 8
    assert (tmp_path / "checkpoint.pt").read_bytes() == before, "nothing left to do, nothing written"


def test_threads_that_prepare_batches_change_nothing(tmp_path, uninterrupted):
    run(tmp_path, workers=3)
    same_state(tmp_path, uninterrupted)


def test_prepared_steps_come_in_order():
    config = CONFIG.replace(workers=3, accumulate=2)
    for step, found in enumerate(batches(data(), SPACE, config, 5), start=5):
        expected = prepare(data(), SPACE, config, step)
        assert found.archs == expected.archs and found.keys == expected.keys
        assert all(torch.equal(a, b) for a, b in zip(found.images[0], expected.images[0], strict=True))
        assert found.images[0][0].shape == (2, 3, *2 * [found.archs[0].resolution])
    assert step == 7


def weights_after_a_step(config, segmentation=False):
    model = network(dtype=torch.float64, segmentation=segmentation)
    stepper = Stepper(model, config, Fabric(accelerator="cpu", devices=1))
    step_data = prepare(data(), SPACE, config, 0)
    result = stepper(step_data, 0, step_data.objects)
    return result, model.state_dict()


@pytest.mark.parametrize("segmentation", [False, True])
@pytest.mark.parametrize("sampling", ["uniform", "sandwich"])
def test_accumulation_equals_the_large_batch(segmentation, sampling):
    config = CONFIG.replace(batch_size=6, sampling=sampling)
    whole, expected = weights_after_a_step(config, segmentation)
    parts, found = weights_after_a_step(config.replace(batch_size=2, accumulate=3), segmentation)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-9)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-9)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-8, msg=name)


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")
    pair = start(tmp_path / "two", "steps=5", "batch_size=2", "dtype=float64", launcher=launcher)
    assert pair.returncode == 0, pair.stderr[-3000:]
    run(tmp_path / "one", steps=5, batch_size=4, dtype=torch.float64)
    two, one = read_log(tmp_path / "two"), read_log(tmp_path / "one")
    assert [row["arch"] for row in two] == [row["arch"] for row in one]
    for name in ("total", "loss_ce", "loss_giou_enc", "grad_norm"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-6), name
    weights = [load_checkpoint(tmp_path / n / "checkpoint.pt").weights for n in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-4, atol=1e-6, msg=name)


def test_loss_falls_when_a_few_scenes_are_repeated(tmp_path):
    config = CONFIG.replace(
        steps=80,
        batch_size=4,
        lr=4e-3,
        encoder_lr=4e-3,
        clip_norm=1.0,
        augment=False,
        ema_decay=None,
        checkpoint_every=1000,
    )
    result = train(
        network(hidden_dim=32, embed_dim=48),
        data(4),
        Arch(64, 8, 1, 2, 8),
        config,
        tmp_path,
        progress=False,
        accelerator="cpu",
    )
    losses = [row["total"] for row in read_log(tmp_path)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert not result.model.training
    assert {row["arch"] for row in read_log(tmp_path)} == {"r64-p8-w1-d2-q8"}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_divergence_names_step_and_architecture(tmp_path, broken):
    model = network()
    model.class_head.bias.data[0] = broken
    with pytest.raises(TrainingDivergedError, match=r"3 steps in a row up to step 3 \(r\d+-p\d+.* loss"):
        train(
            model, data(), SPACE, CONFIG.replace(max_bad_steps=3), tmp_path, progress=False, accelerator="cpu"
        )
    assert [row["updated"] for row in read_log(tmp_path)] == [False] * len(read_log(tmp_path))


def test_a_step_without_finite_gradients_changes_nothing(tmp_path):
    model = network()
    stepper = Stepper(model, CONFIG, Fabric(accelerator="cpu", devices=1))
    model.class_head.bias.data[0] = math.nan
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not stepper(prepare(data(), SPACE, CONFIG, 0), 0, 5).updated
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_bf16_stays_near_float32():
    config = CONFIG.replace(batch_size=4)
    losses = {}
    for precision in ("fp32", "bf16"):
        stepper = Stepper(
            network(), config.replace(precision=precision), Fabric(accelerator="cpu", devices=1)
        )
        step_data = prepare(data(), SPACE, config, 0)
        losses[precision] = stepper(step_data, 0, step_data.objects)
        assert losses[precision].updated and next(stepper.model.parameters()).dtype == torch.float32
    assert losses["bf16"].losses["total"] == pytest.approx(losses["fp32"].losses["total"], rel=0.05)
    assert losses["bf16"].losses != losses["fp32"].losses


def test_coordinates_keep_full_precision_in_a_mixed_forward_pass():
    model, step_data = network().train(), prepare(data(), SPACE, CONFIG, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(step_data.images[0][0], step_data.archs[0])
    assert output.boxes.dtype == output.encoder.boxes.dtype == torch.float32
    assert output.logits.dtype == torch.bfloat16


def test_fp16_scales_the_loss():
    """Gradients of a float16 pass are scaled back before clipping, so their norm is that of float32."""
    config = CONFIG.replace(batch_size=4)
    norms = {}
    for precision in ("fp32", "fp16"):
        stepper = Stepper(
            network(), config.replace(precision=precision), Fabric(accelerator="cpu", devices=1)
        )
        results = [
            stepper(d, s, d.objects) for s, d in ((s, prepare(data(), SPACE, config, s)) for s in range(1))
        ]
        norms[precision] = results[0].grad_norm
    assert stepper.precision.scaler.is_enabled() and stepper.precision.scaler.get_scale() > 1
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.1)


@pytest.mark.parametrize(
    ("features", "expected"),
    [("fpu amx_bf16 avx512f", "bf16"), ("fpu avx512f amx_bf16x", "fp32"), ("", "fp32")],
)
def test_automatic_precision_on_a_processor(tmp_path, monkeypatch, features, expected):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {features}\n\nprocessor\t: 1\nflags\t\t: {features}\n")
    flags = partial(processor_flags, str(info))
    monkeypatch.setattr("rfdetr.training.precision.processor_flags", flags)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("fp16", torch.device("cpu")) == "fp16"
    assert processor_flags(str(tmp_path / "nothing")) == frozenset()


def test_evaluation_of_both_ends(tmp_path):
    result = train(
        network(),
        data(),
        SPACE,
        CONFIG.replace(steps=2, evaluate_every=1),
        tmp_path,
        val=data(4),
        progress=False,
        accelerator="cpu",
    )
    found = [(row["step"], row["arch"]) for row in result.evaluations]
    assert found == [(step, arch.id) for step in (1, 2) for arch in (SPACE.largest, SPACE.smallest)]
    assert all(0 <= row["AP"] <= 1 for row in result.evaluations)


def train_tiny(folder, model=None, val=None, **changes):
    config = CONFIG.replace(**changes)
    return train(model or network(), data(), SPACE, config, folder, val, progress=False, accelerator="cpu")


def test_the_own_architecture_is_evaluated_and_trained_in_every_second_step(tmp_path):
    own = Arch(48, 16, 1, 1, 4)
    result = train_tiny(
        tmp_path, network(default_arch=own), data(4), steps=5, anchor=own.encoder, evaluate_every=5
    )
    assert [row["arch"] for row in result.evaluations] == [a.id for a in (own, SPACE.largest, SPACE.smallest)]
    drawn = [Arch.parse(row["arch"]).encoder for row in read_log(tmp_path)]
    assert drawn[::2] == [own.encoder] * 3
    free = [draw(SPACE, CONFIG.seed, step)[0].encoder for step in (1, 3)]
    assert drawn[1::2] == free, "the steps between are those of a run without it"
    assert result.model.config.default_arch == own and result.model.origin.anchor == own.encoder


def test_a_default_architecture_that_is_not_trained_gives_way(tmp_path):
    model = network(default_arch=Arch(56, 8, 1, 1, 4))
    assert train_tiny(tmp_path, model, steps=1).model.config.default_arch == SPACE.largest


def test_a_plateau_stops_and_keeps_the_best_weights(tmp_path, monkeypatch):
    """Scores 0.3, 0.5, 0.5, 0.4: two evaluations without a better one after step 2."""
    scores = iter([0.3, 0.5, 0.5, 0.4])
    current = {}

    def scored(model, dataset, arch, **options):
        if arch == SPACE.largest:
            current["value"] = next(scores)
        return CocoResult(CocoNumbers("bbox", {"AP": current["value"]}, {}, 100, 1, "made up"))

    monkeypatch.setattr("rfdetr.evaluation.coco.evaluate", scored)
    options = {"val": data(4), "steps": 8, "evaluate_every": 1, "patience": 2}
    result = train_tiny(tmp_path, **options)
    assert (result.step, result.best_step) == (4, 2)
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "checkpoint.pt")
    assert (best.step, last.step) == (2, 4)
    same(dict(result.model.state_dict()), best.weights)
    same(dict(open_network(tmp_path).state_dict()), best.weights)
    assert pd.read_csv(tmp_path / "evaluations.csv")["AP"].tolist()[::2] == [0.3, 0.5, 0.5, 0.4]
    again = train_tiny(tmp_path, **options)
    assert (again.step, again.best_step) == (4, 2), "nothing left to do, nothing evaluated"
    scores = iter([0.6, 0.1, 0.1])
    longer = train_tiny(tmp_path, **{**options, "patience": 3, "steps": 6})
    assert (longer.step, longer.best_step) == (6, 5), "more patience goes on"


def test_snapshots_are_the_averaged_weights(tmp_path):
    result = train(
        network(), data(), SPACE, CONFIG.replace(steps=4), tmp_path, progress=False, snapshots=(2, 4)
    )
    kept = {step: torch.load(tmp_path / f"step-{step:06d}.pt", weights_only=True) for step in (2, 4)}
    same(kept[4], dict(result.model.state_dict()))
    assert not torch.equal(kept[2]["class_head.bias"], kept[4]["class_head.bias"])


def test_tensorboard_gets_the_rows_or_is_asked_for(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    options = {"progress": False, "tensorboard": True}
    with pytest.raises(UserError, match="pip install tensorboard"):
        train(network(), data(), SPACE, CONFIG.replace(steps=1), tmp_path, **options)
    fake = ModuleType("tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    train(network(), data(), SPACE, CONFIG.replace(steps=2), tmp_path, data(2), **options)
    assert ("train/total", 1) in written and ("train/loss_giou", 2) in written
    assert {(f"val {arch.id}/AP", 2) for arch in (SPACE.largest, SPACE.smallest)} <= set(written)


def test_nothing_of_an_earlier_run_stays_beside_a_new_one(tmp_path):
    train_tiny(tmp_path, val=data(2), steps=1)
    (tmp_path / "best.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes())
    train(network(), data(), SPACE, CONFIG.replace(steps=1), tmp_path, progress=False, resume=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "checkpoint.pt",
        "log.csv",
        "log.jsonl",
        "plan.json",
    }


def test_an_anchor_or_patience_without_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="is no setting of the training grid"):
        train_tiny(tmp_path, anchor=(96, 8, 1))
    with pytest.raises(UserError, match="patience needs a validation set"):
        train_tiny(tmp_path, evaluate_every=1, patience=1)
    assert not any(tmp_path.iterdir())


def test_an_evaluation_that_was_missed_is_made_up_for(tmp_path):
    """Killed between the last checkpoint and the evaluation: the same command again only evaluates."""
    run(tmp_path, steps=2)
    again = train(
        network(),
        data(),
        SPACE,
        CONFIG.replace(steps=2),
        tmp_path,
        val=data(2),
        progress=False,
        accelerator="cpu",
    )
    assert [row["step"] for row in again.evaluations] == [2, 2]
    once_more = train(
        network(),
        data(),
        SPACE,
        CONFIG.replace(steps=2),
        tmp_path,
        val=data(2),
        progress=False,
        accelerator="cpu",
    )
    assert once_more.evaluations == again.evaluations


def test_a_log_that_cannot_be_written_is_reported(tmp_path):
    log = TrainingLog(tmp_path, 0)
    log._files[0] = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(UserError, match=r"/dev/full .*No space left.*goes on from the last checkpoint"):
        log.write({"step": 1})
    log.close()


def test_inputs_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match=r"has 10 classes .* the network has 4"):
        train(network(num_classes=4), data(), SPACE, CONFIG, tmp_path)
    with pytest.raises(UserError, match="no images"):
        train(network(), data().subset(0), SPACE, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="asks for 9 queries"):
        train(network(), data(), replace(SPACE, queries=(9,)), CONFIG, tmp_path)
    with pytest.raises(ValueError, match="asks for 3 decoder layers"):
        train(network(), data(), SearchSpace((64,), (8,), (1,), (3,), (8,)), CONFIG, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_run_of_another_version_of_the_optimiser_is_not_continued(tmp_path):
    """The groups of an older rule for learning rates or decay: one line, and the checkpoint stays."""
    run(tmp_path, steps=1)
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    groups = content["optimizer"]["param_groups"]
    for names in (groups[0]["names"][::-1], None):
        groups[0]["names"] = names
        torch.save(content, path)
        with pytest.raises(UserError, match=r"checkpoint\.pt .* other rules .* --weights"):
            run(tmp_path, steps=2)
    del groups[0]
    torch.save(content, path)
    with pytest.raises(UserError, match="other rules"):
        run(tmp_path, steps=2)


def test_a_half_written_log_line_is_dropped(tmp_path):
    log = TrainingLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "total": 1.0})
    log.close()
    with log.jsonl.open("a") as file:
        file.write('{"step": 4, "tot')
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3]
    TrainingLog(tmp_path, 2).close()
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,total", "1,1.0", "2,1.0"]
