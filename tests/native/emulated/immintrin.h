// Stands in front of the compiler's <immintrin.h>: the AVX-512 intrinsics that avx512.cpp uses, as loops over lanes,
// so that its logic runs on a CPU without them. It proves the logic, not the instructions.
#pragma once

#include_next <immintrin.h>

#include <cmath>
#include <cstring>

namespace emulated {

template <class V, class F>
inline V from_lanes(F lane) {
    V v;
    for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); ++i) v[i] = lane(i);
    return v;
}
inline bool in(unsigned mask, unsigned i) { return mask >> i & 1; }

inline __m512 loadu_ps(const float* p) { __m512 v; std::memcpy(&v, p, sizeof v); return v; }
inline void storeu_ps(float* p, __m512 v) { std::memcpy(p, &v, sizeof v); }
inline __m512i loadu(const void* p) { __m512i v; std::memcpy(&v, p, sizeof v); return v; }
inline void storeu(void* p, __m512i v) { std::memcpy(p, &v, sizeof v); }
inline __m512 set1_ps(float a) { return from_lanes<__m512>([&](unsigned) { return a; }); }
inline __m512i set1(long long a) { return from_lanes<__m512i>([&](unsigned) { return a; }); }
inline __m512 fmadd(__m512 a, __m512 b, __m512 c) {
    return from_lanes<__m512>([&](unsigned i) { return std::fma(a[i], b[i], c[i]); });
}
inline __m512 mask_mul(__m512 source, unsigned mask, __m512 a, __m512 b) {
    return from_lanes<__m512>([&](unsigned i) { return in(mask, i) ? a[i] * b[i] : source[i]; });
}
inline unsigned movepi32_mask(__m512i v) {
    int lanes[16];
    std::memcpy(lanes, &v, sizeof v);
    unsigned mask = 0;
    for (unsigned i = 0; i < 16; ++i) mask |= (lanes[i] < 0 ? 1u : 0u) << i;
    return mask;
}
inline __m512i castps(__m512 v) { __m512i r; std::memcpy(&r, &v, sizeof r); return r; }
inline __m512i mask_or(__m512i source, unsigned mask, __m512i a, __m512i b) {
    return from_lanes<__m512i>([&](unsigned i) { return in(mask, i) ? a[i] | b[i] : source[i]; });
}
inline __m512i maskz_popcnt(unsigned mask, __m512i a) {
    return from_lanes<__m512i>([&](unsigned i) {
        return in(mask, i) ? __builtin_popcountll(static_cast<unsigned long long>(a[i])) : 0;
    });
}
inline __m256i cvtepi64_epi32(__m512i v) {
    int lanes[8];
    for (unsigned i = 0; i < 8; ++i) lanes[i] = static_cast<int>(v[i]);
    __m256i r;
    std::memcpy(&r, lanes, sizeof r);
    return r;
}
inline __m128i low128(__m512i v) { __m128i r; std::memcpy(&r, &v, sizeof r); return r; }
inline __mmask8 less(__m256 a, __m256 b) {
    unsigned mask = 0;
    for (unsigned i = 0; i < 8; ++i) mask |= (a[i] < b[i] ? 1u : 0u) << i;
    return static_cast<__mmask8>(mask);
}

}  // namespace emulated

#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_loadu_si512 emulated::loadu
#define _mm512_storeu_si512 emulated::storeu
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set1_epi64 emulated::set1
#define _mm512_setzero_si512() emulated::set1(0)
#define _mm512_fmadd_ps emulated::fmadd
#define _mm512_mask_mul_ps emulated::mask_mul
#define _mm512_movepi32_mask emulated::movepi32_mask
#define _mm512_castps_si512 emulated::castps
#define _mm512_mask_or_epi64 emulated::mask_or
#define _mm512_maskz_popcnt_epi64 emulated::maskz_popcnt
#define _mm512_xor_si512(a, b) ((a) ^ (b))
#define _mm512_add_epi64(a, b) ((a) + (b))
#define _mm512_cvtepi64_epi32 emulated::cvtepi64_epi32
#define _mm512_castsi512_si128 emulated::low128
#define _mm256_cmp_ps_mask(a, b, predicate) emulated::less(a, b)  // only _CMP_LT_OQ is used
