// AVX-512: products of signs by vpopcntq, products of signs and gradients by table look-up.
//
// The sum of four whole numbers under four signs has 16 values, as many as a register has 32-bit lanes. With those as
// the table, one vpermd looks up the sums for 16 patterns of signs: 64 products, exact in 32 bits, where an fp32
// multiply-add does 16. For the input's gradient the four numbers are channels of a pixel and the patterns come from
// the weights; for the weights' gradient they are pixels of a channel and the patterns come from the signs of the
// input. vpermd reads the low four bits of a lane, so a register of patterns serves eight tables, shifted by four
// bits after each.

#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "unit.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kVectors = kFeatures / kLanes;
constexpr size_t kTable = kLanes * sizeof(int32_t);  // bytes
constexpr size_t kPerWord = 8;                        // patterns in a 32-bit lane

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq");
}

void pack(const float* x, const float* shift, size_t pixels, uint64_t* words) {
    __m512 m[kVectors];
    for (size_t v = 0; v < kVectors; ++v) m[v] = _mm512_loadu_ps(shift + v * kLanes);
    for (size_t p = 0; p < pixels; ++p) {
        uint64_t word = 0;
        for (size_t v = 0; v < kVectors; ++v) {
            const __m512 sum = _mm512_add_ps(_mm512_loadu_ps(x + p * kFeatures + v * kLanes), m[v]);
            word |= uint64_t{_mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_NGE_UQ)} << (v * kLanes);
        }
        words[p] = word;
    }
}

struct Affine {
    __m512 scale[kVectors], bias[kVectors], bias0[kVectors], slope[kVectors];
    explicit Affine(const Group& group) {
        for (size_t v = 0; v < kVectors; ++v) {
            scale[v] = _mm512_load_ps(group.scale + v * kLanes);
            bias[v] = _mm512_load_ps(group.bias + v * kLanes);
            bias0[v] = _mm512_load_ps(group.bias0 + v * kLanes);
            slope[v] = _mm512_load_ps(group.slope + v * kLanes);
        }
    }
    __m512 operator()(__m512 sum, size_t v) const {
        return _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(sum, scale[v]), bias[v]), bias0[v]);
    }
};

// kPixels pixels that all have the taps of columns [first, last).
template <size_t kPixels>
inline void forward_pixels(const ForwardRow& t, size_t x, size_t first, size_t last) {
    constexpr size_t kWords = kFeatures / 8;
    __m512i count[kPixels][kWords];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t j = 0; j < kWords; ++j) count[p][j] = _mm512_setzero_si512();
    int taps = 0;
    for (size_t dy = 0; dy < 3; ++dy) {
        if (!t.rows[dy]) continue;
        for (size_t dx = first; dx < last; ++dx, ++taps) {
            const uint64_t* weights = t.weights + (3 * dy + dx) * kFeatures;
            __m512i word[kPixels];
            for (size_t p = 0; p < kPixels; ++p)
                word[p] = _mm512_set1_epi64(static_cast<int64_t>(t.rows[dy][x + p + dx - 1]));
#pragma GCC unroll 8
            for (size_t j = 0; j < kWords; ++j) {
                const __m512i w = _mm512_loadu_si512(weights + 8 * j);
#pragma GCC unroll 4
                for (size_t p = 0; p < kPixels; ++p)
                    count[p][j] =
                        _mm512_add_epi64(count[p][j], _mm512_popcnt_epi64(_mm512_xor_si512(w, word[p])));
            }
        }
    }
    const __m512i all = _mm512_set1_epi32(taps * static_cast<int>(kFeatures));
    const Group& group = *t.group;
    for (size_t p = 0; p < kPixels; ++p) {
        for (size_t v = 0; v < kVectors; ++v) {
            const __m512i counts = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(count[p][2 * v])),
                                                      _mm512_cvtepi64_epi32(count[p][2 * v + 1]), 1);
            const __m512i sum = _mm512_sub_epi32(all, _mm512_slli_epi32(counts, 1));
            if (t.sums)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.sums + (x + p) * t.sums_pitch + v * kLanes),
                                    _mm512_cvtepi32_epi16(sum));
            const auto at = [v](const float* channels) { return _mm512_load_ps(channels + v * kLanes); };
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), at(group.scale));
            y = _mm512_add_ps(_mm512_add_ps(y, at(group.bias)), at(group.bias0));
            const __mmask16 positive = _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ);
            y = _mm512_mask_mul_ps(y, static_cast<__mmask16>(~positive), y, at(group.slope));
            y = _mm512_add_ps(y, at(group.bias1));
            y = _mm512_add_ps(_mm512_loadu_ps(t.residual + (x + p) * kFeatures + v * kLanes), y);
            _mm512_storeu_ps(t.out + (x + p) * t.out_pitch + v * kLanes, y);
        }
    }
}

