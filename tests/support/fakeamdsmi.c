/* A libamd_smi.so of the 7.0 ABI over a register file in shared memory, for tests of what stands above it.
 *
 * The registers are written by tests/support/fakeamdsmi.py; nothing here moves by itself. Structures are those of
 * amdsmi.h 7.0 as far as they are filled. A handle is the session's generation and a board's number, so that a stale
 * one is refused instead of followed. Functions that are not here are in fakeamdsmi_rest.h, which the driver makes of
 * the names that the real Python binding looks up: they answer AMDSMI_STATUS_NOT_SUPPORTED.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, INVAL = 1, NOT_SUPPORTED = 2, OUT_OF_RESOURCES = 15, NOT_INIT = 32 };
enum family { IDENTITY, ENERGY, POWER, LIMIT, ACTIVITY, MEMORY, TEMPERATURE, PROCESSES, FAMILIES };
enum { MOST_BOARDS = 16, MOST_PROCESSES = 32 };

struct board {
    uint64_t address;             /* domain << 16 | bus << 8 | device << 3 | function */
    uint64_t accumulator;
    uint64_t device_id;
    uint64_t limit, highest_limit;
    uint64_t memory_used;
    int64_t temperature;
    uint64_t socket_power;
    uint32_t current_power, average_power;
    uint32_t activity;
    float resolution;
    uint32_t processes;
    uint32_t pids[MOST_PROCESSES];
    uint32_t errors[FAMILIES];
    uint32_t calls[FAMILIES];
    uint32_t hangs;               /* calls on this board wait until it is 0 */
    char uuid[40];
    char name[64];
};

struct state {
    uint32_t boards;
    uint32_t init_error;
    uint32_t init_hangs;
    uint32_t forgotten;           /* all calls answer NOT_INIT until the next init */
    uint32_t inits, shut_downs;
    struct board board[MOST_BOARDS];
};

static struct state *state;
static uint32_t generation, open_sessions;

int fakeamdsmi_attach(const char *path) {
    int file = open(path, O_RDWR);
    if (file < 0) return -1;
    void *place = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place == MAP_FAILED) return -1;
    state = place;
    open_sessions = 0;
    generation++;
    return (int)sizeof(struct state);
}

static int attached(void) {
    const char *path = getenv("FAKEAMDSMI_STATE");
    return state != NULL || (path != NULL && fakeamdsmi_attach(path) > 0);
}

static void *handle_of(uint32_t number) { return (void *)(((uintptr_t)generation << 16) | (number + 1)); }

/* The board of a handle, after its hang and its error of this family; NULL and *status if there is none. */
static struct board *entered(void *handle, enum family family, int *status) {
    *status = NOT_INIT;
    if (!attached() || open_sessions == 0 || state->forgotten) return NULL;
    uintptr_t value = (uintptr_t)handle, number = (value & 0xFFFF) - 1;
    *status = INVAL;
    if (value >> 16 != generation || number >= state->boards) return NULL;
    struct board *board = &state->board[number];
    __atomic_add_fetch(&board->calls[family], 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&board->hangs, __ATOMIC_RELAXED)) usleep(2000);
    *status = (int)board->errors[family];
    return *status == SUCCESS ? board : NULL;
}

int amdsmi_init(uint64_t flags) {
    (void)flags;
    if (!attached()) return 4;
    while (__atomic_load_n(&state->init_hangs, __ATOMIC_RELAXED)) usleep(2000);
    if (state->init_error) return (int)state->init_error;
    state->inits++;
    state->forgotten = 0;
    if (open_sessions++ == 0) generation++;
    return SUCCESS;
}

int amdsmi_shut_down(void) {
    if (!attached() || open_sessions == 0) return NOT_INIT;
    state->shut_downs++;
    open_sessions--;
    return SUCCESS;
}

/* One socket a board. */
int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
    if (!attached() || open_sessions == 0) return NOT_INIT;
    for (uint32_t n = 0; handles != NULL && n < *count && n < state->boards; n++) handles[n] = handle_of(n);
    *count = state->boards;
    return SUCCESS;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) {
    if (handles != NULL) handles[0] = socket;
    *count = 1;
    return SUCCESS;
}

