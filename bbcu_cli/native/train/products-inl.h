// Products of signs and quantised gradients by table look-up in bytes, written once over a vector type.
//
// Of four whole numbers under four signs, the sum is M - 2 V: M is the sum of their magnitudes, V that of the
// magnitudes which the sign makes negative. V has 16 values of at most 4 * kMost = 1020, and so two digits to the base
// 32. A *table* is its 16 lower digits and its 16 higher ones; a *pattern* is a byte of four signs. A shuffle of bytes
// looks one digit up for as many patterns as the vector has bytes, and an addition of bytes sums them: two of each are
// 128 products in 256 bits. For the input's gradient the four numbers are output channels of a pixel and patterns come
// from the weights; for the weights' they are pixels of a channel and patterns come from the signs of the input.
//
// Example: of 5, -3, 0, 100 under +, +, -, - the sum is 5 - 3 - 0 - 100 = -98; M = 108 and V = 3 + 0 + 100 = 103, of
// the digits 3 and 7.
//
// Bounds: digits are at most 31, so 8 look-ups sum to 248 in a byte; V of 64 look-ups to 65280 in 16 bits.
//
// V has `type`, `bytes`, `rows` (tables that meet a pattern at once: as many as registers hold sums for), zero, load,
//   table(p)                      16 bytes, repeated in every 128 bits
//   look_up(table, pattern)       in every 128 bits
//   add(a, b)                     bytes
//   lower(low, high), upper(...)  numbers of 16 bits from the digits in the lower (upper) half of every 128 bits
//   add_words(a, b)
//   in_register(v), in_memory(p)  v, p: what the compiler is to keep where it is
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "../portability.h"
#include "input-row-inl.h"
#include "kernels.h"

namespace bbcu::train {
namespace {

constexpr size_t kQuads = kFeatures / 4;
constexpr int kDigit = 32;                                        // base of digits
constexpr size_t kTable = 32;                                     // bytes
constexpr size_t kOnce = 255 / (kDigit - 1);                      // look-ups whose digits sum within a byte
constexpr size_t kLookUps = 65535 / (4 * kMost) / kOnce * kOnce;  // and whose V within 16 bits
static_assert(4 * kMost < kDigit * kDigit && kQuads % kOnce == 0);

// Patterns of 64 channels: a byte each, of which bit i is the channel's in words[i].
void store_patterns(const uint64_t (&words)[4], uint8_t* to) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                            3, 3, 3, 3, 3, 3, 3);
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

// The tables of four quads of numbers: v[0..3] at `to`, v[4..7] `second` bytes on, v[8..11] `lane` bytes on, v[12..15]
// both.
inline void store_tables(__m256i v, uint8_t* to, size_t lane, size_t second) {
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
        const __m256i half[2] = {_mm256_add_epi16(pair, _mm256_shuffle_epi8(quads[i], words(4, 4, 4, 4, 5, 5, 5, 5))),
                                 _mm256_add_epi16(pair, _mm256_shuffle_epi8(quads[i], words(7, 7, 7, 7, 6, 6, 6, 6)))};
        const __m256i digit = _mm256_set1_epi16(kDigit - 1);
        const __m256i low = _mm256_packus_epi16(_mm256_and_si256(half[0], digit), _mm256_and_si256(half[1], digit));
        const __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(half[0], 5), _mm256_srli_epi16(half[1], 5));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + lane), _mm256_permute2x128_si256(low, high, 0x31));
    }
}

// 16 whole numbers nearest to from * scale, in 16 bits; of the four quads the second and the third change places.
inline __m256i quantised(const float* from, const float* scale) {
    const auto part = [&](size_t i) {
        return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i), _mm256_loadu_ps(scale + i)));
    };
    return _mm256_packs_epi32(part(0), part(8));
}

inline int32_t sum_of(__m256i v) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// A quantised row: [width + 2 pixels][16 * groups quads of channels] tables, then [width + 2] sums of magnitudes; those
// of pixels -1 and width are zero.
size_t quantised_bytes(size_t width, size_t groups) {
    const size_t bytes = (width + 2) * (groups * kQuads * kTable + sizeof(int32_t));
    return (bytes + kAlign - 1) / kAlign * kAlign;
}

