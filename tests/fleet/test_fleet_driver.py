"""The driver and its listing without a cluster: each picture has one row, and nothing grows with their number."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bbcu_cli.batch.settings import Row, Settings
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.cluster import RayPieces, fitted
from bbcu_cli.fleet.driver import TRIES, Outcome, drive
from bbcu_cli.fleet.listing import Naming, list_inputs
from bbcu_cli.fleet.nodes import Here, Node, difference, here
from bbcu_cli.fleet.plan import Ask, Loading, Piece, Plan
from bbcu_cli.fleet.spool import PREFIX, _remove_abandoned, spool
from bbcu_cli.hub.reference import SCHEME
from bbcu_cli.image import EncodeOptions
from bbcu_cli.restoration.choice import Wish
from bbcu_cli.restoration.model import Options

DEADLY = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
NAMING = Naming("_x2", None, ".png", recursive=True)


class Fake:
    """An executor whose workers finish pieces in the opposite order, and die of some pictures."""

    def __init__(self, room: int = 4, deadly: frozenset[str] = frozenset(), losses: int = 0) -> None:
        self.most, self.tries = 0, Counter[str]()
        self._room, self._deadly, self._losses = room, deadly, losses
        self._under_way: list[Piece] = []

    def room(self) -> int:
        return self._room

    def submit(self, piece: Piece) -> None:
        self._under_way.append(piece)
        self.most = max(self.most, len(self._under_way))

    def wait(self) -> list[Outcome]:
        piece = self._under_way.pop()
        if self._losses:
            self._losses -= 1
            return [Outcome(piece, None, "its node was lost")]
        if killers := self._deadly & {ask.source for ask in piece.asks}:
            self.tries.update(killers)
            return [Outcome(piece, None, "its process ended")]
        return [Outcome(piece, tuple(Row(ask.source, ask.output, "done") for ask in piece.asks))]


def asks(number: int) -> Iterator[Ask]:
    return (Ask(f"s3://in/{index:08}.jpg", f"s3://out/{index:08}.png") for index in range(number))


@pytest.mark.parametrize("losses", [0, 1, 5, 9])
def test_every_picture_has_one_row_whatever_dies(losses: int) -> None:
    """Pieces of lost nodes are done again, and a bounded number is under way."""
    executor = Fake(losses=losses)
    rows = list(drive(asks(1000), executor, Ask.failed))
    assert Counter(row.source for row in rows) == dict.fromkeys((ask.source for ask in asks(1000)), 1)
    assert {row.status for row in rows} == {"done"}
    assert executor.most <= 4


@pytest.mark.parametrize(
    ("number", "room", "sizes"),
    [
        (100, 4, [16, 16, 16, 16, 12, 8, 6, 4, 2, 2, 1, 1]),  # two workers end within a picture of each other
        (40, 2, [16, 16, 8]),  # one worker has no use for smaller pieces
        (3, 8, [1, 1, 1]),
    ],
)
def test_the_last_pieces_are_small_so_that_all_workers_have_some(number: int, room: int, sizes: list[int]) -> None:
    """Pictures that are next are shared among the pieces under way."""
    executor, made = Fake(room), list[int]()
    submit = executor.submit
    executor.submit = lambda piece: (made.append(len(piece.asks)), submit(piece))[1]  # type: ignore[method-assign]
    assert len(list(drive(asks(number), executor, Ask.failed))) == number
    assert made == sizes


@pytest.mark.parametrize(
    ("cpus", "gpus", "memory", "device", "threads"),
    [
        (2, 0, 16, "cpu", 1),
        (8, 0, 16, "cpu", 4),
        (64, 0, 256, "cpu", 8),
        (64, 0, 8, "cpu", 16),  # the memory is for four workers
        (8, 0, 3, "cpu", 8),  # and here for one
        (16, 4, 64, "cuda", 4),
        (64, 1, 256, "cuda", 8),
    ],
)
def test_a_node_takes_two_workers_at_the_least(cpus: int, gpus: int, memory: int, device: str, threads: int) -> None:
    """One computes while the other begins or ends a piece; a node that is refused has no say."""
    settings = Settings(Options(memory=2 << 30), EncodeOptions(), "PNG", 10**8)
    plan = Plan(Wish("sr", 2), settings, Loading(device=device), ())
    found = fitted(plan, "auto", [Node("n", "n", cpus, gpus, memory << 30, here()), Node("m", "m", 0, 0, 0, here())])
    assert (found.loading.threads, found.settings.threads) == (threads, threads)


def test_a_picture_that_kills_its_workers_fails_alone() -> None:
    """It is found by splitting, tried three times by itself, and every other picture is done."""
    deadly = frozenset({"s3://in/00000007.jpg", "s3://in/00000040.jpg"})
    executor = Fake(deadly=deadly)
    rows = {row.source: row for row in drive(asks(70), executor, Ask.failed)}
    assert len(rows) == 70
    assert {row.source for row in rows.values() if row.status == "failed"} == deadly
    assert f"its worker died {TRIES} times" in rows["s3://in/00000007.jpg"].error
    assert max(executor.tries.values()) <= 3 + TRIES


def listed(names: list[str], monkeypatch: pytest.MonkeyPatch, naming: Naming = NAMING) -> dict[str, str]:
    """Source -> output of a folder of a store that holds these names."""
    found = [stores.Entry(f"s3://b/in/{name}", 1, "") for name in sorted(names)]
    monkeypatch.setattr(stores, "entries", lambda *_, **__: iter(found))
    monkeypatch.setattr(stores, "open_store", lambda _: None)
    stream = list_inputs(["s3://b/in/"], "s3://b/out/", naming, refuse_existing=False)
    return {ask.source.removeprefix("s3://b/in/"): ask.output.removeprefix("s3://b/out/") for ask in stream.asks}


def test_names_that_would_be_one_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with files: `a.jpg` and `a.png` get their full names, also when others stand between them in the listing."""
    names = ["a-1.jpg", "a.b.jpg", "a.b.c.jpg", "a.jpg", "a.png", "a.jpg.png", "sub/a.jpg", "sub.x/a.webp", "t.txt"]
    found = listed(names, monkeypatch)
    assert found == {
        "a-1.jpg": "a-1.png",
        "a.b.jpg": "a.b.png",
        "a.b.c.jpg": "a.b.c.png",
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "a.jpg.png": "a.jpg.png.png",
        "sub/a.jpg": "sub/a.png",
        "sub.x/a.webp": "sub.x/a.png",
    }
    assert len(set(found.values())) == len(found)


