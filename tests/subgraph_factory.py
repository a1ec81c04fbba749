"""A small shop, and rows of `subgraphs` cut from it by plain Python."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import torch

from recspark.encodings import Category, Encodings, Number, TableEncoding
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.ranks import Ranks

torch.set_num_threads(1)  # tiny tensors; more threads only wait for each other

NUMBER = Number(column="amount", center=0.0, scale=1.0)
CATEGORY = Category(column="kind", values=("even", "odd"))
TIMESTAMP = pa.timestamp("us", tz="UTC")
ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))

ENCODINGS = Encodings(
    entity_table="users",
    item_table="items",
    target_table="transactions",
    target_entity_key="user_id",
    target_item_key="item_id",
    target_price_column=None,
    target_quantity_column=None,
    nodes={
        "users": TableEncoding(
            numbers=(NUMBER,), categories=(CATEGORY,), times=("joined",), texts=("about",)
        ),
        "items": TableEncoding(
            numbers=(NUMBER,), categories=(CATEGORY,), times=("launched",), texts=("title",),
            foreign_keys=(("merchant_id", "merchants"),),
        ),
        "merchants": TableEncoding(numbers=(NUMBER,)),
    },
    events={
        "transactions": TableEncoding(
            numbers=(NUMBER,), categories=(CATEGORY,),
            foreign_keys=(("user_id", "users"), ("item_id", "items")),
        ),
        "searches": TableEncoding(categories=(CATEGORY,), foreign_keys=(("user_id", "users"),)),
    },
    item_keys=tuple(range(10)),
    text_buckets=16,
    trend_names=("sold_7_days", "sold_30_days"),
    pair_names=("times_bought", "days_since", "noise"),
    trend_knots=((0.0, 1.0, 2.0, 5.0), (0.0, 2.0, 4.0, 9.0)),
    pair_knots=((0.0, 0.0, 1.0, 3.0), (0.0, 10.0, 20.0, 60.0), (0.0, 0.3, 0.6, 1.0)),
)  # fmt: skip

STRUCTS = {
    "nodes": [
        ("hop", pa.int32()), ("table", pa.string()), ("node", pa.list_(pa.int64())),
        ("numbers", pa.list_(pa.float32())), ("codes", pa.list_(pa.int32())),
        ("times", pa.list_(pa.float64())), ("buckets", pa.list_(pa.int32())),
        ("bucket_offsets", pa.list_(pa.int32())),
    ],
    "edges": [
        ("hop", pa.int32()), ("relation", pa.string()), ("destinations", pa.list_(pa.int32())),
        ("sources", pa.list_(pa.int32())), ("ages", pa.list_(pa.float32())),
        ("numbers", pa.list_(pa.float32())), ("codes", pa.list_(pa.int32())),
    ],
}  # fmt: skip
SUBGRAPHS = pa.schema(
    [
        ("anchor_time", TIMESTAMP), ("seed_group", pa.int32()), ("num_seeds", pa.int32()),
        *((name, pa.list_(pa.struct(fields))) for name, fields in STRUCTS.items()),
        ("candidate_offsets", pa.list_(pa.int32())), ("items", pa.list_(pa.int64())),
        ("features", pa.binary()), ("is_label", pa.list_(pa.bool_())),
        ("label_offsets", pa.list_(pa.int32())), ("labels", pa.list_(pa.int64())),
    ]
)  # fmt: skip


def moment(day):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(day))


@dataclass
class Shop:
    """Users like the items of their own parity; user and item n are even when n is."""

    num_users: int = 24
    num_items: int = 12
    num_days: int = 100
    purchases_per_user: int = 8
    fanout: int = 6
    seed: int = 5
    ended_items: tuple = ()  # no longer on sale from day 20 on
    share_of_candidates: float = 0.5  # of the items, drawn per user
    events: list = field(default_factory=list)  # (day, user, item, number, code)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        for user in range(self.num_users):
            liked = np.arange(user % 2, self.num_items, 2)
            for _ in range(self.purchases_per_user):
                day = float(np.round(self.rng.uniform(1, self.num_days), 3))
                item = int(self.rng.choice(liked))
                self.events.append((day, user, item, float(self.rng.normal()), 2))
        self.events.sort(reverse=True)
        self.searches = sorted(
            (
                (float(np.round(self.rng.uniform(1, self.num_days), 3)), user, 3)
                for user in range(self.num_users)
            ),
            reverse=True,
        )

    def user_features(self, users):
        buckets = [[int(u) % 16, (int(u) * 7) % 16][: int(u) % 3] for u in users]
        return {
            "numbers": [float("nan") if u % 5 == 0 else u / 10 for u in users],
            "codes": [int(u) % 3 for u in users],
            "times": [float("nan") if u % 4 == 0 else float(u) for u in users],
            "buckets": [b for of_user in buckets for b in of_user],
            "bucket_offsets": np.cumsum([0, *map(len, buckets)]).tolist(),
        }

    def node_tables(self):
        """`nodes_items` and `nodes_merchants`; of items only the first ten have an id code."""
        rows = [
            {
                "node": i, "key": str(i), "start_time": moment(0) if i % 3 else None,
                "end_time": moment(20) if i in self.ended_items else None,
                "id_code": i + 1 if i < 10 else 0, "parents": [i % 3 - 1],
                "numbers": [i / 4], "codes": [2 + i % 2], "times": [float(i)],
                "buckets": [i % 16] * (i % 3),
            }
            for i in range(self.num_items)
        ]  # fmt: skip
        merchants = [
            {
                "node": i, "key": str(i), "start_time": None, "end_time": None, "id_code": 0,
                "parents": [], "numbers": [float(i)], "codes": [], "times": [], "buckets": [],
            }
            for i in range(2)
        ]  # fmt: skip
        schema = pa.schema(
            [
                ("node", pa.int64()), ("key", pa.string()), ("start_time", TIMESTAMP),
                ("end_time", TIMESTAMP), ("id_code", pa.int32()),
                ("parents", pa.list_(pa.int64())), ("numbers", pa.list_(pa.float32())),
                ("codes", pa.list_(pa.int32())), ("times", pa.list_(pa.float64())),
                ("buckets", pa.list_(pa.int32())),
            ]
        )  # fmt: skip
        return {
            "items": pa.Table.from_pylist(rows, schema),
            "merchants": pa.Table.from_pylist(merchants, schema),
        }

    def item_states(self, anchors):
        rows = [
            {
                "anchor_time": moment(anchor), "item": item,
                "trend": [
                    float(sum(anchor - days < e[0] <= anchor and e[2] == item for e in self.events))
                    for days in (7, 30)
                ],
            }
            for anchor in anchors
            for item in range(self.num_items)
            if item not in self.ended_items
        ]  # fmt: skip
        schema = pa.schema(
            [("anchor_time", TIMESTAMP), ("item", pa.int64()), ("trend", pa.list_(pa.float32()))]
        )
        return pa.Table.from_pylist(rows, schema)

    def catalogue(self, anchors):
        return Catalogue.from_arrow(self.node_tables(), self.item_states(anchors), ENCODINGS)

    def labels(self, user, anchor):
        """What the user likes and has not bought yet: the right answer, by construction."""
        bought = {i for d, u, i, _, _ in self.events if u == user and d <= anchor}
        return [i for i in range(user % 2, self.num_items, 2) if i not in bought]

    def group(self, users, anchor, number=0, shuffle_edges=None):
        """One row of `subgraphs`; `shuffle_edges` is a random generator that reorders edges."""
        visible = [event for event in self.events if event[0] <= anchor]
        hop_1 = [
            (seed, event)
            for seed, user in enumerate(users)
            for event in [e for e in visible if e[1] == user][: self.fanout]
        ]
        searches = [
            (seed, search)
            for seed, user in enumerate(users)
            for search in [s for s in self.searches if s[1] == user and s[0] <= anchor]
        ]
        items = sorted({event[2] for _, event in hop_1})
        hop_2 = [
            (position, event)
            for position, item in enumerate(items)
            for event in [e for e in visible if e[2] == item][: self.fanout]
        ]
        others = sorted({event[1] for _, event in hop_2})
        if shuffle_edges is not None:
            for edges in (hop_1, searches, hop_2):
                shuffle_edges.shuffle(edges)
        bare = {"numbers": [], "codes": [], "times": [], "buckets": [], "bucket_offsets": []}
        nodes = [
            {"hop": 0, "table": "users", "node": list(users), **self.user_features(users)},
            {"hop": 1, "table": "items", "node": items, **bare},
            {"hop": 2, "table": "users", "node": others, **self.user_features(others)},
        ]
        edges = [
            _edges(1, "transactions.user_id", hop_1, anchor, lambda e: [-1, items.index(e[2])]),
            _edges(2, "transactions.item_id", hop_2, anchor, lambda e: [others.index(e[1]), -1]),
            {
                "hop": 1, "relation": "searches.user_id", "destinations": [s for s, _ in searches],
                "sources": [-1] * len(searches), "ages": [anchor - e[0] for _, e in searches],
                "numbers": [], "codes": [e[2] for _, e in searches],
            },
        ]  # fmt: skip
        return pa.RecordBatch.from_pylist(
            [
                {
                    "anchor_time": moment(anchor), "seed_group": number, "num_seeds": len(users),
                    "nodes": nodes, "edges": edges, **self.candidates(users, anchor),
                }
            ],
            SUBGRAPHS,
        )  # fmt: skip

    def candidates(self, users, anchor):
        """A share of the items are candidates of a user, in an order of its own."""
        size = round(self.share_of_candidates * self.num_items)
        items, features, is_label, labels = [], [], [], []
        candidate_offsets, label_offsets = [0], [0]
        for user in users:
            wanted = self.labels(user, anchor)
            chosen = np.random.default_rng(user).permutation(self.num_items)[:size]
            for item in chosen.tolist():
                days = [
                    d for d, u, i, _, _ in self.events if (u, i) == (user, item) and d <= anchor
                ]
                features += [
                    float(len(days)), anchor - max(days) if days else float("nan"),
                    (user * 31 + item * 17) % 10 / 10,
                ]  # fmt: skip
                items.append(item)
                is_label.append(item in wanted)
            labels += wanted
            candidate_offsets.append(len(items))
            label_offsets.append(len(labels))
        return {
            "candidate_offsets": candidate_offsets, "items": items,
            "features": np.array(features, dtype="<f4").tobytes(),
            "is_label": is_label, "label_offsets": label_offsets, "labels": labels,
        }  # fmt: skip


def _edges(hop, relation, pairs, anchor, sources):
    return {
        "hop": hop, "relation": relation, "destinations": [place for place, _ in pairs],
        "sources": [s for _, event in pairs for s in sources(event)],
        "ages": [anchor - event[0] for _, event in pairs],
        "numbers": [event[3] for _, event in pairs], "codes": [event[4] for _, event in pairs],
    }  # fmt: skip
