// The truth: plain loops, one pixel and one channel at a time. Every other kernel set gives these floats to the bit.
//
// A packed row is one 64-bit word per pixel, bit c set where channel c is -1.

#include <cmath>
#include <cstring>

#include "float-inl.h"

namespace bbcu {
namespace {

struct Scalar {
    using type = float;
    static constexpr size_t lanes = 1;
    static constexpr size_t registers = 16;
    static float load(const float* p) { return *p; }
    static void store(float* p, float v) { *p = v; }
    static float set(float v) { return v; }
    static float add(float a, float b) { return a + b; }
    static float sub(float a, float b) { return a - b; }
    static float fma(float a, float b, float c) { return std::fma(a, b, c); }
    static float leaky(float v, float slope) { return std::signbit(v) ? slope * v : v; }
    static const float* four(const float* p) { return p; }
    template <size_t kLane>
    static float fma_by(float v, const float* four, float c) {
        return std::fma(v, four[kLane], c);
    }
};

size_t packed_row_bytes(size_t width) { return width * sizeof(uint64_t); }

void pack_weights(const uint64_t* signs, uint8_t* weights) {
    std::memcpy(weights, signs, kFeatures * kTaps * sizeof(uint64_t));
}

void pack_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    auto* words = reinterpret_cast<uint64_t*>(packed);
    for (size_t x = 0; x < width; ++x) {
        words[x] = 0;
        for (size_t c = 0; c < kFeatures; ++c) words[x] |= uint64_t{row[c * stride + x] < threshold[c]} << c;
    }
}

// Number of channels and taps inside the image whose sign differs from the weight's.
int differing(const uint8_t* const rows[3], const uint64_t* taps, size_t x, size_t width) {
    int count = 0;
    for (size_t dy = 0; dy < 3; ++dy) {
        if (!rows[dy]) continue;
        const auto* words = reinterpret_cast<const uint64_t*>(rows[dy]);
        for (size_t dx = 0; dx < 3; ++dx) {
            if (x + dx < 1 || x + dx > width) continue;
            count += popcount(words[x + dx - 1] ^ taps[dy * 3 + dx]);
        }
    }
    return count;
}

size_t rows_at_once(size_t) { return 1; }

void binary_row(const BinaryRow& t) {
    for (size_t j = 0; j < t.step; ++j) {
        const auto* weights = reinterpret_cast<const uint64_t*>(t.weights[j]);
        const UnitParams& unit = *t.unit[j];
        for (size_t o = 0; o < kFeatures; ++o) {
            for (size_t x = 0; x < t.width; ++x) {
                const int y = t.taps[x] - 2 * differing(t.rows, weights + o * kTaps, x, t.width);
                const float v = std::fma(unit.scale[o], static_cast<float>(y), unit.bias[o]);
                const float slope = std::signbit(v) ? unit.slope[o] : 1.0f;
                const float sum = t.residual[o * t.stride + x] + std::fma(v, slope, unit.offset[o]);
                t.out[o * t.out_stride + t.step * x + j] = t.leak == 1.0f ? sum : Scalar::leaky(sum, t.leak);
            }
        }
    }
    if (t.packed) pack_row(t.out, t.out_stride, t.step * t.width, t.threshold, t.packed);
}

void binary_rows(const BinaryRow* rows, size_t count) {
    for (size_t r = 0; r < count; ++r) binary_row(rows[r]);
}

void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    const auto* words = reinterpret_cast<const uint64_t*>(weights);
    for (size_t o = 0; o < kFeatures; ++o)
        for (size_t x = 0; x < width; ++x)
            sink[o] ^= static_cast<uint8_t>(differing(rows, words + o * kTaps, x, width));
}

constexpr KernelSet make_kernels() {
    KernelSet set = float_kernels<Scalar>(kScalarCpu, "plain C++");
    set.packed_row_bytes = packed_row_bytes;
    set.weight_bytes = kFeatures * kTaps * sizeof(uint64_t);
    set.pack_weights = pack_weights;
    set.pack_row = pack_row;
    set.rows_at_once = rows_at_once;
    set.binary_rows = binary_rows;
    set.bare_row = bare_row;
    return set;
}

}  // namespace

extern constexpr KernelSet kScalar = make_kernels();

}  // namespace bbcu
