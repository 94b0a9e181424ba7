// Instruction sets that kernels are written for, and whether this CPU has them.
#pragma once

namespace bbcu {

struct InstructionSet {
    const char* name;  // also of the kernels for it
    const char* required_features;
    bool (*supported)();  // by the CPU, the system and, where there is one, the hypervisor
};

extern const InstructionSet kScalarCpu;
extern const InstructionSet kNeonCpu;
extern const InstructionSet kAvx2Cpu;
extern const InstructionSet kAvx512Cpu;
extern const InstructionSet kAmxCpu;

}  // namespace bbcu
