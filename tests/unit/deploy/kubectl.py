"""A cluster behind the command line of kubectl, as much of it as the scripts of deploy/scripts use.

Its state is the JSON file $KUBECTL_STATE; every call is noted in it. What it does not
know ends it with an error.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

State = dict[str, Any]


def main(arguments: list[str], state: State) -> int:
    """One call; the exit status."""
    state["calls"].append(arguments)
    if arguments[0] == "kustomize":
        return subprocess.run([*state["kustomize"], *arguments[1:]], check=False).returncode
    words = [word for word in arguments if word not in ("--namespace", "devpocket")]
    match words:
        case ["apply", "--kustomize", *_] | ["config", "current-context"]:
            state["namespace"] = True
        case ["exec", "--stdin", "mongodb-0", "--", *_]:
            if not state["mongodb"]:
                return refuse("pods mongodb-0 not found")
            state["mongodb"] = sys.stdin.read().rstrip("\n")
        case ["get", "namespace"]:
            return 0 if state["namespace"] else refuse('namespaces "devpocket" not found')
        case ["get", "secret", "devpocket-secrets", *options]:
            return get_secret(state, options)
        case ["apply", "--server-side", *_]:
            state["secret"] = parsed(sys.stdin.read())[0]["data"]
        case ["apply", "--dry-run=server", *_]:
            return refuse("admission webhook denied the request") if state["refuses"] else 0
        case ["apply", "--filename", file, "--selector", selector]:
            apply(state, file, selector)
        case ["get", "deployments", *_]:
            for name, deployment in state["deployments"].items():
                say(f"{name} {len(deployment['templates'])}")
        case ["get", "pods", *_]:
            say("  web-1: ImagePullBackOff no such image" if ".state.waiting" in words[-1] else "web-1")
        case ["logs", *_]:
            say("the last words")
        case ["get", workload, "--ignore-not-found", *_]:
            say(workload if exists(state, workload) else "")
        case ["rollout", "restart", workload]:
            state["restarted"].append(workload)
        case ["rollout", "status", workload, *_]:
            return 0 if works(state, workload) else refuse("exceeded its progress deadline")
        case ["rollout", "undo", workload, revision]:
            templates = state["deployments"][workload.partition("/")[2]]["templates"]
            templates.append(templates[int(revision.partition("=")[2]) - 1])
        case _:
            return refuse(f"the stand-in does not know {words}")
    return 0


def parsed(text: str) -> list[State]:
    """The objects of a file. Scripts call this program dozens of times, and few of the calls need a parser."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(text, Loader=loader))  # type: ignore[no-untyped-call]


def say(text: str) -> None:
    """A line of the answer."""
    sys.stdout.write(f"{text}\n")


def refuse(text: str) -> int:
    """An error as kubectl has it."""
    sys.stderr.write(f"error: {text}\n")
    return 1


def get_secret(state: State, options: list[str]) -> int:
    """By one of the two templates that the scripts use: with values, or names alone."""
    if state["secret"] is None:
        return 0 if "--ignore-not-found" in options else refuse('secrets "devpocket-secrets" not found')
    with_values = "{{$value}}" in options[-1]
    for name, value in state["secret"].items():
        sys.stdout.write(f"{name} {value}\n" if with_values else f"{name} ")
    return 0


def selected(item: State, selector: str) -> bool:
    """By one of the two selectors that the script uses: all but what it names, or one Deployment."""
    labels = item["metadata"].get("labels", {})
    rolled_out = labels.get("app.kubernetes.io/component") in ("service", "gateway")
    if selector == "app.kubernetes.io/component notin (service, gateway)":
        return not rolled_out
    return rolled_out and selector.endswith(f", app.kubernetes.io/name={labels['app.kubernetes.io/name']}")


def apply(state: State, file: str, selector: str) -> None:
    """Deployments get a revision when their image is another one."""
    for item in parsed(Path(file).read_text()):
        name = item["metadata"]["name"]
        if not selected(item, selector):
            continue
        if item["kind"] == "StatefulSet":
            state["statefulsets"].append(name)
        if item["kind"] == "Deployment":
            image = item["spec"]["template"]["spec"]["containers"][0]["image"]
            templates = state["deployments"].setdefault(name, {"templates": []})["templates"]
            if templates[-1:] != [image]:
                templates.append(image)


def exists(state: State, workload: str) -> bool:
    """Whether it was applied."""
    kind, _, name = workload.partition("/")
    return name in state["deployments"] if kind == "deployment" else name in state["statefulsets"]


def works(state: State, workload: str) -> bool:
    """Whether it comes up: `broken` names images of Deployments, and StatefulSets."""
    kind, _, name = workload.partition("/")
    runs = name if kind == "statefulset" else state["deployments"][name]["templates"][-1]
    return runs not in state["broken"]


def decoded(state: State) -> dict[str, str]:
    """What is in the Secret."""
    return {name: base64.b64decode(value).decode() for name, value in (state["secret"] or {}).items()}


if __name__ == "__main__":
    place = Path(os.environ["KUBECTL_STATE"])
    cluster = json.loads(place.read_text())
    status = main(sys.argv[1:], cluster)
    place.write_text(json.dumps(cluster))
    sys.exit(status)
