"""jinja2 for templates that nobody vouches for: sandboxed, and bounded in what it computes and writes (`limits`).

Loops and macros count their nodes as they begin, every text that is written or made counts its characters, and
operations whose result could be far larger than what goes into them are looked at before they run.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ..errors import ArtifactInvalid
from ..format.limits import RENDER_CHARS, RENDER_ITEMS, RENDER_STEPS, RENDER_STEPS_PER_MESSAGE

_STEP_CHARS = 64  # characters that cost as much as a step
_BITS = 4096  # of a whole number
_WIDTH = re.compile(r"\d{6,}")  # in a format: more than any text needs
_COUNTED: tuple[type[Any], ...] = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)
_GIVEN_WIDTH = re.compile(r"%[^a-zA-Z]*\*|:[^}]*\{")  # one that is an argument itself
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
_left: ContextVar[list[int]] = ContextVar("_left")  # steps, then characters, that the render under way may still make


class BoundedTemplate:
    """Raises jinja2's errors for a template that does not parse."""

    def __init__(self, source: str) -> None:
        self._template = _Environment().from_string(source)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises `ArtifactInvalid` where it does more than it may, else what the template raises."""
        steps = RENDER_STEPS + RENDER_STEPS_PER_MESSAGE * len(variables.get("messages", ()))
        token = _left.set([steps, RENDER_CHARS])
        try:
            return str(_sized(self._template.render(**variables)))
        except (MemoryError, RecursionError) as error:
            raise _too_much(type(error).__name__) from error
        finally:
            _left.reset(token)


def _too_much(what: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"chat_template: it makes {what} of these messages: it does not end, or is damaged", field="chat_template"
    )


def _spend(steps: int, chars: int = 0) -> None:
    left = _left.get(None)
    if left is None:  # while it is compiled: constants are folded
        return
    left[0] -= steps
    left[1] -= chars
    if left[0] < 0:
        raise _too_much("too many steps")
    if left[1] < 0:
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


def _foreseen(chars: float) -> None:
    if chars > RENDER_CHARS:
        raise _too_much(f"more than {RENDER_CHARS} characters")


def _foresee(name: str, args: tuple[Any, ...]) -> None:
    """Refuse a call whose result would be too large. ``args``: the text or list itself, then what was given."""
    subject, *more = args
    if name in _WIDENING and any(isinstance(a, int) and abs(a) > RENDER_CHARS // 16 for a in more):
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


def _format(text: str, values: Any) -> None:
    wide = any(isinstance(value, int) and abs(value) > RENDER_CHARS // 16 for value in values)
    if _WIDTH.search(text) or (wide and _GIVEN_WIDTH.search(text)):
        raise _too_much("too wide a text")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=_written
        )
        self.step = _spend
        self.globals["raise_exception"] = _refuse
        del self.globals["lipsum"]  # writes as much as it is asked to
        self.filters["tojson"] = _to_json  # jinja2's own is meant for HTML
        self.filters = {name: _bounded(name, found) for name, found in self.filters.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in [each for kind in _COUNTED for each in tree.find_all(kind)]:
            step = nodes.Call(nodes.EnvironmentAttribute("step"), [nodes.Const(_weight(node.body))], [], None, None)
            node.body.insert(0, nodes.ExprStmt(step))
        _Concat().visit(tree)
        tree.set_lineno(1)
        tree.set_environment(self)
        return tree

    def joined(self, *parts: Any) -> str:
        return str(_sized("".join(map(str, parts))))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function is _spend:  # the way that the sandbox goes takes longer than most turns of a loop
            return _spend(*args)
        if isinstance(function, BuiltinMethodType) and isinstance(function.__self__, str):
            _foresee(function.__name__, (function.__self__, *args, *kwargs.values()))
        return _sized(super().call(context, function, *args, **kwargs))

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


class _Concat(NodeTransformer):
    """``a ~ b`` cannot be intercepted like other operators: it becomes a call."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        parts = [self.visit(part) for part in node.nodes]
        return nodes.Call(nodes.EnvironmentAttribute("joined"), parts, [], None, None)


def _weight(body: list[nodes.Node]) -> int:
    """What one turn costs: its nodes, and the text among them. What lies in loops within counts again there."""
    found = [node for each in body for node in (each, *each.find_all(nodes.Node))]
    return 1 + len(found) + sum(len(node.data) for node in found if isinstance(node, nodes.TemplateData)) // _STEP_CHARS


def _written(value: Any) -> Any:
    """What an expression writes. Text that a loop writes is counted with its turns."""
    if isinstance(value, str):
        _spend(0, len(value))
    return value


def _bounded(name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at what it is given, and at what it gives. Its own arguments follow what jinja2 hands in."""
    skipped = 1 if getattr(found, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(found)
    def called(*args: Any, **kwargs: Any) -> Any:
        _foresee(name, (*args[skipped:], *kwargs.values()))
        return _sized(found(*args, **kwargs))

    return called


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(reason: str) -> None:
    raise ValueError(reason)
