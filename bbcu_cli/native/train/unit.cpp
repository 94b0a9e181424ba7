// A unit's passes, cut into rows and blocks that threads take in turn.

#include "unit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../portability.h"
#include "../threads.h"
#include "memory.h"

namespace bbcu::train {

namespace {

// alpha of one output channel.
float mean_magnitude(const float* weight) {
    double sums[kFeatures] = {}, sum = 0;
    for (size_t tap = 0; tap < kTaps; ++tap)
        for (size_t c = 0; c < kFeatures; ++c) sums[c] += std::fabs(weight[tap * kFeatures + c]);
    for (const double part : sums) sum += part;
    return static_cast<float>(sum / (kTaps * kFeatures));
}

// The parameters of a unit in the form that rows want.
struct Prepared {
    Scratch<Group> groups;
    Scratch<uint64_t> words;  // [groups][9][64]

    Prepared(const Kernels& kernels, const Shape& shape, const Unit& unit)
        : groups(shape.groups()), words(shape.groups() * kTaps * kFeatures) {
        const float zeros[kFeatures] = {};
        for (size_t g = 0; g < shape.groups(); ++g) {
            for (size_t c = 0; c < kFeatures; ++c) {
                const size_t from = c * shape.groups() + g;
                groups[g].scale[c] = mean_magnitude(unit.weight + from * kTaps * kFeatures);
                groups[g].bias[c] = unit.bias ? unit.bias[from] : 0.0f;
                groups[g].bias0[c] = unit.bias0[from];
                groups[g].slope[c] = unit.slope[from];
                groups[g].bias1[c] = unit.bias1[from];
                uint64_t taps[kTaps];
                kernels.pack(unit.weight + from * kTaps * kFeatures, zeros, kTaps, taps);
                for (size_t tap = 0; tap < kTaps; ++tap) words[(g * kTaps + tap) * kFeatures + c] = taps[tap];
            }
        }
    }
};

// The rows around row y of an image of `height` rows of `size` elements; null outside.
template <class T>
void window(const T* image, size_t y, size_t height, size_t size, const T* (&rows)[3]) {
    for (size_t dy = 0; dy < 3; ++dy) rows[dy] = y + dy < 1 || y + dy > height ? nullptr : image + (y + dy - 1) * size;
}

// Under which numbers up to `largest` are at most kMost.
float scale_for(float largest) { return largest > 0 ? std::min(kMost / largest, 0x1p120f) : 1.0f; }

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr size_t kBandRows = 32;      // of the input's gradient at most; two more are quantised for a band
constexpr size_t kBandPixels = 1024;  // of the weights' gradient; a band's tables fit the second-level cache
constexpr size_t kPartPixels = 2048;  // of images that are taken together, so that the caches hold what passes of them

// Images of a batch that go through a unit together.
size_t images_at_once(const Shape& shape) {
    return std::clamp<size_t>(kPartPixels / (shape.height * shape.width * shape.groups()), 1, shape.images);
}

class Backward {
public:
    Backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
             const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients)
        : kernels_(kernels), shape_(shape), unit_(unit), peak_(2.0f / window), steepness_(peak_ / window), x_(x),
          words_(words), sums_(sums), grad_(grad), to_(gradients), rows_(shape.images * shape.height),
          groups_(shape.groups()), channels_(groups_ * kFeatures), prepared_(kernels, shape, unit),
          at_once_(images_at_once(shape)), gradient_(at_once_ * shape.height * shape.width * channels_),
          partial_(rows_ * 3 * channels_), shift_partial_(rows_ * kFeatures), largest_(rows_ * channels_),
          input_scale_(shape.images * channels_), input_unit_(shape.images), weight_scale_(channels_),
          weight_total_(channels_ * kTaps * kFeatures), quantised_bytes_(kernels.quantised_bytes(shape.width, groups_)),
          bit_bytes_(kernels.bit_row_bytes(shape.width)), bits_((1 + rows_) * bit_bytes_),
          input_weights_(kernels.input_weight_bytes(groups_)),
          weight_rows_(std::clamp<size_t>(kBandPixels / shape.width, 1, shape.height)) {}

