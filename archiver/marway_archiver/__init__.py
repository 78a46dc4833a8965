"""Packs models into archives that are the same bytes everywhere, and checks archives before anybody opens them."""

from marway_archiver.archives import ArchiveInfo, check_archive, inspect_archive, repack
from marway_archiver.bundles.checking import BundleInfo, check_bundle, inspect_bundle
from marway_archiver.bundles.packing import PackedBundle, pack_bundle
from marway_archiver.contents.manifest import Manifest
from marway_archiver.format.zipscan import ArchiveFile
from marway_archiver.packing import PackedArchive, pack
from marway_archiver.proving.examples import Example
from marway_archiver.proving.proof import PackProof
from marway_archiver.proving.runs import ProofPlan
from marway_archiver.publishing.bundles import publish_bundle
from marway_archiver.publishing.graphs import publish_graph
from marway_archiver.publishing.publish import publish, publish_archive
from marway_archiver.publishing.tables import publish_table
from marway_archiver.verify import Verification, verify_archive

__all__ = [
    "ArchiveFile",
    "ArchiveInfo",
    "BundleInfo",
    "Example",
    "Manifest",
    "PackProof",
    "PackedArchive",
    "PackedBundle",
    "ProofPlan",
    "Verification",
    "check_archive",
    "check_bundle",
    "inspect_archive",
    "inspect_bundle",
    "pack",
    "pack_bundle",
    "publish",
    "publish_archive",
    "publish_bundle",
    "publish_graph",
    "publish_table",
    "repack",
    "verify_archive",
]
