"""``hf:OWNER/NAME[@REVISION][:FILE]``: a model of the Hugging Face hub, or of a server with its API, kept in a cache
folder; and ``https://….gguf``: one file from anywhere.

The API says which commit a name means, and of each file its size and hash: files come by them, and are found again
without a network. ``HF_ENDPOINT`` is another server, ``HF_TOKEN`` is sent to it alone, ``HF_HUB_OFFLINE=1`` asks
nobody."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from inpage.errors import NetworkError, SourceInvalid, quoted, said
from inpage.format import bounded
from inpage.format.structure import one_line

from ..gguf.reading import is_first_part, other_parts
from .download import Download, Progress, Remote
from .http_files import Client, TryAgain, check_url, read_small, shown

ENDPOINT = "https://huggingface.co"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REF = re.compile(
    rf"hf:(?P<owner>{_NAME})/(?P<name>{_NAME})(?:@(?P<revision>[A-Za-z0-9._/-]{{1,100}}))?(?::(?P<file>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE = re.compile(r"(?:[^\x00-\x1f\\/:.][^\x00-\x1f\\/:]{0,199}/){0,4}[^\x00-\x1f\\/:.][^\x00-\x1f\\/:]{0,199}")
_ANSWER_BYTES, _FILES = 32 << 20, 20_000
_LISTED = 12
# What of a folder decides the model or its terms.
_FOLDER = re.compile(
    r"(model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|config\.json|generation_config\.json|"
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|chat_template\.jinja|README\.md|modules\.json|"
    r"config_sentence_transformers\.json|sentence_bert_config\.json|\d_[A-Za-z]{1,40}/config\.json|"
    r"\d_Dense/model\.safetensors|"
    r"(?i:licen[cs]e|copying)(\.(md|txt))?)"
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """``path``: the GGUF, or a folder. ``ref``: with the commit. ``sha256``: of a GGUF in one file, where the hub says
    it. ``license``: as its page has it."""

    path: Path
    ref: str
    sha256: str | None
    license: str | None


@dataclass(frozen=True, slots=True)
class _Listing:
    commit: str
    files: Mapping[str, Remote]
    license: str | None


@dataclass(frozen=True, slots=True)
class Hub:
    """``download``: where it differs from the usual."""

    cache: Path
    progress: Progress = lambda done, total: None
    make: Callable[[Client, Progress], Download] = Download

    def fetch(self, ref: str) -> HubModel:
        """Raises `SourceInvalid`, `NetworkError`, `StorageFull`."""
        match = _REF.fullmatch(ref)
        if not match or ".." in ref or "--" in f"{match['owner']}/{match['name']}":
            raise SourceInvalid(
                f"{quoted(ref)} is not hf:OWNER/NAME, :FILE behind it if there are several", field="source"
            )
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
        check_url(endpoint)
        client = Client(os.environ.get("HF_TOKEN", "").strip() or None, endpoint)
        name = f"{match['owner']}/{match['name']}"
        # Another server's word of what a file hashes to is not the hub's.
        server = "hub" if endpoint == ENDPOINT else f"hub-{hashlib.sha256(endpoint.encode()).hexdigest()[:12]}"
        root = self.cache / server / f"{match['owner']}--{match['name']}"
        listing = self._listing(client, endpoint, name, match["revision"] or "main", root)
        wanted = _wanted(name, listing.files, match["file"])
        folder = root / listing.commit
        self._fetch(client, {file: listing.files[file] for file in wanted}, folder)
        pinned = f"{name}@{listing.commit}"
        first = Path(wanted[0])
        if first.suffix == ".gguf":
            sha256 = listing.files[wanted[0]].sha256 if len(wanted) == 1 else None
            return HubModel(folder / first, pinned, sha256, listing.license)
        return HubModel(folder, pinned, None, listing.license)

    def _fetch(self, client: Client, files: Mapping[str, Remote], folder: Path) -> None:
        total = sum(remote.size or 0 for remote in files.values())
        before = 0
        for file, remote in files.items():
            target = folder / file  # `_FILE` has checked its parts

            def came(done: int, _: int, before: int = before) -> None:
                self.progress(before + done, total)

            if not target.is_file() or target.stat().st_size != remote.size:
                if _offline():
                    raise NetworkError(
                        f"{file} was not fetched yet, and HF_HUB_OFFLINE forbids requests", field="source"
                    )
                self.make(client, came).fetch(remote, target)
            before += remote.size or 0

    def _listing(self, client: Client, endpoint: str, name: str, revision: str, root: Path) -> _Listing:
        """Of the API; where it cannot be reached, what it said before."""
        kept = root / f"{quote(revision, safe='')}.json"
        if _COMMIT.fullmatch(revision) and kept.is_file():
            return _read(kept.read_bytes(), endpoint, name)
        url = f"{endpoint}/api/models/{name}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            if _offline():
                raise TryAgain("HF_HUB_OFFLINE forbids requests")
            data = read_small(client, url, _ANSWER_BYTES)
        except TryAgain as error:
            if kept.is_file():
                return _read(kept.read_bytes(), endpoint, name)
            raise NetworkError(f"{shown(url)}: {error}", field="source") from None
        listing = _read(data, endpoint, name)
        if _COMMIT.fullmatch(revision) and listing.commit != revision:
            raise NetworkError(f"{name}: asked for {revision}, the hub answers {listing.commit}", field="source")
        root.mkdir(parents=True, exist_ok=True)
        for place in (kept, root / f"{listing.commit}.json"):
            new = place.with_name(f".{place.name}.{os.getpid()}")
            new.write_bytes(data)
            new.replace(place)
        return listing


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _read(data: bytes, endpoint: str, name: str) -> _Listing:
    """The API's answer, checked."""
    try:
        found = bounded.read(data, _ANSWER_BYTES)
    except ValueError as error:
        raise NetworkError(f"{name}: the hub's answer is not JSON: {said(error)}", field="source") from error
    commit = found.get("sha") if isinstance(found, dict) else None
    siblings = found.get("siblings") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise NetworkError(f"{name}: the hub's answer has no commit and files", field="source")
    files: dict[str, Remote] = {}
    for entry in siblings[:_FILES]:
        file = entry.get("rfilename") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not _FILE.fullmatch(file) or not _writable(file):
            continue  # nothing that is asked for is called so
        lfs = entry.get("lfs")
        size, sha256, git = entry.get("size"), lfs.get("sha256") if isinstance(lfs, dict) else None, entry.get("blobId")
        if type(size) is not int or size < 0 or not _hex(sha256, 64) or not _hex(git, 40) or not (sha256 or git):
            raise NetworkError(
                f"{name}: the hub's answer describes {quoted(file)} in a way that is not known", field="source"
            )
        url = f"{endpoint}/{name}/resolve/{commit}/{quote(file)}"
        files[file] = Remote(url, size, sha256, None if sha256 else git)
    card = found.get("cardData")
    terms = card.get("license") if isinstance(card, dict) else None
    return _Listing(commit, files, one_line(terms) or None if isinstance(terms, str) else None)


