"""The notebooks run on data that was just captured, and are committed as an analyst wants to find them."""

import base64
import re
from copy import deepcopy
from typing import Any

import nbformat
import pytest

from arb_pipeline_tests.examples.conftest import Captured
from arb_pipeline_tests.examples.notebooks import FOLDER, NAMES, load, plain, run

FIGURES_MOST = 100_000


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def figures(notebook: Any) -> list[bytes]:
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs(notebook) if "image/png" in o.get("data", {})]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_on_captured_data_without_a_warning(name: str, captured: Captured) -> None:
    done = run(name, captured.lake.root)
    assert [output["text"] for output in outputs(done) if output.get("name") == "stderr"] == []
    committed = load(name)
    assert len(figures(done)) == len(figures(committed)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_with_outputs_and_nothing_of_the_machine(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    assert all(cell.outputs for cell in code[1:] if not cell.source.startswith("def "))
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert plain(deepcopy(notebook)) == notebook, "metadata of a run is left in it"
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs(notebook))
    used = set(re.findall(r"^(?:from|import) (\w+)", "\n".join(cell.source for cell in code), re.MULTILINE))
    assert used == {"arb_pipeline", "matplotlib", "os", "pandas"}
    assert not re.search(r"arb_pipeline\.(storage|capture|pipeline|venues)", text), "the public interface only"


def test_the_figures_are_small() -> None:
    sizes = [len(one) for name in NAMES for one in figures(load(name))]
    assert len(sizes) >= 4
    assert sum(sizes) < FIGURES_MOST
