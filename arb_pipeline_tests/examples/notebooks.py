"""The notebooks under ``examples/``: how they are run, and how they are written back with their outputs.

``python -m arb_pipeline_tests.examples.notebooks LAKE`` runs all of them on a lake and replaces their outputs.
"""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = ("explore_ticks.ipynb", "pair_episode.ipynb")
TIMEOUT_S = 120

_format: Any = nbformat  # its functions are not typed


def load(name: str) -> Any:
    """A notebook as it is committed."""
    return _format.read(FOLDER / name, as_version=4)


def run(name: str, lake: str) -> Any:
    """A notebook with the outputs that it has on a lake.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = load(name)
    environment = {**os.environ, "ARB_LAKE": lake, "PYTHONWARNINGS": "error::DeprecationWarning:__main__"}
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", record_timing=False)
    client.execute(cwd=str(FOLDER), env=environment)
    return notebook


def plain(notebook: Any) -> Any:
    """The notebook without what differs from run to run and machine to machine but the outputs themselves."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = {}
    return notebook


def main(lake: str) -> None:
    """Run every notebook on a lake and write it back."""
    for name in NAMES:
        _format.write(plain(run(name, str(Path(lake).resolve()))), FOLDER / name)


if __name__ == "__main__":
    main(sys.argv[1])
