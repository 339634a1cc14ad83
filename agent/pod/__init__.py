"""What a host's request becomes in the guest: shared namespaces, devices by the guest's numbers, hooks of the guest's own."""
