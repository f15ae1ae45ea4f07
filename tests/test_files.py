"""Atomic writes: whole or not at all, with ordinary permissions, from many threads at once."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rfdetr.files import atomic_path, write_atomic


@pytest.mark.parametrize("mask", ["022", "077", "000"])
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path, mask) -> None:
    code = f"import os; os.umask(0o{mask}); from rfdetr.files import write_atomic; write_atomic('f', 'x')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~int(mask, 8)


def test_threads_write_and_the_umask_is_never_touched(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to the whole process"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_atomic(tmp_path / "same", f"{i}" * 1000), range(64)))
    content = (tmp_path / "same").read_text()
    assert len(set(content)) <= 2 and [p.name for p in tmp_path.iterdir()] == ["same"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    write_atomic(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "f") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
