// Float kernels, written once over a vector type V and compiled into every kernel set.
//
// V has `lanes`, `registers`, load, store, set, add, fma(a, b, c) = a * b + c rounded once, and
// leaky(v, slope) = v, or slope * v where the sign bit of v is set.
#pragma once

#include "../engine.h"

namespace bbcu {
namespace {

constexpr size_t kConvGroup = 4;  // output channels of a group of pack_conv_weights

// kGroups groups x kVectors vectors stay in registers over all inputs; weights are broadcast.
template <class V, size_t kGroups, size_t kVectors>
inline void conv_block(const ConvRow& t, size_t first, size_t x) {
    constexpr size_t outputs = kGroups * kConvGroup;
    const size_t group_weights = t.c_in * kTaps * kConvGroup;
    const float* weights = t.weights + first / kConvGroup * group_weights;
    typename V::type acc[outputs][kVectors];
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v) acc[o][v] = V::set(t.bias[first + o]);
    for (size_t c = 0; c < t.c_in; ++c) {
        for (size_t dy = 0; dy < 3; ++dy, weights += 3 * kConvGroup) {
            if (!t.rows[dy]) continue;
            const float* in = t.rows[dy] + c * t.in_stride + x - 1;
            // 192 planes are more streams than hardware prefetchers follow.
            if (first == 0)
                for (size_t ahead = 0; ahead < kVectors * V::lanes; ahead += kAlign / sizeof(float))
                    __builtin_prefetch(in + 2 * kVectors * V::lanes + ahead);
#pragma GCC unroll 3
            for (size_t dx = 0; dx < 3; ++dx) {
                typename V::type pixel[kVectors];
#pragma GCC unroll 4
                for (size_t v = 0; v < kVectors; ++v) pixel[v] = V::load(in + dx + v * V::lanes);
#pragma GCC unroll 8
                for (size_t o = 0; o < outputs; ++o) {
                    const auto w = V::set(weights[o / kConvGroup * group_weights + dx * kConvGroup + o % kConvGroup]);
#pragma GCC unroll 4
                    for (size_t v = 0; v < kVectors; ++v) acc[o][v] = V::fma(pixel[v], w, acc[o][v]);
                }
            }
        }
    }
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v)
            V::store(t.out + (first + o) * t.out_stride + x + v * V::lanes,
                     t.leak == 1.0f ? acc[o][v] : V::leaky(acc[o][v], V::set(t.leak)));
}

// Every output of the pixels from x on, in blocks of that many vectors; returns where less than a block is left.
template <class V, size_t kGroups, size_t kVectors>
inline size_t conv_blocks(const ConvRow& t, size_t x) {
    for (; x + kVectors * V::lanes <= t.width; x += kVectors * V::lanes)
        for (size_t o = 0; o < t.c_out; o += kGroups * kConvGroup) conv_block<V, kGroups, kVectors>(t, o, x);
    return x;
}

template <class V>
void conv_row(const ConvRow& task) {
    const ConvRow t = task;  // a copy, which the stores through its pointers cannot change
    // 32 registers hold 8 outputs of 3 vectors, 16 hold 4 of 2.
    constexpr bool many = V::registers >= 32;
    constexpr size_t groups = many ? 2 : 1;
    size_t x = conv_blocks<V, groups, many ? 3 : 2>(t, 0);
    if (many) x = conv_blocks<V, groups, 2>(t, x);
    x = conv_blocks<V, groups, 1>(t, x);
    for (size_t o = 0; x < t.width && o < t.c_out; o += groups * kConvGroup) conv_block<V, groups, 1>(t, o, x);
}

// kGroup planes x kVectors vectors stay in registers over all channels.
template <class V, size_t kGroup, size_t kVectors>
inline void tap_block(const TapRow& t, size_t first, size_t x) {
    typename V::type acc[kGroup][kVectors];
    for (size_t g = 0; g < kGroup; ++g)
        for (size_t v = 0; v < kVectors; ++v) acc[g][v] = V::set(0);
    for (size_t c = 0; c < kFeatures; ++c) {
        const float* in = t.in + c * t.in_stride + x;
        const float* weights = t.weights + c * t.planes + first;
        typename V::type pixel[kVectors];
#pragma GCC unroll 4
        for (size_t v = 0; v < kVectors; ++v) pixel[v] = V::load(in + v * V::lanes);
#pragma GCC unroll 9
        for (size_t g = 0; g < kGroup; ++g) {
            const auto w = V::set(weights[g]);
#pragma GCC unroll 4
            for (size_t v = 0; v < kVectors; ++v) acc[g][v] = V::fma(pixel[v], w, acc[g][v]);
        }
    }
    for (size_t g = 0; g < kGroup; ++g)
        for (size_t v = 0; v < kVectors; ++v) V::store(t.out + (first + g) * t.out_stride + x + v * V::lanes, acc[g][v]);
}

template <class V>
void tap_row(const TapRow& task) {
    // 32 registers hold 9 planes of 3 vectors, 16 hold 3 planes of 4.
    constexpr size_t group = V::registers >= 32 ? 9 : 3, vectors = V::registers >= 32 ? 3 : 4;
    static_assert(vectors * V::lanes <= kRowPad, "a block is no wider than the padding");
    const TapRow t = task;  // a copy, which the stores through its pointers cannot change
    for (size_t x = 0; x < t.width; x += vectors * V::lanes)
        for (size_t p = 0; p < t.planes; p += group) tap_block<V, group, vectors>(t, p, x);
}

template <class V>
void sum_taps(const TapSum& task) {
    const TapSum t = task;
    for (size_t o = 0; o < t.c_out; ++o)
        for (size_t x = 0; x < t.width; x += V::lanes) {
            auto sum = V::set(t.bias[o]);
            for (size_t dy = 0; dy < 3; ++dy) {
                if (!t.taps[dy]) continue;
                const float* plane = t.taps[dy] + (dy * t.c_out + o) * 3 * t.stride + x - 1;
#pragma GCC unroll 3
                for (size_t dx = 0; dx < 3; ++dx, plane += t.stride + 1) sum = V::add(sum, V::load(plane));
            }
            V::store(t.out + o * t.stride + x, sum);
        }
}

// binary_rows of a set whose kernel takes one row.
inline size_t one_row_at_once(size_t) { return 1; }

template <void (*kBinaryRow)(const BinaryRow&)>
void each_row(const BinaryRow* rows, size_t count) {
    for (size_t r = 0; r < count; ++r) kBinaryRow(rows[r]);
}

template <size_t kCount>
inline void interleave_by(const float* const* parts, size_t width, float* __restrict out) {
    const float* p[kCount];
    for (size_t j = 0; j < kCount; ++j) p[j] = parts[j];
    for (size_t x = 0; x < width; ++x)
        for (size_t j = 0; j < kCount; ++j) out[kCount * x + j] = p[j][x];
}

void interleave(const float* const* parts, size_t count, size_t width, float* out) {
    switch (count) {
        case 1: return interleave_by<1>(parts, width, out);
        case 2: return interleave_by<2>(parts, width, out);
        case 3: return interleave_by<3>(parts, width, out);
        default: return interleave_by<4>(parts, width, out);
    }
}

}  // namespace
}  // namespace bbcu
