"""DeepPCB: split lists whose lines name a picture and its text file; a line there is `x1 y1 x2 y2 class`."""

import posixpath
import re
from functools import partial
from pathlib import PurePosixPath

from rfdetr.data.formats.collection import Collection, Match, Picture, absent_picture, named_categories
from rfdetr.data.formats.inventory import Inventory, split_of_file
from rfdetr.data.report import DataReport

KIND = "DeepPCB text"
NAMES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""Classes 1 to 6 of DeepPCB, by its README; folders with other numbers keep the numbers as names."""
_LINE = re.compile(rb"(\S.*\.(?:jpe?g|png|bmp|tiff?))[ \t,]+(\S.*\.txt)[ \t\r]*", re.IGNORECASE)
_TESTED = "_test"
"""DeepPCB's lists name x.jpg; the tested picture is x_test.jpg, x_temp.jpg the template without defects."""


def find_pair_lists(inventory: Inventory) -> Match | None:
    """The folder's lists of picture and text file."""
    lists = [
        path for path in inventory.ending(".txt") if _LINE.match(inventory.head(path).partition(b"\n")[0])
    ]
    if not lists:
        return None
    texts = [path for path in inventory.ending(".txt") if path not in lists]
    return Match(KIND, (*lists, *texts), partial(read_pair_lists, inventory, lists))


def read_pair_lists(inventory: Inventory, lists: list[str]) -> Collection:
    """Pictures of the lists, in the splits that these are named after."""
    report = DataReport()
    pictures: dict[str, Picture] = {}
    numbers: set[int] = set()
    for path in lists:
        for line in inventory.path(path).read_bytes().splitlines():
            if not (match := _LINE.fullmatch(line)):
                if line.strip():
                    report.add(
                        "line that names no picture and text file (left out)", f"{path}: {line[:40]!r}"
                    )
                continue
            reference, text = (part.decode("utf-8", errors="replace") for part in match.groups())
            picture = _picture(inventory, path, reference)
            first = pictures.setdefault(picture.file, picture)
            if first is not picture:
                if first.split != picture.split:
                    where = f"{picture.file}: {first.split}, {picture.split}"
                    first.findings.append(("picture in two splits (kept in the first)", where))
            elif not picture.missing:
                numbers |= _objects(inventory, posixpath.join(posixpath.dirname(path), text), picture)
    known = numbers <= set(range(1, len(NAMES) + 1))
    names = NAMES if known else [str(number) for number in sorted(numbers)]
    label = dict(enumerate(NAMES, start=1)) if known else {number: str(number) for number in numbers}
    for picture in pictures.values():
        for item in picture.objects:
            item["name"] = label[item.pop("number")]
    return Collection(list(pictures.values()), named_categories(names), report)


def _picture(inventory: Inventory, path: str, reference: str) -> Picture:
    split = split_of_file(path)
    pure = PurePosixPath(reference)
    tested = pure.with_name(f"{pure.stem}{_TESTED}{pure.suffix}").as_posix()
    file = inventory.picture(reference, path, split) or inventory.picture(tested, path, split)
    return Picture(file, split=split) if file else absent_picture(reference, split)


def _objects(inventory: Inventory, text: str, picture: Picture) -> set[int]:
    """Adds the boxes of a text file; returns the class numbers met."""
    try:
        lines = inventory.text(text).splitlines()
    except OSError:
        picture.findings.append(
            ("annotation file that is listed is not there (picture without objects)", text)
        )
        return set()
    numbers = set()
    for position, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{text}, line {position}"
        try:
            left, top, right, bottom, number = (
                int(float(word)) for word in re.split(r"[\s,]+", line.strip())
            )
        except (ValueError, OverflowError):
            picture.findings.append(
                ("line that is not `x1 y1 x2 y2 class` (left out)", f"{where}: {line[:40]}")
            )
            continue
        numbers.add(number)
        box = [left, top, right - left, bottom - top]
        picture.objects.append({"number": number, "bbox": box, "source": where})
    return numbers
