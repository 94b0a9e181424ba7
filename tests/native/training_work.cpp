// One pass of a unit of training, so many times over: what it takes is the difference of two counts of instructions.
// Arguments: kernel set, pass (forward or backward), image width, turns. Prints the pixels of one turn.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "train/unit.h"

using namespace bbcu;
using namespace bbcu::train;

namespace {

std::vector<float> values(std::mt19937_64& random, size_t count) {
    std::vector<float> made(count);
    std::uniform_real_distribution<float> value(-1, 1);
    for (float& v : made) v = value(random);
    return made;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5 || (std::strcmp(argv[2], "forward") && std::strcmp(argv[2], "backward"))) {
        std::fprintf(stderr, "usage: training_work KERNELS forward|backward WIDTH TURNS\n");
        return 2;
    }
    const Kernels& kernels = choose_kernels(argv[1]);
    const bool back = !std::strcmp(argv[2], "backward");
    const Shape shape{1, 16, std::strtoul(argv[3], nullptr, 10), 1};
    const size_t turns = std::strtoul(argv[4], nullptr, 10), all = shape.pixels() * kFeatures;
    std::mt19937_64 random(1);
    const auto x = values(random, all), grad = values(random, all),
               weight = values(random, kFeatures * kTaps * kFeatures);
    const auto shift = values(random, kFeatures), bias0 = values(random, kFeatures), slope = values(random, kFeatures);
    const Unit unit{shift.data(), weight.data(), nullptr, bias0.data(), slope.data(), bias0.data()};
    std::vector<float> out(all), to_x(all), to_weight(weight.size()), to_unit(4 * kFeatures);
    std::vector<uint64_t> words(shape.pixels());
    std::vector<int16_t> sums(all);
    const Gradients to{to_x.data(),
                       to_unit.data(),
                       to_weight.data(),
                       to_unit.data() + kFeatures,
                       to_unit.data() + 2 * kFeatures,
                       to_unit.data() + 3 * kFeatures};
    forward(kernels, shape, unit, x.data(), out.data(), words.data(), sums.data(), 1);
    for (size_t turn = 0; turn < turns; ++turn) {
        if (back)
            backward(kernels, shape, unit, 2, x.data(), words.data(), sums.data(), grad.data(), to, 1);
        else
            forward(kernels, shape, unit, x.data(), out.data(), words.data(), sums.data(), 1);
    }
    std::printf("%zu\n", shape.pixels());
    return 0;
}