def _writable(file: str) -> bool:
    """Whether the names are short enough for file systems, with what a download puts behind them."""
    try:
        return all(len(part.encode()) <= 200 for part in file.split("/"))
    except UnicodeEncodeError:
        return False


def _hex(value: Any, digits: int) -> bool:
    return value is None or (isinstance(value, str) and bool(re.fullmatch(rf"[0-9a-f]{{{digits}}}", value)))


def _wanted(name: str, files: Mapping[str, Remote], file: str | None) -> list[str]:
    """The files of one model: a GGUF, all its parts, or a folder's."""
    if file is None and "config.json" in files and any(f.endswith(".safetensors") for f in files):
        return [f for f in files if _FOLDER.fullmatch(f)]
    models = [f for f in files if f.endswith(".gguf") and is_first_part(Path(f)) and "mmproj" not in f.lower()]
    if file is not None and file not in files:  # by the part of the name that differs, such as Q4_K_M
        alike = [f for f in models if re.search(rf"(?i)(^|[^a-z0-9]){re.escape(file)}([^a-z0-9_]|$)", f)]
        models, file = (alike or models), alike[0] if len(alike) == 1 else file
        if file not in files:
            raise SourceInvalid(f"{name} has no one file {quoted(file)}; it has {_listed(models, files)}", field="file")
    if file is None:
        if len(models) != 1:
            what = f"several: say which, as in hf:{name}:{models[0]}; it has" if models else "neither a GGUF file nor a"
            listed = _listed(models, files) if models else "folder with config.json and safetensors"
            raise SourceInvalid(f"{name} has {what} {listed}", field="file")
        file = models[0]
    if not file.endswith(".gguf"):
        raise SourceInvalid(f"{quoted(file)} is not a GGUF file", field="file")
    folder = file.rpartition("/")[0]
    parts = [f"{folder}/{part}" if folder else part for part in other_parts(Path(file).name)]
    missing = [part for part in parts if part not in files]
    if missing:
        raise SourceInvalid(f"{name} lacks {missing[0]}, a part of {file}", field="file")
    return parts


def _listed(models: list[str], files: Mapping[str, Remote]) -> str:
    named = [f"{f} ({(files[f].size or 0) / 1e6:.0f} MB)" for f in models[:_LISTED]]
    return ", ".join(named) + (f" and {len(models) - _LISTED} more" if len(models) > _LISTED else "") or "no GGUF file"


def fetch_url(url: str, cache: Path, progress: Progress = lambda done, total: None, *, suffix: str = ".gguf") -> Path:
    """A file at an address; in the cache it is found by the address, and asked for no more."""
    check_url(url)
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name.endswith(suffix) or not _FILE.fullmatch(name):
        raise SourceInvalid(f"{quoted(shown(url))} is not the address of a {suffix} file", field="source")
    folder = cache / "url" / hashlib.sha256(url.encode()).hexdigest()[:32]
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.json").write_text(json.dumps({"url": shown(url)}))
    return Download(Client(), progress).fetch(Remote(url), target)
