// Collects libllama's log lines, so that Python reads them on its own thread when a call returns.

#include "llama.h"
#include "mtmd-helper.h"
#include "shim.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>

volatile int32_t pyllama_log_waiting = 0;

namespace {

constexpr size_t MAX_LINES = 4096; // the oldest go first when nobody reads

struct Lines {
    std::mutex                   mutex;
    std::deque<pyllama_log_line> queue;
};

// Never destroyed: threads of libllama may still log while the process ends.
Lines & lines() {
    static Lines * const instance = new Lines;
    return *instance;
}

// A line may come in several calls; each thread puts its own together.
thread_local std::string    part;
thread_local ggml_log_level part_level = GGML_LOG_LEVEL_NONE;

void push(const std::string & text, ggml_log_level level) {
    pyllama_log_line line = {};
    line.level  = level;
    line.thread = pyllama_thread_id();
    std::strncpy(line.text, text.c_str(), sizeof(line.text) - 1);
    Lines & all = lines();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (all.queue.size() == MAX_LINES) {
        all.queue.pop_front();
    }
    all.queue.push_back(line);
    pyllama_log_waiting = (int32_t) all.queue.size();
}

void collect(ggml_log_level level, const char * text, void * /* user_data */) {
    if (level == GGML_LOG_LEVEL_DEBUG) {
        return; // thousands of lines for each context, of use to libllama's own authors only
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        if (!part.empty()) { // the line before was never ended
            push(part, part_level);
            part.clear();
        }
        part_level = level;
    }
    for (const char * rest = text; *rest != '\0';) {
        const char * end = std::strchr(rest, '\n');
        if (end == nullptr) {
            part += rest;
            break;
        }
        part.append(rest, end);
        if (!part.empty()) {
            push(part, part_level);
            part.clear();
        }
        rest = end + 1;
    }
}

} // namespace

uint64_t pyllama_thread_id(void) {
    static std::atomic<uint64_t> next{1};
    thread_local const uint64_t  id = next++;
    return id;
}

void pyllama_log_install(void) {
    llama_log_set(collect, nullptr);
    mtmd_helper_log_set(collect, nullptr);
}

bool pyllama_log_take(pyllama_log_line * line) {
    Lines & all = lines();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (all.queue.empty()) {
        return false;
    }
    *line = all.queue.front();
    all.queue.pop_front();
    pyllama_log_waiting = (int32_t) all.queue.size();
    return true;
}
