// AMX: the products of signs and quantised gradients on the tile unit of Xeons since 2023 (Sapphire Rapids).
//
// A *tile* is 16 rows of 64 bytes. TDPBF16PS multiplies a tile of 16 x 32 bfloat16 numbers by one of 32 x 16, of which
// each row holds two rows of the matrix, interleaved ("pairs"), and adds to a tile of 16 x 16 float32 sums: 8192
// products in 16 cycles. bfloat16 has 8 bits of precision, so whole numbers up to 256 are exact in it; their products
// with +-1 are, too, and float32 adds whole numbers exactly below 2^24. So this set gives the bits of the others.
//
//   input's gradient:   [16 pixels][32 outputs]  x  [32 outputs][16 channels], for each tap and each 32 outputs
//   weights' gradient:  [16 outputs][32 pixels]  x  [32 pixels][16 channels], for each tap
//
// The rest of the set is that of AVX-512; kernels.cpp puts it in, and asks the system for the tiles.

#include "../portability.h"
#if BBCU_AMX

#include <immintrin.h>

#include <cstring>

#include "input-row-inl.h"
#include "kernels.h"

namespace bbcu::train {
namespace {

constexpr size_t kRows = 16, kRowBytes = 64, kTileBytes = kRows * kRowBytes;
constexpr size_t kDepth = 32;                                    // numbers that one instruction sums
constexpr size_t kBlocks = kFeatures / kRows;                    // of channels
constexpr size_t kExact = (1u << 24) / kMost / kDepth * kDepth;  // numbers whose float32 sum is exact
static_assert(kMost <= 256);

using Number = uint16_t;  // the upper half of a float32, a bfloat16

// Tiles are configured for one call of a kernel: while they are, the system saves them whenever it changes threads.
class Tiles {
public:
    Tiles() {
        struct alignas(kAlign) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {};
            uint8_t rows[16] = {};
        } shape;
        for (size_t tile = 0; tile < 8; ++tile) {
            shape.row_bytes[tile] = static_cast<uint16_t>(kRowBytes);
            shape.rows[tile] = static_cast<uint8_t>(kRows);
        }
        _tile_loadconfig(&shape);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// Whole numbers nearest to from * scale, 16 of them, as float32.
inline __m512 quantised(const float* from, __m512 scale) {
    return _mm512_roundscale_ps(_mm512_mul_ps(_mm512_loadu_ps(from), scale),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// Pairs of bfloat16 numbers: a's in the even places, b's in the odd ones.
inline __m512i paired(__m512 a, __m512 b) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000));
    return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a), 16),
                           _mm512_and_si512(_mm512_castps_si512(b), upper));
}

// Pairs of the signs of two words: for 64 channels +1 or -1 of a and of b; with `known`, 0 where its bit is clear.
inline void store_signs(uint64_t a, uint64_t b, uint8_t* to, size_t block, __mmask32 known = 0xffffffff) {
    constexpr uint64_t kEven = 0x5555555555555555, kOdd = ~kEven;
    const __m512i plus = _mm512_set1_epi16(0x3f80), minus = _mm512_set1_epi16(static_cast<int16_t>(0xbf80));
    for (size_t half = 0; half < 2; ++half, a >>= 32, b >>= 32) {
        const uint64_t negative = _pdep_u64(a, kEven) | _pdep_u64(b, kOdd);
        for (size_t i = 0; i < 2; ++i, to += block)
            _mm512_store_si512(
                to, _mm512_maskz_mov_epi16(
                        known, _mm512_mask_blend_epi16(static_cast<__mmask32>(negative >> (32 * i)), plus, minus)));
    }
}

// A quantised row: [1 + whole tiles of pixels + 1][groups][64]; those outside the image are zero.
size_t whole_tiles(size_t width) { return (width + kRows - 1) / kRows * kRows; }

size_t quantised_bytes(size_t width, size_t groups) {
    return (whole_tiles(width) + 2) * groups * kFeatures * sizeof(Number);
}

