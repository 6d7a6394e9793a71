"""Locks: one process at a time, gone with it, waited for, and no obstacle where the file system has none."""

import errno
import fcntl
import importlib.util
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zfjax import files
from zfjax.errors import FailedError, HeldError, UserError

HOLD = "import sys, time; from pathlib import Path; from zfjax import files\n"
HOLD += "with files.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_lock_names_its_holder_and_falls_when_that_is_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=rf"another process is writing into .* \(process {holder.pid} on "):
            with files.locked(tmp_path):
                pass
        holder.kill()
    with files.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_patient_process_gets_the_lock_when_it_is_let_go(tmp_path):
    ready, order = threading.Event(), []

    def hold():
        with files.locked(tmp_path):
            ready.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    with files.locked(tmp_path, patience=20):
        order.append("second")
        with pytest.raises(HeldError), files.locked(tmp_path):
            pass
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EPERM]
)
def test_where_the_file_system_has_no_locks_a_warning_is_logged_and_the_work_goes_on(
    monkeypatch, tmp_path, caplog, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), files.locked(tmp_path):
        pass
    assert f"{tmp_path}: its file system has no locks" in caplog.text


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_another_error_of_the_lock_names_the_folder_and_the_way_on(monkeypatch, tmp_path):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    words = rf"{tmp_path} cannot be kept from other processes \(Input/output error\); name a folder on another disk"
    with pytest.raises(FailedError, match=words), files.locked(tmp_path):
        pass


def test_a_lock_that_another_machine_holds_is_told_so_where_smb_says_that_it_is_denied(monkeypatch, tmp_path):
    (tmp_path / files.LOCK).write_text("process 7 on elsewhere\n")
    monkeypatch.setattr(fcntl, "flock", failing(errno.EACCES))
    with pytest.raises(HeldError, match=r"another process is writing .* \(process 7 on elsewhere\)"):
        with files.locked(tmp_path, patience=0.2):
            pass
    assert (tmp_path / files.LOCK).read_text() == "process 7 on elsewhere\n"


def test_a_lock_that_the_disk_does_not_take_is_named(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/{files.LOCK}'"), files.locked(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_windows_where_there_is_no_flock_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as there: it cannot be imported
    monkeypatch.setattr(sys, "platform", "win32")
    spec = importlib.util.spec_from_file_location("files_of_windows", files.__file__)
    of_windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(of_windows)
    words = (
        f"{tmp_path} cannot be kept from other processes: this system has no flock.*tested on Linux; on Windows use WSL"
    )
    with pytest.raises(UserError, match=words), of_windows.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_claimed_folder_where_nothing_was_written_is_gone_with_its_parents(tmp_path):
    with files.claimed(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with files.claimed(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_full_disk_is_named_with_the_file(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*result.json'"):
        files.save_json(tmp_path / "result.json", {})
