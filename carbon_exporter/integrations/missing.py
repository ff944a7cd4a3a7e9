"""One clear error where the program that an integration is for is not installed."""

from __future__ import annotations

__all__ = ["missing"]


def missing(module: str, package: str, error: ImportError) -> ImportError:
    """What to raise from `error`: which `module` of ours needs which `package` of pip, and how to get it.

    except ImportError as error:
        raise missing(__name__, "lightning", error) from error
    """
    return ImportError(f"{module} needs {package} ({error}): pip install {package}", name=package)
