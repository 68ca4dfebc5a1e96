"""Every kernel of a compiled model timed in Chromium: ``python -m inpage_bench.kernels`` (make bench-kernels).

The engine takes real steps apart, launch by launch, so weights come from memory as they do when it answers. `measure`
gives the figures, `table` and `step_table` print them, `kernels_page` shows each kernel's source and wasm beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inpage.cli import headless, paths, site
from inpage.cli.static import StaticServer
from inpage.errors import DeviceLost, InpageError, InvalidRequest, Unsupported, from_wire
from inpage.format.manifest import parse_manifest
from inpage.format.schema import Manifest

from .kernel_figures import AlternativeTime, KernelTime, Peaks, StepTime, alternatives, shares, step_time

ROWS, THREADS, DEPTH = (1, 2, 4, 8, 128), (1, 2), 34
_DEEP = 2048
_MANY = 8  # rows with which the engine times kernels for many rows (web/engine/core/alternatives.js)
_PAGE = b'<!doctype html><html lang="en"><meta charset="utf-8"><title>inpage</title>\n'
_PROFILE = """
async ({ model, variant, cases }) => {
  try {
    const { EngineClient } = await import(new URL("engine/client.js", document.baseURI).href);
    const base = new URL(`models/${model}/`, document.baseURI).href;
    const manifest = await (await fetch(`${base}manifest.json`)).json();
    const client = new EngineClient();
    const threads = Math.max(...cases.map((each) => each.threads));
    const info = await client.load({ base, manifest, variant, threads, profile: true });
    const profiles = [];
    for (const each of cases.filter((c) => c.threads <= info.threads && c.rows <= info.max_rows)) {
      const profile = await client.profile(each);
      const { launch_us, launch_workgroups } = profile;
      const list = (numbers) => numbers && Array.from(numbers);
      const lists = { launch_us: list(launch_us), launch_workgroups: list(launch_workgroups) };
      profiles.push({ ...profile, launch_kernel: null, ...lists });
    }
    return { value: profiles };
  } catch ({ code = "error", message = "", field = null }) {
    return { error: { code, message, field } };
  }
}
"""


_ALTERNATIVES = """
async ({ model, variant, threads, rounds }) => {
  try {
    const { EngineClient } = await import(new URL("engine/client.js", document.baseURI).href);
    const base = new URL(`models/${model}/`, document.baseURI).href;
    const manifest = await (await fetch(`${base}manifest.json`)).json();
    const client = new EngineClient();
    const { alternatives } = await client.load({ base, manifest, variant, threads: Math.max(...threads) });
    const longest = Math.max(0, ...alternatives.map((group) => group.length));
    // All lists' first ones, then their second ones: what is timed finds its weights no nearer than in a step.
    const nth = (k) => alternatives.flatMap((group) => group.slice(k, k + 1));
    const names = Array.from({ length: longest }, (_, k) => nth(k)).flat();
    const kernels = names.map((name) => ({ name, most: 64 }));
    const found = [];
    for (const count of threads) {
      const best = names.map(() => Infinity);
      for (let round = 0; round < rounds; round++) {
        const times = await client.timeKernels({ kernels, budgetMs: 1e6, threads: count });
        times.forEach((ms, i) => (best[i] = Math.min(best[i], ms * 1e3)));
      }
      found.push({ threads: count, us: Object.fromEntries(names.map((name, i) => [name, best[i]])) });
    }
    return { value: found };
  } catch ({ code = "error", message = "", field = null }) {
    return { error: { code, message, field } };
  }
}
"""


async def measure(
    artifact: Path,
    *,
    variant: str = "wasm-relaxed",
    rows: Sequence[int] = ROWS,
    threads: Sequence[int] = THREADS,
    depth: int = DEPTH,
    seconds: float = 0.4,
) -> list[StepTime]:
    """Profile a variant of the artifact for each number of rows and threads, some ``seconds`` each; at most as many
    threads as the machine has cores, and one on a GPU. Raises `InvalidRequest` for a variant that it does not have,
    `Unsupported` without a browser, and what the engine raises."""
    manifest, plan = _read(artifact, variant)
    architecture = json.loads((artifact / "manifest.json").read_text("utf-8"))["architecture"]
    gpu = manifest.variant(variant).backend == "webgpu"
    cores = 1 if gpu else os.cpu_count() or 1
    cases = [
        {"rows": r, "threads": t, "depth": depth, "repeats": max(3, round(seconds * 1e3 / (10 + 3 * r)))}
        for r in rows
        for t in sorted({min(t, cores) for t in threads})
    ]
    profiles = await _in_page(artifact, {"model": manifest.id, "variant": variant, "cases": cases}, webgpu=gpu)
    return [step_time(profile, plan, architecture) for profile in profiles]


async def compare(
    artifact: Path, *, variant: str = "wasm-relaxed", threads: Sequence[int] = THREADS, rounds: int = 12
) -> list[AlternativeTime]:
    """All kernels that do the same, timed beside each other, the best of ``rounds``. Raises as `measure`."""
    manifest, plan = _read(artifact, variant)
    if not plan.get("alternatives") or manifest.variant(variant).backend == "webgpu":
        return []  # a GPU's are timed at load: `inpage tune`
    counts = sorted({min(t, os.cpu_count() or 1) for t in threads})
    argument = {"model": manifest.id, "variant": variant, "threads": counts, "rounds": rounds}
    found = await _in_page(artifact, argument, _ALTERNATIVES)
    return alternatives({int(each["threads"]): each["us"] for each in found}, plan, _MANY)


def _read(artifact: Path, variant: str) -> tuple[Manifest, dict[str, Any]]:
    """The manifest, and the variant's plan."""
    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    if variant not in [v.name for v in manifest.variants if v.backend in ("wasm", "webgpu")]:
        names = ", ".join(v.name for v in manifest.variants if v.backend in ("wasm", "webgpu"))
        raise InvalidRequest(f"no variant {variant!r} to time in a page; there is {names or 'none'}", field="variant")
    return manifest, json.loads((artifact / manifest.variant(variant).files["plan"].file).read_text("utf-8"))


