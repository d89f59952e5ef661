"""Models as bytes and back. The only module that serialises them; nothing in the bytes can run.

An artifact is a NumPy archive (npz) of plain numeric arrays, one of which is the header, JSON as bytes. It is stored
uncompressed with fixed timestamps and in a fixed order: equal states give equal bytes, whatever the machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors.base import FORMATS, ModelState
from mllib.errors import BadArtifact

MAX_BYTES = 64 * 1024 * 1024
MAX_ARRAYS = 64
MAX_HEADER_BYTES = 1024 * 1024

_HEADER = "header"
_KINDS = "biuf"  # booleans, integers, floating numbers: no objects, no strings, no records
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip archive can say


def dumps(state: ModelState) -> bytes:
    """The bytes of a model. Raises TypeError or ValueError for a state that is not plain numbers and JSON."""
    header = json.dumps(state.header, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()
    arrays = {_HEADER: np.frombuffer(header, dtype=np.uint8), **state.arrays}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            if arrays[name].dtype.kind not in _KINDS:
                raise TypeError(f"array {name!r} of {arrays[name].dtype} cannot be stored: only plain numbers can")
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """The SHA-256 of an artifact, 64 hexadecimal digits: its key in the store."""
    return hashlib.sha256(data).hexdigest()


def loads(data: bytes, expected_digest: str) -> ModelState:
    """The state in an artifact. The digest is compared before a byte is parsed.

    Raises BadArtifact when the digest differs, or the bytes are too large, damaged, of an unknown format, or hold
    anything but plain numbers.
    """
    found = digest(data)
    if found != expected_digest:
        raise _bad(f"its SHA-256 is {found}, but {expected_digest} is on record: the bytes were changed or damaged")
    if len(data) > MAX_BYTES:
        raise _bad(f"it has {len(data)} bytes, more than the {MAX_BYTES} allowed")
    try:
        arrays = _read(data)
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except BadArtifact:
        raise
    except Exception as error:  # hostile bytes can make the parsers raise almost anything; the answer is the same
        raise _bad(f"it is not an archive of arrays ({type(error).__name__})") from error
    if not isinstance(header, dict) or not isinstance(header.get("detector"), str):
        raise _bad("its header does not name a detector")
    if header.get("format") not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise _bad(f"it is in format {header.get('format')!r}, and this version reads {known}")
    return ModelState(header=header, arrays=arrays)


def _read(data: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise _bad(f"it has {len(members)} arrays, more than the {MAX_ARRAYS} allowed")
        for member in members:
            name = member.filename.removesuffix(".npy")
            # Uncompressed members cannot be larger than the artifact itself: no decompression bomb.
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                raise _bad(f"its member {name!r} is compressed")
            if name in arrays or name == member.filename:
                raise _bad(f"its member {name!r} is there twice or is not an array")
            arrays[name] = _array(archive.read(member), name)
    if _HEADER not in arrays or arrays[_HEADER].nbytes > MAX_HEADER_BYTES or arrays[_HEADER].dtype != np.uint8:
        raise _bad("its header is missing or too large")
    return arrays


def _array(member: bytes, name: str) -> NDArray[Any]:
    """One array. Its declared size is held against the bytes there are before anything of that size is made."""
    stream = io.BytesIO(member)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise _bad(f"its array {name!r} is of an unknown version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    rest = memoryview(member)[stream.tell() :]
    count = 1
    for length in shape:
        count *= length
    if dtype.kind not in _KINDS or fortran_order or min(shape, default=0) < 0:
        raise _bad(f"its array {name!r} holds {dtype}, not plain numbers in order")
    if count * dtype.itemsize != len(rest):
        raise _bad(f"its array {name!r} has {len(rest)} bytes where {count * dtype.itemsize} were declared")
    return np.frombuffer(rest, dtype=dtype).reshape(shape)


def _bad(what: str) -> BadArtifact:
    return BadArtifact(
        f"This model cannot be loaded: {what}. Nothing of it was used. Roll back to another version, "
        "restore the artifact from a backup, or train again."
    )
