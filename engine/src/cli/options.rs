//! What becomes of each option of docker's `run`, as one table: the document `engine/OPTIONS.md` is made from it, and a
//! test holds it against the command line. Nothing is accepted and ignored.

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It does what it does in docker, or the note says where it differs.
    Honoured,
    /// It does so where the kernel can; elsewhere the user is told by name.
    Warned,
    /// It is refused by name, unless it asks for what happens anyway.
    Refused,
}

/// An option and a word about it.
struct Row {
    option: &'static str,
    standing: Standing,
    note: &'static str,
}

const fn honoured(option: &'static str, note: &'static str) -> Row {
    Row { option, standing: Standing::Honoured, note }
}

const fn warned(option: &'static str, note: &'static str) -> Row {
    Row { option, standing: Standing::Warned, note }
}

const fn refused(option: &'static str, note: &'static str) -> Row {
    Row { option, standing: Standing::Refused, note }
}

/// Every option of `run` in the order of the alphabet.
const OPTIONS: &[Row] = &[
    honoured("add-host", "a line of /etc/hosts; `host-gateway` is the gateway of the first network"),
    honoured("annotation", "kept and shown by `inspect`; nothing of this engine reads it"),
    honoured("attach", "only the streams named; with neither output the id is printed"),
    warned("blkio-weight", "needs a kernel whose scheduler weighs (BFQ, or io.cost with cgroup2)"),
    warned("blkio-weight-device", "as `blkio-weight`"),
    honoured("cap-add", "cut to what the engine itself may do"),
    honoured("cap-drop", "dropped before any is added"),
    honoured("cgroup-parent", "a path below each hierarchy; a slice by name lies where systemd has it"),
    honoured("cgroupns", "`private` (the default, on cgroup v1 too) or `host`"),
    honoured("cidfile", "refused when the file exists"),
    refused("cpu-count", "Windows only"),
    refused("cpu-percent", "Windows only"),
    warned("cpu-period", "needs the cpu controller"),
    warned("cpu-quota", "needs the cpu controller"),
    warned("cpu-rt-period", "cgroup v1 with real-time groups only"),
    warned("cpu-rt-runtime", "cgroup v1 with real-time groups only"),
    warned("cpu-shares", "needs the cpu controller; a weight with cgroup2"),
    warned("cpus", "needs the cpu controller; refused above the machine's number"),
    warned("cpuset-cpus", "needs the cpuset controller; refused where there is no such processor"),
    warned("cpuset-mems", "needs the cpuset controller; refused where there is no such node"),
    honoured("detach", "prints the id"),
    honoured("detach-keys", ""),
    honoured(
        "device",
        "a node, a directory of nodes, or a CDI name (`vendor.com/class=name`); CDI hooks are warned about",
    ),
    honoured("device-cgroup-rule", ""),
    warned("device-read-bps", "needs the block device controller"),
    warned("device-read-iops", "needs the block device controller"),
    warned("device-write-bps", "needs the block device controller"),
    warned("device-write-iops", "needs the block device controller"),
    refused("disable-content-trust", "signatures are never verified: only `true` is possible"),
    honoured("dns", ""),
    honoured("dns-option", ""),
    honoured("dns-search", "`.` for none"),
    honoured("domainname", ""),
    honoured("entrypoint", "the empty one clears the image's"),
    honoured("env", "a name alone takes the value from here, or removes the image's"),
    honoured("env-file", "values as they stand, no quoting; a name alone takes the value from here"),
    honoured("expose", ""),
    honoured(
        "gpus",
        "the CDI devices `nvidia.com/gpu=…`, or `amd.com/gpu=…` with `driver=amd`, from /etc/cdi and /var/run/cdi",
    ),
    honoured("group-add", ""),
    honoured("health-cmd", "`CMD-SHELL`, as in docker"),
    honoured("health-interval", "alone it changes the image's check"),
    honoured("health-retries", "alone it changes the image's check"),
    honoured("health-start-interval", "alone it changes the image's check"),
    honoured("health-start-period", "alone it changes the image's check"),
    honoured("health-timeout", "alone it changes the image's check"),
    honoured("help", ""),
    honoured("hostname", ""),
    honoured("init", "a part of this program is process 1: it forwards signals and reaps"),
    honoured("interactive", ""),
    refused("io-maxbandwidth", "Windows only"),
    refused("io-maxiops", "Windows only"),
    honoured("ip", "networks made with `network create` only"),
    honoured("ip6", "networks made with `network create` only"),
    honoured("ipc", "`private`, `shareable`, `host`, `none`, `container:NAME` of a shareable one"),
    refused("isolation", "Windows only, but for `default`"),
    refused("kernel-memory", "kernels no longer limit it by itself"),
    honoured("label", ""),
    honoured("label-file", ""),
    honoured(
        "link",
        "the default network: a line of /etc/hosts, made at the start; others: a name only this container knows. No variables",
    ),
    honoured("link-local-ip", ""),
    honoured(
        "log-driver",
        "`json-file`, `local` (both in docker's JSON form, 5 files of 20 MB unless asked otherwise) or `none`; others are refused",
    ),
    honoured(
        "log-opt",
        "`max-size`, `max-file`, `tag`, `labels`, `env`; `compress`, `mode=non-blocking` and `max-buffer-size` are warned about, others refused",
    ),
    honoured("mac-address", ""),
    warned("memory", "needs the memory controller; at least 6m"),
    warned("memory-reservation", "needs the memory controller"),
    warned("memory-swap", "needs a kernel that accounts swap"),
    warned("memory-swappiness", "cgroup v1 only"),
    honoured(
        "mount",
        "`bind`, `volume`, `tmpfs` and `image`, every key; `consistency` has no meaning on Linux; `npipe` and `cluster` are refused",
    ),
    honoured("name", ""),
    honoured(
        "network",
        "`bridge`, `host`, `none`, `container:NAME`, or networks by name, with `alias`, `ip`, `ip6`, `mac-address`, `link-local-ip`, `gw-priority`",
    ),
    honoured("network-alias", "networks made with `network create` only"),
    honoured("no-healthcheck", "not together with the other health options"),
    warned("oom-kill-disable", "cgroup v1 only; also warned about without a memory limit"),
    warned("oom-score-adj", "lowering it takes a right that root may lack"),
    honoured("pid", "`host` or `container:NAME`"),
    warned("pids-limit", "needs the pids controller; 0 and -1 are no limit"),
    warned(
        "platform",
        "another one than the image's is refused; an image that is not for this machine is warned about",
    ),
    honoured("privileged", "what the engine itself may do, and every device"),
    honoured("publish", "discarded with a warning in the host's network"),
    honoured("publish-all", "discarded with a warning in the host's network"),
    honoured("pull", ""),
    honoured("quiet", ""),
    honoured("read-only", ""),
    honoured("restart", "not together with `rm`"),
    honoured("rm", ""),
    refused("runtime", "this engine starts containers itself"),
    warned(
        "security-opt",
        "`seccomp`, `no-new-privileges`, `systempaths`, `writable-cgroups` (cgroup2 only); `apparmor` and `label` are warned about where the kernel has no such module",
    ),
    honoured("shm-size", ""),
    honoured("sig-proxy", ""),
    honoured("stop-signal", ""),
    honoured("stop-timeout", ""),
    refused("storage-opt", "overlay has no options for single containers"),
    honoured("sysctl", "those of the container's own namespaces; others are refused"),
    honoured("tmpfs", "`size`, `mode`, `uid`, `gid`, `nr_inodes`, `exec`, `suid`, `dev`, `ro`"),
    honoured("tty", ""),
    warned("ulimit", "cut to the engine's own hard limit"),
    refused("use-api-socket", "there is no daemon and no socket"),
    honoured("user", ""),
    honoured(
        "userns",
        "`host` (the default), `auto[:size=N]` (a range of its own, of 65536 ids unless asked otherwise) or `map:INSIDE:OUTSIDE:LENGTH[,…]`; not together with `privileged` or namespaces of the host or of other containers",
    ),
    honoured("uts", "`host`, not together with `hostname`"),
    honoured(
        "volume",
        "`ro`, `rw`, `nocopy` and propagation; `z` and `Z` are refused on SELinux; `cached` and the like have no meaning on Linux",
    ),
    refused("volume-driver", "only `local`"),
    honoured("volumes-from", "`ro` or `rw`"),
    honoured("workdir", ""),
];

