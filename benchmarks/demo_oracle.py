"""What the demo shop's own probabilities would reach: the most that any recommender can hope for.

    python benchmarks/demo_oracle.py --until 2026-11-23 --as-of 2026-11-16

The oracle knows every user's hidden taste, rhythms and stock on the date, and the demand of every
day after it; it does not know when users will come. It ranks items by their mean chance
(`demo.purchases.purchase_weights`) over the days of the horizon. Users are those that a run of
`conf/demo.yaml` with a test anchor on the date judges: opted in, joined, and buying afterwards.
"""

from datetime import date, datetime

import click
import numpy as np

from recspark.demo import purchases, shoppers
from recspark.demo.catalog import Assortment
from recspark.demo.purchases import Lines, Stock
from recspark.demo.shoppers import Users
from recspark.demo.spec import SECONDS_PER_DAY, Shop
from recspark.evaluate import metrics

_EPOCH = date(1970, 1, 1)


def stock_on(assortment: Assortment, users: Users, lines: Lines, second: int) -> Stock:
    """Everybody's stock after the purchases up to a second since 1970."""
    stock = Stock.empty(len(users.user_id_B))
    seen = lines.second_B <= second
    for number in range(int(lines.number_B[seen].max(initial=-1)) + 1):
        at = np.flatnonzero(seen & (lines.number_B == number))
        rows, moments = lines.user_B[at], lines.second_B[at] / SECONDS_PER_DAY
        purchases.restock(assortment, stock, rows, users.user_id_B[rows], lines.item_B[at], moments)
    return stock


def oracle_map(shop: Shop, as_of: date, horizon_days: int, k: int) -> tuple[float, int]:
    """The oracle's MAP@k, and over how many users."""
    assortment = Assortment.of(shop)
    users = shoppers.describe(shop, np.arange(1, shop.num_users + 1, dtype=np.int64))
    lines = purchases.simulate(assortment, users)
    day = (as_of - _EPOCH).days
    second, end = day * SECONDS_PER_DAY, (day + horizon_days) * SECONDS_PER_DAY
    stock, taste_BS = stock_on(assortment, users, lines, second), shoppers.taste(shop, users)
    num_users = len(users.user_id_B)
    mean_BI = np.zeros((num_users, shop.num_items))
    for ahead in range(horizon_days):
        moment_B = np.full(num_users, day + ahead + 0.5)
        weights_BI = purchases.purchase_weights(assortment, taste_BS, stock, moment_B)
        mean_BI += weights_BI / weights_BI.sum(axis=1, keepdims=True) / horizon_days
    best_BK = np.argsort(-mean_BI, axis=1, kind="stable")[:, :k]
    inside = (lines.second_B > second) & (lines.second_B <= end)
    bought = np.unique(np.stack([lines.user_B[inside], lines.item_B[inside]], axis=1), axis=0)
    judged = users.email_opt_in_B & (users.joined_second_B <= second)
    bought = bought[judged[bought[:, 0]]]
    ends = np.searchsorted(bought[:, 0], np.arange(num_users + 1))
    ranked = (best_BK.ravel(), np.arange(num_users + 1) * k)
    per_user = metrics.per_user(ranked, (bought[:, 1], ends), k)[metrics.name(metrics.MAP, k)]
    return float(np.nanmean(per_user)), int(np.isfinite(per_user).sum())


@click.command()
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="End of the shop.")
@click.option(
    "--as-of", "dates", required=True, multiple=True, type=click.DateTime(["%Y-%m-%d"]),
    help="Date of the recommendations; may be repeated.",
)  # fmt: skip
@click.option("--users", default=2_000, show_default=True)
@click.option("--items", default=400, show_default=True)
@click.option("--events", default=60_000, show_default=True)
@click.option("--days", default=548, show_default=True)
@click.option("--seed", default=7, show_default=True)
@click.option("--horizon", default=7, show_default=True, help="Days.")
@click.option("--k", default=12, show_default=True)
def main(
    until: datetime, dates: tuple[datetime, ...], users: int, items: int, events: int, days: int,
    seed: int, horizon: int, k: int,
) -> None:  # fmt: skip
    """Print the oracle's MAP@K for each date; sizes as given to `jobs/make_tables.py shop`."""
    shop = Shop(
        num_users=users, num_items=items, num_events=events, seed=seed, until=until.date(),
        num_days=days,
    )  # fmt: skip
    for moment in dates:
        found, num_users = oracle_map(shop, moment.date(), horizon, k)
        click.echo(f"{moment:%Y-%m-%d}: oracle MAP@{k} {found:.4f} over {num_users} users")


if __name__ == "__main__":
    main()
