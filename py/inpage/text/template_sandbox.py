"""jinja2 as transformers' ``apply_chat_template`` sets it up, in CPython and in the page, for templates that nobody
vouches for: sandboxed, and bounded in what it computes and writes (`limits`).

Loops and macros count their nodes as they begin, every text that is written or made counts its characters, and
operations whose result could be far larger than what goes into them are looked at before they run.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..errors import ArtifactInvalid
from ..format.limits import RENDER_CHARS, RENDER_ITEMS, RENDER_STEPS, RENDER_STEPS_PER_MESSAGE
from .slices import in_slices

_STEP_CHARS = 64  # characters that cost as much as a step
_BITS = 4096  # of a whole number
_LAYOUT = 64  # characters of an indent or separator
_WIDTH = re.compile(r"\d{6,}")  # in a format: more than any text needs
_COUNTED: tuple[type[Any], ...] = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
# One that is an argument itself. A mark is looked for from the last % or colon before it: from each would be quadratic.
_GIVEN_WIDTH = re.compile(r"%[^a-zA-Z%*]*+\*|:[^:{}]*+\{")
# Whose whole numbers say how long the result is.
_WIDENING = {
    "center",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "indent",
    "batch",
    "slice",
    "wordwrap",
    "round",
    "tojson",
}
_DEPTH = 100  # of a template's nodes, and of what it makes; models' have up to 30
_BETWEEN = frozenset(("comma", "data", "block_begin", "block_end", "variable_begin", "variable_end"))
_OPERANDS = frozenset(("string", "integer", "float", "colon", "rparen", "rbracket", "rbrace"))
_EVERY = 8  # value that a namespace is given is looked into
_CALLS = 32  # of macros within one another: a hundred would end Python in the page
_CHAIN = 300  # operators one after another: they nest without brackets
_HOLDS = (list, tuple, dict)
# Filters that look into no item: what they are given need not be measured.
_SHALLOW = {"length", "count", "first", "last", "default", "d", "items", "list", "reverse", "attr", "random"}


@dataclass(slots=True)
class _Allowance:
    """What the render under way may still do. ``stand_ins``: characters that stand for others, see `chat_template`."""

    steps: int
    chars: int
    stand_ins: Mapping[int, str]
    calls: int = 0  # under way
    kept: int = 0  # values that a namespace was given


_left: ContextVar[_Allowance] = ContextVar("_left")


class BoundedTemplate:
    """Raises jinja2's errors for a template that does not parse. ``texts``: all that it has itself."""

    def __init__(self, source: str) -> None:
        environment = _Environment()
        self._template = environment.from_string(source)
        self.texts: Sequence[str] = environment.texts

    def render(self, variables: Mapping[str, Any], stand_ins: Mapping[int, str]) -> str:
        """Raises `ArtifactInvalid` where it does more than it may, else what the template raises."""
        try:
            return "".join(self._pieces(variables, stand_ins))
        except TypeError:
            if not _no_tools(variables):
                raise
            return "".join(self._pieces(_unnamed(variables), stand_ins))

    async def render_aside(self, variables: Mapping[str, Any], stand_ins: Mapping[int, str]) -> str:
        """`render`, between whose pieces the event loop goes on."""
        try:
            return await in_slices(_joined(self._pieces(variables, stand_ins)))
        except TypeError:
            if not _no_tools(variables):
                raise
            return await in_slices(_joined(self._pieces(_unnamed(variables), stand_ins)))

    def _pieces(self, variables: Mapping[str, Any], stand_ins: Mapping[int, str]) -> Iterator[str]:
        """Each is made with this render's allowance in `_left`, whatever others render in between."""
        steps = RENDER_STEPS + RENDER_STEPS_PER_MESSAGE * len(variables.get("messages", ()))
        left = _Allowance(steps, RENDER_CHARS, stand_ins)
        pieces = self._template.generate(**variables)
        written = 0
        while True:
            token = _left.set(left)
            try:
                piece = next(pieces, None)
            except (MemoryError, RecursionError, OverflowError) as error:
                raise _too_much(type(error).__name__) from error
            finally:
                _left.reset(token)
            if piece is None:
                return
            written += len(piece)
            _foreseen(written)
            yield piece


def _joined(pieces: Iterator[str]) -> Generator[None, None, str]:
    found = []
    for piece in pieces:
        found.append(piece)
        yield
    return "".join(found)


def _no_tools(variables: Mapping[str, Any]) -> bool:
    return "tools" in variables and variables["tools"] is None


def _unnamed(variables: Mapping[str, Any]) -> dict[str, Any]:
    """For a template that was meant for tools and goes through them unasked: what is not defined has no items, None
    cannot be gone through."""
    return {name: value for name, value in variables.items() if name not in ("tools", "documents")}


