// The truth: plain loops. Every other kernel set gives the same bits.
//
// A quantised row is int16 [width][groups][64], a bit row the words themselves.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../portability.h"
#include "kernels.h"

namespace bbcu::train {
namespace {

bool negative(uint64_t word, size_t c) { return word >> c & 1; }

void pack(const float* x, const float* shift, size_t pixels, uint64_t* words) {
    for (size_t p = 0; p < pixels; ++p) {
        words[p] = 0;
        for (size_t c = 0; c < kFeatures; ++c) words[p] |= uint64_t{!(x[p * kFeatures + c] + shift[c] >= 0)} << c;
    }
}

constexpr size_t kWeightBytes = kTaps * kFeatures * sizeof(uint64_t);
void pack_weights(const uint64_t* words, uint8_t* weights) { std::memcpy(weights, words, kWeightBytes); }

float affine(const Group& group, size_t c, float sum) { return sum * group.scale[c] + group.bias[c] + group.bias0[c]; }

void forward_row(const ForwardRow& t) {
    const auto* weights = reinterpret_cast<const uint64_t*>(t.weights);
    for (size_t x = 0; x < t.width; ++x) {
        for (size_t c = 0; c < kFeatures; ++c) {
            int sum = 0;
            for (size_t dy = 0; dy < 3; ++dy)
                for (size_t dx = 0; dx < 3; ++dx)
                    if (t.rows[dy] && x + dx >= 1 && x + dx <= t.width)
                        sum += static_cast<int>(kFeatures) -
                               2 * popcount(t.rows[dy][x + dx - 1] ^ weights[(3 * dy + dx) * kFeatures + c]);
            if (t.sums) t.sums[x * t.sums_pitch + c] = static_cast<int16_t>(sum);
            const float y = affine(*t.group, c, static_cast<float>(sum));
            t.out[x * t.out_pitch + c] =
                t.residual[x * kFeatures + c] + ((y > 0 ? y : y * t.group->slope[c]) + t.group->bias1[c]);
        }
    }
}

uint32_t magnitude(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits & 0x7fffffff;
}

void gradient_row(const GradientRow& t) {
    std::fill_n(t.partial, 3 * kFeatures, 0.0f);
    std::fill_n(t.largest, kFeatures, 0u);
    for (size_t x = 0; x < t.width; ++x) {
        for (size_t c = 0; c < kFeatures; ++c) {
            const float grad = t.grad[x * t.grad_pitch + c];
            const float y = affine(*t.group, c, t.sums[x * t.pitch + c]);
            const float gradient = y > 0 ? grad : grad * t.group->slope[c];
            t.gradient[x * t.pitch + c] = gradient;
            t.partial[c] += gradient;
            if (!(y > 0)) t.partial[kFeatures + c] += y * grad;
            t.partial[2 * kFeatures + c] += grad;
            t.largest[c] = std::max(t.largest[c], magnitude(gradient));
        }
    }
}

size_t quantised_bytes(size_t width, size_t groups) { return width * groups * kFeatures * sizeof(int16_t); }

int16_t quantise(float v) { return static_cast<int16_t>(std::lrintf(v)); }

void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    auto* to = reinterpret_cast<int16_t*>(row);
    for (size_t x = 0; x < width; ++x)
        for (size_t c = 0; c < groups * kFeatures; ++c) *to++ = quantise(*gradient++ * scale[c]);
}

// +1 or -1 for each channel of a word.
void unpack_signs(uint64_t word, int16_t* signs) {
    for (size_t c = 0; c < kFeatures; ++c) signs[c] = negative(word, c) ? -1 : 1;
}

size_t input_weight_bytes(size_t groups) { return groups * kTaps * kFeatures * kFeatures * sizeof(int16_t); }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    auto* signs = reinterpret_cast<int16_t*>(weights);
    for (size_t i = 0; i < groups * kTaps * kFeatures; ++i, signs += kFeatures) unpack_signs(words[i], signs);
}

