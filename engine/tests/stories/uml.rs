//! The same stories where everything is cgroup2: a user-mode Linux kernel booted over this machine's own files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::world::Running;

/// The stories that need a kernel with control groups and overlayfs, and no network but a tap. User-mode Linux has no
/// nf_tables.
const STORIES: &str = "cgroup:: limits:: oci::life::a_bundle_goes oci::life::it_answers \
                       rootless::a_control_group";

#[test]
fn the_stories_of_limits_hold_on_pure_cgroup2() {
    let kernel = Path::new("/usr/bin/linux.uml");
    assert!(kernel.exists(), "the package user-mode-linux is installed, as make test does");
    let directory = tempfile::Builder::new().prefix("uml-").tempdir().unwrap();
    let (init, result) = (directory.path().join("init"), directory.path().join("result"));
    let memory = directory.path().join("memory");
    fs::create_dir(&memory).unwrap();
    let script = format!(
        "#!/bin/sh
        export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        mount -t proc proc /proc
        mount -t sysfs sys /sys
        mount -t tmpfs run /run
        mount -t tmpfs -o mode=1777 memory {memory}
        mkdir -p /dev/pts /dev/shm /dev/mqueue
        mount -t devpts -o ptmxmode=0666 devpts /dev/pts
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko
        busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/drivers/net/tun.ko
        busybox ip link set lo up
        ulimit -n 4096
        TMPDIR={memory} INSIDE_UML=1 {tests} {STORIES} --test-threads 2 >{output} 2>&1
        echo $? >{result}
        busybox poweroff -f
        ",
        memory = memory.display(),
        tests = std::env::current_exe().unwrap().display(),
        output = directory.path().join("output").display(),
        result = result.display(),
    );
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();

    let xstate = directory.path().join("xstate.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/uml/xstate.c");
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&xstate)
        .arg(source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let mut command = Command::new(kernel);
    command.env("LD_PRELOAD", &xstate);
    command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "mem=1G", "quiet"]);
    command.arg(format!("init={}", init.display()));
    // The kernel's own memory is a file of this directory, not of /dev/shm, which may be small.
    command.args(["con=null", "con0=null,fd:1"]).env("TMPDIR", directory.path());
    let booted = Running::start(&mut command).ends();
    let output = fs::read_to_string(directory.path().join("output")).unwrap_or_default();
    let code = fs::read_to_string(&result).unwrap_or_default();
    assert_eq!(code.trim(), "0", "{output}\n{}", booted.stdout);
    // A filter that matches nothing also succeeds.
    for story in
        ["cgroup::only_listed_devices_open", "a_control_group_that_an_ordinary_user_was_given_is_used"]
    {
        assert!(output.contains(&format!("{story} ... ok")), "{output}");
    }
}
