// A unit's passes, cut into rows and blocks that threads take in turn.

#include "unit.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

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
constexpr size_t kPartPixels = 1200;  // of a part, so that the caches hold what passes of it

// Images of a batch that go through a unit together: a *part*. Threads share the parts of a batch, and where there are
// more threads than parts also the rows of each. Sums go by parts, in order, so that threads change no bits.
size_t images_at_once(const Shape& shape) {
    return std::clamp<size_t>(kPartPixels / (shape.height * shape.width * shape.groups()), 1, shape.images);
}

// What all parts of a backward pass read and write.
struct Pass {
    const Kernels& kernels;
    const Shape& shape;
    const Unit& unit;
    const float* x;
    const uint64_t* words;
    const int16_t* sums;
    const float* grad;
    const Gradients& to;
    float peak, steepness;
    size_t rows, groups, channels;
    size_t at_once, parts;  // images of a part, and how many there are
    size_t at_work;         // parts, each on a thread of its own
    Prepared prepared;
    Scratch<float> partial;         // [rows][groups][3][64]
    Scratch<float> shift_partial;   // [rows][64]
    Scratch<float> weight_partial;  // [parts, or 1 where they follow each other][groups][64][9][64]
    Scratch<uint8_t> input_weights;

    Pass(const Kernels& kernels_, const Shape& shape_, const Unit& unit_, float window, const float* x_,
         const uint64_t* words_, const int16_t* sums_, const float* grad_, const Gradients& gradients, size_t threads)
        : kernels(kernels_), shape(shape_), unit(unit_), x(x_), words(words_), sums(sums_), grad(grad_), to(gradients),
          peak(2.0f / window), steepness(peak / window), rows(shape.images * shape.height), groups(shape.groups()),
          channels(groups * kFeatures), at_once(images_at_once(shape)), parts((shape.images + at_once - 1) / at_once),
          at_work(std::min(threads, parts)), prepared(kernels, shape, unit), partial(rows * 3 * channels),
          shift_partial(rows * kFeatures), weight_partial((at_work > 1 ? parts : 1) * channels * kTaps * kFeatures),
          input_weights(kernels.input_weight_bytes(groups)) {
        kernels.pack_input_weights(prepared.words.data(), groups, input_weights.data());
    }

    float alpha(size_t channel) const { return prepared.groups[channel / kFeatures].scale[channel % kFeatures]; }

    void reduce_rprelu() const {
        float* const into[3] = {to.bias0, to.slope, to.bias1};
        for (size_t g = 0; g < groups; ++g) {
            for (size_t i = 0; i < 3; ++i) {
                double all[kFeatures] = {};
                for (size_t row = 0; row < rows; ++row)
                    for (size_t c = 0; c < kFeatures; ++c)
                        all[c] += partial[((row * groups + g) * 3 + i) * kFeatures + c];
                for (size_t c = 0; c < kFeatures; ++c) into[i][c * groups + g] = static_cast<float>(all[c]);
            }
        }
    }

    void reduce_shift() const {
        double all[kFeatures] = {};
        for (size_t row = 0; row < rows; ++row)
            for (size_t c = 0; c < kFeatures; ++c) all[c] += shift_partial[row * kFeatures + c];
        for (size_t c = 0; c < kFeatures; ++c) to.shift[c] = static_cast<float>(all[c]);
    }

    void reduce_weights() const {
        constexpr size_t kSums = kTaps * kFeatures;
        for (size_t channel = 0; channel < channels; ++channel) {
            const size_t at = (channel % kFeatures * groups + channel / kFeatures) * kSums;
            const float* from = weight_partial.data() + channel * kSums;
            float all[kSums];
            std::copy_n(from, kSums, all);
            for (size_t part = 1; at_work > 1 && part < parts; ++part)
                for (size_t i = 0; i < kSums; ++i) all[i] += from[part * channels * kSums + i];
            for (size_t i = 0; i < kSums; ++i) to.weight[at + i] = std::fabs(unit.weight[at + i]) <= 1 ? all[i] : 0.0f;
        }
    }

    // What is not finite has no fixed point; the trouble shows in the loss, as it does without these kernels.
    void fill_nan() const {
        constexpr float nan = std::numeric_limits<float>::quiet_NaN();
        std::fill_n(to.x, shape.pixels() * kFeatures, nan);
        std::fill_n(to.shift, kFeatures, nan);
        std::fill_n(to.weight, groups * kFeatures * kTaps * kFeatures, nan);
    }
};

// A part at work, one after the other.
class PartPass {
public:
    explicit PartPass(const Pass& pass)
        : all_(pass), rows_(pass.at_once * pass.shape.height), gradient_(rows_ * pass.shape.width * pass.channels),
          largest_(rows_ * pass.channels), input_scale_(pass.at_once * pass.channels), input_unit_(pass.at_once),
          weight_scale_(pass.channels), quantised_bytes_(pass.kernels.quantised_bytes(pass.shape.width, pass.groups)),
          bit_bytes_(pass.kernels.bit_row_bytes(pass.shape.width)), bits_((1 + rows_) * bit_bytes_),
          weight_rows_(std::clamp<size_t>(kBandPixels / pass.shape.width, 1, pass.shape.height)) {}

