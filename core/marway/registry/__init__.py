"""The model registry: immutable versions and one mutable state a model, in an object store.

::

    registry.json                                        create-only, RegistryIdentity: that this is one
    archives/sha256/<digest>.mar                         create-only, the bytes
    bundles/sha256/<digest>.bundle                       the same, of a bundle
    golden/<digest of the object>.json                   create-only, golden answers
    wheels/sha256/<digest>.whl                           create-only, what a version requires
    models/<name>/versions/<version>.json                create-only, VersionRecord
    models/<name>/state.json                             compare-and-swap, ModelState
    models/<name>/history/<first generation>.json        create-only, HistoryChunk
    ids/<id or lower-case name>.json                     create-only, Pointer
    proofs/<archive digest>/<ulid>.json                  create-only, Proof that a server loaded it
    checks/<archive digest>/<ulid>.json                  create-only, Proof of another kind, such as a replay
    contracts/<name>/<ulid>.json                         create-only, Contract of a consumer
    pins/<model>/<version>/<graph>/<its version>.json    create-only, Pin: that a graph names a version
    gc/<key of another object>                           compare-and-swap, GcMark
    rollouts/<model>/<rollout>/rollout.json              create-only, RolloutRecord
    rollouts/<model>/<rollout>/evidence/<process>.json   what one gateway process has counted
    rollouts/<model>/<rollout>/reports/<op_id>.json      create-only, on what a change was decided
    rollouts/<model>/<run>/shadow/<process>.json         what one gateway process has counted of copies
    gates/<model>.json                                   compare-and-swap, what breaches its declared bound
    leases/<name>.json                                   compare-and-swap, which gateway does the background duties

The order of a publish is archive, golden, wheels, record, pointers, then label, so that a reader never sees a label or
a record that points at nothing. Every change of state carries an `op_id` of its own; after a write whose outcome is in
doubt the writer looks for its op_id in the history: there it succeeded, else it starts over from what is stored now.
"""

from __future__ import annotations

from marway.objects import open_store
from marway.registry.changes import Change
from marway.registry.contracting import Contracting
from marway.registry.garbage_collection import GarbageCollection, GcReport
from marway.registry.protecting import Protecting
from marway.registry.publishing import Publishing
from marway.registry.reading import ModelSummary
from marway.registry.releasing import Releasing
from marway.registry.scrubbing import Damage, Scrubbing
from marway.registry.traffic import DividedLabels
from marway.registry.undoing import Deleting, RollingBack

__all__ = ["Change", "Damage", "GcReport", "ModelSummary", "Registry", "open_registry"]


class Registry(
    Publishing, Releasing, RollingBack, Deleting, Protecting, Contracting, DividedLabels, GarbageCollection, Scrubbing
):
    """Reads and writes models, versions and labels. Methods block; they are safe to call from many threads.

    Args:
        store: Where the objects are.
        must_exist: Whether changes are refused where no registry was made; `open_registry` says yes.
    """


def open_registry(url: str, *, create: bool = False) -> Registry:
    """Open the registry at a URL, as every program does: what is not there is not made by a change.

    Args:
        url: ``s3://bucket/prefix``, ``file:///path``, or a plain path.
        create: Make the registry if there is none.

    Raises:
        InvalidSettings: The URL is of no known kind, or names nothing that can be used.
    """
    registry = Registry(open_store(url), must_exist=True)
    if create:
        registry.create()
    return registry
