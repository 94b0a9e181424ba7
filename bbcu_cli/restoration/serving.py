"""From a file to the opened network that serves it: in two looks, at the header and then at the picture."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

from bbcu_cli.hub import Catalogue
from bbcu_cli.image import Image, Levels, decode, probe
from bbcu_cli.image.compression import compression_of
from bbcu_cli.image.jpeg_steps import steps_of
from bbcu_cli.restoration.choice import Wish, choose, contenders, preferred, trained_scales
from bbcu_cli.restoration.memory import Work, footprint
from bbcu_cli.restoration.model import DEFAULT_OPTIONS, Model, Options, Shelf
from bbcu_cli.restoration.noise import Noise, estimate_noise
from bbcu_cli.restoration.pipeline import chained_bands
from bbcu_cli.restoration.quantisation import Quantisation
from bbcu_cli.restoration.resize import FILTER
from bbcu_cli.restoration.size import Target, Then

MAX_PIXELS: Final = 500_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """The network for one file.

    Attributes:
        model: opened; None leaves the picture as it is, since no network helps.
        reason: why, in words.
        digest: tells this choice from another in the record of `--skip-existing`, without a look at the picture.
        noise: level estimated on the picture, in 8-bit units; None where it was not asked for.
        look: what serves once the picture is decoded; until then `model` is one of those that may, and takes as much
            memory. None where the header has decided.
        then: what comes behind `model`; None: nothing, the result is as large as that makes it.
        first: deblocks the picture before `model` sees it; None: nothing does.
        full_step: of the network that deblocks, `first` or `model`; see `hub.Serves`.
    """

    model: Model | None
    reason: str
    digest: str = ""
    noise: float | None = None
    look: Callable[[Image], Served] | None = None
    then: Then | None = None
    first: Model | None = None
    full_step: float | None = None

    @property
    def models(self) -> tuple[Model, ...]:
        """The networks, one after the other."""
        one = (model for model in (self.first, self.model) if model)
        return (*one, *(self.then.models if self.then else ()))

    @property
    def way(self) -> tuple[str, ...]:
        """Names of the networks, and of the filter behind them if there is one."""
        return (*(model.name for model in self.models), *((FILTER,) if self.then and self.then.filtered else ()))

    @property
    def factor(self) -> Fraction:
        """How many times as large the result is, before its sides were rounded to pixels."""
        return self.then.factor if self.then else Fraction(self.model.spec.scale if self.model else 1)

    def size(self, before: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result for a picture of that size."""
        if self.then:
            return self.then.size
        scale = self.model.spec.scale if self.model else 1
        return before[0] * scale, before[1] * scale

    def quantisation(self, source: Path | bytes) -> Quantisation | None:
        """What the result for that file is held against, if its network deblocks and the file is a JPEG."""
        steps = steps_of(source) if self.full_step else None
        return Quantisation(steps, self.full_step) if steps and self.full_step else None

    def seen(self, image: Image) -> Served:
        """What serves this picture; may be called on any thread."""
        return self.look(image) if self.look else self


def server(
    wish: Wish,
    catalogue: Catalogue,
    shelf: Shelf,
    *,
    weights: Model | None = None,
    target: Target | None = None,
    levels: Levels | None = None,
) -> Callable[[Path | bytes], Served]:
    """What gives the networks for a file.

    Args:
        weights: the network of `--weights`, which serves every file.
        target: the size of results; None: as the network of the wish makes them.
        levels: as of `image.probe`.
    """
    if target:
        return partial(serve_target, wish, target, catalogue, shelf, weights, levels=levels)
    if weights:
        return lambda _: serve_all(wish, weights, catalogue)
    return partial(serve, wish, catalogue, shelf)


def serve(wish: Wish, catalogue: Catalogue, shelf: Shelf, source: Path | bytes) -> Served:
    """The network that a file asks for: a path, or the whole content of a file."""
    compression = compression_of(source)
    asks_noise = wish.task == "denoise" and wish.sigma is None
    rivals = contenders(wish, compression, catalogue) if asks_noise else []

    def chosen(noise: Noise | None) -> Served:
        choice = choose(wish, compression, catalogue, noise)
        model, first = (None if name is None else shelf[name] for name in (choice.model, choice.first))
        full = _full_step(catalogue, first or model)
        digest = "none" if model is None else _digest_of((first, model), full)
        if rivals:  # the picture decides: the rule stands for its outcome
            able = (*rivals, catalogue[preferred(wish, catalogue)])
            rule = [(entry.name, entry.sha256, entry.serves and entry.serves.to_dict()) for entry in able]
            asked = [rule, first.sha256, full] if first else rule
            digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        level = noise.sigma if noise else None
        return Served(model, choice.reason, digest, level, first=first if model else None, full_step=full)

    return _asking(chosen(None), lambda image: chosen(estimate_noise(image)), asks_noise=asks_noise)


