"""The units of the networks in torch: twins of full precision, and products in half precision."""

from __future__ import annotations

import pytest
import torch

from bbcu_cli.models.binary import BBCUB, BBCUU, Simulation, simulate


def test_half_products_are_exact_and_their_gradients_close() -> None:
    """Signs multiplied in float16 give the float32 result; the gradients differ by bfloat16's rounding."""
    torch.manual_seed(0)
    unit = BBCUB(32)
    with torch.no_grad():
        unit.binary_conv.weight[0, 0] = 1.5  # outside the gradient's window
        unit.relu.pr_bias0.bias += 0.01  # sums of 0 stay clear of PReLU's kink, where rounding would choose the branch
    gradients, outputs = [], []
    for half in (False, True):
        simulate(unit, Simulation(half_products=half))
        x = torch.randn(2, 32, 7, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
        outputs.append(unit(x))
        outputs[-1].square().mean().backward()
        gradients.append((x.grad, unit.binary_conv.weight.grad))
        unit.zero_grad()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for exact, half in zip(*gradients, strict=True):
        assert exact is not None
        assert half is not None
        assert (half - exact).abs().max() < 0.01 * exact.abs().max()
    assert (gradients[1][1][0, 0] == 0).all()


def test_nothing_of_the_twin_is_binary() -> None:
    """Latent weights and shifted inputs act as they are."""
    unit = BBCUB(4)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    simulate(unit, Simulation(twin=True))
    expected = x + unit.relu(torch.nn.functional.conv2d(unit.move0(x), unit.binary_conv.weight, padding=1))
    torch.testing.assert_close(unit(x), expected)


def test_a_twin_may_multiply_in_bfloat16() -> None:
    """Result and gradients are those of float32 but for the rounding of factors to 8 bits, and stay float32."""
    torch.manual_seed(0)
    unit = BBCUB(64, bias=True)
    found = []
    for half in (False, True):
        simulate(unit, Simulation(twin=True, half_products=half))
        x = torch.randn(2, 64, 7, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = unit(x)
        y.square().mean().backward()
        found.append((y.detach() - x.detach(), x.grad, unit.binary_conv.weight.grad, unit.binary_conv.bias.grad))
        unit.zero_grad()
    for exact, half in zip(*found, strict=True):
        assert half.dtype == torch.float32
        assert 0 < (half - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("height", [1, 2, 3, 7])
def test_a_twin_in_bands_is_the_twin_in_one_piece(step: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients a twin's unit takes some rows at a time, each with the row above and below."""
    torch.manual_seed(0)
    unit = BBCUU(4, step) if step > 1 else BBCUB(4)
    unit.move0.bias.data += 0.3
    simulate(unit, Simulation(twin=True))
    x = torch.randn(2, 4, height, 5)
    whole = unit(x).detach()
    for pixels in (1, 12, 1000):
        monkeypatch.setattr("bbcu_cli.models.binary._BAND", pixels)
        with torch.no_grad():
            torch.testing.assert_close(unit(x), whole)
