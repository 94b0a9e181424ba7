#include "memory.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include "../kernels/kernel_set.h"

namespace bbcu::train {
namespace {

constexpr size_t kPieces = 64;             // kept at most
constexpr size_t kKept = size_t{1} << 28;  // bytes kept at most

class Shelf {
public:
    // The smallest piece that holds so many bytes and wastes no more than half of itself, or none.
    Memory find(size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        auto best = free_.end();
        for (auto at = free_.begin(); at != free_.end(); ++at)
            if (at->bytes >= bytes && at->bytes / 2 <= bytes && (best == free_.end() || at->bytes < best->bytes))
                best = at;
        if (best == free_.end()) return {nullptr, 0};
        const Memory found = *best;
        *best = free_.back();
        free_.pop_back();
        kept_ -= found.bytes;
        return found;
    }

    bool keep(Memory memory) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (free_.size() == kPieces || memory.bytes > kKept - kept_) return false;
        free_.push_back(memory);
        kept_ += memory.bytes;
        return true;
    }

    Shelf() { free_.reserve(kPieces); }

private:
    std::mutex mutex_;
    std::vector<Memory> free_;
    size_t kept_ = 0;
};

Shelf& shelf() {
    static Shelf* const shelf = new Shelf;  // never destroyed, as the pool of threads
    return *shelf;
}

}  // namespace

Memory take_memory(size_t bytes) {
    const Memory found = shelf().find(bytes);
    if (found.data) return found;
    bytes = std::max<size_t>(bytes, 1);
    return {::operator new(bytes, std::align_val_t{kAlign}), bytes};
}

void give_back(Memory memory) {
    if (memory.data && !shelf().keep(memory)) ::operator delete(memory.data, std::align_val_t{kAlign});
}

}  // namespace bbcu::train
