"""Bundles: archives for model servers that read a directory of their own layout.

A bundle is a zip archive that has exactly the bytes that `marway pack --backend NAME` writes: a manifest, golden
examples if there are any, and the server's files below one directory, all stored as they are. What has other bytes is
refused whole, so none can hold links, hidden or doubled entries, or unpack to more than its size.
"""

from marway.bundles.manifest import (
    BUNDLE_BACKENDS,
    BUNDLE_SUFFIX,
    MAR_BACKENDS,
    BundleManifest,
    check_backend_of_bundle,
    check_backend_of_mar,
)
from marway.bundles.reading import is_bundle, read_bundle
from marway.bundles.unpacking import UNPACKING_PREFIX, unpack_bundle

__all__ = [
    "BUNDLE_BACKENDS",
    "BUNDLE_SUFFIX",
    "MAR_BACKENDS",
    "UNPACKING_PREFIX",
    "BundleManifest",
    "check_backend_of_bundle",
    "check_backend_of_mar",
    "is_bundle",
    "read_bundle",
    "unpack_bundle",
]
