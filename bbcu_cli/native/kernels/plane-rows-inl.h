// Rows of bit planes: from packed rows to windows, blocks of pixels, and what is done with their sums.
//
// A packed row is 64 planes, each of whole words of 64 pixels with a word of zeros before and after it. A few rows are
// taken together, word after word, so that the blocks of short rows are full too.
//
// A set S, of those whose epilogue takes 32 pixels at once, has Planes (a V of bitslice-inl.h) and
//   Halves                        words of a block of pixels of one output: 64 times half the product
//     eight(pixel)                where the 8 that begin with `pixel`, a multiple of 8, lie one after the other
//     kNext                       from there to where the next 8 lie, within 32
//   subtract_sums(sums, inside, halves)   makes them: inside - 64 * sum
//   Epilogue(task, unit, o)       affine part and residual of output o
//     finish<kLeaky>(half, residual, out)    of 32 pixels; returns the bits of those below the threshold
//   below(floats, threshold)      those bits of any 32 floats
#pragma once

#include "bitslice-inl.h"
#include "float-inl.h"

namespace bbcu {
namespace {

constexpr size_t kWord = 64;              // pixels of a plane that are moved at once
constexpr size_t kWordBytes = kWord / 8;  // also the zeros before, between and after planes
constexpr size_t kMaxWords = 8;           // of the longest vector
constexpr size_t kStep = 32;              // pixels of a set's epilogue

inline size_t words_of(size_t width) { return (width + kWord - 1) / kWord; }
inline size_t plane_stride(size_t width) { return (words_of(width) + 1) * kWordBytes; }
inline size_t plane_row_bytes(size_t width) { return kFeatures * plane_stride(width) + kWordBytes; }

// The time that some words take in blocks of kWide, but for what is left if it fits kNarrow: a block costs what it has
// room for, and two more.
template <size_t kWide, size_t kNarrow>
inline size_t block_cost(size_t words) {
    const size_t left = words % kWide;
    return words / kWide * (kWide + 2) + (left > kNarrow ? kWide + 2 : left ? kNarrow + 2 : 0);
}

// How many rows of that width fill their blocks best when they are taken together; of wide rows, no more than few.
template <size_t kWide, size_t kNarrow>
inline size_t plane_rows_at_once(size_t width) {
    constexpr size_t most = 3 * kMaxWords;
    const size_t each = words_of(width);
    const auto cost = [&](size_t rows) { return block_cost<kWide, kNarrow>(rows * each); };
    size_t best = 1;
    for (size_t rows = 2; rows <= kMaxRows && rows * each <= most; ++rows)
        if (20 * cost(rows) * best < 19 * cost(best) * rows) best = rows;
    return best;
}

// Words of one row that lie in a block: `count` of them, from word `first` of the row and word `at` of the block on.
struct PlanePiece {
    const BinaryRow* row;
    size_t first, count, at;
    size_t begin() const { return first * kWord; }  // its pixels in the row
    size_t end() const { return least(row->width, (first + count) * kWord); }
};

// The words of a few rows, one row after the other, cut into blocks of a vector.
struct PlaneBlockPieces {
    PlanePiece piece[kMaxWords];
    size_t count = 0;

