"""Parts of a snapshot that are judged on their own: some of its users, or some of its labels.

Slices of users keep all their labels. Slices of labels keep those labels alone, and leave out
users who have none; the lists that are judged stay as they are.
"""

import numpy as np
import pyarrow as pa

from recspark import schema
from recspark.evaluate import metrics
from recspark.evaluate.histories import Array, bought, ragged

EVERYBODY = "everybody"
NEW_ENTITIES = "new entities"  # nothing bought before the anchor
BASKETS = {"1-2 baskets": (1, 2), "3-9 baskets": (3, 9), "10+ baskets": (10, np.inf)}  # days bought
REPEAT, FIRST = "repeat purchases", "first purchases"  # labels bought before by the user, or never
NEW_ITEMS = "new items"  # labels first sold within one horizon before the anchor, or after it
NAMES = (EVERYBODY, NEW_ENTITIES, *BASKETS, REPEAT, FIRST, NEW_ITEMS)


def truths(part: pa.RecordBatch, established: Array) -> list[metrics.Ragged]:
    """The labels of every slice, in the order of NAMES, empty for users that are not in it.

    Args:
        part: rows of one anchor with `labels` and `bought`.
        established: ascending nodes of the items that are not new at this anchor.
    """
    values, offsets = ragged(part[schema.LABELS])
    users = np.repeat(np.arange(part.num_rows), np.diff(offsets))
    owners, items, ages, _, _ = bought(part)
    width = int(max(ages.max(initial=0), items.max(initial=0), values.max(initial=0))) + 1
    days = np.unique(owners * width + ages) // width
    num_baskets = np.bincount(days, minlength=part.num_rows)[users]
    is_repeat = np.isin(users * width + values, owners * width + items)
    kept = [np.ones(len(values), dtype=bool), num_baskets == 0]
    kept += [(num_baskets >= low) & (num_baskets <= high) for low, high in BASKETS.values()]
    kept += [is_repeat, ~is_repeat, ~np.isin(values, established)]
    bounds = np.arange(part.num_rows + 1)
    return [(values[keep], np.searchsorted(users[keep], bounds)) for keep in kept]