    void run(size_t threads) {
        kernels_.pack_input_weights(prepared_.words.data(), groups_, input_weights_.data());
        std::fill_n(weight_total_.data(), channels_ * kTaps * kFeatures, 0.0f);
        bool finite = true;
        for (size_t first = 0; first < shape_.images; first += at_once_)
            finite = run_images(first, std::min(first + at_once_, shape_.images), threads) && finite;
        reduce_rprelu();
        if (!finite) return fill_nan();
        reduce_shift();
        store_weights();
    }

private:
    // Images [first, end). False where a gradient is not finite.
    bool run_images(size_t first, size_t end, size_t threads) {
        share((end - first) * shape_.height, threads,
              [&, this] { return [&, this](size_t row) { differentiate(first * shape_.height + row); }; });
        if (!find_scales(first, end)) return false;
        const size_t outputs = channels_ / kOutputs, parts = std::min(threads, outputs);
        const size_t bands = (shape_.height + kBandRows - 1) / kBandRows, rows = (shape_.height + bands - 1) / bands;
        share(parts + (end - first) * bands, threads, [&, this] {
            return [&, this, quantised = Scratch<uint8_t>(3 * quantised_bytes_),
                    scratch = Scratch<uint8_t>(kernels_.scratch_bytes(weight_rows_, shape_.width))](size_t item) {
                if (item < parts)
                    weights(first, end, item * outputs / parts, (item + 1) * outputs / parts, scratch.data());
                else
                    input(first + (item - parts) / bands, (item - parts) % bands * rows, rows, quantised.data());
            };
        });
        return true;
    }

    float* gradient_row(size_t row) const {
        return gradient_.data() + row % (at_once_ * shape_.height) * shape_.width * channels_;
    }

    // Through the RPReLU of one row of all groups; and its bit row.
    void differentiate(size_t row) {
        const size_t width = shape_.width, step = shape_.step;
        for (size_t g = 0; g < groups_; ++g) {
            GradientRow task{};
            task.grad = grad_ + ((row * step + g / step) * width * step + g % step) * kFeatures;
            task.grad_pitch = step * kFeatures;
            task.sums = sums_ + row * width * channels_ + g * kFeatures;
            task.gradient = gradient_row(row) + g * kFeatures;
            task.pitch = channels_;
            task.width = width;
            task.group = &prepared_.groups[g];
            task.partial = partial_.data() + (row * groups_ + g) * 3 * kFeatures;
            task.largest = largest_.data() + row * channels_ + g * kFeatures;
            kernels_.gradient_row(task);
        }
        kernels_.bit_row(words_ + row * width, width, bits_.data() + (1 + row) * bit_bytes_);
    }

    // Of images [first, end). False where a gradient is not finite.
    bool find_scales(size_t first, size_t end) {
        std::vector<uint32_t> of_all(channels_);
        for (size_t image = first; image < end; ++image) {
            std::vector<uint32_t> most(channels_);  // bits, which are in the order of the magnitudes that they mean
            for (size_t y = 0; y < shape_.height; ++y) {
                const uint32_t* row = largest_.data() + (image * shape_.height + y) * channels_;
                for (size_t c = 0; c < channels_; ++c) most[c] = std::max(most[c], row[c]);
            }
            float scaled = 0;
            for (size_t c = 0; c < channels_; ++c) {
                of_all[c] = std::max(of_all[c], most[c]);
                const float largest = from_bits(most[c]) * alpha(c);
                if (!std::isfinite(largest)) return false;
                scaled = std::max(scaled, largest);
            }
            const float scale = scale_for(scaled);
            input_unit_[image] = 1 / scale;
            for (size_t c = 0; c < channels_; ++c) input_scale_[image * channels_ + c] = alpha(c) * scale;
        }
        for (size_t c = 0; c < channels_; ++c) weight_scale_[c] = scale_for(from_bits(of_all[c]));
        return true;
    }

    float alpha(size_t channel) const { return prepared_.groups[channel / kFeatures].scale[channel % kFeatures]; }

