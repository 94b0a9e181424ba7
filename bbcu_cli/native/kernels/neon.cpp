// NEON: bit planes of 128 pixels, whose adders are three operations: where two operands differ, the third is the carry.

#include "../portability.h"
#if BBCU_ARM64

#include <arm_neon.h>

#include "plane-rows-inl.h"

namespace bbcu {
namespace {

constexpr size_t kLanes = 4;  // floats in a register

struct Neon {
    using type = float32x4_t;
    static constexpr size_t lanes = kLanes;
    static constexpr size_t registers = 32;
    static float32x4_t load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, float32x4_t v) { vst1q_f32(p, v); }
    static float32x4_t set(float v) { return vdupq_n_f32(v); }
    static float32x4_t add(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
    static float32x4_t sub(float32x4_t a, float32x4_t b) { return vsubq_f32(a, b); }
    static float32x4_t fma(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
    static float32x4_t select_negative(float32x4_t v, float32x4_t yes, float32x4_t no) {
        return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(v)), yes, no);
    }
    static float32x4_t leaky(float32x4_t v, float32x4_t slope) { return select_negative(v, vmulq_f32(v, slope), v); }
    static float32x4_t four(const float* p) { return vld1q_f32(p); }
    template <int kLane>
    static float32x4_t fma_by(float32x4_t v, float32x4_t four, float32x4_t c) {
        return vfmaq_laneq_f32(c, v, four, kLane);
    }
};

struct Planes {
    using type = uint8x16_t;
    static constexpr size_t bytes = 16, block = 16;
    static type load(const uint8_t* p) { return vld1q_u8(p); }
    static void store(uint8_t* p, type v) { vst1q_u8(p, v); }
    static type zero() { return vdupq_n_u8(0); }
    static type ones() { return vdupq_n_u8(0xff); }
    using Mask = uint32_t;
    static Mask mask(uint32_t bits) { return bits; }
    static type load_words(type v, Mask mask, const uint8_t* p) {
        if (mask == 3) return load(p);
        const uint8x8_t word = vld1_u8(p + (mask == 2 ? 8 : 0));
        return mask == 2 ? vcombine_u8(vget_low_u8(v), word) : vcombine_u8(word, vget_high_u8(v));
    }
    static type exclusive(type a, type b) { return veorq_u8(a, b); }
    static type both(type a, type b) { return vandq_u8(a, b); }
    // The compiler computes this once for a sum and its carry.
    static type differing(type a, type b) {
        type differing = exclusive(a, b);
        BBCU_HIDE(differing);
        return differing;
    }
    static type sum(type c, type a, type b) { return exclusive(c, differing(a, b)); }
    static type carry(type c, type, type a, type b) { return vbslq_u8(differing(a, b), c, a); }
    static type borrow(type d, type a, type b) { return vbslq_u8(differing(a, b), b, d); }
    static type no_borrow(type d, type a, type b) { return vmvnq_u8(borrow(d, a, b)); }
    static type from_left(type here, type before) {
        const uint64x2_t moved = vshlq_n_u64(vreinterpretq_u64_u8(here), 1);
        return vreinterpretq_u8_u64(vsriq_n_u64(moved, vreinterpretq_u64_u8(before), 63));
    }
    static type from_right(type here, type after) {
        const uint64x2_t moved = vshrq_n_u64(vreinterpretq_u64_u8(here), 1);
        return vreinterpretq_u8_u64(vsliq_n_u64(moved, vreinterpretq_u64_u8(after), 63));
    }
};

// Exchanges the bits of b in the mask with those of a that are kShift higher.
template <int kShift>
inline void exchange(uint8x16_t& a, uint8x16_t& b, uint8_t mask) {
    const uint8x16_t lower = vdupq_n_u8(mask), before = a;
    a = vbslq_u8(lower, before, vshlq_n_u8(b, kShift));
    b = vbslq_u8(lower, vshrq_n_u8(before, kShift), b);
}

inline void exchange_halves(uint8x16_t& a, uint8x16_t& b) {
    const uint8x16_t before = a;
    a = vsliq_n_u8(before, b, 4);
    b = vsriq_n_u8(b, before, 4);
}

// Bits of two planes, in the highest bits of the eight pixels of each byte: pixel r of all bytes in of[r].
inline void two_bits(uint8x16_t low, uint8x16_t high, uint8x16_t (&of)[8]) {
    exchange<1>(low, high, 0x55);
    const uint8x16_t upper = vdupq_n_u8(0xc0);
    of[0] = vshlq_n_u8(low, 6);
    of[1] = vshlq_n_u8(high, 6);
    of[2] = vandq_u8(vshlq_n_u8(low, 4), upper);
    of[3] = vandq_u8(vshlq_n_u8(high, 4), upper);
    of[4] = vandq_u8(vshlq_n_u8(low, 2), upper);
    of[5] = vandq_u8(vshlq_n_u8(high, 2), upper);
    of[6] = vandq_u8(low, upper);
    of[7] = vandq_u8(high, upper);
}

// Byte k of v[r] belongs to pixel 8 * k + r; afterwards the bytes of all v, one after the other, follow the pixels.
inline void in_order(uint8x16_t (&v)[8]) {
    uint8x16_t two[8], four[8];  // bytes of pixels 0 4, 1 5, ..; 0 2 4 6 and 1 3 5 7
    BBCU_UNROLL(4)
    for (size_t r = 0; r < 4; ++r) {
        two[r] = vzip1q_u8(v[r], v[r + 4]);
        two[r + 4] = vzip2q_u8(v[r], v[r + 4]);
    }
    BBCU_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
        const size_t r = i / 2 * 4 + i % 2;
        four[r] = vzip1q_u8(two[r], two[r + 2]);
        four[r + 2] = vzip2q_u8(two[r], two[r + 2]);
    }
    BBCU_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
        v[2 * i] = vzip1q_u8(four[2 * i], four[2 * i + 1]);
        v[2 * i + 1] = vzip2q_u8(four[2 * i], four[2 * i + 1]);
    }
}

