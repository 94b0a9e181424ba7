// Full-precision 3x3 convolutions of a few rows at once, by minimal filtering, written once over a vector type V.
//
// A filter of three taps gives m outputs for m + 2 products instead of 3 m (S. Winograd, Arithmetic Complexity of
// Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, whose
// F(m x m, 3 x 3) this is). For a square of m x m outputs: out = A (G w * B in), where B makes of the pixels that the
// square sees as many *transformed* ones, G as many weights of nine (pack_conv_weights), and A the outputs of the sums of
// products over channels. A transformed pixel of all squares is a plane, and its sums are a product of matrices. The
// outputs differ from those of single rows by rounding, in which there is something of every pixel that the square sees:
// the same bits for every cut of an image need the same squares.
#pragma once

#include "conv-inl.h"

namespace bbcu {
namespace {  // of this file of one instruction set alone; see portability.h

// Input and output transform of F(kOutputs, 3).
template <class V, size_t kOutputs>
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

// out[kCount * i + j] = parts[j][i]
template <size_t kCount>
inline void interleave_by(const float* const* parts, size_t width, float* __restrict out) {
    const float* p[kCount];
    for (size_t j = 0; j < kCount; ++j) p[j] = parts[j];
    for (size_t x = 0; x < width; ++x)
        for (size_t j = 0; j < kCount; ++j) out[kCount * x + j] = p[j][x];
}

// out[j * stride + i] = in[kCount * i + j]
template <size_t kCount>
inline void deinterleave(const float* in, size_t count, float* __restrict out, size_t stride) {
    for (size_t i = 0; i < count; ++i)
        for (size_t j = 0; j < kCount; ++j) out[j * stride + i] = in[kCount * i + j];
}

// Sums over 64 channels for kGroups groups of output channels: each is kVectors vectors. Channels of a plane lie
// kVectors vectors apart.
template <class V, size_t kGroups, size_t kVectors>
BBCU_NEVER_INLINE void sum_plane(const float* plane, const float* weights, float* sums) {
    constexpr size_t outputs = kGroups * kConvGroup, group_weights = kFeatures * kConvGroup;
    typename V::type acc[outputs][kVectors];
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v) acc[o][v] = V::set(0);
    for (size_t c = 0; c < kFeatures; ++c, plane += kVectors * V::lanes, weights += kConvGroup) {
        typename V::type pixel[kVectors];
        BBCU_UNROLL(4)
        for (size_t v = 0; v < kVectors; ++v) pixel[v] = V::load(plane + v * V::lanes);
        BBCU_UNROLL(2)
        for (size_t g = 0; g < kGroups; ++g)
            add_products<V, kConvGroup, kVectors>(acc + g * kConvGroup, pixel, weights + g * group_weights);
    }
    for (size_t o = 0; o < outputs; ++o)
        for (size_t v = 0; v < kVectors; ++v) V::store(sums + (o * kVectors + v) * V::lanes, acc[o][v]);
}

// Blocks of kVectors vectors of squares of kSide x kSide outputs.
template <class V, size_t kSide>
struct Squares {
    using T = typename V::type;
    static constexpr size_t kSeen = kSide + 2, kPlanes = kSeen * kSeen;

    template <size_t kGroups, size_t kVectors>
    static void block(const ConvRows& t, size_t x) {
        constexpr size_t squares = kVectors * V::lanes, plane = kFeatures * squares;
        static_assert((kPlanes + 1) * plane <= kConvScratch, "the scratch is long enough");
        float *sums = t.scratch, *planes = sums + plane;  // the sums of a plane take the place of the plane before
        for (size_t c = 0; c < kFeatures; ++c) transform<kVectors>(t, c, x, planes + c * squares);
        for (size_t p = 0; p < kPlanes; ++p)
            for (size_t o = 0; o < kFeatures; o += kGroups * kConvGroup) {
                if (p % kSeen == 0) prefetch<kGroups * kConvGroup, kSide * squares>(t, p / kSeen, o, x);
                sum_plane<V, kGroups, kVectors>(planes + p * plane, t.weights + (p * kFeatures + o) * kFeatures,
                                                sums + p * plane + o * squares);
            }
        for (size_t o = 0; o < kFeatures; ++o) finish<kVectors>(t, o, sums + o * squares, x);
    }

    // A part of what the next block reads and this one writes: more streams than hardware prefetchers follow.
    template <size_t kCount, size_t kWidth>
    static void prefetch(const ConvRows& t, size_t row, size_t first, size_t x) {
        for (size_t c = first; c < first + kCount; ++c)
            for (size_t at = 0; at < kWidth; at += kAlign / sizeof(float)) {
                if (t.rows[row]) prefetch_second_level(t.rows[row] + c * t.in_stride + x + kWidth + at);
                if (row < kSide) prefetch_second_level(t.out[row] + c * t.out_stride + x + at);
            }
    }

