"""The fourteen public sets from a mirror folder: their counts are those of facts.yaml, every flaw that can be
seen in the data is found, and subset rules take what the mirror holds.

Runs where RFDETR_MIRROR names the mirror, or ../shared/datasets is one.
"""

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rfdetr.cli import main
from rfdetr.data.formats.inventory import canonical_split
from rfdetr.data.inspection import inspect_dataset
from rfdetr.data.manifests import listed_names, load_manifest, manifest_names
from rfdetr.data.registry import available_splits, describe, load_dataset
from rfdetr.data.statistics import Statistics
from rfdetr.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "datasets"
MIRROR = Path(os.environ.get("RFDETR_MIRROR") or SHARED)
FACTS = (
    yaml.safe_load((MIRROR / "facts.yaml").read_text())["datasets"]
    if (MIRROR / "facts.yaml").is_file()
    else {}
)
pytestmark = pytest.mark.skipif(not FACTS, reason=f"no mirror of the public sets with facts.yaml in {MIRROR}")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """One home for all: every set is fetched and converted once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("RFDETR_DATA", str(folder))
        patch.setenv("RFDETR_MIRROR", str(MIRROR))
        patch.delenv("RFDETR_MANIFESTS", raising=False)
        yield folder


def test_all_of_the_mirror_is_registered():
    assert set(FACTS) <= set(manifest_names())


@pytest.mark.parametrize("name", FACTS)
def test_counts_are_those_of_the_facts(name, capsys):
    facts, manifest = FACTS[name], load_manifest(name)
    splits = {split: load_dataset(name, split) for split in available_splits(name)}
    found = Statistics.of(*splits.values())
    assert tuple(splits) == ("train", "val", "test")
    assert found.images == facts["images"]
    left_out = sum(data.report.counts.get("box without area (left out)", 0) for data in splits.values())
    classes = Counter(found.classes) + Counter(found.ignored)
    if name == "bccd":  # the facts count its two boxes without area, both of red cells
        classes["RBC"] += left_out
        assert left_out == 2
    assert classes == facts["classes"] and sum(classes.values()) == facts["boxes"]
    assert found.empty == facts["images_without_boxes"] and found.modes == facts["pixel_modes"]
    assert found.width.minimum == facts["width_min"] and found.width.maximum == facts["width_max"]
    assert found.height.minimum == facts["height_min"] and found.height.maximum == facts["height_max"]
    if not found.ignored and name != "bccd":
        assert found.per_image.maximum == facts["boxes_per_image_max"]
        assert round(found.per_image.mean, 2) == facts["boxes_per_image_mean"]
    has_masks = facts["instance_masks"] != "none"
    assert all(data.has_masks == has_masks for data in splits.values())
    given = describe(name).given
    told = facts["images_per_split"]
    assert given == ({canonical_split(s): n for s, n in told.items()} if isinstance(told, dict) else {})
    # Licence, source and checksum of the manifest are the facts', too.
    assert manifest.licence == facts["licence"] and manifest.source["commit"] == facts["source_commit"]
    assert manifest.mirror["sha256"] == facts["archive_sha256"] and manifest.images == facts["images"]
    assert main(["data", "verify", name]) == 0 and f"{facts['images']} pictures" in capsys.readouterr().out


@pytest.mark.parametrize("name", FACTS)
def test_sizes_of_objects_are_those_of_the_facts(name):
    facts = FACTS[name]
    found = Statistics.of(*(load_dataset(name, split) for split in available_splits(name)))
    if describe(name).kind == "Pascal VOC" and name != "tomato_rugoso":
        # Both corners are included here, which makes boxes a pixel larger than the facts have them.
        assert found.share.median == pytest.approx(facts["median_box_share_of_image"], rel=0.03)
        assert found.small <= facts["boxes_below_32x32_pixels"]
    elif not found.ignored:
        assert found.share.median == pytest.approx(facts["median_box_share_of_image"], rel=0.002)
        assert found.small == facts["boxes_below_32x32_pixels"]


def opened(name):
    """Split -> dataset of a registered set."""
    return {split: load_dataset(name, split) for split in available_splits(name)}


def problems(found, kind):
    """Texts of all problems of a kind that `data check` finds."""
    reports = [*found.reports.values(), found.between]
    return [problem.text for report in reports for problem in report.problems.get(kind, [])]


def noted(splits, words):
    """How often the reports of all splits note a fact."""
    notes = [note for data in splits.values() for note in data.report.notes.items()]
    return sum(count for fact, count in notes if words in fact)


def test_flaws_of_bccd_and_raccoon():
    reports = [data.report for data in opened("bccd").values()]
    flaws = [text for report in reports for text in report.examples.get("box without area (left out)", [])]
    assert sorted(text[:16] for text in flaws) == ["BloodImage_00338", "BloodImage_00343"]
    raccoon = inspect_dataset("raccoon")
    twins = [set(text.split(", ")) for text in problems(raccoon, "the same picture under two names")]
    known = ({11, 116}, {120, 83}, {52, 74}, {65, 98})
    assert all({f"raccoon-{number}.jpg" for number in pair} in twins for pair in known) and len(twins) == 4
    assert noted(opened("raccoon"), "grey pictures") == 3 and not raccoon.between  # each pair in one split


def test_flaws_of_drawings_and_scans():
    """Copies of one sketch are in one split; boxes that end by rounding outside the picture are noted."""
    groups = (
        "e61e2973 dbe07573, 890c905a 17d8a6bc 1803be9d, 3c0e378f bdd7286c, c0822cd3 fa3aae44,"
        " bc18ff8e 2451e8de b492b141 96b1c403, ce3baaad b5a04858, a2e5bc0f da54575a"
    )
    place, single = {}, set()
    splits = opened("sketch2code")
    for split, data in splits.items():
        content = data.coco
        objects = Counter(annotation["image_id"] for annotation in content["annotations"])
        for image in content["images"]:
            stem = image["file_name"].rsplit("/", 1)[-1][:8]
            place[stem] = split
            single |= {stem} if objects[image["id"]] == 1 else set()
    for group in groups.split(", "):
        assert len({place[stem] for stem in group.split()}) == 1, group
    assert single >= {"dbe07573", "890c905a", "852e678f", "17d8a6bc", "a2d2b1cd", "b492b141", "a2e5bc0f"}
    assert noted(splits, "less than a pixel outside") == 14
    assert noted(opened("unlv_tables"), "black-and-white pictures") == 102


def test_flaws_of_masks_and_boards():
    nuclei = opened("dsb2018_nuclei")
    assert noted(nuclei, "pixels that belong to two masks") == 1
    assert noted(nuclei, "pictures with transparency") == 111
    assert Statistics.of(*nuclei.values()).tiny == 39
    assert noted(opened("deeppcb"), "grey pictures") == 246
    tomato = opened("tomato_rugoso")
    assert noted(tomato, "boxes that end one pixel past the picture") == 91
    assert noted(tomato, "images without objects") == 1


def test_flaws_of_exports():
    assert noted(opened("chess_pieces"), "images without objects") == 1
    chess = inspect_dataset("chess_pieces")
    assert problems(chess, "nearly the same picture in two splits")  # one board, one camera
    assert noted(opened("thermal_cheetah"), "images without objects") == 3
    cheetah = inspect_dataset("thermal_cheetah")
    assert len(problems(cheetah, "nearly the same picture in two splits")) >= 2
    kuih = opened("kuih")
    assert noted(kuih, "names train: ../train/images, which is not there") == 1
    assert "split made here from the 102 pictures of val: 84 train, 18 val" in kuih["test"].split_note
    palms = Statistics.of(*opened("oil_palm").values())
    assert (palms.per_image.median, palms.per_image.maximum) == (13, 794)


def test_lists_of_the_whole_source_and_categories_of_the_source(home):
    """What the sets give as they come: pictures that are listed and missing, classes without objects."""
    listed = {"chess_pieces": 289, "deeppcb": 1500, "hit_uav": 2898, "unlv_tables": 403}
    for name, whole in listed.items():
        load_dataset(name)
        folder = next(home.glob(f"{name}-*"))
        missing = 0
        for split in available_splits(folder):
            with pytest.raises(UserError, match=r"pictures are not in .*--skip-missing") as caught:
                load_dataset(folder, split)
            missing += int(re.search(r"(\d+) of \d+ pictures", str(caught.value))[1])
        assert missing == whole - FACTS[name]["images"], name
    chess = load_dataset(next(home.glob("chess_pieces-*")), "train", unreadable="skip")
    assert "classes without an object (pieces, bishop)" in chess.report.notes
    hit_uav = load_dataset(next(home.glob("hit_uav-*")), "train", unreadable="skip")
    assert "segmentations that only repeat the box (no masks)" in hit_uav.report.notes
    load_dataset("oil_palm")
    palms = load_dataset(next(home.glob("oil_palm-*")), "train")
    assert "classes without an object (0)" in palms.report.notes


def test_subset_rules_take_what_the_mirror_holds(home):
    """Where the lists of the whole source are in the archive, the rule applied to them gives its pictures."""
    for name in ("chess_pieces", "deeppcb", "hit_uav", "unlv_tables", "playing_cards"):
        held = {Path(i["file_name"]).stem for data in opened(name).values() for i in data.coco["images"]}
        folder = next(home.glob(f"{name}-*"))
        taken = 0
        for rule in load_manifest(name).subset:
            listed = listed_names(folder, rule) if "lines" in rule else sorted(whole_list(folder, name, rule))
            end = "_test" if name == "deeppcb" else ""
            stems = {Path(entry).stem + end for entry in listed[:: rule["every"]]}
            assert stems <= held, (name, rule)
            taken += len(stems)
        assert taken == len(held) == FACTS[name]["images"]


def whole_list(folder, name, rule):
    """Names of all pictures of a split in the source, from the list that the archive holds."""
    split = Path(rule["files"]).parent.name
    if name == "playing_cards":
        with (folder / "images" / f"{split}_labels.csv").open() as file:
            return {row["filename"] for row in csv.DictReader(file)}
    path = f"normal_json/annotations/{split}.json" if name == "hit_uav" else f"{split}/_annotations.coco.json"
    images = json.loads((folder / path).read_text())["images"]
    return {image.get("file_name") or image["filename"] for image in images}
