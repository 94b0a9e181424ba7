// AVX-512: bit planes of 512 pixels, whose adders are one ternary-logic operation per output bit.

#include "../portability.h"
#if BBCU_X86_64

#include <immintrin.h>

#include "plane-rows-inl.h"

namespace bbcu {
namespace {

constexpr size_t kLanes = 16;  // floats in a register

struct Avx512 {
    using type = __m512;
    static constexpr size_t lanes = kLanes;
    static constexpr size_t registers = 32;
    static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static __m512 set(float v) { return _mm512_set1_ps(v); }
    static __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
    static __m512 sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
    static __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
    static const float* four(const float* p) { return p; }
    template <size_t kLane>
    static __m512 fma_by(__m512 v, const float* four, __m512 c) {
        return fma(v, set(four[kLane]), c);
    }
    static __m512 leaky(__m512 v, __m512 slope) {
        return _mm512_mask_mul_ps(v, _mm512_movepi32_mask(_mm512_castps_si512(v)), v, slope);
    }
};

struct Planes512 {
    using type = __m512i;
    static constexpr size_t bytes = 64, block = 64;
    static type load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static void store(uint8_t* p, type v) { _mm512_storeu_si512(p, v); }
    using Mask = __mmask8;
    static Mask mask(uint32_t bits) { return static_cast<Mask>(bits); }
    static type load_words(type v, Mask mask, const uint8_t* p) { return _mm512_mask_loadu_epi64(v, mask, p); }
    static type zero() { return _mm512_setzero_si512(); }
    static type ones() { return _mm512_set1_epi64(-1); }
    static type sum(type a, type b, type c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
    static type carry(type, type s, type a, type b) { return _mm512_ternarylogic_epi64(a, b, s, 0xd4); }
    static type borrow(type d, type a, type b) { return _mm512_ternarylogic_epi64(a, b, d, 0x8e); }
    static type no_borrow(type d, type a, type b) { return _mm512_ternarylogic_epi64(a, b, d, 0x71); }
    static type exclusive(type a, type b) { return _mm512_xor_si512(a, b); }
    static type both(type a, type b) { return _mm512_and_si512(a, b); }
    static type from_left(type here, type before) {
        return _mm512_or_si512(_mm512_slli_epi64(here, 1), _mm512_srli_epi64(before, 63));
    }
    static type from_right(type here, type after) {
        return _mm512_or_si512(_mm512_srli_epi64(here, 1), _mm512_slli_epi64(after, 63));
    }
};

struct Planes256 {
    using type = __m256i;
    static constexpr size_t bytes = 32, block = 64;
    static type load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static void store(uint8_t* p, type v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    using Mask = __mmask8;
    static Mask mask(uint32_t bits) { return static_cast<Mask>(bits); }
    static type load_words(type v, Mask mask, const uint8_t* p) { return _mm256_mask_loadu_epi64(v, mask, p); }
    static type zero() { return _mm256_setzero_si256(); }
    static type ones() { return _mm256_set1_epi64x(-1); }
    static type sum(type a, type b, type c) { return _mm256_ternarylogic_epi64(a, b, c, 0x96); }
    static type carry(type, type s, type a, type b) { return _mm256_ternarylogic_epi64(a, b, s, 0xd4); }
    static type borrow(type d, type a, type b) { return _mm256_ternarylogic_epi64(a, b, d, 0x8e); }
    static type no_borrow(type d, type a, type b) { return _mm256_ternarylogic_epi64(a, b, d, 0x71); }
    static type exclusive(type a, type b) { return _mm256_xor_si256(a, b); }
    static type both(type a, type b) { return _mm256_and_si256(a, b); }
    static type from_left(type here, type before) {
        return _mm256_or_si256(_mm256_slli_epi64(here, 1), _mm256_srli_epi64(before, 63));
    }
    static type from_right(type here, type after) {
        return _mm256_or_si256(_mm256_srli_epi64(here, 1), _mm256_slli_epi64(after, 63));
    }
};

// Signs of `count` pixels.
void pack_signs(const float* from, size_t count, float threshold, uint8_t* packed) {
    const __m512 limit = _mm512_set1_ps(threshold);
    for (size_t x = 0; x < count; x += kLanes) {
        const auto inside = static_cast<__mmask16>(count - x < kLanes ? (1u << (count - x)) - 1 : 0xffff);
        const __mmask16 negative = _mm512_mask_cmp_ps_mask(inside, _mm512_loadu_ps(from + x), limit, _CMP_LT_OQ);
        std::memcpy(packed + x / 8, &negative, sizeof negative);
    }
}

// Words of the pixels of a block (step 8).
struct Halves {
    alignas(kAlign) int16_t of[8 * Planes512::bytes];
};

// Eight planes of a block become bytes, plane n bit n of them: in bytes[r] those of the r-th 64 pixels, by eights of
// pixels in the order 0 4 1 5 2 6 3 7.
inline void bytes_of(const __m512i (&planes)[8], __m512i (&bytes)[kMaxWords]) {
    // Each lane of 128 bits gets the bytes that interleaving within lanes then leaves in order.
    alignas(kAlign) static constexpr uint8_t kDeal[64] = {0, 4, 8,  12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60,
                                                          1, 5, 9,  13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61,
                                                          2, 6, 10, 14, 18, 22, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62,
                                                          3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47, 51, 55, 59, 63};
    const __m512i deal = _mm512_loadu_si512(kDeal);
    const __m512i bits = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201));
    __m512i pair[2][4], four[4][2];
    BBCU_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
        const __m512i high = _mm512_permutexvar_epi8(deal, planes[7 - 2 * i]);
        const __m512i low = _mm512_permutexvar_epi8(deal, planes[6 - 2 * i]);
        pair[0][i] = _mm512_unpacklo_epi8(high, low);
        pair[1][i] = _mm512_unpackhi_epi8(high, low);
    }
    BBCU_UNROLL(2)
    for (size_t h = 0; h < 2; ++h)
        for (size_t i = 0; i < 2; ++i) {
            four[2 * h][i] = _mm512_unpacklo_epi16(pair[h][2 * i], pair[h][2 * i + 1]);
            four[2 * h + 1][i] = _mm512_unpackhi_epi16(pair[h][2 * i], pair[h][2 * i + 1]);
        }
    BBCU_UNROLL(4)
    for (size_t q = 0; q < 4; ++q) {
        bytes[2 * q] = _mm512_gf2p8affine_epi64_epi8(bits, _mm512_unpacklo_epi32(four[q][0], four[q][1]), 0);
        bytes[2 * q + 1] = _mm512_gf2p8affine_epi64_epi8(bits, _mm512_unpackhi_epi32(four[q][0], four[q][1]), 0);
    }
}

// The two lowest bits of the sums of four outputs are together one byte of every pixel.
static_assert(kOutputs == 4 && kSumBits == 10, "two bits of four outputs are a byte");

inline void lowest_bits(const uint8_t* sums, __m512i* lowest) {
    __m512i planes[8];
    for (size_t i = 0; i < kOutputs; ++i)
        for (size_t b = 0; b < 2; ++b)
            planes[2 * i + b] = Planes512::load(sums + (i * kSumBits + b) * Planes512::block);
    __m512i bytes[kMaxWords];
    bytes_of(planes, bytes);
    for (size_t r = 0; r < kMaxWords; ++r) _mm512_store_si512(lowest + r, bytes[r]);
}

// Words of output i of a group, from its sums and what lowest_bits made. tops: of each of the block's words of planes.
inline void halves_of(const uint8_t* sums, const __m512i* lowest, size_t i, const int16_t* tops, size_t words,
                      Halves& halves) {
    __m512i planes[8];
    for (size_t b = 0; b < 8; ++b) planes[b] = Planes512::load(sums + (i * kSumBits + 2 + b) * Planes512::block);
    __m512i highest[kMaxWords];
    bytes_of(planes, highest);
    // Moves bits 2 * i and 2 * i + 1 of every byte to its top.
    const __m512i two = _mm512_set1_epi64(int64_t{2} << 2 * i | int64_t{1} << (2 * i + 8));
    BBCU_UNROLL(8)
    for (size_t r = 0; r < kMaxWords; ++r) {
        if (r == words) break;
        const __m512i low = _mm512_gf2p8affine_epi64_epi8(_mm512_load_si512(lowest + r), two, 0);
        const __m512i top = _mm512_set1_epi16(tops[r]);
        int16_t* to = halves.of + 4 * kLanes * r;
        _mm512_store_si512(to, _mm512_sub_epi16(top, _mm512_unpacklo_epi8(low, highest[r])));
        _mm512_store_si512(to + 2 * kLanes, _mm512_sub_epi16(top, _mm512_unpackhi_epi8(low, highest[r])));
    }
}

// Affine part and residual of 16 pixels of one output, from their words. Returns which are below the threshold.
struct Epilogue {
    __m512 scale, bias, slope, offset, leak, threshold;
    Epilogue(const BinaryRow& t, const UnitParams& unit, size_t o)
        : scale(_mm512_set1_ps(unit.scale[o] / 32)), bias(_mm512_set1_ps(unit.bias[o])),
          slope(_mm512_set1_ps(unit.slope[o])), offset(_mm512_set1_ps(unit.offset[o])), leak(_mm512_set1_ps(t.leak)),
          threshold(_mm512_set1_ps(t.threshold ? t.threshold[o] : 0)) {}

