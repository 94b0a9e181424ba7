"""The compiled engine: every kernel set against the scalar one, bands, borders, errors, and interruption.

The kernels alone, at more widths, are tested in tests/native/kernels_test.cpp (`.ci/sanitize`).
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden import golden_input, golden_model, golden_output
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bbcu_cli.bench.engines import binary_layers, random_model, run_bench
from bbcu_cli.engines import cpu
from bbcu_cli.engines.cpu import CpuEngine, kernel_sets, measure_layer
from bbcu_cli.errors import EngineError, EngineUnavailableError, UsageError
from bbcu_cli.spec import DEBLOCK_SPEC, DENOISE_SPEC, ModelSpec, sr_spec

NATIVE = Path(__file__).parents[2] / "bbcu_cli" / "native"  # the sources are not installed
compiled = pytest.mark.skipif(not kernel_sets(), reason="bbcu_cli._native is not compiled here")
SETS = [k["name"] for k in kernel_sets() if k["supported"]]

SMALL = {
    "m-x2": replace(sr_spec("m", 2), blocks=2),
    "m-x3": replace(sr_spec("m", 3), blocks=1),
    "m-x4": replace(sr_spec("m", 4), blocks=1),
    "l-x2": replace(sr_spec("l", 2), blocks=1),
    "l-x3": replace(sr_spec("l", 3), blocks=1),
    "l-x4": replace(sr_spec("l", 4), blocks=1),
    "denoise": replace(DENOISE_SPEC, blocks=2),
    "deblock": replace(DEBLOCK_SPEC, blocks=3),
}


def restore(
    spec: ModelSpec, x: NDArray[np.float32], kernel: str, monkeypatch: pytest.MonkeyPatch, threads: int = 1
) -> NDArray[np.float32]:
    monkeypatch.setenv("BBCU_KERNEL", kernel)
    with CpuEngine(threads).open(random_model(spec)) as session:
        assert session.info.detail.startswith(kernel)
        return session.run(x)


def picture(spec: ModelSpec, height: int, width: int, batch: int = 1) -> NDArray[np.float32]:
    shape = (batch, spec.channels, height, width)
    return np.random.default_rng(height * 1000 + width).random(shape, dtype=np.float32)


@compiled
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (5, 33), (9, 65)])
@pytest.mark.parametrize("name", SMALL)
def test_every_kernel_set_equals_scalar(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernel sets give the floats of the scalar one to the bit, at any size, vector tail and border."""
    x = picture(SMALL[name], *size)
    truth = restore(SMALL[name], x, "scalar", monkeypatch)
    for kernel in SETS:
        np.testing.assert_array_equal(restore(SMALL[name], x, kernel, monkeypatch), truth)


@compiled
def test_full_precision_upsampling_equals_scalar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The float convolutions of BBCU-L follow one order of operations in every kernel set."""
    spec = replace(sr_spec("l", 2), blocks=1)
    x = picture(spec, 4, 37)
    truth = restore(spec, x, "scalar", monkeypatch)
    for kernel in SETS:
        np.testing.assert_array_equal(restore(spec, x, kernel, monkeypatch), truth)


@compiled
@pytest.mark.parametrize("name", [*SMALL, "l-x4"])
def test_bands_equal_one_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads split the image into skewed bands; the result is the same to the bit for every number of them."""
    spec = SMALL.get(name) or replace(sr_spec("l", 4), blocks=1)
    x = picture(spec, 83, 19)
    truth = restore(spec, x, SETS[0], monkeypatch)
    for threads in (2, 3, 4, 5, 64):
        np.testing.assert_array_equal(restore(spec, x, SETS[0], monkeypatch, threads), truth)


