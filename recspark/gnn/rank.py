"""What the driver hands to ranks: a function whose module imports no torch.

torch and what stands on it take seconds to import, and the driver needs none of it.
"""

from recspark.gnn.job import RankReport, TrainJob


def train(job: TrainJob) -> RankReport:
    """`loop.train`, imported where it runs."""
    from recspark.gnn import loop

    return loop.train(job)
