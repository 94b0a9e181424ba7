// Stands in front of the compiler's <immintrin.h>: the AVX-512 and GFNI intrinsics that kernels/avx512.cpp and
// train/avx512.cpp use, lane by lane, so that their logic runs on a CPU without them. It proves the logic, not the
// instructions.
#pragma once

#include_next <immintrin.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

template <class To, class From>
inline To as(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Lane, class V>
using Lanes = std::array<Lane, sizeof(V) / sizeof(Lane)>;

template <class V, class Lane, class F>
inline V from_lanes(F lane) {
    Lanes<Lane, V> lanes;
    for (unsigned i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<Lane>(lane(i));
    return as<V>(lanes);
}

// What f makes of each pair of lanes where the mask is set, and the lanes of source elsewhere.
template <class Lane, class V, class F>
inline V lanewise(V source, uint64_t mask, V a, V b, F f) {
    const auto s = as<Lanes<Lane, V>>(source), x = as<Lanes<Lane, V>>(a), y = as<Lanes<Lane, V>>(b);
    return from_lanes<V, Lane>([&](unsigned i) { return mask >> i & 1 ? f(x[i], y[i]) : s[i]; });
}

template <class V, class T>
inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
inline void store(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}
template <class V>
inline V mask_load_words(V source, unsigned mask, const void* p) {
    auto words = as<Lanes<uint64_t, V>>(source);
    for (unsigned i = 0; i < words.size(); ++i)
        if (mask >> i & 1) std::memcpy(&words[i], static_cast<const char*>(p) + 8 * i, 8);
    return as<V>(words);
}
template <class Lane>
inline __m512i set1(long long a) {
    return from_lanes<__m512i, Lane>([&](unsigned) { return a; });
}
inline __m512 set1_ps(float a) {
    return from_lanes<__m512, float>([&](unsigned) { return a; });
}
template <class... Shorts>
inline __m512i set_epi16(Shorts... from_last) {
    const int16_t lanes[] = {static_cast<int16_t>(from_last)...};
    return from_lanes<__m512i, int16_t>([&](unsigned i) { return lanes[31 - i]; });
}
template <class V>
inline V ternary(V a, V b, V c, unsigned table) {
    V result = a ^ a;
    for (unsigned i = 0; i < 8; ++i)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}
template <class V>
inline V shift_left(V v, unsigned n) {
    const auto words = as<Lanes<uint64_t, V>>(v);
    return from_lanes<V, uint64_t>([&](unsigned i) { return words[i] << n; });
}
template <class V>
inline V shift_right(V v, unsigned n) {
    const auto words = as<Lanes<uint64_t, V>>(v);
    return from_lanes<V, uint64_t>([&](unsigned i) { return words[i] >> n; });
}
inline __m512 fmadd(__m512 a, __m512 b, __m512 c) {
    return from_lanes<__m512, float>([&](unsigned i) { return std::fma(a[i], b[i], c[i]); });
}
inline __m512 mask_mul(__m512 source, unsigned mask, __m512 a, __m512 b) {
    return lanewise<float>(source, mask, a, b, [](float x, float y) { return x * y; });
}
inline __m512 mask_blend(unsigned mask, __m512 a, __m512 b) {
    return lanewise<float>(a, mask, a, b, [](float, float y) { return y; });
}
inline __mmask16 movepi32_mask(__m512i v) {
    unsigned mask = 0;
    for (unsigned i = 0; i < 16; ++i) mask |= unsigned{as<Lanes<int32_t, __m512i>>(v)[i] < 0} << i;
    return static_cast<__mmask16>(mask);
}
template <int kPredicate>
inline __mmask16 compare(unsigned mask, __m512 a, __m512 b) {
    static_assert(kPredicate == _CMP_LT_OQ || kPredicate == _CMP_GT_OQ || kPredicate == _CMP_NGE_UQ);
    unsigned result = 0;
    for (unsigned i = 0; i < 16; ++i) {
        const bool holds = kPredicate == _CMP_LT_OQ   ? a[i] < b[i]
                           : kPredicate == _CMP_GT_OQ ? a[i] > b[i]
                                                      : !(a[i] >= b[i]);
        result |= unsigned{holds} << i;
    }
    return static_cast<__mmask16>(result & mask);
}
inline __m512 mask_add(__m512 source, unsigned mask, __m512 a, __m512 b) {
    return lanewise<float>(source, mask, a, b, [](float x, float y) { return x + y; });
}
template <class Lane>
inline __m512i add(__m512i a, __m512i b) {
    return lanewise<Lane>(a, ~uint64_t{0}, a, b, [](Lane x, Lane y) { return static_cast<Lane>(x + y); });
}
template <class Lane>
inline __m512i subtract(__m512i a, __m512i b) {
    return lanewise<Lane>(a, ~uint64_t{0}, a, b, [](Lane x, Lane y) { return static_cast<Lane>(x - y); });
}
inline __m512i largest(__m512i a, __m512i b) {
    return lanewise<uint32_t>(a, ~uint64_t{0}, a, b, [](uint32_t x, uint32_t y) { return x > y ? x : y; });
}
inline __m256i mask_add_epi16(__m256i source, uint32_t mask, __m256i a, __m256i b) {
    return lanewise<int16_t>(source, mask, a, b, [](int x, int y) { return x + y; });
}
inline __m512i mask_sub_epi16(__m512i source, uint32_t mask, __m512i a, __m512i b) {
    return lanewise<int16_t>(source, mask, a, b, [](int x, int y) { return x - y; });
}
template <class From, class To, class V>
inline __m512i widen(V v) {
    const auto lanes = as<Lanes<From, V>>(v);
    return from_lanes<__m512i, To>([&](unsigned i) { return lanes[i]; });
}
// The lower bits of each lane.
template <class From, class To, class V>
inline V narrow(__m512i v) {
    const auto lanes = as<Lanes<From, __m512i>>(v);
    return from_lanes<V, To>([&](unsigned i) { return lanes[i]; });
}
inline __m512i insert(__m512i v, __m256i half, unsigned i) {
    auto halves = as<std::array<__m256i, 2>>(v);
    halves[i] = half;
    return as<__m512i>(halves);
}
inline __m512i repeat(__m128i v) { return as<__m512i>(std::array<__m128i, 4>{v, v, v, v}); }
// In each 128 bits, the bytes of v at the positions given; 0 where bit 7 of a position is set.
inline __m512i shuffle(__m512i v, __m512i positions) {
    const auto bytes = as<Lanes<uint8_t, __m512i>>(v), at = as<Lanes<uint8_t, __m512i>>(positions);
    return from_lanes<__m512i, uint8_t>([&](unsigned i) { return at[i] & 0x80 ? 0 : bytes[i / 16 * 16 + at[i] % 16]; });
}
// Sums of two products each, of unsigned and signed bytes, saturated.
inline __m512i products(__m512i a, __m512i b) {
    const auto x = as<Lanes<uint8_t, __m512i>>(a);
    const auto y = as<Lanes<int8_t, __m512i>>(b);
    return from_lanes<__m512i, int16_t>([&](unsigned i) {
        const int sum = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
        return sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum;
    });
}
inline __m512i shift_left_epi32(__m512i v, unsigned n) {
    const auto lanes = as<Lanes<uint32_t, __m512i>>(v);
    return from_lanes<__m512i, uint32_t>([&](unsigned i) { return lanes[i] << n; });
}
inline __m512 to_float(__m512i v) {
    const auto lanes = as<Lanes<int32_t, __m512i>>(v);
    return from_lanes<__m512, float>([&](unsigned i) { return lanes[i]; });
}
inline __m512i popcount(__m512i v) {
    const auto words = as<Lanes<uint64_t, __m512i>>(v);
    return from_lanes<__m512i, int64_t>([&](unsigned i) { return __builtin_popcountll(words[i]); });
}
inline __m512i permute_epi8(__m512i index, __m512i v) {
    const auto from = as<Lanes<uint8_t, __m512i>>(index), lanes = as<Lanes<uint8_t, __m512i>>(v);
    return from_lanes<__m512i, uint8_t>([&](unsigned i) { return lanes[from[i] % 64]; });
}
// Lanes of a and b by turns, from the lower (high = 0) or the upper half of each 128 bits.
template <class Lane>
inline __m512i unpack(__m512i a, __m512i b, unsigned high) {
    constexpr unsigned each = 16 / sizeof(Lane);
    const auto x = as<Lanes<Lane, __m512i>>(a), y = as<Lanes<Lane, __m512i>>(b);
    return from_lanes<__m512i, Lane>([&](unsigned i) {
        const unsigned from = i / each * each + high * each / 2 + i % each / 2;
        return i % 2 ? y[from] : x[from];
    });
}
// Bit i of a byte is the parity of the byte and row 7 - i of the matrix in its 64 bits.
inline __m512i affine(__m512i bytes, __m512i matrix, unsigned added) {
    const auto x = as<Lanes<uint8_t, __m512i>>(bytes), rows = as<Lanes<uint8_t, __m512i>>(matrix);
    return from_lanes<__m512i, uint8_t>([&](unsigned n) {
        unsigned result = added;
        for (unsigned i = 0; i < 8; ++i) result ^= unsigned(__builtin_parity(x[n] & rows[n / 8 * 8 + 7 - i])) << i;
        return result;
    });
}
template <class To, class V>
inline To part(V v, unsigned i) {
    return as<std::array<To, sizeof(V) / sizeof(To)>>(v)[i];
}

}  // namespace emulated

#define _mm512_loadu_ps emulated::load<__m512>
#define _mm512_load_ps emulated::load<__m512>
#define _mm512_storeu_ps emulated::store
#define _mm512_loadu_si512 emulated::load<__m512i>
#define _mm512_load_si512 emulated::load<__m512i>
#define _mm512_storeu_si512 emulated::store
#define _mm512_store_si512 emulated::store
#define _mm512_mask_loadu_epi64 emulated::mask_load_words
#define _mm256_mask_loadu_epi64 emulated::mask_load_words
#define _mm512_setzero_si512() emulated::set1<int64_t>(0)
#define _mm512_setzero_ps() emulated::set1_ps(0)
#define _mm512_set1_epi32 emulated::set1<int32_t>
#define _mm512_set1_epi16 emulated::set1<int16_t>
#define _mm512_set1_epi64 emulated::set1<int64_t>
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set_epi16 emulated::set_epi16
#define _mm512_castps_si512 emulated::as<__m512i>
#define _mm512_castsi512_si256(v) emulated::part<__m256i>(v, 0)
#define _mm512_castsi256_si512(v) emulated::insert(emulated::set1<int64_t>(0), v, 0)
#define _mm512_inserti64x4 emulated::insert
#define _mm512_broadcast_i32x4 emulated::repeat
#define _mm512_extracti64x4_epi64 emulated::part<__m256i>
#define _mm512_castsi512_si128(v) emulated::part<__m128i>(v, 0)
#define _mm512_ternarylogic_epi64 emulated::ternary
#define _mm256_ternarylogic_epi64 emulated::ternary
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_or_si512(a, b) ((a) | (b))
#define _mm512_xor_si512(a, b) ((a) ^ (b))
#define _mm512_slli_epi64 emulated::shift_left
#define _mm512_srli_epi64 emulated::shift_right
#define _mm512_slli_epi32 emulated::shift_left_epi32
#define _mm512_add_ps(a, b) ((a) + (b))
#define _mm512_sub_ps(a, b) ((a) - (b))
#define _mm512_mul_ps(a, b) ((a) * (b))
#define _mm512_mask_add_ps emulated::mask_add
#define _mm512_fmadd_ps emulated::fmadd
#define _mm512_mask_mul_ps emulated::mask_mul
#define _mm512_mask_blend_ps emulated::mask_blend
#define _mm512_movepi32_mask emulated::movepi32_mask
#define _mm512_cmp_ps_mask(a, b, predicate) emulated::compare<predicate>(0xffff, a, b)
#define _mm512_mask_cmp_ps_mask(mask, a, b, predicate) emulated::compare<predicate>(mask, a, b)
#define _mm512_add_epi64(a, b) ((a) + (b))
#define _mm512_popcnt_epi64 emulated::popcount
#define _mm512_add_epi8 emulated::add<int8_t>
#define _mm512_add_epi16 emulated::add<int16_t>
#define _mm512_sub_epi32 emulated::subtract<int32_t>
#define _mm512_max_epu32 emulated::largest
#define _mm512_maddubs_epi16 emulated::products
#define _mm512_shuffle_epi8 emulated::shuffle
#define _mm512_sub_epi16(a, b) emulated::mask_sub_epi16(a, ~0u, a, b)
#define _mm256_mask_add_epi16 emulated::mask_add_epi16
#define _mm512_mask_sub_epi16 emulated::mask_sub_epi16
#define _mm512_cvtepu8_epi16 emulated::widen<uint8_t, int16_t>
#define _mm512_cvtepi16_epi32 emulated::widen<int16_t, int32_t>
#define _mm512_cvtepi32_epi16 emulated::narrow<int32_t, int16_t, __m256i>
#define _mm512_cvtepi64_epi32 emulated::narrow<int64_t, int32_t, __m256i>
#define _mm512_cvtepi32_ps emulated::to_float
#define _mm512_permutexvar_epi8 emulated::permute_epi8
#define _mm512_unpacklo_epi8(a, b) emulated::unpack<uint8_t>(a, b, 0)
#define _mm512_unpackhi_epi8(a, b) emulated::unpack<uint8_t>(a, b, 1)
#define _mm512_unpacklo_epi16(a, b) emulated::unpack<uint16_t>(a, b, 0)
#define _mm512_unpackhi_epi16(a, b) emulated::unpack<uint16_t>(a, b, 1)
#define _mm512_unpacklo_epi32(a, b) emulated::unpack<uint32_t>(a, b, 0)
#define _mm512_unpackhi_epi32(a, b) emulated::unpack<uint32_t>(a, b, 1)
#define _mm512_gf2p8affine_epi64_epi8 emulated::affine