@compiled
def test_bands_shorter_than_the_network_is_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A band of 16 rows in a network of 32 units waits for its neighbour and still computes the same."""
    spec = sr_spec("m", 2)
    x = picture(spec, 49, 40)
    np.testing.assert_array_equal(restore(spec, x, SETS[0], monkeypatch, 3), restore(spec, x, SETS[0], monkeypatch, 1))


@compiled
@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["m-x4", "l-x2", "l-x3", "l-x4"]),
    top=st.integers(0, 30), left=st.integers(0, 60), height=st.integers(1, 9), width=st.integers(1, 70),
)  # fmt: skip
def test_a_tile_with_halo_equals_the_whole_image(name: str, top: int, left: int, height: int, width: int) -> None:
    """Inside the halo a tile has exactly the pixels of the whole image, wherever it lies."""
    spec = SMALL[name]
    session = CpuEngine(1).open(random_model(spec))
    x = picture(spec, 40, 130)
    whole = session.run(x)
    rows = slice(max(0, top - spec.halo), top + height + spec.halo)
    columns = slice(max(0, left - spec.halo), left + width + spec.halo)
    tile = session.run(np.ascontiguousarray(x[:, :, rows, columns]))
    s, skip_rows, skip_columns = spec.scale, top - rows.start, left - columns.start
    height, width = min(height, 40 - top), min(width, 130 - left)
    np.testing.assert_array_equal(
        tile[:, :, s * skip_rows : s * (skip_rows + height), s * skip_columns : s * (skip_columns + width)],
        whole[:, :, s * top : s * (top + height), s * left : s * (left + width)],
    )


@compiled
def test_batches_and_repeats_are_single_images() -> None:
    """A batch is its images one by one, a session keeps nothing, and any float32 layout is taken."""
    spec = SMALL["m-x2"]
    session = CpuEngine(2).open(random_model(spec))
    x = picture(spec, 20, 24, batch=3)
    batch = session.run(x)
    for i in range(3):
        np.testing.assert_array_equal(session.run(x[i : i + 1]), batch[i : i + 1])
    strided = np.asfortranarray(x)
    np.testing.assert_array_equal(session.run(strided), batch)
    session.close()
    session.close()


@compiled
def test_largest_counts_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 576 signs against the weights, the largest count, and all with them, the smallest, are exact."""
    spec = replace(DENOISE_SPEC, blocks=2)
    x = picture(spec, 5, 40)
    packed = random_model(spec)
    for word in (0, 2**64 - 1):
        for shift in (1e9, -1e9):  # all signs of the activations are equal
            body = tuple(
                replace(u, signs=np.full_like(u.signs, word), shift=np.full_like(u.shift, shift)) for u in packed.body
            )
            model = replace(packed, body=body)
            outputs = []
            for kernel in SETS:
                monkeypatch.setenv("BBCU_KERNEL", kernel)
                outputs.append(CpuEngine(1).open(model).run(x))
            for output in outputs[1:]:
                np.testing.assert_array_equal(output, outputs[0])


@compiled
def test_a_network_that_enlarges_without_bound_is_refused() -> None:
    """Found by the fuzzer: sizes of 4 x 4 x 4 ... times the image end outside of every buffer."""
    from bbcu_cli import _native

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros(shape, np.float32)

    network = _native.Network("scalar", 3, 130.0, subtract=False)
    network.add_head(zeros(64, 3, 3, 3), zeros(64), 0.1)
    parts = [zeros(1024) for _ in range(4)]
    network.add_binary(np.zeros((1024, 3, 3, 1), np.uint64), *parts, zeros(64), 4, 0.1)
    with pytest.raises(ValueError, match="enlarges more than 4 times"):
        network.add_binary(np.zeros((1024, 3, 3, 1), np.uint64), *parts, zeros(64), 4, 0.1)


@compiled
def test_a_long_run_tells_how_far_it_is() -> None:
    """About ten times a second, of one image and of several."""
    packed = random_model(DENOISE_SPEC)
    told: list[float] = []
    with CpuEngine(1).open(packed) as session:
        for side in (128, 256, 512, 1024, 2048):  # until it takes a while
            if len(told) < 3:
                told.clear()
                session.run(np.zeros((2, 3, side, side), np.float32), told.append)
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1


@compiled
def test_what_progress_raises_stops_a_run() -> None:
    """The engine hands it on and can be used again."""

    def stop(_: float) -> None:
        raise KeyError("enough")

    with CpuEngine(2).open(random_model(DENOISE_SPEC)) as session:
        with pytest.raises(KeyError, match="enough"):
            session.run(np.zeros((1, 3, 3000, 2000), np.float32), stop)
        assert session.run(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 3, 4, 4)


@compiled
def test_a_forced_kernel_set_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """BBCU_KERNEL names the set; an unknown or unsupported one is refused with the reason, never replaced."""
    for kernel in SETS:
        monkeypatch.setenv("BBCU_KERNEL", kernel)
        assert CpuEngine(1).kernel == kernel
    monkeypatch.setenv("BBCU_KERNEL", "mmx")
    engine = CpuEngine(1)
    assert "mmx" in (engine.info.unavailable or "")
    with pytest.raises(EngineUnavailableError, match="BBCU_KERNEL"):
        engine.open(random_model(SMALL["denoise"]))
    for kernel in kernel_sets():
        if not kernel["supported"]:
            monkeypatch.setenv("BBCU_KERNEL", kernel["name"])
            assert kernel["required_features"] in (CpuEngine(1).info.unavailable or "")


