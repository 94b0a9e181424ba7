// NEON: passes of rows, and the products of signs by counting bits; products-inl.h multiplies gradients.
//
// Of 128 products of signs, an exclusive or marks those that are -1, vcnt counts them in bytes, for two outputs, and an
// addition of bytes takes in the next tap. Bound: nine taps of 8 bits sum to 72; an output's eight bytes to 576.

#include "../portability.h"
#if BBCU_ARM64

#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "kernels.h"
#include "products-inl.h"

namespace bbcu::train {
namespace {

constexpr size_t kLanes = 4;  // floats

// 8 whole numbers nearest to from * scale.
inline int16x8_t quantised(const float* from, const float* scale) {
    const auto part = [&](size_t i) {
        return vmovn_s32(vcvtnq_s32_f32(vmulq_f32(vld1q_f32(from + i), vld1q_f32(scale + i))));
    };
    return vcombine_s16(part(0), part(kLanes));
}

// What numbers give to V under a plus.
inline int16x8_t under_plus(int16x8_t v) { return vmaxq_s16(vnegq_s16(v), vdupq_n_s16(0)); }

// The table of four whole numbers: number i in lane kLane + i * kStep of v[i]. V of the pattern of four pluses is the
// lane of `plus` that belongs to it; each minus adds its number, for max(n, 0) - max(-n, 0) = n.
template <int kLane, int kStep>
inline void store_table(const int16x8_t (&v)[4], int16x8_t plus, uint8_t* to) {
    alignas(16) static constexpr int16_t kMinus[3][8] = {
        {0, 1, 0, 1, 0, 1, 0, 1}, {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}};
    int16x8_t first = vdupq_laneq_s16(plus, kStep ? kLane / 4 : kLane);
    first = vmlaq_laneq_s16(first, vld1q_s16(kMinus[0]), v[0], kLane);
    first = vmlaq_laneq_s16(first, vld1q_s16(kMinus[1]), v[1], kLane + kStep);
    first = vmlaq_laneq_s16(first, vld1q_s16(kMinus[2]), v[2], kLane + 2 * kStep);
    const uint16x8_t low = vreinterpretq_u16_s16(first);
    const uint16x8_t high = vreinterpretq_u16_s16(vaddq_s16(first, vdupq_laneq_s16(v[3], kLane + 3 * kStep)));
    const uint8x16_t lower_bytes = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    vst1q_u8(to, vandq_u8(lower_bytes, vdupq_n_u8(kDigit - 1)));
    vst1q_u8(to + kTable / 2, vshrn_high_n_u16(vshrn_n_u16(low, 5), high, 5));
}

// Where the tables of the four numbers of channels 8 * h + kLane are, of WeightRows.
template <int... kLane>
inline void store_tables(const int16x8_t (&v)[4], int16x8_t plus, uint8_t* to, size_t four,
                         std::integer_sequence<int, kLane...>) {
    (store_table<kLane, 0>(v, plus, to + kLane / 4 * four + kLane % 4 * kTable), ...);
}

struct Bytes {
    using type = uint8x16_t;
    static constexpr size_t bytes = 16, rows = 2;
    static type zero() { return vdupq_n_u8(0); }
    static type load(const uint8_t* p) { return vld1q_u8(p); }
    static type table(const uint8_t* p) { return vld1q_u8(p); }
    static type look_up(type table, type pattern) { return vqtbl1q_u8(table, pattern); }
    static type add(type a, type b) { return vaddq_u8(a, b); }
    static type lower(type low, type high) {
        return vreinterpretq_u8_u16(vaddw_u8(vshll_n_u8(vget_low_u8(high), 5), vget_low_u8(low)));
    }
    static type upper(type low, type high) {
        return vreinterpretq_u8_u16(vaddw_high_u8(vshll_high_n_u8(high, 5), low));
    }
    static type add_words(type a, type b) {
        return vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
    }
    static type in_register(type v) { return v; }
    template <class T>
    static void in_memory(const T&) {}