    // False where a gradient is not finite.
    bool run(size_t part, size_t threads) {
        first_ = part * all_.at_once;
        images_ = std::min(all_.at_once, all_.shape.images - first_);
        const size_t height = all_.shape.height;
        share(images_ * height, threads, [this] { return [this](size_t row) { differentiate(row); }; });
        if (!find_scales()) return false;
        alone_ = all_.at_work > 1 || part == 0;
        weight_sums_ = all_.weight_partial.data() + (alone_ ? part : 0) * all_.channels * kTaps * kFeatures;
        const size_t outputs = all_.channels / kOutputs, cuts = std::min(threads, outputs);
        const size_t bands = (height + kBandRows - 1) / kBandRows, rows = (height + bands - 1) / bands;
        share(cuts + images_ * bands, threads, [&, this] {
            return
                [&, this, quantised = Scratch<uint8_t>(3 * quantised_bytes_),
                 scratch = Scratch<uint8_t>(all_.kernels.scratch_bytes(weight_rows_, all_.shape.width))](size_t item) {
                    if (item < cuts)
                        weights(item * outputs / cuts, (item + 1) * outputs / cuts, scratch.data());
                    else
                        input((item - cuts) / bands, (item - cuts) % bands * rows, rows, quantised.data());
                };
        });
        return true;
    }

private:
    // Rows and images are those of the part; `of_all` is a row among those of the batch.
    size_t of_all(size_t row) const { return first_ * all_.shape.height + row; }

    float* gradient_row(size_t row) const { return gradient_.data() + row * all_.shape.width * all_.channels; }

    // Through the RPReLU of one row of all groups; and its bit row.
    void differentiate(size_t row) {
        const size_t width = all_.shape.width, step = all_.shape.step, groups = all_.groups, whole = of_all(row);
        for (size_t g = 0; g < groups; ++g) {
            GradientRow task{};
            task.grad = all_.grad + ((whole * step + g / step) * width * step + g % step) * kFeatures;
            task.grad_pitch = step * kFeatures;
            task.sums = all_.sums + whole * width * all_.channels + g * kFeatures;
            task.gradient = gradient_row(row) + g * kFeatures;
            task.pitch = all_.channels;
            task.width = width;
            task.group = &all_.prepared.groups[g];
            task.partial = all_.partial.data() + (whole * groups + g) * 3 * kFeatures;
            task.largest = largest_.data() + row * all_.channels + g * kFeatures;
            all_.kernels.gradient_row(task);
        }
        all_.kernels.bit_row(all_.words + whole * width, width, bits_.data() + (1 + row) * bit_bytes_);
    }

    // False where a gradient is not finite.
    bool find_scales() {
        const size_t height = all_.shape.height, channels = all_.channels;
        std::vector<uint32_t> of_part(channels);
        for (size_t image = 0; image < images_; ++image) {
            std::vector<uint32_t> most(channels);  // bits, which are in the order of the magnitudes that they mean
            for (size_t y = 0; y < height; ++y) {
                const uint32_t* row = largest_.data() + (image * height + y) * channels;
                for (size_t c = 0; c < channels; ++c) most[c] = std::max(most[c], row[c]);
            }
            float scaled = 0;
            for (size_t c = 0; c < channels; ++c) {
                of_part[c] = std::max(of_part[c], most[c]);
                const float largest = from_bits(most[c]) * all_.alpha(c);
                if (!std::isfinite(largest)) return false;
                scaled = std::max(scaled, largest);
            }
            const float scale = scale_for(scaled);
            input_unit_[image] = 1 / scale;
            for (size_t c = 0; c < channels; ++c) input_scale_[image * channels + c] = all_.alpha(c) * scale;
        }
        for (size_t c = 0; c < channels; ++c) weight_scale_[c] = scale_for(from_bits(of_part[c]));
        return true;
    }