int amdsmi_get_gpu_device_bdf(void *handle, uint64_t *bdf) {
    uintptr_t number = ((uintptr_t)handle & 0xFFFF) - 1;   /* known since init: neither hangs nor fails */
    if (!attached() || number >= state->boards) return INVAL;
    *bdf = state->board[number].address;
    return SUCCESS;
}

int amdsmi_get_gpu_device_uuid(void *handle, uint32_t *length, char *uuid) {
    int status;
    struct board *board = entered(handle, IDENTITY, &status);
    if (board) strncpy(uuid, board->uuid, *length);
    return status;
}

struct asic_info {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[256];
    uint32_t oam_id, compute_units;
    uint64_t target_graphics_version;
    uint32_t subsystem_id;
    uint32_t reserved[21];
};

int amdsmi_get_gpu_asic_info(void *handle, struct asic_info *info) {
    int status;
    struct board *board = entered(handle, IDENTITY, &status);
    if (!board) return status;
    memset(info, 0, sizeof *info);
    memcpy(info->market_name, board->name, sizeof board->name);
    info->vendor_id = 0x1002;
    info->device_id = board->device_id;
    strcpy(info->asic_serial, "0xABCD");
    return SUCCESS;
}

int amdsmi_get_energy_count(void *handle, uint64_t *accumulator, float *resolution, uint64_t *timestamp) {
    int status;
    struct board *board = entered(handle, ENERGY, &status);
    if (!board) return status;
    *accumulator = board->accumulator;
    *resolution = board->resolution;
    *timestamp = 0;
    return SUCCESS;
}

struct power_info {
    uint64_t socket_power;
    uint32_t current, average;
    uint64_t gfx_voltage, soc_voltage, mem_voltage;
    uint32_t power_limit;
    uint64_t reserved[18];
};

int amdsmi_get_power_info(void *handle, struct power_info *info) {
    int status;
    struct board *board = entered(handle, POWER, &status);
    if (!board) return status;
    memset(info, 0, sizeof *info);
    info->socket_power = board->socket_power;
    info->current = board->current_power;
    info->average = board->average_power;
    return SUCCESS;
}

int amdsmi_get_power_cap_info(void *handle, uint32_t sensor, uint64_t *info) {
    int status;
    struct board *board = entered(handle, LIMIT, &status);
    (void)sensor;
    if (!board) return status;
    memset(info, 0, 8 * sizeof *info);
    info[0] = board->limit;           /* power_cap, default_power_cap, dpm_cap, min_power_cap, max_power_cap */
    info[4] = board->highest_limit;
    return SUCCESS;
}

int amdsmi_get_gpu_activity(void *handle, uint32_t *info) {
    int status;
    struct board *board = entered(handle, ACTIVITY, &status);
    if (!board) return status;
    memset(info, 0, 16 * sizeof *info);
    info[0] = board->activity;
    return SUCCESS;
}

int amdsmi_get_gpu_memory_usage(void *handle, uint32_t type, uint64_t *used) {
    int status;
    struct board *board = entered(handle, MEMORY, &status);
    (void)type;
    if (board) *used = board->memory_used;
    return status;
}

int amdsmi_get_temp_metric(void *handle, uint32_t type, uint32_t metric, int64_t *degrees) {
    int status;
    struct board *board = entered(handle, TEMPERATURE, &status);
    (void)type, (void)metric;
    if (board) *degrees = board->temperature;
    return status;
}

struct proc_info {                    /* packed to one byte in the binding, and so without padding of its own */
    char name[256];
    uint32_t pid, padding;
    uint64_t mem;
    char usage[64 + 64];              /* engines, memory */
    char container_name[256];
    uint32_t cu_occupancy;
    uint32_t reserved[11];
};
_Static_assert(sizeof(struct proc_info) == 704, "the size that the binding has");

int amdsmi_get_gpu_process_list(void *handle, uint32_t *most, struct proc_info *list) {
    int status;
    struct board *board = entered(handle, PROCESSES, &status);
    if (!board) return status;
    if (*most < board->processes) return OUT_OF_RESOURCES;
    for (uint32_t n = 0; n < board->processes; n++) {
        memset(&list[n], 0, sizeof list[n]);
        strcpy(list[n].name, "train");
        list[n].pid = board->pids[n];
    }
    *most = board->processes;
    return SUCCESS;
}

#define REST(name) int name(void) { return NOT_SUPPORTED; }
#include "fakeamdsmi_rest.h"
