// Threads that stay, for work that takes less time than starting them.
#pragma once

#include <cstddef>
#include <functional>

namespace bbcu::train {

// Calls job on this thread and, at the same time, on up to `others` more; returns when all calls have.
// A helper that wakes when the caller's own call is over is not waited for, so `job` must do the whole work whoever
// takes part. It must not throw. Calls from several threads take turns.
void run_on_threads(size_t others, const std::function<void()>& job);

}  // namespace bbcu::train
