// Every kernel set against the scalar one, to the bit, on rows of many widths and at all image borders; whole networks
// on one to three threads.
//
// Stands alone (no Python), so that it runs under sanitizers and under qemu. Prints what it ran; exit code 1 on a
// difference. Arguments: names of kernel sets that must run (others run when the CPU supports them).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "buffers.h"
#include "dispatch.h"

namespace bbcu {
#if defined(BBCU_EMULATED_AVX512)
extern const KernelSet kAvx512;  // built on emulated/immintrin.h; not offered on a CPU without it
#endif
}  // namespace bbcu

using namespace bbcu;

namespace {

const KernelSet& scalar() { return *kernel_sets().back(); }

int failures = 0;

void check(bool holds, const KernelSet& set, const char* what, size_t width, size_t number) {
    if (holds) return;
    ++failures;
    std::printf("FAILED %s: %s, width %zu, case %zu\n", set.cpu->name, what, width, number);
}

struct Random {
    std::mt19937_64 engine;
    float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine); }
    void fill(float* to, size_t count, float low, float high) {
        for (size_t i = 0; i < count; ++i) to[i] = uniform(low, high);
    }
};

// Float rows with random pixels and zeros around them.
FloatRow random_row(Random& random, size_t channels, const RowShape& shape) {
    FloatRow row(channels, shape);
    for (size_t c = 0; c < channels; ++c) random.fill(row.data() + c * shape.stride, shape.width, -20, 20);
    return row;
}

bool same_pixels(FloatRow& a, FloatRow& b, size_t channels, const RowShape& shape) {
    for (size_t c = 0; c < channels; ++c)
        if (std::memcmp(a.data() + c * shape.stride, b.data() + c * shape.stride, shape.width * sizeof(float)))
            return false;
    return true;
}

// Equal but for a hundred-thousandth of the greatest.
bool near_pixels(FloatRow& a, FloatRow& b, const RowShape& shape) {
    float greatest = 0, difference = 0;
    for (size_t c = 0; c < kFeatures; ++c)
        for (size_t i = c * shape.stride; i < c * shape.stride + shape.width; ++i) {
            greatest = std::max(greatest, std::fabs(b.data()[i]));
            difference = std::max(difference, std::fabs(a.data()[i] - b.data()[i]));
        }
    return difference <= 1e-5f * greatest;
}

// Weights from random to as far from it as they come; sets that count by pattern of weights take other ways for each.
enum class Signs { random, equal_pairs, equal_outputs, one_channel, none, opposite };
constexpr Signs kAllSigns[] = {Signs::random,      Signs::equal_pairs, Signs::equal_outputs,
                               Signs::one_channel, Signs::none,        Signs::opposite};

std::vector<uint64_t> make_signs(Random& random, Signs kind) {
    std::vector<uint64_t> signs(kFeatures * kTaps);
    for (size_t i = 0; i < signs.size(); ++i) {
        const size_t output = i / kTaps;
        const uint64_t word = random.engine();
        switch (kind) {
            case Signs::random: signs[i] = word; break;
            case Signs::equal_pairs: signs[i] = output % 4 == 1 ? signs[i - kTaps] : word; break;
            case Signs::equal_outputs: signs[i] = output ? signs[i - kTaps] : word; break;
            case Signs::one_channel: signs[i] = uint64_t{1} << 5; break;
            case Signs::none:
            case Signs::opposite: signs[i] = 0; break;
        }
    }
    return signs;
}

UnitParams random_unit(Random& random) {
    UnitParams unit;
    random.fill(unit.scale, kFeatures, 0, 0.1f);
    random.fill(unit.bias, kFeatures, -1, 1);
    random.fill(unit.slope, kFeatures, -0.5f, 1.5f);
    random.fill(unit.offset, kFeatures, -1, 1);
    return unit;
}

// Per number of rows inside the image, as BinaryRow::taps.
std::vector<Buffer<int16_t>> make_taps(const RowShape& shape) {
    std::vector<Buffer<int16_t>> taps;
    for (int rows = 0; rows <= 3; ++rows) {
        taps.emplace_back(shape.stride);
        for (size_t x = 0; x < shape.width; ++x)
            taps.back()[x] = static_cast<int16_t>(64 * rows * (1 + (x > 0) + (x + 1 < shape.width)));
    }
    return taps;
}