void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    const size_t channels = groups * kFeatures, pixel = groups * kQuads * kTable;
    auto* magnitude = reinterpret_cast<int32_t*>(row + (width + 2) * pixel);
    std::memset(row, 0, pixel);
    std::memset(row + (width + 1) * pixel, 0, pixel);
    magnitude[0] = magnitude[width + 1] = 0;
    for (size_t x = 0; x < width; ++x, gradient += channels) {
        uint8_t* to = row + (x + 1) * pixel;
        __m256i sum = _mm256_setzero_si256();
        for (size_t c = 0; c < channels; c += 16, to += 4 * kTable) {
            const __m256i v = quantised(gradient + c, scale + c);
            store_tables(v, to, kTable, 2 * kTable);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_abs_epi16(v), _mm256_set1_epi16(1)));
        }
        magnitude[x + 1] = sum_of(sum);
    }
}

// Sums of V of kRows sequences of tables, for 64 channels.
template <class V, size_t kRows>
class Sums {
public:
    Sums() { clear(); }

    // `count` look-ups, at most kOnce. Tables of the rows are `row` bytes apart, those of a row and patterns as said.
    BBCU_ALWAYS_INLINE void add(size_t count, const uint8_t* table, size_t row, size_t next_table,
                                const uint8_t* patterns, size_t next_patterns) {
        typename V::type low[kRows][kVectors], high[kRows][kVectors];
        for (size_t r = 0; r < kRows; ++r)
            for (size_t v = 0; v < kVectors; ++v) low[r][v] = high[r][v] = V::zero();
        const auto look_up = [&]() BBCU_INLINED {
            typename V::type pattern[kVectors];
            BBCU_UNROLL(2)
            for (size_t v = 0; v < kVectors; ++v) pattern[v] = V::in_register(V::load(patterns + v * V::bytes));
            BBCU_UNROLL(4)
            for (size_t r = 0; r < kRows; ++r) {
                const auto lower = V::table(table + r * row), higher = V::table(table + r * row + kTable / 2);
                BBCU_UNROLL(2)
                for (size_t v = 0; v < kVectors; ++v) {
                    low[r][v] = V::in_register(V::add(low[r][v], V::look_up(lower, pattern[v])));
                    high[r][v] = V::in_register(V::add(high[r][v], V::look_up(higher, pattern[v])));
                }
            }
            table += next_table;
            patterns += next_patterns;
        };
        if (count == kOnce) {
            BBCU_UNROLL(8)
            for (size_t i = 0; i < kOnce; ++i) look_up();
        } else {
            for (size_t i = 0; i < count; ++i) look_up();
        }
        V::in_memory(words_);
        BBCU_UNROLL(4)
        for (size_t r = 0; r < kRows; ++r) {
            BBCU_UNROLL(2)
            for (size_t v = 0; v < kVectors; ++v) {
                typename V::type* words = words_[r] + 2 * v;
                words[0] = V::add_words(words[0], V::lower(low[r][v], high[r][v]));
                words[1] = V::add_words(words[1], V::upper(low[r][v], high[r][v]));
            }
        }
    }

    // After at most kLookUps look-ups: takes twice the sums from [kRows] runs of 64, `row` apart, and clears them.
    void flush(int32_t* to, size_t row) {
        constexpr size_t kParts = V::bytes / 16;
        for (size_t r = 0; r < kRows; ++r, to += row) {
            for (size_t i = 0; i < kFeatures / 8; ++i) {
                // Eight channels that `lower` or `upper` made from one 128-bit part of a vector.
                const size_t vector = i / (2 * kParts), half = i / kParts % 2, part = i % kParts;
                auto* at = reinterpret_cast<__m256i*>(to) + 2 * (kParts * vector + part) + half;
                const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(words_[r]) + i);
                const __m256i twice = _mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 1);
                _mm256_storeu_si256(at, _mm256_sub_epi32(_mm256_loadu_si256(at), twice));
            }
        }
        clear();
    }

