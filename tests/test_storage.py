"""Where a search is kept: storages that cannot be opened, are busy, or were damaged."""

import time

import pytest
from test_study import check, urls

from rfdetr.errors import UserError
from rfdetr.search import storage
from rfdetr.search.queue import WorkQueue


def test_a_journal_with_half_written_lines_goes_on(tmp_path):
    url, path = urls(tmp_path)["journal"], tmp_path / "search.log"
    units = [f"u{i}" for i in range(8)]
    square = lambda unit: {"square": int(unit[1:]) ** 2}  # noqa: E731
    WorkQueue(url, "search", units).work(square, limit=3)
    reader = WorkQueue(url, "search", units)  # has read what there is, and reads on behind the half line
    for half in (b'{"op_code":6,"worker_id":"x", "study', b"\0\0\0", b'"text"\n17\n{"op_co'):
        with path.open("ab") as file:
            file.write(half)
        assert WorkQueue(url, "search", units).work(square, limit=1) == 1
    assert reader.progress().done == 6 and reader.work(square) == 2
    check(url, 8)


def test_a_result_that_was_damaged_is_computed_again(tmp_path):
    url = urls(tmp_path)["journal"]
    WorkQueue(url, "search", ["u1", "u2"]).work(lambda unit: 1)
    next(tmp_path.rglob("u1.json")).write_text('{"value"')
    assert WorkQueue(url, "search", ["u1", "u2"]).work(lambda unit: 2) == 1
    assert WorkQueue(url, "search", ["u1", "u2"]).values() == {"u1": 2, "u2": 1}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_the_folder_of_a_storage_is_made(tmp_path, kind):
    url = urls(tmp_path / "not" / "there")[kind]
    assert WorkQueue(url, "search", ["u1"]).work(lambda unit: 1) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///{}/file/s.db", "exists"),
        ("journal://{}/file/s.log", "exists"),
        ("sqlite:///{}", "is a folder"),
        ("journal://{}", "is a folder"),
        ("sqlite:///{}/file", "not a database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("journal://", "names no file"),
        ("mysql://user:secret@host/db", "of no kind that is known here: use sqlite"),
        ("search.db", "of no kind that is known here: use sqlite"),
        ("postgresql://", "names no database"),
        ("postgresql://user:secret@127.0.0.1:1/db", "refused"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line_at_once(tmp_path, monkeypatch, url, words):
    (tmp_path / "file").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("tried again"))
    with pytest.raises(UserError, match=words) as raised:
        WorkQueue(url.format(tmp_path), "search", ["u1"])
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_locked_database_is_asked_again(tmp_path, monkeypatch):
    from sqlalchemy.exc import OperationalError

    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    said = iter(["database is locked", "database is busy"])

    def call():
        for text in said:
            raise OperationalError("select", {}, Exception(text))
        return 5

    assert storage.again(call, opening=True) == 5 and len(waits) == 2
    with pytest.raises(UserError, match="disk is full"):
        storage.again(lambda: (_ for _ in ()).throw(OSError(28, "disk is full")))
