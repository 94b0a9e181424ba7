// Aligned memory for one call, taken again by later ones: fresh pages would cost a tenth of a pass.
#pragma once

#include <cstddef>
#include <utility>

namespace bbcu::train {

struct Memory {
    void* data;
    size_t bytes;  // at least those asked for
};

// Throws std::bad_alloc. Safe to call from any thread.
Memory take_memory(size_t bytes);
void give_back(Memory memory);

// `count` elements, not initialised.
template <class T>
class Scratch {
public:
    explicit Scratch(size_t count) : memory_(take_memory(count * sizeof(T))) {}
    ~Scratch() { give_back(memory_); }
    Scratch(Scratch&& other) noexcept : memory_(std::exchange(other.memory_, Memory{nullptr, 0})) {}
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* data() const { return static_cast<T*>(memory_.data); }
    T& operator[](size_t i) const { return data()[i]; }

private:
    Memory memory_;
};

}  // namespace bbcu::train