def serve_all(wish: Wish, model: Model, catalogue: Catalogue) -> Served:
    """The same network for every file, as `--weights` asks."""
    full = _full_step(catalogue, model)
    served = Served(model, "--weights", _digest_of((model,), full), full_step=full)
    asks_noise = wish.task == "denoise" and wish.sigma is None
    return _asking(served, lambda image: replace(served, noise=estimate_noise(image).sigma), asks_noise=asks_noise)


def serve_target(
    wish: Wish,
    target: Target,
    catalogue: Catalogue,
    shelf: Shelf,
    weights: Model | None,
    source: Path | bytes,
    *,
    levels: Levels | None = None,
) -> Served:
    """The networks that bring a file to the size that is asked for.

    The first one is chosen by what the file says; those behind it see a clean picture. With `--weights` that network
    runs as often as it takes.

    Args:
        wish: for super-resolution; its scale is not looked at.
        target: the size.
        catalogue: of the networks.
        shelf: opens them.
        weights: the network of `--weights`.
        source: a path, or the whole content of a file.
        levels: as of `image.probe`.

    Raises:
        ImageError: the header cannot be read.
        UsageError: the file would be enlarged too much.
    """
    size = probe(source, levels=levels).size
    way = target.way(size, (weights.spec.scale,) if weights else trained_scales(wish, catalogue))
    if not way.scales:
        if not way.filtered:
            return Served(None, f"{size[1]}x{size[0]} is large enough", "none")
        then = Then((), way.size, way.factor, filtered=True)
        return Served(None, f"{size[1]}x{size[0]} is larger than asked", _digest("", (), way.size), then=then)
    first, *rest = way.scales
    if weights:
        served, models = serve_all(wish, weights, catalogue), (weights,) * len(rest)
    else:
        served = serve(replace(wish, scale=first), catalogue, shelf, source)
        models = tuple(shelf[preferred(replace(wish, scale=scale), catalogue)] for scale in rest)
    if not models and not way.filtered:
        return served
    digest = _digest(served.digest, models, way.size)
    return replace(served, digest=digest, then=Then(models, way.size, way.factor, way.filtered))


def _full_step(catalogue: Catalogue, model: Model | None) -> float | None:
    """That of the network, if the catalogue has it."""
    found = (entry.serves.full_step for entry in catalogue if model and entry.serves and entry.sha256 == model.sha256)
    return next(found, None)


def _digest_of(models: Sequence[Model | None], full_step: float | None) -> str:
    """What tells the results of networks from others."""
    digests = [model.sha256 for model in models if model]
    if full_step is None and len(digests) == 1:
        return digests[0]
    return hashlib.sha256(json.dumps([*digests, full_step]).encode()).hexdigest()


def _digest(first: str, models: Sequence[Model], size: tuple[int, int]) -> str:
    """What tells a way from others that lead to other pixels."""
    way = [first, *(model.sha256 for model in models), FILTER, *size]
    return hashlib.sha256(json.dumps(way).encode()).hexdigest()


class Restorer:
    """Restores whole files as the command line does; counts which network served how many, in `counts`."""

    def __init__(self, serve: Callable[[Path | bytes], Served], options: Options = DEFAULT_OPTIONS) -> None:
        """Args: serve: the network for a file; its models are open as long as this is used."""
        self._serve = serve
        self._options = options
        self.counts: Counter[str] = Counter()

    def __call__(self, source: Path | bytes) -> Image:
        """The restored picture of a path, or of the content of a file; errors as of `decode` and `chained_bands`."""
        image = decode(source, max_pixels=MAX_PIXELS)
        served = self._serve(source).seen(image)
        self.counts[" + ".join(served.way) or "left as it is"] += 1
        need = footprint(image, served.model, self._options, Work(form=None), served.then, served.first)
        models, size = served.models, served.size(image.size)
        tiles = need.tiles if models else ()
        bands = chained_bands(image, models, size, self._options, tiles, quantisation=served.quantisation(source))
        whole = bands.whole()
        return replace(image, pixels=whole.pixels, alpha=whole.alpha, metadata=whole.metadata)

    @property
    def told(self) -> str:
        """The networks that served, with how many pictures where there are several."""
        return counted(self.counts)


def counted(counts: Mapping[str, int]) -> str:
    """Names of networks, with how many pictures they served where there are several."""
    names = sorted(counts)
    return names[0] if len(names) == 1 else ", ".join(f"{name} ({counts[name]})" for name in names)


def _asking(served: Served, look: Callable[[Image], Served], *, asks_noise: bool) -> Served:
    return replace(served, look=look) if asks_noise else served
