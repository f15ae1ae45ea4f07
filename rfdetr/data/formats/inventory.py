"""What files a folder holds, and which picture a name in an annotation file means."""

import codecs
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from rfdetr.errors import NotFoundError, UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FILE_LIMIT = 3_000_000
"""More files than any dataset has: a home folder or a whole disk was named by mistake."""
SPLITS = ("train", "val", "test")
ALIASES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {alias: split for split, aliases in ALIASES.items() for alias in aliases}


def canonical_split(split: str) -> str:
    """One of `SPLITS` for any of its usual names. Raises UserError for another name."""
    try:
        return _SPLIT_OF[split]
    except KeyError:
        raise UserError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}") from None


def split_of_folder(path: str) -> str | None:
    """Split that a folder of a relative path is named after (`train`, `valid`, `test2017`), deepest first."""
    for part in reversed(PurePosixPath(path).parts):
        found = _SPLIT_OF.get(re.sub(r"\d+$", "", part.lower()))
        if found is not None:
            return found
    return None


def split_of_name(stem: str) -> str | None:
    """Split that a file is named after: `train`, `val_labels`, `instances_test2017`; None without one."""
    for word in re.split(r"[^a-z]+", stem.lower()):
        if word in _SPLIT_OF:
            return _SPLIT_OF[word]
    return None


def split_of_file(path: str) -> str | None:
    """Split of an annotation file with a relative path: by its own name, else by its folders."""
    pure = PurePosixPath(path)
    return split_of_name(pure.stem) or split_of_folder(pure.parent.as_posix())


_MARKS = (  # the longer ones first: two of them begin with a shorter one
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(content: bytes) -> str:
    """Text of a file: as its byte-order mark says, else UTF-8, else the Western code page of Windows."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if encoding:
        return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


class Inventory:
    """Relative paths ("/") of all files below a folder; hidden ones and those of macOS archives left out,
    as are links to nothing (`dead`).

    Raises UserError when the folder does not exist, cannot be read, or holds more files than any dataset.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise NotFoundError(f"dataset folder {root} does not exist: check the path")
        found: list[str] = []
        dead: list[str] = []

        def refuse(error: OSError) -> None:
            raise UserError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")

        for folder, folders, files in os.walk(self.root, onerror=refuse, followlinks=True):
            folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
            base = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if base == "." else f"{base}/"
            for name in sorted(files):
                if not name.startswith("."):
                    (found if _leads(folder, name) else dead).append(prefix + name)
            if len(found) > FILE_LIMIT or base.count("/") > 40:
                raise UserError(
                    f"{root} holds too many files or folders (is there a link that leads back into it?): give"
                    " the folder of one dataset"
                )
        self.files, self.dead = tuple(found), tuple(dead)

    def ending(self, *suffixes: str) -> list[str]:
        """Files whose names end so, in any case."""
        return [path for path in self.files if path.lower().endswith(suffixes)]

    def path(self, relative: str) -> Path:
        """Where a file lies."""
        return self.root / relative

    def head(self, relative: str, size: int = 4096) -> bytes:
        """The first bytes of a file; nothing of one that cannot be read."""
        try:
            with self.path(relative).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def text(self, relative: str) -> str:
        """A text file (see `decoded`). Raises OSError if it cannot be read."""
        return decoded(self.path(relative).read_bytes())

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """Files that are named as pictures."""
        return tuple(self.ending(*IMAGE_SUFFIXES))

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.pictures, lambda path: path.name.lower())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.pictures, lambda path: path.stem)

    def picture(self, reference: str, near: str, split: str | None = None) -> str | None:
        """The picture that an annotation file `near` calls `reference` (a name or a path of any machine).

        First as a path from the file's own folder, then from the root; then by name alone, and of several of
        one name the one whose folders resemble those of `near` and of `split` most.
        """
        clean = reference.strip().replace("\\", "/")
        for base in (posixpath.dirname(near), ""):
            joined = posixpath.normpath(posixpath.join(base, clean))
            if joined in self._present:
                return joined
        tail = clean.rsplit("/", 1)[-1]
        candidates = self._by_name.get(tail.lower(), [])
        exact = [path for path in candidates if path.rsplit("/", 1)[-1] == tail]
        return _closest(
            exact or candidates, posixpath.join(posixpath.dirname(near), posixpath.dirname(clean)), split
        )

    def partner(self, annotation: str, split: str | None = None) -> str | None:
        """The picture with the same stem as an annotation file, the nearest of several."""
        pure = PurePosixPath(annotation)
        return _closest(self._by_stem.get(pure.stem, []), pure.parent.as_posix(), split)

    def partners(self, annotation: str, split: str | None = None) -> list[str]:
        """`partner`, and the pictures beside it of the same name but for its ending."""
        first = self.partner(annotation, split)
        if first is None:
            return []
        folder = posixpath.dirname(first)
        return [p for p in self._by_stem[PurePosixPath(first).stem] if posixpath.dirname(p) == folder]

    def describe(self, paths: Iterable[str], what: str, folders: int = 3) -> str:
        """How many files there are of a kind, and where: 129 .txt files in a/labels, b/labels."""
        paths = list(paths)
        counted = Counter(posixpath.dirname(path) or "." for path in paths)
        shown = [folder for folder, _ in counted.most_common(folders)]
        more = f" and {len(counted) - folders} more folders" if len(counted) > folders else ""
        return f"{len(paths)} {what} in {', '.join(sorted(shown))}{more}"


def _leads(folder: str, name: str) -> bool:
    path = Path(folder, name)
    return not path.is_symlink() or path.exists()


def _grouped(paths: Iterable[str], key: Callable[[PurePosixPath], str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        grouped[key(PurePosixPath(path))].append(path)
    return grouped


def _closest(candidates: list[str], folder: str, split: str | None) -> str | None:
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    parts = PurePosixPath(folder).parts
    wanted = split or split_of_folder(folder)

    def badness(path: str) -> tuple[bool, bool, int, str]:
        own = PurePosixPath(path).parent
        shared = len(set(parts) & set(own.parts))
        elsewhere = own.as_posix() != folder
        return elsewhere, wanted is not None and split_of_folder(own.as_posix()) != wanted, -shared, path

    return min(candidates, key=badness)
