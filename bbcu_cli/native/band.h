// One thread's part of a run: a band of image rows that flows through all stages, depth first.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "buffers.h"

namespace bbcu {

struct FloatConv {
    std::vector<float> weights;  // of pack_conv_weights
    std::vector<float> bias;
};

struct BinaryUnit {
    Buffer<uint8_t> weights;
    UnitParams params;
};

// One layer. With step > 1 it has step^2 parts of 64 outputs each, one per sub-pixel of the PixelShuffle.
struct Stage {
    enum class Kind { head, binary, conv, tail };
    Kind kind = Kind::head;
    size_t step = 1;
    size_t rows = 1;  // conv: input rows that are taken together, those of one pixel of the image
    float leak = 1;
    std::vector<BinaryUnit> units;
    std::vector<FloatConv> convs;
    alignas(kAlign) float threshold[kFeatures] = {};  // binary: the signs of its input
};

// Thrown in a band when another band failed or the caller wants to stop.
struct Stopped {};

// Sizes of one resolution: of the image, and after each up-sampling.
struct Level {
    RowShape shape;
    size_t height;
    std::array<Buffer<int16_t>, 4> taps;  // [rows inside the image][pixel]: see BinaryRow::taps
    Level(size_t width, size_t height, MemoryPool* memory);
};

// What all bands of one run share.
class Run {
public:
    const Network& network;
    const float* image;
    size_t height, width;
    float* output;
    std::vector<Level> levels;
    std::vector<size_t> level_in;  // per stage

    // Made on the thread of the caller, whose `poll` is then called there.
    Run(const Network& network, const float* image, size_t height, size_t width, float* output,
        const std::function<void(double)>& poll);
    void stop() { stop_ = true; }
    // A row of the output is there.
    void finish_row() { ++finished_; }
    // How much of the output is there, 0 to 1.
    double share() const;
    // Between rows and while a band waits. Throws Stopped after stop, and what poll throws.
    void look();

private:
    const std::function<void(double)>& poll_;
    const std::thread::id caller_ = std::this_thread::get_id();
    std::chrono::steady_clock::time_point next_poll_;  // of the caller alone
    std::atomic<bool> stop_{false};
    std::atomic<size_t> finished_{0};  // rows of the output
};

// The first rows that the lower band makes at each stage, for the upper band, which reads past its own end.
class Boundary {
public:
    explicit Boundary(size_t stages) : rows_(stages), made_(stages, 0) {}
    void put(size_t stage, Row row);
    // Waits for row `index`. Throws as Run::look.
    Row& get(size_t stage, size_t index, Run& run);

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::array<Row, kMaxStep + 1>> rows_;
    std::vector<size_t> made_;
};

class Band {
public:
    // begin, end: rows of this band per stage, in the stage's input rows; above, below: null at the image's edges.
    Band(Run& run, const std::vector<ptrdiff_t>& begin, const std::vector<ptrdiff_t>& end, Boundary* above,
         Boundary* below);
    void run();

private:
    const Stage& stage(size_t s) const { return *run_.network.stages_[s]; }
    void plan_batches();
    ptrdiff_t next_rows(size_t s) const;
    bool ready(size_t s) const;
    void produce(size_t s);
    Row* input(size_t s, ptrdiff_t row);
    Row& output(size_t s, ptrdiff_t row, FloatRow floats);
    void hand_on(size_t s, ptrdiff_t row);
    void make_head(ptrdiff_t row);
    void make_binary(size_t s, ptrdiff_t first, ptrdiff_t count);
    void make_binary_rows(size_t s, ptrdiff_t first, ptrdiff_t count, ptrdiff_t i);
    void make_conv(size_t s, ptrdiff_t first);
    void make_enlarged_conv(size_t s, ptrdiff_t first);
    void interleave_parts(size_t s, ptrdiff_t row, size_t part);
    const float* tail_taps(size_t s, ptrdiff_t row);
    void make_tail(size_t s, ptrdiff_t row);
    BinaryRow binary_task(size_t s, ptrdiff_t row);
    ConvRows conv_task(size_t s, ptrdiff_t first, const FloatConv& conv);
    Row& slot(size_t s, ptrdiff_t row) { return rings_[s][static_cast<size_t>(row) % rings_[s].size()]; }
    bool wants(size_t s, Stage::Kind kind) const { return stage(s + 1).kind == kind; }
    const Level& level_in(size_t s) const { return run_.levels[run_.level_in[s]]; }
    void load_image_row(ptrdiff_t row, FloatRow& into) const;

    Run& run_;
    const KernelSet& kernels_;
    std::vector<ptrdiff_t> next_, begin_, end_;
    Boundary *above_, *below_;
    std::vector<std::vector<Row>> rings_;   // per stage: its newest output rows, row r in slot r % size
    std::vector<RowPool> pools_;            // per level
    std::vector<ptrdiff_t> batch_, phase_;  // per stage: rows of a batch, which ends where (row + phase) % batch is 0
    // Per level: rows of a float convolution before its PixelShuffle, by column and row.
    std::vector<std::vector<std::array<FloatRow, kMaxStep>>> parts_;
    Buffer<float> scratch_;  // of float convolutions of a few rows at once
    std::array<FloatRow, 3> image_rows_;
    std::array<FloatRow, 3> tail_rows_;             // the last convolution; rows of the enlarged input
    std::array<FloatRow, 3> taps_;                  // of the tail's newest input rows, row r in slot r % 3
    std::array<ptrdiff_t, 3> taps_of_{-1, -1, -1};  // which rows these are
};

}  // namespace bbcu