void quantise_row(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row) {
    const size_t channels = groups * kFeatures, pixel = channels * sizeof(Number);
    std::memset(row, 0, pixel);
    std::memset(row + (width + 1) * pixel, 0, (whole_tiles(width) + 1 - width) * pixel);
    row += pixel;
    for (size_t x = 0; x < width; ++x)
        for (size_t c = 0; c < channels; c += 16, gradient += 16, row += 16 * sizeof(Number)) {
            const __m512i value = _mm512_castps_si512(quantised(gradient, _mm512_loadu_ps(scale + c)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row), _mm512_cvtepi32_epi16(_mm512_srli_epi32(value, 16)));
        }
}

// Weights for the input: tiles [groups][9][2 halves of the outputs][4 blocks of channels].
constexpr size_t kHalves = kFeatures / kDepth;

size_t input_weight_bytes(size_t groups) { return groups * kTaps * kHalves * kBlocks * kTileBytes; }

void pack_input_weights(const uint64_t* words, size_t groups, uint8_t* weights) {
    for (size_t i = 0; i < groups * kTaps * kHalves; ++i, words += kDepth, weights += kBlocks * kTileBytes)
        for (size_t r = 0; r < kRows; ++r)
            store_signs(words[2 * r], words[2 * r + 1], weights + r * kRowBytes, kTileBytes);
}

// Sums of kCount times 16 pixels from x on, for blocks `block` and the next: [pixels][64] from `to` on. Tiles 0 to 5
// take them. The weights come from the second-level cache, so more pixels for each of their tiles are worth much.
template <size_t kCount>
void input_tiles(const InputRow& t, size_t x, size_t block, float* to) {
    const size_t groups = t.step * t.step, pixel = groups * kFeatures * sizeof(Number);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (size_t dy = 0; dy < 3; ++dy) {
        // The tap (dy, dx) of an output at (y + 1 - dy, x + 1 - dx) reads the input at (y, x).
        const uint8_t* row = t.rows[2 - dy];
        if (!row) continue;
        for (size_t dx = 0; dx < 3; ++dx) {
            for (size_t i = 0; i < groups * kHalves; ++i) {
                const uint8_t* values = row + (x + 2 - dx) * pixel + i * kDepth * sizeof(Number);
                const size_t part = ((i / kHalves * kTaps + 3 * dy + dx) * kHalves + i % kHalves) * kBlocks + block;
                const uint8_t* signs = t.weights + part * kTileBytes;
                _tile_loadd(7, signs, kRowBytes);
                _tile_loadd(6, values, pixel);
                _tile_dpbf16ps(0, 6, 7);
                if (kCount > 1) {
                    _tile_loadd(6, values + kRows * pixel, pixel);
                    _tile_dpbf16ps(1, 6, 7);
                }
                if (kCount > 2) {
                    _tile_loadd(6, values + 2 * kRows * pixel, pixel);
                    _tile_dpbf16ps(2, 6, 7);
                }
                _tile_loadd(7, signs + kTileBytes, kRowBytes);
                if (kCount > 2) {
                    _tile_dpbf16ps(5, 6, 7);
                    _tile_loadd(6, values + kRows * pixel, pixel);
                }
                if (kCount > 1) {
                    _tile_dpbf16ps(4, 6, 7);
                    _tile_loadd(6, values, pixel);
                }
                _tile_dpbf16ps(3, 6, 7);
            }
        }
    }
    constexpr size_t kPitch = kFeatures * sizeof(float);
    to += block * kRows;
    _tile_stored(0, to, kPitch);
    _tile_stored(3, to + kRows, kPitch);
    if (kCount > 1) {
        _tile_stored(1, to + kRows * kFeatures, kPitch);
        _tile_stored(4, to + kRows * kFeatures + kRows, kPitch);
    }
    if (kCount > 2) {
        _tile_stored(2, to + 2 * kRows * kFeatures, kPitch);
        _tile_stored(5, to + 2 * kRows * kFeatures + kRows, kPitch);
    }
}

void input_row(const InputRow& task) {
    const Tiles tiles;
    input_pixels<3 * kRows, float>(task, [&](size_t x, size_t count, float* sums) {
        for (size_t block = 0; block < kBlocks; block += 2) {
            if (count > 2 * kRows)
                input_tiles<3>(task, x, block, sums);
            else if (count > kRows)
                input_tiles<2>(task, x, block, sums);
            else
                input_tiles<1>(task, x, block, sums);
        }
    });
}

