// AVX-512: passes of rows, and the products of signs by vpopcntq; products-inl.h multiplies gradients.
//
// Of 512 products of signs, xor marks those that are -1, vpopcntq counts them for each of eight outputs, and an
// addition of 64-bit sums takes in the next tap. Bound: none is near; 576 fits int16, in which sums are kept.

#include "../portability.h"
#if BBCU_X86_64

#include <immintrin.h>

#include <cstring>

#include "kernels.h"
#include "tables-avx2-inl.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 16;  // floats
constexpr size_t kVectors = kFeatures / kLanes;

struct Bytes : Avx2Tables {
    using type = __m512i;
    static constexpr size_t bytes = 64, rows = 4;
    static type zero() { return _mm512_setzero_si512(); }
    static type load(const uint8_t* p) { return _mm512_load_si512(p); }
    static type table(const uint8_t* p) {
        return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static type look_up(type table, type pattern) { return _mm512_shuffle_epi8(table, pattern); }
    static type add(type a, type b) { return _mm512_add_epi8(a, b); }
    static type weights() { return _mm512_set1_epi16(1 | kDigit << 8); }
    static type lower(type low, type high) { return _mm512_maddubs_epi16(_mm512_unpacklo_epi8(low, high), weights()); }
    static type upper(type low, type high) { return _mm512_maddubs_epi16(_mm512_unpackhi_epi8(low, high), weights()); }
    static type add_words(type a, type b) { return _mm512_add_epi16(a, b); }
    // Left to itself, GCC adds in another order and runs out of registers.
    static type in_register(type v) {
#if defined(__AVX512F__) && !BBCU_MSVC  // not where it is emulated
        asm("" : "+v"(v));
#endif
        return v;
    }
    template <class T>
    static void in_memory(const T&) {}  // registers are left for these
};

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

constexpr size_t kWeightBytes = kTaps * kFeatures * sizeof(uint64_t);
void pack_weights(const uint64_t* words, uint8_t* weights) { std::memcpy(weights, words, kWeightBytes); }

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
    BBCU_UNROLL(2)
    for (size_t p = 0; p < kPixels; ++p) {
        BBCU_UNROLL(8)
        for (size_t j = 0; j < kWords; ++j) count[p][j] = _mm512_setzero_si512();
    }
    int taps = 0;
    for (size_t dy = 0; dy < 3; ++dy) {
        if (!t.rows[dy]) continue;
        for (size_t dx = first; dx < last; ++dx, ++taps) {
            const uint8_t* weights = t.weights + (3 * dy + dx) * kFeatures * sizeof(uint64_t);
            __m512i word[kPixels];
            for (size_t p = 0; p < kPixels; ++p)
                word[p] = _mm512_set1_epi64(static_cast<int64_t>(t.rows[dy][x + p + dx - 1]));
            BBCU_UNROLL(8)
            for (size_t j = 0; j < kWords; ++j) {
                const __m512i w = _mm512_load_si512(weights + 64 * j);
                BBCU_UNROLL(4)
                for (size_t p = 0; p < kPixels; ++p)
                    count[p][j] = Bytes::in_register(
                        _mm512_add_epi64(count[p][j], _mm512_popcnt_epi64(_mm512_xor_si512(w, word[p]))));
            }
        }
    }
    const __m512i all = _mm512_set1_epi32(taps * static_cast<int>(kFeatures));
    const Group& group = *t.group;
    BBCU_UNROLL(2)
    for (size_t p = 0; p < kPixels; ++p) {
        BBCU_UNROLL(4)
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

void gradient_row(const GradientRow& task) {
    const GradientRow t = task;
    const Affine affine(*t.group);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 bias0[kVectors], slope[kVectors], bias1[kVectors];
    __m512i largest[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
        bias0[v] = slope[v] = bias1[v] = _mm512_setzero_ps();
        largest[v] = _mm512_setzero_si512();
    }
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
            largest[v] = _mm512_max_epu32(largest[v], _mm512_and_si512(_mm512_castps_si512(gradient), magnitude));
        }
    }
    for (size_t v = 0; v < kVectors; ++v) {
        _mm512_storeu_ps(t.partial + v * kLanes, bias0[v]);
        _mm512_storeu_ps(t.partial + kFeatures + v * kLanes, slope[v]);
        _mm512_storeu_ps(t.partial + 2 * kFeatures + v * kLanes, bias1[v]);
        _mm512_storeu_si512(t.largest + v * kLanes, largest[v]);
    }
}

constexpr Kernels all() {
    Kernels k = products<Bytes>();
    k.cpu = &kAvx512Cpu;
    k.pack = pack;
    k.weight_bytes = kWeightBytes;
    k.pack_weights = pack_weights;
    k.forward_row = forward_row;
    k.gradient_row = gradient_row;
    return k;
}

}  // namespace

extern constexpr Kernels kAvx512 = all();

}  // namespace bbcu::train

#endif