void forward_row(const ForwardRow& task) {
    const ForwardRow t = task;
    if (t.width == 1) return forward_pixels<1>(t, 0, 1, 2);
    forward_pixels<1>(t, 0, 1, 3);
    size_t x = 1;
    for (; x + 2 < t.width; x += 2) forward_pixels<2>(t, x, 0, 3);
    for (; x + 1 < t.width; ++x) forward_pixels<1>(t, x, 0, 3);
    forward_pixels<1>(t, x, 0, 2);
}

void gradient_row(GradientRow& t) {
    const Affine affine(*t.group);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 bias0[kVectors], slope[kVectors], bias1[kVectors];
    for (size_t v = 0; v < kVectors; ++v) bias0[v] = slope[v] = bias1[v] = _mm512_setzero_ps();
    __m512i largest[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t x = 0; x < t.width; ++x) {
        for (size_t v = 0; v < kVectors; ++v) {
            const __m512 grad = _mm512_loadu_ps(t.grad + x * t.grad_pitch + v * kLanes);
            const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.sums + x * t.pitch + v * kLanes));
            const __m512 y = affine(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(sum)), v);
            const __mmask16 rest = static_cast<__mmask16>(~_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ));
            const __m512 gradient = _mm512_mask_mul_ps(grad, rest, grad, affine.slope[v]);
            _mm512_storeu_ps(t.gradient + x * t.pitch + v * kLanes, gradient);
            bias0[v] = _mm512_add_ps(bias0[v], gradient);
            slope[v] = _mm512_mask_add_ps(slope[v], rest, slope[v], _mm512_mul_ps(y, grad));
            bias1[v] = _mm512_add_ps(bias1[v], grad);
            const __m512 scaled = _mm512_mul_ps(gradient, affine.scale[v]);
            largest[0] = _mm512_max_epu32(largest[0], _mm512_and_si512(_mm512_castps_si512(scaled), magnitude));
            largest[1] = _mm512_max_epu32(largest[1], _mm512_and_si512(_mm512_castps_si512(gradient), magnitude));
        }
    }
    for (size_t v = 0; v < kVectors; ++v) {
        _mm512_storeu_ps(t.partial + v * kLanes, bias0[v]);
        _mm512_storeu_ps(t.partial + kFeatures + v * kLanes, slope[v]);
        _mm512_storeu_ps(t.partial + 2 * kFeatures + v * kLanes, bias1[v]);
    }
    for (size_t i = 0; i < 2; ++i) t.largest[i] = _mm512_reduce_max_epu32(largest[i]);
}

// Entry e of the table of the quad v[4i..4i+3]: their sum, with v[4i + b] negated where bit b of e is set.
// Both pairs of a quad have the four values s, -d, d, -s with s their sum and d their difference.
struct Tables {
    __m512i low[4], high[4];
    Tables() {
        alignas(kAlign) int32_t pattern[kLanes];
        for (int half = 0; half < 2; ++half) {
            for (int quad = 0; quad < 4; ++quad) {
                for (int e = 0; e < 16; ++e) {
                    const int pair = 2 * (2 * quad + half);
                    const int values[4] = {pair, 16 + pair + 1, pair + 1, 16 + pair};
                    pattern[e] = values[(e >> (2 * half)) & 3];
                }
                (half ? high : low)[quad] = _mm512_load_si512(pattern);
            }
        }
    }
    void store(__m512i v, uint8_t* to, size_t stride) const {
        const __m512i swapped = _mm512_shuffle_epi32(v, _MM_PERM_CDAB);
        const __m512i plus = _mm512_mask_sub_epi32(_mm512_add_epi32(v, swapped), 0xaaaa, swapped, v);
        const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), plus);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i)
            _mm512_store_si512(to + i * stride, _mm512_add_epi32(_mm512_permutex2var_epi32(plus, low[i], minus),
                                                                 _mm512_permutex2var_epi32(plus, high[i], minus)));
    }
};