    // `rows` rows of the input's gradient from `first` on; `ring` holds the quantised row y at y % 3.
    void input(size_t image, size_t first, size_t rows, uint8_t* ring) {
        const size_t height = all_.shape.height, width = all_.shape.width, step = all_.shape.step;
        const auto slot = [&](size_t y) { return ring + y % 3 * quantised_bytes_; };
        size_t ready = first ? first - 1 : 0;  // the next row to quantise
        for (size_t y = first; y < std::min(first + rows, height); ++y) {
            for (; ready < std::min(y + 2, height); ++ready)
                all_.kernels.quantise_row(gradient_row(image * height + ready),
                                          input_scale_.data() + image * all_.channels, width, all_.groups, slot(ready));
            const size_t row = of_all(image * height + y);
            InputRow task{};
            task.rows[0] = y ? slot(y - 1) : nullptr;
            task.rows[1] = slot(y);
            task.rows[2] = y + 1 < height ? slot(y + 1) : nullptr;
            task.weights = all_.input_weights.data();
            task.step = step;
            task.width = width;
            task.unit = input_unit_[image];
            task.x = all_.x + row * width * kFeatures;
            task.shift = all_.unit.shift;
            task.peak = all_.peak;
            task.steepness = all_.steepness;
            task.grad = all_.grad + row * step * width * step * kFeatures;
            task.out = all_.to.x + row * width * kFeatures;
            task.partial = all_.shift_partial.data() + row * kFeatures;
            all_.kernels.input_row(task);
        }
    }

    // The weights' gradient of channels [from, to) * kOutputs.
    void weights(size_t from, size_t to, uint8_t* scratch) {
        constexpr size_t kSums = kTaps * kFeatures;
        const size_t height = all_.shape.height, width = all_.shape.width, channels = (to - from) * kOutputs;
        const Scratch<int32_t> sums(channels * kSums);  // a part has no more than kMaxPixels
        std::fill_n(sums.data(), channels * kSums, 0);
        for (size_t image = 0; image < images_; ++image) {
            for (size_t y = 0; y < height; y += weight_rows_) {
                const size_t row = image * height + y;
                WeightRows task{};
                task.gradient = gradient_row(row) + from * kOutputs;
                task.outputs = channels;
                task.scale = weight_scale_.data() + from * kOutputs;
                task.sums = sums.data();
                task.pitch = all_.channels;
                task.bits = bits_.data() + row * bit_bytes_;
                task.rows = std::min(weight_rows_, height - y);
                task.width = width;
                task.above = y > 0;
                task.below = y + task.rows < height;
                task.scratch = scratch;
                all_.kernels.weight_rows(task);
            }
        }
        float* into = weight_sums_ + from * kOutputs * kSums;
        const int32_t* sum = sums.data();
        for (size_t channel = 0; channel < channels; ++channel, into += kSums, sum += kSums) {
            const float unit = 1 / weight_scale_[from * kOutputs + channel];
            for (size_t i = 0; i < kSums; ++i) into[i] = (alone_ ? 0 : into[i]) + static_cast<float>(sum[i]) * unit;
        }
    }

    const Pass& all_;
    size_t first_ = 0, images_ = 0;       // of the batch
    float* weight_sums_ = nullptr;        // [groups][64][9][64]
    bool alone_ = false;                  // whether these are the part's own, or those of the parts before
    size_t rows_;                         // at most
    Scratch<float> gradient_;             // [rows][width][groups][64], of scale * sum
    Scratch<uint32_t> largest_;           // [rows][groups][64]
    Scratch<float> input_scale_;          // [images][groups][64]
    Scratch<float> input_unit_;           // [images]
    Scratch<float> weight_scale_;         // [groups][64]
    size_t quantised_bytes_, bit_bytes_;  // of a row
    Scratch<uint8_t> bits_;               // [1 + rows]; the first is never read
    size_t weight_rows_;                  // at once
};

}  // namespace

void forward(const Kernels& kernels, const Shape& shape, const Unit& unit, const float* x, float* out, uint64_t* words,
             int16_t* sums, size_t threads) {
    const Prepared prepared(kernels, shape, unit);
    const size_t width = shape.width, step = shape.step, groups = shape.groups();
    const Scratch<uint8_t> weights(groups * kernels.weight_bytes);
    for (size_t g = 0; g < groups; ++g)
        kernels.pack_weights(prepared.words.data() + g * kTaps * kFeatures, weights.data() + g * kernels.weight_bytes);
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
    const auto run_image = [&](size_t image) {
        const size_t begin = image * shape.height;
        for (size_t row = begin; row < begin + shape.height; ++row) pack(row);
        for (size_t row = begin; row < begin + shape.height; ++row) forward_row(row);
    };
    if (shape.images >= threads) return share_again(shape.images, threads, [&] { return run_image; });
    share(shape.images * shape.height, threads, [&] { return pack; });
    share(shape.images * shape.height, threads, [&] { return forward_row; });
}

void backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
              const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients,
              size_t threads) {
    const Pass pass(kernels, shape, unit, window, x, words, sums, grad, gradients, threads);
    std::atomic<bool> finite{true};
    share_again(pass.parts, pass.at_work, [&] {
        return [&, at_work = PartPass(pass)](size_t part) mutable {
            if (!at_work.run(part, threads / pass.at_work)) finite = false;
        };
    });
    pass.reduce_rprelu();
    if (!finite) return pass.fill_nan();
    pass.reduce_shift();
    pass.reduce_weights();
}

}  // namespace bbcu::train
