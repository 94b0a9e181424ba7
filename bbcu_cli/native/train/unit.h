// Training of a binary unit on the CPU: its forward pass and all of its gradients, fused.
//
// A unit is out = PixelShuffle(rprelu(alpha * conv3x3(sign(x + m), sign(W)) + bias)) + nearest(x), 64 channels in and
// 64 * step^2 out. Tensors are channels last, so that the 64 channels of a pixel are one cache-aligned run of floats;
// output channel c * step^2 + g belongs to *group* g, the 64 channels of one of the step^2 output pixels.
#pragma once

#include <string>
#include <vector>

#include "../dispatch.h"
#include "kernels.h"

namespace bbcu::train {

// Best first; scalar, the truth that the others are tested against, is last.
const std::vector<const Kernels*>& kernels();

inline const Kernels& choose_kernels(const std::string& name) { return choose(kernels(), name, "training kernel set"); }

struct Shape {
    size_t images, height, width, step;
    size_t groups() const { return step * step; }
    size_t pixels() const { return images * height * width; }
};

// Parameters as in the network, channels c * step^2 + g; weights channels last, [64 * step^2][9][64].
struct Unit {
    const float* shift;  // [64]
    const float* weight;
    const float* bias;  // or null
    const float* bias0;
    const float* slope;
    const float* bias1;
};

struct Gradients {
    float* x;
    float* shift;
    float* weight;
    float* bias0;  // also that of bias
    float* slope;
    float* bias1;
};

// words: [pixels] signs of x + m, sums: [pixels][groups][64] or null; both are what backward needs.
void forward(const Kernels& kernels, const Shape& shape, const Unit& unit, const float* x, float* out, uint64_t* words,
             int16_t* sums, size_t threads);

void backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
              const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients,
              size_t threads);

}  // namespace bbcu::train
