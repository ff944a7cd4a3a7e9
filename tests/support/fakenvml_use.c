/* The second half of fakenvml.c, which includes it: who uses a board, how busy it is, and how it is divided. */

/* ---- use ---- */

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *rates) {
  ENTER(handle, RATES);
  if (part || at->mig_mode) return NOT_SUPPORTED;
  *rates = (nvmlUtilization_t){at->gpu_rate, at->memory_rate};
  return OK;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
  ENTER(handle, MEMORY);
  uint64_t total = part ? part->memory : at->memory, used = part ? part->used : at->used;
  *memory = (nvmlMemory_t){total, total - used, used};
  return OK;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
  ENTER(handle, MEMORY);
  uint64_t total = part ? part->memory : at->memory, used = part ? part->used : at->used;
  if (memory->version != (sizeof *memory | 2U << 24)) return ARGUMENT_VERSION_MISMATCH;
  *memory = (nvmlMemory_v2_t){memory->version, total, 0, total - used, used};
  return OK;
}
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned sensor, unsigned *celsius) {
  ENTER(handle, TEMPERATURE);
  WHOLE_BOARD_ONLY();
  if (sensor) return INVALID_ARGUMENT;
  *celsius = at->temperature;
  return OK;
}
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, nvmlTemperature_v1_t *temperature) {
  ENTER(handle, TEMPERATURE);
  WHOLE_BOARD_ONLY();
  if (temperature->version != (sizeof *temperature | 1U << 24)) return ARGUMENT_VERSION_MISMATCH;
  temperature->temperature = (int)at->temperature;
  return OK;
}

/* ---- processes ---- */

static nvmlReturn_t list(nvmlDevice_t handle, unsigned which, unsigned *count, nvmlProcessInfo_t *into) {
  ENTER(handle, PROCESSES);
  unsigned room = *count, found = 0;
  for (unsigned i = 0; i < at->processes; i++) {
    const process *p = &at->process[i];
    if (!(p->lists & which) || (part && (p->gi != part->gi || p->ci != part->ci))) continue;
    if (into && found < room) into[found] = (nvmlProcessInfo_t){p->pid, p->used, p->gi, p->ci};
    found++;
  }
  *count = found;
  return found > (into ? room : 0) ? INSUFFICIENT_SIZE : OK;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *into) {
  return list(handle, 1, count, into);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *into) {
  return list(handle, 2, count, into);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *into) {
  return list(handle, 4, count, into);
}

/* One sample for each process that computed, taken every samples_ms; none that the caller has seen. */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t handle, nvmlProcessUtilizationSample_t *into, unsigned *count,
                                             unsigned long long last_seen) {
  ENTER(handle, SAMPLES);
  if (part || at->mig_mode || at->arch < 3) return NOT_SUPPORTED;
  unsigned long long now = (unsigned long long)now_ns(CLOCK_REALTIME) / 1000, step = at->samples_ms * 1000ULL;
  unsigned long long taken = step ? now / step * step : now;
  unsigned room = *count, found = 0;
  for (unsigned i = 0; taken > last_seen && i < at->processes; i++) {
    const process *p = &at->process[i];
    if (!p->sm && !p->mem) continue;
    if (into && found < room) into[found] = (nvmlProcessUtilizationSample_t){p->pid, taken, p->sm, p->mem, 0, 0};
    found++;
  }
  *count = found;
  if (!found) return at->no_samples_code;
  return found > (into ? room : 0) ? INSUFFICIENT_SIZE : OK;
}

