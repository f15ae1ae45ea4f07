import itertools

import numpy as np
import pytest
import torch
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.data.dataset import Target
from rfdetr.training.boxes import overlaps
from rfdetr.training.matcher import MatchCosts, label_cost, match, pair_costs
from rfdetr.training.targets import pack_targets

GROUPS = TINY["groups"]


def target(count, generator, classes=4, masks=None):
    boxes = torch.rand(count, 4, generator=generator) * 0.5 + 0.2
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Target(labels, boxes, masks, 0, (64, 64))


def random_case(counts, layers=2, groups=GROUPS, size=5, seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    targets = [target(count, generator, classes) for count in counts]
    logits = torch.randn(layers, len(counts), groups * size, classes, generator=generator).double()
    boxes = torch.rand(layers, len(counts), groups * size, 4, generator=generator).double() * 0.5 + 0.2
    return logits, boxes, pack_targets(targets, logits.device, torch.float64)


def pairs(matches):
    return set(
        zip(*(t.tolist() for t in (matches.layer, matches.image, matches.query, matches.target)), strict=True)
    )


@given(counts=st.lists(st.integers(0, 8), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_all_at_once_equals_one_by_one_and_is_optimal(counts, seed):
    logits, boxes, packed = random_case(counts, seed=seed)
    found = match(logits, boxes, packed, GROUPS)
    one_by_one = set()
    for layer, image, group in itertools.product(range(2), range(len(counts)), range(GROUPS)):
        part = slice(group * 5, group * 5 + 5)
        alone = pack_targets(
            [
                Target(
                    packed.labels[image, : counts[image]],
                    packed.boxes[image, : counts[image]],
                    None,
                    0,
                    (1, 1),
                )
            ],
            logits.device,
            torch.float64,
        )
        single = match(logits[layer, image, part][None, None], boxes[layer, image, part][None, None], alone)
        one_by_one |= {(layer, image, q + group * 5, t) for _, _, q, t in pairs(single)}
        assert len(single.query) == min(counts[image], 5)
    assert pairs(found) == one_by_one
    assert len(found.query) == 2 * found.per_layer


def test_the_assignment_is_the_cheapest_one():
    logits, boxes, packed = random_case([3], layers=1, groups=1)
    cost = pair_costs(logits, boxes, packed, MatchCosts())[0, 0].numpy()
    found = match(logits, boxes, packed)
    best = min(
        (sum(cost[q, t] for t, q in enumerate(order)) for order in itertools.permutations(range(5), 3)),
        default=0,
    )
    assert cost[found.query.numpy(), found.target.numpy()].sum() == pytest.approx(best)


def test_cost_is_the_published_formula():
    """Written out for one query and one target."""
    logits, boxes, packed = random_case([1], layers=1, groups=1, size=1)
    x, box = logits[0, 0, 0, packed.labels[0, 0]].item(), boxes[0, 0, 0]
    p = 1 / (1 + np.exp(-x))
    focal = 0.25 * (1 - p) ** 2 * -np.log(p) - 0.75 * p**2 * -np.log(1 - p)
    giou = overlaps(box, packed.boxes[0, 0])[1].item()
    expected = 2 * focal + 5 * (box - packed.boxes[0, 0]).abs().sum().item() - 2 * giou
    assert pair_costs(logits, boxes, packed, MatchCosts()).item() == pytest.approx(expected)
    assert label_cost(logits, packed.labels[None]).item() == pytest.approx(focal)


def test_overlaps_of_known_boxes():
    a = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.6, 0.2, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]], dtype=torch.float64)
    iou, giou = overlaps(a, b)
    assert iou.tolist() == pytest.approx([1, 0, 0])
    # Two squares of 0.2 side by side with a gap of 0.2: hull 0.6 x 0.2, a third of it empty.
    assert giou.tolist() == pytest.approx([1, -1 / 3, 0])
    assert all(torch.isfinite(t).all() for t in overlaps(torch.zeros(2, 4), torch.zeros(2, 4)))


def test_no_objects_and_more_objects_than_queries():
    logits, boxes, packed = random_case([0, 0])
    assert match(logits, boxes, packed, GROUPS).per_layer == 0
    logits, boxes, packed = random_case([9, 0, 2])
    found = match(logits, boxes, packed, GROUPS)
    assert found.per_layer == GROUPS * (5 + 2)
    assert len({p[:3] for p in pairs(found)}) == 2 * found.per_layer, "no query is used twice"
    assert len({(p[0], p[1], p[2] // 5, p[3]) for p in pairs(found)}) == 2 * found.per_layer, (
        "nor a target in a group"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_broken_predictions_do_not_stop_the_matching(bad):
    logits, boxes, packed = random_case([3], layers=1, groups=1)
    boxes[0, 0, 2] = bad
    logits[0, 0, 1] = bad
    found = match(logits, boxes, packed)
    assert found.per_layer == 3
    assert set(found.query.tolist()) == {0, 3, 4}, "broken queries are the last choice"


def test_queries_must_divide_into_groups():
    logits, boxes, packed = random_case([1], groups=1)
    with pytest.raises(ValueError, match="5 queries do not divide into 2 groups"):
        match(logits, boxes, packed, 2)
