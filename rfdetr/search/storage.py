"""Where the units of a search are kept: Optuna's trials, and one result per unit."""

import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.files import write_atomic

PATIENCE = 120.0  # seconds for which a busy or restarting database is asked again


class SqlResults:
    """One row per (search, unit) in a table of the same database as the trials."""

    def __init__(self, engine: Any, search: str) -> None:
        import sqlalchemy as sa

        self.engine, self.search = engine, search
        meta = sa.MetaData()
        self.table = sa.Table(
            "rfdetr_results",
            meta,
            sa.Column("search", sa.String(200), primary_key=True),
            sa.Column("unit", sa.String(200), primary_key=True),
            sa.Column("entry", sa.Text, nullable=False),
        )
        meta.create_all(engine)

    def insert(self, unit: str, entry: str) -> bool:
        """Keep the entry (JSON) of a unit; False, changing nothing, if it has one."""
        from sqlalchemy.exc import IntegrityError

        try:
            with self.engine.begin() as connection:
                connection.execute(self.table.insert().values(search=self.search, unit=unit, entry=entry))
        except IntegrityError:
            return False
        return True

    def read(self) -> dict[str, Any]:
        """Unit -> entry, for all units done so far."""
        return {row.unit: json.loads(row.entry) for row in self._rows(self.table.select())}

    def names(self) -> set[str]:
        """The units done so far, without their entries."""
        import sqlalchemy as sa

        return {row.unit for row in self._rows(sa.select(self.table.c.unit))}

    def get(self, unit: str) -> Any:
        """The entry of a unit that is done."""
        return json.loads(self._rows(self.table.select().where(self.table.c.unit == unit))[0].entry)

    def _rows(self, query: Any) -> list[Any]:
        def rows() -> list[Any]:
            with self.engine.connect() as connection:
                return list(connection.execute(query.where(self.table.c.search == self.search)))

        return again(rows)


