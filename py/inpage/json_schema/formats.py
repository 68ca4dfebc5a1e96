"""What ``format`` stands for, as regular expressions of the whole text (RFC 3339, 3986, 4122, 4291, 5321, 6901)."""

from __future__ import annotations

from functools import cache

from .automata import Dfa, both, complement, limited
from .regex import pattern

_YEAR = "[0-9]{4}"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
_TIME = rf"{_CLOCK}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[A-Za-z0-9]+(-+[A-Za-z0-9]+)*"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"({_H16}:{_H16}|{_IPV4})"
_IPV6 = "|".join((
    f"({_H16}:){{6}}{_LS32}", f"::({_H16}:){{5}}{_LS32}", f"({_H16})?::({_H16}:){{4}}{_LS32}",
    *(f"(({_H16}:){{0,{n}}}{_H16})?::({_H16}:){{{4 - n}}}{_LS32}" for n in (1, 2, 3, 4)),
    f"(({_H16}:){{0,5}}{_H16})?::{_H16}", f"(({_H16}:){{0,6}}{_H16})?::",
))  # fmt: skip
_PCT = "%[0-9A-Fa-f]{2}"
_PART = rf"([A-Za-z0-9._~!$&'()*+,;=:@/-]|{_PCT})"
_TAIL = rf"(\?({_PART}|\?)*)?(#({_PART}|\?)*)?"
_URI = rf"[A-Za-z][A-Za-z0-9+.-]*:{_PART}+{_TAIL}"
_N = "[0-9]+"
_DURATION = (
    f"P({_N}W|({_N}Y({_N}M({_N}D)?)?|{_N}M({_N}D)?|{_N}D)(T({_N}H({_N}M({_N}S)?)?|{_N}M({_N}S)?|{_N}S))?"
    f"|T({_N}H({_N}M({_N}S)?)?|{_N}M({_N}S)?|{_N}S))"
)
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "uuid": "[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
    "email": rf"{_ATOM}(\.{_ATOM})*@{_HOST}",
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _URI,
    "uri-reference": rf"({_URI}|{_PART}*{_TAIL})",
    "json-pointer": "(/([^~/]|~[01])*)*",
}
NAMES = tuple(_FORMATS)


@cache
def named(name: str) -> Dfa:
    """Raises `KeyError`."""
    with limited(None):  # as it is kept for all schemas
        found = pattern(_FORMATS[name], whole=True)
        if name in ("date", "date-time"):  # there was no year 0
            found = both(found, complement(pattern("^0000")))
        return found
