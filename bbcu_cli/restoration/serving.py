"""From a file to the opened network that serves it: in two looks, at the header and then at the picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bbcu_cli.hub import Catalogue
from bbcu_cli.image import Image
from bbcu_cli.image.compression import compression_of
from bbcu_cli.restoration.choice import Wish, choose, contenders
from bbcu_cli.restoration.model import Model, Shelf
from bbcu_cli.restoration.noise import estimate_sigma


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
    """

    model: Model | None
    reason: str
    digest: str = ""
    noise: float | None = None
    look: Callable[[Image], Served] | None = None

    def seen(self, image: Image) -> Served:
        """What serves this picture; may be called on any thread."""
        return self.look(image) if self.look else self


def serve(wish: Wish, catalogue: Catalogue, shelf: Shelf, source: Path | bytes) -> Served:
    """The network that a file asks for: a path, or the whole content of a file."""
    compression = compression_of(source)
    asks_noise = wish.task == "denoise" and wish.sigma is None
    rivals = contenders(wish, compression, catalogue) if asks_noise else []

    def chosen(noise: float | None) -> Served:
        choice = choose(wish, compression, catalogue, noise)
        model = None if choice.model is None else shelf[choice.model]
        digest = "none" if model is None else model.sha256
        if len(rivals) > 1:  # the picture decides, so the rule stands for its outcome
            rule = [entry.to_dict() for entry in rivals]
            digest = hashlib.sha256(json.dumps(rule).encode()).hexdigest()
        return Served(model, choice.reason, digest, noise)

    return _asking(chosen(None), lambda image: chosen(estimate_sigma(image)), asks_noise=asks_noise)


def serve_all(wish: Wish, model: Model) -> Served:
    """The same network for every file, as `--weights` asks."""
    served = Served(model, "--weights", model.sha256)
    asks_noise = wish.task == "denoise" and wish.sigma is None
    return _asking(served, lambda image: replace(served, noise=estimate_sigma(image)), asks_noise=asks_noise)


def _asking(served: Served, look: Callable[[Image], Served], *, asks_noise: bool) -> Served:
    return replace(served, look=look) if asks_noise else served
