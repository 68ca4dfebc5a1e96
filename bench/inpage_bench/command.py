"""Measure how fast models run in the page, with other engines beside them in the same run.

Writes results.json and report.html. `inpage bench compare A.json B.json` says what two runs tell apart; `inpage bench
merge A.json B.json … --out FOLDER` joins shards; `inpage bench report RESULTS.json` writes the report anew; `inpage
bench readme RESULTS.json` puts the results table into the README. Leave the machine alone while it runs. One that is
cut short keeps what it had measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inpage.cli import paths
from inpage.cli.artifact_files import read_manifest
from inpage.cli.progress import Progress
from inpage.cli.session import trust_argument
from inpage.errors import InvalidRequest, Unsupported
from inpage.host.capability import host_device

if TYPE_CHECKING:
    from .compare import Comparison
    from .driver import PeerFactory
    from .results import Results
    from .run import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        metavar="DIR,…",
        help="compiled models, folders or ids (default: the default one); shape:llama-1b, -3b "
        "and -7b are compiled with random weights when they are asked for",
    )
    parser.add_argument(
        "--backends",
        metavar="NAME,…",
        default="wasm,native",
        help="ours: backends or variants such as wasm-simd (default: %(default)s)",
    )
    parser.add_argument("--scenarios", metavar="NAME,…", help="only these; a name may end in *; 'list' shows all")
    parser.add_argument("--peers", metavar="NAME,…", default="all", help="all, none, or names (default: %(default)s)")
    parser.add_argument(
        "--iterations", type=_count, metavar="N", help="of each scenario (default: 6, fewer of slow ones)"
    )
    parser.add_argument("--warmup", type=_count, metavar="N", help="runs before them that do not count (default: 1)")
    parser.add_argument("--quick", action="store_true", help="the shortest form, some minutes in all")
    parser.add_argument("--long", action="store_true", help="the long scenarios too")
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="compute threads of every engine (default: all cores)"
    )
    trust_argument(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--browser", metavar="PROGRAM", help="the Chromium to run")
    where.add_argument("--connect", metavar="WS", help="a Playwright server elsewhere, such as ws://host:3000/")
    parser.add_argument("--shard", type=_shard, metavar="I/N", default=(1, 1), help="only part I of N of the scenarios")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="only show where the time of a step goes, kernel by kernel (wasm and WebGPU variants)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: build/bench)")
    parser.set_defaults(action=None)
    actions = parser.add_subparsers(dest="action", metavar="compare | merge | report | readme")
    compare = actions.add_parser("compare", help="what two runs tell apart")
    compare.add_argument("a", type=Path, metavar="A.json", help="before")
    compare.add_argument("b", type=Path, metavar="B.json", help="after")
    compare.add_argument("--fail-on-slower", action="store_true", help="exit code 1 where anything of ours is slower")
    compare.add_argument("--all", action="store_true", dest="every", help="also the lines within noise")
    merge = actions.add_parser("merge", help="join the results of shards")
    merge.add_argument("parts", type=Path, nargs="+", metavar="PART.json")
    merge.add_argument("--out", type=Path, metavar="FOLDER", required=True, dest="merged", help="where to write")
    report = actions.add_parser("report", help="write report.html anew, of a run that was cut short as well")
    report.add_argument("results", type=Path, metavar="RESULTS.json")
    report.add_argument("--out", type=Path, metavar="FOLDER", dest="reported", help="where (default: beside it)")
    readme = actions.add_parser("readme", help="put the results table into a README, between its two bench comments")
    readme.add_argument("results", type=Path, metavar="RESULTS.json")
    readme.add_argument("file", type=Path, nargs="?", default=Path("README.md"), metavar="README.md")


def run(args: argparse.Namespace) -> int:
    if args.action == "compare":
        return _compare(args)
    if args.action == "merge":
        return _merge(args)
    if args.action == "readme":
        return _readme(args)
    if args.action == "report":
        return _report(args)
    return _bench(args)


def _bench(args: argparse.Namespace) -> int:
    from .browser import Where
    from .run import Options, Run
    from .scenarios import ALL, select
    from .turn import Limits

    if args.scenarios == "list":
        for scenario in ALL:
            print(f"{scenario.name:<18} {scenario.form:<6} {scenario.title}")
        return 0
    if args.profile:
        return _profile(args)
    if args.quick and args.long:
        args.fail("--quick and --long are opposites: give one of the two")
    form = "quick" if args.quick else "long" if args.long else "usual"
    limits = {
        "quick": Limits(iterations=3, warmup=1, visits=1, budget_s=6, longest_s=60),
        "usual": Limits(iterations=6, warmup=1, visits=3, budget_s=10, longest_s=90),
        "long": Limits(iterations=6, warmup=1, visits=3),
    }[form]
    if args.iterations is not None or args.warmup is not None:
        iterations, warmup = args.iterations or limits.iterations, limits.warmup if args.warmup is None else args.warmup
        limits = Limits(iterations, warmup, min(limits.visits, iterations), exact=args.iterations is not None)
    out = args.out or paths.models().parent / "bench"
    models = [_artifact(name, args.backends.split(",")) for name in (args.models.split(",") if args.models else [None])]
    kinds = {read_manifest(model).embedding is not None for model in models}
    asked = select(args.scenarios.split(",") if args.scenarios else None, form)
    scenarios = [scenario for scenario in asked if any(scenario.suits(embeds=kind) for kind in kinds)]
    if not scenarios:
        raise InvalidRequest("none of these scenarios is for these models", field="scenarios")
    options = Options(
        models=models,
        backends=args.backends.split(","),
        scenarios=scenarios,
        peers=_peers(args.peers),
        limits=limits,
        where=Where(args.browser, args.connect),
        threads=args.threads or host_device().threads,
        command=shlex.join(["inpage", *sys.argv[1:]]),
        quick=args.quick,
        trust=args.trust,
        part=args.shard,
        keep=lambda results: results.save(out / "results.json"),
    )
    run = Run(options)
    interrupted = _until_done(run)
    results = run.results
    _write(results, out)
    _conclude(results, out)
    if interrupted:
        return 130
    return 0 if any(engine.kind == "inpage" and engine.error is None for engine in results.engines) else 1


def _profile(args: argparse.Namespace) -> int:
    from .kernels import split

    named = (name for name in args.backends.split(",") if name.startswith(("wasm-", "webgpu-")))
    variant = next(named, "wasm-relaxed")
    for name in args.models.split(",") if args.models else [None]:
        artifact = _artifact(name, [variant])
        print(f"{artifact.name}, {variant}")
        print(asyncio.run(split(artifact, variant, args.threads or host_device().threads)))
    return 0


def _until_done(run: Run) -> bool:
    """Whether the run was interrupted (^C, or asked to end): its results then hold what it had measured."""

    async def watched() -> None:
        with contextlib.suppress(NotImplementedError):  # where the system has no such signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        await run.run()

    try:
        asyncio.run(watched())
    except KeyboardInterrupt:
        if not any(cell.metrics for cell in run.results.cells):
            raise
        return True
    return False


def _artifact(name: str | None, backends: list[str]) -> Path:
    """A compiled model; one by shape is compiled for these backends where it is not."""
    if name is None or (Path(name) / "manifest.json").is_file():
        return paths.artifact(name)
    try:
        from inpage_compile.sources import find_recipe

        recipe = find_recipe(name)
        if recipe is None or recipe.shape is None:
            return paths.artifact(name)
        from inpage_compile.pipeline import compile_model
        from inpage_compile.targets.variants import DEFAULT, all_variants
    except ModuleNotFoundError as error:
        if not name.startswith("shape:"):
            return paths.artifact(name)
        raise Unsupported(f"compiling needs more packages ({error.name}): pip install 'inpage[compile]'") from error
    known, title, progress = all_variants(), recipe.id, Progress()
    wanted = [v for v in known if v in backends or (v in DEFAULT and known[v].backend in backends)]

    def show(phase: str, done: int, total: int) -> None:
        progress({"phase": f"{title}: {phase}", "loaded": done, "total": total})

    try:
        return compile_model(name, root=paths.models(), variants=tuple(wanted) or None, progress=show)
    finally:
        progress.end()


def _peers(asked: str) -> dict[str, PeerFactory]:
    if asked == "none":
        return {}
    from .peers import PEERS

    if asked == "all":
        return dict(PEERS)
    names = asked.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InvalidRequest(f"there is no peer {unknown[0]!r}; there are {', '.join(PEERS)}", field="peers")
    return {name: PEERS[name] for name in names}


def _write(results: Results, out: Path) -> None:
    from .report import write_report

    results.save(out / "results.json")
    write_report(results, out / "report.html")


def _conclude(results: Results, out: Path) -> None:
    """The lines under the table."""
    from .outcome import against_peers

    environment = results.environment
    marks = {"pass": "✓", "fail": "✗", "not measured": "·", "does not apply": "–", "reported": "="}
    print()
    for line in against_peers(results):
        print(line)
    print()
    for group in dict.fromkeys(target.group for target in results.targets):
        if group:
            print(f"{group}:")
        for target in (each for each in results.targets if each.group == group):
            said = f"{target.name} {target.target}: {target.value or target.verdict} ({target.why})"
            print(f"{marks[target.verdict]} {target.verdict:<14} {said}")
        print()
    adapter = environment.adapter
    gpu = (
        f"{adapter.vendor} {adapter.architecture}{' (software)' if adapter.software else ''}"
        if adapter
        else "no WebGPU"
    )
    print(f"{environment.cpu}, {environment.cores} cores, {environment.os}, {environment.browser}, {gpu}")
    if not results.complete:
        print("The run was cut short: this is what it had measured.")
    if environment.busy:
        share = (environment.foreign_cpu_share or 0) * 100
        print(f"The machine was busy: other work took {share:.0f} % of it. Take these numbers with care.")
    print(f"{results.duration_s:.0f} s; {out / 'results.json'}, {out / 'report.html'}")


def _compare(args: argparse.Namespace) -> int:
    from .compare import compare
    from .results import Results

    before, after = Results.load(args.a), Results.load(args.b)
    found = compare(before, after)
    _show(found, every=args.every)
    ours = {engine.name for engine in after.engines if engine.kind == "inpage"}
    slower = [each for each in found.slower if each.engine in ours]
    return 1 if args.fail_on_slower and slower else 0


def _show(found: Comparison, *, every: bool) -> None:
    for note in found.notes:
        print(f"note: {note}")
    if abs(found.drift) >= 0.01:
        word = "faster" if found.drift > 0 else "slower"
        print(f"the machine was {abs(found.drift) * 100:.0f} % {word} in the second run, as far as controls tell")
    shown = [line for line in found.lines if every or line.verdict not in ("within noise", "too few samples")]
    for line in sorted(shown, key=lambda line: (line.engine, line.scenario, line.metric)):
        print(
            f"{line.verdict:<13} {line.engine}, {line.scenario}: {line.metric} {line.before:.5g} → {line.after:.5g} "
            f"{line.unit} ({line.change * 100:+.1f} %, p {line.p:.2g})"
        )
    for whole in found.wholes:
        if every or whole.verdict != "within noise":
            print(
                f"{whole.verdict:<13} {whole.engine} as a whole: {abs(whole.change) * 100:.1f} % "
                f"{'slower' if whole.change > 0 else 'faster'} over {whole.figures} figures (p {whole.p:.2g})"
            )
    counts = {"faster": len(found.faster), "slower": len(found.slower)}
    if counts["faster"] or counts["slower"]:
        print(f"{counts['slower']} slower, {counts['faster']} faster of {len(found.lines) + len(found.wholes)}")
    else:
        print(f"within noise: all {len(found.lines)} timings and sizes, as far as these samples can tell")


def _merge(args: argparse.Namespace) -> int:
    from .merge import merge
    from .results import Results

    whole = merge([Results.load(path) for path in args.parts])
    _write(whole, args.merged)
    print(args.merged / "results.json")
    return 0


def _report(args: argparse.Namespace) -> int:
    from .report import write_report
    from .results import Results
    from .run import sum_up

    results, out = Results.load(args.results), args.reported or args.results.parent
    sum_up(results)
    write_report(results, out / "report.html")
    _conclude(results, out)
    return 0


def _readme(args: argparse.Namespace) -> int:
    from .report import update_readme
    from .results import Results

    changed = update_readme(Results.load(args.results), args.file)
    print(f"{args.file}: {'the results table is new' if changed else 'as it was'}")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is no part of a whole, such as 2/3")
    return int(part), int(parts)
