// Weights of a binary unit as the bit-sliced kernels read them; bitslice-inl.h says what they mean.
#pragma once

#include "kernel_set.h"

namespace bbcu::bitslice {

constexpr size_t kOutputs = 4;  // counted together
constexpr size_t kGroups = kFeatures / kOutputs;
constexpr size_t kLists = size_t{1} << kOutputs;
constexpr size_t kTierLists = 4;  // lists that are filled up to the same length
constexpr size_t kTiers = kLists / kTierLists;
constexpr size_t kPlanes = kTaps * kFeatures;                        // of a window; one more is zero
constexpr size_t kMaxEntries = kTierLists * (kPlanes + 3 * kTiers);  // of four outputs
constexpr size_t kMaxBits = 10;                                      // of a count: 576 taps may fall into one list

// How four outputs are counted. A list is filled up with the zero plane; the four longest lists have the same length,
// the next four too, and so on, so that few branches depend on the weights.
struct PlaneGroup {
    uint16_t bits;           // of a count: 6, 7 or kMaxBits
    uint16_t fours[kTiers];  // entries of each list of a tier, by four
    uint16_t list[kLists];   // which list is the n-th longest
    uint16_t first;          // of its entries in PlaneWeights::entry
};

struct PlaneWeights {
    PlaneGroup group[kGroups];
    uint16_t entry[kGroups * kMaxEntries];  // planes of the window, as bytes from its begin
    // Of half the +-1 product, which is top - sum where every tap is inside the image.
    int16_t top[kFeatures];
    int16_t tap[kFeatures][kTaps];  // what a tap adds where it is outside and its signs are read as +1
};

// signs: as KernelSet::pack_weights; block: bytes from one plane of a window to the next; into: a PlaneWeights.
void pack_weights(const uint64_t* signs, size_t block, uint8_t* into);

}  // namespace bbcu::bitslice
