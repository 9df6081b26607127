"""The verbs on objects, as the API server's registry has them: create, update, patch, delete."""

from __future__ import annotations

import copy
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.kube.admission import Admission
from tests.fakes.kube.defaults import apply_defaults, prepare_create
from tests.fakes.kube.errors import (
    StatusError,
    already_exists,
    bad_request,
    conflict,
    details_of,
    internal,
    not_found,
)
from tests.fakes.kube.patches import APPLY, apply_patch
from tests.fakes.kube.resources import NAMESPACES, PODS, SECRETS, Resource
from tests.fakes.kube.rules import validate_update
from tests.fakes.kube.schema import check
from tests.fakes.kube.store import Store

Obj = dict[str, Any]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName")


class Api:
    """Everything a request can do to objects. All of it happens in one step, without awaiting."""

    def __init__(self, store: Store, admission: Admission, names: random.Random) -> None:
        self._store = store
        self._admission = admission
        self._names = names

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """The object. Raises 404."""
        found = self._store.get(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def create(self, resource: Resource, namespace: str, obj: Obj, *, dry_run: bool = False) -> Obj:
        """A new object, through defaults, admission and validation."""
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        self._place(resource, namespace, meta)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(self._names.choices(_SUFFIX, k=5))
        if resource.namespaced:
            self._admission.namespace_is_open(resource, namespace, meta.get("name", ""))
        if meta.pop("resourceVersion", ""):
            raise internal("resourceVersion should not be set on objects to be created")
        obj = {"kind": resource.kind, "apiVersion": resource.api_version} | obj
        apply_defaults(resource, obj)
        self._admission.mutate(resource, namespace, obj)
        if meta.get("name"):
            prepare_create(resource, obj)
        exists = meta.get("name") and self._store.get(resource, namespace, meta["name"]) is not None
        self._admission.validate(resource, namespace, obj, charge=not dry_run and not exists)
        if exists:
            raise already_exists(resource, meta["name"])
        return obj if dry_run else self._store.create(resource, obj)

    def update(
        self, resource: Resource, namespace: str, name: str, obj: Obj, *, subresource: str = "", dry_run: bool = False
    ) -> Obj:
        """Replace an object, or only its status."""
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        if meta.get("name", name) != name:
            raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
        self._place(resource, namespace, meta)
        old = self.get(resource, namespace, name)
        meta["name"] = name
        version = meta.get("resourceVersion") or old["metadata"]["resourceVersion"]
        if version != old["metadata"]["resourceVersion"]:
            raise conflict(resource, name)
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise self._wrong_uid(resource, name, meta["uid"], old)
        new = self._merged(resource, old, obj, subresource)
        if subresource != "finalize":
            validate_update(resource, old, new)
        if dry_run:
            return new
        return self._finish(resource, self._store.replace(resource, new))

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        shape: str,
        patch: Any,
        *,
        subresource: str = "",
        dry_run: bool = False,
        validation: str = "Warn",
    ) -> Obj:
        """Change part of an object. Applying what is not there creates it."""
        found = self._store.get(resource, namespace, name)
        if found is None and shape == APPLY:
            if not isinstance(patch, dict):
                raise bad_request("the patch is not an object")
            patch.setdefault("metadata", {}).setdefault("name", name)
            return self.create(resource, namespace, check(resource, patch, validation).obj, dry_run=dry_run)
        old = self.get(resource, namespace, name)
        patched = check(resource, apply_patch(shape, old, patch), validation).obj
        if resource is SECRETS:
            apply_defaults(resource, patched)
        return self.update(resource, namespace, name, patched, subresource=subresource, dry_run=dry_run)

    def delete(self, resource: Resource, namespace: str, name: str, options: Obj, *, dry_run: bool = False) -> Obj:
        """Delete, or begin to. The answer is the object or a Status, as the real server chooses."""
        found = self.get(resource, namespace, name)
        self._preconditions(resource, found, options.get("preconditions") or {})
        if dry_run:
            return found
        grace = _grace(resource, found, options.get("gracePeriodSeconds"))
        left = self._begin_delete(resource, found, grace)
        if left is not None or resource.returns_deleted:
            return left or found
        body: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return body | {"details": details_of(resource, name, uid=found["metadata"]["uid"])}

    def finish_delete(self, resource: Resource, obj: Obj) -> None:
        """The kubelet or a controller is through with it."""
        found = self._store.get(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if found is not None and found["metadata"]["uid"] == obj["metadata"]["uid"]:
            self._begin_delete(resource, found, 0)

    def _begin_delete(self, resource: Resource, found: Obj, grace: int) -> Obj | None:
        meta = found["metadata"]
        held = bool(meta.get("finalizers")) or resource is NAMESPACES
        if not held and grace == 0:
            self._store.remove(resource, found)
            return None
        pending = meta.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in meta and pending is not None and grace >= pending:
            return found
        when = datetime.now(UTC) + timedelta(seconds=grace)

        def mark(obj: Obj) -> None:
            obj["metadata"]["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
            obj["metadata"]["deletionGracePeriodSeconds"] = grace
            if resource is NAMESPACES:
                obj["status"]["phase"] = "Terminating"
                del obj["metadata"]["deletionGracePeriodSeconds"]
            elif resource is PODS:
                obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1

        return self._store.edit(resource, found, mark)

    def _finish(self, resource: Resource, obj: Obj) -> Obj:
        """An update that took the last finalizer of a deleted object ends it."""
        meta = obj["metadata"]
        done = "deletionTimestamp" in meta and not meta.get("finalizers")
        if resource is NAMESPACES:
            done = done and not obj.get("spec", {}).get("finalizers")
        if done and (resource is not PODS or meta.get("deletionGracePeriodSeconds") == 0):
            return self._store.remove(resource, obj)
        return obj

    def _preconditions(self, resource: Resource, found: Obj, wanted: Obj) -> None:
        name, meta = found["metadata"]["name"], found["metadata"]
        if wanted.get("uid", meta["uid"]) != meta["uid"]:
            raise self._wrong_uid(resource, name, wanted["uid"], found)
        version = wanted.get("resourceVersion", meta["resourceVersion"])
        if version != meta["resourceVersion"]:
            why = (
                f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: "
                f"{meta['resourceVersion']}"
            )
            raise conflict(resource, name, why)

    @staticmethod
    def _wrong_uid(resource: Resource, name: str, uid: str, found: Obj) -> StatusError:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {found['metadata']['uid']}"
        return conflict(resource, name, why)

    @staticmethod
    def _place(resource: Resource, namespace: str, meta: Obj) -> None:
        if not resource.namespaced:
            meta.pop("namespace", None)
            return
        if meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        meta["namespace"] = namespace

    @staticmethod
    def _merged(resource: Resource, old: Obj, obj: Obj, subresource: str) -> Obj:
        if subresource == "status":
            return copy.deepcopy(old) | {"status": obj.get("status", {})}
        new: Obj = {"kind": resource.kind, "apiVersion": resource.api_version} | obj
        for name in _KEPT:
            new["metadata"].pop(name, None)
            if name in old["metadata"]:
                new["metadata"][name] = old["metadata"][name]
        if "deletionTimestamp" in old["metadata"]:
            kept = [f for f in new["metadata"].get("finalizers", []) if f in old["metadata"].get("finalizers", [])]
            new["metadata"]["finalizers"] = kept
        if not new["metadata"].get("finalizers"):
            new["metadata"].pop("finalizers", None)
        if resource.subresources and "status" in resource.subresources:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
        if resource is NAMESPACES and subresource != "finalize":
            new["spec"] = copy.deepcopy(old["spec"])
        apply_defaults(resource, new)
        return new


def _grace(resource: Resource, found: Obj, asked: int | None) -> int:
    if resource is not PODS:
        return 0
    ended = found.get("status", {}).get("phase") in ("Succeeded", "Failed")
    if ended or not found["spec"].get("nodeName"):
        return 0
    grace = found["spec"]["terminationGracePeriodSeconds"] if asked is None else asked
    return 1 if grace < 0 else int(grace)