def test_names_of_a_store_that_windows_forbids_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may have any character; where results go to a folder of Windows, it may be no file's name."""
    monkeypatch.setattr("bbcu_cli.files._WINDOWS", True)
    found = [stores.Entry(f"s3://b/in/{name}", 1, "") for name in ("10:30.png", "a.png", "nul.png")]
    monkeypatch.setattr(stores, "entries", lambda *_, **__: iter(found))
    monkeypatch.setattr(stores, "open_store", lambda _: None)
    stream = list_inputs(["s3://b/in/"], "out", NAMING, refuse_existing=False)
    errors = [ask.error.partition(": ")[2] for ask in stream.asks]
    assert errors == [
        "on Windows, no file can be called '10:30.png', which has ':'.",
        "",
        "on Windows, no file can be called 'nul.png', which is a device.",
    ]


def test_names_that_would_be_one_are_kept_apart_on_disk(tmp_path: Path) -> None:
    """Whatever stands between the parts of a path there."""
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    stream = list_inputs([str(tmp_path)], str(tmp_path / "out"), NAMING, refuse_existing=False)
    assert [ask.output for ask in stream.asks] == [str(tmp_path / "out" / f"{name}.png") for name in ("a.jpg", "a.png")]


@pytest.mark.parametrize("text", ["C:\\photos\\*.jpg", "c:/photos", "c://photos", "D:a.jpg", r"\\server\share"])
def test_a_drive_is_no_store(text: str) -> None:
    """A letter and a colon are a disk of Windows."""
    assert not stores.is_url(text)
    assert not text.startswith(SCHEME)


def test_patterns_and_results_are_left_out_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder: hidden names and those of --exclude, at any depth, and what lies in the output folder."""
    names = ["a.png", ".thumbs/b.png", "old/c.png", "sub/old/d.png", "sub/e.png", "@eaDir/f.png", ".g.png"]
    assert set(listed(names, monkeypatch, Naming("", None, ".png", recursive=True, exclude=("old",)))) == {
        "a.png",
        "sub/e.png",
    }


class Endless:
    """An S3 file system that lists so many names, in pages as the service does."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.req_kw: dict[str, str] = {}

    def info(self, path: str) -> dict[str, str]:
        return {"name": path, "type": "directory"}

    def call_s3(self, method: str, ContinuationToken: str = "0", **_: str) -> dict[str, object]:  # noqa: N803 - S3's
        assert method == "list_objects_v2"
        start = int(ContinuationToken)
        end = min(start + 1000, self.number)
        found = [
            {"Key": f"in/{n // 5000:05}/{n:08}.jpg", "Size": 10**6 + n, "ETag": f'"{n:032x}"'}
            for n in range(start, end)
        ]
        return {"Contents": found, "IsTruncated": end < self.number, "NextContinuationToken": str(end)}


