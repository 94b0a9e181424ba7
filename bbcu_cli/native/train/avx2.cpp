// AVX2: products of signs by byte look-ups of popcounts, products of signs and gradients by table look-up.
//
// As in avx512.cpp, but a register has eight 32-bit lanes: the table of four numbers holds the eight sums in which the
// first is positive, and the others are their negatives. One vpermd and one vpsignd are 32 products. A *pattern* is a
// byte for each channel: bits 0..2 look up, bit 7 negates, bit 6 keeps vpsignd from meeting a zero.

#include <immintrin.h>

#include <algorithm>

#include "unit.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kVectors = kFeatures / kLanes;
constexpr size_t kLanes16 = 16;
constexpr size_t kTable = 8 * sizeof(int16_t);            // bytes
constexpr size_t kQuads = kFeatures / 4;
constexpr size_t kPatterns = kFeatures * sizeof(int16_t);  // bytes, of all channels
constexpr size_t kSide = 2;                               // vectors of channels that share a look at the tables
constexpr size_t kLookUps = 32767 / (4 * kMost);          // that 16-bit sums hold

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

void pack(const float* x, const float* shift, size_t pixels, uint64_t* words) {
    for (size_t p = 0; p < pixels; ++p) {
        uint64_t word = 0;
        for (size_t v = 0; v < kVectors; ++v) {
            const __m256 sum =
                _mm256_add_ps(_mm256_loadu_ps(x + p * kFeatures + v * kLanes), _mm256_loadu_ps(shift + v * kLanes));
            const int negative = _mm256_movemask_ps(_mm256_cmp_ps(sum, _mm256_setzero_ps(), _CMP_NGE_UQ));
            word |= static_cast<uint64_t>(negative) << (v * kLanes);
        }
        words[p] = word;
    }
}

struct Affine {
    __m256 scale, bias, bias0, slope;
    Affine(const Group& group, size_t v)
        : scale(_mm256_load_ps(group.scale + v * kLanes)), bias(_mm256_load_ps(group.bias + v * kLanes)),
          bias0(_mm256_load_ps(group.bias0 + v * kLanes)), slope(_mm256_load_ps(group.slope + v * kLanes)) {}
    __m256 operator()(__m256 sum) const {
        return _mm256_add_ps(_mm256_add_ps(_mm256_mul_ps(sum, scale), bias), bias0);
    }
};

__m256 positive(__m256 v) { return _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ); }

// In each byte of a and b, how many bits differ.
inline __m256i differing(__m256i a, __m256i b) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                            2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(0x0f), bits = _mm256_xor_si256(a, b);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(bits, nibble)),
                           _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble)));
}

