/* The hot functions, compiled once for each instruction set that is worth it. */
#ifndef GEOLOOKUP_CPU_DISPATCH_H
#define GEOLOOKUP_CPU_DISPATCH_H

#include "roaring.h"
#include "roster_text.h"

#ifdef GL_X86
#include <cpuid.h>
#endif

/* Applies DO to the type, `return` or nothing, name, parameters and arguments of each hot
 * function. */
#define GL_HOT_FUNCTIONS(DO, ...)                                                              \
    DO(int, return, parse, (const char *s, size_t n, uint8_t out[16]), (s, n, out, isa),       \
       __VA_ARGS__)                                                                            \
    DO(void, , read_items, (const gl_item *items, size_t n, gl_roster *roster),                \
       (items, n, roster, isa), __VA_ARGS__)                                                   \
    DO(unsigned, return, claim_text, (const gl_table *t, const char *s, size_t n),             \
       (t, s, n, isa), __VA_ARGS__)                                                            \
    DO(unsigned, return, claim_packed, (const gl_table *t, const uint8_t *p, size_t n),        \
       (t, p, n, isa), __VA_ARGS__)                                                            \
    DO(void, , classify4, (const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out), \
       (t, packed, n, out, isa), __VA_ARGS__)                                                  \
    DO(void, , classify_numbers,                                                               \
       (const gl_table *t, const uint32_t *numbers, size_t n, uint16_t *out),                  \
       (t, numbers, n, out, isa), __VA_ARGS__)                                                 \
    DO(void, , classify6, (const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out), \
       (t, packed, n, out, isa), __VA_ARGS__)                                                  \
    DO(void, , classify_roster, (const gl_table *t, const gl_roster *roster, uint16_t *out),   \
       (t, roster, out, isa), __VA_ARGS__)                                                     \
    DO(void, , put_results,                                                                    \
       (const gl_result *by_claim, const uint16_t *claims, size_t n, uint16_t *countries,      \
        uint8_t *statuses, uint32_t *even, uint32_t *odd),                                     \
       (by_claim, claims, n, countries, statuses, even, odd, isa), __VA_ARGS__)                \
    DO(size_t, return, count_selected, (const gl_selection *s), (s, isa), __VA_ARGS__)         \
    DO(void, , select, (const gl_selection *s, uint32_t *out), (s, out, isa), __VA_ARGS__)     \
    DO(size_t, return, roaring_measure,                                                        \
       (const gl_selection *s, gl_container *containers, uint64_t *words),                     \
       (s, containers, words, isa), __VA_ARGS__)                                               \
    DO(void, , roaring_write,                                                                  \
       (const gl_selection *s, const gl_container *containers, uint64_t *words, uint8_t *out), \
       (s, containers, words, out, isa), __VA_ARGS__)

#define GL_MEMBER(TYPE, RETURN, NAME, PARAMETERS, ARGUMENTS, ...) TYPE(*NAME) PARAMETERS;

#define GL_FUNCTION(TYPE, RETURN, NAME, PARAMETERS, ARGUMENTS, SUFFIX, TARGET, ISA)            \
    TARGET static TYPE gl_##NAME##_##SUFFIX PARAMETERS                                         \
    {                                                                                          \
        enum { isa = ISA };                                                                    \
        RETURN gl_##NAME ARGUMENTS;                                                            \
    }

#define GL_POINTER(TYPE, RETURN, NAME, PARAMETERS, ARGUMENTS, SUFFIX) gl_##NAME##_##SUFFIX,

#define GL_DEFINE_ISA(SUFFIX, TARGET, ISA) GL_HOT_FUNCTIONS(GL_FUNCTION, SUFFIX, TARGET, ISA)
#define GL_LIST_ISA(SUFFIX) {#SUFFIX, GL_HOT_FUNCTIONS(GL_POINTER, SUFFIX)}

typedef struct {
    const char *name;
    GL_HOT_FUNCTIONS(GL_MEMBER, )
} gl_isa;

GL_DEFINE_ISA(portable, , GL_PORTABLE)
#ifdef GL_X86
GL_DEFINE_ISA(avx2, GL_TARGET_AVX2, GL_AVX2)
GL_DEFINE_ISA(avx512, GL_TARGET_AVX512, GL_AVX512)
#endif

/* From the plainest to the widest. */
static const gl_isa gl_isas[] = {
    GL_LIST_ISA(portable),
#ifdef GL_X86
    GL_LIST_ISA(avx2),
    GL_LIST_ISA(avx512),
#endif
};

#ifdef GL_X86
/* Not through __builtin_cpu_supports: clang knew the name only from version 18 on. */
static inline int gl_has_lzcnt(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 5) != 0;
}
#endif

/* How many of them, from the first on, this processor and its system support. */
static inline int gl_count_isas(void)
{
#ifdef GL_X86
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
          __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
          gl_has_lzcnt()))
        return 1;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
          __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vpopcntdq")))
        return 2;
    return 3;
#else
    return 1;
#endif
}

#endif
