/* Every function that C calls in Python. */
extern "Python" bool pyllama_progress(float progress, void * user_data);

/* Gives a tensor of llama_model_init_from_user its numbers. */
extern "Python" void pyllama_fill_tensor(struct ggml_tensor * tensor, void * user_data);

/* A tensor that a hook watches was computed (hooks.cpp). */
extern "Python" bool pyllama_node(struct ggml_tensor * tensor, void * user_data);

/* A sampler written in Python: the functions of its llama_sampler_i. */
extern "Python" const char * pyllama_sampler_name(const struct llama_sampler * smpl);
extern "Python" void pyllama_sampler_accept(struct llama_sampler * smpl, llama_token token);
extern "Python" void pyllama_sampler_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p);
extern "Python" void pyllama_sampler_reset(struct llama_sampler * smpl);
extern "Python" struct llama_sampler * pyllama_sampler_clone(const struct llama_sampler * smpl);
extern "Python" void pyllama_sampler_free(struct llama_sampler * smpl);

/* Training: which tensors learn. */
extern "Python" bool pyllama_trains(const struct ggml_tensor * tensor, void * user_data);
