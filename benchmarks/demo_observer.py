"""What one who knows the demo shop's rules, but sees only its tables, would reach.

    python benchmarks/demo_observer.py --until 2026-11-23 --as-of 2026-11-16

The oracle (`demo_oracle.py`) knows what no table says: every user's taste and rhythms. This
observer knows the rules and their numbers (what segments like, how popular, seasonal and quickly
used up an item is) and infers a user's taste from the user's own purchases: a posterior mean over
tastes drawn from the prior, each weighed by how likely it makes every purchase. It takes an item's
usual rhythm for everybody's. A model, which has to learn the rules as well, can hardly pass it.
Axes: T tastes drawn from the prior, I items, P places in a stock, S shelves.
"""

from datetime import date, datetime

import click
import numpy as np

from recspark.demo import catalog, purchases, shoppers
from recspark.demo.catalog import Assortment
from recspark.demo.draws import Floats, Ints
from recspark.demo.purchases import Lines, Stock
from recspark.demo.shoppers import Users
from recspark.demo.spec import SECONDS_PER_DAY, Shop
from recspark.evaluate import metrics

_EPOCH = date(1970, 1, 1)
_DRAWS_PER_USER = 2_000


class Observer:
    """Tastes drawn from the prior, and what each of them chooses on a day."""

    def __init__(self, assortment: Assortment) -> None:
        shop = assortment.shop
        # Users who do not exist are as good as any: their ids are beyond the shop's.
        ids = shop.num_users + 1 + np.arange(_DRAWS_PER_USER, dtype=np.int64)
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
            self._browsing[day] = (
                purchases.shelf_shares(self.assortment, self.taste_TS, days), share_I,
            )  # fmt: skip
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


def observer_map(shop: Shop, as_of: date, horizon_days: int, k: int) -> tuple[float, int]:
    """The observer's MAP@k, and over how many users."""
    assortment = Assortment.of(shop)
    users = shoppers.describe(shop, np.arange(1, shop.num_users + 1, dtype=np.int64))
    lines = purchases.simulate(assortment, users)
    day = (as_of - _EPOCH).days
    bought = judged_labels(users, lines, day, horizon_days)
    observer, seen = Observer(assortment), lines.second_B <= day * SECONDS_PER_DAY
    buyers, starts = np.unique(bought[:, 0], return_index=True)
    best = []
    for user in buyers:
        own = seen & (lines.user_B == user)
        mean_I = observer.mean_chances(lines.item_B[own], lines.second_B[own], day, horizon_days)
        best.append(np.argsort(-mean_I, kind="stable")[:k])
    ranked = (np.concatenate(best), np.arange(len(buyers) + 1) * k)
    truths = (bought[:, 1], np.append(starts, len(bought)))
    per_user = metrics.per_user(ranked, truths, k)[metrics.name(metrics.MAP, k)]
    return float(np.nanmean(per_user)), len(buyers)


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
    """Print the observer's MAP@K for each date; sizes as given to `jobs/make_tables.py shop`."""
    shop = Shop(
        num_users=users, num_items=items, num_events=events, seed=seed, until=until.date(),
        num_days=days,
    )  # fmt: skip
    for moment in dates:
        found, num_users = observer_map(shop, moment.date(), horizon, k)
        click.echo(f"{moment:%Y-%m-%d}: observer MAP@{k} {found:.4f} over {num_users} users")


if __name__ == "__main__":
    main()
