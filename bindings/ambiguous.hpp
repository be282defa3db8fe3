// What is thrown where a grammar can be followed in too many ways (grammar_time.hpp), and becomes a
// GrammarError (guard.hpp). Its type has to be one for libllama and the extension.

#pragma once

#include <stdexcept>

namespace pyllama {

struct __attribute__((visibility("default"))) ambiguous : std::runtime_error {
    using std::runtime_error::runtime_error;
};

} // namespace pyllama