    template <bool kLeaky>
    BBCU_ALWAYS_INLINE __mmask16 finish(__m256i half, const float* residual, float* out) const {
        const __m512 u = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(half)), bias);
        const __mmask16 below = _mm512_movepi32_mask(_mm512_castps_si512(u));
        const __m512 added = _mm512_fmadd_ps(u, _mm512_mask_blend_ps(below, _mm512_set1_ps(1), slope), offset);
        __m512 v = _mm512_add_ps(_mm512_loadu_ps(residual), added);
        if (kLeaky) v = Avx512::leaky(v, leak);
        _mm512_storeu_ps(out, v);
        return _mm512_cmp_ps_mask(v, threshold, _CMP_LT_OQ);
    }
};

static_assert(kStep == 2 * kLanes, "a step is two vectors of floats");

inline __m256i load_halves(const int16_t* half) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(half)); }

// Where output o of one piece of a block goes, from pixel to pixel.
template <bool kLeaky>
struct PieceWriter {
    const Epilogue& epilogue;
    const int16_t* half;
    const float* residual;  // of the row
    float* out;             // of the piece
    uint8_t* packed;        // of the row, or null

    // The kStep pixels from x on; `inside`: which of them the row has.
    BBCU_ALWAYS_INLINE void write(size_t x, __m256i low, __m256i high, uint32_t inside) {
        const __mmask16 lower = static_cast<__mmask16>(epilogue.finish<kLeaky>(low, residual + x, out) & inside);
        const __mmask16 upper = static_cast<__mmask16>(
            epilogue.finish<kLeaky>(high, residual + x + kLanes, out + kLanes) & (inside >> kLanes));
        half += kStep;
        out += kStep;
        if (!packed) return;
        std::memcpy(packed + x / 8, &lower, sizeof lower);
        std::memcpy(packed + x / 8 + sizeof lower, &upper, sizeof upper);
    }

