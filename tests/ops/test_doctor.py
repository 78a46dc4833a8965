"""`marway doctor` finds what is wrong and says what to do."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from marway.objects import open_store
from marway.registry import Registry
from marway_ops.cli.doctor import examine
from support.cli import marway
from support.registry import publish
from support.seaweed import S3Server, seaweed


def test_this_machine_can_run_marway(tmp_path: Path) -> None:
    """Where the tests run, every check is well, and nothing is written by looking."""
    done = marway("doctor", "--port", "0", "--json", cwd=tmp_path)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"Python", "memory", "disk", "Java", "torchserve", "torch", "ports", "registry"} <= set(findings)
    assert all(finding["level"] != "problem" for finding in findings.values())
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    """A port on which somebody listens is a problem, named, with the flag that avoids it; the exit status is 1."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = marway("doctor", "--port", str(port), "--json", cwd=tmp_path)
    assert done.returncode == 1
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["ports"]["level"] == "problem"
    assert str(port) in findings["ports"]["found"]
    assert "--port 0" in findings["ports"]["advice"]


def test_the_ports_of_the_marway_up_that_runs_here_are_well(tmp_path: Path) -> None:
    """Whoever asks while `marway up` runs is not told to stop it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (tmp_path / "ready.json").write_text(json.dumps({"gateway": f"http://127.0.0.1:{port}"}))
        findings = {finding.check: finding for finding in examine(home=tmp_path, port=port, registry=None)}
    assert findings["ports"].level == "ok"
    assert "those of the `marway up` that runs here" in findings["ports"].found


def test_a_registry_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A registry of no known kind is a problem with its reason."""
    findings = {finding.check: finding for finding in examine(home=tmp_path, port=0, registry="ftp://host/x")}
    assert findings["registry"].level == "problem"
    assert "of no known kind" in findings["registry"].found


@pytest.mark.parametrize("check", ["torchserve", "torch-model-archiver"])
def test_a_version_that_marway_is_not_made_for_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """A package at another version than the pinned one is a problem with the command that mends it."""
    monkeypatch.setattr("marway_ops.cli.doctor.version", lambda name: "0.1.0")
    findings = {finding.check: finding for finding in examine(home=tmp_path, port=0, registry=None)}
    assert findings[check].level == "problem"
    assert f"pip install {check}==0.12.0" in findings[check].advice


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def stored(server: S3Server) -> list[tuple[str, list[str]]]:
    """Return every bucket of a server with its keys."""
    client = server.client()
    buckets = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    found = [
        (name, [each["Key"] for each in client.list_objects_v2(Bucket=name).get("Contents", ())]) for name in buckets
    ]
    client.close()
    return found


@pytest.mark.parametrize("creates_buckets", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_looking_at_s3_leaves_nothing_there(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, s3_url: str, s3: S3Server, creates_buckets: bool
) -> None:
    """Neither a bucket nor an object comes of a look: at a registry from before they had an identity, at none, at no
    bucket."""
    publish(Registry(open_store(s3_url)), tmp_path_factory.mktemp("archives"))
    with seaweed(creates_buckets=True) if creates_buckets else contextlib.nullcontext(s3) as server:
        before = stored(server)
        for url in (s3_url, "s3://models/none-here", "s3://no-such-bucket/x"):
            done = marway("doctor", "--port", "0", "--json", "--registry", url, cwd=tmp_path, **server.env)
            found = {finding["check"]: finding for finding in json.loads(done.stdout)}["registry"]
            assert found["level"] == ("ok" if url == s3_url and server is s3 else "problem"), found
        assert "no bucket 'no-such-bucket'" in found["found"] or "there is no registry at" in found["found"]
        assert stored(server) == before
    assert everything(tmp_path) == set()


def test_looking_at_a_directory_leaves_nothing_there(tmp_path: Path) -> None:
    """A registry from before registries had an identity gets none by a look, and a missing directory is not made."""
    old = Registry(open_store((tmp_path / "old").as_uri()))
    publish(old, tmp_path)
    before = everything(tmp_path)
    for name, level in (("old", "ok"), ("missing", "problem")):
        url = (tmp_path / name).as_uri()
        findings = {finding.check: finding for finding in examine(home=tmp_path / "home", port=0, registry=url)}
        assert findings["registry"].level == level, findings["registry"]
    assert everything(tmp_path) == before


def test_the_registry_of_the_environment_is_looked_at(tmp_path: Path) -> None:
    """Doctor looks at the registry that `marway up` would use: MARWAY_REGISTRY's, where no flag names one."""
    url = (tmp_path / "elsewhere").as_uri()
    done = marway("doctor", "--port", "0", "--json", cwd=tmp_path, MARWAY_REGISTRY=url)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}["registry"]
    assert (found["level"], found["found"]) == ("problem", f"there is no registry at {url}")
    assert done.returncode == 1


def test_the_store_of_observations_is_looked_at_where_one_is_named(tmp_path: Path) -> None:
    """One that does not exist yet is made by the first row; what is a file, or of no known kind, is a problem."""
    (tmp_path / "file").write_text("")
    for url, level in (
        ((tmp_path / "new").as_uri(), "ok"),
        ((tmp_path / "file").as_uri(), "problem"),
        ("ftp://x", "problem"),
    ):
        findings = examine(home=tmp_path / "home", port=0, registry=None, observations=url)
        assert {finding.check: finding.level for finding in findings}["observations"] == level, url
    findings = examine(home=tmp_path / "home", port=0, registry=None)
    assert "observations" not in {finding.check for finding in findings}


def test_findings_are_a_line_each_in_a_pipe(tmp_path: Path) -> None:
    """Where there is no terminal nothing is wrapped, whatever width a shell has left in the environment."""
    url = f"file://{tmp_path}/{'deep/' * 30}registry"
    done = marway("doctor", "--port", "0", "--registry", url, cwd=tmp_path, COLUMNS="80")
    *findings, verdict = done.stdout.splitlines()
    assert verdict == "1 problem"
    assert {line.split()[0] for line in findings} <= {"✓", "!", "✗"}
    (found,) = (line for line in findings if " registry " in line)
    assert url in found
    assert found.endswith("makes one with --create-registry")
    assert all(line == line.rstrip() for line in findings)


def test_java_is_no_matter_where_no_engine_needs_it(tmp_path: Path) -> None:
    """An engine is named by a flag or by its variable, as for `marway up`; what is none is refused."""
    for arguments, variables in ((["--engine", "native"], {}), ([], {"MARWAY_UP_ENGINE": "native"})):
        done = marway("doctor", "--port", "0", "--json", *arguments, cwd=tmp_path, **variables)
        assert "Java" not in {finding["check"] for finding in json.loads(done.stdout)}
    assert "installed are" in marway("doctor", "--engine", "nothing", cwd=tmp_path).stderr


@pytest.mark.parametrize("flag", ["--engine", "--registry"])
def test_what_is_about_this_machine_is_no_flag_for_a_cluster(flag: str) -> None:
    """A flag that would have no effect is refused by its name."""
    done = marway("doctor", "--cluster", flag, "native")
    assert done.returncode == 2
    assert flag in done.stderr
