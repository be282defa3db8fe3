// Answers what libllama asks at each node of its graph: stop now? is this tensor wanted?
//
// In C++ because there are about 37 nodes a layer, and a Python answer costs 1.3 us each.

#include "ending.hpp"
#include "ggml.h"
#include "llama.h"
#include "shim.h"

#include <cstring>
#include <string>
#include <unordered_set>
#include <vector>

void pyllama_stop_raise(pyllama_stop * stop) {
    __atomic_store_n(&stop->raised, 1, __ATOMIC_RELAXED);
}

bool pyllama_should_stop(void * stop) {
    const auto & flag = *static_cast<pyllama_stop *>(stop);
    return __atomic_load_n(&flag.raised, __ATOMIC_RELAXED) != 0 ||
           pyllama::ended.load(std::memory_order_relaxed) ||
           (flag.deadline != 0 && ggml_time_us() >= flag.deadline);
}

struct pyllama_hooks {
    pyllama_enter                   enter;
    void *                          user_data;
    std::unordered_set<std::string> names;
    std::vector<std::string>        prefixes;
    bool                            products    = false; // those of weights and activations
    int32_t                         micro_batch = -1;
    ggml_op                         first_op    = GGML_OP_NONE;
    char                            first_name[GGML_MAX_NAME] = {};

    bool idle() const { // the usual case
        return !products && names.empty() && prefixes.empty();
    }

    // Each micro-batch runs through a graph that begins with the same node. A graph that moves the
    // keys may come before them (llama-kv-cache.cpp:872): it begins with a view of the memory.
    void count(const ggml_tensor * tensor) {
        if (micro_batch < 0) {
            const ggml_tensor * root = tensor;
            while (root->view_src != nullptr || root->src[0] != nullptr) {
                root = root->view_src != nullptr ? root->view_src : root->src[0];
            }
            if (std::strncmp(root->name, "cache_", 6) != 0) {
                micro_batch = 0;
                first_op    = tensor->op;
                std::memcpy(first_name, tensor->name, sizeof(first_name));
            }
        } else if (tensor->op == first_op && std::strcmp(tensor->name, first_name) == 0) {
            ++micro_batch;
        }
    }

    bool wants(const ggml_tensor * tensor) const {
        if (micro_batch < 0) {
            return false;
        }
        if (products && (tensor->op == GGML_OP_MUL_MAT || tensor->op == GGML_OP_MUL_MAT_ID) &&
            tensor->src[0]->op == GGML_OP_NONE) {
            return true;
        }
        for (const std::string & prefix : prefixes) {
            if (std::strncmp(tensor->name, prefix.data(), prefix.size()) == 0) {
                return true;
            }
        }
        return names.count(tensor->name) != 0;
    }
};

pyllama_hooks * pyllama_hooks_new(pyllama_enter enter, void * user_data) {
    auto * hooks = new pyllama_hooks;
    hooks->enter = enter;
    hooks->user_data = user_data;
    return hooks;
}

void pyllama_hooks_free(pyllama_hooks * hooks) {
    delete hooks;
}

void pyllama_hooks_watch(pyllama_hooks * hooks, const char * const * names, size_t n_names,
                         bool products) {
    hooks->names.clear();
    hooks->prefixes.clear();
    hooks->products = products;
    for (size_t i = 0; i < n_names; ++i) {
        std::string name = names[i];
        if (!name.empty() && name.back() == '*') {
            name.pop_back();
            hooks->prefixes.push_back(name);
        } else {
            hooks->names.insert(name);
        }
    }
}

void pyllama_hooks_begin(pyllama_hooks * hooks) {
    hooks->micro_batch = -1;
}

int32_t pyllama_hooks_micro_batch(const pyllama_hooks * hooks) {
    return hooks->micro_batch;
}

bool pyllama_eval(struct ggml_tensor * tensor, bool ask, void * user_data) {
    auto & hooks = *static_cast<pyllama_hooks *>(user_data);
    if (hooks.idle()) {
        return false;
    }
    if (ask) {
        hooks.count(tensor);
        return hooks.wants(tensor);
    }
    return hooks.enter(tensor, hooks.user_data);
}
