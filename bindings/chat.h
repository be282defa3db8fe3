/* Chat templates, the parsers of replies, and JSON schema to GBNF, as llama.cpp's common/ has them.
 * Requests and results are JSON texts; what is returned is freed with pyllama_text_free. What
 * common/ throws leaves these functions as it is: the guard around each call catches it.
 * Read twice, as shim.h is: no preprocessor lines. */

/* Renders {"template", "bos_token", "eos_token", "messages", "tools", ...}: see text/chat.py. */
char * pyllama_chat_render(const char * request);

/* What a template supports: {"supports_tools": true, ...}. Takes the first three keys of render. */
char * pyllama_chat_caps(const char * request);

/* The grammar of the JSON texts that a schema allows, as a JSON string. */
char * pyllama_schema_to_grammar(const char * schema);

/* The parser that render chose for the replies to its prompt. */
typedef struct pyllama_chat_parser pyllama_chat_parser;

pyllama_chat_parser * pyllama_chat_parser_new(const char * params);
void                  pyllama_chat_parser_free(pyllama_chat_parser * parser);

/* Parses a reply, or as much of one as there is: {"content", "reasoning_content", "tool_calls"}. */
char * pyllama_chat_parse(const pyllama_chat_parser * parser, const char * text, size_t n_bytes,
                          bool is_partial);

void pyllama_text_free(char * text);
