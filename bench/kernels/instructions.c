/* The core's hot loops over rosters from files, for an instruction counter.
 *
 *     instructions FOLDER [PREFIX]
 *
 * FOLDER holds the arrays of a dataset and the rosters (bench/instructions.py writes them).
 * For each loop whose name begins with PREFIX a line is printed: its name, and how many
 * addresses it went through in a run. For each line, `measured` was called twice, for one
 * run and for two: what is counted in the second call, less what is in the first, is a run.
 */
#include <stdio.h>

#include "index_build.h"
#include "roster_answer.h"

typedef struct {
    uint8_t *data;
    size_t size;
} file;

/* What a loop works on. */
typedef struct job {
    void (*run)(const struct job *job);
    const gl_isa *isa;
    const gl_table *table;
    const gl_results *results;
    const uint8_t *outcomes;
    file in;
    unsigned form; /* of a request's addresses */
    const gl_item *items;
    size_t n;
    uint8_t *out;
    gl_answer *answer;
} job;

/* External, so that it stays a function of this name. */
void measured(const job *job, int runs);
void measured(const job *job, int runs)
{
    for (int i = 0; i < runs; i++)
        job->run(job);
}

static void *checked(void *memory)
{
    if (memory == NULL) {
        fputs("instructions: no memory\n", stderr);
        exit(3);
    }
    return memory;
}

static file load(const char *folder, const char *name)
{
    char path[4096];
    file in = {NULL, 0};
    FILE *from;
    long size = -1;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    from = fopen(path, "rb");
    if (from != NULL && fseek(from, 0, SEEK_END) == 0)
        size = ftell(from);
    if (size >= 0) {
        rewind(from);
        in.size = (size_t)size;
        in.data = checked(malloc(in.size + 1));
    }
    if (in.data == NULL || fread(in.data, 1, in.size, from) != in.size) {
        fprintf(stderr, "instructions: can't read %s\n", path);
        exit(3);
    }
    fclose(from);
    return in;
}

/* ------------------------------------------------------------------- what is counted */

static void run_packed4(const job *j)
{
    j->isa->classify4(j->table, j->in.data, j->n, (uint16_t *)j->out);
}

static void run_packed6(const job *j)
{
    j->isa->classify6(j->table, j->in.data, j->n, (uint16_t *)j->out);
}

static void run_texts(const job *j)
{
    gl_roster roster = {j->out, j->out + j->n, j->out + 5 * j->n, 0, 0, 0};
    j->isa->read_items(j->items, j->n, &roster);
}

static void run_single(const job *j)
{
    for (size_t i = 0; i < j->n; i++)
        j->out[i] = (uint8_t)j->isa->claim_text(j->table, j->items[i].data, j->items[i].form);
}

static void run_request(const job *j)
{
    gl_request request;
    j->out[0] = (uint8_t)gl_read_roster_request(j->in.data, j->in.size, &request);
}

static void begin_answer(const job *j, gl_answer *answer)
{
    gl_request request = {.form = j->form, .addresses = j->in.data, .bytes = j->in.size};
    *answer = (gl_answer){
        .isa = j->isa, .table = j->table, .results = j->results, .outcome = j->outcomes};
    if (!gl_answer_begin(answer, &request, j->n))
        checked(NULL);
    while (answer->done < answer->n)
        gl_answer_step(answer);
}

static void run_answer(const job *j)
{
    gl_answer answer;
    begin_answer(j, &answer);
    free(answer.memory);
}

static void run_write(const job *j)
{
    if (gl_answer_bytes(j->answer) > 8 * j->n + 16384)
        checked(NULL);
    gl_answer_write(j->answer, j->out);
}

/* ----------------------------------------------------------------------- one by one */

static const char *chosen = "";

static void count(const char *loop, const job *j)
{
    /* Volatile: else the compiler would see the callee, and make a copy for each number. */
    void (*volatile call)(const job *, int) = measured;
    char name[128];

    snprintf(name, sizeof name, "%s%s%s", loop, j->isa ? ", " : "", j->isa ? j->isa->name : "");
    if (strncmp(name, chosen, strlen(chosen)) != 0)
        return;
    call(j, 1);
    call(j, 2);
    printf("%s\t%zu\n", name, j->n);
}

/* The texts of a TextAddresses. */
static size_t list_texts(file texts, gl_item **items)
{
    const uint8_t *at = texts.data, *end = texts.data + texts.size;
    size_t n, size = 0;

    if (!gl_count_texts(at, texts.size, &n)) {
        fputs("instructions: no TextAddresses\n", stderr);
        exit(3);
    }
    *items = checked(malloc((n + 1) * sizeof **items));
    for (size_t i = 0; i < n; i++, at += size) {
        gl_next_text(&at, end, &size);
        (*items)[i] = (gl_item){(const char *)at, size <= GL_LONGEST_TEXT ? size : GL_UNREADABLE};
    }
    return n;
}

