"""The files of `python -m rfdetr predict`: which pictures are read, and what is written for each of them."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rfdetr.data.folders import IMAGE_SUFFIXES
from rfdetr.errors import UserError
from rfdetr.files import atomic_path, check_folder, write_json

if TYPE_CHECKING:
    from rfdetr.model.detections import Detections

PREDICTIONS, PICTURES = "predictions.json", "pictures.json"
_MARK = ("Software", "rfdetr predict")
"""Text in every drawn picture: tells them from the user's own when a folder is used again."""


def find_pictures(given: Iterable[Path], out: Path | None = None) -> list[Path]:
    """The pictures that are named, and those in the folders that are named, at any depth: each once.

    In folders, hidden files and folders (also the "._" companions that macOS writes) are left out, and what
    an earlier call has drawn into `out`. Raises UserError for a path that does not exist and when there is no
    picture at all.
    """
    given = list(given)
    found: dict[Path, Path] = {}
    for path in given:
        if not path.exists():
            raise UserError(f"there is no picture or folder {path}: check the path")
        for file in _inside(path, out) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    if not found:
        raise UserError(
            f"no images in {', '.join(map(str, given))}: files that end in {', '.join(IMAGE_SUFFIXES)} are"
            " looked for, hidden ones left out"
        )
    return list(found.values())


def _inside(folder: Path, out: Path | None) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        if out is not None and path.resolve().parent == out.resolve() and _drawn(path):
            continue
        yield path


def _drawn(path: Path) -> bool:
    """Whether a file is a picture that `predict` has drawn."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get(_MARK[0]) == _MARK[1]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


class Outputs:
    """Writes one drawn picture per input and the list of detections into a folder.

    A drawn picture is called as its input, with the ending .png; a number tells apart inputs of one name. A
    file that is there already is replaced only if `predict` has drawn it, and an input never.
    """

    def __init__(self, folder: Path, files: Collection[Path]) -> None:
        """Choose the names and begin the list. Raises UserError when the folder cannot be written."""
        check_folder(folder)
        self.folder = folder
        self._names = self._choose(files)
        self._list: BinaryIO
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._list = (folder / PREDICTIONS).open("wb")
        except OSError as error:
            raise UserError(f"cannot write {folder / PREDICTIONS}: {error.strerror}") from error
        self._list.write(b"[\n]\n")
        self._entries = 0

    def _choose(self, files: Collection[Path]) -> dict[Path, str]:
        inputs = {file.resolve() for file in files}
        names: dict[Path, str] = {}
        taken: set[str] = set()
        for file in files:
            number, name = 1, f"{file.stem}.png"
            while name.casefold() in taken or not self._free(self.folder / name, inputs):
                number += 1
                name = f"{file.stem}-{number}.png"
            taken.add(name.casefold())
            names[file] = name
        return names

    def _free(self, path: Path, inputs: set[Path]) -> bool:
        return path.resolve() not in inputs and (not path.exists() or _drawn(path))

    def add(self, file: Path, number: int, detections: "Detections") -> None:
        """Draw a picture and append its detections; the list is a complete JSON file after each picture."""
        from PIL.PngImagePlugin import PngInfo

        mark = PngInfo()
        mark.add_text(*_MARK)
        with atomic_path(self.folder / self._names[file]) as temporary:
            detections.plot().save(temporary, pnginfo=mark)
        for name, entry in zip(detections.names, detections.to_coco(number), strict=True):
            record = json.dumps({"file": str(file), "category": name, **entry}).encode()
            self._list.seek(-3 if self._entries else -2, 2)  # over the closing bracket
            self._list.write((b",\n" if self._entries else b"") + record + b"\n]\n")
            self._entries += 1
        self._list.flush()

    def finish(self, numbers: Mapping[Path, int], unreadable: Mapping[Path, str]) -> None:
        """Close the list and say in pictures.json which picture is which."""
        self._list.close()
        records: list[dict[str, Any]] = []
        for file, number in numbers.items():
            failed = file in unreadable
            result = {"error": unreadable[file]} if failed else {"output": self._names[file]}
            records.append({"image_id": number, "file": str(file), **result})
        write_json(self.folder / PICTURES, records)
