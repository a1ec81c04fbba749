"""What the demo shop's own probabilities would reach: the most that any recommender can hope for.

    python benchmarks/demo_oracle.py --until 2026-11-23 --as-of 2026-11-16

The oracle knows every user's hidden taste, rhythms and stock on the date, and the demand of every
day after it; it does not know when users will come. It ranks items by their mean chance
(`demo.purchases.purchase_weights`) over the days of the horizon.

The observer knows the rules and their numbers too (what segments like, how popular, seasonal and
quickly used up an item is), but of users only what tables say. It infers a taste from the user's
own purchases: a posterior mean over tastes drawn from the prior, each weighed by how likely it
makes every purchase; an item's usual rhythm is everybody's. A model has to learn the rules as well.

With `--workspace`, that of a backtest of `conf/demo.yaml` on the same dates, its lists are judged
in the same ways: by what was bought, and by what is expected, in which what users happened to buy
has no part.

Users are those that a run of `conf/demo.yaml` with a test anchor on the date judges: opted in,
joined, and buying afterwards. Axes: U all users, T tastes drawn from the prior, I items, P places
in a stock, S shelves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import TypeAlias

import click
import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema, tables
from recspark.demo import catalog, purchases, shoppers
from recspark.demo.catalog import Assortment
from recspark.demo.draws import Floats, Ints
from recspark.demo.purchases import Lines, Stock
from recspark.demo.shoppers import Users
from recspark.demo.spec import SECONDS_PER_DAY, Shop
from recspark.evaluate import metrics
from recspark.session import close_session, open_session

Lists: TypeAlias = Mapping[int, Sequence[int]]  # item ids by user id, best first

USERS, ITEMS, EVENTS, SEED = 2_000, 400, 60_000, 7  # as `jobs/make_tables.py shop` has them
_EPOCH = date(1970, 1, 1)
_TASTES = 6_000  # drawn from the prior
_DRAWS = 400  # of what a user might have bought


def stock_on(assortment: Assortment, users: Users, lines: Lines, second: int) -> Stock:
    """Everybody's stock after the purchases up to a second since 1970."""
    stock = Stock.empty(len(users.user_id_B))
    seen = lines.second_B <= second
    for number in range(int(lines.number_B[seen].max(initial=-1)) + 1):
        at = np.flatnonzero(seen & (lines.number_B == number))
        rows, moments = lines.user_B[at], lines.second_B[at] / SECONDS_PER_DAY
        purchases.restock(assortment, stock, rows, users.user_id_B[rows], lines.item_B[at], moments)
    return stock


class Observer:
    """Tastes drawn from the prior, and what each of them chooses on a day."""

    def __init__(self, assortment: Assortment) -> None:
        shop = assortment.shop
        # Of users who do not exist: their ids are beyond the shop's.
        ids = shop.num_users + 1 + np.arange(_TASTES, dtype=np.int64)
        self.assortment = assortment
        self.taste_TS = shoppers.taste(shop, shoppers.describe(shop, ids))
        self._browsing: dict[int, tuple[Floats, Floats]] = {}

    def browsing(self, day: int) -> tuple[Floats, Floats]:
        """Chance of each shelf by taste (T, S), and of each item on its shelf (I,)."""
        if day not in self._browsing:
            items = self.assortment.items
            demand_I = catalog.demand(items, day)
            on_shelf_S = np.bincount(items.shelf_I, demand_I, catalog.NUM_SHELVES)
            share_I = demand_I / np.where(on_shelf_S > 0, on_shelf_S, 1)[items.shelf_I]
            days = np.full(len(self.taste_TS), day)
            shares_TS = purchases.shelf_shares(self.assortment, self.taste_TS, days)
            self._browsing[day] = (shares_TS.astype(np.float32), share_I)
        return self._browsing[day]

    def mean_chances(self, item: Ints, second: Ints, day: int, horizon_days: int) -> Floats:
        """Mean chance of each item (I,) over the days from `day`, after these purchases."""
        stock, log_T = Stock.empty(1), np.zeros(len(self.taste_TS))
        shelf_I, usual_I = self.assortment.items.shelf_I, self.assortment.items.rhythm_days_I
        for bought, moment in zip(item, second / SECONDS_PER_DAY, strict=True):
            shares_TS, share_I = self.browsing(int(moment))
            when, here = np.array([moment]), stock.item_BP[0] == bought
            due = purchases.due_weights(self.assortment, stock, when)[0][here].sum()
            log_T += np.log(shares_TS[:, shelf_I[bought]] * share_I[bought] + due + 1e-12)
            if usual_I[bought] > 0:
                one = np.array([bought])
                stock.put(np.zeros(1, dtype=np.int64), one, when, usual_I[one])
        weight_T = np.exp(log_T - log_T.max())
        weight_T /= weight_T.sum()
        mean_I = np.zeros(len(shelf_I))
        kept = stock.item_BP[0] >= 0
        for ahead in range(day, day + horizon_days):
            shares_TS, share_I = self.browsing(ahead)
            chance_I = (weight_T @ shares_TS)[shelf_I] * share_I
            due_P = purchases.due_weights(self.assortment, stock, np.array([ahead + 0.5]))[0]
            np.add.at(chance_I, stock.item_BP[0][kept], due_P[kept])
            mean_I += chance_I / chance_I.sum() / horizon_days
        return mean_I


