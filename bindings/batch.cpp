// Checks a batch against everything that libllama assumes of it and does not check in time, and
// computes it.
//
// A position of -1, two equal positions or a sequence id beyond the context's are accepted and
// corrupt the memory; too many tokens or outputs end the process (llama-context.cpp:1785, :2273).
// In C++ because a batch of one token is checked for every token generated.

#include "llama.h"
#include "shim.h"

#include <climits>
#include <unordered_map>

namespace {

struct Check {
    const llama_batch &    batch;
    const pyllama_limits & limits;
    llama_memory_t         memory;
    pyllama_batch_report & report;

    bool fail(pyllama_batch_fault fault, int32_t index, int32_t value, int32_t wanted, int32_t seq = 0) {
        report.fault  = fault;
        report.index  = index;
        report.value  = value;
        report.wanted = wanted;
        report.seq    = seq;
        return false;
    }

    bool sizes() {
        if (batch.n_tokens < 1) {
            return fail(PYLLAMA_BATCH_EMPTY, 0, batch.n_tokens, 1);
        }
        if (batch.n_tokens > limits.n_tokens) {
            return fail(PYLLAMA_BATCH_TOO_LONG, 0, batch.n_tokens, limits.n_tokens);
        }
        int32_t n_outputs = batch.n_tokens;
        if (!limits.output_all) {
            n_outputs = 0;
            for (int32_t i = 0; i < batch.n_tokens; ++i) {
                n_outputs += batch.logits[i] != 0;
            }
        }
        report.n_outputs = n_outputs;
        return n_outputs <= limits.n_outputs ||
               fail(PYLLAMA_BATCH_TOO_MANY_OUTPUTS, 0, n_outputs, limits.n_outputs);
    }

    bool values(int32_t i) {
        if (batch.token != nullptr && (batch.token[i] < 0 || batch.token[i] >= limits.n_vocab)) {
            return fail(PYLLAMA_BATCH_TOKEN, i, batch.token[i], limits.n_vocab);
        }
        const int32_t sections = batch.token != nullptr ? 1 : limits.n_pos_per_embd;
        for (int32_t j = 0; j < sections; ++j) {
            const llama_pos pos = batch.pos[j * batch.n_tokens + i];
            if (pos < 0 || pos >= limits.n_pos) {
                return fail(PYLLAMA_BATCH_POSITION, i, pos, limits.n_pos);
            }
        }
        if (batch.n_seq_id[i] < 1) {
            return fail(PYLLAMA_BATCH_NO_SEQUENCE, i, batch.n_seq_id[i], 1);
        }
        if (batch.n_seq_id[i] > 1 && !limits.tokens_shared) {
            return fail(PYLLAMA_BATCH_SHARED, i, batch.n_seq_id[i], 1);
        }
        for (int32_t s = 0; s < batch.n_seq_id[i]; ++s) {
            const llama_seq_id seq = batch.seq_id[i][s];
            if (seq < 0 || seq >= limits.n_seq_max) {
                return fail(PYLLAMA_BATCH_SEQUENCE, i, seq, limits.n_seq_max, seq);
            }
        }
        return true;
    }

    // Each token of a sequence stands one position after the one before it, and the first after
    // what the memory holds; where nothing is held it may start anywhere.
    bool order() {
        std::unordered_map<llama_seq_id, llama_pos> last;
        for (int32_t i = 0; i < batch.n_tokens; ++i) {
            const llama_pos pos = batch.pos[i];
            for (int32_t s = 0; s < batch.n_seq_id[i]; ++s) {
                const llama_seq_id seq   = batch.seq_id[i][s];
                const auto         known = last.find(seq);
                const bool         first = known == last.end();
                const llama_pos before =
                    !first ? known->second : memory != nullptr ? llama_memory_seq_pos_max(memory, seq) : -1;
                if (!(first && before < 0) && !follows(before, pos)) {
                    return fail(first ? PYLLAMA_BATCH_BEHIND_MEMORY : PYLLAMA_BATCH_NOT_CONSECUTIVE,
                                i, pos, before + 1, seq);
                }
                last[seq] = pos;
            }
        }
        return true;
    }

    bool follows(llama_pos before, llama_pos pos) const {
        if (limits.positions_may_jump) {
            return batch.token != nullptr ? pos > before : pos >= before;
        }
        return pos == before + 1;
    }
};

} // namespace

using Compute = int32_t (*)(llama_context *, llama_batch);

static int32_t compute(Compute function, llama_context * ctx, llama_memory_t memory, const llama_batch * batch,
                       const pyllama_limits * limits, pyllama_batch_report * report) {
    *report = {};
    Check check{*batch, *limits, memory, *report};
    bool sound = check.sizes();
    for (int32_t i = 0; sound && i < batch->n_tokens; ++i) {
        sound = check.values(i);
    }
    return sound && check.order() ? function(ctx, *batch) : -1;
}

int32_t pyllama_decode(struct llama_context * ctx, const struct llama_batch * batch,
                       const pyllama_limits * limits, pyllama_batch_report * report) {
    return compute(llama_decode, ctx, llama_get_memory(ctx), batch, limits, report);
}

int32_t pyllama_encode(struct llama_context * ctx, const struct llama_batch * batch,
                       const pyllama_limits * limits, pyllama_batch_report * report) {
    return compute(llama_encode, ctx, nullptr, batch, limits, report);
}
