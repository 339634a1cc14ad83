"""A cluster of one node: etcd, Kubernetes' own programs, containerd with our shim, all in namespaces of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tests.kubernetes import certificates, groups, programs
from tests.kubernetes.holder import ADDRESS, Holder
from tests.shim.node import Node

SERVER = "https://127.0.0.1:6443"
SERVICES = "10.96.0"
CONTROLLERS = (
    "deployment",
    "replicaset",
    "statefulset",
    "serviceaccount",
    "root-ca-certificate-publisher",
    "namespace",
    "garbage-collector",
    "node-lifecycle",
    "taint-eviction",
    "endpoints",
    "endpointslice",
    "persistentvolume-binder",
)
"""node-lifecycle takes the taint from a node that is ready, without which no pod is scheduled."""
DEADLINE = 180.0
"""Seconds for a pod: it boots a VM under emulation on a machine that others load."""


class Cluster:
    """What runs in `folder`. Programs are started by `up`."""

    def __init__(self, folder: Path, holder: Holder, node: Node) -> None:
        self.folder, self.holder, self.node = folder, holder, node
        self.group = folder.name
        self._bin = folder / "kube"
        self._keys = folder / "keys"
        self._kubelet: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start all, and wait until the node is ready for pods."""
        self._bin.mkdir()
        for name in programs.NAMES:
            (self._bin / name).symlink_to(programs.kube())
        certificates.make(self._keys, ADDRESS, f"{SERVICES}.1")
        for name in ("admin", "node"):
            certificates.kubeconfig(self._keys, name, SERVER)
        groups.make(self.group)
        self._start("etcd", programs.etcd(), "--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--log-level", "warn")
        self._start_server()
        self.node.up()
        eventually(lambda: self.try_kubectl("get", "--raw", "/readyz").stdout == "ok", self._said("kube-apiserver"), DEADLINE)
        kubeconfig = ("--kubeconfig", self._keys / "admin.kubeconfig", "--leader-elect=false")
        signs = ("--service-account-private-key-file", self._keys / "tokens.key", "--root-ca-file", self._keys / "ca.crt")
        own = ("--authentication-kubeconfig", kubeconfig[1], "--authorization-kubeconfig", kubeconfig[1])
        controllers = ",".join(f"{name}-controller" for name in CONTROLLERS)
        self._start_kube("kube-controller-manager", *kubeconfig, *own, *signs, "--controllers", controllers)
        self._start_kube("kube-scheduler", *kubeconfig, *own)
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet_configuration()))
        self.start_kubelet()
        eventually(self._schedules, self._said("kubelet"), DEADLINE)
        eventually(lambda: self.try_kubectl("get", "serviceaccount", "default").returncode == 0, self._said("kube-controller-manager"))

    def _schedules(self) -> bool:
        """Return whether the node is ready and has no taint."""
        done = self.try_kubectl("get", "node", "node", "-o", "json")
        if done.returncode != 0:
            return False
        node = json.loads(done.stdout)
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", ()))
        return ready and not node["spec"].get("taints")

    def _start(self, name: str, *words: object) -> "subprocess.Popen[bytes]":
        return self.holder.start(name, *words, environment=os.environ)

    def _start_kube(self, name: str, *words: object) -> "subprocess.Popen[bytes]":
        return self._start(name, self._bin / name, *words)

    def _start_server(self) -> None:
        key = self._keys / "tokens.key"
        flags = {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": "127.0.0.1",
            "advertise-address": ADDRESS,
            "endpoint-reconciler-type": "none",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "client-ca-file": self._keys / "ca.crt",
            "tls-cert-file": self._keys / "apiserver.crt",
            "tls-private-key-file": self._keys / "apiserver.key",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": key,
            "service-account-key-file": key,
            "service-cluster-ip-range": f"{SERVICES}.0/24",
            "kubelet-client-certificate": self._keys / "admin.crt",
            "kubelet-client-key": self._keys / "admin.key",
            "kubelet-certificate-authority": self._keys / "ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
            "cert-dir": self.folder / "server",
        }
        self._start_kube("kube-apiserver", *(f"--{name}={value}" for name, value in flags.items()))

    def _kubelet_configuration(self) -> dict[str, Any]:
        return {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": ADDRESS,
            "authentication": {
                "x509": {"clientCAFile": str(self._keys / "ca.crt")},
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(self._keys / "apiserver.crt"),
            "tlsPrivateKeyFile": str(self._keys / "apiserver.key"),
            "containerRuntimeEndpoint": f"unix://{self.folder}/c.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "podLogsDir": str(self.folder / "pods"),
            "volumePluginDir": str(self.folder / "plugins"),
            "resolvConf": "",
            "clusterDNS": [f"{SERVICES}.10"],
            "clusterDomain": "cluster.local",
            "evictionHard": dict.fromkeys(("memory.available", "nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"),
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "syncFrequency": "10s",  # how soon a changed config map is seen; a minute by default
        }

    def start_kubelet(self) -> None:
        """Start kubelet, or start it again. It ends by itself if containerd does not answer then."""
        keys = ("--kubeconfig", self._keys / "node.kubeconfig", "--cert-dir", self.folder / "kubelet-keys")
        places = ("--root-dir", self.folder / "kubelet", "--node-ip", ADDRESS, "--hostname-override", "node")
        socket = ("--containerd", f"{self.folder}/c.sock")  # without it there are no figures of pods' networks
        self._kubelet = self._start_kube("kubelet", "--config", self.folder / "kubelet.json", *keys, *places, *socket)

    @property
    def etcd(self) -> Path:
        """The program of etcd."""
        return programs.etcd()

    def stop_kubelet(self) -> None:
        """End kubelet. Pods go on."""
        assert self._kubelet is not None
        self._kubelet.terminate()
        self._kubelet.wait()

    def _said(self, name: str) -> Any:
        return lambda: self.holder.log(name).read_text()[-3000:]

    def kubectl_argv(self, *words: object) -> list[str]:
        """Return a command line of kubectl."""
        return self.holder.argv(self._bin / "kubectl", "--kubeconfig", self._keys / "admin.kubeconfig", *words)

    def try_kubectl(self, *words: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run kubectl, whatever comes of it."""
        return self.holder.run(self._bin / "kubectl", "--kubeconfig", self._keys / "admin.kubeconfig", *words, **options)

    def kubectl(self, *words: object, **options: Any) -> str:
        """Run a command of kubectl that succeeds. Return its output."""
        done = self.try_kubectl(*words, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def get(self, *words: object) -> Any:
        """Return what `kubectl get` has of an object or of a list."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: Any) -> None:
        """Apply manifests: texts, files, or documents."""
        for one in objects:
            text = one.read_text() if isinstance(one, Path) else one if isinstance(one, str) else json.dumps(one)
            self.kubectl("apply", "-f", "-", input=text)

    def wait(self, what: str, condition: str) -> None:
        """Wait until an object has a condition. What its events say is shown if it does not come."""
        done = self.try_kubectl("wait", what, f"--for={condition}", f"--timeout={DEADLINE:g}s")
        assert done.returncode == 0, (done.stderr, self.kubectl("describe", what), self.events(), self.node.log.read_text()[-3000:])

    def events(self, name: str = "") -> str:
        """Return what events say, of all objects or of one."""
        words = ("--field-selector", f"involvedObject.name={name}") if name else ()
        return self.kubectl("get", "events", *words, "-o", "custom-columns=R:.reason,M:.message", "--no-headers")

    def page(self, url: str) -> str:
        """Return what a server in the cluster's network answers with status 200, or the empty text."""
        done = self.holder.run("curl", "--silent", "--fail", "--max-time", "20", url)
        return done.stdout if done.returncode == 0 else ""

    def machines(self) -> list[Path]:
        """Return the folder in /proc of each QEMU of the cluster."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes()
                program = os.readlink(path / "exe")
            except OSError:  # it has ended
                continue
            if Path(program).name.startswith("qemu-system") and os.fsencode(f"{self.folder}/") in words:
                found.append(path)
        return found

    def down(self) -> None:
        """Remove all pods, and end all programs."""
        if self._kubelet is not None:
            self.try_kubectl("delete", "deployments,statefulsets,pods", "--all", "--now", "--wait", "--timeout=120s")
            self._kubelet.kill()
            self._kubelet.wait()
        for pod in self.node.crictl("pods", "-q").split():  # of a test that has failed
            self.node.crictl("rmp", "--force", pod)
        self.node.stop()
