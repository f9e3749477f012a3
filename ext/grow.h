/* Arrays that grow. Plain C11. */
#ifndef GEOLOOKUP_GROW_H
#define GEOLOOKUP_GROW_H

#include <stdint.h>
#include <stdlib.h>

/* Makes room for `more` items of `width` bytes after `n`. Returns 0 when there is no memory; the
 * items are kept in either case. */
static inline int gl_grow(void **data, size_t n, size_t more, size_t *capacity, size_t width)
{
    if (*capacity - n >= more)
        return 1;
    size_t wanted = *capacity + *capacity / 2 + more + 1024;
    void *grown = wanted > SIZE_MAX / width ? NULL : realloc(*data, wanted * width);
    if (grown == NULL)
        return 0;
    *data = grown;
    *capacity = wanted;
    return 1;
}

#endif
