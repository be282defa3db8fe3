// Compiled in front of libllama's src/llama-grammar.cpp, so that no grammar keeps it for ever, and no
// pattern that triggers one.
//
// libllama follows each way in which a text can be read by a grammar, and tries every token of the
// vocabulary on each. Their number may double with every letter, so ([a-z ]+)* is enough for a call
// that does not return; nothing in there stops it. But each step comes by an assertion, and those
// look at the clock here. A pin that words them otherwise is noticed by tests/killers/grammars.py.

#pragma once

#include "ambiguous.hpp"
#include "llama-grammar.h"

#include <cstdint>
#include <ctime>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <regex>
#include <string_view>

namespace {

enum class Step { none, begin, readings, reading };

constexpr Step grammar_step(std::string_view assertion) {
    return assertion == "grammar.vocab != nullptr" ? Step::begin    // a call to apply or accept
           : assertion == "!stacks.empty()"        ? Step::readings // tokens meet a set of readings
           : assertion == "is_positive_char || pos->type == LLAMA_GRETYPE_CHAR_NOT"
               ? Step::reading // a letter, of a token or of the text, meets one
               : Step::none;
}

constexpr double GRAMMAR_SECONDS = 3; // of computing, that one call may take

thread_local double grammar_end   = 0;
thread_local bool   grammar_tries = false; // tokens; else it accepts one

double seconds_computed() { // by this thread; a busy machine does not count
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

void require_time(const char * otherwise) {
    if (seconds_computed() > grammar_end) {
        throw pyllama::ambiguous(otherwise);
    }
}

template <Step step> void look_at_the_clock() {
    if constexpr (step == Step::begin) {
        grammar_end   = seconds_computed() + GRAMMAR_SECONDS;
        grammar_tries = false;
    } else if constexpr (step != Step::none) {
        grammar_tries |= step == Step::readings;
        if (step == Step::reading && grammar_tries) {
            return; // that is quick; a letter that is accepted makes further readings at once
        }
        require_time(
            "it takes more than 3 seconds to follow all the ways in which a text can be read by this "
            "grammar: let alternatives, and what is repeated, differ in how they begin");
    }
}

// A place in the text that a pattern is searched in. The search reads letters, goes back, and reads.
struct Place {
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type        = char;
    using difference_type   = std::ptrdiff_t;
    using pointer           = const char *;
    using reference         = const char &;

    const char * at = nullptr;

    reference operator*() const {
        static thread_local unsigned n_read = 0;
        if (++n_read % 4096 == 0) { // the clock takes longer than a letter
            require_time(
                "it takes more than 3 seconds to search the text for a pattern that triggers this "
                "grammar: give a trigger token, or a pattern without * and + before its first letter");
        }
        return *at;
    }
    Place & operator++() { return ++at, *this; }
    Place & operator--() { return --at, *this; }
    Place   operator++(int) { return Place{at++}; }
    Place   operator--(int) { return Place{at--}; }
    bool    operator==(const Place & other) const { return at == other.at; }
    bool    operator!=(const Place & other) const { return at != other.at; }
};

} // namespace

// libllama's own looks through the whole grammar for each place of each reading.
struct llama_grammar * llama_grammar_clone_impl(const struct llama_grammar & grammar) {
    auto copy = std::make_unique<llama_grammar>(grammar);

    std::map<const llama_grammar_element *, const llama_grammar_element *, std::greater<>> rules; // and copies
    for (size_t i = 0; i < grammar.rules.size(); ++i) {
        rules[grammar.rules[i].data()] = copy->rules[i].data();
    }
    for (auto & stack : copy->stacks) {
        for (auto & place : stack) {
            const auto & [from, to] = *rules.lower_bound(place); // the rule that it is in
            place = to + (place - from);
        }
    }
    return copy.release();
}
static struct llama_grammar * llama_grammar_clone_slowly(const struct llama_grammar & grammar);
#define llama_grammar_clone_impl llama_grammar_clone_slowly

#define smatch match_results<Place>
#define regex_match(text, ...) regex_match(Place{(text).data()}, Place{(text).data() + (text).size()}, __VA_ARGS__)
#define regex_search(text, ...) regex_search(Place{(text).data()}, Place{(text).data() + (text).size()}, __VA_ARGS__)

#undef GGML_ASSERT
#define GGML_ASSERT(x) \
    if (look_at_the_clock<grammar_step(#x)>(), !(x)) GGML_ABORT("GGML_ASSERT(%s) failed", #x)
