import runpy
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import drawn

from recspark import tables

main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "make_tables.py"))["main"]

# One person, ann, ordered three times under three customer ids; bob's order never arrived.
PUBLISHED = {
    "customers": """
        customer_id:string | customer_unique_id:string | customer_zip_code_prefix:int | customer_city:string | customer_state:string
        c1                 | ann                       | 1310                         | sao paulo            | SP
        c2                 | ann                       | 20010                        | rio de janeiro       | RJ
        c3                 | ann                       | 20010                        | rio de janeiro       | RJ
        c4                 | bob                       | 30110                        | belo horizonte       | MG
        """,
    "orders": """
        order_id:string | customer_id:string | order_status:string | order_purchase_timestamp:timestamp
        o2              | c2                 | delivered           | 2017-06-01T10:00:00
        o1              | c1                 | delivered           | 2017-05-01T23:30:00
        o3              | c3                 | canceled            | 2017-04-01T10:00:00
        o4              | c4                 | shipped             | 2017-04-02T10:00:00
        """,
    "order_items": """
        order_id:string | order_item_id:int | product_id:string | seller_id:string | price:double | freight_value:double
        o1              | 1                 | lamp              | s1               | 10           | 2.5
        o1              | 2                 | lamp              | s1               | 10           | 2.5
        o2              | 1                 | lamp              | s1               | 12           | 3
        o2              | 2                 | vase              | s2               | 20           | 4
        o3              | 1                 | rug               | s2               | 99           | 9
        """,
    "order_reviews": """
        order_id:string | review_score:int | review_creation_date:timestamp | review_answer_timestamp:timestamp
        o1              | 5                | 2017-05-09T00:00:00            | 2017-05-11T08:00:00
        o2              | 4                | 2017-06-09T00:00:00            | 2017-06-10T08:00:00
        o2              | 2                | 2017-06-09T00:00:00            | 2017-06-10T08:00:00
        o4              | 1                | 2017-05-09T00:00:00            | 2017-05-10T08:00:00
        """,
    "products": """
        product_id:string | product_category_name:string | product_name_length:int | product_description_length:int | product_photos_qty:int | product_weight_g:int | product_length_cm:int | product_height_cm:int | product_width_cm:int
        lamp              | casa                         | 40                      | 300                            | 2                      | 500                  | 20                    | 30                    | 10
        vase              |                              |                         |                                |                        | 900                  | 15                    | 25                    | 15
        rug               | casa                         | 40                      | 300                            | 2                      | 500                  | 20                    | 30                    | 10
        """,
    "sellers": """
        seller_id:string | seller_zip_code_prefix:int | seller_city:string | seller_state:string
        s1               | 1311                       | sao paulo          | SP
        s2               | 80010                      | curitiba           | PR
        """,
}  # fmt: skip


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for name, text in PUBLISHED.items():
        rows = drawn(text)
        without_zone = pa.schema(
            [
                field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field
                for field in rows.schema
            ]
        )
        pq.write_table(rows.cast(without_zone), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def written(spark, published, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("olist"))
    arguments = ["olist", "--out", out, "--source", str(published)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    names = ("users", "items", "sellers", "transactions", "reviews")
    return {
        name: sorted(
            tuple(row.values())
            for row in tables.read(spark, f"{out}/{name}").toArrow().to_pylist()
        )
        for name in names
    }  # fmt: skip


def test_a_person_is_one_user_who_lives_where_the_first_delivered_order_went(written):
    assert written["users"] == [("ann", "SP", "sao paulo", "01310", "01")]


def test_every_unit_of_a_delivered_order_is_a_purchase_from_its_seller(written):
    first, second = utc(2017, 5, 1, 23, 30), utc(2017, 6, 1, 10)
    assert written["transactions"] == [
        ("o1-1", "o1", "ann", "lamp", "s1", first, 10.0, 2.5),
        ("o1-2", "o1", "ann", "lamp", "s1", first, 10.0, 2.5),
        ("o2-1", "o2", "ann", "lamp", "s1", second, 12.0, 3.0),
        ("o2-2", "o2", "ann", "vase", "s2", second, 20.0, 4.0),
    ]


def test_an_item_is_known_from_its_first_delivered_order_on(written):
    assert written["items"] == [
        ("lamp", "casa", 500, 20, 30, 10, 2, 40, 300, utc(2017, 5, 1, 23, 30)),
        ("vase", None, 900, 15, 25, 15, None, None, None, utc(2017, 6, 1, 10)),
    ]


def test_stars_count_for_each_product_of_the_order_from_the_answer_on(written):
    told = [row[1:] for row in written["reviews"]]
    assert told == [
        ("o1", "ann", "lamp", "s1", utc(2017, 5, 11, 8), 5),
        ("o2", "ann", "lamp", "s1", utc(2017, 6, 10, 8), 2),
        ("o2", "ann", "vase", "s2", utc(2017, 6, 10, 8), 2),
    ]
    assert len({row[0] for row in written["reviews"]}) == 3


def test_all_sellers_are_there_with_the_region_of_their_postcode(written):
    assert written["sellers"] == [
        ("s1", "SP", "sao paulo", "01311", "01"),
        ("s2", "PR", "curitiba", "80010", "80"),
    ]


def test_a_source_that_lacks_a_table_or_a_column_says_which(spark, published, tmp_path):
    arguments = ["olist", "--out", str(tmp_path / "out"), "--source", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "holds no customers.parquet" in result.output
    for name in PUBLISHED:
        rows = pq.read_table(published / f"{name}.parquet")
        rows = rows.drop_columns("order_status") if name == "orders" else rows
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "orders.parquet lacks ['order_status']" in result.output
    assert not (tmp_path / "out").exists()
