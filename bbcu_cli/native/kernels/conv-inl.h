// Full-precision 3x3 convolutions, written once over a vector type V (see float-inl.h).
//
// One row is summed directly. A few rows at once take minimal filtering down their columns: a filter of three taps gives
// m outputs for m + 2 products instead of 3 m (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and
// S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, whose F(m, 3) this is, down columns alone):
// out = A (G w * B in), where B makes m + 2 *transformed* rows of m + 2 input rows, G as many weights of three
// (pack_conv_weights), and A the m outputs of the sums of products over channels and horizontal taps. The outputs differ
// from those of single rows by rounding, in which there is something of every row of the group: the same bits for every
// cut of an image need the same groups.
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

// Sums over 64 channels and three horizontal taps, for the output channels of kGroups groups: each is kVectors vectors
// of sums. Channels lie `stride` apart, from the pixel left of the block on.
template <class V, size_t kGroups, size_t kVectors>
BBCU_NEVER_INLINE void sum_channels(const float* in, size_t stride, const float* weights, float* sums) {
    constexpr size_t outputs = kGroups * kConvGroup, group_weights = kFeatures * 3 * kConvGroup;
    typename V::type acc[outputs][kVectors];
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v) acc[o][v] = V::set(0);
    for (size_t c = 0; c < kFeatures; ++c) {
        const float* w = weights + c * 3 * kConvGroup;
        add_taps<V, kGroups, kVectors>(acc, in + c * stride, w, group_weights);
    }
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v) V::store(sums + (o * kVectors + v) * V::lanes, acc[o][v]);
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

// Blocks of kGroups groups and kVectors vectors of one output row.
template <class V>
struct OneRow {
    template <size_t kGroups, size_t kVectors>
    static void block(const ConvRows& t, size_t x) {
        for (size_t o = 0; o < t.c_out; o += kGroups * kConvGroup) conv_block<V, kGroups, kVectors>(t, o, x);
    }
};

// Every output of the pixels of a task, in blocks: Rows::block<kGroups, kVectors>(task, x).
template <class V, class Rows>
void conv_blocks(const ConvRows& task) {
    const ConvRows t = task;  // a copy, which the stores through its pointers cannot change
    // 32 registers hold 8 outputs of 3 vectors, 16 hold 4 of 2.
    constexpr size_t groups = V::registers >= 32 ? 2 : 1, most = V::registers >= 32 ? 3 : 2;
    size_t x = 0;
    for (; x + most * V::lanes <= t.width; x += most * V::lanes) Rows::template block<groups, most>(t, x);
    for (; x + 2 * V::lanes <= t.width; x += 2 * V::lanes) Rows::template block<groups, 2>(t, x);
    for (; x < t.width; x += V::lanes) Rows::template block<groups, 1>(t, x);
}

// Input and output transform of F(kRows, 3).
template <class V, size_t kRows>
struct Winograd;

// At 0, 1, -1 and infinity.
template <class V>
struct Winograd<V, 2> {
    using T = typename V::type;
    static void input(const T (&d)[4], T (&t)[4]) {
        t[0] = V::sub(d[0], d[2]);
        t[1] = V::add(d[1], d[2]);
        t[2] = V::sub(d[2], d[1]);
        t[3] = V::sub(d[1], d[3]);
    }
    static void output(const T (&m)[4], T (&out)[2]) {
        out[0] = V::add(V::add(m[0], m[1]), m[2]);
        out[1] = V::sub(V::sub(m[1], m[2]), m[3]);
    }
};

// At 0, 1, -1, 2 and infinity.
template <class V>
struct Winograd<V, 3> {
    using T = typename V::type;
    static void input(const T (&d)[5], T (&t)[5]) {
        const T two = V::set(2), minus_two = V::set(-2), outer = V::sub(d[3], d[1]);
        t[0] = V::fma(V::sub(d[0], d[2]), two, outer);
        t[1] = V::fma(d[1], minus_two, V::sub(d[3], d[2]));
        t[2] = V::fma(d[1], two, V::fma(d[2], V::set(-3), d[3]));
        t[3] = outer;
        t[4] = V::fma(outer, minus_two, V::sub(d[4], d[2]));
    }
    static void output(const T (&m)[5], T (&out)[3]) {
        const T sum = V::add(m[1], m[2]);
        out[0] = V::add(V::add(m[0], sum), m[3]);
        out[1] = V::fma(m[3], V::set(2), V::sub(m[1], m[2]));
        out[2] = V::fma(m[3], V::set(4), V::add(sum, m[4]));
    }
};

