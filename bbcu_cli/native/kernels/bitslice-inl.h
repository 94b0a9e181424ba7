// The +-1 product of a binary layer on bit planes, written once over a vector type and compiled into kernel sets.
//
// A *plane* holds one bit of many pixels, so one operation of logic works on as many pixels as a vector has bits. The
// signs of a row are 64 planes, one for each channel; a bit is 1 where the sign is -1, and so it is in the weights.
//
//   1. A tap of output j contributes a * w, with a and w +-1: +1 where the bits agree, -1 where they differ. With D_j
//      of 576 taps differing, the product is 576 - 2 D_j, and half of it is 288 - D_j, a whole number in -288..288.
//   2. For one output, D_j = M_j + sum over taps of (w's bit ? -1 : 1) * a's bit, where M_j is how many of its weights
//      are -1: a tap whose weight is +1 differs where a's bit is 1, one whose weight is -1 where it is not.
//   3. Four outputs are counted together. The four bits of a tap's weights are its pattern p, bit j that of output j;
//      the taps fall into 16 lists by it. N_p is the number of a's bits that are 1 in list p; the weights cost nothing
//      but the order in which planes are read. D_j = M_j + S_j, where S_j = sum over p of (bit j of p ? -N_p : N_p).
//   4. N_p is counted by carry-save adders: a full adder makes of three planes of one weight a sum plane of the same
//      weight and a carry plane of twice that weight. A list of n planes takes about n adders, for all pixels at once.
//   5. S_0..S_3 are sums and differences that share their parts. List p and its opposite 15 - p enter every output with
//      opposite signs: d_p = N_p - N_(15-p), for even p. From these, bit by bit of p, 18 additions and subtractions.
//   6. Numbers are planes without a sign. A difference of x and y, of b bits, is kept as x + ~y = x - y - 1 + 2^b, of
//      b + 1 bits and not negative. What this adds comes to a constant for each output, so that half the product is
//      top_j - sum_j, with sum_j what step 5 gives and top_j = 288 - M_j + all that was added.
//   7. Outside the image a sign is 0, not +-1, but its bit is read as 0, which means +1. Half of what a tap outside
//      adds by mistake is 32 - (how many of its 64 weights are -1): taken off top_j, at the first and last pixel apart.
//   8. Ten bits say all of a half, so sums are kept without their higher bits. Where numbers become words of 16 bits,
//      one for each pixel, those ten are the highest: a *word* is 64 times the half, and its sign is the word's.
//
// An example with two outputs, hence four lists, and six taps; bits by tap:
//   weights of output 0: 0 1 0 1 0 0, of output 1: 0 0 1 1 0 1, so the patterns are 0 1 2 3 0 2; signs: 1 0 1 1 1 1
//   N_0 = 2 (taps 0 and 4), N_1 = 0, N_2 = 2 (taps 2 and 5), N_3 = 1; d_0 = N_0 - N_3 = 1, d_2 = N_2 - N_1 = 2
//   S_0 = d_0 + d_2 = 3, S_1 = d_0 - d_2 = -1; M_0 = 2, M_1 = 3; D_0 = 5, D_1 = 2: products 6 - 10 = -4, 6 - 4 = 2
//   with counts of 2 bits: d_0 is kept as 1 + 3 = 4 and d_2 as 2 + 3 = 5; sum_0 = 4 + 5 = 9, sum_1 = 4 - 5 - 1 + 8 = 6
//   top_0 = 3 - M_0 + 2 * 3 = 7, top_1 = 3 - M_1 + 7 = 7; halves: 7 - 9 = -2 and 7 - 6 = 1
//
// V has `type`, `bytes`, `block` (bytes from one plane in memory to the next), load, store, zero, ones,
// exclusive(a, b), both(a, b) and
//   Mask, mask(bits)             which 64-bit words of a vector are meant
//   load_words(v, mask, p)       v, of which these are 0, with them loaded; the others are not touched
//   sum(c, a, b), carry(c, s, a, b)         of c + a + b, where s is the sum
//   sum(c, a, b), borrow(d, a, b)           of a - b - c, where d is the difference; no_borrow is ~borrow
//   from_left(here, before), from_right(here, after)    the plane moved by one pixel, given the words before or after
#pragma once

