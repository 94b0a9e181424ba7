// AVX2: vpshufb as a 16-entry table of popcounts, pixels in lanes, two output channels per lookup.
//
// Four input channels of a pixel are one nibble a. For a weight nibble w the table popcount(w ^ a), indexed by a,
// counts four products at once. Counts are at most 4, so one byte of the table holds the counts of two output
// channels, one per half: one shuffle makes 2 * 4 products in each of 32 pixels. Three lookups, the taps of a row,
// are added before the halves are split (3 * 4 = 12 fits 4 bits); 16 nibbles of 12 are 192 and fit a byte.
//
// A packed row is, for every block of 32 pixels and each of the 16 nibbles, three vectors of 32 bytes: the nibbles
// of the pixels to the left, of the pixels, and of those to the right, so that every load is aligned. After the
// blocks lies the same once, plain, by nibble. A pixel outside the image has bit 7 set: the lookup gives 0.

#include <immintrin.h>

#include <cstring>

#include "float-inl.h"

namespace bbcu {
namespace {

constexpr size_t kBlock = 32;                       // pixels in a vector
constexpr size_t kNibbles = kFeatures / 4;
constexpr size_t kBlockBytes = kNibbles * 3 * kBlock;
constexpr size_t kPairs = kFeatures / 2;            // of output channels
constexpr size_t kPairSteps = 3 * kNibbles * 3;     // lookups for one pair: dy, nibble, dx
constexpr size_t kSpan = 2;                         // vectors that a kernel works on at once
constexpr uint8_t kOutside = 0x80;

struct Tables {
    alignas(kAlign) uint8_t row[256][16];  // [weight nibbles of both channels][activation nibble]
};

constexpr unsigned popcount4(unsigned n) { return (n & 1) + (n >> 1 & 1) + (n >> 2 & 1) + (n >> 3 & 1); }

constexpr Tables make_tables() {
    Tables t{};
    for (unsigned w = 0; w < 256; ++w)
        for (unsigned a = 0; a < 16; ++a)
            t.row[w][a] = static_cast<uint8_t>(popcount4((w & 15) ^ a) | popcount4((w >> 4) ^ a) << 4);
    return t;
}

constexpr Tables kTables = make_tables();

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

struct Avx2 {
    using type = __m256;
    static constexpr size_t lanes = 8;
    static __m256 load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
    static __m256 set(float v) { return _mm256_set1_ps(v); }
    static __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static __m256 leaky(__m256 v, __m256 slope) { return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), v); }
};

__m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
__m256i load_unaligned(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void store(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
__m256i table(uint16_t offset) {
    return _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(&kTables.row[0][0] + offset)));
}

// The plain nibbles at the end of a packed row: plane n begins at n * plane_stride, one byte before pixel 0.
size_t blocks_of(size_t width) { return (width + kBlock * kSpan - 1) / (kBlock * kSpan) * kSpan; }
size_t plane_stride(size_t width) { return (blocks_of(width) + 2) * kBlock; }
uint8_t* plain(uint8_t* packed, size_t width) { return packed + blocks_of(width) * kBlockBytes + kBlock; }

size_t packed_row_bytes(size_t width) {
    return blocks_of(width) * kBlockBytes + (kNibbles * plane_stride(width) + 2 * kBlock);
}

// Offsets into kTables: [pair][dy][nibble][dx].
void pack_weights(const uint64_t* signs, uint8_t* weights) {
    auto* offsets = reinterpret_cast<uint16_t*>(weights);
    for (size_t pair = 0; pair < kPairs; ++pair)
        for (size_t dy = 0; dy < 3; ++dy)
            for (size_t n = 0; n < kNibbles; ++n)
                for (size_t dx = 0; dx < 3; ++dx) {
                    const uint64_t* tap = signs + 2 * pair * kTaps + 3 * dy + dx;
                    const uint64_t first = tap[0] >> (4 * n) & 15, second = tap[kTaps] >> (4 * n) & 15;
                    *offsets++ = static_cast<uint16_t>((first | second << 4) * sizeof kTables.row[0]);
                }
}

// Completes a packed row from its plain nibbles.
void spread(uint8_t* packed, size_t width) {
    const size_t stride = plane_stride(width), blocks = blocks_of(width);
    uint8_t* planes = plain(packed, width);
    for (size_t n = 0; n < kNibbles; ++n) {
        planes[n * stride - 1] = kOutside;
        std::memset(planes + n * stride + width, kOutside, blocks * kBlock - width + 1);
    }
    for (size_t b = 0; b < blocks; ++b)
        for (size_t n = 0; n < kNibbles; ++n) {
            const uint8_t* from = planes + n * stride + b * kBlock;
            uint8_t* to = packed + b * kBlockBytes + n * 3 * kBlock;
            store(to, load_unaligned(from - 1));
            store(to + kBlock, load_unaligned(from));
            store(to + 2 * kBlock, load_unaligned(from + 1));
        }
}

