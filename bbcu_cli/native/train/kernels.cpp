// Which sets of training kernels there are, and which of them this machine runs.

#include <stdexcept>

#if BBCU_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "unit.h"

namespace bbcu::train {

#if defined(__x86_64__)
extern const Kernels kAvx512;
extern const Kernels kAvx2;
#endif
extern const Kernels kScalar;

#if BBCU_AMX
extern const Kernels kAmx;

namespace {

// CPUID says what the CPU has; and Linux gives threads room for tiles when a program asks for it.
bool ask_for_tiles() {
    constexpr unsigned kPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    constexpr unsigned kBmi2 = 1u << 8, kBf16 = 1u << 22, kTile = 1u << 24;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(b & kBmi2) || (d & (kBf16 | kTile)) != (kBf16 | kTile)) return false;
    return syscall(SYS_arch_prctl, kPermission, kTileData) == 0;
}

bool supports_amx() {
    static const bool has = kAvx512.supported() && ask_for_tiles();
    return has;
}

// Its products are its own, all else is of AVX-512.
Kernels amx() {
    Kernels k = kAmx;
    k.supported = supports_amx;
    k.pack = kAvx512.pack;
    k.weight_bytes = kAvx512.weight_bytes;
    k.pack_weights = kAvx512.pack_weights;
    k.forward_row = kAvx512.forward_row;
    k.gradient_row = kAvx512.gradient_row;
    return k;
}

}  // namespace
#endif

const std::vector<const Kernels*>& kernels() {
#if BBCU_AMX
    static const Kernels tiles = amx();
#endif
    static const std::vector<const Kernels*> sets = {
#if BBCU_AMX
        &tiles,
#endif
#if defined(__x86_64__)
        &kAvx512,
        &kAvx2,
#endif
        &kScalar,
    };
    return sets;
}

const Kernels& choose_kernels(const std::string& name) {
    std::string known;
    for (const Kernels* set : kernels()) {
        if (name.empty() ? set->supported() : name == set->name) {
            if (!set->supported())
                throw std::invalid_argument("training kernel set " + name + " needs " + set->required_features +
                                            ", which this CPU does not have");
            return *set;
        }
        known += (known.empty() ? "" : ", ") + std::string(set->name);
    }
    throw std::invalid_argument("no training kernel set is called " + name + "; there are " + known);
}

}  // namespace bbcu::train