/// The table as a document.
fn document() -> String {
    let mut text = String::from(
        "# Options of `rengine run` and `create`\n\n\
         What becomes of each option of `docker run`. It is *honoured* (it does what it does in docker, or the note says \
         where it differs), *warned* about where this kernel cannot do it, or *refused* by name unless it asks for what \
         happens anyway. Nothing is accepted and ignored.\n\n\
         This file is made from `engine/src/cli/options.rs`; a test holds both against the command line.\n\n\
         | option | | |\n| --- | --- | --- |\n",
    );
    for Row { option, standing, note } in OPTIONS {
        let standing = match standing {
            Standing::Honoured => "honoured",
            Standing::Warned => "warned",
            Standing::Refused => "refused",
        };
        text.push_str(&format!("| `--{option}` | {standing} | {note} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Args;

    use super::*;
    use crate::cli::container::RunArgs;

    /// The options of docker 29's `run`, from its own help.
    const DOCKERS: &str = "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent \
        cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus \
        cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops \
        device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint env \
        env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval \
        health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc \
        isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory \
        memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck \
        oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only \
        restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit \
        use-api-socket user userns uts volume volume-driver volumes-from workdir";

    fn listed() -> BTreeSet<&'static str> {
        OPTIONS.iter().map(|row| row.option).collect()
    }

    #[test]
    fn the_table_and_the_command_line_have_the_same_options() {
        let run = RunArgs::augment_args(clap::Command::new("run"));
        let flags: BTreeSet<&str> = run.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert_eq!(flags, listed());
        assert_eq!(listed().len(), OPTIONS.len());
        assert!(OPTIONS.is_sorted_by_key(|row| row.option));
    }

    #[test]
    fn every_option_of_dockers_is_in_the_table() {
        let missing: Vec<_> = DOCKERS.split_whitespace().filter(|name| !listed().contains(name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn an_option_that_is_refused_is_not_shown_in_the_help() {
        let run = RunArgs::augment_args(clap::Command::new("run"));
        for row in OPTIONS.iter().filter(|row| row.standing == Standing::Refused) {
            let argument = run.get_arguments().find(|one| one.get_long() == Some(row.option)).unwrap();
            assert!(argument.is_hide_set(), "{}", row.option);
        }
    }

    #[test]
    fn the_document_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/OPTIONS.md");
        if std::env::var_os("WRITE_OPTIONS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == document(), "write it anew: WRITE_OPTIONS=1 cargo test -p engine --lib options");
    }
}
