// What follows the products of the input's gradient, pixel by pixel; for AVX2 and what has it, and for NEON.
#pragma once

#include <cstring>

#include "../portability.h"
#include "kernels.h"

#if BBCU_ARM64
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

namespace bbcu::train {
namespace {

// A register of floats.
struct Floats {
#if BBCU_ARM64
    using type = float32x4_t;
    static constexpr size_t lanes = 4;
    static type load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, type v) { vst1q_f32(p, v); }
    static type set(float v) { return vdupq_n_f32(v); }
    static type from_numbers(const int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
    static type from_numbers(const float* p) { return load(p); }
    static type add(type a, type b) { return vaddq_f32(a, b); }
    static type subtract(type a, type b) { return vsubq_f32(a, b); }
    static type multiply(type a, type b) { return vmulq_f32(a, b); }
    static type magnitude(type v) { return vabsq_f32(v); }
    static type positive_part(type v) { return vmaxnmq_f32(v, set(0)); }  // 0 of a NaN
#elif defined(__AVX512F__)
    using type = __m512;
    static constexpr size_t lanes = 16;
    static type load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, type v) { _mm512_storeu_ps(p, v); }
    static type set(float v) { return _mm512_set1_ps(v); }
    static type from_numbers(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_load_si512(p)); }
    static type from_numbers(const float* p) { return _mm512_load_ps(p); }
    static type add(type a, type b) { return _mm512_add_ps(a, b); }
    static type subtract(type a, type b) { return _mm512_sub_ps(a, b); }
    static type multiply(type a, type b) { return _mm512_mul_ps(a, b); }
    static type magnitude(type v) { return _mm512_abs_ps(v); }
    static type positive_part(type v) { return _mm512_max_ps(v, set(0)); }  // 0 of a NaN
#else
    using type = __m256;
    static constexpr size_t lanes = 8;
    static type load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, type v) { _mm256_storeu_ps(p, v); }
    static type set(float v) { return _mm256_set1_ps(v); }
    static type from_numbers(const int32_t* p) {
        return _mm256_cvtepi32_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static type from_numbers(const float* p) { return _mm256_load_ps(p); }
    static type add(type a, type b) { return _mm256_add_ps(a, b); }
    static type subtract(type a, type b) { return _mm256_sub_ps(a, b); }
    static type multiply(type a, type b) { return _mm256_mul_ps(a, b); }
    static type magnitude(type v) { return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))); }
    static type positive_part(type v) { return _mm256_max_ps(v, set(0)); }  // 0 of a NaN
#endif
};

// Sums over the output pixels of pixel x of their gradients, 64 channels, in the order of rows.
inline const float* residual_of(const InputRow& t, size_t x, float* sums) {
    const float* grad = t.grad + t.step * x * kFeatures;
    if (t.step == 1) return grad;
    std::memcpy(sums, grad, kFeatures * sizeof(float));
    for (size_t i = 0; i < t.step; ++i)
        for (size_t j = i ? 0 : 1; j < t.step; ++j) {
            const float* more = grad + (i * t.width * t.step + j) * kFeatures;
            for (size_t c = 0; c < kFeatures; ++c) sums[c] += more[c];
        }
    return sums;
}

// kBlock pixels (or the row's rest) at a time. sums_of(x, count, sums) fills sums[count][64] from pixel x on; they are
// whole numbers in either type.
template <size_t kBlock, class Number, class SumsOf>
inline void input_pixels(const InputRow& task, const SumsOf& sums_of) {
    const InputRow t = task;
    constexpr size_t kVectors = kFeatures / Floats::lanes;
    alignas(kAlign) Number sums[kBlock * kFeatures];
    alignas(kAlign) float residual[kFeatures];
    const auto unit = Floats::set(t.unit), steepness = Floats::set(t.steepness), peak = Floats::set(t.peak);
    Floats::type partial[kVectors];
    for (Floats::type& part : partial) part = Floats::set(0);
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = least(kBlock, t.width - start);
        // The products take long enough for what is then read and written to come near.
        constexpr size_t kLine = kAlign / sizeof(float);
        for (size_t i = start * kFeatures; i < (start + count) * kFeatures; i += kLine) {
            prefetch_second_level(t.x + i);
            prefetch_second_level(t.out + i);
            if (t.step == 1) prefetch_second_level(t.grad + i);
        }
        sums_of(start, count, sums);
        for (size_t p = 0; p < count; ++p) {
            const float *x = t.x + (start + p) * kFeatures, *rest = residual_of(t, start + p, residual);
            float* out = t.out + (start + p) * kFeatures;
            BBCU_UNROLL(16)
            for (size_t v = 0; v < kVectors; ++v) {
                const size_t c = v * Floats::lanes;
                const auto to_sign = Floats::multiply(Floats::from_numbers(sums + p * kFeatures + c), unit);
                const auto shifted = Floats::add(Floats::load(x + c), Floats::load(t.shift + c));
                const auto slope = Floats::multiply(steepness, Floats::magnitude(shifted));
                const auto to_shifted = Floats::multiply(to_sign, Floats::positive_part(Floats::subtract(peak, slope)));
                partial[v] = Floats::add(partial[v], to_shifted);
                Floats::store(out + c, Floats::add(Floats::load(rest + c), to_shifted));
            }
        }
    }
    for (size_t v = 0; v < kVectors; ++v) Floats::store(t.partial + v * Floats::lanes, partial[v]);
}

}  // namespace
}  // namespace bbcu::train
