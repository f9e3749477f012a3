/* libmaxminddb as a C program uses it: packed addresses in, two letters each out. */
#include <arpa/inet.h>
#include <maxminddb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

MMDB_s *open_mmdb(const char *path)
{
    MMDB_s *mmdb = malloc(sizeof *mmdb);
    if (mmdb != NULL && MMDB_open(path, MMDB_MODE_MMAP, mmdb) != MMDB_SUCCESS) {
        free(mmdb);
        return NULL;
    }
    return mmdb;
}

static int code_of(MMDB_s *mmdb, const struct sockaddr *address, char *out)
{
    int error = 0;
    MMDB_entry_data_s data;
    MMDB_lookup_result_s result = MMDB_lookup_sockaddr(mmdb, address, &error);
    if (error != MMDB_SUCCESS)
        return 0;
    memcpy(out, "ZZ", 2);
    if (!result.found_entry)
        return 1;
    if (MMDB_get_value(&result.entry, &data, "country", "iso_code", NULL) != MMDB_SUCCESS ||
        !data.has_data || data.type != MMDB_DATA_TYPE_UTF8_STRING || data.data_size != 2)
        return 0;
    memcpy(out, data.utf8_string, 2);
    return 1;
}

/* Returns how many addresses were answered: fewer than size after an error. */
size_t libmaxminddb_loop(MMDB_s *mmdb, int version, const uint8_t *packed, size_t size, char *out)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    for (size_t i = 0; i < size; i++) {
        int done;
        if (version == 4) {
            memcpy(&ipv4.sin_addr, packed + 4 * i, 4);
            done = code_of(mmdb, (const struct sockaddr *)&ipv4, out + 2 * i);
        } else {
            memcpy(&ipv6.sin6_addr, packed + 16 * i, 16);
            done = code_of(mmdb, (const struct sockaddr *)&ipv6, out + 2 * i);
        }
        if (!done)
            return i;
    }
    return size;
}
