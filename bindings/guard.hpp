// Stands around every call into libllama: what C++ throws, or an assertion that fails on the
// calling thread, becomes a Python exception raised by the cffi wrapper itself.
//
// Included into the generated source after the headers and before the wrappers. The generated
// macros (one for each function) send each call through guard(); the macro below lets the wrapper
// return NULL with an exception set, as the Python C API wants it, so no caller can forget to look.

#pragma once

#include "ambiguous.hpp"
#include "ending.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <cxxabi.h>
#include <pthread.h>

namespace pyllama {

enum class Fault { none, exception, assertion, memory, unsupported, ambiguous };

inline thread_local Fault       fault = Fault::none;
inline thread_local std::string message;
inline thread_local int         depth = 0; // > 0 while this thread is inside a guarded call

struct assertion : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct unsupported : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// ggml calls this, then abort(). Throwing unwinds out of it, through C frames too, but only a
// guard on this same thread can catch: on ggml's worker threads the process has to end.
inline void on_abort(const char * text) {
    if (depth > 0) {
        throw assertion(text);
    }
    std::fprintf(stderr, "pyllama: libllama failed an assertion on a thread of its own: %s\n", text);
}

inline void keep(Fault kind, const char * text) {
    fault   = kind;
    message = text;
}

// Notes what is being caught. Apart, because a guard stands in two wrappers of each function: with
// all of this in it they take minutes to compile.
[[gnu::noinline]] inline void note_caught() {
    try {
        throw;
    } catch (const assertion & error) {
        keep(Fault::assertion, error.what());
    } catch (const unsupported & error) {
        keep(Fault::unsupported, error.what());
    } catch (const ambiguous & error) {
        keep(Fault::ambiguous, error.what());
    } catch (const std::bad_alloc & error) {
        keep(Fault::memory, error.what());
    } catch (const std::exception & error) {
        keep(Fault::exception, error.what());
    } catch (...) {
        keep(Fault::exception, "something that is not a std::exception");
    }
}

template <class Call> auto guard(Call call) -> decltype(call()) {
    struct Inside {
        Inside() { ++depth, ++n_inside; }
        ~Inside() { --depth, --n_inside; }
    } inside;
    try {
        return call();
#ifdef __GLIBCXX__
    } catch (abi::__forced_unwind &) { // Python has ended, and ends the thread in a callback
        throw;
#endif
    } catch (...) {
        note_caught();
    }
    if constexpr (!std::is_void_v<decltype(call())>) {
        return {};
    }
}

// In a build for tests an assertion fails in the function that the environment names.
#ifdef PYLLAMA_INJECT_ASSERTS
#define PYLLAMA_INJECT(function) pyllama::inject(function);
inline void inject(const char * function) {
    const char * wanted = std::getenv("PYLLAMA_ASSERT_IN");
    if (wanted != nullptr && std::strcmp(wanted, function) == 0) {
        GGML_ABORT("injected into %s", function);
    }
}
#else
#define PYLLAMA_INJECT(function)
#endif

// Called with the GIL, by the wrapper whose call was caught. Always returns NULL.
inline PyObject * raise() {
    const Fault kind = fault;
    fault            = Fault::none;
    if (kind == Fault::memory) {
        return PyErr_NoMemory();
    }
    const char * name = kind == Fault::assertion   ? "LibraryAbortError"
                      : kind == Fault::unsupported ? "UnsupportedError"
                      : kind == Fault::ambiguous   ? "GrammarError"
                                                   : "LibraryError";
    PyObject * module = PyImport_ImportModule("pyllama.errors");
    PyObject * type   = module != nullptr ? PyObject_GetAttrString(module, name) : nullptr;
    if (type != nullptr) {
        PyObject * text = PyUnicode_DecodeUTF8(message.data(), (Py_ssize_t) message.size(), "replace");
        if (text != nullptr) {
            PyErr_SetObject(type, text);
            Py_DECREF(text);
        }
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    return nullptr;
}

// A function that this build does not link.
template <class Function> Function * absent(const char * name, const char * option) {
    throw unsupported(std::string(name) + " is not in this build; build with CMAKE_ARGS=\"" + option + "\"");
}

// Where backends are loaded at run time, each offers some of its functions by name.
template <class Function>
Function * from_backend(const char * backend, const char * name, const char * option) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(backend);
    void * address = reg != nullptr ? ggml_backend_reg_get_proc_address(reg, name) : nullptr;
    return address != nullptr ? reinterpret_cast<Function *>(address) : absent<Function>(name, option);
}

} // namespace pyllama

// cffi ends each wrapper's call with this macro, in a function that returns PyObject *.
// Lists that cffi converted for the call leak when it raises: a few bytes, once per failure.
#undef Py_END_ALLOW_THREADS
#define Py_END_ALLOW_THREADS                      \
    PyEval_RestoreThread(_save);                  \
    }                                             \
    if (pyllama::fault != pyllama::Fault::none) { \
        return pyllama::raise();                  \
    }

bool pyllama_backend_dl(void) {
#ifdef PYLLAMA_BACKEND_DL
    return true;
#else
    return false;
#endif
}

const char * pyllama_llama_commit(void) {
    return llama_commit();
}

static const auto previous_abort_callback = ggml_set_abort_callback(pyllama::on_abort);
static const int  waits_at_the_end        = Py_AtExit(pyllama::end);
static const int  knows_of_forks          = pthread_atfork(nullptr, nullptr, pyllama::after_fork);