// Bytes of 32 pixels, 0xff where v[i] < threshold; pixels in the order that in_order undoes.
__m256i below(const __m256 v[4], __m256 threshold) {
    __m256i m[4];
    for (int i = 0; i < 4; ++i) m[i] = _mm256_castps_si256(_mm256_cmp_ps(v[i], threshold, _CMP_LT_OQ));
    return _mm256_packs_epi16(_mm256_packs_epi32(m[0], m[1]), _mm256_packs_epi32(m[2], m[3]));
}

__m256i in_order(__m256i bytes) {
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void pack_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    uint8_t* planes = plain(packed, width);
    for (size_t n = 0; n < kNibbles; ++n)
        for (size_t x = 0; x < width; x += kBlock) {
            __m256i nibbles = _mm256_setzero_si256();
            for (size_t i = 0; i < 4; ++i) {
                const float* from = row + (4 * n + i) * stride + x;
                const __m256 v[4] = {Avx2::load(from), Avx2::load(from + 8), Avx2::load(from + 16), Avx2::load(from + 24)};
                const __m256i bit = _mm256_set1_epi8(static_cast<char>(1 << i));
                nibbles = _mm256_or_si256(nibbles, _mm256_and_si256(below(v, Avx2::set(threshold[4 * n + i])), bit));
            }
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes + n * plane_stride(width) + x), in_order(nibbles));
        }
    spread(packed, width);
}

// Differing signs of kSpan * 32 pixels for one pair of output channels, each row of taps by itself.
struct Counts {
    alignas(kAlign) uint8_t of[3][2][kSpan * kBlock];  // [dy][channel][pixel]
};

inline void count_pair(const uint8_t* const rows[3], size_t block, const uint16_t* offsets, Counts& counts) {
    const __m256i low = _mm256_set1_epi8(0x0f), high = _mm256_set1_epi8(static_cast<char>(0xf0));
    for (size_t dy = 0; dy < 3; ++dy) {
        __m256i first[kSpan] = {}, second[kSpan] = {};
        if (rows[dy]) {
            const uint8_t* in = rows[dy] + block * kBlockBytes;
            const uint16_t* w = offsets + dy * (kPairSteps / 3);
            for (size_t n = 0; n < kNibbles; n += 2, in += 2 * 3 * kBlock, w += 6) {
                // Three lookups of two nibbles; one table at a time, or the registers do not suffice.
                __m256i sum[2][kSpan];
#pragma GCC unroll 2
                for (size_t i = 0; i < 2; ++i)
#pragma GCC unroll 3
                    for (size_t dx = 0; dx < 3; ++dx) {
                        const __m256i t = table(w[3 * i + dx]);
#pragma GCC unroll 2
                        for (size_t v = 0; v < kSpan; ++v) {
                            const uint8_t* nibbles = in + v * kBlockBytes + (3 * i + dx) * kBlock;
                            const __m256i counted = _mm256_shuffle_epi8(t, load(nibbles));
                            sum[i][v] = dx ? _mm256_add_epi8(sum[i][v], counted) : counted;
                        }
                    }
#pragma GCC unroll 2
                for (size_t v = 0; v < kSpan; ++v) {
                    first[v] = _mm256_add_epi8(first[v], _mm256_and_si256(sum[0][v], low));
                    first[v] = _mm256_add_epi8(first[v], _mm256_and_si256(sum[1][v], low));
                    // The mean of two multiples of 16 is exact: 8 * (sum of the upper halves), at most 192.
                    const __m256i mean =
                        _mm256_avg_epu8(_mm256_and_si256(sum[0][v], high), _mm256_and_si256(sum[1][v], high));
                    second[v] = _mm256_add_epi8(second[v], _mm256_srli_epi16(mean, 3));
                }
            }
        }
        for (size_t v = 0; v < kSpan; ++v) {
            store(counts.of[dy][0] + v * kBlock, first[v]);
            store(counts.of[dy][1] + v * kBlock, second[v]);
        }
    }
}

__m256i widen(const uint8_t* p) { return _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(p))); }

// Asks for the residuals of kSpan * 32 pixels of one channel, which `finish` reads and writes soon.
inline void prefetch(const BinaryRow& t, size_t o, size_t x) {
    for (size_t i = 0; i < kSpan * kBlock; i += 16) {
        _mm_prefetch(reinterpret_cast<const char*>(t.residual + o * t.stride + x + i), _MM_HINT_T0);
        if (t.out != t.residual) _mm_prefetch(reinterpret_cast<const char*>(t.out + o * t.stride + x + i), _MM_HINT_T0);
    }
}