// Two binary units on an image of a few rows, all taken at once; the second reads what the first packed.
// With step > 1 the second has PixelShuffle and every unit of it other weights.
std::vector<FloatRow> run_units(const KernelSet& set, Random random, const RowShape& shape, size_t height, Signs kind,
                                float leak, size_t step) {
    const float level = kind == Signs::opposite ? 100 : 0;  // every sign of the input is -1, every weight +1
    alignas(kAlign) float threshold[kFeatures];
    random.fill(threshold, kFeatures, level - 5, level + 5);
    std::vector<FloatRow> rows;
    std::vector<Buffer<uint8_t>> packed, next;
    for (size_t y = 0; y < height; ++y) {
        rows.push_back(random_row(random, kFeatures, shape));
        packed.emplace_back(set.packed_row_bytes(shape.width));
        next.emplace_back(set.packed_row_bytes(shape.width));
        set.pack_row(rows[y].data(), shape.stride, shape.width, threshold, packed[y].data());
    }
    const RowShape large(step * shape.width);
    std::vector<FloatRow> enlarged;
    std::vector<Buffer<uint8_t>> enlarged_packed;
    for (size_t y = 0; y < height; ++y) {
        enlarged.emplace_back(kFeatures, large);
        enlarged_packed.emplace_back(set.packed_row_bytes(large.width));
    }
    const std::vector<Buffer<int16_t>> taps = make_taps(shape);
    for (int pass = 0; pass < 2; ++pass) {
        const bool enlarge = pass == 1 && step > 1;
        Buffer<uint8_t> weights[kMaxStep];
        UnitParams units[kMaxStep];
        for (size_t j = 0; j < step; ++j) {
            weights[j] = Buffer<uint8_t>(set.weight_bytes);
            set.pack_weights(make_signs(random, j == 1 ? Signs::equal_pairs : kind).data(), weights[j].data());
            units[j] = random_unit(random);
        }
        BinaryRow tasks[kMaxRows] = {};
        for (size_t y = 0; y < height; ++y) {
            BinaryRow& task = tasks[y];
            task.rows[0] = y > 0 ? packed[y - 1].data() : nullptr;
            task.rows[1] = packed[y].data();
            task.rows[2] = y + 1 < height ? packed[y + 1].data() : nullptr;
            task.step = enlarge ? step : 1;
            for (size_t j = 0; j < task.step; ++j) {
                task.weights[j] = weights[j].data();
                task.unit[j] = &units[j];
            }
            task.taps = taps[1 + (y > 0) + (y + 1 < height)].data();
            task.residual = rows[y].data();
            task.out = enlarge ? enlarged[y].data() : rows[y].data();
            task.stride = shape.stride;
            task.out_stride = enlarge ? large.stride : shape.stride;
            task.width = shape.width;
            task.leak = leak;
            task.threshold = threshold;
            task.packed = enlarge ? enlarged_packed[y].data() : next[y].data();
        }
        set.binary_rows(tasks, height);
        std::swap(packed, next);
    }
    if (step == 1) return rows;
    // What was packed, as the next unit sees it.
    Buffer<uint8_t> weights(set.weight_bytes);
    set.pack_weights(make_signs(random, Signs::random).data(), weights.data());
    const UnitParams unit = random_unit(random);
    const std::vector<Buffer<int16_t>> large_taps = make_taps(large);
    for (size_t y = 0; y < height; ++y) {
        BinaryRow task{};
        task.rows[1] = enlarged_packed[y].data();
        task.weights[0] = weights.data();
        task.unit[0] = &unit;
        task.step = 1;
        task.taps = large_taps[1].data();
        task.residual = task.out = enlarged[y].data();
        task.stride = task.out_stride = large.stride;
        task.width = large.width;
        task.leak = leak;
        set.binary_rows(&task, 1);
    }
    return enlarged;
}

