"""The block `co2_eq_emissions` of a Hugging Face model card's metadata: emissions in grams, and how they were got."""

from __future__ import annotations

from carbon_exporter.report.facts import Facts

__all__ = ["TRAINING_TYPES", "as_model_card"]

TRAINING_TYPES = ("pre-training", "fine-tuning")


def as_model_card(facts: Facts, training_type: str = "") -> str:
    """YAML for the front matter of a README.md; `training_type` is what no series tells, empty to leave it out."""
    import yaml  # noqa: PLC0415 - of this format alone

    block = {
        "emissions": float(f"{facts.co2e_grams:.6g}"),
        "source": _source(facts),
        **({"training_type": training_type} if training_type else {}),
        "geographical_location": ", ".join(one.name or one.region or "unknown" for one in facts.regions),
        "hardware_used": _hardware(facts),
    }
    return str(yaml.safe_dump({"co2_eq_emissions": block}, sort_keys=False, allow_unicode=True, width=10_000))


def _source(facts: Facts) -> str:
    best = ", ".join(f"{100 * one.share:.0f} % {one.quality}" for one in facts.qualities)
    scopes = sorted({price.scope for one in facts.regions for price in one.prices if price.scope})
    parts = [f"energy {best}" if best else "", f"{' and '.join(scopes)} grid intensity" if scopes else ""]
    return f"carbon-exporter {facts.version}: {', '.join(filter(None, [*parts, 'PUE included']))}"


def _hardware(facts: Facts) -> str:
    named = [f"{one.count} x {one.title}" for one in facts.devices if one.kind != "dram"]
    return ", ".join(dict.fromkeys(named)) or "unknown"