    static void store_patterns(const uint64_t (&words)[4], uint8_t* to) {
        alignas(16) static constexpr uint8_t kByte[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
        const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
        for (size_t c = 0; c < kFeatures; c += bytes) {
            const uint8x16_t spread = vaddq_u8(vld1q_u8(kByte), vdupq_n_u8(static_cast<uint8_t>(c / 8)));
            uint8x16_t pattern = zero();
            for (size_t i = 0; i < 4; ++i) {
                const uint8x16_t word = vqtbl1q_u8(vreinterpretq_u8_u64(vdupq_n_u64(words[i])), spread);
                const uint8x16_t set = vdupq_n_u8(static_cast<uint8_t>(1 << i));
                pattern = vorrq_u8(pattern, vandq_u8(vtstq_u8(word, bit), set));
            }
            vst1q_u8(to + c, pattern);
        }
    }

    static int32_t store_pixel(const float* gradient, const float* scale, size_t channels, uint8_t* to) {
        int32x4_t sum = vdupq_n_s32(0);
        for (size_t c = 0; c < channels; c += 8, to += 2 * kTable) {
            const int16x8_t v = quantised(gradient + c, scale + c), all[4] = {v, v, v, v};
            const int16x8_t pairs = vpaddq_s16(under_plus(v), vdupq_n_s16(0));
            const int16x8_t plus = vpaddq_s16(pairs, pairs);
            store_table<0, 1>(all, plus, to);
            store_table<4, 1>(all, plus, to + kTable);
            sum = vpadalq_s16(sum, vabsq_s16(v));
        }
        return vaddvq_s32(sum);
    }

    static void store_row(const WeightRows& t, size_t y) {
        const size_t four = four_bytes(t.rows, t.width);
        for (size_t c = 0; c < kOutputs; c += 8) {
            const float* from = t.gradient + y * t.width * t.pitch + c;
            uint8_t* to = t.scratch + c / 4 * four + y * quads(t.width) * 4 * kTable;
            int16x8_t first = vdupq_n_s16(0), last = first;
            int32x4_t magnitude[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
            for (size_t x = 0; x < t.width; x += 4, from += 4 * t.pitch, to += 4 * kTable) {
                int16x8_t v[4], sum = vdupq_n_s16(0), plus = sum;
                for (size_t i = 0; i < 4; ++i) {
                    v[i] = x + i < t.width ? quantised(from + i * t.pitch, t.scale + c) : vdupq_n_s16(0);
                    sum = vaddq_s16(sum, vabsq_s16(v[i]));
                    plus = vaddq_s16(plus, under_plus(v[i]));
                }
                if (x == 0) first = v[0];
                if (x + 4 >= t.width) last = v[t.width - 1 - x];
                magnitude[0] = vaddw_s16(magnitude[0], vget_low_s16(sum));
                magnitude[1] = vaddw_high_s16(magnitude[1], sum);
                store_tables(v, plus, to, four, std::make_integer_sequence<int, 8>());
            }
            auto* sums = reinterpret_cast<int32_t*>(t.scratch + kFours * four) + y * 3 * kOutputs + c;
            const int16x8_t in_vain[3] = {first, vdupq_n_s16(0), last};
            for (const int16x8_t& v : in_vain) {
                vst1q_s32(sums, vsubw_s16(magnitude[0], vget_low_s16(v)));
                vst1q_s32(sums + kLanes, vsubw_high_s16(magnitude[1], v));
                sums += kOutputs;
            }
        }
    }

    static void subtract_twice(const uint8_t* words, int32_t* to) {
        const uint16x8_t of_16_bits = vreinterpretq_u16_u8(vld1q_u8(words));
        const uint32x4_t twice[2] = {vshll_n_u16(vget_low_u16(of_16_bits), 1), vshll_high_n_u16(of_16_bits, 1)};
        for (size_t i = 0; i < 2; ++i)
            vst1q_s32(to + kLanes * i, vsubq_s32(vld1q_s32(to + kLanes * i), vreinterpretq_s32_u32(twice[i])));
    }
};

void pack(const float* x, const float* shift, size_t pixels, uint64_t* words) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    for (size_t p = 0; p < pixels; ++p, x += kFeatures) {
        uint64_t word = 0;
        for (size_t c = 0; c < kFeatures; c += 16) {
            const auto positive = [&](size_t i) {  // or 0; in 16 bits
                const auto four = [&](size_t at) {
                    const float32x4_t sum = vaddq_f32(vld1q_f32(x + at), vld1q_f32(shift + at));
                    return vmovn_u32(vcgezq_f32(sum));
                };
                return vcombine_u16(four(c + i), four(c + i + kLanes));
            };
            const uint8x16_t bits = vbicq_u8(bit, vcombine_u8(vmovn_u16(positive(0)), vmovn_u16(positive(8))));
            word |= uint64_t{vaddv_u8(vget_low_u8(bits))} << c | uint64_t{vaddv_u8(vget_high_u8(bits))} << (c + 8);
        }
        words[p] = word;
    }
}

constexpr size_t kWeightBytes = kTaps * kFeatures * sizeof(uint64_t);
void pack_weights(const uint64_t* words, uint8_t* weights) { std::memcpy(weights, words, kWeightBytes); }

struct Affine {
    float32x4_t scale, bias, bias0, slope;
    Affine(const Group& group, size_t c)
        : scale(vld1q_f32(group.scale + c)), bias(vld1q_f32(group.bias + c)), bias0(vld1q_f32(group.bias0 + c)),
          slope(vld1q_f32(group.slope + c)) {}
    float32x4_t operator()(int32x4_t sum) const {
        return vaddq_f32(vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), scale), bias), bias0);
    }
};

