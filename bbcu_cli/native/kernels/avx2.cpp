// AVX2: bit planes of 256 pixels, whose adders are five operations.

#include "../portability.h"
#if BBCU_X86_64

#include <immintrin.h>

#include "plane-rows-inl.h"

namespace bbcu {
namespace {

constexpr size_t kLanes = 8;  // floats in a register

struct Avx2 {
    using type = __m256;
    static constexpr size_t lanes = kLanes;
    static constexpr size_t registers = 16;
    static __m256 load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
    static __m256 set(float v) { return _mm256_set1_ps(v); }
    static __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
    static __m256 sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
    static __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static __m256 leaky(__m256 v, __m256 slope) { return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), v); }
    static const float* four(const float* p) { return p; }
    template <size_t kLane>
    static __m256 fma_by(__m256 v, const float* four, __m256 c) {
        return fma(v, set(four[kLane]), c);
    }
};

struct Planes {
    using type = __m256i;
    static constexpr size_t bytes = 32, block = 32;
    static type load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static void store(uint8_t* p, type v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    static type zero() { return _mm256_setzero_si256(); }
    static type ones() { return _mm256_set1_epi64x(-1); }
    using Mask = __m256i;
    static Mask mask(uint32_t bits) {
        const __m256i words = _mm256_setr_epi64x(1, 2, 4, 8);
        return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), words), words);
    }
    static type load_words(type v, Mask mask, const uint8_t* p) {
        return _mm256_or_si256(v, _mm256_maskload_epi64(reinterpret_cast<const long long*>(p), mask));
    }
    static type exclusive(type a, type b) { return _mm256_xor_si256(a, b); }
    static type both(type a, type b) { return _mm256_and_si256(a, b); }
    // The compiler computes a ^ b once for a sum and its carry.
    static type sum(type c, type a, type b) { return exclusive(c, exclusive(a, b)); }
    static type carry(type, type s, type a, type b) {
        return _mm256_or_si256(both(a, b), _mm256_andnot_si256(s, exclusive(a, b)));
    }
    static type borrow(type d, type a, type b) {
        return _mm256_or_si256(_mm256_andnot_si256(a, b), _mm256_andnot_si256(exclusive(a, b), d));
    }
    static type no_borrow(type d, type a, type b) { return exclusive(borrow(d, a, b), ones()); }
    static type from_left(type here, type before) {
        return _mm256_or_si256(_mm256_slli_epi64(here, 1), _mm256_srli_epi64(before, 63));
    }
    static type from_right(type here, type after) {
        return _mm256_or_si256(_mm256_srli_epi64(here, 1), _mm256_slli_epi64(after, 63));
    }
};

inline uint32_t below(__m256 v, __m256 threshold) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, threshold, _CMP_LT_OQ)));
}

// Exchanges the bits of b in the mask with those of a that are kShift higher.
template <int kShift>
inline void exchange(__m256i& a, __m256i& b, int mask) {
    const __m256i mine = _mm256_set1_epi8(static_cast<char>(mask));
    const __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16(a, kShift), b), mine);
    b = _mm256_xor_si256(b, t);
    a = _mm256_xor_si256(a, _mm256_slli_epi16(t, kShift));
}

// From the planes of sums of 256 pixels: byte k of high[r] becomes the highest eight bits of pixel 8 * k + r; the other
// two become the highest of low[r].
inline void bytes_of_sums(const uint8_t* sums, __m256i (&low)[8], __m256i (&high)[8]) {
    for (size_t b = 0; b < 8; ++b) high[b] = Planes::load(sums + (b + 2) * Planes::block);
    BBCU_UNROLL(4)
    for (size_t r = 0; r < 8; r += 2) exchange<1>(high[r], high[r + 1], 0x55);
    BBCU_UNROLL(4)
    for (size_t r = 0; r < 4; ++r) exchange<2>(high[r + r / 2 * 2], high[r + r / 2 * 2 + 2], 0x33);
    BBCU_UNROLL(4)
    for (size_t r = 0; r < 4; ++r) exchange<4>(high[r], high[r + 4], 0x0f);
    __m256i two[2] = {Planes::load(sums), Planes::load(sums + Planes::block)};
    exchange<1>(two[0], two[1], 0x55);
    BBCU_UNROLL(8)
    for (size_t i = 0; i < 8; ++i)
        low[i] = _mm256_and_si256(_mm256_slli_epi16(two[i % 2], static_cast<int>(6 - i / 2 * 2)),
                                  _mm256_set1_epi8(static_cast<char>(0xc0)));
}

