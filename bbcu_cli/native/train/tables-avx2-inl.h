// The tables and patterns of products-inl.h, made by AVX2; for that set and for AVX-512.
#pragma once

#include <immintrin.h>

#include "../portability.h"
#include "products-inl.h"

namespace bbcu::train {
namespace {

struct Avx2Tables {
    static void store_patterns(const uint64_t (&words)[4], uint8_t* to) {
        const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
                                                3, 3, 3, 3, 3, 3, 3, 3);
        const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
        for (size_t half = 0; half < 2; ++half) {
            __m256i pattern = _mm256_setzero_si256();
            for (size_t i = 0; i < 4; ++i) {
                const __m256i word = _mm256_set1_epi32(static_cast<int32_t>(words[i] >> (32 * half)));
                const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, spread), bit), bit);
                pattern = _mm256_or_si256(pattern, _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(1 << i))));
            }
            _mm256_store_si256(reinterpret_cast<__m256i*>(to) + half, pattern);
        }
    }

    static int32_t store_pixel(const float* gradient, const float* scale, size_t channels, uint8_t* to) {
        __m256i sum = _mm256_setzero_si256();
        for (size_t c = 0; c < channels; c += 16, to += 4 * kTable) {
            const __m256i v = quantised(gradient + c, scale + c);
            store_tables(v, to, kTable, 2 * kTable);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_abs_epi16(v), _mm256_set1_epi16(1)));
        }
        return sum_of(sum);
    }

    static void store_row(const WeightRows& t, size_t y) {
        const float* from = t.gradient + y * t.width * t.pitch;
        const size_t four = four_bytes(t.rows, t.width);
        uint8_t* to = t.scratch + y * quads(t.width) * 4 * kTable;
        auto* sums = reinterpret_cast<__m256i*>(t.scratch + kFours * four) + y * 3 * 2;
        const auto widened = [](__m256i v, size_t half) {
            const __m256i in_order = _mm256_permute4x64_epi64(v, 0xd8);
            return _mm256_cvtepi16_epi32(half ? _mm256_extracti128_si256(in_order, 1)
                                              : _mm256_castsi256_si128(in_order));
        };
        __m256i magnitude[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, first = magnitude[0], last = first;
        for (size_t x = 0; x < t.width; x += 4, from += 4 * t.pitch, to += 4 * kTable) {
            __m256i v[4];
            for (size_t i = 0; i < 4; ++i)
                v[i] = x + i < t.width ? quantised(from + i * t.pitch, t.scale) : _mm256_setzero_si256();
            if (x == 0) first = v[0];
            if (x + 4 >= t.width) last = v[t.width - 1 - x];
            const auto two = [&](size_t i) {
                return _mm256_add_epi16(_mm256_abs_epi16(v[i]), _mm256_abs_epi16(v[i + 1]));
            };
            const __m256i sum = _mm256_add_epi16(two(0), two(2));
            for (size_t half = 0; half < 2; ++half)
                magnitude[half] = _mm256_add_epi32(magnitude[half], widened(sum, half));
            BBCU_UNROLL(2)
            for (size_t i = 0; i < 2; ++i) {  // channels 8 * i to 8 * i + 7
                const auto pair = [&](size_t p) {
                    return i ? _mm256_unpackhi_epi16(v[p], v[p + 1]) : _mm256_unpacklo_epi16(v[p], v[p + 1]);
                };
                const __m256i left = pair(0), right = pair(2);
                store_tables(_mm256_unpacklo_epi32(left, right), to + 2 * i * four, four, kTable);
                store_tables(_mm256_unpackhi_epi32(left, right), to + 2 * i * four + 2 * kTable, four, kTable);
            }
        }
        for (size_t half = 0; half < 2; ++half) {
            _mm256_store_si256(sums + half, _mm256_sub_epi32(magnitude[half], widened(first, half)));
            _mm256_store_si256(sums + 2 + half, magnitude[half]);
            _mm256_store_si256(sums + 4 + half, _mm256_sub_epi32(magnitude[half], widened(last, half)));
        }
    }

    static void subtract_twice(const uint8_t* words, int32_t* to) {
        auto* at = reinterpret_cast<__m256i*>(to);
        const __m128i of_16_bits = _mm_load_si128(reinterpret_cast<const __m128i*>(words));
        const __m256i twice = _mm256_slli_epi32(_mm256_cvtepu16_epi32(of_16_bits), 1);
        _mm256_storeu_si256(at, _mm256_sub_epi32(_mm256_loadu_si256(at), twice));
    }

private:
    // The tables of four quads of numbers: v[0..3] at `to`, v[4..7] `second` bytes on, v[8..11] `lane` bytes on,
    // v[12..15] both.
    static void store_tables(__m256i v, uint8_t* to, size_t lane, size_t second) {
        const auto words = [](int a, int b, int c, int d, int e, int f, int g, int h) {
            const auto two = [](int x, int y) { return (0x0100 + 0x0202 * x) | (0x0100 + 0x0202 * y) << 16; };
            return _mm256_setr_epi32(two(a, b), two(c, d), two(e, f), two(g, h), two(a, b), two(c, d), two(e, f),
                                     two(g, h));
        };
        const __m256i swap = words(1, 0, 3, 2, 5, 4, 7, 6);
        const __m256i minus = _mm256_max_epi16(v, _mm256_setzero_si256());  // what a number gives to V under a minus
        const __m256i plus = _mm256_sub_epi16(minus, v);
        const __m256i other_plus = _mm256_shuffle_epi8(plus, swap), other_minus = _mm256_shuffle_epi8(minus, swap);
        // Of each pair, under ++ and --, then under -+ and +-
        const __m256i equal =
            _mm256_blend_epi16(_mm256_add_epi16(plus, other_plus), _mm256_add_epi16(minus, other_minus), 0xaa);
        const __m256i unequal = _mm256_add_epi16(minus, other_plus);
        const __m256i quads[2] = {_mm256_unpacklo_epi16(equal, unequal), _mm256_unpackhi_epi16(equal, unequal)};
        BBCU_UNROLL(2)
        for (size_t i = 0; i < 2; ++i, to += second) {
            const __m256i pair = _mm256_shuffle_epi8(quads[i], words(0, 1, 3, 2, 0, 1, 3, 2));
            const __m256i half[2] = {
                _mm256_add_epi16(pair, _mm256_shuffle_epi8(quads[i], words(4, 4, 4, 4, 5, 5, 5, 5))),
                _mm256_add_epi16(pair, _mm256_shuffle_epi8(quads[i], words(7, 7, 7, 7, 6, 6, 6, 6)))};
            const __m256i digit = _mm256_set1_epi16(kDigit - 1);
            const __m256i low = _mm256_packus_epi16(_mm256_and_si256(half[0], digit), _mm256_and_si256(half[1], digit));
            const __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(half[0], 5), _mm256_srli_epi16(half[1], 5));
            _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(low, high, 0x20));
            _mm256_store_si256(reinterpret_cast<__m256i*>(to + lane), _mm256_permute2x128_si256(low, high, 0x31));
        }
    }

    // 16 whole numbers nearest to from * scale, in 16 bits; of the four quads the second and the third change places.
    static __m256i quantised(const float* from, const float* scale) {
        const auto part = [&](size_t i) {
            return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i), _mm256_loadu_ps(scale + i)));
        };
        return _mm256_packs_epi32(part(0), part(8));
    }

    static int32_t sum_of(__m256i v) {
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
    }
};

}  // namespace
}  // namespace bbcu::train