@compiled
def test_other_feature_counts_are_refused() -> None:
    """The kernels are for 64 features; another width is sent to the reference engine by name."""
    with pytest.raises(EngineUnavailableError, match=r"32 features.*reference"):
        CpuEngine(1).open(random_model(replace(DENOISE_SPEC, features=32, blocks=1)))


def test_without_the_compiled_module_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a compiler has an engine that says why it cannot run."""
    monkeypatch.setattr(cpu, "compiled", None)
    monkeypatch.setattr(cpu, "missing", "no module")
    engine = CpuEngine(1)
    assert "compiler" in (engine.info.unavailable or "")
    assert kernel_sets() == []
    with pytest.raises(EngineUnavailableError):
        engine.open(random_model(SMALL["denoise"]))
    with pytest.raises(EngineUnavailableError):
        measure_layer("scalar", 8, 1)


@compiled
def test_other_threads_run_meanwhile() -> None:
    """The engine releases the interpreter lock."""
    session = CpuEngine(1).open(random_model(sr_spec("m", 4)))
    x = picture(sr_spec("m", 4), 60, 200)
    ticks = 0
    worker = threading.Thread(target=session.run, args=(x,))
    worker.start()
    while worker.is_alive():
        ticks += 1
        time.sleep(0.001)
    assert ticks > 5


@compiled
def test_threads_that_do_not_start_are_one_sentence() -> None:
    """The compiled module raises std::system_error then, which Python sees as a RuntimeError."""

    class Exhausted:
        scale = 1

        def run(self, *_: object) -> None:
            raise RuntimeError("Resource temporarily unavailable")

    session = CpuEngine(2).open(random_model(SMALL["denoise"]))
    session._network = Exhausted()
    with pytest.raises(EngineError, match="--threads 1"):
        session.run(np.zeros((1, 3, 4, 4), np.float32))


@compiled
def test_many_threads_run_at_once() -> None:
    """Calls from several threads share the helpers, none waits for another's end, and each gets its own result."""
    spec = SMALL["m-x4"]
    sessions = [CpuEngine(threads).open(random_model(spec)) for threads in (1, 2, 3, 4)]
    x = picture(spec, 90, 40)
    truth = sessions[0].run(x)
    results: list[NDArray[np.float32]] = []
    workers = [
        threading.Thread(target=lambda session=session: results.extend(session.run(x) for _ in range(3)))
        for session in sessions
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(results) == 12
    for result in results:
        np.testing.assert_array_equal(result, truth)


RUN_A_BAND_EACH = (
    "import os, sys, numpy as np\n"
    "from bbcu_cli.bench.engines import random_model\n"
    "from bbcu_cli.engines.cpu import CpuEngine\n"
    "from bbcu_cli.spec import DENOISE_SPEC\n"
    "x = np.zeros((1, 3, 64, 16), np.float32)\n"
    "model = random_model(DENOISE_SPEC)\n"
)


@compiled
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_without_more_threads_the_caller_does_the_work(tmp_path: Path) -> None:
    """Where the system gives no thread the result is the same, only later; it was a RuntimeError."""
    import resource

    code = RUN_A_BAND_EACH + "print(np.array_equal(CpuEngine(4).open(model).run(x), CpuEngine(1).open(model).run(x)))\n"

    def no_room_for_stacks() -> None:
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 37, hard))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 36, resource.getrlimit(resource.RLIMIT_AS)[1]))

    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        preexec_fn=no_room_for_stacks,
    )
    assert result.stdout == "True\n", result.stderr


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_child_computes(tmp_path: Path) -> None:
    """A child has none of its parent's helpers and makes its own."""
    code = RUN_A_BAND_EACH + (
        "session = CpuEngine(3).open(model)\n"
        "truth = session.run(x)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(session.run(x), truth) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout == "0\n", result.stderr


X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="needs g++ and nm")
@pytest.mark.parametrize(("room", "space"), [("kernels", "bbcu"), ("train", "bbcu::train")])
@pytest.mark.parametrize(
    ("source", "table", "flags"),
    [
        ("avx2", "kAvx2", "-mavx2 -mfma"),
        (
            "avx512",
            "kAvx512",
            "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vpopcntdq -mgfni -mfma -w",
        ),
        ("neon", "kNeon", ""),
    ],
)
def test_an_instruction_set_stays_in_its_file(
    source: str, table: str, flags: str, room: str, space: str, tmp_path: Path
) -> None:
    """A file of one instruction set shows the linker its table alone: a shared template would run on other CPUs too.

    Compiled without optimisation, when everything that could be shared is emitted.
    """
    target = tmp_path / "kernels.o"
    file = NATIVE / room / f"{source}.cpp"
    here = source.startswith("avx") == X86
    command = ["g++", "-std=c++17", "-O0", *(flags.split() if here else []), "-c", str(file), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    symbols = subprocess.run(["nm", "-C", str(target)], check=True, capture_output=True, text=True).stdout
    kinds = [line[17:].split(" ", 1) for line in symbols.splitlines()]
    shown = [name for kind, name in kinds if kind != "U" and not kind.islower()]
    assert shown == ([f"{space}::{table}"] if here else [])


@compiled
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to another process")
def test_interrupt_stops_a_run(tmp_path: Path) -> None:
    """Ctrl-C ends a long run at once with KeyboardInterrupt, not after the image."""
    code = (
        "import numpy as np\n"
        "from bbcu_cli.bench.engines import random_model\n"
        "from bbcu_cli.engines.cpu import CpuEngine\n"
        "from bbcu_cli.spec import sr_spec\n"
        "s = CpuEngine(2).open(random_model(sr_spec('m', 4)))\n"
        "x = np.zeros((1, 3, 20000, 400), np.float32)\n"
        "print('ready', flush=True)\n"
        "try:\n    s.run(x)\nexcept KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert output == "interrupted\n"


@compiled
def test_torch_is_not_imported(tmp_path: Path) -> None:
    """A restoration on the compiled engine never imports torch."""
    code = (
        "import sys, numpy as np\n"
        "from bbcu_cli.bench.engines import random_model\n"
        "from bbcu_cli.engines.cpu import CpuEngine\n"
        "from bbcu_cli.spec import sr_spec\n"
        "CpuEngine().open(random_model(sr_spec('m', 2))).run(np.zeros((1, 3, 4, 4), np.float32))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@compiled
@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read by getrusage")
def test_peak_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    """Rows stream: four times the height needs more memory only for the input and the output."""
    code = (
        "import sys, resource, numpy as np\n"
        "from bbcu_cli.bench.engines import random_model\n"
        "from bbcu_cli.engines.cpu import CpuEngine\n"
        "from bbcu_cli.spec import DENOISE_SPEC\n"
        "h = int(sys.argv[1])\n"
        "CpuEngine(1).open(random_model(DENOISE_SPEC)).run(np.ones((1, 3, h, 256), np.float32))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(height: int) -> int:
        command = [sys.executable, "-c", code, str(height)]
        return int(subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout) << 10

    image_bytes = 3 * 256 * 4 * 2
    assert peak(1200) - peak(300) < 900 * image_bytes + (4 << 20)


@compiled
@pytest.mark.parametrize("name", ["m-x4", "deblock"])
def test_what_an_image_leaves_in_memory_is_not_seen_by_the_next(name: str) -> None:
    """A session keeps its memory for the next image; results are those of a new session, whatever came before."""
    spec = SMALL[name]
    packed = random_model(spec)
    with CpuEngine(2).open(packed) as session:
        for size in ((40, 70), (17, 33), (40, 70), (41, 72), (1, 1), (40, 64)):
            x = picture(spec, *size)
            np.testing.assert_array_equal(session.run(x), CpuEngine(2).open(packed).run(x))


def test_bench_compares_before_it_times() -> None:
    """The report has one row per engine, outputs that agree, and figures that follow from each other."""
    report = run_bench("denoise", SMALL["denoise"], (12, 40), runs=1, threads=2, reference=False)
    assert [row.threads for row in report.engines] == [1, 2]
    assert report.engines[1].difference == 0
    fields = report.to_dict()
    assert (fields["schema"], fields["size"]) == (2, {"width": 40, "height": 12})
    assert fields["engines"][0]["speedup"] >= 1 or fields["engines"][1]["speedup"] >= 1
    assert report.layer is not None
    assert report.layer.share == report.layer.roofline / report.layer.fused
    with pytest.raises(UsageError):
        run_bench("denoise", SMALL["denoise"], (0, 40), runs=1)


def test_binary_layers_of_the_published_networks() -> None:
    """Work per input pixel in units of one layer, as the paper's operation counts have it."""
    assert binary_layers(sr_spec("m", 4)) == 68
    assert binary_layers(sr_spec("m", 2)) == 40
    assert binary_layers(DENOISE_SPEC) == 18
    assert binary_layers(sr_spec("l", 4)) is None


@compiled
@pytest.mark.parametrize("kernel", SETS)
def test_golden_network_on_every_kernel_set(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the published code computed comes out of every kernel set; the tolerance is float32 rounding."""
    monkeypatch.setenv("BBCU_KERNEL", kernel)
    output = CpuEngine(2).open(golden_model("bbcu-m-x2")).run(golden_input("bbcu-m-x2"))
    np.testing.assert_allclose(output, golden_output("bbcu-m-x2"), atol=2e-5)