// 0xff.. in each of 4 lanes becomes a bit, for eight vectors.
inline uint32_t bits_of_masks(const uint32x4_t (&mask)[8]) {
    static constexpr uint8_t kBit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bit = vld1q_u8(kBit);
    uint16x8_t half[4];
    BBCU_UNROLL(4)
    for (size_t i = 0; i < 4; ++i)
        half[i] = vuzp1q_u16(vreinterpretq_u16_u32(mask[2 * i]), vreinterpretq_u16_u32(mask[2 * i + 1]));
    uint8x16_t byte[2];
    BBCU_UNROLL(2)
    for (size_t i = 0; i < 2; ++i) {
        const uint8x16_t all = vuzp1q_u8(vreinterpretq_u8_u16(half[2 * i]), vreinterpretq_u8_u16(half[2 * i + 1]));
        byte[i] = vandq_u8(all, bit);
    }
    uint8x16_t sum = vpaddq_u8(byte[0], byte[1]);
    sum = vpaddq_u8(sum, sum);
    sum = vpaddq_u8(sum, sum);
    return vgetq_lane_u32(vreinterpretq_u32_u8(sum), 0);
}

struct NeonRows {
    using Planes = bbcu::Planes;
    static constexpr size_t kRowWords = Planes::bytes / kWordBytes;

    struct Halves {
        static constexpr size_t kNext = 8;
        alignas(kAlign) int16_t of[8 * Planes::bytes];
        int16_t* eight(size_t pixel) { return of + pixel; }
    };

    static void subtract_sums(const uint8_t* sums, int16_t inside, Halves& halves) {
        uint8x16_t low[8], high[8];
        for (size_t b = 0; b < 8; ++b) high[b] = Planes::load(sums + (b + 2) * Planes::block);
        BBCU_UNROLL(4)
        for (size_t r = 0; r < 8; r += 2) exchange<1>(high[r], high[r + 1], 0x55);
        BBCU_UNROLL(4)
        for (size_t r = 0; r < 4; ++r) exchange<2>(high[r + r / 2 * 2], high[r + r / 2 * 2 + 2], 0x33);
        BBCU_UNROLL(4)
        for (size_t r = 0; r < 4; ++r) exchange_halves(high[r], high[r + 4]);
        two_bits(Planes::load(sums), Planes::load(sums + Planes::block), low);
        in_order(low);
        in_order(high);
        const int16x8_t top = vdupq_n_s16(inside);
        BBCU_UNROLL(16)
        for (size_t i = 0; i < 16; ++i) {
            const uint8x16_t sum = i % 2 ? vzip2q_u8(low[i / 2], high[i / 2]) : vzip1q_u8(low[i / 2], high[i / 2]);
            vst1q_s16(halves.of + 8 * i, vsubq_s16(top, vreinterpretq_s16_u8(sum)));
        }
    }

    struct Epilogue {
        float32x4_t scale, bias, slope, offset, leak, threshold;
        Epilogue(const BinaryRow& t, const UnitParams& unit, size_t o)
            : scale(Neon::set(unit.scale[o] / 32)), bias(Neon::set(unit.bias[o])), slope(Neon::set(unit.slope[o])),
              offset(Neon::set(unit.offset[o])), leak(Neon::set(t.leak)),
              threshold(Neon::set(t.threshold ? t.threshold[o] : 0)) {}

        template <bool kLeaky>
        BBCU_ALWAYS_INLINE uint32x4_t finish_four(int32x4_t half, const float* residual, float* out) const {
            const float32x4_t u = Neon::fma(scale, vcvtq_f32_s32(half), bias);
            const float32x4_t added = Neon::fma(u, Neon::select_negative(u, slope, Neon::set(1)), offset);
            float32x4_t v = vaddq_f32(Neon::load(residual), added);
            if (kLeaky) v = Neon::leaky(v, leak);
            Neon::store(out, v);
            return vcltq_f32(v, threshold);
        }

        template <bool kLeaky>
        BBCU_ALWAYS_INLINE uint32_t finish(const int16_t* half, const float* residual, float* out) const {
            uint32x4_t below[8];
            BBCU_UNROLL(4)
            for (size_t i = 0; i < 4; ++i) {
                const int16x8_t eight = vld1q_s16(half + i * Halves::kNext);
                const size_t x = 2 * kLanes * i;
                below[2 * i] = finish_four<kLeaky>(vmovl_s16(vget_low_s16(eight)), residual + x, out + x);
                below[2 * i + 1] = finish_four<kLeaky>(vmovl_high_s16(eight), residual + x + kLanes, out + x + kLanes);
            }
            return bits_of_masks(below);
        }
    };

    static uint32_t below(const float* from, float threshold) {
        uint32x4_t mask[8];
        BBCU_UNROLL(8)
        for (size_t i = 0; i < 8; ++i) mask[i] = vcltq_f32(Neon::load(from + kLanes * i), Neon::set(threshold));
        return bits_of_masks(mask);
    }
};

}  // namespace

extern constexpr KernelSet kNeon = plane_kernels<NeonRows, Neon>(kNeonCpu, "NEON logic on bit planes of 128 pixels");

}  // namespace bbcu

#endif
