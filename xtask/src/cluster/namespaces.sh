# The first process of the cluster's namespaces: `sh -c THIS sh PROGRAM ARGS...`. It prepares the network and the mounts,
# runs the program and waits for what the program leaves behind; when it ends, the kernel ends everything else inside.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

# `ip netns` writes there, and so do the programs of the cluster. Nothing of it is seen outside, or left.
mount -t tmpfs -o mode=0755 cluster /run
mkdir /run/netns

printf '127.0.0.1 localhost\n::1 localhost\n' >/run/hosts
mount --bind /run/hosts /etc/hosts

ip link set lo up
ip link add br0 type bridge
ip address add 10.244.0.1/16 dev br0
ip link set br0 up

set +e
"$@"
exit $?
