"""The picture in the README of a photo from the web: `python -m bbcu_cli.bench.figure FILE`.

A JPEG is enlarged by bicubic interpolation, by the network for clean pictures, and by that behind one that deblocks.
The photo is scikit-image's `astronaut` (NASA, public domain), reduced by 2 and saved as a JPEG.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image as Pillow

from bbcu_cli.errors import UsageError
from bbcu_cli.files import write_whole
from bbcu_cli.hub import Catalogue
from bbcu_cli.image import Image, encode
from bbcu_cli.restoration.choice import InputKind, Wish
from bbcu_cli.restoration.model import Shelf, load_model
from bbcu_cli.restoration.serving import Restorer, serve
from bbcu_cli.score.compare import side_by_side
from bbcu_cli.score.photos import jpeg_bytes, reduce

SCALE: Final = 2
QUALITY: Final = 60


def figure(photo: bytes) -> Image:
    """The side-by-side for the content of a JPEG."""
    with Pillow.open(BytesIO(photo)) as opened:
        source = np.asarray(opened.convert("RGB"))
    kinds: tuple[tuple[InputKind, str], ...] = (("clean", "as it is"), ("auto", "deblocked first"))
    with Shelf(load_model) as shelf:
        results = []
        for kind, label in kinds:
            restorer = Restorer(partial(serve, Wish("sr", SCALE, input=kind), Catalogue.load(), shelf))
            results.append((restorer(photo), f"{label} ({restorer.told})"))
    (clean, clean_label), (best, best_label) = results
    return side_by_side(Image(source), clean, best, label=clean_label, truth_label=best_label)


def main(arguments: list[str]) -> None:
    """Write the picture."""
    astronaut = importlib.import_module("skimage.data").astronaut  # untyped
    if len(arguments) != 1:
        raise UsageError("Give the file to write: python -m bbcu_cli.bench.figure FILE")
    photo = jpeg_bytes(reduce(astronaut()[:256, 96:352], SCALE), QUALITY)
    write_whole(Path(arguments[0]), encode(figure(photo), "PNG"))


if __name__ == "__main__":
    main(sys.argv[1:])
