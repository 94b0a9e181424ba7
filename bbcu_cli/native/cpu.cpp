#include "cpu.h"

#include <cstdint>
#include <initializer_list>

#include "portability.h"

#if BBCU_X86_64 && BBCU_MSVC
#include <intrin.h>
#elif BBCU_X86_64
#include <cpuid.h>
#endif
#if BBCU_X86_64 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bbcu {
namespace {

bool always() { return true; }
#if !BBCU_X86_64
bool never() { return false; }
#endif

#if BBCU_X86_64

struct Registers {
    uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
#if BBCU_MSVC
    int values[4];
    __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2]),
         static_cast<uint32_t>(values[3])};
#else
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
#endif
    return r;
}

// XCR0: the registers that the system saves. Only where CPUID says that XGETBV is there.
uint64_t saved_registers() {
#if BBCU_MSVC
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
#endif
}

constexpr uint32_t bits(std::initializer_list<int> places) {
    uint32_t mask = 0;
    for (const int place : places) mask |= uint32_t{1} << place;
    return mask;
}

// Threads have room for tiles only where a program has asked for it.
bool ask_for_tiles() {
#if defined(__linux__)
    constexpr int kPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kPermission, kTileData) == 0;
#else
    return false;
#endif
}

struct Cpu {
    bool avx2 = false, avx512 = false, amx = false;

    Cpu() {
        constexpr uint32_t kExtended = 0x80000000;
        const auto all = [](uint32_t value, uint32_t mask) { return (value & mask) == mask; };
        if (cpuid(0, 0).a < 7 || cpuid(kExtended, 0).a < kExtended + 1) return;
        if (!all(cpuid(1, 0).c, bits({12, 27, 28}))) return;  // FMA, OSXSAVE, AVX
        const uint64_t saved = saved_registers();
        if ((saved & 0x06) != 0x06) return;  // the lower 128 bits of vectors, and the upper
        const Registers features = cpuid(7, 0);
        // MSVC's /arch:AVX2 also makes BMI1, BMI2 and LZCNT of plain code, and /arch:AVX512 takes CD for granted.
        avx2 = all(features.b, bits({3, 5, 8})) && all(cpuid(kExtended + 1, 0).c, bits({5}));
#if defined(__APPLE__)
        const bool saves512 = true;  // macOS begins to save them, and to say so, when a program first uses them
#else
        const bool saves512 = (saved & 0xe0) == 0xe0;
#endif
        avx512 = avx2 && saves512 && all(features.b, bits({16, 17, 28, 30, 31}))        // F, DQ, CD, BW, VL
                 && all(features.c, bits({1, 8, 14}));                                  // VBMI, GFNI, VPOPCNTDQ
        amx = avx512 && all(features.b, bits({8})) && all(features.d, bits({22, 24}));  // BMI2, AMX-BF16, AMX-TILE
    }
};

const Cpu& cpu() {
    static const Cpu found;
    return found;
}

bool has_avx2() { return cpu().avx2; }
bool has_avx512() { return cpu().avx512; }
bool has_amx() {
    static const bool has = cpu().amx && ask_for_tiles();
    return has;
}

#else

constexpr auto has_avx2 = never, has_avx512 = never, has_amx = never;

#endif

#if BBCU_ARM64
constexpr auto has_neon = always;  // a part of the architecture
#else
bool has_neon() { return false; }
#endif

}  // namespace

const InstructionSet kScalarCpu{"scalar", "", always};
const InstructionSet kNeonCpu{"neon", "NEON", has_neon};
const InstructionSet kAvx2Cpu{"avx2", "AVX2, FMA, BMI and LZCNT", has_avx2};
const InstructionSet kAvx512Cpu{"avx512", "AVX-512 F, CD, BW, DQ, VL, VBMI and VPOPCNTDQ, and GFNI", has_avx512};
const InstructionSet kAmxCpu{"amx", "AMX-BF16, BMI2, what avx512 needs, and Linux", has_amx};

}  // namespace bbcu
