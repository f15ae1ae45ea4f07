"""Where the units of a search are kept: Optuna's trials, and one result per unit."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError

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
        query = self.table.select().where(self.table.c.search == self.search)

        def rows() -> list[Any]:
            with self.engine.connect() as connection:
                return list(connection.execute(query))

        return {row.unit: json.loads(row.entry) for row in again(rows)}


class FolderResults:
    """One file per unit beside a journal file; a link that must not exist yet makes the insert unique."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._known: dict[str, Any] = {}

    def insert(self, unit: str, entry: str) -> bool:
        """Keep the entry (JSON) of a unit; False, changing nothing, if it has one."""
        draft = self.folder / f".{unit}.{os.getpid()}.{random.getrandbits(32):08x}"
        draft.write_text(entry)
        try:
            os.link(draft, self.folder / f"{unit}.json")
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def read(self) -> dict[str, Any]:
        """Unit -> entry, for all units done so far."""
        for path in self.folder.glob("*.json"):
            if path.stem not in self._known:
                self._known[path.stem] = json.loads(path.read_text())
        return dict(self._known)


def open_storage(url: str, name: str) -> tuple[Any, Any]:
    """Optuna's storage for the trials and the results of the search `name`; see `WorkQueue` for the URLs."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url.startswith("journal://"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        path = Path(url.removeprefix("journal://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
        return JournalStorage(backend), FolderResults(path.with_name(f"{path.name}.{name}.results"))
    import sqlalchemy as sa

    options: Mapping[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": PATIENCE}}
    elif url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=dict(options))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise UserError(
            f"cannot open the storage {url!r}: {error}; use sqlite:///FILE, postgresql://..., or journal:///FILE"
        ) from error
    except ImportError as error:
        raise UserError(
            f"the storage {url!r} needs a driver: pip install 'rf-detr-nas-companion[postgres]'"
        ) from error
    return storage, SqlResults(storage.engine, name)


def again(call: Callable[[], Any]) -> Any:
    """The result of `call`, which is repeated while the database is busy or two workers create the same
    table.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    end = time.monotonic() + PATIENCE
    wait = 0.05
    while True:
        try:
            return call()
        except (StorageInternalError, OperationalError, ProgrammingError, IntegrityError):
            if time.monotonic() > end:
                raise
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, 5.0)
