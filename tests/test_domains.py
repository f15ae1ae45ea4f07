"""The miniature benchmark: packed pictures, mixtures, a whole run on two embedded domains, and the analysis
on made numbers.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from study_parts import perform_all

from rfdetr.data.registry import load_dataset
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation.bootstrap import Matches, image_weights
from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments import ch09_data as data
from rfdetr.experiments import ch09_domains as domains
from rfdetr.experiments import ch09_shown
from rfdetr.experiments.base import kept, per_image
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.base.studies import Study
from rfdetr.experiments.ch09_study import STUDY

SMOKE = domains.SIZES["smoke"]


@pytest.fixture
def folder(tmp_path):
    """A COCO folder: pictures of two sizes, one without objects, a crowd region."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        images, annotations = [], []
        (tmp_path / "set" / split).mkdir(parents=True)
        for i, (w, h) in enumerate([(200, 100), (60, 80), (90, 90)]):
            Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(
                tmp_path / "set" / split / f"{i}.png"
            )
            images.append({"id": 10 + i, "file_name": f"{i}.png", "width": w, "height": h})
        for i, (image, box, crowd) in enumerate(
            [(10, [20, 10, 100, 50], 0), (10, [0, 0, 50, 50], 1), (11, [5, 5, 30, 40], 0)]
        ):
            row = {"id": i + 1, "image_id": image, "category_id": 7, "bbox": box, "iscrowd": crowd}
            annotations.append({**row, "area": box[2] * box[3]})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "thing"}, {"id": 9, "name": "other"}],
        }
        (tmp_path / "set" / split / "_annotations.coco.json").write_text(json.dumps(content))
    return tmp_path / "set"


