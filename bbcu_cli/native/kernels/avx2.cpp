// AVX2: bit planes of 256 pixels, whose adders are five operations.

#include <immintrin.h>

#include "bitslice-inl.h"

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
    static __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static __m256 leaky(__m256 v, __m256 slope) { return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), v); }
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
    static type carry(type s, type a, type b) {
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

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

constexpr size_t kStep = 32;  // pixels whose signs are stored together

// Bits of the pixels of a step that are inside, where `width` of them and of those after are.
uint32_t inside(size_t width) { return width < kStep ? (1u << width) - 1 : 0xffffffff; }

uint32_t below(__m256 v, __m256 threshold) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, threshold, _CMP_LT_OQ)));
}

// Signs of `count` pixels.
void pack_span(const float* from, size_t count, float threshold, uint8_t* packed) {
    for (size_t x = 0; x < count; x += kStep) {
        uint32_t negative = 0;
        for (size_t i = 0; i < kStep; i += kLanes) negative |= below(Avx2::load(from + x + i), Avx2::set(threshold)) << i;
        negative &= inside(count - x);
        std::memcpy(packed + x / 8, &negative, sizeof negative);
    }
}

// Half the products of 256 pixels of one output, by eights of pixels that lie in memory as transposing leaves them.
struct Halves {
    alignas(kAlign) int16_t of[8 * Planes::bytes];
    int16_t* eight(size_t pixel) { return of + pixel / 8 % 16 * 16 + pixel / 128 * 8; }
};

// Exchanges the bits of b in the mask with those of a that are kShift higher.
template <int kShift>
inline void exchange(__m256i& a, __m256i& b, int mask) {
    const __m256i t = _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16(a, kShift), b), _mm256_set1_epi8(static_cast<char>(mask)));
    b = _mm256_xor_si256(b, t);
    a = _mm256_xor_si256(a, _mm256_slli_epi16(t, kShift));
}

// inside - sum, from the lowest ten bits of the sums. A half is at most 288, so higher bits say nothing more.
template <bool kMoreBits>
inline void subtract_sums(const uint8_t* sums, int16_t inside, Halves& halves) {
    // Afterwards byte k of low[r] holds the lowest eight bits of pixel 8 * k + r, of high[r] the two after them.
    __m256i low[8], high[8];
    for (size_t b = 0; b < 8; ++b) low[b] = Planes::load(sums + b * Planes::block);
#pragma GCC unroll 4
    for (size_t r = 0; r < 8; r += 2) exchange<1>(low[r], low[r + 1], 0x55);
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; ++r) exchange<2>(low[r + r / 2 * 2], low[r + r / 2 * 2 + 2], 0x33);
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; ++r) exchange<4>(low[r], low[r + 4], 0x0f);
    for (size_t b = 0; b < 2; ++b) high[b] = Planes::load(sums + (8 + b) * Planes::block);
    exchange<1>(high[0], high[1], 0x55);
    const __m256i top = _mm256_set1_epi16(inside);
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i)
        high[7 - i] = _mm256_and_si256(_mm256_srli_epi16(high[(7 - i) % 2], static_cast<int>((7 - i) / 2 * 2)), _mm256_set1_epi8(3));
#pragma GCC unroll 2
    for (size_t upper = 0; upper < 2; ++upper) {
        __m256i a[8], b[8];
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; ++r)
            a[r] = upper ? _mm256_unpackhi_epi8(low[r], high[r]) : _mm256_unpacklo_epi8(low[r], high[r]);
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; ++r) {
            b[r] = _mm256_unpacklo_epi16(a[2 * r], a[2 * r + 1]);
            b[4 + r] = _mm256_unpackhi_epi16(a[2 * r], a[2 * r + 1]);
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; ++r) {
            a[r] = _mm256_unpacklo_epi32(b[2 * r], b[2 * r + 1]);
            a[4 + r] = _mm256_unpackhi_epi32(b[2 * r], b[2 * r + 1]);
        }
        // a: [bytes 0 1, pixels 0-3], [.., 4-7], [bytes 4 5, 0-3], [.., 4-7], then bytes 2 3 and 6 7.
        const __m256i eights[8] = {
            _mm256_unpacklo_epi64(a[0], a[1]), _mm256_unpackhi_epi64(a[0], a[1]), _mm256_unpacklo_epi64(a[4], a[5]), _mm256_unpackhi_epi64(a[4], a[5]),
            _mm256_unpacklo_epi64(a[2], a[3]), _mm256_unpackhi_epi64(a[2], a[3]), _mm256_unpacklo_epi64(a[6], a[7]), _mm256_unpackhi_epi64(a[6], a[7]),
        };
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; ++i) {
            __m256i half = _mm256_sub_epi16(top, eights[i]);
            if (kMoreBits) half = _mm256_srai_epi16(_mm256_slli_epi16(half, 6), 6);
            _mm256_store_si256(reinterpret_cast<__m256i*>(halves.of + (8 * upper + i) * 16), half);
        }
    }
}

