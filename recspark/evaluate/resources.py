"""How long stages take, and how much memory the processes of this run hold at most."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

SECONDS_BETWEEN_LOOKS = 1.0
KIB_PER_GIB = 2**20
FEWEST_KIB_TOLD = 10 * 2**10


class Resources:
    """Watches this process and all that belong to it, from entering to leaving.

    Those are what it started and, under spark-submit, the JVM that started it, with its workers.

    Peak memory is what Linux says of each process (VmHWM of /proc), asked every second: a process
    that ends is known up to its last look. Elsewhere nothing is known of memory.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # stage -> wall time
        self._peaks: dict[tuple[str, int], int] = {}  # (name, process id) -> KiB
        self._left = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Resources":
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._watcher.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to this stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def peak_gib(self) -> dict[str, float]:
        """Name of a program to the most resident memory that any one process of it held, in GiB.

        Programs that never held 10 MiB, such as the shell commands that Java starts, are left out.
        """
        found: dict[str, float] = {}
        for (name, _), peak in sorted(self._peaks.items()):
            if peak < FEWEST_KIB_TOLD:
                continue
            found[name] = max(found.get(name, 0.0), round(peak / KIB_PER_GIB, 3))
        return found

    def _watch(self) -> None:
        while True:
            self._look()
            if self._left.wait(SECONDS_BETWEEN_LOOKS):
                return

    def _look(self) -> None:
        found: dict[int, dict[str, str]] = {}
        for file in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:  # it ended in between
                continue
            fields = (line.partition(":") for line in lines)
            found[int(file.parent.name)] = {name: value.strip() for name, _, value in fields}
        root = _root(os.getpid(), found)
        for process, fields_of in found.items():
            if "VmHWM" in fields_of and _descends(process, root, found):  # zombies have none
                key = (fields_of["Name"], process)
                peak = int(fields_of["VmHWM"].split()[0])
                self._peaks[key] = max(self._peaks.get(key, 0), peak)


def _root(process: int, found: Mapping[int, Mapping[str, str]]) -> int:
    """This process, or the Java process that started it."""
    if process not in found:
        return process
    parent = int(found[process]["PPid"])
    return parent if parent in found and found[parent]["Name"] == "java" else process


def _descends(process: int, root: int, found: Mapping[int, Mapping[str, str]]) -> bool:
    """Whether a process is `root` or was started by it, directly or not."""
    while process in found and process != root:
        process = int(found[process]["PPid"])
    return process == root
