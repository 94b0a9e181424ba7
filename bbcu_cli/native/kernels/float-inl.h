// Float kernels, written once over a vector type V and compiled into every kernel set.
//
// V has `type`, `lanes`, `registers`, load, store, set, add, sub, fma(a, b, c) = a * b + c rounded once, and
//   leaky(v, slope)           v, or slope * v where the sign bit of v is set
//   four(p)                   four floats in the form that fma_by takes
//   fma_by<i>(v, four, c)     fma(v, set(the i-th), c)
#pragma once

#include "winograd-inl.h"

namespace bbcu {
namespace {  // of this file of one instruction set alone; see portability.h

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
    set.conv_rows = conv_rows<V>;
    set.tap_row = tap_row<V>;
    set.sum_taps = sum_taps<V>;
    set.interleave = interleave;
    return set;
}

}  // namespace
}  // namespace bbcu
