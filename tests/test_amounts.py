import logging

import pytest

from recspark.prepare import amounts
from recspark.settings import Table


@pytest.mark.parametrize(
    ("numbers", "price", "quantity"),
    [
        (["price", "quantity"], "price", "quantity"),
        (["discount", "unit_price", "units_sold"], "unit_price", "units_sold"),
        (["unitPrice", "orderQty"], "unitPrice", "orderQty"),
        (["PRICE", "QTY"], "PRICE", "QTY"),
        (["list_price", "sale_price"], None, None),  # which of them is anybody's guess
        (["priceless", "unit"], None, None),
        ([], None, None),
    ],
)
def test_a_column_is_found_by_a_word_of_its_name_if_it_is_the_only_one(
    numbers, price, quantity, caplog
):
    caplog.set_level(logging.INFO)
    table = Table(path="sales")
    assert amounts.price_column("sales", table, numbers) == price
    assert amounts.quantity_column("sales", table, numbers) == quantity
    told = f"tables.sales: '{price}' is read as the price of a row; price_column names another"
    assert (told in caplog.text) == (price is not None)


def test_what_is_declared_goes_before_what_is_named_like_it(caplog):
    caplog.set_level(logging.INFO)
    table = Table(path="sales", price_column="paid", quantity_column="pieces")
    numbers = ["price", "paid", "quantity", "pieces"]
    assert amounts.price_column("sales", table, numbers) == "paid"
    assert amounts.quantity_column("sales", table, numbers) == "pieces"
    assert not caplog.text
