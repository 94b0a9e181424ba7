// The choice among kernel sets: the one that is named, or the best that this CPU supports.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/kernel_set.h"

namespace bbcu {

// The set of that name, or with an empty name the first that this CPU supports. Set: what has a member `cpu`;
// what: its kind, as a message calls it.
// Throws std::invalid_argument: no such set, or this CPU lacks what it needs.
template <class Set>
const Set& choose(const std::vector<const Set*>& sets, const std::string& name, const std::string& what) {
    std::string known;
    for (const Set* set : sets) {
        const InstructionSet& cpu = *set->cpu;
        if (name.empty() ? cpu.supported() : name == cpu.name) {
            if (cpu.supported()) return *set;
            throw std::invalid_argument(what + " " + name + " needs " + cpu.required_features +
                                        ", which this CPU does not have");
        }
        known += (known.empty() ? "" : ", ") + std::string(cpu.name);
    }
    throw std::invalid_argument("no " + what + " is called " + name + "; there are " + known);
}

// Of the engine: every set of this build, best first. Scalar, which the others are tested against, is last.
const std::vector<const KernelSet*>& kernel_sets();

inline const KernelSet& choose_kernel_set(const std::string& name) { return choose(kernel_sets(), name, "kernel set"); }

}  // namespace bbcu
