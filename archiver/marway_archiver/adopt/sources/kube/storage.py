"""Where the files of a `storageUri` are: here, in a place that was said, or in S3, from where they are fetched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from marway.archives.entries import MAX_ENTRIES, check_name, shown
from marway.errors import InvalidArchive, InvalidInput, MarwayError, clip
from marway_archiver.adopt.sources.files import parsed_json, within
from marway_archiver.adopt.sources.kube.objects import KubeObject, mapping, secret_of, text
from marway_archiver.adopt.sources.wish import Wish

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

    Attributes:
        wish: Where files are, as was said, and where fetched ones go.
        volumes: Volumes whose files are on this machine, by their claims' names.
    """

    wish: Wish
    volumes: Mapping[str, Path] = field(default_factory=dict)

    def find(self, uri: str, keys: Keys | None = None) -> Path:
        """Return the file or directory that ``uri`` names; one of S3 is fetched.

        Raises:
            InvalidInput: It is not there, or in a place that this program cannot ask; the message says what to do.
        """
        said = max((each for each in self.wish.storage if _begins(uri, each)), key=len, default=None)
        if said is not None:
            return _below(self.wish.storage[said], uri[len(said) :], uri)
        parts = urlsplit(uri)
        if parts.scheme in ("", "file"):
            path = Path(unquote(parts.path))
            if not path.is_absolute() or not path.exists():
                raise InvalidInput(f"{clip(uri, 200)} is not there: say where its files are with --storage {uri}=DIR")
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
        from marway.objects.s3 import (  # boto3 takes a third of a second to import: only who uses it pays
            Access,
            S3Store,
        )

        access = None if keys is None else Access(keys.access_key, keys.secret_key, keys.endpoint, keys.region)
        target = self.wish.scratch / "s3" / bucket / prefix
        if target.exists():
            return target
        try:
            store = S3Store(f"s3://{bucket}", access)
            found = [
                key for key in store.keys(prefix) if key == prefix or key.startswith(f"{prefix}/" if prefix else "")
            ]
            found = [key for key in found if not key.endswith("/")]
            if not found:
                raise InvalidInput(f"{clip(uri, 200)}: the bucket has no object that begins like that")
            if len(found) > MAX_ENTRIES:
                raise InvalidInput(f"{clip(uri, 200)}: has more than {MAX_ENTRIES} objects")
            for key in found:
                self._fetch(store.size(key) or 0, key, target if key == prefix else _place(target, key, prefix, uri))
                with (
                    store.open(key) as source,
                    (target if key == prefix else _place(target, key, prefix, uri)).open("wb") as file,
                ):
                    shutil.copyfileobj(source, file, _PIECE_BYTES)
        except InvalidInput:
            raise
        except MarwayError as exc:
            raise InvalidInput(
                f"{exc.message}; or copy the files to this machine, and say where they are with --storage s3://{bucket}=DIR"
            ) from exc
        return target

    def _fetch(self, size: int, key: str, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place.parent).free
        if size > free:
            raise InvalidInput(f"{shown(key)} has {size} bytes, and {free} are free in {self.wish.scratch}: set TMPDIR")


def _place(target: Path, key: str, prefix: str, uri: str) -> Path:
    name = key[len(prefix) :].lstrip("/")
    try:
        return target / check_name(name)
    except InvalidArchive as exc:
        raise InvalidInput(f"{clip(uri, 200)}: {exc.message}") from exc


def _begins(uri: str, address: str) -> bool:
    return uri == address or uri.startswith(f"{address}/")


def _below(root: Path, rest: str, uri: str) -> Path:
    name = unquote(rest).strip("/")
    return root if not name else within(root, name, f"{clip(uri, 200)}:")


def volumes_of(objects: Sequence[KubeObject]) -> dict[str, Path]:
    """Return the directories of this machine that claims stand for, where their volume's object says so."""
    places: dict[str, Path] = {}
    for each in objects:
        if each.kind == "PersistentVolume":
            path = text(mapping(each.spec.get("hostPath")).get("path") or mapping(each.spec.get("local")).get("path"))
            if path and Path(path).is_dir():
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

        def said(what: str, secret: KubeObject = secret) -> str:
            return next(
                (text(secret.annotations[each + what]) for each in _PREFIXES if each + what in secret.annotations), ""
            )

        host = said("s3-endpoint")
        scheme = "http" if said("s3-usehttps") in ("0", "false") else "https"
        return Keys(key, word, f"{scheme}://{host}" if host else None, said("s3-region") or None)
    return None


def storage_config(key: str, objects: Sequence[KubeObject]) -> tuple[Keys | None, str]:
    """Return what the Secret of storages says under ``key``: the keys of an S3 storage, and its bucket, if it has one.

    Raises:
        InvalidInput: The Secret is there and does not say it, or says one of another kind.
    """
    for secret in objects:
        if secret.kind != "Secret" or secret.name not in _CONFIGS:
            continue
        said = secret_of(secret)
        if key not in said:
            there = ", ".join(sorted(said))
            raise InvalidInput(f"{secret.where}: the Secret {secret.name} has no storage {shown(key)}: it has {there}")
        config = mapping(parsed_json(said[key], f"{secret.where}: {key}"))
        if config.get("type") != "s3":
            return None, text(config.get("bucket") or config.get("name"))
        bucket = text(config.get("default_bucket") or config.get("bucket"))
        access, word = text(config.get("access_key_id")), text(config.get("secret_access_key"))
        if not access or not word:
            return None, bucket
        return Keys(access, word, text(config.get("endpoint_url")) or None, text(config.get("region")) or None), bucket
    return None, ""
