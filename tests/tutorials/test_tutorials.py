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

"""The tutorials: their form is that of Project-MONAI's notebooks, they are stored executed, and they run."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(TUTORIALS.glob("*.ipynb"))}
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def code(name: str) -> list[Any]:
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def python(cell: Any) -> str:
    """The Python of a cell; lines for the shell and for IPython are left out."""
    return "\n".join("" if line.startswith(("!", "%")) else line for line in cell.source.splitlines())


def texts(cell: Any) -> list[str]:
    """What a cell printed or showed as text."""
    outputs = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
    return [text for text in outputs if text]


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


def test_the_list_names_each_tutorial():
    listed = re.findall(r"\]\((\w+)\.ipynb\)", (TUTORIALS / "README.md").read_text("utf-8"))
    assert listed == list(NOTEBOOKS)
    assert len(listed) >= 2


@every_notebook
def test_begins_as_project_monai_wants(name):
    cells = NOTEBOOKS[name].cells
    assert [cell.cell_type for cell in cells[:5]] == ["markdown", "markdown", "code", "markdown", "code"]
    licence, environment, install, imports, config = (cell.source for cell in cells[:5])
    assert "http://www.apache.org/licenses/LICENSE-2.0" in licence
    assert all(line.endswith("  ") for line in licence.splitlines()[:9])
    assert re.search(r"^# \w+", licence, re.M)
    assert environment.startswith("## Setup environment")
    assert "pip install -q" in install
    assert imports.startswith("## Setup imports")
    assert config.endswith("print_config()")


@every_notebook
def test_imports_stand_in_one_cell(name):
    for number, cell in enumerate(code(name)):
        found = [node for node in ast.walk(ast.parse(python(cell))) if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert bool(found) == (number == 1)


@every_notebook
def test_has_the_variables_that_a_runner_shortens(name):
    source = "\n".join(cell.source for cell in code(name))
    assert len(re.findall(r"^max_epochs = \d+$", source, re.M)) == 1
    assert len(re.findall(r"^val_interval = \d+$", source, re.M)) == 1
    assert 'os.environ.get("MONAI_DATA_DIRECTORY")' in source
    assert "tempfile.mkdtemp()" in source
    assert "set_determinism(" in source
    assert code(name)[-1].source == "if directory is None:\n    shutil.rmtree(root_dir)"


@every_notebook
def test_code_is_short_and_of_the_notebook(name):
    """Lines fit, and what is more than a few lines belongs in the package."""
    for cell in code(name):
        assert max(map(len, cell.source.splitlines())) <= 120
        for node in ast.walk(ast.parse(python(cell))):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 30


@every_notebook
def test_is_stored_as_one_run_from_top_to_bottom(name):
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    assert {output.output_type for cell in code(name) for output in cell.outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not [output for cell in code(name) for output in cell.outputs if output.get("name") == "stderr"]
    assert pictures(code(name)) >= 3


@every_notebook
def test_outputs_are_fit_to_be_shared(name):
    """Short, without a path of somebody's machine, without the remains of progress bars."""
    for cell in code(name):
        for text in texts(cell):
            assert text.count("\n") < 100
            assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work\w*|mnt|Users|var|opt)/|[A-Z]:\\", text)
            assert not re.search(r"\r|\d+%\||it/s", text)
    assert (TUTORIALS / f"{name}.ipynb").stat().st_size < 600_000


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """A machine without network or display, on which `pip` leaves a trace and the interpreter is this one."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pip").write_text(f"#!/bin/sh\ntouch '{tmp_path}/pip_was_called'\n")
    (tools / "python").write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(TUTORIALS.parent), prepend=":")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("DISPLAY", "MONAI_DATA_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


@pytest.mark.slow
@every_notebook
def test_runs(name, alone):
    """As Project-MONAI's runner does, with one epoch in place of several; an error in a cell is raised here."""
    notebook = nbformat.from_dict(NOTEBOOKS[name])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^(max_epochs|val_interval) = \d+$", r"\1 = 1", cell.source, flags=re.M)
            cell.outputs = []
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(alone / "TMPDIR")}}).execute()
    executed = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert pictures(executed) == pictures(code(name))
    assert not (alone / "pip_was_called").exists()
    assert [path for path in (alone / "TMPDIR").iterdir() if path.is_dir()] == []  # its data directory is gone
