// AVX2: products of signs by byte look-ups of popcounts, products of signs and gradients by table look-up.
//
// As in avx512.cpp, but a register has eight 32-bit lanes: the table of four numbers holds the eight sums in which the
// first is positive, and the others are their negatives. One vpermd and one vpsignd are 32 products. A *pattern* is a
// byte for each channel: bits 0..2 look up, bit 7 negates, bit 6 keeps vpsignd from meeting a zero.

#include <immintrin.h>

#include "unit.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kVectors = kFeatures / kLanes;
constexpr size_t kTable = kLanes * sizeof(int32_t);  // bytes
constexpr size_t kSide = 2;                           // vectors of channels that share a look at the tables

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
    __m256i largest[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t v = 0; v < kVectors; ++v) {
        const Affine affine(*t.group, v);
        __m256 bias0 = _mm256_setzero_ps(), slope = bias0, bias1 = bias0;
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
            largest[0] = _mm256_max_epu32(largest[0], _mm256_and_si256(scaled, magnitude));
            largest[1] = _mm256_max_epu32(largest[1], _mm256_and_si256(_mm256_castps_si256(gradient), magnitude));
        }
        _mm256_storeu_ps(t.partial + v * kLanes, bias0);
        _mm256_storeu_ps(t.partial + kFeatures + v * kLanes, slope);
        _mm256_storeu_ps(t.partial + 2 * kFeatures + v * kLanes, bias1);
    }
    for (size_t i = 0; i < 2; ++i) {
        alignas(kAlign) uint32_t lanes[kLanes];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest[i]);
        t.largest[i] = 0;
        for (const uint32_t lane : lanes) t.largest[i] = lane > t.largest[i] ? lane : t.largest[i];
    }
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
        const __m256i others = _mm256_or_si256(_mm256_or_si256(where(1, 1), where(2, 2)), where(3, 4));
        const __m256i pattern = _mm256_xor_si256(_mm256_or_si256(others, _mm256_set1_epi8(0x40)), where(0, 0x87));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to) + half, pattern);
    }
}

inline __m256i load_pattern(const uint8_t* patterns) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(patterns)));
}

inline __m256i look_up(__m256i table, __m256i pattern) {
    return _mm256_sign_epi32(_mm256_permutevar8x32_epi32(table, pattern), pattern);
}

// The tables of the quads v[0..3] and v[4..7]: entry e is v[0] + v[1] + v[2] + v[3], with v[1 + b] negated where bit b
// of e is set.
inline void store_tables(__m256i v, uint8_t* to, size_t stride) {
    const __m256i swapped = _mm256_shuffle_epi32(v, 0xb1);
    // s, d of each pair: its sum, and its first number less its second
    const __m256i pairs = _mm256_blend_epi32(_mm256_add_epi32(v, swapped), _mm256_sub_epi32(swapped, v), 0xaa);
    const __m256i sign = _mm256_setr_epi32(1, 1, -1, -1, 1, 1, -1, -1);
    for (int i = 0; i < 2; ++i) {
        const __m256i quad = _mm256_set1_epi32(4 * i);
        const __m256i first = _mm256_add_epi32(quad, _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1));
        const __m256i second = _mm256_add_epi32(quad, _mm256_setr_epi32(2, 2, 3, 3, 3, 3, 2, 2));
        const __m256i low = _mm256_permutevar8x32_epi32(pairs, first);
        const __m256i high = _mm256_sign_epi32(_mm256_permutevar8x32_epi32(pairs, second), sign);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + static_cast<size_t>(i) * stride), _mm256_add_epi32(low, high));
    }
}

inline __m256i load_table(const uint8_t* table) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(table)); }

// A quantised row: [16 * groups quads of channels][width + 2 pixels] tables, those of pixels -1 and width zero.
size_t quantised_bytes(size_t width, size_t groups) { return groups * kFeatures / 4 * (width + 2) * kTable; }