// `count` rows with one above and one below, or at the image's edges.
std::vector<FloatRow> run_conv(const KernelSet& set, Random random, const RowShape& shape, bool above, bool below,
                               size_t c_in, size_t count) {
    std::vector<FloatRow> rows, out;
    for (size_t y = 0; y < count + 2; ++y) rows.push_back(random_row(random, c_in, shape));
    for (size_t y = 0; y < count; ++y) out.emplace_back(kFeatures, shape);
    std::vector<float> weight(kFeatures * c_in * kTaps), bias(kFeatures);
    random.fill(weight.data(), weight.size(), -1, 1);
    random.fill(bias.data(), bias.size(), -1, 1);
    const std::vector<float> packed = pack_conv_weights(weight.data(), kFeatures, c_in, count);
    Buffer<float> scratch(kConvScratch);
    ConvRows task{};
    task.count = count;
    for (size_t y = 0; y < count + 2; ++y) task.rows[y] = rows[y].data();
    if (!above) task.rows[0] = nullptr;
    if (!below) task.rows[count + 1] = nullptr;
    for (size_t y = 0; y < count; ++y) task.out[y] = out[y].data();
    task.in_stride = task.out_stride = shape.stride;
    task.c_in = c_in;
    task.weights = packed.data();
    task.bias = bias.data();
    task.c_out = kFeatures;
    task.width = shape.width;
    task.leak = 0.1f;
    task.scratch = scratch.data();
    set.conv_rows(task);
    if (count == 1) return out;
    // The first and the last of these rows by themselves, but for rounding.
    const std::vector<float> single = pack_conv_weights(weight.data(), kFeatures, c_in, 1);
    FloatRow alone(kFeatures, shape);
    task.count = 1;
    task.weights = single.data();
    task.out[0] = alone.data();
    for (const size_t y : {size_t{0}, count - 1}) {
        for (size_t dy = 0; dy < 3; ++dy) task.rows[dy] = rows[y + dy].data();
        if (y == 0 && !above) task.rows[0] = nullptr;
        if (y == count - 1 && !below) task.rows[2] = nullptr;
        set.conv_rows(task);
        check(near_pixels(out[y], alone, shape), set, "rows at once", shape.width, 10 * count + y);
    }
    return out;
}

// A row of the last convolution, with its rows above and below or at the image's edges.
FloatRow run_taps(const KernelSet& set, Random random, const RowShape& shape, bool above, bool below, size_t c_out) {
    std::vector<float> weight(c_out * kFeatures * kTaps), bias(c_out);
    random.fill(weight.data(), weight.size(), -1, 1);
    random.fill(bias.data(), c_out, -1, 1);
    const std::vector<float> packed = pack_tap_weights(weight.data(), c_out);
    std::vector<FloatRow> taps;
    for (size_t dy = 0; dy < 3; ++dy) {
        FloatRow in = random_row(random, kFeatures, shape);
        taps.emplace_back(kTaps * c_out, shape);
        TapRow task{in.data(), shape.stride, packed.data(), kTaps * c_out, taps[dy].data(), shape.stride, shape.width};
        set.tap_row(task);
        for (size_t p = 0; p < task.planes; ++p) task.out[p * shape.stride + shape.width] = 0;
    }
    FloatRow out(c_out, shape);
    const TapSum sum{{above ? taps[0].data() : nullptr, taps[1].data(), below ? taps[2].data() : nullptr},
                     shape.stride,
                     bias.data(),
                     out.data(),
                     c_out,
                     shape.width};
    set.sum_taps(sum);
    return out;
}

bool same_interleaved(const KernelSet& set, Random random, size_t width, size_t count) {
    std::vector<float> in(count * width), a(count * width), b(count * width);
    random.fill(in.data(), in.size(), -1, 1);
    const float* parts[4] = {};
    for (size_t j = 0; j < count; ++j) parts[j] = in.data() + j * width;
    set.interleave(parts, count, width, a.data());
    scalar().interleave(parts, count, width, b.data());
    return a == b;
}

// A small network of every kind of stage, x4: binary and float units, both kinds of PixelShuffle, one subtracting tail.
std::vector<float> run_network(const KernelSet& set, Random random, size_t height, size_t width, size_t threads,
                               bool enlarge) {
    const size_t channels = enlarge ? 3 : 1;
    Network network(set, channels, 130, !enlarge);
    std::vector<float> weight(4 * kFeatures * kFeatures * kTaps), zeros_to_one(4 * kFeatures + 1),
        signed_values(4 * kFeatures + 1);
    std::vector<uint64_t> signs(4 * kFeatures * kTaps);
    const auto draw = [&] {
        random.fill(weight.data(), weight.size(), -0.06f, 0.06f);
        random.fill(zeros_to_one.data(), zeros_to_one.size(), 0, 1);
        random.fill(signed_values.data(), signed_values.size(), -1, 1);
        for (auto& word : signs) word = random.engine();
    };
    const auto binary = [&](size_t step, float leak) {
        draw();
        network.add_binary(signs.data(), zeros_to_one.data(), signed_values.data(), zeros_to_one.data() + 1,
                           signed_values.data() + 1, signed_values.data(), step, leak);
    };
    draw();
    network.add_head(weight.data(), signed_values.data(), 0.1f);
    binary(1, 1);
    binary(1, 1);
    if (enlarge) {
        binary(2, 1);
        network.add_conv(weight.data(), signed_values.data(), 2, 0.1f);
        binary(1, 0.1f);
        network.add_conv(weight.data(), signed_values.data(), 1, 0.1f);
    }
    network.add_tail(weight.data(), signed_values.data());
    std::vector<float> image(channels * height * width), output(image.size() * network.scale() * network.scale());
    random.fill(image.data(), image.size(), 0, 1);
    network.run(image.data(), height, width, output.data(), threads, [](double) {});
    return output;
}

