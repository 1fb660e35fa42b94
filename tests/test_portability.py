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

"""What holds on other systems and versions of Python, as far as the code tells; it is run on Linux alone."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("monai_kd", "docs", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
EVERY_FILE = [ROOT / "setup.py", *SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
OF_POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
# attributes of modules that Windows lacks
LACKING = {
    "os": {"fork", "forkpty", "geteuid", "getuid", "getpgid", "killpg", "mkfifo", "setsid", "sched_getaffinity"},
    "signal": {"SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm"},
    "time": {"tzset"},
}
TEXT_CALLS = {"open": 1, "read_text": 0, "write_text": 1}  # with the place of `encoding`, or of the mode before it
FOREIGN = {"Image", "av", "os", "archive", "tarfile", "zipfile"}  # whose `open` reads no text


def breaches(breaks: Callable[[ast.AST], bool], paths: Iterable[Path] = SOURCES) -> list[str]:
    """Where a rule is broken."""
    found = []
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text("utf-8"), feature_version=(3, 10)))
        found += [f"{path.relative_to(ROOT)}:{node.lineno}" for node in nodes if breaks(node)]
    return found


def test_syntax_is_that_of_the_oldest_python():
    assert breaches(lambda node: False, EVERY_FILE) == []


def is_of_posix(node: ast.AST) -> bool:
    """Whether it names what Windows lacks."""
    if isinstance(node, ast.Import):
        return bool({alias.name for alias in node.names} & OF_POSIX)
    if isinstance(node, ast.ImportFrom):
        return node.module in OF_POSIX
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr in LACKING.get(node.value.id, ())
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text and node.value.startswith(("/tmp", "/var/", "/home/"))


def test_nothing_is_used_that_windows_lacks():
    assert breaches(is_of_posix) == []


def without_encoding(node: ast.AST) -> bool:
    """Whether a call reads or writes a text in whatever encoding the system has."""
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    foreign = name == "open" and isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in FOREIGN
    if name not in TEXT_CALLS or foreign or any(keyword.arg == "encoding" for keyword in node.keywords):
        return False
    constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
    if name == "open":
        return not any(isinstance(each, str) and "b" in each and len(each) <= 3 for each in constants)
    return len(node.args) <= TEXT_CALLS[name]


def test_text_has_its_encoding():
    """That of Windows is another one, and an umlaut in a name ends a run."""
    assert breaches(without_encoding) == []


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("open('a')", True),
        ("path.open('w', newline='')", True),
        ("path.read_text()", True),
        ("path.write_text('a')", True),
        ("open('a', 'rb')", False),
        ("path.open(encoding='utf-8')", False),
        ("path.read_text('utf-8')", False),
        ("Image.open(path)", False),
    ],
)
def test_the_rule_of_encodings_itself(code, wrong):
    assert any(without_encoding(node) for node in ast.walk(ast.parse(code))) is wrong


@pytest.mark.parametrize(
    "code", ["import fcntl", "from pwd import getpwnam", "os.fork()", "signal.SIGKILL", "'/tmp/a'"]
)
def test_the_rule_of_posix_itself(code):
    assert any(is_of_posix(node) for node in ast.walk(ast.parse(code)))
