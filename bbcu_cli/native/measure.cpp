// One binary layer by itself, for `bbcu bench`: what the hardware allows, and what the fused layer takes of it.

#include <chrono>
#include <random>

#include "buffers.h"

namespace bbcu {

LayerTimes measure_layer(const KernelSet& kernels, size_t width, size_t layers) {
    const RowShape shape(width);
    std::mt19937_64 random(1);
    std::uniform_real_distribution<float> pixel(-20, 20);
    std::vector<uint64_t> signs(kFeatures * kTaps);
    UnitParams unit{};
    alignas(kAlign) float threshold[kFeatures] = {};
    for (size_t c = 0; c < kFeatures; ++c) {
        unit.scale[c] = 0.01f;
        unit.slope[c] = 0.25f;
    }
    Buffer<int16_t> taps(shape.stride);
    for (size_t x = 0; x < width; ++x) taps[x] = kFeatures * kTaps;

    // As in a run, every layer has its own weights, packed rows and floats.
    struct Layer {
        FloatRow floats;
        Buffer<uint8_t> weights, packed[4];
    };
    std::vector<Layer> all(layers);
    for (Layer& layer : all) {
        layer.floats = FloatRow(kFeatures, shape);
        for (size_t c = 0; c < kFeatures; ++c)
            for (size_t x = 0; x < width; ++x) layer.floats.data()[c * shape.stride + x] = pixel(random);
        for (auto& word : signs) word = random();
        layer.weights = Buffer<uint8_t>(kernels.weight_bytes);
        kernels.pack_weights(signs.data(), layer.weights.data());
        for (auto& packed : layer.packed) {
            packed = Buffer<uint8_t>(kernels.packed_row_bytes(width));
            kernels.pack_row(layer.floats.data(), shape.stride, width, threshold, packed.data());
        }
    }

    const auto per_pixel = [&](auto&& layer_row) {
        const auto start = std::chrono::steady_clock::now();
        for (Layer& layer : all) {
            const uint8_t* const rows[3] = {layer.packed[0].data(), layer.packed[1].data(), layer.packed[2].data()};
            layer_row(layer, rows);
        }
        const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
        return took.count() / static_cast<double>(layers * width);
    };
    uint8_t sink[kFeatures] = {};
    const auto bare = [&](Layer& layer, const uint8_t* const rows[3]) {
        kernels.bare_row(rows, layer.weights.data(), width, sink);
    };
    const auto fused = [&](Layer& layer, const uint8_t* const rows[3]) {
        BinaryRow task{};
        for (size_t dy = 0; dy < 3; ++dy) task.rows[dy] = rows[dy];
        task.weights = layer.weights.data();
        task.unit = &unit;
        task.taps = taps.data();
        task.residual = task.out = layer.floats.data();
        task.stride = shape.stride;
        task.width = width;
        task.leak = 1;
        task.threshold = threshold;
        task.packed = layer.packed[3].data();
        kernels.binary_rows(&task, 1);
    };
    per_pixel(bare);
    per_pixel(fused);
    // The halves of each pair surround the other, so that a change of clock falls on both.
    const double first = per_pixel(bare), middle = per_pixel(fused), last = per_pixel(bare);
    volatile uint8_t keep = sink[0];
    (void)keep;
    return {(first + last) / 2, middle};
}

}  // namespace bbcu
