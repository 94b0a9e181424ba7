"""What `fuzz.py` attacks: pictures, weights, checkpoints, catalogues, records, hub references, bindings, options."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from described import described_files
from fuzz import ODD, Surface, dumped, mutated, scrambled
from pictures import animation, awkward_files, deep, exif, photo, rgb_profile, saved, soft_mask
from PIL import Image as Pillow
from small import SMALL_SPECS, small_model
from tiff_files import deflate, tiff

from bbcu_cli.batch.manifest import NAME, Manifest, stamp_of
from bbcu_cli.checkpoint.packed import PackedModel, load_packed, to_bytes
from bbcu_cli.engines.cpu import CpuEngine
from bbcu_cli.errors import BbcuError
from bbcu_cli.hub import Catalogue, Entry, HubRef
from bbcu_cli.hub.reference import for_model, parse
from bbcu_cli.image import FORMATS, EncodeOptions, Image, Levels, Metadata, decode, encode
from bbcu_cli.restoration.model import Options, open_model
from bbcu_cli.restoration.pipeline import restore_image
from bbcu_cli.spec import ModelSpec

TINY = ModelSpec("bbcu-m", "sr", 2, 3, blocks=1)
OUTPUTS = [name for name, form in FORMATS.items() if form.writable and name != "HEIC"]


def seeds() -> list[bytes]:
    """Small valid files of every format and depth, full of metadata."""
    about = Metadata(rgb_profile(), exif(1), b"<x:xmpmeta/>", (300, 300), (("Comment", "hi"),))
    found = [data for data in awkward_files().values() if data]
    for name in OUTPUTS:
        mask = soft_mask(24, 32) if FORMATS[name].alpha else None
        found.append(encode(Image(photo(24, 32), mask, about), name))
        found.append(encode(Image(deep(photo(24, 32)), None if mask is None else deep(mask), about), name))
    found += described_files()
    found += [
        tiff(photo(24, 32) / np.float32(255), 32, predictor=3, compression=8, encode=deflate, tags={339: [3] * 3})
    ]
    picture = Pillow.fromarray(np.dstack([photo(24, 32), soft_mask(24, 32)]))
    found += [saved(picture, form) for form in ("JPEG2000", "TGA", "ICO", "DDS")]
    found += [saved(picture, "ICO", bitmap_format="bmp"), saved(picture, "TGA", compression="tga_rle")]
    found += [saved(picture, "DDS", pixel_format="DXT5"), saved(picture.convert("P"), "TGA")]
    found += [b"PF\n32 24\n-1.0\n" + (photo(24, 32) / np.float32(255)).tobytes()]
    return found + [animation(form) for form in ("GIF", "WEBP", "PNG", "AVIF")]


def pictures() -> Surface:
    """A damaged picture is decoded, restored and encoded in any format."""
    files = seeds()
    model = open_model(small_model(TINY), "tiny", engine="packed", threads=1)

    def attack(rng: random.Random) -> None:
        levels = rng.choice([None, Levels(0, 1), Levels(-1e30, 1e-30)])
        image = decode(mutated(rng.choice(files), rng), max_pixels=4_000, levels=levels)
        result = restore_image(image, model, Options(tile=rng.choice([None, 16])))
        metadata, kind = rng.choice(["keep", "strip"]), rng.choice([*OUTPUTS, "PNG", "BMP"])
        background = rng.choice([None, (255, 255, 255)])
        quality = rng.choice([1, 90])
        data = encode(result, kind, EncodeOptions(quality=quality, metadata=metadata, background=background))
        if kind == "PNG":
            assert np.array_equal(decode(data, max_pixels=100_000).pixels, result.pixels)

    return Surface(attack, (BbcuError,))


def weights() -> Surface:
    """A packed model with a damaged body, a lying header, or values out of range; what loads must run."""
    whole = [to_bytes(small_model(spec)) for spec in (TINY, SMALL_SPECS["l-x3"], SMALL_SPECS["deblock"])]
    engine = CpuEngine(1)

    def lying(data: bytes, rng: random.Random) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        for key in ("spec", "provenance"):
            if rng.random() < 0.3:
                header["__metadata__"][key] = dumped(scrambled(json.loads(header["__metadata__"][key]), rng)).decode()
        text = dumped(scrambled(header, rng) if rng.random() < 0.6 else header)
        return len(text).to_bytes(8, "little") + text + data[end:]

    def poisoned(data: bytes, rng: random.Random) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        values = np.frombuffer(data[end:], np.float32).copy()
        odd = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 1e20]
        values[[rng.randrange(len(values)) for _ in range(rng.choice([1, 100]))]] = rng.choice(odd)
        return data[:end] + values.tobytes()

    def attack(rng: random.Random) -> None:
        path = Path("w.safetensors")
        path.write_bytes(rng.choice([mutated, lying, poisoned])(rng.choice(whole), rng))
        model = load_packed(path)
        to_bytes(model)
        if model.spec.features == 64:
            engine.open(model).run(np.zeros((1, model.spec.channels, 3, 4), np.float32))

    return Surface(attack, (BbcuError,))


def checkpoints() -> Surface:
    """A published checkpoint in either container of torch, damaged anywhere, also behind valid checksums."""
    import torch

    from bbcu_cli.checkpoint.pack import unpack
    from bbcu_cli.checkpoint.pth import load_pth

    def narrow(spec: ModelSpec) -> PackedModel:
        return small_model(ModelSpec(spec.arch, spec.task, spec.scale, spec.channels, 8, 2, bias=spec.bias))

    states = [
        {name: torch.from_numpy(value.copy()) for name, value in unpack(narrow(SMALL_SPECS[name])).items()}
        for name in ("l-x3", "m-x4", "deblock")
    ]
    odd_tensors = [
        torch.zeros(()), torch.zeros(0, 8), torch.zeros(1).expand(1 << 40), torch.zeros(1).expand(1 << 20, 1 << 20),
        torch.full((8,), float("nan")), torch.zeros(8, dtype=torch.float16), torch.zeros(8, dtype=torch.bfloat16),
        torch.zeros(8, dtype=torch.complex64), torch.zeros(8, dtype=torch.int8), torch.eye(8).to_sparse(),
        torch.zeros(8, device="meta"), torch.nn.Parameter(torch.zeros(8)), torch.zeros(8, 8, 3, 3)[:, ::2],
        torch.quantize_per_tensor(torch.zeros(8), 0.1, 0, torch.qint8), torch.zeros(8, dtype=torch.float8_e5m2),
    ]  # fmt: skip

    def saved(content: object, *, zipped: bool) -> bytes:
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    whole = [saved({"params": states[i % 3]}, zipped=i < 3) for i in range(6)]

    def member(data: bytes, rng: random.Random) -> bytes:
        file, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        victim = rng.choice([name for name in file.namelist() if rng.random() < 0.3 or name.endswith("data.pkl")])
        with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as copy:
            for name in file.namelist():
                content = file.read(name)
                copy.writestr(name, mutated(content, rng) if name == victim else content)
        return out.getvalue()

    def altered(rng: random.Random) -> bytes:
        state: dict[Any, Any] = dict(rng.choice(states))
        name = rng.choice(list(state))
        choice = rng.randrange(4)
        if choice == 0:
            del state[name]
        elif choice == 1:
            state[rng.choice([0, "x", None, "\x1b[2J", ("a",)])] = rng.choice(odd_tensors)
        else:
            state[name] = rng.choice([*odd_tensors, *ODD])
        wrapped = rng.choice([state, {"params": state}, {"params_ema": [], "params": state}, [state], {"ema": {1: 2}}])
        return saved(wrapped, zipped=rng.random() < 0.7)

    def attack(rng: random.Random) -> None:
        path, choice = Path("w.pth"), rng.randrange(4)
        if choice == 0:
            data = altered(rng)
        elif choice == 1:
            data = member(rng.choice(whole[:3]), rng)
        else:
            data = mutated(rng.choice(whole), rng)
        path.write_bytes(data)
        to_bytes(load_pth(path))

    return Surface(attack, (BbcuError,))


def catalogues() -> Surface:
    """A catalogue with odd parts; what loads is listed, looked up and never leads out of its folder."""
    spec, digest = SMALL_SPECS["m-x2"], "0" * 64
    entries = [
        Entry("denoise-25", SMALL_SPECS["denoise"], "blind", digest, 1, measured={"Set5": 31.2}),
        Entry("sr-m-x2", spec, "twice", digest, 7, HubRef("me/m", "0" * 40, "a/m.safetensors")),
        Entry("none", spec, "nowhere"),
    ]
    Catalogue({entry.name: entry for entry in entries}).save(Path())
    whole = Path("catalogue.json").read_bytes()

    def attack(rng: random.Random) -> None:
        if rng.random() < 0.3:
            data = mutated(whole, rng)
        else:
            content = scrambled(json.loads(whole), rng)
            data = dumped(scrambled(content, rng) if rng.random() < 0.3 else content)
        Path("catalogue.json").write_bytes(data)
        for entry in Catalogue.load(Path()):
            assert entry.file.parent == entry.file.parent.resolve() or ".." not in str(entry.file)
            assert entry.hub is None or ".." not in str(entry.hub)
            json.dumps(entry.to_dict())
            _ = entry.embedded, entry.metric, str(entry.hub)

    return Surface(attack, (BbcuError,))


def references() -> Surface:
    """References to the hub, as text."""
    texts = ["hf://me/m@main:a/b.safetensors", "me/bbcu-{name}@v1", "hf://me/m", "me/m:{name}.safetensors"]
    bits = ["..", "/", "@", ":", "\\", "\0", "\x1b[2J", "猫", ".", "%2e%2e", "{name}", "hf://", "\ud800", " ", "~"]

    def attack(rng: random.Random) -> None:
        text = rng.choice(texts)
        for _ in range(rng.choice([0, 1, 1, 2])):
            at = rng.randrange(len(text) + 1)
            bit = rng.choice([*bits, *"abcxyz019-_.", chr(rng.randrange(0x3000))])
            text = text[:at] + bit + text[at + rng.randrange(3) :]
        ref = for_model(text, "sr-m-x2")
        assert parse(str(ref)) == ref
        for part in (ref.repo, ref.revision, ref.filename):
            assert part.isprintable()
            assert ".." not in part
            assert not part.startswith("/")

    return Surface(attack, (BbcuError,))


def records() -> Surface:
    """The record of `--skip-existing` in a folder of outputs: whatever it says, nobody else's file is called ours."""
    source, output, foreign = Path("a.txt"), Path("b.txt"), Path("c.txt")
    for path in (source, output, foreign):
        path.write_bytes(b"x")
    Manifest("key").done(output.resolve(), stamp_of(source))
    whole = Path(NAME).read_bytes()

    def attack(rng: random.Random) -> None:
        parts = [whole] * rng.choice([1, 2]) + [b"\n" + dumped(scrambled(json.loads(whole), rng))]
        Path(NAME).write_bytes(b"".join(mutated(part, rng) if rng.random() < 0.4 else part for part in parts))
        record = Manifest("key")
        assert record.verdict(output.resolve(), stamp_of(source)) in ("current", "outdated", "foreign")
        record.known(output.resolve())
        assert record.verdict(foreign.resolve(), stamp_of(source)) != "current"
        record.begun(output.resolve())

    return Surface(attack, (BbcuError,))


