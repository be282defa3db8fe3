/* The few C functions of our own: what must run without the GIL, or before libllama sees it.
 * Read twice: by the C++ compiler, and by cffi as declarations (so: no preprocessor lines). */

/* --- log.cpp: libllama's log, kept in C until Python asks, so no Python runs in its threads --- */

typedef struct pyllama_log_line {
    int32_t  level;      /* enum ggml_log_level */
    uint64_t thread;     /* who said it: see pyllama_thread_id */
    char     text[1000]; /* one whole line, ended by a NUL; longer lines are cut */
} pyllama_log_line;

/* Lines waiting. Read it freely; take a line only through pyllama_log_take. */
extern volatile int32_t pyllama_log_waiting;

void     pyllama_log_install(void);
bool     pyllama_log_take(pyllama_log_line * line);
uint64_t pyllama_thread_id(void);

/* --- batch.cpp: everything libllama assumes of a batch, looked at before it gets one --- */

typedef struct pyllama_limits {
    int32_t n_vocab;
    int32_t n_seq_max;
    int32_t n_tokens;  /* most tokens in one call */
    int32_t n_outputs; /* most output rows in one call */
    int32_t n_pos;     /* positions the model knows: learned ones end */
    int32_t n_pos_per_embd; /* position sections of an embedding (M-RoPE has 4) */
    bool    output_all;
    bool    tokens_shared; /* a token may belong to several sequences */
    bool    positions_may_jump; /* M-RoPE: an image takes one position for many tokens */
} pyllama_limits;

enum pyllama_batch_fault {
    PYLLAMA_BATCH_OK = 0,
    PYLLAMA_BATCH_EMPTY,
    PYLLAMA_BATCH_TOO_LONG,
    PYLLAMA_BATCH_TOO_MANY_OUTPUTS,
    PYLLAMA_BATCH_TOKEN,
    PYLLAMA_BATCH_POSITION,
    PYLLAMA_BATCH_NO_SEQUENCE,
    PYLLAMA_BATCH_SHARED,
    PYLLAMA_BATCH_SEQUENCE,
    PYLLAMA_BATCH_NOT_CONSECUTIVE,
    PYLLAMA_BATCH_BEHIND_MEMORY,
};

typedef struct pyllama_batch_report {
    enum pyllama_batch_fault fault;
    int32_t index;     /* of the token */
    int32_t value;     /* what it has */
    int32_t wanted;    /* what it should have, or the limit */
    int32_t seq;       /* the sequence concerned */
    int32_t n_outputs; /* output rows that the call will make */
} pyllama_batch_report;

/* Checks a batch, and hands it to llama_decode or llama_encode if it is sound. With a fault in the
 * report nothing was called. */
int32_t pyllama_decode(struct llama_context * ctx, const struct llama_batch * batch,
                       const pyllama_limits * limits, pyllama_batch_report * report);
int32_t pyllama_encode(struct llama_context * ctx, const struct llama_batch * batch,
                       const pyllama_limits * limits, pyllama_batch_report * report);

/* --- hooks.cpp: what libllama asks at each node of its graph, answered without Python --- */

typedef struct pyllama_stop {
    int32_t raised;   /* another thread wants the computing to end */
    int64_t deadline; /* it ends by itself at this ggml_time_us(); 0 is never */
} pyllama_stop;

/* Raise the flag, from any thread. All else in it is for the thread that computes. */
void pyllama_stop_raise(pyllama_stop * stop);

/* The abort callback of a context: whether to stop. Its user data is a pyllama_stop. */
bool pyllama_should_stop(void * stop);

/* A set of tensor names. At a tensor that is in it *enter* is called, which is Python. */
typedef struct pyllama_hooks pyllama_hooks;
typedef bool (*pyllama_enter)(struct ggml_tensor * tensor, void * user_data);

pyllama_hooks * pyllama_hooks_new(pyllama_enter enter, void * user_data);
void            pyllama_hooks_free(pyllama_hooks * hooks);

/* Watch these names, or all that begin with one of them if it ends with a star; and, if wanted,
 * the products of a weight and activations, whatever their name. */
void pyllama_hooks_watch(pyllama_hooks * hooks, const char * const * names, size_t n_names,
                         bool products);

/* Count micro-batches from 0: a call begins. */
void    pyllama_hooks_begin(pyllama_hooks * hooks);
int32_t pyllama_hooks_micro_batch(const pyllama_hooks * hooks);

/* The eval callback of a context. Its user data is a pyllama_hooks. */
bool pyllama_eval(struct ggml_tensor * tensor, bool ask, void * hooks);

/* --- memory.cpp: where a model and its context lie, and what a memory is made of --- */

typedef struct pyllama_memory_use {
    char     device[64]; /* "CPU" for all that the CPU can read */
    uint64_t model;      /* bytes: weights, */
    uint64_t context;    /* keys, values, states and outputs, */
    uint64_t compute;    /* and what is in between */
} pyllama_memory_use;

/* Writes one entry for each kind of buffer, at most n_max, and returns how many. */
int32_t pyllama_memory_uses(const struct llama_context * ctx, pyllama_memory_use * uses, int32_t n_max);

/* Whether a memory for sliding windows has no layer with one, or none without. */
bool pyllama_memory_has_bare_cache(const struct llama_context * ctx);

/* --- guard.hpp: what the build is --- */

bool pyllama_backend_dl(void);
const char * pyllama_llama_commit(void);
