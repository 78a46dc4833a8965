"""Where the files of a `storageUri` are: here, in a place that was said, or in S3, from where they are fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from marway.archives.entries import MAX_ENTRIES, check_name, check_no_collisions, shown
from marway.errors import InvalidInput, MarwayError, clip
from marway.objects import ObjectStore
from marway_archiver.adopt.sources.files import parsed_json, within
from marway_archiver.adopt.sources.kube.objects import KubeObject, mapping, secret_of, text
from marway_archiver.adopt.sources.options import Options

__all__ = ["Keys", "Storage", "account_keys", "storage_config", "volumes_of"]

_PIECE_BYTES: Final = 1024 * 1024
_CONFIGS: Final = ("storage-config", "storage-secret")
"""How ModelMesh's and KServe's Secret of storages is called."""
_PREFIXES: Final = ("serving.kserve.io/", "serving.kubeflow.org/")


@dataclass(frozen=True, slots=True)
class Keys:
    """How an S3 storage is reached, as the source itself says."""

    access_key: str
    secret_key: str = field(repr=False)
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """Finds the files of storages.

    Paths of this machine that the YAML names are taken only below the directory that it lies in: it may be anybody's,
    and what it names is published. Others have to be said with `--storage`.

    Attributes:
        wish: Where files are, as was said, and where fetched ones go.
        root: The directory of the YAML.
        volumes: Volumes whose files are below ``root``, by their claims' names.
    """

    options: Options
    root: Path
    volumes: Mapping[str, Path] = field(default_factory=dict)

    def find(self, uri: str, keys: Keys | None = None) -> Path:
        """Return the file or directory that ``uri`` names; one of S3 is fetched.

        Raises:
            InvalidInput: It is not there, or in a place that this program cannot ask; the message says what to do.
        """
        declared = max((each for each in self.options.storage if _begins(uri, each)), key=len, default=None)
        if declared is not None:
            return _below(self.options.storage[declared], uri[len(declared) :], uri)
        parts = urlsplit(uri)
        if parts.scheme in ("", "file"):
            path = Path(unquote(parts.path))
            if not path.is_absolute() or not path.exists() or not _inside(path, self.root):
                raise InvalidInput(
                    f"{clip(uri, 200)} is not below {self.root}, where the YAML is: say where its files are with "
                    f"--storage {clip(uri, 200)}=DIR"
                )
            return path
        if parts.scheme == "pvc" and parts.netloc in self.volumes:
            return _below(self.volumes[parts.netloc], parts.path, uri)
        if parts.scheme == "s3":
            return self._fetched(uri, parts.netloc, parts.path.strip("/"), keys)
        root = f"{parts.scheme}://{parts.netloc}"
        raise InvalidInput(
            f"{clip(uri, 200)} cannot be asked from here: copy its files to this machine, and say where they are with "
            f"--storage {root}=DIR"
        )

    def _fetched(self, uri: str, bucket: str, prefix: str, keys: Keys | None) -> Path:
        from marway.objects.s3 import Access, S3Store  # boto3 takes a third of a second to import: who uses it pays

        access = None if keys is None else Access(keys.access_key, keys.secret_key, keys.endpoint, keys.region)
        target = self.options.scratch / "s3" / bucket
        try:
            store = S3Store(f"s3://{bucket}", access)
            target = target / check_name(prefix) if prefix else target
            if target.exists():
                return target
            found = list(islice(_keys(store, prefix), MAX_ENTRIES + 1))
            places = {
                key: target if key == prefix else target / check_name(key[len(prefix) :].lstrip("/")) for key in found
            }
            check_no_collisions(str(place) for place in places.values())
            if found and len(found) <= MAX_ENTRIES:
                for key, place in places.items():
                    self._fetch(store, key, place)
                return target
        except MarwayError as exc:
            raise InvalidInput(
                f"{clip(uri, 200)} cannot be fetched: {exc.message}. Or copy its files to this machine, and say where "
                f"they are with --storage s3://{bucket}=DIR"
            ) from exc
        many = f"more than {MAX_ENTRIES} objects begin" if found else "no object begins"
        raise InvalidInput(f"{clip(uri, 200)}: {many} like that in the bucket")

    def _fetch(self, store: ObjectStore, key: str, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        size, free = store.size(key) or 0, shutil.disk_usage(place.parent).free
        if size > free:
            raise InvalidInput(
                f"{shown(key)} has {size} bytes, and {free} are free in {self.options.scratch}: set TMPDIR"
            )
        with store.open(key) as source, place.open("wb") as file:
            shutil.copyfileobj(source, file, _PIECE_BYTES)


def _keys(store: ObjectStore, prefix: str) -> Iterator[str]:
    """Yield the keys of the object ``prefix`` and of those below it; what stands for a directory is none."""
    for key in store.keys(prefix):
        if not key.endswith("/") and (not prefix or key == prefix or key.startswith(f"{prefix}/")):
            yield key


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _begins(uri: str, address: str) -> bool:
    return uri == address or uri.startswith(f"{address}/")


def _below(root: Path, rest: str, uri: str) -> Path:
    name = unquote(rest).strip("/")
    return root if not name else within(root, name, f"{clip(uri, 200)}:")


def volumes_of(objects: Sequence[KubeObject], root: Path) -> dict[str, Path]:
    """Return the directories below ``root`` that claims stand for, where their volume's object says so."""
    places: dict[str, Path] = {}
    for each in objects:
        if each.kind == "PersistentVolume":
            path = text(mapping(each.spec.get("hostPath")).get("path") or mapping(each.spec.get("local")).get("path"))
            if path and Path(path).is_dir() and _inside(Path(path), root):
                places[each.name] = Path(path)
    return {
        each.name: places[volume]
        for each in objects
        if each.kind == "PersistentVolumeClaim" and (volume := text(each.spec.get("volumeName"))) in places
    }


