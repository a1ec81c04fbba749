"""What the ground under a session must be."""

import subprocess
import sys

import pytest

from recspark import session


def fake_java(folder, version):
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return folder


def test_a_machine_without_java_is_told_to_install_it(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"none was found; install Java 17 or newer"):
        session.require_java()


@pytest.mark.parametrize(("version", "told"), [("1.8.0_392", "8"), ("11.0.21", "11")])
def test_an_old_java_is_named_with_its_version(monkeypatch, tmp_path, version, told):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, version)))
    with pytest.raises(RuntimeError, match=f"is version {told}; install Java 17"):
        session.require_java()


@pytest.mark.parametrize("version", ["17.0.9", "21"])
def test_java_17_and_newer_will_do(monkeypatch, tmp_path, version):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, version)))
    session.require_java()


def test_installing_without_java_ends_in_one_line(monkeypatch, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "recspark.install"],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip().startswith("install: Spark needs Java and none was found")
    assert "Traceback" not in ended.stderr