#include <cstring>
#include <utility>

#include "../portability.h"
#include "bitslice.h"

namespace bbcu {
namespace {  // of this file of one instruction set alone; see portability.h

using namespace bitslice;

constexpr size_t kSumBits = 10;  // that are kept of an output's sum: half a product is within -288..288 (step 8)

// A number that is known when it is compiled, as a type.
template <size_t kNumber>
struct Constant {
    static constexpr size_t value = kNumber;
};

// total of weight 1 becomes total + a + b; returns the carry, of weight 2.
template <class V, class T>
inline T add_two(T& total, T a, T b) {
    const T c = total;
    total = V::sum(c, a, b);
    return V::carry(c, total, a, b);
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

    // Planes number 4 * kBlock and the three after it: four entries are one load and shifts.
    template <size_t kBlock>
    BBCU_ALWAYS_INLINE void push_four(const uint8_t* window, const uint16_t* entry) {
        constexpr size_t i = 4 * kBlock;
        uint64_t entries;
        std::memcpy(&entries, entry + i, sizeof entries);
        push<0, i>(V::load(window + (entries & 0xffff)));
        push<0, i + 1>(V::load(window + (entries >> 16 & 0xffff)));
        push<0, i + 2>(V::load(window + (entries >> 32 & 0xffff)));
        push<0, i + 3>(V::load(window + (entries >> 48)));
    }

    template <size_t... kBlocks>
    BBCU_ALWAYS_INLINE void push_fours([[maybe_unused]] const uint8_t* window, [[maybe_unused]] const uint16_t* entry,
                                       std::index_sequence<kBlocks...>) {
        (push_four<kBlocks>(window, entry), ...);
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

    template <size_t... kWeight>
    BBCU_ALWAYS_INLINE void store([[maybe_unused]] uint8_t* to, std::index_sequence<kWeight...>) const {
        (V::store(to + kWeight * V::block, total[kWeight]), ...);
    }
};

// Counts the lists of a tier; bit b of list p becomes plane p * bits + b of counts.
using CountTier = void (*)(const uint8_t* window, const uint16_t* entry, const uint16_t* list, size_t bits,
                           uint8_t* counts);

template <class V, size_t kFours>
void count_tier(const uint8_t* window, const uint16_t* entry, const uint16_t* list, size_t bits, uint8_t* counts) {
    for (size_t n = 0; n < kTierLists; ++n, entry += 4 * kFours) {
        Adders<V, kMaxBits> adders;
        adders.push_fours(window, entry, std::make_index_sequence<kFours>());
        adders.template finish<0, 4 * kFours>();
        uint8_t* to = counts + list[n] * bits * V::block;
        constexpr size_t made = bits_of(4 * kFours);
        adders.store(to, std::make_index_sequence<made>());
        for (size_t b = made; b < bits; ++b) V::store(to + b * V::block, V::zero());
    }
}

// Adds a carry of the weight of bit kFrom.
template <class V, size_t kFrom, class T>
inline void ripple(T* count, T carry) {
    BBCU_UNROLL(10)
    for (size_t b = kFrom; b < kMaxBits; ++b) {
        const T next = V::both(count[b], carry);
        count[b] = V::exclusive(count[b], carry);
        carry = next;
    }
}

// The same for lists of any length, which weights that are far from random have.
template <class V>
void count_long_tier(const uint8_t* window, const uint16_t* entry, size_t fours, const uint16_t* list, size_t bits,
                     uint8_t* counts) {
    using T = typename V::type;
    for (size_t n = 0; n < kTierLists; ++n) {
        T count[kMaxBits];
        for (T& bit : count) bit = V::zero();
        const auto plane = [&](size_t i) { return V::load(window + size_t{entry[i]}); };
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

constexpr size_t one_more(size_t bits) { return bits < kSumBits ? bits + 1 : kSumBits; }

template <class V, size_t kBits>
inline Number<V, one_more(kBits)> add(const Number<V, kBits>& x, const Number<V, kBits>& y) {
    Number<V, one_more(kBits)> z;
    z.bit[0] = V::exclusive(x.bit[0], y.bit[0]);
    auto carry = V::both(x.bit[0], y.bit[0]);
    BBCU_UNROLL(16)
    for (size_t b = 1; b < kBits; ++b) {
        z.bit[b] = V::sum(carry, x.bit[b], y.bit[b]);
        carry = V::carry(carry, z.bit[b], x.bit[b], y.bit[b]);
    }
    if constexpr (kBits < kSumBits) z.bit[kBits] = carry;
    return z;
}

// x - y - 1 + 2^kBits (step 6)
template <class V, size_t kBits>
inline Number<V, one_more(kBits)> subtract(const Number<V, kBits>& x, const Number<V, kBits>& y) {
    Number<V, one_more(kBits)> z;
    auto borrow = V::ones();
    BBCU_UNROLL(16)
    for (size_t b = 0; b + 1 < kBits; ++b) {
        z.bit[b] = V::sum(borrow, x.bit[b], y.bit[b]);
        borrow = V::borrow(z.bit[b], x.bit[b], y.bit[b]);
    }
    constexpr size_t last = kBits - 1;
    z.bit[last] = V::sum(borrow, x.bit[last], y.bit[last]);
    if constexpr (kBits < kSumBits) z.bit[kBits] = V::no_borrow(z.bit[last], x.bit[last], y.bit[last]);
    return z;
}

template <class V, size_t kBits>
inline void store_number(const Number<V, kBits>& n, uint8_t* to) {
    for (size_t b = 0; b < kBits; ++b) V::store(to + b * V::block, n.bit[b]);
}

// Step 5, from the counts of the 16 lists: bit b of the sum of output j in sums[j * kSumBits + b].
template <class V, size_t kBits>
inline void combine(const uint8_t* counts, uint8_t* sums) {
    constexpr size_t list = kBits * V::block;
    Number<V, one_more(one_more(kBits))> both[4],
        split[4];  // at h, bits 2 and 3 of p: the two d_p of bit 1 added, or subtracted
    BBCU_UNROLL(4)
    for (size_t h = 0; h < 4; ++h) {
        const auto difference = [&](size_t p) {
            return subtract(load_number<V, kBits>(counts + p * list),
                            load_number<V, kBits>(counts + (kLists - 1 - p) * list));
        };
        const auto low = difference(4 * h), high = difference(4 * h + 2);
        both[h] = add(low, high);
        split[h] = subtract(low, high);
    }
    constexpr size_t output = kSumBits * V::block;
    store_number(add(add(split[0], split[1]), add(split[2], split[3])), sums + output);
    store_number(add(subtract(both[0], both[1]), subtract(both[2], both[3])), sums + 2 * output);
    const auto low = add(both[0], both[1]), high = add(both[2], both[3]);
    store_number(add(low, high), sums);
    store_number(subtract(low, high), sums + 3 * output);
}

// Counters of the tiers whose lists have kFours times four entries.
template <class V, class Fours>
struct TierCounters;
template <class V, size_t... kFours>
struct TierCounters<V, std::index_sequence<kFours...>> {
    static constexpr size_t size = sizeof...(kFours);
    static constexpr CountTier of[] = {count_tier<V, kFours>...};
};

// The sums of a group of four outputs; before_tier(n) is called before each tier.
template <class V, size_t kBits, class BeforeTier>
inline void count_group(const PlaneGroup& group, const uint16_t* entry, const uint8_t* window, uint8_t* counts,
                        uint8_t* sums, const BeforeTier& before_tier) {
    using Counters = TierCounters<V, std::make_index_sequence<24>>;
    for (size_t tier = 0; tier < kTiers; ++tier) {
        before_tier(tier);
        const size_t fours = group.fours[tier];
        const uint16_t* list = group.list + tier * kTierLists;
        if (fours < Counters::size)
            Counters::of[fours](window, entry, list, kBits, counts);
        else
            count_long_tier<V>(window, entry, fours, list, kBits, counts);
        entry += kTierLists * 4 * fours;
    }
    combine<V, kBits>(counts, sums);
}

}  // namespace
}  // namespace bbcu
