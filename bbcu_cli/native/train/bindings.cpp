// Training, for Python: checks dtypes, shapes and contiguity, raises, and releases the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <stdexcept>

#include "unit.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bbcu::train {
namespace {

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using In = Array<const float>;
using Out = Array<float>;

template <class T>
T* checked(const Array<T>& array, size_t size, const char* name) {
    if (array.size() != size)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) +
                                    " elements, expected " + std::to_string(size));
    if (reinterpret_cast<uintptr_t>(array.data()) % alignof(T))
        throw std::invalid_argument(std::string(name) + " does not begin at a multiple of its element size");
    return array.data();
}

Shape shape_of(const In& x, size_t step) {
    if (x.ndim() != 4 || x.shape(3) != kFeatures) throw std::invalid_argument("x is not (N, H, W, 64)");
    if (x.size() == 0) throw std::invalid_argument("x is empty");
    checked(x, x.size(), "x");
    if (x.shape(1) * x.shape(2) > kMaxPixels)
        throw std::invalid_argument("an image of x has more than " + std::to_string(kMaxPixels) + " pixels");
    if (step < 1 || step > 4) throw std::invalid_argument("the up-sampling step is not 1..4");
    return {x.shape(0), x.shape(1), x.shape(2), step};
}

Unit unit_of(const Shape& shape, const In& shift, const In& weight, const std::optional<In>& bias, const In& bias0,
             const In& slope, const In& bias1) {
    const size_t n = shape.groups() * kFeatures;
    return {checked(shift, kFeatures, "shift"),
            checked(weight, n * kTaps * kFeatures, "weight"),
            bias ? checked(*bias, n, "bias") : nullptr,
            checked(bias0, n, "bias0"),
            checked(slope, n, "slope"),
            checked(bias1, n, "bias1")};
}

void run_forward(const std::string& kernels, size_t step, size_t threads, const In& x, const In& shift,
                 const In& weight, const std::optional<In>& bias, const In& bias0, const In& slope, const In& bias1,
                 const Out& out, const Array<int64_t>& words, const std::optional<Array<int16_t>>& sums) {
    const Kernels& set = choose_kernels(kernels);
    const Shape shape = shape_of(x, step);
    const Unit unit = unit_of(shape, shift, weight, bias, bias0, slope, bias1);
    const size_t values = shape.pixels() * shape.groups() * kFeatures;
    float* to = checked(out, values, "out");
    auto* signs = reinterpret_cast<uint64_t*>(checked(words, shape.pixels(), "words"));
    int16_t* kept = sums ? checked(*sums, values, "sums") : nullptr;
    const nb::gil_scoped_release release;
    forward(set, shape, unit, x.data(), to, signs, kept, threads);
}

void run_backward(const std::string& kernels, size_t step, size_t threads, float window, const In& x, const In& shift,
                  const In& weight, const std::optional<In>& bias, const In& bias0, const In& slope, const In& bias1,
                  const Array<const int64_t>& words, const Array<const int16_t>& sums, const In& grad, const Out& to_x,
                  const Out& to_shift, const Out& to_weight, const Out& to_bias0, const Out& to_slope,
                  const Out& to_bias1) {
    const Kernels& set = choose_kernels(kernels);
    const Shape shape = shape_of(x, step);
    if (!(window > 0)) throw std::invalid_argument("window is not positive");
    const Unit unit = unit_of(shape, shift, weight, bias, bias0, slope, bias1);
    const size_t n = shape.groups() * kFeatures, values = shape.pixels() * n;
    const auto* signs = reinterpret_cast<const uint64_t*>(checked(words, shape.pixels(), "words"));
    const int16_t* kept = checked(sums, values, "sums");
    const float* from = checked(grad, values, "grad");
    const Gradients gradients{checked(to_x, x.size(), "to_x"),
                              checked(to_shift, kFeatures, "to_shift"),
                              checked(to_weight, weight.size(), "to_weight"),
                              checked(to_bias0, n, "to_bias0"),
                              checked(to_slope, n, "to_slope"),
                              checked(to_bias1, n, "to_bias1")};
    const nb::gil_scoped_release release;
    backward(set, shape, unit, window, x.data(), signs, kept, from, gradients, threads);
}

}  // namespace

void bind(nb::module_& m) {
    m.def(
        "choose_training_kernels", [](const std::string& name) { return std::string(choose_kernels(name).cpu->name); },
        "name"_a,
        "Name of the training kernel set that `name` stands for; empty: the best here. ValueError: unknown or "
        "unsupported.");
    m.def("unit_forward", &run_forward, "kernels"_a, "step"_a, "threads"_a, "x"_a, "shift"_a, "weight"_a,
          "bias"_a.none(), "bias0"_a, "slope"_a, "bias1"_a, "out"_a, "words"_a, "sums"_a.none(),
          "One binary unit: x float32 (N, H, W, 64) -> out (N, S*H, S*W, 64), words int64 (N, H, W) and, unless None, "
          "sums int16 (N, H, W, S*S, 64), all written in place. weight is (64*S*S, 3, 3, 64).");
    m.def("unit_backward", &run_backward, "kernels"_a, "step"_a, "threads"_a, "window"_a, "x"_a, "shift"_a, "weight"_a,
          "bias"_a.none(), "bias0"_a, "slope"_a, "bias1"_a, "words"_a, "sums"_a, "grad"_a, "to_x"_a, "to_shift"_a,
          "to_weight"_a, "to_bias0"_a, "to_slope"_a, "to_bias1"_a,
          "All gradients of that unit, written in place, from that of its output. A bias has bias0's.");
}

}  // namespace bbcu::train
