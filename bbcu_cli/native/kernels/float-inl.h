// Float kernels, written once over a vector type V and compiled into every kernel set.
//
// V has `type`, `lanes`, `registers`, load, store, set, add, fma(a, b, c) = a * b + c rounded once, and
//   leaky(v, slope)           v, or slope * v where the sign bit of v is set
//   four(p)                   four floats in the form that fma_by takes
//   fma_by<i>(v, four, c)     fma(v, set(the i-th), c)
#pragma once

#include "../portability.h"
#include "kernel_set.h"

namespace bbcu {
namespace {  // of this file of one instruction set alone; see portability.h

constexpr size_t kConvGroup = 4;  // output channels of a group of pack_conv_weights

// acc[o][v] += pixel[v] * weights[o]. Four weights at a time: some CPUs multiply by one lane of a vector.
template <class V, size_t kCount, size_t kVectors>
BBCU_ALWAYS_INLINE void add_products(typename V::type (*acc)[kVectors], const typename V::type (&pixel)[kVectors],
                                     const float* weights) {
    if constexpr (kCount >= 4) {
        const auto four = V::four(weights);
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) acc[0][v] = V::template fma_by<0>(pixel[v], four, acc[0][v]);
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) acc[1][v] = V::template fma_by<1>(pixel[v], four, acc[1][v]);
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) acc[2][v] = V::template fma_by<2>(pixel[v], four, acc[2][v]);
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) acc[3][v] = V::template fma_by<3>(pixel[v], four, acc[3][v]);
        add_products<V, kCount - 4, kVectors>(acc + 4, pixel, weights + 4);
    } else if constexpr (kCount > 0) {
        const auto w = V::set(*weights);
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) acc[0][v] = V::fma(pixel[v], w, acc[0][v]);
        add_products<V, kCount - 1, kVectors>(acc + 1, pixel, weights + 1);
    }
}

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
                    prefetch_first_level(in + 2 * kVectors * V::lanes + ahead);
            BBCU_UNROLL(3)
            for (size_t dx = 0; dx < 3; ++dx) {
                typename V::type pixel[kVectors];
                BBCU_UNROLL(4)
                for (size_t v = 0; v < kVectors; ++v) pixel[v] = V::load(in + dx + v * V::lanes);
                BBCU_UNROLL(2)
                for (size_t g = 0; g < kGroups; ++g)
                    add_products<V, kConvGroup, kVectors>(acc + g * kConvGroup, pixel,
                                                          weights + g * group_weights + dx * kConvGroup);
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
        typename V::type pixel[kVectors];
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) pixel[v] = V::load(in + v * V::lanes);
        add_products<V, kGroup, kVectors>(acc, pixel, t.weights + c * t.planes + first);
    }
    for (size_t g = 0; g < kGroup; ++g)
        for (size_t v = 0; v < kVectors; ++v)
            V::store(t.out + (first + g) * t.out_stride + x + v * V::lanes, acc[g][v]);
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
                BBCU_UNROLL(3)
                for (size_t dx = 0; dx < 3; ++dx, plane += t.stride + 1) sum = V::add(sum, V::load(plane));
            }
            V::store(t.out + o * t.stride + x, sum);
        }
}

template <size_t kCount>
inline void interleave_by(const float* const* parts, size_t width, float* __restrict out) {
    const float* p[kCount];
    for (size_t j = 0; j < kCount; ++j) p[j] = parts[j];
    for (size_t x = 0; x < width; ++x)
        for (size_t j = 0; j < kCount; ++j) out[kCount * x + j] = p[j][x];
}

inline void interleave(const float* const* parts, size_t count, size_t width, float* out) {
    switch (count) {
        case 1: return interleave_by<1>(parts, width, out);
        case 2: return interleave_by<2>(parts, width, out);
        case 3: return interleave_by<3>(parts, width, out);
        default: return interleave_by<4>(parts, width, out);
    }
}

// A set with its float kernels; those of binary units are still missing.
template <class V>
constexpr KernelSet float_kernels(const InstructionSet& cpu, const char* description) {
    KernelSet set{};
    set.cpu = &cpu;
    set.description = description;
    set.conv_row = conv_row<V>;
    set.tap_row = tap_row<V>;
    set.sum_taps = sum_taps<V>;
    set.interleave = interleave;
    return set;
}

}  // namespace
}  // namespace bbcu
