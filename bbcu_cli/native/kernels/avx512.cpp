// AVX-512 VPOPCNTDQ: vpopcntq counts the 64 channels of a pixel at once, eight pixels in a register.
//
// A packed row is one 64-bit word per pixel, bit c set where channel c is -1, with kLanes words of room before
// pixel 0 and after the last block. The nine words around a pixel stay in registers for all 64 outputs, whose
// weights are broadcast by the xor itself: xor, popcount and add are 64 products of 8 pixels. A masked popcount
// gives 0 where the tap lies outside the image. A count of 576 fits any lane.

#include <immintrin.h>

#include <cstring>

#include "float-inl.h"

namespace bbcu {
namespace {

constexpr size_t kLanes = 8;  // pixels in a register
constexpr size_t kSpan = 2;   // registers that a kernel works on at once

struct Avx512 {
    using type = __m512;
    static constexpr size_t lanes = 16;
    static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static __m512 set(float v) { return _mm512_set1_ps(v); }
    static __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
    static __m512 leaky(__m512 v, __m512 slope) {
        return _mm512_mask_mul_ps(v, _mm512_movepi32_mask(_mm512_castps_si512(v)), v, slope);
    }
};

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq");
}

size_t padded(size_t width) { return (width + kSpan * kLanes - 1) / (kSpan * kLanes) * (kSpan * kLanes); }
size_t packed_row_bytes(size_t width) { return (padded(width) + 2 * kLanes) * sizeof(uint64_t); }
uint64_t* words_of(uint8_t* packed) { return reinterpret_cast<uint64_t*>(packed) + kLanes; }
const uint64_t* words_of(const uint8_t* packed) { return reinterpret_cast<const uint64_t*>(packed) + kLanes; }

void pack_weights(const uint64_t* signs, uint8_t* weights) {
    std::memcpy(weights, signs, kFeatures * kTaps * sizeof(uint64_t));
}

void pack_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    for (size_t x = 0; x < width; x += kLanes) {
        __m512i word = _mm512_setzero_si512();
        for (size_t c = 0; c < kFeatures; ++c) {
            const __m256 v = _mm256_loadu_ps(row + c * stride + x);
            const __mmask8 negative = _mm256_cmp_ps_mask(v, _mm256_set1_ps(threshold[c]), _CMP_LT_OQ);
            word = _mm512_mask_or_epi64(word, negative, word, _mm512_set1_epi64(static_cast<int64_t>(uint64_t{1} << c)));
        }
        _mm512_storeu_si512(words_of(packed) + x, word);
    }
}

// The words around kSpan * 8 pixels and which of them lie inside the image.
struct Window {
    __m512i word[kSpan][kTaps];
    __mmask8 inside[kSpan][3];  // by dx
    bool row[3];
};

inline Window window_at(const uint8_t* const rows[3], size_t x, size_t width) {
    Window w;
    for (size_t v = 0; v < kSpan; ++v) {
        const size_t at = x + v * kLanes;
        const size_t right = at + 1 < width ? width - 1 - at : 0;  // pixels of the block that have a right neighbour
        w.inside[v][0] = at == 0 ? 0xfe : 0xff;
        w.inside[v][1] = 0xff;
        w.inside[v][2] = static_cast<__mmask8>(right < kLanes ? (1u << right) - 1 : 0xff);
    }
    for (size_t dy = 0; dy < 3; ++dy) {
        w.row[dy] = rows[dy] != nullptr;
        for (size_t v = 0; v < kSpan; ++v)
            for (size_t dx = 0; dx < 3; ++dx)
                w.word[v][3 * dy + dx] = w.row[dy] ? _mm512_loadu_si512(words_of(rows[dy]) + x + v * kLanes + dx - 1)
                                                   : _mm512_setzero_si512();
    }
    return w;
}

