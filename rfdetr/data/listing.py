"""The pictures of a COCO-format file: which are there, their ids, sizes and orientation."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfdetr.data.annotations import Id, brief, describe, numbering, plain_id
from rfdetr.data.images import MAX_PIXELS, Header, read_header, read_image
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

HEADER_LIMIT = 5000
"""Datasets of at most this many images have every file's header read when they are opened (sizes are
verified).
"""
PROBES = 8
"""So many pictures of depths that may have no agreed range are decoded when a dataset is opened."""


@dataclass
class Listing:
    """images: id, file_name, height and width (px, of the picture as it is read) of every picture. ids: any
    id of the file -> the picture's id here (two ids of one picture: the first one's). left_out: ids of
    pictures that are not there or not readable. as_stored: ids of pictures read without applying their
    orientation tag.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    ids: dict[Id, int] = field(default_factory=dict)
    left_out: set[Id] = field(default_factory=set)
    as_stored: set[int] = field(default_factory=set)


class Lister:
    """Makes the `Listing` of one annotation file (see `list_pictures`)."""

    def __init__(self, path: Path, folder: Path, within: Path, skip: bool, report: DataReport) -> None:
        self.path, self.folder, self.within = path, folder, within
        self.skip, self.report = skip, report
        self.reasons: dict[Id, str] = {}  # why a picture is left out

    def listing(self, entries: list[dict[str, Any]]) -> Listing:
        """All of `list_pictures`."""
        files, same = self._files(entries)
        told = {key: self._told(entry) for entry in entries if (key := plain_id(entry.get("id"))) in files}
        present = self._present(files)
        for key, name in files.items():
            if key not in present:
                self.reasons[key] = name
                self.report.add("missing picture (left out)", brief(name), file=name, stops=True)
        if self.reasons and (not self.skip or not present):
            raise UserError(
                f"{self.path}: {len(self.reasons)} of {len(files)} pictures are not in {self.folder}, the"
                f" first is {brief(next(iter(self.reasons.values())))}: restore them, give the right folder,"
                ' or go on without them with --skip-missing (unreadable="skip")'
            )
        headers = self._headers(present, told)
        found = {key: name for key, name in present.items() if key not in self.reasons}
        if self.skip:
            found = {key: name for key, name in found.items() if self._readable(key, name)}
            if files and not found:
                raise UserError(
                    f"{self.path}: none of {len(files)} pictures can be read; the first:"
                    f" {next(iter(self.reasons.values()))}"
                )
        numbers = numbering(files)
        if any(isinstance(key, str) for key in files):
            self.report.note("image ids that are texts (numbered here)", len(files))
        listing = Listing(left_out=set(self.reasons))
        stored = self._stored(found, {key: headers[key] for key in found if key in headers}, told)
        for key, name in found.items():
            size = self._size(name, told[key], headers.get(key), key in stored)
            image = {"id": numbers[key], "file_name": name, "height": size[0], "width": size[1]}
            listing.images.append(image)
            listing.ids[key] = numbers[key]
        listing.as_stored = {numbers[key] for key in stored}
        for other, key in same.items():
            if key in listing.ids:
                listing.ids[other] = listing.ids[key]
            else:
                listing.left_out.add(other)
        return listing

    def _files(self, entries: list[dict[str, Any]]) -> tuple[dict[Id, str], dict[Id, Id]]:
        """Id -> file name of every picture, and ids of pictures listed before -> their first id."""
        files: dict[Id, str] = {}
        same: dict[Id, Id] = {}
        first: dict[str, Id] = {}
        for number, entry in enumerate(entries, start=1):
            key, name = plain_id(entry.get("id")), entry.get("file_name")
            if key is None or not isinstance(name, str) or not name.strip():
                wrong = "id" if key is None else "file_name"
                raise UserError(
                    f"{self.path}: image {number} must have an id and a file_name; its {wrong} is"
                    f" {describe(entry.get(wrong))}"
                )
            name = self._located(name)
            place = os.path.normpath(self.folder / name)
            earlier = files.get(key) or files.get(same.get(key, ""))
            if earlier is not None and os.path.normpath(self.folder / earlier) != place:
                raise UserError(
                    f"{self.path}: image id {brief(key)} stands for {brief(earlier)} and for {brief(name)}:"
                    " whose annotations are they? Give every image its own id"
                )
            if earlier is not None:
                self.report.add("image listed twice (used once)", brief(name), file=name)
            elif place in first:
                same[key] = first[place]
                text = f"{brief(name)}: ids {brief(first[place])} and {brief(key)}"
                self.report.add("picture under two image ids (merged)", text, file=name)
            else:
                files[key] = name
                first[place] = key
        return files, same

    def _told(self, entry: dict[str, Any]) -> tuple[int, int] | None:
        """(height, width) that the entry tells; None if it tells none, or none that a picture can have."""
        height, width = plain_id(entry.get("height")), plain_id(entry.get("width"))
        if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
            return (height, width) if height * width <= MAX_PIXELS else None
        if not entry.get("height") and not entry.get("width"):
            return None
        found = f"{describe(entry.get('width'))} x {describe(entry.get('height'))}"
        text = f"{brief(entry.get('file_name'))}: {found}"
        self.report.add("image size that none can have (read from the picture)", text)
        return None

    def _located(self, name: str) -> str:
        """The file name, with the separators of this system; UserError if it leads out of the dataset."""
        if "\\" in name and os.sep == "/" and not _is_file(self.folder / name):
            name = name.replace("\\", "/")
        if ".." not in Path(name).parts and not Path(name).is_absolute():
            return name
        place = Path(os.path.normpath(self.folder / name))
        if not place.is_relative_to(self.within) and not _resolved_in(place, self.within):
            raise UserError(
                f"{self.path}: picture {brief(name)} lies outside the dataset's folder {self.within}: move it"
                " into that folder and correct the file name"
            )
        return name

    def _present(self, files: dict[Id, str]) -> dict[Id, str]:
        """The pictures that are there; every folder is listed once, which is faster than asking for each."""
        there: dict[Path, set[str]] = {}
        for name in files.values():
            parent = (self.folder / name).parent
            if parent not in there:
                try:
                    there[parent] = {found.name for found in os.scandir(parent)}
                except (OSError, ValueError):
                    there[parent] = set()
        return {
            key: name
            for key, name in files.items()
            if (place := self.folder / name).name in there[place.parent]
        }

    def _headers(self, files: dict[Id, str], told: dict[Id, tuple[int, int] | None]) -> dict[Id, Header]:
        """Headers of all pictures of a small dataset, and of those without a size. A picture whose header
        cannot be read, and the first ones of unusual depth that have no agreed range, are refused or skipped.
        """
        verify = len(files) <= HEADER_LIMIT
        headers: dict[Id, Header] = {}
        rules: Counter[str] = Counter()
        probed = 0
        for key, name in files.items():
            if not verify and told[key] is not None:
                continue
            try:
                headers[key] = read_header(self.folder / name)
                if headers[key].depth != "8" and not self.skip and probed < PROBES:
                    probed += 1
                    read_image(self.folder / name)
            except UserError as error:
                self._unreadable(key, name, error)
                continue
            rules[headers[key].rule] += 1
        for rule, count in rules.items():
            if rule:
                self.report.note(rule, count)
        return headers

    def _readable(self, key: Id, name: str) -> bool:
        try:
            read_image(self.folder / name)
        except UserError as error:
            self._unreadable(key, name, error)
            return False
        return True

    def _unreadable(self, key: Id, name: str, error: UserError) -> None:
        if not self.skip:
            raise error
        self.reasons[key] = str(error)
        self.report.add("unreadable picture (left out)", str(error), file=name, stops=True)

    def _stored(
        self, names: dict[Id, str], headers: dict[Id, Header], told: dict[Id, tuple[int, int] | None]
    ) -> set[Id]:
        """Pictures whose annotations refer to the pixels as stored, not as shown.

        The annotated size decides; where it cannot, the other pictures' sizes do; else they are taken as
        shown.
        """
        tagged = {key: header.turned(told[key]) for key, header in headers.items() if header.orientation != 1}
        shown = sum(1 for turned in tagged.values() if turned is True)
        stored = {key for key, turned in tagged.items() if turned is False}
        open_ = [key for key, turned in tagged.items() if turned is None]
        if shown:
            self.report.note("pictures with an orientation tag, annotated and read as shown", shown)
        if stored:
            self.report.note("pictures with an orientation tag, annotated and read as stored", len(stored))
        for key in open_:
            how = "as stored, like the others" if len(stored) > shown else "as shown"
            text = f"{brief(names[key])}: read {how}"
            self.report.add("orientation tag that the annotated size does not explain", text, file=names[key])
        return stored | set(open_ if len(stored) > shown else [])

    def _size(
        self, name: str, told: tuple[int, int] | None, header: Header | None, stored: bool
    ) -> tuple[int, int]:
        if header is None:
            assert told is not None
            return told
        size = header.size if stored else header.shown
        if told is not None and told != size:
            self.report.add(*wrong_size(name, told, size), file=name)
        return size


