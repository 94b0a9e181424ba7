#include "threads.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "portability.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace bbcu {
namespace {

// A helper looks this often for new work before it sleeps: about 0.1 ms, longer than the pauses within a training step.
constexpr int kLooks = 4000;
constexpr auto kMeanwhileEvery = std::chrono::milliseconds(50);

// One call of run_on_threads.
struct Call {
    const std::function<void()>* job;
    size_t places;      // for helpers that may still come
    size_t active = 0;  // helpers at work
};

class Pool {
public:
    void run(size_t others, const std::function<void()>& job, const std::function<void()>& meanwhile) {
        Call call{&job, others};
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            calls_.push_back(&call);
            wanted_ += others;
            grow();
            ++round_;
        }
        wake_.notify_all();
        job();
        std::unique_lock<std::mutex> lock(mutex_);
        calls_.erase(std::find(calls_.begin(), calls_.end(), &call));
        wanted_ -= others;
        const auto idle = [&] { return call.active == 0; };
        if (!meanwhile) return idle_.wait(lock, idle);
        while (!idle_.wait_for(lock, kMeanwhileEvery, idle)) {
            lock.unlock();
            meanwhile();
            lock.lock();
        }
    }

private:
    // As many helpers as all calls have places for.
    void grow() {
        try {
            for (; helpers_ < wanted_; ++helpers_) std::thread(&Pool::help, this).detach();
        } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
        } catch (const std::bad_alloc&) {
        }
    }

    [[noreturn]] void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            const uint64_t seen = round_;
            const auto open = std::find_if(calls_.begin(), calls_.end(), [](const Call* c) { return c->places > 0; });
            if (open == calls_.end()) {
                lock.unlock();
                for (int look = 0; look < kLooks && round_ == seen; ++look) spin_pause();
                lock.lock();
                wake_.wait(lock, [&] { return round_ != seen; });
                continue;
            }
            Call& call = **open;
            --call.places;
            ++call.active;
            lock.unlock();
            (*call.job)();
            lock.lock();
            if (--call.active == 0) idle_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, idle_;
    std::atomic<uint64_t> round_{0};  // of calls that came
    std::vector<Call*> calls_;
    size_t helpers_ = 0, wanted_ = 0;
};

// Never destroyed: its helpers wait on it until the process ends.
Pool*& pool() {
    static Pool* current = [] {
#if !defined(_WIN32)
        // A forked child has no helpers, and may have copied a lock that one of them held.
        pthread_atfork(nullptr, nullptr, [] { bbcu::pool() = new Pool; });
#endif
        return new Pool;
    }();
    return current;
}

}  // namespace

void run_on_threads(size_t others, const std::function<void()>& job, const std::function<void()>& meanwhile) {
    pool()->run(others, job, meanwhile);
}

}  // namespace bbcu