// A bit row: the words themselves.
size_t bit_row_bytes(size_t width) { return width * sizeof(uint64_t); }

void bit_row(const uint64_t* words, size_t width, uint8_t* bits) { std::memcpy(bits, words, bit_row_bytes(width)); }

// Pixels of all rows in one sequence, each row with a zero before it and at least one behind, so that a tap is an
// offset. Of WeightRows: tiles of gradients [2][pixels / 32], then pairs of signs [pixels + offsets][4 blocks][16
// channels]: of the pixel at that place and the one behind it.
struct Sequence {
    size_t pitch, tiles, places;
    Sequence(size_t rows, size_t width)
        : pitch(width + 2), tiles((rows * pitch + kDepth - 1) / kDepth), places(tiles * kDepth + 2 * pitch + 2) {}
    size_t gradient_bytes() const { return 2 * tiles * kTileBytes; }
    size_t sign_bytes() const { return places * kBlocks * kRowBytes; }
};

size_t scratch_bytes(size_t rows, size_t width) {
    const Sequence all(rows, width);
    return all.gradient_bytes() + all.sign_bytes();
}

// 16 x 16 elements of 32 bits, in place.
inline void transpose(__m512i (&v)[16]) {
    __m512i w[16];
    for (size_t i = 0; i < 16; i += 2) {
        w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (size_t i = 0; i < 16; i += 4)
        for (size_t j = 0; j < 2; ++j) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + j + 2]);
        }
    for (size_t j = 0; j < 4; ++j)
        for (size_t i = 0; i < 2; ++i) {
            w[8 * i + j] = _mm512_shuffle_i32x4(v[8 * i + j], v[8 * i + j + 4], 0x88);
            w[8 * i + j + 4] = _mm512_shuffle_i32x4(v[8 * i + j], v[8 * i + j + 4], 0xdd);
        }
    for (size_t j = 0; j < 8; ++j) {
        v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xdd);
    }
}

// Of kOutputs channels from `first` on.
void store_gradients(const WeightRows& t, const Sequence& all, size_t first, uint8_t* to) {
    const __m512 scale = _mm512_loadu_ps(t.scale + first);
    const auto at = [&](size_t place) {
        const size_t y = place / all.pitch, x = place % all.pitch;
        if (y >= t.rows || x >= t.width) return _mm512_setzero_ps();
        return quantised(t.gradient + (y * t.width + x) * t.pitch + first, scale);
    };
    for (size_t tile = 0; tile < all.tiles; ++tile) {
        __m512i pairs[kRows];
        for (size_t i = 0; i < kRows; ++i) pairs[i] = paired(at(tile * kDepth + 2 * i), at(tile * kDepth + 2 * i + 1));
        transpose(pairs);
        for (size_t i = 0; i < kRows; ++i) _mm512_store_si512(to + tile * kTileBytes + i * kRowBytes, pairs[i]);
    }
}

void store_sign_pairs(const WeightRows& t, const Sequence& all) {
    const auto* words = reinterpret_cast<const uint64_t*>(t.bits);
    uint8_t* to = t.scratch + all.gradient_bytes();
    constexpr __mmask32 kEven = 0x55555555, kOdd = 0xaaaaaaaa;
    for (size_t row = 0; row < t.rows + 2; ++row, words += t.width) {
        const bool known = (row > 0 || t.above) && (row <= t.rows || t.below);
        for (size_t place = 0; place < all.pitch; ++place, to += kBlocks * kRowBytes) {
            // Places 1 to width are pixels.
            const bool first = known && place >= 1 && place <= t.width, second = known && place < t.width;
            store_signs(first ? words[place - 1] : 0, second ? words[place] : 0, to, kRowBytes,
                        (first ? kEven : 0) | (second ? kOdd : 0));
        }
    }
    std::memset(to, 0, static_cast<size_t>(t.scratch + all.gradient_bytes() + all.sign_bytes() - to));
}

