"""The web configuration: what other exporters' files say is understood, and what cannot be is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.web_config import RateLimit, WebConfig, read_web_config

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config: {cert_file: a.crt, key_file: a.key"


def read(directory: Path, text: str) -> WebConfig:
    file = directory / "web-config.yml"
    file.write_text(text)
    return read_web_config(file)


@pytest.mark.parametrize("text", ["", "{}", "tls_server_config:\nbasic_auth_users: {}\nhttp_server_config:\n"])
def test_an_empty_file_changes_nothing(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == WebConfig()


def test_the_toolkits_own_keys_are_understood_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        f"""
tls_server_config:
  cert_file: server.crt
  key_file: /etc/keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca/clients.crt
  client_allowed_sans: [prometheus.example, 10.0.0.7]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers: {{Strict-Transport-Security: max-age=31536000, X-Frame-Options: deny, X-XSS-Protection: ""}}
basic_auth_users:
  prometheus: {HASH}
rate_limit: {{interval: 100ms, burst: 20}}
""",
    )
    assert config.tls is not None
    assert config.tls.files == (tmp_path / "server.crt", Path("/etc/keys/server.key"), tmp_path / "ca/clients.crt")
    assert config.tls.client_allowed_sans == ("prometheus.example", "10.0.0.7")
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert config.users == {"prometheus": HASH.encode()}
    assert config.rate_limit == RateLimit(0.1, 20)
    assert config.http2


@pytest.mark.parametrize(
    ("text", "key", "accepted"),
    [
        ("tls_server_confg: {}", "tls_server_confg", "nearest: tls_server_config"),
        (f"{TLS}, certfile: b}}", "tls_server_config.certfile", "nearest: cert_file"),
        ("tls_server_config: {cert_file: a.crt}", "tls_server_config.key_file", "needs cert_file and key_file"),
        ("tls_server_config: {client_auth_type: NoClientCert}", "tls_server_config.cert_file", "needs cert_file"),
        (f"{TLS}, cert: PEM}}", "tls_server_config.cert", "name one with cert_file"),
        (f"{TLS}, key: PEM}}", "tls_server_config.key", "name one with key_file"),
        ("tls_server_config: {cert_file: 7, key_file: a.key}", "tls_server_config.cert_file", "a path"),
        (f"{TLS}, min_version: TLS10}}", "tls_server_config.min_version", "TLS12 or TLS13"),
        (f"{TLS}, min_version: TLS13, max_version: TLS12}}", "tls_server_config.min_version", "not above max_version"),
        (f"{TLS}, client_auth_type: Maybe}}", "tls_server_config.client_auth_type", "RequireAndVerifyClientCert"),
        (
            f"{TLS}, client_auth_type: RequireAnyClientCert, client_ca_file: c}}",
            "tls_server_config.client_auth_type",
            "cannot demand a certificate without verifying it",
        ),
        (f"{TLS}, client_ca_file: c}}", "tls_server_config.client_ca_file", "only with client_auth_type"),
        (
            f"{TLS}, client_auth_type: RequireAndVerifyClientCert}}",
            "tls_server_config.client_auth_type",
            "together with client_ca_file",
        ),
        (
            f"{TLS}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: c, client_allowed_sans: [x]}}",
            "tls_server_config.client_allowed_sans",
            "only with client_auth_type RequireAndVerifyClientCert",
        ),
        (f"{TLS}, cipher_suites: [RC4]}}", "tls_server_config.cipher_suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        (f"{TLS}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}", "tls_server_config.cipher_suites", "one of TLS 1.2"),
        (f"{TLS}, curve_preferences: [X25519]}}", "tls_server_config.curve_preferences", "Python's ssl can choose one"),
        (f"{TLS}, curve_preferences: [CurveP256, CurveP384]}}", "tls_server_config.curve_preferences", "choose one"),
        (f"{TLS}, prefer_server_cipher_suites: 1}}", "tls_server_config.prefer_server_cipher_suites", "true or false"),
        ("http_server_config: {http2: maybe}", "http_server_config.http2", "true or false"),
        ("http_server_config: {headers: {Server: x}}", "http_server_config.headers.Server", "no such key"),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}",
            "http_server_config.headers.X-Frame-Options",
            "deny or sameorigin",
        ),
        (
            'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie: b"}}',
            "http_server_config.headers.Content-Security-Policy",
            "printable ASCII",
        ),
        (
            "http_server_config: {headers: {X-XSS-Protection: '0 '}}",
            "http_server_config.headers.X-XSS-Protection",
            "no space at its ends",
        ),
        ("basic_auth_users: [prometheus]", "basic_auth_users", "a mapping"),
        ("basic_auth_users: {a: hunter2}", "basic_auth_users.a", "a bcrypt hash"),
        (f"basic_auth_users: {{'a:b': {HASH}}}", "basic_auth_users.a:b", "no colon"),
        (f"basic_auth_users: {{a: {HASH.replace('$10$', '$31$')}}}", "basic_auth_users.a", "cost 4 to 18"),
        (f"basic_auth_users: {{a: {HASH[:28]}v{HASH[29:]}}}", "basic_auth_users.a", "a bcrypt hash"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst", "at least 1"),
        ("rate_limit: {interval: soon, burst: 1}", "rate_limit.interval", "a duration"),
        ("[]", "(whole file)", "a mapping"),
        ("a: b: c", "(whole file)", "YAML"),
        ("rate_limit: {interval: 2024-99-99}", "(whole file)", "YAML"),
        ("rate_limit: {interval: 1s, burst: 1, burst: 2}", "(whole file)", "no key stands twice"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key_and_what_is_accepted(
    text: str, key: str, accepted: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert (caught.value.where, caught.value.key) == (str(tmp_path / "web-config.yml"), key)
    assert accepted in caught.value.accepted


@pytest.mark.parametrize(
    "text",
    ["basic_auth_users: {a: SECRET}", "SECRET: [", "tls_server_config: {cert_file: a, key_file: b, key: SECRET}"],
)
def test_no_error_shows_what_may_be_a_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text.replace("SECRET", "hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        read_web_config(tmp_path / "none.yml")
    assert caught.value.key == "web.config.file"


def test_the_example_is_one_that_can_be_used() -> None:
    config = read_web_config(Path(__file__).parents[2] / "examples/web-config.yml")
    assert config.tls is not None
    assert list(config.users) == ["prometheus"]
