// What GCC, Clang and MSVC call by different names, and which architecture a file is compiled for. Everything else in
// this tree is C++17 and the vendors' intrinsics.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define BBCU_MSVC 1
#else
#define BBCU_MSVC 0
#endif

// A file of kernels for another architecture compiles to nothing, so that cross builds need not choose among files.
#if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#define BBCU_X86_64 1
#else
#define BBCU_X86_64 0
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define BBCU_ARM64 1
#else
#define BBCU_ARM64 0
#endif

// Whether AddressSanitizer looks at every allocation.
#if defined(__SANITIZE_ADDRESS__)
#define BBCU_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BBCU_SANITIZED 1
#endif
#endif
#ifndef BBCU_SANITIZED
#define BBCU_SANITIZED 0
#endif

#include <cstddef>
#include <cstdint>

#if BBCU_X86_64
#include <emmintrin.h>
#elif BBCU_MSVC
#include <intrin.h>
#endif

// On functions that work only, or only well, as a part of their caller: out of line, their vectors live in memory.
#if BBCU_MSVC
#define BBCU_ALWAYS_INLINE __forceinline
#else
#define BBCU_ALWAYS_INLINE inline __attribute__((always_inline))
#endif
// Likewise, between a lambda's parameters and its body.
#if BBCU_MSVC
#define BBCU_INLINED
#else
#define BBCU_INLINED __attribute__((always_inline))
#endif

// On loops that need all registers, which callers would take.
#if BBCU_MSVC
#define BBCU_NEVER_INLINE __declspec(noinline)
#else
#define BBCU_NEVER_INLINE __attribute__((noinline))
#endif

// Before a loop of at most n turns over vectors that are to stay in registers. MSVC decides alone.
#define BBCU_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BBCU_UNROLL(n) BBCU_PRAGMA(clang loop unroll_count(n))
#elif BBCU_MSVC
#define BBCU_UNROLL(n)
#else
#define BBCU_UNROLL(n) BBCU_PRAGMA(GCC unroll n)
#endif

// Hides from Clang how a vector was made. From a choice by a ^ b between c and a it makes four operations, where NEON
// has one for the choice.
#if defined(__clang__) && BBCU_ARM64
#define BBCU_HIDE(vector) __asm__("" : "+w"(vector))
#else
#define BBCU_HIDE(vector)
#endif

// Kernel sets give the same floats only where no compiler fuses a multiplication and an addition by itself.
// GCC and Clang take that from -ffp-contract=off, which CMakeLists.txt gives.
#if BBCU_MSVC
#pragma fp_contract(off)
#endif

namespace bbcu {
namespace {  // local to every file: what one compiled for AVX-512 makes of these is never called by another

// Ask for the cache line of p; any address will do. MSVC on ARM has no other way than into the first level.
BBCU_ALWAYS_INLINE void prefetch_first_level(const void* p) {
#if BBCU_X86_64
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
#elif BBCU_MSVC
    __prefetch(p);
#else
    __builtin_prefetch(p, 0, 3);
#endif
}

BBCU_ALWAYS_INLINE void prefetch_second_level(const void* p) {
#if BBCU_X86_64
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
#elif BBCU_MSVC
    __prefetch(p);
#else
    __builtin_prefetch(p, 0, 2);
#endif
}

// Tells the CPU that a loop only waits.
BBCU_ALWAYS_INLINE void spin_pause() {
#if BBCU_X86_64
    _mm_pause();
#elif BBCU_ARM64 && BBCU_MSVC
    __yield();
#elif BBCU_ARM64
    __asm__ volatile("yield");
#endif
}

// Bits that are set. GCC and Clang know the pattern for what it is, where the CPU has an instruction for it.
inline int popcount(uint64_t word) {
    word -= word >> 1 & 0x5555555555555555;
    word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return static_cast<int>(word * 0x0101010101010101 >> 56);
}

// The standard's own are templates, which a file of one instruction set would share with others.
inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
inline size_t most(size_t a, size_t b) { return a < b ? b : a; }

}  // namespace
}  // namespace bbcu