def account_keys(name: str, namespace: str, objects: Sequence[KubeObject]) -> Keys | None:
    """Return the S3 keys of the Secrets that a service account has (`default` where none is named), or None."""
    for account in objects:
        if account.kind == "ServiceAccount" and account.name == (name or "default") and account.namespace == namespace:
            for listed in account.document.get("secrets") or ():
                keys = _of_secret(text(mapping(listed).get("name")), namespace, objects)
                if keys is not None:
                    return keys
    return None


def _of_secret(name: str, namespace: str, objects: Sequence[KubeObject]) -> Keys | None:
    for secret in objects:
        if secret.kind != "Secret" or secret.name != name or secret.namespace != namespace:
            continue
        data = secret_of(secret)
        key, word = data.get("AWS_ACCESS_KEY_ID"), data.get("AWS_SECRET_ACCESS_KEY")
        if not key or not word:
            return None

        def declared(what: str, secret: KubeObject = secret) -> str:
            return next(
                (text(secret.annotations[each + what]) for each in _PREFIXES if each + what in secret.annotations), ""
            )

        host = declared("s3-endpoint")
        scheme = "http" if declared("s3-usehttps") in ("0", "false") else "https"
        return Keys(key, word, f"{scheme}://{host}" if host else None, declared("s3-region") or None)
    return None


def storage_config(key: str, objects: Sequence[KubeObject]) -> tuple[Keys | None, str]:
    """Return what the Secret of storages says under ``key``: the keys of an S3 storage, and its bucket, if it has one.

    Raises:
        InvalidInput: The Secret is there and does not say it, or says one of another kind.
    """
    for secret in objects:
        if secret.kind != "Secret" or secret.name not in _CONFIGS:
            continue
        declared = secret_of(secret)
        if key not in declared:
            there = ", ".join(sorted(declared))
            raise InvalidInput(f"{secret.where}: the Secret {secret.name} has no storage {shown(key)}: it has {there}")
        config = mapping(parsed_json(declared[key], f"{secret.where}: {key}"))
        if config.get("type") != "s3":
            return None, text(config.get("bucket") or config.get("name"))
        bucket = text(config.get("default_bucket") or config.get("bucket"))
        access, word = text(config.get("access_key_id")), text(config.get("secret_access_key"))
        if not access or not word:
            return None, bucket
        return Keys(access, word, text(config.get("endpoint_url")) or None, text(config.get("region")) or None), bucket
    return None, ""
