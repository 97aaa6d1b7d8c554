/*
 * The usual events of a tracer's message into slots: the inner loop of event-list-decoder.ts, as WebAssembly. It knows the kinds that make up
 * nearly all traffic, in the form in which nodes since OTP 26 send them, and names that it has been told; at anything else it stops, and the
 * general decoder takes over for one event. It allocates nothing, calls nothing and reads its own memory only: a window of the message, which
 * the caller copies in, with room for reading ahead behind it. An event that ends behind the window is not taken.
 *
 * Built by scripts/build-kernel.ts into event-kernel.generated.ts. Formats: External Term Format, erts user's guide. Slots: event-schema.ts.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef u8 v16 __attribute__((vector_size(16)));
typedef u32 v4 __attribute__((vector_size(16)));
typedef signed char s16 __attribute__((vector_size(16)));

#define WINDOW 65536
/* More than the names and identities of one event can take: 9 names of 2 + 255 bytes, 2 identities of 64. */
#define AHEAD 4096
/* Slots of one call, and records of a native batch. */
#define SLOTS 1024
#define RECORDS 16384
/* Runs of a native batch: schedulers of a node, dirty ones included. */
#define RUNS 256
#define ENTRIES 1024
/* Entries that a name may be in, the one that its hash says and those behind it. */
#define PROBES 4
#define MFA_BYTES 128
#define ATOM_BYTES 64
#define PREFIX_BYTES 64

enum { SMALL_TUPLE = 104, SMALL_INTEGER = 97, INTEGER = 98, SMALL_BIG = 110, ATOM = 119, REFERENCE = 90, BINARY = 109 };
/* What is behind the process, by kind; FORM_* of event-kernel.ts. */
enum { F_IDENTITY = 1, F_MFA = 2, F_SHAPE = 4, F_CALLER = 8, F_GC = 16, F_INITIAL = 32, F_CLASS = 64, F_FRAME = 128 };
/* Words of a slot; a test compares what comes out with the general decoder's. */
enum { W_FLAGS = 1, W_TRACEE = 4, W_PAYLOAD_AT = 6, W_OTHER = 8, W_MFA = 10, W_SHAPE = 11, W_TAG1 = 12, W_EXTRA = 14 };
/* Of a call of instrumented code: its id, the site; the module is W_EXTRA. */
enum { W_ID = 8, W_SITE = 10 };
enum { FLAG_PAYLOAD = 1, FLAG_ALIAS = 4, ID_PID = 3, ID_ATOM = 11 };
enum { ALL = 0, OTHER = 1, NEW_MFA = 2, NEW_ATOM = 3 };

u8 message[WINDOW + AHEAD] __attribute__((aligned(16)));
/* Results: of `decode` the first SLOTS, of `merge` all. */
u32 slots[RECORDS * 16] __attribute__((aligned(16)));
/* Records of a native batch, copied in by the caller. */
u32 records[RECORDS * 16] __attribute__((aligned(16)));
u8 forms[256];
u8 arities[256];
/* What stands before id, serial and creation of a local pid, zero-padded. */
u8 prefix[PREFIX_BYTES] __attribute__((aligned(16)));
/* The same without the tag: the node's name. */
u8 node[PREFIX_BYTES] __attribute__((aligned(16)));
/* Set by the caller: bytes of the prefix, creation of the node, source << 8, position of the window in the message. */
u32 prefix_bytes, creation, source_bits, window_at;
/* Results: events done, where the next one begins, where a new name begins, events with a payload. */
u32 done, next_at, name_at, payloads;

static u8 mfa_keys[(ENTRIES + PROBES) * MFA_BYTES] __attribute__((aligned(16)));
static u32 mfa_lengths[ENTRIES + PROBES];
static u32 mfa_ids[ENTRIES + PROBES];
static u8 atom_keys[(ENTRIES + PROBES) * ATOM_BYTES] __attribute__((aligned(16)));
static u32 atom_lengths[ENTRIES + PROBES];
static u32 atom_ids[ENTRIES + PROBES];

/* From MASKS + 64 − n on, n bytes are set and the others are not. */
static const u8 MASKS[192] = {
#define EIGHT(x) x, x, x, x, x, x, x, x
    EIGHT(255), EIGHT(255), EIGHT(255), EIGHT(255), EIGHT(255), EIGHT(255), EIGHT(255), EIGHT(255)};

