"""Go's names of cipher suites and curves, which the web configuration uses, as OpenSSL calls them."""

from __future__ import annotations

__all__ = ["CIPHERS", "CIPHERS_OF_TLS13", "CURVES"]

CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
"""Of TLS 1.2: those of Go's tls.CipherSuites(), which leaves out what is insecure."""

CIPHERS_OF_TLS13 = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""Accepted and without effect, as in Go: in TLS 1.3 all three are always on."""

CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}
"""Python's ssl can choose one of these; of X25519 it knows nothing, though OpenSSL uses it by default."""