// From the sums of 16 outputs from c on to the value of pixel x.
inline void forward_outputs(const ForwardRow& t, size_t x, size_t c, const int16x8_t (&sums)[2]) {
    if (t.sums)
        for (size_t i = 0; i < 2; ++i) vst1q_s16(t.sums + x * t.sums_pitch + c + 8 * i, sums[i]);
    const int32x4_t wide[4] = {vmovl_s16(vget_low_s16(sums[0])), vmovl_high_s16(sums[0]),
                               vmovl_s16(vget_low_s16(sums[1])), vmovl_high_s16(sums[1])};
    for (size_t i = 0; i < 4; ++i, c += kLanes) {
        const Affine affine(*t.group, c);
        float32x4_t y = affine(wide[i]);
        y = vbslq_f32(vcgtzq_f32(y), y, vmulq_f32(y, affine.slope));
        y = vaddq_f32(y, vld1q_f32(t.group->bias1 + c));
        vst1q_f32(t.out + x * t.out_pitch + c, vaddq_f32(vld1q_f32(t.residual + x * kFeatures + c), y));
    }
}

// kPixels pixels that all have the taps of columns [first, last), 16 outputs at a time.
template <size_t kPixels>
inline void forward_pixels(const ForwardRow& t, size_t x, size_t first, size_t last) {
    constexpr size_t kAtOnce = 16, kVectors = kAtOnce / 2;
    for (size_t c = 0; c < kFeatures; c += kAtOnce) {
        uint8x16_t count[kPixels][kVectors];
        for (size_t p = 0; p < kPixels; ++p)
            for (size_t j = 0; j < kVectors; ++j) count[p][j] = vdupq_n_u8(0);
        int taps = 0;
        for (size_t dy = 0; dy < 3; ++dy) {
            if (!t.rows[dy]) continue;
            for (size_t dx = first; dx < last; ++dx, ++taps) {
                const uint8_t* weights = t.weights + ((3 * dy + dx) * kFeatures + c) * sizeof(uint64_t);
                uint8x16_t word[kPixels];
                for (size_t p = 0; p < kPixels; ++p)
                    word[p] = vreinterpretq_u8_u64(vdupq_n_u64(t.rows[dy][x + p + dx - 1]));
                BBCU_UNROLL(8)
                for (size_t j = 0; j < kVectors; ++j) {
                    const uint8x16_t w = vld1q_u8(weights + 16 * j);
                    BBCU_UNROLL(2)
                    for (size_t p = 0; p < kPixels; ++p)
                        count[p][j] = vaddq_u8(count[p][j], vcntq_u8(veorq_u8(w, word[p])));
                }
            }
        }
        const int16x8_t all = vdupq_n_s16(static_cast<int16_t>(taps * static_cast<int>(kFeatures)));
        BBCU_UNROLL(2)
        for (size_t p = 0; p < kPixels; ++p) {
            int16x8_t sums[2];
            BBCU_UNROLL(2)
            for (size_t i = 0; i < 2; ++i) {
                const auto pairs = [&](size_t j) {  // of four outputs, two parts of each
                    return vpaddlq_u8(vpaddq_u8(count[p][4 * i + j], count[p][4 * i + j + 1]));
                };
                const int16x8_t counts = vreinterpretq_s16_u16(vpaddq_u16(pairs(0), pairs(2)));
                sums[i] = vsubq_s16(all, vshlq_n_s16(counts, 1));
            }
            forward_outputs(t, x + p, c, sums);
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
    for (size_t c = 0; c < kFeatures; c += 2 * kLanes) {
        const Affine affine[2] = {Affine(*t.group, c), Affine(*t.group, c + kLanes)};
        float32x4_t bias0[2], slope[2], bias1[2];
        uint32x4_t largest[2];
        for (size_t i = 0; i < 2; ++i) {
            bias0[i] = slope[i] = bias1[i] = vdupq_n_f32(0);
            largest[i] = vdupq_n_u32(0);
        }
        for (size_t x = 0; x < t.width; ++x) {
            const int16x8_t sums = vld1q_s16(t.sums + x * t.pitch + c);
            const int32x4_t wide[2] = {vmovl_s16(vget_low_s16(sums)), vmovl_high_s16(sums)};
            BBCU_UNROLL(2)
            for (size_t i = 0; i < 2; ++i) {
                const size_t at = c + i * kLanes;
                const float32x4_t grad = vld1q_f32(t.grad + x * t.grad_pitch + at), y = affine[i](wide[i]);
                const uint32x4_t above = vcgtzq_f32(y);
                const float32x4_t gradient = vbslq_f32(above, grad, vmulq_f32(grad, affine[i].slope));
                vst1q_f32(t.gradient + x * t.pitch + at, gradient);
                bias0[i] = vaddq_f32(bias0[i], gradient);
                const uint32x4_t to_slope = vbicq_u32(vreinterpretq_u32_f32(vmulq_f32(y, grad)), above);
                slope[i] = vaddq_f32(slope[i], vreinterpretq_f32_u32(to_slope));
                bias1[i] = vaddq_f32(bias1[i], grad);
                largest[i] = vmaxq_u32(largest[i], vreinterpretq_u32_f32(vabsq_f32(gradient)));
            }
        }
        for (size_t i = 0; i < 2; ++i) {
            const size_t at = c + i * kLanes;
            vst1q_f32(t.partial + at, bias0[i]);
            vst1q_f32(t.partial + kFeatures + at, slope[i]);
            vst1q_f32(t.partial + 2 * kFeatures + at, bias1[i]);
            vst1q_u32(t.largest + at, largest[i]);
        }
    }
}

constexpr Kernels all() {
    Kernels k = products<Bytes>();
    k.cpu = &kNeonCpu;
    k.pack = pack;
    k.weight_bytes = kWeightBytes;
    k.pack_weights = pack_weights;
    k.forward_row = forward_row;
    k.gradient_row = gradient_row;
    return k;
}

}  // namespace

extern constexpr Kernels kNeon = all();

}  // namespace bbcu::train

#endif
