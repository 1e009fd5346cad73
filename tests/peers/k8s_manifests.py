# SPDX-License-Identifier: Apache-2.0
"""deploy/k8s against the API's own schemas, by kubernetes-validate. MPIJob is an operator's kind without a schema there: its pods are checked.

    tests/peers/run.sh tests/peers/k8s_manifests.py [--source DIR]
"""
import argparse
import pathlib
import sys

try:
    import kubernetes_validate
    import yaml
except ImportError as e:
    print(f"skipped: {e}: run tests/peers/setup.sh", file=sys.stderr)
    sys.exit(77)


def resources(path):
    for doc in yaml.safe_load_all(path.read_text()):
        if doc["kind"] != "MPIJob":
            yield f"{doc['kind']} {doc['metadata']['name']}", doc
            continue
        assert doc["apiVersion"] == "kubeflow.org/v2beta1", doc["apiVersion"]
        roles = doc["spec"]["mpiReplicaSpecs"]
        assert set(roles) == {"Launcher", "Worker"} and roles["Launcher"]["replicas"] == 1, roles.keys()
        for role, spec in roles.items():
            assert set(spec) <= {"replicas", "restartPolicy", "template"}, spec.keys()
            yield f"MPIJob's {role}", {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": role.lower()}, "template": spec["template"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    bad = n = 0
    for path in sorted((args.source / "deploy/k8s").glob("*.yaml")):
        for name, doc in resources(path):
            n += 1
            try:
                kubernetes_validate.validate(doc, kubernetes_validate.latest_version(), strict=True)
                print(f"{path.name}: {name}: good")
            except kubernetes_validate.ValidationError as e:
                bad += 1
                print(f"{path.name}: {name}: {e.message} at {'.'.join(map(str, e.path))}")
    return 1 if bad or n < 8 else 0


if __name__ == "__main__":
    sys.exit(main())
