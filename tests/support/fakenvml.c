/* A fake libnvidia-ml.so.1: the part of NVML's C ABI that an energy exporter calls, through nvidia-ml-py as it is.
 *
 * Boards, their power traces and their faults stand in one memory-mapped file, named by $FAKENVML_STATE or given to
 * fakenvml_attach; the test writes it while another process, or this one, reads. Written from the documented signatures.
 * What it does after fork, or on a hang, is the strictest reading of the documentation, not an observation. */
#define _GNU_SOURCE
#include "fakenvml.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COUNT(counter) __atomic_add_fetch(&(counter), 1, __ATOMIC_RELAXED)
#define SECOND_NS 1000000000LL
#define HANDLE_MARK 0x4e56ULL

static state *S;
static int references;
static pid_t owner;
static uint32_t session_of_init;
static uint32_t generation = 1; /* part of each handle: those of an earlier one are stale */

/* ---- state and session ---- */

static int64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void wait_until(const int64_t *until_ns) {
  const struct timespec step = {0, 5000000};
  while (__atomic_load_n(until_ns, __ATOMIC_RELAXED) > now_ns(CLOCK_MONOTONIC)) nanosleep(&step, NULL);
}

/* Go on with another state file (NULL: none), uninitialised. The old mapping stays: a hung call may still look at it. */
int fakenvml_attach(const char *path) {
  references = 0;
  COUNT(generation);
  S = NULL;
  if (!path) return 0;
  int file = open(path, O_RDWR | O_CLOEXEC);
  struct stat about;
  if (file < 0) return -1;
  state *mapped = MAP_FAILED;
  if (!fstat(file, &about) && (size_t)about.st_size >= sizeof(state))
    mapped = mmap(NULL, sizeof(state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return -1;
  if (mapped->magic != MAGIC || mapped->size != sizeof(state)) {
    fprintf(stderr, "fakenvml: %s is not of this version (%zu bytes here)\n", path, sizeof(state));
    munmap(mapped, sizeof(state));
    return -1;
  }
  S = mapped;
  return 0;
}

/* Whether a call may go on at all. */
static nvmlReturn_t session(void) {
  if (!S || references <= 0 || owner != getpid() || session_of_init != S->session) return UNINITIALIZED;
  return S->session_code;
}

static nvmlReturn_t session_call(void) {
  if (!S) return UNINITIALIZED;
  COUNT(S->calls);
  COUNT(S->session_calls);
  wait_until(&S->hang_until_ns);
  return session();
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  const char *path = getenv("FAKENVML_STATE");
  if (!S && (!path || fakenvml_attach(path))) return DRIVER_NOT_LOADED;
  COUNT(S->inits);
  (void)session_call();
  if (S->init_code) return S->init_code;
  if (references > 0 && (owner != getpid() || session_of_init != S->session)) references = 0; /* forked, or ended */
  if (references == 0) {
    COUNT(generation);
    owner = getpid();
    session_of_init = S->session;
  }
  references++;
  return OK;
}
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
  nvmlReturn_t code = session_call();
  if (code == UNINITIALIZED) return code;
  if (--references == 0) COUNT(generation);
  return OK;
}

/* ---- handles ---- */

static nvmlDevice_t handle_of(unsigned slot, unsigned part) { /* part: 0 the board, 1.. its slices */
  return (nvmlDevice_t)(HANDLE_MARK << 48 | (uint64_t)generation << 16 | part << 8 | slot);
}

/* A look at one board, of a family: counted, then as slow or failing as the test wants it. */
static nvmlReturn_t look(board *at, int family) {
  COUNT(S->calls);
  COUNT(at->calls[family]);
  nvmlReturn_t code = session();
  if (code) return code;
  if (at->latency_us) usleep(at->latency_us);
  wait_until(&at->hang_until_ns);
  if ((code = session())) return code;
  if (at->gone) return at->gone;
  return at->error ? at->error : at->errors[family];
}

/* The board of a handle, and the slice if it is one's; every call on a handle begins here. */
static nvmlReturn_t enter(nvmlDevice_t handle, int family, board **at, mig_slice **part) {
  unsigned slot = handle & 0xff, number = handle >> 8 & 0xff;
  if (!S) return UNINITIALIZED;
  int known = handle >> 48 == HANDLE_MARK && (uint32_t)(handle >> 16) == generation && slot < MAX_BOARDS;
  if (!known) {
    COUNT(S->calls);
    nvmlReturn_t code = session();
    return code ? code : INVALID_ARGUMENT;
  }
  *at = &S->board[slot];
  nvmlReturn_t code = look(*at, family);
  if (code) return code;
  if (number > (*at)->slices) return INVALID_ARGUMENT; /* the slice was destroyed */
  *part = number ? &(*at)->slice[number - 1] : NULL;
  return OK;
}

#define ENTER(handle, family)                                       \
  board *at = NULL;                                                 \
  mig_slice *part = NULL;                                           \
  nvmlReturn_t entered = enter(handle, family, &at, &part);         \
  if (entered) return entered;                                      \
  (void)part
#define WHOLE_BOARD_ONLY() if (part) return NOT_SUPPORTED

static nvmlReturn_t text(char *into, unsigned size, const char *value) {
  if (strlen(value) + 1 > size) return INSUFFICIENT_SIZE;
  strcpy(into, value);
  return OK;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *into, unsigned size) {
  nvmlReturn_t code = session_call();
  return code ? code : text(into, size, S->driver);
}
nvmlReturn_t nvmlSystemGetNVMLVersion(char *into, unsigned size) {
  nvmlReturn_t code = session_call();
  return code ? code : text(into, size, "13.580.00");
}
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
  nvmlReturn_t code = session_call();
  if (!code) *count = S->boards;
  return code;
}

