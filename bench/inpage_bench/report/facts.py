"""Where, with what and how it was measured: every fact that a number's reader may ask for."""

from __future__ import annotations

from ..results import Environment, Model, Peaks, Results
from ..room import WASM_BYTES
from . import tables
from .markup import Child, Markup, join, tag
from .text import MISSING, commands, count, number, quantity
from .view import metric_name

Facts = list[tuple[str, str]]


def environment(results: Results) -> Markup:
    """The machine (each, of a run in parts), the models and the engines."""
    parts: list[Child] = []
    if len(results.shards) > 1:
        for i, shard in enumerate(results.shards, 1):
            parts += [tag("h2", f"Where part {shard.part or i} was measured"), listed(machine(shard.environment))]
    else:
        parts += [tag("h2", "Where it was measured"), listed(machine(results.environment))]
    for model in results.models:
        parts += [tag("h2", f"Model: {model.name}"), listed(about(model))]
    if results.engines:
        rows = []
        for e in results.engines:
            cells = (e.version, e.backend, e.variant, e.weights, str(e.threads))
            row = [tag("th", e.name, scope="row"), *(tag("td", c or MISSING, class_="word") for c in cells)]
            rows.append(tag("tr", *row, class_="ours" if e.kind == "inpage" else None))
        names = ("Version", "Backend", "Variant", "Weights", "Threads")
        head = [tag("th", "Engine", scope="col"), *(tag("th", n, scope="col", class_="word") for n in names)]
        parts += [tag("h2", "Engines"), tables.table(head, rows, "Engines")]
    return join(parts)


def machine(env: Environment) -> Facts:
    facts = [
        ("Processor", env.cpu),
        ("Cores", count(env.cores)),
        ("Memory", quantity(env.memory_bytes, "bytes")),
        ("System", env.os),
        ("Browser", env.browser + (", on another machine" if env.remote else "")),
        ("Flags", " ".join(env.flags)),
        ("WebGPU adapter", _adapter(env)),
        ("Cross-origin isolated", "yes" if env.isolated else "no"),
        ("Load average", f"{number(env.load_before, 2)} before, {number(env.load_after, 2)} after"),
        ("Busy with other work", _busy(env)),
    ]
    if env.pace_mbps is not None:
        spread = f", varying by {quantity(env.pace_spread, 'share')}" if env.pace_spread is not None else ""
        facts.append(("Pace of the machine", f"{count(round(env.pace_mbps))} MB/s hashed{spread}"))
    return facts + (_peaks(env.peaks) if env.peaks else [])


def _adapter(env: Environment) -> str:
    if env.adapter is None:
        return "none"
    named = (env.adapter.vendor, env.adapter.architecture, env.adapter.description)
    return " ".join(filter(None, named)) + (" (software)" if env.adapter.software else "")


def _busy(env: Environment) -> str:
    said = "yes" if env.busy else "no"
    share = env.foreign_cpu_share
    return said if share is None else f"{said} ({quantity(share, 'share')} of the processor went to others)"


def _peaks(peaks: Peaks) -> Facts:
    found: Facts = []
    for name, by, unit in (
        ("Read bandwidth", peaks.read_gbps, "GB/s"),
        ("Int8 dot products", peaks.dot_gops, "Gop/s"),
        ("Int8, added up in 16 bits", peaks.dot16_gops, "Gop/s"),
        ("Int8, added up in 32 bits", peaks.dot32_gops, "Gop/s"),
        ("Float32 multiply-add", peaks.fma_gops, "Gop/s"),
    ):
        said = [f"{number(v)} {unit} on {_threads(n)}" for n, v in by.items()]
        found += [(name, ", ".join(said))] if said else []
    for n, sizes in peaks.read_by_bytes.items():
        said = [f"{number(v)} GB/s of {quantity(float(size), 'bytes')}" for size, v in sizes.items()]
        found.append((f"Reading on {_threads(n)}", ", ".join(said)))
    return [*found, ("How that was measured", peaks.how)]


def _threads(n: str) -> str:
    return "1 thread" if n == "1" else f"{n} threads"


def about(model: Model) -> Facts:
    size, half = quantity(model.weight_bytes, "bytes"), quantity(model.f16_bytes, "bytes")
    return [
        ("Id", model.id),
        ("Parameters", count(model.parameters)),
        ("Weights", f"{model.weights}, {size} ({half} in f16)" + (", random, by shape" if model.random else "")),
        ("Context", count(model.context) if model.context else ""),
        ("Keys and values", _kept(model)),
        ("SHA-256 of the manifest", model.sha256),
    ]


def _kept(model: Model) -> str:
    """What a token of context takes, and how many a page can have of them."""
    if not model.kv_token_bytes:
        return ""
    most = max(0, WASM_BYTES - model.weight_bytes) // model.kv_token_bytes
    room = f"a WebAssembly memory ({quantity(WASM_BYTES, 'bytes')}) has room for {count(most)} of them"
    return f"{quantity(model.kv_token_bytes, 'bytes')} a token of context; beside the weights {room}"


def run(results: Results) -> Markup:
    """The command, the build and what the names of metrics mean."""
    tool = results.tool
    changes = " with uncommitted changes" if tool.dirty else ""
    facts = [
        ("Command", ", ".join(commands([results.command]))),
        ("Started", results.created),
        ("Took", f"{count(round(results.duration_s))} s"),
        ("inpage", f"{tool.version}, revision {tool.revision or 'unknown'}{changes}"),
    ]
    if len(results.shards) > 1:
        for i, s in enumerate(results.shards):
            asked = ", ".join(commands([s.command]))
            facts.append((f"Part {s.part or i + 1}", f"{s.created}, {s.duration_s:,.0f} s: {asked}"))
    metrics = dict.fromkeys(m for c in results.cells for m in c.metrics)
    facts.append(("Metrics", ", ".join(f"{metric_name(m)} ({m})" for m in metrics)))
    return join([tag("h2", "The run"), listed(facts)])


def listed(facts: Facts) -> Markup:
    rows = [part for name, value in facts for part in (tag("dt", name), tag("dd", value or MISSING))]
    return tag("dl", *rows, class_="facts")
