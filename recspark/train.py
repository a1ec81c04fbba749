"""The seam between Spark and torch: launch a training function on ranks and collect their reports.

Spark's TorchDistributor starts the ranks; this module adds what it leaves out. Slots are checked
before the start (too few hang for ten minutes), the driver retries a failed barrier stage (Spark
never does), and a run counts only when every rank has reported that it is complete.
"""

import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, TypeVar

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark import cloudpickle
from pyspark.errors import PySparkException
from pyspark.ml.torch import log_communication
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from recspark import progress

log = logging.getLogger(__name__)

COMPLETED = "completed"  # the only status that the driver accepts
NUM_LINES_KEPT = 400  # of what ranks print, to find the cause of a failure
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class RankReport(Protocol):
    """What every rank says at its end."""

    @property
    def rank(self) -> int:
        """Its number, from 0."""
        ...

    @property
    def status(self) -> str:
        """`completed`, or what else happened."""
        ...

    @property
    def num_rows(self) -> Mapping[str, int]:
        """Split -> rows of its own ranges that it read."""
        ...

    @property
    def num_steps(self) -> int:
        """Optimiser steps; the same on every rank."""
        ...


Report = TypeVar("Report", bound=RankReport)


def launch(
    function: Callable[[Any], Report],
    job_argument: Any,
    *,
    spark: SparkSession,
    num_processes: int,
    use_gpu: bool,
    max_attempts: int,
    planned_rows: Mapping[str, int],
    progress_file: Path | None = None,
) -> list[Report]:
    """Run `function(job_argument)` on `num_processes` ranks and return their reports by rank.

    `function` is a top-level function of an importable module, or one `Imported`; the process
    group (gloo on CPUs, nccl on GPUs) is open while it runs. A failed attempt is launched again
    with the same argument, so the function has to resume from its own checkpoint. `planned_rows`
    (split -> rows) is what all ranks together have to report as read. Rank 0 may write
    `progress_file`, see `recspark.progress`, for the live line.

    Raises:
        ValueError: too few task slots, dynamic allocation, or no GPU where one is asked for.
        RuntimeError: no attempt brought a full set of complete reports.
    """
    context = spark.sparkContext
    gpus_per_task = int(context.getConf().get("spark.task.resource.gpu.amount", "0") or 0)
    check_cluster(
        num_processes,
        slots=slots(spark),
        local=re.match(r"local(\[|$)", str(context.master)) is not None,
        dynamic_allocation=context.getConf().get("spark.dynamicAllocation.enabled") == "true",
        gpus_per_task=gpus_per_task if use_gpu else None,
    )
    threads = int(context.getConf().get("spark.task.cpus", "1") or 1)
    # Pickled here, opened on the rank once its threads are limited: libraries read the limits
    # when they are imported, and unpickling imports the function's module.
    payload = cloudpickle.dumps((function, job_argument))  # type: ignore[no-untyped-call]
    for attempt in range(1, max_attempts + 1):
        started, printed = time.monotonic(), deque[str](maxlen=NUM_LINES_KEPT)
        try:
            with progress.follow(progress_file), _lines_of_ranks(printed):
                distributor = TorchDistributor(num_processes, local_mode=False, use_gpu=use_gpu)
                distributor.logger.setLevel(logging.WARNING)
                reports = distributor.run(run_rank, payload, use_gpu, threads)
            assert isinstance(reports, list)
            check_reports(reports, num_processes=num_processes, planned_rows=planned_rows)
        except (PySparkException, Py4JJavaError, IncompleteRun) as error:
            seconds = time.monotonic() - started
            cause = _cause(printed, error)
            log.warning(
                "training: attempt %d of %d failed after %.0f s: %s",
                attempt, max_attempts, seconds, cause,
            )  # fmt: skip
            if attempt == max_attempts:
                raise RuntimeError(
                    f"training failed in all of {max_attempts} attempts, the last one with: {cause}"
                ) from error
            log.info(
                "training: attempt %d of %d, resuming from checkpoint", attempt + 1, max_attempts
            )
        else:
            log.info(
                "training: %d ranks complete, %s rows, %d steps, %.1f s",
                num_processes, f"{sum(planned_rows.values()):,}", reports[0].num_steps,
                time.monotonic() - started,
            )  # fmt: skip
            return reports
    raise ValueError(f"training.max_attempts: needs at least 1, got {max_attempts}.")


@dataclass(frozen=True)
class Imported:
    """A function by its name, which the driver need not import; torch alone takes seconds.

    A rank imports it as it opens the pickled function, before it joins the process group. Where it
    was imported within the group, ranks often aborted at their end.
    """

    name: str  # as `package.module:function`

    def __call__(self, argument: Any) -> Any:
        """Import it here and call it."""
        return resolve_name(self.name)(argument)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return resolve_name, (self.name,)