def bindings() -> Surface:
    """The compiled module called with arrays of any type, shape, order and content."""
    from bbcu_cli import _native

    kernels = [k["name"] for k in _native.kernel_sets() if k["supported"]]
    counts = [0, 1, 2, 3, 4, 5, 8, 64, 192, 256, 576, 1728, 2304, 36864, 1 << 31, 1 << 62, (1 << 64) - 1, -1, 1 << 70]

    def array(rng: random.Random, *shape: int, dtype: type = np.float32) -> Any:
        good = np.frombuffer(rng.randbytes(4 * int(np.prod(shape))), np.uint32).astype(np.uint64).reshape(shape)
        good = good if dtype is np.uint64 else (good.astype(np.float32) / 2**31 - 1).astype(dtype)
        if dtype is np.float32 and rng.random() < 0.1:
            good.reshape(-1)[:: rng.choice([1, 7])] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45])
        if rng.random() < 0.96:
            return good
        flat = good.reshape(-1)
        odd: list[Callable[[], Any]] = [
            lambda: good.astype(rng.choice([np.float64, np.float16, np.int32, np.uint8, np.complex64, np.uint64])),
            lambda: good.astype(good.dtype.newbyteorder()),
            lambda: good[..., ::-1],
            lambda: np.asfortranarray(good),
            lambda: flat[: rng.randrange(good.size + 1)],
            lambda: rng.choice([None, 1, [1.0], "x", np.float32(1), np.zeros(()), good.reshape(1, 1, *shape)]),
            lambda: np.broadcast_to(np.zeros(1, dtype), shape),
            lambda: np.lib.stride_tricks.as_strided(np.zeros(1, dtype), (1 << 30, 1 << 20), (0, 0)),
            lambda: np.frombuffer(bytes(good.nbytes + 1), np.uint8)[1:].view(dtype).reshape(shape),  # not aligned
        ]
        return rng.choice(odd)()

    def number(rng: random.Random, *good: int) -> Any:
        return rng.choice(good) if rng.random() < 0.97 else rng.choice([*counts, None, 1.5, "x"])

    def attack(rng: random.Random) -> None:
        channels = rng.choice([1, 3])
        leak, step = rng.choice([0.1, 0, float("nan"), 1e38]), rng.choice([1, 1, 1, 2, 3, 4])
        subtract = rng.random() < (0.5 if step == 1 else 0.05)
        n = 64 * step * step
        network = _native.Network(rng.choice(kernels), number(rng, channels), rng.choice([130, 0, 1e38]), subtract)

        def head() -> None:
            network.add_head(array(rng, 64, channels, 3, 3), array(rng, 64), leak)

        def binary() -> None:
            parts = [array(rng, n) for _ in range(4)]
            signs = array(rng, n, 3, 3, 1, dtype=np.uint64)
            network.add_binary(signs, *parts, array(rng, 64), number(rng, step), leak)

        def conv() -> None:
            network.add_conv(array(rng, n, 64, 3, 3), array(rng, n), number(rng, step), leak)

        def tail() -> None:
            network.add_tail(array(rng, channels, 64, 3, 3), array(rng, channels))

        body = [conv if step == 1 and rng.random() < 0.3 else binary] * rng.choice([1, 1, 1, 2, 3])
        order: list[Callable[[], None]] = [head, *body, tail]
        if rng.random() < 0.1:
            rng.shuffle(order)
        for add in order:
            add()
        height, width = (rng.choice([0, 1, 1, 2, 2, 7, 7, 33, 33, 70]) for _ in range(2))
        image, s = array(rng, channels, height, width), network.scale
        output = np.zeros((channels, s * height, s * width), np.float32)
        if rng.random() < 0.15:
            output = array(rng, channels, s * height, s * width)
            if isinstance(output, np.ndarray) and rng.random() < 0.3:
                output.flags.writeable = False
        network.run(image, output, number(rng, 1, 2, 3))
        _native.choose_kernel_set(rng.choice([*kernels, *kernels, "", "x", "\0", "a" * 10_000]))

    return Surface(attack, (TypeError, ValueError, MemoryError, OverflowError))


def options() -> Surface:
    """Command lines of every command with odd values, through the real parser."""
    from fuzz_options import command_lines

    return Surface(command_lines(), ())


SURFACES: dict[str, Callable[[], Surface]] = {
    "pictures": pictures,
    "weights": weights,
    "checkpoints": checkpoints,
    "catalogues": catalogues,
    "references": references,
    "records": records,
    "bindings": bindings,
    "options": options,
}
