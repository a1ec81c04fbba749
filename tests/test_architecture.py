"""Who may import whom, read from the source: imports inside functions count, those that only type checkers see do not."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "recspark"
STAGES = ("query", "prepare", "gnn", "evaluate", "recommend", "report", "demo")
SPARK, TORCH = ("pyspark", "delta", "py4j"), ("torch", "torch_geometric")
MAX_LINES = 310

# What a module, or a package with all in it, must never import, anywhere.
FORBIDDEN = {
    "recspark.query": (*SPARK, *TORCH),
    "recspark.settings": (*SPARK, *TORCH),
    "recspark.schema": (*SPARK, *TORCH),
    "recspark.windows": (*SPARK, *TORCH),
    "recspark.encodings": (*SPARK, *TORCH),
    "recspark.evaluate.metrics": (*SPARK, *TORCH),
    "recspark.progress": (*SPARK, *TORCH),  # the driver and the ranks use it
    "recspark.gnn": SPARK,
    "recspark.prepare": TORCH,
}

# Stages do not import each other. Each exception, and why it is none.
ALLOWED = {
    ("prepare", "query.nodes"): "the query's nodes are what snapshots and conditions are made of",
    ("evaluate.item_item", "prepare.item_state_files"): "it ranks by the cosines of candidates",
    ("gnn", "evaluate.bootstrap"): "what validation takes for chance is judged as the rest is",
    ("gnn", "evaluate.metrics"): "validation during training is measured as the final judgement",
    ("recommend.scoring", "gnn"): "workers load the network, inside functions",
    ("recommend.model_files", "gnn.catalogue"): "the files of a model are what the network reads",
    ("recommend.pyfunc_model", "gnn"): "the served model is the network, loaded inside functions",
    ("recommend.pyfunc_model", "query.parse"): "K stands in the model's own query",
}


def modules():
    """Dotted name to file, of the package and the jobs."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


MODULES = modules()


def is_inside(name, place):
    """Whether a dotted name is this place or in it."""
    return name == place or name.startswith(f"{place}.")


def imported(statement):
    if isinstance(statement, ast.Import):
        return [name.name for name in statement.names]
    # `from recspark import schema` is an import of recspark.schema.
    return [f"{statement.module}.{name.name}" for name in statement.names]


def statements(node):
    """Every node below, except what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


@cache
def imports(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return tuple(
        name
        for statement in statements(tree)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for name in imported(statement)
    )


def edges():
    """(importing module, imported name) between two stages, without `recspark.` before."""
    for module in MODULES:
        for name in imports(module):
            ours, theirs = module.split(".")[1:2], name.split(".")[1:2]
            if module.startswith("recspark.") and name.startswith("recspark."):
                if ours != theirs and {*ours, *theirs} <= {*STAGES}:
                    yield module.removeprefix("recspark."), name.removeprefix("recspark.")


def rule_of(edge):
    return [
        rule for rule in ALLOWED if all(is_inside(n, p) for n, p in zip(edge, rule, strict=True))
    ]


def test_the_reader_of_imports_sees_functions_and_not_type_checkers():
    tree = ast.parse(
        "import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d import e as g"
    )
    found = [i for s in statements(tree) if hasattr(s, "names") for i in imported(s)]
    assert found == ["a.b", "d.e"]


@pytest.mark.parametrize("place", FORBIDDEN)
def test_engines_stay_out_of_where_they_do_not_belong(place):
    inside = [module for module in MODULES if is_inside(module, place)]
    assert inside
    found = [
        f"{module} imports {name}"
        for module in inside
        for name in imports(module)
        if any(is_inside(name, engine) for engine in FORBIDDEN[place])
    ]
    assert found == []


def test_stages_do_not_import_each_other_but_for_a_reason():
    assert [
        f"{ours} imports {theirs}" for ours, theirs in edges() if not rule_of((ours, theirs))
    ] == []


def test_every_exception_is_still_needed():
    used = {rule for edge in edges() for rule in rule_of(edge)}
    assert set(ALLOWED) - used == set()


@pytest.mark.parametrize(
    "module", ["recommend.scoring", "recommend.model_files", "recommend.pyfunc_model"]
)
def test_recommend_loads_the_network_inside_functions_only(module):
    tree = ast.parse(MODULES[f"recspark.{module}"].read_text(encoding="utf-8"))
    at_top = [s for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom)]
    names = [name for statement in at_top for name in imported(statement)]
    engines = ("recspark.gnn", *TORCH)
    assert [name for name in names if any(is_inside(name, place) for place in engines)] == []


def test_only_the_pipeline_and_the_jobs_compose_stages():
    shared = [
        m for m in MODULES if is_inside(m, "recspark") and not is_inside(m, "recspark.pipeline")
    ]
    above = ("recspark.pipeline", "jobs")
    found = [
        f"{m} imports {n}"
        for m in shared
        for n in imports(m)
        if any(is_inside(n, a) for a in above)
    ]
    assert found == []
    nouns = [m for m in shared if m.count(".") == 1 and m.split(".")[1] not in STAGES]
    stages = tuple(f"recspark.{stage}" for stage in STAGES)
    found = [
        f"{m} imports {n}"
        for m in nouns
        for n in imports(m)
        if any(is_inside(n, s) for s in stages)
    ]
    assert found == []


def test_only_one_module_knows_the_storage_format():
    marks = ('format("delta")', "delta.tables", "delta.`")
    speaking = {
        module
        for module, file in MODULES.items()
        if any(mark in file.read_text(encoding="utf-8") for mark in marks)
    }
    assert speaking == {"recspark.tables"}


def test_files_are_short_and_named_after_what_they_are_about():
    lengths = {m: len(f.read_text(encoding="utf-8").splitlines()) for m, f in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > MAX_LINES} == {}
    names = {part for module in MODULES for part in module.split(".")}
    assert names & {"utils", "util", "common", "helpers", "misc"} == set()


def test_a_driver_starts_without_torch():
    """It takes seconds to import; ranks and workers need it, the driver does not."""
    code = "import sys, recspark.pipeline.judge, recspark.pipeline.learn; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert {"torch", "xgboost"} & set(loaded.stdout.decode().split()) == set()
