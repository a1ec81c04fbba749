import io
import math
from dataclasses import dataclass

from rich.console import Console

from recspark.report import terminal
from recspark.report.terminal import Recommended


@dataclass(frozen=True)
class Interval:
    mean_difference: float
    low: float
    high: float
    level: float = 0.95


METHODS = {
    "recspark": {"map_at_12": 0.2391, "hit_rate_at_12": 0.6},
    "personal_frequency": {"map_at_12": 0.2034, "hit_rate_at_12": 0.61},
    "popularity": {"map_at_12": 0.0521, "hit_rate_at_12": math.nan},
}


def text_of(renderable, styles=False):
    console = Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text(styles=styles)


def lines_of(renderable):
    """Rows of the drawn table as their cells' words."""
    return [line.split() for line in text_of(renderable).splitlines() if line.strip()]


def test_methods_stand_side_by_side_and_the_best_of_each_metric_is_bold():
    table = terminal.metrics_table(METHODS, title="Test 2011-09-10", num_users=1063)
    lines = lines_of(table)
    assert lines[0] == ["Test", "2011-09-10", "·", "1,063", "users"]
    assert lines[1] == ["method", "MAP@12", "hit", "rate@12"]
    assert lines[3:] == [
        ["recspark", "0.2391", "0.6000"],
        ["personal_frequency", "0.2034", "0.6100"],
        ["popularity", "0.0521", "-"],
    ]
    styled = text_of(table, styles=True)
    bold = [part.split("\x1b")[0] for part in styled.split("\x1b[1m")[1:]]
    assert [cell.strip() for cell in bold if "0." in cell] == ["0.2391", "0.6100"]


def test_each_baseline_has_its_interval_and_colour_says_whether_zero_is_left_out():
    intervals = {
        "personal_frequency": Interval(-0.02, -0.03, -0.01),
        "popularity": Interval(0.02, -0.01, 0.05),
    }
    table = terminal.metrics_table(METHODS, title="Test", num_users=3, intervals=intervals)
    words = " ".join(text_of(table).split())
    assert "-0.0200 (-0.0300 to -0.0100)" in words
    assert "+0.0200 (-0.0100 to +0.0500)" in words
    styled = text_of(table, styles=True)
    assert "\x1b[31m-0.0200" in styled
    assert "\x1b[32m" not in styled


@dataclass(frozen=True)
class Slice:
    name: str
    num_users: int
    maps: dict
    interval: Interval | None


def test_a_slice_tells_its_users_and_the_gain_over_the_best_baseline():
    slices = [
        Slice("new items", 1200, {"recspark": 0.3, "als": 0.2}, Interval(0.1, 0.05, 0.15)),
        Slice("new entities", 0, {"recspark": math.nan, "als": math.nan}, None),
    ]
    lines = lines_of(terminal.slices_table(slices, against="als"))
    assert lines[1] == ["slice", "users", "recspark", "als", "difference,", "interval"]
    assert lines[3] == [
        "new",
        "items",
        "1,200",
        "0.3000",
        "0.2000",
        "+0.1000",
        "(+0.0500",
        "to",
        "+0.1500)",
    ]
    assert lines[4] == ["new", "entities", "0", "-", "-"]


def test_each_entity_is_named_once_above_its_items():
    rows = [
        Recommended(entity_id=7, rank=1, item_id="A1", name="[red] mug", score=1.5, reason="again"),
        Recommended(entity_id=7, rank=2, item_id="B2", name=None, score=0.25, reason=None),
        Recommended(entity_id=8, rank=1, item_id="A1", name="long " * 40, score=1, reason="new"),
    ]
    lines = lines_of(terminal.recommendations_table(rows, entity="user_id", item="item_id"))
    assert lines[1] == ["user_id", "rank", "item_id", "name", "score", "reason"]
    assert lines[3] == ["7", "1", "A1", "[red]", "mug", "1.5000", "again"]
    assert lines[4] == ["2", "B2", "0.2500"]
    last = lines[-1]
    assert last[:3] == ["8", "1", "A1"]
    assert "…" in " ".join(last)
    assert last[-2:] == ["1.0000", "new"]


def test_the_summary_says_where_everything_is():
    summary = terminal.run_summary(
        recommendations="out/recommendations",
        num_rows=12_000,
        num_entities=1_000,
        model="recspark-shop 3",
        run_id="abc",
        tracking_uri="sqlite:///mlflow.db",
        seconds=187.4,
    )
    assert [" ".join(line) for line in lines_of(summary)] == [
        "Recommendations out/recommendations",
        "Rows 12,000 for 1,000 entities",
        "Model recspark-shop 3",
        "MLflow run abc at sqlite:///mlflow.db",
        "Time 3 min 7 s",
    ]
