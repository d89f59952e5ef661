"""What is kept of a pure function."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mllib.features._memo import Memo


class Counted:
    """Lengths of texts; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[int]:
        self.asked.append(texts)
        return [len(text) for text in texts]


def test_each_text_is_computed_once() -> None:
    compute = Counted()
    memo = Memo(compute)
    assert memo.of(["a", "bb", "a", ""]) == [1, 2, 1, 0]
    assert memo.of(["bb", "ccc"]) == [2, 3]
    assert memo.of(["", "a"]) == [0, 1]
    assert memo.of([]) == []
    assert compute.asked == [["a", "bb", ""], ["ccc"]]


def test_it_never_keeps_more_than_its_bound() -> None:
    compute = Counted()
    memo = Memo(compute, most=3)
    assert memo.of(["a", "bb"]) == [1, 2]
    assert memo.of(["ccc", "dddd", "bb"]) == [3, 4, 2]  # full: what was known starts anew
    assert len(memo) == 2
    assert memo.of(["a" * n for n in range(10)]) == list(range(10))  # more than it can hold at all
    assert len(memo) <= 3
    assert memo.of(["a" * n for n in range(10)]) == list(range(10))


def test_threads_share_one() -> None:
    memo = Memo(Counted(), most=50)
    texts = ["x" * n for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda begin: memo.of(texts[begin : begin + 40]), [n % 160 for n in range(2_000)]))
    assert found == [[n % 160 + k for k in range(40)] for n in range(2_000)]
    assert len(memo) <= 50
