/* The structures of the Arrow C data interface and of its stream interface, through which
 * libraries hand columns to each other without copies.
 *
 * Their members are those of the specification, which keeps them for ever:
 * https://arrow.apache.org/docs/format/CDataInterface.html
 */
#ifndef GEOLOOKUP_ARROW_ABI_H
#define GEOLOOKUP_ARROW_ABI_H

#include <stdint.h>

#define ARROW_FLAG_NULLABLE 2

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The functions that may fail return 0 or an errno value. The next array after the last one is a
 * released one. */
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif
