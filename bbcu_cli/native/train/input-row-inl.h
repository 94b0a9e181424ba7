// What follows the products of the input's gradient, pixel by pixel; for AVX2 and what has it.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "../portability.h"
#include "kernels.h"

namespace bbcu::train {
namespace {

// Sums over the output pixels of pixel x of their gradients, 64 channels, in the order of rows.
inline const float* residual_of(const InputRow& t, size_t x, float* sums) {
    const float* grad = t.grad + t.step * x * kFeatures;
    if (t.step == 1) return grad;
    std::copy_n(grad, kFeatures, sums);
    for (size_t i = 0; i < t.step; ++i)
        for (size_t j = i ? 0 : 1; j < t.step; ++j) {
            const float* more = grad + (i * t.width * t.step + j) * kFeatures;
            for (size_t c = 0; c < kFeatures; ++c) sums[c] += more[c];
        }
    return sums;
}

// kBlock pixels (or the row's rest) at a time. sums_of(x, count, sums) fills sums[count][64] from pixel x on.
template <size_t kBlock, class SumsOf>
inline void input_pixels(const InputRow& task, const SumsOf& sums_of) {
    const InputRow t = task;
    constexpr size_t kLanes = 8, kVectors = kFeatures / kLanes;
    alignas(kAlign) int32_t sums[kBlock * kFeatures];
    alignas(kAlign) float residual[kFeatures];
    const __m256 unit = _mm256_set1_ps(t.unit), steepness = _mm256_set1_ps(t.steepness), peak = _mm256_set1_ps(t.peak);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 partial[kVectors];
    for (__m256& part : partial) part = _mm256_setzero_ps();
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = std::min(kBlock, t.width - start);
        sums_of(start, count, sums);
        for (size_t p = 0; p < count; ++p) {
            const float *x = t.x + (start + p) * kFeatures, *rest = residual_of(t, start + p, residual);
            float* out = t.out + (start + p) * kFeatures;
            BBCU_UNROLL(8)
            for (size_t v = 0; v < kVectors; ++v) {
                const size_t c = v * kLanes;
                const auto* sum = reinterpret_cast<const __m256i*>(sums + p * kFeatures + c);
                const __m256 to_sign = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_load_si256(sum)), unit);
                const __m256 shifted = _mm256_add_ps(_mm256_loadu_ps(x + c), _mm256_loadu_ps(t.shift + c));
                const __m256 slope = _mm256_mul_ps(steepness, _mm256_and_ps(shifted, magnitude));
                const __m256 window = _mm256_max_ps(_mm256_sub_ps(peak, slope), _mm256_setzero_ps());
                const __m256 to_shifted = _mm256_mul_ps(to_sign, window);
                partial[v] = _mm256_add_ps(partial[v], to_shifted);
                _mm256_storeu_ps(out + c, _mm256_add_ps(_mm256_loadu_ps(rest + c), to_shifted));
            }
        }
    }
    for (size_t v = 0; v < kVectors; ++v) _mm256_storeu_ps(t.partial + v * kLanes, partial[v]);
}

}  // namespace
}  // namespace bbcu::train
