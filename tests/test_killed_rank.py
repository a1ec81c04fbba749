import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from subgraph_factory import Shop
from test_gnn_loop import job_of, write_shop

from recspark import train
from recspark.gnn import loop

NUM_EPOCHS = 40


def launched(spark, job):
    return train.launch(
        loop.train, job, spark=spark, num_processes=2, use_gpu=False, max_attempts=2,
        planned_rows={"train": 6, "validation": 2},
    )  # fmt: skip


def kill_rank_after_first_checkpoint(rank, checkpoint_dir, killed):
    """Wait for a whole epoch and end the process of a rank, as a lost executor would."""
    deadline = time.monotonic() + 60
    while not (checkpoint_dir / "selected.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    pid = int((checkpoint_dir / f"rank-{rank}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_shop(Shop(num_users=40, num_items=24), folder)
    return folder


def test_a_run_whose_rank_is_killed_resumes_to_the_model_of_a_run_left_alone(
    spark, folder, tmp_path, caplog
):
    options = {"ranks": 2, "groups_per_batch": 1, "max_epochs": NUM_EPOCHS, "patience": NUM_EPOCHS}
    alone = launched(spark, job_of(folder, tmp_path / "alone", **options))

    checkpoints, killed = tmp_path / "killed", []
    killer = threading.Thread(
        target=kill_rank_after_first_checkpoint, args=(1, checkpoints, killed), daemon=True
    )
    killer.start()
    resumed = launched(spark, job_of(folder, checkpoints, **options))
    killer.join()

    assert len(killed) == 1
    assert "rank 1 was killed by signal 9" in caplog.text
    assert int(Path(checkpoints, "rank-1.pid").read_text()) != killed[0]
    for report in resumed:
        assert 1 <= report.resumed_from_epoch < NUM_EPOCHS
        assert report.num_steps == 6 * (NUM_EPOCHS - report.resumed_from_epoch)
        assert [epoch.epoch for epoch in report.history] == list(range(1, NUM_EPOCHS + 1))
    assert [report.resumed_from_epoch for report in alone] == [0, 0]
    ours, theirs = (torch.load(reports[0].serving_path) for reports in (resumed, alone))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
