// Answers what libllama asks at each node of its graph: stop now? is this tensor wanted?
//
// In C++ because there are about 37 nodes a layer, and a Python answer costs 1.3 us each.

#include "ggml.h"
#include "llama.h"
#include "shim.h"

#include <cstring>
#include <string>
#include <unordered_set>
#include <vector>

bool pyllama_should_stop(void * stop) {
    const auto & flag = *static_cast<pyllama_stop *>(stop);
    return flag.raised != 0 || (flag.deadline != 0 && ggml_time_us() >= flag.deadline);
}

struct pyllama_hooks {
    pyllama_enter                   enter;
    void *                          user_data;
    std::unordered_set<std::string> names;
    std::vector<std::string>        prefixes;

    bool wants(const char * name) const {
        if (names.empty() && prefixes.empty()) { // the usual case: nobody watches
            return false;
        }
        for (const std::string & prefix : prefixes) {
            if (std::strncmp(name, prefix.data(), prefix.size()) == 0) {
                return true;
            }
        }
        return names.count(name) != 0;
    }
};

pyllama_hooks * pyllama_hooks_new(pyllama_enter enter, void * user_data) {
    return new pyllama_hooks{enter, user_data, {}, {}};
}

void pyllama_hooks_free(pyllama_hooks * hooks) {
    delete hooks;
}

void pyllama_hooks_watch(pyllama_hooks * hooks, const char * const * names, size_t n_names) {
    hooks->names.clear();
    hooks->prefixes.clear();
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

bool pyllama_eval(struct ggml_tensor * tensor, bool ask, void * hooks) {
    const auto & all = *static_cast<pyllama_hooks *>(hooks);
    return ask ? all.wants(tensor->name) : all.enter(tensor, all.user_data);
}
