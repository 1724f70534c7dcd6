"""Every notebook runs from top to bottom, with a shorter training, and what is committed holds outputs and no error."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))

# What stands in a notebook's cell of parameters, made small: the code is what is tested here, not the result.
SIZES = [256, 64, 64]
SHORT: dict[str, dict] = {
    "1_quickstart": {"EPOCHS": 10},
    "2_fourier_encodings": {},
    "3_attention": {"EPOCHS": 1, "SIZES": SIZES},
    "4_three_modalities": {"EPOCHS": 1, "SIZES": SIZES},
    "5_permuted_pixels": {"EPOCHS": 1, "SIZES": SIZES},
    "6_compare_runs": {"EPOCHS": 4},
    "7_bring_your_own_data": {"EPOCHS": 10},
    "8_megapixels": {"SIDES": [64, 128], "DENSE_SIDES": [64], "EPOCHS": 1},
}


PATH_OF_A_MACHINE = re.compile(r"/(home|root|tmp|Users)/")  # which no output that is committed may show


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, 4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    given = {"RUNS": str(tmp_path), **SHORT[path.stem]}
    for name in given:  # else a new name here would change nothing
        assert f"\n{name} = " in f"\n{parameters.source}", f"{name} is no parameter of {path}"
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # from top to bottom, at once
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and not [output for output in outputs if output.output_type == "error"]
    said = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in said if not text.startswith("data: ")]
    texts = [str(value) for output in outputs for value in (output.get("text"), *output.get("data", {}).values())]
    assert not [text for text in texts if PATH_OF_A_MACHINE.search(text)]
