// The +-1 product of a binary layer on bit planes, written once over a vector type and compiled into kernel sets.
//
// A *plane* holds one bit of many pixels, so one operation of logic works on as many pixels as a vector has bits.
// The signs of a row are 64 planes, one for each channel, bit 1 where it is -1. A product counts, for every output,
// in how many of its 576 taps sign and weight differ; carry-save adders count planes, two operations of three
// operands, or five of two, for each tap. Four outputs are counted together: the taps fall into 16 lists by the four signs that their
// weights have, each list is counted once, and the four outputs are sums and differences of the 16 counts. That is
// a quarter of the work, and the weights cost nothing but the order in which planes are read.
//
// V has `type`, `bytes`, `block` (bytes from one plane in memory to the next), load, store, zero, ones,
// exclusive(a, b), both(a, b) and
//   Mask, mask(bits)             which 64-bit words of a vector are meant
//   load_words(v, mask, p)       v, of which these are 0, with them loaded; the others are not touched
//   sum(c, a, b), carry(s, a, b)            of c + a + b, where s is the sum
//   sum(c, a, b), borrow(d, a, b)           of a - b - c, where d is the difference; no_borrow is ~borrow
//   from_left(here, before), from_right(here, after)    the plane moved by one pixel, given the words before or after
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "float-inl.h"

namespace bbcu {
namespace {

constexpr size_t kOutputs = 4;                        // counted together
constexpr size_t kGroups = kFeatures / kOutputs;
constexpr size_t kLists = size_t{1} << kOutputs;
constexpr size_t kTierLists = 4;                      // lists that are filled up to the same length
constexpr size_t kTiers = kLists / kTierLists;
constexpr size_t kPlanes = kTaps * kFeatures;         // of a window; one more is zero
constexpr size_t kCarries = 4;                        // an output's sum has so many more bits than a list's count
constexpr size_t kEntry = 8;                          // bytes; entries are in this unit, which addressing scales by
constexpr size_t kMaxEntries = kTierLists * (kPlanes + 3 * kTiers);  // of four outputs
constexpr size_t kMaxBits = 10;                       // of a count: 576 taps may fall into one list
constexpr size_t kWord = 64;                          // pixels of a plane that are moved at once
constexpr size_t kWordBytes = kWord / 8;              // also the zeros before, between and after planes
constexpr size_t kMaxWords = 8;                       // of the longest vector

inline size_t words_of(size_t width) { return (width + kWord - 1) / kWord; }
inline size_t plane_stride(size_t width) { return (words_of(width) + 1) * kWordBytes; }
inline size_t plane_row_bytes(size_t width) { return kFeatures * plane_stride(width) + kWordBytes; }

// The fewest rows of that width, up to four, whose words nearly fill vectors when they are taken together.
inline size_t plane_rows_at_once(size_t width) {
    for (size_t rows = 1; rows < 4; ++rows) {
        const size_t words = rows * words_of(width), used = (words + 3) / 4 * 4;
        if (8 * used <= 9 * words) return rows;
    }
    return 4;
}

// How four outputs are counted. A list is filled up with the zero plane; the four longest lists have the same length, the
// next four too, and so on, so that few branches depend on the weights.
struct PlaneGroup {
    uint16_t bits;                                    // of a count
    uint16_t fours[kTiers];                           // entries of each list of a tier, by four
    uint16_t list[kLists];                            // which list is the n-th longest
    uint16_t first;                                   // of its entries in PlaneWeights::entry
};

struct PlaneWeights {
    PlaneGroup group[kGroups];
    uint16_t entry[kGroups * kMaxEntries];            // planes of the window, in units of kEntry bytes
    // Of half the +-1 product, which is top - sum where every tap is inside the image.
    int16_t top[kFeatures];
    int16_t tap[kFeatures][kTaps];                    // what a tap adds where it is outside and its signs are read as +1
};

// Returns the entry after the group's.
template <class V>
uint16_t* pack_plane_group(const uint64_t* rows, PlaneGroup& group, uint16_t* entry) {
    std::vector<uint16_t> lists[kLists];
    for (size_t plane = 0; plane < kPlanes; ++plane) {
        size_t pattern = 0;
        for (size_t j = 0; j < kOutputs; ++j) pattern |= (rows[j * kTaps + plane / kFeatures] >> plane % kFeatures & 1) << j;
        lists[pattern].push_back(static_cast<uint16_t>(plane * V::block / kEntry));
    }
    std::iota(group.list, group.list + kLists, uint16_t{0});
    std::stable_sort(group.list, group.list + kLists, [&](size_t p, size_t q) { return lists[p].size() > lists[q].size(); });
    const size_t longest = lists[group.list[0]].size();
    group.bits = longest <= 60 ? 6 : longest <= 124 ? 7 : kMaxBits;
    for (size_t n = 0; n < kLists; ++n) {
        std::vector<uint16_t>& list = lists[group.list[n]];
        uint16_t& fours = group.fours[n / kTierLists];
        if (n % kTierLists == 0) fours = static_cast<uint16_t>((list.size() + 3) / 4);
        list.resize(4 * fours, static_cast<uint16_t>(kPlanes * V::block / kEntry));
        entry = std::copy(list.begin(), list.end(), entry);
    }
    return entry;
}

template <class V>
void pack_plane_weights(const uint64_t* signs, uint8_t* into) {
    auto& weights = *new (into) PlaneWeights{};
    uint16_t* entry = weights.entry;
    for (size_t g = 0; g < kGroups; ++g) {
        PlaneGroup& group = weights.group[g];
        group.first = static_cast<uint16_t>(entry - weights.entry);
        entry = pack_plane_group<V>(signs + g * kOutputs * kTaps, group, entry);
        const int once = (1 << group.bits) - 1;       // what inverting a count adds to it
        const int inverted[kOutputs] = {8 * once, 4 * (2 * once + 1), 2 * (4 * once + 3), 8 * once + 7};
        for (size_t j = 0; j < kOutputs; ++j) {
            const size_t o = g * kOutputs + j;
            int top = static_cast<int>(kPlanes / 2) + inverted[j];
            for (size_t t = 0; t < kTaps; ++t) {
                const int minus = __builtin_popcountll(signs[o * kTaps + t]);
                weights.tap[o][t] = static_cast<int16_t>(static_cast<int>(kFeatures / 2) - minus);
                top -= minus;                         // of the sum over the count, seen where every sign is +1
            }
            weights.top[o] = static_cast<int16_t>(top);
        }
    }
}

// Words of one row that lie in a block: `count` of them from word `first` of the row on, from word `at` of the block on.
struct PlanePiece {
    const BinaryRow* row;
    size_t first, count, at;
    size_t begin() const { return first * kWord; }  // its pixels in the row
    size_t end() const { return std::min(row->width, (first + count) * kWord); }
};

// The words of a few rows, one row after the other, cut into blocks of a vector.
struct PlaneBlockPieces {
    PlanePiece piece[kMaxWords];
    size_t count = 0;

