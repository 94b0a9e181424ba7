#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace bbcu::train {
namespace {

// A helper looks this often for new work before it sleeps: about 0.1 ms, longer than the pauses within a unit.
constexpr int kLooks = 4000;

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

class Pool {
public:
    void run(size_t others, const std::function<void()>& job) {
        const std::lock_guard<std::mutex> turn(turn_);
        grow(others);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            places_ = others;
            ++round_;
        }
        wake_.notify_all();
        job();
        std::unique_lock<std::mutex> lock(mutex_);
        places_ = 0;
        idle_.wait(lock, [this] { return active_ == 0; });
    }

private:
    void grow(size_t helpers) {
        try {
            for (; helpers_ < helpers; ++helpers_) std::thread(&Pool::help, this).detach();
        } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
        }
    }

    void help() {
        for (uint64_t seen = 0;;) {
            for (int look = 0; look < kLooks && round_ == seen; ++look) pause();
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (places_ == 0) continue;
            --places_;
            ++active_;
            lock.unlock();
            (*job_)();
            lock.lock();
            if (--active_ == 0) idle_.notify_one();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, idle_;
    std::atomic<uint64_t> round_{0};
    const std::function<void()>* job_ = nullptr;
    size_t helpers_ = 0, places_ = 0, active_ = 0;
};

}  // namespace

void run_on_threads(size_t others, const std::function<void()>& job) {
    static Pool* const pool = new Pool;  // never destroyed: its helpers wait on it until the process ends
    pool->run(others, job);
}

}  // namespace bbcu::train