// Differing signs of one output channel.
inline void count(const Window& w, const uint64_t* taps, __m512i counts[kSpan]) {
    for (size_t v = 0; v < kSpan; ++v) counts[v] = _mm512_setzero_si512();
#pragma GCC unroll 3
    for (size_t dy = 0; dy < 3; ++dy) {
        if (!w.row[dy]) continue;
#pragma GCC unroll 3
        for (size_t dx = 0; dx < 3; ++dx) {
            const __m512i tap = _mm512_set1_epi64(static_cast<int64_t>(taps[3 * dy + dx]));
#pragma GCC unroll 2
            for (size_t v = 0; v < kSpan; ++v)
                counts[v] = _mm512_add_epi64(
                    counts[v],
                    _mm512_maskz_popcnt_epi64(w.inside[v][dx], _mm512_xor_si512(w.word[v][3 * dy + dx], tap)));
        }
    }
}

// Residual and affine part of 8 pixels of channel o; returns which results are below the threshold.
template <bool kLeaky>
inline __mmask8 finish(const BinaryRow& t, __m512i count, size_t o, size_t x) {
    const UnitParams& unit = *t.unit;
    const __m256i taps = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(t.taps + x)));
    const __m256i differing = _mm512_cvtepi64_epi32(count);
    const __m256i y = _mm256_sub_epi32(taps, _mm256_add_epi32(differing, differing));
    const __m256 u = _mm256_fmadd_ps(_mm256_set1_ps(unit.scale[o]), _mm256_cvtepi32_ps(y), _mm256_set1_ps(unit.bias[o]));
    const __m256 slope = _mm256_blendv_ps(_mm256_set1_ps(1), _mm256_set1_ps(unit.slope[o]), u);
    const __m256 added = _mm256_fmadd_ps(u, slope, _mm256_set1_ps(unit.offset[o]));
    __m256 sum = _mm256_add_ps(_mm256_loadu_ps(t.residual + o * t.stride + x), added);
    if (kLeaky) sum = _mm256_blendv_ps(sum, _mm256_mul_ps(sum, _mm256_set1_ps(t.leak)), sum);
    _mm256_storeu_ps(t.out + o * t.stride + x, sum);
    return t.packed ? _mm256_cmp_ps_mask(sum, _mm256_set1_ps(t.threshold[o]), _CMP_LT_OQ) : __mmask8{0};
}

template <bool kLeaky>
void binary_row_as(const BinaryRow& t) {
    const auto* weights = reinterpret_cast<const uint64_t*>(t.weights);
    for (size_t x = 0; x < t.width; x += kSpan * kLanes) {
        const Window window = window_at(t.rows, x, t.width);
        __m512i signs[kSpan] = {};
        for (size_t o = 0; o < kFeatures; ++o) {
            __m512i counts[kSpan];
            count(window, weights + o * kTaps, counts);
            const __m512i bit = _mm512_set1_epi64(static_cast<int64_t>(uint64_t{1} << o));
            for (size_t v = 0; v < kSpan; ++v) {
                const __mmask8 negative = finish<kLeaky>(t, counts[v], o, x + v * kLanes);
                signs[v] = _mm512_mask_or_epi64(signs[v], negative, signs[v], bit);
            }
        }
        if (!t.packed) continue;
        for (size_t v = 0; v < kSpan; ++v) _mm512_storeu_si512(words_of(t.packed) + x + v * kLanes, signs[v]);
    }
}

void binary_row(const BinaryRow& t) { t.leak == 1.0f ? binary_row_as<false>(t) : binary_row_as<true>(t); }

void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    const auto* words = reinterpret_cast<const uint64_t*>(weights);
    for (size_t x = 0; x < width; x += kSpan * kLanes) {
        const Window window = window_at(rows, x, width);
        __m512i sum = _mm512_setzero_si512();
        for (size_t o = 0; o < kFeatures; ++o) {
            __m512i counts[kSpan];
            count(window, words + o * kTaps, counts);
            for (size_t v = 0; v < kSpan; ++v) sum = _mm512_add_epi64(sum, counts[v]);
        }
        sink[0] ^= static_cast<uint8_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
    }
}

}  // namespace

extern const KernelSet kAvx512;
const KernelSet kAvx512 = {
    "avx512", "AVX-512 vector popcount, 8 pixels of 64 channels at a time", "AVX-512 F, BW, DQ, VL and VPOPCNTDQ",
    supported, packed_row_bytes, kFeatures * kTaps * sizeof(uint64_t),
    pack_weights, pack_row, binary_row, conv_row<Avx512>, interleave, bare_row,
};

}  // namespace bbcu
