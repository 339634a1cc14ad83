"""containerd-shim-innkeeper-v2: containerd's containers and pods in VMs with our guest.

containerd starts the program once for a container, or once for a pod. It makes a process that
serves containerd's task service on a unix socket and owns one VM. Nothing here installs, downloads,
builds or probes anything: what the VM is made of is in one configuration file.

    containerd --start--> main -> bootstrap -> daemon --fork--> server -> task_service
    task_service -> pod -> vm
    task_service -> processes -> guest
"""