void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    const size_t stride = (width + 2) * kTable;
    for (size_t quad = 0; quad < groups * kFeatures / 4; ++quad) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(row + quad * stride), _mm256_setzero_si256());
        _mm256_store_si256(reinterpret_cast<__m256i*>(row + (quad + 1) * stride - kTable), _mm256_setzero_si256());
    }
    for (size_t x = 0; x < width; ++x) {
        for (size_t v = 0; v < groups * kVectors; ++v) {
            const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(gradient + x * groups * kFeatures + v * kLanes),
                                                _mm256_loadu_ps(scale + v * kLanes));
            store_tables(_mm256_cvtps_epi32(scaled), row + 2 * v * stride + (x + 1) * kTable, stride);
        }
    }
}

// Weights for the input: patterns [groups][9][16 quads of outputs][64].
size_t input_weight_bytes(size_t groups) { return groups * kTaps * kFeatures / 4 * kFeatures; }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    for (size_t i = 0; i < groups * kTaps * kFeatures; i += 4, weights += kFeatures) {
        const uint64_t quad[4] = {words[i], words[i + 1], words[i + 2], words[i + 3]};
        store_patterns(quad, weights);
    }
}

// Sums of kPixels pixels and kSide * kLanes channels of the input's gradient, to sums[kPixels][64].
template <size_t kPixels>
inline void input_sums(const InputRow& t, size_t x, size_t channel, int32_t* sums) {
    const size_t stride = (t.width + 2) * kTable;
    constexpr size_t kQuads = kFeatures / 4;
    __m256i acc[kPixels][kSide];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kSide; ++v) acc[p][v] = _mm256_setzero_si256();
    for (size_t g = 0; g < t.step * t.step; ++g) {
        for (size_t dy = 0; dy < 3; ++dy) {
            // The tap (dy, dx) of an output at (y + 1 - dy, x + 1 - dx) reads the input at (y, x).
            const uint8_t* row = t.rows[2 - dy];
            if (!row) continue;
            for (size_t dx = 0; dx < 3; ++dx) {
                const uint8_t* patterns = t.weights + (g * kTaps + 3 * dy + dx) * kQuads * kFeatures + channel;
                const uint8_t* table = row + g * kQuads * stride + (x + 2 - dx) * kTable;
                for (size_t quad = 0; quad < kQuads; ++quad, table += stride, patterns += kFeatures) {
                    __m256i pattern[kSide];
                    for (size_t v = 0; v < kSide; ++v) pattern[v] = load_pattern(patterns + v * kLanes);
#pragma GCC unroll 8
                    for (size_t p = 0; p < kPixels; ++p) {
                        const __m256i values = load_table(table + p * kTable);
#pragma GCC unroll 2
                        for (size_t v = 0; v < kSide; ++v)
                            acc[p][v] = _mm256_add_epi32(acc[p][v], look_up(values, pattern[v]));
                    }
                }
            }
        }
    }
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kSide; ++v)
            _mm256_store_si256(reinterpret_cast<__m256i*>(sums + p * kFeatures + channel + v * kLanes), acc[p][v]);
}

constexpr size_t kBlock = 6;  // pixels; 12 accumulators, 2 patterns, a table and what was looked up: all registers

