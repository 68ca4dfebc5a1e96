"""The content security policy of a built site: nothing from another origin, no inline script, WebAssembly.

A worker is not under the policy of the page that starts it but under the one that its own response carries, so every
response carries it. A page can only add to it, with a ``<meta>`` of its own.
"""

from __future__ import annotations

_SCRIPTS = "'self' 'wasm-unsafe-eval'"
# PyScript makes functions out of text, in its page alone: our workers and the other pages stay under the plain policy.
_EVAL = ("examples/pyscript/",)


def policy_of(path: str) -> str:
    """What `serve` sends with a path of the site."""
    scripts = f"{_SCRIPTS} 'unsafe-eval'" if path.startswith(_EVAL) else _SCRIPTS
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )


def no_policy(_: str) -> str:
    """For pages of others, such as the engines that the bench compares with."""
    return ""
