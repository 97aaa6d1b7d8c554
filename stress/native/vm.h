/*
 * As much of the VM's NIF interface as the native tracer uses, for the harness: terms are laid out as OTP 25 lays them out, so that the tracer's
 * own reading of terms is what runs. An environment is a bump allocator that its owner resets; resources count references. Everything that
 * the VM promises is checked with assertions: a tracer callback that allocates terms, a list cell of what is no list, an unlocked mutex.
 */
#ifndef BEAMTRACE_STRESS_VM_H
#define BEAMTRACE_STRESS_VM_H

#include <assert.h>
#include <erl_nif.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef ERL_NIF_TERM term;

#define NIL ((term)0x3b)
#define HEADER_TUPLE 0x00u
#define HEADER_BIG 0x08u
#define HEADER_REF 0x10u
#define HEADER_FLOAT 0x18u
#define HEADER_BINARY 0x24u
#define HEADER_MAP 0x3cu
#define SMALL(n) ((term)((uint64_t)(n) << 4 | 0xf))
#define ATOM(i) ((term)((uint64_t)(i) << 6 | 0xb))

/* The second word is the process, whose first word is its pid, as in the VM. */
struct enif_environment_t {
    void *module;
    uint64_t *process;
    uint64_t *heap;
    size_t used;
    size_t size;
    bool callback; /* nothing may be made in it */
    uint64_t pid;  /* of the process that runs, where it is asked for */
};

struct enif_resource_type_t {
    void (*dtor)(ErlNifEnv *, void *);
};

typedef struct {
    _Atomic int references;
    uint64_t object[];
} vm_resource;

struct ErlDrvMutex_ {
    pthread_mutex_t mutex;
};

/* What kind of thread this is. */
static _Thread_local int vm_thread_type;
static _Thread_local void *vm_thread_data[4];
static struct enif_resource_type_t vm_type;
static ErlNifEnv vm_nowhere;
static char vm_atoms[256][40];
static uint32_t vm_atom_count;

static uint64_t *vm_alloc(ErlNifEnv *env, size_t words)
{
    uint64_t *at = env->heap + env->used;

    assert(!env->callback);
    assert(env->used + words <= env->size);
    env->used += words;
    return at;
}

static term vm_boxed(uint64_t *at) { return (term)(uintptr_t)at | 2; }
static uint64_t *vm_box(term t) { return (uint64_t *)(uintptr_t)(t & ~(uint64_t)7); }
static bool vm_is(term t, unsigned header) { return (t & 3) == 2 && (vm_box(t)[0] & 0x3f) == header; }

static term vm_tuple(ErlNifEnv *env, unsigned arity, const term *elements)
{
    uint64_t *at = vm_alloc(env, arity + 1);

    at[0] = (uint64_t)arity << 6 | HEADER_TUPLE;
    memcpy(at + 1, elements, arity * sizeof *at);
    return vm_boxed(at);
}

/* Of keys and values in turn: as the VM has a small one. */
static term vm_map(ErlNifEnv *env, unsigned pairs, const term *both)
{
    uint64_t *keys = vm_alloc(env, pairs + 1);
    uint64_t *at = vm_alloc(env, pairs + 3);

    keys[0] = (uint64_t)pairs << 6 | HEADER_TUPLE;
    at[0] = HEADER_MAP;
    at[1] = pairs;
    at[2] = vm_boxed(keys);
    for (unsigned i = 0; i < pairs; i++) {
        keys[1 + i] = both[2 * i];
        at[3 + i] = both[2 * i + 1];
    }
    return vm_boxed(at);
}

static term vm_cell(ErlNifEnv *env, term head, term tail)
{
    uint64_t *at = vm_alloc(env, 2);

    at[0] = head;
    at[1] = tail;
    return (term)(uintptr_t)at | 1;
}

static term vm_atom(const char *name)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint32_t i;

    (void)pthread_mutex_lock(&lock);
    for (i = 0; i < vm_atom_count && strcmp(vm_atoms[i], name) != 0; i++)
        ;
    if (i == vm_atom_count) {
        assert(i < 256 && strlen(name) < sizeof vm_atoms[0]);
        strcpy(vm_atoms[vm_atom_count++], name);
    }
    (void)pthread_mutex_unlock(&lock);
    return ATOM(i + 1);
}

#define VM __attribute__((visibility("default"), used))

VM ERL_NIF_TERM enif_make_atom(ErlNifEnv *env, const char *name) { return (void)env, vm_atom(name); }
VM ERL_NIF_TERM enif_make_badarg(ErlNifEnv *env) { return (void)env, (term)0; }
VM ERL_NIF_TERM enif_make_uint(ErlNifEnv *env, unsigned n) { return (void)env, SMALL(n); }
VM ERL_NIF_TERM enif_make_ulong(ErlNifEnv *env, unsigned long n) { return (void)env, SMALL(n); }
VM ERL_NIF_TERM enif_make_long(ErlNifEnv *env, long n) { return (void)env, SMALL(n); }
VM ERL_NIF_TERM enif_make_list_cell(ErlNifEnv *env, ERL_NIF_TERM head, ERL_NIF_TERM tail) { return vm_cell(env, head, tail); }