static void count_packed(const char *loop, job j, size_t width)
{
    j.run = width == 4 ? run_packed4 : run_packed6;
    j.n = j.in.size / width;
    j.out = checked(malloc(2 * j.n));
    count(loop, &j);
    free(j.out);
}

static void count_texts(const char *loop, const char *single, job j)
{
    gl_item *items;

    j.n = list_texts(j.in, &items);
    j.items = items;
    j.out = checked(malloc(21 * j.n));
    j.run = run_texts;
    count(loop, &j);
    j.run = run_single;
    count(single, &j);
    free(j.out);
    free(items);
}

static void count_request(const char *loop, file request, size_t n)
{
    uint8_t out[1] = {0};
    job j = {.run = run_request, .in = request, .n = n, .out = out};

    count(loop, &j);
    if (!out[0] && strncmp(loop, chosen, strlen(chosen)) == 0) {
        fprintf(stderr, "instructions: %s is not in the reader's form\n", loop);
        exit(3);
    }
}

static void count_answer(const char *loop, const char *write, job j, size_t n)
{
    gl_answer answer;

    j.n = n;
    j.run = run_answer;
    count(loop, &j);
    begin_answer(&j, &answer);
    j.answer = &answer;
    j.out = checked(malloc(8 * n + 16384));
    j.run = run_write;
    count(write, &j);
    free(j.out);
    free(answer.memory);
}

int main(int argc, char **argv)
{
    gl_table table = {0};
    gl_results results = {0};
    size_t position;

    if (argc < 2 || argc > 3) {
        fputs("usage: instructions FOLDER [PREFIX]\n", stderr);
        return 2;
    }
    const char *folder = argv[1];
    chosen = argc == 3 ? argv[2] : "";

    file first4 = load(folder, "first4"), claim4 = load(folder, "claim4");
    file high6 = load(folder, "high6"), low6 = load(folder, "low6");
    file claim6 = load(folder, "claim6"), outcomes = load(folder, "outcomes");
    file countries = load(folder, "countries"), statuses = load(folder, "statuses");
    table.first4 = (const uint32_t *)first4.data;
    table.claim4 = (const uint16_t *)claim4.data;
    table.n4 = first4.size / 4;
    table.high6 = (const uint64_t *)high6.data;
    table.low6 = (const uint64_t *)low6.data;
    table.claim6 = (const uint16_t *)claim6.data;
    table.n6 = high6.size / 8;
    if (gl_table_check(&table, (unsigned)statuses.size, &position) != GL_NO_FAULT ||
        !gl_table_build(&table) ||
        !gl_results_build(&results, (const uint16_t *)countries.data, statuses.data, statuses.size))
        checked(NULL);

    file assigned4 = load(folder, "assigned4"), boundary4 = load(folder, "boundary4");
    file assigned6 = load(folder, "assigned6"), boundary6 = load(folder, "boundary6");
    file text4 = load(folder, "text4"), text6 = load(folder, "text6");
    file mixed = load(folder, "mixed");
    size_t n = assigned4.size / 4;

    for (int i = 0; i < gl_count_isas(); i++) {
        job j = {.isa = gl_isas + i, .table = &table, .results = &results};
        j.in = assigned4;
        count_packed("packed IPv4", j, 4);
        j.in = boundary4;
        count_packed("packed IPv4 at boundaries", j, 4);
        j.in = assigned6;
        count_packed("packed IPv6", j, 16);
        j.in = boundary6;
        count_packed("packed IPv6 at boundaries", j, 16);
        j.in = text4;
        count_texts("reading text IPv4", "one text IPv4", j);
        j.in = text6;
        count_texts("reading text IPv6", "one text IPv6", j);

        j.outcomes = outcomes.data;
        j.form = GL_IPV4;
        j.in = assigned4;
        count_answer("answer to packed IPv4", "writing the answer to packed IPv4", j, n);
        j.form = GL_TEXT;
        j.in = mixed;
        count_answer("answer to mixed text", "writing the answer to mixed text", j, n);
    }
    count_request("whole request of packed IPv4", load(folder, "request-packed"), 1);
    count_request("request of text IPv4", load(folder, "request-text4"), n);
    count_request("request of text IPv6", load(folder, "request-text6"), n);
    return 0;
}
