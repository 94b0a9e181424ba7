#include <stdexcept>

#include "engine.h"

namespace bbcu {

#if defined(__x86_64__)
extern const KernelSet kAvx512;
extern const KernelSet kAvx2;
#elif defined(__aarch64__)
extern const KernelSet kNeon;
#endif
extern const KernelSet kScalar;

const std::vector<const KernelSet*>& kernel_sets() {
    static const std::vector<const KernelSet*> sets = {
#if defined(__x86_64__)
        &kAvx512, &kAvx2,
#elif defined(__aarch64__)
        &kNeon,
#endif
        &kScalar,
    };
    return sets;
}

const KernelSet& choose_kernel_set(const std::string& name) {
    std::string known;
    for (const KernelSet* set : kernel_sets()) {
        if (name.empty() ? set->supported() : name == set->name) {
            if (!set->supported())
                throw std::invalid_argument("kernel set " + name + " needs " + set->required_features +
                                            ", which this CPU does not have");
            return *set;
        }
        known += (known.empty() ? "" : ", ") + std::string(set->name);
    }
    throw std::invalid_argument("no kernel set is called " + name + "; there are " + known);
}

}  // namespace bbcu
