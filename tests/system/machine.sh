# Starts systemd as process 1 of a machine of its own: its own processes, mounts, cgroups and names, over a copy of the
# root file system that nobody else sees and that is gone with it. The network is that of whoever starts it.
#   machine.sh FOLDER [FROM TO]...     folder for its mounts; what is bound into it, read-only
set -eu
folder=$1
shift
if [ -z "${MACHINE_CGROUP:-}" ]; then
  mkdir "$folder/cgroup"
  mount -t cgroup2 cgroup2 "$folder/cgroup"
  MACHINE_CGROUP="$folder/cgroup/aca-machine-$$"
  mkdir "$MACHINE_CGROUP"
  echo $$ > "$MACHINE_CGROUP/cgroup.procs"
  export MACHINE_CGROUP
  echo "${MACHINE_CGROUP##*/}" # for whoever tidies up
  exec unshare --cgroup --pid --ipc --uts --fork --kill-child -- sh "$0" "$folder" "$@"
fi
root="$folder/root"
mkdir "$folder/layer" "$root"
mount -t tmpfs -o mode=755 tmpfs "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys" # what is set there is everybody's
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run tmp dev etc/systemd; do
  mkdir -p "$root/$place"
  mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
chmod 1777 "$root/tmp"
mkdir "$root/dev/shm" "$root/dev/pts" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
while [ $# -ge 2 ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
done
# Nothing of what is enabled on the host: the journal, the bus, and the names that services order themselves by.
units="$root/etc/systemd/system"
mkdir "$units"
# the kernel's log and its auditing are the host's
printf '[Journal]\nReadKMsg=no\nAudit=\n' > "$root/etc/systemd/journald.conf"
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket dbus.socket dbus.service; do
  cp "/usr/lib/systemd/system/$unit" "$units"
done
for target in sysinit sockets basic network-online multi-user shutdown umount; do
  printf '[Unit]\nDescription=%s\n' "$target" > "$units/$target.target"
done
cat > "$units/machine.target" <<END
[Unit]
Wants=systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service dbus.socket multi-user.target
AllowIsolate=yes
END
mkdir "$root/run/host"
cd "$root"
pivot_root . run/host
umount --lazy run/host
mount --make-rshared / # as outside of a container: systemd mounts credentials in a child
exec env --ignore-environment container=aca PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system \
  /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=no