void forward_row(const ForwardRow& task) {
    const ForwardRow t = task;
    for (size_t x = 0; x < t.width; ++x) {
        const __m256i* weights[kTaps];
        __m256i word[kTaps];
        size_t taps = 0;
        for (size_t dy = 0; dy < 3; ++dy) {
            for (size_t dx = 0; dx < 3; ++dx) {
                if (!t.rows[dy] || x + dx < 1 || x + dx > t.width) continue;
                weights[taps] = reinterpret_cast<const __m256i*>(t.weights + (3 * dy + dx) * kFeatures);
                word[taps++] = _mm256_set1_epi64x(static_cast<int64_t>(t.rows[dy][x + dx - 1]));
            }
        }
        const __m256i all = _mm256_set1_epi32(static_cast<int>(taps * kFeatures));
        for (size_t v = 0; v < kVectors; ++v) {
            __m256i low = _mm256_setzero_si256(), high = low;  // bytes; at most 9 * 8
            for (size_t tap = 0; tap < taps; ++tap) {
                low = _mm256_add_epi8(low, differing(_mm256_loadu_si256(weights[tap] + 2 * v), word[tap]));
                high = _mm256_add_epi8(high, differing(_mm256_loadu_si256(weights[tap] + 2 * v + 1), word[tap]));
            }
            const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
            const auto counts = [&](__m256i bytes) {  // four in the lower half
                return _mm256_castsi256_si128(
                    _mm256_permutevar8x32_epi32(_mm256_sad_epu8(bytes, _mm256_setzero_si256()), order));
            };
            const __m256i count = _mm256_set_m128i(counts(high), counts(low));
            const __m256i sum = _mm256_sub_epi32(all, _mm256_slli_epi32(count, 1));
            if (t.sums)
                _mm_storeu_si128(reinterpret_cast<__m128i*>(t.sums + x * t.sums_pitch + v * kLanes),
                                 _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
            const Affine affine(*t.group, v);
            __m256 y = affine(_mm256_cvtepi32_ps(sum));
            y = _mm256_blendv_ps(_mm256_mul_ps(y, affine.slope), y, positive(y));
            y = _mm256_add_ps(y, _mm256_load_ps(t.group->bias1 + v * kLanes));
            y = _mm256_add_ps(_mm256_loadu_ps(t.residual + x * kFeatures + v * kLanes), y);
            _mm256_storeu_ps(t.out + x * t.out_pitch + v * kLanes, y);
        }
    }
}

void gradient_row(GradientRow& t) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i largest_scaled = _mm256_setzero_si256();
    for (size_t v = 0; v < kVectors; ++v) {
        const Affine affine(*t.group, v);
        __m256 bias0 = _mm256_setzero_ps(), slope = bias0, bias1 = bias0;
        __m256i largest = _mm256_setzero_si256();
        for (size_t x = 0; x < t.width; ++x) {
            const __m256 grad = _mm256_loadu_ps(t.grad + x * t.grad_pitch + v * kLanes);
            const auto* sum = reinterpret_cast<const __m128i*>(t.sums + x * t.pitch + v * kLanes);
            const __m256 y = affine(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(sum))));
            const __m256 above = positive(y);
            const __m256 gradient = _mm256_blendv_ps(_mm256_mul_ps(grad, affine.slope), grad, above);
            _mm256_storeu_ps(t.gradient + x * t.pitch + v * kLanes, gradient);
            bias0 = _mm256_add_ps(bias0, gradient);
            slope = _mm256_blendv_ps(_mm256_add_ps(slope, _mm256_mul_ps(y, grad)), slope, above);
            bias1 = _mm256_add_ps(bias1, grad);
            const __m256i scaled = _mm256_castps_si256(_mm256_mul_ps(gradient, affine.scale));
            largest_scaled = _mm256_max_epu32(largest_scaled, _mm256_and_si256(scaled, magnitude));
            largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(gradient), magnitude));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.largest + v * kLanes), largest);
        _mm256_storeu_ps(t.partial + v * kLanes, bias0);
        _mm256_storeu_ps(t.partial + kFeatures + v * kLanes, slope);
        _mm256_storeu_ps(t.partial + 2 * kFeatures + v * kLanes, bias1);
    }
    alignas(kAlign) uint32_t lanes[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest_scaled);
    t.largest_scaled = 0;
    for (const uint32_t lane : lanes) t.largest_scaled = lane > t.largest_scaled ? lane : t.largest_scaled;
}

// Patterns of 64 channels, of which word i has the signs of the table's number i.
void store_patterns(const uint64_t (&words)[4], uint8_t* to) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3,
                                            3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    for (size_t half = 0; half < 2; ++half) {
        const auto where = [&](size_t i, int value) {  // value in the bytes of the channels with a set bit
            const __m256i word = _mm256_set1_epi32(static_cast<int32_t>(words[i] >> (32 * half)));
            const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, spread), bit), bit);
            return _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(value)));
        };
        const __m256i others = _mm256_or_si256(_mm256_or_si256(where(1, 2), where(2, 4)), where(3, 8));
        const __m256i low = _mm256_xor_si256(others, where(0, 0x0e));
        const __m256i high = _mm256_or_si256(_mm256_or_si256(low, _mm256_set1_epi8(1)), where(0, 0x40));
        const __m256i even = _mm256_unpacklo_epi8(low, high), odd = _mm256_unpackhi_epi8(low, high);
        auto* at = reinterpret_cast<__m256i*>(to) + 2 * half;
        _mm256_store_si256(at, _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_store_si256(at + 1, _mm256_permute2x128_si256(even, odd, 0x31));
    }
}

inline __m256i load_pattern(const uint8_t* at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(at)); }

// The lower and the upper half of v, to[0] and to[stride bytes on].
inline void store_halves(__m256i v, uint8_t* to, size_t stride) {
    _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(v));
    _mm_store_si128(reinterpret_cast<__m128i*>(to + stride), _mm256_extracti128_si256(v, 1));
}

