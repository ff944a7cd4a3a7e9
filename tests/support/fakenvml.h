/* The state of the fake NVML, as the test writes it, and the structures of the NVML ABI that the fake fills in.
 *
 * tests/support/fakenvml.py mirrors the state field by field; its size stands in the file, so that a mirror that is out
 * of step is refused. All times are nanoseconds of CLOCK_MONOTONIC. */
#ifndef FAKENVML_H
#define FAKENVML_H

#include <stddef.h>
#include <stdint.h>

#define MAGIC 0x464e564dU
#define MAX_BOARDS 80
#define MAX_PROCESSES 32
#define MAX_SLICES 8
#define MAX_SEGMENTS 16
#define MAX_LEFT_OUT 16
#define NO_INSTANCE 0xffffffffU

typedef int nvmlReturn_t;
enum {
  OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9, RESET_REQUIRED = 16, ARGUMENT_VERSION_MISMATCH = 25
};

/* Families of functions: calls are counted and errors are given by family. */
enum {
  IDENTITY, FIELDS, ENERGY, POWER, LIMIT, PROCESSES, SAMPLES, RATES, MEMORY, TEMPERATURE, MIG, GPM, SESSION, FAMILIES
};

/* From start_ns on the board draws peak_mw for width_ns of each period (which begins at epoch_ns), else base_mw. */
typedef struct {
  int64_t start_ns, epoch_ns, width_ns, period_ns;
  double base_mw, peak_mw, joules_before_mj; /* the energy of all earlier segments */
} segment;

typedef struct {
  uint32_t pid, sm, mem, lists, gi, ci; /* lists: 1 compute, 2 graphics, 4 MPS */
  uint64_t used;                        /* all ones: not available */
} process;

typedef struct {
  char uuid[96], name[96];
  uint32_t gi, ci, gi_slices, ci_slices, sm_count, pad;
  uint64_t memory, used;
  double busy; /* percent, as GPM has it */
} mig_slice;

typedef struct {
  char uuid[96], name[96], serial[32], bus_id[32];
  uint32_t arch, minor, temperature, gpu_rate, memory_rate, sm_count, compute_mode, gpm;
  uint32_t limit_mw, limit_least_mw, limit_most_mw, limit_default_mw;
  uint64_t memory, used;
  double busy;
  uint32_t segments, averaging, refresh_ms, refresh_phase_ms;
  segment segment[MAX_SEGMENTS];
  uint32_t no_counter, counter_is_fixed, power_is_fixed, fixed_power_mw;
  uint64_t fixed_counter_mj;
  double counter_offset_mj, counter_scale, module_extra_mw;
  uint32_t gpu_scope, module_scope, counter_of_module, samples_ms;
  int32_t no_samples_code, gone;
  uint32_t left_out[MAX_LEFT_OUT]; /* ids of fields that this board does not know */
  int32_t error, errors[FAMILIES];
  uint32_t latency_us, hang_lookups, pad;
  int64_t hang_until_ns, began_ns;
  uint32_t mig_mode, slices, processes, pad2;
  mig_slice slice[MAX_SLICES];
  process process[MAX_PROCESSES];
  uint64_t calls[FAMILIES];
} board;

typedef struct {
  uint32_t magic, size, boards, session;      /* session: another number ends all sessions that there are */
  int32_t init_code, session_code;
  int64_t hang_until_ns;                      /* of the session's own calls: nvmlInit, nvmlDeviceGetCount */
  uint64_t calls, inits, session_calls;
  char driver[80];
  uint32_t order[MAX_BOARDS];                 /* which boards have an index, by index */
  board board[MAX_BOARDS];
} state;

/* Structures of NVML, LP64. */
typedef uintptr_t nvmlDevice_t; /* opaque to callers: here a number, so that a stale one can be told and never crashes */
typedef struct {
  char busIdLegacy[16];
  unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
  char busId[32];
} nvmlPciInfo_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned pid; unsigned long long usedGpuMemory; unsigned gpuInstanceId, computeInstanceId; } nvmlProcessInfo_t;
typedef struct {
  unsigned pid;
  unsigned long long timeStamp;
  unsigned smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;
typedef union { double d; unsigned ui; unsigned long long ull; } nvmlValue_t;
typedef struct {
  unsigned fieldId, scopeId;
  long long timestamp, latencyUsec;
  int valueType;
  nvmlReturn_t nvmlReturn;
  nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct { unsigned version, sensorType; int temperature; } nvmlTemperature_v1_t;
typedef struct {
  unsigned multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount,
      sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount;
  unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;
typedef struct {
  unsigned id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount, decoderCount, encoderCount,
      jpegCount, ofaCount;
  unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;
typedef struct { board *board; mig_slice *slice; int64_t at_ns; } gpm_sample;
typedef struct { unsigned metricId; nvmlReturn_t nvmlReturn; double value; const char *info[3]; } nvmlGpmMetric_t;
typedef struct {
  unsigned version, numMetrics;
  gpm_sample *sample1, *sample2;
  nvmlGpmMetric_t metrics[];
} nvmlGpmMetricsGet_t;
typedef struct { unsigned version, isSupportedDevice; } nvmlGpmSupport_t;

_Static_assert(sizeof(nvmlPciInfo_t) == 68, "");
_Static_assert(sizeof(nvmlMemory_t) == 24, "");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "");
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "");
_Static_assert(sizeof(nvmlProcessUtilizationSample_t) == 32, "");
_Static_assert(sizeof(nvmlFieldValue_t) == 40, "");
_Static_assert(offsetof(nvmlFieldValue_t, value) == 32, "");
_Static_assert(sizeof(nvmlTemperature_v1_t) == 12, "");
_Static_assert(sizeof(nvmlDeviceAttributes_t) == 40, "");
_Static_assert(sizeof(nvmlGpuInstanceProfileInfo_t) == 48, "");
_Static_assert(sizeof(nvmlGpmMetric_t) == 40, "");

#endif