void input_row(const InputRow& task) {
    const InputRow t = task;
    alignas(kAlign) int32_t sums[kBlock * kFeatures];
    alignas(kAlign) float partial[kFeatures] = {};
    const __m256 unit = _mm256_set1_ps(t.unit), steepness = _mm256_set1_ps(t.steepness), peak = _mm256_set1_ps(t.peak);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = t.width - start < kBlock ? t.width - start : kBlock;
        for (size_t channel = 0; channel < kFeatures; channel += kSide * kLanes) {
            switch (count) {
                case 1: input_sums<1>(t, start, channel, sums); break;
                case 2: input_sums<2>(t, start, channel, sums); break;
                case 3: input_sums<3>(t, start, channel, sums); break;
                case 4: input_sums<4>(t, start, channel, sums); break;
                case 5: input_sums<5>(t, start, channel, sums); break;
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
size_t quads(size_t width) { return (width + 3) / 4; }
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

// The block's tables: [rows][ceil(width / 4)][kQuad channels].
size_t block_bytes(size_t rows, size_t width) { return rows * quads(width) * kQuad * kTable; }

void block_tables(const WeightBlock& t) {
    const __m128 scale = _mm_set1_ps(t.scale);
    uint8_t* to = t.scratch;
    const float* row = t.gradient;
    for (size_t y = 0; y < t.rows; ++y, row += t.width * t.pitch) {
        for (size_t x = 0; x < t.width; x += 4, to += kQuad * kTable) {
            const auto pixel = [&](size_t i) {
                return x + i < t.width ? _mm_mul_ps(_mm_loadu_ps(row + (x + i) * t.pitch), scale) : _mm_setzero_ps();
            };
            __m128 a = pixel(0), b = pixel(1), c = pixel(2), d = pixel(3);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            store_tables(_mm256_cvtps_epi32(_mm256_set_m128(b, a)), to, kTable);
            store_tables(_mm256_cvtps_epi32(_mm256_set_m128(d, c)), to + 2 * kTable, kTable);
        }
    }
}

// One tap and kSide * kLanes channels.
inline void weight_sums(const WeightBlock& t, size_t tap, size_t channel) {
    __m256i acc[kQuad][kSide];
    for (size_t c = 0; c < kQuad; ++c)
        for (size_t v = 0; v < kSide; ++v) acc[c][v] = _mm256_setzero_si256();
    for (size_t y = 0; y < t.rows; ++y) {
        if (!t.bits[y + tap / 3]) continue;
        const uint8_t* patterns = t.bits[y + tap / 3] + tap % 3 * kFeatures + channel;
        const uint8_t* table = t.scratch + y * quads(t.width) * kQuad * kTable;
        for (size_t i = 0; i < quads(t.width); ++i, patterns += 3 * kFeatures, table += kQuad * kTable) {
            __m256i pattern[kSide];
            for (size_t v = 0; v < kSide; ++v) pattern[v] = load_pattern(patterns + v * kLanes);
#pragma GCC unroll 4
            for (size_t c = 0; c < kQuad; ++c) {
                const __m256i values = load_table(table + c * kTable);
#pragma GCC unroll 2
                for (size_t v = 0; v < kSide; ++v) acc[c][v] = _mm256_add_epi32(acc[c][v], look_up(values, pattern[v]));
            }
        }
    }
    for (size_t c = 0; c < kQuad; ++c) {
        for (size_t v = 0; v < kSide; ++v) {
            auto* to = reinterpret_cast<__m256i*>(t.sums + (c * kTaps + tap) * kFeatures + channel + v * kLanes);
            const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(acc[c][v]));
            const __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(acc[c][v], 1));
            _mm256_storeu_si256(to, _mm256_add_epi64(_mm256_loadu_si256(to), low));
            _mm256_storeu_si256(to + 1, _mm256_add_epi64(_mm256_loadu_si256(to + 1), high));
        }
    }
}

void weight_block(const WeightBlock& task) {
    const WeightBlock t = task;
    block_tables(t);
    for (size_t tap = 0; tap < kTaps; ++tap)
        for (size_t channel = 0; channel < kFeatures; channel += kSide * kLanes) weight_sums(t, tap, channel);
}

}  // namespace

extern const Kernels kAvx2;
const Kernels kAvx2{"avx2", "AVX2 and FMA", supported, pack, forward_row, gradient_row, quantised_bytes, quantise_row,
                    input_weight_bytes, pack_input_weights, input_row, bit_row_bytes, bit_row, block_bytes,
                    weight_block};

}  // namespace bbcu::train
