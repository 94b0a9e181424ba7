// Aligned, zero-filled memory, and the rows that flow from stage to stage.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "engine.h"

namespace bbcu {

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// a * b. Throws std::bad_array_new_length on overflow.
inline size_t checked_product(size_t a, size_t b) {
    if (b && a > std::numeric_limits<ptrdiff_t>::max() / b) throw std::bad_array_new_length();
    return a * b;
}

// Memory that waits for the next run of a network: pages that the system hands out anew cost a small image a fifth
// of its time. It comes in pieces that the system can map as huge pages: rows lie on more small ones than the CPU's
// table of pages holds. Never holds more than was in use at once, but for what a piece has left. Safe to share by
// threads.
class MemoryPool {
public:
    MemoryPool() = default;
    ~MemoryPool();
    MemoryPool(const MemoryPool&) = delete;
    MemoryPool& operator=(const MemoryPool&) = delete;

    struct Block {
        void* data;
        size_t bytes;
    };
    // At least that many bytes, at a multiple of kAlign, with anything in them. Throws std::bad_alloc.
    Block take(size_t bytes);
    void give(Block block) noexcept;

private:
    struct Piece {
        char* data;
        size_t bytes;
        size_t cut;     // bytes that were made blocks
        size_t blocks;  // that are in use
    };
    Piece& piece_of(const Block& block);
    Piece& piece_for(size_t bytes);

    std::mutex mutex_;
    std::vector<Piece> pieces_;  // blocks are cut from the last
    std::vector<Block> free_;    // the longest unused first
};

// Of a pool, which then outlives it, or with null of the system.
template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t count, MemoryPool* pool = nullptr) : size_(count) {
        const size_t bytes = checked_product(count, sizeof(T));
        MemoryPool::Block block{nullptr, bytes};
        if (pool)
            block = pool->take(bytes);
        else
            block.data = ::operator new(bytes, std::align_val_t{kAlign});
        data_ = {static_cast<T*>(block.data), Free{pool, block.bytes}};
        std::memset(block.data, 0, bytes);
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](size_t i) { return data_.get()[i]; }
    const T& operator[](size_t i) const { return data_.get()[i]; }
    size_t size() const { return size_; }
    explicit operator bool() const { return data_ != nullptr; }

private:
    struct Free {
        MemoryPool* pool = nullptr;
        size_t bytes = 0;
        void operator()(T* p) const {
            if (pool)
                pool->give({p, bytes});
            else
                ::operator delete(p, std::align_val_t{kAlign});
        }
    };
    std::unique_ptr<T, Free> data_;
    size_t size_ = 0;
};

// Size of the rows of one resolution.
struct RowShape {
    size_t width;
    size_t stride;
    explicit RowShape(size_t width_) : width(width_), stride(round_up(width_, kRowPad) + kRowPad) {}
};

// A float row with its memory.
class FloatRow {
public:
    FloatRow() = default;
    FloatRow(size_t channels, const RowShape& shape, MemoryPool* pool = nullptr)
        : buffer_(checked_product(channels, shape.stride) + kRowPad, pool) {}
    float* data() { return buffer_ ? buffer_.data() + kRowPad : nullptr; }
    explicit operator bool() const { return static_cast<bool>(buffer_); }

private:
    Buffer<float> buffer_;
};

// What a stage hands on for one row: its floats, and its signs when the next stage is binary.
struct Row {
    FloatRow floats;
    Buffer<uint8_t> packed;
};

// Rows of one resolution that wait to be used again, so that nothing is allocated once a band is under way.
class RowPool {
public:
    RowPool(const RowShape& shape, MemoryPool* memory) : shape_(shape), memory_(memory) {}
    FloatRow take() {
        if (free_.empty()) return FloatRow(kFeatures, shape_, memory_);
        FloatRow row = std::move(free_.back());
        free_.pop_back();
        return row;
    }
    void give(FloatRow row) {
        if (row) free_.push_back(std::move(row));
    }

private:
    RowShape shape_;
    MemoryPool* memory_;
    std::vector<FloatRow> free_;
};

}  // namespace bbcu
