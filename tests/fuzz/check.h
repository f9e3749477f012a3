/* A requirement of the fuzz targets in C: printed with its line before the program ends. */
#ifndef GEOLOOKUP_FUZZ_CHECK_H
#define GEOLOOKUP_FUZZ_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                 \
    do {                                                            \
        if (!(what)) {                                              \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                \
        }                                                           \
    } while (0)

#endif