    void reduce_rprelu() {
        float* const to[3] = {to_.bias0, to_.slope, to_.bias1};
        for (size_t g = 0; g < groups_; ++g) {
            for (size_t i = 0; i < 3; ++i) {
                double sums[kFeatures] = {};
                for (size_t row = 0; row < rows_; ++row)
                    for (size_t c = 0; c < kFeatures; ++c)
                        sums[c] += partial_[((row * groups_ + g) * 3 + i) * kFeatures + c];
                for (size_t c = 0; c < kFeatures; ++c) to[i][c * groups_ + g] = static_cast<float>(sums[c]);
            }
        }
    }

    void reduce_shift() {
        double sums[kFeatures] = {};
        for (size_t row = 0; row < rows_; ++row)
            for (size_t c = 0; c < kFeatures; ++c) sums[c] += shift_partial_[row * kFeatures + c];
        for (size_t c = 0; c < kFeatures; ++c) to_.shift[c] = static_cast<float>(sums[c]);
    }

    // What is not finite has no fixed point; the trouble shows in the loss, as it does without these kernels.
    void fill_nan() {
        constexpr float nan = std::numeric_limits<float>::quiet_NaN();
        std::fill_n(to_.x, shape_.pixels() * kFeatures, nan);
        std::fill_n(to_.shift, kFeatures, nan);
        std::fill_n(to_.weight, groups_ * kFeatures * kTaps * kFeatures, nan);
    }

    // `rows` rows of the input's gradient from `first` on; `ring` holds the quantised row y at y % 3.
    void input(size_t image, size_t first, size_t rows, uint8_t* ring) {
        const size_t height = shape_.height, width = shape_.width, step = shape_.step;
        const auto slot = [&](size_t y) { return ring + y % 3 * quantised_bytes_; };
        size_t ready = first ? first - 1 : 0;  // the next row to quantise
        for (size_t y = first; y < std::min(first + rows, height); ++y) {
            for (; ready < std::min(y + 2, height); ++ready)
                kernels_.quantise_row(gradient_row(image * height + ready), input_scale_.data() + image * channels_,
                                      width, groups_, slot(ready));
            const size_t row = image * height + y;
            InputRow task{};
            task.rows[0] = y ? slot(y - 1) : nullptr;
            task.rows[1] = slot(y);
            task.rows[2] = y + 1 < height ? slot(y + 1) : nullptr;
            task.weights = input_weights_.data();
            task.step = step;
            task.width = width;
            task.unit = input_unit_[image];
            task.x = x_ + row * width * kFeatures;
            task.shift = unit_.shift;
            task.peak = peak_;
            task.steepness = steepness_;
            task.grad = grad_ + row * step * width * step * kFeatures;
            task.out = to_.x + row * width * kFeatures;
            task.partial = shift_partial_.data() + row * kFeatures;
            kernels_.input_row(task);
        }
    }

    // What images [first, end) give to the weights' gradient of channels [from, to) * kOutputs.
    void weights(size_t first, size_t end, size_t from, size_t to, uint8_t* scratch) {
        constexpr size_t kSums = kOutputs * kTaps * kFeatures;
        const Scratch<int32_t> sums((to - from) * kSums);  // of the last `pixels` pixels
        std::fill_n(sums.data(), (to - from) * kSums, 0);
        size_t pixels = 0;
        const auto add_up = [&] {
            for (size_t channel = from * kOutputs; channel < to * kOutputs; ++channel) {
                const float unit = 1 / weight_scale_[channel];
                const int32_t* sum = sums.data() + (channel - from * kOutputs) * kTaps * kFeatures;
                float* total = weight_total_.data() + channel * kTaps * kFeatures;
                for (size_t i = 0; i < kTaps * kFeatures; ++i) total[i] += static_cast<float>(sum[i]) * unit;
            }
            std::fill_n(sums.data(), (to - from) * kSums, 0);
            pixels = 0;
        };
        for (size_t image = first; image < end; ++image) {
            for (size_t y = 0; y < shape_.height; y += weight_rows_) {
                const size_t row = image * shape_.height + y;
                WeightRows task{};
                task.gradient = gradient_row(row) + from * kOutputs;
                task.outputs = (to - from) * kOutputs;
                task.scale = weight_scale_.data() + from * kOutputs;
                task.sums = sums.data();
                task.pitch = channels_;
                task.bits = bits_.data() + row * bit_bytes_;
                task.rows = std::min(weight_rows_, shape_.height - y);
                task.width = shape_.width;
                task.above = y > 0;
                task.below = y + task.rows < shape_.height;
                task.scratch = scratch;
                if (pixels + task.rows * task.width > kMaxPixels) add_up();
                pixels += task.rows * task.width;
                kernels_.weight_rows(task);
            }
        }
        add_up();
    }

