# Copyright (c) monai_kd contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A file is replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from monai_kd.data import replace_file, write_aside
from monai_kd.data.write_aside import folder_aside, remove_left

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """As most systems have it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class TestWriteAside:
    def test_file_is_replaced_when_the_block_ends(self, tmp_path):
        path = tmp_path / "new" / "folder" / "a.txt"
        for text in ("one", "two"):
            with write_aside(path) as aside:
                aside.write_text(text)
                assert (aside.name, aside.parent.parent) == ("a.txt", path.parent)
                assert not path.exists() or path.read_text() == "one"
            assert path.read_text() == text
        assert names(path.parent) == ["a.txt"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), GeneratorExit()])
    @pytest.mark.parametrize("earlier", [True, False])
    def test_block_that_fails_leaves_nothing(self, tmp_path, error, earlier):
        path = tmp_path / "a.txt"
        if earlier:
            path.write_text("earlier")

        def write() -> None:
            with write_aside(path) as aside:
                aside.write_text("half")
                raise error

        with pytest.raises(type(error)):
            write()
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "earlier")] * earlier

    def test_full_disk_keeps_the_earlier_file(self, tmp_path, full_disk):
        path = replace_file(tmp_path / "a.txt", "earlier" * 1000)
        with full_disk(5000), pytest.raises(OSError, match="File too large"):
            replace_file(path, "newer" * 10_000)
        assert path.read_text() == "earlier" * 1000
        assert names(tmp_path) == ["a.txt"]

    @posix
    def test_permissions_are_those_of_a_plain_file(self, tmp_path, umask):
        path = tmp_path / "a.txt"
        with write_aside(path) as aside:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT, 0o600))  # as writers do that make a file of their own
        assert mode(path) == 0o644
        path.chmod(0o640)
        replace_file(path, "two")
        assert mode(path) == 0o640

    @posix
    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write to all")
    def test_file_that_is_protected_is_refused(self, tmp_path):
        path = replace_file(tmp_path / "a.txt", "earlier")
        path.chmod(0o444)
        with pytest.raises(PermissionError, match="a.txt"):
            replace_file(path, "newer")
        assert path.read_text() == "earlier"

    def test_protected_file_by_any_user(self, tmp_path, monkeypatch):
        path = replace_file(tmp_path / "a.txt", "earlier")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(PermissionError, match="a.txt"):
            replace_file(path, "newer")
        assert names(tmp_path) == ["a.txt"]

    def test_folder_is_refused_before_anything_is_written(self, tmp_path):
        (tmp_path / "a.bin").mkdir()
        with pytest.raises(IsADirectoryError, match="a.bin"):
            replace_file(tmp_path / "a.bin", "x")

        def write() -> None:
            with write_aside(tmp_path / "a.xml") as aside:
                aside.write_text("network")
                aside.with_suffix(".bin").write_text("weights")

        with pytest.raises(IsADirectoryError, match="a.bin"):
            write()
        assert names(tmp_path) == ["a.bin"]

    def test_second_file_of_a_writer_comes_along(self, tmp_path):
        for number in "12":
            with write_aside(tmp_path / "a.xml") as aside:
                aside.write_text("network" + number)
                aside.with_suffix(".bin").write_text("weights" + number)
        assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["weights2", "network2"]

    def test_name_as_long_as_the_file_system_takes(self, tmp_path):
        path = tmp_path / ("n" * 251 + ".txt")
        replace_file(path, "x")
        assert names(tmp_path) == [path.name]

    @posix
    def test_link_stays_and_its_target_is_replaced(self, tmp_path):
        (tmp_path / "disk").mkdir()
        link, target = tmp_path / "a.txt", tmp_path / "disk" / "b.txt"
        link.symlink_to(target)
        for text in ("one", "two"):  # it may lead to a file that is to be made
            replace_file(link, text)
            assert link.is_symlink()
            assert target.read_text() == text
        assert names(target.parent) == ["b.txt"]

    @posix
    def test_device_is_written_to(self):
        with write_aside(os.devnull) as aside:
            assert aside == Path(os.devnull)
        assert Path(os.devnull).is_char_device()

    @posix
    def test_folder_that_takes_no_file_is_named_by_the_file(self, tmp_path, monkeypatch):
        def refuse(path: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("pathlib.Path.mkdir", lambda path, *_, **k: None if k else refuse(path))
        with pytest.raises(PermissionError, match=r"Permission denied: '.*a.txt'"):
            replace_file(tmp_path / "a.txt", "x")

    def test_file_that_another_program_holds_open_stays(self, tmp_path, monkeypatch):
        """On Windows, as cases.csv in a spreadsheet."""
        path = replace_file(tmp_path / "cases.csv", "earlier")

        def refuse(source: Path, target: Path) -> None:
            raise PermissionError(13, "Access is denied", str(source), 5, str(target))

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError, match="cases.csv"):
            replace_file(path, "newer")
        assert path.read_text() == "earlier"
        assert names(tmp_path) == ["cases.csv"]

    @pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError()])
    def test_file_system_without_locks(self, tmp_path, monkeypatch, error):
        def refuse(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
        replace_file(tmp_path / "a.txt", "x")
        remove_left(tmp_path)
        assert names(tmp_path) == ["a.txt"]

    def test_content_is_on_the_disk_before_the_earlier_one_goes(self, tmp_path, monkeypatch):
        done = []
        monkeypatch.setattr(os, "fsync", lambda number: done.append("sync"))
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda *pair: (done.append("replace"), replace(*pair)))
        for sync in (False, True):
            with write_aside(tmp_path / "a.txt", sync) as aside:
                aside.write_text("x")
        assert done == ["replace", "sync", "replace"]


def test_text_is_the_same_on_every_system(tmp_path):
    assert replace_file(tmp_path / "a.txt", "ü\n").read_bytes() == b"\xc3\xbc\n"
    assert replace_file(tmp_path / "a.txt", b"\r\n").read_bytes() == b"\r\n"


class TestFolderAside:
    @pytest.mark.parametrize("empty", [True, False])
    def test_folder_is_there_when_the_block_ends(self, tmp_path, empty):
        path = tmp_path / "new" / "bundle"
        if empty:
            path.mkdir(parents=True)
        with folder_aside(path) as aside:
            (aside / "a.txt").write_text("one")
            assert not path.exists() or names(path) == []
        assert names(path) == ["a.txt"]
        assert names(path.parent) == ["bundle"]

    def test_block_that_fails_leaves_nothing(self, tmp_path):
        def write() -> None:
            with folder_aside(tmp_path / "bundle") as aside:
                (aside / "a.txt").write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write()
        assert names(tmp_path) == []

    def test_folder_with_files_stays(self, tmp_path):
        replace_file(tmp_path / "bundle" / "b.txt", "earlier")
        with pytest.raises(OSError, match="bundle"), folder_aside(tmp_path / "bundle") as aside:
            (aside / "a.txt").write_text("one")
        assert names(tmp_path / "bundle") == ["b.txt"]

    def test_what_a_killed_process_left_is_removed(self, tmp_path):
        left = tmp_path / ".partial-0123"
        left.mkdir()
        os.utime(left, (0, 0))
        with folder_aside(tmp_path / "bundle"):
            pass
        assert names(tmp_path) == ["bundle"]


class TestRemoveLeft:
    def left(self, folder: Path, name: str, age: float = 100) -> Path:
        path = folder / name
        path.mkdir()
        (path / "model.pt").write_text("half")
        seconds = path.stat().st_mtime - age
        os.utime(path, (seconds, seconds))
        return path

    def test_only_what_nobody_writes_to_goes(self, tmp_path):
        self.left(tmp_path, ".partial-dead")
        kept = [self.left(tmp_path, ".partial-begun", age=1), self.left(tmp_path, "partial-mine")]
        with write_aside(tmp_path / "a.txt") as aside:
            os.utime(aside.parent, (0, 0))
            remove_left(tmp_path)
            aside.write_text("x")
        assert names(tmp_path) == sorted(["a.txt", *(path.name for path in kept)])
        remove_left(tmp_path / "missing")

    def test_what_a_killed_process_left_goes(self, tmp_path):
        code = (
            "import sys, time; from filelock import FileLock\n"
            "lock = FileLock(sys.argv[1]); lock.acquire(); print(flush=True); time.sleep(60)"
        )
        left = self.left(tmp_path, ".partial-dead")
        command = [sys.executable, "-c", code, str(left / ".lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            os.utime(left, (0, 0))
            remove_left(tmp_path)
            assert names(tmp_path) == [".partial-dead"]
            process.kill()
        os.utime(left, (0, 0))
        remove_left(tmp_path)
        assert names(tmp_path) == []
