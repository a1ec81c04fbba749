import ast
import json
from pathlib import Path

import pytest

from recspark import tables

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "explore_recommendations.ipynb"


def code_cells():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_output_and_every_cell_is_python():
    cells = code_cells()
    assert len(cells) >= 5
    for cell in cells:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        ast.parse("".join(cell["source"]))


@pytest.mark.deep
def test_the_notebook_runs_on_what_the_weekly_job_wrote(spark, monkeypatch):
    written = str(ROOT / "data" / "recommendations")
    if not tables.exists(spark, written) or tables.read(spark, written).isEmpty():
        pytest.skip("nothing to look at before `make run`")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(ROOT / "notebooks")
    names = {}
    for cell in code_cells():
        exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    lists = names["newest"].where(f"entity_id = {names['user_id']!r}").count()
    assert lists > 0
    assert names["reasons"]["count"].sum() == names["newest"].count()
    assert any(name.startswith("test/map_at_") for name in names["measured"])