VM ERL_NIF_TERM enif_make_list(ErlNifEnv *env, unsigned n, ...)
{
    assert(n == 0);
    return (void)env, NIL;
}

VM ERL_NIF_TERM enif_make_tuple(ErlNifEnv *env, unsigned arity, ...)
{
    term elements[16];
    va_list list;

    assert(arity <= 16);
    va_start(list, arity);
    for (unsigned i = 0; i < arity; i++)
        elements[i] = va_arg(list, term);
    va_end(list);
    return vm_tuple(env, arity, elements);
}

VM unsigned char *enif_make_new_binary(ErlNifEnv *env, size_t size, ERL_NIF_TERM *t)
{
    uint64_t *at = vm_alloc(env, 2 + (size + 7) / 8);

    at[0] = HEADER_BINARY;
    at[1] = size;
    *t = vm_boxed(at);
    return (unsigned char *)(at + 2);
}

VM int enif_inspect_binary(ErlNifEnv *env, ERL_NIF_TERM t, ErlNifBinary *binary)
{
    (void)env;
    if (!vm_is(t, HEADER_BINARY))
        return 0;
    binary->size = vm_box(t)[1];
    binary->data = (unsigned char *)(vm_box(t) + 2);
    return 1;
}

/* All atoms here are plain. */
VM int enif_get_atom(ErlNifEnv *env, ERL_NIF_TERM atom, char *text, unsigned size, ErlNifCharEncoding encoding)
{
    const char *name = vm_atoms[(atom >> 6) - 1];

    (void)env, (void)encoding;
    assert(atom >> 6 > 0 && atom >> 6 <= vm_atom_count && strlen(name) < size);
    strcpy(text, name);
    return (int)strlen(name) + 1;
}

VM int enif_term_to_binary(ErlNifEnv *env, ERL_NIF_TERM t, ErlNifBinary *binary) { return (void)env, (void)t, (void)binary, 0; }
VM void enif_release_binary(ErlNifBinary *binary) { (void)binary; }

VM int enif_get_tuple(ErlNifEnv *env, ERL_NIF_TERM t, int *arity, const ERL_NIF_TERM **elements)
{
    (void)env;
    if (!vm_is(t, HEADER_TUPLE))
        return 0;
    *arity = (int)(vm_box(t)[0] >> 6);
    *elements = vm_box(t) + 1;
    return 1;
}

VM int enif_get_list_cell(ErlNifEnv *env, ERL_NIF_TERM t, ERL_NIF_TERM *head, ERL_NIF_TERM *tail)
{
    const uint64_t *cell = (const uint64_t *)(uintptr_t)(t - 1);

    (void)env;
    if ((t & 3) != 1)
        return 0;
    *head = cell[0];
    *tail = cell[1];
    return 1;
}

VM int enif_get_map_value(ErlNifEnv *env, ERL_NIF_TERM map, ERL_NIF_TERM key, ERL_NIF_TERM *value)
{
    const uint64_t *box = vm_box(map);

    (void)env;
    if (!vm_is(map, HEADER_MAP))
        return 0;
    for (uint64_t i = 0; i < box[1]; i++)
        if (vm_box(box[2])[1 + i] == key) {
            *value = box[3 + i];
            return 1;
        }
    return 0;
}

VM int enif_get_map_size(ErlNifEnv *env, ERL_NIF_TERM map, size_t *size)
{
    (void)env;
    if (!vm_is(map, HEADER_MAP))
        return 0;
    *size = vm_box(map)[1];
    return 1;
}

VM int enif_get_ulong(ErlNifEnv *env, ERL_NIF_TERM t, unsigned long *n)
{
    (void)env;
    *n = t >> 4;
    return (t & 0xf) == 0xf && (int64_t)t >= 0;
}

VM int enif_get_long(ErlNifEnv *env, ERL_NIF_TERM t, long *n)
{
    (void)env;
    if ((t & 0xf) != 0xf)
        return 0;
    *n = (long)((int64_t)t >> 4);
    return 1;
}

VM int enif_get_uint(ErlNifEnv *env, ERL_NIF_TERM t, unsigned *n)
{
    unsigned long wide;

    if (!enif_get_ulong(env, t, &wide) || wide > UINT32_MAX)
        return 0;
    *n = (unsigned)wide;
    return 1;
}

/* No floats here. */
VM int enif_get_double(ErlNifEnv *env, ERL_NIF_TERM t, double *n)
{
    (void)env;
    (void)t;
    (void)n;
    return 0;
}

/* Of immediate words only; 27 bits, like the VM's. */
VM ErlNifUInt64 enif_hash(ErlNifHash type, ERL_NIF_TERM t, ErlNifUInt64 salt)
{
    (void)type;
    (void)salt;
    return t * UINT64_C(0x9E3779B97F4A7C15) >> 37;
}