async def _in_page(
    artifact: Path, argument: dict[str, Any], script: str = _PROFILE, *, webgpu: bool = False
) -> list[dict[str, Any]]:
    try:
        from playwright.async_api import Error as PlaywrightError
        from playwright.async_api import async_playwright
    except ImportError:
        raise Unsupported("driving a browser needs playwright: pip install 'inpage[cli]'") from None
    with StaticServer({**site.files([artifact], hashes=False), "kernels.html": _PAGE}) as server:
        server.start()
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=paths.chromium(), args=headless.flags(webgpu=webgpu)
                )
                try:
                    page = await browser.new_page()
                    await page.goto(server.url + "kernels.html")
                    answer = await page.evaluate(script, argument)
                finally:
                    await browser.close()
        except PlaywrightError as error:
            raise DeviceLost(f"the browser failed: {str(error).partition(chr(10))[0]}") from error
        finally:
            server.shutdown()
    if "error" in answer:
        raise from_wire(answer["error"])
    profiles: list[dict[str, Any]] = answer["value"]
    return profiles


async def split(artifact: Path, variant: str, threads: int) -> str:
    """Where the time goes of a decoding step, of eight that decode together and of a piece of a prompt, and of a
    decoding step far into a context that has room for it. Raises as `measure`."""
    _, plan = _read(artifact, variant)
    steps: list[StepTime] = []
    for rows, depth in (((1, 8, 128), DEPTH), ((1,), _DEEP)):
        if depth + max(rows) <= plan["maxima"]["context"]:
            steps += await measure(artifact, variant=variant, rows=rows, threads=[threads], depth=depth)
    return "\n\n".join(map(step_table, steps))


def step_table(step: StepTime) -> str:
    """Where the time of one step goes: by kernel, then by kind."""
    total = sum(k.us for k in step.kernels) or 1.0
    clocks = {"gpu": "by the GPU's clock", "wall": "by the wall clock"}
    by = clocks.get(step.clock, f"{step.threads} thread{'s' * (step.threads > 1)}")
    title = (
        f"{step.rows} row{'s' * (step.rows > 1)}, {by}, after {step.depth} "
        f"tokens: {step.us / 1e3:.2f} ms a step (launches one by one {total / 1e3:.2f} ms{_apart(step)})"
    )
    if step.busy is not None:
        title += f"; gpu busy {step.busy:.0%}"
    groups = f"{'groups':>8}" if step.clock else ""
    head = f"  {'kernel':<34}{'launches':>9}{groups}{'us':>10}{'us each':>10}{'share':>8}{'GB/s':>8}{'GOP/s':>8}"
    kinds = step.by_kind
    gpu = bool(step.clock)
    lines = [*(_line(k, total, gpu) for k in step.kernels), "", *(_line(k, total, gpu) for k in kinds)]
    return "\n".join([title, head, *lines])


