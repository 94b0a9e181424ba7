"""The real huggingface_hub client against a hub on 127.0.0.1: what arrives is verified, what fails says what to do."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from small import SMALL_SPECS, small_model

from bbcu_cli.checkpoint.packed import MAX_FILE_BYTES, to_bytes
from bbcu_cli.errors import CheckpointError, UsageError, WeightsUnavailableError
from bbcu_cli.hub import Catalogue, Entry, HubRef, client, locate
from bbcu_cli.hub import push as hub_push
from bbcu_cli.hub.locate import status

SPEC = SMALL_SPECS["m-x2"]
GOOD = to_bytes(small_model(SPEC))
OTHER = to_bytes(small_model(SPEC, seed=1))  # a valid model of the same size, and the wrong one
# The client's own use of its HTTP backend.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO, FILE = "me/m", "model.safetensors"
READER, WRITER = "hf_reader", "hf_writer"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A running hub with GOOD in it, an empty cache, and a client that is imported afresh to read this environment."""
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    with LoopbackHub() as running:
        environment = running.environment(tmp_path)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        running.repo(REPO).commit({FILE: GOOD})
        yield running
        sys.modules["huggingface_hub"].close_session()
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)


def shop(hub: LoopbackHub, content: bytes = GOOD) -> Catalogue:
    """A catalogue whose model "m" is pinned to the hub's commit and to `content`."""
    ref = HubRef(REPO, hub.repo(REPO).refs["main"], FILE)
    return Catalogue({"m": Entry("m", SPEC, "", hashlib.sha256(content).hexdigest(), len(content), ref)})


def path_of(wanted: str, **options: Any) -> Path:
    """Where the verified file is."""
    return locate(wanted, **options).file.path


def cache_files(suffix: str = "") -> list[Path]:
    """What is left in the client's cache: blobs, entries of snapshots, temporary files."""
    root = Path(os.environ["HF_HOME"]) / "hub"
    places = [*root.glob("models--*/blobs/*"), *root.glob("models--*/snapshots/**/*")]
    return [path for path in places if not path.is_dir() and path.name.endswith(suffix)]


def test_model_is_downloaded_verified_and_cached_without_further_requests(hub: LoopbackHub) -> None:
    """A pinned revision costs two look-ups and a download the first time, and no request at all afterwards."""
    found = locate("m", catalogue=shop(hub))
    path = found.file.path
    assert path.read_bytes() == found.file.content == GOOD
    assert found.source == "hub"
    assert hub.methods() == ["HEAD hub", "HEAD hub", "GET hub"]
    hub.requests.clear()
    assert locate("m", catalogue=shop(hub)).source == "cache"
    assert locate("m", catalogue=shop(hub), refresh=True).source == "cache"
    assert locate("m", catalogue=shop(hub), offline=True).file.path == path
    assert hub.requests == []


