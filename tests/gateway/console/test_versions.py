"""What is inside a version, as routes and as pages: files, golden examples, proofs, how it differs from another."""

from pathlib import Path

from gateway.fakes import running
from marway.answers.golden import ExampleInput
from marway.records import Proof, utc_now
from marway.registry import Registry
from support.golden_archive import publish_golden

HTML = {"accept": "text/html"}
TEXT = ExampleInput(b"wake me at seven", "text/plain")
PAGE = ExampleInput(b"<script>alert(1)</script>", "text/html")
PICTURE = ExampleInput(b"\x89PNG\r\n", "image/png")
LONG = ExampleInput(b"x" * 70_000, "text/plain")


async def test_files_and_examples(registry: Registry, tmp_path: Path) -> None:
    """Files have sizes and CRCs; examples their text and published answers, and no browser takes one for a page."""
    answers = [{"label": "alarm"}, None, {"label": "cat"}, "y" * 70_000]
    publish_golden(registry, tmp_path, examples=[TEXT, PAGE, PICTURE, LONG], answers=answers)
    async with running(registry=registry) as gateway:
        files = (await gateway.admin.get("/models/intent/versions/PROD/files", params={"limit": 2})).json()
        assert (files["version"], files["total"], len(files["files"])) == ("1.0", 6, 2)
        assert files["files"][0] == {"name": "handler.py", "size_bytes": 31, "stored_bytes": 31, "crc32": "2ee78a44"}
        shown = (await gateway.admin.get("/models/intent/versions/1.0/examples")).json()
        assert (shown["source"], shown["batch_sizes"], shown["total"]) == ("handler", [2], 4)
        text, page, picture, long = shown["examples"]
        assert (text["text"], text["answer"]["value"], text["number"]) == ("wake me at seven", {"label": "alarm"}, 1)
        assert (picture["text"], picture["size_bytes"], page["answer"]["value"]) == (None, 6, None)
        assert (long["text"], long["answer"]["value"], long["answer"]["left_out"]) == (None, None, True)
        none = await gateway.admin.get("/models/intent/versions/1.0/examples/5")
        assert (none.status_code, "it has 4, numbered from 1" in none.text) == (404, True)
        # Pictures come as what they are; whatever else a publisher calls an example is a file to save, in a sandbox.
        page = await gateway.admin.get("/models/intent/versions/1.0/examples/2")
        picture = await gateway.admin.get("/models/intent/versions/1.0/examples/3")
        shown_page = (await gateway.admin.get("/console/models/intent/versions/PROD", headers=HTML)).text
        form = (await gateway.admin.get("/console/models/intent/try/PROD", headers=HTML)).text
        nothing = await gateway.admin.get("/console/models/intent/versions/9", headers=HTML)
        searching = (await gateway.admin.get("/console/requests?model=a%22b&failed=true", headers=HTML)).text
    assert (page.content, page.headers["content-type"]) == (PAGE.data, "application/octet-stream")
    assert page.headers["content-disposition"] == 'attachment; filename="intent-1.0-2"'
    assert (picture.content, picture.headers["content-type"]) == (PICTURE.data, "image/png")
    for answer in (page, picture):
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
    # Nothing that a publisher wrote is markup, in a page nor in a page's data.
    assert "<script>alert" not in shown_page + form
    assert "&lt;script&gt;alert(1)" in shown_page
    assert 'src="../../../../models/intent/versions/1.0/examples/3"' in shown_page
    assert "wake me at seven" in form
    assert 'data-try="console/try/intent/PROD"' in form
    assert (nothing.status_code, "it has 1.0" in nothing.text) == (404, True)
    # The search's form comes before anything was searched, and asks for the rest with what it was asked.
    assert 'hx-get="../console/requests?model=a%22b&amp;failed=true&amp;part=true"' in searching


async def test_proofs_and_differences(registry: Registry, tmp_path: Path) -> None:
    """Proofs come with what they say; differences as `marway diff` has them; an archive that is gone is said."""
    publish_golden(registry, tmp_path, "1.0", files={"weights.pt": b"old", "old.txt": b"1"})
    second = publish_golden(
        registry, tmp_path, "1.1", label=None, answers=[{"label": "timer"}], files={"weights.pt": b"newer"}
    )
    registry.prove(
        Proof(
            kind="pod",
            archive_sha256=second.archive.sha256,
            server="torchserve",
            golden_sha256=second.golden_sha256,
            duration_s=0.4,
            at=utc_now(),
            by="pod a",
        )
    )
    async with running(registry=registry) as gateway:
        (proof,) = (await gateway.admin.get("/models/intent/versions/1.1/proofs")).json()["proofs"]
        assert (proof["found"], proof["by"]) == ("torchserve reproduced its golden answers", "pod a")
        told = (await gateway.admin.get("/models/intent/versions/1.1/differences", params={"base": "PROD"})).json()
        same = (await gateway.admin.get("/models/intent/versions/PROD/differences", params={"base": "1.0"})).json()
        page = (await gateway.admin.get("/console/models/intent/versions/1.1/differences?base=PROD", headers=HTML)).text
        assert "intent: from 1.0 to 1.1" in page
        assert "weights.pt" in page
        for key in list(registry.store.keys("archives/")):
            registry.store.delete(key)
        for path in ("files", "examples", "examples/1", "differences?base=1.1"):
            answer = await gateway.admin.get(f"/models/intent/versions/1.0/{path}")
            assert (answer.status_code, answer.json()["code"]) == (502, "archive_corrupt"), path
            assert "publish the version again" in answer.text
        page = (await gateway.admin.get("/console/models/intent/versions/1.1", headers=HTML)).text
        assert page.count("publish the version again") == 2  # and the rest of the page is there
        assert "reproduced its golden answers" in page
    assert (told["a"], told["b"]) == ("intent/1.0", "intent/1.1")
    assert {"field": "version", "a": "1.0", "b": "1.1"} in told["record"]
    assert told["files"] == [
        {"name": "old.txt", "change": "removed", "a_bytes": 1, "b_bytes": None},
        {"name": "weights.pt", "change": "changed", "a_bytes": 3, "b_bytes": 5},
    ]
    assert told["answers"]["equal"] == 0
    assert '"timer"' in told["answers"]["differences"][0]
    assert (same["record"], same["answers"]["not_compared"]) == ([], "it is one and the same version")
