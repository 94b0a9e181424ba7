// The threads of the process that compute. They stay: much of the work takes less time than starting them would.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace bbcu {

// When a caller will call again. Helpers that are to work soon look for it instead of sleeping: waking them can take
// longer than a training step's pauses between two calls. Elsewhere other threads want the CPU.
enum class Again { later, soon };

// Calls job on this thread and, at the same time, on up to `others` more; returns when all calls have. A thread that
// comes when this one's call is over is not waited for, and where the system gives no more threads fewer come, so `job`
// must do the whole work whoever takes part. It must not throw. While the last calls are waited for, `meanwhile`, if
// any, is called about 20 times a second; it must not throw either. Any number of threads may call this at once.
void run_on_threads(size_t others, const std::function<void()>& job, const std::function<void()>& meanwhile = {},
                    Again again = Again::later);

// A number of this thread: 0, or from 1 on that of a helper.
size_t thread_number();

// Calls work(item) for every item below `count`, on up to `threads` threads, in order of the items' start.
// make() is called once on each thread for what work needs. The first exception ends it and is thrown here.
template <class Make>
void share(size_t count, size_t threads, const Make& make, const std::function<void()>& meanwhile = {},
           Again again = Again::later) {
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
    const auto run = [&] {
        try {
            auto work = make();
            for (size_t item; (item = next++) < count;) work(item);
        } catch (...) {
            next = count;
            const std::lock_guard<std::mutex> lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    const size_t wanted = threads < count ? threads : count;
    if (wanted > 1)
        run_on_threads(wanted - 1, run, meanwhile, again);
    else
        run();
    if (failure) std::rethrow_exception(failure);
}

// The same for calls that follow each other: a thread begins with its own part of the items, of which its caches may
// hold what it made of them last time, and then helps with the parts of others.
template <class Make>
void share_again(size_t count, size_t threads, const Make& make) {
    const size_t parts = threads < count ? threads : count;
    std::vector<std::atomic<size_t>> next(parts);
    for (size_t part = 0; part < parts; ++part) next[part] = part * count / parts;
    const auto make_part = [&] {
        return [&, work = make()](size_t) mutable {
            const size_t own = thread_number();
            for (size_t i = 0; i < parts; ++i) {
                const size_t part = (own + i) % parts, end = (part + 1) * count / parts;
                for (size_t item; (item = next[part]++) < end;) work(item);
            }
        };
    };
    share(parts, parts, make_part, {}, Again::soon);
}

}  // namespace bbcu