def list_pictures(
    path: Path,
    folder: Path,
    entries: list[dict[str, Any]],
    report: DataReport,
    *,
    within: Path | None = None,
    skip: bool = False,
) -> Listing:
    """The pictures that an annotation file `path` lists, relative to `folder`, checked.

    within: the folder that they must lie in; by default the one that holds `path` and `folder`. skip: leave
    out missing and unreadable ones (every picture is decoded), instead of stopping at the first. Raises
    UserError naming the file for an entry without id or file name, one id of two pictures, a picture outside
    `within`, and for missing and unreadable pictures unless `skip`.
    """
    folder = folder.absolute()
    if within is None:
        within = Path(
            os.path.commonpath([os.path.normpath(path.absolute().parent), os.path.normpath(folder)])
        )
    return Lister(path, folder, Path(os.path.normpath(within.absolute())), skip, report).listing(entries)


def wrong_size(name: str, told: tuple[int, int], size: tuple[int, int]) -> tuple[str, str]:
    """Kind and text of the problem of a size that is not the picture's; both (height, width)."""
    kind = "wrong image size in the annotations (corrected)"
    return kind, f"{brief(name)}: {told[1]}x{told[0]}, is {size[1]}x{size[0]}"


def _resolved_in(place: Path, folder: Path) -> bool:
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
