// Full-precision 3x3 convolutions, written once over a vector type V (see float-inl.h): one row at a time here, summed
// directly, and a few rows at once in winograd-inl.h.
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

// The three horizontal taps of one channel, whose pixel left of the block is *in. kGroups groups x kVectors vectors stay
// in registers over all channels; weights are broadcast.
template <class V, size_t kGroups, size_t kVectors>
inline void add_taps(typename V::type (&acc)[kGroups * kConvGroup][kVectors], const float* in, const float* weights,
                     size_t group_weights) {
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

// One output row.
template <class V, size_t kGroups, size_t kVectors>
inline void conv_block(const ConvRows& t, size_t first, size_t x) {
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
            add_taps<V, kGroups, kVectors>(acc, in, weights, group_weights);
        }
    }
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v)
            V::store(t.out[0] + (first + o) * t.out_stride + x + v * V::lanes,
                     t.leak == 1.0f ? acc[o][v] : V::leaky(acc[o][v], V::set(t.leak)));
}

template <class V, size_t kGroups, size_t kVectors>
inline void conv_blocks(const ConvRows& t, size_t x) {
    for (size_t o = 0; o < t.c_out; o += kGroups * kConvGroup) conv_block<V, kGroups, kVectors>(t, o, x);
}

// Every output of the pixels of a task, in blocks.
template <class V>
void conv_row(const ConvRows& task) {
    const ConvRows t = task;  // a copy, which the stores through its pointers cannot change
    // 32 registers hold 8 outputs of 3 vectors, 16 hold 4 of 3.
    constexpr size_t groups = V::registers >= 32 ? 2 : 1;
    size_t x = 0;
    for (; x + 3 * V::lanes <= t.width; x += 3 * V::lanes) conv_blocks<V, groups, 3>(t, x);
    for (; x + 2 * V::lanes <= t.width; x += 2 * V::lanes) conv_blocks<V, groups, 2>(t, x);
    for (; x < t.width; x += V::lanes) conv_blocks<V, groups, 1>(t, x);
}

}  // namespace
}  // namespace bbcu