def _too_much(what: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"chat_template: it makes {what} of these messages: it does not end, or is damaged", field="chat_template"
    )


def _spend(steps: int, chars: int = 0) -> None:
    left = _left.get(None)
    if left is None:  # while it is compiled: constants are folded
        return
    left.steps -= steps
    left.chars -= chars
    if left.steps < 0:
        raise _too_much("too many steps")
    if left.chars < 0:
        raise _too_much(f"more than {RENDER_CHARS} characters")


def _sized(value: Any) -> Any:
    """The same, if it is no larger than anything here may be."""
    if isinstance(value, str):
        _spend(len(value) // _STEP_CHARS)
        if len(value) > RENDER_CHARS:
            raise _too_much(f"more than {RENDER_CHARS} characters")
    elif isinstance(value, list | tuple) and len(value) > RENDER_ITEMS:
        raise _too_much("too long a list")
    elif isinstance(value, int) and value.bit_length() > _BITS:
        raise _too_much("too large a number")
    return value


def _measured(value: Any) -> Any:
    """The same, if it is not nested more deeply, and has no more items, all within counted wherever they occur, than
    are ever written: lists that hold the same list twice, and so on, can have 2^60. For what goes through all of it in
    C."""
    if isinstance(value, _HOLDS):
        count, depth, level = 0, 0, [value]
        while level:
            count += sum(map(len, level))
            depth += 1
            if count > RENDER_ITEMS:
                raise _too_much("too long a list")
            if depth > _DEPTH:
                raise _too_much("too deep a list")
            level = _inside(level)
    return value


def _inside(holders: Iterable[Any]) -> list[Any]:
    """The lists, tuples and objects that stand in these, as often as they do."""
    items = (one for item in holders for one in (item.values() if isinstance(item, dict) else item))
    return [one for one in items if isinstance(one, _HOLDS)]


def _foreseen(chars: float) -> None:
    if chars > RENDER_CHARS:
        raise _too_much(f"more than {RENDER_CHARS} characters")


def _foresee(name: str, args: tuple[Any, ...]) -> None:
    """Refuse a call whose result would be too large. ``args``: the text or list itself, then what was given."""
    subject, *more = args
    if name in _WIDENING and any(isinstance(a, int) and abs(a) > RENDER_CHARS // 16 for a in more):
        raise _too_much("too wide a text")
    if name == "tojson" and any(_wide(a) for a in more):
        raise _too_much("too wide a text")
    if name == "indent" and more and isinstance(more[0], str):
        _foreseen(len(more[0]) * (str(subject).count("\n") + 1))
    if name == "replace" and len(more) > 1:
        text, old, new = str(subject), str(more[0]), str(more[1])
        _foreseen(len(text) + text.count(old) * len(new))
    if name == "join" and more:
        between, items = (more[0], subject) if isinstance(subject, list | tuple) else (subject, more[0])
        _foreseen(len(str(between)) * (len(items) if isinstance(items, list | tuple | str) else RENDER_ITEMS))
    if name in ("format", "format_map") and isinstance(subject, str):
        _format(subject, more)


def _wide(layout: Any) -> bool:
    """Whether an indent, or one of the separators, is more than any JSON needs: it is written once an item."""
    if isinstance(layout, tuple | list):
        return any(_wide(each) for each in layout)
    return (len(layout) if isinstance(layout, str) else layout if isinstance(layout, int) else 0) > _LAYOUT


def _format(text: str, values: Any) -> None:
    for value in values:
        _measured(value)
    wide = any(isinstance(value, int) and abs(value) > RENDER_CHARS // 16 for value in values)
    if _WIDTH.search(text) or (wide and _GIVEN_WIDTH.search(text)):
        raise _too_much("too wide a text")


class _Namespace(Namespace):
    """The one place where a loop can put a list into a list, again and again: freeing one that is thousands deep
    overflows the stack of Python in the page. Not each is looked into, as a conversation's list may be long."""

    def __setitem__(self, name: str, value: Any) -> None:
        left = _left.get()
        left.kept += 1
        if left.kept % _EVERY == 0:
            _flat(value)
        super().__setitem__(name, value)


def _flat(value: Any) -> None:
    """Refuse what is nested too deeply; what stands twice on a level is looked at once."""
    depth, level = 0, _inside([[value]])
    while level:
        depth += 1
        if depth > _DEPTH:
            raise _too_much("too deep a list")
        level = _inside({id(one): one for one in level}.values())


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        extensions: list[str | type[Extension]] = ["jinja2.ext.loopcontrols", _Generation, _Chains]
        self.texts: list[str] = []
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_written)
        self.step = _spend
        self.measured = _measured
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = _now
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]  # writes as much as it is asked to
        self.filters["tojson"] = _to_json  # jinja2's own is meant for HTML
        self.filters = {name: _bounded(name, found) for name, found in self.filters.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _check_depth(tree)
        for node in [each for kind in _COUNTED for each in tree.find_all(kind)]:
            step = nodes.Call(nodes.EnvironmentAttribute("step"), [nodes.Const(_weight(node.body))], [], None, None)
            node.body.insert(0, nodes.ExprStmt(step))
        self.texts = [node.data for node in tree.find_all(nodes.TemplateData)]
        self.texts += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
        _Calls().visit(tree)
        tree.set_lineno(1)
        tree.set_environment(self)
        return tree

    def joined(self, *parts: Any) -> str:
        return str(_sized("".join(str(_measured(part)) for part in parts)))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function is _spend:  # the way that the sandbox goes takes longer than most turns of a loop
            return _spend(*args)
        if function is _measured:
            return _measured(*args)
        if isinstance(function, BuiltinMethodType) and isinstance(function.__self__, str):
            _foresee(function.__name__, (function.__self__, *args, *kwargs.values()))
        left = _left.get()
        left.calls += 1
        if left.calls > _CALLS:
            raise _too_much("too many calls within one another")
        try:
            return _sized(super().call(context, function, *args, **kwargs))
        finally:
            left.calls -= 1

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def called(*args: Any, **kwargs: Any) -> str:
            _format(value.__self__, (*args, *kwargs.values()))
            return wrapped(*args, **kwargs)

        return called

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    _foreseen(len(text) * times)
        elif operator == "%" and isinstance(left, str):
            _format(left, right if isinstance(right, tuple) else (right,))
        elif operator == "**" and isinstance(left, int) and left.bit_length() * right > _BITS:
            raise _too_much("too large a number")
        return _sized(super().call_binop(context, operator, left, right))


class _Calls(NodeTransformer):
    """``a ~ b`` and comparisons cannot be intercepted like other operators: calls are put there."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        parts = [self.visit(part) for part in node.nodes]
        return nodes.Call(nodes.EnvironmentAttribute("joined"), parts, [], None, None)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if not any(isinstance(side, nodes.Const) for side in sides):  # a constant is compared at once
            measured = nodes.EnvironmentAttribute("measured")
            node.expr = nodes.Call(measured, [node.expr], [], None, None)
            for operand in node.ops:
                operand.expr = nodes.Call(measured, [operand.expr], [], None, None)
        return node


def _check_depth(tree: nodes.Template) -> None:
    """What is nested too deeply would end Python in the page, where it is compiled."""
    depth, level = 0, [*tree.body]
    while level:
        depth += 1
        if depth > _DEPTH:
            raise TemplateSyntaxError("it is nested too deeply", 1)
        level = [child for node in level for child in node.iter_child_nodes()]


def _weight(body: list[nodes.Node]) -> int:
    """What one turn costs: its nodes, and the text among them. What lies in loops within counts again there."""
    found = [node for each in body for node in (each, *each.find_all(nodes.Node))]
    return 1 + len(found) + sum(len(node.data) for node in found if isinstance(node, nodes.TemplateData)) // _STEP_CHARS


def _written(value: Any) -> Any:
    """What an expression writes. Text that a loop writes is counted with its turns."""
    if isinstance(value, str):
        _spend(0, len(value))
    return _measured(value)


def _bounded(name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at what it is given, and at what it gives. Its own arguments follow what jinja2 hands in."""
    skipped = 1 if getattr(found, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(found)
    def called(*args: Any, **kwargs: Any) -> Any:
        _foresee(name, (*args[skipped:], *kwargs.values()))
        if name not in _SHALLOW:
            for each in args[skipped:]:
                _measured(each)
        return _sized(found(*args, **kwargs))

    return called


class _Chains(Extension):
    """Ends what nests without brackets before there is a tree of it."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        length = 0
        for token in stream:
            if token.type in _BETWEEN:
                length = 0
            elif token.type not in _OPERANDS:
                length += 1
                if length > _CHAIN:
                    raise TemplateSyntaxError("it is nested too deeply", token.lineno)
            yield token


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; here it only writes it."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Macro) -> str:
        return str(caller())


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(_escaped, text) if ensure_ascii else text


def _escaped(found: re.Match[str]) -> str:
    left = _left.get(None)
    meant = left.stand_ins.get(ord(found[0]), found[0]) if left else found[0]
    return found[0] if meant != found[0] and meant.isascii() else json.dumps(meant)[1:-1]


def _now(form: str) -> str:
    _format(form, ())
    return datetime.now().strftime(form)


def _refuse(reason: str) -> None:
    raise TemplateError(reason)
