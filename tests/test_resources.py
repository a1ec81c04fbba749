"""Which processes a job's memory is that of."""

from recspark.evaluate import resources


def status(name, parent):
    return {"Name": name, "PPid": str(parent)}


def test_the_jvm_that_started_the_job_and_its_workers_count_and_its_shell_does_not():
    # shell 1 - java 2 (spark-submit) - python 3 (the job) - python 4 (a rank)
    #                                 \ python 5 (a Spark worker)         shell 1 - python 6
    found = {
        1: status("bash", 0), 2: status("java", 1), 3: status("python", 2),
        4: status("python", 3), 5: status("python", 2), 6: status("python", 1),
    }  # fmt: skip
    root = resources._root(3, found)
    belonging = [process for process in found if resources._descends(process, root, found)]
    assert belonging == [2, 3, 4, 5]


def test_a_job_that_started_its_own_jvm_counts_what_it_started():
    found = {
        1: status("bash", 0), 3: status("python", 1), 4: status("java", 3), 5: status("python", 4),
    }  # fmt: skip
    root = resources._root(3, found)
    assert [p for p in found if resources._descends(p, root, found)] == [3, 4, 5]


def test_this_process_is_seen_with_its_peak():
    with resources.Resources() as watched, watched.stage("nothing"):
        pass
    assert watched.seconds["nothing"] >= 0
    assert max(watched.peak_gib().values()) > 0


def test_programs_that_hold_next_to_nothing_are_not_told():
    watched = resources.Resources()
    watched._peaks = {("rm", 7): 1_500, ("java", 8): 3 * 2**20, ("java", 9): 2**20}
    assert watched.peak_gib() == {"java": 3.0}
