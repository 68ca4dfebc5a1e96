"""A model's licence: which ids are known, what to do about the others, and the text of NOTICES.txt."""

from __future__ import annotations

from collections.abc import Sequence

from inpage.errors import SourceInvalid
from inpage.format.schema import Pruning

from ..sources import LicenseInfo, Source

# SPDX ids of licences that let anyone serve the weights from a static page.
KNOWN = (
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unlicense",
    "Zlib",
)
NONE = "LicenseRef-unknown"


def check_license(info: LicenseInfo, accepted: bool) -> str:
    """The id to write down. Raises `SourceInvalid` for an unknown licence that was not acknowledged."""
    for known in KNOWN:
        if info.id is not None and info.id.lower() == known.lower():
            return known
    if not accepted:
        what = f"licence {info.id!r} is not one we know" if info.id else "the source names no licence"
        raise SourceInvalid(f"{what}: read the model's terms, then pass --accept-license", field="license")
    return info.id or NONE


def notices(source: Source, license_id: str, pruning: Sequence[Pruning] = ()) -> str:
    """NOTICES.txt: whose model this is, where it came from, on what terms, and what was done to it."""
    lines = [source.name, "=" * len(source.name), ""]
    if source.license.notice:
        lines += [source.license.notice.strip(), ""]
    origin = source.origin
    lines += [f"Licence: {license_id}", f"Source: {origin.ref} ({origin.file}, sha256 {origin.sha256})"]
    if not origin.random:
        lines.append(
            "Changes: tensors were rearranged for the inpage runtime, constant factors multiplied into norms; "
            "levels other than the source's own are rounded."
        )
    lines += [f"Left out of the source: {step.sentence}" for step in pruning]
    if source.license.text:
        lines += ["", "-" * 78, "", source.license.text.rstrip()]
    return "\n".join(lines) + "\n"
