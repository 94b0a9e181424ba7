"""Pictures in object stores and on web servers, on one machine: the same bytes, whole or absent, or a sentence."""

from __future__ import annotations

import importlib.util
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from typer.testing import CliRunner

from bbcu_cli.checkpoint.packed import to_bytes
from bbcu_cli.cli.app import app

if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "flask")):
    pytest.skip("needs s3fs and moto's server (the extra `test`)", allow_module_level=True)

from loopback_store import Store

RECORDS = ".bbcu-manifest"


@pytest.fixture
def bucket(store: Store) -> Iterator[Bucket]:
    """A bucket of a test's own."""
    yield Bucket(f"bucket-{secrets.token_hex(4)}")
    store.fail_every(0)


class Bucket:
    """A bucket, looked into as any client would."""

    def __init__(self, name: str) -> None:
        import s3fs

        self.name, self.system = name, s3fs.S3FileSystem(use_listings_cache=False)
        self.system.mkdir(name)

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, files: dict[str, bytes]) -> None:
        for key, content in files.items():
            self.system.pipe_file(f"{self.name}/{key}", content)

    def get(self, folder: str = "") -> dict[str, bytes]:
        """Name below the folder -> content, without the records."""
        top = f"{self.name}/{folder}".rstrip("/")
        found = self.system.find(top)
        return {key.removeprefix(f"{top}/"): self.system.cat_file(key) for key in found if RECORDS not in key}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, pictures, and what a run on files makes of them."""
    root = tmp_path_factory.mktemp("place")
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    rng = np.random.default_rng(5)
    for name in ("a.png", "b.jpg", "b.png", "sub/c.webp", "sub/d.png"):
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    (root / "in" / "notes.txt").write_text("no image")
    (root / "in" / ".hidden").mkdir()
    (root / "in" / ".hidden" / "e.png").write_bytes((root / "in" / "a.png").read_bytes())
    done = CliRunner().invoke(app, ["sr", str(root / "in"), "-r", "-o", str(root / "good"), *_options(root)])
    assert done.exit_code == 0, done.output
    return root


def _options(root: Path) -> list[str]:
    return ["--scale", "2", "--threads", "1", "--weights", str(root / "w.safetensors")]


def files(folder: Path) -> dict[str, bytes]:
    """Relative name -> content of the pictures."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".bbcu"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def bbcu(place: Path, *arguments: str):
    return CliRunner().invoke(app, ["sr", *arguments, *_options(place)])


def test_a_tree_in_a_bucket_becomes_the_bytes_that_files_become(place: Path, bucket: Bucket) -> None:
    """Mirrored, named in full where two would be one, hidden folders left out; nothing but pictures and records."""
    bucket.put({f"in/{name}": content for name, content in files(place / "in").items()})
    done = bbcu(place, f"{bucket.url}/in/", "-r", "-o", f"{bucket.url}/out/", "--json")
    assert done.exit_code == 0, done.output
    assert bucket.get("out") == files(place / "good")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["output"] for row in rows} == {f"{bucket.url}/out/{name}" for name in files(place / "good")}
    assert all(row["status"] == "done" and row["source"].startswith(f"{bucket.url}/in/") for row in rows)
    assert "5 done, 0 skipped, 0 failed, 1 not images" in done.stderr


def test_beside_the_input_when_no_output_is_named(place: Path, bucket: Bucket) -> None:
    """`in/` becomes `in_x2/`, and a file gets the tag."""
    picture = (place / "in" / "a.png").read_bytes()
    bucket.put({"in/a.png": picture})
    assert bbcu(place, f"{bucket.url}/in").exit_code == 0
    assert bbcu(place, f"{bucket.url}/in/a.png").exit_code == 0
    good = (place / "good" / "a.png").read_bytes()
    assert bucket.get() == {"in/a.png": picture, "in_x2/a.png": good, "in/a_x2.png": good}


def test_from_files_to_a_bucket_and_back(place: Path, bucket: Bucket, tmp_path: Path) -> None:
    """Either side may be a path."""
    assert bbcu(place, str(place / "in"), "-r", "-o", f"{bucket.url}/up").exit_code == 0
    assert bucket.get("up") == files(place / "good")
    bucket.put({f"in/{name}": content for name, content in files(place / "in").items()})
    for status in ("done", "skipped"):
        done = bbcu(place, f"{bucket.url}/in", "-r", "-o", str(tmp_path / "down"), "--skip-existing")
        assert f"5 {status}" in done.stderr, done.output
    assert files(tmp_path / "down") == files(place / "good")


