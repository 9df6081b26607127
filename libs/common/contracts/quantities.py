"""Kubernetes resource quantities, the subset the API accepts.

Source of the notation: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

_CPU = re.compile(r"^([0-9]{1,9})m$|^([0-9]{1,6}(?:\.[0-9]{1,3})?)$")
_BYTES = re.compile(r"^([0-9]{1,12}(?:\.[0-9]{1,3})?)(Ki|Mi|Gi|Ti)$")
_FACTORS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def cpu_millis(quantity: str) -> int:
    """Thousandths of a core: "500m" is 500, "1" and "1.0" are 1000. Raises ValueError."""
    match = _CPU.fullmatch(quantity)
    if match is None:
        raise ValueError("CPU must be in millicores (e.g. '500m') or cores (e.g. '1' or '0.5')")
    millis = int(match[1]) if match[1] is not None else round(float(match[2]) * 1000)
    if millis <= 0:
        raise ValueError("CPU must be more than zero")
    return millis


def byte_count(quantity: str) -> int:
    """Bytes: "1Gi" is 1073741824. Raises ValueError."""
    match = _BYTES.fullmatch(quantity)
    if match is None:
        raise ValueError("Memory and storage must be a number ending with Ki, Mi, Gi or Ti (e.g. '512Mi')")
    count = int(float(match[1]) * _FACTORS[match[2]])
    if count <= 0:
        raise ValueError("Memory and storage must be more than zero")
    return count
