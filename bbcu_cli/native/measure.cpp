// One binary layer by itself, for `bbcu bench`: the bare product, and the fused layer on as many rows as the engine
// takes at once. The fused layer of the AVX-512 set may be the faster: the bare loop is popcounts, the layer is not.

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

    // As in a run, every layer has its own weights and packed rows, and the residual's floats pass from layer to layer.
    const size_t count = kernels.rows_at_once(width);
    FloatRow floats[kMaxRows];
    for (size_t r = 0; r < count; ++r) {
        floats[r] = FloatRow(kFeatures, shape);
        for (size_t c = 0; c < kFeatures; ++c)
            for (size_t x = 0; x < width; ++x) floats[r].data()[c * shape.stride + x] = pixel(random);
    }
    struct Layer {
        Buffer<uint8_t> weights, in[kMaxRows + 2], out[kMaxRows];
    };
    std::vector<Layer> all(layers);
    for (Layer& layer : all) {
        for (auto& word : signs) word = random();
        layer.weights = Buffer<uint8_t>(kernels.weight_bytes);
        kernels.pack_weights(signs.data(), layer.weights.data());
        for (size_t r = 0; r < count; ++r) layer.out[r] = Buffer<uint8_t>(kernels.packed_row_bytes(width));
        for (size_t r = 0; r < count + 2; ++r) {
            layer.in[r] = Buffer<uint8_t>(kernels.packed_row_bytes(width));
            kernels.pack_row(floats[r % count].data(), shape.stride, width, threshold, layer.in[r].data());
        }
    }

    const auto per_pixel = [&](auto&& layer_rows) {
        const auto start = std::chrono::steady_clock::now();
        for (Layer& layer : all) layer_rows(layer);
        const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
        return took.count() / static_cast<double>(layers * count * width);
    };
    uint8_t sink[kFeatures] = {};
    const auto bare = [&](Layer& layer) {
        for (size_t r = 0; r < count; ++r) {
            const uint8_t* const rows[3] = {layer.in[r].data(), layer.in[r + 1].data(), layer.in[r + 2].data()};
            kernels.bare_row(rows, layer.weights.data(), width, sink);
        }
    };
    const auto fused = [&](Layer& layer) {
        BinaryRow tasks[kMaxRows] = {};
        for (size_t r = 0; r < count; ++r) {
            BinaryRow& task = tasks[r];
            for (size_t dy = 0; dy < 3; ++dy) task.rows[dy] = layer.in[r + dy].data();
            task.weights[0] = layer.weights.data();
            task.unit[0] = &unit;
            task.step = 1;
            task.taps = taps.data();
            task.residual = task.out = floats[r].data();
            task.stride = task.out_stride = shape.stride;
            task.width = width;
            task.leak = 1;
            task.threshold = threshold;
            task.packed = layer.out[r].data();
        }
        kernels.binary_rows(tasks, count);
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
