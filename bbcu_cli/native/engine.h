// The packed CPU engine: runs a chain of 64-feature binary and float 3x3 convolutions over an image, row by row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernel_set.h"

namespace bbcu {

// For `count` output rows at once. One: groups of 4 output channels, [group][c_in][9][4]. More: transformed,
// [(count + 2)^2][group][c_in][4].
std::vector<float> pack_conv_weights(const float* weight, size_t c_out, size_t c_in, size_t count);

// [64][3][c_out][3]: channel, dy, output, dx.
std::vector<float> pack_tap_weights(const float* weight, size_t c_out);

// Nanoseconds per pixel of one 64 -> 64 layer on one thread.
struct LayerTimes {
    double bare;   // the product alone
    double fused;  // with affine, residual and packing
};

// Times rows_at_once rows of each of `layers` layers after a warm-up.
LayerTimes measure_layer(const KernelSet& kernels, size_t width, size_t layers);

struct Stage;
class MemoryPool;

// An image network: head, then stages of 64 features, then tail. Immutable once it runs; safe to share by threads.
class Network {
public:
    // channels: of the image; k: residual alignment; subtract: the tail predicts what to subtract from the
    // input (scale 1), otherwise what to add to its bilinear enlargement.
    Network(const KernelSet& kernels, size_t channels, float k, bool subtract);
    ~Network();
    Network(const Network&) = delete;
    Network& operator=(const Network&) = delete;

    // Appended in order: head, any number of binary and conv, tail. step > 1: c_out = 64 * step^2 and a PixelShuffle
    // follows (before it the binary unit's residual is the nearest enlargement). Weights as in PackedModel.
    // Throw std::invalid_argument when the order makes no network.
    void add_head(const float* weight, const float* bias, float leak);
    void add_binary(const uint64_t* signs, const float* scale, const float* bias, const float* slope,
                    const float* offset, const float* shift, size_t step, float leak);
    void add_conv(const float* weight, const float* bias, size_t step, float leak);
    void add_tail(const float* weight, const float* bias);

    size_t channels() const { return channels_; }
    size_t scale() const { return scale_; }
    const KernelSet& kernels() const { return kernels_; }

    // image float32 (channels, height, width), neither side empty -> output (channels, scale*height, scale*width).
    // Runs on up to `threads` threads, the caller's among them; that one calls poll(share of the output that is there)
    // about 10 times a second, and what poll throws stops the run and is thrown here, as is std::bad_alloc from any
    // thread.
    void run(const float* image, size_t height, size_t width, float* output, size_t threads,
             const std::function<void(double)>& poll) const;

private:
    friend class Band;
    friend class Run;
    void require(bool holds, const char* complaint) const;
    Stage& append(size_t step);

    const KernelSet& kernels_;
    size_t channels_;
    float k_;
    bool subtract_;
    size_t scale_ = 1;
    std::vector<std::unique_ptr<Stage>> stages_;
    const std::unique_ptr<MemoryPool> memory_;  // of runs, kept between them
};

}  // namespace bbcu
