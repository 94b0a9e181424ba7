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
//   store_patterns(words, to)     patterns of 64 channels, of which bit i is the channel's in words[i]
//   store_pixel(...)              the tables of a pixel of a quantised row; returns the sum of the magnitudes
//   store_row(task, y)            the tables and sums of a row of WeightRows
//   subtract_twice(words, to)     to[8] -= 2 * words[8], of 16 bits
#pragma once

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

// A quantised row: [width + 2 pixels][16 * groups quads of channels] tables, then [width + 2] sums of magnitudes; those
// of pixels -1 and width are zero.
size_t quantised_bytes(size_t width, size_t groups) {
    const size_t bytes = (width + 2) * (groups * kQuads * kTable + sizeof(int32_t));
    return (bytes + kAlign - 1) / kAlign * kAlign;
}

template <class V>
void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    const size_t channels = groups * kFeatures, pixel = groups * kQuads * kTable;
    auto* magnitude = reinterpret_cast<int32_t*>(row + (width + 2) * pixel);
    std::memset(row, 0, pixel);
    std::memset(row + (width + 1) * pixel, 0, pixel);
    magnitude[0] = magnitude[width + 1] = 0;
    for (size_t x = 0; x < width; ++x, gradient += channels)
        magnitude[x + 1] = V::store_pixel(gradient, scale, channels, row + (x + 1) * pixel);
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
            BBCU_UNROLL(4)
            for (size_t v = 0; v < kVectors; ++v) pattern[v] = V::in_register(V::load(patterns + v * V::bytes));
            BBCU_UNROLL(4)
            for (size_t r = 0; r < kRows; ++r) {
                const auto lower = V::table(table + r * row), higher = V::table(table + r * row + kTable / 2);
                BBCU_UNROLL(4)
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
            BBCU_UNROLL(4)
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
                V::subtract_twice(reinterpret_cast<const uint8_t*>(words_[r]) + 16 * i,
                                  to + 8 * (2 * (kParts * vector + part) + half));
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

template <class V>
void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    for (size_t i = 0; i < groups * kTaps * kFeatures; i += 4, weights += kFeatures) {
        const uint64_t quad[4] = {words[i], words[i + 1], words[i + 2], words[i + 3]};
        V::store_patterns(quad, weights);
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
        for (size_t c = 0; c < kFeatures; ++c) sums[p * kFeatures + c] = magnitude;
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
    input_pixels<V::rows, int32_t>(task, [&](size_t x, size_t count, int32_t* sums) {
        if (count == V::rows)
            input_sums<V, V::rows>(task, x, sums);
        else
            for (size_t p = 0; p < count; ++p) input_sums<V, 1>(task, x + p, sums + p * kFeatures);
    });
}

size_t quads(size_t width) { return (width + 3) / 4; }

// A bit row: patterns [ceil(width / 4) quads of pixels][3 columns of taps][64].
size_t bit_row_bytes(size_t width) { return quads(width) * 3 * kFeatures; }

template <class V>
void bit_row(const uint64_t* words, size_t width, uint8_t* bits) {
    for (size_t start = 0; start < width; start += 4) {
        for (size_t dx = 0; dx < 3; ++dx, bits += kFeatures) {
            uint64_t quad[4];
            for (size_t i = 0; i < 4; ++i) {
                const size_t x = start + i + dx;  // one more than the pixel's
                quad[i] = x < 1 || x > width ? 0 : words[x - 1];
            }
            V::store_patterns(quad, bits);
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

// One tap and V::rows outputs from `output` on, quads of pixels [begin, end).
template <class V>
void weight_sums(const WeightRows& t, size_t tap, size_t output, size_t begin, size_t end) {
    const size_t row = quads(t.width), dy = tap / 3;
    if (dy == 0 && !t.above) begin = most(begin, row);
    if (dy == 2 && !t.below) end = least(end, (t.rows - 1) * row);
    if (begin >= end) return;
    const uint8_t* table = t.scratch + output / 4 * four_bytes(t.rows, t.width) + (begin * 4 + output % 4) * kTable;
    const uint8_t* patterns = t.bits + ((begin + dy * row) * 3 + tap % 3) * kFeatures;
    Sums<V, V::rows> acc;
    for (size_t i = begin; i < end; i += kOnce, table += kOnce * 4 * kTable, patterns += kOnce * 3 * kFeatures)
        acc.add(least(kOnce, end - i), table, kTable, 4 * kTable, patterns, 3 * kFeatures);
    acc.flush(t.sums + (output * kTaps + tap) * kFeatures, kTaps * kFeatures);
}

// Of kOutputs channels.
template <class V>
void weight_part(const WeightRows& t) {
    for (size_t y = 0; y < t.rows; ++y) V::store_row(t, y);
    const size_t all = t.rows * quads(t.width);
    for (size_t four = 0; four < kOutputs; four += 4)
        for (size_t begin = 0; begin < all; begin += kLookUps)
            for (size_t tap = 0; tap < kTaps; ++tap)
                for (size_t output = four; output < four + 4; output += V::rows)
                    weight_sums<V>(t, tap, output, begin, least(begin + kLookUps, all));
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

template <class V>
void weight_rows(const WeightRows& task) {
    WeightRows part = task;
    for (size_t o = 0; o < task.outputs; o += kOutputs) {
        part.gradient = task.gradient + o;
        part.scale = task.scale + o;
        part.sums = task.sums + o * kTaps * kFeatures;
        weight_part<V>(part);
    }
}

// A set with these products; the rest of it is to be filled in.
template <class V>
constexpr Kernels products() {
    Kernels k{};
    k.quantised_bytes = quantised_bytes;
    k.quantise_row = quantise_row<V>;
    k.input_weight_bytes = input_weight_bytes;
    k.pack_input_weights = pack_input_weights<V>;
    k.input_row = input_row<V>;
    k.bit_row_bytes = bit_row_bytes;
    k.bit_row = bit_row<V>;
    k.scratch_bytes = scratch_bytes;
    k.weight_rows = weight_rows<V>;
    return k;
}

}  // namespace
}  // namespace bbcu::train
