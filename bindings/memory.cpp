// Says where a model and its context lie, which libllama tells C++ callers only.

#include "llama.h"
#include "llama-ext.h"
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
