"""Load a variant of an artifact with the engine that runs it here."""

from __future__ import annotations

from dataclasses import replace

from ..engines.protocol import Engine, Progress, Tunable
from ..engines.registry import LoadJob, engine_kind
from ..errors import ArtifactInvalid, Unsupported, quoted
from ..format.schema import Manifest, Variant
from ..host.artifact_store import Store
from ..settings import Settings
from .device_profile import DeviceProfile
from .kernel_choice import choose_kernels

EXAM = "exam"  # the field of what web/engine/webgpu/exam.js raises


async def load_engine(variant: Variant, threads: int, pinned: bool, store: Store, manifest: Manifest, text: str,
                      on_progress: Progress, settings: Settings, profile: DeviceProfile,
                      trust: bool = False) -> Engine:  # fmt: skip
    """The engine, with what this device chose: remembered in ``profile``, or found out now and noted. ``pinned``: so
    many threads, not only at most so many. ``text``: of the manifest. ``trust``: see `Router.load`. Raises the engine's
    errors."""
    known = profile.choices.get(variant.name)
    if known is not None and not pinned and known.threads == threads:
        pinned = True  # fewer than all is tried again: other work may have kept a core busy when it was measured
    if failed := profile.exams.get(variant.name):
        raise Unsupported(failed, field=EXAM)
    kind = engine_kind(variant.backend)
    for role in kind.files:
        if role not in variant.files:
            raise ArtifactInvalid(
                f"variant {quoted(variant.name)} has no {role}: compile it again", field=f"variants.{role}"
            )
    kernels = None if known is None else known.kernels
    examined = variant.name in profile.exams
    job = LoadJob(
        kind.able, store.base, manifest, text, variant, threads, pinned, kernels, settings, trust, on_progress, examined
    )
    try:
        engine = await kind.load(job)
    except Unsupported as error:
        if error.field == EXAM:
            profile.exams[variant.name] = str(error)
            await profile.save()
        raise
    if variant.backend == "webgpu" and manifest.exam is not None and not examined:
        profile.exams[variant.name] = ""
        await profile.save()
    if not engine.info.alternatives or not isinstance(engine, Tunable):
        return engine
    if known is None or not known.fits(engine.info):
        try:
            choice = await choose_kernels(engine)
            # A GPU's kernels are timed before its first step only, and are compiled as well as they ever will be.
            settled = kind.gpu or (choice.settled and engine.info.rehearsed)
            profile.choices[variant.name] = replace(choice, settled=settled)
        except BaseException:
            await engine.unload()
            raise
        await profile.save()
    else:
        await engine.choose_kernels(known.kernels)
    return engine
