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

// A thread looks this often for new work, or for the end of others', before it sleeps: some 0.1 ms, and 1 ms.
constexpr int looks(Again again) { return again == Again::soon ? 40000 : 4000; }
constexpr auto kMeanwhileEvery = std::chrono::milliseconds(50);

thread_local size_t my_number = 0;

// One call of run_on_threads.
struct Call {
    const std::function<void()>* job;
    Again again;
    size_t places;                  // for helpers that may still come
    std::atomic<size_t> active{0};  // helpers at work; changed under the lock
};

class Pool {
public:
    void run(size_t others, const std::function<void()>& job, const std::function<void()>& meanwhile, Again again) {
        Call call{&job, again, others};
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            calls_.push_back(&call);
            wanted_ += others;
            grow();
            ++round_;
        }
        wake_.notify_all();
        job();
        for (int look = 0; look < looks(again) && call.active > 0; ++look) spin_pause();
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
            for (; helpers_ < wanted_; ++helpers_) std::thread(&Pool::help, this, helpers_ + 1).detach();
        } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
        } catch (const std::bad_alloc&) {
        }
    }

    [[noreturn]] void help(size_t number) {
        my_number = number;
        Again again = Again::later;  // by the last call
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            const uint64_t seen = round_;
            const auto open = std::find_if(calls_.begin(), calls_.end(), [](const Call* c) { return c->places > 0; });
            if (open == calls_.end()) {
                lock.unlock();
                for (int look = 0; look < looks(again) && round_ == seen; ++look) spin_pause();
                lock.lock();
                wake_.wait(lock, [&] { return round_ != seen; });
                continue;
            }
            Call& call = **open;
            --call.places;
            ++call.active;
            again = call.again;
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

void run_on_threads(size_t others, const std::function<void()>& job, const std::function<void()>& meanwhile,
                    Again again) {
    pool()->run(others, job, meanwhile, again);
}

size_t thread_number() { return my_number; }

}  // namespace bbcu