    // The block of `words` words from word `begin` of all rows on.
    PlaneBlockPieces(const BinaryRow* rows, size_t each, size_t begin, size_t words) {
        for (size_t at = 0; at < words;) {
            const size_t first = (begin + at) % each, taken = least(each - first, words - at);
            piece[count++] = {rows + (begin + at) / each, first, taken, at};
            at += taken;
        }
    }
};

// The 576 planes around a block of pixels, by tap and channel.
template <class V>
void gather_window(const PlaneBlockPieces& pieces, size_t stride, uint8_t* window) {
    for (size_t dy = 0; dy < 3; ++dy) {
        const uint8_t* from[kMaxWords];
        typename V::Mask mask[kMaxWords];
        size_t count = 0;
        for (size_t p = 0; p < pieces.count; ++p) {
            const PlanePiece& piece = pieces.piece[p];
            if (!piece.row->rows[dy]) continue;
            // Where word 0 of the block would lie; words outside the mask are not touched.
            from[count] = piece.row->rows[dy] + kWordBytes + kWordBytes * piece.first - kWordBytes * piece.at;
            mask[count++] = V::mask(((1u << piece.count) - 1) << piece.at);
        }
        uint8_t* to = window + dy * 3 * kFeatures * V::block;
        for (size_t c = 0; c < kFeatures; ++c, to += V::block) {
            auto here = V::zero(), left = V::zero(), right = V::zero();
            for (size_t p = 0; p < count; ++p) {
                const uint8_t* plane = from[p] + c * stride;
                here = V::load_words(here, mask[p], plane);
                left = V::load_words(left, mask[p], plane - kWordBytes);
                right = V::load_words(right, mask[p], plane + kWordBytes);
            }
            V::store(to, V::from_left(here, left));
            V::store(to + kFeatures * V::block, here);
            V::store(to + 2 * kFeatures * V::block, V::from_right(here, right));
        }
    }
}

// The word of a half, or of what one is made of (step 8).
inline int16_t word_of(int half) { return static_cast<int16_t>(static_cast<uint16_t>(half * 64)); }

// Step 7. The word of a pixel of output o: inside - 64 * sum, plus left at the first pixel, plus right at the last.
struct Tops {
    int16_t inside[kFeatures], left[kFeatures], right[kFeatures];
    void set(const PlaneWeights& weights, const uint8_t* const rows[3]) {
        for (size_t o = 0; o < kFeatures; ++o) {
            const int16_t* tap = weights.tap[o];
            int top = weights.top[o], first = 0, last = 0;
            for (size_t dy = 0; dy < 3; ++dy, tap += 3) {
                if (rows[dy]) {
                    first -= tap[0];
                    last -= tap[2];
                } else {
                    top -= tap[0] + tap[1] + tap[2];
                }
            }
            inside[o] = word_of(top);
            left[o] = word_of(first);
            right[o] = word_of(last);
        }
    }
};

inline const PlaneWeights& plane_weights(const BinaryRow& task, size_t j) {
    return *reinterpret_cast<const PlaneWeights*>(task.weights[j]);
}

// The tops of every unit and row of a task.
struct TaskTops {
    Tops of[kMaxStep][kMaxRows];
    TaskTops(const BinaryRow* rows, size_t count) {
        for (size_t j = 0; j < rows->step; ++j)
            for (size_t r = 0; r < count; ++r) of[j][r].set(plane_weights(*rows, j), rows[r].rows);
    }
};

// What one block of pixels needs while it is computed.
template <size_t kBlock>
struct PlaneMemory {
    alignas(kAlign) uint8_t window[(kPlanes + 1) * kBlock];
    alignas(kAlign) uint8_t counts[kLists * kMaxBits * kBlock];
    alignas(kAlign) uint8_t sums[kMaxStep][kOutputs * kSumBits * kBlock];
    alignas(kAlign) float parts[kMaxStep][8 * kBlock];  // of one output, by unit, before they are interleaved
    PlaneMemory() { std::memset(window + kPlanes * kBlock, 0, kBlock); }
};

template <class F>
inline void with_bits(size_t bits, const F& f) {
    if (bits == 6)
        f(Constant<6>());
    else if (bits == 7)
        f(Constant<7>());
    else
        f(Constant<kMaxBits>());
}

// A part of what group g reads and writes: all at once would be more than the caches take.
inline void prefetch_part(const PlaneBlockPieces& pieces, size_t g, size_t tier) {
    constexpr size_t parts = kTiers / kOutputs, line = kAlign / sizeof(float);
    const size_t o = g * kOutputs + tier / parts, part = tier % parts * line;
    for (size_t p = 0; p < pieces.count; ++p) {
        const PlanePiece& piece = pieces.piece[p];
        const BinaryRow& t = *piece.row;
        if (!t.out) continue;  // the bare product
        for (size_t x = piece.begin() + part; x < piece.end(); x += parts * line)
            prefetch_second_level(t.residual + o * t.stride + x);
        if (t.out == t.residual) continue;
        for (size_t x = t.step * piece.begin() + part; x < t.step * piece.end(); x += parts * line)
            prefetch_second_level(t.out + o * t.out_stride + x);
    }
}

// Output o of units whose pixels are interleaved.
template <class V, class PackSpan>
inline void interleave_block(const PlaneBlockPieces& pieces, const PlaneMemory<V::block>& memory, size_t o,
                             const PackSpan& pack_span) {
    for (size_t p = 0; p < pieces.count; ++p) {
        const PlanePiece& piece = pieces.piece[p];
        const BinaryRow& t = *piece.row;
        const float* parts[kMaxStep];
        for (size_t j = 0; j < t.step; ++j) parts[j] = memory.parts[j] + piece.at * kWord;
        const size_t begin = t.step * piece.begin(), end = t.step * piece.end();
        float* out = t.out + o * t.out_stride + begin;
        interleave(parts, t.step, piece.end() - piece.begin(), out);
        if (!t.packed) continue;
        uint8_t* packed = t.packed + kWordBytes + o * plane_stride(t.step * t.width);
        pack_span(out, end - begin, t.threshold[o], packed + begin / 8);
    }
}

// One block. finish(sums, j, o, pieces, part) completes output o of unit j, given the sums of its group: into the
// task's row and signs where part is null, otherwise into part. pack_span(floats, count, threshold, packed) makes signs
// of pixels.
template <class V, class Finish, class PackSpan>
inline void plane_block(const PlaneBlockPieces& pieces, PlaneMemory<V::block>& memory, const Finish& finish,
                        const PackSpan& pack_span) {
    const BinaryRow& task = *pieces.piece[0].row;
    gather_window<V>(pieces, plane_stride(task.width), memory.window);
    for (size_t g = 0; g < kGroups; ++g) {
        for (size_t j = 0; j < task.step; ++j) {
            const PlaneWeights& weights = plane_weights(task, j);
            const PlaneGroup& group = weights.group[g];
            const auto before_tier = [&](size_t tier) {
                if (j == 0) prefetch_part(pieces, g, tier);
            };
            with_bits(group.bits, [&](auto bits) {
                count_group<V, decltype(bits)::value>(group, weights.entry + group.first, memory.window, memory.counts,
                                                      memory.sums[j], before_tier);
            });
        }
        for (size_t i = 0; i < kOutputs; ++i) {
            const size_t o = g * kOutputs + i;
            for (size_t j = 0; j < task.step; ++j)
                finish(memory.sums[j], j, o, pieces, task.step > 1 ? memory.parts[j] : nullptr);
            if (task.step > 1) interleave_block<V>(pieces, memory, o, pack_span);
        }
    }
}

// The rows of one task, block by block: Wide where more pixels are left than Narrow holds.
template <class Wide, class Narrow, class Finish, class PackSpan>
inline void plane_blocks(const BinaryRow* rows, size_t count, const Finish& finish, const PackSpan& pack_span) {
    PlaneMemory<Wide::block> memory;
    const size_t each = words_of(rows->width), words = count * each;
    for (size_t begin = 0; begin < words; begin += Wide::bytes / kWordBytes) {
        const size_t taken = least(words - begin, Wide::bytes / kWordBytes);
        const PlaneBlockPieces pieces(rows, each, begin, taken);
        if (taken > Narrow::bytes / kWordBytes)
            plane_block<Wide>(pieces, memory, finish, pack_span);
        else
            plane_block<Narrow>(pieces, memory, finish, pack_span);
    }
}

template <void (*kPackSpan)(const float*, size_t, float, uint8_t*)>
void pack_plane_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    for (size_t c = 0; c < kFeatures; ++c)
        kPackSpan(row + c * stride, width, threshold[c], packed + kWordBytes + c * plane_stride(width));
}

template <class V>
void pack_plane_weights(const uint64_t* signs, uint8_t* weights) {
    bitslice::pack_weights(signs, V::block, weights);
}

// Bits of the pixels of a step that are inside, where `width` of them and of those after are.
inline uint32_t first_bits(size_t width) { return width < kStep ? (1u << width) - 1 : 0xffffffff; }

// Signs of `count` pixels.
template <class S>
void pack_span(const float* from, size_t count, float threshold, uint8_t* packed) {
    for (size_t x = 0; x < count; x += kStep) {
        const uint32_t negative = S::below(from + x, threshold) & first_bits(count - x);
        std::memcpy(packed + x / 8, &negative, sizeof negative);
    }
}

// Output o of the pixels of one piece of a block.
template <class S, bool kLeaky>
inline void finish_piece(const PlanePiece& piece, const Tops& tops, const typename S::Epilogue& epilogue,
                         typename S::Halves& halves, size_t o, float* part) {
    const BinaryRow& t = *piece.row;
    const size_t begin = piece.begin(), end = piece.end(), at = piece.at * kWord;
    const float* residual = t.residual + o * t.stride;
    float* out = part ? part + at : t.out + o * t.out_stride + begin;
    uint8_t* packed = part || !t.packed ? nullptr : t.packed + kWordBytes + o * plane_stride(t.width);
    if (begin == 0) *halves.eight(at) = static_cast<int16_t>(*halves.eight(at) + tops.left[o]);
    if (end == t.width) {
        int16_t& last = halves.eight(at + (end - 1 - begin) / 8 * 8)[(end - 1) % 8];
        last = static_cast<int16_t>(last + tops.right[o]);
    }
    for (size_t x = begin; x < end; x += kStep) {
        const int16_t* half = halves.eight(at + x - begin);
        uint32_t negative = epilogue.template finish<kLeaky>(half, residual + x, out + x - begin);
        negative &= first_bits(t.width - x);
        if (packed) std::memcpy(packed + x / 8, &negative, sizeof negative);
    }
}

template <class S, bool kLeaky>
void binary_rows_as(const BinaryRow* rows, size_t count) {
    using Planes = typename S::Planes;
    const TaskTops tops(rows, count);
    const auto finish = [&](const uint8_t* sums, size_t j, size_t o, const PlaneBlockPieces& pieces, float* part) {
        const typename S::Epilogue epilogue(*rows, *rows->unit[j], o);
        // Rows at the image's edges have other tops.
        typename S::Halves halves;
        const Tops* last = nullptr;
        for (size_t p = 0; p < pieces.count; ++p) {
            const PlanePiece& piece = pieces.piece[p];
            const Tops& top = tops.of[j][piece.row - rows];
            if (!last || top.inside[o] != last->inside[o])
                S::subtract_sums(sums + o % kOutputs * kSumBits * Planes::block, top.inside[o], halves);
            last = &top;
            finish_piece<S, kLeaky>(piece, top, epilogue, halves, o, part);
        }
    };
    plane_blocks<Planes, Planes>(rows, count, finish, pack_span<S>);
}

template <class S>
void binary_rows(const BinaryRow* rows, size_t count) {
    rows->leak == 1.0f ? binary_rows_as<S, false>(rows, count) : binary_rows_as<S, true>(rows, count);
}

// Gathering and counting; there is no popcount to compare with.
template <class S>
void bare_row(const uint8_t* const rows[3], const uint8_t* weights, size_t width, uint8_t* sink) {
    using Planes = typename S::Planes;
    BinaryRow row{};
    for (size_t dy = 0; dy < 3; ++dy) row.rows[dy] = rows[dy];
    row.weights[0] = weights;
    row.step = 1;
    row.width = width;
    const auto finish = [&](const uint8_t* sums, size_t, size_t o, const PlaneBlockPieces&, float*) {
        sink[o] = static_cast<uint8_t>(sink[o] ^ *sums);
    };
    plane_blocks<Planes, Planes>(&row, 1, finish, pack_span<S>);
}

// Of a set whose epilogue takes 32 pixels; V: of float-inl.h.
template <class S, class V>
constexpr KernelSet plane_kernels(const InstructionSet& cpu, const char* description) {
    KernelSet set = float_kernels<V>(cpu, description);
    set.packed_row_bytes = plane_row_bytes;
    set.weight_bytes = sizeof(PlaneWeights);
    set.pack_weights = pack_plane_weights<typename S::Planes>;
    set.pack_row = pack_plane_row<pack_span<S>>;
    set.rows_at_once = plane_rows_at_once<S::kRowWords, S::kRowWords>;
    set.binary_rows = binary_rows<S>;
    set.bare_row = bare_row<S>;
    return set;
}

}  // namespace
}  // namespace bbcu
