// The file that knows Python, with train/bindings.cpp: checks dtypes, shapes and contiguity, raises, releases the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <stdexcept>

#include "dispatch.h"
#include "engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bbcu::train {
void bind(nb::module_& m);  // train/bindings.cpp
}

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const uint64_t, nb::c_contig, nb::device::cpu>;
using Image = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class Array>
void require_aligned(const Array& array, const char* name) {
    if (reinterpret_cast<uintptr_t>(array.data()) % alignof(typename Array::Scalar))
        throw std::invalid_argument(std::string(name) + " does not begin at a multiple of its element size");
}

template <class Array>
const typename Array::Scalar* checked(const Array& array, size_t size, const char* name) {
    require_aligned(array, name);
    if (array.size() != size)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) +
                                    " elements, expected " + std::to_string(size));
    return array.data();
}

size_t parts(size_t step) {
    if (step < 1 || step > 4) throw std::invalid_argument("an up-sampling step is not 1..4");
    return step * step * bbcu::kFeatures;
}

void add_head(bbcu::Network& net, const Floats& weight, const Floats& bias, float leak) {
    net.add_head(checked(weight, bbcu::kFeatures * net.channels() * bbcu::kTaps, "head weight"),
                 checked(bias, bbcu::kFeatures, "head bias"), leak);
}

void add_binary(bbcu::Network& net, const Words& signs, const Floats& scale, const Floats& bias, const Floats& slope,
                const Floats& offset, const Floats& shift, size_t step, float leak) {
    const size_t n = parts(step);
    net.add_binary(checked(signs, n * bbcu::kTaps, "signs"), checked(scale, n, "scale"), checked(bias, n, "bias"),
                   checked(slope, n, "slope"), checked(offset, n, "offset"), checked(shift, bbcu::kFeatures, "shift"),
                   step, leak);
}

void add_conv(bbcu::Network& net, const Floats& weight, const Floats& bias, size_t step, float leak) {
    const size_t n = parts(step);
    net.add_conv(checked(weight, n * bbcu::kFeatures * bbcu::kTaps, "weight"), checked(bias, n, "bias"), step, leak);
}

void add_tail(bbcu::Network& net, const Floats& weight, const Floats& bias) {
    net.add_tail(checked(weight, net.channels() * bbcu::kFeatures * bbcu::kTaps, "tail weight"),
                 checked(bias, net.channels(), "tail bias"));
}

void run(const bbcu::Network& net, const Image& image, const Output& output, size_t threads,
         const std::optional<nb::callable>& progress) {
    const size_t height = image.shape(1), width = image.shape(2);
    if (image.shape(0) != net.channels()) throw std::invalid_argument("the image has another number of channels");
    if (output.shape(0) != net.channels() || output.shape(1) != height * net.scale() ||
        output.shape(2) != width * net.scale())
        throw std::invalid_argument("the output has another shape");
    require_aligned(image, "the image");
    require_aligned(output, "the output");
    const nb::gil_scoped_release release;
    net.run(image.data(), height, width, output.data(), threads, [&](double share) {
        const nb::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals()) throw nb::python_error();
        if (progress) (*progress)(share);
    });
}

nb::list describe_kernel_sets() {
    nb::list sets;
    for (const bbcu::KernelSet* set : bbcu::kernel_sets()) {
        nb::dict row;
        row["name"] = set->cpu->name;
        row["description"] = set->description;
        row["required_features"] = set->cpu->required_features;
        row["supported"] = set->cpu->supported();
        sets.append(row);
    }
    return sets;
}

std::string choose(const std::string& name) { return bbcu::choose_kernel_set(name).cpu->name; }

nb::tuple measure_layer(const std::string& name, size_t width, size_t layers) {
    if (width < 1 || width > (size_t{1} << 16) || layers < 1 || layers > 256)
        throw std::invalid_argument("width is not in 1..65536 or layers not in 1..256");
    const bbcu::KernelSet& kernels = bbcu::choose_kernel_set(name);
    bbcu::LayerTimes times{};
    {
        const nb::gil_scoped_release release;
        times = bbcu::measure_layer(kernels, width, layers);
    }
    return nb::make_tuple(times.bare, times.fused);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The packed CPU engine.";
    m.def("kernel_sets", &describe_kernel_sets,
          "Every kernel set of this build, best first: name, description, required_features, supported.");
    m.def("choose_kernel_set", &choose, "name"_a,
          "Name of the kernel set that `name` stands for; empty: the best here. ValueError: unknown or unsupported.");

    m.def("measure_layer", &measure_layer, "kernels"_a, "width"_a, "layers"_a,
          "Nanoseconds per pixel of a 64 -> 64 layer on one thread: the bare product, and the whole fused layer.");

    bbcu::train::bind(m);

    nb::class_<bbcu::Network>(m, "Network", "A chain of stages on one kernel set; add_* in order, then run.")
        .def(
            "__init__",
            [](bbcu::Network* self, const std::string& kernels, size_t channels, float k, bool subtract) {
                new (self) bbcu::Network(bbcu::choose_kernel_set(kernels), channels, k, subtract);
            },
            "kernels"_a, "channels"_a, "k"_a, "subtract"_a)
        .def_prop_ro("scale", &bbcu::Network::scale)
        .def("add_head", &add_head, "weight"_a, "bias"_a, "leak"_a)
        .def("add_binary", &add_binary, "signs"_a, "scale"_a, "bias"_a, "slope"_a, "offset"_a, "shift"_a, "step"_a,
             "leak"_a)
        .def("add_conv", &add_conv, "weight"_a, "bias"_a, "step"_a, "leak"_a)
        .def("add_tail", &add_tail, "weight"_a, "bias"_a)
        .def("run", &run, "image"_a, "output"_a, "threads"_a, "progress"_a.none() = nb::none(),
             "float32 (C, H, W) -> output (C, S*H, S*W), written in place. progress(share) is called about 10 times a "
             "second. MemoryError, KeyboardInterrupt, and what progress raises.");
}
