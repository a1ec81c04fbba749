"""Puts Delta's jars and recspark's Spark settings into this environment's pyspark, once.

Run as `python -m recspark.install`. Afterwards the plain `spark-submit` of the environment finds
Delta with no variable set. On a platform that brings its own Spark and Delta there is nothing to
install.
"""

import logging
import shutil
import sys
import tempfile
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from recspark.session import require_java

log = logging.getLogger(__name__)

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"  # fits the pins in pyproject.toml
# The rest of what Delta asks for is in pyspark already, some of it newer: a second version beside
# it would shadow Spark's own.
NEEDED_GROUPS = ("io.delta_", "io.unitycatalog_")
# One resolver: the default ones also look into ~/.m2 (and fail on a POM without its jar) and ask
# a second repository that many networks do not reach.
IVY_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""


SPARK_FILES = ("spark-defaults.conf", "log4j2.properties")


def install(conf: Path) -> None:
    """Bring the jars (if they are not there) and copy Spark's files of the folder `conf`."""
    home = Path(pyspark.__file__).parent
    (home / "conf").mkdir(exist_ok=True)
    if not any((home / "jars").glob("delta-spark_*.jar")):
        _resolve_jars(home / "jars")
    for name in SPARK_FILES:
        shutil.copyfile(conf / name, home / "conf" / name)


def _resolve_jars(target: Path) -> None:
    """Resolve Delta with Spark's own Ivy and copy what it found into `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        ivy_settings = Path(scratch) / "ivysettings.xml"
        ivy_settings.write_text(IVY_SETTINGS, encoding="utf-8")
        spark = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.jars.packages", DELTA_PACKAGE)
            .config("spark.jars.ivy", scratch)
            .config("spark.jars.ivySettings", str(ivy_settings))
            .getOrCreate()
        )
        spark.stop()
        jars = sorted((Path(scratch) / "jars").glob("*.jar"))
        if not jars:
            raise RuntimeError(
                f"no jar came for {DELTA_PACKAGE}; is the Maven repository reachable?"
            )
        for jar in jars:
            if jar.name.startswith(NEEDED_GROUPS):
                shutil.copyfile(jar, target / jar.name.partition("_")[2])
                log.info("installed %s", jar.name.partition("_")[2])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        require_java()
        install(Path(__file__).parent.parent / "conf")
    except RuntimeError as fault:
        sys.exit(f"install: {fault}")
