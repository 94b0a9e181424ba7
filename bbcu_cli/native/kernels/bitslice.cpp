// Sorting the taps of a unit into lists. Compiled for any CPU: what the standard library makes of it may be shared.

#include "bitslice.h"

#include <algorithm>
#include <new>
#include <numeric>
#include <vector>

#include "../portability.h"

namespace bbcu::bitslice {
namespace {

// rows: [kOutputs][9]. Returns the entry after the group's.
uint16_t* pack_group(const uint64_t* rows, size_t block, PlaneGroup& group, uint16_t* entry) {
    std::vector<uint16_t> lists[kLists];
    for (size_t plane = 0; plane < kPlanes; ++plane) {
        size_t pattern = 0;
        for (size_t j = 0; j < kOutputs; ++j) {
            const uint64_t word = rows[j * kTaps + plane / kFeatures];
            pattern |= static_cast<size_t>(word >> plane % kFeatures & 1) << j;
        }
        lists[pattern].push_back(static_cast<uint16_t>(plane * block));
    }
    std::iota(group.list, group.list + kLists, uint16_t{0});
    std::stable_sort(group.list, group.list + kLists,
                     [&](size_t p, size_t q) { return lists[p].size() > lists[q].size(); });
    const size_t longest = lists[group.list[0]].size();
    group.bits = longest <= 60 ? 6 : longest <= 124 ? 7 : kMaxBits;
    for (size_t n = 0; n < kLists; ++n) {
        std::vector<uint16_t>& list = lists[group.list[n]];
        uint16_t& fours = group.fours[n / kTierLists];
        if (n % kTierLists == 0) fours = static_cast<uint16_t>((list.size() + 3) / 4);
        list.resize(size_t{4} * fours, static_cast<uint16_t>(kPlanes * block));
        entry = std::copy(list.begin(), list.end(), entry);
    }
    return entry;
}

// Half the +-1 product of output o of a group, where every tap is inside the image, is top - sum (step 6).
int top_of(const uint64_t* signs, size_t o, size_t bits, int16_t* tap) {
    const int once = (1 << bits) - 1;
    const int added[kOutputs] = {8 * once, 4 * (2 * once + 1), 2 * (4 * once + 3), 8 * once + 7};
    int top = static_cast<int>(kPlanes / 2) + added[o % kOutputs];
    for (size_t t = 0; t < kTaps; ++t) {
        const int minus = popcount(signs[o * kTaps + t]);
        tap[t] = static_cast<int16_t>(static_cast<int>(kFeatures / 2) - minus);
        top -= minus;
    }
    return top;
}

}  // namespace

void pack_weights(const uint64_t* signs, size_t block, uint8_t* into) {
    auto& weights = *new (into) PlaneWeights{};
    uint16_t* entry = weights.entry;
    for (size_t g = 0; g < kGroups; ++g) {
        PlaneGroup& group = weights.group[g];
        group.first = static_cast<uint16_t>(entry - weights.entry);
        entry = pack_group(signs + g * kOutputs * kTaps, block, group, entry);
        for (size_t o = g * kOutputs; o < (g + 1) * kOutputs; ++o)
            weights.top[o] = static_cast<int16_t>(top_of(signs, o, group.bits, weights.tap[o]));
    }
}

}  // namespace bbcu::bitslice