def test_redirect_to_another_origin_is_followed_without_the_token(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file store gets the request, and the hub's token stays with the hub."""
    monkeypatch.setenv("HF_TOKEN", READER)
    hub.redirect = True
    hub.repo(REPO).token = READER
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD
    stored = [request for request in hub.requests if request.origin == "store"]
    assert [request.method for request in stored] == ["GET"]
    assert stored[0].authorization is None
    assert all(request.authorization == f"Bearer {READER}" for request in hub.requests if request.origin == "hub")


def test_cut_connection_is_resumed(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a cut the rest is asked for by a range, and the whole is verified."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 8192)  # else a small file has one chunk
    hub.cut_after = [20_000]
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD
    assert [request.range for request in hub.requests if request.method == "GET"] == [None, "bytes=16384-"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (OTHER, "SHA-256"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "SHA-256"),
        (GOOD[:1000], "size|SHA-256"),
        (b"<html>please log in</html>", "size|SHA-256"),
    ],
    ids=["another model", "one bit", "truncated", "a login page"],
)
def test_wrong_bytes_are_refused_and_leave_nothing(hub: LoopbackHub, content: bytes, complaint: str) -> None:
    """What the hub sends instead of the pinned file is neither used nor kept; the good file is accepted later."""
    assert len(OTHER) == len(GOOD)
    hub.send_instead = content
    with pytest.raises(WeightsUnavailableError, match=complaint) as caught:
        path_of("m", catalogue=shop(hub))
    assert caught.value.exit_code == 3
    assert cache_files() == []
    hub.send_instead = None
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD


def test_file_that_is_no_model_is_refused_without_a_pinned_hash(hub: LoopbackHub) -> None:
    """With nothing to compare a hash with, the rules of the format still hold."""
    hub.repo(REPO).commit({FILE: b"x" * 5000})
    with pytest.raises(WeightsUnavailableError, match="not a valid safetensors"):
        path_of(f"hf://{REPO}")
    assert cache_files() == []


def test_model_of_another_network_is_refused(hub: LoopbackHub) -> None:
    """A repository that the user names must hold the network that was asked for; what it holds stays in the cache."""
    hub.repo("me/x3").commit({FILE: to_bytes(small_model(SMALL_SPECS["m-x3"]))})
    catalogue = Catalogue({"m": Entry("m", SPEC, "")})
    with pytest.raises(CheckpointError, match=r"hf://me/x3.* sr x3, but m is a bbcu-m for sr x2"):
        path_of("m", hub_repo="me/x3", catalogue=catalogue)
    assert path_of("hf://me/x3", offline=True).exists()
    assert path_of("m", hub_repo="me/{name}", catalogue=catalogue).read_bytes() == GOOD


def test_far_too_large_file_is_not_downloaded(hub: LoopbackHub) -> None:
    """A file that no packed model can be is refused by its announced size."""
    hub.repo(REPO).commit({FILE: bytes(MAX_FILE_BYTES + 1)})
    with pytest.raises(WeightsUnavailableError, match="more than any packed model"):
        path_of(f"hf://{REPO}")
    assert hub.methods() == ["HEAD hub"]


def test_damaged_cache_is_replaced_from_the_hub(hub: LoopbackHub) -> None:
    """A cached file that rotted is found out, fetched anew when there is a network, and refused when there is none."""
    path = path_of("m", catalogue=shop(hub))
    path.resolve().write_bytes(OTHER)
    with pytest.raises(WeightsUnavailableError, match=r"cached file is damaged.*SHA-256"):
        path_of("m", catalogue=shop(hub), offline=True)
    hub.status = 503
    with pytest.raises(WeightsUnavailableError, match="503"):
        path_of("m", catalogue=shop(hub))
    hub.status = None
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD
    assert path_of("m", catalogue=shop(hub), offline=True) == path


def test_bad_update_of_a_branch_keeps_the_good_file(hub: LoopbackHub) -> None:
    """A branch that moved to a bad file is reported; what was cached before stays in use."""
    path = path_of(f"hf://{REPO}")
    hub.repo(REPO).commit({FILE: b"x" * 5000})
    with pytest.raises(WeightsUnavailableError, match="was rejected and removed"):
        locate(f"hf://{REPO}", refresh=True)
    assert locate(f"hf://{REPO}", offline=True).file.path == path
    assert path.read_bytes() == GOOD


def test_branch_is_asked_again_only_to_refresh(hub: LoopbackHub) -> None:
    """A run uses what is cached; a pull sees that the branch has moved."""
    path_of(f"hf://{REPO}")
    hub.repo(REPO).commit({FILE: OTHER})
    hub.requests.clear()
    assert path_of(f"hf://{REPO}").read_bytes() == GOOD
    assert hub.requests == []
    assert locate(f"hf://{REPO}", refresh=True).file.path.read_bytes() == OTHER
    assert path_of(f"hf://{REPO}", offline=True).read_bytes() == OTHER


def test_tag_and_sub_folder_are_found(hub: LoopbackHub) -> None:
    """A reference may name a revision and a file in a folder; offline it is found again."""
    hub.repo(REPO).commit({"x2/m.safetensors": GOOD}, branch="v1.0")
    wanted = f"hf://{REPO}@v1.0:x2/m.safetensors"
    assert path_of(wanted) == path_of(wanted, offline=True)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("hf://me/nothing", "unknown to .* or private.*HF_TOKEN"),
        (f"hf://{REPO}@v9", "no such revision"),
        (f"hf://{REPO}:none.safetensors", "no such file"),
        ("hf://me/a--b", "no name that the hub allows"),
    ],
)
def test_what_is_not_there_is_named(wanted: str, complaint: str) -> None:
    """A missing repository, revision or file is one sentence that says which."""
    with pytest.raises(WeightsUnavailableError, match=complaint):
        path_of(wanted)


@pytest.mark.parametrize(
    ("status", "complaint"),
    [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "404"), (429, "try again later"), (503, "try again later")],
)
def test_error_of_the_hub_is_answered_at_once(hub: LoopbackHub, status: int, complaint: str) -> None:
    """An error status is not retried for half a minute; the message says what to do."""
    hub.status = status
    begin = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match=complaint):
        path_of("m", catalogue=shop(hub))
    assert time.monotonic() - begin < 3