// Affine part and residual of 8 pixels of one output, from half their product. Returns which are below the threshold.
struct Epilogue {
    __m256 scale, bias, slope, offset, leak, threshold;
    Epilogue(const BinaryRow& t, const UnitParams& unit, size_t o)
        : scale(Avx2::set(2 * unit.scale[o])), bias(Avx2::set(unit.bias[o])), slope(Avx2::set(unit.slope[o])),
          offset(Avx2::set(unit.offset[o])), leak(Avx2::set(t.leak)), threshold(Avx2::set(t.threshold ? t.threshold[o] : 0)) {}

    template <bool kLeaky>
    uint32_t operator()(const int16_t* half, const float* residual, float* out) const {
        const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(half));
        const __m256 u = Avx2::fma(scale, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words)), bias);
        __m256 v = _mm256_add_ps(Avx2::load(residual), Avx2::fma(u, _mm256_blendv_ps(Avx2::set(1), slope, u), offset));
        if (kLeaky) v = Avx2::leaky(v, leak);
        Avx2::store(out, v);
        return below(v, threshold);
    }
};

// Output o of the pixels of one piece of a block.
template <bool kLeaky>
inline void finish_piece(const PlanePiece& piece, const Tops& tops, const Epilogue& epilogue, Halves& halves, size_t o, float* part) {
    const BinaryRow& t = *piece.row;
    const size_t begin = piece.begin(), end = piece.end(), at = piece.at * kWord;
    const float* residual = t.residual + o * t.stride;
    float* out = part ? part + at : t.out + o * t.out_stride + begin;
    uint8_t* packed = part || !t.packed ? nullptr : t.packed + kWordBytes + o * plane_stride(t.width);
    if (begin == 0) *halves.eight(at) += tops.left[o];
    if (end == t.width) halves.eight(at + end - 1 - begin)[(end - 1) % 8] += tops.right[o];
    for (size_t x = begin; x < end; x += kStep) {
        const int16_t* half = halves.eight(at + x - begin);  // the next eight lies 16 further
        uint32_t negative = 0;
#pragma GCC unroll 4
        for (size_t i = 0; i < kStep; i += kLanes)
            negative |= epilogue.operator()<kLeaky>(half + 2 * i, residual + x + i, out + x - begin + i) << i;
        negative &= inside(t.width - x);
        if (packed) std::memcpy(packed + x / 8, &negative, sizeof negative);
    }
}

template <bool kLeaky>
void binary_rows_as(const BinaryRow* rows, size_t count) {
    const TaskTops tops(rows, count);
    const auto finish = [&](auto bits, const uint8_t* sums, size_t j, size_t o, const PlaneBlockPieces& pieces, float* part) {
        const Epilogue epilogue(*rows, *rows->unit[j], o);
        // Rows at the image's edges have other tops.
        Halves halves;
        const Tops* last = nullptr;
        for (size_t p = 0; p < pieces.count; ++p) {
            const PlanePiece& piece = pieces.piece[p];
            const Tops& top = tops.of[j][piece.row - rows];
            if (!last || top.inside[o] != last->inside[o]) subtract_sums<(decltype(bits)::value > 10)>(sums, top.inside[o], halves);
            last = &top;
            finish_piece<kLeaky>(piece, top, epilogue, halves, o, part);
        }
    };
    plane_blocks<Planes, Planes>(rows, count, finish, pack_span);
}

void binary_rows(const BinaryRow* rows, size_t count) {
    rows->leak == 1.0f ? binary_rows_as<false>(rows, count) : binary_rows_as<true>(rows, count);
}

// Gathering and counting; there is no popcount to compare with.
void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    BinaryRow row{};
    std::copy_n(rows, 3, row.rows);
    row.weights[0] = weights;
    row.step = 1;
    row.width = width;
    const auto finish = [&](auto, const uint8_t* sums, size_t, size_t o, const PlaneBlockPieces&, float*) { sink[o] ^= *sums; };
    plane_blocks<Planes, Planes>(&row, 1, finish, pack_span);
}

}  // namespace

extern const KernelSet kAvx2;
const KernelSet kAvx2 = {
    "avx2", "AVX2 logic on bit planes of 256 pixels", "AVX2 and FMA", supported, plane_row_bytes, sizeof(PlaneWeights),
    pack_plane_weights<Planes>, pack_plane_row<pack_span>, plane_rows_at_once, binary_rows, conv_row<Avx2>, tap_row<Avx2>, sum_taps<Avx2>, interleave, bare_row,
};

}  // namespace bbcu