/* ---- division in hardware ---- */

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *now, unsigned *pending) {
  ENTER(handle, MIG);
  if (part || at->arch < 7) return NOT_SUPPORTED;
  *now = *pending = at->mig_mode;
  return OK;
}
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned *count) {
  ENTER(handle, MIG);
  *count = at->arch < 7 ? 0 : 7;
  return OK;
}
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned index, nvmlDevice_t *slice) {
  ENTER(handle, MIG);
  if (part || !at->mig_mode) return NOT_SUPPORTED;
  if (index >= at->slices) return NOT_FOUND;
  *slice = handle_of((unsigned)(at - S->board), index + 1);
  return OK;
}
nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned *is_slice) {
  ENTER(handle, MIG);
  *is_slice = part != NULL;
  return OK;
}
nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle, nvmlDevice_t *parent) {
  ENTER(handle, MIG);
  if (!part) return INVALID_ARGUMENT;
  *parent = handle_of((unsigned)(at - S->board), 0);
  return OK;
}
nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned *id) {
  ENTER(handle, MIG);
  if (!part) return INVALID_ARGUMENT;
  *id = part->gi;
  return OK;
}
nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned *id) {
  ENTER(handle, MIG);
  if (!part) return INVALID_ARGUMENT;
  *id = part->ci;
  return OK;
}
nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, nvmlDeviceAttributes_t *attributes) {
  ENTER(handle, MIG);
  if (!part) return NOT_SUPPORTED;
  *attributes = (nvmlDeviceAttributes_t){.multiprocessorCount = part->sm_count,
                                         .gpuInstanceSliceCount = part->gi_slices,
                                         .computeInstanceSliceCount = part->ci_slices,
                                         .memorySizeMB = part->memory >> 20};
  return OK;
}

/* Profiles of 1, 2, 3, 4, 7, 8 and 6 slices; the largest that this board has, of 7 slices, is the whole of it. */
nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t handle, unsigned profile, nvmlGpuInstanceProfileInfo_t *info) {
  static const unsigned sizes[] = {1, 2, 3, 4, 7, 0, 0};
  ENTER(handle, MIG);
  unsigned slices = profile < sizeof sizes / sizeof *sizes ? sizes[profile] : 0;
  if (part || at->arch < 7 || !at->mig_mode || !slices) return NOT_SUPPORTED;
  *info = (nvmlGpuInstanceProfileInfo_t){.id = profile, .sliceCount = slices, .instanceCount = 7 / slices,
                                         .multiprocessorCount = slices == 7 ? at->sm_count : slices * (at->sm_count / 8),
                                         .memorySizeMB = (at->memory >> 20) * slices / (slices == 7 ? 7 : 8)};
  return OK;
}

/* ---- GPM: how busy a board or a slice was between two samples ---- */

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t handle, nvmlGpmSupport_t *support) {
  ENTER(handle, GPM);
  if (support->version != 1) return ARGUMENT_VERSION_MISMATCH;
  support->isSupportedDevice = at->gpm;
  return OK;
}
nvmlReturn_t nvmlGpmSampleAlloc(gpm_sample **sample) {
  nvmlReturn_t code = session_call();
  if (!code) *sample = calloc(1, sizeof **sample);
  return code;
}
nvmlReturn_t nvmlGpmSampleFree(gpm_sample *sample) {
  free(sample);
  return OK;
}
nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t handle, gpm_sample *sample) {
  ENTER(handle, GPM);
  if (part || !at->gpm || at->mig_mode) return NOT_SUPPORTED;
  *sample = (gpm_sample){at, NULL, now_ns(CLOCK_MONOTONIC)};
  return OK;
}
nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t handle, unsigned gi, gpm_sample *sample) {
  ENTER(handle, GPM);
  if (part || !at->gpm) return NOT_SUPPORTED;
  for (unsigned i = 0; i < at->slices; i++)
    if (at->slice[i].gi == gi) {
      *sample = (gpm_sample){at, &at->slice[i], now_ns(CLOCK_MONOTONIC)};
      return OK;
    }
  return INVALID_ARGUMENT;
}
nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get) {
  nvmlReturn_t code = session_call();
  if (code) return code;
  if (get->version != 1) return ARGUMENT_VERSION_MISMATCH;
  const gpm_sample *first = get->sample1, *last = get->sample2;
  if (!first || !last || !first->at_ns || first->board != last->board || first->slice != last->slice ||
      first->at_ns >= last->at_ns)
    return INVALID_ARGUMENT;
  for (unsigned i = 0; i < get->numMetrics; i++) {
    nvmlGpmMetric_t *metric = &get->metrics[i];
    metric->nvmlReturn = metric->metricId == 2 ? OK : NOT_SUPPORTED; /* SM_UTIL */
    metric->value = last->slice ? last->slice->busy : last->board->busy;
  }
  return OK;
}