// A quantised row: [16 * groups quads of channels][width + 2 pixels] tables, those of pixels -1 and width zero.
size_t quantised_bytes(size_t width, size_t groups) { return groups * kLanes * (width + 2) * kTable; }

void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    const Tables tables;
    const size_t stride = (width + 2) * kTable;
    for (size_t quad = 0; quad < groups * kLanes; ++quad) {
        _mm512_store_si512(row + quad * stride, _mm512_setzero_si512());
        _mm512_store_si512(row + (quad + 1) * stride - kTable, _mm512_setzero_si512());
    }
    for (size_t x = 0; x < width; ++x) {
        for (size_t v = 0; v < groups * kVectors; ++v) {
            const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(gradient + x * groups * kFeatures + v * kLanes),
                                                _mm512_loadu_ps(scale + v * kLanes));
            tables.store(_mm512_cvtps_epi32(scaled), row + 4 * v * stride + (x + 1) * kTable, stride);
        }
    }
}

// Weights for the input: uint32 [groups][2 halves][9][64 input channels], bit c of a lane: output 32 * half + c is -1.
size_t input_weight_bytes(size_t groups) { return groups * 2 * kTaps * kFeatures * sizeof(uint32_t); }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    uint32_t* to = reinterpret_cast<uint32_t*>(weights);
    for (size_t g = 0; g < groups; ++g, words += kTaps * kFeatures) {
        for (size_t half = 0; half < 2; ++half) {
            for (size_t tap = 0; tap < kTaps; ++tap, to += kFeatures) {
                __m512i lanes[kVectors];
                for (size_t v = 0; v < kVectors; ++v) lanes[v] = _mm512_setzero_si512();
                for (size_t c = 0; c < 32; ++c) {
                    const uint64_t word = words[tap * kFeatures + 32 * half + c];
                    const __m512i bit = _mm512_set1_epi32(static_cast<int32_t>(1u << c));
                    for (size_t v = 0; v < kVectors; ++v)
                        lanes[v] = _mm512_mask_or_epi32(lanes[v], static_cast<__mmask16>(word >> (v * kLanes)), lanes[v], bit);
                }
                for (size_t v = 0; v < kVectors; ++v) _mm512_store_si512(to + v * kLanes, lanes[v]);
            }
        }
    }
}

// Sums of a block of kPixels pixels of the input's gradient, to sums[kPixels][64].
template <size_t kPixels>
inline void input_sums(const InputRow& t, size_t x, int32_t* sums) {
    const size_t stride = (t.width + 2) * kTable;
    __m512i acc[kPixels][kVectors];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kVectors; ++v) acc[p][v] = _mm512_setzero_si512();
    for (size_t half = 0; half < 2 * t.step * t.step; ++half) {
        for (size_t dy = 0; dy < 3; ++dy) {
            // The tap (dy, dx) of an output at (y + 1 - dy, x + 1 - dx) reads the input at (y, x).
            const uint8_t* row = t.rows[2 - dy];
            if (!row) continue;
            for (size_t dx = 0; dx < 3; ++dx) {
                const uint8_t* weights = t.weights + (half * kTaps + 3 * dy + dx) * kFeatures * sizeof(uint32_t);
                const uint8_t* table = row + half * kPerWord * stride + (x + 2 - dx) * kTable;
                __m512i pattern[kVectors];
                for (size_t v = 0; v < kVectors; ++v) pattern[v] = _mm512_load_si512(weights + v * kTable);
                for (size_t quad = 0; quad < kPerWord; ++quad, table += stride) {
#pragma GCC unroll 8
                    for (size_t p = 0; p < kPixels; ++p) {
                        const __m512i values = _mm512_load_si512(table + p * kTable);
#pragma GCC unroll 4
                        for (size_t v = 0; v < kVectors; ++v)
                            acc[p][v] = _mm512_add_epi32(acc[p][v], _mm512_permutexvar_epi32(pattern[v], values));
                    }
#pragma GCC unroll 4
                    for (size_t v = 0; v < kVectors; ++v) pattern[v] = _mm512_srli_epi32(pattern[v], 4);
                }
            }
        }
    }
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kVectors; ++v) _mm512_store_si512(sums + p * kFeatures + v * kLanes, acc[p][v]);
}