void check_units(const KernelSet& set, const RowShape& shape) {
    for (const size_t height : {size_t{1}, size_t{2}, size_t{3}, kMaxRows}) {
        const auto check_case = [&](Signs kind, float leak, size_t step, const char* what) {
            const Random random{std::mt19937_64(shape.width * 8 + height)};
            std::vector<FloatRow> mine = run_units(set, random, shape, height, kind, leak, step);
            std::vector<FloatRow> truth = run_units(scalar(), random, shape, height, kind, leak, step);
            bool same = true;
            for (size_t y = 0; y < height; ++y)
                same = same && same_pixels(mine[y], truth[y], kFeatures, RowShape(step * shape.width));
            check(same, set, what, shape.width, 100 * step + 10 * height + static_cast<size_t>(kind));
        };
        for (const Signs kind : kAllSigns) check_case(kind, 1, 1, "binary units");
        check_case(Signs::random, 0.1f, 1, "binary units with LeakyReLU");
        for (size_t step = 2; step <= kMaxStep; ++step)
            check_case(Signs::random, step == 2 ? 0.1f : 1, step, "binary units with PixelShuffle");
    }
}

void check_set(const KernelSet& set) {
    const size_t widths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129};
    for (const size_t width : widths) {
        const RowShape shape(width);
        check_units(set, shape);
        for (size_t borders = 0; borders < 4; ++borders) {
            const bool above = borders & 1, below = borders & 2;
            const Random random{std::mt19937_64(width * 8 + borders)};
            for (const auto& [c_in, count] :
                 {std::pair<size_t, size_t>{3, 1}, {1, 1}, {64, 1}, {64, 2}, {64, 3}, {64, 4}}) {
                const RowShape whole(round_up(width, count));
                std::vector<FloatRow> mine = run_conv(set, random, whole, above, below, c_in, count);
                std::vector<FloatRow> truth = run_conv(scalar(), random, whole, above, below, c_in, count);
                for (size_t y = 0; y < count; ++y)
                    check(same_pixels(mine[y], truth[y], kFeatures, whole), set, "float convolution", whole.width,
                          10 * count + borders);
            }
            for (const size_t c_out : {1, 3}) {
                FloatRow mine = run_taps(set, random, shape, above, below, c_out);
                FloatRow truth = run_taps(scalar(), random, shape, above, below, c_out);
                check(same_pixels(mine, truth, c_out, shape), set, "last convolution", width, borders);
            }
            for (size_t count = 1; count <= 4; ++count)
                check(same_interleaved(set, random, width, count), set, "interleave", width, count);
        }
    }
    for (const size_t width : {320, 513, 640, 1000}) check_units(set, RowShape(width));
    for (const auto& [height, width] : {std::pair<size_t, size_t>{1, 1}, {2, 18}, {49, 5}})
        for (const bool enlarge : {false, true}) {
            const Random random{std::mt19937_64(height)};
            const auto one = run_network(set, random, height, width, 1, enlarge);
            if (height < 10)
                check(one == run_network(scalar(), random, height, width, 1, enlarge), set, "network", width, 0);
            for (size_t threads = 2; threads <= 3; ++threads)
                check(one == run_network(set, random, height, width, threads, enlarge), set, "bands", width, 0);
        }
    std::printf("%s: %s\n", set.cpu->name, failures ? "FAILED" : "equal to scalar");
}

}  // namespace

int main(int argc, char** argv) {
    std::string ran;
    for (const KernelSet* set : kernel_sets())
        if (set->cpu->supported()) {
            check_set(*set);
            ran += std::string(set->cpu->name) + " ";
        }
#if defined(BBCU_EMULATED_AVX512)
    check_set(kAvx512);
    ran += "avx512 ";
#endif
    for (int i = 1; i < argc; ++i)
        if (ran.find(argv[i]) == std::string::npos) {
            std::printf("FAILED: %s did not run here\n", argv[i]);
            ++failures;
        }
    return failures ? 1 : 0;
}
