"""Why an item is recommended, in words that a mail can print.

Of each candidate the score is computed again without one part of its features at a time (as if the
item had never been bought, had nothing in common with what was bought, ...; the values stand in
`Encodings.pair_parts`). The part whose absence costs the score most is the reason, among those that
are true of the pair. This is occlusion (Zeiler and Fergus 2014, arXiv 1311.2901) over groups.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from recspark.encodings import NEW, OWN, POPULAR, PRICE, SIMILAR, TASTE, TOGETHER, Encodings

if TYPE_CHECKING:
    from recspark.gnn.batches import Batch
    from recspark.gnn.pairs import PairHead

ITEM, CATEGORY = "{item}", "{category}"  # filled in where keys and names are at hand
DUE_AGAIN = "bought before and due again"
WORDS = {
    OWN: "bought before",
    TOGETHER: f"bought together with {ITEM}",
    SIMILAR: "liked by similar customers",
    NEW: f"new in {CATEGORY}",
    PRICE: "price down",
    POPULAR: "popular now",
    TASTE: "fits your taste",
}
FOUND_BY_GRAPH = WORDS[TASTE]  # no candidate: the graph's score alone placed it
_PRICE_DOWN = -0.02  # logarithm: at least 2 % below the usual price


def of(
    batch: "Batch", items: np.ndarray[Any, Any], encodings: Encodings, head: "PairHead"
) -> np.ndarray[Any, Any]:
    """A reason per recommended item, array of str (B, K), for item nodes (B, K)."""
    import torch

    rows, found = _rows_of(batch, items)
    told = np.full(items.size, FOUND_BY_GRAPH, dtype=object)
    if not found.any():
        return told.reshape(items.shape)
    rows = torch.from_numpy(rows[found])
    features = batch.features_CF.index_select(0, rows)
    names = list(encodings.pair_names)
    true_of = _true_of(features.numpy(), encodings)
    losses = np.full((len(rows), len(WORDS)), -np.inf)
    with torch.no_grad():
        whole = head(features).mean(1).numpy()
        for place, part in enumerate(WORDS):
            able = true_of[part]
            without = features[torch.from_numpy(able)]
            for name, value in encodings.pair_parts.get(part, {}).items():
                without[:, names.index(name)] = float("nan") if value is None else value
            losses[able, place] = whole[able] - head(without).mean(1).numpy()
    words = np.array(list(WORDS.values()), dtype=object)[losses.argmax(axis=1)]
    words[np.isinf(losses).all(axis=1)] = FOUND_BY_GRAPH
    words[(words == WORDS[OWN]) & _due(features.numpy(), names)] = DUE_AGAIN
    told[found] = words
    return told.reshape(items.shape)


def _rows_of(batch: "Batch", items: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Row among the candidates of each (seed, item) of (B, K), flat, and whether it is one."""
    seeds, candidates = batch.candidate_seeds_C.numpy(), batch.candidate_items_C.numpy()
    width = int(max(items.max(initial=0), candidates.max(initial=0))) + 1
    keys = seeds * width + candidates
    wanted = (np.arange(len(items))[:, None] * width + items).ravel()
    if not len(keys):
        return np.zeros_like(wanted), np.zeros(len(wanted), bool)
    order = np.argsort(keys)
    places = np.searchsorted(keys, wanted, sorter=order)
    rows = order[np.minimum(places, len(keys) - 1)]
    return rows, keys[rows] == wanted


def _true_of(features: np.ndarray[Any, Any], encodings: Encodings) -> dict[str, Any]:
    """Whether each part can be a reason for each row (R,)."""
    names = list(encodings.pair_names)
    likes = [name for name in encodings.pair_parts.get(TASTE, {}) if name != TASTE]

    def column(name: str) -> Any:
        return features[:, names.index(name)] if name in names else np.full(len(features), np.nan)

    nothing = np.zeros(len(features), bool)
    cheaper = np.fmin(column("item_price_change"), column("price_against_own"))
    return {
        OWN: column("purchases") > 0,
        TOGETHER: column("closest_similarity") > 0,
        SIMILAR: column("neighbours_rate") > 0,
        NEW: ~np.isnan(column("new_rank")),
        PRICE: cheaper < _PRICE_DOWN,
        POPULAR: ~np.isnan(column("popular_rank")),
        TASTE: np.any([nothing, *(column(name) > 0 for name in likes)], axis=0),
    }


def _due(features: np.ndarray[Any, Any], names: list[str]) -> Any:
    """Whether the time since the last purchase is above the usual gap of the pair or the item."""
    gaps = [features[:, names.index(n)] for n in ("due_own", "due_item") if n in names]
    return np.any([gap >= 1 for gap in gaps], axis=0) if gaps else np.zeros(len(features), bool)
