"""Keeps the driver's progress line up to date from inside the training loop."""

import time
from pathlib import Path

from recspark import progress

_SECONDS_BETWEEN_WRITES = 2.0


class ProgressLine:
    """Writes `recspark.progress` every few seconds."""

    def __init__(self, path: Path, phase: str, epochs: int, steps: int, epochs_done: int) -> None:
        self._path, self._phase, self._epochs, self._steps = path, phase, epochs, steps
        self._done = self._done_before = epochs_done * steps
        self._started = self._written = time.monotonic()
        self._seeds = 0

    def step(self, part: str, loss: float, num_seeds: int) -> None:
        """Note one optimizer step of a part of the network; `num_seeds` of all ranks."""
        self._seeds += num_seeds
        self._done += 1
        now, last = time.monotonic(), self._epochs * self._steps
        if now - self._written < _SECONDS_BETWEEN_WRITES and self._done < last:
            return
        self._written = now
        seconds = max(now - self._started, 1e-9)
        epochs_before, steps_before = divmod(self._done - 1, self._steps)
        per_step = seconds / max(self._done - self._done_before, 1)
        progress.write(
            self._path,
            progress.Progress(
                phase=f"{self._phase}, {part}",
                epoch=epochs_before + 1,
                epochs=self._epochs,
                step=steps_before + 1,
                steps=self._steps,
                loss=loss,
                seeds_per_second=self._seeds / seconds,
                seconds_left=per_step * (last - self._done),
            ),
        )