class FolderResults:
    """One file per unit beside a journal file; a link that must not exist yet makes the insert unique."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._whole: set[str] = set()  # units whose files were read and are not damaged

    def insert(self, unit: str, entry: str) -> bool:
        """Keep the entry (JSON) of a unit; False, changing nothing, if it has one."""
        draft = self.folder / f".{unit}.{os.getpid()}.{random.getrandbits(32):08x}"
        try:
            write_atomic(draft, entry)  # on the disk before it has its name
            os.link(draft, self.folder / f"{unit}.json")
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def read(self) -> dict[str, Any]:
        """Unit -> entry, for all units done so far."""
        return {unit: self.get(unit) for unit in self.names()}

    def names(self) -> set[str]:
        """The units done so far. A damaged file is removed, so that its unit is computed again."""
        found = {path.stem for path in self.folder.glob("*.json")}
        for unit in found - self._whole:
            try:
                self.get(unit)
            except (ValueError, FileNotFoundError):
                (self.folder / f"{unit}.json").unlink(missing_ok=True)
            else:
                self._whole.add(unit)
        return found & self._whole

    def get(self, unit: str) -> Any:
        """The entry of a unit that is done."""
        return json.loads((self.folder / f"{unit}.json").read_text())


KINDS = "sqlite:///FILE (one machine), postgresql://USER@HOST/DATABASE, or journal:///FILE (a shared disk)"


def check_storage(url: str) -> None:
    """Raise UserError for a URL of a kind that `open_storage` does not know; opens nothing."""
    kind, colon, rest = url.partition("://")
    if not colon or kind.partition("+")[0] not in ("sqlite", "postgresql", "postgres", "journal"):
        raise UserError(f"the storage {hidden(url)!r} is of no kind that is known here: use {KINDS}")
    if kind == "journal" or kind.startswith("sqlite"):
        path = _file(url)
        if path is None:
            raise UserError(f"the storage {url!r} names no file that workers could share: use {KINDS}")
        if path.is_dir():
            raise UserError(f"the storage {url!r} is a folder: name a file in it")
    elif not rest.strip("/"):
        raise UserError(f"the storage {hidden(url)!r} names no database: use {KINDS}")


def open_storage(url: str, name: str) -> tuple[Any, Any]:
    """Optuna's storage for the trials and the results of the search `name`; see `WorkQueue` for the URLs.

    The folder of a file is made. Raises UserError at once, saying why, when it cannot be opened; only a
    database that is locked or busy is asked again.
    """
    import optuna

    check_storage(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if url.startswith("journal://"):
            return _open_journal(Path(url.removeprefix("journal://")), name)
        path = _file(url) if url.startswith("sqlite") else None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        return again(lambda: _open_database(url, name), opening=True)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"the storage {hidden(url)!r} needs a driver: pip install 'rf-detr-nas-companion[postgres]'"
        ) from error
    except Exception as error:  # of the system, SQLAlchemy, Alembic, Optuna or a driver
        raise UserError(f"cannot open the storage {hidden(url)!r}: {_reason(error)}; use {KINDS}") from error


def _file(url: str) -> Path | None:
    """The file that a journal or SQLite URL names; None for a database in memory."""
    text = url.partition("://")[2].partition("?")[0]
    text = text if url.startswith("journal://") else text.removeprefix("/")
    return Path(text) if text not in ("", ":memory:") else None


def _open_journal(path: Path, name: str) -> tuple[Any, Any]:
    from optuna.storages import JournalStorage

    from rfdetr.search.journal import JournalFile

    return JournalStorage(JournalFile(path)), FolderResults(path.with_name(f"{path.name}.{name}.results"))


def _open_database(url: str, name: str) -> tuple[Any, Any]:
    import optuna

    options: Mapping[str, Any] = {"pool_pre_ping": True}
    kind, _, rest = url.partition("://")
    if kind.startswith("sqlite"):
        options = {"connect_args": {"timeout": PATIENCE}}
    elif "+" not in kind:
        url = f"postgresql+psycopg://{rest}"
    storage = optuna.storages.RDBStorage(url, engine_kwargs=dict(options))
    return storage, SqlResults(storage.engine, name)


def hidden(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


# What a database says that will pass: somebody else is writing, or creates the same tables at this moment.
_BUSY = (
    "locked",
    "busy",
    "already exists",
    "duplicate key",
    "unique constraint",
    "deadlock",
    "could not serialize",
    "starting up",
    "too many clients",
)
# What will not pass by itself although it is an operational error.
_BROKEN = (
    "unable to open",
    "readonly",
    "read-only",
    "disk i/o error",
    "is full",
    "malformed",
    "no such table",
)


def _reason(error: BaseException) -> str:
    """The first line of what lies behind Optuna's and SQLAlchemy's errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    error = getattr(error, "orig", None) or error
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def again(call: Callable[[], Any], opening: bool = False) -> Any:
    """The result of `call`, repeated for `PATIENCE` seconds while the database is locked or busy.

    Once a search runs (not `opening`), also while the database does not answer, because it may be restarted.
    Raises UserError when it stays like that.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    end = time.monotonic() + PATIENCE
    wait = 0.05
    while True:
        try:
            return call()
        except (StorageInternalError, DBAPIError, OSError) as error:
            reason = _reason(error)
            said = reason.lower()
            busy = any(word in said for word in _BUSY)
            away = not opening and _operational(error) and not any(word in said for word in _BROKEN)
            if not (busy or away) or time.monotonic() > end:
                if opening:
                    raise
                raise UserError(
                    f"the storage of the search fails: {reason}. Units that are done are kept; start the"
                    " same command again when it works"
                ) from error
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, 5.0)


def _operational(error: BaseException) -> bool:
    from sqlalchemy.exc import OperationalError

    return isinstance(error, OperationalError) or isinstance(error.__cause__, OperationalError)
