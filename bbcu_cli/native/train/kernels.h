// What a set of training kernels computes. Files that are compiled for one instruction set include this: it defines no
// function.
//
// Gradients enter products as whole numbers of at most +-kMost, rounded to nearest under one scale for each image (for
// the input's gradient) or output channel of the images that are taken together (for the weights'). Sums are then exact:
// results do not depend on the kernel set or the threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels/kernel_set.h"

namespace bbcu::train {

constexpr int kMost = 255;                         // of a quantised gradient
constexpr size_t kMaxPixels = 0x7fffffff / kMost;  // of an image: whose quantised gradients sum within 32 bits
constexpr size_t kOutputs = 16;  // channels whose weights' gradients are computed together; a cache line of floats

// What follows the +-1 sums of a group: y = scale * sum + bias + bias0; y = (y > 0 ? 1 : slope) * y + bias1.
struct Group {
    alignas(kAlign) float scale[kFeatures];
    alignas(kAlign) float bias[kFeatures];
    alignas(kAlign) float bias0[kFeatures];
    alignas(kAlign) float slope[kFeatures];
    alignas(kAlign) float bias1[kFeatures];
};

// One row of one group's forward pass.
struct ForwardRow {
    const uint64_t* rows[3];  // signs of the rows above, at and below; null outside the image
    size_t width;
    const uint8_t* weights;  // of the group, from pack_weights
    const Group* group;
    const float* residual;  // [width][64]
    float* out;             // [width], out_pitch apart
    size_t out_pitch;
    int16_t* sums;  // [width], sums_pitch apart; null when no gradient will be asked for
    size_t sums_pitch;
};

// One row of one group, from the output's gradient to that of scale * sum, `gradient`.
struct GradientRow {
    const float* grad;  // [width], grad_pitch apart
    size_t grad_pitch;
    const int16_t* sums;  // [width], pitch apart
    float* gradient;      // [width], pitch apart
    size_t pitch;
    size_t width;
    const Group* group;
    float* partial;     // [3][64]: sums over the row for bias0 (and bias), slope, bias1
    uint32_t* largest;  // [64]: bits of each channel's largest |gradient|; not below those of a NaN
};

// One row of the input's gradient.
struct InputRow {
    const uint8_t* rows[3];  // quantised rows above, at and below; null outside the image
    const uint8_t* weights;  // from pack_input_weights
    size_t step;
    size_t width;
    float unit;          // what 1 means in the quantised rows
    const float* x;      // [width][64]
    const float* shift;  // [64], m
    float peak;          // the sign's gradient at 0: 2 / window
    float steepness;     // and how it falls: 2 / window^2
    const float* grad;   // the output's gradient at (step * y, 0)
    float* out;          // [width][64]
    float* partial;      // [64]: sums over the row for m
};

// What some rows of one image give to the weights' gradient of some output channels.
struct WeightRows {
    const float* gradient;  // the first row's, at the first of the channels
    size_t outputs;         // a multiple of kOutputs
    size_t pitch;           // floats between pixels
    const float* scale;     // [outputs], under which gradients become whole numbers of at most kMost
    const uint8_t* bits;    // [rows + 2] bit rows, from the one above the first on; outside the image not read
    size_t rows;
    size_t width;
    bool above, below;  // does the image have rows there?
    uint8_t* scratch;   // scratch_bytes(rows, width), aligned
    int32_t* sums;      // [outputs][9][64], added to
};

// Kernels for one instruction set; all sets give the same bits.
struct Kernels {
    const InstructionSet* cpu;

    // words[p] bit c: x[p][c] + shift[c] is negative (or NaN)
    void (*pack)(const float* x, const float* shift, size_t pixels, uint64_t* words);
    size_t weight_bytes;                                            // of a group
    void (*pack_weights)(const uint64_t* words, uint8_t* weights);  // words [9][64]
    void (*forward_row)(const ForwardRow&);
    void (*gradient_row)(const GradientRow&);

    // A *quantised row*: the whole numbers nearest to gradient * scale [groups][64], at most kMost, in a form of the
    // set's own.
    size_t (*quantised_bytes)(size_t width, size_t groups);
    void (*quantise_row)(const float* gradient, const float* scale, size_t width, size_t groups, uint8_t* row);
    size_t (*input_weight_bytes)(size_t groups);
    void (*pack_input_weights)(const uint64_t* words, size_t groups, uint8_t* weights);  // words [groups][9][64]
    void (*input_row)(const InputRow&);

    // A *bit row*: the signs of one row, by channel, as the three columns of taps see them.
    size_t (*bit_row_bytes)(size_t width);
    void (*bit_row)(const uint64_t* words, size_t width, uint8_t* bits);
    size_t (*scratch_bytes)(size_t rows, size_t width);
    void (*weight_rows)(const WeightRows&);
};

}  // namespace bbcu::train
