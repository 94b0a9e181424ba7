// NEON: vcnt counts the bits of bytes, 16 pixels in a register, eight channels in a byte.
//
// A packed row is eight planes of bytes, one byte per pixel, bit c of plane p set where channel 8 * p + c is -1.
// xor, vcnt and add are 8 products of 16 pixels; a byte counts the 3 * 8 bytes of a row of taps (192 at most).
// Eight output channels make one byte plane of the next packed row. Where taps lie outside the image, in the first
// and the last block, the differing bits are masked.

#include <arm_neon.h>

#include "float-inl.h"

namespace bbcu {
namespace {

constexpr size_t kBlock = 16;                  // pixels in a register
constexpr size_t kSpan = 2;                    // registers that a kernel works on at once
constexpr size_t kPlanes = kFeatures / 8;
constexpr size_t kRowWeights = kPlanes * 3;    // bytes for one row of taps of one output channel: [plane][dx]

struct Neon {
    using type = float32x4_t;
    static constexpr size_t lanes = 4;
    static constexpr size_t registers = 32;
    static float32x4_t load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, float32x4_t v) { vst1q_f32(p, v); }
    static float32x4_t set(float v) { return vdupq_n_f32(v); }
    static float32x4_t add(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
    static float32x4_t fma(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
    static float32x4_t select_negative(float32x4_t v, float32x4_t yes, float32x4_t no) {
        return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(v)), yes, no);
    }
    static float32x4_t leaky(float32x4_t v, float32x4_t slope) { return select_negative(v, vmulq_f32(v, slope), v); }
};

bool supported() { return true; }  // every aarch64 CPU has it

size_t plane_stride(size_t width) { return (width + kSpan * kBlock - 1) / (kSpan * kBlock) * (kSpan * kBlock) + 2 * kBlock; }
size_t packed_row_bytes(size_t width) { return kPlanes * plane_stride(width); }
uint8_t* plane(uint8_t* packed, size_t p, size_t width) { return packed + p * plane_stride(width) + kBlock; }
const uint8_t* plane(const uint8_t* packed, size_t p, size_t width) { return packed + p * plane_stride(width) + kBlock; }

// Bytes [output][dy][plane][dx].
void pack_weights(const uint64_t* signs, uint8_t* weights) {
    for (size_t o = 0; o < kFeatures; ++o)
        for (size_t dy = 0; dy < 3; ++dy)
            for (size_t p = 0; p < kPlanes; ++p)
                for (size_t dx = 0; dx < 3; ++dx)
                    *weights++ = static_cast<uint8_t>(signs[o * kTaps + 3 * dy + dx] >> (8 * p));
}

// 0xff in each of 16 bytes where v[i] < threshold.
uint8x16_t below(const float32x4_t v[4], float32x4_t threshold) {
    uint16x4_t m[4];
    for (int i = 0; i < 4; ++i) m[i] = vmovn_u32(vcltq_f32(v[i], threshold));
    return vcombine_u8(vmovn_u16(vcombine_u16(m[0], m[1])), vmovn_u16(vcombine_u16(m[2], m[3])));
}

void pack_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    for (size_t p = 0; p < kPlanes; ++p)
        for (size_t x = 0; x < width; x += kBlock) {
            uint8x16_t bits = vdupq_n_u8(0);
            for (size_t i = 0; i < 8; ++i) {
                const float* from = row + (8 * p + i) * stride + x;
                const float32x4_t v[4] = {Neon::load(from), Neon::load(from + 4), Neon::load(from + 8), Neon::load(from + 12)};
                const uint8x16_t bit = vdupq_n_u8(static_cast<uint8_t>(1u << i));
                bits = vorrq_u8(bits, vandq_u8(below(v, Neon::set(threshold[8 * p + i])), bit));
            }
            vst1q_u8(plane(packed, p, width) + x, bits);
        }
}

// 0xff where pixel x + i has a neighbour at dx - 1 inside the image.
uint8x16_t inside(size_t x, size_t dx, size_t width) {
    uint8_t mask[kBlock];
    for (size_t i = 0; i < kBlock; ++i) mask[i] = x + i + dx >= 1 && x + i + dx <= width ? 0xff : 0;
    return vld1q_u8(mask);
}

// Differing signs of kSpan * 16 pixels of one output channel; kEdge: some taps lie outside the image.
template <bool kEdge>
inline void count(const uint8_t* const rows[3], const uint8_t* weights, size_t x, size_t width, uint16x8_t counts[2 * kSpan]) {
    uint8x16_t masks[3][kSpan];
    if (kEdge)
        for (size_t dx = 0; dx < 3; ++dx)
            for (size_t v = 0; v < kSpan; ++v) masks[dx][v] = inside(x + v * kBlock, dx, width);
    for (size_t i = 0; i < 2 * kSpan; ++i) counts[i] = vdupq_n_u16(0);
    for (size_t dy = 0; dy < 3; ++dy) {
        if (!rows[dy]) continue;
        const uint8_t* w = weights + dy * kRowWeights;
        uint8x16_t sum[kSpan];
        for (size_t v = 0; v < kSpan; ++v) sum[v] = vdupq_n_u8(0);
        for (size_t p = 0; p < kPlanes; ++p) {
            const uint8_t* in = plane(rows[dy], p, width) + x - 1;
#pragma GCC unroll 3
            for (size_t dx = 0; dx < 3; ++dx, ++w) {
                const uint8x16_t tap = vdupq_n_u8(*w);
#pragma GCC unroll 2
                for (size_t v = 0; v < kSpan; ++v) {
                    uint8x16_t differing = veorq_u8(vld1q_u8(in + dx + v * kBlock), tap);
                    if (kEdge) differing = vandq_u8(differing, masks[dx][v]);
                    sum[v] = vaddq_u8(sum[v], vcntq_u8(differing));
                }
            }
        }
        for (size_t v = 0; v < kSpan; ++v) {
            counts[2 * v] = vaddw_u8(counts[2 * v], vget_low_u8(sum[v]));
            counts[2 * v + 1] = vaddw_u8(counts[2 * v + 1], vget_high_u8(sum[v]));
        }
    }
}