// The tables of the quads v[0..3], v[4..7], v[8..11], v[12..15].
inline void store_tables(__m256i v, uint8_t* to, size_t stride) {
    const __m256i swapped = _mm256_or_si256(_mm256_slli_epi32(v, 16), _mm256_srli_epi32(v, 16));
    // s, d of each pair: its sum, and its first number less its second
    const __m256i pairs = _mm256_blend_epi16(_mm256_add_epi16(v, swapped), _mm256_sub_epi16(swapped, v), 0xaa);
    const __m256i sign = _mm256_setr_epi16(1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1);
    const auto indices = [](int a, int b, int c, int d, int quad) {  // of two entries each
        const int each = 0x0202 * 2 * quad;
        const auto two = [&](int x, int y) { return (0x0100 + 0x0202 * x + each) | (0x0100 + 0x0202 * y + each) << 16; };
        const int p = two(a >> 4, a & 15), q = two(b >> 4, b & 15), r = two(c >> 4, c & 15), s = two(d >> 4, d & 15);
        return _mm256_setr_epi32(p, q, r, s, p, q, r, s);
    };
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        const __m256i first = _mm256_shuffle_epi8(pairs, indices(0x01, 0x01, 0x01, 0x01, 2 * i));
        const __m256i second = _mm256_shuffle_epi8(pairs, indices(0x22, 0x33, 0x33, 0x22, 2 * i));
        store_halves(_mm256_add_epi16(first, _mm256_sign_epi16(second, sign)), to + static_cast<size_t>(i) * stride,
                     2 * stride);
    }
}

// A quantised row for the input: [16 * groups quads of channels][width + 2 pixels] tables, those of pixels -1 and width
// zero.
size_t input_bytes(size_t width, size_t groups) { return groups * kQuads * (width + 2) * kTable; }

// For the weights: [ceil(width / 4) quads of pixels][kQuad channels] tables.
size_t quads(size_t width) { return (width + 3) / 4; }
size_t output_bytes(size_t width) { return quads(width) * kQuad * kTable; }

// 16 whole numbers nearest to from * scale, in 16 bits.
inline __m256i quantised(const float* from, const float* scale) {
    const auto part = [&](size_t i) {
        return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i), _mm256_loadu_ps(scale + i)));
    };
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(part(0), part(kLanes)), 0xd8);
}

void quantise_input(const QuantiseRow& t) {
    const size_t stride = (t.width + 2) * kTable, channels = t.groups * kFeatures;
    for (size_t quad = 0; quad < t.groups * kQuads; ++quad) {
        _mm_store_si128(reinterpret_cast<__m128i*>(t.input + quad * stride), _mm_setzero_si128());
        _mm_store_si128(reinterpret_cast<__m128i*>(t.input + (quad + 1) * stride - kTable), _mm_setzero_si128());
    }
    for (size_t x = 0; x < t.width; ++x)
        for (size_t c = 0; c < channels; c += 16)
            store_tables(quantised(t.gradient + x * channels + c, t.input_scale + c),
                         t.input + c / 4 * stride + (x + 1) * kTable, stride);
}