/* Looking a board up does not touch it, so it does not hang with it unless the test says so. */
static nvmlReturn_t look_up(unsigned slot, nvmlDevice_t *handle) {
  board *at = &S->board[slot];
  COUNT(S->calls);
  COUNT(at->calls[IDENTITY]);
  if (at->hang_lookups) wait_until(&at->hang_until_ns);
  nvmlReturn_t code = session();
  if (!code) code = at->gone;
  if (!code && at->error != RESET_REQUIRED) code = at->error; /* a board that wants a reset can still be found */
  if (!code) *handle = handle_of(slot, 0);
  return code;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *handle) {
  nvmlReturn_t code = session();
  if (code) return code;
  return index < S->boards ? look_up(S->order[index], handle) : INVALID_ARGUMENT;
}
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
  nvmlReturn_t code = session();
  if (code) return code;
  for (unsigned i = 0; i < S->boards; i++) {
    board *at = &S->board[S->order[i]];
    if (!strcmp(uuid, at->uuid)) return look_up(S->order[i], handle);
    for (unsigned j = 0; j < at->slices; j++)
      if (!strcmp(uuid, at->slice[j].uuid)) {
        code = look_up(S->order[i], handle);
        *handle = handle_of(S->order[i], j + 1);
        return code;
      }
  }
  return NOT_FOUND;
}

const char *nvmlErrorString(nvmlReturn_t code) { return code ? "Error" : "Success"; }

/* ---- identity ---- */

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *into, unsigned size) {
  ENTER(handle, IDENTITY);
  return text(into, size, part ? part->uuid : at->uuid);
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *into, unsigned size) {
  ENTER(handle, IDENTITY);
  return text(into, size, part ? part->name : at->name);
}
nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *into, unsigned size) {
  ENTER(handle, IDENTITY);
  return text(into, size, at->serial);
}
nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned *index) {
  ENTER(handle, IDENTITY);
  for (*index = 0; *index < S->boards; ++*index)
    if (&S->board[S->order[*index]] == at) return OK;
  return NOT_FOUND;
}
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t handle, unsigned *minor) {
  ENTER(handle, IDENTITY);
  *minor = at->minor;
  return OK;
}
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *info) {
  ENTER(handle, IDENTITY);
  memset(info, 0, sizeof *info);
  snprintf(info->busId, sizeof info->busId, "%.31s", at->bus_id);
  snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%.12s", at->bus_id + 4);
  sscanf(at->bus_id, "%x:%x:%x", &info->domain, &info->bus, &info->device);
  return OK;
}
nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t handle, unsigned *arch) {
  ENTER(handle, IDENTITY);
  *arch = at->arch;
  return OK;
}
nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t handle, unsigned *mode) {
  ENTER(handle, IDENTITY);
  *mode = at->compute_mode;
  return OK;
}
nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t handle, unsigned *cores) {
  ENTER(handle, IDENTITY);
  *cores = 128 * (part ? part->sm_count : at->sm_count);
  return OK;
}

/* ---- power and energy ---- */

static double energy_in(const segment *s, int64_t from, int64_t to) { /* millijoules */
  double total = 0;
  for (int end = 0; end < 2; end++) {
    int64_t seconds = (end ? to : from) - s->epoch_ns;
    int64_t whole = seconds / s->period_ns - (seconds % s->period_ns < 0), rest = seconds - whole * s->period_ns;
    int64_t high = whole * s->width_ns + (rest < s->width_ns ? rest : s->width_ns);
    total += (end ? 1 : -1) * (s->peak_mw * (double)high + s->base_mw * (double)(seconds - high));
  }
  return total / SECOND_NS;
}

static const segment *segment_at(const board *at, int64_t when) {
  unsigned newest = __atomic_load_n(&at->segments, __ATOMIC_ACQUIRE);
  unsigned oldest = newest > MAX_SEGMENTS ? newest - MAX_SEGMENTS : 0;
  while (newest > oldest + 1 && at->segment[(newest - 1) % MAX_SEGMENTS].start_ns > when) newest--;
  return &at->segment[(newest - 1) % MAX_SEGMENTS];
}

static double energy_until(const board *at, int64_t when) { /* millijoules since the first segment's start */
  const segment *s = segment_at(at, when);
  return s->joules_before_mj + energy_in(s, s->start_ns, when);
}

