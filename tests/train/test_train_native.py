"""The native training kernels against torch: values, every gradient, and results that depend on nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from bbcu_cli.errors import UsageError
from bbcu_cli.models.binary import BinaryUnit, Simulation, sign, simulate
from bbcu_cli.models.native import training_kernels
from bbcu_cli.native import compiled
from bbcu_cli.train.arithmetic import Arithmetic, choose_arithmetic

CPU = torch.device("cpu")


def _sets() -> list[str]:
    def runs(name: str) -> bool:
        try:
            return training_kernels(name) == name
        except ValueError:
            return False

    return [name for name in ("amx", "avx512", "avx2", "scalar") if compiled is not None and runs(name)]


SETS = _sets()
pytestmark = pytest.mark.skipif(not SETS, reason="the compiled module is missing")

# (images, height, width, step, bias, window)
CASES = [
    (1, 1, 1, 1, False, 1.0),
    (2, 1, 5, 2, False, 1.0),
    (1, 5, 1, 3, False, 2.0),
    (2, 7, 9, 1, True, 1.0),
    (1, 3, 70, 1, True, 0.5),
    (1, 13, 34, 2, False, 1.0),
    (1, 2, 450, 1, False, 1.0),
    (3, 24, 24, 1, False, 1.0),
    (3, 30, 40, 1, False, 1.0),
    (2, 13, 40, 2, False, 1.0),
]

# What takes part in products of signs and quantised gradients.
QUANTISED = ("x", "move0.bias", "binary_conv.weight")


def _unit(step: int, *, bias: bool) -> BinaryUnit:
    unit = BinaryUnit(64, step, bias=bias)
    with torch.no_grad():
        for name, parameter in unit.named_parameters():
            spread = 0.7 if "weight" in name and parameter.ndim == 4 else 0.3  # some |W| are above 1
            parameter.copy_(spread * torch.randn_like(parameter))
    return unit


def _tensors(case: tuple[int, int, int, int, bool, float]) -> tuple[BinaryUnit, Tensor, Tensor]:
    """A unit, its input, and a gradient of its output with a long tail, as losses give them."""
    n, height, width, step, bias, _ = case
    torch.manual_seed(height * width + step)
    unit = _unit(step, bias=bias)
    x = torch.randn(n, 64, height, width)
    shape = (n, 64, step * height, step * width)
    return unit, x, 1e-6 * torch.randn(shape) * torch.randn(shape).exp()


def _run(unit: BinaryUnit, x: Tensor, grad: Tensor, simulation: Simulation) -> dict[str, Tensor]:
    simulate(unit, simulation)
    unit.zero_grad()
    x = x.clone().requires_grad_()
    y = unit(x)
    y.backward(grad)
    assert x.grad is not None
    return {
        "y": y.detach(),
        "x": x.grad,
        **{n: p.grad.clone() for n, p in unit.named_parameters() if p.grad is not None},
    }


def _quantised(unit: BinaryUnit, x: Tensor, grad: Tensor, window: float) -> dict[str, Tensor]:
    """The gradients of the input and the weights by definition: whole numbers of 9 bits, multiplied exactly.

    The way to those numbers is float32, operation by operation as in the kernels, so that all are rounded alike. For
    the weights, images of together 1200 pixels at most (of the output) have one scale.
    """
    weight = unit.binary_conv.weight.detach()
    channels = (1, -1, 1, 1)
    alpha = weight.double().abs().mean(dim=(1, 2, 3)).float().view(channels)
    bias, bias0, slope = (
        torch.zeros(len(weight)) if p is None else p.detach().flatten()
        for p in (unit.binary_conv.bias, unit.relu.pr_bias0.bias, unit.relu.pr_prelu.weight)
    )
    shifted = x + unit.move0.bias.detach()
    signs, weight_signs = sign(shifted).double(), sign(weight).double()
    y = F.conv2d(signs, weight_signs, padding=1).float() * alpha + bias.view(channels) + bias0.view(channels)
    unshuffled = F.pixel_unshuffle(grad, unit.step)
    gradient = torch.where(y > 0, unshuffled, unshuffled * slope.view(channels))
    for_input = 255 / (gradient * alpha).abs().amax(dim=(1, 2, 3), keepdim=True)
    together = max(1200 // (unit.step**2 * x.shape[2] * x.shape[3]), 1)
    for_weight = torch.cat([255 / part.abs().amax(dim=(0, 2, 3), keepdim=True).expand_as(part)
                            for part in gradient.split(together)])  # fmt: skip
    to_signs = (
        F.conv_transpose2d((gradient * (alpha * for_input)).round().double(), weight_signs, padding=1) / for_input
    )
    to_weight = conv2d_weight(signs, weight.shape, (gradient * for_weight).round().double() / for_weight, padding=1)
    to_shifted = to_signs * (2 / window - 2 / window**2 * shifted.abs()).clamp_min(0)
    residual = F.avg_pool2d(grad.double(), unit.step, divisor_override=1)
    return {
        "x": residual + to_shifted,
        "move0.bias": to_shifted.sum(dim=(0, 2, 3), keepdim=True),
        "binary_conv.weight": to_weight * (weight.abs() <= 1),
    }


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_torch(case: tuple[int, int, int, int, bool, float], kernels: str) -> None:
    """Against torch in float64: what enters no product with signs to float32 rounding, products to that of 9 bits."""
    unit, x, grad = _tensors(case)
    ours = _run(unit, x, grad, Simulation(window=case[-1], kernels=kernels))
    truth = _run(unit.double(), x.double(), grad.double(), Simulation(window=case[-1]))
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        error = (ours[name] - expected).norm() / expected.norm()
        most = 0.06 if name in QUANTISED else 3e-7 if name == "y" else 1e-5
        assert error < most, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("case", CASES)
def test_products_of_quantised_gradients_are_exact(case: tuple[int, int, int, int, bool, float], kernels: str) -> None:
    """Rounding to 9 bits is all that products lose."""
    unit, x, grad = _tensors(case)
    ours = _run(unit, x, grad, Simulation(window=case[-1], kernels=kernels))
    for name, expected in _quantised(unit, x, grad, case[-1]).items():
        error = (ours[name] - expected).norm() / expected.norm()
        assert error < 1e-6, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("flipped", [1, -1])
def test_sums_at_their_bounds_are_exact(flipped: int, kernels: str) -> None:
    """Signs that all agree and gradients that are all the largest fill the kernels' narrow sums and spill nothing."""
    unit = _unit(1, bias=False)
    with torch.no_grad():
        unit.binary_conv.weight.copy_(flipped * 0.5 * torch.ones_like(unit.binary_conv.weight))
        unit.relu.pr_prelu.weight.fill_(1)
        unit.move0.bias.zero_()
    x, grad = torch.full((2, 64, 20, 45), 0.25), torch.ones(2, 64, 20, 45)
    ours = _run(unit, x, grad, Simulation(kernels=kernels))
    for name, expected in _quantised(unit, x, grad, 1.0).items():
        assert torch.allclose(ours[name].double(), expected, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("case", CASES)
def test_kernel_sets_and_threads_agree_to_the_bit(case: tuple[int, int, int, int, bool, float]) -> None:
    """Sums are whole numbers, or taken in one order: no set and no number of threads changes a bit."""
    unit, x, grad = _tensors(case)
    threads = torch.get_num_threads()
    results = []
    try:
        for kernels in SETS:
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                results.append(_run(unit, x, grad, Simulation(window=case[-1], kernels=kernels)))
    finally:
        torch.set_num_threads(threads)
    for one, other in pairwise(results):
        for name in one:
            assert torch.equal(one[name], other[name]), name


def test_layouts_of_weights_and_gradients_do_not_matter() -> None:
    """Contiguous, channels-last and expanded tensors give the same."""
    unit, x, grad = _tensors((2, 6, 8, 2, False, 1.0))
    simulation = Simulation(kernels=SETS[0])
    plain = _run(unit, x, grad, simulation)
    last = torch.channels_last
    other = _run(
        unit.to(memory_format=last), x.contiguous(memory_format=last), grad.contiguous(memory_format=last), simulation
    )
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    ones = grad[:, :1, :1, :1].expand_as(grad)
    assert torch.equal(_run(unit, x, ones, simulation)["x"], _run(unit, x, ones.contiguous(), simulation)["x"])


def test_a_gradient_of_nothing_is_nothing_and_nan_stays_nan() -> None:
    """Fixed point has a scale to find: zeros give zeros, and what is not finite is not hidden."""
    unit, x, grad = _tensors((1, 4, 6, 1, False, 1.0))
    simulation = Simulation(kernels=SETS[0])
    assert not any(g.any() for name, g in _run(unit, x, torch.zeros_like(grad), simulation).items() if name != "y")
    for poison in (float("nan"), float("inf")):
        spoilt = grad.clone()
        spoilt[0, 3, 2, 1] = poison
        ours = _run(unit, x, spoilt, simulation)
        assert not ours["x"].isfinite().all()
        assert not ours["binary_conv.weight"].isfinite().all()


def test_tiny_gradients_keep_their_digits() -> None:
    """Scales follow the gradient: a power of two changes no digit."""
    unit, x, grad = _tensors((1, 8, 8, 1, False, 1.0))
    simulation = Simulation(kernels=SETS[0])
    plain, tiny = (_run(unit, x, factor * grad, simulation) for factor in (1.0, 2.0**-60))
    assert torch.equal(plain["x"] * 2.0**-60, tiny["x"])
    assert torch.equal(plain["binary_conv.weight"] * 2.0**-60, tiny["binary_conv.weight"])


def test_no_gradient_wanted() -> None:
    """Validation takes the same values without keeping what only a gradient needs."""
    unit, x, grad = _tensors((1, 5, 6, 2, False, 1.0))
    simulation = Simulation(kernels=SETS[0])
    expected = _run(unit, x, grad, simulation)["y"]
    with torch.no_grad():
        assert torch.equal(unit(x), expected)


def test_torch_computes_what_the_kernels_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other widths, float64 and the full-precision twin take torch's path."""
    calls = []
    monkeypatch.setattr(BinaryUnit, "_native", lambda *_: calls.append(1))
    narrow = BinaryUnit(16)
    for unit, x, simulation in (
        (narrow, torch.zeros(1, 16, 3, 3), Simulation(kernels=SETS[0])),
        (_unit(1, bias=False).double(), torch.zeros(1, 64, 3, 3, dtype=torch.float64), Simulation(kernels=SETS[0])),
        (_unit(1, bias=False), torch.zeros(1, 64, 3, 3), Simulation(kernels=SETS[0], twin=True)),
    ):
        simulate(unit, simulation)
        assert unit(x).shape == x.shape
    assert not calls


def test_environment_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """BBCU_KERNEL names the set, or torch; what is not there is refused in a sentence."""
    for name in SETS:
        monkeypatch.setenv("BBCU_KERNEL", name)
        assert choose_arithmetic(CPU, compiled=False).kernels == name
    assert choose_arithmetic(CPU, compiled=True).kernels is None
    monkeypatch.setenv("BBCU_KERNEL", "torch")
    assert choose_arithmetic(CPU, compiled=False).kernels is None
    monkeypatch.setenv("BBCU_KERNEL", "abacus")
    with pytest.raises(UsageError, match="abacus"):
        choose_arithmetic(CPU, compiled=False)
    assert choose_arithmetic(torch.device("cuda"), compiled=True) == Arithmetic(half_products=True)