inline void count_at(const uint8_t* const rows[3], const uint8_t* weights, size_t x, size_t width,
                     uint16x8_t counts[2 * kSpan]) {
    if (x == 0 || x + kSpan * kBlock >= width)
        count<true>(rows, weights, x, width, counts);
    else
        count<false>(rows, weights, x, width, counts);
}

// Residual and affine part of 16 pixels of channel o; returns `below` of the result.
inline uint8x16_t finish(const BinaryRow& t, size_t j, const uint16x8_t counts[2], size_t o, size_t x) {
    const UnitParams& unit = *t.unit[j];
    float32x4_t result[4];
    for (size_t i = 0; i < 4; ++i) {
        const size_t at = o * t.stride + x + 4 * i;
        const int16x8_t count = vreinterpretq_s16_u16(counts[i / 2]);
        const int16x4_t half = i % 2 ? vget_high_s16(count) : vget_low_s16(count);
        const int16x4_t y = vsub_s16(vld1_s16(t.taps + x + 4 * i), vadd_s16(half, half));
        const float32x4_t u = Neon::fma(Neon::set(unit.scale[o]), vcvtq_f32_s32(vmovl_s16(y)), Neon::set(unit.bias[o]));
        const float32x4_t slope = Neon::select_negative(u, Neon::set(unit.slope[o]), Neon::set(1));
        const float32x4_t sum = vaddq_f32(Neon::load(t.residual + at), Neon::fma(u, slope, Neon::set(unit.offset[o])));
        result[i] = t.leak == 1.0f ? sum : Neon::leaky(sum, Neon::set(t.leak));
        float* out = t.out + o * t.out_stride;
        if (t.step == 1) {
            Neon::store(out + x + 4 * i, result[i]);
            continue;
        }
        float pixels[4];
        Neon::store(pixels, result[i]);
        for (size_t p = 0; p < 4 && x + 4 * i + p < t.width; ++p) out[t.step * (x + 4 * i + p) + j] = pixels[p];
    }
    return t.packed ? below(result, Neon::set(t.threshold[o])) : vdupq_n_u8(0);
}

void unit_row(const BinaryRow& t, size_t j) {
    uint16x8_t counts[2 * kSpan];
    for (size_t x = 0; x < t.width; x += kSpan * kBlock)
        for (size_t p = 0; p < kPlanes; ++p) {
            uint8x16_t bits[kSpan];
            for (size_t v = 0; v < kSpan; ++v) bits[v] = vdupq_n_u8(0);
            for (size_t i = 0; i < 8; ++i) {
                const size_t o = 8 * p + i;
                count_at(t.rows, t.weights[j] + o * 3 * kRowWeights, x, t.width, counts);
                for (size_t v = 0; v < kSpan; ++v)
                    bits[v] = vorrq_u8(bits[v], vandq_u8(finish(t, j, counts + 2 * v, o, x + v * kBlock),
                                                         vdupq_n_u8(static_cast<uint8_t>(1u << i))));
            }
            if (!t.packed || t.step > 1) continue;
            for (size_t v = 0; v < kSpan; ++v) vst1q_u8(plane(t.packed, p, t.width) + x + v * kBlock, bits[v]);
        }
}

void binary_row(const BinaryRow& t) {
    for (size_t j = 0; j < t.step; ++j) unit_row(t, j);
    if (t.packed && t.step > 1) pack_row(t.out, t.out_stride, t.step * t.width, t.threshold, t.packed);
}

void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    uint16x8_t counts[2 * kSpan];
    for (size_t x = 0; x < width; x += kSpan * kBlock)
        for (size_t o = 0; o < kFeatures; ++o) {
            count_at(rows, weights + o * 3 * kRowWeights, x, width, counts);
            sink[o] ^= static_cast<uint8_t>(vaddvq_u16(counts[0]) + vaddvq_u16(counts[2 * kSpan - 1]));
        }
}

}  // namespace

extern const KernelSet kNeon;
const KernelSet kNeon = {
    "neon", "NEON byte popcount, 16 pixels of 8 channels at a time", "NEON", supported, packed_row_bytes,
    kFeatures * 3 * kRowWeights, pack_weights, pack_row, one_row_at_once, each_row<binary_row>, conv_row<Neon>, tap_row<Neon>, sum_taps<Neon>, interleave, bare_row,
};

}  // namespace bbcu