// Residual and affine part of 32 pixels of channel o; returns `below` of the result.
template <bool kLeaky>
inline __m256i finish(const BinaryRow& t, const Counts& counts, size_t lane, size_t o, size_t x, size_t v) {
    const UnitParams& unit = *t.unit;
    const __m256 scale = Avx2::set(unit.scale[o]), bias = Avx2::set(unit.bias[o]), slope = Avx2::set(unit.slope[o]);
    const __m256 offset = Avx2::set(unit.offset[o]), one = Avx2::set(1), leak = Avx2::set(t.leak);
    const float* residual = t.residual + o * t.stride + x;
    float* out = t.out + o * t.stride + x;
    __m256 result[4];
    for (size_t half = 0; half < 2; ++half) {
        const size_t at = v * kBlock + 16 * half;
        const __m256i count = _mm256_add_epi16(
            _mm256_add_epi16(widen(counts.of[0][lane] + at), widen(counts.of[1][lane] + at)), widen(counts.of[2][lane] + at));
        const __m256i y = _mm256_sub_epi16(load_unaligned(t.taps + x + 16 * half), _mm256_add_epi16(count, count));
        const __m128i parts[2] = {_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)};
        for (size_t i = 0; i < 2; ++i) {
            const size_t p = 16 * half + 8 * i;
            const __m256 u = Avx2::fma(scale, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(parts[i])), bias);
            const __m256 sum = _mm256_add_ps(Avx2::load(residual + p), Avx2::fma(u, _mm256_blendv_ps(one, slope, u), offset));
            result[2 * half + i] = kLeaky ? Avx2::leaky(sum, leak) : sum;
            Avx2::store(out + p, result[2 * half + i]);
        }
    }
    return t.packed ? below(result, Avx2::set(t.threshold[o])) : __m256i{};
}

template <bool kLeaky>
void binary_row_as(const BinaryRow& task) {
    const BinaryRow t = task;  // a copy, which the stores through its pointers cannot change
    const auto* weights = reinterpret_cast<const uint16_t*>(t.weights);
    Counts counts;
    for (size_t x = 0; x < t.width; x += kSpan * kBlock)
        for (size_t n = 0; n < kNibbles; ++n) {
            __m256i nibbles[kSpan] = {};
            for (size_t pair = 0; pair < 2; ++pair) {
                prefetch(t, 4 * n + 2 * pair, x);
                prefetch(t, 4 * n + 2 * pair + 1, x);
                count_pair(t.rows, x / kBlock, weights + (2 * n + pair) * kPairSteps, counts);
                for (size_t lane = 0; lane < 2; ++lane)
                    for (size_t v = 0; v < kSpan; ++v) {
                        const size_t i = 2 * pair + lane;
                        const __m256i bit = _mm256_set1_epi8(static_cast<char>(1 << i));
                        const __m256i negative = finish<kLeaky>(t, counts, lane, 4 * n + i, x + v * kBlock, v);
                        nibbles[v] = _mm256_or_si256(nibbles[v], _mm256_and_si256(negative, bit));
                    }
            }
            if (!t.packed) continue;
            uint8_t* to = plain(t.packed, t.width) + n * plane_stride(t.width) + x;
            for (size_t v = 0; v < kSpan; ++v)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + v * kBlock), in_order(nibbles[v]));
        }
    if (t.packed) spread(t.packed, t.width);
}

void binary_row(const BinaryRow& t) { t.leak == 1.0f ? binary_row_as<false>(t) : binary_row_as<true>(t); }

void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    const auto* offsets = reinterpret_cast<const uint16_t*>(weights);
    Counts counts;
    for (size_t x = 0; x < width; x += kSpan * kBlock)
        for (size_t pair = 0; pair < kPairs; ++pair) {
            count_pair(rows, x / kBlock, offsets + pair * kPairSteps, counts);
            sink[pair] ^= counts.of[pair % 3][0][0];
        }
}

}  // namespace

extern const KernelSet kAvx2;
const KernelSet kAvx2 = {
    "avx2", "AVX2 byte shuffles as popcount tables, 32 pixels at a time", "AVX2 and FMA", supported, packed_row_bytes,
    kPairs * kPairSteps * sizeof(uint16_t), pack_weights, pack_row, one_row_at_once, each_row<binary_row>, conv_row<Avx2>, interleave, bare_row,
};

}  // namespace bbcu
