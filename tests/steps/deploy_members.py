"""The members that Compose and Kubernetes know, of those kinds of objects that the files of deploy/ have.

Both programs refuse a member that they do not know, or, worse, ignore it: a misspelt probe is no probe. A new member is added here
with its description at hand: https://docs.docker.com/reference/compose-file/ and https://kubernetes.io/docs/reference/kubernetes-api/.
"""

# A member is a value (None), an object with these members, a list of them ([...]), or an object with names of one's own ({"*": …}).
_PROBE = {"httpGet": {"path": None, "port": None, "scheme": None}, "periodSeconds": None, "timeoutSeconds": None, "failureThreshold": None}
_METADATA = {"name": None, "labels": {"*": None}, "annotations": {"*": None}, "namespace": None}
_SELECTOR = {"matchLabels": {"*": None}}
_CONTAINER = {
    "name": None,
    "image": None,
    "ports": [{"name": None, "containerPort": None, "protocol": None}],
    "env": [{"name": None, "value": None}],
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {"preStop": {"exec": {"command": None}}},
    "resources": {"requests": {"cpu": None, "memory": None}, "limits": {"cpu": None, "memory": None}},
    "securityContext": {"allowPrivilegeEscalation": None, "readOnlyRootFilesystem": None, "capabilities": {"drop": None}},
    "volumeMounts": [{"name": None, "mountPath": None, "readOnly": None}],
}
_POD = {
    "automountServiceAccountToken": None,
    "terminationGracePeriodSeconds": None,
    "securityContext": {"runAsNonRoot": None, "runAsUser": None, "fsGroup": None, "seccompProfile": {"type": None}},
    "containers": [_CONTAINER],
    "volumes": [{"name": None, "secret": {"secretName": None, "defaultMode": None}}],
}
_SPECS = {
    ("apps/v1", "Deployment"): {
        "replicas": None,
        "selector": _SELECTOR,
        "strategy": {"type": None, "rollingUpdate": {"maxUnavailable": None, "maxSurge": None}},
        "template": {"metadata": _METADATA, "spec": _POD},
    },
    ("v1", "Service"): {"selector": {"*": None}, "ports": [{"name": None, "port": None, "targetPort": None, "protocol": None}], "type": None},
    ("policy/v1", "PodDisruptionBudget"): {"minAvailable": None, "maxUnavailable": None, "selector": _SELECTOR},
}

COMPOSE = {
    "services": {
        "*": {
            "image": None,
            "build": {"context": None, "dockerfile": None},
            "deploy": {"replicas": None},
            "restart": None,
            "stop_grace_period": None,
            "read_only": None,
            "cap_drop": None,
            "security_opt": None,
            "tmpfs": None,
            "environment": {"*": None},
            "secrets": None,
            "depends_on": None,
            "volumes": None,
            "ports": None,
            "healthcheck": {"test": None, "interval": None, "timeout": None, "retries": None, "start_period": None},
        }
    },
    "secrets": {"*": {"file": None}},
    "volumes": {"*": None},
}


def kubernetes(document):
    """The members of a document of this kind, or None for an unknown kind."""
    spec = _SPECS.get((document.get("apiVersion"), document.get("kind")))
    return spec and {"apiVersion": None, "kind": None, "metadata": _METADATA, "spec": spec}


def unknown(value, members, path=""):
    """Lists the paths of members that there are not."""
    if members is None:
        return []
    if isinstance(members, list):
        if not isinstance(value, list):
            return [f"{path} (not a list)"]
        return [found for place, one in enumerate(value) for found in unknown(one, members[0], f"{path}[{place}]")]
    if not isinstance(value, dict):
        return [f"{path} (not an object)"]
    found = []
    for name, part in value.items():
        known = "*" in members or name in members
        found += unknown(part, members.get(name, members.get("*")), f"{path}.{name}") if known else [f"{path}.{name}"]
    return found
