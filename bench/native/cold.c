/*
 * What a callback of the native tracer costs when the near caches hold nothing of it, as on a server, where the VM has done microseconds of other
 * work since the last event: before each call so much code is run and so much memory read, and the call alone is timed. The whole library is
 * linked in, with the small VM of stress/native around it. Usage: cold CODE_KIB DATA_KIB [CALLS]; sh bench/native/cold.sh compiles and runs it.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "vm.h"

#include "event_schema.h"

#define PID(n) ((term)((uint64_t)(n) << 4 | 3))
#define LINE 64
#define MESSAGES 4096
#define CALLS_MAX 200000
/* Calls between two looks at the clock's line, which a drain takes. */
#define CALLS_A_DRAIN 512

typedef ERL_NIF_TERM (*nif)(ErlNifEnv *, int, const ERL_NIF_TERM[]);
enum { EMPTY, SEND, RECEIVE, KINDS };

ErlNifEntry *nif_init(void);

static const volatile uint64_t *memory;
static size_t memory_lines;
static void (*other_code)(void);

static nif find(const ErlNifEntry *entry, const char *name)
{
    for (int i = 0; i < entry->num_of_funcs; i++)
        if (strcmp(entry->funcs[i].name, name) == 0)
            return entry->funcs[i].fptr;
    fprintf(stderr, "the library has no %s\n", name);
    exit(1);
}

