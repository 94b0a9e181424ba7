#include "band.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "portability.h"

namespace bbcu {

namespace {

constexpr size_t kBatchBytes = 512 << 10;                    // of the rows of a batch: second-level caches hold them
constexpr auto kPollEvery = std::chrono::milliseconds(100);  // it may wait for the interpreter
constexpr auto kLookEvery = std::chrono::milliseconds(20);

}  // namespace

Level::Level(size_t width, size_t height_, MemoryPool* memory) : shape(width), height(height_) {
    for (int rows = 1; rows <= 3; ++rows) {
        taps[rows] = Buffer<int16_t>(shape.stride, memory);
        for (size_t x = 0; x < width; ++x) {
            const int columns = 1 + (x > 0) + (x + 1 < width);
            taps[rows][x] = static_cast<int16_t>(static_cast<int>(kFeatures) * rows * columns);
        }
    }
}

Run::Run(const Network& network_, const float* image_, size_t height_, size_t width_, float* output_,
         const std::function<void(double)>& poll)
    : network(network_), image(image_), height(height_), width(width_), output(output_), poll_(poll),
      next_poll_(std::chrono::steady_clock::now() + kPollEvery) {
    MemoryPool* memory = network.memory_.get();
    levels.emplace_back(width, height, memory);
    for (const auto& stage : network.stages_) {
        level_in.push_back(levels.size() - 1);
        if (stage->step > 1)
            levels.emplace_back(levels.back().shape.width * stage->step, levels.back().height * stage->step, memory);
    }
}

void Run::look() {
    if (stop_) throw Stopped();
    if (std::this_thread::get_id() != caller_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_poll_) return;
    next_poll_ = now + kPollEvery;
    poll_(share());
}

double Run::share() const { return static_cast<double>(finished_) / static_cast<double>(levels.back().height); }

void Boundary::put(size_t stage, Row row) {
    const std::lock_guard<std::mutex> lock(mutex_);
    rows_[stage][made_[stage]++] = std::move(row);
    changed_.notify_all();
}

Row& Boundary::get(size_t stage, size_t index, Run& run) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!changed_.wait_for(lock, kLookEvery, [&] { return made_[stage] > index; })) {
        lock.unlock();
        run.look();
        lock.lock();
    }
    return rows_[stage][index];
}

Band::Band(Run& run, const std::vector<ptrdiff_t>& begin, const std::vector<ptrdiff_t>& end, Boundary* above,
           Boundary* below)
    : run_(run), kernels_(run.network.kernels()), next_(begin), begin_(begin), end_(end), above_(above), below_(below) {
    MemoryPool* memory = run_.network.memory_.get();
    for (const Level& level : run_.levels) pools_.emplace_back(level.shape, memory);
    plan_batches();
    parts_.resize(run_.levels.size());
    const size_t channels = run_.network.channels();
    for (size_t s = 0; s + 1 < begin.size(); ++s) {
        const size_t step = stage(s).step, made = step * static_cast<size_t>(batch_[s]);
        // When `made` more rows come, the next stage still reads two older ones where their batches end together. Where
        // not, it waits for one more row and has all the others.
        const auto next = static_cast<size_t>(batch_[s + 1]);
        const bool together = made % next == 0 && stage(s + 1).rows == 1;
        rings_.emplace_back(made + (together ? 2 : next + 1));
        if (wants(s, Stage::Kind::binary)) {
            for (Row& row : rings_[s])
                row.packed = Buffer<uint8_t>(kernels_.packed_row_bytes(level_in(s + 1).shape.width), memory);
        }
        auto& parts = parts_[run_.level_in[s]];
        if (stage(s).kind != Stage::Kind::conv) continue;
        if (stage(s).rows > 1 && !scratch_) scratch_ = Buffer<float>(kConvScratch, memory);
        if (step == 1) continue;
        parts.resize(step);
        for (auto& column : parts)
            for (size_t row = 0; row < stage(s).rows; ++row) column[row] = pools_[run_.level_in[s]].take();
    }
    for (FloatRow& row : image_rows_) row = FloatRow(channels, run_.levels.front().shape, memory);
    for (FloatRow& row : taps_) row = FloatRow(kTaps * channels, run_.levels.back().shape, memory);
    for (FloatRow& row : tail_rows_) row = FloatRow(4, run_.levels.back().shape, memory);
}