    // The block of `words` words from word `begin` of all rows on.
    PlaneBlockPieces(const BinaryRow* rows, size_t each, size_t begin, size_t words) {
        for (size_t at = 0; at < words;) {
            const size_t first = (begin + at) % each, taken = std::min(each - first, words - at);
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

template <size_t... kIndices, class F>
[[gnu::always_inline]] inline void each(std::index_sequence<kIndices...>, const F& f) {
    (f(std::integral_constant<size_t, kIndices>()), ...);
}

// total of weight 1 becomes total + a + b; returns the carry, of weight 2.
template <class V, class T>
inline T add_two(T& total, T a, T b) {
    total = V::sum(total, a, b);
    return V::carry(total, a, b);
}

constexpr size_t bits_of(size_t n) { return n ? 1 + bits_of(n / 2) : 0; }

// A tree of adders that is known when it is compiled: planes, then carries of each weight, are added two by two.
template <class V, size_t kWeights>
struct Adders {
    using T = typename V::type;
    T total[kWeights], waiting[kWeights];

    // Item number kIndex of weight 2^kWeight.
    template <size_t kWeight, size_t kIndex>
    void push(T item) {
        if constexpr (kIndex == 0)
            total[kWeight] = item;
        else if constexpr (kIndex % 2 == 1)
            waiting[kWeight] = item;
        else
            push<kWeight + 1, kIndex / 2 - 1>(add_two<V>(total[kWeight], waiting[kWeight], item));
    }

    // No more than kCount items of that weight come.
    template <size_t kWeight, size_t kCount>
    void finish() {
        if constexpr (kCount > 0 && kCount % 2 == 0) {
            const T carry = V::both(total[kWeight], waiting[kWeight]);
            total[kWeight] = V::exclusive(total[kWeight], waiting[kWeight]);
            push<kWeight + 1, kCount / 2 - 1>(carry);
        }
        if constexpr (kCount > 0) finish<kWeight + 1, kCount / 2>();
    }
};

// Counts the lists of a tier; bit b of list p becomes plane p * bits + b of counts.
using CountTier = void (*)(const uint8_t* window, const uint16_t* entry, const uint16_t* list, size_t bits, uint8_t* counts);

template <class V, size_t kFours>
void count_tier(const uint8_t* window, const uint16_t* entry, const uint16_t* list, size_t bits, uint8_t* counts) {
    for (size_t n = 0; n < kTierLists; ++n, entry += 4 * kFours) {
        Adders<V, kMaxBits> adders;
        const auto plane = [&](uint64_t entries) { return V::load(window + (entries & 0xffff) * kEntry); };
        // Out of line, the adders would live in memory. Four entries are one load and shifts.
        const auto four = [&](auto block) __attribute__((always_inline)) {
            constexpr size_t i = 4 * decltype(block)::value;
            uint64_t entries;
            std::memcpy(&entries, entry + i, sizeof entries);
            adders.template push<0, i>(plane(entries));
            adders.template push<0, i + 1>(plane(entries >> 16));
            adders.template push<0, i + 2>(plane(entries >> 32));
            adders.template push<0, i + 3>(plane(entries >> 48));
        };
        each(std::make_index_sequence<kFours>(), four);
        adders.template finish<0, 4 * kFours>();
        uint8_t* to = counts + list[n] * bits * V::block;
        constexpr size_t kMade = bits_of(4 * kFours);
        each(std::make_index_sequence<kMade>(), [&](auto b) { V::store(to + b * V::block, adders.total[b]); });
        for (size_t b = kMade; b < bits; ++b) V::store(to + b * V::block, V::zero());
    }
}

// Adds a carry of the weight of bit kFrom.
template <class V, size_t kFrom, class T>
inline void ripple(T* count, T carry) {
#pragma GCC unroll 10
    for (size_t b = kFrom; b < kMaxBits; ++b) {
        const T next = V::both(count[b], carry);
        count[b] = V::exclusive(count[b], carry);
        carry = next;
    }
}

// The same for lists of any length, which weights that are far from random have.
template <class V>
void count_long_tier(const uint8_t* window, const uint16_t* entry, size_t fours, const uint16_t* list, size_t bits, uint8_t* counts) {
    using T = typename V::type;
    for (size_t n = 0; n < kTierLists; ++n) {
        T count[kMaxBits];
        for (T& bit : count) bit = V::zero();
        const auto plane = [&](size_t i) { return V::load(window + size_t{entry[i]} * kEntry); };
        const auto four = [&](size_t i) {
            const T low = add_two<V>(count[0], plane(i), plane(i + 1));
            return add_two<V>(count[1], low, add_two<V>(count[0], plane(i + 2), plane(i + 3)));
        };
        size_t left = fours;
        for (; left >= 4; left -= 4, entry += 16) {
            const T low = add_two<V>(count[2], four(0), four(4));
            ripple<V, 4>(count, add_two<V>(count[3], low, add_two<V>(count[2], four(8), four(12))));
        }
        for (; left; --left, entry += 4) ripple<V, 2>(count, four(0));
        for (size_t b = 0; b < bits; ++b) V::store(counts + (list[n] * bits + b) * V::block, count[b]);
    }
}

template <class V, size_t... kFours>
constexpr std::array<CountTier, sizeof...(kFours)> tier_counters(std::index_sequence<kFours...>) {
    return {count_tier<V, kFours>...};
}

template <class V, size_t kBits>
struct Number {
    typename V::type bit[kBits];
};

template <class V, size_t kBits>
inline Number<V, kBits> load_number(const uint8_t* from) {
    Number<V, kBits> n;
    for (size_t b = 0; b < kBits; ++b) n.bit[b] = V::load(from + b * V::block);
    return n;
}

template <class V, size_t kBits>
inline Number<V, kBits + 1> add(const Number<V, kBits>& x, const Number<V, kBits>& y) {
    Number<V, kBits + 1> z;
    z.bit[0] = V::exclusive(x.bit[0], y.bit[0]);
    auto carry = V::both(x.bit[0], y.bit[0]);
#pragma GCC unroll 16
    for (size_t b = 1; b < kBits; ++b) {
        z.bit[b] = V::sum(carry, x.bit[b], y.bit[b]);
        carry = V::carry(z.bit[b], x.bit[b], y.bit[b]);
    }
    z.bit[kBits] = carry;
    return z;
}

// x - y - 1 + 2^kBits
template <class V, size_t kBits>
inline Number<V, kBits + 1> subtract(const Number<V, kBits>& x, const Number<V, kBits>& y) {
    Number<V, kBits + 1> z;
    auto borrow = V::ones();
#pragma GCC unroll 16
    for (size_t b = 0; b + 1 < kBits; ++b) {
        z.bit[b] = V::sum(borrow, x.bit[b], y.bit[b]);
        borrow = V::borrow(z.bit[b], x.bit[b], y.bit[b]);
    }
    constexpr size_t last = kBits - 1;
    z.bit[last] = V::sum(borrow, x.bit[last], y.bit[last]);
    z.bit[kBits] = V::no_borrow(z.bit[last], x.bit[last], y.bit[last]);
    return z;
}

template <class V, size_t kBits>
inline void store_number(const Number<V, kBits>& n, uint8_t* to) {
    for (size_t b = 0; b < kBits; ++b) V::store(to + b * V::block, n.bit[b]);
}

// The sums of four outputs from the counts of the 16 lists: bit b of output j in sums[j * (kBits + kCarries) + b].
template <class V, size_t kBits>
inline void combine(const uint8_t* counts, uint8_t* sums) {
    constexpr size_t list = kBits * V::block;
    Number<V, kBits + 2> both[4], split[4];
#pragma GCC unroll 4
    for (size_t h = 0; h < 4; ++h) {
        // A list and its opposite enter every output with opposite signs.
        const auto of = [&](size_t p) {
            return subtract(load_number<V, kBits>(counts + p * list), load_number<V, kBits>(counts + (kLists - 1 - p) * list));
        };
        const auto low = of(4 * h), high = of(4 * h + 2);
        both[h] = add(low, high);
        split[h] = subtract(low, high);
    }
    constexpr size_t output = (kBits + kCarries) * V::block;
    store_number(add(add(split[0], split[1]), add(split[2], split[3])), sums + output);
    store_number(add(subtract(both[0], both[1]), subtract(both[2], both[3])), sums + 2 * output);
    const auto low = add(both[0], both[1]), high = add(both[2], both[3]);
    store_number(add(low, high), sums);
    store_number(subtract(low, high), sums + 3 * output);
}

template <class V, size_t kBits, class BeforeTier>
inline void count_group(const PlaneGroup& group, const uint16_t* entry, const uint8_t* window, uint8_t* counts, uint8_t* sums,
                        const BeforeTier& before_tier) {
    static constexpr auto kCounters = tier_counters<V>(std::make_index_sequence<24>());
    for (size_t tier = 0; tier < kTiers; ++tier) {
        before_tier(tier);
        const size_t fours = group.fours[tier];
        const uint16_t* list = group.list + tier * kTierLists;
        if (fours < kCounters.size())
            kCounters[fours](window, entry, list, kBits, counts);
        else
            count_long_tier<V>(window, entry, fours, list, kBits, counts);
        entry += kTierLists * 4 * fours;
    }
    combine<V, kBits>(counts, sums);
}

// Half the product of pixel x of output o is inside - sum, plus left at the first pixel, plus right at the last.
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
            inside[o] = static_cast<int16_t>(top);
            left[o] = static_cast<int16_t>(first);
            right[o] = static_cast<int16_t>(last);
        }
    }
};

template <void (*kPackSpan)(const float*, size_t, float, uint8_t*)>
void pack_plane_row(const float* row, size_t stride, size_t width, const float* threshold, uint8_t* packed) {
    for (size_t c = 0; c < kFeatures; ++c)
        kPackSpan(row + c * stride, width, threshold[c], packed + kWordBytes + c * plane_stride(width));
}

// What one block of pixels needs while it is computed.
template <size_t kBlock>
struct PlaneMemory {
    alignas(kAlign) uint8_t window[(kPlanes + 1) * kBlock];
    alignas(kAlign) uint8_t counts[kLists * kMaxBits * kBlock];
    alignas(kAlign) uint8_t sums[kMaxStep][kOutputs * (kMaxBits + kCarries) * kBlock];
    alignas(kAlign) float parts[kMaxStep][8 * kBlock];  // of one output, by unit, before they are interleaved
    PlaneMemory() { std::memset(window + kPlanes * kBlock, 0, kBlock); }
};

template <class F>
inline void with_bits(size_t bits, const F& f) {
    if (bits == 6) f(std::integral_constant<size_t, 6>());
    else if (bits == 7) f(std::integral_constant<size_t, 7>());
    else f(std::integral_constant<size_t, kMaxBits>());
}

// A part of what group g reads and writes: all at once would be more than the caches take.
inline void prefetch_part(const PlaneBlockPieces& pieces, size_t g, size_t tier) {
    constexpr size_t kParts = kTiers / kOutputs, kLine = kAlign / sizeof(float);
    const size_t o = g * kOutputs + tier / kParts, part = tier % kParts * kLine;
    for (size_t p = 0; p < pieces.count; ++p) {
        const PlanePiece& piece = pieces.piece[p];
        const BinaryRow& t = *piece.row;
        if (!t.out) continue;  // the bare product
        for (size_t x = piece.begin() + part; x < piece.end(); x += kParts * kLine)
            __builtin_prefetch(t.residual + o * t.stride + x, 0, 2);
        if (t.out == t.residual) continue;
        for (size_t x = t.step * piece.begin() + part; x < t.step * piece.end(); x += kParts * kLine)
            __builtin_prefetch(t.out + o * t.out_stride + x, 1, 2);
    }
}

// One block. finish(bits, sums, j, o, pieces, part) completes output o of unit j: into the task's row and signs where
// part is null, otherwise into part. pack_span(floats, count, threshold, packed) makes signs of pixels.
template <class V, class Finish, class PackSpan>
inline void plane_block(const PlaneBlockPieces& pieces, PlaneMemory<V::block>& memory, const Finish& finish, const PackSpan& pack_span) {
    const BinaryRow& task = *pieces.piece[0].row;
    const auto group_of = [&](size_t j, size_t g) -> const PlaneGroup& {
        return reinterpret_cast<const PlaneWeights*>(task.weights[j])->group[g];
    };
    gather_window<V>(pieces, plane_stride(task.width), memory.window);
    for (size_t g = 0; g < kGroups; ++g) {
        for (size_t j = 0; j < task.step; ++j) {
            const PlaneGroup& group = group_of(j, g);
            const uint16_t* entry = reinterpret_cast<const PlaneWeights*>(task.weights[j])->entry + group.first;
            with_bits(group.bits, [&](auto bits) {
                count_group<V, decltype(bits)::value>(group, entry, memory.window, memory.counts, memory.sums[j], [&](size_t tier) {
                    if (j == 0) prefetch_part(pieces, g, tier);
                });
            });
        }
        for (size_t i = 0; i < kOutputs; ++i) {
            const size_t o = g * kOutputs + i;
            for (size_t j = 0; j < task.step; ++j)
                with_bits(group_of(j, g).bits, [&](auto bits) {
                    constexpr size_t kBits = decltype(bits)::value + kCarries;
                    finish(std::integral_constant<size_t, kBits>(), memory.sums[j] + i * kBits * V::block, j, o, pieces,
                           task.step > 1 ? memory.parts[j] : nullptr);
                });
            for (size_t p = 0; task.step > 1 && p < pieces.count; ++p) {
                const PlanePiece& piece = pieces.piece[p];
                const BinaryRow& t = *piece.row;
                const float* parts[kMaxStep];
                for (size_t j = 0; j < t.step; ++j) parts[j] = memory.parts[j] + piece.at * kWord;
                const size_t begin = t.step * piece.begin(), end = t.step * piece.end();
                float* out = t.out + o * t.out_stride + begin;
                interleave(parts, t.step, piece.end() - piece.begin(), out);
                if (t.packed)
                    pack_span(out, end - begin, t.threshold[o], t.packed + kWordBytes + o * plane_stride(t.step * t.width) + begin / 8);
            }
        }
    }
}

// The rows of one task, block by block: Wide where more pixels are left than Narrow holds.
template <class Wide, class Narrow, class Finish, class PackSpan>
inline void plane_blocks(const BinaryRow* rows, size_t count, const Finish& finish, const PackSpan& pack_span) {
    PlaneMemory<Wide::block> memory;
    const size_t each = words_of(rows->width), words = count * each;
    for (size_t begin = 0; begin < words; begin += Wide::bytes / kWordBytes) {
        const size_t taken = std::min(words - begin, Wide::bytes / kWordBytes);
        const PlaneBlockPieces pieces(rows, each, begin, taken);
        if (taken > Narrow::bytes / kWordBytes)
            plane_block<Wide>(pieces, memory, finish, pack_span);
        else
            plane_block<Narrow>(pieces, memory, finish, pack_span);
    }
}

// The tops of every unit and row of a task.
struct TaskTops {
    Tops of[kMaxStep][kMaxRows];
    TaskTops(const BinaryRow* rows, size_t count) {
        for (size_t j = 0; j < rows->step; ++j)
            for (size_t r = 0; r < count; ++r) of[j][r].set(*reinterpret_cast<const PlaneWeights*>(rows->weights[j]), rows[r].rows);
    }
};

}  // namespace
}  // namespace bbcu
