/* The instruction sets that the hot functions are compiled for.
 *
 * Their bodies are always inlined, so that a body is compiled for the instruction set of the
 * function around it; the constant `isa` is that instruction set. cpu_dispatch.h has the functions.
 */
#ifndef GEOLOOKUP_INSTRUCTION_SETS_H
#define GEOLOOKUP_INSTRUCTION_SETS_H

#include <stdint.h>

enum { GL_PORTABLE = 0, GL_AVX2 = 1, GL_AVX512 = 2 };

#define GL_INLINE static inline __attribute__((always_inline))

/* Before a short loop whose own instructions would be a good part of it. */
#if defined(__GNUC__) && !defined(__clang__)
#define GL_UNROLL _Pragma("GCC unroll 4")
#else
#define GL_UNROLL
#endif

#if defined(__x86_64__)
#define GL_X86 1
#include <immintrin.h>
#define GL_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#define GL_TARGET_AVX512                                                                  \
    __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,"         \
                          "avx512vbmi,avx512vbmi2,avx512vpopcntdq")))
#endif

/* Bits set in a word. Without an instruction for it, gcc on x86-64 would call a function. */
GL_INLINE unsigned gl_count_bits(uint32_t x, int isa)
{
#ifdef GL_X86
    if (isa == GL_PORTABLE) {
        x -= x >> 1 & 0x55555555;
        x = (x & 0x33333333) + (x >> 2 & 0x33333333);
        return ((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24;
    }
#endif
    (void)isa;
    return (unsigned)__builtin_popcount(x);
}

GL_INLINE unsigned gl_count_bits64(uint64_t x, int isa)
{
#ifdef GL_X86
    if (isa == GL_PORTABLE)
        return gl_count_bits((uint32_t)x, isa) + gl_count_bits((uint32_t)(x >> 32), isa);
#endif
    (void)isa;
    return (unsigned)__builtin_popcountll(x);
}

#endif
