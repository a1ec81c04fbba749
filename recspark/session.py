"""The Spark session of a job, with clear words when the ground under it is missing."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession

OLDEST_JAVA = 17


def require_java() -> None:
    """Check that a Java of at least version 17 starts.

    Raises:
        RuntimeError: Java is missing or too old, with the version found.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = f"install Java {OLDEST_JAVA} or newer (JDK or JRE) and set JAVA_HOME to it."
    if java is None or not Path(java).exists():
        raise RuntimeError(f"Spark needs Java and none was found; {advice}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    if found is None or int(found.group(1)) < OLDEST_JAVA:
        version = found.group(1) if found else "unknown"
        raise RuntimeError(
            f"Spark needs Java {OLDEST_JAVA}, '{java}' is version {version}; {advice}"
        )


def open_session(app_name: str) -> SparkSession:
    """The session of this process, with UTC everywhere and Delta at hand.

    Raises:
        RuntimeError: Java is missing or old, or the session was started without Delta.
    """
    os.environ["TZ"] = "UTC"
    time.tzset()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    require_java()
    spark = SparkSession.builder.appName(app_name).getOrCreate()
    logging.getLogger("py4j").setLevel(logging.WARNING)
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # Readers without Spark filter stage files by anchor; INT96, the default, has no statistics.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    # Rows of candidates and subgraphs hold 50 kB to megabytes. Read 4,096 at a time (the default)
    # they run out of memory, and so they do when a writer counts 100 rows before it first looks at
    # their size and then holds 128 MB per task.
    spark.conf.set("spark.sql.parquet.columnarReaderBatchSize", "256")
    spark.conf.set("parquet.page.size.row.check.min", "4")
    spark.conf.set("parquet.block.size", str(32 * 1024 * 1024))
    spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(32 * 1024 * 1024))
    # A slice has few partitions: to write them side by side needs no sort of such rows before.
    spark.conf.set("spark.sql.maxConcurrentOutputFileWriters", "4")
    if "DeltaSparkSessionExtension" not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise RuntimeError(
            "this Spark session has no Delta; run `python -m recspark.install` once in the active "
            "environment, or pass spark-submit --packages and the two spark.sql settings of "
            "conf/spark-defaults.conf."
        )
    return spark


def close_session() -> None:
    """Stop this process's session, if it has one, so that executors leave before the JVM does."""
    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()