def test_a_second_run_skips_what_is_there_and_makes_what_is_not(place: Path, bucket: Bucket) -> None:
    """The record lies beside the outputs: made of this source with these options, or it is made again."""
    bucket.put({f"in/{name}": content for name, content in files(place / "in").items()})
    run = (f"{bucket.url}/in", "-r", "-o", f"{bucket.url}/out", "--skip-existing")
    assert "5 done, 0 skipped" in bbcu(place, *run).stderr
    bucket.system.rm(f"{bucket.name}/out/a.png")
    bucket.put({"in/b.png": (place / "in" / "a.png").read_bytes()})
    done = bbcu(place, *run, "--json")
    statuses = {
        json.loads(line)["source"].rsplit("/", 1)[1]: json.loads(line)["status"] for line in done.stdout.splitlines()
    }
    assert statuses == {"a.png": "done", "b.png": "done", "b.jpg": "skipped", "c.webp": "skipped", "d.png": "skipped"}
    assert "5 done, 0 skipped" in bbcu(place, *run, "--suffix", "", "--format", "webp", "--lossless").stderr


def test_what_is_in_the_way_is_not_replaced(place: Path, bucket: Bucket) -> None:
    """Without --overwrite a file fails whose output is there; with --skip-existing one that bbcu did not make."""
    bucket.put({"in/a.png": (place / "in" / "a.png").read_bytes(), "out/a.png": b"mine"})
    run = (f"{bucket.url}/in", "-o", f"{bucket.url}/out")
    done = bbcu(place, *run)
    assert done.exit_code == 1
    assert f"{bucket.url}/out/a.png exists; use --overwrite" in done.stderr
    done = bbcu(place, *run, "--skip-existing")
    assert done.exit_code == 1
    assert "not known as an output of bbcu" in done.stderr
    assert bucket.get("out") == {"a.png": b"mine"}
    assert bbcu(place, *run, "--overwrite").exit_code == 0
    assert bucket.get("out") == {"a.png": (place / "good" / "a.png").read_bytes()}


def test_a_damaged_object_fails_alone_under_its_own_name(place: Path, bucket: Bucket) -> None:
    """The others are done; the sentence speaks of the URL and not of a temporary file."""
    bucket.put({"in/a.png": (place / "in" / "a.png").read_bytes(), "in/z.png": b"\x89PNG\r\n\x1a\nno"})
    done = bbcu(place, f"{bucket.url}/in", "-o", f"{bucket.url}/out")
    assert done.exit_code == 1
    assert f"failed: {bucket.url}/in/z.png" in done.stderr
    assert "bbcu-spool" not in done.output
    assert list(bucket.get("out")) == ["a.png"]


def test_with_fail_fast_the_first_failure_ends_the_run_as_among_files(
    place: Path, bucket: Bucket, tmp_path: Path
) -> None:
    """The same exit code and the same sentence; what cannot be read and what is in the way alike."""
    good, bad = (place / "in" / "a.png").read_bytes(), b"\x89PNG\r\n\x1a\nno"
    (tmp_path / "in").mkdir()
    for name, content in (("b.png", bad), ("c.png", good)):
        bucket.put({f"in/{name}": content})
        (tmp_path / "in" / name).write_bytes(content)
    sentences = []
    for root in (str(tmp_path), bucket.url):
        done = bbcu(place, f"{root}/in", "-o", f"{root}/out", "--fail-fast")
        assert done.exit_code == 2, done.output
        sentences.append([line.replace(root, "ROOT") for line in done.stderr.splitlines() if "error:" in line])
    assert sentences[0] == sentences[1] != []
    bucket.put({"taken/b.png": b"mine"})
    done = bbcu(place, f"{bucket.url}/in", "-o", f"{bucket.url}/taken", "--fail-fast")
    assert (done.exit_code, "taken/b.png exists; use --overwrite" in done.stderr) == (2, True), done.output


def test_names_that_are_patterns_or_chains_to_others_are_names(place: Path, bucket: Bucket) -> None:
    """Listed and typed alike: brackets, `::`, a percent sign, a number sign, a question mark, a blank."""
    picture = (place / "in" / "a.png").read_bytes()
    names = ["a[1].png", "b::c.png", "d::file:///e.png", "f%20g#h.png", "i j.png", "\u00fc.png"]
    bucket.put({f"in/{name}": picture for name in names})
    done = bbcu(place, f"{bucket.url}/in/", "-r", "-o", f"{bucket.url}/out")
    assert done.exit_code == 0, done.output
    assert bucket.get("out") == {name: (place / "good" / "a.png").read_bytes() for name in names}
    done = bbcu(place, f"{bucket.url}/in/a[1].png", "-o", f"{bucket.url}/typed")
    assert done.exit_code == 0, done.output
    assert list(bucket.get("typed")) == ["a[1].png"]
    done = bbcu(place, f"{bucket.url}/in/[bi]*.png", "-o", f"{bucket.url}/matched")
    assert set(bucket.get("matched")) == {"b::c.png", "i j.png"}, done.output


