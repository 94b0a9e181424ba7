// One kind of work of a kernel set, so many times over: what it takes is the difference of two counts of instructions.
// Arguments: kernel set, work (layer, enlarge, head, conv or tail), image width, turns. Prints the pixels of one turn.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "buffers.h"
#include "dispatch.h"

using namespace bbcu;

namespace {

void fill(std::mt19937_64& random, float* to, size_t count) {
    std::uniform_real_distribution<float> value(-1, 1);
    for (size_t i = 0; i < count; ++i) to[i] = value(random);
}

FloatRow float_row(std::mt19937_64& random, size_t channels, const RowShape& shape) {
    FloatRow row(channels, shape);
    for (size_t c = 0; c < channels; ++c) fill(random, row.data() + c * shape.stride, shape.width);
    return row;
}

// A fused layer on the rows that the set likes to take at once; with step 2, an enlargement of each to two rows.
size_t binary(const KernelSet& set, std::mt19937_64& random, const RowShape& shape, size_t step, size_t turns) {
    const size_t count = set.rows_at_once(shape.width);
    const RowShape large(step * shape.width);
    float threshold[kFeatures] = {};
    UnitParams unit{};
    for (size_t c = 0; c < kFeatures; ++c) unit.scale[c] = 0.01f, unit.slope[c] = 0.25f;
    Buffer<uint8_t> weights[kMaxStep], packed[kMaxRows + 2], out_packed[kMaxRows];
    for (size_t j = 0; j < step; ++j) {
        uint64_t signs[kFeatures * kTaps];
        for (uint64_t& word : signs) word = random();
        weights[j] = Buffer<uint8_t>(set.weight_bytes);
        set.pack_weights(signs, weights[j].data());
    }
    Buffer<int16_t> taps(shape.stride);
    for (size_t x = 0; x < shape.width; ++x) taps[x] = kFeatures * kTaps;
    FloatRow floats[kMaxRows + 2], out[kMaxRows];
    for (size_t r = 0; r < count + 2; ++r) {
        floats[r] = float_row(random, kFeatures, shape);
        packed[r] = Buffer<uint8_t>(set.packed_row_bytes(shape.width));
        set.pack_row(floats[r].data(), shape.stride, shape.width, threshold, packed[r].data());
    }
    BinaryRow tasks[kMaxRows] = {};
    for (size_t r = 0; r < count; ++r) {
        out[r] = FloatRow(kFeatures, large);
        out_packed[r] = Buffer<uint8_t>(set.packed_row_bytes(large.width));
        BinaryRow& task = tasks[r];
        for (size_t dy = 0; dy < 3; ++dy) task.rows[dy] = packed[r + dy].data();
        for (size_t j = 0; j < step; ++j) {
            task.weights[j] = weights[j].data();
            task.unit[j] = &unit;
        }
        task.step = step;
        task.taps = taps.data();
        task.residual = floats[r].data();
        task.stride = shape.stride;
        task.out = step > 1 ? out[r].data() : floats[r].data();
        task.out_stride = large.stride;
        task.width = shape.width;
        task.leak = 1;
        task.threshold = threshold;
        task.packed = out_packed[r].data();
    }
    for (size_t turn = 0; turn < turns; ++turn) set.binary_rows(tasks, count);
    return count * shape.width;
}

size_t convolution(const KernelSet& set, std::mt19937_64& random, const RowShape& shape, size_t c_in, size_t turns) {
    FloatRow in[3] = {float_row(random, c_in, shape), float_row(random, c_in, shape), float_row(random, c_in, shape)};
    FloatRow out(kFeatures, shape);
    std::vector<float> weight(kFeatures * c_in * kTaps), bias(kFeatures);
    fill(random, weight.data(), weight.size());
    const std::vector<float> packed = pack_conv_weights(weight.data(), kFeatures, c_in, 1);
    ConvRows task{};
    task.count = 1;
    for (size_t dy = 0; dy < 3; ++dy) task.rows[dy] = in[dy].data();
    task.in_stride = task.out_stride = shape.stride;
    task.c_in = c_in;
    task.weights = packed.data();
    task.bias = bias.data();
    task.out[0] = out.data();
    task.c_out = kFeatures;
    task.width = shape.width;
    task.leak = 0.1f;
    for (size_t turn = 0; turn < turns; ++turn) set.conv_rows(task);
    return shape.width;
}

size_t tail(const KernelSet& set, std::mt19937_64& random, const RowShape& shape, size_t turns) {
    constexpr size_t channels = 3;
    FloatRow in = float_row(random, kFeatures, shape);
    FloatRow taps[3] = {FloatRow(kTaps * channels, shape), FloatRow(kTaps * channels, shape),
                        FloatRow(kTaps * channels, shape)};
    FloatRow out(channels, shape);
    std::vector<float> weight(channels * kFeatures * kTaps), bias(channels);
    fill(random, weight.data(), weight.size());
    const std::vector<float> packed = pack_tap_weights(weight.data(), channels);
    const TapRow task{in.data(),      shape.stride, packed.data(), kTaps * channels,
                      taps[0].data(), shape.stride, shape.width};
    const TapSum sum{
        {taps[0].data(), taps[1].data(), taps[2].data()}, shape.stride, bias.data(), out.data(), channels, shape.width};
    for (size_t turn = 0; turn < turns; ++turn) {
        set.tap_row(task);
        set.sum_taps(sum);
    }
    return shape.width;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: work KERNELS layer|enlarge|head|conv|tail WIDTH TURNS\n");
        return 2;
    }
    const KernelSet& set = choose_kernel_set(argv[1]);
    const std::string what = argv[2];
    const RowShape shape(std::strtoul(argv[3], nullptr, 10));
    const size_t turns = std::strtoul(argv[4], nullptr, 10);
    std::mt19937_64 random(1);
    size_t pixels = 0;
    if (what == "layer")
        pixels = binary(set, random, shape, 1, turns);
    else if (what == "enlarge")
        pixels = binary(set, random, shape, 2, turns);
    else if (what == "head")
        pixels = convolution(set, random, shape, 3, turns);
    else if (what == "conv")
        pixels = convolution(set, random, shape, kFeatures, turns);
    else if (what == "tail")
        pixels = tail(set, random, shape, turns);
    std::printf("%zu\n", pixels);
    return pixels ? 0 : 2;
}