static inline v16 load(const u8 *p) {
    v16 v;
    __builtin_memcpy(&v, p, 16);
    return v;
}
static inline u32 word(const u8 *p) {
    u32 x;
    __builtin_memcpy(&x, p, 4);
    return x;
}
static inline u32 half(const u8 *p) {
    u16 x;
    __builtin_memcpy(&x, p, 2);
    return x;
}
static inline u32 big(const u8 *p) { return __builtin_bswap32(word(p)); }
/* Four 32-bit numbers, most significant byte first. */
static inline v4 big4(const u8 *p) {
    v16 v = load(p);
    return (v4)__builtin_shufflevector(v, v, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
}
/* Whether the first n bytes (at most 32 or 64) are the same; what lies behind them in `key` is zero. */
static inline int same32(const u8 *p, const u8 *key, u32 n) {
    const u8 *mask = MASKS + 64 - n;
    v16 odd = ((load(p) & load(mask)) ^ load(key)) | ((load(p + 16) & load(mask + 16)) ^ load(key + 16));
    return !__builtin_wasm_any_true_v128((s16)odd);
}
static inline int same64(const u8 *p, const u8 *key, u32 n) {
    const u8 *mask = MASKS + 64 - n;
    v16 odd = ((load(p) & load(mask)) ^ load(key)) | ((load(p + 16) & load(mask + 16)) ^ load(key + 16)) |
              ((load(p + 32) & load(mask + 32)) ^ load(key + 32)) | ((load(p + 48) & load(mask + 48)) ^ load(key + 48));
    return !__builtin_wasm_any_true_v128((s16)odd);
}
static inline int is_prefix(const u8 *p, u32 n) { return n <= 32 ? same32(p, prefix, n) : same64(p, prefix, n); }

static inline u32 atom_hash(const u8 *p, u32 length) {
    u32 first = word(p + 1) & (length >= 3 ? 0xffffffffu : (256u << (8 * length)) - 1);
    return ((word(p + length - 2) + first * 31) * 0x9e3779b1u) >> 22;
}
static inline u32 mfa_hash(const u8 *arity, const u8 *function) {
    return ((word(arity - 2) + word(function - 4) * 31) * 0x9e3779b1u) >> 22;
}

static void keep(u8 *key, const u8 *p, u32 n, u32 room) {
    for (u32 i = 0; i < room; i++) key[i] = i < n ? p[i] : 0;
}

/* The first free entry for a hash, or else one of its entries, each in turn. */
static u32 place(const u32 *lengths, u32 hash) {
    static u32 turn;
    for (u32 entry = hash; entry < hash + PROBES; entry++)
        if (lengths[entry] == 0) return entry;
    return hash + turn++ % PROBES;
}

/* The function that begins at `at` of the message, n bytes in all, has this id. 0: too long to be kept. */
__attribute__((export_name("learnMfa"))) u32 learn_mfa(u32 at, u32 n, u32 id) {
    const u8 *p = message + (at - window_at);
    if (n > MFA_BYTES) return 0;
    const u8 *function = p + 2 + p[1];
    u32 entry = place(mfa_lengths, mfa_hash(p + n - 2, function));
    keep(mfa_keys + entry * MFA_BYTES, p, n, MFA_BYTES);
    mfa_lengths[entry] = n;
    mfa_ids[entry] = id;
    return 1;
}

/* The atom that begins at `at` of the message, n bytes with tag and length, has this id. 0: too long to be kept. */
__attribute__((export_name("learnAtom"))) u32 learn_atom(u32 at, u32 n, u32 id) {
    const u8 *p = message + (at - window_at);
    if (n > ATOM_BYTES) return 0;
    u32 entry = place(atom_lengths, atom_hash(p, n - 2));
    keep(atom_keys + entry * ATOM_BYTES, p, n, ATOM_BYTES);
    atom_lengths[entry] = n;
    atom_ids[entry] = id;
    return 1;
}

/* Forgets all names: ids of another dictionary follow. */
__attribute__((export_name("forget"))) void forget(void) {
    for (u32 i = 0; i < ENTRIES + PROBES; i++) mfa_lengths[i] = atom_lengths[i] = 0;
}

/* See minifloat.ts; the value is below 2^31. */
static inline u32 minifloat(u32 value) {
    if (value <= 255) return value;
    u32 exponent = 25 - (u32)__builtin_clz(value - 1);
    u32 mantissa = (value + (1u << (exponent - 1)) - 1) >> (exponent - 1);
    return mantissa > 255 ? (exponent + 1) << 7 : (exponent << 7) | (mantissa - 128);
}

/* The entry of a name, or −1 when it was not told. */
static inline i32 find_atom(const u8 *p, u32 n) {
    u32 entry = atom_hash(p, n - 2);
    for (u32 last = entry + PROBES; entry < last; entry++) {
        const u8 *key = atom_keys + entry * ATOM_BYTES;
        if (atom_lengths[entry] == n && same32(p, key, n > 32 ? 32 : n) &&
            (n <= 32 || same32(p + 32, key + 32, n - 32)))
            return (i32)entry;
    }
    return -1;
}
static inline i32 find_mfa(const u8 *p, const u8 *function, const u8 *arity, u32 n) {
    u32 entry = mfa_hash(arity, function);
    for (u32 last = entry + PROBES; entry < last; entry++) {
        const u8 *key = mfa_keys + entry * MFA_BYTES;
        if (mfa_lengths[entry] == n && same64(p, key, n > 64 ? 64 : n) &&
            (n <= 64 || same64(p + 64, key + 64, n - 64)))
            return (i32)entry;
    }
    return -1;
}

/* Reads a name that has been told; else leaves with its place. */
#define READ_ATOM(to)                                           \
    do {                                                        \
        u32 n_ = p[1] + 2u;                                     \
        if (p[0] != ATOM || n_ > ATOM_BYTES) LEAVE(OTHER);      \
        i32 entry_ = find_atom(p, n_);                          \
        if (entry_ < 0) {                                       \
            name_at = window_at + (u32)(p - message);           \
            LEAVE(NEW_ATOM);                                    \
        }                                                       \
        to = atom_ids[entry_];                                  \
        p += n_;                                                \
    } while (0)
#define READ_MFA(to)                                            \
    do {                                                        \
        const u8 *function_ = p + 2 + p[1];                     \
        const u8 *arity_ = function_ + 2 + function_[1];        \
        u32 n_ = (u32)(arity_ + 2 - p);                         \
        if (p[0] != ATOM || function_[0] != ATOM || arity_[0] != SMALL_INTEGER || n_ > MFA_BYTES) LEAVE(OTHER); \
        i32 entry_ = find_mfa(p, function_, arity_, n_);        \
        if (entry_ < 0) {                                       \
            name_at = window_at + (u32)(p - message);           \
            LEAVE(NEW_MFA);                                     \
        }                                                       \
        to = mfa_ids[entry_];                                   \
        p = arity_ + 2;                                         \
    } while (0)

#define LEAVE(why)   \
    do {             \
        reason = why; \
        goto leave;  \
    } while (0)

/*
 * Decodes up to `count` events, the first at `at` of the message, those that end within the window at its first `length` bytes.
 * `offset`: base of the batch minus base of the source, in ns. Returns why it stopped.
 */
__attribute__((export_name("decode"))) u32 decode(u32 at, u32 length, u32 count, double offset) {
    const u8 *p = message + (at - window_at);
    const u8 *const end = message + length;
    const u32 n = prefix_bytes;
    const u32 node_creation = creation;
    const u32 source = source_bits;
    const u8 *start = p;
    u32 with_payload = 0;
    u32 reason = ALL;
    u32 i = 0;
    for (; i < count; i++) {
        start = p;
        if (p >= end || p[0] != SMALL_TUPLE) LEAVE(OTHER);
        u32 elements = p[1];
        u32 head;
        if (p[2] == SMALL_INTEGER) {
            head = p[3];
            p += 4;
        } else if (p[2] == INTEGER) {
            head = big(p + 3);
            p += 7;
        } else LEAVE(OTHER);
        u32 kind = head & 0xff;
        u32 form = forms[kind];
        u32 more = elements - arities[kind];
        i32 since;
        if (form == 0) LEAVE(OTHER);
        if (p[0] == INTEGER) {
            since = (i32)big(p + 1);
            p += 5;
        } else if (p[0] == SMALL_INTEGER) {
            since = p[1];
            p += 2;
        } else LEAVE(OTHER);
        u32 *slot = slots + i * 16;
        const v4 zero = {0, 0, 0, 0};
        *(v4 *)slot = zero;
        *(v4 *)(slot + 4) = zero;
        *(v4 *)(slot + 8) = zero;
        *(v4 *)(slot + 12) = zero;
        slot[0] = kind | source | ((head >> 8) << 16);
        *(double *)(slot + 2) = offset + (double)since;
        if (!is_prefix(p, n)) LEAVE(OTHER);
        p += n;
        v4 numbers = big4(p);
        if ((numbers[0] >> 28) != 0 || numbers[2] != node_creation) LEAVE(OTHER);
        slot[W_TRACEE] = (numbers[0] << 4) | ID_PID;
        slot[W_TRACEE + 1] = numbers[1];
        p += 12;
        if (more != 0) {
            /* A function may be missing: then there is a 0 in place of three elements. */
            if (form == F_MFA && more == (u32)-2) {
                if (half(p) != SMALL_INTEGER) LEAVE(OTHER);
                p += 2;
                goto complete;
            }
            if (more != 1 || (form & F_SHAPE) == 0) LEAVE(OTHER);
        }
        if (form & F_IDENTITY) {
            if (is_prefix(p, n)) {
                p += n;
                numbers = big4(p);
                if ((numbers[0] >> 28) != 0 || numbers[2] != node_creation) LEAVE(OTHER);
                slot[W_OTHER] = (numbers[0] << 4) | ID_PID;
                slot[W_OTHER + 1] = numbers[1];
                p += 12;
            } else if ((form & F_SHAPE) == 0) {
                LEAVE(OTHER);
            } else if (p[0] == REFERENCE) {
                /* An alias of a local process: count of numbers, then node and creation as in a pid, then the numbers. */
                u32 ref_words = (u32)p[1] << 8 | p[2];
                p += 3;
                int local = n <= 32 ? same32(p, node, n - 1) : same64(p, node, n - 1);
                p += n - 1;
                numbers = big4(p);
                if (!local || numbers[0] != node_creation) LEAVE(OTHER);
                slot[10] = numbers[1];
                slot[14] = numbers[2];
                slot[15] = numbers[3];
                p += 16;
                if (ref_words == 5) {
                    slot[W_OTHER] = big(p);
                    slot[W_OTHER + 1] = big(p + 4);
                    p += 8;
                } else if (ref_words != 3) LEAVE(OTHER);
                slot[W_FLAGS] = FLAG_ALIAS;
            } else {
                u32 name;
                READ_ATOM(name);
                slot[W_OTHER] = (name << 4) | ID_ATOM;
            }
        }
        if (form & F_FRAME) {
            /* Ids are below 2^53. */
            if (p[0] == SMALL_INTEGER) {
                slot[W_ID] = p[1];
                p += 2;
            } else if (p[0] == INTEGER) {
                slot[W_ID] = big(p + 1);
                if ((i32)slot[W_ID] < 0) LEAVE(OTHER);
                p += 5;
            } else {
                u32 bytes = p[1];
                if (p[0] != SMALL_BIG || p[2] != 0 || bytes < 4 || bytes > 7 || (bytes == 7 && p[9] >= 32)) LEAVE(OTHER);
                slot[W_ID] = word(p + 3);
                slot[W_ID + 1] = word(p + 7) & ((1u << (8 * (bytes - 4))) - 1);
                p += 3 + bytes;
            }
            READ_ATOM(slot[W_EXTRA]);
            if (p[0] == SMALL_INTEGER) {
                slot[W_SITE] = p[1];
                p += 2;
            } else {
                slot[W_SITE] = big(p + 1);
                if (p[0] != INTEGER || (i32)slot[W_SITE] < 0) LEAVE(OTHER);
                p += 5;
            }
        }
        if (form & F_MFA) READ_MFA(slot[W_MFA]);
        if (form & F_INITIAL) {
            if (p[0] == ATOM) READ_MFA(slot[W_EXTRA]);
            else {
                if (word(p) != 0x00610061 || half(p + 4) != SMALL_INTEGER) LEAVE(OTHER);
                p += 6;
            }
        }
        if (form & F_CLASS) READ_ATOM(slot[W_EXTRA]);
        if (form & F_SHAPE) {
            if (p[0] == SMALL_INTEGER) {
                slot[W_SHAPE] = p[1];
                p += 2;
            } else {
                u32 shape = big(p + 1);
                if (p[0] != INTEGER || (i32)shape < 0) LEAVE(OTHER);
                slot[W_SHAPE] = shape;
                p += 5;
            }
            if (half(p) == SMALL_INTEGER) p += 2;
            else READ_ATOM(slot[W_TAG1]);
            if (half(p) == SMALL_INTEGER) p += 2;
            else READ_ATOM(slot[W_TAG1 + 1]);
            if (form & F_CALLER) {
                /* A caller is rarely asked for. */
                if (half(p) != SMALL_INTEGER) LEAVE(OTHER);
                p += 2;
            }
            if (more == 1) {
                u32 bytes = big(p + 1);
                if (p[0] != BINARY || p + 5 > end || bytes > (u32)(end - p - 5)) LEAVE(OTHER);
                slot[W_PAYLOAD_AT] = window_at + (u32)(p + 5 - message);
                slot[W_PAYLOAD_AT + 1] = bytes;
                slot[W_FLAGS] |= FLAG_PAYLOAD;
                p += 5 + bytes;
                if (p <= end) with_payload++;
            }
        }
        if (form & F_GC) {
            /* Sizes are small or large without a pattern, so they are read without a branch. */
            u32 values[12];
            u32 odd = 0;
            u32 sign = 0;
#pragma clang loop unroll(full)
            for (u32 k = 0; k < 12; k++) {
                u32 tag = p[0];
                u32 large = tag - SMALL_INTEGER;
                u32 bytes = big(p + 1);
                values[k] = bytes >> ((24 - 24 * large) & 31);
                odd |= large;
                sign |= bytes & (0 - large);
                p += (tag * 3 - 289) & 7;
            }
            if (odd > 1 || (i32)sign < 0) LEAVE(OTHER);
            for (u32 k = 0; k < 8; k++) slot[8 + k] = values[k];
            slot[6] = values[8];
            slot[7] = values[9];
            slot[W_FLAGS] = (minifloat(values[10]) << 8) | (minifloat(values[11]) << 20);
        }
    complete:
        if (p > end) LEAVE(OTHER);
    }
    start = p;
leave:
    done = i;
    next_at = window_at + (u32)(start - message);
    payloads = with_payload;
    return reason;
}

static inline double stamp(u32 i) { return ((const double *)records)[i * 8 + 1]; }

/*
 * Brings records, runs that are in order each, into the order of their stamps, to which `offset` is added. Returns 0: they lie in `records`, as
 * there is one run only; 1: in `slots`; 2: too many runs, or stamps that are none, which the caller looks into. The same steps as in native-record-decoder.ts, so that both give the same order.
 */
__attribute__((export_name("merge"))) u32 merge(u32 count, double offset) {
    static u32 next[RUNS], ends[RUNS];
    u32 runs = 1;
    next[0] = 0;
    if (count > RECORDS) return 2;
    double last = -__builtin_inf();
    for (u32 i = 0; i < count; i++) {
        double at = stamp(i);
        /* Written so that NaN is caught, too. */
        if (!(at > -__builtin_inf() && at < __builtin_inf())) return 2;
        if (at < last) {
            if (runs == RUNS) return 2;
            ends[runs - 1] = next[runs] = i;
            runs++;
        }
        last = at;
    }
    ends[runs - 1] = count;
    for (u32 i = 0; i < count; i++) ((double *)records)[i * 8 + 1] += offset;
    if (runs == 1) return 0;
    v4 *to = (v4 *)slots;
    while (runs > 0) {
        u32 run = 0;
        double least = __builtin_inf(), second = __builtin_inf();
        for (u32 i = 0; i < runs; i++) {
            double at = stamp(next[i]);
            if (at < least) {
                second = least;
                least = at;
                run = i;
            } else if (at < second) {
                second = at;
            }
        }
        u32 i = next[run];
        do {
            const v4 *record = (const v4 *)(records + i * 16);
            to[0] = record[0];
            to[1] = record[1];
            to[2] = record[2];
            to[3] = record[3];
            to += 4;
            i++;
        } while (i < ends[run] && (runs == 1 || stamp(i) <= second));
        next[run] = i;
        if (i == ends[run]) {
            runs--;
            for (u32 k = run; k < runs; k++) {
                next[k] = next[k + 1];
                ends[k] = ends[k + 1];
            }
        }
    }
    return 1;
}