static double power_at(const board *at, int64_t when) {
  const segment *s = segment_at(at, when);
  int64_t rest = (when - s->epoch_ns) % s->period_ns;
  return (rest < 0 ? rest + s->period_ns : rest) < s->width_ns ? s->peak_mw : s->base_mw;
}

/* When the registers were last refreshed. */
static int64_t refreshed(const board *at) {
  int64_t now = now_ns(CLOCK_MONOTONIC), step = at->refresh_ms * 1000000LL, phase = at->refresh_phase_ms * 1000000LL;
  return step ? (now - phase) / step * step + phase : now;
}

static unsigned watts(const board *at, int averaged, int module) { /* milliwatts */
  if (at->power_is_fixed) return at->fixed_power_mw;
  int64_t when = refreshed(at);
  double mw = averaged ? energy_until(at, when) - energy_until(at, when - SECOND_NS) : power_at(at, when);
  return (unsigned)lrint(mw + (module ? at->module_extra_mw : 0));
}

static unsigned long long joules(const board *at, int module) { /* millijoules */
  if (at->counter_is_fixed) return at->fixed_counter_mj;
  int64_t when = refreshed(at);
  double mj = energy_until(at, when);
  if (module) mj += at->module_extra_mw * (double)(when - at->began_ns) / SECOND_NS;
  mj = at->counter_offset_mj + at->counter_scale * mj;
  return mj > 0 ? (unsigned long long)mj : 0;
}

static nvmlReturn_t counter(const board *at, int module, unsigned long long *mj) {
  if (at->no_counter || at->arch < 5) return NOT_SUPPORTED;
  if (at->errors[ENERGY]) return at->errors[ENERGY];
  *mj = joules(at, module);
  return OK;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, unsigned long long *mj) {
  ENTER(handle, ENERGY);
  WHOLE_BOARD_ONLY();
  return counter(at, (int)at->counter_of_module, mj);
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned *mw) {
  ENTER(handle, POWER);
  WHOLE_BOARD_ONLY();
  *mw = watts(at, (int)at->averaging, 0);
  return OK;
}
#define LIMIT_CALL(function, field)                          \
  nvmlReturn_t function(nvmlDevice_t handle, unsigned *mw) { \
    ENTER(handle, LIMIT);                                    \
    WHOLE_BOARD_ONLY();                                      \
    *mw = at->field;                                         \
    return OK;                                               \
  }
LIMIT_CALL(nvmlDeviceGetEnforcedPowerLimit, limit_mw)
LIMIT_CALL(nvmlDeviceGetPowerManagementLimit, limit_mw)
LIMIT_CALL(nvmlDeviceGetPowerManagementDefaultLimit, limit_default_mw)
nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t handle, unsigned *least, unsigned *most) {
  ENTER(handle, LIMIT);
  WHOLE_BOARD_ONLY();
  *least = at->limit_least_mw;
  *most = at->limit_most_mw;
  return OK;
}

static nvmlReturn_t limit_field(const board *at, unsigned mw, nvmlFieldValue_t *v) {
  v->valueType = 1;
  v->value.ui = mw;
  return at->errors[LIMIT];
}

static nvmlReturn_t field(const board *at, nvmlFieldValue_t *v) {
  int module = v->scopeId == 1, scoped = v->scopeId == 0 ? (int)at->gpu_scope : module && at->module_scope;
  for (int i = 0; i < MAX_LEFT_OUT; i++)
    if (v->fieldId && at->left_out[i] == v->fieldId) return NOT_SUPPORTED;
  switch (v->fieldId) {
    case 83: /* TOTAL_ENERGY_CONSUMPTION */
      v->valueType = 3;
      return counter(at, (int)at->counter_of_module, &v->value.ull);
    case 191: /* ENERGY */
      v->valueType = 3;
      return scoped ? counter(at, module, &v->value.ull) : NOT_SUPPORTED;
    case 185: /* POWER_AVERAGE: Ampere but GA100, and later */
    case 186: /* POWER_INSTANT */
      v->valueType = 1;
      if (!scoped || (v->fieldId == 185 && at->arch < 7)) return NOT_SUPPORTED;
      v->value.ui = watts(at, v->fieldId == 185, module);
      return at->errors[POWER];
    case 187: return limit_field(at, at->limit_least_mw, v);
    case 188: return limit_field(at, at->limit_most_mw, v);
    case 189: return limit_field(at, at->limit_default_mw, v);
    case 190: case 192: return limit_field(at, at->limit_mw, v);
    default: return NOT_SUPPORTED;
  }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *values) {
  ENTER(handle, FIELDS);
  int any = 0;
  for (int i = 0; i < count; i++) {
    values[i].timestamp = now_ns(CLOCK_REALTIME) / 1000;
    values[i].latencyUsec = 5;
    values[i].value.ull = 0;
    values[i].nvmlReturn = part ? NOT_SUPPORTED : field(at, &values[i]);
    if (values[i].nvmlReturn) values[i].value.ull = 0;
    any |= !values[i].nvmlReturn;
  }
  return any ? OK : NOT_SUPPORTED;
}

#include "fakenvml_use.c"