/* One `add` in each line, and a jump to the next. */
static void write_code(size_t bytes)
{
    unsigned char *code = mmap(NULL, bytes + LINE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t at = 0;

    assert(code != MAP_FAILED);
    for (; at + LINE <= bytes; at += LINE)
        memcpy(code + at, (const unsigned char[]){0x05, 1, 0, 0, 0, 0xeb, LINE - 7}, 7);
    code[at] = 0xc3;
    *(void **)&other_code = code;
}

/* What the VM does between two events. */
static void other_work(uint64_t *seed)
{
    other_code();
    for (size_t i = 0; i < memory_lines; i++) {
        *seed = *seed * UINT64_C(6364136223846793005) + 1;
        (void)memory[(*seed >> 33) % memory_lines * (LINE / sizeof *memory)];
    }
}

static uint64_t before(void)
{
    uint64_t ticks;

    __builtin_ia32_lfence();
    ticks = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return ticks;
}

static uint64_t after(void)
{
    unsigned processor;
    uint64_t ticks = __builtin_ia32_rdtscp(&processor);

    __builtin_ia32_lfence();
    return ticks;
}

static double ns_a_tick(void)
{
    ErlNifTime ns = enif_monotonic_time(ERL_NIF_NSEC);
    uint64_t ticks = before();

    (void)usleep(100000);
    return (double)(enif_monotonic_time(ERL_NIF_NSEC) - ns) / (double)(before() - ticks);
}

static int by_size(const void *a, const void *b) { return (*(const uint64_t *)a > *(const uint64_t *)b) - (*(const uint64_t *)a < *(const uint64_t *)b); }

static ERL_NIF_TERM nothing(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) { return (void)env, (void)argc, argv[0]; }

int main(int argc, char **argv)
{
    static uint64_t ticks[KINDS][CALLS_MAX];
    static term messages[MESSAGES];
    static term options[MESSAGES];
    size_t code = (size_t)(argc > 1 ? atoi(argv[1]) : 512) << 10;
    size_t data = (size_t)(argc > 2 ? atoi(argv[2]) : 1500) << 10;
    int calls = argc > 3 ? atoi(argv[3]) : 20000;
    ErlNifEnv env = {.heap = malloc(64u << 20), .size = 8u << 20};
    ErlNifEnv drains = {.heap = malloc(64u << 20), .size = 8u << 20};
    ErlNifEntry *entry = nif_init();
    void *private_data = NULL;
    uint64_t self = PID(7);
    uint64_t seed = 1;
    term bits = NIL;
    term none;
    term opened;
    term handle;
    term drained[2];
    const term *e;
    int arity;
    double ns;

    assert(calls > 0 && calls <= CALLS_MAX);
    vm_thread_type = ERL_NIF_THR_NORMAL_SCHEDULER;
    env.process = drains.process = &self;
    write_code(code);
    memory = mmap(NULL, data + LINE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(memory != MAP_FAILED);
    memset((void *)(uintptr_t)memory, 1, data + LINE);
    memory_lines = data / LINE;

    if (entry->load(&env, &private_data, NIL) != 0)
        return 1;
    for (int i = 0; i < 27; i++)
        bits = vm_cell(&env, vm_tuple(&env, 3, (term[]){PID(UINT64_C(1) << i), SMALL(UINT64_C(16) << i), SMALL(0)}), bits);
    bits = vm_cell(&env, PID(0), bits);
    (void)find(entry, "layout")(&env, 5,
                                (term[]){SMALL(25), vm_atom("true"), bits, vm_cell(&env, 7, NIL),
                                         vm_tuple(&env, 2, (term[]){vm_atom("true"), vm_atom("true")})});
    (void)find(entry, "proven")(&env, 1, (term[]){vm_atom("true")});
    opened = find(entry, "open")(&env, 4,
                                 (term[]){SMALL(2), SMALL(65536), vm_tuple(&env, 3, (term[]){vm_atom("true"), vm_atom("false"), SMALL(0x1ffffffff)}),
                                          vm_tuple(&env, 3, (term[]){PID(5), vm_atom("undefined"), NIL})});
    if (!enif_get_tuple(&env, opened, &arity, &e) || arity != 3)
        return 1;
    handle = e[0];
    (void)find(entry, "overwrite")(&env, 1, &handle);
    drained[0] = handle;
    drained[1] = SMALL(1);
    /* Until the clock's line is known. */
    for (int i = 0; i < 400; i++) {
        drains.used = 0;
        (void)find(entry, "drain")(&drains, 2, drained);
        (void)usleep(5000);
    }
    for (int i = 0; i < MESSAGES; i++) {
        term inner = vm_tuple(&env, 3, (term[]){vm_atom("deliver"), SMALL(i), NIL});

        messages[i] = vm_tuple(&env, 2, (term[]){vm_atom("$gen_cast"), inner});
        options[i] = vm_map(&env, 1, (term[]){vm_atom("extra"), PID(100 + i)});
    }
    none = vm_map(&env, 0, NULL);
    ns = ns_a_tick();

    for (int i = 0; i < calls; i++) {
        term sent[5] = {vm_atom("send"), e[1], PID(100 + i % MESSAGES), messages[i % MESSAGES], options[i % MESSAGES]};
        term received[5] = {vm_atom("receive"), e[1], PID(100 + i % MESSAGES), messages[i % MESSAGES], none};
        const struct {
            nif enabled;
            nif trace;
            const term *arguments;
        } each[KINDS] = {
            {nothing, nothing, sent},
            {find(entry, "enabled_send"), find(entry, "trace"), sent},
            {find(entry, "enabled_receive"), find(entry, "trace_receive"), received},
        };

        if (i % CALLS_A_DRAIN == 0) {
            drains.used = 0;
            (void)find(entry, "drain")(&drains, 2, drained);
        }
        env.callback = true;
        for (int kind = 0; kind < KINDS; kind++) {
            uint64_t began;

            other_work(&seed);
            /* The VM has the message at hand. */
            (void)*(volatile uint64_t *)vm_box(messages[i % MESSAGES]);
            began = before();
            (void)each[kind].enabled(&env, 3, each[kind].arguments);
            (void)each[kind].trace(&env, 5, each[kind].arguments);
            ticks[kind][i] = after() - began;
        }
        env.callback = false;
    }
    for (int kind = 0; kind < KINDS; kind++)
        qsort(ticks[kind], (size_t)calls, sizeof ticks[kind][0], by_size);
    printf("%zu KiB of other code, %zu KiB of other data: a send %.0f ns, a receive %.0f ns (medians of %d)\n", code >> 10, data >> 10,
           ns * (double)(ticks[SEND][calls / 2] - ticks[EMPTY][calls / 2]),
           ns * (double)(ticks[RECEIVE][calls / 2] - ticks[EMPTY][calls / 2]), calls);
    return 0;
}
