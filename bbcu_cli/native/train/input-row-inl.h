// What follows the products of the input's gradient, pixel by pixel; for AVX2 and what has it.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "unit.h"

namespace bbcu::train {
namespace {

// kBlock pixels (or the row's rest) at a time. sums_of(x, count, sums) fills sums[count][64] from pixel x on.
template <size_t kBlock, class SumsOf>
inline void input_pixels(const InputRow& task, const SumsOf& sums_of) {
    const InputRow t = task;
    constexpr size_t kLanes = 8;
    alignas(kAlign) int32_t sums[kBlock * kFeatures];
    alignas(kAlign) float partial[kFeatures] = {};
    const __m256 unit = _mm256_set1_ps(t.unit), steepness = _mm256_set1_ps(t.steepness), peak = _mm256_set1_ps(t.peak);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = std::min(kBlock, t.width - start);
        sums_of(start, count, sums);
        for (size_t p = 0; p < count; ++p) {
            const size_t x = start + p;
            for (size_t c = 0; c < kFeatures; c += kLanes) {
                const auto* sum = reinterpret_cast<const __m256i*>(sums + p * kFeatures + c);
                const __m256 to_sign = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_load_si256(sum)), unit);
                const __m256 shifted =
                    _mm256_add_ps(_mm256_loadu_ps(t.x + x * kFeatures + c), _mm256_loadu_ps(t.shift + c));
                const __m256 slope = _mm256_mul_ps(steepness, _mm256_and_ps(shifted, magnitude));
                const __m256 window = _mm256_max_ps(_mm256_sub_ps(peak, slope), _mm256_setzero_ps());
                const __m256 to_shifted = _mm256_mul_ps(to_sign, window);
                _mm256_store_ps(partial + c, _mm256_add_ps(_mm256_load_ps(partial + c), to_shifted));
                __m256 residual = _mm256_loadu_ps(t.grad + t.step * x * kFeatures + c);
                for (size_t i = 0; i < t.step; ++i)
                    for (size_t j = i ? 0 : 1; j < t.step; ++j)
                        residual = _mm256_add_ps(
                            residual, _mm256_loadu_ps(t.grad + ((i * t.width + x) * t.step + j) * kFeatures + c));
                _mm256_storeu_ps(t.out + x * kFeatures + c, _mm256_add_ps(residual, to_shifted));
            }
        }
    }
    for (size_t c = 0; c < kFeatures; ++c) t.partial[c] = partial[c];
}

}  // namespace
}  // namespace bbcu::train