    BBCU_ALWAYS_INLINE void write(size_t x) { write(x, load_halves(half), load_halves(half + kLanes), 0xffffffff); }

    // Where the first or the last pixel of the row may be among them.
    void write_at_edge(size_t x, size_t width, int16_t left, int16_t right) {
        __m256i low = load_halves(half), high = load_halves(half + kLanes);
        uint32_t inside = 0xffffffff;
        if (x == 0) low = _mm256_mask_add_epi16(low, 1, low, _mm256_set1_epi16(left));
        if (x + kStep >= width) {
            const uint32_t last = 1u << (width - 1 - x);
            const __m256i added = _mm256_set1_epi16(right);
            low = _mm256_mask_add_epi16(low, static_cast<__mmask16>(last), low, added);
            high = _mm256_mask_add_epi16(high, static_cast<__mmask16>(last >> kLanes), high, added);
            inside = last | (last - 1);
        }
        write(x, low, high, inside);
    }
};

// Output o of the pixels of one piece of a block.
template <bool kLeaky>
inline void finish_piece(const PlanePiece& piece, const Tops& tops, const Epilogue& epilogue, const Halves& halves,
                         size_t o, float* part) {
    const BinaryRow& t = *piece.row;
    const size_t begin = piece.begin(), end = piece.end();
    PieceWriter<kLeaky> writer{epilogue, halves.of + piece.at * kWord, t.residual + o * t.stride,
                               part ? part + piece.at * kWord : t.out + o * t.out_stride + begin,
                               part || !t.packed ? nullptr : t.packed + kWordBytes + o * plane_stride(t.width)};
    size_t x = begin;
    if (x == 0) {
        writer.write_at_edge(x, t.width, tops.left[o], tops.right[o]);
        x += kStep;
    }
    for (; x < end && x + kStep < t.width; x += kStep) writer.write(x);
    if (x < end) writer.write_at_edge(x, t.width, tops.left[o], tops.right[o]);
}

