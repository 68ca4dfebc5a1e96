"""Protocol buffers' wire format, as far as a reader of a few fields needs it: a message is a row of fields, of which
the others are skipped. Source: protobuf.dev/programming-guides/encoding.

The bytes are untrusted. Nothing is copied, and nothing is looked at beyond the message that a field lies in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from inpage.errors import SourceInvalid

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES = 10
_FIELDS = 4_000_000  # of one message: a graph of millions of nodes is damage

Value: TypeAlias = "int | memoryview"


def fields(message: memoryview, where: str) -> Iterator[tuple[int, Value]]:
    """Number and value of each field in turn: a varint as an unsigned integer, all else as its bytes. ``where`` is what
    an error calls the message. Raises `SourceInvalid`."""
    at, end = 0, len(message)
    for _ in range(_FIELDS):
        if at == end:
            return
        key, at = _varint(message, at, where)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise _damaged(where, f"a field without a number at {at}")
        if kind == VARINT:
            value, at = _varint(message, at, where)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at, where)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise _damaged(where, f"field {number} of wire type {kind} at {at}")
        if size > end - at:
            raise _damaged(where, f"field {number} needs {size} bytes at {at}, there are {end - at}")
        yield number, message[at : at + size]
        at += size
    raise _damaged(where, f"more than {_FIELDS} fields")


def text(value: Value, where: str, most: int) -> str:
    """A string of at most so many bytes."""
    data = content(value, where)
    if len(data) > most:
        raise _damaged(where, f"a text of {len(data)} bytes, at most {most}")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(where, "a text that is not UTF-8") from error


def content(value: Value, where: str) -> memoryview:
    """The bytes of a string or of a message within."""
    if isinstance(value, int):
        raise _damaged(where, "a number where a message or a text must be")
    return value


def number(value: Value, where: str) -> int:
    """An int32, int64 or enum."""
    if not isinstance(value, int):
        raise _damaged(where, "bytes where a number must be")
    return value - (1 << 64) if value >> 63 else value


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        if at >= len(data):
            raise _damaged(where, "it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
    raise _damaged(where, f"a number of more than 64 bits before {at}")


def _damaged(where: str, what: str) -> SourceInvalid:
    return SourceInvalid(f"{where} is cut off or damaged: {what}", field=where)
