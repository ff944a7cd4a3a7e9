"""The settings: every one once, with its name, default and what is accepted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from carbon_exporter.config import accepted
from carbon_exporter.config.setting import Setting, setting

__all__ = ["RELOADABLE", "Settings", "settings_table"]


_ABSOLUTE = "an absolute path"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `serve`, parsed and checked. Durations are in seconds."""

    listen: str = setting(
        "web.listen-address",
        ":12011",
        accepted.listen,
        "HOST:PORT, :PORT or unix:/PATH",
        "Where to serve /metrics and the page. Port 0 takes a free one. A socket of systemd's comes before it.",
    )
    web_config: Path | None = setting(
        "web.config.file",
        "",
        accepted.file,
        "a file as exporter-toolkit has it, or nothing",
        "TLS, client certificates, passwords, headers and a limit of requests. It and the certificates are read again "
        "when they change.",
    )
    health_listen: str = setting(
        "web.health-address",
        "",
        accepted.optional_listen,
        "HOST:PORT, :PORT, unix:/PATH or nothing",
        "Where to serve /-/healthy and /-/ready besides, always in the clear: for probes that have no certificate.",
    )
    procfs: Path = setting("path.procfs", "/proc", accepted.absolute, _ABSOLUTE, "Where the host's /proc is mounted.")
    sysfs: Path = setting("path.sysfs", "/sys", accepted.absolute, _ABSOLUTE, "Where the host's /sys is mounted.")
    devfs: Path = setting("path.devfs", "/dev", accepted.absolute, _ABSOLUTE, "Where the host's /dev is mounted.")
    storage: Path | Literal["auto"] | None = setting(
        "storage.path",
        "auto",
        accepted.storage,
        "an absolute path, auto, or nothing to keep totals in memory only",
        "Where totals are kept over restarts. auto: $STATE_DIRECTORY, else /var/lib/carbon-exporter if writable, "
        "else $XDG_STATE_HOME/carbon-exporter.",
    )
    interval: float = setting(
        "sample.interval", "5s", accepted.duration(0.1, 300.0), "a duration from 100ms to 5m", "Time between samples."
    )
    region: str = setting(
        "grid.region",
        "",
        accepted.region,
        "an ISO 3166 code such as FR or US-CA",
        "Where this machine's electricity comes from. Without it CARBON_REGION counts, then the time zone as a guess, "
        "then the world's average.",
        reloadable=True,
    )
    provider: str = setting(
        "grid.provider",
        "static",
        accepted.name,
        "the name of a provider: static",
        "Who says what a kilowatt-hour emits. static: the yearly tables that come with this program.",
        reloadable=True,
    )
    scope: Literal["lifecycle", "direct"] = setting(
        "grid.scope",
        "lifecycle",
        accepted.choice("lifecycle", "direct"),
        "lifecycle or direct",
        "Which emissions count: with fuel supply and plants, or of the stack only. The two are never mixed.",
        reloadable=True,
    )
    pue: float = setting(
        "site.pue",
        "1.0",
        accepted.number(1.0, 10.0),
        "a number from 1 to 10",
        "Power usage effectiveness of the site: facility energy over IT energy. Grams are multiplied by it.",
        reloadable=True,
    )
    idle: Literal["separate", "shared", "reserved"] = setting(
        "attribution.idle",
        "separate",
        accepted.choice("separate", "shared", "reserved"),
        "separate, shared or reserved",
        "Who pays for idle: the job _idle_, those who ran, or those for whom CPUs are kept.",
        reloadable=True,
    )
    remainder: str = setting(
        "attribution.remainder",
        "",
        accepted.source,
        "the name of a whole-node meter such as redfish, ipmi, cray or hwmon, or nothing",
        "Whole-node meter whose difference to the devices (fans, power supplies, boards) is charged to the jobs, as a "
        "device of kind other. Without it only carbon_node_* shows that meter.",
    )
    job_label: Literal["job_name", "job", "hpc_job"] = setting(
        "labels.job",
        "job_name",
        accepted.choice("job_name", "job", "hpc_job"),
        "job_name, job or hpc_job",
        "How the job's label is spelt. With job the scrape must honor labels.",
    )
    jobs_max: int = setting(
        "jobs.max",
        "64",
        accepted.count(1, 100_000),
        "a whole number from 1 to 100000",
        "Jobs published at a time; more are counted together as _overflow_.",
        reloadable=True,
    )
    jobs_linger: float = setting(
        "jobs.linger",
        "5m",
        accepted.duration(0.0, 86400.0),
        "a duration up to 1d",
        "How long an ended job stays published.",
        reloadable=True,
    )
    jobs_retain: float = setting(
        "jobs.retain",
        "1d",
        accepted.duration(0.0, 365 * 86400.0),
        "a duration up to 365d",
        "How long an ended job's totals are kept, in case it comes back.",
        reloadable=True,
    )
    series_max: int = setting(
        "series.max",
        "1500",
        accepted.count(100, 1_000_000),
        "a whole number from 100 to 1000000",
        "Series published at most: jobs are folded before a scrape's sample limit bites. Spans have a third of them, "
        "runs a sixth.",
        reloadable=True,
    )
    spans_max: int = setting(
        "spans.max",
        "32",
        accepted.count(1, 256),
        "a whole number from 1 to 256",
        "Different spans of one job and rank; more are counted together as _overflow_. 256 in all on a node.",
        reloadable=True,
    )
    runs_max: int = setting(
        "runs.max",
        "8",
        accepted.count(1, 256),
        "a whole number from 1 to 256",
        "Runs of one job that are published: the newest.",
        reloadable=True,
    )
    sdk_socket: Path | Literal["auto"] | None = setting(
        "sdk.socket",
        "auto",
        accepted.storage,
        "an absolute path, auto, or nothing for none",
        "The socket by which scripts hand over their spans and get the devices' energy. auto: "
        "/run/carbon-exporter/sdk.sock if that is or can be made writable, else below $XDG_RUNTIME_DIR.",
    )
    sdk_job_sockets: Path | None = setting(
        "sdk.job-sockets",
        "",
        accepted.optional_absolute,
        "an absolute path, or nothing",
        "A directory in which each sub-directory NAME or NAMESPACE:NAME gets a socket sdk.sock, all of whose peers are "
        "that job's: for containers whose processes the exporter cannot see.",
    )
    sdk_period: float = setting(
        "sdk.period",
        "100ms",
        accepted.duration(0.1, 60.0),
        "a duration from 100ms to 1m",
        "Time between two messages about the devices' energy to scripts that measure.",
    )
    naming: str = setting(
        "jobs.naming",
        "annotation,slurm,environment,labels,owner,pod,container,unit",
        accepted.words,
        "rules separated by commas: annotation, slurm, slurm-id, environment, otel, labels, owner, pod, container, "
        "unit",
        "How a job gets its name: the first rule that knows one. A rule that is left out is off.",
    )
    include: str = setting(
        "jobs.include",
        "",
        accepted.words,
        "patterns separated by commas, such as train-*, team-a/*",
        "Only these jobs are published by name; all if empty. The others are counted in _overflow_.",
    )
    exclude: str = setting(
        "jobs.exclude",
        "",
        accepted.words,
        "patterns separated by commas, such as train-*, team-a/*",
        "These jobs are not published by name; they are counted in _overflow_.",
    )
    user_key_file: Path | None = setting(
        "jobs.user-key-file",
        "",
        accepted.file,
        "a file with a secret of at least 16 characters, the same on all nodes",
        "With it users are shown as keyed hashes instead of names.",
    )
    pods: Literal["auto", "off"] = setting(
        "kubernetes.pods",
        "auto",
        accepted.choice("auto", "off"),
        "auto or off",
        "Whether to follow this node's pods at the API server, for their labels, annotations and owners. auto: in a "
        "cluster.",
    )
    node_name: str = setting(
        "kubernetes.node-name",
        "",
        accepted.node,
        "the node's name in the cluster",
        "Whose pods to follow. Without it NODE_NAME counts, which a pod is given from spec.nodeName.",
    )
    pod_resources: Path | None = setting(
        "kubernetes.pod-resources-socket",
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        accepted.optional_absolute,
        "an absolute path, or nothing",
        "The kubelet's socket that tells which pod was given which board.",
    )
    board_resources: str = setting(
        "kubernetes.board-resources",
        "",
        accepted.words,
        "patterns separated by commas, such as example.com/gpu*",
        "Further resources, or drivers of claims, that are boards.",
    )
    engine_sockets: str = setting(
        "containers.sockets",
        "auto",
        accepted.words,
        "absolute paths separated by commas, auto, or nothing",
        "Sockets of Docker and Podman that are asked for names of containers. auto: where they are by default.",
    )
    mapping_directory: Path | None = setting(
        "slurm.mapping-directory",
        "",
        accepted.optional_absolute,
        "an absolute path, or nothing",
        "Where a prolog writes which job holds which board, as for dcgm-exporter's --hpc-job-mapping-dir.",
    )
    redfish_url: str = setting(
        "redfish.url",
        "",
        accepted.controller_url,
        "https://HOST[:PORT] without user or password (http:// to localhost only), or nothing",
        "The machine's own management controller (BMC), asked by Redfish what the whole machine draws.",
    )
    redfish_username: str = setting(
        "redfish.username", "", str, "an account's name", "Its account, which needs only the role ReadOnly."
    )
    redfish_password_file: Path | None = setting(
        "redfish.password-file",
        "",
        accepted.file,
        "a file that holds the password and nothing else",
        "Read at each login, so that a new password needs no restart.",
    )
    redfish_ca_file: Path | None = setting(
        "redfish.ca-file",
        "",
        accepted.file,
        "a file of certificates in PEM",
        "Certificates to trust instead of the system's.",
    )
    redfish_insecure: bool = setting(
        "redfish.insecure-skip-verify",
        "false",
        accepted.switch,
        "true or false",
        "Do not check the controller's certificate.",
    )
    redfish_authentication: Literal["session", "basic"] = setting(
        "redfish.authentication",
        "session",
        accepted.choice("session", "basic"),
        "session or basic",
        "How to log in: once, or with each request, for controllers without sessions.",
    )
    replay: Path | None = setting(
        "replay.file",
        "",
        accepted.file,
        "a file of recorded readings",
        "Play recorded readings instead of this machine's.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "log.level",
        "info",
        accepted.choice("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "The least severe messages to log.",
        reloadable=True,
    )
    log_format: Literal["logfmt", "json"] = setting(
        "log.format", "logfmt", accepted.choice("logfmt", "json"), "logfmt or json", "How log lines look."
    )


def settings_table() -> dict[str, Setting]:
    """All settings by the field of `Settings` that holds them."""
    return {field.name: cast("Setting", field.metadata["setting"]) for field in dataclasses.fields(Settings)}


RELOADABLE = frozenset(name for name, setting in settings_table().items() if setting.reloadable)
"""Fields that SIGHUP applies."""
