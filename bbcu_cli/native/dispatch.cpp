#include "dispatch.h"

#include "portability.h"

namespace bbcu {

extern const KernelSet kAvx512;
extern const KernelSet kAvx2;
extern const KernelSet kNeon;
extern const KernelSet kScalar;

const std::vector<const KernelSet*>& kernel_sets() {
    static const std::vector<const KernelSet*> sets = {
#if BBCU_X86_64
        &kAvx512,
        &kAvx2,
#elif BBCU_ARM64
        &kNeon,
#endif
        &kScalar,
    };
    return sets;
}

}  // namespace bbcu
