// A unit's passes, cut into rows and blocks that threads take in turn.

#include "unit.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "memory.h"
#include "threads.h"

namespace bbcu::train {

#if defined(__x86_64__)
extern const Kernels kAvx512;
extern const Kernels kAvx2;
#endif
extern const Kernels kScalar;

const std::vector<const Kernels*>& kernels() {
    static const std::vector<const Kernels*> sets = {
#if defined(__x86_64__)
        &kAvx2,
#endif
        &kScalar,
    };
    return sets;
}

const Kernels& choose_kernels(const std::string& name) {
    std::string known;
    for (const Kernels* set : kernels()) {
        if (name.empty() ? set->supported() : name == set->name) {
            if (!set->supported())
                throw std::invalid_argument("training kernel set " + name + " needs " + set->required_features +
                                            ", which this CPU does not have");
            return *set;
        }
        known += (known.empty() ? "" : ", ") + std::string(set->name);
    }
    throw std::invalid_argument("no training kernel set is called " + name + "; there are " + known);
}

namespace {

// Calls work(item) for every item below `count`, on up to `threads` threads, in order of the items' start.
// make() is called once on each thread for what work needs.
template <class Make>
void share(size_t count, size_t threads, const Make& make) {
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
    const auto run = [&] {
        try {
            auto work = make();
            for (size_t item; (item = next++) < count;) work(item);
        } catch (...) {
            next = count;
            const std::lock_guard<std::mutex> lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    const size_t wanted = std::min(threads, count);
    if (wanted > 1)
        run_on_threads(wanted - 1, run);
    else
        run();
    if (failure) std::rethrow_exception(failure);
}

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
float scale_for(float largest) { return largest > 0 ? std::min(kMost / largest, 0x1p126f) : 1.0f; }

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

class Backward {
public:
    Backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
             const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients)
        : kernels_(kernels), shape_(shape), unit_(unit), peak_(2.0f / window), steepness_(peak_ / window), x_(x),
          words_(words), sums_(sums), grad_(grad), to_(gradients), rows_(shape.images * shape.height), groups_(shape.groups()),
          channels_(groups_ * kFeatures), prepared_(kernels, shape, unit), gradient_(shape.pixels() * channels_),
          partial_(rows_ * 3 * channels_), shift_partial_(rows_ * kFeatures), largest_(rows_ * channels_),
          largest_scaled_(rows_), input_scale_(shape.images * channels_), input_unit_(shape.images),
          weight_scale_(channels_), input_bytes_(kernels.input_bytes(shape.width, groups_)),
          output_bytes_(kernels.output_bytes(shape.height, shape.width)), bit_bytes_(kernels.bit_row_bytes(shape.width)),
          for_input_(rows_ * input_bytes_), for_weight_(shape.images * output_bytes_ * channels_ / kQuad),
          ends_(rows_ * 2 * channels_), bits_(rows_ * bit_bytes_), input_weights_(kernels.input_weight_bytes(groups_)) {}

    void run(size_t threads) {
        share(rows_, threads, [this] { return [this](size_t row) { differentiate(row); }; });
        reduce_rprelu();
        if (!find_scales()) return fill_nan();
        kernels_.pack_input_weights(prepared_.words.data(), groups_, input_weights_.data());
        share(rows_, threads, [this] { return [this](size_t row) { quantise(row); }; });
        const size_t quads = channels_ / kQuad;
        share(quads + rows_, threads, [&] {
            return [this, quads](size_t item) {
                if (item < quads)
                    weights(item);
                else
                    input(item - quads);
            };
        });
        reduce_shift();
    }

private:
    float* gradient_row(size_t row) const { return gradient_.data() + row * shape_.width * channels_; }

    // Through the RPReLU of one row of all groups; and its bit row.
    void differentiate(size_t row) {
        const size_t width = shape_.width, step = shape_.step;
        largest_scaled_[row] = 0;
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
            largest_scaled_[row] = std::max(largest_scaled_[row], task.largest_scaled);
        }
        kernels_.bit_row(words_ + row * width, width, bits_.data() + row * bit_bytes_);
    }

    // False where a gradient is not finite.
    bool find_scales() {
        for (size_t image = 0; image < shape_.images; ++image) {
            const uint32_t* rows = largest_scaled_.data() + image * shape_.height;
            const float largest = from_bits(*std::max_element(rows, rows + shape_.height));
            if (!std::isfinite(largest)) return false;
            const float scale = scale_for(largest);
            input_unit_[image] = 1 / scale;
            for (size_t g = 0; g < groups_; ++g)
                for (size_t c = 0; c < kFeatures; ++c)
                    input_scale_[image * channels_ + g * kFeatures + c] = prepared_.groups[g].scale[c] * scale;
        }
        uint32_t* most = largest_.data();  // of all rows, in the first
        for (size_t row = 1; row < rows_; ++row)
            for (size_t c = 0; c < channels_; ++c) most[c] = std::max(most[c], largest_[row * channels_ + c]);
        for (size_t c = 0; c < channels_; ++c) {
            if (!std::isfinite(from_bits(most[c]))) return false;
            weight_scale_[c] = scale_for(from_bits(most[c]));
        }
        return true;
    }

    void quantise(size_t row) {
        const size_t image = row / shape_.height;
        QuantiseRow task{};
        task.gradient = gradient_row(row);
        task.width = shape_.width;
        task.groups = groups_;
        task.input_scale = input_scale_.data() + image * channels_;
        task.weight_scale = weight_scale_.data();
        task.input = for_input_.data() + row * input_bytes_;
        task.weight = for_weight_.data() + image * output_bytes_;
        task.weight_pitch = shape_.images * output_bytes_;
        task.y = row % shape_.height;
        task.height = shape_.height;
        task.ends = ends_.data() + row * 2 * channels_;
        kernels_.quantise_row(task);
    }

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

    void input(size_t row) {
        const size_t image = row / shape_.height, width = shape_.width, step = shape_.step;
        InputRow task{};
        const uint8_t* rows = for_input_.data() + image * shape_.height * input_bytes_;
        window(rows, row % shape_.height, shape_.height, input_bytes_, task.rows);
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

    // The weights' gradient of kQuad output channels of a group.
    void weights(size_t quad) {
        constexpr size_t kSums = kQuad * kTaps * kFeatures;
        int32_t sums[kSums] = {};
        double total[kSums] = {};  // whole numbers
        size_t pixels = 0;  // that are in sums
        const auto add_up = [&] {
            for (size_t i = 0; i < kSums; ++i) total[i] += sums[i];
            std::fill_n(sums, kSums, 0);
            pixels = 0;
        };
        for (size_t image = 0; image < shape_.images; ++image) {
            if (pixels + shape_.height * shape_.width > kMaxPixels) add_up();
            pixels += shape_.height * shape_.width;
            WeightImage task{};
            task.gradient = for_weight_.data() + (quad * shape_.images + image) * output_bytes_;
            task.bits = bits_.data() + image * shape_.height * bit_bytes_;
            task.height = shape_.height;
            task.width = shape_.width;
            task.sums = sums;
            kernels_.weight_image(task);
        }
        add_up();
        const size_t group = quad * kQuad / kFeatures, first = quad * kQuad % kFeatures;
        for (size_t q = 0; q < kQuad; ++q) {
            double outside[kTaps];
            add_outside(quad * kQuad + q, outside);
            const double unit = 1.0 / weight_scale_[quad * kQuad + q];
            for (size_t tap = 0; tap < kTaps; ++tap) {
                const size_t from = (((first + q) * groups_ + group) * kTaps + tap) * kFeatures;
                const double* sum = total + (q * kTaps + tap) * kFeatures;
                for (size_t c = 0; c < kFeatures; ++c) {
                    const auto value = static_cast<float>((sum[c] - outside[tap]) * unit);
                    to_.weight[from + c] = std::fabs(unit_.weight[from + c]) <= 1 ? value : 0.0f;
                }
            }
        }
    }

    // What signs left and right of the images gave to a channel's taps, as if they were +1.
    void add_outside(size_t channel, double (&outside)[kTaps]) const {
        int64_t sums[2][3] = {};  // of the first and of the last pixel; of all rows, of the last, of the first
        for (size_t row = 0; row < rows_; row += shape_.height) {
            for (size_t side = 0; side < 2; ++side) {
                const int16_t* end = ends_.data() + (2 * row + side) * channels_ + channel;
                for (size_t y = 0; y < shape_.height; ++y) sums[side][0] += end[2 * y * channels_];
                sums[side][1] += end[2 * (shape_.height - 1) * channels_];
                sums[side][2] += end[0];
            }
        }
        for (size_t dy = 0; dy < 3; ++dy) {
            const auto of = [&](size_t side) {
                const int64_t missing = dy == 0 ? sums[side][2] : dy == 2 ? sums[side][1] : 0;
                return static_cast<double>(sums[side][0] - missing);
            };
            outside[3 * dy] = of(0);
            outside[3 * dy + 1] = 0;
            outside[3 * dy + 2] = of(1);
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
    Scratch<float> gradient_;           // [pixels][groups][64], of scale * sum
    Scratch<float> partial_;            // [rows][groups][3][64]
    Scratch<float> shift_partial_;      // [rows][64]
    Scratch<uint32_t> largest_;         // [rows][groups][64]
    Scratch<uint32_t> largest_scaled_;  // [rows]
    Scratch<float> input_scale_;        // [images][groups][64]
    Scratch<float> input_unit_;         // [images]
    Scratch<float> weight_scale_;       // [groups][64]
    size_t input_bytes_, output_bytes_, bit_bytes_;  // of a row, an image's kQuad channels, a row
    Scratch<uint8_t> for_input_;        // [rows], quantised
    Scratch<uint8_t> for_weight_;       // [groups][64 / kQuad][images], quantised
    Scratch<int16_t> ends_;             // [rows][2][groups][64]
    Scratch<uint8_t> bits_;             // [rows]
    Scratch<uint8_t> input_weights_;
};

}  // namespace

void forward(const Kernels& kernels, const Shape& shape, const Unit& unit, const float* x, float* out, uint64_t* words,
             int16_t* sums, size_t threads) {
    const Prepared prepared(kernels, shape, unit);
    const size_t width = shape.width, step = shape.step, groups = shape.groups();
    const Scratch<uint8_t> weights(groups * kernels.weight_bytes);
    for (size_t g = 0; g < groups; ++g)
        kernels.pack_weights(prepared.words.data() + g * kTaps * kFeatures, weights.data() + g * kernels.weight_bytes);
    share(shape.images * shape.height, threads, [&] {
        return [&](size_t row) {
            kernels.pack(x + row * width * kFeatures, unit.shift, width, words + row * width);
        };
    });
    share(shape.images * shape.height, threads, [&] {
        return [&](size_t row) {
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
    });
}

void backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
              const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients,
              size_t threads) {
    Backward(kernels, shape, unit, window, x, words, sums, grad, gradients).run(threads);
}

}  // namespace bbcu::train