struct Avx2Rows {
    using Planes = bbcu::Planes;
    static constexpr size_t kRowWords = Planes::bytes / kWordBytes;

    // By eights of pixels, which lie in memory as transposing leaves them.
    struct Halves {
        static constexpr size_t kNext = 16;
        alignas(kAlign) int16_t of[8 * Planes::bytes];
        int16_t* eight(size_t pixel) { return of + pixel / 8 % 16 * kNext + pixel / 128 * 8; }
    };

    static void subtract_sums(const uint8_t* sums, int16_t inside, Halves& halves) {
        __m256i low[8], high[8];
        bytes_of_sums(sums, low, high);
        const __m256i top = _mm256_set1_epi16(inside);
        BBCU_UNROLL(2)
        for (size_t upper = 0; upper < 2; ++upper) {
            __m256i a[8], b[8];
            BBCU_UNROLL(8)
            for (size_t r = 0; r < 8; ++r)
                a[r] = upper ? _mm256_unpackhi_epi8(low[r], high[r]) : _mm256_unpacklo_epi8(low[r], high[r]);
            BBCU_UNROLL(4)
            for (size_t r = 0; r < 4; ++r) {
                b[r] = _mm256_unpacklo_epi16(a[2 * r], a[2 * r + 1]);
                b[4 + r] = _mm256_unpackhi_epi16(a[2 * r], a[2 * r + 1]);
            }
            BBCU_UNROLL(4)
            for (size_t r = 0; r < 4; ++r) {
                a[r] = _mm256_unpacklo_epi32(b[2 * r], b[2 * r + 1]);
                a[4 + r] = _mm256_unpackhi_epi32(b[2 * r], b[2 * r + 1]);
            }
            // a: [bytes 0 1, pixels 0-3], [.., 4-7], [bytes 4 5, 0-3], [.., 4-7], then bytes 2 3 and 6 7.
            const __m256i eights[8] = {
                _mm256_unpacklo_epi64(a[0], a[1]), _mm256_unpackhi_epi64(a[0], a[1]), _mm256_unpacklo_epi64(a[4], a[5]),
                _mm256_unpackhi_epi64(a[4], a[5]), _mm256_unpacklo_epi64(a[2], a[3]), _mm256_unpackhi_epi64(a[2], a[3]),
                _mm256_unpacklo_epi64(a[6], a[7]), _mm256_unpackhi_epi64(a[6], a[7]),
            };
            BBCU_UNROLL(8)
            for (size_t i = 0; i < 8; ++i) {
                const __m256i half = _mm256_sub_epi16(top, eights[i]);
                _mm256_store_si256(reinterpret_cast<__m256i*>(halves.of + (8 * upper + i) * Halves::kNext), half);
            }
        }
    }

    struct Epilogue {
        __m256 scale, bias, slope, offset, leak, threshold;
        Epilogue(const BinaryRow& t, const UnitParams& unit, size_t o)
            : scale(Avx2::set(unit.scale[o] / 32)), bias(Avx2::set(unit.bias[o])), slope(Avx2::set(unit.slope[o])),
              offset(Avx2::set(unit.offset[o])), leak(Avx2::set(t.leak)),
              threshold(Avx2::set(t.threshold ? t.threshold[o] : 0)) {}

        template <bool kLeaky>
        BBCU_ALWAYS_INLINE uint32_t finish(const int16_t* half, const float* residual, float* out) const {
            uint32_t bits = 0;
            BBCU_UNROLL(4)
            for (size_t i = 0; i < kStep; i += kLanes, half += Halves::kNext) {
                const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(half));
                const __m256 u = Avx2::fma(scale, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words)), bias);
                const __m256 added = Avx2::fma(u, _mm256_blendv_ps(Avx2::set(1), slope, u), offset);
                __m256 v = _mm256_add_ps(Avx2::load(residual + i), added);
                if (kLeaky) v = Avx2::leaky(v, leak);
                Avx2::store(out + i, v);
                bits |= bbcu::below(v, threshold) << i;
            }
            return bits;
        }
    };

    static uint32_t below(const float* from, float threshold) {
        uint32_t bits = 0;
        for (size_t i = 0; i < kStep; i += kLanes) bits |= bbcu::below(Avx2::load(from + i), Avx2::set(threshold)) << i;
        return bits;
    }
};

}  // namespace

extern constexpr KernelSet kAvx2 = plane_kernels<Avx2Rows, Avx2>(kAvx2Cpu, "AVX2 logic on bit planes of 256 pixels");

}  // namespace bbcu

#endif
