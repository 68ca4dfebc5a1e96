"""The kernels of a compiled model as one self-contained page: figures, TVMScript and wasm side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from inpage.format.manifest import parse_manifest

from .kernel_figures import Peaks, StepTime, shares

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; }
h2 { font: 600 1rem ui-monospace, monospace; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
details { margin: .5rem 0; } summary { cursor: pointer; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
pre { font: 12px/1.4 ui-monospace, monospace; overflow: auto; max-height: 70vh; padding: .6rem; }
pre { border: 1px solid var(--line); }
h3 { font-size: .85rem; margin: .3rem 0; }
@media (max-width: 60rem) { .sides { grid-template-columns: 1fr; } }
"""


def page(artifact: Path, variant: str, steps: Sequence[StepTime], peaks: Peaks | None = None) -> str:
    """HTML. Compiles the kernels once more for their text, so it needs the `compile` extra."""
    from inpage_compile.listing import Listing, list_kernels
    from inpage_compile.targets.variants import choose

    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    tensors = {t.name: t for t in manifest.tensors}
    listings = list_kernels(choose((variant,))[0], manifest.architecture, tensors)
    names = list(dict.fromkeys(k.name for step in steps for k in step.kernels))
    title = html.escape(f"{manifest.name}: the kernels of {variant}")
    body = [f"<h1>{title}</h1>", _machine(peaks)]
    for name in names:
        listing = listings.get(name, Listing("not in this build of the compiler: compile the model again", ""))
        body += [
            f"<h2>{html.escape(name)}</h2>",
            _table(name, steps, peaks),
            "<details><summary>source and wasm</summary><div class=sides>",
            f"<div><h3>TVMScript</h3><pre>{html.escape(listing.script)}</pre></div>",
            f"<div><h3>WebAssembly</h3><pre>{html.escape(listing.assembly)}</pre></div></div></details>",
        ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return "\n".join([head, *body]) + "\n"


def _machine(peaks: Peaks | None) -> str:
    if peaks is None:
        return "<p>Rates count bytes of weights and KV, and a multiply and an add as two operations.</p>"
    parts = [f"{n} thread{'s' * (n > 1)}: reads {x:.1f} GB/s" for n, x in sorted(peaks.read_gbps.items())]
    parts += [f"{n} thread{'s' * (n > 1)}: {x:.0f} GOP/s of dot products" for n, x in sorted(peaks.dot_gops.items())]
    return f"<p>This machine at most: {html.escape('; '.join(parts))}.</p>"


def _table(name: str, steps: Sequence[StepTime], peaks: Peaks | None) -> str:
    more = "<th>% of read<th>% of dot" if peaks else ""
    rows = [f"<table><tr><th>rows<th>threads<th>launches<th>µs each<th>share of step<th>GB/s<th>GOP/s{more}</tr>"]
    for step in steps:
        total = sum(k.us for k in step.kernels) or 1.0
        for k in step.kernels:
            if k.name == name:
                cells = [str(step.rows), str(step.threads), str(k.launches), f"{k.us / k.launches:.2f}"]
                cells += [f"{k.us / total:.1%}", *("–" if x is None else f"{x:.1f}" for x in (k.gbps, k.gops))]
                rows.append("<tr>" + "".join(f"<td>{cell}" for cell in [*cells, *shares(step, k, peaks)]) + "</tr>")
    return "".join(rows) + "</table>"
