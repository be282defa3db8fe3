// Says where a model and its context lie, and what a memory is made of, which libllama tells C++
// callers only.

#include "llama.h"
#include "llama-ext.h"
#include "llama-kv-cache-iswa.h"
#include "shim.h"

#include <cstdio>

int32_t pyllama_memory_uses(const struct llama_context * ctx, pyllama_memory_use * uses, int32_t n_max) {
    int32_t n = 0;
    for (const auto & [buft, use] : llama_get_memory_breakdown(ctx)) {
        if (n == n_max) {
            break;
        }
        ggml_backend_dev_t device = ggml_backend_buft_get_device(buft);
        const bool host = device == nullptr || ggml_backend_buft_is_host(buft);
        std::snprintf(uses[n].device, sizeof(uses[n].device), "%s",
                      host ? "CPU" : ggml_backend_dev_name(device));
        uses[n].model   = use.model;
        uses[n].context = use.context;
        uses[n].compute = use.compute;
        ++n;
    }
    return n;
}

static bool has_layers(const llama_kv_cache & cache) {
    for (const auto & [buft, n_bytes] : cache.memory_breakdown()) {
        if (n_bytes > 0) {
            return true;
        }
    }
    return false;
}

bool pyllama_memory_has_bare_cache(const struct llama_context * ctx) {
    const auto * both = dynamic_cast<const llama_kv_cache_iswa *>(llama_get_memory(ctx));
    return both != nullptr && !(has_layers(*both->get_base()) && has_layers(*both->get_swa()));
}