def _apart(step: StepTime) -> str:
    """What a pass of its own costs each launch, which is taken off; what it costs the GPU beside that stays in."""
    return f", a pass of {step.call_us:.1f} us each taken off" if step.clock == "gpu" else ""


def _line(k: KernelTime, total: float, gpu: bool) -> str:
    each = k.us / k.launches
    groups = f"{k.workgroups or '':>8}" if gpu else ""
    rates = f"{_rate(k.gbps):>8}{_rate(k.gops):>8}"
    return f"  {k.name:<34}{k.launches:>9}{groups}{k.us:>10.0f}{each:>10.2f}{k.us / total:>8.1%}{rates}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def table(steps: Sequence[StepTime], peaks: Peaks | None = None) -> str:
    """Each kernel at each number of rows and threads: microseconds a launch, GB/s and GOP/s, in % of the peaks."""
    lines = []
    for name in dict.fromkeys(k.name for step in steps for k in step.kernels):
        lines.append(name)
        head = f"  {'rows':>5}{'threads':>8}{'us':>10}{'GB/s':>8}{'GOP/s':>8}"
        lines.append(head + (f"{'% read':>8}{'% dot':>8}" if peaks else ""))
        for step in steps:
            for k in step.kernels:
                if k.name != name:
                    continue
                line = (
                    f"  {step.rows:>5}{step.threads:>8}{k.us / k.launches:>10.2f}{_rate(k.gbps):>8}{_rate(k.gops):>8}"
                )
                lines.append(line + "".join(f"{share:>8}" for share in shares(step, k, peaks)))
    return "\n".join(lines)


def alternatives_table(found: Sequence[AlternativeTime], peaks: Peaks | None = None) -> str:
    """Kernels that do the same beside each other: microseconds a launch, GB/s and GOP/s by threads, and % of the peaks;
    a star at the one that runs until another is chosen."""
    counts = sorted({count for each in found for count in each.us})
    rates = f"{'GB/s':>8}{'GOP/s':>8}" + (f"{'% read':>8}{'% dot':>8}" if peaks else "")
    lines = [f"  {'kernels that do the same':<46}" + "".join(f"{f'us, {n} thr.':>14}{rates}" for n in counts)]
    for each in found:
        line = f"{'*' if each.default else ' '} {each.name:<46}"
        for count in counts:
            gbps, gops = each.rates(count)
            line += f"{each.us[count]:>14.1f}{gbps:>8.1f}{gops:>8.1f}"
            if peaks:
                pairs = ((gbps, peaks.read_gbps.get(count)), (gops, peaks.dot_gops.get(count)))
                line += "".join(f"{100 * rate / peak:>8.0f}" if peak else f"{'–':>8}" for rate, peak in pairs)
        lines.append(line)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inpage_bench.kernels", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="DIR", help="folder or id of a compiled model")
    parser.add_argument("--variant", default="wasm-relaxed")
    parser.add_argument("--rows", type=_numbers, default=ROWS, metavar="N,N", help="default 1,2,4,8,128")
    parser.add_argument("--threads", type=_numbers, default=THREADS, metavar="N,N", help="default 1,2")
    parser.add_argument("--depth", type=int, default=DEPTH, metavar="N", help="tokens that come before (default 34)")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="show only where the time of each step goes, with the plan's first kernels",
    )
    parser.add_argument("--peaks", type=Path, metavar="FILE", help="a results.json with this machine's peaks")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also a page with each kernel's source and wasm")
    args = parser.parse_args(argv)
    try:
        artifact = paths.artifact(args.model)
        steps = asyncio.run(
            measure(artifact, variant=args.variant, rows=args.rows, threads=args.threads, depth=args.depth)
        )
        if args.profile:
            print("\n\n".join(map(step_table, steps)))
            return 0
        peaks = Peaks.from_results(json.loads(args.peaks.read_text("utf-8"))) if args.peaks else None
        print(table(steps, peaks))
        found = asyncio.run(compare(artifact, variant=args.variant, threads=args.threads))
        if found:
            print("\n" + alternatives_table(found, peaks))
        if args.html:
            from .kernels_page import page

            args.html.parent.mkdir(parents=True, exist_ok=True)
            args.html.write_text(page(artifact, args.variant, steps, peaks), "utf-8")
            print(f"\n{args.html}", file=sys.stderr)
    except InpageError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
