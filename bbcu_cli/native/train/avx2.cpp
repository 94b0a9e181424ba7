// AVX2: passes of rows, and the products of signs by table look-up; products-inl.h multiplies gradients.
//
// Four signs of a pixel against four signs of a weight give one of the half sums -2 .. 2. With the 16 of a pixel's four
// signs as the table, one vpshufb looks them up for 32 outputs, and a vpaddb sums them: 128 products.
// Bound: three taps of 16 look-ups sum to at most 96 and fit int8; three rows of taps to 288 and fit int16.

#include "../portability.h"
#if BBCU_X86_64

#include <immintrin.h>

#include "kernels.h"
#include "tables-avx2-inl.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 8;                // floats
constexpr size_t kHalves = kFeatures / 32;  // vectors of bytes

struct Bytes : Avx2Tables {
    using type = __m256i;
    static constexpr size_t bytes = 32, rows = 2;
    static type zero() { return _mm256_setzero_si256(); }
    static type load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
    static type table(const uint8_t* p) {
        return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static type look_up(type table, type pattern) { return _mm256_shuffle_epi8(table, pattern); }
    static type add(type a, type b) { return _mm256_add_epi8(a, b); }
    static type weights() { return _mm256_set1_epi16(1 | kDigit << 8); }
    static type lower(type low, type high) { return _mm256_maddubs_epi16(_mm256_unpacklo_epi8(low, high), weights()); }
    static type upper(type low, type high) { return _mm256_maddubs_epi16(_mm256_unpackhi_epi8(low, high), weights()); }
    static type add_words(type a, type b) { return _mm256_add_epi16(a, b); }
    // Left to itself, GCC loads patterns twice, adds in another order, and runs out of the 16 registers.
    static type in_register(type v) {
#if !BBCU_MSVC
        asm("" : "+x"(v));
#endif
        return v;
    }
    template <class T>
    static void in_memory(T& sums) {
#if BBCU_MSVC
        (void)sums;
#else
        asm("" : "+m"(sums));
#endif
    }
};

void pack(const float* x, const float* shift, size_t pixels, uint64_t* words) {
    for (size_t p = 0; p < pixels; ++p) {
        uint64_t word = 0;
        for (size_t v = 0; v < kFeatures / kLanes; ++v) {
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
    __m256 operator()(__m256 sum) const { return _mm256_add_ps(_mm256_add_ps(_mm256_mul_ps(sum, scale), bias), bias0); }
};

__m256 positive(__m256 v) { return _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ); }

// Weights for the output: a byte for each of [9 taps][16 quads of inputs][64 outputs], the quad's signs.
constexpr size_t kWeightBytes = kTaps * kQuads * kFeatures;

void pack_weights(const uint64_t* words, uint8_t* weights) {
    for (size_t tap = 0; tap < kTaps; ++tap)
        for (size_t quad = 0; quad < kQuads; ++quad)
            for (size_t o = 0; o < kFeatures; ++o)
                *weights++ = static_cast<uint8_t>(words[tap * kFeatures + o] >> (4 * quad) & 15);
}

// Half sums by the signs of a pixel and of a weight, 16 tables, and one of zeros for a pixel outside the image.
constexpr size_t kHalfSums = 16;  // bytes of a table
struct HalfSums {
    alignas(kAlign) int8_t of[17 * kHalfSums] = {};
    constexpr HalfSums() {
        for (int pixel = 0; pixel < 16; ++pixel)
            for (int weight = 0; weight < 16; ++weight)
                for (int bit = 0; bit < 4; ++bit) of[pixel * 16 + weight] += (pixel ^ weight) >> bit & 1 ? -1 : 1;
        for (int8_t& sum : of) sum /= 2;
    }
};
constexpr HalfSums kTables;

// Where the tables of a pixel's 16 quads of channels are, to where[16].
inline void find_tables(uint64_t word, uint16_t* where) {
    const __m128i bytes = _mm_cvtsi64_si128(static_cast<int64_t>(word)), nibble = _mm_set1_epi8(15);
    const __m128i quads =
        _mm_unpacklo_epi8(_mm_and_si128(bytes, nibble), _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
    _mm256_store_si256(reinterpret_cast<__m256i*>(where), _mm256_slli_epi16(_mm256_cvtepu8_epi16(quads), 4));
}

// Half sums of kPixels pixels over a row of taps, to sums[kPixels][64]; where[kPixels + 2][16].
template <size_t kPixels>
inline void forward_sums(const uint8_t* weights, const uint16_t* where, int8_t* sums) {
    __m256i acc[kPixels][kHalves];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kHalves; ++v) acc[p][v] = _mm256_setzero_si256();
    BBCU_UNROLL(1)
    for (size_t i = 0; i < 3 * kQuads; ++i, weights += kFeatures) {
        __m256i pattern[kHalves];
        BBCU_UNROLL(2)
        for (size_t v = 0; v < kHalves; ++v) pattern[v] = Bytes::in_register(Bytes::load(weights + v * Bytes::bytes));
        BBCU_UNROLL(4)
        for (size_t p = 0; p < kPixels; ++p) {
            const auto* table = reinterpret_cast<const uint8_t*>(kTables.of) + where[p * kQuads + i];
            const __m256i half_sums = Bytes::table(table);
            BBCU_UNROLL(2)
            for (size_t v = 0; v < kHalves; ++v)
                acc[p][v] = Bytes::in_register(Bytes::add(acc[p][v], Bytes::look_up(half_sums, pattern[v])));
        }
    }
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t v = 0; v < kHalves; ++v)
            _mm256_store_si256(reinterpret_cast<__m256i*>(sums + p * kFeatures) + v, acc[p][v]);
}

constexpr size_t kPixels = 4;  // at once; 8 sums, 2 patterns, a table and what was looked up: all registers

void forward_row(const ForwardRow& task) {
    const ForwardRow t = task;
    for (size_t start = 0; start < t.width; start += kPixels) {
        const size_t count = t.width - start < kPixels ? t.width - start : kPixels;
        alignas(kAlign) int8_t parts[3][kPixels * kFeatures] = {};
        for (size_t dy = 0; dy < 3; ++dy) {
            if (!t.rows[dy]) continue;
            alignas(kAlign) uint16_t where[(kPixels + 2) * kQuads];
            for (size_t i = 0; i < kPixels + 2; ++i) {
                const size_t x = start + i;  // one more than the pixel's
                if (x >= 1 && x <= t.width)
                    find_tables(t.rows[dy][x - 1], where + i * kQuads);
                else
                    for (size_t q = 0; q < kQuads; ++q) where[i * kQuads + q] = 16 * kHalfSums;
            }
            forward_sums<kPixels>(t.weights + dy * 3 * kQuads * kFeatures, where, parts[dy]);
        }
        for (size_t p = 0; p < count; ++p) {
            const size_t x = start + p;
            for (size_t c = 0; c < kFeatures; c += 2 * kLanes) {
                const auto part = [&](size_t dy) {
                    return _mm256_cvtepi8_epi16(
                        _mm_load_si128(reinterpret_cast<const __m128i*>(parts[dy] + p * kFeatures + c)));
                };
                const __m256i sums =
                    _mm256_slli_epi16(_mm256_add_epi16(_mm256_add_epi16(part(0), part(1)), part(2)), 1);
                if (t.sums) _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.sums + x * t.sums_pitch + c), sums);
                const __m128i half[2] = {_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)};
                BBCU_UNROLL(2)
                for (size_t i = 0; i < 2; ++i) {
                    const size_t v = c / kLanes + i;
                    const Affine affine(*t.group, v);
                    __m256 y = affine(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half[i])));
                    y = _mm256_blendv_ps(_mm256_mul_ps(y, affine.slope), y, positive(y));
                    y = _mm256_add_ps(y, _mm256_load_ps(t.group->bias1 + v * kLanes));
                    y = _mm256_add_ps(_mm256_loadu_ps(t.residual + x * kFeatures + v * kLanes), y);
                    _mm256_storeu_ps(t.out + x * t.out_pitch + v * kLanes, y);
                }
            }
        }
    }
}