// Sums over taps and output channels of pixel x; row dy of the window is met by the taps of row 2 - dy.
void input_sums(const InputRow& t, size_t x, int32_t (&sums)[kFeatures]) {
    const size_t groups = t.step * t.step;
    for (int32_t& sum : sums) sum = 0;
    for (size_t dy = 0; dy < 3; ++dy) {
        for (size_t dx = 0; dx < 3; ++dx) {
            if (!t.rows[dy] || x + dx < 1 || x + dx > t.width) continue;
            const auto* value = reinterpret_cast<const int16_t*>(t.rows[dy]) + (x + dx - 1) * groups * kFeatures;
            const size_t tap = 3 * (2 - dy) + (2 - dx);
            for (size_t g = 0; g < groups; ++g) {
                const auto* signs =
                    reinterpret_cast<const int16_t*>(t.weights) + (g * kTaps + tap) * kFeatures * kFeatures;
                for (size_t o = 0; o < kFeatures; ++o, ++value, signs += kFeatures)
                    for (size_t c = 0; c < kFeatures; ++c) sums[c] += signs[c] * *value;
            }
        }
    }
}

void input_row(const InputRow& t) {
    std::fill_n(t.partial, kFeatures, 0.0f);
    for (size_t x = 0; x < t.width; ++x) {
        int32_t sums[kFeatures];
        input_sums(t, x, sums);
        for (size_t c = 0; c < kFeatures; ++c) {
            const float to_sign = static_cast<float>(sums[c]) * t.unit;
            const float window = t.peak - t.steepness * std::fabs(t.x[x * kFeatures + c] + t.shift[c]);
            const float to_shifted = to_sign * (window > 0 ? window : 0.0f);
            t.partial[c] += to_shifted;
            float residual = 0;
            for (size_t i = 0; i < t.step; ++i)
                for (size_t j = 0; j < t.step; ++j) {
                    const float grad = t.grad[((i * t.width + x) * t.step + j) * kFeatures + c];
                    residual = i + j ? residual + grad : grad;
                }
            t.out[x * kFeatures + c] = residual + to_shifted;
        }
    }
}

size_t bit_row_bytes(size_t width) { return width * sizeof(uint64_t); }

void bit_row(const uint64_t* words, size_t width, uint8_t* bits) { std::memcpy(bits, words, bit_row_bytes(width)); }

size_t scratch_bytes(size_t, size_t) { return 0; }

void weight_rows(const WeightRows& t) {
    const auto* words = reinterpret_cast<const uint64_t*>(t.bits);
    for (size_t y = 0; y < t.rows; ++y) {
        for (size_t x = 0; x < t.width; ++x) {
            const float* gradient = t.gradient + (y * t.width + x) * t.pitch;
            for (size_t tap = 0; tap < kTaps; ++tap) {
                const size_t dy = tap / 3, dx = tap % 3;
                if ((y + dy < 1 && !t.above) || (y + dy > t.rows && !t.below)) continue;
                if (x + dx < 1 || x + dx > t.width) continue;
                int16_t signs[kFeatures];
                unpack_signs(words[(y + dy) * t.width + x + dx - 1], signs);
                for (size_t o = 0; o < t.outputs; ++o) {
                    const int16_t value = quantise(gradient[o] * t.scale[o]);
                    int32_t* sums = t.sums + (o * kTaps + tap) * kFeatures;
                    for (size_t c = 0; c < kFeatures; ++c) sums[c] += signs[c] * value;
                }
            }
        }
    }
}

constexpr Kernels all() {
    Kernels k{};
    k.cpu = &kScalarCpu;
    k.pack = pack;
    k.weight_bytes = kWeightBytes;
    k.pack_weights = pack_weights;
    k.forward_row = forward_row;
    k.gradient_row = gradient_row;
    k.quantised_bytes = quantised_bytes;
    k.quantise_row = quantise_row;
    k.input_weight_bytes = input_weight_bytes;
    k.pack_input_weights = pack_input_weights;
    k.input_row = input_row;
    k.bit_row_bytes = bit_row_bytes;
    k.bit_row = bit_row;
    k.scratch_bytes = scratch_bytes;
    k.weight_rows = weight_rows;
    return k;
}

}  // namespace

extern constexpr Kernels kScalar = all();

}  // namespace bbcu::train
