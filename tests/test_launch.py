import io
import logging
import math
import pickle
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from recspark import progress, train
from recspark.progress import Progress

HALFWAY = Progress(
    phase="training", epoch=2, epochs=8, step=30, steps=120, loss=0.12345,
    seeds_per_second=12800.4, seconds_left=78.0,
)  # fmt: skip
HALFWAY_LINE = "training: epoch 2/8, step 30/120, loss 0.1235, 12,800 seeds/s, 1:18 left"


# Functions for the ranks are defined inside tests: those travel by value, and ranks need not be
# able to import this file.


def report(rank, *, status=train.COMPLETED, num_rows=5, num_steps=3):
    return SimpleNamespace(
        rank=rank, status=status, num_rows={"train": num_rows}, num_steps=num_steps
    )


def test_two_ranks_meet_in_a_process_group_and_both_report(spark):
    def add_up(job):
        import torch
        from torch import distributed

        rank = distributed.get_rank()
        total = torch.tensor([float(rank + 1)])
        distributed.all_reduce(total)
        return SimpleNamespace(
            rank=rank, status="completed", num_rows={"train": job["rows"][rank]}, num_steps=1,
            total=total.item(), backend=distributed.get_backend(), threads=torch.get_num_threads(),
        )  # fmt: skip

    reports = train.launch(
        add_up, {"rows": [4, 3]}, spark=spark, num_processes=2, use_gpu=False, max_attempts=1,
        planned_rows={"train": 7},
    )  # fmt: skip
    assert [(r.rank, r.num_rows["train"], r.total, r.backend, r.threads) for r in reports] == [
        (0, 4, 3.0, "gloo", 1),
        (1, 3, 3.0, "gloo", 1),
    ]


def test_an_imported_function_is_named_by_the_driver_and_opened_by_a_rank():
    missing = train.Imported("recspark.no_such_module:train")
    assert pickle.loads(pickle.dumps(train.Imported("math:sqrt"))) is math.sqrt
    assert train.Imported("math:sqrt")(9.0) == 3.0
    payload = pickle.dumps(missing)  # the driver need not be able to import it
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        pickle.loads(payload)


@pytest.mark.deep  # the same with a real model: test_killed_rank.py
def test_a_killed_rank_is_launched_again_and_resumes(spark, tmp_path, caplog):
    def die_once(checkpoint):
        import os
        import signal

        from torch import distributed

        rank = distributed.get_rank()
        resumed = checkpoint.exists()
        distributed.barrier()
        if rank == 1 and not resumed:
            checkpoint.write_text("epoch 1")
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier()
        start = checkpoint.read_text()
        return SimpleNamespace(
            rank=rank, status="completed", num_rows={"train": 1}, num_steps=1, resumed_from=start
        )

    caplog.set_level(logging.INFO, logger="recspark.train")
    reports = train.launch(
        die_once, tmp_path / "checkpoint", spark=spark, num_processes=2, use_gpu=False,
        max_attempts=3, planned_rows={"train": 2},
    )  # fmt: skip
    assert [(r.rank, r.resumed_from) for r in reports] == [(0, "epoch 1"), (1, "epoch 1")]
    assert "training: attempt 1 of 3 failed" in caplog.text
    assert "rank 1 was killed by signal 9" in caplog.text
    assert "training: attempt 2 of 3, resuming from checkpoint" in caplog.text
    assert "attempt 3" not in caplog.text


def test_too_few_slots_fail_at_once_with_a_sentence(spark):
    with pytest.raises(ValueError, match="num_processes is 3 and Spark has 2 task slots; lower it"):
        train.launch(
            report, 0, spark=spark, num_processes=3, use_gpu=False, max_attempts=3, planned_rows={}
        )


def test_gpus_that_spark_does_not_assign_fail_at_once_with_a_sentence(spark):
    with pytest.raises(ValueError, match=r"use_gpu is true but spark\.task\.resource\.gpu\.amount"):
        train.launch(
            report, 0, spark=spark, num_processes=2, use_gpu=True, max_attempts=3, planned_rows={}
        )


def test_dynamic_allocation_is_refused_on_a_cluster_and_ignored_locally():
    cluster = {"slots": 8, "dynamic_allocation": True, "gpus_per_task": None}
    with pytest.raises(ValueError, match=r"spark\.dynamicAllocation\.enabled is true"):
        train.check_cluster(2, local=False, **cluster)
    train.check_cluster(2, local=True, **cluster)


@pytest.mark.parametrize(
    ("reports", "fault"),
    [
        ([report(0), None], r"of 2 ranks only \[0\] reported"),
        ([report(0), report(0)], r"only \[0, 0\] reported"),
        ([report(0), report(1, status="running")], "rank 1 ended with status 'running'"),
        ([report(0), report(1, num_steps=4)], r"different numbers of steps: \[3, 4\]"),
        ([report(0), report(1, num_rows=4)], "ranks read 9 train rows, planned were 10"),
    ],
)
def test_only_a_full_set_of_complete_reports_is_believed(reports, fault):
    with pytest.raises(train.IncompleteRun, match=fault):
        train.check_reports(reports, num_processes=2, planned_rows={"train": 10})


def test_reports_that_add_up_to_the_plan_are_believed():
    train.check_reports([report(0), report(1)], num_processes=2, planned_rows={"train": 10})


def test_progress_is_one_line_with_units(tmp_path):
    progress.write(tmp_path / "progress.json", HALFWAY)
    assert progress.read(tmp_path / "progress.json").line() == HALFWAY_LINE
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]


def test_a_line_left_by_an_earlier_attempt_is_not_shown(tmp_path):
    file = tmp_path / "progress.json"
    progress.write(file, HALFWAY)
    with progress.follow(file, Console(file=io.StringIO())):
        assert progress.read(file) is None


def test_progress_is_rewritten_on_a_terminal_and_logged_elsewhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.01)
    caplog.set_level(logging.INFO, logger="recspark.progress")
    terminal, file = io.StringIO(), io.StringIO()
    for sink, is_terminal in ((terminal, True), (file, False)):
        with progress.follow(
            tmp_path / "p.json", Console(file=sink, force_terminal=is_terminal, width=120)
        ):
            progress.write(tmp_path / "p.json", HALFWAY)
            wait_for(lambda sink=sink: HALFWAY_LINE in sink.getvalue() + caplog.text)
    assert HALFWAY_LINE in terminal.getvalue()
    assert file.getvalue() == ""
    assert caplog.text.count(HALFWAY_LINE) == 1


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_cause_of_a_failure_is_found_in_what_its_ranks_printed():
    error = RuntimeError("Job aborted\nmore")
    killed = ["  rank      : 1 (local_rank: 0)", "  exitcode  : -9 (pid: 77)", "ValueError: late"]
    raised = ["[rank0]: Traceback", "[rank0]: ValueError: no fanouts", "RuntimeError: gloo closed"]
    assert train._cause(killed, error) == "rank 1 was killed by signal 9"
    assert train._cause(raised, error) == "ValueError: no fanouts"
    assert train._cause(["[Gloo] Rank 0 is connected"], error) == "Job aborted"
