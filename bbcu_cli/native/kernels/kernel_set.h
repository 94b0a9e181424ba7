// What a set of kernels computes. Files that are compiled for one instruction set include this: it defines no function.
//
// A *float row* is one image row of all channels in planes: channel c of pixel x is row[c * stride + x], where
// row points at pixel 0, kRowPad floats before it are zero, and at least kRowPad floats follow the last pixel.
// A *packed row* holds the 64 signs of every pixel in a form that only its kernel set knows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../cpu.h"

namespace bbcu {

constexpr size_t kFeatures = 64;
constexpr size_t kTaps = 9;
constexpr size_t kRowPad = 64;  // floats around a plane; also the widest block that a kernel reads or writes
constexpr size_t kMaxRows = 8;  // that a kernel takes at once
constexpr size_t kMaxStep = 4;  // of a PixelShuffle
constexpr size_t kConvScratch = 112 << 10;  // floats that a convolution of a few rows at once needs
constexpr size_t kAlign = 64;               // bytes; of every buffer and of every plane

// Per output channel: v = scale * y + bias; v = (v < 0 ? slope : 1) * v + offset, where y is the +-1 product.
struct UnitParams {
    alignas(kAlign) float scale[kFeatures];
    alignas(kAlign) float bias[kFeatures];
    alignas(kAlign) float slope[kFeatures];
    alignas(kAlign) float offset[kFeatures];
};

// One row of a binary unit, 64 -> 64: out = leaky(residual + unit(conv)), and the signs of out for the next unit.
// With PixelShuffle, one output row of the enlarged image: unit j of `step` makes its pixels step * x + j.
struct BinaryRow {
    const uint8_t* rows[3];            // packed input rows above, at and below; null outside the image
    const uint8_t* weights[kMaxStep];  // from KernelSet::pack_weights
    const UnitParams* unit[kMaxStep];
    size_t step;
    const int16_t* taps;    // per pixel: 64 * (taps inside the image); kRowPad more entries follow
    const float* residual;  // float row; may be `out` where step is 1
    size_t stride;
    float* out;  // float row of step * width pixels
    size_t out_stride;
    size_t width;
    float leak;              // negative slope of a LeakyReLU on the result; 1 is none
    const float* threshold;  // [64], sign is -1 where out < threshold; null when no signs are wanted
    uint8_t* packed;         // packed row of the signs, or null
};

// Rows of a full-precision convolution: out = leaky(bias + conv). More than one are made by Winograd's filters, in
// squares of count x count outputs that see count + 2 rows and columns: the results are those of one row but for
// rounding.
struct ConvRows {
    size_t count;                     // of output rows, 1..kMaxStep
    const float* rows[kMaxStep + 2];  // float rows, the first above the first output; null outside the image; pixel
                                      // `width` must be 0
    size_t in_stride;
    size_t c_in;           // where count > 1, 64, and so is c_out
    const float* weights;  // from pack_conv_weights
    const float* bias;     // [c_out]
    float* out[kMaxStep];
    size_t out_stride;
    size_t c_out;  // a multiple of 8
    size_t width;  // where count > 1, a multiple of it
    float leak;
    float* scratch;  // where count > 1: [kConvScratch], aligned
};

// One input row of the last convolution, whose few outputs are worth another order: what the row adds to its outputs
// through every tap, so that it is read only once. Plane p of out, of 9 * c_out, is the sum over channels of
// weights[c * planes + p] * in[c], where p = (dy * c_out + o) * 3 + dx.
struct TapRow {
    const float* in;  // float row of 64 channels
    size_t in_stride;
    const float* weights;  // from pack_tap_weights
    size_t planes;         // a multiple of 9
    float* out;            // float row
    size_t out_stride;
    size_t width;
};

// One output row of the last convolution: out[o][x] is bias[o] plus the sum of taps[dy] at plane (dy, o, dx), pixel
// x + dx - 1.
struct TapSum {
    const float* taps[3];  // outputs of tap_row above, at and below; null outside the image; pixel `width` must be 0
    size_t stride;         // of taps and out
    const float* bias;     // [c_out]
    float* out;
    size_t c_out;
    size_t width;
};

// A set of kernels for one instruction set. All sets give the same floats to the bit: each result is a fixed
// sequence of IEEE operations (std::fma where a product is added) that does not depend on the lane.
struct KernelSet {
    const InstructionSet* cpu;  // what it needs, and is called by
    const char* description;
    size_t (*packed_row_bytes)(size_t width);
    size_t weight_bytes;                                            // of one 64 -> 64 unit
    void (*pack_weights)(const uint64_t* signs, uint8_t* weights);  // signs [64][9], bit c of a word: channel c is -1
    void (*pack_row)(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed);
    size_t (*rows_at_once)(size_t width);  // that binary_rows likes to have, 1..kMaxRows
    // Up to kMaxRows rows of one unit and width. No output is an input of another row, but its own residual.
    void (*binary_rows)(const BinaryRow* rows, size_t count);
    void (*conv_rows)(const ConvRows&);
    void (*tap_row)(const TapRow&);
    void (*sum_taps)(const TapSum&);
    // out[count * x + j] = parts[j][x] for x < width
    void (*interleave)(const float* const* parts, size_t count, size_t width, float* out);
    // The bare +-1 product of `width` pixels over three full rows, without epilogue: what the hardware allows.
    void (*bare_row)(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink);
};

}  // namespace bbcu