    // Of one channel: planes[plane * kFeatures * squares + square].
    template <size_t kVectors>
    static void transform(const ConvRows& t, size_t c, size_t x, float* planes) {
        constexpr size_t squares = kVectors * V::lanes;
        // With the two pixels of the next square that the last one sees, in whole vectors.
        constexpr size_t width = kSide * squares + (V::lanes > 1 ? V::lanes : 2), stride = squares + V::lanes;
        float down[kSeen][width], apart[kSide * stride];
        for (size_t at = 0; at < width; at += V::lanes) {
            T in[kSeen], made[kSeen];
            BBCU_UNROLL(6)
            for (size_t y = 0; y < kSeen; ++y)
                in[y] = t.rows[y] ? V::load(t.rows[y] + c * t.in_stride + x - 1 + at) : V::set(0);
            Winograd<V, kSide>::input(in, made);
            BBCU_UNROLL(6)
            for (size_t y = 0; y < kSeen; ++y) V::store(down[y] + at, made[y]);
        }
        for (size_t y = 0; y < kSeen; ++y) {
            deinterleave<kSide>(down[y], squares, apart, stride);
            for (size_t j = 0; j < 2; ++j) apart[j * stride + squares] = down[y][kSide * squares + j];
            for (size_t at = 0; at < squares; at += V::lanes) {
                T in[kSeen], made[kSeen];
                BBCU_UNROLL(6)
                for (size_t i = 0; i < kSeen; ++i) in[i] = V::load(apart + i % kSide * stride + i / kSide + at);
                Winograd<V, kSide>::input(in, made);
                BBCU_UNROLL(6)
                for (size_t i = 0; i < kSeen; ++i)
                    V::store(planes + (y * kSeen + i) * kFeatures * squares + at, made[i]);
            }
        }
    }

    // Of one output channel, from its sums, which lie like planes.
    template <size_t kVectors>
    static void finish(const ConvRows& t, size_t o, const float* sums, size_t x) {
        constexpr size_t squares = kVectors * V::lanes;
        float apart[kSide][kSide][squares];
        for (size_t at = 0; at < squares; at += V::lanes) {
            T across[kSide][kSeen];
            BBCU_UNROLL(6)
            for (size_t y = 0; y < kSeen; ++y) {
                T sum[kSeen], made[kSide];
                BBCU_UNROLL(6)
                for (size_t i = 0; i < kSeen; ++i) sum[i] = V::load(sums + (y * kSeen + i) * kFeatures * squares + at);
                Winograd<V, kSide>::output(sum, made);
                BBCU_UNROLL(4)
                for (size_t j = 0; j < kSide; ++j) across[j][y] = made[j];
            }
            BBCU_UNROLL(4)
            for (size_t j = 0; j < kSide; ++j) {
                T made[kSide];
                Winograd<V, kSide>::output(across[j], made);
                BBCU_UNROLL(4)
                for (size_t y = 0; y < kSide; ++y) {
                    const T out = V::add(made[y], V::set(t.bias[o]));
                    V::store(apart[y][j] + at, t.leak == 1.0f ? out : V::leaky(out, V::set(t.leak)));
                }
            }
        }
        for (size_t y = 0; y < kSide; ++y) {
            const float* columns[kSide];
            for (size_t j = 0; j < kSide; ++j) columns[j] = apart[y][j];
            interleave_by<kSide>(columns, squares, t.out[y] + o * t.out_stride + x);
        }
    }
};

// Every output of the pixels of a task, in blocks.
template <class V, size_t kSide>
void conv_squares(const ConvRows& task) {
    const ConvRows t = task;  // a copy, which the stores through its pointers cannot change
    // As of conv_row.
    constexpr size_t groups = V::registers >= 32 ? 2 : 1, vector = kSide * V::lanes;
    size_t x = 0;
    for (; x + 3 * vector <= t.width; x += 3 * vector) Squares<V, kSide>::template block<groups, 3>(t, x);
    for (; x + 2 * vector <= t.width; x += 2 * vector) Squares<V, kSide>::template block<groups, 2>(t, x);
    for (; x < t.width; x += vector) Squares<V, kSide>::template block<groups, 1>(t, x);
}

template <class V>
void conv_rows(const ConvRows& task) {
    switch (task.count) {
        case 1: return conv_row<V>(task);
        case 2: return conv_squares<V, 2>(task);
        case 3: return conv_squares<V, 3>(task);
        default: return conv_squares<V, 4>(task);
    }
}

}  // namespace
}  // namespace bbcu
