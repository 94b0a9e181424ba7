// Building a network, planning its bands, and running them on threads.

#include <algorithm>
#include <array>
#include <stdexcept>

#include "band.h"
#include "threads.h"

namespace bbcu {

namespace {

// A float convolution costs about this many binary ones of the same shape; only the balance of bands depends on it.
constexpr double kFloatCost = 15;
constexpr size_t kMinBandRows = 16;
constexpr size_t kMaxScale = 4;
constexpr size_t kMaxSide = size_t{1} << 24;

}  // namespace

namespace {

// What three weights in a row become for `count` outputs at once; see kernels/winograd-inl.h.
std::vector<std::array<double, 3>> taps_transform(size_t count) {
    switch (count) {
        case 1: return {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
        case 2: return {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
        case 3:
            return {{0.5, 0, 0}, {-0.5, -0.5, -0.5}, {-1. / 6, 1. / 6, -1. / 6}, {1. / 6, 1. / 3, 2. / 3}, {0, 0, 1}};
        default:
            return {{0.25, 0, 0},
                    {-1. / 6, -1. / 6, -1. / 6},
                    {-1. / 6, 1. / 6, -1. / 6},
                    {1. / 24, 1. / 12, 1. / 6},
                    {1. / 24, -1. / 12, 1. / 6},
                    {0, 0, 1}};
    }
}

}  // namespace

std::vector<float> pack_conv_weights(const float* weight, size_t c_out, size_t c_in, size_t count) {
    constexpr size_t group = 4;
    const auto transform = taps_transform(count);
    const size_t side = transform.size(), planes = side * side;
    std::vector<float> packed;
    packed.reserve(checked_product(c_out * c_in, planes));
    const auto pack_group = [&](size_t first, size_t c, size_t y, size_t x) {
        for (size_t g = 0; g < group; ++g) {
            const float* taps = weight + ((first + g) * c_in + c) * kTaps;
            double sum = 0;
            for (size_t dy = 0; dy < 3; ++dy)
                for (size_t dx = 0; dx < 3; ++dx)
                    sum += transform[y][dy] * transform[x][dx] * static_cast<double>(taps[3 * dy + dx]);
            packed.push_back(static_cast<float>(sum));
        }
    };
    // Of one row, the taps of a channel lie together; of some, those of a plane.
    const size_t outer = count == 1 ? 1 : planes;
    for (size_t p = 0; p < outer; ++p)
        for (size_t first = 0; first < c_out; first += group)
            for (size_t c = 0; c < c_in; ++c)
                for (size_t tap = p; tap < planes; tap += outer) pack_group(first, c, tap / side, tap % side);
    return packed;
}

std::vector<float> pack_tap_weights(const float* weight, size_t c_out) {
    std::vector<float> packed;
    packed.reserve(checked_product(c_out * kFeatures, kTaps));
    for (size_t c = 0; c < kFeatures; ++c)
        for (size_t dy = 0; dy < 3; ++dy)
            for (size_t o = 0; o < c_out; ++o)
                for (size_t dx = 0; dx < 3; ++dx) packed.push_back(weight[(o * kFeatures + c) * kTaps + dy * 3 + dx]);
    return packed;
}

Network::Network(const KernelSet& kernels, size_t channels, float k, bool subtract)
    : kernels_(kernels), channels_(channels), k_(k), subtract_(subtract), memory_(std::make_unique<MemoryPool>()) {
    require(channels == 1 || channels == 3, "the image has neither 1 nor 3 channels");
}

Network::~Network() = default;

void Network::require(bool holds, const char* complaint) const {
    if (!holds) throw std::invalid_argument(complaint);
}

Stage& Network::append(size_t step) {
    require(stages_.empty() || stages_.back()->kind != Stage::Kind::tail, "a stage follows the tail");
    require(step >= 1 && step <= 4, "an up-sampling step is not 1..4");
    require(scale_ * step <= kMaxScale, "the network enlarges more than 4 times");
    stages_.push_back(std::make_unique<Stage>());
    stages_.back()->step = step;
    scale_ *= step;
    return *stages_.back();
}

void Network::add_head(const float* weight, const float* bias, float leak) {
    require(stages_.empty(), "the head is not the first stage");
    Stage& stage = append(1);
    stage.kind = Stage::Kind::head;
    stage.leak = leak;
    stage.convs.push_back({pack_conv_weights(weight, kFeatures, channels_, 1), {bias, bias + kFeatures}});
}

void Network::add_binary(const uint64_t* signs, const float* scale, const float* bias, const float* slope,
                         const float* offset, const float* shift, size_t step, float leak) {
    require(!stages_.empty(), "the head is missing");
    Stage& stage = append(step);
    stage.kind = Stage::Kind::binary;
    stage.leak = leak;
    for (size_t c = 0; c < kFeatures; ++c) stage.threshold[c] = -shift[c];
    const size_t parts = step * step;
    for (size_t part = 0; part < parts; ++part) {
        stage.units.emplace_back();
        BinaryUnit& unit = stage.units.back();
        std::vector<uint64_t> words(kFeatures * kTaps);
        for (size_t c = 0; c < kFeatures; ++c) {
            const size_t o = c * parts + part;  // PixelShuffle: channel c, sub-pixel part = i * step + j
            unit.params.scale[c] = scale[o];
            unit.params.bias[c] = bias[o];
            unit.params.slope[c] = slope[o];
            unit.params.offset[c] = offset[o];
            std::copy_n(signs + o * kTaps, kTaps, words.begin() + static_cast<ptrdiff_t>(c * kTaps));
        }
        unit.weights = Buffer<uint8_t>(kernels_.weight_bytes);
        kernels_.pack_weights(words.data(), unit.weights.data());
    }
}

void Network::add_conv(const float* weight, const float* bias, size_t step, float leak) {
    require(!stages_.empty(), "the head is missing");
    const size_t rows = scale_;
    Stage& stage = append(step);
    stage.kind = Stage::Kind::conv;
    stage.rows = rows;
    stage.leak = leak;
    const size_t parts = step * step, each = kFeatures * kTaps;
    for (size_t part = 0; part < parts; ++part) {
        std::vector<float> w(kFeatures * each), b(kFeatures);
        for (size_t c = 0; c < kFeatures; ++c) {
            std::copy_n(weight + (c * parts + part) * each, each, w.begin() + static_cast<ptrdiff_t>(c * each));
            b[c] = bias[c * parts + part];
        }
        stage.convs.push_back({pack_conv_weights(w.data(), kFeatures, kFeatures, rows), std::move(b)});
    }
}

void Network::add_tail(const float* weight, const float* bias) {
    require(!stages_.empty(), "the head is missing");
    Stage& stage = append(1);
    stage.kind = Stage::Kind::tail;
    stage.convs.push_back({pack_tap_weights(weight, channels_), {bias, bias + channels_}});
    require(!subtract_ || scale_ == 1, "a network that subtracts cannot enlarge");
}

namespace {

// Work of one input row of a stage, in binary units times pixels of the image's width.
double row_cost(const Stage& stage, size_t scale_in) {
    double units = 0;
    for (const FloatConv& conv : stage.convs)
        units += kFloatCost * static_cast<double>(conv.weights.size() / stage.rows) / (kFeatures * kFeatures * kTaps);
    return (units + static_cast<double>(stage.units.size())) * static_cast<double>(scale_in);
}

// Row at which a band begins at every stage, in the stage's input rows, when it begins at `first` in the head.
// A stage needs one row below its own, so each begins at least one row lower than what it reads: bands are skewed, need
// nothing from above, and no row is computed twice.
std::vector<ptrdiff_t> skewed(const std::vector<std::unique_ptr<Stage>>& stages, ptrdiff_t first, size_t height) {
    std::vector<ptrdiff_t> rows;
    ptrdiff_t row = first;
    auto limit = static_cast<ptrdiff_t>(height);
    for (const auto& stage : stages) {
        const auto together = static_cast<ptrdiff_t>(stage->rows), past = (row % together + together) % together;
        if (past) row += together - past;
        rows.push_back(std::clamp<ptrdiff_t>(row, 0, limit));
        row = row * static_cast<ptrdiff_t>(stage->step) + 1;
        limit *= static_cast<ptrdiff_t>(stage->step);
    }
    return rows;
}

double work_above(const std::vector<std::unique_ptr<Stage>>& stages, ptrdiff_t first, size_t height) {
    const auto rows = skewed(stages, first, height);
    double work = 0;
    size_t scale = 1;
    for (size_t s = 0; s < stages.size(); ++s) {
        work += row_cost(*stages[s], scale) * static_cast<double>(rows[s]);
        scale *= stages[s]->step;
    }
    return work;
}

// begin[band][stage], with one more entry for the end; bands of equal work.
std::vector<std::vector<ptrdiff_t>> plan_bands(const std::vector<std::unique_ptr<Stage>>& stages, size_t height,
                                               size_t bands) {
    const auto bottom = static_cast<ptrdiff_t>(height);
    const auto depth = static_cast<ptrdiff_t>(stages.size());
    std::vector<std::vector<ptrdiff_t>> begin = {std::vector<ptrdiff_t>(stages.size(), 0)};
    ptrdiff_t previous = -depth;
    for (size_t band = 1; band < bands; ++band) {
        const double share =
            work_above(stages, bottom, height) * static_cast<double>(band) / static_cast<double>(bands);
        ptrdiff_t low = -depth, high = bottom;
        while (low < high) {
            const ptrdiff_t middle = low + (high - low) / 2;
            if (work_above(stages, middle, height) < share)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < previous + 2) continue;  // a band shorter than the two rows that its upper neighbour needs
        begin.push_back(skewed(stages, low, height));
        previous = low;
    }
    std::vector<ptrdiff_t> end;
    ptrdiff_t rows = bottom;
    for (const auto& stage : stages) {
        end.push_back(rows);
        rows *= static_cast<ptrdiff_t>(stage->step);
    }
    begin.push_back(std::move(end));
    return begin;
}

}  // namespace

void Network::run(const float* image, size_t height, size_t width, float* output, size_t threads,
                  const std::function<void(double)>& poll) const {
    require(!stages_.empty() && stages_.back()->kind == Stage::Kind::tail, "the network has no tail");
    require(height >= 1 && width >= 1, "the image is empty");
    if (std::max(height, width) * scale_ > kMaxSide)
        throw std::length_error("an image side is longer than 2^24 pixels");

    const size_t wanted = std::max<size_t>(1, std::min(threads, height / kMinBandRows));
    const auto begin = plan_bands(stages_, height, wanted);
    const size_t count = begin.size() - 1;

    Run run(*this, image, height, width, output, poll);
    std::vector<std::unique_ptr<Boundary>> boundaries;
    for (size_t b = 0; b + 1 < count; ++b) boundaries.push_back(std::make_unique<Boundary>(stages_.size()));

    // From the lowest band up: a band reads of the one below it alone, which is under way then on however few threads.
    std::exception_ptr failure;  // of poll, when this thread has no more bands
    const auto make_band = [&](size_t item) {
        const size_t b = count - 1 - item;
        try {
            Band(run, begin[b], begin[b + 1], b ? boundaries[b - 1].get() : nullptr,
                 b + 1 < count ? boundaries[b].get() : nullptr)
                .run();
        } catch (const Stopped&) {
        } catch (...) {
            run.stop();
            throw;
        }
    };
    const auto poll_others = [&] {
        try {
            if (!failure) poll(run.share());
        } catch (...) {
            failure = std::current_exception();
            run.stop();
        }
    };
    share(count, std::max<size_t>(1, threads), [&] { return make_band; }, poll_others);
    if (failure) std::rethrow_exception(failure);
}

}  // namespace bbcu
