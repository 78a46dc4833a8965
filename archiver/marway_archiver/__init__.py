"""Packs models into archives that are the same bytes everywhere, and checks archives before anybody opens them."""

from marway_archiver.archives import ArchiveInfo, check_archive, inspect_archive, repack
from marway_archiver.examples import Example
from marway_archiver.manifest import Manifest
from marway_archiver.packing import PackedArchive, pack
from marway_archiver.proof import PackProof
from marway_archiver.proving import ProofPlan
from marway_archiver.publish import publish, publish_archive
from marway_archiver.verify import Verification, verify_archive
from marway_archiver.zipscan import ArchiveFile

__all__ = [
    "ArchiveFile",
    "ArchiveInfo",
    "Example",
    "Manifest",
    "PackProof",
    "PackedArchive",
    "ProofPlan",
    "Verification",
    "check_archive",
    "inspect_archive",
    "pack",
    "publish",
    "publish_archive",
    "repack",
    "verify_archive",
]