// Depth first: every row that is made goes down as far as it can before the next is made.
void Band::run() {
    while (next_[0] < end_[0]) produce(0);
    for (size_t s = 1; s < next_.size(); ++s)
        while (ready(s)) produce(s);
}

// A stage makes its rows in batches. Where one ends, the batch of the stage below ends a row earlier: it works on the
// rows that were just made, all but one, and finds them in the second-level cache. The rows in flight are then those
// of a batch and one for each stage.
void Band::plan_batches() {
    for (size_t s = 0; s < next_.size(); ++s) {
        ptrdiff_t batch = static_cast<ptrdiff_t>(stage(s).rows), phase = 0;
        if (stage(s).kind == Stage::Kind::binary) {
            const RowShape& shape = level_in(s).shape;
            const size_t step = stage(s).step, made = step > 1 ? step * level_in(s + 1).shape.stride : 0;
            const size_t fit = kBatchBytes / (kFeatures * (shape.stride + made) * sizeof(float));
            const size_t unit = kernels_.rows_at_once(shape.width);
            batch = static_cast<ptrdiff_t>(std::max<size_t>(fit / unit, 1) * unit);
            const auto above = static_cast<ptrdiff_t>(stage(s - 1).step), given = above * batch_[s - 1];
            if (given > 1) {
                // A part of what the stage above gives, so that their batches end together.
                for (ptrdiff_t rows = batch; rows > 0; rows -= static_cast<ptrdiff_t>(unit))
                    if (given % rows == 0) {
                        batch = rows;
                        break;
                    }
                phase = (above * phase_[s - 1] + 1) % batch;
            }
        }
        batch_.push_back(batch);
        phase_.push_back(phase);
    }
}

// Rows that stage s makes next.
ptrdiff_t Band::next_rows(size_t s) const {
    return std::min(batch_[s] - (next_[s] + phase_[s]) % batch_[s], end_[s] - next_[s]);
}

// Whether stage s can make its next rows. What the band below makes is always ready: `input` waits for it.
bool Band::ready(size_t s) const {
    if (next_[s] >= end_[s]) return false;
    const auto step = static_cast<ptrdiff_t>(stage(s - 1).step);
    const ptrdiff_t made = next_[s - 1] * step;
    return made == end_[s - 1] * step || next_[s] + next_rows(s) < made;
}

void Band::produce(size_t s) {
    run_.look();
    const ptrdiff_t row = next_[s], count = next_rows(s);
    next_[s] += count;
    switch (stage(s).kind) {
        case Stage::Kind::head: make_head(row); break;
        case Stage::Kind::binary: make_binary(s, row, count); break;
        case Stage::Kind::conv: stage(s).step > 1 ? make_enlarged_conv(s, row) : make_conv(s, row); break;
        case Stage::Kind::tail: return make_tail(s, row);
    }
    while (ready(s + 1)) produce(s + 1);
}

// Input row of stage s: from this band's ring, from the band below, or null outside the image.
Row* Band::input(size_t s, ptrdiff_t row) {
    if (row < 0 || row >= static_cast<ptrdiff_t>(level_in(s).height)) return nullptr;
    const ptrdiff_t own_end = end_[s - 1] * static_cast<ptrdiff_t>(stage(s - 1).step);
    if (row < own_end) return &slot(s - 1, row);
    return &below_->get(s - 1, static_cast<size_t>(row - own_end), run_);
}

// Puts the floats of a new output row of stage s into its slot.
Row& Band::output(size_t s, ptrdiff_t row, FloatRow floats) {
    Row& out = slot(s, row);
    pools_[run_.level_in[s + 1]].give(std::move(out.floats));
    out.floats = std::move(floats);
    return out;
}