def test_side_by_sides_lie_beside_the_results(place: Path, bucket: Bucket, tmp_path: Path) -> None:
    """--compare puts the same picture as among files."""
    bucket.put({"in/a.png": (place / "in" / "a.png").read_bytes()})
    for root, source in ((bucket.url, f"{bucket.url}/in/a.png"), (str(tmp_path), str(place / "in" / "a.png"))):
        assert bbcu(place, source, "-o", f"{root}/out", "--compare").exit_code == 0
    assert bucket.get("out") == files(tmp_path / "out")
    assert set(bucket.get("out")) == {"a.png", "a_compare.png"}


def test_a_store_that_answers_503_now_and_then_is_asked_again(place: Path, bucket: Bucket, store: Store) -> None:
    """Every fourth request fails, and nothing is missing."""
    bucket.put({f"in/{name}": content for name, content in files(place / "in").items()})
    store.fail_every(4)
    done = bbcu(place, f"{bucket.url}/in/", "-r", "-o", f"{bucket.url}/out/", "--skip-existing")
    store.fail_every(0)
    assert done.exit_code == 0, done.output
    assert bucket.get("out") == files(place / "good")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("s3://denied/in/", "-o", "OUT"), "s3://denied/in/ cannot be listed: access is denied"),
        (("s3://denied/a.png", "-o", "OUT/a.png"), "s3://denied/a.png cannot be looked at: access is denied"),
        (("s3://no-such-bucket/in/", "-o", "OUT"), "s3://no-such-bucket/in/ does not exist."),
        (("BUCKET/none.png", "-o", "OUT/a.png"), "BUCKET/none.png does not exist."),
        (("BUCKET/empty/", "-o", "OUT"), "No image in BUCKET/empty/"),
        (("nonsense://x/y.png", "-o", "OUT"), "nonsense://x/y.png cannot be opened"),
        (("file:///x/y.png", "-o", "OUT"), "give it as a path"),
        (("FOLDER", "-o", "https://127.0.0.1/out/"), "cannot be written: bbcu only reads from web servers"),
        (("BUCKET/*.gif", "-o", "OUT"), "No file matches BUCKET/*.gif."),
        (("BUCKET/a/", "BUCKET/b/", "-o", "OUT"), "give one folder"),
        (("BUCKET/a/", "-o", "BUCKET/a"), "Input and output are the same folder"),
        (("-", "-o", "BUCKET/a.png"), "'-' (stdin, stdout) does not go with URLs"),
        (("BUCKET/a/", "-o", "OUT", "--dry-run"), "--dry-run is for files on this machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, place: Path, bucket: Bucket, tmp_path: Path
) -> None:
    """Exit code 2, no traceback, nothing written."""
    bucket.put({"a/a.png": b"x", "b/b.png": b"x"})
    meant = {"BUCKET": bucket.url, "OUT": str(tmp_path / "out"), "FOLDER": str(place / "in")}

    def said(text: str) -> str:
        for name, value in meant.items():
            text = text.replace(name, value)
        return text

    done = bbcu(place, *map(said, arguments))
    assert done.exit_code == 2, done.output
    assert said(sentence) in done.stderr
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_outputs_that_a_store_refuses_are_rows(place: Path, bucket: Bucket) -> None:
    """A denied bucket, and one that is not there: each picture fails in a sentence."""
    bucket.put({"in/a.png": (place / "in" / "a.png").read_bytes()})
    for out, reason in (("s3://denied/out", "access is denied"), ("s3://no-bucket/out", "there is no such bucket")):
        done = bbcu(place, f"{bucket.url}/in/", "-o", out, "--overwrite")
        assert done.exit_code == 1
        assert f"failed: {bucket.url}/in/a.png: {out}/" in done.stderr
        assert reason in done.stderr


