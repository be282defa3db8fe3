// The end of Python, which daemon threads may meet inside libllama.
//
// exit() destroys what they still read there (the tables of ggml-cpu.cpp:43 and llama-arch.cpp:8). So
// Python's end stops what computes, and waits for them: a second at most, as what tokenizes a long
// text cannot be stopped.

#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace pyllama {

inline std::atomic<bool> ended{false};
inline std::atomic<int>  n_inside{0}; // guarded calls, of all threads

inline void end() {
    using std::chrono::steady_clock;
    ended = true;
    const auto limit = steady_clock::now() + std::chrono::seconds(1);
    while (n_inside > 0 && steady_clock::now() < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

inline void after_fork() {
    n_inside = 0; // the other threads stay behind
}

} // namespace pyllama