// Finishes output row `row` of stage s for the next stage, and gives the band above what it reads of it.
void Band::hand_on(size_t s, ptrdiff_t row) {
    const RowShape& shape = level_in(s + 1).shape;
    Row& out = slot(s, row);
    const bool to_binary = wants(s, Stage::Kind::binary);
    if (!to_binary) {
        // What a kernel wrote beyond the last pixel is the zero padding of a float convolution.
        for (size_t c = 0; c < kFeatures; ++c) out.floats.data()[c * shape.stride + shape.width] = 0;
    }
    // The band above makes the rows of the next stage before begin_[s + 1], and reads one more.
    const ptrdiff_t first = begin_[s] * static_cast<ptrdiff_t>(stage(s).step);
    if (!above_ || begin_[s + 1] == first || row > begin_[s + 1]) return;
    Row copy;
    if (to_binary) {
        copy.packed = Buffer<uint8_t>(out.packed.size(), run_.network.memory_.get());
        std::copy_n(out.packed.data(), out.packed.size(), copy.packed.data());
        if (row < begin_[s + 1]) copy.floats = std::move(out.floats);  // the residual of a row that is made above
    } else {
        copy.floats = FloatRow(kFeatures, shape, run_.network.memory_.get());
        std::copy_n(out.floats.data(), kFeatures * shape.stride, copy.floats.data());
    }
    above_->put(s, std::move(copy));
}

void Band::load_image_row(ptrdiff_t row, FloatRow& into) const {
    const size_t channels = run_.network.channels_, stride = run_.levels.front().shape.stride;
    for (size_t c = 0; c < channels; ++c) {
        const float* from = run_.image + (c * run_.height + static_cast<size_t>(row)) * run_.width;
        float* to = into.data() + c * stride;
        for (size_t x = 0; x < run_.width; ++x) to[x] = from[x] * run_.network.k_;
    }
}

void Band::make_head(ptrdiff_t row) {
    const RowShape& shape = level_in(0).shape;
    ConvRows task{};
    task.count = 1;
    for (ptrdiff_t dy = 0; dy < 3; ++dy) {
        const ptrdiff_t y = row + dy - 1;
        if (y < 0 || y >= static_cast<ptrdiff_t>(run_.height)) continue;
        load_image_row(y, image_rows_[static_cast<size_t>(dy)]);
        task.rows[dy] = image_rows_[static_cast<size_t>(dy)].data();
    }
    const Stage& head = stage(0);
    Row& out = output(0, row, pools_[0].take());
    task.in_stride = task.out_stride = shape.stride;
    task.c_in = run_.network.channels();
    task.weights = head.convs[0].weights.data();
    task.bias = head.convs[0].bias.data();
    task.out[0] = out.floats.data();
    task.c_out = kFeatures;
    task.width = shape.width;
    task.leak = head.leak;
    kernels_.conv_rows(task);
    if (wants(0, Stage::Kind::binary))
        kernels_.pack_row(task.out[0], shape.stride, shape.width, stage(1).threshold, out.packed.data());
    hand_on(0, row);
}

BinaryRow Band::binary_task(size_t s, ptrdiff_t row) {
    const Level& level = level_in(s);
    BinaryRow task{};
    int rows = 0;
    for (ptrdiff_t dy = 0; dy < 3; ++dy) {
        const Row* in = input(s, row + dy - 1);
        task.rows[dy] = in ? in->packed.data() : nullptr;
        rows += in != nullptr;
    }
    task.taps = level.taps[static_cast<size_t>(rows)].data();
    task.stride = level.shape.stride;
    task.step = stage(s).step;
    task.out_stride = level_in(s + 1).shape.stride;
    task.width = level.shape.width;
    task.leak = stage(s).leak;
    return task;
}

// Each of `count` input rows becomes `step` output rows.
void Band::make_binary(size_t s, ptrdiff_t first, ptrdiff_t count) {
    const auto step = static_cast<ptrdiff_t>(stage(s).step);
    const auto liked = static_cast<ptrdiff_t>(kernels_.rows_at_once(level_in(s).shape.width));
    for (ptrdiff_t r = 0; r < count; r += liked)
        for (ptrdiff_t i = 0; i < step; ++i) make_binary_rows(s, first + r, std::min(liked, count - r), i);
    for (ptrdiff_t row = first * step; row < (first + count) * step; ++row) hand_on(s, row);
    for (ptrdiff_t r = 0; r < count; ++r) pools_[run_.level_in[s]].give(std::move(input(s, first + r)->floats));
}

