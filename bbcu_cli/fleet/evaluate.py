"""`bbcu eval --task`: pictures are restored and scored where the work is done, and only figures come back."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from bbcu_cli.errors import BbcuError, EngineError, UsageError
from bbcu_cli.fleet import stores
from bbcu_cli.fleet.ahead import AHEAD, ahead
from bbcu_cli.fleet.shop import Shop
from bbcu_cli.fleet.spool import spool
from bbcu_cli.fleet.stores import is_url
from bbcu_cli.image import decode
from bbcu_cli.image.formats import is_image_name
from bbcu_cli.restoration.pipeline import run_tiled
from bbcu_cli.restoration.serving import Restorer
from bbcu_cli.score.files import score_file, score_given
from bbcu_cli.score.html import Views, views
from bbcu_cli.score.metrics import Convention
from bbcu_cli.score.pairs import Pair, images_at
from bbcu_cli.score.report import ReportRow
from bbcu_cli.score.trial import MAX_PIXELS, Evaluated, Trial, named


@dataclass(frozen=True, slots=True)
class Exam:
    """How pictures are scored.

    Attributes:
        trial: how the inputs are made from ground truth; None: they are given.
        convention: how results are counted.
        pictures: whether small pictures for the HTML report come back as well.
    """

    trial: Trial | None
    convention: Convention
    pictures: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One picture to restore and score; paths or URLs.

    Attributes:
        number: its line in the table, from 0.
        name: in the table.
        given: the input; empty: it is made from the ground truth.
    """

    number: int
    name: str
    truth: str
    given: str = ""

    def failed(self, reason: str) -> NoReturn:
        """End the run: a mean over fewer pictures than were asked for is worse than none."""
        raise EngineError(f"{self.given or self.truth}: {reason}")


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of one picture.

    Attributes:
        number: of its question.
        model: the network that served, or that none did.
        engine: that ran it, with its device and kernels.
        views: for the HTML report.
    """

    number: int
    row: ReportRow
    model: str
    engine: str
    views: Views | None = None


def truths_of(place: str) -> list[str]:
    """The pictures of a folder in the order of their names, or the file itself; paths or URLs.

    Raises:
        UsageError: nothing is there.
        StoreError: a store refuses, or cannot be reached.
    """
    if not is_url(place):
        return [str(path) for path in images_at(Path(place))]
    stores.open_store(place)
    found = "file" if stores.is_web(place) else stores.kind(place)
    if found is None:
        raise UsageError(f"{place} does not exist.")
    if found == "file":
        return [place]
    names = (entry.url for entry in stores.entries(place, recursive=False))
    pictures = sorted(url for url in names if is_image_name(name := _name(url)) and not name.name.startswith("."))
    if not pictures:
        raise UsageError(f"No image in {place}.")
    return pictures


def questions_of(truths: Iterable[str]) -> list[Question]:
    """What is asked about ground truths alone."""
    return [Question(number, _name(truth).stem, truth) for number, truth in enumerate(truths)]


def _name(place: str) -> PurePosixPath:
    return PurePosixPath(stores.name_of(place) if is_url(place) else Path(place).name)


def evaluate(questions: Sequence[Question], shop: Shop, exam: Exam) -> Iterator[Answer]:
    """Restore and score pictures, in their order.

    Raises:
        ImageError: a file cannot be decoded.
        UsageError: a picture is too small, or a result does not fit its ground truth.
        StoreError: a file of a store cannot be read.
        EngineError: the engine failed.
    """
    with ExitStack() as stack:
        remote = any(is_url(place) for question in questions for place in (question.truth, question.given))
        table = _Table(Path(shop.plan.home), stack.enter_context(spool()) if remote else None)
        pool = stack.enter_context(ThreadPoolExecutor(AHEAD, "transfer"))
        stack.callback(pool.shutdown, cancel_futures=True)
        for question, ready in ahead(questions, table.fetch, pool):
            files = ready.result()
            try:
                yield _answered(question, files, shop, exam)
            except BbcuError as error:
                raise type(error)(table.in_their_words(str(error), question, files)) from error
            finally:
                table.clear(question)


class _Table:
    """Where the files of a question lie on this machine: the ground truth, and the input if it is given."""

    def __init__(self, home: Path, room: Path | None) -> None:
        self._home, self._room = home, room

    def fetch(self, question: Question) -> tuple[Path, ...]:
        """Both files, on any thread."""
        return tuple(
            self._here(place, f"{question.number}/{role}")
            for role, place in (("truth", question.truth), ("given", question.given))
            if place
        )

    def _here(self, place: str, below: str) -> Path:
        if self._room is None or not is_url(place):
            return self._home / place
        path = self._room / below / (stores.name_of(place) or "picture")
        path.parent.mkdir(parents=True)
        stores.fetch(place, path)
        return path

    def in_their_words(self, text: str, question: Question, files: tuple[Path, ...]) -> str:
        """A text with the names that the user gave."""
        for path, place in zip(files, (question.truth, question.given), strict=False):
            text = text.replace(str(path), place)
        return text

    def clear(self, question: Question) -> None:
        """Remove what was fetched."""
        if self._room:
            shutil.rmtree(self._room / str(question.number), ignore_errors=True)


def _answered(question: Question, files: tuple[Path, ...], shop: Shop, exam: Exam) -> Answer:
    evaluated, model = _scored(question, files, shop, exam)
    pictures = views(evaluated.truth, evaluated.restored, evaluated.given) if exam.pictures else None
    return Answer(question.number, evaluated.row, model, str(shop.model.session.info), pictures)


def _scored(question: Question, files: tuple[Path, ...], shop: Shop, exam: Exam) -> tuple[Evaluated, str]:
    """A picture with its scores, and the name of the network."""
    trial, wish, settings = exam.trial, shop.plan.wish, shop.settings
    truth, *given = files
    if trial and not trial.of_files:  # as the paper has it: samples and not files
        image = decode(truth, max_pixels=MAX_PIXELS)
        with named(truth):
            return trial.run(
                question.name, image, lambda x: run_tiled(shop.model, x, settings.options)
            ), shop.model.name
    assert settings.serve  # noqa: S101 - a shop has one
    restorer = Restorer(settings.serve, settings.options)
    if trial:
        image = decode(truth, max_pixels=MAX_PIXELS)
        with named(truth):
            return score_file(trial, question.name, image, restorer), restorer.told
    pair = Pair(truth, given[0], question.name)
    return score_given(pair, wish.task, wish.scale, exam.convention, restorer), restorer.told
