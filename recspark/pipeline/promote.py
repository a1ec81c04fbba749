"""Which registered model serves."""

import logging
from collections.abc import Sequence

from recspark.evaluate.baselines import Baseline
from recspark.pipeline.learn import Learnt
from recspark.registry import CHAMPION, ModelVersion, Registry

log = logging.getLogger(__name__)


def choose(
    registry: Registry, version: ModelVersion, learnt: Learnt, tuned: Sequence[Baseline]
) -> ModelVersion:
    """The version to serve with: the new one, unless a baseline beats it and a champion stands.

    The first model becomes champion as it is registered. A later one takes over when its
    validation MAP@K is above that of every tuned baseline on the same snapshot.
    """
    champion = registry.resolve(CHAMPION)
    if champion == version:
        return version
    best = max(tuned, key=lambda baseline: baseline.validation_map)
    if learnt.validation_map > best.validation_map:
        registry.promote(version)
        log.info("registry: version %d of %s is the champion now", version.version, version.name)
        return version
    log.warning(
        "registry: version %d of %s is not promoted: validation MAP %.4f, %s reaches %.4f; "
        "going on with champion version %d",
        version.version, version.name, learnt.validation_map, best.name, best.validation_map,
        champion.version,
    )  # fmt: skip
    return champion