def test_packed_pictures_are_smaller_and_their_objects_the_same(folder, tmp_path):
    splits = [load_dataset(folder, split, cache_side=50, masks=False) for split in ("train", "val")]
    data.pack(splits, tmp_path / "a.zip")
    data.pack(splits, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    packed, source = data.Packed(tmp_path / "a.zip", "train"), load_dataset(folder, "train", masks=False)
    assert len(packed) == 3 and packed.class_names == source.class_names and not packed.has_masks
    assert packed.coco["annotations"] == splits[0].coco["annotations"]
    for index in range(3):
        (picture, target), (whole, truth) = packed[index], source[index]
        assert max(picture.shape[:2]) == 50 and max(whole.shape[:2]) > 50
        assert target.size == truth.size and target.image_id == truth.image_id
        torch.testing.assert_close(target.boxes, truth.boxes)
        assert target.labels.equal(truth.labels)
    found = data.facts([packed])
    assert found["objects"] == 2 and found["most_objects"] == 1 and found["classes"] == 2
    assert found["objects_per_image"] == pytest.approx(2 / 3)
    with pytest.raises(IndexError):
        packed[3]


def test_a_mixture_joins_classes_by_name():
    parts = [scenes(name, "train", size=4, canvas=64) for name in ("digits", "crowd", "colours")]
    mixture = data.Mixture(parts, [1, 2, 1])
    assert len(mixture) == 16 and mixture.num_classes == 11 and mixture.flip == 0
    names = [c["name"] for c in mixture.coco["categories"]]
    counts = pd.Series([a["image_id"] for a in mixture.coco["annotations"]]).value_counts()
    for index, (part, place) in enumerate([(0, 0), (0, 3), (1, 0), (1, 3), (1, 0), (2, 1)]):
        at = [0, 3, 4, 7, 8, 13][index]
        picture, target = mixture[at]
        wanted, truth = parts[part][place]
        assert np.array_equal(picture, wanted) and target.image_id == at + 1
        assert counts[at + 1] == len(truth) == len(target)
        assert [names[i] for i in target.labels] == [parts[part].class_names[i] for i in truth.labels]
    assert mixture.fingerprint != data.Mixture(parts).fingerprint


def test_what_is_kept_per_picture_gives_the_same_intervals():
    dataset = scenes("digits", "test", size=7, canvas=64)
    rng, found = np.random.default_rng(0), []
    for index in range(7):
        target = dataset[index][1]
        low, high = (
            target.boxes[:, :2] - target.boxes[:, 2:] / 2,
            target.boxes[:, :2] + target.boxes[:, 2:] / 2,
        )
        boxes = torch.cat([low, high], 1) * 64 + torch.from_numpy(rng.normal(0, 1.5, (len(target), 4)))
        extra = torch.rand(3, 4, generator=torch.Generator().manual_seed(index)) * 32
        extra[:, 2:] += extra[:, :2] + 1
        boxes = torch.cat([boxes, extra])
        labels = torch.cat([target.labels, torch.tensor([0, 1, 2])])
        scores = torch.from_numpy(rng.random(len(boxes)))
        found.append({"image_id": index + 1, "scores": scores, "labels": labels, "boxes": boxes})
    weights = image_weights(7, 30, 0)
    first = Matches(dataset, found)
    second = Matches(dataset, [{**f, "scores": f["scores"].flip(0)} for f in found])
    arrays = per_image.joined([per_image.packed(m) for m in (first, second, first)])
    assert sum(name.startswith("objects-") for name in arrays) == 1
    for number, matches in enumerate((first, second, first)):
        np.testing.assert_array_equal(per_image.one_of(arrays, number).ap(weights), matches.ap(weights))
    assert first.ap(weights).mean() > 0.05 and not np.array_equal(first.ap(weights), second.ap(weights))


def test_choices_stay_within_the_targets():
    sizes = domains.SIZES["cpu"]
    cost, limits = domains.operations(sizes), domains.limits(sizes)
    names = [arch.id for arch in domains.archs_of(sizes.search)]
    assert list(limits) == ["N", "S", "M"] and limits["N"] < limits["S"] < limits["M"]
    rng = np.random.default_rng(0)
    ap = rng.random(len(names))
    ap[rng.integers(len(names), size=200)] = np.nan
    for target, name in domains.chosen(ap, sizes).items():
        allowed = cost <= limits[target]
        assert allowed[names.index(name)] and ap[names.index(name)] == np.nanmax(ap[allowed])
    # Of equals the cheapest.
    assert set(domains.chosen(np.ones(len(names)), sizes).values()) == {names[int(cost.argmin())]}


def test_the_plan_has_every_domain_and_no_part_before_what_it_needs():
    parts = domains.parts(PROFILES["cpu"], 0)
    seen = set()
    for part in parts:
        assert set(part.needs) <= seen, part.name
        seen.add(part.name)
    assert len(domains.REAL) == len(set(domains.REAL)) == 14
    for domain in (*domains.REAL, *domains.EMBEDDED):
        for prefix in ("first", "seed1", "seed2"):
            assert {f"{prefix}-{kind}-{domain}" for kind in ("tune", "alone", "scratch")} <= seen
    bases = {part.name: part.options["real"] for part in parts if part.call.endswith("base_part")}
    assert bases["base"] == []
    assert all(
        len(real) == 13 and name.removeprefix("prior-base-") not in real
        for name, real in bases.items()
        if real
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    root = tmp_path_factory.mktemp("domains")
    study = Study("fourteen-domains", "smoke", domains.parts, STUDY.collect, STUDY.modules)
    store = Store(root / "store")
    with pytest.raises(UserError, match="no domain is done yet"):
        study.keep(root / "none", 0, store)
    perform_all(study.task(0, store))
    study.keep(root / "fourteen-domains", 0, store)
    return kept.load("fourteen-domains", root)


def test_a_whole_run(smoke):
    tests, grid = smoke.tables["tests"], smoke.tables["grid"]
    assert set(tests["domain"]) == {"colours", "crowd"} and set(tests["seed"]) == {0, 1}
    wanted = {"nas", "fixed", "nas_tuned", "fixed_tuned", "nas_continued", "fixed_continued"}
    assert wanted | {"scratch_nas", "scratch_fixed", "epochs"} == set(tests["kind"])
    whole = tests[tests["kind"] != "epochs"].groupby(["kind", "domain", "seed"]).size()
    assert (whole == 3).all() and len(whole) == 8 * 2 * 2
    cost = grid.set_index("arch")["gflops"]
    for target, limit in smoke.record["limits"].items():
        assert (cost[tests.loc[tests["target"] == target, "arch"]] <= limit * (1 + 1e-5)).all()
    # The grids, the tests and what is kept per picture say the same.
    order = {name: i for i, name in enumerate(grid["arch"])}
    per_picture = {
        name.removeprefix("per-image-"): values
        for name, values in smoke.arrays.items()
        if name.startswith("per-image-")
    }
    ones = np.ones((1, SMOKE.few[2]))
    for number, row in enumerate(tests.itertuples()):
        assert per_image.one_of(per_picture, number).ap(ones)[0] == pytest.approx(row.AP, abs=1e-5)
        if row.kind in ("nas", "fixed"):
            ap = analysis.grid_of(smoke, "test", row.domain, row.seed)[order[row.arch]]
            assert ap == pytest.approx(row.AP, abs=2e-5)
    trainings = smoke.tables["trainings"]
    assert len(trainings) == 2 * 2 * 2 and (trainings["seconds"] >= 0).all()
    assert (trainings["steps"] == SMOKE.steps).all() and set(trainings["domain"]) == {"colours", "crowd"}
    assert smoke.network().config.num_classes == 13
    assert smoke.tables["domains"].set_index("domain").loc["crowd", "objects_per_image"] > 10
    assert smoke.record["missing"] == []
    # What is shown beside the test pictures: places inside them, and of the networks that were chosen.
    shown = smoke.tables["detections"]
    assert set(zip(shown["kind"], shown["target"], strict=True)) <= set(ch09_shown.SHOWN)
    assert set(shown["domain"]) <= {"colours"} and shown["image"].between(0, SMOKE.few[2] - 1).all()
    assert shown[["left", "top", "right", "bottom"]].to_numpy().min(initial=0) >= 0
    assert (shown["left"] <= shown["right"]).all() and (shown["score"] >= ch09_shown.LEAST - 1e-3).all()


def test_the_analysis_of_a_whole_run(smoke):
    found = analysis.comparison(smoke, "nas", "fixed")
    assert found["domain"].tolist() == ["colours", "crowd", "all"]
    assert analysis.averages(smoke.tables["tests"])["domains"].max() == 2
    matrix = analysis.transfer(smoke, "S")
    assert len(matrix) == 2 * 4
    own = matrix[matrix["chosen_on"] == matrix["used_on"]]
    assert (own["difference"] == 0).all() and not own["resolved"].any()
    best = analysis.best_for_all(smoke, "M")
    assert (best["mean_loss"] >= 0).all() and (best["worst_loss"] >= best["mean_loss"] - 1e-12).all()
    table = analysis.queries_and_objects(smoke)
    assert set(table["queries"]) <= {6, 12} | set(np.linspace(6, 12, 13))
    with pytest.raises(UserError, match="has no test of raccoon, seed 0"):
        analysis.grid_of(smoke, "test", "raccoon", 0)
