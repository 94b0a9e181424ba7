// Every training kernel set against the scalar one, to the bit: a unit's value and all of its gradients, at sizes that
// fill blocks, bands and narrow sums or leave them ragged, on one to three threads.
//
// Stands alone (no Python), so that it runs under sanitizers. Prints what it ran; exit code 1 on a difference.
// Arguments: names of kernel sets that must run (others run when the CPU supports them).

#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "train/unit.h"

namespace bbcu::train {
#if defined(BBCU_EMULATED_AVX512)
extern const Kernels kAvx512;  // built on emulated/immintrin.h; not offered on a CPU without it
#endif
}  // namespace bbcu::train

using namespace bbcu;
using namespace bbcu::train;

namespace {

enum class Values {
    random,   // gradients with a long tail, as losses give them
    extreme,  // every gradient the largest and every sign equal: sums as large as they come
    nothing,  // gradients of zero
};

struct Case {
    Shape shape;
    Values values;
    bool bias;
};

constexpr Case kCases[] = {
    {{1, 1, 1, 1}, Values::random, false},   {{2, 1, 5, 2}, Values::random, true},
    {{1, 5, 1, 3}, Values::random, false},   {{2, 7, 9, 1}, Values::random, true},
    {{1, 2, 270, 1}, Values::random, false}, {{1, 40, 33, 1}, Values::random, false},
    {{1, 6, 4, 4}, Values::random, false},   {{2, 20, 22, 1}, Values::extreme, false},
    {{1, 3, 8, 2}, Values::extreme, false},  {{1, 3, 6, 1}, Values::nothing, false},
};

struct Result {
    std::vector<float> out, x, shift, weight, bias0, slope, bias1;
    std::vector<uint64_t> words;
    std::vector<int16_t> sums;
};

std::vector<float> make(std::mt19937& random, size_t count, float spread, float constant = 0) {
    std::normal_distribution<float> normal;
    std::vector<float> values(count, constant);
    if (constant == 0)
        for (float& value : values) value = spread * normal(random);
    return values;
}

Result run(const Kernels& kernels, const Case& how, size_t threads) {
    std::mt19937 random(static_cast<unsigned>(how.shape.pixels()));
    const Shape& shape = how.shape;
    const size_t channels = shape.groups() * kFeatures, values = shape.pixels() * channels;
    const bool extreme = how.values == Values::extreme;
    const auto x = make(random, shape.pixels() * kFeatures, 1, extreme ? 0.5f : 0);
    const auto shift = make(random, kFeatures, 0.3f),
               weight = make(random, channels * kTaps * kFeatures, 0.7f, extreme ? -0.5f : 0);
    const auto bias = make(random, channels, 0.3f), bias0 = make(random, channels, 0.3f);
    const auto slope = make(random, channels, 0.3f, extreme ? 1.0f : 0), bias1 = make(random, channels, 0.3f);
    auto grad = make(random, values, 1, extreme ? 1e-3f : 0);
    if (how.values == Values::random)
        for (float& value : grad) value *= 1e-6f * value * value;
    if (how.values == Values::nothing) std::fill(grad.begin(), grad.end(), 0.0f);
    Result r;
    const auto sized = [](auto& vector, size_t count) {
        vector.resize(count);
        return vector.data();
    };
    const Unit unit{shift.data(), weight.data(), how.bias ? bias.data() : nullptr,
                    bias0.data(), slope.data(),  bias1.data()};
    forward(kernels, shape, unit, x.data(), sized(r.out, values), sized(r.words, shape.pixels()), sized(r.sums, values),
            threads);
    Gradients to{};
    to.x = sized(r.x, x.size());
    to.shift = sized(r.shift, kFeatures);
    to.weight = sized(r.weight, weight.size());
    to.bias0 = sized(r.bias0, channels);
    to.slope = sized(r.slope, channels);
    to.bias1 = sized(r.bias1, channels);
    backward(kernels, shape, unit, 2.0f, x.data(), r.words.data(), r.sums.data(), grad.data(), to, threads);
    return r;
}

size_t failures = 0;

template <class T>
void check(const std::vector<T>& mine, const std::vector<T>& truth, const char* set, const char* what,
           const Shape& shape) {
    if (!std::memcmp(mine.data(), truth.data(), truth.size() * sizeof(T))) return;
    std::printf("%s: %s differs at %zu x %zu x %zu, step %zu\n", set, what, shape.images, shape.height, shape.width,
                shape.step);
    ++failures;
}

void check_set(const Kernels& set) {
    const size_t before = failures;
    for (const Case& how : kCases) {
        const Result truth = run(*kernels().back(), how, 1);
        for (size_t threads = 1; threads <= 3; ++threads) {
            const Result mine = run(set, how, threads);
            check(mine.out, truth.out, set.cpu->name, "output", how.shape);
            check(mine.words, truth.words, set.cpu->name, "signs", how.shape);
            check(mine.sums, truth.sums, set.cpu->name, "sums", how.shape);
            check(mine.x, truth.x, set.cpu->name, "gradient of x", how.shape);
            check(mine.shift, truth.shift, set.cpu->name, "gradient of the shift", how.shape);
            check(mine.weight, truth.weight, set.cpu->name, "gradient of the weights", how.shape);
            check(mine.bias0, truth.bias0, set.cpu->name, "gradient of the first bias", how.shape);
            check(mine.slope, truth.slope, set.cpu->name, "gradient of the slope", how.shape);
            check(mine.bias1, truth.bias1, set.cpu->name, "gradient of the second bias", how.shape);
        }
    }
    std::printf("training, %s: %s\n", set.cpu->name, failures > before ? "FAILED" : "equal to scalar");
}

}  // namespace

int main(int argc, char** argv) {
    std::string ran;
    for (const Kernels* set : kernels())
        if (set->cpu->supported()) {
            check_set(*set);
            ran += std::string(set->cpu->name) + " ";
        }
#if defined(BBCU_EMULATED_AVX512)
    check_set(kAvx512);
    ran += "avx512 ";
#endif
    for (int i = 1; i < argc; ++i)
        if (ran.find(argv[i]) == std::string::npos) {
            std::printf("FAILED: %s did not run here\n", argv[i]);
            ++failures;
        }
    return failures ? 1 : 0;
}
