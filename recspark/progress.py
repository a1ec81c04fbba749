"""The live line of a training run: rank 0 writes a small file, the driver shows it.

Imports neither Spark nor torch, so that both sides can use it.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SECONDS_BETWEEN_LOG_LINES = 10.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training run is."""

    phase: str  # what is being done, such as "training" or "validation"
    epoch: int  # counted from 1
    epochs: int
    step: int  # within the epoch, counted from 1
    steps: int
    loss: float
    seeds_per_second: float  # over all ranks
    seconds_left: float  # to the end of the last epoch

    def line(self) -> str:
        """One line for a person: `training: epoch 2/8, step 30/120, loss 0.1234, ...`."""
        minutes, seconds = divmod(max(0, round(self.seconds_left)), 60)
        return (
            f"{self.phase}: epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}, "
            f"loss {self.loss:.4f}, {self.seeds_per_second:,.0f} seeds/s, "
            f"{minutes}:{seconds:02d} left"
        )


def write(path: Path, progress: Progress) -> None:
    """Replace the file at `path`; a reader sees the old line or the new one, never a part."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    os.replace(unfinished, path)


def read(path: Path) -> Progress | None:
    """What was written last; None before the first step."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Progress(**{field.name: content[field.name] for field in fields(Progress)})


@contextmanager
def follow(path: Path | None, console: Console | None = None) -> Iterator[None]:
    """Show the progress written to `path` while the block runs.

    On a terminal one line that is rewritten, elsewhere a log line every 10 s. A file left by an
    earlier attempt is removed first. With `path` None nothing is shown.
    """
    if path is None:
        yield
        return
    path.unlink(missing_ok=True)
    finished = threading.Event()
    console = console or Console(stderr=True)
    show = _rewrite_line if console.is_terminal else _log_lines
    follower = threading.Thread(target=show, args=(path, console, finished), daemon=True)
    follower.start()
    try:
        yield
    finally:
        finished.set()
        follower.join()


def _rewrite_line(path: Path, console: Console, finished: threading.Event) -> None:
    with Live(Text("training: starting"), console=console, transient=True) as live:
        while not finished.wait(POLL_SECONDS):
            progress = read(path)
            if progress is not None:
                live.update(Text(progress.line(), no_wrap=True, overflow="ellipsis"))


def _log_lines(path: Path, console: Console, finished: threading.Event) -> None:
    shown = None
    while not finished.wait(SECONDS_BETWEEN_LOG_LINES):
        progress = read(path)
        if progress is not None and progress != shown:
            log.info("%s", progress.line())
            shown = progress
