"""The demo shop's users: each a pure function of the seed and its id.

A user belongs to a hidden segment. Age band and city hint at it, often wrongly; the taste follows
it, with personal noise.  Axes: B users, S shelves.
"""

from dataclasses import dataclass

import numpy as np

from recspark.demo import draws
from recspark.demo.catalog import CATEGORIES, CITIES, TIERS
from recspark.demo.draws import Booleans, Floats, Ints
from recspark.demo.spec import SECONDS_PER_DAY, Shop

NUM_SEGMENTS = 6
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
MISSING = -1  # code of an attribute that the user did not give
SHARE_PRESENT = 0.8  # mean share of the history that a user is there for

_SHARE_JOINED_BEFORE = 0.6  # before the history starts; the others join evenly through it
_SEGMENT_SHARES = np.array([0.26, 0.22, 0.18, 0.14, 0.12, 0.08])


@dataclass(frozen=True, kw_only=True)
class Users:
    """What is true of some users; all arrays are aligned."""

    user_id_B: Ints
    segment_B: Ints  # in no table
    joined_second_B: Ints  # since 1970
    activity_B: Floats  # visits relative to a usual user; mean 1, heavy tail
    age_band_B: Ints  # position in AGE_BANDS, or MISSING
    city_B: Ints  # position in CITIES, or MISSING
    email_opt_in_B: Booleans


def describe(shop: Shop, user_ids: Ints) -> Users:
    """The users with these ids, which lie in [1, shop.num_users]."""
    seed = shop.seed
    weights = np.broadcast_to(_SEGMENT_SHARES, (len(user_ids), NUM_SEGMENTS))
    segment = draws.weighted(draws.uniform(seed, "users.segment", user_ids), weights)
    spread = 0.8  # of the log of activity
    noise = draws.normal(seed, "users.activity", user_ids)
    return Users(
        user_id_B=user_ids,
        segment_B=segment,
        joined_second_B=_joined(shop, user_ids),
        activity_B=np.exp(spread * noise - spread**2 / 2),
        age_band_B=_hint(shop, "users.age_band", user_ids, segment, len(AGE_BANDS), 0.6),
        city_B=_hint(shop, "users.city", user_ids, segment, len(CITIES), 0.4),
        email_opt_in_B=draws.uniform(seed, "users.email_opt_in", user_ids) < 0.7,
    )


def _joined(shop: Shop, user_ids: Ints) -> Ints:
    """Seconds since 1970 at which users join."""
    was_there = draws.uniform(shop.seed, "users.was_there", user_ids) < _SHARE_JOINED_BEFORE
    opened = np.where(was_there, shop.first_day - 730, shop.first_day) * SECONDS_PER_DAY
    span = np.where(was_there, 730, shop.num_days) * SECONDS_PER_DAY
    part = draws.uniform(shop.seed, "users.joined", user_ids)
    return np.asarray(opened + np.floor(part * span), dtype=np.int64)


def _hint(
    shop: Shop, column: str, user_ids: Ints, segment_B: Ints, count: int, truthful: float
) -> Ints:
    """The segment's own value with a chance of `truthful`, missing in 6 %, any value otherwise."""
    draw = draws.uniform(shop.seed, f"{column}/truth", user_ids)
    other = draws.integer(shop.seed, column, count, user_ids)
    given = np.where(draw < truthful, segment_B % count, other)
    return np.where(draw >= 0.94, MISSING, given)


def taste(shop: Shop, users: Users) -> Floats:
    """How much each user is drawn to each shelf, [B, S], above zero.

    A segment likes categories and price tiers; a person deviates from the segment per category.
    """
    seed = shop.seed
    category, tier = np.arange(len(CATEGORIES)), np.arange(len(TIERS))
    segment = users.segment_B[:, None]
    liking = 1.3 * draws.normal(seed, "segments.category", segment, category[None, :])
    liking = liking + 0.7 * draws.normal(
        seed, "users.category", users.user_id_B[:, None], category[None, :]
    )
    tier_liking = 0.9 * draws.normal(seed, "segments.tier", segment, tier[None, :])
    both = np.exp(liking[:, :, None] + tier_liking[:, None, :])
    return both.reshape(len(users.user_id_B), -1)


def rhythm(shop: Shop, user_id: Ints, item_id: Ints, usual_days: Floats) -> Floats:
    """Days until a user has used up an item: the item's usual time, faster or slower per pair."""
    noise = draws.normal(shop.seed, "pairs.rhythm", user_id, item_id)
    return usual_days * np.exp(0.25 * noise)
