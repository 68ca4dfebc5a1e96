"""A usual run of the fuzzer: some seconds, from fixed seeds. ``make fuzz MINUTES=…`` runs long, from others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid, InpageError, InvalidRequest, brief, foreign, quoted, said, typed
from inpage.format import bounded
from inpage.requests.grammar import asked_grammar
from inpage.text.template_sandbox import BoundedTemplate

from .harness import Fault, Reader, Runner
from .readers import READERS

_DOCUMENTS = 60  # of a reader


@pytest.fixture(autouse=True, scope="module")
def _few_ways() -> None:
    """Nothing is compiled here."""


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_damaged_is_read_or_refused(reader: Reader) -> None:
    runner = Runner(reader)
    try:
        for number in range(max(8, int(_DOCUMENTS * reader.share))):
            try:
                runner.one(number)
            except Fault as fault:
                raise Fault(f"{fault}\n{runner.reproducer(number)}") from None
    finally:
        runner.close()


def _raises(error: BaseException) -> Callable[[Any], None]:
    def run(_: Any) -> None:
        raise error

    return run


class PanicException(BaseException):
    """Named as that of Rust's libraries."""


@pytest.mark.parametrize(
    "run",
    [
        _raises(ValueError("x")),
        _raises(RecursionError("x")),
        _raises(PanicException("x")),
        _raises(InvalidRequest("unknown " + "9" * 200)),
        _raises(InvalidRequest("unknown", field="a." + "9" * 100)),
    ],
)
def test_the_harness_tells_a_fault(run: Callable[[Any], None]) -> None:
    runner = Runner(Reader("none", lambda m: None, run))
    with pytest.raises(Fault):
        runner.one(0)
    runner.close()


_LONG = 60_000


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lambda text: asked_grammar({"regex": text}), "{" + "7" * _LONG),
        (lambda text: BoundedTemplate(f"{{{{ '{text}' % 99999999 }}}}").render({}, {}), "%" * _LONG),
    ],
    ids=["digits", "percents"],
)
def test_no_pattern_goes_back_over_a_long_text(read: Callable[[str], Any], text: str) -> None:
    """Within the harness's time: one that tries each start with each end takes minutes."""
    runner = Runner(Reader("long", lambda m: text, lambda document: _read(read, document)))
    runner.one(0)
    runner.close()


def _read(read: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(Exception):
        read(text)


def test_a_document_is_the_same_again() -> None:
    for reader in READERS[:8]:
        first, again = Runner(reader, 7), Runner(reader, 7)
        assert ascii(first.document(3))[:5000] == ascii(again.document(3))[:5000] or reader.wild
        first.close()
        again.close()


# -- what all readers share ----------------------------------------------------------------------------------------


def _nested() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


ANYTHING: list[Any] = [
    *(10**5000, -(10**5000), "x" * 9000, b"x" * 9000, _nested(), {"a" * 99: 10**5000}, _Unprintable(), float("nan")),
    *(list(range(9999)), "\ud800", [10**5000]),
]


@pytest.mark.parametrize("value", ANYTHING, ids=range(len(ANYTHING)))
def test_anything_can_be_quoted(value: Any) -> None:
    assert 0 < len(quoted(value)) <= 63 * 6 and 0 < len(brief(value)) <= 61  # a lone surrogate is written as \udXXX
    str(InvalidRequest(f"it is {quoted(value)}", field=brief(value))).encode()


def test_what_is_short_is_quoted_whole() -> None:
    assert [quoted(v) for v in ("a'b", 5, None, [1, "x"], 1.5)] == ['"a\'b"', "5", "None", "[1, 'x']", "1.5"]
    assert (brief("key"), brief(5)) == ("key", "5")


def test_an_error_is_bounded_and_can_be_sent() -> None:
    error = InvalidRequest("\ud800" + "y" * 10**6, field="\udfff" * 1000)
    wire = error.to_wire()
    assert all(len(str(text).encode()) < 10_000 for text in wire.values())


def test_what_another_library_says_is_shortened() -> None:
    assert said(ValueError(f"unknown tag '{'x' * 5000}'\n  at 5")) == f"unknown tag '{'x' * 59}…"[:74]
    assert said(ValueError("line\n  two")) == "line two"


@pytest.mark.parametrize("error", [ValueError("x"), PanicException("x"), RecursionError("x"), MemoryError()])
def test_all_that_another_library_raises_is_typed(error: BaseException) -> None:
    with (
        pytest.raises(ArtifactInvalid, match="it cannot be used") as caught,
        foreign(ArtifactInvalid, "it cannot be used", "f"),
    ):
        raise error
    assert caught.value.field == "f" and caught.value.__cause__ is error
    assert isinstance(typed(error), InpageError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), InvalidRequest("x")])
def test_what_is_no_fault_of_it_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, foreign(ArtifactInvalid, "it", None):
        raise error
    assert caught.value is error and (not isinstance(error, InpageError) or typed(error) is error)


def test_digits_and_finiteness_are_total() -> None:
    assert [bounded.whole(text) for text in ("0", "007", "9" * 5000, "", "-1", "٣", "²", "1.0", None, 5)] == [
        0, 7, 10**18, None, None, None, None, None, None, None]  # fmt: skip
    assert bounded.whole("0" * 5000 + "5") == 5
    finite = [0, -1.5, 10**300, 5e-324]
    infinite = [10**400, -(10**400), float("inf"), float("nan"), True, "1", None, 10**5000]
    assert all(map(bounded.finite, finite)) and not any(map(bounded.finite, infinite))
