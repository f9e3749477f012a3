/* The hot functions, compiled once for each instruction set that is worth it. */
#ifndef GEOLOOKUP_CPU_DISPATCH_H
#define GEOLOOKUP_CPU_DISPATCH_H

#include "roaring.h"
#include "roster_text.h"

#ifdef GL_X86
#include <cpuid.h>
#endif

typedef struct {
    const char *name;
    int (*parse)(const char *s, size_t n, uint8_t out[16]);
    void (*read_items)(const gl_item *items, size_t n, gl_roster *roster);
    unsigned (*claim_text)(const gl_table *t, const char *s, size_t n);
    unsigned (*claim_packed)(const gl_table *t, const uint8_t *p, size_t n);
    void (*classify4)(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out);
    void (*classify6)(const gl_table *t, const uint8_t *packed, size_t n, uint16_t *out);
    void (*classify_roster)(const gl_table *t, const gl_roster *roster, uint16_t *out);
    size_t (*count_selected)(const gl_selection *s);
    void (*select)(const gl_selection *s, uint32_t *out);
    size_t (*roaring_measure)(const gl_selection *s, gl_container *containers,
                              uint64_t *words);
    void (*roaring_write)(const gl_selection *s, const gl_container *containers,
                          uint64_t *words, uint8_t *out);
} gl_isa;

#define GL_DEFINE_ISA(NAME, TARGET, ISA)                                                       \
    TARGET static int gl_parse_##NAME(const char *s, size_t n, uint8_t out[16])                \
    {                                                                                          \
        return gl_parse(s, n, out, ISA);                                                 \
    }                                                                                          \
    TARGET static void gl_read_items_##NAME(const gl_item *items, size_t n,                    \
                                            gl_roster *roster)                                 \
    {                                                                                          \
        gl_read_items(items, n, roster, ISA);                                                  \
    }                                                                                          \
    TARGET static unsigned gl_claim_text_##NAME(const gl_table *t, const char *s, size_t n)    \
    {                                                                                          \
        return gl_claim_text(t, s, n, ISA);                                                    \
    }                                                                                          \
    TARGET static unsigned gl_claim_packed_##NAME(const gl_table *t, const uint8_t *p,         \
                                                  size_t n)                                    \
    {                                                                                          \
        return gl_claim_packed(t, p, n, ISA);                                                  \
    }                                                                                          \
    TARGET static void gl_classify4_##NAME(const gl_table *t, const uint8_t *packed, size_t n, \
                                           uint16_t *out)                                      \
    {                                                                                          \
        gl_classify4(t, packed, n, out, ISA);                                                  \
    }                                                                                          \
    TARGET static void gl_classify6_##NAME(const gl_table *t, const uint8_t *packed, size_t n, \
                                           uint16_t *out)                                      \
    {                                                                                          \
        gl_classify6(t, packed, n, out, ISA);                                                  \
    }                                                                                          \
    TARGET static void gl_classify_roster_##NAME(const gl_table *t, const gl_roster *roster,   \
                                                 uint16_t *out)                                \
    {                                                                                          \
        gl_classify_roster(t, roster, out, ISA);                                               \
    }                                                                                          \
    TARGET static size_t gl_count_selected_##NAME(const gl_selection *s)                       \
    {                                                                                          \
        return gl_count_selected(s, ISA);                                                      \
    }                                                                                          \
    TARGET static void gl_select_##NAME(const gl_selection *s, uint32_t *out)                  \
    {                                                                                          \
        gl_select(s, out, ISA);                                                                \
    }                                                                                          \
    TARGET static size_t gl_roaring_measure_##NAME(                                            \
        const gl_selection *s, gl_container *containers, uint64_t *words)                      \
    {                                                                                          \
        return gl_roaring_measure(s, containers, words, ISA);                                  \
    }                                                                                          \
    TARGET static void gl_roaring_write_##NAME(                                                \
        const gl_selection *s, const gl_container *containers, uint64_t *words, uint8_t *out)  \
    {                                                                                          \
        gl_roaring_write(s, containers, words, out, ISA);                                      \
    }

#define GL_LIST_ISA(NAME)                                                              \
    {                                                                                  \
        #NAME, gl_parse_##NAME, gl_read_items_##NAME, gl_claim_text_##NAME,           \
            gl_claim_packed_##NAME, gl_classify4_##NAME, gl_classify6_##NAME,          \
            gl_classify_roster_##NAME, gl_count_selected_##NAME, gl_select_##NAME,      \
            gl_roaring_measure_##NAME, gl_roaring_write_##NAME                         \
    }

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