private:
    static constexpr size_t kVectors = kFeatures / V::bytes;

    void clear() {
        for (auto& row : words_)
            for (auto& words : row) words = V::zero();
    }

    typename V::type words_[kRows][2 * kVectors];
};

// Weights for the input: patterns [groups][9][16 quads of outputs][64].
size_t input_weight_bytes(size_t groups) { return groups * kTaps * kQuads * kFeatures; }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    for (size_t i = 0; i < groups * kTaps * kFeatures; i += 4, weights += kFeatures) {
        const uint64_t quad[4] = {words[i], words[i + 1], words[i + 2], words[i + 3]};
        store_patterns(quad, weights);
    }
}

// Sums of kPixels pixels of the input's gradient, to sums[kPixels][64].
template <class V, size_t kPixels>
void input_sums(const InputRow& t, size_t x, int32_t* sums) {
    const size_t groups = t.step * t.step, pixel = groups * kQuads * kTable;
    for (size_t p = 0; p < kPixels; ++p) {
        int32_t magnitude = 0;
        for (const uint8_t* row : t.rows) {
            if (!row) continue;
            const auto* at = reinterpret_cast<const int32_t*>(row + (t.width + 2) * pixel) + x + p;
            magnitude += at[0] + at[1] + at[2];
        }
        std::fill_n(sums + p * kFeatures, kFeatures, magnitude);
    }
    Sums<V, kPixels> acc;
    for (size_t g = 0; g < groups; ++g) {
        for (size_t dy = 0; dy < 3; ++dy) {
            // The tap (dy, dx) of an output at (y + 1 - dy, x + 1 - dx) reads the input at (y, x).
            const uint8_t* row = t.rows[2 - dy];
            if (!row) continue;
            for (size_t dx = 0; dx < 3; ++dx) {
                const uint8_t* patterns = t.weights + (g * kTaps + 3 * dy + dx) * kQuads * kFeatures;
                const uint8_t* table = row + (x + 2 - dx) * pixel + g * kQuads * kTable;
                for (size_t quad = 0; quad < kQuads; quad += kOnce)
                    acc.add(kOnce, table + quad * kTable, pixel, kTable, patterns + quad * kFeatures, kFeatures);
            }
            static_assert(3 * kQuads <= kLookUps);
            acc.flush(sums, kFeatures);
        }
    }
}

template <class V>
void input_row(const InputRow& task) {
    input_pixels<V::rows>(task, [&](size_t x, size_t count, int32_t* sums) {
        if (count == V::rows)
            input_sums<V, V::rows>(task, x, sums);
        else
            for (size_t p = 0; p < count; ++p) input_sums<V, 1>(task, x + p, sums + p * kFeatures);
    });
}

size_t quads(size_t width) { return (width + 3) / 4; }

// A bit row: patterns [ceil(width / 4) quads of pixels][3 columns of taps][64].
size_t bit_row_bytes(size_t width) { return quads(width) * 3 * kFeatures; }

void bit_row(const uint64_t* words, size_t width, uint8_t* bits) {
    for (size_t start = 0; start < width; start += 4) {
        for (size_t dx = 0; dx < 3; ++dx, bits += kFeatures) {
            uint64_t quad[4];
            for (size_t i = 0; i < 4; ++i) {
                const size_t x = start + i + dx;  // one more than the pixel's
                quad[i] = x < 1 || x > width ? 0 : words[x - 1];
            }
            store_patterns(quad, bits);
        }
    }
}

// Of WeightRows: for each four of the outputs tables [rows][ceil(width / 4) quads of pixels][4], then for each row
// [3 columns of taps][16] whole numbers to add: the sum of magnitudes, less what the product counts in vain, the
// numbers at an end of the row whose taps are outside as if they met +1.
constexpr size_t kFours = kOutputs / 4;
size_t four_bytes(size_t rows, size_t width) { return rows * quads(width) * 4 * kTable; }
size_t scratch_bytes(size_t rows, size_t width) {
    return kFours * four_bytes(rows, width) + rows * 3 * kOutputs * sizeof(int32_t);
}