def test_a_picture_of_a_web_server(place: Path, tmp_path: Path) -> None:
    """https:// and http:// are read, one picture each; what is not there is a sentence."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(place / "in")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with server:
        assert server.stdout
        port = server.stdout.readline().split(" port ")[1].split()[0]
        try:
            url = f"http://127.0.0.1:{port}"
            done = bbcu(place, f"{url}/a.png", "-o", str(tmp_path / "out"))
            assert done.exit_code == 0, done.output
            assert files(tmp_path / "out") == {"a.png": (place / "good" / "a.png").read_bytes()}
            done = bbcu(place, f"{url}/none.png", "-o", str(tmp_path / "out"))
            assert (done.exit_code, f"{url}/none.png does not exist" in done.stderr) == (2, True), done.output
            assert "give --output" in bbcu(place, f"{url}/a.png").stderr
        finally:
            server.kill()


@pytest.fixture(scope="module")
def hr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, ground truth in `set`, the same reduced in `small`, and results in `out_x2`."""
    root = tmp_path_factory.mktemp("hr")
    (root / "w.safetensors").write_bytes(to_bytes(small_model(SMALL_SPECS["m-x2"])))
    rng = np.random.default_rng(9)
    for folder in ("set", "small", "out_x2"):
        (root / folder).mkdir()
    for name in "abc":
        picture = Pillow.fromarray(rng.integers(0, 255, (24, 28, 3), np.uint8))
        picture.save(root / "set" / f"{name}.png")
        picture.resize((14, 12)).save(root / "small" / f"{name}.png")
        picture.point(lambda value: value // 2).save(root / "out_x2" / f"{name}_x2.png")
    return root


@pytest.mark.parametrize(
    "asked",
    [
        ("set", "--task sr --scale 2"),
        ("set", "--task sr --scale 2 --jpeg 80"),
        ("set", "--task sr --scale 2 --input small"),
        ("set", "--pred out_x2"),
        ("set/a.png", "--pred out_x2/a_x2.png"),
        ("set/a.png", "--task sr --scale 2"),
    ],
    ids=" ".join,
)
def test_an_evaluation_of_a_bucket_is_that_of_folders(asked: tuple[str, str], hr: Path, bucket: Bucket) -> None:
    """Each figure to the last bit, and the same title, facts and lines."""
    bucket.put({name: content for name, content in files(hr).items() if name.endswith(".png")})
    bucket.put({"set/.hidden.png": b"x", "set/notes.txt": b"x"})
    gt, options = asked
    weights = ["--weights", str(hr / "w.safetensors")] if "--task" in options else []

    def run(place: str) -> list[str]:
        words = ["eval", "--gt", f"{place}/{gt}", *options.split(), "--json", *weights]
        words = [f"{place}/{word}" if word.startswith(("small", "out_x2")) else word for word in words]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return [done.stdout, done.stderr]

    assert run(bucket.url) == run(str(hr))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--gt s3://denied/set --task sr", "s3://denied/set cannot be looked at: access is denied"),
        ("--gt BUCKET/none.png --task sr", "BUCKET/none.png does not exist."),
        ("--gt BUCKET/empty/ --task sr", "No image in BUCKET/empty/."),
        ("--gt BUCKET/set --task sr --scale 2", "BUCKET/set/bad.png is damaged"),
        ("--gt BUCKET/set --pred BUCKET/set/", "BUCKET/set/bad.png is damaged"),
        ("--gt BUCKET/set --pred BUCKET/other", "No ground truth in 'BUCKET/set' for b.png"),
        ("--gt BUCKET/empty --pred BUCKET/other", "BUCKET/empty does not exist."),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(arguments: str, sentence: str, hr: Path, bucket: Bucket) -> None:
    """In the user's names, with exit code 2 and no figures."""
    picture = (hr / "set" / "a.png").read_bytes()
    bucket.put({"set/a.png": picture, "set/bad.png": b"\x89PNG\r\n\x1a\nno", "other/b.png": picture})
    arguments, sentence = (text.replace("BUCKET", bucket.url) for text in (arguments, sentence))
    done = CliRunner().invoke(app, ["eval", *arguments.split(), "--quiet"])
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert sentence in done.stderr
    assert "bbcu-spool" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_extra_one_sentence_names_it(place: Path) -> None:
    """A bbcu without fsspec says how to get it."""
    hidden = "import sys\nsys.modules['fsspec'] = sys.modules['fsspec.core'] = None\n"
    hidden += "from bbcu_cli.__main__ import main\nmain()"
    command = [sys.executable, "-c", hidden, "sr", "s3://bucket/in/", "-o", str(place / "never")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs fsspec, which is not installed; run: pip install 'bbcu-cli[fleet]'." in done.stderr
    assert "Traceback" not in done.stderr
