"""Atomic file writes: a reader, or a process killed half-way, never meets half a file."""

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` only if the block succeeds.

    Raises UserError naming `path` when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(path)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _user_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    """UserError naming the file (or `path`, where the system names none) that meets a full or read-only disk
    in the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise _user_error(error, Path(error.filename or path)) from error


def _new_file(path: Path) -> Path:
    """An empty file beside `path` with a name of its own and the permissions of any new file."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{path.suffix}")
        with suppress(FileExistsError):
            # tempfile would make it readable for its owner alone, and asking for the umask changes it for all
            # threads.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
            return temporary


def _sync_folder(folder: Path) -> None:
    """The new name survives a power cut too, where the system can be asked for that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _user_error(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"no space left to write {path}: free some space or choose another folder; the old file is kept"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(f"cannot write {path}: permission denied; choose a folder that you may write to")
    return error


def check_target(path: str | os.PathLike[str], option: str = "--out", suffix: str = "") -> None:
    """Raise UserError before long work whose result could not be written to the file `path` at its end: it is
    a folder, lies below a file or in a folder that may not be written, or does not end in `suffix`.
    """
    path = Path(path)
    if path.is_dir():
        example = path / f"model{suffix or '.json'}"
        raise UserError(f"{option} {path} is a folder: give the name of a file, for example {example}")
    if suffix and path.suffix.lower() != suffix:
        raise UserError(f"{option} {path} must end in {suffix}: for example {path.with_suffix(suffix)}")
    check_folder(path.parent, option)


def check_folder(folder: str | os.PathLike[str], option: str = "--out") -> None:
    """Raise UserError before long work that could not write into `folder`, which need not exist yet."""
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{option} {folder}: {there} is a file, not a folder; choose another place")
    if not os.access(there, os.W_OK):
        raise UserError(
            f"cannot write into {there}: permission denied; choose a folder that you may write to"
        )


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file at once (see `atomic_path`). Text is UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON at once. Numbers that are undefined or infinite become null (see `strict`)."""
    write_atomic(path, json.dumps(strict(value), indent=1, allow_nan=False, default=str) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Content of a JSON file; None when there is none, or when it holds something else."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def strict(value: Any) -> Any:
    """A value for JSON, which knows no NaN and no infinity: they become None, however deep they are.

    NumPy's numbers and arrays become plain ones, tuples lists; what JSON does not know otherwise is left.
    """
    if isinstance(value, dict):
        return {key: strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    if hasattr(value, "tolist"):  # of NumPy, which this module does without
        return strict(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
