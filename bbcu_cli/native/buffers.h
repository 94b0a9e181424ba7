// Aligned, zero-filled memory, and the rows that flow from stage to stage.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
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

template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t count) : size_(count) {
        const size_t bytes = checked_product(count, sizeof(T));
        data_.reset(static_cast<T*>(::operator new(bytes, std::align_val_t{kAlign})));
        std::memset(static_cast<void*>(data_.get()), 0, bytes);
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T& operator[](size_t i) { return data_.get()[i]; }
    const T& operator[](size_t i) const { return data_.get()[i]; }
    size_t size() const { return size_; }
    explicit operator bool() const { return data_ != nullptr; }

private:
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t{kAlign}); }
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
    FloatRow(size_t channels, const RowShape& shape) : buffer_(checked_product(channels, shape.stride) + kRowPad) {}
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
    explicit RowPool(const RowShape& shape) : shape_(shape) {}
    FloatRow take() {
        if (free_.empty()) return FloatRow(kFeatures, shape_);
        FloatRow row = std::move(free_.back());
        free_.pop_back();
        return row;
    }
    void give(FloatRow row) {
        if (row) free_.push_back(std::move(row));
    }

private:
    RowShape shape_;
    std::vector<FloatRow> free_;
};

}  // namespace bbcu
