// Compiled in front of ggml's ggml-cpu/amx/mmq.cpp, which GCC would else compile wrongly.
//
// GCC's _tile_loadconfig says that it reads 8 bytes of the 64, so the optimizer leaves out the code
// that fills in the others, and the processor faults on what it finds there: a SIGSEGV in the first
// quantised product on a machine with AMX (seen with GCC 12.2).

#pragma once

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

inline void pyllama_tile_loadconfig(const void * config) {
    struct tiles {
        char bytes[64];
    };
    __asm__ volatile("ldtilecfg\t%X0" : : "m"(*static_cast<const tiles *>(config)));
}
#define _tile_loadconfig pyllama_tile_loadconfig

#endif
