"""Why an item is recommended, in words that a mail can print.

The reason is the candidate source that placed the item best for this entity; an item that no
source retrieved was found by the network's tower alone.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recspark.gnn.batches import Batch

REASONS = {  # pair feature with a source's rank -> words; equal ranks go to the first
    "bought_rank": "bought before",
    "copurchased_rank": "bought together with your purchases",
    "new_rank": "new",
    "popular_rank": "popular now",
}
FOUND_BY_TOWER = "fits your taste"


def of(
    batch: "Batch", items: np.ndarray[Any, Any], pair_names: tuple[str, ...]
) -> np.ndarray[Any, Any]:
    """A reason per recommended item, array of str (B, K), for item nodes (B, K)."""
    seeds, candidates = batch.candidate_seeds_C.numpy(), batch.candidate_items_C.numpy()
    width = int(max(items.max(initial=0), candidates.max(initial=0))) + 1
    keys = seeds * width + candidates
    order = np.argsort(keys)
    wanted = (np.arange(len(items))[:, None] * width + items).ravel()
    places = np.searchsorted(keys, wanted, sorter=order)
    rows = order[np.minimum(places, len(keys) - 1)] if len(keys) else np.zeros_like(wanted)
    found = keys[rows] == wanted if len(keys) else np.zeros(len(wanted), bool)
    sources = [name for name in REASONS if name in pair_names]
    columns = [pair_names.index(name) for name in sources]
    ranks = batch.features_CF.numpy()[:, columns]
    best = np.nan_to_num(ranks, nan=np.inf)[rows]
    known = found & np.isfinite(best).any(axis=1)
    words = np.array([REASONS[name] for name in sources])[best.argmin(axis=1)]
    return np.where(known, words, FOUND_BY_TOWER).reshape(items.shape)