class IncompleteRun(RuntimeError):
    """A launch that came back without a full set of complete reports."""


def run_rank(payload: bytes, use_gpu: bool, threads: int) -> list[Any]:
    """One rank: open the process group, run the pickled (function, argument), gather the reports.

    Returns:
        The reports of all ranks, by rank; Spark hands rank 0's list to the driver. A rank that
        fails leaves by its exception, without waiting for others in the process group's end.
    """
    os.environ |= dict.fromkeys(_THREAD_LIMITS, str(threads))
    import torch
    from torch import distributed

    if use_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(threads)
    function, job_argument = cloudpickle.loads(payload)
    distributed.init_process_group("nccl" if use_gpu else "gloo")
    reports: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(reports, function(job_argument))
    distributed.destroy_process_group()
    return reports


def slots(spark: SparkSession) -> int:
    """Tasks that can run at once now: the number that Spark's own check of a barrier stage uses.

    Counts the cores, and the GPUs if tasks ask for some, of executors that have registered.
    """
    scala_context = spark.sparkContext._jsc.sc()
    profile = scala_context.resourceProfileManager().defaultResourceProfile()
    return int(scala_context.maxNumConcurrentTasks(profile))


def check_cluster(
    num_processes: int,
    *,
    slots: int,
    local: bool,
    dynamic_allocation: bool,
    gpus_per_task: int | None,
) -> None:
    """Refuse what Spark would refuse late or never; `gpus_per_task` None means CPUs.

    Raises:
        ValueError: one sentence with the setting to change.
    """
    if dynamic_allocation and not local:  # a local session ignores the setting
        raise ValueError(
            "spark.dynamicAllocation.enabled is true, and Spark starts no training ranks under "
            "it; pass spark-submit --conf spark.dynamicAllocation.enabled=false."
        )
    if gpus_per_task == 0:
        raise ValueError(
            "training.use_gpu is true but spark.task.resource.gpu.amount is not set; set it to 1 "
            "and let executors discover their GPUs, or set training.use_gpu to false."
        )
    tasks = num_processes if gpus_per_task is None else num_processes // gpus_per_task
    if tasks > slots:
        raise ValueError(
            f"training.num_processes is {num_processes} and Spark has {slots} task slots; lower "
            f"it to {slots} or start Spark with more cores (executors x cores / spark.task.cpus)."
        )


def check_reports(
    reports: Sequence[RankReport | None], *, num_processes: int, planned_rows: Mapping[str, int]
) -> None:
    """Believe a launch only if every rank is complete and together they read every planned row.

    Raises:
        IncompleteRun: with what is missing.
    """
    ranks = [report.rank for report in reports if report is not None]
    if ranks != list(range(num_processes)):
        raise IncompleteRun(f"of {num_processes} ranks only {ranks} reported")
    complete = [report for report in reports if report is not None]
    for report in complete:
        if report.status != COMPLETED:
            raise IncompleteRun(f"rank {report.rank} ended with status '{report.status}'")
    steps = [report.num_steps for report in complete]
    if len(set(steps)) > 1:
        raise IncompleteRun(f"ranks took different numbers of steps: {steps}")
    for split, planned in planned_rows.items():
        read = sum(report.num_rows.get(split, 0) for report in complete)
        if read != planned:
            raise IncompleteRun(f"ranks read {read} {split} rows, planned were {planned}")


def _cause(printed: Iterable[str], error: Exception) -> str:
    """Why an attempt failed: the rank that was killed, else the first exception of a rank.

    Spark's own message only says that training failed; what ranks printed says why.
    """
    text = "\n".join(printed)
    killed = re.search(r"^\s*rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*-(\d+)", text, re.M)
    if killed:
        return f"rank {killed.group(1)} was killed by signal {killed.group(2)}"
    raised = re.search(r"^(?:\[rank\d+\]: ?)?((?:\w+\.)*\w+(?:Error|Exception): .*)$", text, re.M)
    return raised.group(1) if raised else str(error).strip().partition("\n")[0]


@contextmanager
def _lines_of_ranks(printed: deque[str]) -> Iterator[None]:
    """Keep what ranks print out of the terminal: to `printed`, and to the log at level DEBUG.

    TorchDistributor has no setting for it: its log server names the handler in its own module.
    """
    server_module: Any = log_communication
    before = server_module.WriteLogToStdout

    class Handler(server_module.WriteLogToStdout):  # type: ignore[misc]
        def handle(self) -> None:
            self.request.setblocking(0)
            for line in self._read_bline():
                printed.append(line.decode("utf-8", errors="replace"))
                log.debug("%s", printed[-1])

    server_module.WriteLogToStdout = Handler
    try:
        yield
    finally:
        server_module.WriteLogToStdout = before
