"""Keeps the driver's progress line up to date from inside the training loop."""

import time
from pathlib import Path

from recspark import progress

_SECONDS_BETWEEN_WRITES = 2.0


class ProgressLine:
    """Writes `recspark.progress` every few seconds."""

    def __init__(self, path: Path, phase: str, epochs: int, steps: int, epochs_done: int) -> None:
        self._path, self._phase, self._epochs, self._steps = path, phase, epochs, steps
        self._steps_before = epochs_done * steps
        self._started = self._written = time.monotonic()
        self._seeds = 0

    def step(self, epoch: int, step: int, loss: float, num_seeds: int) -> None:
        """Note one optimizer step; `step` is from 1 within the epoch, `num_seeds` of all ranks."""
        self._seeds += num_seeds
        now = time.monotonic()
        done, last = (epoch - 1) * self._steps + step, self._epochs * self._steps
        if now - self._written < _SECONDS_BETWEEN_WRITES and done < last:
            return
        self._written = now
        seconds = max(now - self._started, 1e-9)
        per_step = seconds / max(done - self._steps_before, 1)
        progress.write(
            self._path,
            progress.Progress(
                phase=self._phase,
                epoch=epoch,
                epochs=self._epochs,
                step=step,
                steps=self._steps,
                loss=loss,
                seeds_per_second=self._seeds / seconds,
                seconds_left=per_step * (last - done),
            ),
        )
