/* Fuzzes the text parser: every path must read what the system's parser and our rules allow,
 * and nothing beyond the text, which therefore ends where its page does.
 */
#define _DEFAULT_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "cpu_dispatch.h"

/* The same text with its last byte before a page that can't be read. */
static char *at_end_of_page(const uint8_t *data, size_t n)
{
    static char *pages;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (pages == NULL) {
        pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(pages != MAP_FAILED);
        CHECK(mprotect(pages + page, page, PROT_NONE) == 0);
    }
    CHECK(n <= page);
    memcpy(pages + page - n, data, n);
    return pages + page - n;
}

static int read_zone(const char *zone)
{
    size_t size = strlen(zone);

    for (size_t i = 0; i < size; i++)
        if (zone[i] < '!' || zone[i] > '~' || zone[i] == '%' || zone[i] == '/')
            return 0;
    return size >= 1 && size <= 64;
}

/* The result of inet_pton for a text without a NUL, with zones as ours. */
static int expect(const uint8_t *data, size_t n, uint8_t out[16])
{
    char text[128];
    char *zone;

    if (n >= sizeof text || memchr(data, 0, n) != NULL)
        return 0;
    memcpy(text, data, n);
    text[n] = 0;
    if (inet_pton(AF_INET, text, out) == 1)
        return 4;
    zone = strchr(text, '%');
    if (zone != NULL)
        *zone++ = 0;
    if (inet_pton(AF_INET6, text, out) != 1)
        return 0;
    if (zone != NULL && (!read_zone(zone) || out[0] != 0xFE || (out[1] & 0xC0) != 0x80))
        return 0;
    return 6;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t right[16];
    int family = expect(data, n, right);
    const char *text = at_end_of_page(data, n);

    for (int i = 0; i < gl_count_isas(); i++) {
        uint8_t out[16], four[4], six[16], families[1];
        gl_item item = {text, n <= GL_LONGEST_TEXT ? n : GL_UNREADABLE};
        gl_roster roster = {families, four, six, 0, 0, 0};

        CHECK(gl_isas[i].parse(text, n, out) == family);
        CHECK(memcmp(out, right, family == 0 ? 0 : family == 4 ? 4 : 16) == 0);
        gl_isas[i].read_items(&item, 1, &roster);
        CHECK(roster.n == 1 && families[0] == family);
        CHECK(roster.ipv4_count == (family == 4) && roster.ipv6_count == (family == 6));
        CHECK(family != 4 || memcmp(four, right, 4) == 0);
        CHECK(family != 6 || memcmp(six, right, 16) == 0);
    }
    return 0;
}