template <bool kLeaky>
void binary_rows_as(const BinaryRow* rows, size_t count) {
    const TaskTops tops(rows, count);
    alignas(kAlign) __m512i lowest[kMaxStep][kMaxWords];
    const auto finish = [&](const uint8_t* sums, size_t j, size_t o, const PlaneBlockPieces& pieces, float* part) {
        Halves halves;
        int16_t inside[kMaxWords];
        size_t words = 0;
        for (size_t p = 0; p < pieces.count; ++p)
            for (size_t n = 0; n < pieces.piece[p].count; ++n)
                inside[words++] = tops.of[j][pieces.piece[p].row - rows].inside[o];
        if (o % kOutputs == 0) lowest_bits(sums, lowest[j]);
        halves_of(sums, lowest[j], o % kOutputs, inside, words, halves);
        const Epilogue epilogue(*rows, *rows->unit[j], o);
        for (size_t p = 0; p < pieces.count; ++p) {
            const PlanePiece& piece = pieces.piece[p];
            finish_piece<kLeaky>(piece, tops.of[j][piece.row - rows], epilogue, halves, o, part);
        }
    };
    plane_blocks<Planes512, Planes256>(rows, count, finish, pack_signs);
}

void binary_rows(const BinaryRow* rows, size_t count) {
    rows->leak == 1.0f ? binary_rows_as<false>(rows, count) : binary_rows_as<true>(rows, count);
}

// One xor, popcount and addition for the 64 channels of a tap, 8 pixels at a time.
void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    for (size_t x = 0; x < width; x += 16) {
        __m512i word[2][kTaps];
        for (size_t v = 0; v < 2; ++v)
            for (size_t t = 0; t < kTaps; ++t)
                word[v][t] = _mm512_loadu_si512(rows[t / 3] + 8 * (x / 2 + 8 * v + t % 3));
        __m512i sum = _mm512_setzero_si512();
        for (size_t o = 0; o < kFeatures; ++o) {
            __m512i counts[2] = {};
            BBCU_UNROLL(9)
            for (size_t t = 0; t < kTaps; ++t) {
                int64_t tap;
                std::memcpy(&tap, weights + 8 * (o * kTaps + t), sizeof tap);
                for (size_t v = 0; v < 2; ++v)
                    counts[v] = _mm512_add_epi64(
                        counts[v], _mm512_popcnt_epi64(_mm512_xor_si512(word[v][t], _mm512_set1_epi64(tap))));
            }
            sum = _mm512_add_epi64(sum, _mm512_add_epi64(counts[0], counts[1]));
        }
        sink[0] = static_cast<uint8_t>(sink[0] ^ _mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
    }
}

constexpr KernelSet make_kernels() {
    KernelSet set = float_kernels<Avx512>(kAvx512Cpu, "AVX-512 ternary logic on bit planes of 512 pixels");
    set.packed_row_bytes = plane_row_bytes;
    set.weight_bytes = sizeof(PlaneWeights);
    set.pack_weights = pack_plane_weights<Planes512>;
    set.pack_row = pack_plane_row<pack_signs>;
    set.rows_at_once = plane_rows_at_once<Planes512::bytes / kWordBytes, Planes256::bytes / kWordBytes>;
    set.binary_rows = binary_rows;
    set.bare_row = bare_row;
    return set;
}

}  // namespace

extern constexpr KernelSet kAvx512 = make_kernels();

}  // namespace bbcu

#endif
