// Which sets of training kernels there are.

#include "../portability.h"
#include "unit.h"

namespace bbcu::train {

extern const Kernels kAvx512;
extern const Kernels kAvx2;
extern const Kernels kNeon;
extern const Kernels kScalar;

#if BBCU_AMX
extern const Kernels kAmx;

namespace {

// Its products are its own, all else is of AVX-512.
Kernels amx() {
    Kernels k = kAmx;
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
#if BBCU_X86_64
        &kAvx512, &kAvx2,
#endif
#if BBCU_ARM64
        &kNeon,
#endif
        &kScalar,
    };
    return sets;
}

}  // namespace bbcu::train
