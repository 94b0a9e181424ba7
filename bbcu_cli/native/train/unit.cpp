// A unit's passes, cut into rows and blocks that threads take in turn.

#include "unit.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>

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
        &kAvx512, &kAvx2,
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

constexpr size_t kBandRows = 8;       // of the input's gradient; two more rows are quantised for each band
constexpr size_t kBlockPixels = 384;  // of the weights' gradient; a block's tables fit the first-level cache

// Aligned memory, not initialised.
template <class T>
class Scratch {
public:
    explicit Scratch(size_t count)
        : data_(static_cast<T*>(::operator new(std::max<size_t>(1, count) * sizeof(T), std::align_val_t{kAlign}))) {}
    T* data() const { return data_.get(); }
    T& operator[](size_t i) const { return data_.get()[i]; }

private:
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t{kAlign}); }
    };
    std::unique_ptr<T, Free> data_;
};

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

// A power of two, so that scaling loses nothing, under which `count` numbers up to `largest` sum within 31 bits.
float scale_for(float largest, size_t count) {
    if (largest == 0) return 1;
    const auto most = std::numeric_limits<int32_t>::max() / static_cast<int64_t>(count);
    int exponent;
    std::frexp(static_cast<double>(most) / largest, &exponent);
    return std::ldexp(1.0f, std::min(exponent - 1, 126));
}

class Backward {
public:
    Backward(const Kernels& kernels, const Shape& shape, const Unit& unit, float window, const float* x,
             const uint64_t* words, const int16_t* sums, const float* grad, const Gradients& gradients)
        : kernels_(kernels), shape_(shape), unit_(unit), peak_(2.0f / window), steepness_(peak_ / window), x_(x),
          words_(words), sums_(sums), grad_(grad), to_(gradients), rows_(shape.images * shape.height), groups_(shape.groups()),
          prepared_(kernels, shape, unit), gradient_(shape.pixels() * groups_ * kFeatures),
          partial_(rows_ * groups_ * 3 * kFeatures), shift_partial_(rows_ * kFeatures), largest_(rows_ * 2),
          bits_(rows_ * kernels.bit_row_bytes(shape.width)), scale_(groups_ * kFeatures),
          input_weights_(kernels.input_weight_bytes(groups_)) {}

    void run(size_t threads) {
        share(rows_, threads, [this] { return [this](size_t row) { differentiate(row); }; });
        reduce_rprelu();
        float largest[2] = {};
        for (size_t i = 0; i < 2; ++i) {
            uint32_t bits = 0;
            for (size_t row = 0; row < rows_; ++row) bits = std::max(bits, largest_[2 * row + i]);
            std::memcpy(&largest[i], &bits, sizeof bits);
        }
        if (!std::isfinite(largest[0]) || !std::isfinite(largest[1])) return fill_nan();

        const float scale = scale_for(largest[0], kTaps * kFeatures * groups_);
        input_unit_ = 1 / scale;
        for (size_t g = 0; g < groups_; ++g)
            for (size_t c = 0; c < kFeatures; ++c) scale_[g * kFeatures + c] = prepared_.groups[g].scale[c] * scale;
        kernels_.pack_input_weights(prepared_.words.data(), groups_, input_weights_.data());
        block_rows_ = std::clamp<size_t>(kBlockPixels / shape_.width, 1, shape_.height);
        weight_scale_ = scale_for(largest[1], block_rows_ * shape_.width);

        const size_t quads = groups_ * kFeatures / kQuad;
        const size_t bands = (shape_.height + kBandRows - 1) / kBandRows;
        share(quads + shape_.images * bands, threads, [&] {
            return [this, quads, bands, rows = Scratch<uint8_t>(3 * quantised_bytes()),
                    tables = Scratch<uint8_t>(kernels_.block_bytes(block_rows_, shape_.width))](size_t item) {
                if (item < quads)
                    weights(item, tables.data());
                else
                    input((item - quads) / bands, (item - quads) % bands * kBandRows, rows.data());
            };
        });
        reduce_shift();
    }

private:
    size_t quantised_bytes() const { return kernels_.quantised_bytes(shape_.width, groups_); }
    float* gradient_row(size_t row) const { return gradient_.data() + row * shape_.width * groups_ * kFeatures; }