// The tables of four pixels and 16 channels, of which v[i] has pixel i.
inline void store_tables(const __m256i (&v)[4], uint8_t* to, size_t pitch) {
    const __m256i sum = _mm256_add_epi16(v[0], v[1]), difference = _mm256_sub_epi16(v[0], v[1]);
    const __m256i sum2 = _mm256_add_epi16(v[2], v[3]), difference2 = _mm256_sub_epi16(v[2], v[3]);
    const __m256i e[8] = {_mm256_add_epi16(sum, sum2),        _mm256_add_epi16(difference, sum2),
                          _mm256_sub_epi16(sum, difference2), _mm256_sub_epi16(difference, difference2),
                          _mm256_add_epi16(sum, difference2), _mm256_add_epi16(difference, difference2),
                          _mm256_sub_epi16(sum, sum2),        _mm256_sub_epi16(difference, sum2)};
    __m256i two[8], four[8];  // entries of two, then of four channels side by side
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
        two[i] = _mm256_unpacklo_epi16(e[2 * i], e[2 * i + 1]);
        two[4 + i] = _mm256_unpackhi_epi16(e[2 * i], e[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {  // channels 4 * (i / 2) and the next three, entries 4 * (i % 2) and the next three
        const size_t from = i / 2 * 4 + i % 2 * 2;
        four[2 * i] = _mm256_unpacklo_epi32(two[from], two[from + 1]);
        four[2 * i + 1] = _mm256_unpackhi_epi32(two[from], two[from + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {  // channels 2 * i and 2 * i + 1
        const size_t from = i / 2 * 4 + i % 2;
        uint8_t* at = to + i / 2 * pitch + i % 2 * 2 * kTable;
        store_halves(_mm256_unpacklo_epi64(four[from], four[from + 2]), at, 2 * pitch);
        store_halves(_mm256_unpackhi_epi64(four[from], four[from + 2]), at + kTable, 2 * pitch);
    }
}

void quantise_row(const QuantiseRow& task) {
    const QuantiseRow t = task;
    quantise_input(t);
    const size_t channels = t.groups * kFeatures;
    for (size_t x = 0; x < t.width; x += 4) {
        for (size_t c = 0; c < channels; c += 16) {
            __m256i v[4];
            for (size_t i = 0; i < 4; ++i)
                v[i] = x + i < t.width ? quantised(t.gradient + (x + i) * channels + c, t.weight_scale + c)
                                       : _mm256_setzero_si256();
            store_tables(v, t.weight + c / kQuad * t.weight_pitch + x * kTable, t.weight_pitch);
            if (x == 0) _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.ends + c), v[0]);
            if (x + 4 >= t.width)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.ends + channels + c), v[t.width - 1 - x]);
        }
    }
}

// Sums of kRows tables' look-ups (for pixels or output channels) and kSide * kLanes16 channels, in 16 bits.
template <size_t kRows>
struct Sums {
    __m256i of[kRows][kSide];
    void clear() {
        for (size_t r = 0; r < kRows; ++r)
            for (size_t v = 0; v < kSide; ++v) of[r][v] = _mm256_setzero_si256();
    }
    // The look-ups in kRows tables that follow each other.
    [[gnu::always_inline]] void add(const uint8_t* table, const uint8_t* patterns) {
        __m256i pattern[kSide], sign[kSide];
#pragma GCC unroll 2
        for (size_t v = 0; v < kSide; ++v) {
            pattern[v] = load_pattern(patterns + v * sizeof(__m256i));
            sign[v] = _mm256_slli_epi16(pattern[v], 1);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < kRows; ++r) {
            const __m256i values =
                _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table + r * kTable)));
#pragma GCC unroll 2
            for (size_t v = 0; v < kSide; ++v)
                of[r][v] = _mm256_add_epi16(
                    of[r][v], _mm256_sign_epi16(_mm256_shuffle_epi8(values, pattern[v]), sign[v]));
        }
    }
    // Adds them to [kRows] runs of int32, stride apart, and clears them.
    void flush(int32_t* to, size_t stride) {
#pragma GCC unroll 4
        for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
            for (size_t v = 0; v < kSide; ++v) {
                auto* at = reinterpret_cast<__m256i*>(to + r * stride + v * kLanes16);
                const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(of[r][v]));
                const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(of[r][v], 1));
                _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), low));
                _mm256_storeu_si256(at + 1, _mm256_add_epi32(_mm256_loadu_si256(at + 1), high));
            }
        }
        clear();
    }
};

// Weights for the input: patterns [groups][9][16 quads of outputs][64].
size_t input_weight_bytes(size_t groups) { return groups * kTaps * kQuads * kPatterns; }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    for (size_t i = 0; i < groups * kTaps * kFeatures; i += 4, weights += kPatterns) {
        const uint64_t quad[4] = {words[i], words[i + 1], words[i + 2], words[i + 3]};
        store_patterns(quad, weights);
    }
}

// Sums of kPixels pixels and kSide * kLanes16 channels of the input's gradient, added to sums[kPixels][64].
template <size_t kPixels>
inline void input_sums(const InputRow& t, size_t x, size_t channel, int32_t* sums) {
    const size_t stride = (t.width + 2) * kTable;
    Sums<kPixels> acc;
    acc.clear();
    size_t taps = 0;
    for (size_t g = 0; g < t.step * t.step; ++g) {
        for (size_t dy = 0; dy < 3; ++dy) {
            // The tap (dy, dx) of an output at (y + 1 - dy, x + 1 - dx) reads the input at (y, x).
            const uint8_t* row = t.rows[2 - dy];
            if (!row) continue;
            for (size_t dx = 0; dx < 3; ++dx) {
                const uint8_t* patterns = t.weights + (g * kTaps + 3 * dy + dx) * kQuads * kPatterns + 2 * channel;
                const uint8_t* table = row + g * kQuads * stride + (x + 2 - dx) * kTable;
                for (size_t quad = 0; quad < kQuads; ++quad, table += stride, patterns += kPatterns)
                    acc.add(table, patterns);
                if (++taps % (kLookUps / kQuads) == 0) acc.flush(sums + channel, kFeatures);
            }
        }
    }
    acc.flush(sums + channel, kFeatures);
}