VM int enif_get_int(ErlNifEnv *env, ERL_NIF_TERM t, int *n)
{
    unsigned wide;

    if (!enif_get_uint(env, t, &wide) || wide > INT32_MAX)
        return 0;
    *n = (int)wide;
    return 1;
}

VM int enif_is_number(ErlNifEnv *env, ERL_NIF_TERM t) { return (void)env, vm_is(t, HEADER_FLOAT) || vm_is(t, HEADER_BIG); }
VM int enif_is_ref(ErlNifEnv *env, ERL_NIF_TERM t) { return (void)env, vm_is(t, HEADER_REF); }
VM int enif_is_fun(ErlNifEnv *env, ERL_NIF_TERM t) { return (void)env, (void)t, 0; }
VM int enif_is_pid(ErlNifEnv *env, ERL_NIF_TERM t) { return (void)env, (t & 0xf) == 3; }
VM int enif_is_port(ErlNifEnv *env, ERL_NIF_TERM t) { return (void)env, (t & 0xf) == 7; }
VM void *enif_alloc(size_t size) { return malloc(size); }
VM void enif_free(void *at) { free(at); }
VM int enif_consume_timeslice(ErlNifEnv *env, int percent) { return (void)env, percent > 100; }
VM ErlNifPid *enif_self(ErlNifEnv *env, ErlNifPid *pid)
{
    pid->pid = *env->process;
    return pid;
}

VM int enif_thread_type(void) { return vm_thread_type; }

VM ErlNifTime enif_monotonic_time(ErlNifTimeUnit unit)
{
    struct timespec t;
    int64_t ns;

    /* Threads that are none of the schedulers may not ask. */
    if (vm_thread_type == ERL_NIF_THR_UNDEFINED)
        return ERL_NIF_TIME_ERROR;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    return unit == ERL_NIF_USEC ? ns / 1000 : ns;
}

/* As the VM does it: a key that is made again finds the values of the one before. */
VM int enif_tsd_key_create(char *name, ErlNifTSDKey *key) { return (void)name, *key = 1, 0; }
VM void enif_tsd_key_destroy(ErlNifTSDKey key) { (void)key; }
VM void enif_tsd_set(ErlNifTSDKey key, void *data) { vm_thread_data[key] = data; }
VM void *enif_tsd_get(ErlNifTSDKey key) { return vm_thread_data[key]; }

VM ErlNifMutex *enif_mutex_create(char *name)
{
    ErlNifMutex *mutex = malloc(sizeof *mutex);

    (void)name;
    if (mutex != NULL)
        (void)pthread_mutex_init(&mutex->mutex, NULL);
    return mutex;
}
VM void enif_mutex_destroy(ErlNifMutex *mutex)
{
    (void)pthread_mutex_destroy(&mutex->mutex);
    free(mutex);
}
VM void enif_mutex_lock(ErlNifMutex *mutex) { (void)pthread_mutex_lock(&mutex->mutex); }
VM void enif_mutex_unlock(ErlNifMutex *mutex) { (void)pthread_mutex_unlock(&mutex->mutex); }

VM ErlNifResourceType *enif_open_resource_type(ErlNifEnv *env, const char *module, const char *name, void (*dtor)(ErlNifEnv *, void *),
                                               ErlNifResourceFlags flags, ErlNifResourceFlags *tried)
{
    (void)env, (void)module, (void)name, (void)flags, (void)tried;
    vm_type.dtor = dtor;
    return &vm_type;
}

static vm_resource *vm_resource_of(void *object) { return (vm_resource *)(void *)((char *)object - offsetof(vm_resource, object)); }

VM void *enif_alloc_resource(ErlNifResourceType *type, size_t size)
{
    vm_resource *resource = malloc(sizeof *resource + size);

    (void)type;
    if (resource == NULL)
        return NULL;
    atomic_init(&resource->references, 1);
    return resource->object;
}

VM void enif_release_resource(void *object)
{
    vm_resource *resource = vm_resource_of(object);

    if (atomic_fetch_sub(&resource->references, 1) == 1) {
        vm_type.dtor(&vm_nowhere, object);
        free(resource);
    }
}

VM ERL_NIF_TERM enif_make_resource(ErlNifEnv *env, void *object)
{
    uint64_t *at = vm_alloc(env, 2);

    atomic_fetch_add(&vm_resource_of(object)->references, 1);
    at[0] = HEADER_REF | 1 << 6;
    at[1] = (uint64_t)(uintptr_t)object;
    return vm_boxed(at);
}

VM int enif_get_resource(ErlNifEnv *env, ERL_NIF_TERM t, ErlNifResourceType *type, void **object)
{
    (void)env, (void)type;
    if (!vm_is(t, HEADER_REF))
        return 0;
    *object = (void *)(uintptr_t)vm_box(t)[1];
    return 1;
}

#endif