def judged_labels(users: Users, lines: Lines, day: int, horizon_days: int) -> Ints:
    """Distinct (user, item) bought in the window by those who are mailed, both positions."""
    second, end = day * SECONDS_PER_DAY, (day + horizon_days) * SECONDS_PER_DAY
    inside = (lines.second_B > second) & (lines.second_B <= end)
    bought = np.unique(np.stack([lines.user_B[inside], lines.item_B[inside]], axis=1), axis=0)
    judged = users.email_opt_in_B & (users.joined_second_B <= second)
    return np.asarray(bought[judged[bought[:, 0]]])


def oracle_chances(
    assortment: Assortment, users: Users, lines: Lines, day: int, horizon_days: int
) -> Floats:
    """The oracle's mean chance of each item for every user, (U, I)."""
    stock = stock_on(assortment, users, lines, day * SECONDS_PER_DAY)
    taste_US = shoppers.taste(assortment.shop, users)
    num_users = len(users.user_id_B)
    mean_UI = np.zeros((num_users, len(assortment.items.item_id_I)))
    for ahead in range(day, day + horizon_days):
        moment_U = np.full(num_users, ahead + 0.5)
        weights_UI = purchases.purchase_weights(assortment, taste_US, stock, moment_U)
        mean_UI += weights_UI / weights_UI.sum(axis=1, keepdims=True) / horizon_days
    return mean_UI


def observer_chances(
    assortment: Assortment, buyers: Ints, lines: Lines, day: int, horizon_days: int
) -> Floats:
    """The observer's mean chance of each item for these users, (buyers, I)."""
    observer, seen = Observer(assortment), lines.second_B <= day * SECONDS_PER_DAY
    found = []
    for user in buyers:
        own = seen & (lines.user_B == user)
        item, second = lines.item_B[own], lines.second_B[own]
        found.append(observer.mean_chances(item, second, day, horizon_days))
    return np.stack(found)


def best(chances: Floats, k: int) -> Ints:
    """The k most likely items of each user, best first, (U, k)."""
    return np.asarray(np.argsort(-chances, axis=1, kind="stable")[:, :k])


def expected_maps(chances_UI: Floats, lists_UK: Ints, num_bought_U: Ints, k: int) -> Floats:
    """MAP@k that each user's list of items (positions) has on average, (U,).

    The mean over `_DRAWS` sets of as many distinct items as the user bought, drawn one after the
    other from the chances (Gumbel top-k, Kool et al. 2019, arXiv 1903.06059). The same chances
    are drawn from alike, so that two lists of a user meet the same purchases.
    """
    found = np.zeros(len(lists_UK))
    of_users = zip(chances_UI, lists_UK, num_bought_U, strict=True)
    for user, (chance_I, list_K, size) in enumerate(of_users):
        noise = np.random.default_rng(user).gumbel(size=(_DRAWS, len(chance_I)))
        drawn = best(np.log(np.maximum(chance_I, 1e-300)) + noise, size)
        lists, sizes = np.tile(list_K, (_DRAWS, 1)), np.full(_DRAWS, size)
        found[user] = _maps(lists, drawn.ravel(), sizes, k).mean()
    return found


def _maps(lists_UK: Ints, bought: Ints, sizes_U: Ints, k: int) -> Floats:
    """MAP@k of each user's list, (U,); `bought` is what they bought, user after user."""
    num_users, length = lists_UK.shape
    ranked = (lists_UK.ravel(), np.arange(num_users + 1) * length)
    truths = (bought, np.append(0, np.cumsum(sizes_U)))
    return metrics.per_user(ranked, truths, k)[metrics.name(metrics.MAP, k)]


def usual_shop(until: date) -> Shop:
    """The shop of `jobs/make_tables.py shop` without options: that of `make run`."""
    return Shop(num_users=USERS, num_items=ITEMS, num_events=EVENTS, seed=SEED, until=until)


@dataclass(frozen=True, kw_only=True)
class Day:
    """What the oracle knows on a day."""

    assortment: Assortment
    users: Users
    lines: Lines
    chances_UI: Floats  # `oracle_chances` of the days from it on


@lru_cache(maxsize=1)
def oracle_on(shop: Shop, as_of: date, horizon_days: int) -> Day:
    """The whole shop, and the oracle's chances on a day."""
    assortment = Assortment.of(shop)
    users = shoppers.describe(shop, np.arange(1, shop.num_users + 1, dtype=np.int64))
    lines = purchases.simulate(assortment, users)
    chances_UI = oracle_chances(assortment, users, lines, days_since_1970(as_of), horizon_days)
    return Day(assortment=assortment, users=users, lines=lines, chances_UI=chances_UI)


