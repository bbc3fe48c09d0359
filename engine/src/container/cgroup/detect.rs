//! Which hierarchy owns which controller on this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::rootless::{self, delegation};

/// A kind of resource that the kernel can limit or count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Processor time: weight and quota.
    Cpu,
    /// Processor time: counting (v1 only; v2 counts everywhere).
    Cpuacct,
    /// Which processors and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Access to device nodes (v1 only; v2 has programs for it).
    Devices,
    /// Stopping and going on (v1 only; v2 has it everywhere).
    Freezer,
    /// Processes and threads.
    Pids,
    /// Block devices: `blkio` in v1, `io` in v2.
    Io,
    /// Huge pages.
    Hugetlb,
}

/// The hierarchies mounted on a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    v1: Vec<V1Mount>,
    unified: Option<UnifiedMount>,
}

/// One v1 hierarchy with the controllers it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Mount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// What it owns; several when they are mounted together (`cpu,cpuacct`).
    pub controllers: Vec<Controller>,
}

/// The cgroup2 hierarchy with the controllers it has been left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnifiedMount {
    /// Where it is mounted; for an ordinary user's engine, the group that the user has been given.
    pub path: PathBuf,
    /// What it owns and this engine uses; often nothing beside v1 hierarchies.
    pub controllers: Vec<Controller>,
}

const ALL: [Controller; 9] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Devices,
    Controller::Freezer,
    Controller::Pids,
    Controller::Io,
    Controller::Hugetlb,
];

// === impl Layout ===

impl Layout {
    /// The layout of this machine, from the kernel's list of mounts.
    pub fn detect() -> io::Result<Self> {
        let mut layout = Self::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?);
        if rootless::is_inside() {
            // What an ordinary user has not been given is as good as not there.
            let is_given = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
            layout.v1.retain(|mount| is_given(&mount.path));
            layout.unified = layout.unified.filter(|mount| is_given(&mount.path));
            layout.unified = layout.unified.or_else(|| delegation::group().map(UnifiedMount::at));
        }
        Ok(layout)
    }

    /// The layout that a list of mounts describes (proc_pid_mountinfo(5)). A hierarchy mounted twice counts once.
    pub fn from_mountinfo(text: &str) -> Self {
        let mut layout = Self::default();
        for line in text.lines() {
            let Some((mount, super_block)) = line.split_once(" - ") else { continue };
            let Some(path) = mount.split(' ').nth(4).map(unescape) else { continue };
            let mut fields = super_block.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) if layout.unified.is_none() => {
                    layout.unified = Some(UnifiedMount::at(path));
                }
                (Some("cgroup"), Some(options)) => layout.add_v1(path, options),
                _ => {}
            }
        }
        layout
    }

    /// The cgroup2 hierarchy.
    pub fn unified(&self) -> Option<&UnifiedMount> {
        self.unified.as_ref()
    }

    /// The v1 hierarchy that owns a controller.
    pub fn v1_mount(&self, controller: Controller) -> Option<&V1Mount> {
        self.v1.iter().find(|mount| mount.controllers.contains(&controller))
    }

    /// All v1 hierarchies.
    pub fn v1_mounts(&self) -> &[V1Mount] {
        &self.v1
    }

    /// Every place where a hierarchy is mounted.
    pub fn mounts(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|mount| mount.path.as_path());
        v1.chain(self.unified.iter().map(|mount| mount.path.as_path()))
    }

    fn add_v1(&mut self, path: PathBuf, options: &str) {
        let owned = options.split(',').filter_map(Controller::named);
        let controllers: Vec<_> = owned.filter(|&owned| self.v1_mount(owned).is_none()).collect();
        if !controllers.is_empty() {
            self.v1.push(V1Mount { path, controllers });
        }
    }
}

// === impl UnifiedMount ===

impl UnifiedMount {
    /// The hierarchy from this group on.
    fn at(path: PathBuf) -> Self {
        let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        let controllers = controllers.split_whitespace().filter_map(Controller::named).collect();
        Self { path, controllers }
    }
}

// === impl Controller ===

impl Controller {
    /// The kernel's name for it, v2's where there are two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Pids => "pids",
            Self::Io => "io",
            Self::Hugetlb => "hugetlb",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let name = if name == "blkio" { Self::Io.name() } else { name };
        ALL.into_iter().find(|controller| controller.name() == name)
    }
}

/// Mount points have spaces, tabs, newlines and backslashes written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut rest = text;
    let mut path = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let digits = after.get(..3).unwrap_or_default();
        match u8::from_str_radix(digits, 8) {
            Ok(byte) => {
                path.push(char::from(byte));
                rest = &after[3..];
            }
            Err(_) => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: &Path, kind: &str, options: &str) -> String {
        format!("31 23 0:28 / {} rw,relatime shared:9 - {kind} cgroup rw,{options}\n", path.display())
    }

    #[test]
    fn every_controller_has_the_owner_the_machine_gave_it() {
        let tree = tempfile::tempdir().unwrap();
        let unified = tree.path().join("unified");
        fs::create_dir(&unified).unwrap();
        fs::write(unified.join("cgroup.controllers"), "hugetlb memory pids\n").unwrap();
        let text = mount(Path::new("/sys/fs/cgroup/cpu,cpuacct"), "cgroup", "cpu,cpuacct")
            + &mount(Path::new("/sys/fs/cgroup/systemd"), "cgroup", "xattr,name=systemd")
            + &mount(Path::new("/sys/fs/cgroup/devices"), "cgroup", "devices")
            + &mount(&unified, "cgroup2", "nsdelegate")
            + &mount(Path::new("/elsewhere/devices"), "cgroup", "devices");
        let layout = Layout::from_mountinfo(&text);
        let cpu = layout.v1_mount(Controller::Cpu).unwrap();
        assert_eq!(cpu.path, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.v1_mount(Controller::Cpuacct), Some(cpu));
        assert_eq!(layout.v1_mount(Controller::Memory), None);
        let left = [Controller::Hugetlb, Controller::Memory, Controller::Pids];
        assert_eq!(layout.unified().unwrap().controllers, left);
        assert_eq!(layout.mounts().count(), 3);
    }

    #[test]
    fn a_machine_without_control_groups_has_an_empty_layout() {
        let text = "23 1 0:21 / /proc rw - proc proc rw\nnonsense\n";
        assert_eq!(Layout::from_mountinfo(text), Layout::default());
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/with\040space\134"), Path::new(r"/with space\"));
    }
}