def test_private_repository_needs_its_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the hub denies that the repository exists; with it the model comes."""
    hub.repo(REPO).token = READER
    with pytest.raises(WeightsUnavailableError, match="private"):
        path_of("m", catalogue=shop(hub))
    monkeypatch.setenv("HF_TOKEN", READER)
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD


def test_gated_repository_names_the_page_of_its_terms(hub: LoopbackHub) -> None:
    """A gated model says where to accept its terms."""
    hub.repo(REPO).token, hub.repo(REPO).gated = READER, True
    with pytest.raises(WeightsUnavailableError, match=f"gated; accept its terms at {hub.url}/{REPO}"):
        path_of("m", catalogue=shop(hub))


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_unreachable_hub_answers_within_five_seconds(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A closed port or a server that never answers: soon one sentence with the way out."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        if how == "refuses":
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        else:
            hub.hang = threading.Event()
        begin = time.monotonic()
        with pytest.raises(WeightsUnavailableError, match=r"cannot be reached at http.*HF_ENDPOINT.*--weights FILE"):
            path_of("m", catalogue=shop(hub))
    assert time.monotonic() - begin < 5


def test_probe_that_never_ends_is_left_behind() -> None:
    """Name resolution knows no timeout; the caller goes on all the same."""
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        client.within(never.wait, seconds=0.1)
    never.set()


def test_cached_model_needs_no_reachable_hub(hub: LoopbackHub) -> None:
    """What was pulled once works while the hub is down."""
    path_of("m", catalogue=shop(hub))
    hub.status = 503
    assert path_of("m", catalogue=shop(hub)).read_bytes() == GOOD


def test_proxy_is_honoured(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a proxy set, the hub's address is asked of the proxy."""
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", hub.url)
    with pytest.raises(WeightsUnavailableError):
        path_of(f"hf://{REPO}")
    assert hub.requests[0].path.startswith("http://hub.invalid/me/m/resolve/main/")


def test_unwritable_cache_is_named(hub: LoopbackHub, tmp_path: Path) -> None:
    """A cache that cannot be written is a sentence about HF_HOME, not a traceback."""
    (tmp_path / "hf").write_text("a file where the cache should be")
    with pytest.raises(WeightsUnavailableError, match=r"cannot be kept in the cache .*HF_HOME"):
        path_of("m", catalogue=shop(hub))


def test_status_follows_a_model_into_the_cache_and_out(hub: LoopbackHub) -> None:
    """On hub, cached, and on the hub again once it was discarded; nothing is left behind."""
    entry = shop(hub)["m"]
    assert status(entry).where == "on hub"
    client.discard(path_of("m", catalogue=shop(hub)))
    assert cache_files() == []
    path_of("m", catalogue=shop(hub))
    assert (status(entry).where, status(entry).size) == ("cached", len(GOOD))
    assert hub.methods().count("GET hub") == 2


def test_pushed_model_is_pulled_back_as_it_was(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, config and card arrive in one commit, and the reference that comes back finds exactly those bytes."""
    monkeypatch.setenv("HF_TOKEN", WRITER)
    hub.write_token = WRITER
    about = hub_push.Description("m", "super-resolution x2", "mit", ["me/photos"], "PSNR (Y)", {"Set5": 37.25})
    model = small_model(SPEC)
    ref = hub_push.push(hub_push.layout(GOOD, model, about, "me/new"), "me/new", message="first")
    assert ref.pinned
    assert path_of(str(ref)).read_bytes() == GOOD
    files = hub.repo("me/new").commits[ref.revision]
    assert set(files) == {".gitattributes", "model.safetensors", "config.json", "README.md"}
    from huggingface_hub import ModelCard

    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == ("mit", "bbcu", "image-to-image")
    assert card.data.datasets == ["me/photos"]
    assert [(result.dataset_name, result.metric_value) for result in card.data.eval_results] == [("Set5", 37.25)]
    assert "--scale 2 --weights hf://me/new" in card.text
    again = hub_push.push(hub_push.layout(OTHER, model, about, "me/new"), "me/new", message="second")
    assert again.revision != ref.revision
    assert path_of(str(ref)).read_bytes() == GOOD


def test_push_without_token_or_permission_says_so(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, and a token that may not write, are told apart from a missing network."""
    about = hub_push.Description("m", "")
    files = hub_push.layout(GOOD, small_model(SPEC), about)
    with pytest.raises(WeightsUnavailableError, match="HF_TOKEN"):
        hub_push.push(files, "me/new", message="m")
    monkeypatch.setenv("HF_TOKEN", READER)
    hub.write_token = WRITER
    with pytest.raises(WeightsUnavailableError, match=r"403.*HF_TOKEN"):
        hub_push.push(files, "me/new", message="m")
    with pytest.raises(UsageError, match="repository"):
        hub_push.push(files, "../new", message="m")
