"""libllama as Python objects: one file for each thing of llama.h, which owns and frees it.

Begin with `handle`, which says who frees what and when, then `model` and `context`. A context is
made of parts, each the base of the next: `settings`, `outputs`, `adapted`, `saved` and `hooks`,
`backend_sampling`; a vocabulary of `token_facts` and `tokenizer`; a model of `model_facts`. What C
is given is checked by `params`, `enums`, `limits` and the files called rules. Nothing else in the
package sees C.
"""