    // Through the RPReLU of one row of all groups; and its bit row.
    void differentiate(size_t row) {
        const size_t width = shape_.width, step = shape_.step, pitch = groups_ * kFeatures;
        largest_[2 * row] = largest_[2 * row + 1] = 0;
        for (size_t g = 0; g < groups_; ++g) {
            GradientRow task{grad_ + ((row * step + g / step) * width * step + g % step) * kFeatures,
                             step * kFeatures,
                             sums_ + row * width * pitch + g * kFeatures,
                             gradient_row(row) + g * kFeatures,
                             pitch,
                             width,
                             &prepared_.groups[g],
                             partial_.data() + (row * groups_ + g) * 3 * kFeatures,
                             {}};
            kernels_.gradient_row(task);
            for (size_t i = 0; i < 2; ++i) largest_[2 * row + i] = std::max(largest_[2 * row + i], task.largest[i]);
        }
        const size_t bytes = kernels_.bit_row_bytes(width);
        kernels_.bit_row(words_ + row * width, width, bits_.data() + row * bytes);
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

    // kBandRows rows of the input's gradient; `ring` holds the quantised row y at y % 3.
    void input(size_t image, size_t first, uint8_t* ring) {
        const size_t height = shape_.height, width = shape_.width, step = shape_.step;
        const auto slot = [&](size_t y) { return ring + y % 3 * quantised_bytes(); };
        size_t ready = first ? first - 1 : 0;  // the next row to quantise
        for (size_t y = first; y < std::min(first + kBandRows, height); ++y) {
            for (; ready < std::min(y + 2, height); ++ready)
                kernels_.quantise_row(gradient_row(image * height + ready), scale_.data(), width, groups_, slot(ready));
            const size_t row = image * height + y;
            kernels_.input_row({{y ? slot(y - 1) : nullptr, slot(y), y + 1 < height ? slot(y + 1) : nullptr},
                                input_weights_.data(), step, width, input_unit_, x_ + row * width * kFeatures,
                                unit_.shift, peak_, steepness_, grad_ + row * step * width * step * kFeatures,
                                to_.x + row * width * kFeatures, shift_partial_.data() + row * kFeatures});
        }
    }

    // The weights' gradient of kQuad output channels of a group.
    void weights(size_t quad, uint8_t* tables) {
        const size_t height = shape_.height, width = shape_.width, pitch = groups_ * kFeatures;
        std::vector<int64_t> sums(kQuad * kTaps * kFeatures);
        int64_t outside[kQuad][kTaps] = {};  // what signs left and right of the image gave, as if they were +1
        std::vector<const uint8_t*> bits(block_rows_ + 2);
        for (size_t image = 0; image < shape_.images; ++image) {
            for (size_t y = 0; y < height; y += block_rows_) {
                const size_t rows = std::min(block_rows_, height - y);
                const size_t bytes = kernels_.bit_row_bytes(width);
                for (size_t i = 0; i < rows + 2; ++i)
                    bits[i] = y + i < 1 || y + i > height ? nullptr
                                                          : bits_.data() + (image * height + y + i - 1) * bytes;
                const float* gradient = gradient_row(image * height + y) + quad * kQuad;
                kernels_.weight_block({gradient, pitch, bits.data(), rows, width, weight_scale_, tables, sums.data()});
                for (size_t i = 0; i < rows; ++i)
                    for (size_t dy = 0; dy < 3; ++dy)
                        if (bits[i + dy]) add_outside(gradient + i * width * pitch, 3 * dy, outside);
            }
        }
        const size_t group = quad * kQuad / kFeatures, first = quad * kQuad % kFeatures;
        for (size_t q = 0; q < kQuad; ++q) {
            for (size_t tap = 0; tap < kTaps; ++tap) {
                const size_t from = (((first + q) * groups_ + group) * kTaps + tap) * kFeatures;
                const int64_t* sum = sums.data() + (q * kTaps + tap) * kFeatures;
                for (size_t c = 0; c < kFeatures; ++c) {
                    const auto value = static_cast<double>(sum[c] - outside[q][tap]) / weight_scale_;
                    to_.weight[from + c] = std::fabs(unit_.weight[from + c]) <= 1 ? static_cast<float>(value) : 0.0f;
                }
            }
        }
    }

    // One row of the gradient at the two ends, as the row of taps from `tap` on meets them.
    void add_outside(const float* gradient, size_t tap, int64_t (&outside)[kQuad][kTaps]) const {
        const float* last = gradient + (shape_.width - 1) * groups_ * kFeatures;
        for (size_t q = 0; q < kQuad; ++q) {
            outside[q][tap] += std::lrintf(gradient[q] * weight_scale_);
            outside[q][tap + 2] += std::lrintf(last[q] * weight_scale_);
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
    size_t rows_, groups_;
    Prepared prepared_;
    Scratch<float> gradient_;        // [pixels][groups][64], of scale * sum
    Scratch<float> partial_;         // [rows][groups][3][64]
    Scratch<float> shift_partial_;   // [rows][64]
    Scratch<uint32_t> largest_;      // [rows][2]
    Scratch<uint8_t> bits_;          // [rows]
    Scratch<float> scale_;           // [groups][64]
    Scratch<uint8_t> input_weights_;
    float input_unit_ = 1, weight_scale_ = 1;
    size_t block_rows_ = 1;
};

}  // namespace

void forward(const Kernels& kernels, const Shape& shape, const Unit& unit, const float* x, float* out, uint64_t* words,
             int16_t* sums, size_t threads) {
    const Prepared prepared(kernels, shape, unit);
    const size_t width = shape.width, step = shape.step, groups = shape.groups();
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
                task.weights = prepared.words.data() + g * kTaps * kFeatures;
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
