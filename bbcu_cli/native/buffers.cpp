#include "buffers.h"

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "portability.h"

namespace bbcu {
namespace {

#if defined(__linux__) && defined(MADV_HUGEPAGE) && !BBCU_SANITIZED

constexpr size_t kPiece = size_t{2} << 20;  // a huge page
constexpr size_t kBlocks = 8;

char* new_piece(size_t bytes) {
    void* mapped = mmap(nullptr, bytes + kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* first = static_cast<char*>(mapped);
    const size_t before = (kPiece - reinterpret_cast<uintptr_t>(first) % kPiece) % kPiece, after = kPiece - before;
    if (before) munmap(first, before);
    if (after) munmap(first + before + bytes, after);
    madvise(first + before, bytes, MADV_HUGEPAGE);  // advice: where it is not taken, nothing else changes
    return first + before;
}

void delete_piece(char* data, size_t bytes) { munmap(data, bytes); }

#else

// Under AddressSanitizer every block is a piece of its own, so that it sees what is beyond.
constexpr size_t kPiece = BBCU_SANITIZED ? kAlign : size_t{2} << 20;
constexpr size_t kBlocks = BBCU_SANITIZED ? 1 : 8;

char* new_piece(size_t bytes) { return static_cast<char*>(::operator new(bytes, std::align_val_t{kAlign})); }

void delete_piece(char* data, size_t) { ::operator delete(data, std::align_val_t{kAlign}); }

#endif

}  // namespace

MemoryPool::~MemoryPool() {
    for (const Piece& piece : pieces_) delete_piece(piece.data, piece.bytes);
}

MemoryPool::Piece& MemoryPool::piece_of(const Block& block) {
    const auto* data = static_cast<const char*>(block.data);
    const auto holds = [&](const Piece& piece) { return data >= piece.data && data < piece.data + piece.bytes; };
    return *std::find_if(pieces_.begin(), pieces_.end(), holds);
}

// One with room for a new block. What another size of image left is used again or makes room.
MemoryPool::Piece& MemoryPool::piece_for(size_t bytes) {
    if (!pieces_.empty() && pieces_.back().bytes - pieces_.back().cut >= bytes) return pieces_.back();
    // Room for a few blocks of that size: what no block takes at the end of a piece is lost, and pages that nothing has
    // touched cost nothing.
    const size_t whole = round_up(kBlocks * bytes, kPiece);
    for (size_t released = 0; released < bytes;) {
        const auto unused = std::find_if(pieces_.begin(), pieces_.end(), [](const Piece& p) { return !p.blocks; });
        if (unused == pieces_.end()) break;
        Piece piece = *unused;
        const auto inside = [&](const Block& block) { return &piece_of(block) == &*unused; };
        free_.erase(std::remove_if(free_.begin(), free_.end(), inside), free_.end());
        pieces_.erase(unused);
        if (piece.bytes >= bytes && piece.bytes <= whole + kPiece) {
            piece.cut = 0;
            pieces_.push_back(piece);
            return pieces_.back();
        }
        released += piece.bytes;
        delete_piece(piece.data, piece.bytes);
    }
    pieces_.reserve(pieces_.size() + 1);
    pieces_.push_back({new_piece(whole), whole, 0, 0});
    return pieces_.back();
}

MemoryPool::Block MemoryPool::take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The newest, whose memory the caches may still hold; not much larger than needed, so that nothing is wasted.
    const auto fits = [&](const Block& block) { return block.bytes >= bytes && block.bytes - bytes <= bytes / 8; };
    const auto found = std::find_if(free_.rbegin(), free_.rend(), fits);
    if (found != free_.rend()) {
        const Block block = *found;
        free_.erase(std::next(found).base());
        ++piece_of(block).blocks;
        return block;
    }
    const size_t whole = round_up(std::max<size_t>(bytes, 1), kAlign);
    Piece& piece = piece_for(whole);
    const Block block{piece.data + piece.cut, whole};
    piece.cut += whole;
    ++piece.blocks;
    return block;
}

void MemoryPool::give(Block block) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    --piece_of(block).blocks;
    try {
        free_.push_back(block);
    } catch (const std::bad_alloc&) {  // no room to remember it: it waits for the rest of its piece
    }
}

}  // namespace bbcu