void gradient_row(const GradientRow& task) {
    const GradientRow t = task;
    constexpr size_t kLine = 2;  // vectors of floats
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (size_t c = 0; c < kFeatures; c += kLine * kLanes) {
        __m256 bias0[kLine], slope[kLine], bias1[kLine];
        __m256i largest[kLine];
        for (size_t i = 0; i < kLine; ++i) {
            bias0[i] = slope[i] = bias1[i] = _mm256_setzero_ps();
            largest[i] = _mm256_setzero_si256();
        }
        for (size_t x = 0; x < t.width; ++x) {
            BBCU_UNROLL(2)
            for (size_t i = 0; i < kLine; ++i) {
                const size_t at = c + i * kLanes;
                const Affine affine(*t.group, at / kLanes);
                const __m256 grad = _mm256_loadu_ps(t.grad + x * t.grad_pitch + at);
                const auto* sum = reinterpret_cast<const __m128i*>(t.sums + x * t.pitch + at);
                const __m256 y = affine(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(sum))));
                const __m256 above = positive(y);
                const __m256 gradient = _mm256_blendv_ps(_mm256_mul_ps(grad, affine.slope), grad, above);
                _mm256_storeu_ps(t.gradient + x * t.pitch + at, gradient);
                bias0[i] = _mm256_add_ps(bias0[i], gradient);
                slope[i] = _mm256_add_ps(slope[i], _mm256_andnot_ps(above, _mm256_mul_ps(y, grad)));
                bias1[i] = _mm256_add_ps(bias1[i], grad);
                largest[i] = _mm256_max_epu32(largest[i], _mm256_and_si256(_mm256_castps_si256(gradient), magnitude));
            }
        }
        for (size_t i = 0; i < kLine; ++i) {
            const size_t at = c + i * kLanes;
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.largest + at), largest[i]);
            _mm256_storeu_ps(t.partial + at, bias0[i]);
            _mm256_storeu_ps(t.partial + kFeatures + at, slope[i]);
            _mm256_storeu_ps(t.partial + 2 * kFeatures + at, bias1[i]);
        }
    }
}

constexpr Kernels all() {
    Kernels k = products<Bytes>();
    k.cpu = &kAvx2Cpu;
    k.pack = pack;
    k.weight_bytes = kWeightBytes;
    k.pack_weights = pack_weights;
    k.forward_row = forward_row;
    k.gradient_row = gradient_row;
    return k;
}

}  // namespace

extern constexpr Kernels kAvx2 = all();

}  // namespace bbcu::train

#endif
