// llama.cpp's chat templates, parsers of replies and JSON schema converter behind the few C
// functions of chat.h: JSON in, JSON out.

#include <chat.h> // of common/; the one beside this file is in quotes
#include <json-schema-to-grammar.h>
#include <log.h>

#include "chat.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>

using json = common_json;

// common/ would print warnings from a thread of its own.
static const bool quiet = (common_log_set_verbosity_thold(-1), true);

static char * give(const json & value) {
    const std::string text = value.dump_safe();
    auto * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy == nullptr) {
        throw std::bad_alloc();
    }
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

static common_chat_templates_ptr templates(const json & request) {
    return common_chat_templates_init(nullptr, request.at("template"), request.at("bos_token"),
                                      request.at("eos_token"));
}

static common_chat_templates_inputs inputs(const json & request) {
    common_chat_templates_inputs result;
    result.messages               = common_chat_msgs_parse_oaicompat(request.at("messages"));
    result.tools                  = common_chat_tools_parse_oaicompat(request.at("tools"));
    result.tool_choice            = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice"));
    result.parallel_tool_calls    = request.at("parallel_tool_calls").get<bool>();
    result.reasoning_format       = common_reasoning_format_from_name(request.at("reasoning_format"));
    result.enable_thinking        = request.at("enable_thinking").get<bool>();
    result.add_generation_prompt  = request.at("add_generation_prompt").get<bool>();
    result.continue_final_message = common_chat_continuation_parse(request.at("continue_final_message"));
    result.grammar                = request.at("grammar").get<std::string>();
    if (!request.at("json_schema").is_null()) {
        result.json_schema = request.at("json_schema").dump();
    }
    for (const auto & [name, value] : request.at("chat_template_kwargs").items()) {
        result.chat_template_kwargs[name] = value.dump();
    }
    if (!request.at("now").is_null()) {
        result.now = std::chrono::system_clock::from_time_t(request.at("now").get<int64_t>());
    }
    return result;
}

static json to_json(const common_chat_params & params) {
    static const char * const kinds[] = { "token", "word", "pattern", "pattern_full" };
    json triggers = json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back({ { "type", kinds[trigger.type] }, { "value", trigger.value } });
    }
    return {
        { "text",               params.prompt               },
        { "generation_prompt",  params.generation_prompt    },
        { "format",             (int) params.format         },
        { "format_name",        common_chat_format_name(params.format) },
        { "parser",             params.parser               },
        { "grammar",            params.grammar              },
        { "grammar_lazy",       params.grammar_lazy         },
        { "grammar_triggers",   triggers                    },
        { "preserved_tokens",   params.preserved_tokens     },
        { "stop",               params.additional_stops     },
        { "supports_thinking",  params.supports_thinking    },
        { "thinking_start_tag", params.thinking_start_tag   },
        { "thinking_end_tags",  params.thinking_end_tags    },
    };
}

char * pyllama_chat_render(const char * text) {
    const json request = json::parse(text);
    return give(to_json(common_chat_templates_apply(templates(request).get(), inputs(request))));
}

char * pyllama_chat_caps(const char * text) {
    return give(json(common_chat_templates_get_caps(templates(json::parse(text)).get())));
}

char * pyllama_schema_to_grammar(const char * schema) {
    return give(json(json_schema_to_grammar(json::parse(schema), /* force_gbnf */ true)));
}

struct pyllama_chat_parser {
    common_chat_parser_params params;
};

pyllama_chat_parser * pyllama_chat_parser_new(const char * text) {
    const json request = json::parse(text);
    auto parser = std::make_unique<pyllama_chat_parser>();
    parser->params.format            = (common_chat_format) request.at("format").get<int>();
    parser->params.generation_prompt = request.at("generation_prompt").get<std::string>();
    const std::string arena = request.at("parser");
    if (!arena.empty()) {
        parser->params.parser.load(arena);
    }
    return parser.release();
}

void pyllama_chat_parser_free(pyllama_chat_parser * parser) {
    delete parser;
}

char * pyllama_chat_parse(const pyllama_chat_parser * parser, const char * text, size_t n_bytes,
                          bool is_partial) {
    const common_chat_msg message =
        common_chat_parse(std::string(text, n_bytes), is_partial, parser->params);
    json calls = json::array();
    for (const auto & call : message.tool_calls) {
        calls.push_back({ { "id", call.id }, { "name", call.name }, { "arguments", call.arguments } });
    }
    return give({ { "content",           message.content           },
                  { "reasoning_content", message.reasoning_content },
                  { "tool_calls",        calls                     } });
}

void pyllama_text_free(char * text) {
    std::free(text);
}
