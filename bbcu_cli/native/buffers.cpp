#include "buffers.h"

#include <algorithm>

namespace bbcu {

MemoryPool::~MemoryPool() {
    for (const Block& block : free_) ::operator delete(block.data, std::align_val_t{kAlign});
}

MemoryPool::Block MemoryPool::take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The newest, whose memory the caches may still hold; not much larger than needed, so that nothing is wasted.
    const auto fits = [&](const Block& block) { return block.bytes >= bytes && block.bytes - bytes <= bytes / 8; };
    const auto found = std::find_if(free_.rbegin(), free_.rend(), fits);
    if (found != free_.rend()) {
        const Block block = *found;
        free_.erase(std::next(found).base());
        return block;
    }
    // What another size of image left makes room for as much as is new.
    size_t released = 0, count = 0;
    for (; count < free_.size() && released < bytes; released += free_[count++].bytes)
        ::operator delete(free_[count].data, std::align_val_t{kAlign});
    free_.erase(free_.begin(), free_.begin() + static_cast<ptrdiff_t>(count));
    return {::operator new(bytes, std::align_val_t{kAlign}), bytes};
}

void MemoryPool::give(Block block) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    try {
        free_.push_back(block);
    } catch (const std::bad_alloc&) {  // no room to remember it
        ::operator delete(block.data, std::align_val_t{kAlign});
    }
}

}  // namespace bbcu