constexpr size_t kBlock = 4;  // pixels; 8 sums, 2 patterns with their signs, a table and what was looked up: all registers

void input_row(const InputRow& task) {
    const InputRow t = task;
    alignas(kAlign) int32_t sums[kBlock * kFeatures];
    alignas(kAlign) float partial[kFeatures] = {};
    const __m256 unit = _mm256_set1_ps(t.unit), steepness = _mm256_set1_ps(t.steepness), peak = _mm256_set1_ps(t.peak);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = t.width - start < kBlock ? t.width - start : kBlock;
        std::fill_n(sums, count * kFeatures, 0);
        for (size_t channel = 0; channel < kFeatures; channel += kSide * kLanes16) {
            switch (count) {
                case 1: input_sums<1>(t, start, channel, sums); break;
                case 2: input_sums<2>(t, start, channel, sums); break;
                case 3: input_sums<3>(t, start, channel, sums); break;
                default: input_sums<kBlock>(t, start, channel, sums);
            }
        }
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

// A bit row: patterns [ceil(width / 4) quads of pixels][3 columns of taps][64].
size_t bit_row_bytes(size_t width) { return quads(width) * 3 * kPatterns; }

void bit_row(const uint64_t* words, size_t width, uint8_t* bits) {
    for (size_t start = 0; start < width; start += 4) {
        for (size_t dx = 0; dx < 3; ++dx, bits += kPatterns) {
            uint64_t quad[4];
            for (size_t i = 0; i < 4; ++i) {
                const size_t x = start + i + dx;  // one more than the pixel's
                quad[i] = x < 1 || x > width ? 0 : words[x - 1];
            }
            store_patterns(quad, bits);
        }
    }
}

// One tap and kSide * kLanes16 channels.
inline void weight_sums(const WeightRows& t, size_t tap, size_t channel) {
    Sums<kQuad> acc;
    acc.clear();
    int32_t* to = t.sums + tap * kFeatures + channel;
    size_t room = kLookUps;
    for (size_t y = 0; y < t.rows; ++y) {
        if (!t.bits[y + tap / 3]) continue;
        const uint8_t* patterns = t.bits[y + tap / 3] + tap % 3 * kPatterns + 2 * channel;
        const uint8_t* table = t.gradient + y * output_bytes(t.width);
        for (size_t left = quads(t.width); left;) {
            const size_t count = left < room ? left : room;
            left -= count;
            room -= count;
            for (size_t i = 0; i < count; ++i, patterns += 3 * kPatterns, table += kQuad * kTable)
                acc.add(table, patterns);
            if (room) continue;
            acc.flush(to, kTaps * kFeatures);
            room = kLookUps;
        }
    }
    if (room < kLookUps) acc.flush(to, kTaps * kFeatures);
}

void weight_rows(const WeightRows& task) {
    const WeightRows t = task;
    for (size_t tap = 0; tap < kTaps; ++tap)
        for (size_t channel = 0; channel < kFeatures; channel += kSide * kLanes16) weight_sums(t, tap, channel);
}

constexpr Kernels all() {
    Kernels k{};
    k.name = "avx2";
    k.required_features = "AVX2 and FMA";
    k.supported = supported;
    k.pack = pack;
    k.forward_row = forward_row;
    k.gradient_row = gradient_row;
    k.input_bytes = input_bytes;
    k.output_bytes = output_bytes;
    k.quantise_row = quantise_row;
    k.input_weight_bytes = input_weight_bytes;
    k.pack_input_weights = pack_input_weights;
    k.input_row = input_row;
    k.bit_row_bytes = bit_row_bytes;
    k.bit_row = bit_row;
    k.weight_rows = weight_rows;
    return k;
}

}  // namespace

extern const Kernels kAvx2;
const Kernels kAvx2 = all();

}  // namespace bbcu::train
