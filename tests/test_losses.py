import json
import math
import zlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, TINY_ARCH
from hypothesis import given
from hypothesis import strategies as st
from test_matcher import target

import rfdetr
from rfdetr.data.dataset import Target
from rfdetr.model.official import from_published, published_names
from rfdetr.model.outputs import Output, Prediction
from rfdetr.sources import package_root
from rfdetr.training import points
from rfdetr.training.boxes import overlaps
from rfdetr.training.losses import Criterion
from rfdetr.training.targets import pack_targets

DATA = package_root() / "rfdetr" / "paper" / "parity"
GROUPS = TINY["groups"]


def repeatable_weight(name, shape):
    """The weight rule of the reference outputs: values that depend on the published name alone."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) >= 2:
        z = z / math.sqrt(shape[-1] if len(shape) == 3 else math.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z if name.endswith(("weight", "lambda1", "gamma")) else 0.1 * z
    return z.double()


def test_one_training_step_equals_the_published_implementation():
    """Every loss and fifteen gradient norms of nano with 13 groups, in float64."""
    reference = json.loads((DATA / "nano-train.json").read_text())
    shapes = json.loads((DATA / "nano.keys.json").read_text())
    model = rfdetr.build("nano").double().train()
    state = {name: repeatable_weight(name, shape) for name, shape in shapes.items() if math.prod(shape)}
    model.load_state_dict(from_published(state, model.config))
    images = torch.randn(
        (3, 3, 384, 384), generator=torch.Generator().manual_seed(reference["input_seed"])
    ).double()
    targets = [
        Target(
            torch.tensor(t["labels"], dtype=torch.long),
            torch.tensor(t["boxes_cxcywh"], dtype=torch.float64).reshape(-1, 4),
            None,
            index,
            (384, 384),
        )
        for index, t in enumerate(reference["targets"])
    ]
    losses = Criterion(reference["groups"])(model(images), targets)
    losses["total"].backward()
    for name, expected in {**reference["losses"], "total": reference["total"]}.items():
        assert losses[name].item() == pytest.approx(expected, rel=1e-4), name
    parameters = dict(model.named_parameters())
    gradients = {}
    for ours, published in published_names(model.config).items():
        gradient = parameters[ours].grad
        parts = (
            gradient.chunk(len(published))
            if "qkv" in ours
            else gradient
            if len(published) > 1
            else [gradient]
        )
        gradients.update(zip(published, parts, strict=True))
    for name, expected in reference["grad_norm"].items():
        assert gradients[name].norm().item() == pytest.approx(expected, rel=1e-4), name


def case(counts, masks=False, seed=0, layers=2, dtype=torch.float64):
    """Random predictions that require gradients, and targets."""
    g = torch.Generator().manual_seed(seed)
    batch, queries, dim, side = len(counts), GROUPS * 6, 5, 8
    predictions = []
    for _ in range(layers + 1):
        logits = torch.randn(batch, queries, 4, generator=g, dtype=dtype).requires_grad_()
        boxes = (torch.rand(batch, queries, 4, generator=g, dtype=dtype) * 0.5 + 0.2).requires_grad_()
        extra = {}
        if masks:
            extra = {
                "mask_features": torch.randn(
                    batch, dim, side, side, generator=g, dtype=dtype
                ).requires_grad_(),
                "mask_queries": torch.randn(batch, queries, dim, generator=g, dtype=dtype).requires_grad_(),
                "mask_bias": torch.randn(1, generator=g, dtype=dtype).requires_grad_(),
            }
        predictions.append(Prediction(logits, boxes, **extra))
    targets = [
        target(n, g, masks=torch.rand(n, 32 + 4 * i, 32, generator=g) > 0.6 if masks else None)
        for i, n in enumerate(counts)
    ]
    return Output(predictions[-1], torch.zeros(()), predictions[:-1]), targets


def test_names_weights_and_total():
    output, targets = case([2, 1], layers=3)
    losses = Criterion(GROUPS)(output, targets)
    kinds = ["loss_ce", "loss_bbox", "loss_giou"]
    assert set(losses) == {k + s for k in kinds for s in ("", "_0", "_1", "_enc")} | {"total"}
    weights = dict(zip(kinds, (1, 5, 2), strict=True))
    total = sum(weights[k] * losses[k + s].item() for k in kinds for s in ("", "_0", "_1", "_enc"))
    assert losses["total"].item() == pytest.approx(total)


def test_a_single_layer_and_depth_zero():
    output, targets = case([2], layers=1)
    assert {"loss_ce", "loss_ce_enc"} <= set(Criterion(GROUPS)(output, targets))
    output.layers = []
    losses = Criterion(GROUPS)(output, targets)
    assert "loss_ce_enc" in losses and "loss_ce" not in losses


def test_label_loss_is_the_formula():
    """One query, one target: t = p^0.25 iou^0.75 on the class, p^2 on the others."""
    output, targets = case([1], layers=0, seed=1)
    criterion = Criterion(1)
    output.encoder = Prediction(output.encoder.logits[:, :1], output.encoder.boxes[:, :1])
    x, label = output.encoder.logits[0, 0], targets[0].labels[0]
    p = x.sigmoid()
    t = p[label] ** 0.25 * overlaps(output.encoder.boxes[0, 0], targets[0].boxes[0].double())[0] ** 0.75
    assert t > 0.01
    expected = -t * p[label].log() - (1 - t) * (1 - p[label]).log()
    expected += sum(-(p[k] ** 2) * (1 - p[k]).log() for k in range(4) if k != label)
    assert criterion(output, targets)["loss_ce_enc"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("masks", ["", "uniform", "boxes"])
def test_order_of_objects_does_not_matter(masks):
    output, targets = case([4, 3], bool(masks))
    turned = [
        replace(t, labels=t.labels.flip(0), boxes=t.boxes.flip(0), masks=t.masks.flip(0) if masks else None)
        for t in targets
    ]
    criterion = Criterion(GROUPS, mask_sampling=masks or "boxes")
    first, second = criterion(output, targets), criterion(output, turned)
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects(masks):
    output, targets = case([0, 0], masks)
    losses = Criterion(GROUPS)(output, targets)
    assert losses["loss_bbox"] == 0 and losses["loss_ce"] > 0
    losses["total"].backward()
    last = output.layers[-1]
    assert last.logits.grad.abs().sum() > 0
    leaves = [last.boxes, *([last.mask_features, last.mask_queries, last.mask_bias] if masks else [])]
    assert all((leaf.grad == 0).all() for leaf in leaves)


@pytest.mark.parametrize("masks", ["", "uniform", "boxes"])
def test_parts_of_a_batch_add_up_to_the_batch(masks):
    output, targets = case([3, 0, 5, 1], bool(masks))
    criterion = Criterion(GROUPS, mask_sampling=masks or "boxes")
    keys = [(7, 1, slot) for slot in range(4)]
    normaliser = 9 * GROUPS
    whole = criterion(output, targets, normaliser, keys)

    def part(prediction, where):
        fields = (prediction.logits, prediction.boxes, prediction.mask_features, prediction.mask_queries)
        return Prediction(*(f[where] if f is not None else None for f in fields), prediction.mask_bias)

    halves = [
        criterion(
            Output(part(output.encoder, where), output.projector, [part(p, where) for p in output.layers]),
            targets[where],
            normaliser,
            keys[where],
        )
        for where in (slice(0, 1), slice(1, 4))
    ]
    for name in whole:
        torch.testing.assert_close(whole[name], halves[0][name] + halves[1][name], msg=name)


def test_normaliser_counts_every_group():
    output, targets = case([3, 2])
    default = Criterion(GROUPS)(output, targets)["loss_bbox"]
    torch.testing.assert_close(default, Criterion(GROUPS)(output, targets, 5 * GROUPS)["loss_bbox"])


def test_half_precision_predictions_are_computed_in_float32():
    output, targets = case([2], dtype=torch.float32)
    for p in [*output.layers, output.encoder]:
        p.logits, p.boxes = p.logits.bfloat16(), p.boxes.bfloat16()
    assert Criterion(GROUPS)(output, targets)["total"].dtype == torch.float32


def test_sampled_embedding_gives_the_sampled_mask():
    output, _ = case([1, 1], masks=True)
    plan = points.plan_points([(0,), (1,)], 6, torch.device("cpu"), torch.float64)
    sampled = points.sample_features(output.encoder, plan.points)
    direct = F.grid_sample(
        output.encoder.masks, (2 * plan.points - 1).unsqueeze(1), padding_mode="border", align_corners=False
    )
    ours = output.encoder.mask_queries @ sampled + output.encoder.mask_bias
    torch.testing.assert_close(ours, direct.squeeze(2))


def test_points_depend_on_the_key_alone():
    plan = points.plan_points([(1, 2, 3), (1, 2, 4)], 5, torch.device("cpu"), torch.float64)
    again = points.plan_points([(1, 2, 4)], 5, torch.device("cpu"), torch.float64)
    assert torch.equal(plan.points[1], again.points[0])
    assert not torch.equal(plan.points[0], plan.points[1])
    assert plan.points.shape == (2, 20, 2) and plan.points.min() >= 0 and plan.points.max() < 1


def small_object(sampling, keys=64):
    """How many of the 144 points of a mask see an object of 1 % of the image, per image."""
    boxes = torch.tensor([0.3, 0.6, 0.1, 0.1], dtype=torch.float64).expand(keys, 1, 4)
    plan = points.plan_points(
        [(7, k) for k in range(keys)],
        144,
        torch.device("cpu"),
        torch.float64,
        boxes if sampling == "boxes" else None,
    )
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    logits = torch.zeros(keys, plan.points.shape[1], dtype=torch.float64)
    where = plan.points[torch.arange(keys)[:, None], points.choose_points(logits, plan)]
    if plan.own is not None:
        where = torch.cat([where, plan.own[:, 0]], 1)
    assert where.shape == (keys, 144, 2)
    return ((where > low) & (where < high)).all(-1).sum(-1).double()


def test_small_objects_have_points_in_their_own_box():
    assert small_object("uniform").mean() < 3
    seen = small_object("boxes")
    assert seen.min() >= 25 and seen.mean() > 40


@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.integers(1, 400),
    st.integers(0, 2**31),
)
def test_own_points_lie_in_the_image_and_near_the_box(box, count, key):
    boxes = torch.tensor(box, dtype=torch.float64).reshape(1, 1, 4)
    plan = points.plan_points([(key,)], count, torch.device("cpu"), torch.float64, boxes)
    assert plan.points.shape[1] == 4 * plan.count
    own = 0 if plan.own is None else plan.own.shape[2]
    assert plan.count + own == count and own == min(64, count // 2)
    if plan.own is not None:
        assert plan.own.min() >= 0 and plan.own.max() <= 1
        reach = (0.6 * boxes[..., 2:]).unsqueeze(2) + 1e-9
        centre = boxes[..., :2].unsqueeze(2)
        assert ((plan.own >= (centre - reach).clamp(0, 1)) & (plan.own <= (centre + reach).clamp(0, 1))).all()
    shared = points.plan_points([(key,)], plan.count, torch.device("cpu"), torch.float64)
    assert torch.equal(plan.points, shared.points) and shared.own is None


def test_points_in_boxes_teach_a_small_mask():
    """One object of four by four pixels of 64: from the same start, its own points find it, points all over
    the image leave the mask empty.
    """
    truth = torch.zeros(1, 64, 64, dtype=torch.bool)
    truth[0, 30:34, 20:24] = True
    box = torch.tensor([[22 / 64, 32 / 64, 4 / 64, 4 / 64]])
    target = Target(torch.zeros(1, dtype=torch.long), box, truth, 0, (64, 64))
    inside = {}
    for sampling in ("uniform", "boxes"):
        logits = torch.full((1, 1, 16, 16), -2.0, requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=20.0)
        criterion = Criterion(1, points=16, mask_sampling=sampling)
        for step in range(20):
            prediction = Prediction(
                torch.zeros(1, 1, 1), box[None], logits, torch.ones(1, 1, 1), torch.zeros(1)
            )
            losses = criterion(Output(prediction, torch.zeros(())), [target], keys=[(step,)])
            (losses["loss_mask_ce_enc"] + losses["loss_mask_dice_enc"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        fine = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)[0] > 0
        inside[sampling] = float((fine & truth).sum() / (fine | truth).sum())
    assert inside["boxes"] > 0.5 > 2 * inside["uniform"]


def test_uncertain_points_are_preferred():
    plan = points.plan_points([(0,)], 8, torch.device("cpu"), torch.float64)
    logits = torch.arange(1, 33, dtype=torch.float64)[None]
    chosen = points.choose_points(logits, plan)[0].tolist()
    assert sorted(chosen) == [0, 1, 2, 3, 4, 5, 24, 25]


def test_masks_are_read_at_the_nearest_pixel():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[1, 2, 5] = True
    first = Target(
        torch.zeros(1, dtype=torch.long), torch.rand(1, 4), torch.ones(1, 3, 3, dtype=torch.bool), 0, (3, 3)
    )
    second = Target(torch.zeros(2, dtype=torch.long), torch.rand(2, 4), masks, 1, (4, 6))
    packed = pack_targets([first, second], torch.device("cpu"), torch.float64, masks=True)
    where = torch.tensor([[5.5 / 6, 2.5 / 4], [4.5 / 6, 2.5 / 4], [1.0, 0.6]], dtype=torch.float64)
    read = packed.sample_masks(torch.tensor([1, 0, 0]), torch.tensor([1, 0, 1]), where.expand(3, 3, 2))
    assert read.tolist() == [[1, 0, 1], [1, 1, 1], [0, 0, 0]]


def test_perfect_masks_have_a_small_loss():
    truth = (torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    entropy, dice = points.point_losses((truth * 2 - 1) * 20, truth)
    assert entropy.max() < 1e-6 and dice.max() < 1e-6
    wrong_entropy, wrong_dice = points.point_losses((1 - truth * 2) * 20, truth)
    assert wrong_entropy.min() > 10 and wrong_dice.min() > 0.9


def test_masks_are_needed_for_a_mask_head():
    output, targets = case([1], masks=True)
    with pytest.raises(ValueError, match="has 1 objects but no masks"):
        Criterion(GROUPS)(output, [replace(targets[0], masks=None)])


def test_fresh_head_starts_at_the_focal_prior():
    """Initial class probability 0.01: the first loss is small, whatever the number of classes."""
    torch.manual_seed(0)
    model = rfdetr.RFDETR(**{**TINY, "num_classes": 90}).train()
    for head in (model.class_head, model.selection.classes):
        torch.testing.assert_close(head.bias.sigmoid(), torch.full_like(head.bias, 0.01))
    with torch.no_grad():
        output = model(torch.randn(2, 3, 64, 64), TINY_ARCH)
        targets = [target(3, torch.Generator().manual_seed(i), classes=90) for i in range(2)]
        assert Criterion(GROUPS)(output, targets)["loss_ce"] < 10
