"""A small shop with a known answer: even users buy even items, odd users odd items, in rotation.

One item of the parity is never theirs, and what comes next is what they have not bought for longest:
about four of seven items in a week. The tables also hold what happens after the run date.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import yaml

from recspark import tables

RUN_DATE = datetime(2024, 6, 3, tzinfo=UTC)
FIRST_DAY = RUN_DATE - timedelta(weeks=20)
LAST_DAY = RUN_DATE + timedelta(weeks=2)
NUM_USERS, NUM_ITEMS, K = 40, 16, 4
WITHDRAWN, LAUNCHED_LATER = 14, 16  # item numbers: off sale before, on sale only after the run date
COLD_USER, LATE_USER = 40, 41  # joined without buying; joins after the run date
TIMESTAMP = pa.timestamp("us", tz="UTC")

TYPES = {
    "users": {
        "user_id": pa.int64(), "joined_at": TIMESTAMP, "country": pa.string(),
        "email_opt_in": pa.bool_(),
    },
    "merchants": {"merchant_id": pa.int32(), "rating": pa.float64()},
    "items": {
        "item_id": pa.string(), "name": pa.string(), "price": pa.float64(),
        "merchant_id": pa.int32(), "on_sale_from": TIMESTAMP, "on_sale_until": TIMESTAMP,
    },
    "transactions": {
        "transaction_id": pa.int64(), "user_id": pa.int64(), "item_id": pa.string(),
        "bought_at": TIMESTAMP, "price": pa.float64(), "quantity": pa.int32(),
    },
    "returns": {
        "return_id": pa.int64(), "user_id": pa.int64(), "item_id": pa.string(),
        "returned_at": TIMESTAMP,
    },
}  # fmt: skip

DECLARED = {
    "users": {"primary_key": "user_id", "time_column": "joined_at"},
    "merchants": {"primary_key": "merchant_id"},
    "items": {
        "primary_key": "item_id", "time_column": "on_sale_from",
        "end_time_column": "on_sale_until", "foreign_keys": {"merchant_id": "merchants"},
    },
    "transactions": {
        "primary_key": "transaction_id", "time_column": "bought_at", "price_column": "price",
        "quantity_column": "quantity", "foreign_keys": {"user_id": "users", "item_id": "items"},
    },
    "returns": {
        "primary_key": "return_id", "time_column": "returned_at",
        "foreign_keys": {"user_id": "users", "item_id": "items"},
    },
}  # fmt: skip


def item_id(number):
    return f"i{number:02d}"


def parity(item):
    return int(item[1:]) % 2


@dataclass(frozen=True)
class Shop:
    """Rows of every table as Arrow."""

    users: pa.Table
    merchants: pa.Table
    items: pa.Table
    transactions: pa.Table
    returns: pa.Table

    def opted_in(self):
        """Users to recommend to: known at the run date, with a mail address that may be used."""
        return sorted(
            row["user_id"]
            for row in self.users.to_pylist()
            if row["joined_at"] <= RUN_DATE and row["email_opt_in"]
        )

    def with_rows(self, table, rows):
        """The same shop with other rows in one table."""
        schema = pa.schema(list(TYPES[table].items()))
        return replace(self, **{table: pa.Table.from_pylist(rows, schema)})

    def with_another_future(self):
        """Nothing after the run date stays: other buyers, other items, fewer rows and new ones."""
        shop = self
        for name, time in (("transactions", "bought_at"), ("returns", "returned_at")):
            rows = getattr(self, name).to_pylist()
            past = [row for row in rows if row[time] <= RUN_DATE]
            future = [
                row
                | {
                    "user_id": (row["user_id"] * 7 + 3) % NUM_USERS,
                    "item_id": item_id((int(row["item_id"][1:]) * 5 + 1) % (NUM_ITEMS + 1)),
                    time: row[time] + timedelta(hours=number % 50),
                }
                for number, row in enumerate(r for r in rows if r[time] > RUN_DATE)
                if number % 3
            ]
            key, first = DECLARED[name]["primary_key"], 1_000_000
            burst = [
                {
                    key: first + number, "user_id": number % NUM_USERS, "item_id": item_id(3),
                    time: RUN_DATE + timedelta(microseconds=1 + number), "price": 999.0,
                    "quantity": 50,
                }
                for number in range(200)
            ]  # fmt: skip
            shop = shop.with_rows(name, past + future + burst)
        users = [row for row in self.users.to_pylist() if row["joined_at"] <= RUN_DATE]
        late = {"joined_at": RUN_DATE + timedelta(hours=1), "country": "XX", "email_opt_in": True}
        items = [row for row in self.items.to_pylist() if row["on_sale_from"] <= RUN_DATE]
        return shop.with_rows("users", [*users, {"user_id": 50, **late}]).with_rows("items", items)

    def write(self, spark, folder):
        """Write every table as Delta under `folder`."""
        for name in DECLARED:
            tables.write_source(spark.createDataFrame(getattr(self, name)), f"{folder}/{name}")


def shop():
    """The shop, past and future."""
    bought = list(_purchases())
    returned = [
        {
            "return_id": number, "user_id": row["user_id"], "item_id": row["item_id"],
            "returned_at": row["bought_at"] + timedelta(days=2),
        }
        for number, row in enumerate(bought[::9])
    ]  # fmt: skip
    rows = {
        "users": [_user(number) for number in range(LATE_USER + 1)],
        "merchants": [{"merchant_id": number, "rating": 3.0 + number} for number in range(3)],
        "items": [_item(number) for number in range(LAUNCHED_LATER + 1)],
        "transactions": bought,
        "returns": returned,
    }
    return Shop(
        **{
            name: pa.Table.from_pylist(rows[name], pa.schema(list(types.items())))
            for name, types in TYPES.items()
        }
    )


def rotation(user):
    """The item numbers that a user buys in turn: those of the parity, less one."""
    liked = list(range(user % 2, NUM_ITEMS, 2))
    withheld = liked[user % len(liked)]
    turn = user % 3
    return [item for item in liked[turn:] + liked[:turn] if item != withheld]


def _purchases():
    number = 0
    for user in range(NUM_USERS):
        items, gap = rotation(user), timedelta(hours=36 + 2 * (user % 5))
        moment, turn = FIRST_DAY + timedelta(hours=1 + 7 * (user % 11)), 0
        while moment < LAST_DAY:
            item = items[turn % len(items)]
            is_on_sale = item != WITHDRAWN or moment < _item(item)["on_sale_until"]
            if is_on_sale:
                yield {
                    "transaction_id": number, "user_id": user, "item_id": item_id(item),
                    "bought_at": moment, "price": _item(item)["price"],
                    "quantity": 1 + number % 3 // 2,
                }  # fmt: skip
                number += 1
            moment, turn = moment + gap, turn + 1


def _user(number):
    joined = {COLD_USER: RUN_DATE - timedelta(days=1), LATE_USER: RUN_DATE + timedelta(hours=5)}
    return {
        "user_id": number,
        "joined_at": joined.get(number, FIRST_DAY),
        "country": ("NL", "BE", "FR")[number % 3],
        "email_opt_in": None if number == 27 else number % 8 != 5,
    }


def _item(number):
    return {
        "item_id": item_id(number),
        "name": f"{('Blue', 'Red', 'Green')[number % 3]} mug number {number}",
        "price": 4.0 + number,
        "merchant_id": number % 3,
        "on_sale_from": RUN_DATE + timedelta(days=1) if number == LAUNCHED_LATER else FIRST_DAY,
        "on_sale_until": RUN_DATE - timedelta(days=10) if number == WITHDRAWN else None,
    }


def settings_of(folder):
    """What a config file holds for the shop under `folder`; every output lies there too."""
    sources = {name: {"path": f"{folder}/{name}", **DECLARED[name]} for name in DECLARED}
    return {
        "name": "checkerboard",
        "seed": 5,
        "query": (
            f"PREDICT LIST_DISTINCT(transactions.item_id, 0, 7, days) RANK TOP {K} "
            "FOR EACH users.user_id WHERE users.email_opt_in = TRUE"
        ),
        "tables": sources,
        "output": {
            "recommendations": f"{folder}/recommendations",
            "workspace": f"{folder}/workspace",
        },
        "snapshots": {"train_anchors": 3},
        "sampling": {"fanouts": [8, 4], "group_size": 8},
        "candidates": {"per_seed": 12, "similar_per_item": 8, "history_per_entity": 20},
        "model": {"width": 16, "id_width": 8, "max_categories": 20, "text_buckets": 64},
        "training": {
            "num_processes": 2, "max_epochs": 6, "patience": 6, "groups_per_batch": 1,
            "learning_rate": 0.02, "graph_learning_rate": 0.02,
        },
        "evaluation": {"baselines": ["personal_frequency", "item_item"]},
        "tracking": {
            "uri": f"sqlite:///{folder}/mlflow.db",
            "experiment": "checkerboard",
            "artifacts": f"{folder}/mlartifacts",
        },
    }  # fmt: skip


def write_config(content, folder):
    """The settings as a file for a job; returns its path."""
    file = Path(folder, "config.yaml")
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)