constexpr size_t kBlock = 6;  // pixels; 24 accumulators, 4 patterns and a table fit the registers

void input_row(const InputRow& task) {
    const InputRow t = task;
    alignas(kAlign) int32_t sums[kBlock * kFeatures];
    __m512 partial[kVectors], shift[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
        partial[v] = _mm512_setzero_ps();
        shift[v] = _mm512_loadu_ps(t.shift + v * kLanes);
    }
    const __m512 unit = _mm512_set1_ps(t.unit), steepness = _mm512_set1_ps(t.steepness), peak = _mm512_set1_ps(t.peak);
    for (size_t start = 0; start < t.width; start += kBlock) {
        const size_t count = t.width - start < kBlock ? t.width - start : kBlock;
        switch (count) {
            case 1: input_sums<1>(t, start, sums); break;
            case 2: input_sums<2>(t, start, sums); break;
            case 3: input_sums<3>(t, start, sums); break;
            case 4: input_sums<4>(t, start, sums); break;
            case 5: input_sums<5>(t, start, sums); break;
            default: input_sums<kBlock>(t, start, sums);
        }
        for (size_t p = 0; p < count; ++p) {
            const size_t x = start + p;
            for (size_t v = 0; v < kVectors; ++v) {
                const __m512 to_sign =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + p * kFeatures + v * kLanes)), unit);
                const __m512 shifted = _mm512_add_ps(_mm512_loadu_ps(t.x + x * kFeatures + v * kLanes), shift[v]);
                const __m512 window = _mm512_max_ps(
                    _mm512_sub_ps(peak, _mm512_mul_ps(steepness, _mm512_abs_ps(shifted))), _mm512_setzero_ps());
                const __m512 to_shifted = _mm512_mul_ps(to_sign, window);
                partial[v] = _mm512_add_ps(partial[v], to_shifted);
                __m512 residual = _mm512_loadu_ps(t.grad + t.step * x * kFeatures + v * kLanes);
                for (size_t i = 0; i < t.step; ++i)
                    for (size_t j = i ? 0 : 1; j < t.step; ++j)
                        residual = _mm512_add_ps(
                            residual, _mm512_loadu_ps(t.grad + ((i * t.width + x) * t.step + j) * kFeatures + v * kLanes));
                _mm512_storeu_ps(t.out + x * kFeatures + v * kLanes, _mm512_add_ps(residual, to_shifted));
            }
        }
    }
    for (size_t v = 0; v < kVectors; ++v) _mm512_storeu_ps(t.partial + v * kLanes, partial[v]);
}

// A bit row: uint32 [ceil(width / 32)][3 columns of taps][64 channels], bit i of a lane: the tap's pixel is -1.
constexpr size_t kSpan = 32;
size_t bit_row_bytes(size_t width) { return (width + kSpan - 1) / kSpan * 3 * kFeatures * sizeof(uint32_t); }

void bit_row(const uint64_t* words, size_t width, uint8_t* bits) {
    for (size_t start = 0; start < width; start += kSpan) {
        for (size_t dx = 0; dx < 3; ++dx, bits += kFeatures * sizeof(uint32_t)) {
            __m512i lanes[kVectors];
            for (size_t v = 0; v < kVectors; ++v) lanes[v] = _mm512_setzero_si512();
            for (size_t i = 0; i < kSpan; ++i) {
                const size_t x = start + i + dx;  // one more than the pixel's
                if (x < 1 || x > width) continue;
                const uint64_t word = words[x - 1];
                const __m512i bit = _mm512_set1_epi32(static_cast<int32_t>(1u << i));
                for (size_t v = 0; v < kVectors; ++v)
                    lanes[v] = _mm512_mask_or_epi32(lanes[v], static_cast<__mmask16>(word >> (v * kLanes)), lanes[v], bit);
            }
            for (size_t v = 0; v < kVectors; ++v) _mm512_store_si512(bits + v * kTable, lanes[v]);
        }
    }
}