// Tiles 0 to 2 take the sums of three taps and one block of channels, over tiles [begin, end) of pixels, for kOutputs
// channels; with kTwo tiles 3 to 5 those of the next kOutputs. Signs come from the second-level cache.
template <bool kTwo>
void weight_tiles(const uint8_t* gradients, const uint8_t* signs, const Sequence& all, size_t begin, size_t end,
                  int32_t* to) {
    constexpr size_t kPlace = kBlocks * kRowBytes, kPair = 2 * kPlace;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (size_t tile = begin; tile < end; ++tile) {
        const uint8_t* at = signs + tile * kDepth * kPlace;
        _tile_loadd(6, gradients + tile * kTileBytes, kRowBytes);
        if (kTwo) {
            // Three taps in turn, each with both gradients.
            _tile_loadd(7, at, kPair);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(6, gradients + (all.tiles + tile) * kTileBytes, kRowBytes);
            _tile_dpbf16ps(3, 6, 7);
            _tile_loadd(7, at + kPlace, kPair);
            _tile_dpbf16ps(4, 6, 7);
            _tile_loadd(6, gradients + tile * kTileBytes, kRowBytes);
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, at + 2 * kPlace, kPair);
            _tile_dpbf16ps(2, 6, 7);
            _tile_loadd(6, gradients + (all.tiles + tile) * kTileBytes, kRowBytes);
            _tile_dpbf16ps(5, 6, 7);
        } else {
            _tile_loadd(7, at, kPair);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(7, at + kPlace, kPair);
            _tile_dpbf16ps(1, 6, 7);
            _tile_loadd(7, at + 2 * kPlace, kPair);
            _tile_dpbf16ps(2, 6, 7);
        }
    }
    alignas(kAlign) float sums[2][3][kOutputs][kRows];
    _tile_stored(0, sums[0][0], kRowBytes);
    _tile_stored(1, sums[0][1], kRowBytes);
    _tile_stored(2, sums[0][2], kRowBytes);
    _tile_stored(3, sums[1][0], kRowBytes);
    _tile_stored(4, sums[1][1], kRowBytes);
    _tile_stored(5, sums[1][2], kRowBytes);
    for (size_t o = 0; o < (kTwo ? 2 : 1) * kOutputs; ++o, to += kTaps * kFeatures)
        for (size_t dx = 0; dx < 3; ++dx) {
            const __m512i sum = _mm512_cvtps_epi32(_mm512_load_ps(sums[o / kOutputs][dx][o % kOutputs]));
            _mm512_storeu_si512(to + dx * kFeatures, _mm512_add_epi32(_mm512_loadu_si512(to + dx * kFeatures), sum));
        }
}

void weight_rows(const WeightRows& task) {
    const WeightRows t = task;
    const Sequence all(t.rows, t.width);
    const uint8_t* signs = t.scratch + all.gradient_bytes();
    store_sign_pairs(t, all);
    const Tiles tiles;
    constexpr size_t kOnce = kExact / kDepth;
    for (size_t first = 0; first < t.outputs; first += 2 * kOutputs) {
        const bool two = first + kOutputs < t.outputs;
        store_gradients(t, all, first, t.scratch);
        if (two) store_gradients(t, all, first + kOutputs, t.scratch + all.tiles * kTileBytes);
        for (size_t begin = 0; begin < all.tiles; begin += kOnce)
            for (size_t dy = 0; dy < 3; ++dy)
                for (size_t block = 0; block < kBlocks; ++block) {
                    const size_t end = least(begin + kOnce, all.tiles);
                    const uint8_t* from = signs + (dy * all.pitch * kBlocks + block) * kRowBytes;
                    int32_t* to = t.sums + (first * kTaps + 3 * dy) * kFeatures + block * kRows;
                    if (two)
                        weight_tiles<true>(t.scratch, from, all, begin, end, to);
                    else
                        weight_tiles<false>(t.scratch, from, all, begin, end, to);
                }
    }
}

constexpr Kernels all() {
    Kernels k{};
    k.cpu = &kAmxCpu;
    k.quantised_bytes = quantised_bytes;
    k.quantise_row = quantise_row;
    k.input_weight_bytes = input_weight_bytes;
    k.pack_input_weights = pack_input_weights;
    k.input_row = input_row;
    k.bit_row_bytes = bit_row_bytes;
    k.bit_row = bit_row;
    k.scratch_bytes = scratch_bytes;
    k.weight_rows = weight_rows;
    return k;
}

}  // namespace

extern constexpr Kernels kAmx = all();

}  // namespace bbcu::train

#endif