// The i-th output row of each of `count` input rows.
void Band::make_binary_rows(size_t s, ptrdiff_t first, ptrdiff_t count, ptrdiff_t i) {
    const auto step = static_cast<ptrdiff_t>(stage(s).step);
    BinaryRow tasks[kMaxRows] = {};
    for (ptrdiff_t r = 0; r < count; ++r) {
        BinaryRow& task = tasks[r] = binary_task(s, first + r);
        FloatRow& in = input(s, first + r)->floats;
        task.residual = in.data();
        Row& out = output(s, (first + r) * step + i, step == 1 ? std::move(in) : pools_[run_.level_in[s + 1]].take());
        task.out = out.floats.data();
        for (ptrdiff_t j = 0; j < step; ++j) {
            const BinaryUnit& unit = stage(s).units[static_cast<size_t>(i * step + j)];
            task.weights[j] = unit.weights.data();
            task.unit[j] = &unit.params;
        }
        if (wants(s, Stage::Kind::binary)) {
            task.threshold = stage(s + 1).threshold;
            task.packed = out.packed.data();
        }
    }
    kernels_.binary_rows(tasks, static_cast<size_t>(count));
}

ConvRows Band::conv_task(size_t s, ptrdiff_t first, const FloatConv& conv) {
    const RowShape& shape = level_in(s).shape;
    ConvRows task{};
    task.count = stage(s).rows;
    for (size_t i = 0; i < task.count + 2; ++i) {
        Row* in = input(s, first + static_cast<ptrdiff_t>(i) - 1);
        task.rows[i] = in ? in->floats.data() : nullptr;
    }
    task.in_stride = task.out_stride = shape.stride;
    task.c_in = kFeatures;
    task.weights = conv.weights.data();
    task.bias = conv.bias.data();
    task.c_out = kFeatures;
    task.width = shape.width;
    task.leak = stage(s).leak;
    task.scratch = scratch_.data();
    return task;
}

// The rows of a group.
void Band::make_conv(size_t s, ptrdiff_t first) {
    ConvRows task = conv_task(s, first, stage(s).convs[0]);
    const auto count = static_cast<ptrdiff_t>(task.count);
    for (ptrdiff_t r = 0; r < count; ++r)
        task.out[r] = output(s, first + r, pools_[run_.level_in[s + 1]].take()).floats.data();
    kernels_.conv_rows(task);
    for (ptrdiff_t r = 0; r < count; ++r) {
        if (wants(s, Stage::Kind::binary))
            kernels_.pack_row(task.out[r], task.out_stride, task.width, stage(s + 1).threshold,
                              slot(s, first + r).packed.data());
        hand_on(s, first + r);
    }
}

// Each of the rows of a group becomes `step` output rows.
void Band::make_enlarged_conv(size_t s, ptrdiff_t first) {
    const Stage& up = stage(s);
    auto& parts = parts_[run_.level_in[s]];
    const ptrdiff_t made = first * static_cast<ptrdiff_t>(up.step);
    for (size_t i = 0; i < up.step; ++i) {
        for (size_t j = 0; j < up.step; ++j) {
            ConvRows task = conv_task(s, first, up.convs[i * up.step + j]);
            for (size_t r = 0; r < up.rows; ++r) task.out[r] = parts[j][r].data();
            kernels_.conv_rows(task);
        }
        for (size_t r = 0; r < up.rows; ++r) interleave_parts(s, made + static_cast<ptrdiff_t>(r * up.step + i), r);
    }
    const auto end = made + static_cast<ptrdiff_t>(up.rows * up.step);
    for (ptrdiff_t row = made; row < end; ++row) hand_on(s, row);
}

// Output row `row` of an enlargement from row `part` of its parts.
void Band::interleave_parts(size_t s, ptrdiff_t row, size_t part) {
    const size_t step = stage(s).step;
    const RowShape &shape = level_in(s).shape, &large = level_in(s + 1).shape;
    const float* planes[kMaxStep] = {};
    for (size_t j = 0; j < step; ++j) planes[j] = parts_[run_.level_in[s]][j][part].data();
    Row& out = output(s, row, pools_[run_.level_in[s + 1]].take());
    for (size_t c = 0; c < kFeatures; ++c) {
        kernels_.interleave(planes, step, shape.width, out.floats.data() + c * large.stride);
        for (size_t j = 0; j < step; ++j) planes[j] += shape.stride;
    }
    if (wants(s, Stage::Kind::binary))
        kernels_.pack_row(out.floats.data(), large.stride, large.width, stage(s + 1).threshold, out.packed.data());
}