void row_tables(const WeightRows& t, size_t y) {
    const float* from = t.gradient + y * t.width * t.pitch;
    const size_t four = four_bytes(t.rows, t.width);
    uint8_t* to = t.scratch + y * quads(t.width) * 4 * kTable;
    auto* sums = reinterpret_cast<__m256i*>(t.scratch + kFours * four) + y * 3 * 2;
    const auto widened = [](__m256i v, size_t half) {
        const __m256i in_order = _mm256_permute4x64_epi64(v, 0xd8);
        return _mm256_cvtepi16_epi32(half ? _mm256_extracti128_si256(in_order, 1) : _mm256_castsi256_si128(in_order));
    };
    __m256i magnitude[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, first = magnitude[0], last = first;
    for (size_t x = 0; x < t.width; x += 4, from += 4 * t.pitch, to += 4 * kTable) {
        __m256i v[4];
        for (size_t i = 0; i < 4; ++i)
            v[i] = x + i < t.width ? quantised(from + i * t.pitch, t.scale) : _mm256_setzero_si256();
        if (x == 0) first = v[0];
        if (x + 4 >= t.width) last = v[t.width - 1 - x];
        const auto two = [&](size_t i) { return _mm256_add_epi16(_mm256_abs_epi16(v[i]), _mm256_abs_epi16(v[i + 1])); };
        const __m256i sum = _mm256_add_epi16(two(0), two(2));
        for (size_t half = 0; half < 2; ++half) magnitude[half] = _mm256_add_epi32(magnitude[half], widened(sum, half));
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

// One tap and V::rows outputs from `output` on, quads of pixels [begin, end).
template <class V>
void weight_sums(const WeightRows& t, size_t tap, size_t output, size_t begin, size_t end) {
    const size_t row = quads(t.width), dy = tap / 3;
    if (dy == 0 && !t.above) begin = std::max(begin, row);
    if (dy == 2 && !t.below) end = std::min(end, (t.rows - 1) * row);
    if (begin >= end) return;
    const uint8_t* table = t.scratch + output / 4 * four_bytes(t.rows, t.width) + (begin * 4 + output % 4) * kTable;
    const uint8_t* patterns = t.bits + ((begin + dy * row) * 3 + tap % 3) * kFeatures;
    Sums<V, V::rows> acc;
    for (size_t i = begin; i < end; i += kOnce, table += kOnce * 4 * kTable, patterns += kOnce * 3 * kFeatures)
        acc.add(std::min(kOnce, end - i), table, kTable, 4 * kTable, patterns, 3 * kFeatures);
    acc.flush(t.sums + (output * kTaps + tap) * kFeatures, kTaps * kFeatures);
}

template <class V>
void weight_rows(const WeightRows& task) {
    const WeightRows t = task;
    for (size_t y = 0; y < t.rows; ++y) row_tables(t, y);
    const size_t all = t.rows * quads(t.width);
    for (size_t four = 0; four < kOutputs; four += 4)
        for (size_t begin = 0; begin < all; begin += kLookUps)
            for (size_t tap = 0; tap < kTaps; ++tap)
                for (size_t output = four; output < four + 4; output += V::rows)
                    weight_sums<V>(t, tap, output, begin, std::min(begin + kLookUps, all));
    const auto* sums = reinterpret_cast<const int32_t*>(t.scratch + kFours * four_bytes(t.rows, t.width));
    for (size_t tap = 0; tap < kTaps; ++tap) {
        const size_t first = tap / 3 == 0 && !t.above ? 1 : 0, last = tap / 3 == 2 && !t.below ? t.rows - 1 : t.rows;
        int32_t whole[kOutputs] = {};
        for (size_t y = first; y < last; ++y)
            for (size_t o = 0; o < kOutputs; ++o) whole[o] += sums[(y * 3 + tap % 3) * kOutputs + o];
        for (size_t o = 0; o < kOutputs; ++o)
            for (size_t c = 0; c < kFeatures; ++c) t.sums[(o * kTaps + tap) * kFeatures + c] += whole[o];
    }
}

}  // namespace
}  // namespace bbcu::train