// The block's tables: [rows][ceil(width / 4)][kQuad channels].
size_t quads(size_t width) { return (width + 3) / 4; }
size_t block_bytes(size_t rows, size_t width) { return rows * quads(width) * kQuad * kTable; }

void block_tables(const WeightBlock& t) {
    const Tables tables;
    const __m512i by_channel = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 scale = _mm512_set1_ps(t.scale);
    uint8_t* to = t.scratch;
    const float* from = t.gradient;
    for (size_t y = 0; y < t.rows; ++y) {
        for (size_t x = 0; x < t.width; x += 4, to += kQuad * kTable, from += 4 * t.pitch) {
            const auto pixel = [&](size_t i) { return x + i < t.width ? _mm_loadu_ps(from + i * t.pitch) : _mm_setzero_ps(); };
            __m512 pixels = _mm512_castps128_ps512(pixel(0));
            pixels = _mm512_insertf32x4(pixels, pixel(1), 1);
            pixels = _mm512_insertf32x4(pixels, pixel(2), 2);
            pixels = _mm512_insertf32x4(pixels, pixel(3), 3);
            const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(pixels, scale));
            tables.store(_mm512_permutexvar_epi32(by_channel, v), to, kTable);
        }
        from -= (quads(t.width) * 4 - t.width) * t.pitch;
    }
}

void weight_block(const WeightBlock& task) {
    const WeightBlock t = task;
    block_tables(t);
    const size_t row_tables = quads(t.width) * kQuad * kTable;
    for (size_t tap = 0; tap < kTaps; ++tap) {
        __m512i acc[kQuad][kVectors];
        for (size_t c = 0; c < kQuad; ++c)
            for (size_t v = 0; v < kVectors; ++v) acc[c][v] = _mm512_setzero_si512();
        for (size_t y = 0; y < t.rows; ++y) {
            const uint8_t* bits = t.bits[y + tap / 3];
            if (!bits) continue;
            bits += tap % 3 * kFeatures * sizeof(uint32_t);
            const uint8_t* table = t.scratch + y * row_tables;
            for (size_t left = quads(t.width); left; bits += 3 * kFeatures * sizeof(uint32_t)) {
                const size_t count = left < kPerWord ? left : kPerWord;
                left -= count;
                __m512i pattern[kVectors];
                for (size_t v = 0; v < kVectors; ++v) pattern[v] = _mm512_load_si512(bits + v * kTable);
                for (size_t i = 0; i < count; ++i, table += kQuad * kTable) {
#pragma GCC unroll 4
                    for (size_t c = 0; c < kQuad; ++c) {
                        const __m512i values = _mm512_load_si512(table + c * kTable);
#pragma GCC unroll 4
                        for (size_t v = 0; v < kVectors; ++v)
                            acc[c][v] = _mm512_add_epi32(acc[c][v], _mm512_permutexvar_epi32(pattern[v], values));
                    }
#pragma GCC unroll 4
                    for (size_t v = 0; v < kVectors; ++v) pattern[v] = _mm512_srli_epi32(pattern[v], 4);
                }
            }
        }
        for (size_t c = 0; c < kQuad; ++c) {
            for (size_t v = 0; v < kVectors; ++v) {
                int64_t* to = t.sums + (c * kTaps + tap) * kFeatures + v * kLanes;
                const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(acc[c][v]));
                const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(acc[c][v], 1));
                _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), low));
                _mm512_storeu_si512(to + 8, _mm512_add_epi64(_mm512_loadu_si512(to + 8), high));
            }
        }
    }
}

}  // namespace

extern const Kernels kAvx512;
const Kernels kAvx512{"avx512", "AVX-512 F, BW, DQ, VL and VPOPCNTDQ", supported, pack, forward_row, gradient_row,
                             quantised_bytes, quantise_row, input_weight_bytes, pack_input_weights, input_row,
                             bit_row_bytes, bit_row, block_bytes, weight_block};

}  // namespace bbcu::train