def days_since_1970(day: date) -> int:
    """The number of a day, as the shop counts them."""
    return (day - _EPOCH).days


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What rankings by some chances reach."""

    found: float  # MAP@k on what was bought
    expected: float  # and on what might have been, `expected_maps`


def limits(
    shop: Shop, as_of: date, horizon_days: int, k: int, written: Lists | None = None
) -> tuple[dict[str, Limit], int]:
    """MAP@k of the oracle, the observer and of the `written` lists, and over how many users."""
    known, day = oracle_on(shop, as_of, horizon_days), days_since_1970(as_of)
    bought = judged_labels(known.users, known.lines, day, horizon_days)
    buyers, sizes = np.unique(bought[:, 0], return_counts=True)
    knowing = known.chances_UI[buyers]
    observing = observer_chances(known.assortment, buyers, known.lines, day, horizon_days)
    rankings = {"oracle": best(knowing, k), "observer": best(observing, k)}
    if written is not None:
        items = [written[int(user)] for user in known.users.user_id_B[buyers]]
        # Item ids ascend, as positions do.
        rankings["recspark"] = np.searchsorted(known.assortment.items.item_id_I, np.array(items))

    def limit(lists_UK: Ints) -> Limit:
        expected = expected_maps(knowing, lists_UK, sizes, k)
        found = np.nanmean(_maps(lists_UK, bought[:, 1], sizes, k))
        return Limit(found=float(found), expected=float(expected.mean()))

    return {name: limit(lists_UK) for name, lists_UK in rankings.items()}, len(buyers)


def written_lists(workspace: str, as_of: date) -> Lists:
    """What a backtest of the demo recommended on the date: item ids by user id, best first."""
    spark = open_session("demo oracle")

    def of_run(table: str) -> DataFrame:
        stored = tables.read(spark, f"{workspace}/{table}")
        return stored.where(F.col(schema.RUN_DATE) == F.lit(as_of))

    numbered = {
        table: {
            node: int(key) for node, key in of_run(table).select(schema.NODE, schema.KEY).collect()
        }
        for table in ("nodes_users", "nodes_items")
    }
    scored = of_run("scored").where(F.col(schema.SPLIT) == schema.SCORE)
    rows = scored.select(schema.ENTITY, schema.ITEMS).collect()
    if not rows:
        raise click.ClickException(
            f"{workspace} has no recommendations as of {as_of}; run jobs/backtest.py with "
            "conf/demo.yaml as of that date first."
        )
    return {
        numbered["nodes_users"][row[schema.ENTITY]]: [
            numbered["nodes_items"][node] for node in row[schema.ITEMS]
        ]
        for row in rows
    }


@click.command()
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="End of the shop.")
@click.option(
    "--as-of", "dates", required=True, multiple=True, type=click.DateTime(["%Y-%m-%d"]),
    help="Date of the recommendations; may be repeated.",
)  # fmt: skip
@click.option("--users", default=USERS, show_default=True)
@click.option("--items", default=ITEMS, show_default=True)
@click.option("--events", default=EVENTS, show_default=True)
@click.option("--days", default=548, show_default=True)
@click.option("--seed", default=SEED, show_default=True)
@click.option("--horizon", default=7, show_default=True, help="Days.")
@click.option("--k", default=12, show_default=True)
@click.option("--workspace", help="Of a backtest on these dates, whose lists are judged too.")
def main(
    until: datetime, dates: tuple[datetime, ...], users: int, items: int, events: int, days: int,
    seed: int, horizon: int, k: int, workspace: str | None,
) -> None:  # fmt: skip
    """Print MAP@K for each date and all users; sizes as for `jobs/make_tables.py shop`."""
    shop = Shop(
        num_users=users, num_items=items, num_events=events, seed=seed, until=until.date(),
        num_days=days,
    )  # fmt: skip
    numbers, sizes = [], []
    for moment in dates:
        as_of = moment.date()
        written = None if workspace is None else written_lists(workspace, as_of)
        found, num_users = limits(shop, as_of, horizon, k, written)
        numbers.append([[one.found, one.expected] for one in found.values()])
        sizes.append(num_users)
        click.echo(_line(str(as_of), k, found, numbers[-1], num_users))
    if len(dates) > 1:
        mean = np.average(numbers, axis=0, weights=sizes)
        click.echo(_line("all users", k, found, mean, sum(sizes)))


def _line(
    name: str, k: int, names: Iterable[str], numbers: Sequence[Sequence[float]], num_users: int
) -> str:
    told = [
        f"{ranked} {found:.4f} (expected {expected:.4f})"
        for ranked, (found, expected) in zip(names, numbers, strict=True)
    ]
    return f"{name}: MAP@{k} {', '.join(told)}; over {num_users} users"


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