    void store_weights() {
        constexpr size_t kSums = kTaps * kFeatures;
        for (size_t channel = 0; channel < channels_; ++channel) {
            const size_t from = (channel % kFeatures * groups_ + channel / kFeatures) * kSums;
            const float* sum = weight_total_.data() + channel * kSums;
            for (size_t i = 0; i < kSums; ++i)
                to_.weight[from + i] = std::fabs(unit_.weight[from + i]) <= 1 ? sum[i] : 0.0f;
        }
    }

    const Kernels& kernels_;
    const Shape& shape_;
    const Unit& unit_;
    float peak_;
    float steepness_;
    const float* x_;
    const uint64_t* words_;
    const int16_t* sums_;
    const float* grad_;
    const Gradients& to_;
    size_t rows_, groups_, channels_;
    Prepared prepared_;
    size_t at_once_;                      // images
    Scratch<float> gradient_;             // [their pixels][groups][64], of scale * sum
    Scratch<float> partial_;              // [rows][groups][3][64]
    Scratch<float> shift_partial_;        // [rows][64]
    Scratch<uint32_t> largest_;           // [rows][groups][64]
    Scratch<float> input_scale_;          // [images][groups][64]
    Scratch<float> input_unit_;           // [images]
    Scratch<float> weight_scale_;         // [groups][64], of the images at work
    Scratch<float> weight_total_;         // [groups][64][9][64], of those before
    size_t quantised_bytes_, bit_bytes_;  // of a row
    Scratch<uint8_t> bits_;               // [1 + rows]; the first is never read
    Scratch<uint8_t> input_weights_;
    size_t weight_rows_;  // at once
};

}  // namespace

void forward(const Kernels& kernels, const Shape& shape, const Unit& unit, const float* x, float* out, uint64_t* words,
             int16_t* sums, size_t threads) {
    const Prepared prepared(kernels, shape, unit);
    const size_t width = shape.width, step = shape.step, groups = shape.groups();
    const Scratch<uint8_t> weights(groups * kernels.weight_bytes);
    for (size_t g = 0; g < groups; ++g)
        kernels.pack_weights(prepared.words.data() + g * kTaps * kFeatures, weights.data() + g * kernels.weight_bytes);
    const size_t at_once = images_at_once(shape) * shape.height, all = shape.images * shape.height;
    const auto pack = [&](size_t row) {
        kernels.pack(x + row * width * kFeatures, unit.shift, width, words + row * width);
    };
    const auto forward_row = [&](size_t row) {
        ForwardRow task{};
        window(words + row / shape.height * shape.height * width, row % shape.height, shape.height, width, task.rows);
        task.width = width;
        task.residual = x + row * width * kFeatures;
        task.out_pitch = step * kFeatures;
        task.sums_pitch = groups * kFeatures;
        for (size_t g = 0; g < groups; ++g) {
            task.weights = weights.data() + g * kernels.weight_bytes;
            task.group = &prepared.groups[g];
            task.out = out + ((row * step + g / step) * width * step + g % step) * kFeatures;
            task.sums = sums ? sums + (row * width * groups + g) * kFeatures : nullptr;
            kernels.forward_row(task);
        }
    };
    for (size_t first = 0; first < all; first += at_once) {
        const size_t rows = std::min(at_once, all - first);
        share(rows, threads, [&] { return [&](size_t row) { pack(first + row); }; });
        share(rows, threads, [&] { return [&](size_t row) { forward_row(first + row); }; });
    }
}

void backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
              const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients,
              size_t threads) {
    Backward(kernels, shape, unit, window, x, words, sums, grad, gradients).run(threads);
}

}  // namespace bbcu::train