def driven(number: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(rows, bytes at the most) of so many names through listing, pieces and driver."""
    monkeypatch.setattr(stores, "_system", lambda url: (Endless(number), url.removeprefix("s3://").rstrip("/")))
    tracemalloc.start()
    try:
        stream = list_inputs(["s3://b/in/"], "s3://b/out/", NAMING, refuse_existing=True)
        rows = sum(1 for _ in drive(stream.asks, Fake(room=64), Ask.failed))
        return rows, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_the_driver_does_not_grow_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """36,000 names more, of which each takes some 600 bytes while it is held, add less than 1 MB."""
    driven(2_000, monkeypatch)  # what is imported on the way
    (few, small), (many, large) = driven(4_000, monkeypatch), driven(40_000, monkeypatch)
    assert (few, many) == (4_000, 40_000)
    assert large - small < 1 << 20


def test_ray_is_told_what_a_worker_takes() -> None:
    """CPUs, a GPU where the device is one, and the memory that bbcu allows itself, so that it schedules and scales."""
    asked: dict[str, Any] = {}

    class Ray:
        def put(self, value: object) -> object:
            return value

        def remote(self, **resources: Any) -> Any:
            asked.update(resources)
            return lambda work: work

    node = Node("n", "n", 16, 2, 64e9, here())
    settings = Settings(Options(memory=3 << 30), EncodeOptions(), "PNG", 10**8)
    for device, threads, gpus, cpus in (("auto", None, 0, 8), ("cuda:1", 4, 1, 4), ("cpu", 2, 0, 2)):
        plan = Plan(Wish("sr", 2), settings, Loading(device=device, threads=threads), ())
        plan = fitted(plan, "auto", [node])
        RayPieces(Ray(), "auto", plan, [], print, lambda *_: ())
        assert asked == {"max_retries": 0, "num_cpus": cpus, "num_gpus": gpus, "memory": 3 << 30}
        assert (plan.loading.threads, plan.settings.threads) == (cpus, cpus)
        assert plan.loading.device == ("cuda" if gpus else "cpu")


def test_a_driver_that_waits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may use a cluster up, or it may be ill: nobody looks at a silent line for hours."""
    monkeypatch.setattr("bbcu_cli.fleet.cluster._SILENCE", 1e-9)
    turns = iter(range(3))

    class Ray:
        exceptions = type("Exceptions", (), dict.fromkeys(DEADLY, ZeroDivisionError) | {"RayError": ZeroDivisionError})

        def put(self, value: object) -> object:
            return value

        def remote(self, *_: Any, **options: Any) -> Any:
            return (lambda _: self) if options else object()

        def nodes(self) -> list[dict[str, Any]]:
            return [{"Alive": True, "NodeID": "n", "Resources": {"CPU": 8, "memory": 64e9}}]

        def wait(self, references: list[object], **_: Any) -> tuple[list[object], list[object]]:
            return ([], references) if next(turns, None) is not None else (references, [])

        def get(self, _: object) -> tuple[str, tuple[Row, ...]]:
            return "n", ()

    settings, said = Settings(Options(), EncodeOptions(), "PNG", 10**8), list[str]()
    pieces = RayPieces(Ray(), "auto", Plan(Wish("sr", 2), settings, Loading(threads=4), ()), [], said.append, print)
    assert pieces.room() == 4
    pieces.submit(Piece(()))
    assert len(pieces.wait()) == 1
    assert len(said) == 3
    assert said[0].startswith("no piece has ended for 0 minutes; 1 are under way or wait for room on 1 nodes")


def test_a_node_that_cannot_open_the_urls_is_told() -> None:
    """It would fail picture by picture."""
    able = here()
    bare = Here(able.version, able.digests, able.engine, ())
    assert difference(able.version, {}, bare, ["s3"]) == "it cannot open s3://, which needs fsspec and s3fs"
    assert difference(able.version, {}, bare) == ""
    assert difference(able.version, {}, replace(bare, urls=("s3",)), ["s3", "unusual"]) == ""


def test_a_spool_is_held_before_another_process_can_take_it_for_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of one machine begin at the same time, and each removes what dead ones left."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock = fcntl.flock

    def late(file: Any, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            _remove_abandoned(tmp_path)  # as another worker does just before
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with spool() as place:
        assert place.is_dir()
        _remove_abandoned(tmp_path)
        (place / "picture").write_bytes(b"x")
    assert not list(tmp_path.iterdir())
    (tmp_path / f"{PREFIX}dead").mkdir()
    (tmp_path / f"{PREFIX}dead" / "lock").touch()
    with spool() as place:
        assert list(tmp_path.iterdir()) == [place]
