/* Memory for libnghttp2: blocks of few sizes that are used again, in one thread.
 *
 * With each call libnghttp2 takes and gives back a dozen blocks of 40 to 400 bytes. malloc serves
 * any thread and any size; this serves the event loop's, and keeps what it was given back.
 */
#ifndef GEOLOOKUP_HTTP2_MEMORY_H
#define GEOLOOKUP_HTTP2_MEMORY_H

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

enum {
    GL_BLOCK_UNIT = 64,
    GL_BLOCK_CLASSES = 9, /* blocks of up to 512 bytes; larger ones are malloc's */
    GL_BLOCKS_KEPT = 4096, /* of each class */
};

/* What stands before each block, and keeps it aligned. */
typedef struct gl_block {
    struct gl_block *next; /* while it is kept */
    size_t class;          /* units that it has; 0: it is malloc's */
} gl_block;

typedef struct {
    gl_block *kept[GL_BLOCK_CLASSES];
    unsigned count[GL_BLOCK_CLASSES];
} gl_blocks;

static void *gl_blocks_malloc(size_t size, void *data)
{
    gl_blocks *all = data;
    size_t class = (size + GL_BLOCK_UNIT - 1) / GL_BLOCK_UNIT;
    gl_block *block;

    if (class >= GL_BLOCK_CLASSES)
        class = 0;
    if (class > 0 && (block = all->kept[class]) != NULL) {
        all->kept[class] = block->next;
        all->count[class]--;
        return block + 1;
    }
    if (size > SIZE_MAX - sizeof *block)
        return NULL;
    block = malloc(sizeof *block + (class > 0 ? class * GL_BLOCK_UNIT : size));
    if (block == NULL)
        return NULL;
    block->class = class;
    return block + 1;
}

static void gl_blocks_free(void *memory, void *data)
{
    gl_blocks *all = data;
    gl_block *block;

    if (memory == NULL)
        return;
    block = (gl_block *)memory - 1;
    if (block->class == 0 || all->count[block->class] >= GL_BLOCKS_KEPT) {
        free(block);
        return;
    }
    block->next = all->kept[block->class];
    all->kept[block->class] = block;
    all->count[block->class]++;
}

static void *gl_blocks_calloc(size_t n, size_t size, void *data)
{
    void *memory;

    if (size > 0 && n > SIZE_MAX / size)
        return NULL;
    memory = gl_blocks_malloc(n * size, data);
    if (memory != NULL)
        memset(memory, 0, n * size);
    return memory;
}

static void *gl_blocks_realloc(void *memory, size_t size, void *data)
{
    gl_block *block;
    void *grown;
    size_t room;

    if (memory == NULL)
        return gl_blocks_malloc(size, data);
    block = (gl_block *)memory - 1;
    if (block->class == 0) {
        /* It stays malloc's, however small it becomes: nobody else knows how large it was. */
        if (size > SIZE_MAX - sizeof *block)
            return NULL;
        block = realloc(block, sizeof *block + size);
        return block == NULL ? NULL : block + 1;
    }
    room = block->class * GL_BLOCK_UNIT;
    if (size <= room)
        return memory;
    grown = gl_blocks_malloc(size, data);
    if (grown != NULL) {
        memcpy(grown, memory, room);
        gl_blocks_free(memory, data);
    }
    return grown;
}

static inline nghttp2_mem gl_blocks_functions(gl_blocks *all)
{
    return (nghttp2_mem){all, gl_blocks_malloc, gl_blocks_free, gl_blocks_calloc,
                         gl_blocks_realloc};
}

/* Frees what is kept; the rest is still in use. */
static inline void gl_blocks_clear(gl_blocks *all)
{
    for (size_t class = 1; class < GL_BLOCK_CLASSES; class++)
        while (all->kept[class] != NULL) {
            gl_block *block = all->kept[class];
            all->kept[class] = block->next;
            free(block);
        }
}

#endif
