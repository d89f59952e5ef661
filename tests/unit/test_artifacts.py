import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from mllib.artifacts import MAX_BYTES, digest, dumps, loads
from mllib.detectors.base import FORMAT, FORMATS, ModelState
from mllib.errors import BadArtifact

HEADER = {"detector": "log_anomaly", "format": FORMAT, "words": ["zażółć", "b"], "rate": 0.1}


def make_state(**header: object) -> ModelState:
    arrays = {"b": np.arange(6, dtype=np.int32).reshape(2, 3), "a": np.array([0.1, np.inf]), "none": np.empty(0)}
    return ModelState(header={**HEADER, **header}, arrays=arrays)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def header_npy(header: object = HEADER) -> bytes:
    return npy(np.frombuffer(json.dumps(header).encode(), dtype=np.uint8))


def refused(data: bytes) -> str:
    with pytest.raises(BadArtifact, match="train again") as caught:
        loads(data, digest(data))
    return str(caught.value)


def test_a_state_comes_back_as_it_was():
    data = dumps(make_state())
    state = loads(data, digest(data))
    assert state.header == HEADER
    assert list(state.arrays) == ["a", "b", "none"]
    for name, array in make_state().arrays.items():
        assert state.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(state.arrays[name], array)


def test_numpy_reads_an_artifact_without_pickle():
    with np.load(io.BytesIO(dumps(make_state())), allow_pickle=False) as arrays:
        assert arrays["b"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_equal_states_give_equal_bytes():
    state = make_state()
    shuffled = ModelState(
        header=dict(reversed(state.header.items())),
        arrays={name: np.asfortranarray(array) for name, array in reversed(state.arrays.items())},
    )
    assert dumps(shuffled) == dumps(state)


def test_any_flipped_byte_is_noticed():
    data = dumps(make_state())
    for place in range(0, len(data), 7):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(BadArtifact, match="SHA-256"):
            loads(damaged, digest(data))


def test_the_digest_is_compared_before_anything_is_parsed():
    with pytest.raises(BadArtifact, match="SHA-256"):
        loads(b"no archive at all", digest(b"something else"))


def test_damage_under_a_matching_digest_is_refused_too():
    data = dumps(make_state())
    for place in range(0, len(data), 5):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        try:
            loads(damaged, digest(damaged))  # a flipped number in an array is still a number
        except BadArtifact:
            continue
    for cut in range(0, len(data), 11):
        refused(data[:cut])


class Program:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_never_run():
    objects = np.array([Program()], dtype=object)
    assert "plain numbers" in refused(archive({"header.npy": header_npy(), "x.npy": npy(objects, allow_pickle=True)}))
    refused(archive({"header.npy": header_npy(), "x.npy": pickle.dumps(Program())}))
    refused(pickle.dumps(Program()))


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([(1, 2.0)], dtype="i4,f8"), np.array(["2026"], "M8[s]")]
)
def test_arrays_of_anything_but_numbers_are_refused(array):
    refused(archive({"header.npy": header_npy(), "x.npy": npy(array)}))
    with pytest.raises(TypeError, match="only plain numbers"):
        dumps(ModelState(header=HEADER, arrays={"x": array}))


def test_sizes_are_limited():
    assert "compressed" in refused(archive({"header.npy": header_npy()}, zipfile.ZIP_DEFLATED))
    huge = npy(np.zeros(4)).replace(b"(4,)", b"(99999999999,)"[:4] + b"9")
    refused(archive({"header.npy": header_npy(), "x.npy": huge}))
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    assert "declared" in refused(archive({"header.npy": header_npy(), "x.npy": stream.getvalue()}))
    many = {f"x{number}.npy": npy(np.zeros(1)) for number in range(100)}
    assert "100 arrays" not in refused(archive({"header.npy": header_npy(), **many}))
    assert "allowed" in refused(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("number", [FORMATS[-1] + 1, 0, None, "1"])
def test_an_unknown_format_is_refused(number):
    assert "format" in refused(dumps(make_state(format=number)))


@pytest.mark.parametrize("header", [[], "text", {}, {"format": FORMAT}, {"detector": 5, "format": FORMAT}])
def test_a_header_must_name_a_detector(header):
    assert "detector" in refused(archive({"header.npy": header_npy(header)}))


def test_a_header_must_be_there_and_be_json():
    assert "header" in refused(archive({"x.npy": npy(np.zeros(1))}))
    refused(archive({"header.npy": npy(np.frombuffer(b"{not json", dtype=np.uint8))}))
    refused(archive({"header.npy": npy(np.frombuffer(b"[" * 100_000, dtype=np.uint8))}))


def test_a_state_that_is_not_data_cannot_be_stored():
    with pytest.raises(ValueError, match="JSON"):
        dumps(make_state(rate=float("nan")))
    with pytest.raises(TypeError):
        dumps(make_state(model=Program()))