// At 0, 1, -1, 2, -2 and infinity.
template <class V>
struct Winograd<V, 4> {
    using T = typename V::type;
    static void input(const T (&d)[6], T (&t)[6]) {
        const T four = V::set(4), minus_four = V::set(-4), minus_five = V::set(-5);
        const T even = V::fma(d[2], minus_four, d[4]), odd = V::fma(d[1], minus_four, d[3]);
        const T inner = V::sub(d[4], d[2]), outer = V::sub(d[3], d[1]);
        t[0] = V::fma(d[0], four, V::fma(d[2], minus_five, d[4]));
        t[1] = V::add(even, odd);
        t[2] = V::sub(even, odd);
        t[3] = V::fma(outer, V::set(2), inner);
        t[4] = V::fma(outer, V::set(-2), inner);
        t[5] = V::fma(d[1], four, V::fma(d[3], minus_five, d[5]));
    }
    static void output(const T (&m)[6], T (&out)[4]) {
        const T inner = V::add(m[1], m[2]), inner_odd = V::sub(m[1], m[2]);
        const T outer = V::add(m[3], m[4]), outer_odd = V::sub(m[3], m[4]);
        out[0] = V::add(V::add(m[0], inner), outer);
        out[1] = V::fma(outer_odd, V::set(2), inner_odd);
        out[2] = V::fma(outer, V::set(4), inner);
        out[3] = V::fma(outer_odd, V::set(8), V::add(inner_odd, m[5]));
    }
};

// Blocks of kGroups groups and kVectors vectors of kRows output rows.
template <class V, size_t kRows>
struct SomeRows {
    using T = typename V::type;
    static constexpr size_t kProducts = kRows + 2;

    // The transformed rows of a block, and all its sums before the output transform: caches hold them.
    template <size_t kVectors>
    struct Scratch {
        static constexpr size_t out_width = kVectors * V::lanes;
        // With the pixels left and right, in whole vectors.
        static constexpr size_t width = (kVectors + (V::lanes > 1 ? 1 : 2)) * V::lanes;
        static constexpr size_t transformed = kProducts * kFeatures * width;
        static_assert(transformed + kProducts * kFeatures * out_width <= kConvScratch, "the scratch is long enough");
    };

    template <size_t kGroups, size_t kVectors>
    static void block(const ConvRows& t, size_t x) {
        using S = Scratch<kVectors>;
        float* sums = t.scratch + S::transformed;
        transform<kVectors>(t, x);
        for (size_t p = 0; p < kProducts; ++p)
            for (size_t o = 0; o < kFeatures; o += kGroups * kConvGroup) {
                prefetch<kGroups * kConvGroup, kVectors>(t, p, o, x);
                const size_t from = p * kFeatures + o;
                sum_channels<V, kGroups, kVectors>(t.scratch + p * kFeatures * S::width, S::width,
                                                   t.weights + from * kFeatures * 3, sums + from * S::out_width);
            }
        for (size_t o = 0; o < kFeatures; ++o) finish<kVectors>(t, o, sums, x);
    }

    // A part of what the next block reads and this one writes: more streams than hardware prefetchers follow.
    template <size_t kCount, size_t kVectors>
    static void prefetch(const ConvRows& t, size_t row, size_t first, size_t x) {
        constexpr size_t line = kAlign / sizeof(float), width = kVectors * V::lanes;
        for (size_t c = first; c < first + kCount; ++c)
            for (size_t at = 0; at < width; at += line) {
                if (t.rows[row]) prefetch_second_level(t.rows[row] + c * t.in_stride + x + width + at);
                if (row < kRows) prefetch_second_level(t.out[row] + c * t.out_stride + x + at);
            }
    }

    // [product][channel][pixel], from the pixel left of x on.
    template <size_t kVectors>
    static void transform(const ConvRows& t, size_t x) {
        constexpr size_t width = Scratch<kVectors>::width;
        for (size_t c = 0; c < kFeatures; ++c)
            for (size_t at = 0; at < width; at += V::lanes) {
                T in[kProducts], made[kProducts];
                BBCU_UNROLL(6)
                for (size_t y = 0; y < kProducts; ++y)
                    in[y] = t.rows[y] ? V::load(t.rows[y] + c * t.in_stride + x - 1 + at) : V::set(0);
                Winograd<V, kRows>::input(in, made);
                BBCU_UNROLL(6)
                for (size_t p = 0; p < kProducts; ++p) V::store(t.scratch + (p * kFeatures + c) * width + at, made[p]);
            }
    }

    template <size_t kVectors>
    static void finish(const ConvRows& t, size_t o, const float* sums, size_t x) {
        constexpr size_t width = Scratch<kVectors>::out_width;
        for (size_t at = 0; at < width; at += V::lanes) {
            T sum[kProducts], made[kRows];
            BBCU_UNROLL(6)
            for (size_t p = 0; p < kProducts; ++p) sum[p] = V::load(sums + (p * kFeatures + o) * width + at);
            Winograd<V, kRows>::output(sum, made);
            BBCU_UNROLL(4)
            for (size_t y = 0; y < kRows; ++y) {
                const T out = V::add(made[y], V::set(t.bias[o]));
                V::store(t.out[y] + o * t.out_stride + x + at, t.leak == 1.0f ? out : V::leaky(out, V::set(t.leak)));
            }
        }
    }
};

template <class V>
void conv_rows(const ConvRows& task) {
    switch (task.count) {
        case 1: return conv_blocks<V, OneRow<V>>(task);
        case 2: return conv_blocks<V, SomeRows<V, 2>>(task);
        case 3: return conv_blocks<V, SomeRows<V, 3>>(task);
        default: return conv_blocks<V, SomeRows<V, 4>>(task);
    }
}

}  // namespace
}  // namespace bbcu