namespace {

// Where output pixel i of an enlargement by `scale` lies between input pixels i / scale + first and the next,
// as bilinear interpolation with align_corners=False has it.
struct Phase {
    ptrdiff_t first;
    float first_weight, next_weight;
    Phase(size_t i, size_t scale) {
        const double at = (static_cast<double>(i % scale) + 0.5) / static_cast<double>(scale) - 0.5;
        first = at < 0 ? -1 : 0;
        next_weight = static_cast<float>(at - static_cast<double>(first));
        first_weight = 1 - next_weight;
    }
};

}  // namespace

// What input row `row` of the tail adds through every tap; null outside the image.
const float* Band::tail_taps(size_t s, ptrdiff_t row) {
    if (row < 0 || row >= static_cast<ptrdiff_t>(level_in(s).height)) return nullptr;
    const auto place = static_cast<size_t>(row % 3);
    float* taps = taps_[place].data();
    if (taps_of_[place] == row) return taps;
    taps_of_[place] = row;
    FloatRow& in = input(s, row)->floats;
    const RowShape& shape = level_in(s).shape;
    TapRow task{};
    task.in = in.data();
    task.in_stride = task.out_stride = shape.stride;
    task.weights = stage(s).convs[0].weights.data();
    task.planes = kTaps * run_.network.channels();
    task.out = taps;
    task.width = shape.width;
    kernels_.tap_row(task);
    for (size_t p = 0; p < task.planes; ++p) taps[p * shape.stride + shape.width] = 0;  // beyond the last pixel
    pools_[run_.level_in[s]].give(std::move(in));
    return taps;
}

void Band::make_tail(size_t s, ptrdiff_t row) {
    const Network& network = run_.network;
    const size_t scale = network.scale(), channels = network.channels(), width = level_in(s).shape.width;
    TapSum task{};
    for (ptrdiff_t dy = 0; dy < 3; ++dy) task.taps[dy] = tail_taps(s, row + dy - 1);
    task.stride = level_in(s).shape.stride;
    task.bias = stage(s).convs[0].bias.data();
    task.out = tail_rows_[0].data();
    task.c_out = channels;
    task.width = width;
    kernels_.sum_taps(task);

    const size_t in_width = run_.width, in_stride = run_.levels.front().shape.stride,
                 out_stride = level_in(s).shape.stride;
    const Phase vertical(static_cast<size_t>(row), scale);
    const ptrdiff_t upper = row / static_cast<ptrdiff_t>(scale) + vertical.first;
    const auto inside = [&](ptrdiff_t y) {
        return std::clamp<ptrdiff_t>(y, 0, static_cast<ptrdiff_t>(run_.height) - 1);
    };
    load_image_row(inside(upper), image_rows_[0]);
    load_image_row(inside(upper + 1), image_rows_[1]);
    const float k = network.k_;
    for (size_t c = 0; c < channels; ++c) {
        const float* conv = tail_rows_[0].data() + c * out_stride;
        const float* top = image_rows_[0].data() + c * in_stride;
        const float* bottom = image_rows_[1].data() + c * in_stride;
        float* out = run_.output + (c * level_in(s).height + static_cast<size_t>(row)) * width;
        if (network.subtract_) {
            for (size_t x = 0; x < width; ++x) out[x] = (top[x] - conv[x]) / k;
            continue;
        }
        float* blend = image_rows_[2].data() + c * in_stride;
        for (size_t x = 0; x < in_width; ++x)
            blend[x] = vertical.first_weight * top[x] + vertical.next_weight * bottom[x];
        blend[-1] = blend[0];
        blend[in_width] = blend[in_width - 1];
        float* skip = tail_rows_[2].data() + c * out_stride;
        const float* phases[4] = {};
        for (size_t j = 0; j < scale; ++j) {
            const Phase horizontal(j, scale);
            float* phase = tail_rows_[1].data() + j * round_up(in_width, kRowPad);
            for (size_t x = 0; x < in_width; ++x)
                phase[x] = horizontal.first_weight * (blend + horizontal.first)[x] +
                           horizontal.next_weight * (blend + horizontal.first)[x + 1];
            phases[j] = phase;
        }
        kernels_.interleave(phases, scale, in_width, skip);
        blend[-1] = blend[in_width] = 0;
        for (size_t x = 0; x < width; ++x) out[x] = (conv[x] + skip[x]) / k;
    }
    run_.finish_row();
}

}  // namespace bbcu
